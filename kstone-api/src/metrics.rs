//! [`DatabaseMetrics`]: counts and average latencies of a program's own operations.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts a program's reads and writes and sums their latencies, as measured by the program.
///
/// Threads share it by reference. The engine has its own counters, see [`Database::stats`](crate::Database::stats);
/// this is for a program's measurements: an operation that consists of several calls, or one part of the workload.
///
/// ```
/// let metrics = kstone_api::DatabaseMetrics::new();
/// metrics.record_write(30);
/// metrics.record_write(50);
/// assert_eq!(metrics.to_string(), "Writes: 2, avg latency: 40μs\n");
/// ```
#[derive(Debug, Default)]
pub struct DatabaseMetrics {
    write_count: AtomicU64,
    read_count: AtomicU64,
    write_latency_sum: AtomicU64,
    read_latency_sum: AtomicU64,
}

impl DatabaseMetrics {
    /// Metrics with all counts zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one write that took this many microseconds.
    pub fn record_write(&self, latency_us: u64) {
        self.write_count.fetch_add(1, Ordering::Relaxed);
        self.write_latency_sum.fetch_add(latency_us, Ordering::Relaxed);
    }

    /// Counts one read that took this many microseconds.
    pub fn record_read(&self, latency_us: u64) {
        self.read_count.fetch_add(1, Ordering::Relaxed);
        self.read_latency_sum.fetch_add(latency_us, Ordering::Relaxed);
    }

    /// The number of writes.
    pub fn writes(&self) -> u64 {
        self.write_count.load(Ordering::Relaxed)
    }

    /// The number of reads.
    pub fn reads(&self) -> u64 {
        self.read_count.load(Ordering::Relaxed)
    }

    /// The mean latency of a write in whole microseconds; `None` without writes.
    pub fn average_write_us(&self) -> Option<u64> {
        self.write_latency_sum.load(Ordering::Relaxed).checked_div(self.writes())
    }

    /// The mean latency of a read in whole microseconds; `None` without reads.
    pub fn average_read_us(&self) -> Option<u64> {
        self.read_latency_sum.load(Ordering::Relaxed).checked_div(self.reads())
    }

    /// Prints the metrics to standard output; [`to_string`](ToString::to_string) returns the same text.
    pub fn report(&self) {
        print!("{self}");
    }
}

/// One line for writes and one for reads, each ending with a line feed; no line if the count is zero.
impl fmt::Display for DatabaseMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(average) = self.average_write_us() {
            writeln!(f, "Writes: {}, avg latency: {average}μs", self.writes())?;
        }
        if let Some(average) = self.average_read_us() {
            writeln!(f, "Reads: {}, avg latency: {average}μs", self.reads())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_of_what_was_counted() {
        let metrics = DatabaseMetrics::new();
        assert_eq!((metrics.average_write_us(), metrics.average_read_us()), (None, None));
        assert_eq!(metrics.to_string(), "");
        metrics.record_read(7);
        assert_eq!(metrics.to_string(), "Reads: 1, avg latency: 7μs\n");
        metrics.record_write(10);
        metrics.record_write(21);
        assert_eq!((metrics.writes(), metrics.average_write_us()), (2, Some(15)));
        assert_eq!((metrics.reads(), metrics.average_read_us()), (1, Some(7)));
        assert_eq!(metrics.to_string(), "Writes: 2, avg latency: 15μs\nReads: 1, avg latency: 7μs\n");
    }
}
