//! Appending: records that wait for the log lock at the same time are written in one call.
//!
//! A writer that finds the log lock free writes its own record only. Otherwise it adds the record to the queue and
//! waits for the lock. The first writer to get it takes the whole queue and writes it in order, with as many records
//! per call as the write buffer and the segment allow. The others find their results when they get the lock in turn. A
//! writer holds the locks of its stripes meanwhile, so a queue never has two records of one stripe.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use crate::coding::part;
use crate::error::{Error, Result};
use crate::paths;
use crate::planted::{Bug, planted, put_off};
use crate::types::{Lsn, SeqNo};
use crate::vfs::write_all_at;

use super::WalContext;
use super::buffer::LogBuffer;
use super::format::{BATCH, LINK, LINK_LEN, RECORD_HEADER, RecordHeader, WATERMARK, encode_link, record_len};
use super::segments::{RecordPlace, Reservation, SegmentFile, write_error};
use super::writer::Wal;

/// Buffers up to this size are kept for the next records.
const KEPT_BUFFER: usize = 1 << 20;

/// State guarded by the log lock.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) current: Option<Arc<SegmentFile>>,
    buffer: Option<LogBuffer>,
    /// Segments before the current one with unsynced bytes, oldest first.
    pub(super) unsynced: Vec<Arc<SegmentFile>>,
    pub(super) tail: Lsn,
    pub(super) next_seq: SeqNo,
    /// Whether nothing was appended since the last watermark record, or since the log was opened.
    pub(super) at_watermark: bool,
    /// Empty between calls; kept to reuse its memory.
    frames: Frames,
    /// Results of records that another writer wrote, until their own writers collect them.
    done: Vec<(u64, Result<Appended>)>,
}

impl Log {
    pub(super) fn new(tail: Lsn, next_seq: SeqNo) -> Self {
        Self {
            current: None,
            buffer: None,
            unsynced: Vec::new(),
            tail,
            next_seq,
            at_watermark: true,
            frames: Frames::default(),
            done: Vec::new(),
        }
    }

    /// Writes to its segment what only the buffer has. Returns whether there was anything.
    pub(super) fn flush_buffer(&mut self) -> io::Result<bool> {
        self.buffer.as_mut().map_or(Ok(false), LogBuffer::flush)
    }

    /// Gives up the buffer, which must be flushed. Returns whether there was one.
    pub(super) fn drop_buffer(&mut self) -> bool {
        self.buffer.take().is_some()
    }
}

/// The way of a record to its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// By a write call, which can fail and is then undone: for records that are about to be synced.
    Direct,
    /// Through the log buffer, if there is one and the record fits.
    Buffered,
}

/// The position of an appended record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) lsn: Lsn,
    /// The end of the record: the position to sync to.
    pub(crate) end: Lsn,
    pub(crate) first_seq: SeqNo,
}

/// The records of one write call. Nearly always a single one: a larger inline capacity would cost every write its
/// copying.
type AppendedGroup = SmallVec<[Appended; 1]>;

/// The payload of a log record. It is encoded only once, directly into the buffer of the write call.
pub(crate) trait Payload {
    /// The number of bytes that [`Payload::encode`] appends.
    fn encoded_len(&self) -> usize;
    fn encode(&self, out: &mut Vec<u8>);
}

impl<T: AsRef<[u8]> + ?Sized> Payload for T {
    fn encoded_len(&self) -> usize {
        self.as_ref().len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_ref());
    }
}

/// A record that has no position yet.
#[derive(Debug)]
struct PendingRecord {
    ticket: u64,
    reserved: u64,
    time: u32,
    count: u32,
    payload_len: usize,
    route: Route,
    /// Its start within the bytes of its [`Frames`].
    at: usize,
}

impl PendingRecord {
    fn len(&self) -> u64 {
        record_len(self.payload_len)
    }
}

/// Records in order, complete except for their headers, which are filled in when their positions are known. Each is
/// preceded by at least [`LINK_LEN`] bytes, which its segment's link may overwrite if the record comes first in a write
/// call.
#[derive(Debug, Default)]
struct Frames {
    records: Vec<PendingRecord>,
    bytes: Vec<u8>,
}

