//! Appending: the records that wait for the log lock together go out in one write call.
//!
//! A writer that finds the log free writes its record by itself. One that does not puts it into the queue, and then
//! waits for the log lock; the first to get it takes the whole queue and writes it in order, as many records a call
//! as the write buffer and the segment take. The others find their results when they get the lock in their turn.
//! A writer holds its stripes' locks meanwhile, so a queue never has two records of one stripe.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::planted::{Bug, planted, put_off};
use crate::types::{Lsn, SeqNo};
use crate::vfs::write_all_at;

use super::format::{BATCH, LINK, RECORD_HEADER, RecordHeader, WATERMARK, encode_link, record_len};
use super::segments::{Place, Reservation, SegmentFile, write_error};
use super::writer::Wal;

/// Buffers are kept for the next records up to this size.
const KEPT_BUFFER: usize = 1 << 20;

/// What the log lock guards.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) current: Option<Arc<SegmentFile>>,
    /// Segments before the current one with bytes that no sync has covered, oldest first.
    pub(super) unsynced: Vec<Arc<SegmentFile>>,
    pub(super) tail: Lsn,
    pub(super) next_seq: SeqNo,
    /// Whether there is nothing since the last watermark record, or since this handle began.
    pub(super) at_watermark: bool,
    buffer: Vec<u8>,
    /// What became of records that another writer wrote, until theirs fetches it.
    done: Vec<(u64, Result<Appended>)>,
    /// An empty batch, for its memory.
    spare: Batch,
}

impl Log {
    pub(super) fn new(tail: Lsn, next_seq: SeqNo) -> Self {
        Self {
            current: None,
            unsynced: Vec::new(),
            tail,
            next_seq,
            at_watermark: true,
            buffer: Vec::new(),
            done: Vec::new(),
            spare: Batch::default(),
        }
    }
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) lsn: Lsn,
    /// Where it ends: what to sync to.
    pub(crate) end: Lsn,
    pub(crate) first_seq: SeqNo,
}

/// What was appended in one write call. Nearly always one record: room for more costs every write its copying.
type Group = SmallVec<[Appended; 1]>;

/// A record before it has a place.
#[derive(Debug)]
struct Pending {
    ticket: u64,
    reserved: u64,
    time: u32,
    count: u32,
    payload_len: usize,
}

impl Pending {
    fn new(ticket: u64, reservation: &mut Reservation<'_>, count: u32, payload: &[u8]) -> Self {
        let (time, reserved) = (reservation.time, reservation.take());
        Self { ticket, reserved, time, count, payload_len: payload.len() }
    }
}

/// Records in order, and their payloads one after the other.
#[derive(Debug, Default)]
struct Batch {
    records: Vec<Pending>,
    payloads: Vec<u8>,
}

/// Records that wait for the log lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    last_ticket: u64,
    batch: Batch,
}

/// Totals since open; written under the log lock only.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    writes: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Gathered {
    fn count(&self, records: usize, bytes: usize) {
        let add = |total: &AtomicU64, more: u64| {
            total.store(total.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        };
        add(&self.writes, 1);
        add(&self.records, records as u64);
        add(&self.bytes, bytes as u64);
    }
}

/// What was written to the log since open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogWrites {
    /// Write calls for records.
    pub(crate) writes: u64,
    pub(crate) records: u64,
    /// Bytes of records, links between segments included.
    pub(crate) bytes: u64,
}

