//! The segments being written to, and the accounting of their space.
//!
//! A record goes into the current segment if it fits there; otherwise into the prepared one, which then becomes
//! current. A reservation is granted if all outstanding ones fit into the rest of the current segment, or all of them
//! into the prepared one; either way they fit in any order of use.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::paths;
use crate::planted::{Bug, Race, planted, raced};
use crate::sync::atomic::Ordering;
use crate::types::Lsn;
use crate::vfs::{Floor, OpenMode, PAGE, Promise, VfsFile, pages, write_all_at};

use super::format::{LINK_LEN, MAX_SEGMENT, RECORDS_START, SegmentHeader, record_len};
use super::writer::Wal;
use super::{LogLimits, SegmentInfo, WalContext};

/// The first preallocation of a new segment; doubled each time it is used up.
const FIRST_ALLOCATION: u64 = 64 << 10;
/// On a file system that cannot preallocate: every write allocates its own space.
const UNLIMITED: u64 = u64::MAX;
const DEFAULT_SEGMENT_SIZE: u64 = 16 << 20;

/// A segment open for writing.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) generation: u32,
    pub(super) salt: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
}

/// A segment open for writing, and its space.
#[derive(Clone, Debug)]
pub(super) struct SegmentSpace {
    pub(super) segment: Arc<SegmentFile>,
    /// Offset of the next record.
    pub(super) used: u64,
    /// The limit for the ends of records.
    capacity: u64,
    /// The file system has reserved space up to here.
    allocated: u64,
    /// Whether the link, the segment's first record, is written.
    pub(super) linked: bool,
}

impl SegmentSpace {
    /// Offset of the next record other than the link.
    fn start(&self) -> u64 {
        if self.linked { self.used } else { self.used + LINK_LEN }
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.start())
    }

    fn file_len(&self) -> u64 {
        if self.allocated == UNLIMITED { self.used } else { self.allocated }
    }

    /// The segment's description after its file was truncated to the end of its records.
    pub(super) fn closed(&self) -> SegmentInfo {
        SegmentInfo { len: self.used, ..self.info() }
    }

    /// Whether the file extends to `needed` without another allocation; never the case for a file that grows with every
    /// write.
    fn has(&self, needed: u64) -> bool {
        self.allocated != UNLIMITED && needed <= self.allocated
    }

    fn info(&self) -> SegmentInfo {
        SegmentInfo {
            generation: self.segment.generation,
            path: self.segment.path.clone(),
            salt: self.segment.salt,
            len: self.file_len(),
            start: RECORDS_START,
            end: self.used as u32,
            tail: None,
        }
    }
}

/// All segments, and the reservations in them.
#[derive(Debug)]
pub(super) struct LogSpace {
    /// Bytes of all outstanding reservations.
    reserved: u64,
    pub(super) current: Option<SegmentSpace>,
    pub(super) next: Option<SegmentSpace>,
    /// The segment from an earlier open that becomes current at the first reservation.
    pub(super) resume: Option<SegmentInfo>,
    /// Live segments that are full or from earlier opens.
    pub(super) older: Vec<SegmentInfo>,
    /// Bytes of segments no longer needed whose files still exist.
    retired: u64,
    pub(super) limits: LogLimits,
}

/// What has to happen before a reservation can be granted.
pub(super) enum Grant {
    Granted,
    /// Open the segment to be resumed.
    Resume(SegmentInfo),
    /// Extend the allocation of this file: to `needed` bytes at least, to `to` if there is space.
    Extend {
        segment: Arc<SegmentFile>,
        allocated: u64,
        needed: u64,
        to: u64,
    },
    /// Prepare a segment of this capacity, with its allocation chosen likewise.
    Prepare {
        capacity: u64,
        needed: u64,
        to: u64,
    },
    /// The reservation would take the log over its limit.
    Full,
    /// More is reserved at the same time than any segment can hold.
    TooMuch,
}

/// The position assigned to a record.
pub(super) struct RecordPlace {
    pub(super) offset: u64,
    /// Whether the segment's link is written; otherwise it must be written in front of this record.
    pub(super) linked: bool,
    /// Set if another segment became current for this record.
    pub(super) rotated_to: Option<Arc<SegmentFile>>,
}

