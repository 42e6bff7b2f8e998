//! BACKUP: a copy of the database as of one moment, while writes continue.
//!
//! sync the log -> pin one state of the manifest, and with it its files -> claim the destination -> copy the log from
//! the state's start to its synced end -> link or copy the SSTs that the state lists -> sync -> write a manifest that
//! ends the log where the copy ends.
//!
//! 1. The copied log reaches at least to the state's durable position, and covers everything acknowledged before the
//!    call. So the copy is a prefix of the commits, as after a power cut; a batch is one record, and thus whole.
//! 2. SSTs are never changed once they are listed, so a hard link is as good as a copy. Segments are still being
//!    written to, so they are always copied.
//! 3. The manifest is written last. Without it, the directory is marked as unfinished ([`paths::UNFINISHED`]) and can
//!    be overwritten by another backup; with it, everything it needs is durable.
//! 4. The copy is an incarnation of its own. The header of each of its segments carries the new incarnation, which
//!    distinguishes the segments of the two. SSTs keep the incarnation of the database that wrote them, as does the
//!    manifest's entry for each. File numbers continue above all that were reserved in the source.
//! 5. The source is only read and pinned. Writers, flushes and checkpoints continue; closing the source ends the
//!    backup.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::LsmEngine;
use super::call::Call;
use super::claim::absolute;
use super::create::random_id;
use super::io::FileIds;
use super::read_only::{Capture, holds};
use super::state::Shared;
use super::validate::Validated;
use crate::coding::part;
use crate::error::{Error, Result};
use crate::manifest::{Change, CleanEnd, Ids, Manifest, ManifestState};
use crate::paths;
use crate::types::{FileId, LogCut, Lsn, SeqNo, SstMeta};
use crate::vfs::{Mapping, OpenMode, Vfs, VfsFile, read_full_at, write_all_at};
use crate::wal::{self, SegmentInfo};

mod destination;
mod pin;

pub(crate) use destination::{Destination, check_outside};

use destination::failed;
use pin::Pin;

/// Bytes copied between two reports of progress.
const PIECE: u64 = 1 << 20;
/// The number of the copy's first edit, which its segments record.
const FIRST_EDIT: u64 = 1;

/// Receives the progress of a backup and decides whether it continues.
type OnProgress<'a> = &'a mut dyn FnMut(&BackupProgress) -> ControlFlow<()>;

/// Options of a backup; the defaults suit most uses.
#[derive(Default)]
#[must_use]
pub struct BackupOptions<'a> {
    copy: bool,
    to: Option<Arc<dyn Vfs>>,
    progress: Option<OnProgress<'a>>,
}

impl std::fmt::Debug for BackupOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupOptions")
            .field("copy", &self.copy)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl<'a> BackupOptions<'a> {
    /// Hard links where possible, copies elsewhere; on the database's own file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies every byte, and verifies the checksum of each SST on the way. Otherwise, on the same file system, SSTs
    /// are hard-linked. That takes no time and no space, but a bad sector then affects both. Default: false.
    pub fn copy(mut self, copy: bool) -> Self {
        self.copy = copy;
        self
    }

    /// The file system of the destination, if it differs from the database's: an in-memory database can be backed up to
    /// disk.
    pub fn to(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.to = Some(vfs);
        self
    }

    /// Called at least once per file and once per mebibyte; if it returns `Break`, the backup fails with
    /// [`Error::Cancelled`]. It may use the database.
    pub fn progress(mut self, progress: OnProgress<'a>) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// The progress of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Files finished: SSTs and log segments.
    pub files_done: u64,
    /// The total number of files.
    pub files: u64,
    /// Bytes finished, linked or copied.
    pub bytes_done: u64,
    /// The total number of bytes.
    pub bytes: u64,
}

/// The contents of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct BackupReport {
    /// The number of SSTs.
    pub ssts: u64,
    /// Their size in bytes.
    pub sst_bytes: u64,
    /// The number of SSTs that are hard links to the database's own.
    pub linked: u64,
    /// Bytes of log, which is always copied.
    pub log_bytes: u64,
}

impl LsmEngine {
    /// Copies the database as it is now to a new directory, like [`LsmEngine::backup_with`].
    pub fn backup(&self, destination: &Path) -> Result<BackupReport> {
        self.backup_with(destination, BackupOptions::new())
    }

