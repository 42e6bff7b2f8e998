//! Planted bugs: a test of the tests. Each is a plausible bug in an engine like this one, at the place where it would
//! occur, behind a one-line switch; `tests/it/planted.rs` plants each in turn and must see a suite fail.
//!
//! With the feature `planted-bugs`, which only tests enable, and debug assertions, each thread chooses its planted bug;
//! other builds have none, and the compiler removes the switches. A choice applies to one thread: suites that should
//! find the bug run all work on that thread, and concurrent tests are not disturbed. Bugs that no single-threaded suite
//! can find are [`Race`]s: `kstone-shuttle` plants those.

macro_rules! bugs {
    ($(#[doc = $about:literal])+ $Bug:ident: $($(#[doc = $what:literal])+ $bug:ident,)+) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl $Bug {
            /// All variants.
            pub const ALL: &[Self] = &[$(Self::$bug,)+];

            /// The description.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($what),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

bugs! {
    /// Bugs that can be planted.
    Bug:
    // Acknowledgement and sync.
    /// A write at `Sync` is acknowledged before its sync.
    AckBeforeSync,
    /// Small records wait in a process buffer for the next write or sync.
    BufferKept,
    /// What the log buffer holds is not written to its segment before the segment is synced.
    LogBufferNotSynced,
    /// A sync covers only the newest segment of the log.
    OnlyNewestSegmentSynced,
    /// The watermark advances before the sync that it stands for.
    WatermarkBeforeSync,
    /// A batch is written as two log records.
    BatchInTwoRecords,
    /// The rest of a short write counts as written.
    ShortWriteIgnored,
    /// A failed write to the log is not undone.
    RefusedWriteKept,
    /// A poisoned handle accepts writes.
    PoisonForgotten,
    /// A checkpoint does not sync the log before it makes flushed writes durable.
    CheckpointBeforeLogSync,
    /// A checkpoint lists SSTs that were not synced.
    SstNotSynced,
    /// A checkpoint does not sync the directory entries of flushed SSTs.
    FlushedNamesNotSynced,
    /// A checkpoint does not sync the directory entries of merged SSTs.
    MergedNamesNotSynced,
    /// The directory entry of a new database is not synced.
    CreationNotSynced,
    /// The directory entry of a new log segment is not synced.
    SegmentNameNotSynced,
    /// A manifest edit is not synced.
    EditNotSynced,
    /// The directory entry of a rewritten manifest is not synced.
    ManifestNameNotSynced,
    /// A rewritten manifest is renamed before its bytes are synced.
    ManifestRenamedBeforeSync,

    // Removal, and its timing.
    /// A checkpoint removes old log before the edit that makes it obsolete is durable.
    LogDroppedBeforeEdit,
    /// A checkpoint takes the log start from the end of the log when it writes its edit, not when it collected the
    /// stripes.
    LogStartRecomputed,
    /// An SST that the manifest still lists is removed as soon as a merge has replaced it.
    ListedSstRemoved,
    /// An SST is removed although a checkpoint is about to list it.
    CheckpointListsRemoved,
    /// A failed manifest edit, which may still have reached the disk, is ignored when files are removed.
    FailedEditForgotten,
    /// A checkpoint records sealed memtables as flushed that are not.
    FlushedToAhead,
    /// SSTs left over by a crash are kept.
    OrphansKept,
    /// The number of an SST is reused after a crash.
    FileIdReused,

    // What recovery accepts.
    /// The log is read without the log buffer.
    LogBufferForgotten,
    /// A log record is accepted although its payload does not match its checksum.
    TornRecordBelieved,
    /// A damaged log record is skipped, and the log is read on behind it.
    DamagedRecordSkipped,
    /// A hole past the last sync is treated as damage.
    TailTakenForDamage,
    /// Damage below a later watermark is treated as a torn tail.
    DamageTakenForTail,
    /// Damage below the durable end recorded in the manifest is treated as a torn tail.
    DurableEndIgnored,
    /// A log that does not end where it was closed is accepted.
    CleanEndIgnored,
    /// Recovery does not record where it cut the log.
    CutNotRecorded,
    /// Recovery does not rewrite the tail of the log, which may be only in the cache.
    TailNotHardened,
    /// Recovery appends to an existing segment.
    OldSegmentAppendedTo,
    /// Operations that are already in SSTs are replayed.
    FlushedReplayed,
    /// Segments are replayed in the text order of their numbers.
    SegmentsOrderedAsText,
    /// Sequences continue right after the last one found, without a gap.
    SequencesReissued,
    /// The first write after a clean open does not cancel the clean end.
    CleanEndNotCancelled,
    /// A manifest edit is appended after a partially written one.
    EditAfterPartialEdit,
    /// A manifest is accepted although a log segment proves it to be rolled back.
    RolledBackManifestBelieved,
    /// A listed SST may be missing.
    MissingSstBelieved,
    /// SST blocks are accepted whatever their checksums.
    BlockChecksumIgnored,
    /// A read error ends a source of a merge.
    ReadErrorIsEnd,

    // Which versions are kept and found.
    /// A flush or a merge drops a tombstone although there are older runs.
    TombstoneDroppedEarly,
    /// A put does not cut the gap that contains its key.
    GapNotCut,
    /// A version that a snapshot still sees is dropped.
    SnapshotVersionDropped,
    /// A version is dropped in favour of one that is not visible yet.
    VersionAboveVisibleDropped,
    /// The filter of an SST holds the preceding key instead of each key.
    FilterOfWrongKey,
    /// A get reads the visible sequence before it loads the stripe's version.
    VisibleBeforeVersion,
    /// The newest sealed memtable is flushed first.
    FlushOutOfOrder,

    // Conditional writes and transactions.
    /// A conditional write does not look for anything newer under its locks.
    ConditionsNotCheckedAgain,
    /// What was decided first is returned, whatever was written.
    FirstResultReturned,
    /// Sealed memtables are not asked for anything newer.
    SealedNotChecked,
    /// Runs are asked whether something newer was flushed.
    RunsAskedForFlushes,
    /// A transaction does not check the ranges that it read.
    RangesNotChecked,
    /// A transaction does not check the keys that it found absent.
    AbsenceNotChecked,
    /// A transaction locks only the stripes that it writes to.
    ReadStripesNotLocked,

    // Space and locks.
    /// Newly created files do not count against the quota.
    NewFilesNotCounted,
    /// A database is opened without its lock.
    LockNotHeld,
}

bugs! {
    /// Bugs that only thread interleavings reveal; the tests of `kstone-shuttle` find them.
    Race:
    /// A close does not wait for running calls.
    CloseWithoutGate,
    /// A write becomes visible before its records are in the memtables.
    PublishedBeforeInserted,
    /// Workers are stopped without taking the queue's lock, which a worker about to sleep holds.
    StopWithoutLock,
    /// A worker is woken without taking the queue's lock.
    WakeWithoutLock,
    /// The timekeeper calls the listener without waking another worker to take over.
    ListenerKeepsTime,
    /// A worker sleeping by the old settings is not woken when settings change.
    NewSettingsUnheard,
    /// A waiting writer requests sealing again each time a sealing ends.
    SealingAskedForAlways,
    /// A snapshot reads the visible sequence before it takes the lock that registers it.
    SnapshotBeforeLock,
    /// A reader takes its sequence before it registers a watch, and reports gaps whatever it sees.
    WatchAfterSequence,
    /// The log is rotated without checking whether writers have rotated it meanwhile.
    RotatedBlindly,
    /// A conditional write looks for what is visible under its locks, not for what is inserted.
    CheckedAtVisible,
    /// A conditional write takes the visible sequence after it has read, not before.
    SeenAfterRead,
    /// A conditional write is refused for the sake of a write that is not visible yet.
    RefusedBeforeVisible,
    /// A flush does not wait until its records are visible. Harmless alone: a horizon is never above the visible
    /// sequence.
    FlushOfUnseen,
    /// A horizon may be above the visible sequence. Harmless alone: a flush waits until its records are visible.
    HorizonAboveVisible,
}

#[cfg(all(feature = "planted-bugs", debug_assertions))]
mod switch {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::marker::PhantomData;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Bug, Race};

    /// How often the switch of each bug was reached since it was last planted.
    static HITS: [AtomicU64; Bug::ALL.len()] = [const { AtomicU64::new(0) }; Bug::ALL.len()];

    type Write = Box<dyn FnOnce() -> io::Result<()>>;

    thread_local! {
        static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
        static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
        static RACES: RefCell<Vec<Race>> = const { RefCell::new(Vec::new()) };
        static KEPT: RefCell<Vec<Write>> = const { RefCell::new(Vec::new()) };
    }

    /// Whether this thread has that bug.
    pub(crate) fn planted(bug: Bug) -> bool {
        let is = CHOSEN.get() == Some(bug);
        if is && let Some(hits) = HITS.get(bug as usize) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
        is
    }

    /// Whether this thread has that race.
    pub(crate) fn raced(race: Race) -> bool {
        RACES.with_borrow(|races| races.contains(&race))
    }

    /// Defers a write until [`put_out`].
    pub(crate) fn put_off(write: impl FnOnce() -> io::Result<()> + 'static) -> io::Result<()> {
        KEPT.with_borrow_mut(|kept| kept.push(Box::new(write)));
        Ok(())
    }

    /// Performs the deferred writes.
    pub(crate) fn put_out() {
        for write in KEPT.take() {
            // A failure shows like any other: bytes are missing.
            let _ = write();
        }
    }

    /// Returns `value` after running the code set by [`meanwhile`].
    pub(crate) fn later<T: Copy>(value: T) -> T {
        if let Some(others) = MEANWHILE.take() {
            others();
        }
        value
    }

    /// Sets the code that other threads would run, once, at the point where this thread's bug matters.
    pub fn meanwhile(others: impl FnOnce() + 'static) {
        MEANWHILE.set(Some(Box::new(others)));
    }

    /// The planted bug of this thread, removed when dropped.
    #[derive(Debug)]
    pub struct Planted {
        bug: Bug,
        bound_to_thread: PhantomData<*const ()>,
    }

    impl Planted {
        /// How often the bug's switch was reached, on any thread, since the bug was last planted.
        pub fn hits(&self) -> u64 {
            HITS.get(self.bug as usize).map_or(0, |hits| hits.load(Ordering::Relaxed))
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            CHOSEN.set(None);
            MEANWHILE.take();
            KEPT.take();
        }
    }

    /// The races planted by [`race`], removed when dropped.
    #[derive(Debug)]
    pub struct Races {
        bound_to_thread: PhantomData<*const ()>,
    }

    impl Drop for Races {
        fn drop(&mut self) {
            RACES.take();
        }
    }

    /// Plants these races, on this thread only: all threads of the scheduler run on it.
    pub fn race(races: &[Race]) -> Races {
        RACES.set(races.to_vec());
        Races { bound_to_thread: PhantomData }
    }

    /// Plants a bug, on this thread only.
    pub fn plant(bug: Bug) -> Planted {
        CHOSEN.set(Some(bug));
        KEPT.take();
        if let Some(hits) = HITS.get(bug as usize) {
            hits.store(0, Ordering::Relaxed);
        }
        Planted { bug, bound_to_thread: PhantomData }
    }
}

#[cfg(not(all(feature = "planted-bugs", debug_assertions)))]
mod switch {
    use std::io;

    use super::{Bug, Race};

    #[inline(always)]
    pub(crate) const fn planted(_bug: Bug) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) const fn raced(_race: Race) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) fn put_off(_write: impl FnOnce() -> io::Result<()> + 'static) -> io::Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub(crate) const fn later<T: Copy>(value: T) -> T {
        value
    }

    #[inline(always)]
    pub(crate) fn put_out() {}
}

#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub use switch::{Planted, Races, meanwhile, plant, race};
pub(crate) use switch::{later, planted, put_off, put_out, raced};

#[cfg(all(test, feature = "planted-bugs", debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_on_the_thread_that_planted_it_until_its_guard_goes() {
        assert!(!planted(Bug::AckBeforeSync));
        let guard = plant(Bug::AckBeforeSync);
        assert!(planted(Bug::AckBeforeSync) && planted(Bug::AckBeforeSync) && !planted(Bug::BufferKept));
        assert_eq!(guard.hits(), 2);
        let elsewhere = || Bug::ALL.iter().any(|&bug| planted(bug));
        assert!(!std::thread::scope(|scope| scope.spawn(elsewhere).join().unwrap()));
        drop(guard);
        assert!(!Bug::ALL.iter().any(|&bug| planted(bug)));
    }

    #[test]
    fn each_says_what_it_is_in_a_sentence() {
        for what in Bug::ALL.iter().map(|bug| bug.what()).chain(Race::ALL.iter().map(|race| race.what())) {
            assert!(what.starts_with(char::is_uppercase) && what.ends_with('.'), "{what}");
        }
    }
}
