//! The commands, one file each.

pub(crate) mod chapter;
pub(crate) mod compare;
pub(crate) mod machine;
pub(crate) mod report;
