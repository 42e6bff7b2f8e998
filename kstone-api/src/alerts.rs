//! Alerts: metrics of a database that exceed their thresholds.

use std::fmt;

use kstone_core::lsm::{DiskUsage, EngineStats};

use crate::database::Database;

/// A metric above its threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerformanceAlert {
    /// The name of the alert; names are stable, programs may compare them.
    pub name: &'static str,
    /// The threshold: a value above it is an alert, a value equal to it is not.
    pub threshold: f64,
    /// The current value, in the unit of the threshold.
    pub current: f64,
    /// The unit of both; empty for alerts without a threshold, whose value is 1 and whose threshold is 0.
    pub unit: &'static str,
}

/// The name, the value and the threshold, in one line.
impl fmt::Display for PerformanceAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, threshold, current, unit } = self;
        match *unit {
            "" => f.write_str(name),
            unit => write!(f, "{name}: {current:.1} {unit} (threshold {threshold:.1})"),
        }
    }
}

/// Thresholds of alerts. A value above its threshold is an alert, a value equal to it is not; [`f64::INFINITY`] turns
/// an alert off.
///
/// Three alerts have no threshold: failing background work ([`EngineStats::background_error`] has the reason), a database
/// that accepts no more writes ([`EngineStats::poisoned`]), and a closed database, which has no figures.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AlertThresholds {
    /// Runs per stripe, averaged over the stripes that have any; see [`measure_average_sst_count`]. Default 15.
    pub average_ssts: f64,
    /// Bytes written by flushes and compactions per byte of keys and values put, since open: the wear on a flash disk,
    /// without the log. Default 10.
    pub write_amplification: f64,
    /// The 99th percentile of sampled gets, in microseconds, since open. Default 5000.
    pub read_p99_us: f64,
    /// Writes that were delayed or stopped, in percent of all writes since open. Default 1.
    pub held_up_percent: f64,
    /// Used and reserved space, in percent of
    /// [`max_total_disk_bytes`](kstone_core::DatabaseConfig::max_total_disk_bytes): at 100 puts fail. Default 90.
    pub disk_percent: f64,
    /// Estimated time that opening would take after a crash now, in seconds. Default 1.
    pub recovery_secs: f64,
    /// The log, in percent of its limit, [`wal_limit_bytes`](kstone_core::DatabaseConfig::wal_limit_bytes). Flushes and
    /// checkpoints keep it at three quarters; if it stays above, something prevents it from shrinking, and writers will
    /// soon have to wait. Default 90.
    pub log_percent: f64,
}

impl Default for AlertThresholds {
    fn default() -> Self {
        Self {
            average_ssts: 15.0,
            write_amplification: 10.0,
            read_p99_us: 5000.0,
            held_up_percent: 1.0,
            disk_percent: 90.0,
            recovery_secs: 1.0,
            log_percent: 90.0,
        }
    }
}

/// The values to compare with the thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Vitals {
    average_ssts: f64,
    write_amplification: f64,
    read_p99_us: f64,
    held_up_percent: f64,
    disk_percent: f64,
    recovery_secs: f64,
    log_percent: f64,
    failing: bool,
    poisoned: bool,
    closed: bool,
}

impl Vitals {
    fn of(stats: &EngineStats, disk: &DiskUsage, log_limit: u64) -> Self {
        let percent = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 };
        let operations = &stats.operations;
        // A batch is delayed as one write.
        let writes = operations.puts.saturating_add(operations.deletes).max(1);
        // Only stalls that faster background work would prevent.
        let backlogs = stats.stalls.iter().filter(|stall| stall.reason.is_backlog());
        let held_up = backlogs.map(|stall| stall.count).fold(0, u64::saturating_add);
        Self {
            average_ssts: average_runs(stats),
            write_amplification: stats.amplification.write_tables.unwrap_or(0.0),
            read_p99_us: stats.p99_read_nanos.unwrap_or(0) as f64 / 1e3,
            held_up_percent: percent(held_up, writes),
            disk_percent: disk
                .limit
                .map_or(0.0, |limit| percent(disk.used.saturating_add(disk.reserved), limit)),
            recovery_secs: stats.estimated_recovery_nanos as f64 / 1e9,
            log_percent: percent(stats.log_bytes, log_limit),
            failing: stats.background_error.is_some(),
            poisoned: stats.poisoned.is_some(),
            closed: false,
        }
    }
}

