//! What the benchmarks of KeystoneDB share: keys and items of a known size.

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
pub mod plot;
pub mod record;
pub mod report;
pub mod resources;
pub mod results;
pub mod statistics;
pub mod storm;
pub mod torture;
pub mod trial;
pub mod units;
pub mod workload;

/// The key of item `n`: 16 bytes, spread evenly, in no order.
pub fn key(n: u64) -> String {
    // The odd multiplier makes this a permutation: no two numbers share a key.
    format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// An item whose values are about 200 bytes.
pub fn item(n: u64) -> Item {
    ItemBuilder::new()
        .string("name", format!("item number {n:012}"))
        .number("count", n)
        .string("payload", format!("{n:0160}"))
        .build()
}
