//! `kstone compact`.

use anyhow::Result;
use indicatif::ProgressBar;
use kstone_api::EngineStats;
use serde_json::json;

use crate::args::{CompactArgs, Format};
use crate::commands::open_to_write;
use crate::interrupt::{Interrupt, interrupted};
use crate::output::{grouped, print_result, size};

pub(crate) fn run(args: &CompactArgs, format: Format) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let db = open_to_write(&args.db)?;
    let engine = db.engine();
    let before = db.stats()?;
    let stripes = match args.stripe {
        Some(stripe) => vec![stripe],
        None => before.stripes.iter().map(|stripe| stripe.stripe).collect(),
    };
    // Draws nothing unless stderr is a terminal.
    let bar = ProgressBar::new(stripes.len() as u64);
    let (mut done, mut skipped, mut failed) = (0, 0, None);
    for &stripe in &stripes {
        if interrupt.is_seen() {
            break;
        }
        if engine.compaction_would_gain(stripe)? {
            match engine.trigger_compaction(stripe) {
                Ok(()) => done += 1,
                Err(e) if done == 0 => return Err(e.into()),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        } else {
            skipped += 1;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let after = db.stats()?;
    let closed = db.close();
    let (ssts, left) = (ssts(&before), ssts(&after));
    let text = format!(
        "{done} of {} stripes compacted{}   {} → {} SSTs   {} → {}",
        before.stripe_count,
        match skipped {
            0 => String::new(),
            n => format!(", {n} already compact"),
        },
        grouped(ssts),
        grouped(left),
        size(before.sst_bytes),
        size(after.sst_bytes),
    );
    let json = json!({
        "schema": "kstone.compact/1",
        "stripes": done,
        "skipped": skipped,
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
    if done + skipped == stripes.len() {
        return Ok(());
    }
    Err(interrupted("the other stripes are unchanged", None).into())
}

fn ssts(stats: &EngineStats) -> u64 {
    stats.stripes.iter().map(|stripe| stripe.ssts as u64).sum()
}
