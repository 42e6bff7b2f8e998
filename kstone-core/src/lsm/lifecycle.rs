//! The life of a handle: which database it is of, in which process, whether it is open, whether it may still write.
//!
//! 1. It may write once the manifest records no clean end any more and recovery is finished ([`Lifecycle::start_writing`]),
//!    until it is poisoned or closed.
//! 2. Calls that write hold the gate ([`Lifecycle::enter`]); a close lets no further one in, and waits for those under
//!    way.
//! 3. After a failure that poisons, nothing is written and nothing removed any more.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::lock::LockGuard;
use super::recover::unfinished::Unfinished;
use crate::error::{Error, Result};
use crate::file_header::Id;
use crate::health::Health;
use crate::planted::{Bug, planted};
use crate::process::Process;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, RwLock, RwLockReadGuard};
use crate::vfs::{LockIdentity, Vfs};

/// Which database it is, and which copy of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
}

/// What a handle may do, and what it has for that.
#[derive(Debug)]
pub(crate) enum Access {
    Read {
        /// SSTs that cannot be read.
        damage: Vec<Error>,
    },
    Write {
        lock: LockGuard,
        /// Where the lock was taken, as far as it is known.
        place: Arc<OnceLock<LockIdentity>>,
        /// What recovery could not write yet.
        unfinished: Option<Unfinished>,
    },
}

#[derive(Debug)]
pub(crate) struct Lifecycle {
    identity: Identity,
    /// The process that has opened it.
    process: Process,
    read_only: bool,
    damage: Vec<Error>,
    health: Arc<Health>,
    /// The manifest records no clean end any more, and recovery is finished, so that writing may begin.
    opened: AtomicBool,
    /// Set while recovery is not finished, for want of space. Taken under the manifest's lock.
    unfinished: Mutex<Option<Unfinished>>,
    closed: AtomicBool,
    /// Shared by whatever writes for a caller, taken alone by close.
    gate: RwLock<()>,
    /// Held from open to close.
    lock: Mutex<Option<LockGuard>>,
    /// Where that was taken, as far as it is known.
    place: Arc<OnceLock<LockIdentity>>,
}

impl Lifecycle {
    /// `clean`: the manifest says where the log ends, so that nothing may be written before it says so no more.
    pub(crate) fn new(identity: Identity, health: Arc<Health>, clean: bool, access: Access) -> Self {
        let (read_only, damage, lock, place, unfinished) = match access {
            Access::Read { damage } => (true, damage, None, Arc::default(), None),
            Access::Write { lock, place, unfinished } => (false, Vec::new(), Some(lock), place, unfinished),
        };
        Self {
            identity,
            process: Process::current(),
            read_only,
            damage,
            health,
            opened: AtomicBool::new(!clean && unfinished.is_none()),
            unfinished: Mutex::new(unfinished),
            closed: AtomicBool::new(false),
            gate: RwLock::new(()),
            lock: Mutex::new(lock),
            place,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    #[inline]
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// See [`LsmEngine::damage`](super::LsmEngine::damage).
    pub(crate) fn damage(&self) -> &[Error] {
        &self.damage
    }

    /// Whether this is a process that was forked off the opener's.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        !self.process.is_current()
    }

    /// Refuses in a forked process, where locks may be held by threads that it does not have: to be asked before any is
    /// taken.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.check_process()?;
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether this handle may change the database; it may still have to be [opened](Self::is_opened) for that.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        self.health.check()
    }

    /// What a read has met, or `Closed`: a close takes away files that only readers still needed, which is no damage.
    pub(crate) fn closed_or(&self, error: Error) -> Error {
        self.check_open().err().unwrap_or(error)
    }

    /// Whether a close has begun.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A call that writes begins; a close waits for the guard. The handle may be closed already.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read()
    }

    /// Lets nobody in any more; false when that was so.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Waits until all calls that write have ended: those that come later find the handle closed.
    pub(crate) fn wait_for_calls(&self) {
        drop(self.gate.write());
    }

    /// Gives up the directory.
    pub(crate) fn unlock(&self) {
        *self.lock.lock() = None;
    }

    /// Whether writing has begun, or may.
    #[inline]
    pub(crate) fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// Whether recovery still has to write something.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished.lock().is_some()
    }

    /// Begins writing, once `prepare` has made what was found fit for it: it gets what recovery has left undone. The
    /// caller holds the manifest, under which nobody else does the same.
    pub(crate) fn start_writing(
        &self,
        prepare: impl FnOnce(Option<&mut Unfinished>) -> Result<()>,
    ) -> Result<()> {
        let mut unfinished = self.unfinished.lock();
        prepare(unfinished.as_mut())?;
        *unfinished = None;
        self.opened.store(true, Ordering::Release);
        Ok(())
    }

    /// As if it was opened after a clean end and not written to, or written to.
    #[cfg(test)]
    pub(crate) fn set_opened(&self, opened: bool) {
        self.opened.store(opened, Ordering::Release);
    }

    /// Poisons the handle when what it has locked is not where its files are any more: somebody else may write there.
    pub(crate) fn check_place(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        let Some(place) = self.place.get() else { return Ok(()) };
        self.poison_on_error(place.check(vfs).map_err(Error::io("go on writing to", dir)))
    }

    /// For syncs: whatever the error, also without space, a second one would succeed without the lost pages.
    pub(crate) fn poison_on_error<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.health.poison(error);
        }
        result
    }

    /// Whether this handle may still remove files. After a failure that poisons it may not, by any way: the manifest on
    /// disk may be the one before the edit that failed or the one after it, and either must find what it lists. What is
    /// left over is removed by the next open.
    pub(crate) fn may_remove(&self) -> bool {
        self.health.check().is_ok() || planted(Bug::FailedEditForgotten)
    }
}
