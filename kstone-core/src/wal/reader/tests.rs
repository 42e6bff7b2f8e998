//! Damage that recovery must detect, and damage that it must tolerate.

use std::io;
use std::sync::Arc;

use super::*;
use crate::vfs::{Mapping, VfsFile};
use crate::wal::format::{PAD, WATERMARK};
use crate::wal::testing::*;

/// A log of several segments, whose batches are partly synced.
struct Sample {
    vfs: TestVfs,
    batches: Batches,
    /// The ends of the batches.
    ends: Vec<Lsn>,
    synced: Lsn,
}

fn sample(segment_size: u64, synced: usize, unsynced: usize) -> Sample {
    let vfs = TestVfs::default();
    let wal = open(&vfs, start(), segment_size);
    let (mut batches, mut ends) = (Vec::new(), Vec::new());
    for i in 0..synced + unsynced {
        let payload = vec![i as u8 + 1; 5 + i * 31 % 90];
        let appended = append(&wal, &payload).unwrap();
        batches.push((appended.first_seq, payload));
        ends.push(appended.end);
        if i + 1 == synced {
            wal.sync().unwrap();
        }
    }
    let synced = wal.synced();
    // The log without preallocated space.
    for (path, bytes) in vfs.files() {
        let header = SegmentHeader::decode(&bytes, &path).unwrap().unwrap();
        if header.generation == wal.tail().generation() {
            vfs.overwrite(&path, &bytes[..wal.tail().offset() as usize]);
        }
    }
    Sample { vfs, batches, ends, synced }
}

impl Sample {
    /// Reads a damaged copy. Checks that the result is a prefix of the batches, and returns its length.
    fn damaged(&self, rules: &LogRules, damage: impl FnOnce(&TestVfs)) -> Result<usize> {
        let copy = TestVfs::default();
        for (path, bytes) in self.vfs.files() {
            copy.mem.open(&path, OpenMode::Create).unwrap();
            copy.overwrite(&path, &bytes);
        }
        damage(&copy);
        let before = copy.files();
        let result = recover(&copy, rules);
        assert_eq!(copy.files(), before, "reading changed a file");
        let (_, batches) = result?;
        assert_eq!(batches, self.batches[..batches.len()]);
        Ok(batches.len())
    }

    fn last(&self) -> (PathBuf, Vec<u8>) {
        self.vfs.files().pop().unwrap()
    }

    /// The number of batches that end at or before a position.
    fn ending_by(&self, at: Lsn) -> usize {
        self.ends.iter().filter(|end| **end <= at).count()
    }
}

fn is_corrupt(result: &Result<usize>) -> bool {
    matches!(result, Err(Error::Corruption { .. }))
}

#[test]
fn every_truncation_of_the_last_segment_gives_a_prefix_unless_it_was_durable() {
    let last_generation = |sample: &Sample| sample.ends.last().unwrap().generation();
    let both_in_last = |s: &Sample| last_generation(s) > 1 && s.synced.generation() == last_generation(s);
    let sample = (4..30).map(|synced| sample(1600, synced, 4)).find(both_in_last).unwrap();
    let (path, bytes) = sample.last();
    let generation = last_generation(&sample);
    for len in 0..bytes.len() {
        let cut = Lsn::new(generation, len as u32);
        let truncated = |durable| {
            let rules = LogRules { durable, ..LogRules::default() };
            sample.damaged(&rules, |vfs| vfs.overwrite(&path, &bytes[..len]))
        };
        assert_eq!(truncated(Lsn::ZERO).unwrap(), sample.ending_by(cut), "{len}");
        let durable = truncated(sample.synced);
        assert_eq!(is_corrupt(&durable), cut < sample.synced, "{len}: {durable:?}");
    }
}

#[test]
fn every_flipped_byte_is_corruption_below_the_last_sync_and_a_tail_above() {
    let sample = sample(1400, 12, 6);
    let (mut corrupt, mut tails, mut harmless) = (0, 0, 0);
    let files = sample.vfs.files();
    for (path, bytes) in &files {
        let generation = SegmentHeader::decode(bytes, path).unwrap().unwrap().generation;
        let end = sample.ends.iter().filter(|e| e.generation() == generation).max().copied();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let got = sample.damaged(&LogRules::default(), |vfs| vfs.overwrite(path, &bad));
            let position = Lsn::new(generation, at as u32);
            if at < RECORDS_START as usize || end.is_none_or(|end| end <= position) {
                assert_eq!(got.unwrap(), sample.batches.len(), "{position}");
                harmless += 1;
            } else if position < sample.synced {
                assert!(is_corrupt(&got), "{position}: {got:?}");
                corrupt += 1;
            } else {
                assert_eq!(got.unwrap(), sample.ending_by(position), "{position}");
                tails += 1;
            }
        }
    }
    assert!(corrupt > 1000 && tails > 300 && harmless > 2000, "{corrupt}, {tails}, {harmless}");
}

