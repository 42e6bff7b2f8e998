//! [`CompactionConfig`]: the table of its settings.

use std::time::Duration;

use super::setting::{Bound, Live, Setting, SettingRange};
use super::stored::{InvalidSetting, from_settings, to_settings, usable};
use super::value::{Choices, SettingValue, check, rust_code};
use crate::error::Result;

settings! {
    /// When SSTs are merged, and how many.
    pub struct CompactionConfig;

    /// Whether stripes are compacted automatically.
    enabled: bool {
        builder: disabled(),
        stored: "compaction_enabled",
        default: (true),
        range: (any),
        live: Now,
        group: "compaction",
        more: "off: nothing is merged automatically, and writers are not slowed down by runs: for loading, followed \
               by `trigger_compaction(stripe)` or `compact_all()`, which still work",
        seen_in: "`compactions`",
    }

    /// A stripe is compacted when it has this many runs.
    sst_threshold: usize {
        builder: with_sst_threshold(usize),
        stored: "sst_threshold",
        default: (10 runs),
        range: (2 ..= 1000 runs),
        live: Now,
        group: "compaction",
        more: "less rewriting, faster writes; more runs for reads to search, more space taken by overwritten data",
        seen_in: "`stripes[].runs`, `amplification.write_compaction`",
    }

    /// Seconds between sweeps for stripes that are due for compaction.
    check_interval_secs: u64 {
        builder: with_check_interval(u64),
        stored: "check_interval_secs",
        default: (60 seconds),
        range: (1 ..= 31_536_000 seconds),
        live: Now,
        group: "compaction",
        more: "less work while idle. A flush makes its stripe due at once; the sweep finds the rest, such as \
               tombstones that have grown old and stripes that a new setting has made due",
        seen_in: "`compactions`",
    }

    /// The maximum number of concurrent compactions, each of a different stripe.
    max_concurrent_compactions: usize {
        builder: with_max_concurrent(usize),
        stored: "max_concurrent_compactions",
        default: (4),
        range: (1 ..= 256),
        live: Now,
        group: "compaction",
        more: "merging keeps up with faster writers; takes cores and disk from everything else. One core is left \
               free, if there are two, until a stripe has twice as many runs as the threshold or writers wait for \
               space; then at most two run per core",
        seen_in: "`stalls` for runs",
    }

    /// A stripe is fully merged when its oldest tombstone is older than this; a memtable with a tombstone of that age
    /// is flushed first. So deleted data is gone from the disk by then, or at the next sweep at the latest, even if the
    /// database is only read meanwhile, reopened or not. Changing the wall clock may make this happen earlier, never
    /// later. `None`: age does not matter.
    tombstone_age: Option<Duration> {
        builder: with_tombstone_age(Duration => finite),
        stored: "tombstone_age_ms",
        default: (Some(7 days)),
        range: (1 ms ..= 10 years, or zero: "`Duration::MAX`: never"),
        live: Now,
        group: "compaction",
        more: "deleted data stays on the disk for longer; less rewriting",
        seen_in: "`stripes[].tombstones`; `db.compaction_stats()` by reason",
    }

    /// A stripe is fully merged when more than this percentage of its records are tombstones.
    tombstone_percent: u32 {
        builder: with_tombstone_percent(u32),
        stored: "tombstone_percent",
        default: (25 percent),
        range: (1 ..= 100 percent),
        live: Now,
        group: "compaction",
        more: "more tombstones to skip in scans; less rewriting",
        seen_in: "`stripes[].tombstones` of `stripes[].entries`",
    }

    /// A stripe is fully merged when its shadowed versions are estimated to be at least this percentage of the data
    /// that it would keep.
    garbage_percent: u32 {
        builder: with_garbage_percent(u32),
        stored: "garbage_percent",
        default: (100 percent),
        range: (1 ..= 10_000 percent),
        live: Now,
        group: "compaction",
        more: "more space taken by overwritten data: at 100 half of the stripe is garbage; less rewriting",
        seen_in: "`amplification.space`; `db.compaction_stats()` by reason",
    }

    /// Whether idle stripes are merged while there is no other background work: all of them once nothing was flushed for
    /// two seconds, and any that was not flushed for a whole [`CompactionConfig::check_interval_secs`]. Runs are merged
    /// into an older one when together they have half its bytes, so one or two are left of what was written at once.
    idle_compaction: bool {
        builder: with_idle_compaction(bool),
        stored: "idle_compaction",
        default: (true),
        range: (any),
        live: Now,
        group: "compaction",
        more: "off: stripes below the threshold are not merged while the database is idle. A quieter disk, more runs \
               for reads that follow writes, more space taken by overwritten data",
        seen_in: "`db.compaction_stats()` by reason",
    }

    /// Whether stripes use different thresholds, from [`CompactionConfig::sst_threshold`] down to three quarters of it,
    /// so that stripes that fill at the same time are not all compacted at the same time.
    dephasing: bool {
        builder: with_dephasing(bool),
        stored: "dephasing",
        default: (false),
        range: (any),
        live: Now,
        group: "compaction",
        more: "on: some stripes use a lower threshold, so that stripes that fill together are not merged together. A \
               smoother load, slightly more rewriting",
        seen_in: "`latencies.put`",
    }
}

impl CompactionConfig {
    /// Settings with automatic compaction off.
    pub fn disabled() -> Self {
        Self { enabled: false, ..Self::DEFAULT }
    }

    /// Checks every setting; names the first that is out of range, and why.
    pub fn validate(&self) -> Result<()> {
        check(&self.rows())
    }
}

/// An infinite age means `None`.
fn finite(age: Duration) -> Option<Duration> {
    (age < Duration::MAX).then_some(age)
}
