//! File systems for tests: `strict` loses everything unsynced at a simulated crash; `fault` fails on request and
//! records (`trace`) the operations. They require the feature `testing`: no program that embeds the database contains
//! them.

mod fault;
mod shared;
mod strict;
mod trace;

pub use fault::{Effect, Errno, FaultVfs, Hook, Rule, RuleHandle};
pub(crate) use shared::StoredByCalls;
pub use strict::{Choose, CrashMode, Image, StrictVfs, Tear};
pub use trace::{Call, Op, Record};
