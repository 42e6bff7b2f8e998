//! The log: one for all stripes, in segments `wal-NNNNNN.log`.
//!
//! Owns these files from creation to retirement, the sequence numbers, and the watermark: the position up to which the
//! log is durable. A record's position (LSN) is the generation of its segment and its offset there. Generations only
//! rise and may skip; order comes from the headers and from the links in the first records, never from file names.
//!
//! Writing: [`Wal::try_reserve`] reserves space before any lock is taken, so that appending, under the log lock, is one
//! write into space already allocated. Writers share writes: the first writer to get the log lock writes the records of
//! all that wait for it, in one call up to the size of the write buffer. They also share syncs: the first to wait syncs
//! up to the tail on behalf of all. Reading: [`discover`], [`validate`] (finds the end of the log, and tells a torn
//! tail from damage), [`harden`], [`replay`].
//!
//! Invariants:
//! * A record reaches the operating system before its append returns, in its segment or in the mapped log buffer
//!   (`buffer`). Records that wait for the log lock belong to writers that are waiting with them.
//! * Sequences are assigned, records registered with the caller, and positions taken in the same order, all under the
//!   log lock.
//! * A segment's header and name are durable before its first record is written.
//! * The watermark advances only after every segment below it was synced, oldest first. A failed sync poisons the
//!   handle; no sync is retried on it.
//! * A refused write is not replayed: a failed write is undone by zeroing every header it wrote, durably, before any of
//!   its records is refused, and its sequences are not reused. If that fails too, the handle is poisoned.
//! * The files, including those being removed, never exceed the limit: a reservation that would exceed it is not
//!   granted. Only [`Wal::rotate`], which frees space, may exceed it, as may a record larger than a limit that was not
//!   set explicitly.
//! * Outstanding reservations always fit into the current segment, or all of them into the prepared one, so they fit in
//!   whatever order they are used.
//! * No sync happens under the log lock, except to undo a failed write. Locks are taken in this order: preparing, log,
//!   then space or queue. The group commit lock is taken alone.

mod append;
mod buffer;
mod copy;
pub(crate) mod format;
mod reader;
mod segments;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::file_header::Id;
use crate::health::Health;
use crate::latency::Recorder;
use crate::types::{Lsn, SeqNo};
use crate::vfs::{Meter, Vfs};

pub(crate) use append::{Payload, Route};
pub(crate) use buffer::{BufferedTail, open_with};
pub(crate) use copy::LogCopy;
pub(crate) use format::{RECORDS_START, copied_header};
pub(crate) use reader::{
    Chain, CheckBatch, LogGap, LogOwner, LogPart, LogRules, LogSalvage, Piece, RecordRef, Segment, discover,
    discover_in, harden, has_records, replay, salvage, validate, validate_batches, walk_alone,
};
pub(crate) use segments::Reservation;
pub(crate) use writer::Wal;

/// The environment of the log.
#[derive(Clone, Debug)]
pub(crate) struct WalContext {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
    pub(crate) health: Arc<Health>,
    pub(crate) latencies: Arc<Recorder>,
    pub(crate) meter: Arc<Meter>,
}

/// Limits on the size of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLimits {
    /// Bytes of a segment, unless a record needs more.
    pub(crate) segment_size: u64,
    /// Bytes of all segments.
    pub(crate) limit: u64,
    /// Limit in bytes for a record that does not fit into `limit` beside two segments.
    pub(crate) oversized: u64,
    /// Bytes of records that one write call gathers at most.
    pub(crate) write_buffer: u64,
    /// Bytes of the log buffer; 0 for none.
    pub(crate) buffer: u64,
}

/// The state in which writing continues.
#[derive(Clone, Debug)]
pub(crate) struct WalStart {
    /// The lowest generation that a new segment may take.
    pub(crate) next_generation: u32,
    pub(crate) next_seq: SeqNo,
    /// The end of the log: durable, and the target of the next segment's link.
    pub(crate) end: Lsn,
    /// Whether to continue the last of `segments` at `end`. Only after a clean close; see [`Chain::resumable`].
    pub(crate) resume: bool,
    /// The live segments, oldest first.
    pub(crate) segments: Vec<SegmentInfo>,
    /// The newest durable manifest edit.
    pub(crate) last_edit: u64,
}

