//! The log buffer: the newest bytes of the log, in a small file that is mapped into memory, `wal.buffer`.
//!
//! A write call costs as much as everything else in an append. A record that need not be on disk yet is therefore only
//! copied into the buffer, and one call writes many of them to their segment: when the buffer is full, and before
//! anything that relies on the segment (a sync, the next segment, a record that is written directly). The pages belong
//! to the file, not to the process, so a record is as safe from the death of the process as one written by a call.
//!
//! The file has no header. From its start on it holds neighbouring records of one segment, exactly as they are there;
//! each names its position, and the salt in its checksums its segment. A reader takes them up to the first that does not
//! continue the one before, and reads the segment as if they had been written to it ([`BufferedTail`]).
//!
//! Invariants:
//! * Bytes are overwritten only after they were written to their segment.
//! * Whatever is in the buffer is part of the log: a refused record never gets there. So it does no harm that the file
//!   also holds records that are in the segment already, or in a dead one.
//! * A segment is never left with bytes that only the buffer has: not by the next one, and not by a clean close.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::paths::{self, FileName};
use crate::planted::{Bug, planted};
use crate::types::Lsn;
use crate::vfs::{DirEntry, Mapping, OpenMode, SharedBytes, Vfs, VfsFile, read_full_at, write_all_at};

use super::format::{LSN_FIELD, RECORD_HEADER, RecordHeader, SegmentHeader};

/// The maximum size of the buffer.
pub(crate) const MAX_BUFFER: u64 = 16 << 20;
/// A segment is at least this many times as long as the buffer.
const OF_SEGMENT: u64 = 8;
/// The unit of the buffer's size, and its least size.
const UNIT: u64 = 512;

/// The size of the buffer of a log with such segments, given the size set; 0 for none.
pub(super) fn buffer_size(set: u64, segment_size: u64) -> u64 {
    let most = set.min(segment_size / OF_SEGMENT).min(MAX_BUFFER);
    most - most % UNIT
}

/// The buffer of an open log.
#[derive(Debug)]
pub(super) struct LogBuffer {
    bytes: Box<dyn SharedBytes>,
    /// The segment that the bytes belong to: its generation, and its file.
    segment: Option<(u32, Arc<dyn VfsFile>)>,
    /// Offset in the segment of the buffer's first byte.
    start: u64,
    len: usize,
    /// Bytes of `len` that are in the segment.
    written: usize,
}

impl LogBuffer {
    /// Creates the file, or takes over what an earlier process left: its records are in the segments.
    pub(super) fn create(vfs: &dyn Vfs, dir: &Path, size: u64) -> io::Result<Self> {
        let path = paths::log_buffer(dir);
        let file = vfs.open(&path, OpenMode::Truncate)?;
        // Written, not only reserved: a page that has no place on disk yet could find none when it is stored to.
        let mapped = write_all_at(&*file, &vec![0; size as usize], 0).and_then(|()| file.share(size));
        match mapped {
            Ok(bytes) => Ok(Self { bytes, segment: None, start: 0, len: 0, written: 0 }),
            Err(error) => {
                let _ = vfs.remove(&path); // nothing is in it, and the next buffer takes its name
                Err(error)
            }
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Copies records, not more than the buffer's size, that belong at `offset` of the segment. Returns whether that
    /// took a write call. If that fails, nothing is copied, and what the buffer holds is still to be written.
    pub(super) fn store(
        &mut self,
        (generation, file): (u32, &Arc<dyn VfsFile>),
        offset: u64,
        records: &[u8],
    ) -> io::Result<bool> {
        let same = self.segment.as_ref().is_some_and(|(own, _)| *own == generation);
        let follows = same && self.start + self.len as u64 == offset;
        let fits = self.len + records.len() <= self.bytes.len();
        let mut called = false;
        if !follows || !fits {
            called = self.flush()?;
            self.segment = Some((generation, Arc::clone(file)));
            (self.start, self.len, self.written) = (offset, 0, 0);
        }
        self.bytes.store(self.len, records);
        self.len += records.len();
        Ok(called)
    }

    /// Writes to the segment what only the buffer has. Returns whether there was anything.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some((_, segment)) = self.segment.as_ref().filter(|_| self.written < self.len) else {
            return Ok(false);
        };
        let pending = self.bytes.bytes().get(self.written..self.len).unwrap_or_default();
        write_all_at(&**segment, pending, self.start + self.written as u64)?;
        self.written = self.len;
        Ok(true)
    }
}

/// The log buffer in a listing of its directory. Nothing but a regular file is one.
pub(super) fn buffer_in(listing: &[DirEntry]) -> Option<&DirEntry> {
    listing.iter().find(|entry| entry.is_file && matches!(paths::parse(&entry.name), FileName::LogBuffer))
}