impl Wal {
    /// Appends a batch of `count` operations. When it fails, nothing was written, but the sequences are gone.
    /// `appended` is called with the last sequence while the log is locked, in order of sequences; perhaps on
    /// another writer's thread and by that one's closure, so all must do the same.
    pub(crate) fn append(
        &self,
        mut reservation: Reservation<'_>,
        count: u32,
        payload: &[u8],
        appended: impl Fn(SeqNo),
    ) -> Result<Appended> {
        let len = record_len(payload.len());
        if len > reservation.len {
            let max = reservation.len as usize - RECORD_HEADER;
            return Err(Error::BatchTooLarge { len: payload.len(), max });
        }
        let free = if self.waiting.load(Ordering::Relaxed) == 0 { self.log.try_lock() } else { None };
        let mut log = match free {
            Some(log) => log,
            None if len > self.write_buffer.load(Ordering::Relaxed) => self.log.lock(),
            None => {
                return self.append_in_group(
                    Pending::new(0, &mut reservation, count, payload),
                    payload,
                    appended,
                );
            }
        };
        let record = Pending::new(0, &mut reservation, count, payload);
        let (_, group) = self.write_some(&mut log, BATCH, &[record], payload);
        let appended_at = group?.first().copied().ok_or_else(|| self.no_place())?;
        appended(last_seq(&appended_at, count));
        Ok(appended_at)
    }

    fn append_in_group(&self, record: Pending, payload: &[u8], appended: impl Fn(SeqNo)) -> Result<Appended> {
        let ticket = {
            let mut queue = self.queue.lock();
            queue.last_ticket += 1;
            let ticket = queue.last_ticket;
            queue.batch.records.push(Pending { ticket, ..record });
            queue.batch.payloads.extend_from_slice(payload);
            self.waiting.store(queue.batch.records.len(), Ordering::Relaxed);
            ticket
        };
        let mut log = self.log.lock();
        if let Some(at) = log.done.iter().position(|(done, _)| *done == ticket) {
            return log.done.swap_remove(at).1;
        }
        self.write_queue(&mut log, ticket, appended)
    }

    /// Writes all that is queued; returns what became of the record with that ticket.
    fn write_queue(&self, log: &mut Log, ticket: u64, appended: impl Fn(SeqNo)) -> Result<Appended> {
        let mut batch = std::mem::take(&mut log.spare);
        {
            let mut queue = self.queue.lock();
            std::mem::swap(&mut queue.batch, &mut batch);
            self.waiting.store(0, Ordering::Relaxed);
        }
        let mut own = None;
        let (mut records, mut payloads) = (batch.records.as_slice(), batch.payloads.as_slice());
        while !records.is_empty() {
            let (count, group) = self.write_some(log, BATCH, records, payloads);
            let (written, rest) = records.split_at(count.clamp(1, records.len()));
            for (i, record) in written.iter().enumerate() {
                let result = match &group {
                    Ok(group) => group.get(i).copied().ok_or_else(|| self.no_place()),
                    Err(error) => Err(error.repeated()),
                };
                if let Ok(place) = &result {
                    appended(last_seq(place, record.count));
                }
                // Too few of them are found, and refused, by whoever writes the next record.
                payloads = payloads.get(record.payload_len..).unwrap_or_default();
                if record.ticket == ticket {
                    own = Some(result);
                } else {
                    log.done.push((record.ticket, result));
                }
            }
            records = rest;
        }
        batch.records.clear();
        batch.payloads.clear();
        batch.payloads.shrink_to(KEPT_BUFFER);
        log.spare = batch;
        own.unwrap_or_else(|| {
            // Whoever took the record did not come back: it may be in the log, and nobody was told.
            let lost = Error::io("write", &self.context.dir)(std::io::Error::other("a write did not return"));
            self.context.health.poison(&lost);
            Err(lost)
        })
    }

    /// A record was written, and nothing says where.
    #[cold]
    fn no_place(&self) -> Error {
        self.context.health.internal("a record in the log has no place there")
    }

    /// A record that says how far the log is durable, and nothing else.
    pub(super) fn write_watermark(
        &self,
        log: &mut Log,
        mut reservation: Reservation<'_>,
    ) -> Result<Appended> {
        let record = Pending::new(0, &mut reservation, 0, &[]);
        self.write_some(log, WATERMARK, &[record], &[]).1?.first().copied().ok_or_else(|| self.no_place())
    }

