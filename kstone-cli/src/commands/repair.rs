//! `kstone repair`.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kstone_api::{Error, Loss, Now, RepairOptions, RepairReport, escape, repair};
use serde_json::{Value as Json, json};

use super::verify::{affected_json, progress, range_text};
use crate::args::{Format, RepairArgs};
use crate::failure::{Failure, exit};
use crate::interrupt::{Interrupt, interrupted};
use crate::output::{counted, grouped, print_result};

/// Losses that a table shows; `--report` lists all of them.
const SHOWN: usize = 20;

pub(crate) fn run(args: &RepairArgs, format: Format) -> Result<()> {
    if let Some(into) = &args.into {
        let refused = || format!("cannot write {}", into.display());
        refuse_within("the copy", into, &args.db.path).with_context(refused)??;
    }
    confirm(args)?;
    let interrupt = Interrupt::watch()?;
    let (bar, tell) = progress(&interrupt);
    let mut options = RepairOptions::new().progress(tell);
    options.dry_run = args.dry_run;
    options.into.clone_from(&args.into);
    let mut losses = Losses::new(args)?;
    let report = repair(&args.db.path, &options, &mut |loss| losses.take(loss));
    bar.finish_and_clear();
    if report.is_err() {
        losses.withdraw(args);
    }
    let report = match report {
        // During the examination only: a repair that has started to change files finishes.
        Err(e) if interrupt.is_seen() && is_called_off(&e) => {
            return Err(interrupted("nothing was repaired", None).into());
        }
        done => done?,
    };
    losses.finish()?;
    print_result(
        format,
        text(args, &report, &losses)?.trim_end(),
        json(args, &report, &losses.shown, losses.count - losses.shown.len()),
    )?;
    if !report.lost_data() {
        return Ok(());
    }
    let message = match (args.dry_run, report.lost + report.fell_back) {
        (true, 0) => "a repair may lose data",
        (true, _) => "a repair would lose data",
        (false, 0) => "repaired, but data may be lost",
        (false, _) => "repaired, but data is lost",
    };
    let hint = (args.report.is_none() && losses.count > losses.shown.len())
        .then(|| "--report FILE lists all losses".to_owned());
    Err(Failure { exit: exit::REJECTED, code: "data_lost", message: message.into(), hint }.into())
}

fn is_called_off(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => source.kind() == io::ErrorKind::Interrupted,
        other => matches!(other, Error::Cancelled),
    }
}

/// Asks for confirmation of a repair in place, unless `--yes` gave it beforehand.
fn confirm(args: &RepairArgs) -> Result<()> {
    if args.yes || args.dry_run || args.into.is_some() {
        return Ok(());
    }
    let path = escape::path(&args.db.path);
    super::confirm(&format!("Repair {path} in place? Originals are kept in quarantine/."), || {
        let mut refusal =
            Failure::usage("repair changes the database: pass --yes, or check first with --dry-run");
        refusal.hint = Some("--into NEWDIR builds a repaired copy and leaves the original as it is".into());
        refusal
    })
}

/// Writes losses to the report as they arrive; holds only those that are shown.
struct Losses {
    report: Option<BufWriter<File>>,
    failed: Option<io::Error>,
    lines: Vec<String>,
    shown: Vec<Json>,
    count: usize,
}

impl Losses {
    fn new(args: &RepairArgs) -> Result<Self> {
        let create = |path: &PathBuf| create_report(path, args);
        let report = args.report.as_ref().map(create).transpose()?.map(BufWriter::new);
        Ok(Self { report, failed: None, lines: Vec::new(), shown: Vec::new(), count: 0 })
    }

    fn take(&mut self, loss: &Loss) {
        self.count += 1;
        let json = loss_json(loss);
        if let Some(out) = &mut self.report
            && let Err(e) = writeln!(out, "{json}")
        {
            self.failed.get_or_insert(e);
        }
        if self.lines.len() < SHOWN {
            self.lines.push(loss_text(loss));
            self.shown.push(json);
        }
    }

