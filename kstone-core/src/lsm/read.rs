//! GET and snapshots. A get takes no lock: it loads the stripe's version and searches memtables and runs, newest first.
//!
//! The version is loaded BEFORE the visible sequence: in the opposite order, a flush in between could drop a version
//! that the older sequence should still see.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::LsmEngine;
use super::settings::Settings;
use super::state::Shared;
use crate::counters::Operation;
use crate::error::Result;
use crate::key::{EncodedKey, Key, stripe_of};
use crate::planted::{Bug, later, planted};
use crate::slice::{Found, Slice};
use crate::types::{EntryKind, GetCost, SeqNo};
use crate::version::{ReadTrace, Version};

/// Keys of a batch whose memory is requested together: about as many cache misses can be under way at once.
const TOGETHER: usize = 16;

/// The database as of one commit. The versions it sees are kept as long as it lives; clones share it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pin: Arc<Pin>,
}

/// A registered sequence, which holds back the horizon.
#[derive(Debug)]
pub(crate) struct Pin {
    shared: Arc<Shared>,
    seq: SeqNo,
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.shared.life.is_forked() {
            return self.shared.leak();
        }
        let horizon_rises = self.shared.commits.unpin(self.seq);
        self.shared.reader_let_go(horizon_rises);
    }
}

impl Pin {
    pub(crate) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { seq: shared.commits.pin(), shared: Arc::clone(shared) })
    }

    pub(crate) fn seq(&self) -> SeqNo {
        self.seq
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Snapshot {
    /// The newest write that the snapshot sees.
    pub fn seq(&self) -> SeqNo {
        self.pin.seq
    }

    pub(crate) fn pin(&self) -> &Arc<Pin> {
        &self.pin
    }
}

impl LsmEngine {
    /// Returns the value of `key`. The value keeps its mapped file or block alive as long as it exists.
    ///
    /// # Errors
    /// `InvalidKey`, `KeyTooLarge`: no such key can exist. `Corruption`: the block that should contain it is damaged.
    pub fn get(&self, key: &Key<'_>) -> Result<Option<Slice>> {
        self.shared.get(key, None)
    }

    /// Returns the value that `key` had when the snapshot was taken.
    pub fn get_at(&self, key: &Key<'_>, snapshot: &Snapshot) -> Result<Option<Slice>> {
        self.shared.get(key, Some(snapshot.seq()))
    }

    /// Returns the values of several keys, in the order of the keys, all as of one moment: that of the snapshot, or now.
    /// Takes less time than a get for each: what they read from memory is requested for several keys at once. A key may
    /// occur more than once.
    ///
    /// # Errors
    /// Those of [`LsmEngine::get`], if any of the keys has one; no value is returned then.
    pub fn batch_get(&self, keys: &[Key<'_>], snapshot: Option<&Snapshot>) -> Result<Vec<Option<Slice>>> {
        let shared = &*self.shared;
        shared.life.check_open()?;
        let settings = shared.settings.load();
        let pin = snapshot.map_or_else(|| Pin::new(&self.shared), |snapshot| Arc::clone(snapshot.pin()));
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(TOGETHER) {
            let encoded = keys.iter().map(|key| key.encode(settings.database.max_key_bytes));
            let encoded: SmallVec<[EncodedKey; TOGETHER]> = encoded.collect::<Result<_>>()?;
            shared.prefetch(&encoded);
            for (key, encoded) in keys.iter().zip(&encoded) {
                shared.life.check_open()?;
                values.push(shared.get_encoded(key, encoded, Some(pin.seq()), &settings)?);
            }
        }
        Ok(values)
    }

    /// Takes a snapshot of the currently visible state.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.shared.life.check_open()?;
        Ok(Snapshot { pin: Pin::new(&self.shared) })
    }
}

impl Shared {
    fn get(&self, key: &Key<'_>, at: Option<SeqNo>) -> Result<Option<Slice>> {
        self.life.check_open()?;
        let settings = self.settings.load();
        let encoded = key.encode(settings.database.max_key_bytes)?;
        self.get_encoded(key, &encoded, at, &settings)
    }

    #[inline]
    fn get_encoded(
        &self,
        key: &Key<'_>,
        encoded: &EncodedKey,
        at: Option<SeqNo>,
        settings: &Settings,
    ) -> Result<Option<Slice>> {
        let running = self.observed.begin_operation(Operation::Get, settings);
        let mut cost = GetCost::default();
        let found = self.look_up(encoded, at, &mut cost);
        self.count_filters(encoded, &cost);
        let value = found?.filter(|found| found.kind == EntryKind::Put).map(|found| found.value);
        if running.since.is_some() {
            self.timed_get(encoded);
        }
        running.local.got(&cost, value.as_ref().map(|value| key.len() + value.len()));
        self.observed.end_operation(&running);
        Ok(value)
    }

    /// Counts a get that is timed for its stripe: a hot one stands out, at no cost to the others.
    #[cold]
    fn timed_get(&self, key: &EncodedKey) {
        if let Some(stripe) = self.stripes.if_used(stripe_of(key.partition_hash, self.stripes.count())) {
            stripe.timed_gets.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what the filters said to a look-up.
    #[inline]
    pub(super) fn count_filters(&self, key: &EncodedKey, cost: &GetCost) {
        self.io.tables().filters.add(stripe_of(key.partition_hash, self.stripes.count()), &cost.filter);
    }

    /// Prefetches what gets of these keys will read, as far as it is known where that is.
    fn prefetch(&self, keys: &[EncodedKey]) {
        let stripe =
            |key: &EncodedKey| self.stripes.if_used(stripe_of(key.partition_hash, self.stripes.count()));
        let each = |act: fn(&Version, u64)| {
            for key in keys {
                if let Some(stripe) = stripe(key) {
                    act(&stripe.version(), key.hash);
                }
            }
        };
        each(Version::prefetch);
        each(Version::prefetch_heads);
    }

    /// Returns the newest visible version of the key, tombstones included. Reports each step to `trace`.
    pub(crate) fn look_up(
        &self,
        key: &EncodedKey,
        at: Option<SeqNo>,
        trace: &mut impl ReadTrace,
    ) -> Result<Option<Found>> {
        // A stripe that was never used holds no key.
        let Some(stripe) = self.stripes.if_used(stripe_of(key.partition_hash, self.stripes.count())) else {
            return Ok(None);
        };
        let early = planted(Bug::VisibleBeforeVersion).then(|| later(self.commits.visible()));
        let version = stripe.version();
        let seq = at.or(early).unwrap_or_else(|| self.commits.visible());
        trace.begin(&version, seq);
        let found = version.get(&key.bytes, key.hash, seq, trace);
        found.map_err(|error| self.life.closed_or(error))
    }
}
