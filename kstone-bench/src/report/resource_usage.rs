//! Resource usage, shown with every throughput.

use super::Table;
use super::contest::Contest;
use crate::engine::counter;
use crate::record::Step;
use crate::units::{self, NOTHING};

type Figure = fn(&Step) -> Option<f64>;
type Show = fn(f64) -> String;

/// Medians for each engine, of the machine's resources and of the engine's own counters; empty columns are left out.
pub(super) fn tables(contest: &Contest<'_>) -> [Table; 2] {
    let machine: [(&str, Figure, Show); 8] = [
        ("CPU s per million", cpu, units::digits),
        ("write ampl.", |step| step.write_amplification, units::digits),
        ("space ampl.", |step| step.space_amplification, units::digits),
        ("on disk", |step| some(step.disk_bytes), units::bytes),
        ("written", |step| some(step.resources.write_bytes), units::bytes),
        ("read from disk", |step| some(step.resources.read_bytes), units::bytes),
        ("peak resident", |step| some(step.resources.peak_resident), units::bytes),
        ("anonymous", |step| some(step.resources.peak_anonymous), units::bytes),
    ];
    let within: [(&str, Figure, Show); 9] = [
        ("longest operation", |step| some(step.resources.longest), units::nanoseconds),
        ("stalls", |step| count(step, counter::STALLS), units::count),
        ("stalled in all", |step| count(step, counter::STALL_NANOS), units::nanoseconds),
        ("longest stall", |step| count(step, counter::LONGEST_STALL_NANOS), units::nanoseconds),
        ("flushes", |step| count(step, counter::FLUSHES), units::count),
        ("merges", |step| count(step, counter::COMPACTIONS), units::count),
        ("runs per get", Step::runs_per_get, units::digits),
        ("false positives", Step::false_positives, units::percent),
        ("not found", |step| some(step.not_found), units::count),
    ];
    [
        table(contest, "Resource usage, medians of the trials", &machine),
        table(contest, "Inside the engine, medians of the trials", &within),
    ]
}

fn table(contest: &Contest<'_>, caption: &str, figures: &[(&str, Figure, Show)]) -> Table {
    let mut head = vec!["engine"];
    head.extend(figures.iter().map(|(name, ..)| *name));
    let mut table = Table::new(caption, &head);
    for (series, name) in contest.named() {
        let ours = contest.ours().is_some_and(|ours| ours.label() == series.label());
        let mut cells = vec![name];
        cells.extend(figures.iter().map(|(_, figure, show)| series.median(figure, show)));
        // An engine without any figure needs no row.
        if cells.iter().skip(1).any(|cell| cell != NOTHING) {
            table.push(ours, cells);
        }
    }
    table.without_empty()
}

fn some(value: u64) -> Option<f64> {
    (value > 0).then_some(value as f64)
}

fn count(step: &Step, name: &str) -> Option<f64> {
    step.counters.get(name).copied()
}

fn cpu(step: &Step) -> Option<f64> {
    let seconds = step.resources.cpu_user + step.resources.cpu_system;
    (seconds > 0.0 && step.operations > 0).then(|| seconds * 1e6 / step.operations as f64)
}
