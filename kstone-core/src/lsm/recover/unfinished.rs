//! The part of recovery that is postponed on a full disk.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::Change;
use crate::planted::{Bug, planted};
use crate::types::Lsn;
use crate::vfs::Vfs;
use crate::wal::{self, Chain};

/// The steps of recovery that still have to be written: 4 to 6. Repeated if they fail.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(super) chain: Chain,
    pub(super) harden_from: Lsn,
    pub(super) changes: Vec<Change>,
    pub(super) orphans: Vec<PathBuf>,
    pub(super) hardened: bool,
}

impl Unfinished {
    /// `commit` appends an edit. Returns whether all orphans were removed: any that could not be are harmless, and will
    /// be retried by the next recovery.
    pub(crate) fn finish(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        commit: impl FnOnce(Vec<Change>) -> Result<()>,
    ) -> Result<bool> {
        if !self.hardened && !planted(Bug::TailNotHardened) {
            // All bytes are written before they are synced, so this may be retried even after a failed sync.
            wal::harden(vfs, dir, &self.chain, self.harden_from)
                .map_err(|error| if error.is_out_of_space() { Error::DiskFull } else { error })?;
            self.hardened = true;
        }
        // The first edit of a resumed manifest writes a new file: its rename is the commit point.
        if !planted(Bug::CutNotRecorded) {
            commit(self.changes.clone())?;
        }
        if planted(Bug::OrphansKept) {
            return Ok(true);
        }
        let left = self.orphans.iter().filter(|orphan| vfs.remove(orphan).is_err()).count();
        Ok(left == 0)
    }
}
