//! `kstone compact`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::Result;
use indicatif::ProgressBar;
use kstone_api::{Database, EngineStats, Error};
use serde_json::json;

use crate::args::{CompactArgs, Format};
use crate::commands::open_to_write;
use crate::interrupt::{Interrupt, interrupted};
use crate::output::{grouped, print_result, size};

pub(crate) fn run(args: &CompactArgs, format: Format) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let db = open_to_write(&args.db)?;
    let before = db.stats()?;
    let over = args.over.unwrap_or(0);
    let chosen = before.stripes.iter().filter(|stripe| args.over.is_none() || stripe.runs > over);
    let stripes: Vec<usize> = match args.stripe {
        Some(stripe) => vec![stripe],
        None => chosen.map(|stripe| stripe.stripe).collect(),
    };
    let not_over = if args.over.is_some() { before.stripes.len() - stripes.len() } else { 0 };
    // Draws nothing unless stderr is a terminal.
    let bar = ProgressBar::new(stripes.len() as u64);
    let work =
        Work { next: AtomicUsize::new(0), done: 0.into(), skipped: 0.into(), failed: Mutex::new(None) };
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.get().min(stripes.len()) {
            scope.spawn(|| work.run(&db, &stripes, args.all, &interrupt, &bar));
        }
    });
    bar.finish_and_clear();
    let (done, skipped) = (work.done.into_inner(), work.skipped.into_inner());
    let failed = work.failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let failed = match failed {
        Some(failed) if done == 0 => return Err(failed.into()),
        failed => failed,
    };
    let after = db.stats()?;
    let closed = db.close();
    let (ssts, left) = (ssts(&before), ssts(&after));
    let notes = [(skipped, "already compact"), (not_over as u64, "not over the limit")];
    let notes = notes.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
    let text = format!(
        "{done} of {} stripes compacted{}   {} → {} SSTs   {} → {}",
        before.stripe_count,
        notes.collect::<String>(),
        grouped(ssts),
        grouped(left),
        size(before.sst_bytes),
        size(after.sst_bytes),
    );
    let json = json!({
        "schema": "kstone.compact/1",
        "stripes": done,
        "skipped": skipped,
        "not_over": not_over,
        "ssts_before": ssts,
        "ssts_after": left,
        "sst_bytes_before": before.sst_bytes,
        "sst_bytes_after": after.sst_bytes,
    });
    // Also when not all stripes were compacted.
    print_result(format, &text, json)?;
    if let Some(failed) = failed {
        return Err(failed.into());
    }
    closed?;
    if done + skipped == stripes.len() as u64 {
        return Ok(());
    }
    Err(interrupted("the other stripes are unchanged", None).into())
}

/// Stripes that are compacted by several threads, each taking the next.
struct Work {
    next: AtomicUsize,
    done: AtomicU64,
    skipped: AtomicU64,
    /// The first failure; it ends the work of all.
    failed: Mutex<Option<Error>>,
}

impl Work {
    fn run(&self, db: &Database, stripes: &[usize], all: bool, interrupt: &Interrupt, bar: &ProgressBar) {
        let has_failed = || self.failed.lock().is_ok_and(|failed| failed.is_some());
        while let Some(&stripe) = stripes.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if interrupt.is_seen() || has_failed() {
                return;
            }
            match Self::compact(db, stripe, all) {
                Ok(true) => _ = self.done.fetch_add(1, Ordering::Relaxed),
                Ok(false) => _ = self.skipped.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    if let Ok(mut failed) = self.failed.lock() {
                        failed.get_or_insert(error);
                    }
                    return;
                }
            }
            bar.inc(1);
        }
    }

    /// Whether there was anything to do.
    fn compact(db: &Database, stripe: usize, all: bool) -> kstone_api::Result<bool> {
        if !all && !db.engine().compaction_would_gain(stripe)? {
            return Ok(false);
        }
        db.trigger_compaction(stripe).map(|()| true)
    }
}

fn ssts(stats: &EngineStats) -> u64 {
    stats.stripes.iter().map(|stripe| stripe.ssts as u64).sum()
}
