//! Operations generated from a seed: the same for the same seed, whatever the settings and the state of the database.

use std::time::Duration;

use super::{Change, Rng, Way};
use crate::key::Key;
use crate::lsm::WriteBatch;

/// One operation of a workload. A number called a pick selects among what exists when the operation is performed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A change is committed.
    Write {
        /// Puts and deletes.
        change: Change,
        /// Whether it must be durable when it returns.
        sync: bool,
        /// How it is committed.
        way: Way,
    },
    /// Gets of random keys, compared.
    Get {
        /// Seed of the keys.
        seed: u64,
    },
    /// A query of one partition, compared.
    Query {
        /// Seed of partition, range and direction.
        seed: u64,
    },
    /// One step of background work.
    Step {
        /// A pick among the due jobs.
        choice: u64,
    },
    /// Time passes.
    Advance {
        /// The duration.
        by: Duration,
    },
    /// The wall clock is set, by hours or by years; no time passes.
    SetClock {
        /// The new time of the wall clock.
        unix_ms: u64,
    },
    /// All writes so far become durable.
    Sync,
    /// All memtables are flushed, and a checkpoint is made.
    Flush,
    /// A stripe is compacted, and a checkpoint is made.
    Compact {
        /// A pick among the stripes.
        stripe: u64,
    },
    /// The settings of the database or of compaction are changed, if settings are random.
    Settings {
        /// Seed of the settings.
        seed: u64,
    },
    /// A limit on disk space is set or lifted, if settings are random.
    Limit {
        /// The limit in bytes; `None` lifts it.
        bytes: Option<u64>,
    },
    /// A snapshot is taken, along with the contents that it must show.
    TakeSnapshot,
    /// Every way of reading a snapshot is compared.
    CheckSnapshot {
        /// A pick among the snapshots, and the seed of the reads.
        pick: u64,
    },
    /// A snapshot is dropped.
    DropSnapshot {
        /// A pick among the snapshots.
        pick: u64,
    },
    /// Every way of reading is compared.
    Check,
    /// The database is closed, or its process dies, and it is opened again.
    Reopen {
        /// Whether it is closed first.
        clean: bool,
        /// Seed of other settings to open with, if settings are random.
        settings: Option<u64>,
    },
    /// The database is closed, opened read-only, compared, closed, and opened again.
    ReadOnly,
}

/// The mix of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mix {
    /// Half writes, the rest operations that change files.
    #[default]
    Crash,
    /// As many reads as writes.
    Oracle,
}

/// The endless operations of one seed.
#[derive(Clone, Debug)]
pub struct Workload {
    rng: Rng,
    mix: Mix,
}

impl Workload {
    /// The operations of that seed.
    pub fn new(seed: u64, mix: Mix) -> Self {
        Self { rng: Rng(seed), mix }
    }

    fn write(&mut self, ops: u64) -> Operation {
        let mut change = random_change(&mut self.rng, ops);
        if self.rng.one_in(16) {
            // A few of these fill a log segment of the smallest size.
            let byte = self.rng.next() as u8;
            change.push((random_key(&mut self.rng), Some(vec![byte; 3500])));
        }
        let of = if self.mix == Mix::Crash { 5 } else { 20 };
        let sync = self.rng.one_in(of);
        // Takes nothing from the generator: the other operations of a seed do not depend on it.
        let way = Way::random(&mut Rng(self.rng.0 ^ 0x7761_7973));
        Operation::Write { change, sync, way }
    }

