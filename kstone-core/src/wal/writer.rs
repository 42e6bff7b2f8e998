//! Appending, syncing and closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::types::{Lsn, SeqNo};
use crate::vfs::write_all_at;

use super::format::{
    BATCH, LINK, LINK_LEN, MAX_SEGMENT, RECORD_HEADER, RECORDS_START, RecordHeader, WATERMARK, encode_link,
    record_len,
};
use super::segments::{Place, Preparer, Reservation, SegmentFile, Space, write_error};
use super::{LogEnd, WalContext, WalStart};

const DEFAULT_SEGMENT_SIZE: u64 = 16 << 20;
/// The append buffer is kept for the next record up to this size.
const KEPT_BUFFER: usize = 1 << 20;

/// The log of an open database.
#[derive(Debug)]
pub(crate) struct Wal {
    pub(super) context: WalContext,
    /// Held while segments are created and allocated.
    pub(super) preparer: Mutex<Preparer>,
    pub(super) log: Mutex<Log>,
    pub(super) space: Mutex<Space>,
    commit: Mutex<GroupCommit>,
    turn: Condvar,
    /// The end of the last record.
    tail: AtomicU64,
    /// The watermark.
    synced: AtomicU64,
    /// Writes that were undone, and how many of them are durably so.
    undone: AtomicU64,
    undone_synced: AtomicU64,
    segment_size: AtomicU64,
    last_edit: AtomicU64,
}

/// What the log lock guards.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) current: Option<Arc<SegmentFile>>,
    /// Segments before the current one with bytes that no sync has covered, oldest first.
    unsynced: Vec<Arc<SegmentFile>>,
    tail: Lsn,
    next_seq: SeqNo,
    /// Whether there is nothing since the last watermark record, or since this handle began.
    at_watermark: bool,
    buffer: Vec<u8>,
}

#[derive(Debug, Default)]
struct GroupCommit {
    /// Somebody is syncing for all.
    leading: bool,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) lsn: Lsn,
    /// Where it ends: what to sync to.
    pub(crate) end: Lsn,
    pub(crate) first_seq: SeqNo,
}

impl Wal {
    /// Does no I/O: the first segment is opened or created by the first reservation.
    pub(crate) fn new(context: WalContext, start: WalStart) -> Self {
        let mut older = start.segments;
        // Only a segment that ends where the log does can be continued.
        let resume = older.pop_if(|last| start.resume && Lsn::new(last.generation, last.end) == start.end);
        let first_free = start.end.generation().saturating_add(1);
        Self {
            context,
            preparer: Mutex::new(Preparer { next_generation: start.next_generation.max(first_free) }),
            log: Mutex::new(Log {
                current: None,
                unsynced: Vec::new(),
                tail: start.end,
                next_seq: start.next_seq,
                at_watermark: true,
                buffer: Vec::new(),
            }),
            space: Mutex::new(Space::new(older, resume)),
            commit: Mutex::default(),
            turn: Condvar::new(),
            tail: AtomicU64::new(start.end.0),
            synced: AtomicU64::new(start.end.0),
            undone: AtomicU64::new(0),
            undone_synced: AtomicU64::new(0),
            segment_size: AtomicU64::new(DEFAULT_SEGMENT_SIZE),
            last_edit: AtomicU64::new(start.last_edit),
        }
    }

    /// The length of segments made from now on.
    pub(crate) fn set_segment_size(&self, bytes: u64) {
        self.segment_size.store(bytes.min(MAX_SEGMENT), Ordering::Relaxed);
    }

    pub(super) fn segment_size(&self) -> u64 {
        self.segment_size.load(Ordering::Relaxed)
    }

    /// The newest durable manifest edit, for the headers of segments made from now on.
    pub(crate) fn set_last_edit(&self, edit: u64) {
        self.last_edit.store(edit, Ordering::Release);
    }

    pub(super) fn last_edit(&self) -> u64 {
        self.last_edit.load(Ordering::Acquire)
    }