/// Reads the log buffer of a directory that was listed; nothing if there is none.
pub(super) fn read_buffer(vfs: &dyn Vfs, dir: &Path, listing: &[DirEntry]) -> Result<Vec<u8>> {
    let Some(entry) = buffer_in(listing).filter(|_| !planted(Bug::LogBufferForgotten)) else {
        return Ok(Vec::new());
    };
    let path = dir.join(&entry.name);
    let file = match vfs.open(&path, OpenMode::Read) {
        // A database that is open elsewhere was closed meanwhile: everything is in its segments.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(Error::io("open", &path))?,
    };
    let len = file.len().map_err(Error::io("read", &path))?.min(MAX_BUFFER);
    let mut bytes = vec![0; len as usize];
    let read = read_full_at(&*file, &mut bytes, 0).map_err(Error::io("read", &path))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Records from the log buffer, which the file of their segment may lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BufferedTail {
    /// Offset in the segment.
    start: u64,
    bytes: Vec<u8>,
}

impl BufferedTail {
    /// The records in the buffer that belong to this segment.
    pub(super) fn of(buffer: &[u8], segment: &SegmentHeader) -> Option<Arc<Self>> {
        let first = buffer.get(LSN_FIELD as usize..)?.first_chunk::<8>()?;
        let first = Lsn(u64::from_le_bytes(*first));
        if first.generation() != segment.generation {
            return None;
        }
        let (mut next, mut len) = (first, 0);
        while let Some(rest) = buffer.get(len..).filter(|rest| rest.len() >= RECORD_HEADER) {
            let Some(header) = RecordHeader::decode(rest, segment.salt, next) else { break };
            let record = rest.get(..header.record_len() as usize);
            if record.and_then(|record| header.payload(segment.salt, record)).is_none() {
                break;
            }
            len += header.record_len() as usize;
            let Ok(end) = u32::try_from(u64::from(first.offset()) + len as u64) else { break };
            next = Lsn::new(segment.generation, end);
        }
        let bytes = buffer.get(..len).filter(|bytes| !bytes.is_empty())?.to_vec();
        Some(Arc::new(Self { start: first.offset().into(), bytes }))
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Completes what was read from the file at `offset`: puts these bytes over it, after zeros where the file ends before
    /// them. Returns the number of bytes in `buf` then.
    pub(super) fn complete(&self, buf: &mut [u8], offset: u64, read: usize) -> usize {
        let known = self.end().saturating_sub(offset).min(buf.len() as u64) as usize;
        if let Some(gap) = buf.get_mut(read..known) {
            gap.fill(0);
        }
        let at = self.start.saturating_sub(offset).min(known as u64) as usize;
        let own = self.bytes.get(offset.saturating_sub(self.start).min(self.bytes.len() as u64) as usize..);
        for (into, own) in buf.get_mut(at..known).into_iter().flatten().zip(own.into_iter().flatten()) {
            *into = *own;
        }
        read.max(known)
    }
}

/// Opens a segment for reading as it is with the records from the buffer.
pub(crate) fn open_with(
    vfs: &dyn Vfs,
    path: &Path,
    tail: Option<&Arc<BufferedTail>>,
) -> io::Result<Arc<dyn VfsFile>> {
    let file = vfs.open(path, OpenMode::Read)?;
    Ok(match tail {
        Some(tail) => Arc::new(Completed { file, tail: Arc::clone(tail) }),
        None => file,
    })
}

/// A segment with the records from the buffer. Read-only.
#[derive(Debug)]
struct Completed {
    file: Arc<dyn VfsFile>,
    tail: Arc<BufferedTail>,
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::PermissionDenied.into())
}

impl VfsFile for Completed {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // All of it, since the end of a short read is not the end of the file.
        let read = read_full_at(&*self.file, buf, offset)?;
        Ok(self.tail.complete(buf, offset, read))
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<usize> {
        read_only()
    }

    fn sync(&self) -> io::Result<()> {
        read_only()
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        read_only()
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        read_only()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.len()?.max(self.tail.end()))
    }

    fn map(&self, _len: u64) -> io::Result<Mapping> {
        read_only()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::testing::*;
    use super::super::{LogLimits, LogRules, Route, Wal, WalStart};
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::vfs::Floor;

    const SIZE: u64 = 1024;

    fn open_buffered(vfs: &TestVfs, start: WalStart, segment_size: u64) -> Wal {
        let wal = open(vfs, start, segment_size);
        wal.set_limits(LogLimits { buffer: SIZE, ..limits(segment_size) });
        wal
    }

    fn put(wal: &Wal, payload: &[u8], route: Route) -> Result<u64> {
        let reservation = reserve(wal, payload.len())?;
        wal.append(reservation, 1, payload, route, |_| ()).map(|appended| appended.first_seq)
    }

    fn all(vfs: &TestVfs) -> Batches {
        recover(vfs, &LogRules::default()).unwrap().1
    }

    fn without_buffer(vfs: &TestVfs) -> Batches {
        let path = paths::log_buffer(dir());
        if vfs.kind(&path).unwrap().is_none() {
            return all(vfs);
        }
        let bytes = vfs.read(&path);
        vfs.overwrite(&path, &[]);
        let batches = all(vfs);
        vfs.overwrite(&path, &bytes);
        batches
    }

    #[test]
    fn one_call_writes_many_records_and_none_is_lost_with_the_process() {
        for segment_size in [8 * SIZE, 1 << 20] {
            let (vfs, random) = (TestVfs::default(), ManualClock::new(segment_size));
            let wal = open_buffered(&vfs, start(), segment_size);
            let (mut expected, mut only_in_buffer) = (Vec::new(), 0);
            for n in 0..400u32 {
                let payload = vec![n as u8; (random.random() % 150) as usize];
                let route = if random.random().is_multiple_of(20) { Route::Direct } else { Route::Buffered };
                expected.push((put(&wal, &payload, route).unwrap(), payload));
                if random.random().is_multiple_of(30) {
                    wal.sync().unwrap();
                    assert_eq!(without_buffer(&vfs), expected, "a sync covers all records before it");
                }
                // The process ends here, and another one reads the files.
                assert_eq!(all(&vfs), expected, "segments of {segment_size}, record {n}");
                only_in_buffer += expected.len() - without_buffer(&vfs).len();
            }
            let writes = wal.writes();
            assert_eq!(
                (writes.records, wal.tail()),
                (400, recover(&vfs, &LogRules::default()).unwrap().0.end)
            );
            assert!(writes.writes < 150, "{} calls", writes.writes);
            assert!(only_in_buffer > 400, "{only_in_buffer}");
            assert!(segment_size > 8 * SIZE || wal.segment_count() > 5);
            wal.close().unwrap();
            assert!(
                vfs.kind(&paths::log_buffer(dir())).unwrap().is_none(),
                "a clean close removes the buffer"
            );
            assert_eq!(all(&vfs), expected);
        }
    }

    #[test]
    fn power_cuts_keep_a_prefix_with_all_that_was_synced() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..200 {
            let (vfs, random) = (TestVfs::default(), ManualClock::new(seed));
            let mut manifest = Manifest::default();
            let mut acked: Vec<(Lsn, u64, Vec<u8>)> = Vec::new();
            let mut durable = 0;
            for session in 0..5 {
                let (wal, batches) = manifest.recover(&vfs, 8 * SIZE);
                wal.set_limits(LogLimits { buffer: SIZE, ..limits(8 * SIZE) });
                let at = format!("seed {seed}, session {session}");
                let found: Vec<_> =
                    acked.iter().map(|(_, seq, p)| (*seq, p.clone())).take(batches.len()).collect();
                assert_eq!(batches, found, "{at}");
                assert!(batches.len() >= durable, "{at}");
                assert_eq!(without_tail(&vfs, &manifest), batches, "{at}: the tail was not written back");
                let end = wal.tail();
                lost += acked.iter().filter(|(lsn, ..)| *lsn >= end).count();
                acked.retain(|(lsn, ..)| *lsn < end);
                for _ in 0..random.random() % 60 {
                    let payload = vec![random.random() as u8; (random.random() % 200) as usize];
                    let reservation = reserve(&wal, payload.len()).unwrap();
                    let route =
                        if random.random().is_multiple_of(9) { Route::Direct } else { Route::Buffered };
                    let appended = wal.append(reservation, 1, &payload, route, |_| ()).unwrap();
                    acked.push((appended.lsn, appended.first_seq, payload));
                    if random.random() % 12 == 0 {
                        wal.sync().unwrap();
                    }
                    if random.random() % 9 == 0 {
                        wal.prepare_segment(Floor::NONE).unwrap();
                    }
                }
                kept += acked.len();
                durable = acked.iter().filter(|(lsn, ..)| *lsn < wal.synced()).count();
                power_cut(&vfs, wal.synced(), &random);
            }
        }
        assert!(lost > 1000 && kept > 10_000, "the test lost {lost} and kept {kept}");
    }

    /// What the segments hold alone.
    fn without_tail(vfs: &TestVfs, manifest: &super::super::testing::Manifest) -> Batches {
        let path = paths::log_buffer(dir());
        if vfs.kind(&path).unwrap().is_some() {
            vfs.remove(&path).unwrap();
        }
        recover(vfs, &manifest.rules).unwrap().1
    }

    #[test]
    fn a_buffer_that_cannot_be_written_refuses_the_next_record_and_loses_none() {
        for segment_size in [8 * SIZE, 1 << 20] {
            for fail_at in 0..40 {
                let vfs = TestVfs::default();
                let wal = open_buffered(&vfs, start(), segment_size);
                put(&wal, b"creates the buffer", Route::Buffered).unwrap();
                let mut expected = all(&vfs);
                let mut refused = 0;
                for n in 0..120u8 {
                    if n == fail_at {
                        // The next call to a segment fails; stores are calls in this file system, and cannot.
                        vfs.plan.lock().fail_segment_write = Some(ErrorKind::StorageFull);
                    }
                    let payload = vec![n; 90];
                    match put(&wal, &payload, Route::Buffered) {
                        Ok(seq) => expected.push((seq, payload)),
                        Err(Error::DiskFull) => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                    assert_eq!(all(&vfs), expected, "record {n}, failure at {fail_at}");
                }
                assert_eq!(refused, 1);
                wal.close().unwrap();
                assert_eq!(all(&vfs), expected);
            }
        }
    }

    #[test]
    fn the_call_that_empties_the_buffer_is_counted_with_a_sync_too() {
        let vfs = TestVfs::default();
        let wal = open_buffered(&vfs, start(), 1 << 20);
        let calls = || {
            put(&wal, b"record", Route::Buffered).unwrap();
            let before = wal.writes().writes;
            wal.sync().unwrap();
            wal.sync().unwrap();
            (before, wal.writes().writes)
        };
        assert_eq!([calls(), calls()], [(0, 1), (1, 2)]);
    }

    #[test]
    fn a_sync_that_cannot_write_the_buffer_poisons_and_loses_nothing() {
        let vfs = TestVfs::default();
        let wal = open_buffered(&vfs, start(), 1 << 20);
        put(&wal, b"kept", Route::Buffered).unwrap();
        vfs.plan.lock().fail_segment_write = Some(ErrorKind::Other);
        assert!(matches!(wal.sync(), Err(Error::Io { op: "write", .. })));
        assert!(matches!(put(&wal, b"refused", Route::Buffered), Err(Error::Poisoned { .. })));
        assert_eq!(all(&vfs), [(1, b"kept".to_vec())]);
    }

    #[test]
    fn the_size_changes_live_and_limits_what_is_stored() {
        let vfs = TestVfs::default();
        let wal = open_buffered(&vfs, start(), 1 << 20);
        let size = || {
            vfs.kind(&paths::log_buffer(dir())).unwrap().map(|_| vfs.read(&paths::log_buffer(dir())).len())
        };
        let mut expected = Vec::new();
        for (buffer, made) in
            [(SIZE, Some(1024)), (0, None), (5000, Some(4608)), (600, Some(512)), (1 << 20, Some(128 << 10))]
        {
            wal.set_limits(LogLimits { buffer, ..limits(1 << 20) });
            for n in 0..30 {
                // The last is longer than some buffers.
                let payload = vec![n; if n == 29 { 3000 } else { 60 }];
                expected.push((put(&wal, &payload, Route::Buffered).unwrap(), payload));
                assert_eq!((size(), all(&vfs)), (made, expected.clone()), "{buffer}");
            }
        }
        // Where there is no space for it, records are written by calls.
        vfs.plan.lock().fail_share = true;
        wal.set_limits(LogLimits { buffer: SIZE, ..limits(1 << 20) });
        let before = wal.writes().writes;
        for _ in 0..10 {
            expected.push((put(&wal, b"direct", Route::Buffered).unwrap(), b"direct".to_vec()));
        }
        assert_eq!((size(), wal.writes().writes - before >= 10), (None, true));
        assert_eq!(all(&vfs), expected);
    }

    #[test]
    fn a_damaged_or_foreign_buffer_ends_the_log_and_adds_nothing() {
        let vfs = TestVfs::default();
        let wal = open_buffered(&vfs, start(), 1 << 20);
        for n in 0..5 {
            put(&wal, &[n; 40], Route::Buffered).unwrap();
        }
        let (path, whole) = (paths::log_buffer(dir()), all(&vfs));
        assert_eq!(whole.len(), 5);
        let bytes = vfs.read(&path);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            vfs.overwrite(&path, &damaged);
            let found = all(&vfs);
            assert_eq!(found, whole[..found.len()], "byte {at}");
            vfs.overwrite(&path, &bytes[..at]);
            let found = all(&vfs);
            assert_eq!(found, whole[..found.len()], "cut at {at}");
        }
        // Records of the same position in another segment of that generation, which has another salt.
        let other = TestVfs::default();
        let mut stranger = open_buffered(&other, start(), 1 << 20);
        stranger.context.clock = Arc::new(ManualClock::new(99));
        put(&stranger, &[9; 40], Route::Buffered).unwrap();
        vfs.overwrite(&path, &other.read(&path));
        assert!(all(&vfs).is_empty());
    }
}
