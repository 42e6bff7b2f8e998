//! `kstone alerts`.

use anyhow::Result;
use kstone_api::{AlertThresholds, Database, DiskUsage, EngineStats, Error, PerformanceAlert, escape};
use serde_json::json;

use crate::args::{self, Format};
use crate::commands::stats::{Runtime, told};
use crate::commands::{damage, expect_database, open_to_read};
use crate::failure::{Failure, exit};
use crate::output::{counted, print_result};

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    expect_database(args)?;
    let read = Runtime::read(args);
    let line = Runtime::line(&read);
    let (runtime, mut troubles) = told(read);
    let alerts = match (open_to_read(args), &runtime) {
        (Ok(db), runtime) => {
            troubles.extend(damage(&db));
            of_files(&db, runtime.as_ref())?
        }
        (Err(e), Some(runtime)) => {
            // The manifest holds the settings, and with them the limits of disk space and log. It changes all the time,
            // or is damaged.
            if !matches!(e.downcast_ref(), Some(Error::Busy)) {
                troubles.push(Failure::of(&e, &args.path));
            }
            AlertThresholds::default().check(&runtime.snapshot.stats, &DiskUsage::default(), 0)
        }
        (Err(e), None) => return Err(e),
    };
    let mut text: String = alerts.iter().map(|alert| format!("{alert}\n")).collect();
    if alerts.is_empty() {
        text = "no alerts\n".into();
    }
    for trouble in &troubles {
        text += &format!("not read: {}\n", escape::text(&trouble.message));
    }
    text += &line;
    let list: Vec<_> = alerts
        .iter()
        .map(|alert| {
            json!({
                "name": alert.name, "threshold": alert.threshold, "current": alert.current, "unit": alert.unit,
            })
        })
        .collect();
    let problems: Vec<_> = troubles.iter().map(|trouble| &trouble.message).collect();
    let json = json!({
        "schema": "kstone.alerts/1", "alerts": list, "problems": problems, "runtime": runtime,
    });
    print_result(format, &text, json)?;
    if !alerts.is_empty() {
        let message = counted(alerts.len() as u64, "alert");
        troubles.push(Failure { exit: exit::NO, code: "alerts", message, hint: None });
    }
    Failure::all(troubles)
}

/// Checks the state in the files, combined with the counters that a process left there.
fn of_files(db: &Database, runtime: Option<&Runtime>) -> Result<Vec<PerformanceAlert>> {
    let now = db.stats()?;
    let stats = match runtime {
        None => now,
        Some(runtime) => {
            let mut stats: EngineStats = runtime.snapshot.stats.clone();
            // The files describe the present, the counters the past.
            stats.stripes = now.stripes;
            stats.log_bytes = now.log_bytes;
            stats.estimated_recovery_nanos = now.estimated_recovery_nanos;
            stats
        }
    };
    Ok(AlertThresholds::default().check(&stats, &db.disk_usage()?, db.config().wal_limit_bytes()))
}