    /// Copies the database as it is now: everything acknowledged before the call, and whole batches. The copy is a
    /// database of its own and is opened like any other: there is no separate restore. Both can be written to from then
    /// on.
    ///
    /// No write, flush, compaction or checkpoint waits for it; only if the log is already at its limit may writers wait
    /// until its oldest segment is copied. Files still to be copied are kept until then, and count against the limit on
    /// disk space. Works on any handle: a read-only one copies the database as it is in its directory now, even while
    /// another process writes to it.
    ///
    /// The directory may exist if it is empty or holds an interrupted backup; its parent must exist. On failure,
    /// everything that was created is removed, and the database is unchanged.
    ///
    /// # Errors
    /// `AlreadyExists` if the destination is not empty, `InvalidConfig` if it is inside the database, `Io` with the
    /// file if it cannot be written, including for lack of space; `Locked` while another backup to it is running;
    /// `Cancelled`; `Closed`; `Corruption` with the damaged file of the database; `Busy`, from a read-only handle, when
    /// the database changes too often. `Poisoned` when this handle cannot determine what is durable.
    pub fn backup_with(&self, destination: &Path, mut options: BackupOptions<'_>) -> Result<BackupReport> {
        let shared = &*self.shared;
        shared.life.check_process()?;
        let mut call = Call::begin(shared);
        shared.life.check_open()?;
        let elsewhere = options.to.take();
        let link = !options.copy && elsewhere.is_none();
        let here = elsewhere.is_none() || !shared.io.vfs().is_volatile();
        let to = elsewhere.unwrap_or_else(|| Arc::clone(shared.io.vfs()));
        let destination = &absolute(&*to, destination)?;
        if here {
            check_outside(&*to, shared.io.dir(), destination)?;
        }
        let (source, pin) = if shared.life.is_read_only() {
            (BackupSource::captured(shared)?, None)
        } else {
            let (source, pin) = BackupSource::pinned(shared)?;
            (source, Some(pin))
        };
        let claimed = Destination::claim(to, shared.io.dir(), destination)?;
        let copying = Copying {
            shared,
            source: &source,
            pin,
            call: &mut call,
            options,
            link,
            incarnation: random_id(&*shared.clock),
            done: source.to_do(),
            report: BackupReport::default(),
        };
        match copying.run(&claimed) {
            Ok(report) => {
                claimed.finish();
                Ok(report)
            }
            Err(error) => {
                claimed.clean_up();
                // A close removes files that were still to be copied: that is no damage.
                Err(shared.life.check_open().err().unwrap_or(error))
            }
        }
    }
}

/// One state of a database, and where to read its files.
struct BackupSource {
    state: ManifestState,
    ids: Ids,
    /// The end of the copied log.
    end: Lsn,
    next_seq: SeqNo,
    /// The log up to there, oldest segment first, and where to read it.
    segments: Vec<SegmentInfo>,
    log: Arc<dyn Vfs>,
    /// Mappings of SSTs that may no longer have names.
    held: BTreeMap<FileId, Arc<Mapping>>,
}

impl BackupSource {
    /// The newest durable state of a database that is open for writing.
    fn pinned(shared: &Shared) -> Result<(Self, Pin<'_>)> {
        shared.life.health().check()?;
        shared.io.wal().sync()?;
        let manifest = shared.io.manifest();
        let (state, ids) = (manifest.state().clone(), manifest.ids());
        let pin = Pin::take(shared, &state);
        drop(manifest);
        // After the state was read: it refers only to log that was durable by then.
        let end = shared.io.wal().synced();
        let segments = shared.io.wal().segments_between(state.log_start.generation(), end);
        let (next_seq, log) = (shared.io.wal().next_seq(), Arc::clone(shared.io.vfs()));
        Ok((Self { state, ids, end, next_seq, segments, log, held: BTreeMap::new() }, pin))
    }

    /// The state of a directory as a reader finds it.
    fn captured(shared: &Shared) -> Result<Self> {
        let hold = holds(&shared.settings.load().database);
        let Capture { validated: Validated { loaded, chain, .. }, log, held, .. } =
            Capture::take(&**shared.io.vfs(), &*shared.clock, shared.io.dir(), true, |_| hold)?;
        if loaded.ids.incarnation != shared.life.identity().incarnation {
            let replaced = io::Error::other("the database has been replaced since it was opened");
            return Err(Error::io("back up", shared.io.dir())(replaced));
        }
        let next_seq = 1 + chain.last_seq.max(loaded.state.base_seq());
        let next_seq = loaded.state.clean_end.map_or(next_seq, |clean| clean.next_seq);
        let (ids, state) = (loaded.ids, loaded.state);
        Ok(Self { state, ids, end: chain.end, next_seq, segments: chain.segments, log, held })
    }

