//! Reserving, syncing and closing.

use crate::counters::Operation;
use crate::error::{Error, Result};
use crate::paths;
use crate::planted::{Bug, planted, put_out};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::types::{Lsn, SeqNo};
use crate::vfs::Floor;

use super::append::{Gathered, Log, Queue};
use super::buffer::buffer_size;
use super::format::{LINK_LEN, MAX_SEGMENT, RECORD_HEADER, RECORDS_START, record_len};
use super::segments::{Grant, LogSpace, Preparer, Reservation, SegmentFile};
use super::{LogEnd, LogLimits, WalContext, WalStart};

/// The log of an open database.
#[derive(Debug)]
pub(crate) struct Wal {
    pub(super) context: WalContext,
    /// Held while segments are created and allocated.
    pub(super) preparer: Mutex<Preparer>,
    pub(super) log: Mutex<Log>,
    /// Records that wait for the log lock, and their number.
    pub(super) queue: Mutex<Queue>,
    pub(super) waiting: AtomicUsize,
    pub(super) space: Mutex<LogSpace>,
    /// The value of [`Wal::live_bytes_lately`].
    pub(super) live_lately: AtomicU64,
    commit: Mutex<GroupCommit>,
    turn: Condvar,
    /// The end of the last record.
    pub(super) tail: AtomicU64,
    /// The watermark.
    synced: AtomicU64,
    /// Maximum bytes of records per write call.
    pub(super) write_buffer: AtomicU64,
    /// The size that the log buffer should have, and the one it has; 0 without one.
    pub(super) buffer_size: AtomicU64,
    pub(super) buffer_made: AtomicU64,
    pub(super) gathered: Gathered,
    last_edit: AtomicU64,
}

#[derive(Debug, Default)]
struct GroupCommit {
    /// Whether a thread is syncing on behalf of all.
    leading: bool,
}

impl Wal {
    /// Does no I/O: the first reservation opens or creates the first segment.
    pub(crate) fn new(context: WalContext, start: WalStart) -> Self {
        let mut older = start.segments;
        // Only a segment that ends where the log does can be continued.
        let resume = older.pop_if(|last| start.resume && Lsn::new(last.generation, last.end) == start.end);
        let first_free = start.end.generation().saturating_add(1);
        Self {
            context,
            preparer: Mutex::new(Preparer { next_generation: start.next_generation.max(first_free) }),
            log: Mutex::new(Log::new(start.end, start.next_seq)),
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            space: Mutex::new(LogSpace::new(older, resume)),
            live_lately: AtomicU64::new(0),
            commit: Mutex::default(),
            turn: Condvar::new(),
            tail: AtomicU64::new(start.end.0),
            synced: AtomicU64::new(start.end.0),
            write_buffer: AtomicU64::new(0),
            buffer_size: AtomicU64::new(0),
            buffer_made: AtomicU64::new(0),
            gathered: Gathered::default(),
            last_edit: AtomicU64::new(start.last_edit),
        }
    }

    /// Sets the limits for segments created from now on. Existing segments keep their size.
    pub(crate) fn set_limits(&self, limits: LogLimits) {
        self.write_buffer.store(limits.write_buffer, Ordering::Relaxed);
        self.buffer_size.store(buffer_size(limits.buffer, limits.segment_size), Ordering::Relaxed);
        self.space.lock().limits = LogLimits { segment_size: limits.segment_size.min(MAX_SEGMENT), ..limits };
        // Otherwise with the first segment.
        if self.log.lock().current.is_some() {
            self.fit_buffer();
        }
    }

    /// Sets the number of the newest durable manifest edit, which the headers of new segments record.
    pub(crate) fn set_last_edit(&self, edit: u64) {
        self.last_edit.store(edit, Ordering::Release);
    }

    pub(super) fn last_edit(&self) -> u64 {
        self.last_edit.load(Ordering::Acquire)
    }

