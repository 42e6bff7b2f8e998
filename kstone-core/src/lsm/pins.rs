//! Files pinned by running backups, which must not be removed.
//!
//! 1. A pin is taken under the manifest's lock, together with the state it pins. A file is removed only after an edit
//!    that no longer needs it, and the pins are checked after that edit: this finds every pin whose state still needs
//!    the file.
//! 2. Pins keep files, but do not hold back the start of the log: a long backup makes no recovery longer.
//! 3. A closing database does not wait for its backups: they fail, and the files they pinned are removed as if there
//!    were no pins.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::ManifestState;
use crate::sync::Mutex;
use crate::types::FileId;

#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    last: u64,
    pins: BTreeMap<u64, Needs>,
}

#[derive(Debug)]
struct Needs {
    /// The oldest log generation still to be copied; `None` once all have been.
    log_from: Option<u32>,
    ssts: BTreeSet<FileId>,
}

impl Pins {
    /// Whether any pin needs this SST.
    pub(crate) fn hold(&self, id: FileId) -> bool {
        self.held.lock().pins.values().any(|needs| needs.ssts.contains(&id))
    }

    /// Whether any pin keeps segments, which a checkpoint then cannot retire.
    pub(crate) fn hold_log(&self) -> bool {
        self.log_from() < u32::MAX
    }

    /// The oldest log generation that a pin needs.
    pub(crate) fn log_from(&self) -> u32 {
        self.held.lock().pins.values().filter_map(|needs| needs.log_from).min().unwrap_or(u32::MAX)
    }

    /// Pins the files that `state` needs, under a new number. The caller holds the manifest that the state belongs to.
    pub(crate) fn pin(&self, state: &ManifestState) -> u64 {
        let needs = Needs {
            log_from: Some(state.log_start.generation()),
            ssts: state.ssts.keys().copied().collect(),
        };
        let mut held = self.held.lock();
        held.last += 1;
        let number = held.last;
        held.pins.insert(number, needs);
        number
    }

    /// Narrows the pin to log generations from this one on; `None`: to no log at all.
    pub(crate) fn needs_log_from(&self, number: u64, generation: Option<u32>) {
        if let Some(needs) = self.held.lock().pins.get_mut(&number) {
            needs.log_from = generation;
        }
    }

    pub(crate) fn unpin(&self, number: u64) {
        self.held.lock().pins.remove(&number);
    }
}
