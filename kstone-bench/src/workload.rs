//! What is done to a database: the workloads, as a table.
//!
//! Names and meanings follow RocksDB's db_bench and YCSB where they have one. [`plan`] decides what several of them on
//! one database need, [`keys`] draws the items.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::data::Layout;
use crate::engine::Durability;

pub mod keys;
pub mod plan;

/// All workloads, as `workload/workloads.toml` has them.
#[expect(clippy::expect_used, reason = "a table of this program, which every test reads")]
pub static WORKLOADS: LazyLock<Vec<Workload>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct Table {
        workload: Vec<Row>,
    }
    let table: Table = toml::from_str(include_str!("workload/workloads.toml")).expect("the workloads");
    table.workload.into_iter().map(Workload::from).collect()
});

/// Items of a partition where keys are in partitions.
pub const PARTITION_ITEMS: u64 = 1000;

/// Bytes of a large value.
pub const LARGE_VALUE: usize = 100_000;

/// How many items there are for one large one: a trial with large values has that many fewer.
pub const LARGE_DIVISOR: u64 = 1000;

/// Keys of one `multi_get`.
pub const MULTI_GET_KEYS: usize = 16;

/// Items that a query asks for.
pub const QUERY_ITEMS: u64 = 50;

/// A workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What commands call it.
    pub name: String,
    /// What it does, in a few words.
    pub about: String,
    /// Where its keys lie.
    pub place: Place,
    /// What it does.
    pub task: Task,
    /// How much of it, if nobody says.
    pub amount: Amount,
    /// It wants all items to be there: without a step that fills before it, one is put in.
    pub filled: bool,
    /// It is about values of [`LARGE_VALUE`] bytes.
    pub large: bool,
    /// Its writes have that, whatever the trial's have.
    pub durability: Option<Durability>,
    /// It is one of the specification's examples, and its settings are the preset of that name.
    pub example: Option<Example>,
}

/// Where keys lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere.
    Any,
    /// There only.
    Only(Layout),
    /// Where a number beyond the last item is between the keys of others, not behind them all.
    Spread,
}

/// What a workload does.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Operations, one after the other in each thread.
    Operations {
        /// Which, drawn by these weights.
        mix: Vec<(Operation, u32)>,
        /// On which items.
        keys: Keys,
        /// One more thread does only this, on items chosen evenly. An offered rate is then that thread's: the others
        /// go as fast as they can.
        beside: Option<Operation>,
    },
    /// Each thread reads everything in the order of keys, once. An item is an operation.
    Scan,
    /// Compaction of everything, once.
    Compact,
    /// Waiting until nothing goes on in the background, once.
    Settle,
    /// The process is killed and another one opens the database, once.
    Reopen {
        /// The files are taken out of the page cache in between.
        cold: bool,
    },
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Writes an item, be it there or not.
    Put,
    /// Writes the item with the next number.
    Insert,
    /// Removes an item.
    Delete,
    /// Reads an item.
    Get,
    /// Reads an item that was never written.
    GetMissing,
    /// Reads [`MULTI_GET_KEYS`] items at one moment.
    MultiGet,
    /// Reads [`QUERY_ITEMS`] items of a partition, from such a place that there are as many.
    Query,
    /// Reads 1 to 100 items of a partition from an item on, fewer at the partition's end.
    Scan,
    /// Reads an item and writes it.
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

    /// Whether the database is another one after it.
    pub fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Insert | Self::Delete | Self::ReadModifyWrite)
    }
}

/// How items are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// Each once, in the order of numbers.
    InOrder,
    /// Each once, shuffled.
    Shuffled,
    /// All alike.
    Uniform,
    /// All alike out of one in a hundred.
    Hot,
    /// Few of them often: Zipf with exponent 0.99, the popular ones scattered over all.
    Zipf,
    /// The same, the newest being the most popular.
    Latest,
}

