//! `kstone backup`.

use anyhow::Result;
use indicatif::ProgressBar;
use kstone_api::{BackupOptions, BackupProgress, BackupReport, Error, escape};
use serde::Serialize;

use crate::args::{BackupArgs, Format};
use crate::commands::open_to_read;
use crate::interrupt::{Interrupt, interrupted};
use crate::output::{counted, print_result, size};

#[derive(Serialize)]
struct Backup {
    schema: &'static str,
    path: String,
    #[serde(flatten)]
    report: BackupReport,
}

pub(crate) fn run(args: &BackupArgs, format: Format) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    // Takes no lock: a program may keep writing.
    let db = open_to_read(&args.db)?;
    // Draws nothing unless stderr is a terminal.
    let bar = ProgressBar::new(0);
    let mut progress = |done: &BackupProgress| {
        bar.set_length(done.bytes);
        bar.set_position(done.bytes_done);
        interrupt.flow()
    };
    let options = BackupOptions::new().copy(args.copy).progress(&mut progress);
    let report = db.backup_with(&args.destination, options);
    bar.finish_and_clear();
    let report = match report {
        Err(Error::Cancelled) => {
            return Err(interrupted("the partial copy was removed", None).into());
        }
        done => done?,
    };
    let text = format!(
        "{}   {} in {}, {} linked   log {}",
        escape::path(&args.destination),
        size(report.sst_bytes),
        counted(report.ssts, "SST"),
        report.linked,
        size(report.log_bytes),
    );
    let path = args.destination.display().to_string();
    print_result(format, &text, Backup { schema: "kstone.backup/1", path, report })
}