    /// Removes the report if nothing was written to it, so that its name is free again.
    #[expect(clippy::disallowed_methods, reason = "the user's file, not one of a database")]
    fn withdraw(&mut self, args: &RepairArgs) {
        if let (Some(_), Some(path), 0) = (self.report.take(), &args.report, self.count) {
            // Best effort: an empty file does no harm.
            let _ = std::fs::remove_file(path);
        }
    }

    fn finish(&mut self) -> Result<()> {
        let flushed = self.report.as_mut().map_or(Ok(()), |out| out.flush());
        match self.failed.take() {
            Some(e) => Err(e.into()),
            None => Ok(flushed?),
        }
    }
}

/// Refuses an output path inside the database. The outer error is the system's: the parent directory cannot be
/// resolved.
fn refuse_within(what: &str, path: &Path, database: &Path) -> io::Result<Result<(), Failure>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.canonicalize()?;
    // A database that does not exist contains nothing.
    if !database.canonicalize().is_ok_and(|database| parent.starts_with(database)) {
        return Ok(Ok(()));
    }
    let mut failure = Failure::usage(format!("{what} {} would be inside the database", path.display()));
    failure.hint = Some("choose a path outside it".into());
    Ok(Err(failure))
}

/// Creates the report: a new file outside the database, readable only by its owner, as it contains keys.
#[expect(clippy::disallowed_methods, reason = "the user's file, not one of a database")]
fn create_report(path: &Path, args: &RepairArgs) -> Result<File> {
    let refused = || format!("cannot write {}", path.display());
    refuse_within("the report", path, &args.db.path).with_context(refused)??;
    if let Some(into) = &args.into {
        refuse_within("the report", path, into).with_context(refused)??;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if file.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists) {
        let hint = Some("choose a new name: a report never replaces a file".into());
        let message = format!("the report {} exists already", path.display());
        return Err(Failure { exit: exit::ENVIRONMENT, code: "already_exists", message, hint }.into());
    }
    file.with_context(refused)
}

fn loss_text(loss: &Loss) -> String {
    match loss {
        Loss::Key { key, now, .. } => {
            let now = match now {
                Now::Absent => "lost".to_owned(),
                Now::Older(seq) => format!("falls back to an older version (sequence {seq})"),
                Now::Deleted(seq) => format!("is deleted, by an older write (sequence {seq})"),
            };
            format!("\"{key}\"   {now}")
        }
        Loss::Range { affected, tombstones: 0, .. } => range_text(affected),
        Loss::Range { affected, tombstones, .. } => {
            let deletes = counted(*tombstones, "delete");
            format!("{}; {deletes} among them: deleted items may have come back", range_text(affected))
        }
        Loss::Log { file, offset, after, before, operations } => {
            let next = before.map_or_else(String::new, |seq| format!(" and before {seq}"));
            let most = match operations {
                Some(n) => format!("up to {}", counted(*n, "operation")),
                None => "operations".into(),
            };
            let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
            let name = escape::text(&name);
            format!("{name} at {offset:#x}: {most} of unknown keys may be lost, after sequence {after}{next}")
        }
        _ => "a loss of an unknown kind".into(),
    }
}

fn loss_json(loss: &Loss) -> Json {
    match loss {
        Loss::Key { key, file, now } => {
            let (now, seq) = match now {
                Now::Absent => ("absent", None),
                Now::Older(seq) => ("older", Some(*seq)),
                Now::Deleted(seq) => ("deleted", Some(*seq)),
            };
            json!({"loss": "key", "key": key.to_string(), "file": file.to_string_lossy(), "now": now, "sequence": seq})
        }
        Loss::Range { file, offset, affected, tombstones } => json!({
            "loss": "range", "file": file.to_string_lossy(), "offset": offset,
            "affected": affected_json(affected), "tombstones": tombstones,
        }),
        Loss::Log { file, offset, after, before, operations } => json!({
            "loss": "log", "file": file.to_string_lossy(), "offset": offset,
            "after_sequence": after, "before_sequence": before, "operations": operations,
        }),
        _ => json!({"loss": "other"}),
    }
}