/// A segment with live records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) generation: u32,
    pub(crate) path: PathBuf,
    pub(crate) salt: u64,
    /// Length of the file, including preallocated space.
    pub(crate) len: u64,
    /// Where its live records start and end.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Records that its file may lack.
    pub(crate) tail: Option<Arc<BufferedTail>>,
}

/// The end of a closed log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    pub(crate) end: Lsn,
    pub(crate) next_seq: SeqNo,
    pub(crate) next_generation: u32,
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::error::Error;
    use std::time::Duration;

    #[test]
    fn batches_round_trip_over_rotations_and_oversized_records() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 4096);
        let mut expected = Vec::new();
        for i in 0..200usize {
            let payload = vec![i as u8; if i == 77 { 300_000 } else { i * 7 % 500 }];
            let reservation = reserve(&wal, payload.len()).unwrap();
            let appended = wal.append(reservation, 3, &payload, Route::Direct, |_| ()).unwrap();
            assert_eq!(appended.first_seq, 1 + 3 * i as u64);
            assert_eq!(wal.tail(), appended.end);
            expected.push((appended.first_seq, payload));
        }
        assert!(wal.segment_count() > 10);
        assert_eq!(wal.live_bytes(), vfs.files().iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        let (chain, batches) = recover(&vfs, &LogRules::default()).unwrap();
        assert_eq!(batches, expected);
        assert_eq!((chain.end, chain.last_seq), (wal.tail(), 600));
        assert!(!chain.resumable && chain.dead.is_empty());
    }

    #[test]
    fn a_new_log_touches_nothing_and_an_empty_one_reads_as_such() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 4096);
        wal.sync().unwrap();
        wal.append_watermark().unwrap();
        assert!(!wal.needs_segment() && !wal.unsynced());
        assert_eq!(wal.close().unwrap(), LogEnd { end: Lsn::ZERO, next_seq: 1, next_generation: 1 });
        assert!(vfs.files().is_empty());
        let (chain, batches) = recover(&vfs, &LogRules::default()).unwrap();
        assert_eq!((chain.end, chain.max_generation, batches.len()), (Lsn::ZERO, 0, 0));
    }

    #[test]
    fn a_clean_close_trims_and_the_segment_goes_on() {
        let vfs = TestVfs::default();
        let (mut start, mut expected) = (start(), Vec::new());
        for round in 0..5u8 {
            let wal = open(&vfs, start.clone(), 1 << 20);
            let appended = append(&wal, &[round; 100]).unwrap();
            expected.push((appended.first_seq, vec![round; 100]));
            assert_eq!(appended.end.generation(), 1);
            let end = wal.close().unwrap();
            assert_eq!(end.end, appended.end);
            assert_eq!(vfs.files()[0].1.len() as u64, u64::from(end.end.offset()));
            let rules = LogRules { clean_end: Some(end.end), durable: end.end, ..LogRules::default() };
            let (chain, batches) = recover(&vfs, &rules).unwrap();
            assert_eq!(batches, expected);
            assert!(chain.resumable);
            start = WalStart {
                next_generation: end.next_generation,
                next_seq: end.next_seq,
                end: chain.end,
                resume: chain.resumable,
                segments: chain.segments,
                last_edit: 0,
            };
        }
        // A record was appended after the close that the manifest records, or one is missing.
        let last = start.end;
        for clean_end in [Lsn(last.0 - 152), Lsn(last.0 + 8), Lsn::new(2, 1024)] {
            let rules = LogRules { clean_end: Some(clean_end), ..LogRules::default() };
            assert!(matches!(recover(&vfs, &rules), Err(Error::Corruption { .. })), "{clean_end}");
        }
    }

    #[test]
    fn a_log_closed_at_a_cut_is_not_resumed() {
        let vfs = TestVfs::default();
        let wal = open(&vfs, start(), 4096);
        append(&wal, b"kept").unwrap();
        let mut manifest = Manifest::default();
        let (wal, _) = manifest.recover(&vfs, 4096);
        let end = wal.close().unwrap();
        manifest.rules.clean_end = Some(end.end);
        let (chain, batches) = recover(&vfs, &manifest.rules).unwrap();
        assert_eq!(batches, [(1, b"kept".to_vec())]);
        assert!(!chain.resumable);
    }

    #[test]
    fn crashes_and_recoveries_keep_a_prefix_with_all_that_was_synced() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..300 {
            let (vfs, random) = (TestVfs::default(), ManualClock::new(seed));
            let mut manifest = Manifest::default();
            let mut acked: Vec<(Lsn, SeqNo, Vec<u8>)> = Vec::new();
            let mut durable = 0;
            for session in 0..6 {
                let before = vfs.files();
                let (wal, batches) = manifest.recover(&vfs, 3000);
                let log_start = manifest.rules.log_start;
                let live = acked.iter().filter(|(lsn, ..)| *lsn >= log_start);
                let found: Vec<_> =
                    live.clone().map(|(_, seq, p)| (*seq, p.clone())).take(batches.len()).collect();
                assert_eq!(batches, found, "seed {seed}, session {session}");
                assert!(
                    batches.len() + acked.len() - live.clone().count() >= durable,
                    "seed {seed}, session {session}"
                );
                let end = wal.tail();
                lost += acked.iter().filter(|(lsn, ..)| *lsn >= end).count();
                acked.retain(|(lsn, ..)| *lsn < end);
                for i in 0..random.random() % 40 {
                    let payload = vec![random.random() as u8; (random.random() % 300) as usize];
                    let appended = append(&wal, &payload).unwrap();
                    acked.push((appended.lsn, appended.first_seq, payload));
                    if random.random() % 12 == 0 {
                        wal.sync().unwrap();
                    }
                    if random.random() % 9 == 0 && i > 3 {
                        wal.prepare_segment(crate::vfs::Floor::NONE).unwrap();
                    }
                }
                kept += acked.len();
                // Old segments are never written to, and recovery leaves them unchanged.
                for (path, bytes) in before {
                    assert_eq!(vfs.read(&path), bytes, "seed {seed}: {}", path.display());
                }
                durable = acked.iter().filter(|(lsn, ..)| *lsn < wal.synced()).count();
                if random.random() % 3 == 0 && wal.tail().generation() > 0 {
                    wal.sync().unwrap();
                    durable = acked.len();
                    manifest.rules.log_start = wal.tail();
                    manifest.rules.durable = wal.synced();
                    let retired = wal.retire(manifest.rules.log_start.generation());
                    // One retired segment is not removed, as after a crash, and reappears in the next session.
                    retired.iter().skip(1).for_each(|path| vfs.remove(path).unwrap());
                    manifest
                        .rules
                        .cuts
                        .retain(|cut| cut.next_generation > manifest.rules.log_start.generation());
                }
                power_cut(&vfs, wal.synced(), &random);
            }
        }
        assert!(lost > 500 && kept > 15_000, "the test lost {lost} and kept {kept}");
    }

    #[test]
    fn commit_times_come_from_the_clock() {
        let vfs = TestVfs::default();
        let mut wal = open(&vfs, start(), 4096);
        let clock = Arc::new(ManualClock::new(1));
        wal.context.clock = clock.clone();
        append(&wal, b"a").unwrap();
        clock.advance(Duration::from_secs(5));
        append(&wal, b"b").unwrap();
        let segments = discover(&vfs, dir(), OWNER).unwrap();
        let chain = validate(&vfs, dir(), &segments, &LogRules::default()).unwrap();
        let mut times = Vec::new();
        replay(&vfs, &chain, |record| {
            times.push((record.time, record.count, record.lsn));
            Ok(())
        })
        .unwrap();
        let first = Lsn::new(1, 1024 + format::LINK_LEN as u32);
        assert_eq!(times, [(1_700_000_000, 1, first), (1_700_000_005, 1, Lsn(first.0 + 56))]);
    }
}
