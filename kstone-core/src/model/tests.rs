use std::collections::BTreeSet;

use super::*;

fn point(k: usize, records: usize, bits: usize) -> Point {
    let budget = records * 350 * 256;
    let database = DatabaseConfig::new()
        .with_max_memtable_records(records)
        .with_bloom_bits_per_key(bits)
        .with_memory_budget(budget);
    Point::of(&database, &CompactionConfig::new().with_sst_threshold(k))
}

fn workload() -> Workload {
    Workload::inserts(25_600_000, 24, 176)
}

#[test]
fn without_compaction_runs_accumulate() {
    let model = Model::new(workload());
    let on = point(10, 1000, 10);
    let off = Point { compaction_enabled: false, ..on };
    let (on, off) = (model.predict(&on), model.predict(&off));
    assert_eq!((off.flushes_per_stripe, off.write_amplification), (100.0, 1.0));
    // 1 after the first of 100 flushes, 100 after the last.
    assert_eq!(off.average_runs, 50.5);
    assert!(off.read_ns > on.read_ns && off.write_ns < on.write_ns, "{on}\n{off}");
}

#[test]
fn amplification_and_runs_are_those_of_the_policy() {
    // Flushes per stripe, K, write amplification of merges, average runs: results of simulating the policy.
    for (flushes, k, amplification, runs) in [
        (100, 5, 3.40, 3.3),
        (100, 10, 1.98, 6.2),
        (100, 20, 0.90, 10.5),
        (1000, 4, 12.6, 2.8),
        (1000, 10, 3.63, 7.2),
        (10_000, 5, 15.7, 3.8),
        (10_000, 10, 5.71, 7.8),
    ] {
        let model = Model::new(Workload::inserts(flushes * 256 * 1000, 24, 176));
        let prediction = model.predict(&point(k, 1000, 10));
        assert_eq!(prediction.flushes_per_stripe, flushes as f64);
        let within = |a: f64, b: f64| (a / b - 1.0).abs() < 0.05;
        assert!(within(prediction.write_amplification - 1.0, amplification), "{flushes} {k}: {prediction}");
        assert!(within(prediction.average_runs, runs), "{flushes} {k}: {prediction}");
    }
    assert_eq!(DepthRule::after(0, 10), DepthRule::default());
    assert_eq!(DepthRule::after(1_000_000, 2).average_runs, 1.0);
    // Ends, whatever is asked.
    assert_eq!(DepthRule::after(u64::MAX, 3), DepthRule::after(1_000_000_000_000, 3));
}

#[test]
fn more_of_a_setting_moves_what_it_should() {
    let model = Model::new(workload());
    let predict = |k, records, bits| model.predict(&point(k, records, bits));
    // Not compared between neighbours: right after a large merge the amplification is higher for a while.
    for records in [200, 500, 1000] {
        let (small, large) = (predict(10, records, 10), predict(10, records * 10, 10));
        assert!((small.flushes_per_stripe / large.flushes_per_stripe - 10.0).abs() < 1e-9);
        assert!(small.write_amplification > large.write_amplification);
        assert!(small.memtable_bytes < large.memtable_bytes && small.replay_ns < large.replay_ns);
    }
    for k in 4..30 {
        let (few, many) = (predict(k, 1000, 10), predict(k + 1, 1000, 10));
        assert!(few.write_amplification * 1.15 >= many.write_amplification, "{k}");
        assert!(few.average_runs < many.average_runs, "{k}");
        assert_eq!(few.filter_tests_per_miss, few.average_runs);
    }
    for k in 4..20 {
        let (few, many) = (predict(k, 1000, 10), predict(k + 10, 1000, 10));
        assert!(few.write_amplification > many.write_amplification, "{k}");
    }
    for bits in 6..20 {
        let (few, many) = (predict(10, 1000, bits), predict(10, 1000, bits + 1));
        assert!(few.false_positive_rate > many.false_positive_rate, "{bits} bits");
        assert!(few.filter_bytes < many.filter_bytes && few.block_reads_per_miss > many.block_reads_per_miss);
    }
}