/// Runs per stripe, averaged over the stripes that have any.
fn average_runs(stats: &EngineStats) -> f64 {
    let runs = || stats.stripes.iter().map(|stripe| stripe.runs).filter(|&runs| runs > 0);
    runs().fold(0, usize::saturating_add) as f64 / runs().count().max(1) as f64
}

impl Database {
    /// Returns an alert for each metric that exceeds its threshold now. Reads counters, like [`Database::stats`].
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// for alert in db.check_alerts(&kstone_api::AlertThresholds::default()) {
    ///     eprintln!("{alert}");
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn check_alerts(&self, thresholds: &AlertThresholds) -> Vec<PerformanceAlert> {
        let vitals = match (self.stats(), self.disk_usage()) {
            (Ok(stats), Ok(disk)) => Vitals::of(&stats, &disk, self.config().wal_limit_bytes()),
            _ => Vitals { closed: true, ..Vitals::default() },
        };
        thresholds.alerts(&vitals)
    }
}

/// Calls [`Database::check_alerts`] with the default thresholds.
pub fn check_alerts(db: &Database) -> Vec<PerformanceAlert> {
    db.check_alerts(&AlertThresholds::default())
}

/// Runs per stripe, averaged over the stripes that have any; 0 if none has, and for a closed database. It counts runs,
/// not files: a large run has several files, and a read checks one of them.
pub fn measure_average_sst_count(db: &Database) -> f64 {
    db.stats().map_or(0.0, |stats| average_runs(&stats))
}

/// The 99th percentile of the timed gets since open, in microseconds; 0 if none was timed.
pub fn measure_p99_read_latency(db: &Database) -> f64 {
    // As documented, 0 stands for no value, also for a closed database.
    db.stats().ok().and_then(|stats| stats.p99_read_nanos).unwrap_or(0) as f64 / 1e3
}

impl AlertThresholds {
    /// Returns the alerts for metrics of a database that is not open here, for instance those of a
    /// [`StatsSnapshot`](kstone_core::lsm::StatsSnapshot). `log_limit` is
    /// [`wal_limit_bytes`](kstone_core::DatabaseConfig::wal_limit_bytes); 0 if unknown, which turns the log's alert
    /// off.
    pub fn check(&self, stats: &EngineStats, disk: &DiskUsage, log_limit: u64) -> Vec<PerformanceAlert> {
        self.alerts(&Vitals::of(stats, disk, log_limit))
    }

    fn alerts(&self, vitals: &Vitals) -> Vec<PerformanceAlert> {
        let all = [
            ("High SST count", self.average_ssts, vitals.average_ssts, "runs per stripe"),
            (
                "High write amplification",
                self.write_amplification,
                vitals.write_amplification,
                "bytes written per byte put",
            ),
            ("High read latency", self.read_p99_us, vitals.read_p99_us, "us at the 99th percentile"),
            ("Writes held up", self.held_up_percent, vitals.held_up_percent, "% of writes"),
            ("Disk quota nearly full", self.disk_percent, vitals.disk_percent, "% of the quota"),
            ("Slow recovery", self.recovery_secs, vitals.recovery_secs, "s"),
            ("Log near its limit", self.log_percent, vitals.log_percent, "% of its limit"),
            ("Background work fails", 0.0, f64::from(u8::from(vitals.failing)), ""),
            ("Writing has stopped", 0.0, f64::from(u8::from(vitals.poisoned)), ""),
            ("Database closed", 0.0, f64::from(u8::from(vitals.closed)), ""),
        ];
        let alerts =
            all.map(|(name, threshold, current, unit)| PerformanceAlert { name, threshold, current, unit });
        alerts.into_iter().filter(|alert| alert.current > alert.threshold).collect()
    }
}

#[cfg(test)]
mod tests {
    use kstone_core::lsm::StripeStats;

    use super::*;

