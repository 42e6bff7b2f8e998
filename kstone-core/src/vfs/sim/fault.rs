//! A file system with injected faults, wrapped around any other, for tests of the engine and of programs that use it.
//!
//! A [`Rule`] selects operations (by kind, by file name, by occurrence) and determines what happens to them
//! ([`Effect`]). Without rules, everything is passed on. All operations are counted by kind, and recorded on request.
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use kstone_core::Key;
//! use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
//! use kstone_core::vfs::{Errno, FaultVfs, Op, Rule, StrictVfs};
//!
//! # fn main() -> kstone_core::Result<()> {
//! let vfs = FaultVfs::new(Arc::new(StrictVfs::new()));
//! let engine = LsmEngine::create(Path::new("db"), EngineOptions::on(Arc::new(vfs.clone())))?;
//! engine.put(&Key::from("before"), b"1", WriteOptions::new())?;
//!
//! // The next write to the log finds no space; the one after it does.
//! let rule = vfs.add(Rule::fail(Errno::NoSpace).on(&[Op::Write]).files("wal-*").nth(1));
//! assert_eq!(engine.put(&Key::from("refused"), b"2", WriteOptions::new()).unwrap_err().code(), "disk_full");
//! assert_eq!(rule.hits(), 1);
//! engine.put(&Key::from("after"), b"3", WriteOptions::new())?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: of the rules that match an operation, all hooks are called, and the first of the other rules, in the
//! order in which they were added, decides. Each rule counts every operation that it selects, even if another rule
//! decides. Hooks are called with no lock held, so they may use the file system.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::{
    DirEntry, FileIdentity, FreeSpace, Mapping, OpenMode, PathKind, SharedBytes, Vfs, VfsFile,
};
use super::trace::{Call, Op, Record, name};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{ArcSwap, Mutex, RwLock};

#[cfg(test)]
mod tests;

/// Why the operating system refuses an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Errno {
    /// EIO: the device failed.
    Io,
    /// ENOSPC: no space on the device.
    NoSpace,
    /// EDQUOT: the user's quota is used up.
    Quota,
    /// EINTR: a signal interrupted the call; it should be retried.
    Interrupted,
    /// EMFILE: the process has reached its limit of open files.
    TooManyFiles,
    /// ENOMEM: no memory, or no address space.
    NoMemory,
    /// EROFS: mounted read-only.
    ReadOnly,
    /// EACCES: denied by the permissions.
    Access,
    /// EPERM: not permitted, as for an immutable file.
    NotPermitted,
    /// ENOENT: nothing has this name.
    NotFound,
    /// EOPNOTSUPP: not supported by this file system.
    Unsupported,
}

impl Errno {
    /// Returns the error as the operating system would.
    pub fn error(self) -> io::Error {
        use rustix::io::Errno as System;
        io::Error::from(match self {
            Self::Io => System::IO,
            Self::NoSpace => System::NOSPC,
            Self::Quota => System::DQUOT,
            Self::Interrupted => System::INTR,
            Self::TooManyFiles => System::MFILE,
            Self::NoMemory => System::NOMEM,
            Self::ReadOnly => System::ROFS,
            Self::Access => System::ACCESS,
            Self::NotPermitted => System::PERM,
            Self::NotFound => System::NOENT,
            Self::Unsupported => System::OPNOTSUPP,
        })
    }
}

