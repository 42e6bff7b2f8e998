//! The ways of committing a change, each with what must be seen meanwhile, and whether it must be refused.

use super::history::State;
use super::workload::batch_of;
use super::{Change, Mismatch, Rng, random_key};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lsm::{LsmEngine, ReadSet, Snapshot, WriteOptions};

/// A way of committing a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// A put or a delete if the change has a single one, otherwise a batch.
    #[default]
    Plain,
    /// A conditional write, decided on what it replaces and on another key.
    Decided {
        /// Seed of the other key.
        seed: u64,
    },
    /// A conditional write that is refused, or decides on no changes.
    Refused {
        /// Seed of the other key, and of how it is refused.
        seed: u64,
    },
    /// A transaction that has read what it changes and another partition, through a new snapshot.
    Transaction {
        /// Seed of the partition.
        seed: u64,
    },
    /// A transaction that has read everything through the oldest snapshot held, or through a new one: in conflict if
    /// anything was written since.
    Late,
}

impl Way {
    /// Every third commit is not a plain one.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let seed = rng.next();
        match rng.below(24) {
            0..3 => Self::Decided { seed },
            3 => Self::Refused { seed },
            4..7 => Self::Transaction { seed },
            7 => Self::Late,
            _ => Self::Plain,
        }
    }
}

/// A commit to be made.
pub(super) struct Attempt<'a> {
    pub(super) engine: &'a LsmEngine,
    pub(super) change: &'a Change,
    pub(super) way: Way,
    /// The oldest snapshot held.
    pub(super) held: Option<&'a Snapshot>,
    /// The contents, if they are known.
    pub(super) state: Option<&'a State>,
    pub(super) options: WriteOptions,
}

impl Attempt<'_> {
    /// Whether nothing may be written: no crash may leave any of it.
    ///
    /// # Errors
    /// Those of taking a snapshot.
    pub(super) fn is_refused(&self) -> Result<bool> {
        match (self.way, self.held) {
            (Way::Refused { .. }, _) => Ok(true),
            (Way::Late, Some(held)) => Ok(self.engine.snapshot()?.seq() > held.seq()),
            _ => Ok(false),
        }
    }

    /// Makes the commit; a refusal that is due is no error.
    ///
    /// # Errors
    /// Wrong data was seen, or there was no refusal.
    pub(super) fn make(&self) -> Result<Result<()>, Mismatch> {
        let Self { engine, change, options, .. } = *self;
        match self.way {
            Way::Plain => Ok(match change.as_slice() {
                [(key, Some(value))] => engine.put(key, value, options),
                [(key, None)] => engine.delete(key, options),
                _ => engine.write(&batch_of(change), options),
            }
            .map(drop)),
            Way::Decided { seed } => self.decide(seed, || Ok(true)),
            Way::Refused { seed } => {
                let refusal = || Error::ConditionFailed { old: None };
                let with_error = seed.is_multiple_of(2);
                match self.decide(seed, || if with_error { Err(refusal()) } else { Ok(false) })? {
                    Err(Error::ConditionFailed { old: None }) if with_error => Ok(Ok(())),
                    Ok(()) if with_error => Err(unrefused()),
                    other => Ok(other),
                }
            }
            Way::Transaction { seed } => self.transact(seed),
            Way::Late => self.be_late(),
        }
    }

    /// A conditional write of the change if `writes`, after comparing what it is decided on.
    fn decide(&self, seed: u64, writes: impl Fn() -> Result<bool>) -> Result<Result<()>, Mismatch> {
        let also = random_key(&mut Rng(seed));
        let keys: Vec<Key<'_>> = self.change.iter().map(|(key, _)| key.clone()).chain([also]).collect();
        let mut wrong = None;
        let done = self.engine.write_with(&keys, self.options, |values, changes| {
            for (key, value) in keys.iter().zip(values) {
                if let Err(mismatch) = self.compare("a decision on", key, value.as_deref()) {
                    wrong.get_or_insert(mismatch);
                }
            }
            for (at, (_, value)) in self.change.iter().enumerate() {
                match value {
                    Some(value) => changes.put(at, value.clone()),
                    None => changes.delete(at),
                }
            }
            if !writes()? {
                *changes = Default::default();
            }
            Ok(())
        });
        wrong.map_or(Ok(done), Err)
    }

    fn transact(&self, seed: u64) -> Result<Result<()>, Mismatch> {
        let snapshot = match self.engine.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(error)),
        };
        let mut reads = ReadSet::new();
        reads.query(random_key(&mut Rng(seed)).partition(), crate::SortRange::All);
        for (key, _) in self.change {
            let found = reads.get(key).and_then(|()| self.engine.get_at(key, &snapshot));
            match found {
                Ok(found) => self.compare("a transaction's get of", key, found.as_deref())?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(self.commit(&snapshot, &reads))
    }

    fn be_late(&self) -> Result<Result<()>, Mismatch> {
        let (snapshot, late) = match (self.engine.snapshot(), self.is_refused()) {
            (Ok(snapshot), Ok(late)) => (self.held.cloned().unwrap_or(snapshot), late),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        };
        let mut reads = ReadSet::new();
        reads.scan();
        match self.commit(&snapshot, &reads) {
            Err(Error::Conflict { .. }) if late => Ok(Ok(())),
            Ok(()) if late => Err(unrefused()),
            other => Ok(other),
        }
    }

    fn commit(&self, snapshot: &Snapshot, reads: &ReadSet) -> Result<()> {
        self.engine.write_if_unchanged(snapshot, reads, &batch_of(self.change), self.options).map(drop)
    }

    fn compare(&self, doing: &str, key: &Key<'_>, found: Option<&[u8]>) -> Result<(), Mismatch> {
        let Some(state) = self.state else { return Ok(()) };
        let expected = state.get(key).map(Vec::as_slice);
        if expected == found {
            return Ok(());
        }
        let short = |value: Option<&[u8]>| match value {
            None => "nothing".to_owned(),
            Some(value) => format!("{} bytes of {:?}", value.len(), value.first()),
        };
        Err(Mismatch { expected: format!("{doing} {key:?}: {}", short(expected)), found: short(found) })
    }
}

fn unrefused() -> Mismatch {
    Mismatch { expected: "a refusal".into(), found: "it was written".into() }
}