    /// Writes the first of `records`, and in the same call as many of those after it as fit into the write buffer
    /// and the segment. Returns how many it has dealt with, which is the same for all of them.
    fn write_some(
        &self,
        log: &mut Log,
        kind: u8,
        records: &[Pending],
        payloads: &[u8],
    ) -> (usize, Result<Group>) {
        if let Err(error) = self.context.health.check() {
            let reserved = records.iter().map(|record| record.reserved).sum();
            self.space.lock().release(reserved);
            return (records.len(), Err(error));
        }
        log.buffer.clear();
        let mut group = Group::new();
        let mut start = None;
        let mut payloads = payloads;
        for record in records {
            let len = record_len(record.payload_len);
            let place = {
                let mut space = self.space.lock();
                let gathered = log.buffer.len() as u64 + len;
                if start.is_some()
                    && (gathered > self.write_buffer.load(Ordering::Relaxed) || space.rotates_for(len))
                {
                    break;
                }
                space.place(record.reserved, len)
            };
            let Some(Place { offset, linked, rotated_to }) = place else {
                let why = "the log has no room for a granted write".into();
                return (1, Err(Error::WriteStalled { why }));
            };
            if let Some(segment) = rotated_to
                && let Some(full) = log.current.replace(segment)
                && self.unsynced()
            {
                log.unsynced.push(full);
            }
            let (offset_of_call, _) = *start.get_or_insert((offset, linked));
            let Some((payload, rest)) = payloads.split_at_checked(record.payload_len) else {
                let what = "the log has less of a record than was queued";
                return (1, Err(self.context.health.internal(what)));
            };
            payloads = rest;
            match self.encode(log, kind, record, payload, offset_of_call, linked) {
                Some(appended) => group.push(appended),
                None => return (1, Err(Error::Closed)), // only a closed log has no segment for a place
            }
        }
        let Some((offset, linked)) = start else { return (records.len(), Ok(group)) };
        let written = self.write_buffered(log, kind, offset, linked, &group);
        (group.len(), written.map(|()| group))
    }

    /// Gives a record its sequences and puts its bytes behind those of the call's others. `None` when there is no
    /// segment.
    fn encode(
        &self,
        log: &mut Log,
        kind: u8,
        record: &Pending,
        payload: &[u8],
        offset_of_call: u64,
        linked: bool,
    ) -> Option<Appended> {
        let first_seq = log.next_seq;
        log.next_seq = first_seq.saturating_add(u64::from(record.count));
        let Log { current: Some(segment), buffer, .. } = log else { return None };
        let at = |buffered: usize| Lsn::new(segment.generation, (offset_of_call + buffered as u64) as u32);
        let mut header = RecordHeader::new(LINK, at(buffer.len()), first_seq, self.synced(), 0, record.time);
        if !linked {
            header.encode(buffer, segment.salt, &encode_link(log.tail));
        }
        let lsn = at(buffer.len());
        (header.kind, header.lsn, header.count) = (kind, lsn, record.count);
        header.encode(buffer, segment.salt, payload);
        Some(Appended { lsn, end: at(buffer.len()), first_seq })
    }

    fn write_buffered(
        &self,
        log: &mut Log,
        kind: u8,
        offset: u64,
        linked: bool,
        group: &Group,
    ) -> Result<()> {
        let Log { current: Some(segment), buffer, .. } = log else { return Err(Error::Closed) };
        let written = if planted(Bug::BufferKept) {
            let (file, bytes) = (Arc::clone(&segment.file), buffer.clone());
            put_off(move || write_all_at(&*file, &bytes, offset))
        } else {
            write_all_at(&*segment.file, buffer, offset)
        };
        if let Err(error) = written {
            // Behind the last header there is nothing that could be taken for a record.
            let last = group.last().map_or(offset, |last| u64::from(last.lsn.offset()));
            let headers = if group.len() > 1 { last - offset } else { 0 } as usize + RECORD_HEADER;
            let error = self.undo(segment, offset, headers, error);
            self.space.lock().unplace(offset, linked);
            return Err(error);
        }
        if kind == BATCH {
            self.gathered.count(group.len(), buffer.len());
        }
        if buffer.capacity() > KEPT_BUFFER {
            *buffer = Vec::new();
        }
        log.at_watermark = kind == WATERMARK;
        if let Some(last) = group.last() {
            log.tail = last.end;
            self.tail.store(last.end.0, Ordering::Release);
        }
        Ok(())
    }