/// Called with an operation that is about to be executed. If it returns an error, the operation fails with that.
pub type Hook = dyn Fn(&Call<'_>) -> io::Result<()> + Send + Sync;

/// What happens to an operation that a rule selects.
#[derive(Clone)]
#[non_exhaustive]
pub enum Effect {
    /// It is not executed and fails.
    Fail(Errno),
    /// A write is executed with half of its bytes, but fails. Other operations fail without being executed.
    Torn(Errno),
    /// It is executed completely, but fails, so that the caller cannot know the resulting state.
    Done(Errno),
    /// A read or write handles at most this many bytes, but at least one, and returns their number. Other operations
    /// are executed.
    Short(usize),
    /// A sync fails and loses what it should have made durable, as on Linux: data written since the last sync remains
    /// readable, even after reopening the file, and the next sync succeeds, but a power cut loses the data.
    /// Requires an underlying file system that supports this, such as [`super::StrictVfs`]. Other operations fail.
    LoseUnsynced(Errno),
    /// A sync of a file or directory is not executed, but succeeds, like a disk that lies. Other operations are
    /// executed.
    Pretend,
    /// It fails, and so do all later operations that would change anything, until [`FaultVfs::revive`]. None is
    /// executed.
    Crash,
    /// The hook is called first. For delays, and for observation.
    Call(Arc<Hook>),
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(errno) => f.debug_tuple("Fail").field(errno).finish(),
            Self::Torn(errno) => f.debug_tuple("Torn").field(errno).finish(),
            Self::Done(errno) => f.debug_tuple("Done").field(errno).finish(),
            Self::Short(len) => f.debug_tuple("Short").field(len).finish(),
            Self::LoseUnsynced(errno) => f.debug_tuple("LoseUnsynced").field(errno).finish(),
            Self::Pretend => f.write_str("Pretend"),
            Self::Crash => f.write_str("Crash"),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// Selects operations, and what happens to them. A new rule selects every operation on every file.
#[derive(Clone, Debug)]
pub struct Rule {
    effect: Effect,
    ops: u32,
    files: String,
    growing: bool,
    /// The first operation of the file system that is selected, by number.
    after: u64,
    /// The range of occurrences, counted from 1.
    from: u64,
    to: u64,
}

impl Rule {
    /// Applies an effect to all operations.
    pub fn new(effect: Effect) -> Self {
        Self { effect, ops: u32::MAX, files: "*".into(), growing: false, after: 0, from: 1, to: u64::MAX }
    }

    /// Makes all operations fail.
    pub fn fail(errno: Errno) -> Self {
        Self::new(Effect::Fail(errno))
    }

    /// Calls `hook` before every operation. If it returns an error, the operation fails.
    pub fn hook(hook: impl Fn(&Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::new(Effect::Call(Arc::new(hook)))
    }

    /// Makes operations that take space fail, as on a full file system: creating files and extending them.
    pub fn full() -> Self {
        Self::fail(Errno::NoSpace).growing()
    }

    /// Selects only operations of these kinds.
    #[must_use]
    pub fn on(self, ops: &[Op]) -> Self {
        Self { ops: ops.iter().fold(0, |set, &op| set | bit(op)), ..self }
    }

    /// Selects only operations that change something.
    #[must_use]
    pub fn on_changes(self) -> Self {
        Self { ops: Op::ALL.into_iter().filter(|op| op.changes()).fold(0, |set, op| set | bit(op)), ..self }
    }

    /// Selects only files and directories whose name, without directories, matches the pattern. `*` matches any
    /// characters. For a rename or link, either name may match.
    #[must_use]
    pub fn files(self, pattern: impl Into<String>) -> Self {
        Self { files: pattern.into(), ..self }
    }

    /// Selects only operations that create a file or directory, or extend a file.
    #[must_use]
    pub fn growing(self) -> Self {
        Self { growing: true, ..self }
    }

    /// Selects only operations from the file system's `n`-th operation on ([`FaultVfs::total`]).
    #[must_use]
    pub fn after(self, n: u64) -> Self {
        Self { after: n, ..self }
    }

    /// Selects only the `n`-th occurrence, counted from 1 since the rule was added.
    #[must_use]
    pub fn nth(self, n: u64) -> Self {
        Self { from: n, to: n, ..self }
    }

    /// Selects only occurrences from the `n`-th on.
    #[must_use]
    pub fn from(self, n: u64) -> Self {
        Self { from: n, to: u64::MAX, ..self }
    }

    /// Selects only these occurrences.
    #[must_use]
    pub fn range(self, occurrences: std::ops::RangeInclusive<u64>) -> Self {
        Self { from: *occurrences.start(), to: *occurrences.end(), ..self }
    }

    fn is_about(&self, number: u64, call: &Call<'_>, grows: impl Fn() -> bool) -> bool {
        number >= self.after
            && self.ops & bit(call.op) != 0
            && (self.files == "*"
                || matches(&self.files, &call.name())
                || call.to.is_some_and(|to| matches(&self.files, &name(to))))
            && (!self.growing || grows())
    }
}

fn bit(op: Op) -> u32 {
    1 << op as u32
}

/// Whether a name matches a pattern, in which `*` matches any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    ends.any(|at| matches(rest, name.get(at..).unwrap_or_default()))
}

/// A rule in force.
#[derive(Debug)]
struct Active {
    rule: Rule,
    on: AtomicBool,
    seen: AtomicU64,
    hits: AtomicU64,
}

/// Refers to a rule of a [`FaultVfs`]. Dropping it does not remove the rule.
#[derive(Clone, Debug)]
pub struct RuleHandle(Arc<Active>);

impl RuleHandle {
    /// Returns how many operations the rule was applied to.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::SeqCst)
    }

    /// Returns how many operations matched the rule, whatever their occurrence.
    pub fn seen(&self) -> u64 {
        self.0.seen.load(Ordering::SeqCst)
    }

    /// Enables or disables the rule. While disabled, it counts nothing.
    pub fn set(&self, on: bool) {
        self.0.on.store(on, Ordering::SeqCst);
    }
}

/// A file system with injected faults. Clones share rules and counts. See the module documentation for an example.
#[derive(Clone, Debug)]
pub struct FaultVfs {
    inner: Arc<dyn Vfs>,
    plan: Arc<FaultPlan>,
}

#[derive(Default)]
struct FaultPlan {
    rules: RwLock<Vec<Arc<Active>>>,
    counts: [AtomicU64; Op::ALL.len()],
    total: AtomicU64,
    crashed: AtomicBool,
    recording: AtomicBool,
    records: Mutex<Vec<Record>>,
    /// The open files.
    open: Mutex<Vec<Arc<OpenFile>>>,
}

/// The path of an open file; the new one after a rename.
type OpenFile = ArcSwap<PathBuf>;

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultPlan").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl FaultVfs {
    /// Wraps `inner`. Everything is passed on until rules are added.
    pub fn new(inner: Arc<dyn Vfs>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Returns the underlying file system.
    pub fn inner(&self) -> &Arc<dyn Vfs> {
        &self.inner
    }

    /// Adds a rule after the existing ones.
    pub fn add(&self, rule: Rule) -> RuleHandle {
        let active = Arc::new(Active {
            rule,
            on: AtomicBool::new(true),
            seen: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        });
        self.plan.rules.write().push(Arc::clone(&active));
        RuleHandle(active)
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.plan.rules.write().clear();
    }

    /// Ends the state caused by [`Effect::Crash`].
    pub fn revive(&self) {
        self.plan.crashed.store(false, Ordering::SeqCst);
    }

    /// Returns how many operations of this kind were attempted.
    pub fn count(&self, op: Op) -> u64 {
        self.plan.counts.get(op as usize).map_or(0, |count| count.load(Ordering::SeqCst))
    }

    /// Returns how many operations were attempted.
    pub fn total(&self) -> u64 {
        self.plan.total.load(Ordering::SeqCst)
    }

    /// Starts or stops recording operations. Records are kept until they are taken.
    pub fn record(&self, on: bool) {
        self.plan.recording.store(on, Ordering::SeqCst);
    }

    /// Takes the records, in the order in which the operations ended.
    pub fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut *self.plan.records.lock())
    }

    /// Returns the open files whose names match the pattern ([`Rule::files`]), once for each time they are open.
    pub fn open_now(&self, pattern: &str) -> Vec<PathBuf> {
        let open = self.plan.open.lock();
        let paths = open.iter().map(|file| PathBuf::clone(&file.load()));
        let mut fitting: Vec<_> = paths.filter(|path| matches(pattern, &name(path))).collect();
        fitting.sort();
        fitting
    }

    fn file(&self, path: &Path, inner: Arc<dyn VfsFile>) -> FaultFile {
        let file = Arc::new(ArcSwap::from_pointee(path.to_path_buf()));
        self.plan.open.lock().push(Arc::clone(&file));
        FaultFile { inner, path: file, plan: Arc::clone(&self.plan) }
    }

    fn name_op<T>(&self, call: Call<'_>, go: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.plan.run(&call, || call.op.takes_space(), |_| go(), || ())
    }
}

