//! What the chapter says, as data: its tables, the results that its examples claim, and its targets. Times are in
//! nanoseconds, sizes in bytes, shares in percent.

use super::table::Says;
use super::verdict::Target;

/// One nanosecond, and what is made of it.
pub(crate) const US: f64 = 1e3;
/// A millisecond.
pub(crate) const MS: f64 = 1e6;
/// A second.
pub(crate) const S: f64 = 1e9;
/// Decimal, as the chapter counts.
pub(crate) const KB: f64 = 1e3;
/// Decimal, as the chapter counts.
pub(crate) const MB: f64 = 1e6;
/// Stripes that the chapter's totals are for.
pub(crate) const STRIPES: usize = 256;

/// The chapter's words, and the number in them.
pub(crate) type Number = (&'static str, f64);
/// The chapter's words, and the numbers between which they are.
pub(crate) type Range = (&'static str, f64, f64);

/// A row of section 23.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memtable {
    /// `max_memtable_records`.
    pub(crate) threshold: usize,
    /// Flushes per 100,000 writes.
    pub(crate) flushes: f64,
    /// Write throughput, in words.
    pub(crate) throughput: &'static str,
    /// Against the default, in percent.
    pub(crate) more: Option<f64>,
    /// Writes a second, of its example.
    pub(crate) rate: Option<Number>,
    /// Memory of a stripe.
    pub(crate) stripe_memory: Number,
    /// Memory of all 256.
    pub(crate) memory: Number,
    /// The log.
    pub(crate) log: Number,
    /// Recovery.
    pub(crate) recovery: Number,
}

/// The rows of the tables on throughput, memory and recovery.
pub(crate) const MEMTABLES: [Memtable; 4] = [
    Memtable {
        threshold: 500,
        flushes: 200.0,
        throughput: "Lower",
        more: None,
        rate: None,
        stripe_memory: ("~100 KB", 100.0 * KB),
        memory: ("~25 MB", 25.0 * MB),
        log: ("Small (~50MB)", 50.0 * MB),
        recovery: ("Fast (~100ms)", 100.0 * MS),
    },
    Memtable {
        threshold: 1000,
        flushes: 100.0,
        throughput: "Baseline",
        more: None,
        rate: Some(("50,000 writes/sec", 50_000.0)),
        stripe_memory: ("~200 KB", 200.0 * KB),
        memory: ("~50 MB", 50.0 * MB),
        log: ("Medium (~100MB)", 100.0 * MB),
        recovery: ("Medium (~200ms)", 200.0 * MS),
    },
    Memtable {
        threshold: 5000,
        flushes: 20.0,
        throughput: "+40% higher",
        more: Some(40.0),
        rate: Some(("70,000 writes/sec", 70_000.0)),
        stripe_memory: ("~1 MB", MB),
        memory: ("~256 MB", 256.0 * MB),
        log: ("Large (~500MB)", 500.0 * MB),
        recovery: ("Slow (~1s)", S),
    },
    Memtable {
        threshold: 10_000,
        flushes: 10.0,
        throughput: "+60% higher",
        more: Some(60.0),
        rate: Some(("80,000 writes/sec", 80_000.0)),
        stripe_memory: ("~2 MB", 2.0 * MB),
        memory: ("~512 MB", 512.0 * MB),
        log: ("Very large (~1GB)", 1000.0 * MB),
        recovery: ("Very slow (~2s)", 2.0 * S),
    },
];

/// A row of "Read Performance vs. SST Count": its name, the counts that are measured for it, P50 and P99.
pub(crate) const SST_COUNTS: [(&str, &[usize], Number, Number); 4] = [
    ("2-3", &[2], ("100μs", 100.0 * US), ("500μs", 500.0 * US)),
    ("5-10", &[5, 10], ("200μs", 200.0 * US), ("1ms", MS)),
    ("15-20", &[20], ("500μs", 500.0 * US), ("2ms", 2.0 * MS)),
    ("30+", &[30], ("1ms", MS), ("5ms", 5.0 * MS)),
];

/// A row of "Check Interval Impact": seconds, lag in words and seconds, processor time in words and percent.
pub(crate) const CHECK_INTERVALS: [(u64, Range, Range); 3] = [
    (10, ("Minimal (10-30s)", 10.0, 30.0), ("0.5-1% CPU", 0.5, 1.0)),
    (60, ("Low (1-3 min)", 60.0, 180.0), ("0.1-0.2% CPU", 0.1, 0.2)),
    (300, ("Moderate (5-15 min)", 300.0, 900.0), ("<0.05% CPU", 0.0, 0.05)),
];

/// A row of "Concurrent Compactions": how many, throughput against one, cores used, bytes a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concurrency {
    /// Compactions at the same time.
    pub(crate) concurrent: usize,
    /// Against one at a time.
    pub(crate) throughput: Range,
    /// Cores used.
    pub(crate) cores: Range,
    /// To and from the disk.
    pub(crate) disk: Number,
    /// For those who read meanwhile.
    pub(crate) latency: &'static str,
}

/// The rows of it.
pub(crate) const CONCURRENCY: [Concurrency; 4] = [
    Concurrency {
        concurrent: 1,
        throughput: ("Baseline", 1.0, 1.0),
        cores: ("Low (0.5-1 core)", 0.5, 1.0),
        disk: ("Low (~50MB/s)", 50.0 * MB),
        latency: "Minimal",
    },
    Concurrency {
        concurrent: 4,
        throughput: ("3-4x", 3.0, 4.0),
        cores: ("Medium (2-3 cores)", 2.0, 3.0),
        disk: ("Medium (~200MB/s)", 200.0 * MB),
        latency: "Low",
    },
    Concurrency {
        concurrent: 8,
        throughput: ("6-7x", 6.0, 7.0),
        cores: ("High (4-6 cores)", 4.0, 6.0),
        disk: ("High (~400MB/s)", 400.0 * MB),
        latency: "Medium",
    },
    Concurrency {
        concurrent: 16,
        throughput: ("8-10x (diminishing)", 8.0, 10.0),
        cores: ("Very high (8-12 cores)", 8.0, 12.0),
        disk: ("Very high (~600MB/s)", 600.0 * MB),
        latency: "High",
    },
];