    /// After a failed write at `offset`: zeroes the bytes in which headers were, so that what was refused is not
    /// replayed. Zeroes in the system's memory alone would not be enough: what they replace may be on the disk already,
    /// and come back after a power cut. Returns the error for the callers.
    fn undo(&self, segment: &SegmentFile, offset: u64, headers: usize, cause: std::io::Error) -> Error {
        // Not past the end of the file: that would take new space, and nothing was written there.
        let undone = segment.file.len().and_then(|len| {
            let written = len.saturating_sub(offset).min(headers as u64) as usize;
            let written = if planted(Bug::RefusedWriteKept) { 0 } else { written };
            write_all_at(&*segment.file, &vec![0; written], offset)?;
            if written == 0 { Ok(()) } else { segment.file.sync() }
        });
        match undone {
            Ok(()) => write_error("write", &segment.path, cause),
            Err(_) => {
                // Not `DiskFull`, which heals.
                let error = Error::Io { op: "write", path: segment.path.clone(), source: cause };
                self.context.health.poison(&error);
                error
            }
        }
    }

    /// Totals of what was appended since open.
    pub(crate) fn writes(&self) -> LogWrites {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let Gathered { writes, records, bytes } = &self.gathered;
        LogWrites { writes: get(writes), records: get(records), bytes: get(bytes) }
    }
}