    /// Room for one record. May do I/O; to be called before any lock is taken.
    pub(crate) fn reserve(&self, payload_len: usize) -> Result<Reservation<'_>> {
        self.context.health.check()?;
        let len = record_len(payload_len);
        let most = MAX_SEGMENT - u64::from(RECORDS_START) - LINK_LEN;
        if len > most {
            return Err(Error::BatchTooLarge { len: payload_len, max: most as usize - RECORD_HEADER });
        }
        self.make_room(len)?;
        Ok(Reservation::granted(self, len))
    }

    /// Takes the log lock: whoever holds it decides what comes next in the log.
    pub(crate) fn lock(&self) -> WalGuard<'_> {
        WalGuard { wal: self, log: self.log.lock() }
    }

    /// The end of the last record.
    pub(crate) fn tail(&self) -> Lsn {
        Lsn(self.tail.load(Ordering::Acquire))
    }

    /// The watermark: everything before it is durable.
    pub(crate) fn synced(&self) -> Lsn {
        Lsn(self.synced.load(Ordering::Acquire))
    }

    /// Whether there is something to sync.
    pub(crate) fn unsynced(&self) -> bool {
        self.synced() < self.tail()
            || self.undone_synced.load(Ordering::Acquire) < self.undone.load(Ordering::Acquire)
    }

    /// Makes everything that was appended before this call durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.context.health.check()?;
        let (tail, undone) = (self.tail(), self.undone.load(Ordering::Acquire));
        self.sync_until(|| self.synced() >= tail && self.undone_synced.load(Ordering::Acquire) >= undone)
    }

    /// Makes the log durable up to `end`, the end of a record that was appended.
    pub(crate) fn sync_to(&self, end: Lsn) -> Result<()> {
        self.sync_until(|| self.synced() >= end)
    }

    /// Group commit: the first to come syncs up to the tail, the others wait for it. Who came too late for
    /// that sync is in the next one.
    fn sync_until(&self, done: impl Fn() -> bool) -> Result<()> {
        let mut commit = self.commit.lock();
        loop {
            if done() {
                return Ok(());
            }
            self.context.health.check()?;
            if !commit.leading {
                break;
            }
            self.turn.wait(&mut commit);
        }
        commit.leading = true;
        drop(commit);
        let mut leading = Leading { wal: self, finished: false };
        let result = self.sync_all();
        leading.finished = true;
        result
    }

    /// Syncs every segment with unsynced bytes, oldest first. Segment names are durable since creation.
    fn sync_all(&self) -> Result<()> {
        let (segments, tail, undone) = {
            let mut log = self.log.lock();
            let mut segments = std::mem::take(&mut log.unsynced);
            segments.extend(log.current.clone());
            (segments, log.tail, self.undone.load(Ordering::Acquire))
        };
        for segment in segments {
            if let Err(error) = segment.file.sync() {
                let error = Error::io("sync", &segment.path)(error);
                self.context.health.poison(&error);
                return Err(error);
            }
        }
        self.synced.store(tail.0, Ordering::Release);
        self.undone_synced.store(undone, Ordering::Release);
        Ok(())
    }

    /// Whether an idle database should call [`Wal::append_watermark`].
    pub(crate) fn wants_watermark(&self) -> bool {
        !self.log.lock().at_watermark
    }

    /// To be called when the database is idle: after the last batch is synced, appends and syncs a record
    /// that says so, once. Damage to that batch is then told from a torn tail.
    pub(crate) fn append_watermark(&self) -> Result<()> {
        self.sync()?;
        if self.lock().log.at_watermark {
            return Ok(());
        }
        let reservation = self.reserve(0)?;
        let end = {
            let mut guard = self.lock();
            if guard.log.at_watermark || guard.log.tail != self.synced() {
                return Ok(()); // not idle after all
            }
            guard.write(WATERMARK, reservation, 0, &[])?.end
        };
        self.sync_to(end)
    }

    /// Syncs, and gives unused space back. Nothing may be appended at the same time or afterwards.
    pub(crate) fn close(&self) -> Result<LogEnd> {
        self.sync()?;
        let preparer = self.preparer.lock();
        let (current, next) = {
            let mut log = self.log.lock();
            let mut space = self.space.lock();
            log.current = None;
            (space.current.take(), space.next.take())
        };
        let vfs = &self.context.vfs;
        let (current, unused): (Vec<_>, Vec<_>) =
            current.into_iter().chain(next).partition(|room| room.linked);
        for room in unused {
            let path = &room.segment.path;
            vfs.remove(path).map_err(Error::io("remove", path))?;
        }
        for room in current {
            let SegmentFile { path, file, .. } = &*room.segment;
            file.set_len(room.used).map_err(Error::io("truncate", path))?;
            if let Err(error) = file.sync().map_err(Error::io("sync", path)) {
                self.context.health.poison(&error);
                return Err(error);
            }
            self.space.lock().older.push(room.closed());
        }
        let log = self.log.lock();
        Ok(LogEnd { end: log.tail, next_seq: log.next_seq, next_generation: preparer.next_generation })
    }
}

