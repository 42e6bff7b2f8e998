//! Which settings hold for new SSTs only so far: those that were written otherwise say so themselves.

use super::LsmEngine;
use super::state::Shared;
use crate::config::{Compression, DatabaseConfig};
use crate::error::Result;
use crate::sst_block::{LZ4, NO_CODEC};
use crate::types::SstMeta;

/// A setting that some SSTs were not written with. Merging their stripes applies it to them:
/// [`LsmEngine::trigger_compaction`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PendingRewrite {
    /// The setting, a field of [`DatabaseConfig`].
    pub setting: &'static str,
    /// How many SSTs were written otherwise.
    pub ssts: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their stripes, in order.
    pub stripes: Vec<usize>,
}

impl LsmEngine {
    /// The settings in force that SSTs written earlier do not have yet, and how much of the database that is; empty
    /// when the files are as the settings say. No SST is read.
    ///
    /// # Errors
    /// `Closed`.
    pub fn pending_rewrites(&self) -> Result<Vec<PendingRewrite>> {
        self.shared.life.check_open()?;
        let config = self.shared.settings.load();
        let pending = DIFFERENCES.into_iter().map(|(setting, differs)| {
            self.shared.pending(setting, |meta, oldest| differs(&config.database, meta, oldest))
        });
        Ok(pending.filter(|pending| pending.ssts > 0).collect())
    }

    /// Whether [`LsmEngine::trigger_compaction`] of the stripe would change anything: something is in memory, there are
    /// several runs, or one with tombstones, with superseded versions, or written with other settings than those in force.
    /// No SST is read.
    ///
    /// # Errors
    /// `Closed`; `InvalidConfig` for a stripe that does not exist.
    pub fn compaction_would_gain(&self, stripe: usize) -> Result<bool> {
        self.shared.life.check_open()?;
        self.check_stripe(stripe)?;
        // A stripe that was never used has nothing to gain.
        let Some(stripe) = self.shared.stripes.if_used(stripe) else { return Ok(false) };
        let version = stripe.version();
        if version.memtables().any(|memtable| !memtable.is_empty()) {
            return Ok(true);
        }
        let [run] = version.runs.as_slice() else { return Ok(!version.runs.is_empty()) };
        let config = &self.shared.settings.load().database;
        Ok(run.parts.iter().map(|table| table.meta()).any(|meta| {
            let superseded = meta.details.as_ref().is_none_or(|details| meta.entries > details.keys);
            // Also one that no merge has compressed yet.
            let uncompressed = config.compression == Compression::Older && codec(meta) != Some(LZ4);
            let differs = DIFFERENCES.iter().any(|(_, differs)| differs(config, meta, true));
            meta.tombstones > 0 || superseded || uncompressed || differs
        }))
    }
}

/// The settings that files are written with, and how they tell.
const DIFFERENCES: [(&str, Differs); 3] = [
    ("bloom_bits_per_key", |config, meta, _| {
        meta.details.as_ref().is_none_or(|d| d.bits_per_key as usize != config.bloom_bits_per_key)
    }),
    ("block_size", |config, meta, _| {
        meta.details.as_ref().is_none_or(|d| d.block_size as usize != config.block_size)
    }),
    ("compression", |config, meta, oldest| match config.compression {
        Compression::Never => codec(meta) != Some(NO_CODEC),
        Compression::Always => codec(meta) != Some(LZ4),
        // What was never merged is not compressed, old or not.
        Compression::Older => oldest && meta.depth > 0 && codec(meta) != Some(LZ4),
    }),
];

fn codec(meta: &SstMeta) -> Option<u8> {
    meta.details.as_ref().map(|details| details.codec)
}

/// Whether an SST, of its stripe's oldest run or not, was written otherwise.
type Differs = fn(&DatabaseConfig, &SstMeta, bool) -> bool;

impl Shared {
    fn pending(&self, setting: &'static str, differs: impl Fn(&SstMeta, bool) -> bool) -> PendingRewrite {
        let mut pending = PendingRewrite { setting, ssts: 0, bytes: 0, stripes: Vec::new() };
        for stripe in self.stripes.used() {
            let version = stripe.version();
            let before = pending.ssts;
            for (age, run) in version.runs.iter().rev().enumerate() {
                for table in run.parts.iter().filter(|table| differs(table.meta(), age == 0)) {
                    pending.ssts += 1;
                    pending.bytes += table.meta().len;
                }
            }
            if pending.ssts > before {
                pending.stripes.push(stripe.id);
            }
        }
        pending
    }
}