#[test]
fn a_hole_before_valid_records_is_a_tail_past_the_last_sync_and_damage_before() {
    let sample = sample(1 << 20, 4, 4);
    let (path, bytes) = sample.last();
    for (i, end) in sample.ends.iter().enumerate() {
        let start = if i == 0 { RECORDS_START } else { sample.ends[i - 1].offset() };
        let mut bad = bytes.clone();
        bad[start as usize..end.offset() as usize].fill(0);
        let got = sample.damaged(&LogRules::default(), |vfs| vfs.overwrite(&path, &bad));
        if i < 4 {
            let Err(Error::Corruption { file, offset, .. }) = &got else { panic!("{got:?}") };
            assert_eq!((file, *offset), (&path, if i == 0 { 1024 } else { u64::from(start) }));
        } else {
            assert_eq!(got.unwrap(), i);
        }
    }
}

#[test]
fn a_valid_header_with_a_torn_payload_still_vouches_for_its_watermark() {
    let sample = sample(1 << 20, 4, 1);
    let (path, mut bytes) = sample.last();
    bytes[sample.ends[0].offset() as usize + 20] ^= 1;
    let last = bytes.len() - 8;
    bytes[last..].fill(0xee);
    let got = sample.damaged(&LogRules::default(), |vfs| vfs.overwrite(&path, &bytes));
    assert!(is_corrupt(&got), "{got:?}");
}

#[test]
fn a_damaged_header_is_harmless_in_an_unused_segment_only() {
    let sample = sample(1400, 12, 6);
    let (path, bytes) = sample.vfs.files().swap_remove(1);
    for fill in [0, 0xa5] {
        let mut bad = bytes.clone();
        bad[..1024].fill(fill);
        let got = sample.damaged(&LogRules::default(), |vfs| vfs.overwrite(&path, &bad));
        assert!(matches!(&got, Err(Error::Corruption { file, offset: 0, .. }) if *file == path), "{got:?}");
        let got = sample.damaged(&LogRules::default(), |vfs| {
            let unused = paths::log(dir(), 99);
            vfs.mem.open(&unused, OpenMode::Create).unwrap();
            vfs.overwrite(&unused, &[fill; 5000]);
            let (chain, _) = recover(vfs, &LogRules::default()).unwrap();
            assert_eq!((chain.max_generation, chain.dead), (99, vec![unused]));
        });
        assert_eq!(got.unwrap(), sample.batches.len());
    }
}

#[test]
fn a_missing_segment_is_judged_like_a_bad_record() {
    let first_unsynced = 9;
    let sample = sample(1400, first_unsynced, 12);
    for (path, bytes) in sample.vfs.files() {
        let generation = SegmentHeader::decode(&bytes, &path).unwrap().unwrap().generation;
        let before = sample.ends.iter().filter(|end| end.generation() < generation).count();
        let got = sample.damaged(&LogRules::default(), |vfs| vfs.mem.remove(&path).unwrap());
        if before < first_unsynced {
            assert!(is_corrupt(&got), "{generation}: {got:?}");
        } else {
            assert_eq!(got.unwrap(), before);
        }
    }
    let all = |vfs: &TestVfs| vfs.files().iter().for_each(|(path, _)| vfs.mem.remove(path).unwrap());
    assert_eq!(sample.damaged(&LogRules::default(), all).unwrap(), 0);
    let durable = LogRules { durable: sample.synced, ..LogRules::default() };
    assert!(is_corrupt(&sample.damaged(&durable, all)));
}

#[test]
fn order_comes_from_headers_not_names() {
    let sample = sample(1400, 12, 6);
    let files = sample.vfs.files();
    let got = sample.damaged(&LogRules::default(), |vfs| {
        for (i, (path, bytes)) in files.iter().rev().enumerate() {
            let other = paths::log(dir(), 1000 + i as u32);
            vfs.mem.rename(path, &other).unwrap();
            assert_eq!(vfs.read(&other), *bytes);
        }
    });
    assert_eq!(got.unwrap(), sample.batches.len());
}

