//! Planted bugs: a test of the tests. Each is a mistake that an engine like this one could have, made at the one place
//! where it would be, by a switch of one line; `tests/it/planted.rs` sets each in turn and must see a suite fail.
//!
//! With the feature `planted-bugs`, which only tests have, and in builds with debug assertions, a thread chooses which
//! bug it has; all other builds have none, and the compiler leaves nothing of the switches. A choice holds on one thread:
//! the suites that are to find it run all work there, and tests beside them are not disturbed. What no suite on one
//! thread can find is a [`Race`]: `kstone-shuttle` plants those.

macro_rules! bugs {
    ($(#[doc = $about:literal])+ $Bug:ident: $($(#[doc = $what:literal])+ $bug:ident,)+) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl $Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)+];

            /// What it is.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($what),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

bugs! {
    /// What can be planted.
    Bug:
    // What is acknowledged and what is synced.
    /// A write at `Sync` is acknowledged before its sync.
    AckBeforeSync,
    /// Small records wait in a buffer of the process for the next write or sync.
    BufferKept,
    /// A sync covers only the newest segment of the log.
    OnlyNewestSegmentSynced,
    /// The watermark moves before the sync that it tells of.
    WatermarkBeforeSync,
    /// A batch is two records of the log.
    BatchInTwoRecords,
    /// What a call could not write whole counts as written.
    ShortWriteIgnored,
    /// A failed write of the log is not undone.
    RefusedWriteKept,
    /// A poisoned handle accepts writes again.
    PoisonForgotten,
    /// The background forgets to sync the log before the memtable of what it flushed is gone.
    CheckpointBeforeLogSync,
    /// A checkpoint lists SSTs that were not synced.
    SstNotSynced,
    /// A checkpoint does not sync the names of flushed SSTs.
    FlushedNamesNotSynced,
    /// A checkpoint does not sync the names of merged SSTs.
    MergedNamesNotSynced,
    /// The name of a new database's directory is not synced.
    CreationNotSynced,
    /// The name of a new segment of the log is not synced.
    SegmentNameNotSynced,
    /// An edit of the manifest is not synced.
    EditNotSynced,
    /// The name of a rewritten manifest is not synced.
    ManifestNameNotSynced,
    /// A rewritten manifest gets its name before its bytes are synced.
    ManifestRenamedBeforeSync,

    // What is removed, and when.
    /// The log before a checkpoint goes before the edit that no longer needs it is durable.
    LogDroppedBeforeEdit,
    /// The start of the log is where it ends when a checkpoint writes its edit, not when it looked at the stripes.
    LogStartRecomputed,
    /// An SST that the manifest lists is removed as soon as a merge has replaced it.
    ListedSstRemoved,
    /// An SST is removed that a checkpoint is about to list.
    CheckpointListsRemoved,
    /// What an edit of the manifest lists that failed, and may be on disk all the same, counts for nothing.
    FailedEditForgotten,
    /// A checkpoint says that sealed memtables are flushed that are not.
    FlushedToAhead,
    /// What a crash left over of SSTs is kept.
    OrphansKept,
    /// The number of an SST is given out again after a crash.
    FileIdReused,

    // What recovery believes.
    /// A record of the log is believed although its payload is not what its checksum says.
    TornRecordBelieved,
    /// A damaged record of the log is left out, and the log read on behind it.
    DamagedRecordSkipped,
    /// A hole past the last sync is taken for damage.
    TailTakenForDamage,
    /// Damage below a later watermark is taken for a torn tail.
    DamageTakenForTail,
    /// Damage below what the manifest says was durable is taken for a torn tail.
    DurableEndIgnored,
    /// A log that does not end where it was closed is believed.
    CleanEndIgnored,
    /// Recovery does not record where it cut the log.
    CutNotRecorded,
    /// Recovery does not write again what only the cache may have.
    TailNotHardened,
    /// Recovery appends to the segment that it found.
    OldSegmentAppendedTo,
    /// Operations are replayed that have reached SSTs already.
    FlushedReplayed,
    /// Segments are replayed in the order of their numbers as text.
    SegmentsOrderedAsText,
    /// Sequences go on where those that were found end.
    SequencesReissued,
    /// The first write after a clean open does not cancel the clean end.
    CleanEndNotCancelled,
    /// An edit of the manifest follows one that could be written only in part.
    EditAfterPartialEdit,
    /// A manifest is believed that is older than a segment of the log says it was.
    RolledBackManifestBelieved,
    /// A listed SST need not be there.
    MissingSstBelieved,
    /// Blocks of SSTs are believed whatever their checksums say.
    BlockChecksumIgnored,
    /// An error of a read ends a source of a merge.
    ReadErrorIsEnd,

    // Which versions are kept and found.
    /// A flush or a merge drops a tombstone although there are older runs.
    TombstoneDroppedEarly,
    /// A put does not end what was known of the range that it lies in: that nothing is there.
    GapNotCut,
    /// A version is dropped that a snapshot still sees.
    SnapshotVersionDropped,
    /// A version is dropped for one that cannot be seen yet.
    VersionAboveVisibleDropped,
    /// The filter of an SST has the key before each key.
    FilterOfWrongKey,
    /// A get reads what may be seen before it takes the stripe's version.
    VisibleBeforeVersion,
    /// The newest sealed memtable is flushed first.
    FlushOutOfOrder,

    // Space and locks.
    /// Files that are created do not count for the quota.
    NewFilesNotCounted,
    /// A database is opened without its lock.
    LockNotHeld,
}

bugs! {
    /// What only interleavings of threads can find: the tests of `kstone-shuttle` do.
    Race:
    /// A close does not wait for the calls that are under way.
    CloseWithoutGate,
    /// A write can be seen before its records are in the memtables.
    PublishedBeforeInserted,
    /// Workers are stopped without the queue's lock, which one that is falling asleep holds.
    StopWithoutLock,
    /// A worker is woken without the queue's lock.
    WakeWithoutLock,
    /// The worker that keeps the time calls the listener, and wakes nobody to keep it meanwhile.
    ListenerKeepsTime,
    /// Who sleeps for as long as the old settings said is not woken by new ones.
    NewSettingsUnheard,
    /// A writer that waits asks for sealing again whenever sealing has ended.
    SealingAskedForAlways,
    /// A snapshot reads what it sees before it takes the lock that registers it.
    SnapshotBeforeLock,
    /// A reader takes its sequence before it registers to tell of gaps, and tells of them whatever it sees.
    WatchAfterSequence,
    /// A full log goes on in another segment although writers have filled others meanwhile.
    RotatedBlindly,
    /// A flush does not wait until what it writes can be seen. Harmless by itself: a horizon is at most what can be.
    FlushOfUnseen,
    /// A horizon may be above what can be seen. Harmless by itself: flushes wait until what they write can be seen.
    HorizonAboveVisible,
}

#[cfg(all(feature = "planted-bugs", debug_assertions))]
mod switch {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::marker::PhantomData;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Bug, Race};

    /// How often each was met since it was planted last.
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

    /// Whether this thread has that one.
    pub(crate) fn raced(race: Race) -> bool {
        RACES.with_borrow(|races| races.contains(&race))
    }

    /// Puts off a write until [`put_out`].
    pub(crate) fn put_off(write: impl FnOnce() -> io::Result<()> + 'static) -> io::Result<()> {
        KEPT.with_borrow_mut(|kept| kept.push(Box::new(write)));
        Ok(())
    }

    /// Makes the writes that were put off.
    pub(crate) fn put_out() {
        for write in KEPT.take() {
            // A failure is found as any other: bytes are missing.
            let _ = write();
        }
    }

    /// The same value, after what others do in the meantime ([`meanwhile`]).
    pub(crate) fn later<T: Copy>(value: T) -> T {
        if let Some(others) = MEANWHILE.take() {
            others();
        }
        value
    }

    /// What others do, once, at the moment that the bug of this thread is about.
    pub fn meanwhile(others: impl FnOnce() + 'static) {
        MEANWHILE.set(Some(Box::new(others)));
    }

    /// The bug of this thread, until this is dropped.
    #[derive(Debug)]
    pub struct Planted {
        bug: Bug,
        bound_to_thread: PhantomData<*const ()>,
    }

    impl Planted {
        /// How often a place was passed where it is, on any thread, since somebody last planted it.
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

    /// What [`race`] planted, until this is dropped.
    #[derive(Debug)]
    pub struct Races {
        bound_to_thread: PhantomData<*const ()>,
    }

    impl Drop for Races {
        fn drop(&mut self) {
            RACES.take();
        }
    }

    /// Plants these, on this thread only: all threads of the scheduler are one.
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