impl LogSpace {
    pub(super) fn new(older: Vec<SegmentInfo>, resume: Option<SegmentInfo>) -> Self {
        let unlimited = u64::MAX;
        let limits = LogLimits {
            segment_size: DEFAULT_SEGMENT_SIZE,
            limit: unlimited,
            oversized: unlimited,
            write_buffer: 0,
            buffer: 0,
        };
        Self { reserved: 0, current: None, next: None, resume, older, retired: 0, limits }
    }

    pub(super) fn grant(&mut self, len: u64) -> Grant {
        if let Some(info) = &self.resume {
            return Grant::Resume(info.clone());
        }
        let want = self.reserved.saturating_add(len);
        if let Some(current) = &self.current
            && want <= current.free()
        {
            let needed = current.start() + want;
            if current.has(needed) {
                self.reserved = want;
                return Grant::Granted;
            }
            match self.grow(current, needed, self.limit_for(len)) {
                Grant::Full if self.next.is_some() => {}
                Grant::Granted => {
                    self.reserved = want;
                    return Grant::Granted;
                }
                grown => return grown,
            }
        }
        self.grant_next(want, self.limit_for(len))
    }

    /// As [`Self::grant`], but from the prepared segment, which then covers all reservations.
    fn grant_next(&mut self, want: u64, limit: u64) -> Grant {
        let Some(next) = &self.next else {
            let needed = (u64::from(RECORDS_START) + LINK_LEN).saturating_add(want);
            let capacity = self.limits.segment_size.max(needed);
            let free = limit.saturating_sub(self.live_bytes());
            return match needed {
                needed if needed > MAX_SEGMENT => Grant::TooMuch,
                needed if needed > free => Grant::Full,
                _ => Grant::Prepare {
                    capacity,
                    needed,
                    to: cut(allocation(0, needed, capacity), needed, free),
                },
            };
        };
        let needed = next.start().saturating_add(want);
        if needed > MAX_SEGMENT {
            return Grant::TooMuch;
        }
        if !next.has(needed) {
            match self.grow(next, needed, limit) {
                Grant::Granted => {}
                grown => return grown,
            }
        }
        if let Some(next) = &mut self.next {
            // A record longer than a segment, or more reservations at a time than it holds, enlarges the segment.
            next.capacity = next.capacity.max(needed);
        }
        if let Some(current) = &mut self.current {
            // Older reservations may still be used here, but only in space that is already allocated.
            current.capacity = current.capacity.min(current.allocated);
        }
        self.reserved = want;
        Grant::Granted
    }

    /// Reserves `len` bytes in the prepared segment, and closes the current one to further records. Takes no more space
    /// than needed, but ignores the limit: this is how the log shrinks.
    fn grant_rotation(&mut self, len: u64) -> Grant {
        if let Some(info) = &self.resume {
            return Grant::Resume(info.clone());
        }
        let want = self.reserved.saturating_add(len);
        let needed = |start: u64| start.saturating_add(want).next_multiple_of(PAGE);
        let grant = match &self.next {
            None => {
                let needed = needed(u64::from(RECORDS_START) + LINK_LEN);
                Grant::Prepare { capacity: self.limits.segment_size.max(needed), needed, to: needed }
            }
            Some(next) if next.allocated < next.start().saturating_add(want) => {
                extend(next, needed(next.start()), needed(next.start()))
            }
            Some(_) => self.grant_next(want, u64::MAX),
        };
        if let (Grant::Granted, Some(current)) = (&grant, &mut self.current) {
            current.capacity = current.capacity.min(current.start());
        }
        grant
    }

    /// How to extend `room` to `needed`, which is beyond what it has.
    fn grow(&self, room: &SegmentSpace, needed: u64, limit: u64) -> Grant {
        let free = limit.saturating_sub(self.live_bytes());
        if room.allocated == UNLIMITED {
            // The file grows with every write: reservations count as written.
            return if needed - room.used <= free { Grant::Granted } else { Grant::Full };
        }
        if needed - room.allocated > free {
            return Grant::Full;
        }
        let to = allocation(room.allocated, needed, room.capacity);
        extend(room, needed, cut(to, needed, room.allocated + free))
    }

