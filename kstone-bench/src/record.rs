//! Trials and their results, as data: the JSON that `run`, `sweep` and `chapter` write, and that `compare` and
//! `report` read.
//!
//! A *trial* is one process with one database in a fresh directory; it runs *steps*, one after the other, on that
//! database. A file holds trials of several engines and settings, in the order in which they ran. A change that a reader
//! of old files would misread changes [`SCHEMA`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chapter::ChapterTable;
use crate::engine::{Counters, Durability, EngineSpec, MarkKind, counter};

pub const SCHEMA: &str = "kstone-bench/1";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    pub schema: String,
    /// The command line, without the program's path.
    pub command: String,
    /// When it began, RFC 3339.
    pub started: String,
    pub machine: Machine,
    /// What makes these figures doubtful: load on the machine, a dirty tree, debug build. Empty when nothing does.
    pub warnings: Vec<String>,
    /// In the order in which they ran.
    pub trials: Vec<Trial>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chapter: Option<Vec<ChapterTable>>,
}

/// The machine and the build, so that no number travels alone. What could not be found out is "unknown" or 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Threads that run at the same time.
    pub cores: usize,
    pub memory_bytes: u64,
    pub governor: String,
    /// Kernel's name and version.
    pub kernel: String,
    /// Of the directory that the databases are in.
    pub file_system: String,
    /// The device below it, and whether it turns.
    pub disk: String,
    /// Median time of an fsync after 4 KiB appended, in nanoseconds.
    pub fsync_p50_nanos: u64,
    /// Median time of a read of 4 KiB that is in no cache, in nanoseconds; 0 where that cannot be measured.
    pub read_4k_p50_nanos: u64,
    /// Load average over a minute when it began.
    pub load: f64,
    pub rustc: String,
    pub version: String,
    /// The commit, with `+` when the tree differed from it.
    pub commit: String,
    /// Features, peers mostly.
    pub features: Vec<String>,
    /// `release` or `debug`.
    pub profile: String,
    pub allocator: String,
}

/// What a trial is to do. The process that runs it gets this as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSpec {
    pub engine: EngineSpec,
    /// What to do, in this order, on the same database.
    pub steps: Vec<StepSpec>,
    /// Items that the database is made for: numbers of keys are below this.
    pub items: u64,
    pub value_bytes: usize,
    pub threads: usize,
    pub durability: Durability,
    pub seed: u64,
    /// Bytes of memory, page cache included, that the process may use; `None`: no limit.
    #[serde(default)]
    pub memory_limit: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    pub workload: String,
    /// Operations to do; `None`: as many as the workload says for that many items.
    #[serde(default)]
    pub operations: Option<u64>,
    /// Seconds after which it ends even so.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Operations a second that are offered, however fast the engine is; `None`: each thread sends its next request as
    /// soon as it has the answer.
    #[serde(default)]
    pub rate: Option<f64>,
}

impl TrialSpec {
    /// By one thread, buffered, with values of 200 bytes.
    pub fn of(engine: EngineSpec, steps: Vec<StepSpec>, items: u64) -> Self {
        let (durability, memory_limit) = (Durability::Buffered, None);
        Self { engine, steps, items, value_bytes: 200, threads: 1, durability, seed: 42, memory_limit }
    }
}

impl StepSpec {
    /// All of that workload, in a closed loop.
    pub fn of(workload: &str) -> Self {
        Self { workload: workload.into(), operations: None, seconds: None, rate: None }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    pub spec: TrialSpec,
    /// From 0, for each engine.
    pub number: usize,
    /// One for each step that ended.
    pub steps: Vec<Step>,
    #[serde(default)]
    pub error: Option<String>,
    /// The limit on memory was in force. `false` although the spec has one: it could not be set, and the data may fit in
    /// memory.
    #[serde(default)]
    pub memory_limited: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    pub workload: String,
    /// Of its writes, if the workload decides that itself; otherwise that of the trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Operations done, warm-up left out.
    pub operations: u64,
    /// Seconds they took.
    pub seconds: f64,
    pub rate: f64,
    /// Operations a second that were offered, if the loop was open.
    pub offered: Option<f64>,
    /// Reads that found nothing.
    pub not_found: u64,
    /// Wrong answers; anything but 0 is a bug of the engine or the harness.
    pub wrong: u64,
    /// Operations and seconds before the figures begin.
    pub warm_up_operations: u64,
    pub warm_up_seconds: f64,
    /// Whether throughput had become steady by then.
    pub steady: bool,
    /// Latencies by kind of operation: `get`, `put`, `delete`, `multi_get`, `query`, `scan`, `read_modify_write`.
    pub latencies: BTreeMap<String, Latency>,
    /// What happened when.
    pub timeline: Vec<Slice>,
    /// Ends of flushes and merges: seconds since the figures began, and what ended.
    pub marks: Vec<(f64, MarkKind)>,
    pub resources: Resources,
    /// What the engine counted while figures were; counters that are no totals have their value at the end.
    pub counters: Counters,
    /// Bytes written to SSTs, log and all, for each byte of keys and values.
    pub write_amplification: Option<f64>,
    /// Bytes on disk at the end for each byte of keys and values that is live.
    pub space_amplification: Option<f64>,
    /// Bytes that the directory takes at the end.
    pub disk_bytes: u64,
}

impl Step {
    /// A counter by another that is not 0.
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
    /// From the moment an operation was due to its answer (open loop), so that waiting counts; otherwise service time,
    /// from its start.
    pub from_intended: bool,
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    /// 90 % were not slower.
    pub p90: u64,
    /// 99 % were not slower.
    pub p99: u64,
    /// 99.9 % were not slower.
    pub p999: u64,
    pub max: u64,
    /// All of it: an HdrHistogram, V2, compressed or not, in base64.
    pub histogram: String,
    /// The same from the start of each operation instead of when it was due; only where that differs.
    pub service: Option<Box<Latency>>,
}

/// A piece of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// Where it ends, in seconds since the figures began.
    pub end: f64,
    /// Operations that ended within.
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
    /// Seconds of processor time in the program.
    pub cpu_user: f64,
    /// In the kernel.
    pub cpu_system: f64,
    /// Bytes that came from the device.
    pub read_bytes: u64,
    /// Bytes that went to the page cache on their way to the device.
    pub write_bytes: u64,
    /// The most memory that was resident, mapped files included, in bytes.
    pub peak_resident: u64,
    /// The most anonymous memory, in bytes.
    pub peak_anonymous: u64,
    /// The longest that any one operation took, in nanoseconds.
    pub longest: u64,
}
