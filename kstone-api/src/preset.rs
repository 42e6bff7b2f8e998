//! [`Preset`]: settings for common workloads.

use std::fmt;

use kstone_core::{CompactionConfig, DatabaseConfig, Error, Result};

/// Named settings for a workload: a starting point before you measure.
///
/// Each preset states its expected trade-off ([`Preset::trade_off`]); `docs/tuning.md` explains how to measure whether
/// it holds for your data and machine. Settings that a preset does not mention keep their defaults.
///
/// ```
/// use kstone_api::{Database, Preset};
///
/// # fn main() -> kstone_api::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("mydb.keystone");
/// let db = Database::builder(&path).preset(Preset::write_heavy()).create()?;
/// assert_eq!(db.config().max_memtable_records, 10_000);
///
/// // The same preset by name, with another setting changed.
/// let preset = Preset::by_name("write-heavy")?;
/// db.set_config(preset.database.with_bloom_bits_per_key(12))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preset {
    /// The name, for [`Preset::by_name`]: lower case, with hyphens.
    pub name: &'static str,
    /// Settings of the log, the memtables and the SSTs.
    pub database: DatabaseConfig,
    /// When and how SSTs are merged.
    pub compaction: CompactionConfig,
}

/// Defines the constructors, and the table that [`Preset::all`] and [`Preset::trade_off`] read: the text is also the
/// documentation, so that the two cannot differ.
macro_rules! presets {
    ($($(#[doc = $text:expr])+ $function:ident, $name:literal, $database:expr, $compaction:expr;)*) => {
        impl Preset {
            $(
                $(#[doc = $text])+
                #[must_use]
                pub fn $function() -> Self {
                    Self { name: $name, database: $database, compaction: $compaction }
                }
            )*

            /// All presets.
            pub fn all() -> Vec<Self> {
                vec![$(Self::$function()),*]
            }

            /// The benefit and the cost, in a sentence or two.
            pub fn trade_off(&self) -> &'static str {
                match self.name {
                    $($name => concat!($($text),+).trim_start(),)*
                    _ => "",
                }
            }
        }
    };
}

presets! {
    /// For a start, and for mixed reads and writes: all defaults, memtables of 1000 records, compaction at 10 runs.
    balanced, "balanced", DatabaseConfig::new(), CompactionConfig::new();

    /// For ingestion and batch work: a tenth of the flushes and half of the merging. Reads check twice as many runs,
    /// memtables take more memory, recovery replays a longer log.
    write_optimized, "write-optimized",
        DatabaseConfig::new().with_max_memtable_records(10_000),
        CompactionConfig::new().with_sst_threshold(20).with_check_interval(300).with_max_concurrent(2);

    /// For point reads that users wait for: half as many runs to check, hardly any false positives of filters. Twice
    /// the merging, and filters of 1.6 times the size.
    read_optimized, "read-optimized",
        DatabaseConfig::new().with_max_memtable_records(1000).with_bloom_bits_per_key(16),
        CompactionConfig::new().with_sst_threshold(5).with_check_interval(30).with_max_concurrent(8);

    /// Like write-optimized, with the default sweep once a minute: deletes and overwrites are noticed sooner.
    write_heavy, "write-heavy",
        DatabaseConfig::new().with_max_memtable_records(10_000),
        CompactionConfig::new().with_sst_threshold(20).with_max_concurrent(2);

    /// Like read-optimized, with the default sweep once a minute: a little less background work.
    read_heavy, "read-heavy",
        DatabaseConfig::new().with_max_memtable_records(1000).with_bloom_bits_per_key(16),
        CompactionConfig::new().with_sst_threshold(5).with_max_concurrent(8);

    /// For little memory: half the memtables and smaller filters. More and smaller flushes, more merging, all on one
    /// thread; twice the false positives.
    memory_constrained, "memory-constrained",
        DatabaseConfig::new().with_max_memtable_records(500).with_bloom_bits_per_key(8),
        CompactionConfig::new().with_max_concurrent(1);

    /// For 16 cores and more with NVMe storage: 8 concurrent compactions. They take cores and disk from everything
    /// else.
    high_end_server, "high-end-server", DatabaseConfig::new(), CompactionConfig::new().with_max_concurrent(8);

    /// For 4 to 8 cores with SATA flash storage: 4 concurrent compactions, the default.
    mid_range_server, "mid-range-server", DatabaseConfig::new(), CompactionConfig::new().with_max_concurrent(4);

    /// For 2 to 4 cores with a rotating disk: one compaction at a time, so that the disk does not seek between several.
    /// Runs pile up, and reads slow down, if writes come faster than one thread merges.
    low_end_server, "low-end-server", DatabaseConfig::new(), CompactionConfig::new().with_max_concurrent(1);

    /// For steady latencies: at most two concurrent compactions, and a sweep only every two minutes. Space of deleted
    /// and overwritten items is reclaimed later.
    latency_sensitive, "latency-sensitive",
        DatabaseConfig::new(),
        CompactionConfig::new().with_max_concurrent(2).with_check_interval(120);

    /// For keys that are overwritten often: a sweep every 10 seconds notices garbage early. Somewhat more background
    /// work.
    high_churn, "high-churn", DatabaseConfig::new(), CompactionConfig::new().with_check_interval(10);

    /// For data that mostly grows: a sweep every 5 minutes, which is enough if little becomes garbage.
    low_churn, "low-churn", DatabaseConfig::new(), CompactionConfig::new().with_check_interval(300);

    /// For bulk loads followed by a manual `trigger_compaction`: nothing is merged automatically, and runs do not slow
    /// down writers. Until then, reads get slower with every flush.
    batch, "batch", DatabaseConfig::new(), CompactionConfig::disabled();

    /// For log ingestion, 100,000 writes a second and hardly any reads: large memtables, up to 30 runs, one compaction
    /// at a time. Reads check many runs.
    log_ingestion, "log-ingestion",
        DatabaseConfig::new().with_max_memtable_records(10_000),
        CompactionConfig::new().with_sst_threshold(30).with_check_interval(600).with_max_concurrent(1);

    /// For a cache, 50,000 reads and 5,000 writes a second with a P99 below a millisecond: more of the data in
    /// memtables, at most 4 runs, precise filters. Much merging for each byte written.
    low_latency_cache, "low-latency-cache",
        DatabaseConfig::new().with_max_memtable_records(2000).with_bloom_bits_per_key(16),
        CompactionConfig::new().with_sst_threshold(4).with_check_interval(15).with_max_concurrent(8);

    /// For a device with 256 MB of memory and an SD card, 100 writes and 500 reads a second: small memtables and
    /// filters, one compaction at a time. The cost is throughput.
    embedded, "embedded",
        DatabaseConfig::new().with_max_memtable_records(200).with_bloom_bits_per_key(8),
        CompactionConfig::new().with_sst_threshold(8).with_check_interval(120).with_max_concurrent(1);
}

impl Preset {
    /// The preset with this name.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] lists the valid names.
    pub fn by_name(name: &str) -> Result<Self> {
        let all = Self::all();
        let names: Vec<_> = all.iter().map(|preset| preset.name).collect();
        let why = format!("there is no preset {name:?}; presets are {}", names.join(", "));
        all.into_iter()
            .find(|preset| preset.name == name)
            .ok_or(Error::InvalidConfig { field: "preset", why })
    }

    /// The Rust code for these settings: two expressions, with every setting that is not the default.
    ///
    /// ```
    /// let code = kstone_api::Preset::memory_constrained().rust_code();
    /// assert_eq!(code, "\
    /// let database = DatabaseConfig::new()
    ///     .with_max_memtable_records(500)
    ///     .with_bloom_bits_per_key(8);
    /// let compaction = CompactionConfig::new()
    ///     .with_max_concurrent(1);
    /// ");
    /// ```
    pub fn rust_code(&self) -> String {
        let (database, compaction) = (self.database.rust_code(), self.compaction.rust_code());
        format!("let database = {database};\nlet compaction = {compaction};\n")
    }
}

/// The name and the code.
impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "// {}: {}\n{}", self.name, self.trade_off(), self.rust_code())
    }
}