/// The arithmetic figures in the chapter on tuning.
#[test]
fn sizes_are_those_of_the_formulas() {
    let prediction = Model::new(workload()).predict(&point(10, 1000, 10));
    assert_eq!(prediction.memtable_bytes, 256.0 * 1000.0 * 296.0);
    assert_eq!(prediction.filter_bytes, 25_600_000.0 * 10.0 / 8.0);
    assert_eq!(prediction.index_bytes, 25_600_000.0 * 5.0);
    assert_eq!(prediction.log_bytes, (256_000.0 + 2000.0) * 256.0);
    assert!((50e6..200e6).contains(&prediction.replay_ns), "{prediction}");
    assert!((1.05..1.2).contains(&prediction.space_amplification), "{prediction}");
}

#[test]
fn a_small_budget_flushes_before_the_limit() {
    let mut small = point(10, 10_000, 10);
    small.memory_budget = 256 * 296 * 500;
    assert_eq!(Model::new(workload()).predict(&small).flush_records, 1000.0);
    // The default budget grows with the record limit, up to 512 MiB.
    for (limit, flushed) in [(1000, 1000.0), (10_000, 10_000.0), (100_000, 14_169.9)] {
        let point =
            Point::of(&DatabaseConfig::new().with_max_memtable_records(limit), &CompactionConfig::new());
        let predicted = Model::new(workload()).predict(&point).flush_records;
        assert!((predicted - flushed).abs() < 1.0, "{limit}: {predicted}");
    }
}

/// Simulates uniform overwrites under the depth rule, with full merges when there is as much garbage as live records.
#[test]
fn overwrites_are_estimated_within_a_fifth() {
    let (keys, memtable, flushes, k) = (2000u64, 20, 1000, 10);
    let mut rng = 1u64;
    let mut runs: Vec<(u32, BTreeSet<u64>)> = Vec::new();
    let (mut merged, mut count, mut space) = (0, 0, 0.0);
    for _ in 0..flushes {
        let mut flushed = BTreeSet::new();
        for _ in 0..memtable {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            flushed.insert((rng >> 33) % keys);
        }
        runs.insert(0, (0, flushed));
        let total: usize = runs.iter().map(|(_, run)| run.len()).sum();
        let live = runs.iter().fold(BTreeSet::new(), |all, (_, run)| &all | run).len();
        let take = if total >= 2 * live && runs.len() > 1 {
            runs.len()
        } else if runs.len() >= k {
            let depth = runs[1].0;
            1 + runs[1..].iter().take_while(|run| run.0 <= depth).count()
        } else {
            0
        };
        if take > 0 {
            let inputs: Vec<_> = runs.drain(..take).collect();
            let deepest = inputs.iter().map(|run| run.0).max().unwrap_or(0);
            let run = inputs.iter().fold(BTreeSet::new(), |all, (_, run)| &all | run);
            merged += run.len();
            runs.insert(0, (deepest + u32::from(take < total), run));
        }
        count += runs.len();
        space += runs.iter().map(|(_, run)| run.len()).sum::<usize>() as f64 / live as f64;
    }
    let (writes, flushes) = ((flushes * memtable) as f64, flushes as f64);
    let (amplification, average, space) = (merged as f64 / writes, count as f64 / flushes, space / flushes);

    let workload = Workload { items: keys, writes: writes as u64, stripes: 1, ..workload() };
    let mut at = point(k, memtable, 10);
    at.garbage_percent = 100;
    let prediction = Model::new(workload).predict(&at);
    println!("simulated {amplification:.2}, {average:.1} runs, space {space:.2}; predicted {prediction}");
    assert!(((prediction.write_amplification - 1.0) / amplification - 1.0).abs() < 0.2, "{amplification}");
    assert!((prediction.average_runs / average - 1.0).abs() < 0.2, "{average}");
    let overhead = (200.0 + SST_OVERHEAD + INDEX_BYTES + 10.0 / 8.0) / 200.0;
    assert!((prediction.space_amplification / overhead / space - 1.0).abs() < 0.2, "{space}");
}

