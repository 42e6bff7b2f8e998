//! What the report computes from counters, on counters of the engine itself: a name that is wrong, or a share of the
//! wrong things, does not come near what theory says.

use kstone_bench::data::{BenchKey, Layout, Values};
use kstone_bench::engine::{self, Counters, Durability, EngineSpec};
use kstone_bench::record::{Step, StepSpec, Trial, TrialSpec};
use kstone_bench::report;

use crate::sample;

const ITEMS: u64 = 24_000;

/// Fills a database, then asks for as many keys that it does not have.
fn trial(settings: &str) -> Trial {
    let directory = tempfile::tempdir().unwrap();
    let spec = EngineSpec { settings: settings.to_owned(), ..EngineSpec::new("kstone") };
    let engine = engine::open(&spec, directory.path(), Durability::Buffered).unwrap();
    let values = Values::new(100, 1).unwrap();
    let mut buffer = Vec::new();
    {
        let mut session = engine.session().unwrap();
        for n in 0..ITEMS {
            values.fill(n, 0, &mut buffer);
            session.put(&BenchKey::new(Layout::Scattered, n), &buffer).unwrap();
        }
        engine.settle().unwrap();
        for n in ITEMS..2 * ITEMS {
            assert!(!session.get(&BenchKey::new(Layout::Scattered, n), &mut |_| ()).unwrap());
        }
    }
    let counters = engine.counters().unwrap();
    engine.close().unwrap();
    of(spec, counters)
}

fn of(engine: EngineSpec, counters: Counters) -> Trial {
    let spec = TrialSpec::of(engine, vec![StepSpec::of("readmissing")], ITEMS);
    let workload = "readmissing".to_owned();
    let step = Step { workload, operations: ITEMS, rate: 1.0, counters, ..Step::default() };
    let spec = TrialSpec { value_bytes: 100, seed: 1, ..spec };
    Trial { spec, number: 0, steps: vec![step], error: None, memory_limited: false }
}

/// Column `measured/theory` or `measured/model` of the plot with that title.
fn ratios(file: &[Trial], title: &str, column: usize) -> Vec<f64> {
    let document = report::document(&[sample::file(file.to_vec())]).unwrap();
    let plots: Vec<_> = document.sections.into_iter().flat_map(|section| section.plots).collect();
    let plot = plots.iter().find(|plot| plot.title.ends_with(title)).unwrap();
    let table = plot.table.as_ref().unwrap();
    table.rows.iter().map(|row| row.cells[column].parse().unwrap()).collect()
}

#[test]
fn false_positives_are_what_theory_says() {
    let trials = [4, 6, 10]
        .map(|bits| trial(&format!("stripes=4,max_memtable_records=10000,bloom_bits_per_key={bits}")));
    let ratios = ratios(&trials, "false positives against bits per key", 4);
    println!("measured/theory {ratios:?}");
    assert_eq!(ratios.len(), 3);
    assert!(ratios.iter().all(|ratio| (0.8..1.25).contains(ratio)), "{ratios:?}");
}

#[test]
fn write_amplification_is_near_the_model() {
    // The model knows nothing of merges while the database is idle.
    let settings = "stripes=4,max_memtable_records=200,idle_compaction=0";
    let trials = [4, 10].map(|k| trial(&format!("{settings},sst_threshold={k}")));
    let ratios = ratios(&trials, "write amplification against sst_threshold", 4);
    println!("measured/model {ratios:?}");
    // Merges that come late merge more at once.
    assert!(ratios.len() == 2 && ratios.iter().all(|ratio| (0.4..1.3).contains(ratio)), "{ratios:?}");
}
