//! `kstone alerts`.

use anyhow::Result;
use kstone_api::{AlertThresholds, DiskUsage, Error, escape};
use serde_json::json;

use crate::args::{AlertsArgs, Format};
use crate::commands::advise::Figures;
use crate::commands::stats::{Runtime, told};
use crate::commands::{damage, expect_database, open_to_look};
use crate::failure::{Failure, exit};
use crate::output::{counted, print_result};

pub(crate) fn run(args: &AlertsArgs, format: Format) -> Result<()> {
    let thresholds = thresholds(args);
    let args = &args.db;
    expect_database(args)?;
    let read = Runtime::read(args);
    let line = Runtime::line(&read);
    let (runtime, mut troubles) = told(read);
    let alerts = match (open_to_look(args), &runtime) {
        (Ok(db), runtime) => {
            troubles.extend(damage(&db));
            let figures = Figures::of(&db, runtime.as_ref())?;
            thresholds.check(&figures.stats, &figures.disk, figures.database.wal_limit_bytes())
        }
        (Err(e), Some(runtime)) => {
            // The manifest holds the settings, and with them the limits of disk space and log. It changes all the time,
            // or is damaged.
            if !matches!(e.downcast_ref(), Some(Error::Busy)) {
                troubles.push(Failure::of(&e, &args.path));
            }
            thresholds.check(&runtime.snapshot.stats, &DiskUsage::default(), 0)
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
    if !alerts.is_empty() {
        text += &format!("\nnext: kstone advise {}", escape::shell_word(&args.path));
    }
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

fn thresholds(args: &AlertsArgs) -> AlertThresholds {
    let mut thresholds = AlertThresholds::default();
    let given = [
        (&mut thresholds.average_ssts, args.max_ssts),
        (&mut thresholds.write_amplification, args.max_write_amp),
        (&mut thresholds.read_p99_us, args.max_p99.map(|time| time.as_secs_f64() * 1e6)),
        (&mut thresholds.held_up_percent, args.max_held_up),
        (&mut thresholds.disk_percent, args.max_disk),
        (&mut thresholds.recovery_secs, args.max_recovery.map(|time| time.as_secs_f64())),
        (&mut thresholds.log_percent, args.max_log),
    ];
    for (threshold, given) in given {
        *threshold = given.unwrap_or(*threshold);
    }
    thresholds
}
