//! `kstone alerts`.

use anyhow::Result;
use kstone_api::{AlertThresholds, Database, DiskUsage, EngineStats, Error, PerformanceAlert};
use serde_json::json;

use crate::args::{self, Format};
use crate::commands::stats::Runtime;
use crate::commands::{expect_database, open_to_read};
use crate::failure::{Failure, exit};
use crate::output::{counted, print_result};

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    expect_database(args)?;
    let runtime = Runtime::read(args)?;
    let alerts = match (open_to_read(args), &runtime) {
        (Ok(db), runtime) => of_files(&db, runtime.as_ref())?,
        (Err(e), Some(runtime)) if matches!(e.downcast_ref(), Some(Error::Busy)) => {
            // The settings, and with them the limits of space and log, are in files that change all the time.
            AlertThresholds::default().check(&runtime.snapshot.stats, &DiskUsage::default(), 0)
        }
        (Err(e), _) => return Err(e),
    };
    let mut text: String = alerts.iter().map(|alert| format!("{alert}\n")).collect();
    if alerts.is_empty() {
        text = "no alert\n".into();
    }
    text += &Runtime::line(runtime.as_ref());
    let list: Vec<_> = alerts
        .iter()
        .map(|alert| json!({"name": alert.name, "threshold": alert.threshold, "current": alert.current}))
        .collect();
    print_result(format, &text, json!({"schema": "kstone.alerts/1", "alerts": list, "runtime": runtime}))?;
    match alerts.len() as u64 {
        0 => Ok(()),
        n => Err(Failure { exit: exit::NO, code: "alerts", message: counted(n, "alert"), hint: None }.into()),
    }
}

/// What the files say, and the counters that a process has left in them.
fn of_files(db: &Database, runtime: Option<&Runtime>) -> Result<Vec<PerformanceAlert>> {
    let now = db.stats()?;
    let stats = match runtime {
        None => now,
        Some(runtime) => {
            let mut stats: EngineStats = runtime.snapshot.stats.clone();
            // What the files tell is of now.
            stats.stripes = now.stripes;
            stats.log_bytes = now.log_bytes;
            stats.estimated_recovery_nanos = now.estimated_recovery_nanos;
            stats
        }
    };
    Ok(AlertThresholds::default().check(&stats, &db.disk_usage()?, db.config().wal_limit_bytes()))
}
