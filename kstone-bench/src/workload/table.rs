//! The table.

use super::Operation::{Delete, Get, GetMissing, Insert, MultiGet, Put, Query, ReadModifyWrite, Scan};
use super::{Amount, Example, Keys, Operation, PARTITION_ITEMS, Place, Task, Workload};
use crate::data::Layout;
use crate::engine::Durability;

const GIB: u64 = 1 << 30;
const IN_PARTITIONS: Place = Place::Only(Layout::Partitions(PARTITION_ITEMS));
const ALL: Amount = Amount::Items { each: 1, least: 1 };

const fn one_in(each: u64, least: u64) -> Amount {
    Amount::Items { each, least }
}

const fn does(mix: &'static [(Operation, u32)], keys: Keys) -> Task {
    Task::Operations { mix, keys, beside: None }
}

/// Keys anywhere, as many operations as items, on a filled database, values of the trial's size.
const fn work(name: &'static str, about: &'static str, task: Task) -> Workload {
    let (place, amount) = (Place::Any, ALL);
    Workload { name, about, place, task, amount, filled: true, large: false, durability: None, example: None }
}

const fn example(workload: Workload, rate: f64, preset: &'static str, memory: u64) -> Workload {
    let example = Some(Example { rate, preset, memory });
    Workload { example, amount: Amount::Seconds(60.0), ..workload }
}

const fn empty(workload: Workload) -> Workload {
    Workload { filled: false, ..workload }
}

