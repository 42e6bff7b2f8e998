//! What recovery puts off on a full medium.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::Change;
use crate::planted::{Bug, planted};
use crate::types::Lsn;
use crate::vfs::Vfs;
use crate::wal::{self, Chain};

/// What recovery still has to write: steps 4 to 6. Done over when it fails.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(super) chain: Chain,
    pub(super) harden_from: Lsn,
    pub(super) changes: Vec<Change>,
    pub(super) orphans: Vec<PathBuf>,
    pub(super) hardened: bool,
}

impl Unfinished {
    /// `commit` appends an edit. Returns whether all orphans were removed: those that cannot be now are harmless, and
    /// tried again next time.
    pub(crate) fn finish(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        commit: impl FnOnce(Vec<Change>) -> Result<()>,
    ) -> Result<bool> {
        if !self.hardened && !planted(Bug::TailNotHardened) {
            // All bytes are written before they are synced, so it may be tried again also after a failed sync.
            wal::harden(vfs, dir, &self.chain, self.harden_from)
                .map_err(|error| if error.is_out_of_space() { Error::DiskFull } else { error })?;
            self.hardened = true;
        }
        // The first edit of a resumed manifest writes a new one: its rename is the commit point.
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
