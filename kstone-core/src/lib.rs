//! The storage engine of KeystoneDB: byte values under keys, in 256 stripes, each an independent LSM tree over one
//! shared log.
//!
//! Most programs want the `kstone-api` crate, which builds typed items on top of this one.
//!
//! ```
//! use std::path::Path;
//!
//! use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, WriteBatch, WriteOptions};
//! use kstone_core::{Key, SortRange};
//!
//! # fn main() -> kstone_core::Result<()> {
//! let engine = LsmEngine::create(Path::new("db"), EngineOptions::memory())?;
//! let mut batch = WriteBatch::new();
//! batch.put(("US", "KJFK"), *b"New York").put(("US", "KSFO"), *b"San Francisco").delete(("US", "KXXX"));
//! engine.write(&batch, WriteOptions::sync())?;
//!
//! assert_eq!(engine.get(&Key::from(("US", "KJFK")))?.as_deref(), Some(&b"New York"[..]));
//! let backwards = engine.query(b"US", &SortRange::Prefix(b"K".to_vec()), Direction::Reverse, None)?;
//! assert_eq!(backwards.count(), 2);
//! engine.close()
//! # }
//! ```

// Unit tests run on real threads, even when cargo builds this crate for kstone-shuttle.
#![cfg(not(all(shuttle, test)))]
// Bytes from disk must never index out of bounds; decoders read through coding.rs, which checks bounds.
#![deny(clippy::indexing_slicing)]
#![cfg_attr(not(test), deny(clippy::string_slice))]
// Modules are declared by layer: each imports only from its own layer and those above it, never in a cycle. The
// exceptions, with their reasons, are in tests/it/structure.rs.

// L0, vocabulary: no I/O, no locks.
pub(crate) mod checksum;
pub(crate) mod coding;
pub mod config;
pub mod error;
pub mod escape;
pub(crate) mod health;
pub mod key;
pub(crate) mod parallel;
#[cfg_attr(not(all(feature = "planted-bugs", debug_assertions)), doc(hidden))]
pub mod planted;
#[cfg(not(shuttle))]
pub(crate) mod sync;
#[cfg(shuttle)]
pub mod sync;
pub mod types;

// L1, environment: all I/O, time and file names.
pub mod clock;
pub(crate) mod counters;
pub(crate) mod latency;
pub mod memory;
pub(crate) mod paths;
pub(crate) mod prefetch;
pub(crate) mod process;
pub mod slice;
pub mod vfs;

// L2, encodings and in-memory structures.
pub(crate) mod bloom;
pub(crate) mod cursor;
pub(crate) mod file_header;
pub(crate) mod key_sample;
pub(crate) mod memtable;
pub(crate) mod record;
pub mod sst_block;

// L3, files.
pub(crate) mod manifest;
pub(crate) mod merge;
pub(crate) mod sst;
pub(crate) mod wal;

// L4, the state of a stripe, and policy.
pub(crate) mod adaptive;
pub(crate) mod backpressure;
pub(crate) mod compaction;
pub(crate) mod gaps;
pub mod model;
pub(crate) mod quota;
pub(crate) mod stripe;
pub(crate) mod version;

// L5, the engine: one verb per file.
pub mod lsm;

// L6, maintenance.
pub mod inspect;
pub mod repair;
pub mod verify;

// L7, for tests; never in a program that embeds the database.
#[cfg(feature = "testing")]
pub mod torture;

// For the fuzzers and the tests that replay their corpus.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a violated promise must stop the fuzzer"
)]
pub mod fuzzing;

// For the benchmarks of kstone-bench; not part of the library.
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
#[expect(clippy::expect_used, reason = "a benchmark that cannot continue stops")]
pub mod bench;

pub use config::{CompactionConfig, Compression, DatabaseConfig, Durability, MemtableMode, ReadMode};
pub use error::{CancelReason, Error, Result};
pub use key::{Key, KeyInteger, KeyPart, PartitionRange, SortRange, integer_from_key};