fn text(args: &RepairArgs, report: &RepairReport, losses: &Losses) -> Result<String> {
    let mut text = String::new();
    let word = if args.dry_run { "plan" } else { "done" };
    for action in &report.actions {
        let name = action.file.file_name().unwrap_or(action.file.as_os_str()).to_string_lossy();
        writeln!(text, "{word}   {}   {}", escape::text(&name), escape::text(&action.what))?;
    }
    if report.had > 0 {
        writeln!(
            text,
            "       {} of {} entries of damaged SSTs saved",
            grouped(report.saved),
            grouped(report.had)
        )?;
    }
    if report.from_log > 0 {
        writeln!(text, "       {} recovered from the log", counted(report.from_log, "operation"))?;
    }
    for line in &losses.lines {
        writeln!(text, "lost   {line}")?;
    }
    if losses.count > losses.lines.len() {
        writeln!(text, "       and {} more", grouped((losses.count - losses.lines.len()) as u64))?;
    }
    let found = !report.actions.is_empty();
    if found || report.lost_data() {
        writeln!(text, "{}", sum(report))?;
    }
    writeln!(text, "{}", outcome(args, report, found))?;
    Ok(text)
}

/// Summarises the losses in one line, leaving out zeros so that none stands beside an unknown.
fn sum(report: &RepairReport) -> String {
    let mut parts = Vec::new();
    if report.lost > 0 {
        parts.push(format!("{} lost", counted(report.lost, "key")));
    }
    if report.fell_back > 0 {
        parts.push(format!("{} fell back to an older version", counted(report.fell_back, "key")));
    }
    if report.unnamed > 0 {
        parts.push(format!("up to {} of unknown keys", counted(report.unnamed, "lost version")));
    }
    if report.tombstones > 0 {
        parts.push(format!("up to {} among the losses", counted(report.tombstones, "delete")));
    }
    if report.log_gaps > 0 {
        let most = match report.log_operations {
            0 => String::new(),
            n => format!(", up to {}", counted(n, "operation")),
        };
        let gaps = if report.log_gaps == 1 { "gap" } else { "gaps" };
        parts.push(format!("{} {gaps} in the log{most}", grouped(report.log_gaps)));
    }
    match parts.is_empty() {
        true => "nothing is lost".into(),
        false => format!("in all: {}", parts.join("; ")),
    }
}

/// What happened to the files.
fn outcome(args: &RepairArgs, report: &RepairReport, found: bool) -> String {
    match (&args.into, &report.quarantine) {
        (Some(into), _) if !args.dry_run => format!("the repaired copy is {}", escape::path(into)),
        (None, Some(quarantine)) if !report.unchanged => {
            format!("originals are in {}", escape::path(quarantine))
        }
        (None, None) if !report.unchanged => "an earlier repair was completed; nothing was replaced".into(),
        _ if !found => "nothing is wrong, nothing was changed".into(),
        _ => "nothing was changed; run without --dry-run to do it, or --into NEWDIR to build a copy".into(),
    }
}

fn json(args: &RepairArgs, report: &RepairReport, shown: &[Json], more: usize) -> Json {
    let actions: Vec<Json> = report
        .actions
        .iter()
        .map(|action| json!({"file": action.file.to_string_lossy(), "what": action.what}))
        .collect();
    json!({
        "schema": "kstone.repair/1",
        "dry_run": args.dry_run,
        "changed": !report.unchanged,
        "actions": actions,
        "manifest_rebuilt": report.manifest_rebuilt,
        "log_rewritten": report.log_rewritten,
        "saved": report.saved,
        "had": report.had,
        "from_log": report.from_log,
        "lost": report.lost,
        "fell_back": report.fell_back,
        "unnamed": report.unnamed,
        "tombstones": report.tombstones,
        "log_gaps": report.log_gaps,
        "log_operations": report.log_operations,
        "quarantine": report.quarantine.as_ref().map(|path| path.to_string_lossy()),
        "into": args.into.as_ref().map(|path| path.to_string_lossy()),
        "losses": shown,
        "more_losses": more,
    })
}
