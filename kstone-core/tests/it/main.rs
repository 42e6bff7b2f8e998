//! The engine as its users see it, against a model, through crashes, and under kill -9.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod bad_input;
mod crash;
mod faults;
mod kill;
mod knobs;
mod model;
mod oracle;
mod threads;