    fn to_do(&self) -> BackupProgress {
        let log: u64 = self.segments.iter().map(|info| u64::from(info.end)).sum();
        let ssts: u64 = self.state.ssts.values().map(|meta| meta.len).sum();
        let files = (self.segments.len() + self.state.ssts.len()) as u64;
        BackupProgress { files, bytes: log.saturating_add(ssts), ..BackupProgress::default() }
    }

    /// The state of the copy: the same, but with a log that ends where the copy ends, closed cleanly.
    fn state_of_copy(&self) -> std::result::Result<ManifestState, String> {
        let mut state = self.state.clone();
        let last_cut = state.cuts.back().map_or(0, |cut| cut.next_generation);
        let next_generation = last_cut.max(self.end.generation().saturating_add(1));
        let start = state.log_start;
        let mut changes =
            vec![Change::Opened, Change::LogStart { start, durable: self.end.max(state.durable) }];
        if self.end > Lsn::ZERO {
            let (generation, end) = (self.end.generation(), self.end.offset());
            changes.push(Change::Cut(LogCut { generation, end, next_generation, seq: self.next_seq - 1 }));
        }
        changes.push(Change::Reserve { files_below: state.files_below + FileIds::BLOCK });
        changes.push(Change::CleanEnd(CleanEnd {
            end: (self.end > Lsn::ZERO).then_some(self.end),
            next_seq: self.next_seq,
            next_generation,
            next_file: state.files_below,
        }));
        state.apply(FIRST_EDIT, changes)?;
        Ok(state)
    }
}

/// A backup in progress.
struct Copying<'engine, 'call, 'caller> {
    shared: &'engine Shared,
    source: &'call BackupSource,
    pin: Option<Pin<'engine>>,
    call: &'call mut Call<'engine>,
    options: BackupOptions<'caller>,
    link: bool,
    incarnation: [u8; 16],
    done: BackupProgress,
    report: BackupReport,
}

