//! The segments that are written to, and the accounting of their space.
//!
//! A record goes into the current segment if it fits there, else into the prepared one, which then becomes
//! current. Reservations are granted when all that are outstanding fit into what is left of the current
//! segment, or all of them into the prepared one: either way any order of use works out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::paths;
use crate::vfs::{OpenMode, VfsFile, write_all_at};

use super::format::{LINK_LEN, MAX_SEGMENT, RECORDS_START, SegmentHeader};
use super::writer::Wal;
use super::{SegmentInfo, WalContext};

/// A new segment's first preallocation; doubled whenever it is used up.
const FIRST_ALLOCATION: u64 = 64 << 10;
/// Of a file system that cannot allocate: every write allocates for itself.
const UNLIMITED: u64 = u64::MAX;

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
pub(super) struct Room {
    pub(super) segment: Arc<SegmentFile>,
    /// Where the next record goes.
    pub(super) used: u64,
    /// Records end here at the latest.
    capacity: u64,
    /// The file system has promised space up to here.
    allocated: u64,
    /// Whether the first record, the link, is there.
    pub(super) linked: bool,
}

impl Room {
    /// Where the record after the link goes, or the next one.
    fn start(&self) -> u64 {
        if self.linked { self.used } else { self.used + LINK_LEN }
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.start())
    }

    fn file_len(&self) -> u64 {
        if self.allocated == UNLIMITED { self.used } else { self.allocated }
    }

    /// The segment once its file was cut where its records end.
    pub(super) fn closed(&self) -> SegmentInfo {
        SegmentInfo { len: self.used, ..self.info() }
    }

    fn info(&self) -> SegmentInfo {
        SegmentInfo {
            generation: self.segment.generation,
            path: self.segment.path.clone(),
            salt: self.segment.salt,
            len: self.file_len(),
            start: RECORDS_START,
            end: self.used as u32,
        }
    }
}

/// All segments, and what is reserved in them.
#[derive(Debug)]
pub(super) struct Space {
    /// Bytes of all outstanding reservations.
    reserved: u64,
    pub(super) current: Option<Room>,
    pub(super) next: Option<Room>,
    /// The segment of an earlier handle that becomes current at the first reservation.
    resume: Option<SegmentInfo>,
    /// Live segments that are full, or from earlier handles.
    pub(super) older: Vec<SegmentInfo>,
}

/// What a reservation needs before it can be granted.
enum Grant {
    Granted,
    /// Open the segment to resume.
    Resume(SegmentInfo),
    /// Allocate more of this file.
    Extend(Arc<SegmentFile>, u64),
    /// Prepare a segment of that capacity with so many bytes allocated.
    Prepare {
        capacity: u64,
        needed: u64,
    },
    /// More than any segment holds is reserved at the same time.
    TooMuch,
}

/// Where a record goes.
pub(super) struct Place {
    pub(super) offset: u64,
    /// Whether the segment's link is there; else it must be written in front of the record.
    pub(super) linked: bool,
    /// Set when another segment became current for this record.
    pub(super) rotated_to: Option<Arc<SegmentFile>>,
}

impl Space {
    pub(super) fn new(older: Vec<SegmentInfo>, resume: Option<SegmentInfo>) -> Self {
        Self { reserved: 0, current: None, next: None, resume, older }
    }

    fn grant(&mut self, len: u64, segment_size: u64) -> Grant {
        if let Some(info) = &self.resume {
            return Grant::Resume(info.clone());
        }
        let want = self.reserved.saturating_add(len);
        if let Some(current) = &self.current
            && want <= current.free()
        {
            let needed = current.start() + want;
            if needed > current.allocated {
                return extend(current, needed);
            }
            self.reserved = want;
            return Grant::Granted;
        }
        let Some(next) = &mut self.next else {
            let needed = (u64::from(RECORDS_START) + LINK_LEN).saturating_add(want);
            let capacity = segment_size.max(needed);
            return if needed > MAX_SEGMENT { Grant::TooMuch } else { Grant::Prepare { capacity, needed } };
        };
        let needed = next.start().saturating_add(want);
        if needed > MAX_SEGMENT {
            return Grant::TooMuch;
        }
        if needed > next.allocated {
            return extend(next, needed);
        }
        // A record longer than a segment, or more reservations at a time than one holds, make it longer.
        next.capacity = next.capacity.max(needed);
        if let Some(current) = &mut self.current {
            // Older reservations may still be used here, but not beyond what is allocated for them.
            current.capacity = current.capacity.min(current.allocated);
        }
        self.reserved = want;
        Grant::Granted
    }

    pub(super) fn release(&mut self, len: u64) {
        self.reserved = self.reserved.saturating_sub(len);
    }

