//! Code shared by the benchmarks of KeystoneDB: keys and items of a known size; and the program `kstone-bench`.

#![allow(missing_docs, reason = "it is a program: only its tests and kstone-bench/peers/ use this library")]

use std::time::Duration;

use kstone_api::{Item, ItemBuilder};

pub mod cgroup;
pub mod chapter;
#[doc(hidden)]
pub mod commands;
pub mod compare;
pub mod data;
pub mod driver;
pub mod engine;
pub mod machine;
mod plot;
pub mod record;
pub mod report;
pub mod resources;
pub mod results;
pub mod speed;
pub mod statistics;
pub mod sweep;
pub mod torture;
pub mod trial;
mod tune;
pub mod units;
pub mod workload;

/// The key of item `n`: 16 bytes, evenly spread, in no order.
pub fn key(n: u64) -> String {
    format!("{:016x}", data::scatter(n))
}

/// An item whose values are about 200 bytes.
pub fn item(n: u64) -> Item {
    ItemBuilder::new()
        .string("name", format!("item number {n:012}"))
        .number("count", n)
        .string("payload", format!("{n:0160}"))
        .build()
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let words = std::iter::successors(Some(data::splitmix(seed)), |state| Some(data::splitmix(*state)));
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

/// Processor time used by the calling thread: other work on the machine does not count.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