    /// The limit for a record of this length: one too large for the log's limit beside two segments has its own.
    fn limit_for(&self, len: u64) -> u64 {
        let LogLimits { segment_size, limit, oversized, .. } = self.limits;
        let segments = segment_size.saturating_mul(2);
        if len.saturating_add(segments).saturating_add(PAGE) > limit { oversized } else { limit }
    }

    pub(super) fn release(&mut self, len: u64) {
        self.reserved = self.reserved.saturating_sub(len);
    }

    /// Turns a reservation into the position of a record. `None` would mean that it was never granted.
    pub(super) fn place(&mut self, reserved: u64, len: u64) -> Option<RecordPlace> {
        self.release(reserved);
        let mut rotated_to = None;
        if self.rotates_for(len) {
            let next = self.next.take()?;
            rotated_to = Some(Arc::clone(&next.segment));
            if let Some(full) = self.current.replace(next) {
                self.older.push(full.info());
            }
        }
        let current = self.current.as_mut()?;
        let place = RecordPlace { offset: current.used, linked: current.linked, rotated_to };
        current.used = current.start() + len;
        current.linked = true;
        Some(place)
    }

    /// Whether a record of this length would go into another segment than the last record.
    pub(super) fn rotates_for(&self, len: u64) -> bool {
        self.current.as_ref().is_none_or(|current| current.free() < len)
    }

    /// Undoes what [`LogSpace::place`] did to the current segment from the record at `offset` on.
    pub(super) fn unplace(&mut self, offset: u64, linked: bool) {
        if let Some(current) = &mut self.current {
            current.used = offset;
            current.linked = linked;
        }
    }

    fn extended(&mut self, generation: u32, allocated: u64) {
        let writable = [&mut self.current, &mut self.next].into_iter().flatten();
        match writable.into_iter().find(|room| room.segment.generation == generation) {
            Some(room) => room.allocated = allocated,
            None => {
                if let Some(older) = self.older.iter_mut().find(|info| info.generation == generation) {
                    older.len = allocated;
                }
            }
        }
    }

    fn wants_next(&self) -> bool {
        self.next.is_none()
            && self.current.as_ref().is_some_and(|room| room.free() < room.capacity / 2)
            // Otherwise a writer creates a segment from the space left, or waits for the log to shrink.
            && self.live_bytes().saturating_add(self.limits.segment_size) <= self.limits.limit
    }

    /// Whether a segment is about to be removed, or could be after flushes and a checkpoint: with the log ending in
    /// segment `tail`, or in the current one if a record was placed there that is still to be written.
    fn gives_back(&self, tail: u32) -> bool {
        let placed = self.current.as_ref().filter(|current| current.linked);
        let last = placed.map_or(tail, |current| current.segment.generation);
        self.retired > 0 || self.older.iter().any(|info| info.generation < last)
    }

    pub(super) fn segment_count(&self) -> usize {
        let writable = [&self.current, &self.next].into_iter().flatten().count();
        self.older.len() + writable + usize::from(self.resume.is_some())
    }

    pub(super) fn live_bytes(&self) -> u64 {
        let writable = [&self.current, &self.next].into_iter().flatten().map(SegmentSpace::file_len);
        let older = self.older.iter().chain(&self.resume).map(|info| info.len);
        older.chain(writable).sum::<u64>() + self.retired
    }
}

fn extend(room: &SegmentSpace, needed: u64, to: u64) -> Grant {
    Grant::Extend { segment: Arc::clone(&room.segment), allocated: room.allocated, needed, to }
}

/// Limits an allocation to the free space, but not below what is needed.
fn cut(to: u64, needed: u64, free: u64) -> u64 {
    if to <= free { to } else { (free - free % PAGE).max(needed) }
}

/// The size to allocate when `needed` bytes exceed the present allocation.
fn allocation(allocated: u64, needed: u64, capacity: u64) -> u64 {
    allocated.saturating_mul(2).max(FIRST_ALLOCATION).min(capacity).max(needed)
}

/// Space in the log for one record. Released if it is dropped unused.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation<'a> {
    wal: &'a Wal,
    pub(super) len: u64,
    /// Creation time in seconds since the Unix epoch, read here so that the clock is not read under the log lock.
    pub(super) time: u32,
}

impl<'a> Reservation<'a> {
    pub(super) fn granted(wal: &'a Wal, len: u64) -> Self {
        let seconds = wal.context.clock.unix_ms() / 1000;
        Self { wal, len, time: u32::try_from(seconds).unwrap_or(u32::MAX) }
    }