    fn crash(&mut self) -> Operation {
        let rng = &mut self.rng;
        match rng.below(100) {
            0..52 => {
                let ops = if rng.one_in(3) { 1 + rng.below(8) } else { 1 };
                self.write(ops)
            }
            52..73 => Operation::Step { choice: rng.next() },
            73..75 => time(rng),
            75..80 => Operation::Sync,
            80..84 => Operation::Flush,
            84..88 => Operation::Compact { stripe: rng.next() },
            88..91 => Operation::Settings { seed: rng.next() },
            91 => Operation::Limit { bytes: rng.pick(None, &[Some(512 << 10), Some(1 << 20)]) },
            92 => Operation::TakeSnapshot,
            93 => Operation::CheckSnapshot { pick: rng.next() },
            94 => Operation::DropSnapshot { pick: rng.next() },
            95..98 => {
                let settings = rng.one_in(4).then(|| rng.next());
                Operation::Reopen { clean: true, settings }
            }
            98 => Operation::Reopen { clean: false, settings: None },
            _ => Operation::ReadOnly,
        }
    }

    fn oracle(&mut self) -> Operation {
        let rng = &mut self.rng;
        match rng.below(1000) {
            0..450 => self.write(1),
            450..500 => {
                let ops = 2 + rng.below(10);
                self.write(ops)
            }
            500..750 => Operation::Get { seed: rng.next() },
            750..850 => Operation::Step { choice: rng.next() },
            850..868 => Operation::TakeSnapshot,
            868..886 => Operation::CheckSnapshot { pick: rng.next() },
            886..896 => Operation::DropSnapshot { pick: rng.next() },
            896..936 => Operation::Query { seed: rng.next() },
            936..946 => Operation::Check,
            946..956 => time(rng),
            956..961 => Operation::Sync,
            961..968 => Operation::Flush,
            968..978 => Operation::Compact { stripe: rng.next() },
            978..983 => Operation::Settings { seed: rng.next() },
            983..985 => Operation::Limit { bytes: rng.pick(None, &[Some(512 << 10), Some(1 << 20)]) },
            985..996 => {
                let settings = rng.one_in(3).then(|| rng.next());
                Operation::Reopen { clean: !rng.one_in(4), settings }
            }
            996..998 => Operation::ReadOnly,
            _ => Operation::Reopen { clean: false, settings: None },
        }
    }
}

/// Time passes or, one time in eight, the wall clock is set.
fn time(rng: &mut Rng) -> Operation {
    if !rng.one_in(8) {
        return Operation::Advance { by: Duration::from_millis(rng.below(3000)) };
    }
    let (start, hours) = (1_700_000_000_000u64, rng.pick(0u64, &[1, 30, 24 * 365, 240 * 365]));
    let off = 3_600_000 * hours;
    Operation::SetClock { unix_ms: if rng.one_in(2) { start + off } else { start - off } }
}

impl Iterator for Workload {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        Some(match self.mix {
            Mix::Crash => self.crash(),
            Mix::Oracle => self.oracle(),
        })
    }
}

/// A key from a small key space, so that keys recur; includes zero bytes, and missing and empty sort keys.
pub fn random_key(rng: &mut Rng) -> Key<'static> {
    let partition = match rng.below(8) {
        0 => b"a\0b".to_vec(),
        1 => b"a".to_vec(),
        n => format!("part{n}").into_bytes(),
    };
    match rng.below(12) {
        0 => Key::new(partition),
        1 => Key::with_sort(partition, Vec::new()),
        n => Key::with_sort(partition, format!("s{n}").into_bytes()),
    }
}

/// Mostly short; one in fifty is empty, one in fifty has 3000 bytes.
pub fn random_value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(50) {
        0 => 3000,
        1 => 0,
        n => n,
    };
    let byte = rng.next() as u8;
    vec![byte; len as usize]
}

/// `ops` puts, or, one time in four, deletes.
pub fn random_change(rng: &mut Rng, ops: u64) -> Change {
    let one = |rng: &mut Rng| {
        let key = random_key(rng);
        let value = if rng.one_in(4) { None } else { Some(random_value(rng)) };
        (key, value)
    };
    (0..ops).map(|_| one(rng)).collect()
}

/// The change as a batch.
pub fn batch_of(change: &Change) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in change {
        match value {
            Some(value) => batch.put(key.clone(), value.clone()),
            None => batch.delete(key.clone()),
        };
    }
    batch
}
