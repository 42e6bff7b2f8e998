//! File systems for tests: `strict` loses at a simulated crash whatever was not synced, `fault` fails on request, and
//! records (`trace`) what was done. With the feature `testing`; no program that embeds the database has them.

mod fault;
mod strict;
mod trace;

pub use fault::{Effect, Errno, FaultVfs, Hook, Rule, RuleHandle};
pub use strict::{Choose, CrashMode, Image, StrictVfs, Tear};
pub use trace::{Call, Op, Record};