    /// Turns a reservation into a place for a record. `None` would mean that it was never granted.
    pub(super) fn place(&mut self, reserved: u64, len: u64) -> Option<Place> {
        self.release(reserved);
        let mut rotated_to = None;
        if self.current.as_ref().is_none_or(|current| current.free() < len) {
            let next = self.next.take()?;
            rotated_to = Some(Arc::clone(&next.segment));
            if let Some(full) = self.current.replace(next) {
                self.older.push(full.info());
            }
        }
        let current = self.current.as_mut()?;
        let place = Place { offset: current.used, linked: current.linked, rotated_to };
        current.used = current.start() + len;
        current.linked = true;
        Some(place)
    }

    /// Takes back what the last [`Space::place`] did to the current segment.
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
        self.next.is_none() && self.current.as_ref().is_some_and(|room| room.free() < room.capacity / 2)
    }

    pub(super) fn segment_count(&self) -> usize {
        let writable = [&self.current, &self.next].into_iter().flatten().count();
        self.older.len() + writable + usize::from(self.resume.is_some())
    }

    pub(super) fn live_bytes(&self) -> u64 {
        let writable = [&self.current, &self.next].into_iter().flatten().map(Room::file_len);
        self.older.iter().chain(&self.resume).map(|info| info.len).chain(writable).sum()
    }
}

fn extend(room: &Room, needed: u64) -> Grant {
    let to = allocation(room.allocated, needed, room.capacity);
    Grant::Extend(Arc::clone(&room.segment), to)
}

/// How much to allocate when `needed` bytes are more than there is.
fn allocation(allocated: u64, needed: u64, capacity: u64) -> u64 {
    allocated.saturating_mul(2).max(FIRST_ALLOCATION).min(capacity).max(needed)
}

/// Room in the log for one record. Given back when it is dropped unused.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation<'a> {
    wal: &'a Wal,
    pub(super) len: u64,
    /// When it was made, in seconds since the Unix epoch: read here rather than under the log lock.
    pub(super) time: u32,
}

impl<'a> Reservation<'a> {
    pub(super) fn granted(wal: &'a Wal, len: u64) -> Self {
        let seconds = wal.context.clock.unix_ms() / 1000;
        Self { wal, len, time: u32::try_from(seconds).unwrap_or(u32::MAX) }
    }

    /// Its bytes, which are no longer given back on drop.
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

/// What preparing segments needs to know, under a lock of its own because it does I/O.
#[derive(Debug)]
pub(super) struct Preparer {
    /// Burnt even by an attempt that fails: a file that was removed can come back after a power cut.
    pub(super) next_generation: u32,
}

impl Preparer {
    /// Creates the next segment: allocated, headed, durable, and with it its name.
    fn prepare(&mut self, context: &WalContext, last_edit: u64, capacity: u64, needed: u64) -> Result<Room> {
        let generation = self.next_generation;
        let path = paths::log(&context.dir, generation);
        let exhausted =
            || Error::io("create", &path)(io::Error::other("the log has used up its generations"));
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
        let written = allocate(&*file, allocation(0, needed, capacity)).and_then(|allocated| {
            write_all_at(&*file, &header.encode(), 0)?;
            Ok(allocated)
        });
        let allocated = match written {
            Ok(allocated) => allocated,
            Err(error) => {
                // Nothing refers to it. If it stays, it is a segment without records, which opening removes.
                let _ = context.vfs.remove(&path);
                return Err(write_error("write", &path, error));
            }
        };
        let synced = file.sync().map_err(Error::io("sync", &path));
        let synced =
            synced.and_then(|()| context.vfs.sync_dir(&context.dir).map_err(Error::io("sync", &context.dir)));
        if let Err(error) = synced {
            context.health.poison(&error);
            return Err(error);
        }
        let segment = Arc::new(SegmentFile { generation, salt, path, file });
        Ok(Room { segment, used: u64::from(RECORDS_START), capacity, allocated, linked: false })
    }
}

/// Reserves space; returns how far it reaches.
fn allocate(file: &dyn VfsFile, len: u64) -> io::Result<u64> {
    match file.allocate(len) {
        Ok(()) => Ok(len),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(UNLIMITED),
        Err(e) => Err(e),
    }
}

/// The error of an operation that needed space.
pub(super) fn write_error(op: &'static str, path: &std::path::Path, error: io::Error) -> Error {
    let error = Error::io(op, path)(error);
    if error.is_out_of_space() { Error::DiskFull } else { error }
}

impl Wal {
    /// Grants `len` bytes, doing the I/O that this takes.
    pub(super) fn make_room(&self, len: u64) -> Result<()> {
        if let Grant::Granted = self.grant(len) {
            return Ok(());
        }
        let mut preparer = self.preparer.lock();
        loop {
            // Again each time: others use up room, and give it back, meanwhile.
            match self.grant(len) {
                Grant::Granted => return Ok(()),
                Grant::Resume(info) => self.resume(&info)?,
                Grant::Extend(segment, to) => {
                    let allocated = allocate(&*segment.file, to);
                    let allocated = allocated.map_err(|e| write_error("allocate", &segment.path, e))?;
                    self.space.lock().extended(segment.generation, allocated);
                }
                Grant::Prepare { capacity, needed } => self.prepare(&mut preparer, capacity, needed)?,
                Grant::TooMuch => {
                    let why = "writes at the same time are larger together than a log segment can be";
                    return Err(Error::WriteStalled { why: why.into() });
                }
            }
        }
    }