impl Copying<'_, '_, '_> {
    fn run(mut self, to: &Destination) -> Result<BackupReport> {
        let source = self.source;
        self.tell()?;
        // Segments first, and without a sync, because writers wait for a log that is at its limit and cannot be
        // truncated.
        for info in &source.segments {
            if let Some(pin) = &self.pin {
                pin.needs_log_from(Some(info.generation));
            }
            self.copy_segment(info, to)?;
        }
        if let Some(pin) = &self.pin {
            pin.needs_log_from(None);
        }
        for info in &source.segments {
            let path = paths::log(&to.dir, info.generation);
            let file = to.vfs.open(&path, OpenMode::Write).map_err(failed("open", &path))?;
            file.sync().map_err(failed("sync", &path))?;
        }
        for meta in source.state.ssts.values() {
            self.take_sst(meta, to)?;
        }
        to.sync_names()?;
        let created_ms = self.shared.clock.unix_ms();
        let ids = Ids { database_id: source.ids.database_id, incarnation: self.incarnation, created_ms };
        let state = source.state_of_copy().map_err(|why| Error::corrupt(self.shared.io.dir(), 0, why))?;
        // The last step that can fail: from here on the copy is a database.
        let created = Manifest::create(Arc::clone(&to.vfs), &to.dir, ids, state.to_changes());
        created.map_err(|e| match e {
            Error::DiskFull => {
                failed("write", &to.dir.join(paths::MANIFEST))(io::ErrorKind::StorageFull.into())
            }
            other => other,
        })?;
        Ok(self.report)
    }

    /// Reports progress without holding up a close, which ends the backup.
    fn tell(&mut self) -> Result<()> {
        let (done, progress) = (self.done, &mut self.options.progress);
        let mut goes_on = ControlFlow::Continue(());
        if let Some(progress) = progress {
            self.call.pause(|| goes_on = progress(&done));
        }
        self.shared.life.check_open()?;
        if goes_on.is_break() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn advanced(&mut self, bytes: u64, files: u64) -> Result<()> {
        self.done.bytes_done += bytes;
        self.done.files_done += files;
        self.tell()
    }

    /// Copies the segment's records behind a header of the copy's own.
    fn copy_segment(&mut self, info: &SegmentInfo, to: &Destination) -> Result<()> {
        let from = wal::open_with(&*self.source.log, &info.path, info.tail.as_ref());
        let from = from.map_err(Error::io("open", &info.path))?;
        let start = u64::from(wal::RECORDS_START);
        let mut head = vec![0; start as usize];
        let read = read_full_at(&*from, &mut head, 0).map_err(Error::io("read", &info.path))?;
        let head = wal::copied_header(
            part(&head, ..read),
            &info.path,
            self.incarnation,
            self.shared.clock.unix_ms(),
            FIRST_EDIT,
        )?;
        let path = paths::log(&to.dir, info.generation);
        let file = to.create(&path)?;
        write_all_at(&*file, &head, 0).map_err(failed("write", &path))?;
        self.done.bytes_done += start;
        self.copy_bytes(&info.path, &*from, &path, &*file, start..u64::from(info.end))?;
        self.report.log_bytes += u64::from(info.end);
        self.advanced(0, 1)
    }

    /// Returns the checksum of the copied bytes.
    fn copy_bytes(
        &mut self,
        from_path: &Path,
        from: &dyn VfsFile,
        to_path: &Path,
        to: &dyn VfsFile,
        range: std::ops::Range<u64>,
    ) -> Result<u32> {
        let (mut at, mut checksum, mut buffer) = (range.start, 0, Vec::new());
        while at < range.end {
            buffer.resize((range.end - at).min(PIECE) as usize, 0);
            let read = read_full_at(from, &mut buffer, at).map_err(Error::io("read", from_path))?;
            if read < buffer.len() {
                return Err(Error::corrupt(from_path, at + read as u64, "the file became shorter"));
            }
            checksum = crc32c::crc32c_append(checksum, &buffer);
            write_all_at(to, &buffer, at).map_err(failed("write", to_path))?;
            at += read as u64;
            self.advanced(read as u64, 0)?;
        }
        Ok(checksum)
    }

    fn take_sst(&mut self, meta: &SstMeta, to: &Destination) -> Result<()> {
        let from = paths::sst(self.shared.io.dir(), meta.stripe.into(), meta.id);
        let path = paths::sst(&to.dir, meta.stripe.into(), meta.id);
        let linked = self.link && self.link_sst(meta, &from, &path, to)?;
        if linked {
            self.done.bytes_done += meta.len;
            self.report.linked += 1;
        } else {
            self.copy_sst(meta, &from, &path, to)?;
        }
        self.report.ssts += 1;
        self.report.sst_bytes += meta.len;
        self.advanced(0, 1)
    }

    /// Returns false if the file has to be copied instead: across file systems, or when the file system has no hard
    /// links or allows no more of them.
    fn link_sst(&self, meta: &SstMeta, from: &Path, path: &Path, to: &Destination) -> Result<bool> {
        match to.vfs.hard_link(from, path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::StorageFull => return Err(failed("link", path)(e)),
            Err(_) => return Ok(false),
        }
        let file = to.vfs.open(path, OpenMode::Read).map_err(failed("open", path))?;
        let len = file.len().map_err(failed("open", path))?;
        if len != meta.len {
            let detail = format!("it has {len} bytes, the manifest says {}", meta.len);
            return Err(Error::corrupt(from, len.min(meta.len), detail));
        }
        Ok(true)
    }

    fn copy_sst(&mut self, meta: &SstMeta, from: &Path, path: &Path, to: &Destination) -> Result<()> {
        let held = self.source.held.get(&meta.id).cloned();
        let source: Arc<dyn VfsFile> = match held {
            Some(held) => Arc::new(HeldFile(held)),
            None => self.shared.io.vfs().open(from, OpenMode::Read).map_err(|e| match e.kind() {
                // An SST that is not held may have been removed by the writer.
                io::ErrorKind::NotFound if self.shared.life.is_read_only() => Error::Busy,
                _ => Error::io("open", from)(e),
            })?,
        };
        let file = to.create(path)?;
        let checksum = self.copy_bytes(from, &*source, path, &*file, 0..meta.len)?;
        if checksum != meta.checksum {
            let detail =
                format!("the file's checksum is {checksum:08x}, the manifest's {:08x}", meta.checksum);
            return Err(Error::corrupt(from, 0, detail));
        }
        file.sync().map_err(failed("sync", path))
    }
}

/// A mapped file that is read like any other.
#[derive(Debug)]
struct HeldFile(Arc<Mapping>);

impl VfsFile for HeldFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let len = from.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn map(&self, _len: u64) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
