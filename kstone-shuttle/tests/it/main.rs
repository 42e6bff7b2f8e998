//! The real engine under thousands of schedules.
#![expect(clippy::unwrap_used, reason = "tests")]

mod harness;
mod imports;
mod smoke;
