//! The commands, one file each.

pub(crate) mod chapter;
pub(crate) mod compare;
pub(crate) mod machine;
mod measure;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sweep;
pub(crate) mod torture;
pub(crate) mod workloads;