    fn grant(&self, len: u64) -> Grant {
        self.space.lock().grant(len, self.segment_size())
    }

    fn prepare(&self, preparer: &mut Preparer, capacity: u64, needed: u64) -> Result<()> {
        self.context.health.check()?;
        let room = preparer.prepare(&self.context, self.last_edit(), capacity, needed)?;
        self.space.lock().next = Some(room);
        Ok(())
    }

    /// Opens the segment that an earlier handle closed cleanly.
    fn resume(&self, info: &SegmentInfo) -> Result<()> {
        let file =
            self.context.vfs.open(&info.path, OpenMode::Write).map_err(Error::io("open", &info.path))?;
        let len = file.len().map_err(Error::io("open", &info.path))?;
        if len < u64::from(info.end) {
            return Err(Error::corrupt(&info.path, len, format!("the file should reach {}", info.end)));
        }
        let (generation, salt, path) = (info.generation, info.salt, info.path.clone());
        let segment = Arc::new(SegmentFile { generation, salt, path, file });
        let used = u64::from(info.end);
        let capacity = self.segment_size().max(used);
        let mut log = self.log.lock();
        let mut space = self.space.lock();
        log.current = Some(Arc::clone(&segment));
        space.current = Some(Room { segment, used, capacity, allocated: len, linked: true });
        space.resume = None;
        Ok(())
    }

    /// Whether it is time to call [`Wal::prepare_segment`].
    pub(crate) fn needs_segment(&self) -> bool {
        self.space.lock().wants_next()
    }

    /// Prepares the next segment ahead of need, so that no writer has to. Does nothing when it is there.
    pub(crate) fn prepare_segment(&self) -> Result<()> {
        let mut preparer = self.preparer.lock();
        if !self.needs_segment() {
            return Ok(());
        }
        // A log that fills segments has no need to stay tiny. Allocating all of it here keeps that off the writers,
        // who would wait behind whatever the file system's journal is busy with.
        let size = self.segment_size();
        self.prepare(&mut preparer, size, size)
    }

    /// Forgets the segments below a generation, but never the current one, and returns their files for the
    /// caller to remove.
    pub(crate) fn retire(&self, log_start: u32) -> Vec<PathBuf> {
        let mut space = self.space.lock();
        let (dead, live) =
            std::mem::take(&mut space.older).into_iter().partition(|s| s.generation < log_start);
        space.older = live;
        let dead: Vec<SegmentInfo> = dead;
        dead.into_iter().map(|info| info.path).collect()
    }

    /// The oldest segment that is kept; 0 when there is none.
    pub(crate) fn oldest_generation(&self) -> u32 {
        let space = self.space.lock();
        let open = space.current.iter().map(|room| room.segment.generation);
        space.older.iter().map(|info| info.generation).chain(open).min().unwrap_or(0)
    }

    /// Whether there is a segment that flushes and a checkpoint could give back: one before the log's tail.
    pub(crate) fn can_retire(&self) -> bool {
        let tail = self.tail().generation();
        self.space.lock().older.iter().any(|info| info.generation < tail)
    }

    /// How many segments there are, a prepared one included.
    pub(crate) fn segment_count(&self) -> usize {
        self.space.lock().segment_count()
    }

    /// The bytes that the segments take on disk, preallocated space included.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.space.lock().live_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use proptest::prelude::*;