fn last_seq(appended: &Appended, count: u32) -> SeqNo {
    appended.first_seq + u64::from(count).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::testing::*;
    use super::super::{LogLimits, LogRules};
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::vfs::{CrashMode, Effect, Errno, FaultVfs, Op, Rule, StrictVfs};

    fn write_together(wal: &Wal, threads: u8, len: usize) -> Vec<Result<Appended>> {
        write_together_after(wal, threads, len, || {})
    }

    /// That many threads write one record each, of the same length, all while the log is locked; it is unlocked after
    /// `ready`.
    fn write_together_after(
        wal: &Wal,
        threads: u8,
        len: usize,
        ready: impl FnOnce(),
    ) -> Vec<Result<Appended>> {
        let seen = parking_lot::Mutex::new(Vec::new());
        let held = wal.log.lock();
        let results = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..threads)
                .map(|n| {
                    let reservation = reserve(wal, len).unwrap();
                    let (before, seen) = (wal.waiting.load(Ordering::Relaxed), &seen);
                    let writer = scope.spawn(move || {
                        wal.append(reservation, 2, &vec![n; len], |last| seen.lock().push(last))
                    });
                    while wal.waiting.load(Ordering::Relaxed) == before && !writer.is_finished() {
                        std::thread::yield_now();
                    }
                    writer
                })
                .collect();
            ready();
            drop(held);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        // In the order of the queue, which is that of the sequences.
        let last = |appended: &Appended| appended.first_seq + 1;
        assert_eq!(*seen.lock(), results.iter().flatten().map(last).collect::<Vec<_>>());
        results
    }

    fn limited(vfs: &TestVfs, segment_size: u64, write_buffer: u64) -> Wal {
        let wal = open(vfs, start(), segment_size);
        wal.set_limits(LogLimits { write_buffer, ..limits(segment_size) });
        wal
    }

    #[test]
    fn what_waits_together_is_written_in_as_few_calls_as_the_buffer_allows() {
        // A record of 100 bytes takes 152 in the log, and the first one 56 more for its link.
        for (write_buffer, calls) in
            [(1 << 20, 1), (8 * 152 + 56, 1), (8 * 152, 2), (400, 4), (152, 8), (64, 8)]
        {
            let vfs = TestVfs::default();
            let wal = limited(&vfs, 1 << 20, write_buffer);
            drop(reserve(&wal, 8 * 200).unwrap());
            let writes = vfs.plan.lock().writes;
            // Longer than the buffer, they wait for the lock one by one.
            let alone = write_buffer < 152;
            let results = match alone {
                true => (0..8u8).map(|n| append(&wal, &[n; 100])).collect(),
                false => write_together(&wal, 8, 100),
            };
            assert_eq!(vfs.plan.lock().writes - writes, calls, "calls with a buffer of {write_buffer}");
            let totals = LogWrites { writes: calls, records: 8, bytes: 8 * 152 + 56 };
            assert_eq!(wal.writes(), totals);
            let per_record = if alone { 1 } else { 2 };
            let expected: Vec<_> = (0..8u8).map(|n| (1 + per_record * u64::from(n), vec![n; 100])).collect();
            assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1, expected);
            for (result, (first_seq, _)) in results.into_iter().zip(expected) {
                assert_eq!(result.unwrap().first_seq, first_seq);
            }
        }
    }

    #[test]
    fn a_writer_alone_makes_one_call_a_record_whatever_the_buffer() {
        for write_buffer in [64, 1024, 1 << 20] {
            let vfs = TestVfs::default();
            let wal = limited(&vfs, 1 << 20, write_buffer);
            for n in 1..20u8 {
                append(&wal, &[n; 500]).unwrap();
                assert_eq!(wal.writes().writes, u64::from(n));
            }
        }
    }

    #[test]
    fn a_group_ends_with_its_segment() {
        let vfs = TestVfs::default();
        let wal = limited(&vfs, 1500, 1 << 20);
        append(&wal, &[9; 100]).unwrap();
        let results = write_together(&wal, 8, 100);
        let generations: Vec<_> = results.iter().flatten().map(|at| at.lsn.generation()).collect();
        assert!(generations[0] == 1 && generations[7] == 2 && generations.is_sorted(), "{generations:?}");
        assert_eq!(wal.writes().writes, 3);
        assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1.len(), 9);
    }

    #[test]
    fn a_failed_write_is_refused_to_the_whole_group_and_never_comes_back() {
        for taken in [0, 20, 60, 160, 300, 304, 310, 360, 700, 1000] {
            let vfs = TestVfs::default();
            // Without preallocation, so that the file ends where the write did.
            vfs.plan.lock().fail_allocate = (taken % 20 == 0).then_some(ErrorKind::Unsupported);
            let wal = limited(&vfs, 1 << 20, 1 << 20);
            append(&wal, &[7; 100]).unwrap();
            vfs.plan.lock().fail_write = Some((0, taken, ErrorKind::StorageFull));
            let results = write_together(&wal, 8, 100);
            assert!(results.iter().all(|result| matches!(result, Err(Error::DiskFull))), "{results:?}");
            assert_eq!((wal.writes().records, wal.unsynced()), (1, true));
            let mut expected = vec![(1, vec![7; 100])];
            assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1, expected, "{taken}");
            // Records of the same length end where refused ones began.
            for n in 0..10u8 {
                let appended = append(&wal, &[n; 100]).unwrap();
                assert_eq!(appended.first_seq, 18 + u64::from(n), "burnt sequences are given out again");
                expected.push((appended.first_seq, vec![n; 100]));
                assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1, expected, "{taken}");
            }
        }
    }

    /// Symptom: a write that was refused for want of space was there after a power cut. Cause: the zeroes over its
    /// records lay in the system's memory until the next sync, while the records, which the failed call had written
    /// whole, might be on the disk. Fix: the undo is synced before any error is returned.
    #[test]
    fn what_was_refused_does_not_come_back_with_a_power_cut() {
        let mut whole = 0;
        for seed in 0..200u64 {
            let strict = StrictVfs::new();
            let vfs = FaultVfs::new(Arc::new(strict.clone()));
            let wal = open_on(Arc::new(vfs.clone()), start(), 1 << 20);
            wal.set_limits(LogLimits { write_buffer: 1 << 20, ..limits(1 << 20) });
            append(&wal, &[7; 100]).unwrap();
            wal.sync().unwrap();
            // The first few records get there whole, then there is no space.
            let taken = 60 + (seed as usize * 37) % 500;
            vfs.add(Rule::new(Effect::Short(taken)).on(&[Op::Write]).nth(1));
            vfs.add(Rule::fail(Errno::NoSpace).on(&[Op::Write]).nth(2));
            let results = write_together(&wal, 4, 100);
            assert!(results.iter().all(|result| matches!(result, Err(Error::DiskFull))), "{results:?}");
            whole += u64::from(taken >= 152);
            for mode in [CrashMode::Strict, CrashMode::All, CrashMode::Random { seed }] {
                let image = strict.crash(mode);
                assert_eq!(recover(&image, &LogRules::default()).unwrap().1, [(1, vec![7; 100])], "{mode:?}");
            }
        }
        assert!(whole > 100);
    }

    #[test]
    fn power_cuts_keep_a_prefix_of_what_was_written_together() {
        let (mut lost, mut kept, mut refused) = (0, 0, 0);
        for seed in 0..60 {
            let (vfs, random) = (TestVfs::default(), ManualClock::new(seed));
            let mut manifest = Manifest::default();
            let (mut acknowledged, mut durable) = (Vec::<(SeqNo, Vec<u8>)>::new(), 0);
            for session in 0..4 {
                let (wal, batches) = manifest.recover(&vfs, 4000);
                wal.set_limits(LogLimits { write_buffer: 300 + random.random() % 3000, ..limits(4000) });
                assert_eq!(batches, acknowledged[..batches.len()], "seed {seed}, session {session}");
                assert!(batches.len() >= durable, "seed {seed}, session {session}");
                lost += acknowledged.len() - batches.len();
                acknowledged.truncate(batches.len());
                for _ in 0..random.random() % 6 {
                    let len = random.random() as usize % 200;
                    let fails = random.random() % 4 == 0;
                    let (taken, after) = (random.random() as usize % 900, random.random() as u32 % 3);
                    let fail = || {
                        if fails {
                            vfs.plan.lock().fail_write = Some((after, taken, ErrorKind::StorageFull));
                        }
                    };
                    let results = write_together_after(&wal, 1 + random.random() as u8 % 6, len, fail);
                    for (n, result) in (0u8..).zip(results) {
                        match result {
                            Ok(appended) => acknowledged.push((appended.first_seq, vec![n; len])),
                            Err(error) => {
                                assert!(matches!(error, Error::DiskFull), "{error}");
                                refused += 1;
                            }
                        }
                    }
                    vfs.plan.lock().fail_write = None;
                    if random.random() % 5 == 0 {
                        wal.sync().unwrap();
                        durable = acknowledged.len();
                    }
                }
                durable = durable.min(acknowledged.len());
                kept += acknowledged.len();
                power_cut(&vfs, wal.synced(), &random);
            }
        }
        assert!(lost > 50 && kept > 500 && refused > 50, "lost {lost}, kept {kept}, refused {refused}");
    }

    #[test]
    fn a_group_that_cannot_be_undone_poisons_and_all_its_writers_hear_of_it() {
        let vfs = TestVfs::default();
        let wal = limited(&vfs, 1 << 20, 1 << 20);
        append(&wal, b"kept").unwrap();
        {
            let mut plan = vfs.plan.lock();
            plan.fail_write = Some((0, 200, ErrorKind::Other));
            plan.keep_failing = true;
        }
        let results = write_together(&wal, 5, 100);
        assert!(
            results.iter().all(|result| matches!(result, Err(Error::Io { op: "write", .. }))),
            "{results:?}"
        );
        vfs.plan.lock().fail_write = None;
        assert!(matches!(append(&wal, b"b"), Err(Error::Poisoned { .. })));
    }
}