    /// The name of an alert, its threshold, and how to set its value.
    type Case = (&'static str, fn(&AlertThresholds) -> f64, fn(&mut Vitals, f64));

    const CASES: [Case; 7] = [
        ("High SST count", |t| t.average_ssts, |v, x| v.average_ssts = x),
        ("High write amplification", |t| t.write_amplification, |v, x| v.write_amplification = x),
        ("High read latency", |t| t.read_p99_us, |v, x| v.read_p99_us = x),
        ("Writes held up", |t| t.held_up_percent, |v, x| v.held_up_percent = x),
        ("Disk quota nearly full", |t| t.disk_percent, |v, x| v.disk_percent = x),
        ("Slow recovery", |t| t.recovery_secs, |v, x| v.recovery_secs = x),
        ("Log near its limit", |t| t.log_percent, |v, x| v.log_percent = x),
    ];

    #[test]
    fn each_alert_fires_just_above_its_threshold_and_not_at_it() {
        let defaults = AlertThresholds::default();
        assert_eq!(defaults.alerts(&Vitals::default()), []);
        for (name, threshold, set) in CASES {
            let mut vitals = Vitals::default();
            let threshold = threshold(&defaults);
            set(&mut vitals, threshold);
            assert_eq!(defaults.alerts(&vitals), [], "{name} at {threshold}");
            let current = threshold.next_up();
            set(&mut vitals, current);
            let [alert] = defaults.alerts(&vitals)[..] else { panic!("{name} is no alert") };
            assert_eq!((alert.name, alert.threshold, alert.current), (name, threshold, current));
            assert!(alert.to_string().contains(alert.unit) && !alert.unit.is_empty(), "{alert}");
        }
    }

    #[test]
    fn the_thresholds_are_those_of_the_specification() {
        let AlertThresholds { average_ssts, write_amplification, read_p99_us, .. } =
            AlertThresholds::default();
        assert_eq!((average_ssts, write_amplification, read_p99_us), (15.0, 10.0, 5000.0));
    }

    #[test]
    fn failures_are_alerts_whatever_the_thresholds() {
        let quiet = AlertThresholds { average_ssts: f64::INFINITY, ..AlertThresholds::default() };
        let names = |vitals| quiet.alerts(&vitals).iter().map(|alert| alert.name).collect::<Vec<_>>();
        assert_eq!(names(Vitals { average_ssts: 1e9, ..Vitals::default() }), [""; 0]);
        assert_eq!(names(Vitals { failing: true, ..Vitals::default() }), ["Background work fails"]);
        assert_eq!(names(Vitals { poisoned: true, ..Vitals::default() }), ["Writing has stopped"]);
        assert_eq!(names(Vitals { closed: true, ..Vitals::default() }), ["Database closed"]);
    }

    fn stripe(runs: usize) -> StripeStats {
        let mut stripe = StripeStats::default();
        (stripe.runs, stripe.ssts) = (runs, runs * 3);
        stripe
    }

    #[test]
    fn the_vitals_are_taken_from_the_statistics() {
        let mut stats = EngineStats::default();
        let mut disk = DiskUsage::default();
        assert_eq!(Vitals::of(&stats, &disk, 0), Vitals::default());
        // One of the stripes has data in memory only.
        stats.stripes = vec![stripe(4), stripe(0), stripe(7)];
        stats.amplification.write_tables = Some(2.5);
        stats.amplification.write_total = Some(99.0);
        stats.p99_read_nanos = Some(1_234_500);
        (stats.operations.puts, stats.operations.deletes) = (150, 50);
        stats.estimated_recovery_nanos = 2_500_000_000;
        stats.log_bytes = 30;
        stats.background_error = Some("no space".into());
        stats.poisoned = Some("a sync failed".into());
        (disk.used, disk.reserved, disk.limit) = (50, 20, Some(80));
        let expected = Vitals {
            average_ssts: 5.5,
            write_amplification: 2.5,
            read_p99_us: 1234.5,
            held_up_percent: 0.0,
            disk_percent: 87.5,
            recovery_secs: 2.5,
            log_percent: 75.0,
            failing: true,
            poisoned: true,
            closed: false,
        };
        assert_eq!(Vitals::of(&stats, &disk, 40), expected);
        // Without a quota, disk space is never short.
        disk.limit = None;
        assert_eq!(Vitals::of(&stats, &disk, 40), Vitals { disk_percent: 0.0, ..expected });
    }

    #[test]
    fn stalls_of_all_reasons_count_as_writes_held_up() {
        let json = r#"{"operations": {"puts": 150, "deletes": 50}, "stalls": [STALL, STALL]}"#;
        let stall = |reason| {
            format!(
                r#"{{"reason": "{reason}", "count": 2, "nanos": 1, "longest_nanos": 1, "delays": 2, "stops": 0}}"#
            )
        };
        let json = json.replacen("STALL", &stall("runs"), 1).replacen("STALL", &stall("log"), 1);
        let stats: EngineStats = serde_json::from_str(&json).unwrap();
        assert_eq!(Vitals::of(&stats, &DiskUsage::default(), 1).held_up_percent, 2.0);
    }
}
