//! Holds one state of the manifest, and what goes on when it is let go of.

use crate::lsm::state::Shared;
use crate::manifest::ManifestState;

/// Keeps the files of one state of the manifest where they are, as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Pin<'a> {
    /// Pins what `state` needs; the caller holds the manifest that it is of.
    pub(crate) fn take(shared: &'a Shared, state: &ManifestState) -> Self {
        let number = shared.removal.pins().pin(state);
        Self { shared, number }
    }

    /// The log is needed only from that generation on; `None`: no more.
    pub(crate) fn needs_log_from(&self, generation: Option<u32>) {
        self.shared.removal.pins().needs_log_from(self.number, generation);
        self.give_back_log();
    }

    fn give_back_log(&self) {
        if !self.shared.life.is_closed() {
            let start = self.shared.io.manifest().state().log_start;
            self.shared.retire_log(start.generation());
            if !self.shared.removal.pins().hold_log() {
                // No checkpoint could shorten the log until now.
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
