//! The engine's own threads, and those of its callers, under thousands of schedules each (`harness.rs`).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod close;
mod conditional;
mod group_commit;
mod harness;
mod imports;
#[cfg(debug_assertions)] // Planted bugs exist only then.
mod races;
mod reads;
mod space;
mod workers;
