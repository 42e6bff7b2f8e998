//! Figures by the names that advice gives them, from the counters of the engine around a replay.

use kstone_api::{EngineStats, StripeStats};

use crate::chapter::probe::Figures;

/// A figure of advice: its words and its unit.
pub(super) fn name(figure: &str, unit: &str) -> String {
    if unit.is_empty() { figure.to_owned() } else { format!("{figure} [{unit}]") }
}

pub(super) const RATE: &str = "operations a second";

/// The names of latencies, in microseconds.
pub(super) struct Times {
    pub(super) mean: &'static str,
    pub(super) p99: &'static str,
}

pub(super) const GET: Times = Times { mean: "time of a get [us]", p99: "99th percentile of gets [us]" };
pub(super) const PUT: Times = Times { mean: "time of a write [us]", p99: "99th percentile of puts [us]" };
pub(super) const REWRITTEN: &str = "bytes that flushes and merges write per byte put";

/// The state of the engine before the work, after it, after gets of absent keys, and after a scan.
pub(super) struct Seen {
    pub(super) begin: EngineStats,
    pub(super) worked: EngineStats,
    pub(super) probed: EngineStats,
    pub(super) scanned: EngineStats,
    /// Of the log, in bytes.
    pub(super) limit: u64,
}

fn sum(stats: &EngineStats, of: fn(&StripeStats) -> u64) -> f64 {
    stats.stripes.iter().map(of).fold(0, u64::saturating_add) as f64
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// The mean of a figure at the beginning and at the end of the work.
fn during(seen: &Seen, of: impl Fn(&EngineStats) -> Option<f64>) -> Option<f64> {
    Some(f64::midpoint(of(&seen.begin)?, of(&seen.worked)?))
}

/// How much a total grew.
fn grew(from: &EngineStats, to: &EngineStats, of: impl Fn(&EngineStats) -> u64) -> f64 {
    of(to).saturating_sub(of(from)) as f64
}

pub(super) fn of(seen: &Seen) -> Figures {
    let Seen { begin, worked, probed, scanned, limit } = seen;
    let mut figures = Figures::default();
    let mut set = |figure: &str, unit: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            figures.set(&name(figure, unit), value);
        }
    };
    let runs = |stats: &EngineStats| {
        let stripes = stats.stripes.iter().filter(|stripe| stripe.runs > 0).count();
        share(sum(stats, |stripe| stripe.runs as u64), stripes as f64)
    };
    set("runs of a stripe", "", during(seen, runs));
    let probes = grew(worked, probed, |stats| stats.operations.gets);
    let searched = grew(worked, probed, |stats| stats.reads.runs_looked_at);
    set("filters tested by a get of an absent key", "", share(searched, probes));
    let passed = grew(worked, probed, |stats| stats.filter.false_positives);
    let refused = grew(worked, probed, |stats| stats.filter.negatives);
    set("absent keys that pass a filter", "%", share(100.0 * passed, passed + refused));
    let entries = |stats: &EngineStats| stats.amplification.entries;
    set("entries in SSTs per item", "", during(seen, entries));
    set("entries in SSTs per item, once merged", "", during(seen, entries));
    let tombstones = |stats: &EngineStats| {
        share(100.0 * sum(stats, |stripe| stripe.tombstones), sum(stats, |stripe| stripe.entries))
    };
    set("tombstones among the entries", "%", during(seen, tombstones));
    let returned = grew(probed, scanned, |stats| stats.operations.entries_read);
    let skipped = grew(probed, scanned, |stats| stats.operations.entries_passed);
    set("entries read by a scan, per item", "", share(returned + skipped, returned));
    let gets = grew(begin, worked, |stats| stats.operations.gets);
    let (hits, misses) = (
        grew(begin, worked, |stats| stats.block_cache.hits),
        grew(begin, worked, |stats| stats.block_cache.misses),
    );
    set("blocks found in the cache, once it is warm", "%", share(100.0 * hits, hits + misses));
    set("blocks decompressed by a get", "", share(misses, gets));
    set("runs searched by a get", "", share(grew(begin, worked, |stats| stats.reads.runs_looked_at), gets));
    let writes = grew(begin, worked, |stats| stats.operations.puts + stats.operations.deletes);
    let flushes = grew(begin, worked, |stats| stats.flushes);
    set("flushes of such a stripe, per million writes", "", share(1e6 * flushes, writes));
    let held = |stats: &EngineStats| sum(stats, |stripe| stripe.memtable_records as u64);
    set("records in a flush", "", share(writes + held(begin) - held(worked), flushes));
    set("the log", "MB", Some(worked.log_bytes as f64 / 1e6));
    set("the log", "% of its limit", share(100.0 * worked.log_bytes as f64, *limit as f64));
    set("SSTs", "MB", Some(worked.sst_bytes as f64 / 1e6));
    figures
}

/// Adds the memory of memtables at their fullest, filters and indexes; `mapped` is that of the latter two.
pub(super) fn memory(seen: &Seen, mapped: u64, figures: &mut Figures) {
    let memtables =
        [&seen.begin, &seen.worked].map(|stats| sum(stats, |stripe| stripe.memtable_bytes as u64));
    let bytes = memtables[0].max(memtables[1]) + mapped as f64;
    figures.set(&name("memtables, filters and indexes", "MB"), bytes / 1e6);
}

/// Adds what the work cost in flushes and merges, once all of it is done. Only for a work that writes.
pub(super) fn rewritten(begin: &EngineStats, settled: &EngineStats, figures: &mut Figures) {
    let put = grew(begin, settled, |stats| stats.operations.user_bytes_written);
    let tables =
        |stats: &EngineStats| stats.flush_bytes_written.saturating_add(stats.compaction_bytes_written);
    if put > 0.0 {
        figures.set(REWRITTEN, grew(begin, settled, tables) / put);
    }
}

/// Recovery after a kill, in the units that advice uses.
pub(super) fn recovery(nanos: f64) -> Figures {
    let mut figures = Figures::default();
    figures.set(&name("recovery", "ms"), nanos / 1e6);
    for figure in ["recovery after a crash", "recovery after a crash, at most"] {
        figures.set(&name(figure, "s"), nanos / 1e9);
    }
    figures
}

/// Whether a figure is one of [`recovery`], for which the process is killed.
pub(super) fn needs_a_crash(figure: &str) -> bool {
    figure.starts_with("recovery")
}