    /// Reserves space for one record. `None` if that would take the log over its limit. May do I/O, so it must be
    /// called before any lock is taken. Fails with `DiskFull` rather than take new space beyond the floor of free space
    /// in the directory.
    pub(crate) fn try_reserve(
        &self,
        payload_len: usize,
        floor: Floor<'_>,
    ) -> Result<Option<Reservation<'_>>> {
        self.context.health.check()?;
        let len = record_len(payload_len);
        let most = MAX_SEGMENT - u64::from(RECORDS_START) - LINK_LEN;
        if len > most {
            return Err(Error::BatchTooLarge { len: payload_len, max: most as usize - RECORD_HEADER });
        }
        Ok(self.make_room(floor, |space| space.grant(len))?.then(|| Reservation::granted(self, len)))
    }

    /// Reserves space that is already allocated, without I/O; `None` if there is not enough.
    pub(crate) fn reserve_at_once(&self, payload_len: usize) -> Result<Option<Reservation<'_>>> {
        self.context.health.check()?;
        let len = record_len(payload_len);
        let granted = matches!(self.space.lock().grant(len), Grant::Granted);
        Ok(granted.then(|| Reservation::granted(self, len)))
    }

    /// Whether a writer is appending, so that the next one would have to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || self.log.is_locked()
    }

    /// Returns the end of the last record.
    pub(crate) fn tail(&self) -> Lsn {
        Lsn(self.tail.load(Ordering::Acquire))
    }

    /// Returns the next sequence to be assigned.
    pub(crate) fn next_seq(&self) -> SeqNo {
        self.log.lock().next_seq
    }

    /// Returns the watermark: everything before it is durable.
    pub(crate) fn synced(&self) -> Lsn {
        Lsn(self.synced.load(Ordering::Acquire))
    }

    /// Whether anything awaits a sync.
    pub(crate) fn unsynced(&self) -> bool {
        self.synced() < self.tail()
    }

    /// Makes all records appended before this call durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.context.health.check()?;
        self.sync_to(self.tail())
    }

    /// Makes the log durable up to `end`, the end of an appended record.
    pub(crate) fn sync_to(&self, end: Lsn) -> Result<()> {
        self.sync_until(|| self.synced() >= end)
    }

    /// Group commit: the first waiter syncs up to the tail, and the others wait for it. Writers that miss this sync
    /// join the next one.
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

    /// Syncs every segment with unsynced bytes, oldest first. The names of segments have been durable since their
    /// creation.
    fn sync_all(&self) -> Result<()> {
        let started = self.context.clock.monotonic();
        let (segments, tail) = {
            let mut log = self.log.lock();
            let flushed = if planted(Bug::LogBufferNotSynced) { Ok(false) } else { log.flush_buffer() };
            match flushed {
                Ok(called) => self.gathered.count(called.into(), 0, 0),
                Err(error) => {
                    let error = Error::io("write", &self.context.dir)(error);
                    self.context.health.poison(&error);
                    return Err(error);
                }
            }
            let mut segments = std::mem::take(&mut log.unsynced);
            if planted(Bug::OnlyNewestSegmentSynced) {
                segments.clear();
            }
            segments.extend(log.current.clone());
            (segments, log.tail)
        };
        if planted(Bug::BufferKept) {
            put_out();
        }
        if planted(Bug::WatermarkBeforeSync) {
            self.synced.store(tail.0, Ordering::Release);
        }
        for segment in segments {
            if let Err(error) = segment.file.sync() {
                let error = Error::io("sync", &segment.path)(error);
                self.context.health.poison(&error);
                return Err(error);
            }
        }
        self.synced.store(tail.0, Ordering::Release);
        let took = self.context.clock.monotonic().saturating_sub(started);
        self.context.latencies.record(Operation::LogSync, took);
        Ok(())
    }

    /// Whether an idle database should call [`Wal::append_watermark`]. Does not wait for a write in progress: a log
    /// that is being written to is not idle, and the caller holds locks that writers wait for.
    pub(crate) fn wants_watermark(&self) -> bool {
        self.log.try_lock().is_some_and(|log| !log.at_watermark)
    }

    /// Marks an idle log, once: syncs it, then appends and syncs a watermark record. Damage to the last batch can then
    /// be told from a torn tail.
    pub(crate) fn append_watermark(&self) -> Result<()> {
        self.sync()?;
        if self.log.lock().at_watermark {
            return Ok(());
        }
        let reservation = self.try_reserve(0, Floor::NONE)?;
        let end = {
            let mut log = self.log.lock();
            if log.at_watermark || log.tail != self.synced() {
                return Ok(()); // not idle after all
            }
            match reservation {
                Some(reservation) => self.write_watermark(&mut log, reservation)?.end,
                None => {
                    // Not worth waiting for space: the next record that finds some carries the same watermark.
                    log.at_watermark = true;
                    return Ok(());
                }
            }
        };
        self.sync_to(end)
    }

    /// Syncs, and releases unused space. No append may be in progress or follow.
    pub(crate) fn close(&self) -> Result<LogEnd> {
        self.sync()?;
        let preparer = self.preparer.lock();
        let (buffered, current, next) = {
            let mut log = self.log.lock();
            let buffered = log.drop_buffer();
            let mut space = self.space.lock();
            log.current = None;
            // A segment to be resumed that was never written to counts as an ordinary older one.
            let resume = space.resume.take();
            space.older.extend(resume);
            (buffered, space.current.take(), space.next.take())
        };
        let vfs = &self.context.vfs;
        if buffered {
            let path = paths::log_buffer(&self.context.dir);
            vfs.remove(&path).map_err(Error::io("remove", &path))?;
        }
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

/// Held by the thread that syncs on behalf of all. Wakes the others, whatever the result of the sync.
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::testing::*;
    use super::super::{LogRules, Route};
    use super::*;

    fn all(vfs: &TestVfs) -> Batches {
        recover(vfs, &LogRules::default()).unwrap().1
    }

    #[test]
    fn a_failed_write_is_undone_its_sequences_burnt_and_later_appends_work() {
        // Appends rotate, so that links fail, too.
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
                            assert_eq!(all(&vfs), expected, "a refused write is in the log");
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
        let reservation = reserve(&wal, 1).unwrap();
        vfs.plan.lock().fail_sync = Some(ErrorKind::StorageFull);
        assert!(matches!(wal.sync_to(lost.end), Err(Error::Io { op: "sync", .. })));
        let syncs = vfs.plan.lock().syncs;
        for _ in 0..3 {
            assert!(matches!(wal.sync_to(lost.end), Err(Error::Poisoned { .. })));
            assert!(matches!(wal.try_reserve(1, Floor::NONE), Err(Error::Poisoned { .. })));
        }
        assert!(matches!(
            wal.append(reservation, 1, b"c", Route::Buffered, |_| ()),
            Err(Error::Poisoned { .. })
        ));
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
                            wal.prepare_segment(Floor::NONE).unwrap();
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
        // The last batch before the watermark can no longer be taken for a torn tail.
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
        wal.prepare_segment(Floor::NONE).unwrap();
        assert_eq!((wal.segment_count(), vfs.files().len()), (2, 2));
        let end = wal.close().unwrap();
        assert_eq!((end.end, end.next_generation), (wal.tail(), 3));
        assert_eq!(vfs.files().len(), 1);
    }

    #[test]
    fn payloads_that_do_not_fit_their_reservation_are_refused() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 4000);
        let reservation = reserve(&wal, 8).unwrap();
        let refused = wal.append(reservation, 1, &[0; 9], Route::Buffered, |_| ());
        assert!(matches!(refused, Err(Error::BatchTooLarge { len: 9, max: 8 })));
        assert!(matches!(wal.try_reserve(u32::MAX as usize, Floor::NONE), Err(Error::BatchTooLarge { .. })));
        assert_eq!(append(&wal, b"x").unwrap().first_seq, 1);
    }
}