impl FaultPlan {
    /// Executes an operation as modified by the first matching rule. `go` receives the number of bytes that it may
    /// handle; for a sync, 0 means not to sync. `lose` loses what is not synced.
    fn run<T>(
        &self,
        call: &Call<'_>,
        grows: impl Fn() -> bool,
        go: impl FnOnce(usize) -> io::Result<T>,
        lose: impl FnOnce(),
    ) -> io::Result<T> {
        let number = self.total.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(count) = self.counts.get(call.op as usize) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let result = self.judge(number, call, grows).and_then(|verdict| match verdict {
            Injected::Pass => go(usize::MAX),
            Injected::Short(len) => go(len.max(1)),
            Injected::Pretend => go(0),
            Injected::Torn(errno) => {
                if call.op == Op::Write && call.len > 1 {
                    go(call.bytes.len() / 2)?;
                }
                Err(errno.error())
            }
            Injected::Done(errno) => go(usize::MAX).and(Err(errno.error())),
            Injected::Lose(errno) => {
                lose();
                Err(errno.error())
            }
        });
        if self.recording.load(Ordering::SeqCst) {
            self.records.lock().push(Record::of(number, call, result.as_ref().err()));
        }
        result
    }

    fn judge(&self, number: u64, call: &Call<'_>, grows: impl Fn() -> bool) -> io::Result<Injected> {
        if call.op.changes() && self.crashed.load(Ordering::SeqCst) {
            return Err(Errno::Io.error());
        }
        let (mut striking, mut hooks) = (None, SmallVec::<[Arc<Active>; 4]>::new());
        for active in &*self.rules.read() {
            if !active.on.load(Ordering::SeqCst) || !active.rule.is_about(number, call, &grows) {
                continue;
            }
            let seen = active.seen.fetch_add(1, Ordering::SeqCst) + 1;
            if !(active.rule.from..=active.rule.to).contains(&seen) {
                continue;
            }
            if matches!(active.rule.effect, Effect::Call(_)) {
                hooks.push(Arc::clone(active));
            } else if striking.is_none() {
                striking = Some(Arc::clone(active));
            }
        }
        for active in hooks {
            active.hits.fetch_add(1, Ordering::SeqCst);
            if let Effect::Call(hook) = &active.rule.effect {
                hook(call)?;
            }
        }
        let Some(active) = striking else { return Ok(Injected::Pass) };
        active.hits.fetch_add(1, Ordering::SeqCst);
        match &active.rule.effect {
            Effect::Fail(errno) => Err(errno.error()),
            Effect::Torn(errno) => Ok(Injected::Torn(*errno)),
            Effect::Done(errno) => Ok(Injected::Done(*errno)),
            Effect::Short(len) => Ok(Injected::Short(*len)),
            Effect::LoseUnsynced(errno) => Ok(Injected::Lose(*errno)),
            Effect::Pretend if matches!(call.op, Op::Sync | Op::SyncDir) => Ok(Injected::Pretend),
            Effect::Pretend => Ok(Injected::Pass),
            Effect::Crash => {
                self.crashed.store(true, Ordering::SeqCst);
                Err(Errno::Io.error())
            }
            Effect::Call(_) => Ok(Injected::Pass),
        }
    }
}

