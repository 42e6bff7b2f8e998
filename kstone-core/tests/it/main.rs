//! The engine as its users see it, against a model, through crashes, and under kill -9.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod adaptive;
mod bad_input;
mod compaction;
mod counters;
mod crash;
mod explain;
mod faults;
mod kill;
mod knobs;
mod listener;
mod live;
mod log;
mod model;
mod oracle;
#[cfg(debug_assertions)]
mod planted;
mod quota;
mod reading;
mod rules;
mod stats;
mod table;
mod threads;
