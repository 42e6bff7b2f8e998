//! Steps of other jobs in the middle of a job, as other threads would make them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::lsm::LsmEngine;
use crate::sync::Mutex;
use crate::torture::Rng;
use crate::vfs::{Call, FaultVfs, Op, Rule};

/// Maximum number of steps of other jobs beside one I/O operation.
const MOST_BESIDE: u64 = 5;

/// What other threads would do in the middle of a job.
pub(super) struct Beside {
    pub(super) engine: Mutex<Weak<LsmEngine>>,
    /// Whether steps may be made: not while one is already being made.
    pub(super) free: AtomicBool,
    pub(super) rng: Mutex<Rng>,
    pub(super) steps: AtomicU64,
    pub(super) poisoned: AtomicU64,
    /// The first removal, rename or truncation that a poisoned handle attempted.
    pub(super) late: Mutex<Option<String>>,
}

impl Beside {
    pub(super) fn watch(vfs: &FaultVfs, seed: u64) -> Arc<Self> {
        let beside = Arc::new(Self {
            engine: Mutex::default(),
            free: AtomicBool::new(false),
            rng: Mutex::new(Rng(seed ^ 0x6265_7369_6465)),
            steps: AtomicU64::new(0),
            poisoned: AtomicU64::new(0),
            late: Mutex::default(),
        });
        // Added first: a job does not yet know of the steps of other jobs that interrupt it.
        for files in ["*.log", "*.sst", "MANIFEST*"] {
            let watching = Arc::clone(&beside);
            let gone = Rule::hook(move |call| {
                watching.note_late(call);
                Ok(())
            });
            vfs.add(gone.on(&[Op::Remove, Op::Rename, Op::Truncate, Op::SetLen]).files(files));
        }
        let stepping = Arc::clone(&beside);
        let step = Rule::hook(move |_| {
            stepping.step();
            Ok(())
        });
        vfs.add(step.on(&[Op::Create, Op::Write, Op::Sync, Op::Remove]).files("*.sst"));
        beside
    }

    fn note_late(&self, call: &Call<'_>) {
        if let Some(engine) = self.engine.lock().upgrade()
            && let Some(cause) = engine.poisoned()
        {
            self.late.lock().get_or_insert_with(|| format!("{:?} {} after {cause}", call.op, call.name()));
        }
    }

    fn step(&self) {
        let Some(engine) = self.engine.lock().upgrade() else { return };
        if !self.free.swap(false, Ordering::Relaxed) {
            return;
        }
        let healthy = engine.poisoned().is_none();
        let mut rng = self.rng.lock().clone();
        for _ in 0..rng.below(MOST_BESIDE + 1) {
            self.steps.fetch_add(u64::from(engine.step(rng.next())), Ordering::Relaxed);
        }
        *self.rng.lock() = rng;
        self.poisoned.fetch_add(u64::from(healthy && engine.poisoned().is_some()), Ordering::Relaxed);
        self.free.store(true, Ordering::Relaxed);
    }
}