/// How much is done if nobody says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// As many operations as there are items, or that many times fewer, but not below `least`.
    Items {
        /// One operation for this many items.
        each: u64,
        /// At least this many operations.
        least: u64,
    },
    /// This many seconds.
    Seconds(f64),
    /// It is one thing.
    Once,
}

/// What an example of the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Example {
    /// Operations a second that are offered.
    pub rate: f64,
    /// Bytes of memory that there are.
    pub memory: u64,
}

impl Workload {
    /// The workload with that name.
    pub fn by_name(name: &str) -> anyhow::Result<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name).ok_or_else(|| {
            let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name.as_str()).collect();
            anyhow::anyhow!("there is no workload named {name:?}; there are {}", names.join(", "))
        })
    }

    /// Whether all items are there after it, when it was not cut short.
    pub fn fills(&self) -> bool {
        let each_once = |keys| matches!(keys, Keys::InOrder | Keys::Shuffled);
        let everything = matches!(self.amount, Amount::Items { each: 1, .. });
        let puts = |mix: &[(Operation, u32)]| matches!(mix, [(Operation::Put, _)]);
        matches!(&self.task, Task::Operations { mix, keys, .. } if puts(mix) && each_once(*keys))
            && everything
    }

    /// Whether the database is another one after it.
    pub fn writes(&self) -> bool {
        self.operations().any(Operation::writes)
    }

    /// Whether it removes items.
    pub fn deletes(&self) -> bool {
        self.operations().any(|operation| operation == Operation::Delete)
    }

    /// All operations that it may do.
    pub fn operations(&self) -> impl Iterator<Item = Operation> {
        let (mix, beside) = match &self.task {
            Task::Operations { mix, beside, .. } => (mix.as_slice(), *beside),
            _ => (&[][..], None),
        };
        mix.iter().map(|(operation, _)| *operation).chain(beside)
    }

    /// Operations for that many items; `None` when they are limited by time.
    pub fn operations_for(&self, items: u64) -> Option<u64> {
        match self.amount {
            Amount::Items { each, least } => Some((items / each.max(1)).max(least)),
            Amount::Seconds(_) => None,
            Amount::Once => Some(1),
        }
    }
}

/// A row of the table: what it does not say is usual.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Row {
    name: String,
    about: String,
    mix: Vec<(Operation, u32)>,
    keys: Option<Keys>,
    beside: Option<Operation>,
    task: Named,
    place: Named,
    one_in: Option<u64>,
    least: Option<u64>,
    filled: Option<bool>,
    large: bool,
    durability: Option<Durability>,
    example: Option<Example>,
}

/// What a row has under `task` and `place`.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Named {
    #[default]
    Usual,
    Scan,
    Compact,
    Settle,
    Reopen,
    ReopenCold,
    Ordered,
    Partitions,
    OnePartition,
    Spread,
}

impl From<Row> for Workload {
    fn from(row: Row) -> Self {
        let amount = match (row.example, row.task) {
            (Some(_), _) => Amount::Seconds(60.0),
            (None, Named::Usual | Named::Scan) => {
                Amount::Items { each: row.one_in.unwrap_or(1), least: row.least.unwrap_or(1) }
            }
            _ => Amount::Once,
        };
        let task = match row.task {
            Named::Scan => Task::Scan,
            Named::Compact => Task::Compact,
            Named::Settle => Task::Settle,
            Named::Reopen => Task::Reopen { cold: false },
            Named::ReopenCold => Task::Reopen { cold: true },
            _ => {
                let keys = row.keys.unwrap_or(Keys::Uniform);
                Task::Operations { mix: row.mix, keys, beside: row.beside }
            }
        };
        let place = match row.place {
            Named::Ordered => Place::Only(Layout::Ordered),
            Named::Partitions => Place::Only(Layout::Partitions(PARTITION_ITEMS)),
            Named::OnePartition => Place::Only(Layout::OnePartition),
            Named::Spread => Place::Spread,
            _ => Place::Any,
        };
        let Row { name, about, filled, large, durability, example, .. } = row;
        Self { name, about, place, task, amount, filled: filled.unwrap_or(true), large, durability, example }
    }
}
