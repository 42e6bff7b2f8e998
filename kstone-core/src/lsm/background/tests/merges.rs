//! Which merges are due, how many, and beside which other work.

use std::path::Path;
use std::time::Duration;

use super::{Idle, one};
use crate::compaction::picker::Ask;
use crate::config::CompactionConfig;
use crate::key::Key;
use crate::lsm::LsmEngine;
use crate::lsm::background::schedule::{calm_compactions, concurrent_compactions};
use crate::lsm::job::{Slot, StepResult};
use crate::lsm::options::{EngineOptions, WriteOptions};
use crate::parallel::cores;
use crate::sync::atomic::Ordering;

#[test]
fn no_more_compactions_run_than_allowed_the_smallest_first() {
    for allowed in 1..=5 {
        let compaction = CompactionConfig::new().with_sst_threshold(2).with_max_concurrent(allowed);
        let idle = Idle::indebted(compaction);
        let shared = &idle.engine.shared;
        let mut sizes: Vec<_> =
            (0..4).map(|stripe| (shared.compaction_due(stripe, Ask::Due).unwrap(), stripe)).collect();
        sizes.sort_unstable();
        let mut queue = shared.background.queue.lock();
        for running in 0..4 {
            let expected: Vec<Slot> = match running < allowed {
                true => sizes[running..].iter().map(|(_, stripe)| Slot::Compact(*stripe)).collect(),
                false => Vec::new(),
            };
            assert_eq!(shared.due(&mut queue), expected, "{running} of {allowed} running");
            shared.begin(&mut queue, Slot::Compact(sizes[running].1));
        }
    }
}

/// Symptom: on two cores, one get in a hundred took milliseconds while merges of all stripes were due at the same time.
/// Cause: four merges shared the cores with it. Fix: one core stays free unless writers are delayed.
#[test]
fn a_core_is_left_to_callers_until_writers_wait_for_merges() {
    assert_eq!([1, 2, 3, 8].map(calm_compactions), [1, 1, 2, 7]);
    let compaction = CompactionConfig::new().with_sst_threshold(2).with_max_concurrent(3);
    let idle = Idle::indebted(compaction);
    let shared = &idle.engine.shared;
    shared.background.queue.lock().calm = Some(1);
    let due = || idle.due();
    let by_size = due();
    assert_eq!(by_size.len(), 4);
    let begin = |slot| shared.begin(&mut shared.background.queue.lock(), slot);
    begin(by_size[0]);
    assert_eq!(due(), []);
    let Slot::Compact(awaited) = by_size[3] else { panic!("{by_size:?}") };
    let waits = shared.await_merges(&[awaited as u16]);
    assert_eq!(due(), [by_size[3]]);
    drop(waits);
    assert_eq!(due(), []);
    // As many runs as would delay writers, in all stripes.
    idle.two_rounds();
    shared.background.queue.lock().calm = Some(1);
    assert_eq!(due().len(), 3);
    let more = due()[0];
    begin(more);
    assert_eq!(due().len(), 2);
    begin(due()[0]);
    assert_eq!(due(), [], "more than are allowed");

    let engine = LsmEngine::create(Path::new("db"), EngineOptions::memory()).unwrap();
    engine.put(&Key::from("key"), &[], WriteOptions::new()).unwrap();
    assert_eq!(engine.shared.background.queue.lock().calm, Some(calm_compactions(cores())));
}

/// Long merges must leave threads for flushes: those beyond the ones that compactions may occupy.
#[test]
fn compactions_never_take_all_threads() {
    let compaction = CompactionConfig::new().with_sst_threshold(2).with_max_concurrent(256);
    let idle = Idle::new(one().with_stripes(256).with_sync_interval(Duration::ZERO), compaction);
    for _ in 0..2 {
        idle.put(0..2000);
        idle.flush();
    }
    let shared = &idle.engine.shared;
    let mut queue = shared.background.queue.lock();
    let mut running = 0;
    while let Some(&slot) = shared.due(&mut queue).iter().find(|slot| matches!(slot, Slot::Compact(_))) {
        shared.begin(&mut queue, slot);
        running += 1;
    }
    assert_eq!(running, concurrent_compactions(&shared.settings.load().compaction));
    assert!((1..=2 * cores()).contains(&running));
    // Memtables sealed meanwhile come first.
    queue.flush.push_back(7);
    assert_eq!(shared.due(&mut queue).iter().find(|slot| **slot != Slot::Checkpoint), Some(&Slot::Flush(7)));
}

#[test]
fn a_flush_goes_on_beside_a_merge_of_its_stripe() {
    let idle = Idle::new(
        one().with_sync_interval(Duration::ZERO).with_max_memtable_records(1 << 20),
        CompactionConfig::new().with_sst_threshold(2),
    );
    for _ in 0..2 {
        idle.put(0..5000);
        idle.flush();
    }
    let shared = &idle.engine.shared;
    let mut merge = shared.begin(&mut shared.background.queue.lock(), Slot::Compact(0));
    // The merge takes several steps and is paused between two of them.
    for _ in 0..2 {
        assert_eq!(merge.step(shared).unwrap(), StepResult::Again);
    }
    let flushes = shared.observed.counters().flushes.load(Ordering::Relaxed);
    idle.put(5000..5010);
    shared.seal(shared.stripe(0).unwrap());
    assert!(idle.due().contains(&Slot::Flush(0)));
    idle.run(Slot::Flush(0));
    assert_eq!(shared.observed.counters().flushes.load(Ordering::Relaxed), flushes + 1);
    while merge.step(shared).unwrap() == StepResult::Again {}
    shared.end(Slot::Compact(0), merge, Ok(()));
    assert_eq!(shared.stripe(0).unwrap().version().runs.len(), 2);
}

/// Symptom: with many stripes due, a writer stopped by the runs of its stripe waited for seconds. Cause: merges are
/// ordered by size, and its stripe's was the largest. Fix: stripes that writers wait for come first.
#[test]
fn stripes_that_writers_wait_for_are_merged_first() {
    let compaction = CompactionConfig::new().with_sst_threshold(2).with_max_concurrent(1);
    let idle = Idle::indebted(compaction);
    let shared = &idle.engine.shared;
    let by_size = idle.due();
    let Some(&Slot::Compact(largest)) = by_size.last() else { panic!("{by_size:?}") };
    let Slot::Compact(second) = by_size[2] else { panic!("{by_size:?}") };
    assert_eq!(by_size.len(), 4);
    let one = shared.await_merges(&[largest as u16]);
    let other = shared.await_merges(&[largest as u16, second as u16]);
    assert_eq!(idle.due(), [by_size[2], by_size[3], by_size[0], by_size[1]]);
    drop(other);
    assert_eq!(idle.due(), [by_size[3], by_size[0], by_size[1], by_size[2]]);
    drop(one);
    assert_eq!(idle.due(), by_size);
}
