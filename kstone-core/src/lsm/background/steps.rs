//! Background work without threads ([`crate::lsm::Workers::Manual`]): one step at a time, for tests and for calls that
//! wait.

use super::queue::Queue;
use crate::error::Error;
use crate::health::PoisonOnUnwind;
use crate::lsm::job::{Slot, StepResult};
use crate::lsm::state::Shared;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;

impl Shared {
    /// Performs one step of a job, started or new, selected by `choice`; false when nothing is due.
    pub(crate) fn step(&self, choice: u64) -> bool {
        let mut queue = self.background.queue.lock();
        let due = self.due(&mut queue);
        self.step_one(queue, &due, choice)
    }

    /// Performs a step of the jobs that are ready, in turn: for calls that wait when there is no other thread. Skips
    /// jobs that have just failed, or a call would wait forever on a clock that stands still.
    pub(super) fn step_in_turn(&self) -> bool {
        let mut queue = self.background.queue.lock();
        let due = self.ready(&mut queue);
        self.step_one(queue, &due, self.background.turn.fetch_add(1, Ordering::Relaxed))
    }

    fn step_one(&self, mut queue: MutexGuard<'_, Queue>, due: &[Slot], choice: u64) -> bool {
        let mut begun = self.background.begun.lock();
        let options = begun.len() + due.len();
        if options == 0 {
            return false;
        }
        let at = (choice % options as u64) as usize;
        let (slot, mut job) = match due.get(at.wrapping_sub(begun.len())) {
            Some(&slot) => (slot, self.begin(&mut queue, slot)),
            None => begun.swap_remove(at),
        };
        drop((begun, queue));
        let unwinding = PoisonOnUnwind::new(self.life.health(), "background work");
        let stepped = job.step(self);
        std::mem::forget(unwinding);
        debug_assert!(self.keeps_its_promises(), "after a step of {slot:?}: {:?}", self.space_report());
        match stepped {
            Ok(StepResult::Again) => self.background.begun.lock().push((slot, job)),
            Ok(StepResult::Done) => self.end(slot, job, Ok(())),
            Err(error) => self.end(slot, job, Err(error)),
        }
        true
    }

    /// Aborts the jobs that tests have started: the engine is closing.
    pub(crate) fn abandon_begun(&self) {
        let begun = std::mem::take(&mut *self.background.begun.lock());
        for (slot, job) in begun {
            self.end(slot, job, Err(Error::Closed));
        }
    }
}
