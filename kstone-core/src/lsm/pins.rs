//! What a backup under way needs: files that nobody removes meanwhile.
//!
//! 1. A pin is taken under the manifest's lock, with the state that it is of. Whoever removes a file has made an edit
//!    before that says so, and looks at the pins after it: he finds every pin whose state still needs the file.
//! 2. Pins keep files, not the log's start: a long backup makes no recovery longer.
//! 3. A database that closes does not wait for its backups: they fail, and what they kept is removed as if they were
//!    not there.

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
    pub(crate) fn log_from(&self) -> u32 {
        self.held.lock().pins.values().filter_map(|needs| needs.log_from).min().unwrap_or(u32::MAX)
    }

    /// Pins what `state` needs, under a number of its own. The caller holds the manifest that it is of.
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

    /// Of the log, that pin needs only what is from that generation on; `None`: nothing more.
    pub(crate) fn needs_log_from(&self, number: u64, generation: Option<u32>) {
        if let Some(needs) = self.held.lock().pins.get_mut(&number) {
            needs.log_from = generation;
        }
    }

    pub(crate) fn unpin(&self, number: u64) {
        self.held.lock().pins.remove(&number);
    }
}
