//! The life of a handle: its database, its process, whether it is open, and whether it may still write.
//!
//! 1. It may write once the manifest no longer records a clean end and recovery has finished
//!    ([`Lifecycle::start_writing`]), until it is poisoned or closed.
//! 2. Calls that write hold the gate ([`Lifecycle::enter`]); a close admits no further calls, and waits for those that
//!    are running.
//! 3. After a failure that poisons the handle, nothing is written or removed any more.

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
use crate::vfs::{LockIdentity, Usage, Vfs};

/// Identifies a database and a copy of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
}

/// What a handle may do, and the resources for it.
#[derive(Debug)]
pub(crate) enum Access {
    Read {
        /// SSTs that cannot be read.
        damage: Vec<Error>,
        /// The size of the files.
        usage: Usage,
    },
    Write {
        lock: LockGuard,
        /// The place where the lock was taken, if known.
        place: Arc<OnceLock<LockIdentity>>,
        /// The part of recovery that could not be written yet.
        unfinished: Option<Unfinished>,
    },
}

#[derive(Debug)]
pub(crate) struct Lifecycle {
    identity: Identity,
    /// The process that opened it.
    process: Process,
    /// The size of the files when it was opened, of a read-only handle only.
    usage: Option<Usage>,
    damage: Vec<Error>,
    health: Arc<Health>,
    /// The manifest no longer records a clean end, and recovery has finished, so that writing may start.
    opened: AtomicBool,
    /// The part of recovery still to be written, for lack of space. Acquired under the manifest's lock.
    unfinished: Mutex<Option<Unfinished>>,
    closed: AtomicBool,
    /// Acquired shared by every call that writes, exclusively by close.
    gate: RwLock<()>,
    /// Held from open to close.
    lock: Mutex<Option<LockGuard>>,
    /// The place where that lock was taken, if known.
    place: Arc<OnceLock<LockIdentity>>,
}

impl Lifecycle {
    /// `clean`: the manifest records the end of the log, so nothing may be written until that is cancelled.
    pub(crate) fn new(identity: Identity, health: Arc<Health>, clean: bool, access: Access) -> Self {
        let (usage, damage, lock, place, unfinished) = match access {
            Access::Read { damage, usage } => (Some(usage), damage, None, Arc::default(), None),
            Access::Write { lock, place, unfinished } => (None, Vec::new(), Some(lock), place, unfinished),
        };
        Self {
            identity,
            process: Process::current(),
            usage,
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
        self.usage.is_some()
    }

    /// The size of the files when it was opened, of a read-only handle only.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// See [`LsmEngine::damage`](super::LsmEngine::damage).
    pub(crate) fn damage(&self) -> &[Error] {
        &self.damage
    }

    /// Whether this process was forked from the opener.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        !self.process.is_current()
    }

    /// Fails in a forked process, where locks may be held by threads that do not exist in it. Must be called before any
    /// lock is acquired.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.check_process()?;
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether this handle may change the database; it may first have to be [opened](Self::is_opened).
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        self.health.check()
    }

    /// Replaces the error of a read by `Closed` if the handle is closed: a close removes files that only readers still
    /// needed, and that is no damage.
    pub(crate) fn closed_or(&self, error: Error) -> Error {
        self.check_open().err().unwrap_or(error)
    }

    /// Whether a close has started.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Starts a call that writes; a close waits for the guard. The handle may already be closed.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read()
    }

    /// Admits no further calls. Returns false if the handle was closed already.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Waits until all running calls that write have ended; later ones find the handle closed.
    pub(crate) fn wait_for_calls(&self) {
        drop(self.gate.write());
    }

    /// Releases the lock of the directory.
    pub(crate) fn unlock(&self) {
        *self.lock.lock() = None;
    }

    /// Whether writing has started, or may start.
    #[inline]
    pub(crate) fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// Whether part of recovery remains to be written.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished.lock().is_some()
    }

    /// Starts writing. `prepare` first makes the files ready for it and receives the unfinished part of recovery. The
    /// caller holds the manifest, so that no other thread does the same.
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

    /// Makes the handle behave as if opened after a clean end and not written to (false), or written to (true).
    #[cfg(test)]
    pub(crate) fn set_opened(&self, opened: bool) {
        self.opened.store(opened, Ordering::Release);
    }

    /// Poisons the handle if its lock no longer covers the path of its files: another process may write there.
    pub(crate) fn check_place(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        let Some(place) = self.place.get() else { return Ok(()) };
        self.poison_on_error(place.check(vfs).map_err(Error::io("keep writing to", dir)))
    }

    /// For syncs: after any error, even for lack of space, another sync could succeed without the lost pages.
    pub(crate) fn poison_on_error<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.health.poison(error);
        }
        result
    }

    /// Whether this handle may still remove files. After a failure that poisons it, it must not remove any: the
    /// manifest on disk may be the one before the failed edit or the one after it, and either must find the files it
    /// lists. The next open removes leftovers.
    pub(crate) fn may_remove(&self) -> bool {
        self.health.check().is_ok() || planted(Bug::FailedEditForgotten)
    }
}
