//! The tables, one function each: they measure what is not measured yet, and set it beside what the chapter says.

pub(crate) mod configurations;
pub(crate) mod examples;
pub(crate) mod filters;
pub(crate) mod limits;
pub(crate) mod memtables;
pub(crate) mod merging;
pub(crate) mod puts;
