//! Settings in force that existing SSTs were not written with. Each SST records the settings it was written with.

use super::LsmEngine;
use super::state::Shared;
use crate::config::{Compression, DatabaseConfig};
use crate::error::Result;
use crate::sst_block::{LZ4, NO_CODEC};
use crate::types::SstMeta;

/// A setting in force that some SSTs were not written with. Merging their stripes applies it to them:
/// [`LsmEngine::trigger_compaction`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PendingRewrite {
    /// The setting, a field of [`DatabaseConfig`].
    pub setting: &'static str,
    /// The number of SSTs written with another value.
    pub ssts: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Their stripes, in ascending order.
    pub stripes: Vec<usize>,
}

impl LsmEngine {
    /// The settings in force that existing SSTs were not written with, and how much of the database is affected; empty
    /// when all files match the settings. No SST is read.
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

    /// Whether [`LsmEngine::trigger_compaction`] of the stripe would change anything: its memtables are not empty,
    /// there are several runs, or its only run has tombstones or shadowed versions or was written with settings other
    /// than those in force. No SST is read.
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
            // Includes a run that no merge has compressed yet.
            let uncompressed = config.compression == Compression::Older && meta.codec() != Some(LZ4);
            let differs = DIFFERENCES.iter().any(|(_, differs)| differs(config, meta, true));
            meta.tombstones > 0 || superseded || uncompressed || differs
        }))
    }
}

/// The settings that affect how files are written, and how to detect a file written with another value.
const DIFFERENCES: [(&str, Differs); 3] = [
    ("bloom_bits_per_key", |config, meta, _| {
        meta.details.as_ref().is_none_or(|d| d.bits_per_key as usize != config.bloom_bits_per_key)
    }),
    ("block_size", |config, meta, _| {
        meta.details.as_ref().is_none_or(|d| d.block_size as usize != config.block_size)
    }),
    ("compression", |config, meta, oldest| match config.compression {
        Compression::Never => meta.codec() != Some(NO_CODEC),
        Compression::Always => meta.codec() != Some(LZ4),
        // SSTs that were never merged, or only while idle, are not compressed, however old they are.
        Compression::Older => oldest && meta.depth > 0 && meta.codec() != Some(LZ4),
    }),
];

/// Whether an SST was written with another value; the flag: whether its run is the oldest of its stripe.
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