    use super::super::LogRules;
    use super::super::testing::*;
    use super::*;
    use crate::types::Lsn;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(usize),
        /// Use the outstanding reservation with that number, fully or in part.
        Append(usize, bool),
        Drop(usize),
        Prepare,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => prop_oneof![0usize..200, 0usize..3000, 0usize..200_000].prop_map(Step::Reserve),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(i, whole)| Step::Append(i, whole)),
            1 => any::<usize>().prop_map(Step::Drop),
            1 => Just(Step::Prepare),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        #[test]
        fn what_was_reserved_fits_in_any_order(steps in steps(), size in prop_oneof![1100u64..6000, 100_000u64..300_000], allocates in any::<bool>()) {
            let vfs = TestVfs::default();
            vfs.plan.lock().fail_allocate = (!allocates).then_some(ErrorKind::Unsupported);
            let wal = open(&vfs, start(), size);
            let (mut outstanding, mut expected) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Reserve(len) => outstanding.push((len, wal.reserve(len).unwrap())),
                    Step::Append(i, whole) if !outstanding.is_empty() => {
                        let (len, reservation) = outstanding.swap_remove(i % outstanding.len());
                        let payload = vec![i as u8; if whole { len } else { len / 2 }];
                        let files = vfs.files().len();
                        let appended = wal.lock().append(reservation, 1, &payload).unwrap();
                        prop_assert_eq!(vfs.files().len(), files, "appending made a file");
                        expected.push((appended.first_seq, payload));
                    }
                    Step::Drop(i) if !outstanding.is_empty() => {
                        drop(outstanding.swap_remove(i % outstanding.len()));
                    }
                    Step::Prepare => wal.prepare_segment().unwrap(),
                    Step::Append(..) | Step::Drop(_) => {}
                }
                let reserved: u64 = outstanding.iter().map(|(len, _)| super::super::format::record_len(*len)).sum();
                let space = wal.space.lock();
                prop_assert_eq!(space.reserved, reserved);
                let free = |room: &Option<Room>| room.as_ref().map_or(0, |r| r.free().min(r.allocated - r.start()));
                prop_assert!(reserved <= free(&space.current).max(free(&space.next)));
                let len: u64 = vfs.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
                prop_assert!(!allocates || space.live_bytes() == len);
            }
            prop_assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1, expected);
        }
    }

    #[test]
    fn preallocation_starts_small_and_doubles() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        let mut lengths = Vec::new();
        while vfs.files().len() < 2 {
            append(&wal, &[0; 10_000]).unwrap();
            lengths.push(vfs.files()[0].1.len() >> 10);
        }
        lengths.dedup();
        assert_eq!(lengths, [64, 128, 256, 512, 1024]);
        assert_eq!(vfs.files()[1].1.len(), 64 << 10);
    }

    #[test]
    fn no_space_heals_and_unallocated_files_work() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        vfs.plan.lock().fail_allocate = Some(ErrorKind::StorageFull);
        for _ in 0..3 {
            assert!(matches!(append(&wal, b"a"), Err(Error::DiskFull)));
            assert!(vfs.files().is_empty());
        }
        vfs.plan.lock().fail_allocate = None;
        append(&wal, b"b").unwrap();
        vfs.plan.lock().fail_allocate = Some(ErrorKind::StorageFull);
        append(&wal, b"fits what is allocated").unwrap();
        assert!(matches!(append(&wal, &[0; 100_000]), Err(Error::DiskFull)));
        append(&wal, b"so does this").unwrap();
        vfs.plan.lock().fail_allocate = Some(ErrorKind::Unsupported);
        append(&wal, &[0; 100_000]).unwrap();
        append(&wal, &[0; 2_000_000]).unwrap();
        wal.sync().unwrap();
        assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1.len(), 5);
    }

    #[test]
    fn a_sync_that_fails_while_a_segment_is_made_poisons() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        vfs.plan.lock().fail_sync = Some(ErrorKind::StorageFull);
        assert!(matches!(wal.reserve(1), Err(Error::Io { op: "sync", .. })));
        assert!(matches!(wal.reserve(1), Err(Error::Poisoned { .. })));
    }

    #[test]
    fn retiring_keeps_the_current_segment_and_what_is_not_below() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1500);
        while wal.tail().generation() < 5 {
            append(&wal, &[1; 100]).unwrap();
        }
        assert_eq!(wal.retire(3), [1, 2].map(|generation| paths::log(dir(), generation)));
        assert!(wal.retire(3).is_empty());
        assert_eq!(wal.retire(u32::MAX).len(), 2);
        assert_eq!(wal.segment_count(), 1);
        append(&wal, b"still works").unwrap();
    }

    #[test]
    fn headers_carry_the_last_edit_of_their_time() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1500);
        append(&wal, b"a").unwrap();
        wal.set_last_edit(6);
        append(&wal, &[1; 2000]).unwrap();
        let edits: Vec<_> = vfs
            .files()
            .iter()
            .map(|(path, bytes)| SegmentHeader::decode(bytes, path).unwrap().unwrap().last_edit)
            .collect();
        assert_eq!(edits, [0, 6]);
        recover(&vfs, &LogRules::default()).unwrap_err();
        let rules = LogRules { last_edit: 6, ..LogRules::default() };
        assert_eq!(recover(&vfs, &rules).unwrap().0.end, wal.tail());
        assert!(wal.tail() > Lsn::new(2, 0));
    }
}