#[test]
fn segments_of_another_database_twice_the_same_or_newer_than_the_manifest_are_refused() {
    let sample = sample(1 << 20, 2, 0);
    let (path, bytes) = sample.last();
    let (other, header) = (paths::log(dir(), 9), SegmentHeader::decode(&bytes, &path).unwrap().unwrap());
    let add = |header: SegmentHeader| {
        sample.damaged(&LogRules { last_edit: 4, ..LogRules::default() }, |vfs| {
            vfs.mem.open(&other, OpenMode::Create).unwrap();
            vfs.overwrite(&other, &header.encode());
        })
    };
    let twice = sample.damaged(&LogRules::default(), |vfs| {
        vfs.mem.rename(&path, &paths::log(dir(), 8)).unwrap();
        vfs.mem.open(&other, OpenMode::Create).unwrap();
        vfs.overwrite(&other, &header.encode());
    });
    assert!(is_corrupt(&twice), "the same generation twice, and neither name matches");
    assert!(is_corrupt(&add(SegmentHeader { generation: 3, database_id: [1; 16], ..header.clone() })));
    assert_eq!(add(SegmentHeader { generation: 3, last_edit: 4, ..header.clone() }).unwrap(), 2);
    let got = add(SegmentHeader { generation: 3, last_edit: 5, ..header });
    assert!(matches!(&got, Err(Error::Corruption { file, .. }) if file.ends_with("MANIFEST")), "{got:?}");
}

/// Symptom: after a power cut the database could not be opened, because a segment still being created had the
/// generation of another. Cause: without data journalling, blocks newly allocated to a file keep their previous
/// contents, here a copy of that other segment. Fix: of two segments with the same generation, the one of that name
/// counts; the other was never durable.
#[test]
fn a_segment_in_the_making_may_hold_the_bytes_of_another() {
    let sample = sample(1400, 12, 6);
    for (path, bytes) in sample.vfs.files() {
        for len in [640, 1024, bytes.len()] {
            let got = sample.damaged(&LogRules::default(), |vfs| {
                let stale = paths::log(dir(), 1000);
                vfs.mem.open(&stale, OpenMode::Create).unwrap();
                vfs.overwrite(&stale, &bytes[..len]);
            });
            assert_eq!(got.unwrap(), sample.batches.len(), "{len} bytes of {}", path.display());
        }
    }
}

#[test]
fn pads_are_skipped_and_unknown_records_unsupported() {
    let sample = sample(1 << 20, 0, 3);
    let (path, bytes) = sample.last();
    let salt = SegmentHeader::decode(&bytes, &path).unwrap().unwrap().salt;
    let end = *sample.ends.last().unwrap();
    for (kind, flags, known) in
        [(PAD, 0, true), (WATERMARK, 0, true), (3, 0, false), (9, 0, false), (BATCH, 1, false)]
    {
        let mut more = bytes.clone();
        let mut header = RecordHeader::new(kind, end, 50, Lsn::ZERO, 1, 0);
        header.flags = flags;
        header.encode(&mut more, salt, b"payload");
        let got = sample.damaged(&LogRules::default(), |vfs| vfs.overwrite(&path, &more));
        match got {
            Ok(batches) => assert!(known && batches == 3, "{kind}"),
            Err(error) => assert!(!known && error.code() == "unsupported_format", "{kind}: {error}"),
        }
    }
}

