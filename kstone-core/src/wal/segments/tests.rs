//! Reservations in any order, failing allocations, and the limit.

use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;
use crate::types::Lsn;
use crate::vfs::{Floor, Vfs};
use crate::wal::testing::*;
use crate::wal::{LogRules, Route};

#[derive(Clone, Debug)]
enum Step {
    Reserve(usize),
    /// Use the outstanding reservation of this number, completely or in part.
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
                Step::Reserve(len) => outstanding.push((len, reserve(&wal, len).unwrap())),
                Step::Append(i, whole) if !outstanding.is_empty() => {
                    let (len, reservation) = outstanding.swap_remove(i % outstanding.len());
                    let payload = vec![i as u8; if whole { len } else { len / 2 }];
                    let files = vfs.files().len();
                    let appended = wal.append(reservation, 1, &payload, Route::Buffered, |_| ()).unwrap();
                    prop_assert_eq!(vfs.files().len(), files, "appending created a file");
                    expected.push((appended.first_seq, payload));
                }
                Step::Drop(i) if !outstanding.is_empty() => {
                    drop(outstanding.swap_remove(i % outstanding.len()));
                }
                Step::Prepare => wal.prepare_segment(Floor::NONE).unwrap(),
                Step::Append(..) | Step::Drop(_) => {}
            }
            let reserved: u64 = outstanding.iter().map(|(len, _)| crate::wal::format::record_len(*len)).sum();
            let space = wal.space.lock();
            prop_assert_eq!(space.reserved, reserved);
            let free = |room: &Option<SegmentSpace>| room.as_ref().map_or(0, |r| r.free().min(r.allocated - r.start()));
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
    assert!(matches!(wal.try_reserve(1, Floor::NONE), Err(Error::Io { op: "sync", .. })));
    assert!(matches!(wal.try_reserve(1, Floor::NONE), Err(Error::Poisoned { .. })));
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
fn the_files_never_take_more_than_the_limit() {
    for allocates in [true, false] {
        for (limit, len) in [(64 << 10, 100), (64 << 10, 5000), (100_001, 30_000), (40 << 10, 1)] {
            let vfs = TestVfs::default();
            vfs.plan.lock().fail_allocate = (!allocates).then_some(ErrorKind::Unsupported);
            let wal = open(&vfs, start(), 16 << 10);
            wal.set_limits(LogLimits { limit, oversized: limit, ..limits(16 << 10) });
            let (mut refused, mut written) = (0, 0);
            while refused < 5 {
                if wal.needs_segment() {
                    wal.prepare_segment(Floor::NONE).unwrap();
                }
                match wal.try_reserve(len, Floor::NONE).unwrap() {
                    Some(reservation) => {
                        wal.append(reservation, 1, &vec![1; len], Route::Buffered, |_| ()).unwrap();
                        written += 1;
                    }
                    None => {
                        refused += 1;
                        // Everything is flushed and checkpointed; files count until they are removed.
                        if !wal.can_retire() {
                            assert!(wal.rotate().unwrap());
                        }
                        let before = wal.live_bytes();
                        for path in wal.retire(wal.tail().generation()) {
                            assert_eq!(wal.live_bytes(), before);
                            vfs.mem.remove(&path).unwrap();
                        }
                        wal.removed();
                    }
                }
                let files: u64 = vfs.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
                assert_eq!(wal.live_bytes(), files);
                assert!(files <= limit, "{files} of {limit} after {written} records of {len}");
            }
            // The limit is not hit early: only one record and an unused segment may be missing.
            assert!(written as u64 * (len as u64 + 48) > limit.saturating_sub(len as u64 + (17 << 10)));
        }
    }
}

#[test]
fn a_record_that_nobody_limits_goes_over_and_the_log_gets_shorter_again() {
    let vfs = TestVfs::default();
    let wal = open(&vfs, start(), 16 << 10);
    wal.set_limits(LogLimits { limit: 128 << 10, ..limits(16 << 10) });
    append(&wal, &[0; 500_000]).unwrap();
    assert!(wal.live_bytes() > 500_000 && !wal.can_retire());
    while wal.try_reserve(100, Floor::NONE).unwrap().is_some() {
        append(&wal, &[0; 100]).unwrap();
    }
    assert!(wal.rotate().unwrap());
    assert!(!wal.retire(wal.tail().generation()).is_empty());
    wal.removed();
    assert!(wal.live_bytes() <= 16 << 10, "{}", wal.live_bytes());
    append(&wal, &[0; 100]).unwrap();
}

/// Symptom: the files of a full log took one page more than its limit. Cause: a log with nothing to retire continues in
/// another segment whatever the limit; the check that there was nothing ran before writers filled further segments, and
/// did not count segments being removed. Fix: the check runs where the segment is granted, and counts them.
#[test]
fn a_log_goes_on_in_another_segment_only_when_nothing_else_can_be_given_back() {
    let vfs = TestVfs::default();
    let wal = open(&vfs, start(), 16 << 10);
    let limit = 50 << 10;
    wal.set_limits(LogLimits { limit, ..limits(16 << 10) });
    while wal.try_reserve(4_000, Floor::NONE).unwrap().is_some() {
        append(&wal, &[0; 4_000]).unwrap();
    }
    assert!(wal.live_bytes() > limit - 4096 && wal.can_retire());
    assert!(!wal.rotate_last().unwrap(), "there are older segments");
    let generation = wal.tail().generation();
    assert!(!wal.retire(generation).is_empty() && !wal.can_retire());
    assert!(!wal.rotate_last().unwrap(), "their files still exist");
    assert!(wal.live_bytes() <= limit);
    wal.removed();
    assert!(wal.rotate_last().unwrap() && wal.tail().generation() > generation);
    assert!(!wal.rotate_last().unwrap(), "the previous segment can be retired now");
}

#[test]
fn rotating_keeps_what_was_granted_before() {
    let vfs = TestVfs::default();
    let wal = open(&vfs, start(), 16 << 10);
    append(&wal, b"first").unwrap();
    let granted: Vec<_> = (0..20).map(|_| reserve(&wal, 700).unwrap()).collect();
    assert!(wal.rotate().unwrap());
    for (n, reservation) in granted.into_iter().enumerate() {
        let at = wal.append(reservation, 1, &[n as u8; 700], Route::Buffered, |_| ()).unwrap();
        assert!(at.lsn.generation() >= 2);
    }
    wal.sync().unwrap();
    assert_eq!(recover(&vfs, &LogRules::default()).unwrap().1.len(), 21);
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
