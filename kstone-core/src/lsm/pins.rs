//! What a backup under way needs: files that nobody removes meanwhile.
//!
//! 1. A pin is taken under the manifest's lock, with the state that it is of. Whoever removes a file has made an edit
//!    before that says so, and looks at the pins after it: he finds every pin whose state still needs the file.
//! 2. Pins keep files, not the log's start: a long backup makes no recovery longer.
//! 3. A database that closes does not wait for its backups: they fail, and what they kept is removed as if they were
//!    not there.

use std::collections::{BTreeMap, BTreeSet};

use super::state::Shared;
use crate::manifest::ManifestState;
use crate::sync::Mutex;
use crate::types::FileId;

#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: Mutex<Held>,
    /// Held while segments are given back, so that two do not mix up what is gone.
    retiring: Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    last: u64,
    pins: BTreeMap<u64, Needs>,
}

#[derive(Debug)]
struct Needs {
    /// The oldest generation of the log; `None` once that was copied.
    log_from: Option<u32>,
    ssts: BTreeSet<FileId>,
}

impl Pins {
    /// Whether a pin needs that SST.
    pub(crate) fn hold(&self, id: FileId) -> bool {
        self.held.lock().pins.values().any(|needs| needs.ssts.contains(&id))
    }

    /// Whether a pin keeps segments, which no checkpoint can give back then.
    pub(crate) fn hold_log(&self) -> bool {
        self.log_from() < u32::MAX
    }

    /// The oldest generation of the log that a pin needs.
    fn log_from(&self) -> u32 {
        self.held.lock().pins.values().filter_map(|needs| needs.log_from).min().unwrap_or(u32::MAX)
    }
}

/// Keeps the files of one state of the manifest where they are, as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Pin<'a> {
    /// Pins what `state` needs; the caller holds the manifest that it is of.
    pub(crate) fn take(shared: &'a Shared, state: &ManifestState) -> Self {
        let needs = Needs {
            log_from: Some(state.log_start.generation()),
            ssts: state.ssts.keys().copied().collect(),
        };
        let mut held = shared.pins.held.lock();
        held.last += 1;
        let number = held.last;
        held.pins.insert(number, needs);
        Self { shared, number }
    }

    /// The log is needed only from that generation on; `None`: no more.
    pub(crate) fn needs_log_from(&self, generation: Option<u32>) {
        if let Some(needs) = self.shared.pins.held.lock().pins.get_mut(&self.number) {
            needs.log_from = generation;
        }
        self.give_back_log();
    }

    fn give_back_log(&self) {
        if !self.shared.life.is_closed() {
            let start = self.shared.manifest.lock().state().log_start;
            self.shared.retire_log(start.generation());
            if !self.shared.pins.hold_log() {
                // No checkpoint could shorten the log until now.
                self.shared.background.want_relief();
            }
        }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if self.shared.life.is_forked() {
            return;
        }
        self.shared.pins.held.lock().pins.remove(&self.number);
        self.give_back_log();
        if !self.shared.life.is_closed() {
            self.shared.remove_obsolete();
        }
    }
}

impl Shared {
    /// Removes the segments below that generation, which the manifest needs no more, as far as nobody has pinned
    /// them. Whether there were any. A poisoned handle removes nothing.
    pub(crate) fn retire_log(&self, below: u32) -> bool {
        let _one = self.pins.retiring.lock();
        if !self.life.may_remove() {
            return false;
        }
        let pinned = if self.life.is_closed() { u32::MAX } else { self.pins.log_from() };
        let retired = self.wal.retire(below.min(pinned));
        for path in &retired {
            self.remove_file(path);
        }
        self.wal.removed();
        !retired.is_empty()
    }
}
