//! `kstone verify`.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use kstone_api::{
    Affected, Finding, FindingKind, ProgressFn, Severity, VerifyOptions, VerifyReport, escape, verify,
};
use serde_json::{Value as Json, json};

use crate::args::{Format, VerifyArgs};
use crate::failure::{Failure, exit};
use crate::interrupt::{Interrupt, interrupted};
use crate::output::{counted, grouped, print_result, size};

/// Keys named per finding in a table.
const NAMED: usize = 5;
/// Files left over by a crash that a table lists one by one; more are summed up in one line.
const LISTED_ORPHANS: usize = 3;

pub(crate) fn run(args: &VerifyArgs, format: Format) -> Result<()> {
    let options = if args.quick { VerifyOptions::quick() } else { VerifyOptions::deep() };
    let interrupt = Interrupt::watch()?;
    let (bar, progress) = progress(&interrupt);
    let report = verify(&args.db.path, &options.progress(progress));
    bar.finish_and_clear();
    let report = report?;
    print_result(format, text(&report)?.trim_end(), json(&report))?;
    if interrupt.is_seen() && !report.complete {
        return Err(interrupted("the remaining files were not checked", None).into());
    }
    if report.is_clean() {
        return Ok(());
    }
    let damage = report.findings.iter().filter(|finding| finding.severity == Severity::Damage).count() as u64;
    Err(Failure {
        exit: exit::CORRUPTION,
        code: "corruption",
        message: format!(
            "{} in {}",
            counted(damage + report.more_findings, "damage"),
            args.db.path.display()
        ),
        hint: Some(format!("kstone repair {} --dry-run", args.db.path.display())),
    }
    .into())
}

/// A progress bar in bytes; draws nothing unless stderr is a terminal. Cancels the operation once a signal arrives.
pub(super) fn progress(interrupt: &Interrupt) -> (ProgressBar, ProgressFn) {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent} %  {bytes} of {total_bytes}  {eta}")
    {
        bar.set_style(style);
    }
    let (drawn, interrupt) = (bar.clone(), interrupt.clone());
    let tell: ProgressFn = Arc::new(move |progress| {
        drawn.set_length(progress.total);
        drawn.set_position(progress.done);
        interrupt.flow()
    });
    (bar, tell)
}

fn text(report: &VerifyReport) -> Result<String> {
    let mut text = String::new();
    let live = if report.live { "   in use by another process" } else { "" };
    let mode = report.mode.as_str();
    writeln!(
        text,
        "verify --{mode}   {}   {}{live}",
        counted(report.ssts as u64, "SST"),
        size(report.bytes)
    )?;
    let orphans: Vec<&Finding> =
        report.findings.iter().filter(|finding| finding.kind == FindingKind::Orphan).collect();
    let grouped_together = orphans.len() > LISTED_ORPHANS;
    for finding in &report.findings {
        if finding.kind != FindingKind::Orphan || !grouped_together {
            write_finding(&mut text, finding)?;
        }
    }
    if grouped_together {
        let bytes = orphans.iter().map(|finding| finding.len).fold(0, u64::saturating_add);
        let files = counted(orphans.len() as u64, "file");
        writeln!(
            text,
            "WARN     {files} not in the manifest, {}   orphan   left over by a crash; opening to write removes them",
            size(bytes)
        )?;
    }
    if report.more_findings > 0 {
        writeln!(text, "and {} more", grouped(report.more_findings))?;
    }
    for skipped in &report.skipped {
        writeln!(text, "NOT READ {}", escape::text(skipped))?;
    }
    let log = match report.log.end {
        Some((generation, offset)) => {
            format!("log clean, {}, ends at {generation}:{offset}", counted(report.log.records, "record"))
        }
        None if report.log.segments == 0 => "no log".into(),
        None => format!("log damaged, {} readable", counted(report.log.records, "record")),
    };
    writeln!(
        text,
        "{}: {}, {log}.   nothing was changed.",
        counted(report.ssts as u64, "SST"),
        verdicts(report),
    )?;
    Ok(text)
}

