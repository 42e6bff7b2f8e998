//! Pins one state of the manifest, and resumes removal when the pin is released.

use crate::lsm::state::Shared;
use crate::manifest::ManifestState;

/// Keeps the files of one state of the manifest from being removed, as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Pin<'a> {
    /// Pins the files that `state` needs; the caller holds the manifest that it belongs to.
    pub(crate) fn take(shared: &'a Shared, state: &ManifestState) -> Self {
        let number = shared.removal.pins().pin(state);
        Self { shared, number }
    }

    /// Narrows the pin to log generations from this one on; `None`: to no log at all.
    pub(crate) fn needs_log_from(&self, generation: Option<u32>) {
        self.shared.removal.pins().needs_log_from(self.number, generation);
        self.give_back_log();
    }

    fn give_back_log(&self) {
        if !self.shared.life.is_closed() {
            let start = self.shared.io.manifest().state().log_start;
            self.shared.retire_log(start.generation());
            if !self.shared.removal.pins().hold_log() {
                // Until now, no checkpoint could shorten the log.
                self.shared.background.request_seal();
            }
        }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if self.shared.life.is_forked() {
            return;
        }
        self.shared.removal.pins().unpin(self.number);
        self.give_back_log();
        if !self.shared.life.is_closed() {
            self.shared.remove_obsolete();
        }
    }
}