/// A row of "Memory vs. False Positive Rate": bits, memory of a million keys, false positives in percent.
pub(crate) const BITS: [(usize, Number, Number); 6] = [
    (6, ("750 KB", 750.0 * KB), ("6%", 6.0)),
    (8, ("1 MB", MB), ("2%", 2.0)),
    (10, ("1.25 MB", 1.25 * MB), ("1%", 1.0)),
    (12, ("1.5 MB", 1.5 * MB), ("0.4%", 0.4)),
    (16, ("2 MB", 2.0 * MB), ("0.05%", 0.05)),
    (20, ("2.5 MB", 2.5 * MB), ("0.008%", 0.008)),
];

/// The scenario of 10 SSTs and a key that is in none: bits, disk reads for it, its cost.
pub(crate) const SCENARIO: [(usize, f64, Number); 3] =
    [(6, 0.6, ("~610μs", 610.0 * US)), (10, 0.1, ("~110μs", 110.0 * US)), (16, 0.005, ("~15μs", 15.0 * US))];

/// What the guidelines of section 23.2 promise of a threshold against the default of 10, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threshold {
    /// `sst_threshold`.
    pub(crate) threshold: usize,
    /// Of writes a second, more.
    pub(crate) writes: Range,
    /// Of the time of a read, more.
    pub(crate) reads: Range,
    /// Of what compaction writes, as a multiple.
    pub(crate) merging: Option<Number>,
}

/// The guidelines.
pub(crate) const THRESHOLDS: [Threshold; 3] = [
    Threshold {
        threshold: 5,
        writes: ("20-40% lower write throughput", -40.0, -20.0),
        reads: ("30-50% faster reads", -50.0, -30.0),
        merging: Some(("2x more compaction overhead", 2.0)),
    },
    Threshold {
        threshold: 10,
        writes: ("the default", 0.0, 0.0),
        reads: ("the default", 0.0, 0.0),
        merging: Some(("the default", 1.0)),
    },
    Threshold {
        threshold: 20,
        writes: ("40-60% higher write throughput", 40.0, 60.0),
        reads: ("50-100% slower reads", 50.0, 100.0),
        merging: None,
    },
];

/// A row of section 23.5's comparison: the preset, writes a second, P99 of reads, memory.
pub(crate) const CONFIGURATIONS: [(&str, Number, Number, Number); 3] = [
    ("write-optimized", ("80k ops/sec", 80_000.0), ("5ms", 5.0 * MS), ("500MB", 500.0 * MB)),
    ("balanced", ("50k ops/sec", 50_000.0), ("1ms", MS), ("50MB", 50.0 * MB)),
    ("read-optimized", ("30k ops/sec", 30_000.0), ("500μs", 500.0 * US), ("100MB", 100.0 * MB)),
];

/// Its criterion sample: nanoseconds for 1000 items, and items a second.
pub(crate) const PUTS: (Number, Number) = (("45.456 ms", 45.456 * MS), ("21,999 elem/s", 21_999.0));

/// Write throughput, section 23.10.
pub(crate) const WRITE_THROUGHPUT: Target =
    Target { good: 50_000.0, excellent: 100_000.0, more_is_better: true };
/// P99 of reads with a warm cache.
pub(crate) const READ_P99: Target = Target { good: 2.0 * MS, excellent: 500.0 * US, more_is_better: false };
/// Memory for a million records.
pub(crate) const MEMORY: Target = Target { good: 100.0 * MB, excellent: 50.0 * MB, more_is_better: false };
/// Recovery.
pub(crate) const RECOVERY: Target = Target { good: S, excellent: 200.0 * MS, more_is_better: false };
/// Bytes written to SSTs for each byte of the user.
pub(crate) const WRITE_AMPLIFICATION: Target = Target { good: 5.0, excellent: 3.0, more_is_better: false };

/// What the chapter says about 256 stripes, for a database with fewer: in its words, and as its share of the number.
pub(crate) fn of_stripes((text, value): Number, stripes: usize) -> Says {
    let share = value * stripes as f64 / STRIPES as f64;
    match stripes {
        STRIPES => Says::about(text, value),
        _ => Says::about(format!("{text} at {STRIPES} stripes"), share),
    }
}

/// In its words and as a number.
pub(crate) fn about((text, value): Number) -> Says {
    Says::about(text, value)
}

/// In its words and as a range.
pub(crate) fn between((text, low, high): Range) -> Says {
    Says::between(text, low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_all_stripes_are_compared_with_their_share() {
        let says = of_stripes(("~50 MB", 50.0 * MB), 16);
        assert_eq!((says.text.as_str(), says.low), ("~50 MB at 256 stripes", Some(3.125 * MB)));
        assert_eq!(of_stripes(("~50 MB", 50.0 * MB), 256), Says::about("~50 MB", 50.0 * MB));
    }

    #[test]
    fn the_rows_are_consistent_where_the_chapter_is() {
        for row in MEMTABLES {
            assert_eq!(row.flushes * row.threshold as f64, 100_000.0, "100k writes in the steady state");
            assert_eq!(row.stripe_memory.1, 200.0 * row.threshold as f64, "200 bytes a record");
        }
        for (bits, memory, _) in BITS {
            assert_eq!(memory.1, bits as f64 * 1e6 / 8.0);
        }
    }
}