enum Injected {
    Pass,
    Short(usize),
    Pretend,
    Torn(Errno),
    Done(Errno),
    Lose(Errno),
}

impl Vfs for FaultVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let op = match mode {
            OpenMode::Read => Op::OpenRead,
            OpenMode::Write => Op::OpenWrite,
            OpenMode::Create => Op::Create,
            OpenMode::Truncate => Op::Truncate,
        };
        let inner = self.name_op(Call::new(op, path), || self.inner.open(path, mode))?;
        Ok(Arc::new(self.file(path, inner)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.name_op(Call::new(Op::List, dir), || self.inner.list(dir))
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.absolute(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        self.name_op(Call::new(Op::Kind, path), || self.inner.kind(path))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.name_op(Call::new(Op::CreateDir, dir), || self.inner.create_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call { to: Some(to), ..Call::new(Op::Rename, from) };
        self.name_op(call, || {
            self.inner.rename(from, to)?;
            for file in self.plan.open.lock().iter().filter(|file| **file.load() == from) {
                file.store(Arc::new(to.to_path_buf()));
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.name_op(Call::new(Op::Remove, path), || self.inner.remove(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call { to: Some(to), ..Call::new(Op::HardLink, from) };
        self.name_op(call, || self.inner.hard_link(from, to))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.name_op(Call::new(Op::RemoveDir, dir), || self.inner.remove_dir(dir))
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        self.name_op(Call::new(Op::Identity, path), || self.inner.identity(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let call = Call::new(Op::SyncDir, dir);
        let lose = || self.inner.lose_unsynced_names(dir);
        let sync = |most| if most == 0 { Ok(()) } else { self.inner.sync_dir(dir) };
        self.plan.run(&call, || false, sync, lose)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        self.name_op(Call::new(Op::Lock, path), || self.inner.lock(path, owner))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.name_op(Call::new(Op::LockShared, path), || self.inner.lock_shared(path))
    }

    fn free_space(&self, dir: &Path) -> io::Result<Option<FreeSpace>> {
        self.inner.free_space(dir)
    }

    fn is_volatile(&self) -> bool {
        self.inner.is_volatile()
    }

    fn lose_unsynced_names(&self, dir: &Path) {
        self.inner.lose_unsynced_names(dir);
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn VfsFile>,
    path: Arc<OpenFile>,
    plan: Arc<FaultPlan>,
}

impl Drop for FaultFile {
    fn drop(&mut self) {
        self.plan.open.lock().retain(|file| !Arc::ptr_eq(file, &self.path));
    }
}

/// Stores cannot fail, so no rule selects them; but none takes place after a crash.
#[derive(Debug)]
struct FaultBytes {
    inner: Box<dyn SharedBytes>,
    plan: Arc<FaultPlan>,
}

impl SharedBytes for FaultBytes {
    fn store(&mut self, at: usize, bytes: &[u8]) {
        if !self.plan.crashed.load(Ordering::SeqCst) {
            self.inner.store(at, bytes);
        }
    }

    fn bytes(&self) -> &[u8] {
        self.inner.bytes()
    }
}

impl FaultFile {
    /// Whether writing up to `end` extends the file.
    fn grows(&self, end: u64) -> bool {
        self.inner.len().is_ok_and(|len| end > len)
    }

    fn resize(&self, op: Op, len: u64, go: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let path = self.path.load();
        let call = Call { offset: len, ..Call::new(op, &path) };
        self.plan.run(&call, || self.grows(len), |_| go(), || ())
    }
}

impl VfsFile for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let path = self.path.load();
        let call = Call { offset, len: buf.len() as u64, ..Call::new(Op::Read, &path) };
        let read = |most: usize| {
            let len = buf.len().min(most);
            self.inner.read_at(buf.get_mut(..len).unwrap_or_default(), offset)
        };
        self.plan.run(&call, || false, read, || ())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let path = self.path.load();
        let call = Call { offset, len: buf.len() as u64, bytes: buf, ..Call::new(Op::Write, &path) };
        let write =
            |most: usize| self.inner.write_at(buf.get(..buf.len().min(most)).unwrap_or_default(), offset);
        self.plan.run(&call, || self.grows(offset.saturating_add(buf.len() as u64)), write, || ())
    }

    fn sync(&self) -> io::Result<()> {
        let path = self.path.load();
        let sync = |most| if most == 0 { Ok(()) } else { self.inner.sync() };
        self.plan.run(&Call::new(Op::Sync, &path), || false, sync, || self.inner.lose_unsynced())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(Op::SetLen, len, || self.inner.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.resize(Op::Allocate, len, || self.inner.allocate(len))
    }

    fn len(&self) -> io::Result<u64> {
        let path = self.path.load();
        self.plan.run(&Call::new(Op::Len, &path), || false, |_| self.inner.len(), || ())
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        let path = self.path.load();
        let call = Call { offset: len, ..Call::new(Op::Map, &path) };
        self.plan.run(&call, || false, |_| self.inner.map(len), || ())
    }

    fn share(&self, len: u64) -> io::Result<Box<dyn SharedBytes>> {
        let path = self.path.load();
        let call = Call { offset: len, ..Call::new(Op::Map, &path) };
        let shared = self.plan.run(&call, || false, |_| self.inner.share(len), || ())?;
        Ok(Box::new(FaultBytes { inner: shared, plan: Arc::clone(&self.plan) }))
    }

    fn lose_unsynced(&self) {
        self.inner.lose_unsynced();
    }
}