impl Frames {
    /// Adds a record. `None`, with nothing added, if the payload's actual length differs from its stated length.
    fn push(
        &mut self,
        ticket: u64,
        reservation: &mut Reservation<'_>,
        count: u32,
        payload: &(impl Payload + ?Sized),
        route: Route,
    ) -> Option<()> {
        if self.bytes.is_empty() {
            self.bytes.resize(LINK_LEN as usize, 0);
        }
        let at = self.bytes.len();
        let payload_at = at + RECORD_HEADER;
        let payload_len = payload.encoded_len();
        self.bytes.reserve(record_len(payload_len) as usize);
        self.bytes.resize(payload_at, 0);
        payload.encode(&mut self.bytes);
        if self.bytes.len() != payload_at + payload_len {
            self.bytes.truncate(at);
            return None;
        }
        self.bytes.resize(at + record_len(payload_len) as usize, 0);
        let (time, reserved) = (reservation.time, reservation.take());
        self.records.push(PendingRecord { ticket, reserved, time, count, payload_len, route, at });
        Some(())
    }

    fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BUFFER);
    }
}

/// One write call: the range of the frames it writes, and the destination.
#[derive(Debug)]
struct WriteCall {
    /// Offset in the segment.
    offset: u64,
    /// Whether the segment already has its link; otherwise this call starts with it.
    linked: bool,
    /// Direct, if any of its records has to be.
    route: Route,
    from: usize,
    to: usize,
}

impl WriteCall {
    fn new(first: &PendingRecord, offset: u64, linked: bool) -> Self {
        let from = if linked { first.at } else { first.at - LINK_LEN as usize };
        Self { offset, linked, route: Route::Buffered, from, to: from }
    }

    /// The length of the call if it includes this record.
    fn len_with(&self, record: &PendingRecord) -> u64 {
        (record.at - self.from) as u64 + record.len()
    }
}

/// Records that wait for the log lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    last_ticket: u64,
    frames: Frames,
}

/// Totals since open; written under the log lock only.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    writes: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Gathered {
    pub(super) fn count(&self, writes: u64, records: usize, bytes: usize) {
        let add = |total: &AtomicU64, more: u64| {
            total.store(total.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        };
        add(&self.writes, writes);
        add(&self.records, records as u64);
        add(&self.bytes, bytes as u64);
    }
}

/// Totals of log writes since open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogWrites {
    /// Write calls for records.
    pub(crate) writes: u64,
    pub(crate) records: u64,
    /// Bytes of records, including the links between segments.
    pub(crate) bytes: u64,
}

impl Wal {
    /// Appends a batch of `count` operations. If this fails, nothing was written, but the sequences are used up.
    /// `appended` is called with the last sequence while the log is locked, in order of sequences. It may run on
    /// another writer's thread, and that writer's closure may be called instead, so all closures must do the same.
    pub(crate) fn append(
        &self,
        mut reservation: Reservation<'_>,
        count: u32,
        payload: &(impl Payload + ?Sized),
        route: Route,
        appended: impl Fn(SeqNo),
    ) -> Result<Appended> {
        let payload_len = payload.encoded_len();
        let len = record_len(payload_len);
        if len > reservation.len {
            let max = reservation.len as usize - RECORD_HEADER;
            return Err(Error::BatchTooLarge { len: payload_len, max });
        }
        let free = if self.waiting.load(Ordering::Relaxed) == 0 { self.log.try_lock() } else { None };
        let mut log = match free {
            Some(log) => log,
            None if len > self.write_buffer.load(Ordering::Relaxed) => self.log.lock(),
            None => return self.append_in_group(reservation, count, payload, route, appended),
        };
        let appended_at = self.append_alone(&mut log, BATCH, &mut reservation, count, payload, route)?;
        appended(last_seq(&appended_at, count));
        Ok(appended_at)
    }

    /// Writes one record in a call of its own.
    fn append_alone(
        &self,
        log: &mut Log,
        kind: u8,
        reservation: &mut Reservation<'_>,
        count: u32,
        payload: &(impl Payload + ?Sized),
        route: Route,
    ) -> Result<Appended> {
        let mut frames = std::mem::take(&mut log.frames);
        let appended = match frames.push(0, reservation, count, payload, route) {
            Some(()) => self.write_some(log, kind, &mut frames, 0).1,
            None => Err(self.wrong_length()),
        };
        frames.clear();
        log.frames = frames;
        appended?.first().copied().ok_or_else(|| self.no_place())
    }

