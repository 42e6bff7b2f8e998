//! `STATS.json`: the statistics of a running database, for tools that read its directory.
//!
//! Written by the background every [`crate::DatabaseConfig::stats_snapshot_interval`], even before the handle's first
//! write, and replaced as a whole: a reader finds either the previous file or the new one. Nothing is synced, since the
//! file is meaningless after a crash; closing removes it.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EngineStats;
use super::events::Event;
use super::settings::Settings;
use super::state::Shared;
use crate::error::{Error, Result};
use crate::latency::Latencies;
use crate::paths;
use crate::vfs::{OpenMode, write_all_at};

/// The contents of `STATS.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatsSnapshot {
    /// [`StatsSnapshot::SCHEMA`]; a file with another value must not be read as this type.
    pub schema: String,
    /// The process that has the database open.
    pub pid: u32,
    /// When it was written, in Unix milliseconds.
    pub unix_ms: u64,
    /// How long the database had been open, in milliseconds.
    pub uptime_ms: u64,
    /// The statistics.
    pub stats: EngineStats,
    /// The latencies.
    pub latencies: Latencies,
}

impl StatsSnapshot {
    /// The file's name in the database directory.
    pub const FILE: &'static str = paths::STATS;
    /// The version of the fields' meaning. Fields may be added without changing it.
    pub const SCHEMA: &'static str = "kstone.stats/1";

    /// The counters of the snapshot, with the sizes of files as they are in `now`, which comes from a read-only handle:
    /// the files describe the present, the counters the past. This is what tools judge that look from outside.
    pub fn stats_beside(&self, now: EngineStats) -> EngineStats {
        let mut stats = EngineStats { stripes: now.stripes, ..self.stats.clone() };
        for stripe in &mut stats.stripes {
            let mut counted = self.stats.stripes.iter();
            let Some(counted) = counted.find(|other| other.stripe == stripe.stripe) else { continue };
            (stripe.writes, stripe.timed_gets) = (counted.writes, counted.timed_gets);
            (stripe.held_up, stripe.held_up_nanos) = (counted.held_up, counted.held_up_nanos);
            stripe.passed_over = counted.passed_over;
        }
        stats.log_bytes = now.log_bytes;
        stats.estimated_recovery_nanos = now.estimated_recovery_nanos;
        stats
    }
}

impl Shared {
    /// How often the file is written, if at all.
    pub(crate) fn stats_interval(&self, settings: &Settings) -> Option<Duration> {
        settings.database.stats_snapshot_interval.filter(|_| !self.io.vfs().is_volatile())
    }

    /// Best effort: a failure only raises an event.
    pub(crate) fn write_stats_file(&self) {
        if let Err(error) = self.try_write_stats_file() {
            self.observed
                .events()
                .raise(Event::BackgroundError { job: "stats".into(), error: error.to_string() });
        }
    }

    fn try_write_stats_file(&self) -> Result<()> {
        let stats = self.engine_stats()?;
        let snapshot = StatsSnapshot {
            schema: StatsSnapshot::SCHEMA.into(),
            pid: std::process::id(),
            unix_ms: self.clock.unix_ms(),
            uptime_ms: stats.uptime_ms,
            stats,
            latencies: self.observed.latencies().latencies(),
        };
        let (path, temporary) = (self.io.dir().join(paths::STATS), self.io.dir().join(paths::STATS_TMP));
        let write = || -> io::Result<()> {
            let mut json = serde_json::to_vec_pretty(&snapshot)?;
            json.push(b'\n');
            self.observed.note_stats_file();
            write_all_at(&*self.io.vfs().open(&temporary, OpenMode::Truncate)?, &json, 0)?;
            self.io.vfs().rename(&temporary, &path)
        };
        write().map_err(Error::io("write", &path))
    }

    /// At close, when the statistics become meaningless: removes the file, including one left behind by a process that
    /// died.
    pub(crate) fn remove_stats_file(&self) {
        if !self.life.is_read_only() && self.observed.may_have_stats_file() {
            for name in [paths::STATS, paths::STATS_TMP] {
                // A file that cannot be removed is overwritten or removed by the next handle.
                let _ = self.io.vfs().remove(&self.io.dir().join(name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::StripeStats;

    #[test]
    fn counters_are_those_of_the_past_and_sizes_those_of_now() {
        let of = |stripe, runs, writes| {
            let counted = [writes, writes + 1, writes + 2, writes + 3, writes + 4];
            let [writes, timed_gets, held_up, held_up_nanos, passed_over] = counted;
            let default = StripeStats::default();
            StripeStats { stripe, runs, writes, timed_gets, held_up, held_up_nanos, passed_over, ..default }
        };
        let mut stats = EngineStats { log_bytes: 5, estimated_recovery_nanos: 50, ..Default::default() };
        (stats.stripes, stats.operations.gets) = (vec![of(2, 9, 700), of(3, 4, 30)], 11);
        let (schema, latencies) = (StatsSnapshot::SCHEMA.to_owned(), Latencies::default());
        let snapshot = StatsSnapshot { schema, pid: 1, unix_ms: 2, uptime_ms: 3, stats, latencies };
        let mut now = EngineStats { log_bytes: 6, estimated_recovery_nanos: 60, ..Default::default() };
        now.stripes = vec![of(1, 1, 0), of(2, 12, 0)];
        let both = snapshot.stats_beside(now);
        assert_eq!((both.operations.gets, both.log_bytes, both.estimated_recovery_nanos), (11, 6, 60));
        assert_eq!(both.stripes, [of(1, 1, 0), of(2, 12, 700)]);
    }
}