/// One verdict for each SST; they add up to the number of SSTs.
fn verdicts(report: &VerifyReport) -> String {
    let mut text = format!("{} good, {} bad", grouped(report.good as u64), grouped(report.bad as u64));
    if report.bad_blocks > 0 {
        text += &format!(" ({})", counted(report.bad_blocks, "bad block"));
    }
    text += &format!(", {} missing", grouped(report.missing as u64));
    if report.replaced > 0 {
        text += &format!(", {} merged away meanwhile", grouped(report.replaced as u64));
    }
    if report.unread > 0 {
        text += &format!(", {} not read", grouped(report.unread as u64));
    }
    text
}

fn write_finding(text: &mut String, finding: &Finding) -> Result<()> {
    let word = match finding.severity {
        Severity::Damage => "CORRUPT",
        Severity::Warning => "WARN",
        Severity::Note => "NOTE",
    };
    let name = finding.file.file_name().unwrap_or(finding.file.as_os_str()).to_string_lossy();
    let place = match (finding.offset, finding.len) {
        (0, 0) => String::new(),
        (at, 0) => format!("   at {at:#x}"),
        (at, len) => format!("   at {at:#x} +{len}"),
    };
    writeln!(
        text,
        "{word:8} {}   {}{place}   {}",
        escape::text(&name),
        finding.kind.as_str(),
        escape::text(&finding.detail)
    )?;
    if let Some(affected) = &finding.affected {
        writeln!(text, "         {}", range_text(affected))?;
        let names = affected.named.len() as u64;
        if names > 0 {
            let named: Vec<String> =
                affected.named.iter().take(NAMED).map(|key| format!("\"{key}\"")).collect();
            let more = if affected.named.len() > NAMED { " ..." } else { "" };
            writeln!(
                text,
                "         among them {}{more}; {} of {} have another version",
                named.join(" "),
                affected.elsewhere,
                counted(names, "known key"),
            )?;
        }
    }
    Ok(())
}

/// `up to 41 entries from "a" to "b" cannot be read`.
pub(super) fn range_text(affected: &Affected) -> String {
    let bound = |word: &str, key: &Option<kstone_api::Key<'_>>| {
        key.as_ref().map_or_else(String::new, |key| format!(" {word} \"{key}\""))
    };
    let entries = if affected.entries == 1 { "entry" } else { "entries" };
    format!(
        "up to {} {entries}{}{} cannot be read",
        grouped(affected.entries),
        bound("from", &affected.from),
        bound("to", &affected.to),
    )
}

pub(super) fn affected_json(affected: &Affected) -> Json {
    json!({
        "from": affected.from.as_ref().map(ToString::to_string),
        "to": affected.to.as_ref().map(ToString::to_string),
        "entries": affected.entries,
        "keys": affected.keys,
        "named": affected.named.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "elsewhere": affected.elsewhere,
    })
}

fn json(report: &VerifyReport) -> Json {
    let findings: Vec<Json> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "severity": match finding.severity {
                    Severity::Damage => "damage",
                    Severity::Warning => "warning",
                    Severity::Note => "note",
                },
                "kind": finding.kind.as_str(),
                "file": finding.file.to_string_lossy(),
                "offset": finding.offset,
                "len": finding.len,
                "detail": finding.detail,
                "affected": finding.affected.as_ref().map(affected_json),
            })
        })
        .collect();
    json!({
        "schema": "kstone.verify/1",
        "mode": report.mode.as_str(),
        "clean": report.is_clean(),
        "complete": report.complete,
        "live": report.live,
        "ssts": report.ssts,
        "good": report.good,
        "bad": report.bad,
        "missing": report.missing,
        "replaced": report.replaced,
        "unread": report.unread,
        "blocks": report.blocks,
        "bad_blocks": report.bad_blocks,
        "entries": report.entries,
        "bytes": report.bytes,
        "log": {
            "segments": report.log.segments,
            "records": report.log.records,
            "operations": report.log.operations,
            "end": report.log.end.map(|(generation, offset)| json!([generation, offset])),
        },
        "skipped": report.skipped,
        "findings": findings,
        "more_findings": report.more_findings,
    })
}