/// Symptom: a file of 1 KiB, extended to 4 GiB by a hole, with a valid header that claims all of it, took 4 GiB of
/// memory. Cause: the whole record was read, whatever its length, before its checksum was verified. Fix: payloads are
/// verified through a window, and a claim beyond the maximum length of a record is damage.
#[test]
fn what_a_header_claims_takes_no_memory() {
    let sample = sample(1 << 20, 0, 3);
    let (path, bytes) = sample.last();
    let salt = SegmentHeader::decode(&bytes, &path).unwrap().unwrap().salt;
    let end = *sample.ends.last().unwrap();
    let at = end.offset() as usize;
    let mut header = Vec::new();
    RecordHeader::new(BATCH, end, 4, Lsn::ZERO, 1, 0).encode(&mut header, salt, b"");
    let claims = |len: u32| {
        let mut forged = header[..RECORD_HEADER].to_vec();
        forged[8..12].copy_from_slice(&len.to_le_bytes());
        let crc = crate::checksum::crc32c_seeded(salt, &[&forged[4..]]);
        forged[..4].copy_from_slice(&crc.to_le_bytes());
        [&bytes[..at], &forged].concat()
    };
    let most = MAX_BATCH_BYTES as u32;
    for (len, grown, corrupt) in [
        (1 << 20, 2 << 20, false),
        (most, u64::from(most) + (1 << 20), false),
        (most + 1, u64::from(most) + (1 << 20), true),
        (u32::MAX - (1 << 13), MAX_SEGMENT, true),
        // Truncated: the file never held that much.
        (u32::MAX, 1 << 20, false),
    ] {
        let vfs = TestVfs::default();
        vfs.mem.open(&path, OpenMode::Create).unwrap();
        vfs.overwrite(&path, &claims(len));
        let file = vfs.mem.open(&path, OpenMode::Read).unwrap();
        let long = Arc::new(Long { file, len: grown });
        let mut reader = SegmentReader {
            window: Window::new(long, grown),
            path: &path,
            generation: end.generation(),
            salt,
        };
        assert!(reader.check(end.offset()).unwrap().is_none(), "{len} of {grown}");
        let refused = reader.refuse_claim(end.offset());
        match refused {
            Ok(()) => assert!(!corrupt, "{len} of {grown}"),
            Err(Error::Corruption { offset, file, .. }) => {
                assert!(corrupt && (offset, &file) == (at as u64, &path), "{len} of {grown}");
            }
            Err(other) => panic!("{other}"),
        }
        assert!(reader.window.held() <= WINDOW as usize, "{len} of {grown}: {}", reader.window.held());
    }
}

/// A file with a hole at its end.
#[derive(Debug)]
struct Long {
    file: Arc<dyn VfsFile>,
    len: u64,
}

impl VfsFile for Long {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = buf.len().min(self.len.saturating_sub(offset) as usize);
        let read = read_full_at(&*self.file, &mut buf[..wanted], offset)?;
        buf[read..wanted].fill(0);
        Ok(wanted)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn map(&self, _: u64) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn sequences_that_go_back_are_corruption() {
    let sample = sample(1 << 20, 0, 3);
    let (path, bytes) = sample.last();
    let salt = SegmentHeader::decode(&bytes, &path).unwrap().unwrap().salt;
    let end = *sample.ends.last().unwrap();
    // Symptom: a forged batch of no operations from sequence 0 panicked in builds with overflow checks. Cause:
    // computing its last sequence overflowed. Fix: both steps of the sum are checked. This is case (0, 0).
    for (first_seq, count) in [(0, 1), (4, 0), (u64::MAX, 2), (0, 0)] {
        let mut more = bytes.clone();
        RecordHeader::new(BATCH, end, first_seq, Lsn::ZERO, count, 0).encode(&mut more, salt, b"payload");
        let got = sample.damaged(&LogRules::default(), |vfs| vfs.overwrite(&path, &more));
        assert!(is_corrupt(&got), "{first_seq}, {count}: {got:?}");
    }
    // A sequence that was assigned before belongs to a refused write that reappeared, unless it had been synced.
    let mut more = bytes;
    RecordHeader::new(BATCH, end, 3, Lsn::ZERO, 1, 0).encode(&mut more, salt, b"payload");
    let back = Lsn::new(end.generation(), more.len() as u32);
    for (watermark, known) in [(Lsn::ZERO, Lsn::ZERO), (back, Lsn::ZERO), (Lsn::ZERO, back)] {
        let mut more = more.clone();
        RecordHeader::new(BATCH, back, 9, watermark, 1, 0).encode(&mut more, salt, b"payload");
        let rules = LogRules { durable: known, ..LogRules::default() };
        let got = sample.damaged(&rules, |vfs| vfs.overwrite(&path, &more));
        match watermark.max(known) {
            Lsn::ZERO => assert_eq!(got.unwrap(), 3),
            _ => assert!(is_corrupt(&got), "{watermark}, {known}: {got:?}"),
        }
    }
}

#[test]
fn nothing_below_a_cut_may_be_missing_and_nothing_past_it_counts() {
    let sample = sample(1 << 20, 0, 6);
    let (path, bytes) = sample.last();
    let cut = |end: Lsn| LogCut { generation: 1, end: end.offset(), next_generation: 5, seq: 0 };
    for (i, end) in sample.ends.iter().enumerate() {
        let rules = LogRules { cuts: vec![cut(*end)], ..LogRules::default() };
        assert_eq!(sample.damaged(&rules, |_| {}).unwrap(), i + 1);
        for at in (RECORDS_START as usize..bytes.len()).step_by(8) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let got = sample.damaged(&rules, |vfs| vfs.overwrite(&path, &bad));
            assert_eq!(is_corrupt(&got), at < end.offset() as usize, "{i} {at}: {got:?}");
        }
    }
    let within = LogRules { cuts: vec![cut(Lsn(sample.ends[2].0 + 8))], ..LogRules::default() };
    assert!(is_corrupt(&sample.damaged(&within, |_| {})));
}