/// Held by who syncs for all. Lets the others go on, whatever becomes of the sync.
struct Leading<'a> {
    wal: &'a Wal,
    finished: bool,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let unwound = std::io::Error::other("the sync did not return");
            self.wal.context.health.poison(&Error::io("sync", &self.wal.context.dir)(unwound));
        }
        self.wal.commit.lock().leading = false;
        self.wal.turn.notify_all();
    }
}

/// The log lock.
#[derive(Debug)]
pub(crate) struct WalGuard<'a> {
    wal: &'a Wal,
    log: MutexGuard<'a, Log>,
}

impl WalGuard<'_> {
    /// Appends a batch of `count` operations. When it fails, nothing was written, but the sequences are gone.
    pub(crate) fn append(
        &mut self,
        reservation: Reservation<'_>,
        count: u32,
        payload: &[u8],
    ) -> Result<Appended> {
        self.write(BATCH, reservation, count, payload)
    }

    fn write(
        &mut self,
        kind: u8,
        mut reservation: Reservation<'_>,
        count: u32,
        payload: &[u8],
    ) -> Result<Appended> {
        let (wal, log) = (self.wal, &mut *self.log);
        wal.context.health.check()?;
        let len = record_len(payload.len());
        if len > reservation.len {
            return Err(Error::BatchTooLarge {
                len: payload.len(),
                max: reservation.len as usize - RECORD_HEADER,
            });
        }
        let place = wal.space.lock().place(reservation.take(), len);
        let Place { offset, linked, rotated_to } = place
            .ok_or_else(|| Error::WriteStalled { why: "the log has no room for a granted write".into() })?;
        if let Some(segment) = rotated_to
            && let Some(full) = log.current.replace(segment)
            && wal.unsynced()
        {
            log.unsynced.push(full);
        }
        let first_seq = log.next_seq;
        log.next_seq = first_seq.saturating_add(u64::from(count));
        let Log { current: Some(segment), buffer, .. } = log else {
            return Err(Error::Closed);
        };
        buffer.clear();
        let at = |offset: u64| Lsn::new(segment.generation, offset as u32);
        let mut header = RecordHeader::new(LINK, at(offset), first_seq, wal.synced(), 0, reservation.time);
        if !linked {
            header.encode(buffer, segment.salt, &encode_link(log.tail));
        }
        let lsn = at(offset + buffer.len() as u64);
        (header.kind, header.lsn, header.count) = (kind, lsn, count);
        header.encode(buffer, segment.salt, payload);
        if let Err(error) = write_all_at(&*segment.file, buffer, offset) {
            let error = wal.undo(segment, offset, error);
            wal.space.lock().unplace(offset, linked);
            return Err(error);
        }
        let end = at(offset + buffer.len() as u64);
        if buffer.capacity() > KEPT_BUFFER {
            *buffer = Vec::new();
        }
        log.tail = end;
        log.at_watermark = kind == WATERMARK;
        wal.tail.store(end.0, Ordering::Release);
        Ok(Appended { lsn, end, first_seq })
    }
}

