//! Advice for a goal: the settings that the cost model prefers for the work seen since open.

use super::situation::{Situation, evidence};
use super::{Advice, Expected, Source, Urgency};
use crate::model::{Constraints, Goal, Point, Prediction};

/// Better by less than this is not worth a change.
const WORTH: f64 = 0.9;

pub(super) fn advise(situation: &Situation<'_>) -> Option<Advice> {
    let goal = situation.goal?;
    let model = situation.model();
    let constraints = Constraints { memory_bytes: situation.memory, ..Constraints::default() };
    let now = situation.point();
    let (before, best) = (model.predict(&now), model.best(goal, &constraints)?);
    let after = best.prediction;
    let of: fn(&Prediction) -> f64 = match goal {
        Goal::Write => |p| p.write_ns,
        Goal::Read => |p| p.read_ns,
        Goal::Memory => Prediction::memory_bytes,
        Goal::Recovery => |p| p.replay_ns,
        Goal::Space => |p| p.sst_bytes,
        _ => |p| p.write_ns + p.read_ns,
    };
    let too_large = situation.memory.is_some_and(|most| before.memory_bytes() > most as f64);
    if !too_large && of(&after) > WORTH * of(&before) {
        return None;
    }
    let workload = model.workload;
    let mb = |bytes: f64| bytes / 1e6;
    let expect = |figure, unit, before, after| Expected { figure, unit, before, after };
    Some(Advice {
        rule: "goal",
        urgency: Urgency::Info,
        cause: format!("other settings suit this work and the goal {} better", name(goal)),
        evidence: vec![
            evidence(
                format!(
                    "{:.0} writes and {:.0} gets a second, {:.0} % of which find nothing; keys of {} \
                     and values of {} bytes",
                    workload.writes_per_second,
                    workload.reads_per_second,
                    100.0 * workload.miss_share,
                    workload.key_bytes,
                    workload.value_bytes
                ),
                Source::Runtime,
            ),
            evidence(
                format!("{} of {} points of the model satisfy the limits", best.allowed, best.points),
                Source::Settings,
            ),
        ],
        settings: difference(&now, &best.point),
        action: "kstone compact DB".into(),
        expected: vec![
            expect("time of a write", "us", before.write_ns / 1e3, after.write_ns / 1e3),
            expect("time of a get", "us", before.read_ns / 1e3, after.read_ns / 1e3),
            expect(
                "memtables, filters and indexes",
                "MB",
                mb(before.memory_bytes()),
                mb(after.memory_bytes()),
            ),
            expect("recovery", "ms", before.replay_ns / 1e6, after.replay_ns / 1e6),
            expect("SSTs", "MB", mb(before.sst_bytes), mb(after.sst_bytes)),
        ],
        cost: "what gets worse among the figures expected".into(),
        check: "kstone stats DB".into(),
    })
}

fn name(goal: Goal) -> &'static str {
    match goal {
        Goal::Write => "write",
        Goal::Read => "read",
        Goal::Memory => "memory",
        Goal::Recovery => "recovery",
        Goal::Space => "space",
        _ => "balanced",
    }
}

/// The settings of `to` that differ from those of `from`.
pub(super) fn difference(from: &Point, to: &Point) -> String {
    let settings = [
        ("compaction_enabled", u64::from(from.compaction_enabled), u64::from(to.compaction_enabled)),
        ("sst_threshold", from.sst_threshold as u64, to.sst_threshold as u64),
        ("max_memtable_records", from.max_memtable_records as u64, to.max_memtable_records as u64),
        ("bloom_bits_per_key", from.bloom_bits_per_key as u64, to.bloom_bits_per_key as u64),
        ("memory_budget", from.memory_budget, to.memory_budget),
    ];
    let differing = settings.iter().filter(|(_, from, to)| from != to);
    differing.map(|(name, _, to)| format!("{name}={to}")).collect::<Vec<_>>().join(",")
}
