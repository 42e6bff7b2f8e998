//! `kstone-bench torture`, shortly.

#![expect(clippy::unwrap_used, reason = "tests")]

use kstone_bench::torture::{Replay, Torture, table};
use kstone_core::torture::SettingsOf;

fn torture(config: &str) -> Torture {
    let settings = SettingsOf::named(config).unwrap();
    Torture { minutes: 0.0, seed: 1, threads: 2, operations: 20, settings, config: config.into() }
}

fn replay(text: &str) -> Replay {
    text.parse().unwrap()
}

#[test]
fn it_runs_one_workload_a_thread_at_least_and_prints_totals() {
    let mut lines = Vec::new();
    // Time is up at once, or nearly: each thread ends the workload that it began.
    let short = Torture { minutes: 0.01, ..torture("random") };
    let done = short.run(&mut |line| lines.push(line)).unwrap();
    let totals = &done.totals;
    assert!(totals.workloads >= 2 && totals.all_states() > 200, "{totals}");
    let table = table(&done);
    println!("{table}");
    assert!(
        table.contains("crash states") && table.contains("  torn-512") && lines.is_empty(),
        "the first line comes after 30 s"
    );
}

#[test]
fn a_part_of_a_workload_runs_alone() {
    let torture = torture("random");
    let whole = torture.replay(&replay("5")).unwrap();
    let operation = torture.replay(&replay("5:0")).unwrap();
    let kind = torture.replay(&replay("5:0:strict")).unwrap();
    let oracle = torture.replay(&replay("5:3:oracle")).unwrap();
    let (faults, fault) = (whole.faults, torture.replay(&replay("5:0:EIO:17:lasting")).unwrap().faults);
    assert!(faults.all_runs() > 50 && fault.all_runs() == 1 && fault.runs["EIO"] == 1);
    let [whole, operation, kind, oracle] = [whole.totals, operation.totals, kind.totals, oracle.totals];
    assert!(whole.all_states() > operation.all_states() && operation.all_states() > kind.all_states());
    assert!(kind.all_states() > 0 && kind.states["strict"] > 0);
    assert!(oracle.all_states() == 0 && oracle.operations == 6000);
    for wrong in ["", "x", "1:x"] {
        assert!(wrong.parse::<Replay>().is_err(), "{wrong:?}");
    }
}

#[test]
fn settings_of_a_user_are_taken_and_wrong_ones_refused() {
    for config in ["default", "stripes=4,max_memtable_records=7,sst_threshold=2,compression=0"] {
        let done = torture(config).replay(&replay("3")).unwrap();
        assert!(done.faults.all_runs() > 10);
        let totals = done.totals;
        assert!(totals.all_states() > 100 && totals.settings == 0, "{config}: {totals}");
    }
    for wrong in ["tiny", "stripes", "stripes=x", "stripes=3", "no_such=1", "block_size=1"] {
        assert!(SettingsOf::named(wrong).is_err(), "{wrong}");
    }
}
