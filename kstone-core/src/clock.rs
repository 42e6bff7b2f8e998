//! Time and randomness, behind a trait so that tests are deterministic.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The source of the engine's time and random salts.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since the Unix epoch. May jump in both directions, by years: used only for stamps, and for the age
    /// of stamps from an earlier handle.
    fn unix_ms(&self) -> u64;
    /// Time since an arbitrary fixed moment. Never goes backwards.
    fn monotonic(&self) -> Duration;
    /// A random number: unpredictable in production, seeded in tests.
    fn random(&self) -> u64;
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is where the engine reads the time")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the engine reads the time")]
    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn random(&self) -> u64 {
        // Each RandomState is keyed from system randomness; hashing a constant with it yields 64 bits of that.
        RandomState::new().hash_one(0u8)
    }
}

/// Both clocks, read at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) unix_ms: u64,
    pub(crate) monotonic: Duration,
}

impl Now {
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self { unix_ms: clock.unix_ms(), monotonic: clock.monotonic() }
    }
}

/// When something was written, as well as that can be known, to compute its age.
/// The wall clock may be years off when a stamp is made, and be corrected afterwards. Anything written through this
/// handle ages by the monotonic clock. The age of a stamp from an earlier handle can only be taken from the wall clock;
/// a stamp in the future proves only that the clock was wrong at one of the two moments, so it counts as older than any
/// limit. Counting from the open instead would restart at each open, and never finish for a database that is opened
/// often. So deleted data may leave the disk earlier than requested, at the cost of a merge, but never later.
/// The wall clock still counts where it gives the higher age: the monotonic clock stops while the machine sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since {
    unix_ms: u64,
    /// When this handle first saw it, by the monotonic clock.
    met: Duration,
    /// Its age at that moment.
    age_then: Duration,
}

impl Since {
    /// Something written at this moment.
    pub(crate) fn written(now: Now) -> Self {
        Self { unix_ms: now.unix_ms, met: now.monotonic, age_then: Duration::ZERO }
    }

    /// Something that an earlier handle stamped; 0 means no stamp.
    pub(crate) fn stamped(unix_ms: u64, now: Now) -> Self {
        let known = now.unix_ms.checked_sub(unix_ms).filter(|_| unix_ms > 0);
        Self { unix_ms, met: now.monotonic, age_then: known.map_or(Duration::MAX, Duration::from_millis) }
    }

    pub(crate) fn age(&self, now: Now) -> Duration {
        let here = self.age_then.saturating_add(now.monotonic.saturating_sub(self.met));
        here.max(Duration::from_millis(now.unix_ms.saturating_sub(self.unix_ms)))
    }

    /// The stamp from which a reader with the current clock computes this age. Never 0.
    pub(crate) fn stamp(&self, now: Now) -> u64 {
        let age = u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX);
        now.unix_ms.saturating_sub(age).max(1)
    }
}

/// A clock that moves only on request and draws numbers from a seed, for tests.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    /// Offset of the wall clock from `now_ms`; wraps around.
    wall_off_ms: AtomicU64,
    random: AtomicU64,
}

impl ManualClock {
    /// A clock that starts at a fixed moment.
    pub fn new(seed: u64) -> Self {
        Self {
            now_ms: AtomicU64::new(1_700_000_000_000),
            wall_off_ms: AtomicU64::new(0),
            random: AtomicU64::new(seed),
        }
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// Sets the wall clock without letting time pass.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        let off = unix_ms.wrapping_sub(self.now_ms.load(Ordering::Relaxed));
        self.wall_off_ms.store(off, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed).wrapping_add(self.wall_off_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now(clock: &ManualClock) -> Now {
        Now::of(clock)
    }

    #[test]
    fn what_was_seen_ages_whatever_the_wall_clock_shows() {
        let clock = ManualClock::new(1);
        let start = clock.unix_ms();
        let written = Since::written(now(&clock));
        let found = Since::stamped(start - 60_000, now(&clock));
        clock.advance(SECOND);
        for (unix_ms, age) in [(start - 3_600_000, 1), (0, 1), (start + 1000, 1), (start + 5000, 5)] {
            clock.set_unix_ms(unix_ms);
            assert_eq!(written.age(now(&clock)), SECOND * age, "{unix_ms}");
            assert_eq!(found.age(now(&clock)), SECOND * (60 + age), "{unix_ms}");
        }
    }

    #[test]
    fn what_was_stamped_in_the_future_is_older_than_any_limit_until_that_is_past() {
        let clock = ManualClock::new(1);
        let start = clock.unix_ms();
        for unix_ms in [start + 1, u64::MAX, 0] {
            assert_eq!(Since::stamped(unix_ms, now(&clock)).age(now(&clock)), Duration::MAX, "{unix_ms}");
        }
        assert_eq!(Since::stamped(start, now(&clock)).age(now(&clock)), Duration::ZERO);
        assert_eq!(Since::stamped(1, now(&clock)).age(now(&clock)), Duration::from_millis(start - 1));
    }

    #[test]
    fn a_stamp_says_the_age_to_the_next_handle() {
        let clock = ManualClock::new(1);
        let start = clock.unix_ms();
        let ahead = Since::stamped(start + 9, now(&clock));
        let written = Since::written(now(&clock));
        clock.advance(SECOND);
        clock.set_unix_ms(start - 1_000_000);
        let stamp = written.stamp(now(&clock));
        assert_eq!(stamp, start - 1_001_000);
        assert_eq!(Since::stamped(stamp, now(&clock)).age(now(&clock)), SECOND);
        assert_eq!(ahead.stamp(now(&clock)), 1);
        clock.set_unix_ms(0);
        assert_eq!(written.stamp(now(&clock)), 1, "0 means no stamp");
    }
}
