//! The workloads: what is done to a database, as a table.
//!
//! Names and meanings follow RocksDB's db_bench and YCSB where they have one. [`plan`] decides what several of them on
//! one database need, [`keys`] draws the items.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::data::Layout;
use crate::engine::Durability;

pub mod keys;
pub mod plan;

/// All workloads, as `workload/workloads.toml` has them.
#[expect(clippy::expect_used, reason = "a table of this program, which every test reads")]
pub static WORKLOADS: LazyLock<Vec<Workload>> = LazyLock::new(|| {
    let table: BTreeMap<String, Vec<Workload>> =
        toml::from_str(include_str!("workload/workloads.toml")).expect("the workloads");
    table.into_values().flatten().collect()
});

/// Items of a partition where keys are in partitions.
pub const PARTITION_ITEMS: u64 = 1000;

pub const LARGE_VALUE: usize = 100_000;

/// By how much a trial with large values has fewer items.
pub const LARGE_DIVISOR: u64 = 1000;

pub const MULTI_GET_KEYS: usize = 16;

pub const QUERY_ITEMS: u64 = 50;

/// How long an example's load is offered.
pub const EXAMPLE_SECONDS: f64 = 60.0;

/// A workload: a row of the table, which omits what is usual.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// What commands call it.
    pub name: String,
    pub about: String,
    pub task: Task,
    /// Of [`Task::Operations`]: which, drawn by these weights.
    pub mix: Vec<(Operation, u32)>,
    pub keys: Keys,
    /// One more thread does only this, on items chosen evenly. An offered rate is then that thread's: the others go as
    /// fast as they can.
    pub beside: Option<Operation>,
    pub place: Place,
    /// One operation for this many items, unless a step has a number of operations or a time of its own.
    pub one_in: u64,
    pub least: u64,
    /// It needs all items to be there: without a step that fills before it, one is inserted.
    #[serde(default = "yes")]
    pub filled: bool,
    /// It is about values of [`LARGE_VALUE`] bytes.
    pub large: bool,
    /// The durability of its writes, whatever the trial's is.
    pub durability: Option<Durability>,
    /// It is one of the specification's examples, and its settings are the preset of that name.
    pub example: Option<Example>,
}

fn yes() -> bool {
    true
}

/// Where keys lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    #[default]
    Any,
    /// In the order of their numbers.
    Ordered,
    /// In partitions of [`PARTITION_ITEMS`].
    Partitions,
    OnePartition,
    /// Where a number beyond the last item is between the keys of others, not behind them all.
    Spread,
}

impl Place {
    pub fn layout(self) -> Option<Layout> {
        match self {
            Self::Any | Self::Spread => None,
            Self::Ordered => Some(Layout::Ordered),
            Self::Partitions => Some(Layout::Partitions(PARTITION_ITEMS)),
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
    /// Each thread reads everything in the order of keys, once. An item is an operation.
    Scan,
    /// Compaction of everything, once.
    Compact,
    /// Waiting until nothing goes on in the background, once.
    Settle,
    /// The process is killed and another one opens the database, once.
    Reopen,
    /// The same, with the files taken out of the page cache in between.
    ReopenCold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Writes an item, be it there or not.
    Put,
    /// Writes the item with the next number.
    Insert,
    Delete,
    Get,
    /// Reads an item that was never written.
    GetMissing,
    /// Reads [`MULTI_GET_KEYS`] items at one moment.
    MultiGet,
    /// Reads [`QUERY_ITEMS`] items of a partition, from a place that has as many after it.
    Query,
    /// Reads 1 to 100 items of a partition from an item on, fewer at the partition's end.
    Scan,
    ReadModifyWrite,
}

impl Operation {
    /// What results call its latencies.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Put | Self::Insert => "put",
            Self::Delete => "delete",
            Self::Get | Self::GetMissing => "get",
            Self::MultiGet => "multi_get",
            Self::Query | Self::Scan => "query",
            Self::ReadModifyWrite => "read_modify_write",
        }
    }

    /// Whether it changes the database.
    pub fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Insert | Self::Delete | Self::ReadModifyWrite)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// Each once, in the order of numbers.
    InOrder,
    /// Each once, shuffled.
    Shuffled,
    /// Each with the same chance.
    #[default]
    Uniform,
    /// The same, out of one in a hundred.
    Hot,
    /// A few of them often: Zipf with exponent 0.99, the popular ones scattered over all.
    Zipf,
    /// By Zipf as well, the newest being the most popular.
    Latest,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Example {
    /// Operations a second that are offered, for [`EXAMPLE_SECONDS`] unless a step says otherwise.
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

    /// Whether all items are there after it, when it was not cut short.
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

    /// Operations for that many items; `None` when they are limited by time.
    pub fn operations_for(&self, items: u64) -> Option<u64> {
        match self.task {
            _ if self.example.is_some() => None,
            Task::Operations | Task::Scan => Some((items / self.one_in.max(1)).max(self.least).max(1)),
            _ => Some(1),
        }
    }
}
