//! `kstone compact`.

use anyhow::Result;
use indicatif::ProgressBar;
use kstone_api::EngineStats;
use serde_json::json;

use crate::args::{CompactArgs, Format};
use crate::commands::open_to_write;
use crate::output::{grouped, print_result, size};

pub(crate) fn run(args: &CompactArgs, format: Format) -> Result<()> {
    let db = open_to_write(&args.db)?;
    let engine = db.engine();
    let before = db.stats()?;
    let stripes = match args.stripe {
        Some(stripe) => vec![stripe],
        None => before.stripes.iter().map(|stripe| stripe.stripe).collect(),
    };
    // Draws nothing unless stderr is a terminal.
    let bar = ProgressBar::new(stripes.len() as u64);
    let mut compacted = 0;
    for &stripe in &stripes {
        if engine.compaction_would_gain(stripe)? {
            engine.trigger_compaction(stripe)?;
            compacted += 1;
        }
        bar.inc(1);
    }
    let skipped = stripes.len() - compacted;
    bar.finish_and_clear();
    let after = db.stats()?;
    db.close()?;
    let (ssts, left) = (ssts(&before), ssts(&after));
    let text = format!(
        "{compacted} of {} stripes compacted{}   {} → {} SSTs   {} → {}",
        before.stripe_count,
        match skipped {
            0 => String::new(),
            n => format!(", {n} had nothing to gain"),
        },
        grouped(ssts),
        grouped(left),
        size(before.sst_bytes),
        size(after.sst_bytes),
    );
    let json = json!({
        "schema": "kstone.compact/1",
        "stripes": compacted,
        "skipped": skipped,
        "ssts_before": ssts,
        "ssts_after": left,
        "sst_bytes_before": before.sst_bytes,
        "sst_bytes_after": after.sst_bytes,
    });
    print_result(format, &text, json)
}

fn ssts(stats: &EngineStats) -> u64 {
    stats.stripes.iter().map(|stripe| stripe.ssts as u64).sum()
}