impl Wal {
    /// After a failed write at `offset`: zeroes the header there, so that what was refused is not replayed.
    /// Returns the error for the caller.
    fn undo(&self, segment: &SegmentFile, offset: u64, cause: std::io::Error) -> Error {
        // Not past the end of the file: that would take new space, and nothing was written there.
        let undone = segment.file.len().and_then(|len| {
            let written = len.saturating_sub(offset).min(RECORD_HEADER as u64) as usize;
            let zeros = [0; RECORD_HEADER];
            write_all_at(&*segment.file, zeros.get(..written).unwrap_or(&zeros), offset)
        });
        match undone {
            Ok(()) => {
                self.undone.fetch_add(1, Ordering::AcqRel);
                write_error("write", &segment.path, cause)
            }
            Err(_) => {
                let error = Error::io("write", &segment.path)(cause);
                self.context.health.poison(&error);
                error
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::LogRules;
    use super::super::testing::*;
    use super::*;

    fn all(vfs: &TestVfs) -> Batches {
        recover(vfs, &LogRules::default()).unwrap().1
    }

    #[test]
    fn a_failed_write_is_undone_its_sequences_burnt_and_later_appends_work() {
        // Appends rotate, so that also links fail.
        for fail_at in 0..60 {
            for (taken, kind) in [
                (0, ErrorKind::StorageFull),
                (20, ErrorKind::StorageFull),
                (70, ErrorKind::Other),
                (400, ErrorKind::Other),
            ] {
                let vfs = TestVfs::default();
                let wal = open(&vfs, start(), 1500);
                vfs.plan.lock().fail_write = Some((fail_at, taken, kind));
                let (mut expected, mut failures, mut next) = (Vec::new(), 0, 1);
                for i in 0..40u8 {
                    let payload = vec![i | 0x80; 100 + usize::from(i)];
                    match append(&wal, &payload) {
                        Ok(appended) => {
                            assert!(appended.first_seq >= next);
                            next = appended.first_seq + 1;
                            expected.push((appended.first_seq, payload));
                        }
                        Err(error) => {
                            failures += 1;
                            assert_eq!(matches!(error, Error::DiskFull), kind == ErrorKind::StorageFull);
                            assert_eq!(all(&vfs), expected, "what was refused is there");
                        }
                    }
                }
                assert_eq!(all(&vfs), expected, "{fail_at} {taken}");
                assert!(failures == 1 || fail_at > 45, "{fail_at} {taken}");
                wal.sync().unwrap();
                assert_eq!((wal.synced(), wal.unsynced()), (wal.tail(), false));
                wal.close().unwrap();
                assert_eq!(all(&vfs), expected);
            }
        }
    }

    #[test]
    fn an_undone_write_is_something_to_sync() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        append(&wal, b"a").unwrap();
        wal.sync().unwrap();
        vfs.plan.lock().fail_write = Some((0, 60, ErrorKind::StorageFull));
        append(&wal, &[1; 100]).unwrap_err();
        assert!(wal.unsynced());
        let syncs = vfs.plan.lock().syncs;
        wal.sync().unwrap();
        assert!(!wal.unsynced());
        wal.sync().unwrap();
        assert_eq!(vfs.plan.lock().syncs, syncs + 1);
    }

    #[test]
    fn a_write_that_cannot_be_undone_poisons() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        append(&wal, b"kept").unwrap();
        {
            let mut plan = vfs.plan.lock();
            plan.fail_write = Some((0, 30, ErrorKind::StorageFull));
            plan.keep_failing = true;
        }
        assert!(matches!(append(&wal, &[1; 100]), Err(Error::Io { .. })));
        vfs.plan.lock().fail_write = None;
        assert!(matches!(append(&wal, b"b"), Err(Error::Poisoned { .. })));
        assert!(matches!(wal.sync(), Err(Error::Poisoned { .. })));
        assert!(matches!(wal.close(), Err(Error::Poisoned { .. })));
        assert_eq!(all(&vfs), [(1, b"kept".to_vec())]);
    }

    #[test]
    fn a_failed_sync_poisons_for_good_and_is_never_tried_again() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        let durable = append(&wal, b"a").unwrap();
        wal.sync().unwrap();
        let lost = append(&wal, b"b").unwrap();
        let reservation = wal.reserve(1).unwrap();
        vfs.plan.lock().fail_sync = Some(ErrorKind::StorageFull);
        assert!(matches!(wal.sync_to(lost.end), Err(Error::Io { op: "sync", .. })));
        let syncs = vfs.plan.lock().syncs;
        for _ in 0..3 {
            assert!(matches!(wal.sync_to(lost.end), Err(Error::Poisoned { .. })));
            assert!(matches!(wal.reserve(1), Err(Error::Poisoned { .. })));
        }
        assert!(matches!(wal.lock().append(reservation, 1, b"c"), Err(Error::Poisoned { .. })));
        wal.sync_to(durable.end).unwrap();
        assert_eq!((wal.synced(), vfs.plan.lock().syncs), (durable.end, syncs));
    }