    fn append_in_group(
        &self,
        mut reservation: Reservation<'_>,
        count: u32,
        payload: &(impl Payload + ?Sized),
        route: Route,
        appended: impl Fn(SeqNo),
    ) -> Result<Appended> {
        let ticket = {
            let mut queue = self.queue.lock();
            queue.last_ticket += 1;
            let ticket = queue.last_ticket;
            let pushed = queue.frames.push(ticket, &mut reservation, count, payload, route);
            pushed.ok_or_else(|| self.wrong_length())?;
            self.waiting.store(queue.frames.records.len(), Ordering::Relaxed);
            ticket
        };
        let mut log = self.log.lock();
        if let Some(at) = log.done.iter().position(|(done, _)| *done == ticket) {
            return log.done.swap_remove(at).1;
        }
        self.write_queue(&mut log, ticket, appended)
    }

    /// Writes all queued records. Returns the result of the record with this ticket.
    fn write_queue(&self, log: &mut Log, ticket: u64, appended: impl Fn(SeqNo)) -> Result<Appended> {
        let mut frames = std::mem::take(&mut log.frames);
        {
            let mut queue = self.queue.lock();
            std::mem::swap(&mut queue.frames, &mut frames);
            self.waiting.store(0, Ordering::Relaxed);
        }
        let (mut own, mut first) = (None, 0);
        while first < frames.records.len() {
            let (count, group) = self.write_some(log, BATCH, &mut frames, first);
            let dealt_with = frames.records.iter().skip(first).take(count.max(1));
            for (i, record) in dealt_with.enumerate() {
                let result = match &group {
                    Ok(group) => group.get(i).copied().ok_or_else(|| self.no_place()),
                    Err(error) => Err(error.repeated()),
                };
                if let Ok(place) = &result {
                    appended(last_seq(place, record.count));
                }
                if record.ticket == ticket {
                    own = Some(result);
                } else {
                    log.done.push((record.ticket, result));
                }
            }
            first += count.max(1);
        }
        frames.clear();
        log.frames = frames;
        own.unwrap_or_else(|| {
            // The writer that took the record did not return: the record may be in the log without its own writer
            // knowing.
            let lost = Error::io("write", &self.context.dir)(std::io::Error::other("a write did not return"));
            self.context.health.poison(&lost);
            Err(lost)
        })
    }

    /// Reports that a payload had the wrong length. Nothing of the record is in the log.
    #[cold]
    fn wrong_length(&self) -> Error {
        self.context.health.internal("the payload of a log record does not have its stated length")
    }

    /// Reports that a record was written but its position is unknown.
    #[cold]
    fn no_place(&self) -> Error {
        self.context.health.internal("a log record was written at an unknown position")
    }

    /// Writes a watermark record: it only states how far the log is durable.
    pub(super) fn write_watermark(
        &self,
        log: &mut Log,
        mut reservation: Reservation<'_>,
    ) -> Result<Appended> {
        self.append_alone(log, WATERMARK, &mut reservation, 0, &[], Route::Direct)
    }

    /// Writes the records of `frames` from number `first` on, as many in one call as fit into the write buffer and the
    /// segment. Returns the number of records handled, and their common result.
    fn write_some(
        &self,
        log: &mut Log,
        kind: u8,
        frames: &mut Frames,
        first: usize,
    ) -> (usize, Result<AppendedGroup>) {
        let Frames { records, bytes } = frames;
        let records = records.get(first..).unwrap_or_default();
        if let Err(error) = self.context.health.check() {
            let reserved = records.iter().map(|record| record.reserved).sum();
            self.space.lock().release(reserved);
            return (records.len(), Err(error));
        }
        let mut group = AppendedGroup::new();
        let mut call: Option<WriteCall> = None;
        for record in records {
            let place = {
                let mut space = self.space.lock();
                if let Some(call) = &call
                    && (call.len_with(record) > self.write_buffer.load(Ordering::Relaxed)
                        || space.rotates_for(record.len()))
                {
                    break;
                }
                space.place(record.reserved, record.len())
            };
            let Some(RecordPlace { offset, linked, rotated_to }) = place else {
                let why = "the log has no space for a write with a reservation".into();
                return (1, Err(Error::WriteStalled { why }));
            };
            if let Some(segment) = rotated_to
                && let Some(full) = log.current.replace(segment)
                && self.unsynced()
            {
                log.unsynced.push(full);
            }
            if call.is_none()
                && !linked
                && let Err(error) = self.link(log, record, offset, bytes)
            {
                return (1, Err(error));
            }
            let call = call.get_or_insert_with(|| WriteCall::new(record, offset, linked));
            if record.route == Route::Direct {
                call.route = Route::Direct;
            }
            match self.seal(log, kind, record, call, bytes) {
                Ok(appended) => group.push(appended),
                Err(error) => return (1, Err(error)),
            }
        }
        let Some(call) = call else { return (records.len(), Ok(group)) };
        let written = self.write(log, kind, bytes, &call, &group);
        (group.len(), written.map(|()| group))
    }

