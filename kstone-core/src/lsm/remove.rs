//! REMOVE: deletes files that are no longer needed, at once or when their last reader ends.

use std::path::Path;

use super::removal::Unused;
use super::state::Shared;

impl Shared {
    /// Removes SSTs that neither the manifest nor any reader or backup refers to.
    pub(crate) fn remove_obsolete(&self) {
        self.remove_obsolete_ssts(false);
    }

    /// The same at close, when no job runs any more. Also removes SSTs that a reader still holds: its next step returns
    /// `Closed`, and opening after a clean close does not look for files to remove.
    pub(crate) fn remove_all_obsolete(&self) {
        self.remove_obsolete_ssts(true);
    }

    fn remove_obsolete_ssts(&self, also_held: bool) {
        if !self.life.may_remove() {
            return;
        }
        if self.removal.remove_leftovers(&self.io, &self.life) {
            self.background.forget_noted_error();
        }
        let Unused { files, some_are_read } = self.removal.take_unused(&self.io, &self.life, also_held);
        for (path, len) in files {
            self.remove_file(&path);
            self.space.removed(len);
        }
        self.remove_once_unread(some_are_read && !also_held);
        self.measure_stripes();
    }

    /// Removes the unpinned segments below this generation, which the manifest no longer needs. Returns whether there
    /// were any.
    pub(crate) fn retire_log(&self, below: u32) -> bool {
        self.removal.retire_log(&self.io, &self.life, below, |path| self.remove_file(path))
    }

    fn remove_file(&self, path: &Path) {
        if let Err(error) = self.removal.remove(&self.io, &self.life, path) {
            self.note_background_error(&error);
        }
    }

    /// Called when a walk or a snapshot has ended. The caller holds no reference of it any more, and no lock.
    pub(crate) fn reader_let_go(&self, horizon_rises: bool) {
        if horizon_rises {
            self.held.take_stripes().into_iter().for_each(|stripe| self.background.queue_compaction(stripe));
        }
        // There may be many short walks during one long walk: those that release nothing wake nobody.
        if self.held.ends_wait(|| self.removal.may_have_unread()) {
            self.background.remove_soon();
        }
    }
}
