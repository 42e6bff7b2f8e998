//! The workloads, as a table of what is done to a database.
//!
//! Names and meanings follow RocksDB's db_bench and YCSB where those have the workload. [`plan`] determines what
//! several workloads on one database need; [`keys`] draws the items.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::data::Layout;
use crate::engine::Durability;

pub mod keys;
pub mod plan;

/// All workloads, from `workload/workloads.toml`.
#[expect(clippy::expect_used, reason = "a table of this program, which every test reads")]
pub static WORKLOADS: LazyLock<Vec<Workload>> = LazyLock::new(|| {
    let table: BTreeMap<String, Vec<Workload>> =
        toml::from_str(include_str!("workload/workloads.toml")).expect("the workloads");
    table.into_values().flatten().collect()
});

/// Items per partition, where keys are in partitions.
pub const PARTITION_ITEMS: u64 = 1000;

/// Items per partition of [`Place::Rows`].
pub const ROWS: u64 = 100;

pub const LARGE_VALUE: usize = 100_000;

/// The divisor of the number of items in trials with large values.
pub const LARGE_DIVISOR: u64 = 1000;

pub const MULTI_GET_KEYS: usize = 16;

pub const QUERY_ITEMS: u64 = 50;

/// How long an example's load is offered, in seconds.
pub const EXAMPLE_SECONDS: f64 = 60.0;

/// A workload: a row of the table, which omits defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// The name used by commands.
    pub name: String,
    pub about: String,
    pub task: Task,
    /// For [`Task::Operations`]: the operations, drawn with these weights.
    pub mix: Vec<(Operation, u32)>,
    pub keys: Keys,
    /// One additional thread does only this, on uniformly chosen items. An offered rate then applies to that thread:
    /// the others go as fast as they can.
    pub beside: Option<Operation>,
    pub place: Place,
    /// One operation per this many items, unless a step sets a number of operations or a duration.
    pub one_in: u64,
    pub least: u64,
    /// Whether all items must exist: unless an earlier step fills the database, a step that does is inserted.
    #[serde(default = "yes")]
    pub filled: bool,
    /// Whether it uses values of [`LARGE_VALUE`] bytes.
    pub large: bool,
    /// The durability of its writes, overriding the trial's.
    pub durability: Option<Durability>,
    /// Whether it is one of the specification's examples, with the settings of the preset of that name.
    pub example: Option<Example>,
}

fn yes() -> bool {
    true
}

/// The layout of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    #[default]
    Any,
    /// In the order of the items' numbers.
    Ordered,
    /// In partitions of [`PARTITION_ITEMS`].
    Partitions,
    /// In partitions of [`ROWS`], with keys of 16 bytes.
    Rows,
    OnePartition,
    /// In an order in which items beyond the last are between the others, not after them all.
    Spread,
}

impl Place {
    pub fn layout(self) -> Option<Layout> {
        match self {
            Self::Any | Self::Spread => None,
            Self::Ordered => Some(Layout::Ordered),
            Self::Partitions => Some(Layout::Partitions(PARTITION_ITEMS)),
            Self::Rows => Some(Layout::Rows(ROWS)),
            Self::OnePartition => Some(Layout::OnePartition),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Operations, one after the other in each thread.
    #[default]
    Operations,
    /// Each thread reads everything in key order, once. Each item counts as an operation.
    Scan,
    /// The same, in whatever order the engine reads fastest.
    ScanUnordered,
    /// Compaction of everything, once.
    Compact,
    /// Waiting until no background work is running, once.
    Settle,
    /// The database is closed in order and opened again, once.
    CloseOpen,
    /// The process is killed, and another one opens the database, once.
    Reopen,
    /// The same, with the files dropped from the page cache in between.
    ReopenCold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Writes an item, whether it exists or not.
    Put,
    /// Writes the item with the next number.
    Insert,
    Delete,
    Get,
    /// Reads an item that was never written.
    GetMissing,
    /// Reads [`MULTI_GET_KEYS`] items at one point in time.
    MultiGet,
    /// Reads [`QUERY_ITEMS`] items of a partition, starting where there are that many.
    Query,
    /// Reads a whole partition.
    Partition,
    /// Reads 1 to 100 items of a partition, starting at an item; fewer at the end of the partition.
    Scan,
    ReadModifyWrite,
}

impl Operation {
    /// The name of its latencies in results.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Put | Self::Insert => "put",
            Self::Delete => "delete",
            Self::Get | Self::GetMissing => "get",
            Self::MultiGet => "multi_get",
            Self::Query | Self::Partition | Self::Scan => "query",
            Self::ReadModifyWrite => "read_modify_write",
        }
    }

    /// Whether it changes the database.
    pub fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Insert | Self::Delete | Self::ReadModifyWrite)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// Each item once, in the order of the numbers.
    InOrder,
    /// Each item once, shuffled.
    Shuffled,
    /// Every item with the same probability.
    #[default]
    Uniform,
    /// The same, among one item in a hundred.
    Hot,
    /// A few items often: Zipf with exponent 0.99, with the popular ones scattered over all items.
    Zipf,
    /// By Zipf, too, with the newest items being the most popular.
    Latest,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Example {
    /// Offered operations a second, for [`EXAMPLE_SECONDS`] unless a step sets another duration.
    pub rate: f64,
    /// The memory limit, in bytes.
    pub memory: u64,
}

impl Workload {
    pub fn by_name(name: &str) -> anyhow::Result<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name).ok_or_else(|| {
            let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name.as_str()).collect();
            anyhow::anyhow!("there is no workload named {name:?}; the workloads are {}", names.join(", "))
        })
    }

    /// Whether all items exist after it, unless it was cut short.
    pub fn fills(&self) -> bool {
        let each_once = matches!(self.keys, Keys::InOrder | Keys::Shuffled) && self.one_in <= 1;
        each_once && matches!(self.mix[..], [(Operation::Put, _)])
    }

    /// Whether it changes the database.
    pub fn writes(&self) -> bool {
        self.operations().any(Operation::writes)
    }

    pub fn deletes(&self) -> bool {
        self.operations().any(|operation| operation == Operation::Delete)
    }

    pub fn operations(&self) -> impl Iterator<Item = Operation> {
        self.mix.iter().map(|(operation, _)| *operation).chain(self.beside)
    }

    /// The number of operations for this many items; `None` if they are limited by time.
    pub fn operations_for(&self, items: u64) -> Option<u64> {
        match self.task {
            _ if self.example.is_some() => None,
            Task::Operations | Task::Scan | Task::ScanUnordered => {
                Some((items / self.one_in.max(1)).max(self.least).max(1))
            }
            _ => Some(1),
        }
    }
}