    #[test]
    fn a_sync_covers_every_segment_and_only_those_with_unsynced_bytes() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1500);
        while wal.segment_count() < 4 {
            append(&wal, &[1; 100]).unwrap();
        }
        let syncs = vfs.plan.lock().syncs;
        wal.sync().unwrap();
        assert_eq!(vfs.plan.lock().syncs - syncs, 4);
        append(&wal, b"a").unwrap();
        wal.sync().unwrap();
        wal.sync().unwrap();
        assert_eq!(vfs.plan.lock().syncs - syncs, 5);
        assert_eq!(vfs.plan.lock().dir_syncs, 4);
    }

    #[test]
    fn writers_share_syncs_and_all_is_there_in_order() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 20_000);
        let (threads, writes) = (8u8, 60);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let wal = &wal;
                scope.spawn(move || {
                    for i in 0..writes {
                        let appended = append(wal, &[thread, i]).unwrap();
                        wal.sync_to(appended.end).unwrap();
                        assert!(wal.synced() >= appended.end);
                        if wal.needs_segment() {
                            wal.prepare_segment().unwrap();
                        }
                    }
                });
            }
        });
        let commits = usize::from(threads) * usize::from(writes);
        let syncs = vfs.plan.lock().syncs;
        assert!((syncs as usize) < commits, "{syncs} syncs for {commits} commits");
        let batches = all(&vfs);
        assert_eq!(
            batches.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
            (1..=commits as u64).collect::<Vec<_>>()
        );
        for thread in 0..threads {
            let own =
                batches.iter().filter(|(_, payload)| payload[0] == thread).map(|(_, payload)| payload[1]);
            assert!(own.eq(0..writes));
        }
    }

    #[test]
    fn waiters_of_a_failed_sync_all_get_an_error() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        append(&wal, b"first").unwrap();
        vfs.plan.lock().fail_sync = Some(ErrorKind::Other);
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..6).map(|_| scope.spawn(|| wal.sync())).collect();
            assert!(handles.into_iter().all(|handle| handle.join().unwrap().is_err()));
        });
        assert_eq!(wal.synced(), Lsn::ZERO);
    }

    #[test]
    fn an_idle_log_gets_one_watermark() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 1 << 20);
        let batch = append(&wal, b"a").unwrap();
        wal.append_watermark().unwrap();
        let end = wal.tail();
        assert_eq!((end.0, wal.synced()), (batch.end.0 + RECORD_HEADER as u64, end));
        wal.append_watermark().unwrap();
        assert_eq!(wal.tail(), end);
        assert_eq!(append(&wal, b"b").unwrap().first_seq, 2);
        assert_eq!(all(&vfs).len(), 2);
        // The last batch before the watermark cannot be taken for a torn tail now.
        let (path, mut bytes) = vfs.files().pop().unwrap();
        bytes[batch.lsn.offset() as usize] ^= 1;
        vfs.overwrite(&path, &bytes);
        assert!(matches!(recover(&vfs, &LogRules::default()), Err(Error::Corruption { .. })));
    }

    #[test]
    fn closing_removes_what_was_prepared_and_burns_its_generation() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 4000);
        while !wal.needs_segment() {
            append(&wal, &[1; 100]).unwrap();
        }
        wal.prepare_segment().unwrap();
        assert_eq!((wal.segment_count(), vfs.files().len()), (2, 2));
        let end = wal.close().unwrap();
        assert_eq!((end.end, end.next_generation), (wal.tail(), 3));
        assert_eq!(vfs.files().len(), 1);
    }

    #[test]
    fn payloads_that_do_not_fit_their_reservation_are_refused() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 4000);
        let reservation = wal.reserve(8).unwrap();
        let refused = wal.lock().append(reservation, 1, &[0; 9]);
        assert!(matches!(refused, Err(Error::BatchTooLarge { len: 9, max: 8 })));
        assert!(matches!(wal.reserve(u32::MAX as usize), Err(Error::BatchTooLarge { .. })));
        assert_eq!(append(&wal, b"x").unwrap().first_seq, 1);
    }
}
