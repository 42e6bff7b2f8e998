//! `STATS.json`: the counters of a running database, for tools that look at its directory.
//!
//! Written by the background every [`crate::DatabaseConfig::stats_snapshot_interval`], also before the handle's first
//! write, whole: a reader finds the one before or the one after. Nothing is synced, for it means nothing after a crash;
//! closing removes it.

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

/// What `STATS.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatsSnapshot {
    /// [`StatsSnapshot::SCHEMA`]; another one is not to be read as this.
    pub schema: String,
    /// The process that has the database open.
    pub pid: u32,
    /// When it was written, Unix milliseconds.
    pub unix_ms: u64,
    /// How long the database had been open, in milliseconds.
    pub uptime_ms: u64,
    /// The counters.
    pub stats: EngineStats,
    /// The latencies.
    pub latencies: Latencies,
}

impl StatsSnapshot {
    /// The file's name in the database directory.
    pub const FILE: &'static str = paths::STATS;
    /// What the fields mean. Fields may be added; otherwise the number changes.
    pub const SCHEMA: &'static str = "kstone.stats/1";
}

impl Shared {
    /// How often the file is written, if it is.
    pub(crate) fn stats_interval(&self, settings: &Settings) -> Option<Duration> {
        settings.database.stats_snapshot_interval.filter(|_| !self.io.vfs().is_volatile())
    }

    /// Best effort: a failure is an event and nothing else.
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

    /// At close: what the file says is over. Also what a process that died left behind.
    pub(crate) fn remove_stats_file(&self) {
        if !self.life.is_read_only() && self.observed.may_have_stats_file() {
            for name in [paths::STATS, paths::STATS_TMP] {
                // One that stays behind is overwritten or removed by the next handle.
                let _ = self.io.vfs().remove(&self.io.dir().join(name));
            }
        }
    }
}
