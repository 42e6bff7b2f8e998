//! Trials and their results, as data: the JSON that `run`, `sweep`, `speed` and `chapter` write, and that `compare` and
//! `report` read.
//!
//! A *trial* is one process with one database in a fresh directory; it runs *steps*, one after the other, on that
//! database. A file holds trials of several engines and settings, in the order in which they ran. Any change that would
//! mislead a reader of old files requires a change of [`SCHEMA`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chapter::ChapterTable;
use crate::engine::{Counters, Durability, EngineSpec, MarkKind, counter};
use crate::speed::SpeedTable;
use crate::workload::Place;

pub const SCHEMA: &str = "kstone-bench/1";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    pub schema: String,
    /// The command line, without the program's path.
    pub command: String,
    /// The start time, RFC 3339.
    pub started: String,
    pub machine: Machine,
    /// Reasons to doubt these figures: load on the machine, a dirty tree, a debug build. Empty if there are none.
    pub warnings: Vec<String>,
    /// In the order in which they ran.
    pub trials: Vec<Trial>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chapter: Option<Vec<ChapterTable>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Vec<SpeedTable>>,
}

/// The machine and the build, so that no figure is recorded without them. Unknown facts are "unknown" or 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// The number of hardware threads.
    pub cores: usize,
    pub memory_bytes: u64,
    pub governor: String,
    /// The kernel's name and version.
    pub kernel: String,
    /// The file system of the directory that holds the databases.
    pub file_system: String,
    /// The device below it, and whether it is rotational.
    pub disk: String,
    /// Median time of an fsync after 4 KiB appended, in nanoseconds.
    pub fsync_p50_nanos: u64,
    /// Median time of a read of 4 KiB that is in no cache, in nanoseconds; 0 where that cannot be measured.
    pub read_4k_p50_nanos: u64,
    /// The load average over a minute, at the start.
    pub load: f64,
    pub rustc: String,
    pub version: String,
    /// The commit, followed by `+` if the tree differed from it.
    pub commit: String,
    /// Cargo features, mostly peers.
    pub features: Vec<String>,
    /// `release` or `debug`.
    pub profile: String,
    pub allocator: String,
}

/// The specification of a trial. The process that runs it receives this as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSpec {
    pub engine: EngineSpec,
    /// The steps to run, in this order, on the same database.
    pub steps: Vec<StepSpec>,
    /// The number of items in the database: item numbers are below this.
    pub items: u64,
    pub value_bytes: usize,
    pub threads: usize,
    pub durability: Durability,
    pub seed: u64,
    /// Bytes of memory, page cache included, that the process may use; `None`: no limit.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// The layout of the keys, unless a workload requires one.
    #[serde(default)]
    pub place: Place,
    /// Whether no part of a value compresses; otherwise half of it does.
    #[serde(default)]
    pub incompressible: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    pub workload: String,
    /// The number of operations; `None`: as many as the workload defines for the number of items.
    #[serde(default)]
    pub operations: Option<u64>,
    /// Seconds after which the step ends in any case.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Offered operations a second, however fast the engine is; `None`: each thread sends its next request as soon as
    /// it has the answer.
    #[serde(default)]
    pub rate: Option<f64>,
}

impl TrialSpec {
    /// A trial with one thread, buffered, with values of 200 bytes.
    pub fn of(engine: EngineSpec, steps: Vec<StepSpec>, items: u64) -> Self {
        let (durability, memory_limit, place) = (Durability::Buffered, None, Place::Any);
        Self {
            engine,
            steps,
            items,
            value_bytes: 200,
            threads: 1,
            durability,
            seed: 42,
            memory_limit,
            place,
            incompressible: false,
        }
    }
}