    /// Takes the reserved bytes out: dropping no longer releases them.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.len)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.len > 0 {
            self.wal.space.lock().release(self.len);
        }
    }
}

/// The state for preparing segments. It has a lock of its own because preparing does I/O.
#[derive(Debug)]
pub(super) struct Preparer {
    /// Used up even by a failed attempt: a removed file can reappear after a power cut.
    pub(super) next_generation: u32,
}

impl Preparer {
    /// Creates the next segment and makes its allocation, header and name durable.
    fn prepare(
        &mut self,
        context: &WalContext,
        last_edit: u64,
        capacity: u64,
        to: u64,
    ) -> Result<SegmentSpace> {
        let generation = self.next_generation;
        let path = paths::log(&context.dir, generation);
        let exhausted =
            || Error::io("create", &path)(io::Error::other("the log has exhausted its generations"));
        self.next_generation = generation.checked_add(1).ok_or_else(exhausted)?;
        let file = context.vfs.open(&path, OpenMode::Create).map_err(|e| write_error("create", &path, e))?;
        let salt = context.clock.random();
        let header = SegmentHeader {
            database_id: context.database_id,
            incarnation: context.incarnation,
            created_ms: context.clock.unix_ms(),
            generation,
            salt,
            last_edit,
        };
        let written = allocate(&*file, to).and_then(|allocated| {
            write_all_at(&*file, &header.encode(), 0)?;
            Ok(allocated)
        });
        let allocated = match written {
            Ok(allocated) => allocated,
            Err(error) => {
                // Nothing refers to the file. If it remains, it is a segment without records, which the next open
                // removes.
                let _ = context.vfs.remove(&path);
                return Err(write_error("write", &path, error));
            }
        };
        let synced = file.sync().map_err(Error::io("sync", &path));
        let synced = synced.and_then(|()| match planted(Bug::SegmentNameNotSynced) {
            true => Ok(()),
            false => context.vfs.sync_dir(&context.dir).map_err(Error::io("sync", &context.dir)),
        });
        if let Err(error) = synced {
            if error.is_unbegun_sync() {
                let _ = context.vfs.remove(&path); // as above
            } else {
                context.health.poison(&error);
            }
            return Err(error);
        }
        let segment = Arc::new(SegmentFile { generation, salt, path, file });
        Ok(SegmentSpace { segment, used: u64::from(RECORDS_START), capacity, allocated, linked: false })
    }
}

/// Reserves space. Returns the offset up to which it is reserved.
fn allocate(file: &dyn VfsFile, len: u64) -> io::Result<u64> {
    match file.allocate(len) {
        Ok(()) => Ok(len),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(UNLIMITED),
        Err(e) => Err(e),
    }
}

/// Converts the error of an operation that needed space.
pub(super) fn write_error(op: &'static str, path: &std::path::Path, error: io::Error) -> Error {
    let error = Error::io(op, path)(error);
    if error.is_out_of_space() { Error::DiskFull } else { error }
}

impl Wal {
    /// Does the I/O that a grant requires. Allocations leave the floor of free space in the directory. Returns false if
    /// the grant would take the log over its limit.
    pub(super) fn make_room(&self, floor: Floor<'_>, grant: impl Fn(&mut LogSpace) -> Grant) -> Result<bool> {
        if let Grant::Granted = grant(&mut self.space.lock()) {
            return Ok(true);
        }
        let mut preparer = self.preparer.lock();
        loop {
            // Ask again each time: other writers take and release space meanwhile.
            let granted = grant(&mut self.space.lock());
            match granted {
                Grant::Granted => return Ok(true),
                Grant::Full => return Ok(false),
                Grant::Resume(info) => self.resume(&info)?,
                Grant::Extend { segment, allocated, needed, to } => {
                    let (to, _promise) = self.affordable(allocated, needed, to, floor)?;
                    let allocated = allocate(&*segment.file, to);
                    let allocated = allocated.map_err(|e| write_error("allocate", &segment.path, e))?;
                    self.space.lock().extended(segment.generation, allocated);
                }
                Grant::Prepare { capacity, needed, to } => {
                    self.leave_inodes((floor.inodes)())?;
                    let (to, _promise) = self.affordable(0, needed, to, floor)?;
                    self.prepare(&mut preparer, capacity, to)?;
                }
                Grant::TooMuch => {
                    let why = "concurrent writes are together larger than a log segment can be";
                    return Err(Error::WriteStalled { why: why.into() });
                }
            }
        }
    }

