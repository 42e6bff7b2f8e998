//! `compare` and `report` on files of results that are made up.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod compare;
mod measured;
mod pages;
mod sample;
