//! A test of the scenarios: bugs that only interleavings reveal are planted, and must be found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kstone_shuttle::planted::{Bug, Race, plant, race};
use shuttle::FailurePersistence;

use super::harness::{Done, run};
use super::{close, conditional, reads, space, workers};

/// Number of schedules that a planted race gets before it counts as missed.
const SCHEDULES: usize = 4_000;

/// Runs the scenario until it fails, under at most this many schedules: returns how many it took, and the panic
/// message. With `random` the random half comes first, otherwise the PCT half.
fn hunt(schedules: usize, random: bool, scenario: fn()) -> Option<(u64, String)> {
    let done = Arc::new(Done::default());
    let said = [random, !random].into_iter().find_map(|random| {
        let half = || run(schedules / 2, random, FailurePersistence::None, &done, scenario);
        catch_unwind(AssertUnwindSafe(half)).err()
    })?;
    let text = said.downcast_ref::<String>().cloned();
    let text = text.or_else(|| said.downcast_ref::<&str>().map(|text| (*text).to_string()));
    Some((done.executions.load(Ordering::Relaxed) + 1, text.unwrap_or_default()))
}

/// The scenario that finds a race, and the expected message; `None` if it is harmless alone.
fn scenario_of(race: Race) -> Option<(fn(), &'static str)> {
    Some(match race {
        Race::CloseWithoutGate => (close::close_against_calls, ""),
        Race::PublishedBeforeInserted => (reads::flush_against_snapshot, "the snapshot"),
        Race::StopWithoutLock => (close::close_against_calls, "deadlock"),
        Race::WakeWithoutLock => {
            (workers::budget_against_a_worker_falling_asleep, "a timeout ended the sleep of a worker")
        }
        Race::ListenerKeepsTime => (workers::slow_listener_against_the_sync_interval, "not synced"),
        Race::NewSettingsUnheard => (workers::settings_against_the_one_who_keeps_the_time, "not synced"),
        Race::SealingAskedForAlways => (space::stopped_writer_against_a_slow_flush, "exceeded max_steps"),
        Race::SnapshotBeforeLock => (reads::registering_a_snapshot_against_a_flush, "is gone"),
        Race::WatchAfterSequence => (reads::put_against_a_gap, "is not found"),
        Race::CheckedAtVisible | Race::SeenAfterRead => {
            (conditional::additions_against_flush_and_seal, "an addition is lost")
        }
        Race::RefusedBeforeVisible => {
            (conditional::refusal_against_what_is_not_seen_yet, "what a refusal rests on is not found")
        }
        Race::RotatedBlindly => (space::limit_of_the_log_against_writers, " bytes of "),
        Race::FlushOfUnseen | Race::HorizonAboveVisible => return None,
    })
}

fn report(what: &str, found: Option<(u64, String)>, expected: &str, missed: &mut Vec<String>) {
    let first = |said: &str| said.lines().next().unwrap_or_default().chars().take(90).collect::<String>();
    match found {
        Some((schedules, said)) => {
            println!("{what:40} found in schedule {schedules:>4}: {}", first(&said));
            if !said.contains(expected) {
                missed.push(format!("{what}: {said:?} instead of {expected:?}"));
            }
        }
        None => missed.push(format!("{what}: not found")),
    }
}

#[test]
fn what_only_interleavings_can_find_is_found() {
    let mut missed = Vec::new();
    for &planted in Race::ALL {
        let Some((scenario, expected)) = scenario_of(planted) else { continue };
        let guard = race(&[planted]);
        // Where no thread should be busy, time must not pass while one is.
        let random = planted == Race::SealingAskedForAlways;
        report(&format!("{planted:?}"), hunt(SCHEDULES, random, scenario), expected, &mut missed);
        drop(guard);
    }
    let guard = race(&[Race::FlushOfUnseen, Race::HorizonAboveVisible]);
    let found = hunt(SCHEDULES, false, reads::flush_against_what_is_not_seen_yet);
    report("FlushOfUnseen and HorizonAboveVisible", found, "the key is missing", &mut missed);
    drop(guard);
    let scenarios: [(Bug, fn(), &str); 2] = [
        (Bug::VisibleBeforeVersion, reads::seal_against_get, "the key is missing"),
        (Bug::CheckpointBeforeLogSync, space::checkpoint_against_writers, "is lost"),
    ];
    for (bug, scenario, expected) in scenarios {
        let guard = plant(bug);
        report(&format!("{bug:?}"), hunt(SCHEDULES, false, scenario), expected, &mut missed);
        assert!(guard.hits() > 0);
    }
    assert_eq!(missed, Vec::<String>::new());
}

#[test]
fn either_of_two_keeps_versions_that_are_still_seen() {
    for alone in [Race::FlushOfUnseen, Race::HorizonAboveVisible] {
        let _guard = race(&[alone]);
        let found = hunt(500, false, reads::flush_against_what_is_not_seen_yet);
        assert_eq!(found, None, "{alone:?}");
    }
}