impl StepSpec {
    /// The whole workload, in a closed loop.
    pub fn of(workload: &str) -> Self {
        Self { workload: workload.into(), operations: None, seconds: None, rate: None }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    pub spec: TrialSpec,
    /// Counted from 0, for each engine.
    pub number: usize,
    /// One result for each step that ended.
    pub steps: Vec<Step>,
    #[serde(default)]
    pub error: Option<String>,
    /// Whether the limit on memory was in force. `false` although the spec has a limit: it could not be set, and the
    /// data may fit in memory.
    #[serde(default)]
    pub memory_limited: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    pub workload: String,
    /// The durability of the writes, if the workload defines it; otherwise that of the trial applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Operations done, not counting the warm-up.
    pub operations: u64,
    /// Seconds they took.
    pub seconds: f64,
    pub rate: f64,
    /// Offered operations a second, in an open loop.
    pub offered: Option<f64>,
    /// Reads that found nothing.
    pub not_found: u64,
    /// Wrong answers; anything but 0 is a bug of the engine or the harness.
    pub wrong: u64,
    /// Operations and seconds before measuring started.
    pub warm_up_operations: u64,
    pub warm_up_seconds: f64,
    /// Whether throughput had become steady by then.
    pub steady: bool,
    /// Latencies by kind of operation: `get`, `put`, `delete`, `multi_get`, `query`, `scan`, `read_modify_write`.
    pub latencies: BTreeMap<String, Latency>,
    /// The step as a sequence of slices of time.
    pub timeline: Vec<Slice>,
    /// Ends of flushes and merges: seconds since measuring started, and the kind of work.
    pub marks: Vec<(f64, MarkKind)>,
    pub resources: Resources,
    /// The engine's counters over the measurement; counters that are not totals have their value at the end.
    pub counters: Counters,
    /// Bytes written to SSTs, log and other files, for each byte of keys and values.
    pub write_amplification: Option<f64>,
    /// Bytes on disk at the end, for each live byte of keys and values.
    pub space_amplification: Option<f64>,
    /// Size of the directory at the end, in bytes.
    pub disk_bytes: u64,
    /// Bytes written to the page cache for the device, those of the warm-up included.
    pub written_bytes: u64,
}

impl Step {
    /// One counter divided by another that is not 0.
    pub fn share(&self, part: &str, whole: &str) -> Option<f64> {
        let whole = self.counters.get(whole).filter(|whole| **whole > 0.0)?;
        Some(self.counters.get(part)? / whole)
    }

    pub fn runs_per_get(&self) -> Option<f64> {
        self.share(counter::RUNS_LOOKED_AT, counter::GETS)
    }

    /// The share of filter tests of absent keys that passed.
    pub fn false_positives(&self) -> Option<f64> {
        self.share(counter::FILTER_FALSE_POSITIVES, counter::FILTER_NEGATIVES)
    }
}

/// Latencies of one kind of operation, in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Whether latencies count from the moment an operation was due (open loop), so that waiting is included; otherwise
    /// they are service times, from its start.
    pub from_intended: bool,
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    /// 90 % were at most this slow.
    pub p90: u64,
    /// 99 % were at most this slow.
    pub p99: u64,
    /// 99.9 % were at most this slow.
    pub p999: u64,
    pub max: u64,
    /// The whole distribution: an HdrHistogram, V2, compressed or not, in base64.
    pub histogram: String,
    /// The same from the start of each operation instead of when it was due; only if it differs.
    pub service: Option<Box<Latency>>,
}

/// A slice of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// Its end, in seconds since measuring started.
    pub end: f64,
    /// Operations that ended within it.
    pub operations: u64,
    /// The slowest of them, in nanoseconds.
    pub slowest: u64,
    /// Anonymous memory at its end, in bytes.
    pub anonymous_bytes: u64,
    /// Runs in all stripes at its end, if the engine reports them.
    pub runs: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// User processor time, in seconds.
    pub cpu_user: f64,
    /// System processor time, in seconds.
    pub cpu_system: f64,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Bytes written to the page cache for the device.
    pub write_bytes: u64,
    /// The maximum resident memory, mapped files included, in bytes.
    pub peak_resident: u64,
    /// The maximum anonymous memory, in bytes.
    pub peak_anonymous: u64,
    /// The longest single operation, in nanoseconds.
    pub longest: u64,
}
