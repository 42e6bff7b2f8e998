//! Determines when operations are due.

#![expect(clippy::disallowed_methods, reason = "an offered rate is kept by the clock")]

use std::time::{Duration, Instant};

/// Sleeping ends late by the system's timer slack, so the last part is spent spinning.
const SLACK: Duration = Duration::from_micros(120);

/// The rate of one thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    nanos: f64,
    shift: f64,
    /// How long before the due time to stop sleeping and start spinning.
    spin: Duration,
}

impl Pace {
    /// This many operations a second, starting after a fraction `shift` of the time between two of them.
    pub(super) fn new(start: Instant, rate: f64, shift: f64) -> Self {
        Self { start, nanos: 1e9 / rate, shift, spin: SLACK }
    }

    /// The same, but only sleeps: operations start late, several at a time, and the thread leaves its core to others in
    /// between.
    pub(super) fn without_spinning(self) -> Self {
        Self { spin: Duration::ZERO, ..self }
    }

    /// When operation `i` is due, whatever happened to the previous ones.
    pub(super) fn due(&self, i: u64) -> Instant {
        self.start + Duration::from_nanos(((i as f64 + self.shift) * self.nanos) as u64)
    }

    /// Waits until operation `i` is due, if that is in the future, and returns that moment.
    pub(super) fn wait(&self, i: u64) -> Instant {
        let due = self.due(i);
        let left = due.saturating_duration_since(Instant::now());
        if left > self.spin {
            std::thread::sleep(left - self.spin);
        }
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_due_at_equal_distances_whatever_the_clock_says() {
        let start = Instant::now();
        let (first, second) = (Pace::new(start, 1000.0, 0.0), Pace::new(start, 1000.0, 0.5));
        assert_eq!(first.due(0), start);
        assert_eq!(first.due(5), start + Duration::from_millis(5));
        assert_eq!(second.due(5), start + Duration::from_micros(5500));
        assert_eq!(first.wait(0), start, "what is past is due when it was");
        let due = second.wait(0);
        assert!(Instant::now() >= due);
        let due = Pace::new(start, 1000.0, 10.0).without_spinning().wait(0);
        assert!(Instant::now() >= due, "without spinning, it is never early either");
    }
}
