//! TUNE: measures write rates and available memory, and sets the stripes' memtable limits accordingly, with
//! `MemtableMode::Adaptive`. The rule is in `adaptive.rs`.
//!
//! Measures at the end of a flush, at most once a second: nothing else needs the figures, and no write pays for them. A
//! stripe's writes are the records it flushed plus those in its memtables, so no separate counter is needed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::settings::Settings;
use super::stripes::Stripes;
use crate::adaptive::{self, Inputs};
use crate::clock::Clock;
use crate::config::MemtableMode;
use crate::memory::MemoryProbe;
use crate::memtable::Memtable;
use crate::sync::Mutex;

/// The maximum age of a measurement.
const SAMPLE: Duration = Duration::from_secs(1);
/// The time constant of the rates: short enough to follow a burst, long enough to outlast the pauses of clients.
const MEMORY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Tuner {
    probe: Arc<dyn MemoryProbe>,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    /// When it was taken; `None` before the first.
    at: Option<Duration>,
    /// Whether there are rates: the first measurement only starts an interval.
    rated: bool,
    /// Indexed by stripe.
    stripes: Vec<Writes>,
    /// The sum of the square roots of the stripes' rates.
    roots: f64,
    available: Option<u64>,
    record_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Writes {
    /// Records written since open.
    count: u64,
    /// Records a second.
    rate: f64,
}

impl Tuner {
    pub(crate) fn new(probe: Arc<dyn MemoryProbe>) -> Self {
        Self { probe, measured: Mutex::default() }
    }

    /// See [`MemoryProbe::major_faults`].
    pub(crate) fn major_faults(&self) -> Option<u64> {
        self.probe.major_faults()
    }

    /// Recomputes the limit of a stripe after a flush. `memory` is the total size of all memtables.
    pub(crate) fn retune(
        &self,
        stripes: &Stripes,
        settings: &Settings,
        memory: usize,
        clock: &dyn Clock,
        id: usize,
        flushed: &Memtable,
    ) {
        // A stripe that was flushed is in use.
        let Some(stripe) = stripes.if_used(id) else { return };
        stripe.flushed_records.fetch_add(flushed.len() as u64, Ordering::Relaxed);
        if settings.database.memtable_mode == MemtableMode::Fixed {
            return;
        }
        let mut measured = self.measured.lock();
        self.measure(&mut measured, stripes, clock.monotonic(), flushed);
        let rate = measured.stripes.get(id).map_or(0.0, |writes| writes.rate);
        let inputs = Inputs {
            base: settings.database.max_memtable_records,
            stripes: stripes.count(),
            rate,
            share: if measured.roots > 0.0 { rate.sqrt() / measured.roots } else { 0.0 },
            available: measured.available,
            held: memory as u64,
            record_bytes: measured.record_bytes,
            budget: settings.memory_budget as u64,
        };
        stripe.set_adaptive_limit(adaptive::limit(stripe.memtable_limit(&settings.database), &inputs));
    }

    /// Updates the measurements, unless they are recent.
    fn measure(&self, measured: &mut Measured, stripes: &Stripes, now: Duration, flushed: &Memtable) {
        let since = measured.at.map(|at| now.saturating_sub(at));
        if since.is_some_and(|since| since < SAMPLE) {
            return;
        }
        measured.at = Some(now);
        measured.available = self.probe.available();
        measured.stripes.resize(stripes.count(), Writes::default());
        // The weight of old measurements decays exponentially with time, however irregular the intervals are.
        let weight = match (since, measured.rated) {
            (Some(since), true) => 1.0 - (-since.as_secs_f64() / MEMORY.as_secs_f64()).exp(),
            _ => 1.0,
        };
        measured.rated = since.is_some();
        let (mut records, mut bytes) = (flushed.len() as u64, flushed.memory() as u64);
        for stripe in stripes.used() {
            let version = stripe.version();
            let held: u64 = version.memtables().map(|memtable| memtable.len() as u64).sum();
            bytes += version.memtables().map(|memtable| memtable.memory() as u64).sum::<u64>();
            records += held;
            // There is an entry for each stripe, by the resize above.
            let Some(writes) = measured.stripes.get_mut(stripe.id) else { continue };
            let count = stripe.flushed_records.load(Ordering::Relaxed) + held;
            if let Some(since) = since {
                let rate = count.saturating_sub(writes.count) as f64 / since.as_secs_f64();
                writes.rate += weight * (rate - writes.rate);
            }
            // A flush that ends in between may make the count look too small once.
            writes.count = writes.count.max(count);
        }
        measured.roots = measured.stripes.iter().map(|writes| writes.rate.sqrt()).sum();
        measured.record_bytes = bytes / records.max(1);
    }
}