    /// Fails if creating a file would leave fewer than `keep` inodes.
    fn leave_inodes(&self, keep: u64) -> Result<()> {
        if keep == 0 {
            return Ok(());
        }
        // If the file system does not report inodes, creating the file will tell.
        let free = self.context.vfs.free_space(&self.context.dir).ok().flatten();
        let enough = free.and_then(|free| free.inodes).is_none_or(|free| free > keep);
        if enough { Ok(()) } else { Err(Error::DiskFull) }
    }

    /// How far a file may be allocated while leaving the floor of free space: up to `to`, or only up to `needed`.
    fn affordable(
        &self,
        allocated: u64,
        needed: u64,
        to: u64,
        floor: Floor<'_>,
    ) -> Result<(u64, Promise<'_>)> {
        let more = |to: u64| pages(to).saturating_sub(pages(allocated));
        let promise = |to| Some((to, self.context.meter.promise(more(to), floor)?));
        promise(to).or_else(|| promise(needed)).ok_or(Error::DiskFull)
    }

    fn prepare(&self, preparer: &mut Preparer, capacity: u64, to: u64) -> Result<()> {
        self.context.health.check()?;
        let room = preparer.prepare(&self.context, self.last_edit(), capacity, to)?;
        self.space.lock().next = Some(room);
        self.fit_buffer();
        Ok(())
    }

    /// Opens the segment that the previous open closed cleanly.
    fn resume(&self, info: &SegmentInfo) -> Result<()> {
        let file =
            self.context.vfs.open(&info.path, OpenMode::Write).map_err(Error::io("open", &info.path))?;
        let len = file.len().map_err(Error::io("open", &info.path))?;
        if len < u64::from(info.end) {
            return Err(Error::corrupt(&info.path, len, format!("its records should end at {}", info.end)));
        }
        let (generation, salt, path) = (info.generation, info.salt, info.path.clone());
        let segment = Arc::new(SegmentFile { generation, salt, path, file });
        let used = u64::from(info.end);
        {
            let mut log = self.log.lock();
            let mut space = self.space.lock();
            let capacity = space.limits.segment_size.max(used);
            log.current = Some(Arc::clone(&segment));
            space.current = Some(SegmentSpace { segment, used, capacity, allocated: len, linked: true });
            space.resume = None;
        }
        self.fit_buffer();
        Ok(())
    }

    /// Whether it is time to call [`Wal::prepare_segment`].
    pub(crate) fn needs_segment(&self) -> bool {
        self.space.lock().wants_next()
    }

    /// Prepares the next segment ahead of need, so that no writer has to. A no-op if there is one already, or if its
    /// space would not leave the floor of free space.
    pub(crate) fn prepare_segment(&self, floor: Floor<'_>) -> Result<()> {
        let mut preparer = self.preparer.lock();
        if !self.needs_segment() {
            return Ok(());
        }
        // A log that fills segments need not stay small. Allocating the whole segment here keeps the work off the
        // writers, which could have to wait for the file system's journal.
        let size = self.space.lock().limits.segment_size;
        let Some(_promise) = self.context.meter.promise(size, floor) else { return Ok(()) };
        self.prepare(&mut preparer, size, size)
    }

    /// Continues the log in another segment, so that the current one can be retired. Returns false if that would not
    /// shrink the log.
    pub(crate) fn rotate(&self) -> Result<bool> {
        self.rotate_if(|_| true)
    }

    /// As [`Wal::rotate`], but only if no other segment can be retired or is being removed. This is checked where the
    /// segment is granted: writers fill the log meanwhile, and a full log has no space for another segment.
    pub(crate) fn rotate_last(&self) -> Result<bool> {
        if raced(Race::RotatedBlindly) {
            return if self.can_retire() { Ok(false) } else { self.rotate() };
        }
        self.rotate_if(|space| !space.gives_back(self.tail().generation()))
    }

