//! The engine as its users see it, against a model, through crashes, and under kill -9.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod adaptive;
mod backup;
mod backup_faults;
mod bad_input;
mod beside;
mod bounds;
mod care;
mod compaction;
mod counters;
mod crash;
mod damage;
mod elsewhere;
mod explain;
mod fault_runs;
mod faults;
mod forked;
mod fuzz_corpus;
mod kill;
mod knobs;
mod linearizable;
mod listener;
mod live;
mod locks;
mod log;
mod mending;
mod model;
mod operator;
mod oracle;
#[cfg(debug_assertions)]
mod planted;
mod quota;
mod readers;
mod reading;
mod rules;
mod stats;
mod table;
mod threads;
mod together;