#[test]
fn the_presets_of_the_chapter_are_in_the_order_it_says() {
    let model = Model::new(workload());
    let (write, balanced, read) = (
        model.predict(&point(20, 10_000, 10)),
        model.predict(&point(10, 1000, 10)),
        model.predict(&point(5, 1000, 16)),
    );
    assert!(write.write_ns < balanced.write_ns && balanced.write_ns < read.write_ns);
    assert!(read.average_runs < balanced.average_runs);
    assert!(read.block_reads_per_miss < balanced.block_reads_per_miss);
    assert!(write.memtable_bytes > 5.0 * balanced.memtable_bytes);
    let small = model.predict(&point(10, 500, 8));
    assert!(small.memory_bytes() < balanced.memory_bytes() && small.replay_ns < balanced.replay_ns);
}

#[test]
fn the_best_point_suits_the_goal_and_keeps_to_the_constraints() {
    let model = Model::new(Workload { miss_share: 0.5, memory_bytes: Some(2 << 30), ..workload() });
    let best = |goal, constraints: &Constraints| model.best(goal, constraints).unwrap();
    let free = Constraints::default();
    let [balanced, write, read, memory, recovery] =
        [Goal::Balanced, Goal::Write, Goal::Read, Goal::Memory, Goal::Recovery].map(|goal| best(goal, &free));
    for advice in [&balanced, &write, &read, &memory, &recovery] {
        println!("{advice}\n{}\n", advice.prediction);
        assert_eq!((advice.points, advice.allowed), (27 * 9 * 15, 27 * 9 * 15));
        assert_eq!(advice.prediction, model.predict(&advice.point), "the prediction belongs to the point");
        assert_eq!(advice.why.len(), 4);
    }
    assert!(write.prediction.write_ns <= balanced.prediction.write_ns * EQUAL);
    assert!(read.prediction.read_ns <= balanced.prediction.read_ns * EQUAL);
    assert!(write.point.sst_threshold >= read.point.sst_threshold);
    assert!(memory.prediction.memory_bytes() <= balanced.prediction.memory_bytes());
    assert!(recovery.prediction.replay_ns <= balanced.prediction.replay_ns);

    let tight =
        Constraints { replay_ns: Some(60e6), average_runs: Some(4.0), memory_bytes: Some(300 << 20), ..free };
    let advice = best(Goal::Balanced, &tight);
    assert!(tight.replay_ns >= Some(advice.prediction.replay_ns) && advice.prediction.average_runs <= 4.0);
    assert!(advice.prediction.memory_bytes() <= (300 << 20) as f64 && advice.allowed < advice.points);
    let impossible = Constraints { memory_bytes: Some(1000), ..free };
    assert_eq!(model.best(Goal::Read, &impossible), None);
}

const EQUAL: f64 = 1.02;

#[test]
fn it_survives_nonsense_and_says_its_numbers_as_json() {
    for (items, writes, stripes) in
        [(0, 0, 0), (1, 0, 1), (0, 1, 256), (u64::MAX, u64::MAX, 999), (1, u64::MAX, 1)]
    {
        let model = Model::new(Workload { items, writes, stripes, ..workload() });
        let prediction = model.predict(&Point::default());
        let json = serde_json::to_string(&prediction).unwrap();
        assert!(!json.contains("null"), "{json}");
        assert!(model.best(Goal::Balanced, &Constraints::default()).is_some());
    }
}

/// Prints the duration of the search; makes no assertion about it.
#[test]
#[expect(clippy::disallowed_methods, reason = "measures")]
fn the_search_is_quick() {
    let model = Model::new(workload());
    let start = std::time::Instant::now();
    for _ in 0..20 {
        assert!(model.best(Goal::Balanced, &Constraints::default()).is_some());
    }
    println!("{:?} for 3,645 points", start.elapsed() / 20);
}