    fn rotate_if(&self, may: impl Fn(&LogSpace) -> bool) -> Result<bool> {
        let len = record_len(0);
        // A segment of no more than a page is not worth abandoning early.
        let worth = {
            let (tail, space) = (self.tail().generation(), self.space.lock());
            let earlier = space.older.iter().chain(&space.resume).find(|info| info.generation == tail);
            let current = space.current.as_ref().filter(|room| room.linked).map(SegmentSpace::file_len);
            current.or(earlier.map(|info| info.len)).is_some_and(|len| len > PAGE)
        };
        if !worth
            || !self.make_room(Floor::NONE, |space| {
                if may(space) { space.grant_rotation(len) } else { Grant::Full }
            })?
        {
            return Ok(false);
        }
        let reservation = Reservation::granted(self, len);
        let mut log = self.log.lock();
        self.write_watermark(&mut log, reservation)?;
        // The record says how far the log was durable when it was written, not that nothing follows.
        log.at_watermark = false;
        Ok(true)
    }

    /// Drops the segments below a generation, but never the current one, and returns their files for the caller to
    /// remove. They count as space in use until [`Wal::removed`].
    pub(crate) fn retire(&self, log_start: u32) -> Vec<PathBuf> {
        let mut space = self.space.lock();
        let (dead, live): (Vec<SegmentInfo>, _) =
            std::mem::take(&mut space.older).into_iter().partition(|s| s.generation < log_start);
        space.older = live;
        space.retired += dead.iter().map(|info| info.len).sum::<u64>();
        dead.into_iter().map(|info| info.path).collect()
    }

    /// Reports that the files of all retired segments are gone.
    pub(crate) fn removed(&self) {
        self.space.lock().retired = 0;
    }

    /// The segments from a generation on, oldest first, as they were when the log ended at `end`.
    pub(crate) fn segments_between(&self, from: u32, end: Lsn) -> Vec<SegmentInfo> {
        let space = self.space.lock();
        let open = [&space.current, &space.next].into_iter().flatten().map(SegmentSpace::info);
        let all = space.older.iter().chain(&space.resume).cloned().chain(open);
        let mut between: Vec<_> =
            all.filter(|info| (from..=end.generation()).contains(&info.generation)).collect();
        between.sort_by_key(|info| info.generation);
        if let Some(last) = between.last_mut().filter(|last| last.generation == end.generation()) {
            last.end = end.offset();
        }
        between
    }

    /// The generation of the oldest segment; 0 if there is none.
    pub(crate) fn oldest_generation(&self) -> u32 {
        let space = self.space.lock();
        let open = space.current.iter().map(|room| room.segment.generation);
        space.older.iter().map(|info| info.generation).chain(open).min().unwrap_or(0)
    }

    /// Whether flushes and a checkpoint could retire a segment, that is, whether there is one before the log's tail.
    pub(crate) fn can_retire(&self) -> bool {
        let tail = self.tail().generation();
        self.space.lock().older.iter().any(|info| info.generation < tail)
    }

    /// The number of segments, including a prepared one.
    pub(crate) fn segment_count(&self) -> usize {
        self.space.lock().segment_count()
    }

    /// Bytes of records in the segments of earlier opens; open replays these.
    pub(crate) fn live_record_bytes(&self) -> u64 {
        let space = self.space.lock();
        let earlier = space.older.iter().chain(&space.resume);
        earlier.map(|info| u64::from(info.end.saturating_sub(info.start))).sum()
    }

    /// Bytes that the segments occupy on disk, including preallocated space.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.space.lock().live_bytes()
    }

    /// The same without blocking: if the lock is taken, possibly by the caller, returns the value of the last call.
    pub(crate) fn live_bytes_lately(&self) -> u64 {
        if let Some(space) = self.space.try_lock() {
            self.live_lately.store(space.live_bytes(), Ordering::Relaxed);
        }
        self.live_lately.load(Ordering::Relaxed)
    }

    /// Bytes that the segments occupy on disk, without preallocated space that is still unused.
    pub(crate) fn used_bytes(&self) -> u64 {
        let space = self.space.lock();
        let ahead =
            [&space.current, &space.next].into_iter().flatten().map(|room| room.file_len() - room.used);
        space.live_bytes() - ahead.sum::<u64>()
    }
}

#[cfg(test)]
mod tests;