    /// Places the link that starts a segment, at `offset` there, directly before the segment's first record. The bytes
    /// it overwrites in the frames belong to records already written, or are reserved for this.
    fn link(&self, log: &Log, first: &PendingRecord, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let segment = log.current.as_ref().ok_or(Error::Closed)?; // only a closed log has none
        let at = Lsn::new(segment.generation, offset as u32);
        let header = RecordHeader::new(LINK, at, log.next_seq, self.synced(), 0, first.time);
        let mut link = Vec::with_capacity(LINK_LEN as usize);
        header.encode(&mut link, segment.salt, &encode_link(log.tail));
        let place = bytes.get_mut(first.at - link.len()..first.at).ok_or_else(|| self.outside())?;
        place.copy_from_slice(&link);
        Ok(())
    }

    /// Assigns the record its sequences and position, and fills in its header.
    fn seal(
        &self,
        log: &mut Log,
        kind: u8,
        record: &PendingRecord,
        call: &mut WriteCall,
        bytes: &mut [u8],
    ) -> Result<Appended> {
        let first_seq = log.next_seq;
        log.next_seq = first_seq.saturating_add(u64::from(record.count));
        let segment = log.current.as_ref().ok_or(Error::Closed)?; // only a closed log has none
        let at = |byte: usize| Lsn::new(segment.generation, (call.offset + (byte - call.from) as u64) as u32);
        let end_at = record.at + record.len() as usize;
        let (lsn, end) = (at(record.at), at(end_at));
        let header = RecordHeader::new(kind, lsn, first_seq, self.synced(), record.count, record.time);
        let bytes = bytes.get_mut(record.at..end_at).ok_or_else(|| self.outside())?;
        header.seal(bytes, segment.salt, record.payload_len);
        call.to = end_at;
        Ok(Appended { lsn, end, first_seq })
    }

    /// Nothing of that record is in the log.
    #[cold]
    fn outside(&self) -> Error {
        self.context.health.internal("a record for the log lies outside of the bytes made for it")
    }

    fn write(
        &self,
        log: &mut Log,
        kind: u8,
        bytes: &[u8],
        call: &WriteCall,
        group: &AppendedGroup,
    ) -> Result<()> {
        let Some(segment) = log.current.clone() else { return Err(Error::Closed) };
        let bytes = part(bytes, call.from..call.to);
        let buffered = call.route == Route::Buffered;
        let buffer = log.buffer.as_mut().filter(|buffer| buffered && bytes.len() as u64 <= buffer.size());
        let written = if let Some(buffer) = buffer {
            let (generation, file) = (segment.generation, &segment.file);
            buffer.store((generation, file), call.offset, bytes).map(u64::from)
        } else if planted(Bug::BufferKept) {
            let (file, bytes, offset) = (Arc::clone(&segment.file), bytes.to_vec(), call.offset);
            put_off(move || write_all_at(&*file, &bytes, offset)).map(|()| 1)
        } else {
            let flushed = log.flush_buffer();
            flushed.and_then(|flushed| {
                write_all_at(&*segment.file, bytes, call.offset)?;
                Ok(u64::from(flushed) + 1)
            })
        };
        let writes = match written {
            Ok(writes) => writes,
            Err(error) => {
                // Nothing after the last header could be taken for a record.
                let last = group.last().map_or(call.offset, |last| u64::from(last.lsn.offset()));
                let headers = if group.len() > 1 { last - call.offset } else { 0 } as usize + RECORD_HEADER;
                let error = self.undo(&segment, call.offset, headers, error);
                self.space.lock().unplace(call.offset, call.linked);
                return Err(error);
            }
        };
        if kind == BATCH {
            self.gathered.count(writes, group.len(), bytes.len());
        }
        log.at_watermark = kind == WATERMARK;
        if let Some(last) = group.last() {
            log.tail = last.end;
            self.tail.store(last.end.0, Ordering::Release);
        }
        Ok(())
    }

