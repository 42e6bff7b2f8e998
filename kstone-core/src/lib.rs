//! The storage engine of KeystoneDB: bytes under keys, in 256 stripes, each an LSM tree of its own over one
//! shared log.
//!
//! Most programs want the `kstone-api` crate, which puts typed items on top of this one.
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

// Unit tests run on real threads, also where cargo asks for those of kstone-shuttle.
#![cfg(not(all(shuttle, test)))]
// Bytes from disk must never index out of bounds; see coding.rs for how decoders read instead.
#![deny(clippy::indexing_slicing)]
#![cfg_attr(not(test), deny(clippy::string_slice))]
// Modules are declared by layer: each imports from its own and those above it, and never in a circle. What the tests in
// tests/it/structure.rs allow beside that has its reason there.

// L0, vocabulary: no I/O, no locks held.
pub(crate) mod checksum;
pub(crate) mod coding;
pub mod config;
pub mod error;
pub mod escape;
pub(crate) mod health;
pub mod key;
#[cfg_attr(not(all(feature = "planted-bugs", debug_assertions)), doc(hidden))]
pub mod planted;
#[cfg(not(shuttle))]
pub(crate) mod sync;
#[cfg(shuttle)]
pub mod sync;
pub mod types;

// L1, environment: all I/O, time, file names.
pub mod clock;
pub(crate) mod counters;
pub(crate) mod latency;
pub mod memory;
pub(crate) mod paths;
pub(crate) mod process;
pub mod slice;
pub mod vfs;

// L2, encodings and memory.
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

// L4, the state of a stripe and decisions about it.
pub(crate) mod adaptive;
pub(crate) mod backpressure;
pub(crate) mod compaction;
pub(crate) mod gaps;
pub mod model;
pub(crate) mod quota;
pub(crate) mod stripe;
pub(crate) mod version;

// L5, the engine: one verb a file.
pub mod lsm;

// L6, maintenance.
pub mod repair;
pub mod verify;

// L7, for tests; no program that embeds the database has them.
#[cfg(feature = "testing")]
pub mod torture;

// For fuzzers and the tests that replay their corpus.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a broken promise must stop the fuzzer"
)]
pub mod fuzzing;

// For the benchmarks of kstone-bench; no part of the library.
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
#[expect(clippy::expect_used, reason = "a benchmark that cannot go on stops")]
pub mod bench;

pub use config::{CompactionConfig, Compression, DatabaseConfig, Durability, MemtableMode, ReadMode};
pub use error::{Error, Result};
pub use key::{Key, KeyPart, SortRange};