/// All workloads.
pub const WORKLOADS: &[Workload] = &[
    empty(work(
        "load",
        "writes every item once, shuffled, buffered: what is put before steps that need it",
        does(&[(Put, 1)], Keys::Shuffled),
    ))
    .buffered(),
    Workload {
        place: Place::Only(Layout::Ordered),
        ..empty(work(
            "fillseq",
            "writes every item once, in the order of keys",
            does(&[(Put, 1)], Keys::InOrder),
        ))
    },
    empty(work("fillrandom", "writes every item once, shuffled", does(&[(Put, 1)], Keys::Shuffled))),
    work("overwrite", "writes items that are there, chosen evenly", does(&[(Put, 1)], Keys::Uniform)),
    Workload {
        amount: one_in(100, 100),
        durability: Some(Durability::Sync),
        ..empty(work(
            "fillsync",
            "writes one item in a hundred, shuffled, each on the disk before the next",
            does(&[(Put, 1)], Keys::Shuffled),
        ))
    },
    Workload {
        large: true,
        ..empty(work(
            "fill100K",
            "writes every item once, shuffled, values of 100 KB, a thousandth of the items",
            does(&[(Put, 1)], Keys::Shuffled),
        ))
    },
    work(
        "deleterandom",
        "removes items chosen evenly, be they there or not",
        does(&[(Delete, 1)], Keys::Uniform),
    ),
    work("readseq", "each thread reads everything once, in the order of keys", Task::Scan),
    work("readrandom", "reads items chosen evenly", does(&[(Get, 1)], Keys::Uniform)),
    Workload {
        place: Place::Spread,
        ..work("readmissing", "reads items that were never written", does(&[(GetMissing, 1)], Keys::Uniform))
    },
    work("readhot", "reads items chosen evenly out of one in a hundred", does(&[(Get, 1)], Keys::Hot)),
    Workload {
        place: IN_PARTITIONS,
        amount: one_in(50, 100),
        ..work("seekrandom", "queries of 50 items of a partition", does(&[(Query, 1)], Keys::Uniform))
    },
    Workload {
        amount: one_in(16, 100),
        ..work("multireadrandom", "reads of 16 items at one moment", does(&[(MultiGet, 1)], Keys::Uniform))
    },
    work(
        "readwhilewriting",
        "reads items chosen evenly while one more thread writes, as fast as it can or at the rate",
        Task::Operations { mix: &[(Get, 1)], keys: Keys::Uniform, beside: Some(Put) },
    ),
    work(
        "readrandomwriterandom",
        "90 % reads, 10 % writes, items chosen evenly",
        does(&[(Get, 90), (Put, 10)], Keys::Uniform),
    ),
    work(
        "updaterandom",
        "reads an item and writes it, chosen evenly",
        does(&[(ReadModifyWrite, 1)], Keys::Uniform),
    ),
    once("compact", "compacts everything", Task::Compact),
    once("waitforcompaction", "waits until nothing goes on in the background", Task::Settle),
    once("recover", "the process is killed, another one opens the database", Task::Reopen { cold: false }),
    once("recover-cold", "the same, the files out of the page cache in between", Task::Reopen { cold: true }),
    work("ycsb-a", "YCSB A: 50 % reads, 50 % updates, Zipf", does(&[(Get, 50), (Put, 50)], Keys::Zipf)),
    work("ycsb-b", "YCSB B: 95 % reads, 5 % updates, Zipf", does(&[(Get, 95), (Put, 5)], Keys::Zipf)),
    work("ycsb-c", "YCSB C: reads, Zipf", does(&[(Get, 1)], Keys::Zipf)),
    work(
        "ycsb-d",
        "YCSB D: 95 % reads of the latest, 5 % inserts",
        does(&[(Get, 95), (Insert, 5)], Keys::Latest),
    ),
    Workload {
        place: IN_PARTITIONS,
        amount: one_in(10, 100),
        ..work(
            "ycsb-e",
            "YCSB E: 95 % scans of 1 to 100 items within a partition, Zipf, 5 % inserts",
            does(&[(Scan, 95), (Insert, 5)], Keys::Zipf),
        )
    },
    work(
        "ycsb-f",
        "YCSB F: 50 % reads, 50 % read-modify-writes, Zipf",
        does(&[(Get, 50), (ReadModifyWrite, 50)], Keys::Zipf),
    ),
    work(
        "delete-heavy",
        "45 % writes, 45 % deletes, 10 % reads, items chosen evenly",
        does(&[(Put, 45), (Delete, 45), (Get, 10)], Keys::Uniform),
    ),
    Workload {
        large: true,
        ..work(
            "large-values",
            "50 % reads, 50 % writes, values of 100 KB, a thousandth of the items",
            does(&[(Get, 50), (Put, 50)], Keys::Uniform),
        )
    },
    Workload {
        place: Place::Only(Layout::OnePartition),
        ..work(
            "hot-partition",
            "50 % writes, 45 % reads, 5 % queries of 50 items, all in one partition",
            does(&[(Put, 50), (Get, 45), (Query, 5)], Keys::Uniform),
        )
    },
    Workload {
        place: IN_PARTITIONS,
        ..empty(work(
            "time-ordered",
            "90 % inserts in the order of time, a partition for 1,000 of them, 10 % reads of the latest",
            does(&[(Insert, 90), (Get, 10)], Keys::Latest),
        ))
    },
    example(
        empty(work(
            "log-ingestion",
            "the specification's example 1: 100,000 inserts a second are offered, one read for 1,000 of them",
            does(&[(Insert, 1000), (Get, 1)], Keys::Latest),
        )),
        100_100.0,
        "log-ingestion",
        32 * GIB,
    ),
    example(
        work(
            "low-latency-cache",
            "example 2: 50,000 reads and 5,000 writes a second are offered, Zipf",
            does(&[(Get, 10), (Put, 1)], Keys::Zipf),
        ),
        55_000.0,
        "low-latency-cache",
        8 * GIB,
    ),
    example(
        work(
            "embedded",
            "example 3: 100 writes and 500 reads a second are offered, 256 MiB of memory",
            does(&[(Get, 5), (Put, 1)], Keys::Uniform),
        ),
        600.0,
        "embedded",
        GIB / 4,
    ),
];

const fn once(name: &'static str, about: &'static str, task: Task) -> Workload {
    Workload { amount: Amount::Once, ..work(name, about, task) }
}

impl Workload {
    const fn buffered(self) -> Self {
        Self { durability: Some(Durability::Buffered), ..self }
    }
}
