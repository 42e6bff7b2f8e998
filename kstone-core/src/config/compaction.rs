//! The settings of compaction.

use std::time::Duration;

use super::{InvalidSetting, millis, range, stored, with};
use crate::error::{Error, Result};
use crate::types::MAX_STRIPES;

const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);

/// When and how much SSTs are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionConfig {
    /// Whether stripes are compacted without being asked to. Default true. When off, writes are never slowed
    /// by the number of runs.
    pub enabled: bool,
    /// A stripe is compacted when it has this many runs, at least 2. Default 10. Fewer: faster reads, more
    /// rewriting.
    pub sst_threshold: usize,
    /// Seconds between sweeps that look for stripes due for compaction. Default 60. A flush makes its stripe
    /// due at once, so this bounds only what no flush would notice.
    pub check_interval_secs: u64,
    /// How many compactions run at the same time, each on a stripe of its own. Default 4, at most 256. One core is
    /// left free, if there are two, until a stripe has twice as many runs as the threshold or writers wait for space:
    /// then up to two a core run.
    pub max_concurrent_compactions: usize,
    /// A stripe is merged whole when its oldest tombstone is older than this, and before that a memtable with such a
    /// one is flushed, so that what was deleted is gone from the disk by then, at the latest with the next sweep; also
    /// when the database is only read meanwhile, opened anew or not. A wall clock that is set makes that earlier, never
    /// later. Default 7 days; `None`: age does not count.
    pub tombstone_age: Option<Duration>,
    /// A stripe is merged whole when more than this share of its records are tombstones, in percent, 1 to 100.
    /// Default 25.
    pub tombstone_percent: u32,
    /// A stripe is merged whole when its superseded versions are estimated to be at least this much of what it
    /// would keep, in percent, 1 to 10,000. Default 100: half of the stripe is garbage. Less: less space taken, more
    /// rewriting.
    pub garbage_percent: u32,
    /// Whether stripes that were not flushed for a whole `check_interval_secs` are merged at half of the threshold, but
    /// not below 4 runs, while there is no other background work. Default true.
    pub idle_compaction: bool,
    /// Whether stripes use thresholds that differ, downwards from `sst_threshold`, so that stripes that fill at the
    /// same time are not all compacted at the same time: down to three quarters of it. Default false.
    pub dephasing: bool,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            sst_threshold: 10,
            check_interval_secs: 60,
            max_concurrent_compactions: 4,
            tombstone_age: Some(Duration::from_secs(7 * 86_400)),
            tombstone_percent: 25,
            garbage_percent: 100,
            idle_compaction: true,
            dephasing: false,
        }
    }
}

impl CompactionConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is compacted unless it is asked for.
    pub fn disabled() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    with! {
        /// Sets [`CompactionConfig::sst_threshold`].
        with_sst_threshold(sst_threshold: usize) sst_threshold;
        /// Sets [`CompactionConfig::check_interval_secs`], in seconds.
        with_check_interval(check_interval_secs: u64) check_interval_secs;
        /// Sets [`CompactionConfig::max_concurrent_compactions`].
        with_max_concurrent(max_concurrent_compactions: usize) max_concurrent_compactions;
        /// Sets [`CompactionConfig::tombstone_age`]; `Duration::MAX` means that age does not count.
        with_tombstone_age(tombstone_age: Duration) (tombstone_age < Duration::MAX).then_some(tombstone_age);
        /// Sets [`CompactionConfig::tombstone_percent`].
        with_tombstone_percent(tombstone_percent: u32) tombstone_percent;
        /// Sets [`CompactionConfig::garbage_percent`].
        with_garbage_percent(garbage_percent: u32) garbage_percent;
        /// Sets [`CompactionConfig::idle_compaction`].
        with_idle_compaction(idle_compaction: bool) idle_compaction;
        /// Sets [`CompactionConfig::dephasing`].
        with_dephasing(dephasing: bool) dephasing;
    }

    /// Checks every field; names the first that is out of range, and why.
    pub fn validate(&self) -> Result<()> {
        range("sst_threshold", self.sst_threshold as u64, 2, 1000)?;
        range("check_interval_secs", self.check_interval_secs, 1, 86_400 * 365)?;
        range("tombstone_percent", self.tombstone_percent.into(), 1, 100)?;
        range("garbage_percent", self.garbage_percent.into(), 1, 10_000)?;
        if let Some(age) = self.tombstone_age
            && !(Duration::from_millis(1)..=TEN_YEARS).contains(&age)
        {
            return Err(Error::config("tombstone_age", format!("{age:?} is not between 1 ms and ten years")));
        }
        range("max_concurrent_compactions", self.max_concurrent_compactions as u64, 1, MAX_STRIPES as u64)
    }

    /// Itself, if it is valid.
    pub(crate) fn validated(self) -> Result<Self> {
        self.validate().map(|()| self)
    }

    /// The settings stored in a manifest, as far as they are valid, and which are not.
    pub(crate) fn stored(settings: &[(String, u64)]) -> (Self, Vec<InvalidSetting>) {
        stored(settings, |settings| Self::from_settings(settings).validated())
    }

    pub(crate) fn to_settings(&self) -> Vec<(String, u64)> {
        [
            ("compaction_enabled", u64::from(self.enabled)),
            ("sst_threshold", self.sst_threshold as u64),
            ("check_interval_secs", self.check_interval_secs),
            ("max_concurrent_compactions", self.max_concurrent_compactions as u64),
            // 0 is "never": what is missing means the default.
            ("tombstone_age_ms", self.tombstone_age.map_or(0, millis)),
            ("tombstone_percent", self.tombstone_percent.into()),
            ("garbage_percent", self.garbage_percent.into()),
            ("idle_compaction", self.idle_compaction.into()),
            ("dephasing", self.dephasing.into()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
    }

    pub(crate) fn from_settings(settings: &[(String, u64)]) -> Self {
        let mut config = Self::default();
        for (name, value) in settings {
            match name.as_str() {
                "compaction_enabled" => config.enabled = *value != 0,
                "sst_threshold" => config.sst_threshold = *value as usize,
                "check_interval_secs" => config.check_interval_secs = *value,
                "max_concurrent_compactions" => config.max_concurrent_compactions = *value as usize,
                "tombstone_age_ms" => {
                    config.tombstone_age = (*value > 0).then(|| Duration::from_millis(*value));
                }
                "tombstone_percent" => config.tombstone_percent = u32::try_from(*value).unwrap_or(u32::MAX),
                "garbage_percent" => config.garbage_percent = u32::try_from(*value).unwrap_or(u32::MAX),
                "idle_compaction" => config.idle_compaction = *value != 0,
                "dephasing" => config.dephasing = *value != 0,
                _ => {}
            }
        }
        config
    }
}