    /// Gives the log a buffer of the size set, or none; no-op if it has that already. Where that fails, every record is
    /// written by a call of its own until the next attempt, which is slower and no less safe.
    pub(super) fn fit_buffer(&self) {
        let size = self.buffer_size.load(Ordering::Relaxed);
        if size == self.buffer_made.load(Ordering::Relaxed) {
            return;
        }
        let mut log = self.log.lock();
        // A failure to empty the old one is that of a write, which the next record will report if it has not passed.
        if log.flush_buffer().is_err() {
            return;
        }
        let had = log.drop_buffer();
        let WalContext { vfs, dir, .. } = &self.context;
        if size > 0 {
            log.buffer = LogBuffer::create(&**vfs, dir, size).ok();
        } else if had {
            // If it stays, it does no harm: its records are in their segment.
            let _ = vfs.remove(&paths::log_buffer(dir));
        }
        self.buffer_made.store(log.buffer.as_ref().map_or(0, LogBuffer::size), Ordering::Relaxed);
    }

    /// After a failed write at `offset`, durably zeroes the bytes that held headers, so that the refused records are
    /// not replayed. Zeros in the page cache alone would not suffice: the headers may already be on disk and reappear
    /// after a power cut. Returns the error for the callers.
    fn undo(&self, segment: &SegmentFile, offset: u64, headers: usize, cause: std::io::Error) -> Error {
        // Not past the end of the file: nothing was written there, and zeros would take new space.
        let undone = segment.file.len().and_then(|len| {
            let written = len.saturating_sub(offset).min(headers as u64) as usize;
            let written = if planted(Bug::RefusedWriteKept) { 0 } else { written };
            write_all_at(&*segment.file, &vec![0; written], offset)?;
            if written == 0 { Ok(()) } else { segment.file.sync() }
        });
        match undone {
            Ok(()) => write_error("write", &segment.path, cause),
            Err(_) => {
                // Not `DiskFull`, which is recoverable.
                let error = Error::Io { op: "write", path: segment.path.clone(), source: cause };
                self.context.health.poison(&error);
                error
            }
        }
    }

    /// Returns totals of the records appended since open.
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
    use crate::error::testing::returning_internal_errors;
    use crate::vfs::{CrashMode, Effect, Errno, FaultVfs, Op, Rule, StrictVfs};

    fn write_together(wal: &Wal, threads: u8, len: usize) -> Vec<Result<Appended>> {
        write_together_after(wal, threads, len, || {})
    }

    /// Lets `threads` threads write one record of `len` bytes each while the log is locked, and unlocks it after
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
                        wal.append(reservation, 2, &vec![n; len], Route::Buffered, |last| {
                            seen.lock().push(last)
                        })
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
        // In queue order, which is sequence order.
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
        // A record of 100 bytes takes 152 in the log; the first one takes 56 more for its link.
        for (write_buffer, calls) in
            [(1 << 20, 1), (8 * 152 + 56, 1), (8 * 152, 2), (400, 4), (152, 8), (64, 8)]
        {
            let vfs = TestVfs::default();
            let wal = limited(&vfs, 1 << 20, write_buffer);
            drop(reserve(&wal, 8 * 200).unwrap());
            let writes = vfs.plan.lock().writes;
            // Records longer than the buffer wait for the lock one at a time.
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

    /// A payload that is longer than it states.
    struct Longer;

    impl Payload for Longer {
        fn encoded_len(&self) -> usize {
            8
        }

        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&[1; 9]);
        }
    }

    #[test]
    fn a_payload_of_another_length_than_its_room_poisons_and_is_not_written() {
        for in_group in [false, true] {
            let vfs = TestVfs::default();
            let wal = limited(&vfs, 1 << 20, 1 << 20);
            append(&wal, b"kept").unwrap();
            let before = wal.tail();
            let reservation = reserve(&wal, 8).unwrap();
            let held = in_group.then(|| wal.log.lock());
            let refused =
                returning_internal_errors(|| wal.append(reservation, 1, &Longer, Route::Buffered, |_| ()));
            assert_eq!(refused.unwrap_err().code(), "internal");
            drop(held);
            assert!(matches!(append(&wal, b"later"), Err(Error::Poisoned { .. })));
            assert_eq!(wal.tail(), before);
            assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1, [(1, b"kept".to_vec())]);
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
            // Records of the same length end where refused ones started.
            for n in 0..10u8 {
                let appended = append(&wal, &[n; 100]).unwrap();
                assert_eq!(appended.first_seq, 18 + u64::from(n), "a used-up sequence was assigned again");
                expected.push((appended.first_seq, vec![n; 100]));
                assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1, expected, "{taken}");
            }
        }
    }

    /// Symptom: a write refused for lack of space was there again after a power cut. Cause: the zeros over its
    /// records stayed in the page cache until the next sync, while the records, which the failed call had written
    /// completely, could already be on disk. Fix: the undo is synced before any error is returned.
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
            // The first few records are written completely, then the disk is full.
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