#[test]
fn hardening_rewrites_the_same_bytes_and_syncs_each_file_it_touched() {
    let sample = sample(1400, 9, 12);
    let (chain, _) = recover(&sample.vfs, &LogRules::default()).unwrap();
    let before = sample.vfs.files();
    let middle = Lsn::new(chain.segments[1].generation, chain.segments[1].end - 8);
    let all = chain.segments.len() as u64;
    for (from, files) in [(Lsn::ZERO, all), (middle, all - 1), (chain.end, 0)] {
        {
            let mut plan = sample.vfs.plan.lock();
            (plan.syncs, plan.written) = (0, 0);
        }
        harden(&sample.vfs, dir(), &chain, from).unwrap();
        assert_eq!(sample.vfs.plan.lock().syncs, files);
        let begin = |generation| if generation == from.generation() { from.offset() } else { RECORDS_START };
        let above = chain.segments.iter().filter(|info| Lsn::new(info.generation, info.end) > from);
        let bytes: u64 = above.map(|info| u64::from(info.end - begin(info.generation))).sum();
        assert_eq!(sample.vfs.plan.lock().written, bytes, "from {from}");
    }
    assert_eq!(sample.vfs.files(), before);
    assert_eq!(chain.watermark, sample.synced);
}

#[test]
fn records_across_windows_are_read_and_found() {
    let vfs = TestVfs::default();
    let wal = open(&vfs, start(), 8 << 20);
    for i in 0..300u32 {
        append(&wal, &vec![i as u8; 3000 + i as usize]).unwrap();
    }
    wal.sync().unwrap();
    let last = append(&wal, b"last").unwrap();
    let (path, bytes) = vfs.files().pop().unwrap();
    let salt = SegmentHeader::decode(&bytes, &path).unwrap().unwrap().salt;
    assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1.len(), 301);
    let mut reader = SegmentReader::open(&vfs, &path, None, 1, salt).unwrap();
    // Only the last header has that watermark, wherever the windows fall.
    for from in (RECORDS_START..last.lsn.offset()).step_by(40_000 + 8) {
        assert_eq!(reader.highest_watermark(from).unwrap(), last.lsn);
    }
    assert_eq!(reader.highest_watermark(last.end.offset()).unwrap(), Lsn::ZERO);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_without_panic(
        changes in proptest::collection::vec((0usize..3000, proptest::prelude::any::<u8>()), 1..30),
        cut in 0usize..3000,
    ) {
        let sample = sample(1400, 6, 6);
        let (path, mut bytes) = sample.vfs.files().swap_remove(0);
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        bytes.truncate(cut.max(1));
        let _ = sample.damaged(&LogRules::default(), |vfs| vfs.overwrite(&path, &bytes));
    }
}

#[test]
fn segments_that_a_cut_skips_or_that_are_retired_are_dead_whatever_they_say() {
    let sample = sample(1400, 0, 12);
    let end_of = |generation| sample.ends.iter().filter(|end| end.generation() == generation).max().unwrap();
    let first = sample.ending_by(*end_of(1));
    let cut = LogCut { generation: 1, end: end_of(1).offset(), next_generation: 50, seq: 0 };
    let rules = LogRules { cuts: vec![cut], ..LogRules::default() };
    assert_eq!(sample.damaged(&rules, |_| {}).unwrap(), first);
    let (chain, _) = recover(&sample.vfs, &rules).unwrap();
    assert_eq!((chain.end, chain.max_generation), (*end_of(1), 49));
    assert_eq!(chain.dead.len(), sample.vfs.files().len() - 1);

    let retired = LogRules { log_start: Lsn::new(3, 0), ..LogRules::default() };
    let (chain, batches) = recover(&sample.vfs, &retired).unwrap();
    assert_eq!(batches, sample.batches[sample.ending_by(*end_of(2))..]);
    assert_eq!(chain.dead, [1, 2].map(|generation| paths::log(dir(), generation)));
}
