//! The rate at which this machine replays the log: measured by each recovery and stored in the manifest.
//! [`crate::DatabaseConfig::recovery_target`] and the estimate of the next recovery are based on it.
//!
//! It is stored beside the settings, as an optional entry of the same form: a version that does not know it loses only
//! the measurement. Storing it never takes an edit of its own, because a clean open writes nothing.

use std::time::Duration;

use super::observe::Replay;
use super::settings::Settings;
use super::state::Shared;
use crate::config::DEFAULT_REPLAY_RATE;
use crate::manifest::{Change, ManifestState};

/// Shorter logs measure opening files rather than replaying. Less than the shortest log that a recovery target allows,
/// so that a rate measured on a bad day is measured again.
const MEASURABLE: u64 = 128 << 10;

/// The recovery part of the statistics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    pub(crate) replayed_bytes: u64,
    pub(crate) rate: u64,
    pub(crate) estimate: Duration,
}

/// Averages the new rate with the known one, so that a single slow recovery does not decide.
fn measured(known: Option<u64>, bytes: u64, time: Duration) -> Option<u64> {
    if bytes < MEASURABLE || time.is_zero() {
        return known;
    }
    let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos();
    let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
    Some(known.map_or(rate, |known| known / 2 + rate / 2))
}

impl Shared {
    /// Measures the rate after the log was replayed; reading it started at `began`.
    pub(crate) fn measure_replay(&self, began: Duration) {
        let Replay { bytes, time } = self.observed.replay_ended(self.io.wal().live_record_bytes(), began);
        let settings = self.settings.load();
        let rate = measured(settings.replay_rate, bytes, time);
        if rate != settings.replay_rate {
            let Settings { database, compaction, .. } = Settings::clone(&settings);
            self.apply(Settings::new(database, compaction, rate));
        }
    }

    /// The change that stores the settings in force, if they differ from the stored ones: the rate has changed, or
    /// there was no space for new settings when they were given. It is added to an edit that is made anyway. The caller
    /// holds the manifest, under which settings change.
    pub(crate) fn settings_change(&self, state: &ManifestState) -> Option<Change> {
        let in_force = self.settings.load().stored();
        (in_force != state.settings).then_some(Change::Settings(in_force))
    }

    pub(crate) fn recovery(&self) -> Recovery {
        let rate = self.settings.load().replay_rate.unwrap_or(DEFAULT_REPLAY_RATE);
        let nanos = u128::from(self.io.wal().live_bytes()) * 1_000_000_000 / u128::from(rate.max(1));
        Recovery {
            replayed_bytes: self.observed.replay().bytes,
            rate,
            estimate: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_logs_long_enough_and_half_of_it_the_one_before() {
        let second = Duration::from_secs(1);
        assert_eq!(measured(None, MEASURABLE - 1, second), None);
        assert_eq!(measured(None, 1 << 30, Duration::ZERO), None);
        assert_eq!(measured(None, 1 << 30, second), Some(1 << 30));
        assert_eq!(measured(Some(1 << 20), 1 << 30, second * 2), Some((1 << 19) + (1 << 28)));
        assert_eq!(measured(Some(7), 0, second), Some(7));
        assert_eq!(measured(None, MEASURABLE, Duration::MAX), Some(1));
    }
}
