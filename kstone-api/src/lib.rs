//! KeystoneDB: an embedded database for typed items. Unless asked otherwise a write is *buffered*: it has
//! reached the operating system when the call returns, so the death of the process loses nothing, while a
//! power cut may lose the writes of the last second, always the newest ones. [`Durability::Sync`], for the
//! database or for one write ([`WriteOptions::sync`]), makes writes survive that too, and
//! [`Database::sync`] everything before it.
//!
//! ```
//! use kstone_api::{Database, ItemBuilder, Value};
//!
//! # fn main() -> kstone_api::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("mydb.keystone");
//! let db = Database::create(&path)?;
//!
//! db.put("user#42", ItemBuilder::new().string("name", "Ann").number("age", 42))?;
//! let item = db.get("user#42")?.unwrap();
//! assert_eq!(item.get("name").and_then(Value::as_str), Some("Ann"));
//!
//! // A partition key and a sort key: items of one partition are kept together, in order.
//! db.put(("US", "KJFK"), ItemBuilder::new().string("city", "New York").number("elevation", 13))?;
//! for entry in db.query("US").sort_prefix("KJ").run()? {
//!     let (key, item) = entry?;
//!     println!("{key:?} {item}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! An [`Item`] is attributes with names; a [`Value`] has one of the types of DynamoDB. [`Database::get_view`]
//! reads attributes in place, without decoding the item. [`WriteBatch`] makes several writes one,
//! [`Snapshot`] holds a moment. [`json`] tells how items become JSON.
//!
//! The calls block. In asynchronous programs run them where blocking is allowed, on a clone of the
//! [`Database`].

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod alerts;
mod batch;
mod codec;
mod damage;
mod database;
mod explain;
mod flaw;
// For fuzzers and the tests that replay their corpus; no part of the library.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
#[expect(clippy::expect_used, reason = "a broken promise must stop the fuzzer")]
pub mod fuzzing;
mod item;
mod item_builder;
pub mod json;
mod latency;
mod metrics;
mod number;
mod number_key;
#[cfg(feature = "prometheus")]
mod openmetrics;
mod preset;
mod query;
mod snapshot;
mod value;
mod view;

pub use alerts::{
    AlertThresholds, PerformanceAlert, check_alerts, measure_average_sst_count, measure_p99_read_latency,
};
pub use batch::WriteBatch;
pub use codec::{EncodedItem, JsonLines};
pub use damage::{repair, verify};
pub use database::{Database, DatabaseBuilder};
pub use item::{Item, Iter};
pub use item_builder::ItemBuilder;
pub use latency::LatencyTracker;
pub use metrics::DatabaseMetrics;
pub use number::{Number, NumberError};
pub use number_key::{number_from_key, number_key};
pub use preset::Preset;
pub use query::{Items, Keys, Query, Scan, Views};
pub use snapshot::Snapshot;
pub use value::Value;
pub use view::{ItemView, ListView, MapView, SetView, ValueView};

pub use kstone_core::escape;
pub use kstone_core::lsm::{
    Amplification, BackupOptions, BackupProgress, BackupReport, BlockCacheStats, CompactionReason,
    CompactionReasonStats, CompactionStats, DiskUsage, EngineOptions, EngineStats, Event, EventListener,
    Exhausted, Explain, ExplainQuery, FilterStats, Latencies, LatencyBuckets, LatencySummary, LsmEngine,
    OperationStats, PendingRewrite, ReadStats, RecoveryStats, SettingChange, StallReason, StallStats,
    StatsSnapshot, StripeStats, WriteOptions,
};
pub use kstone_core::model;
pub use kstone_core::repair::{Action, Loss, Now, RepairOptions, RepairReport};
pub use kstone_core::slice::Slice;
pub use kstone_core::verify::{
    Affected, Finding, FindingKind, LogReport, Progress, ProgressFn, Severity, ValueCheck, VerifyMode,
    VerifyOptions, VerifyReport,
};
pub use kstone_core::vfs::{FreeSpace, free_space, read_regular};
pub use kstone_core::{
    CompactionConfig, Compression, DatabaseConfig, Durability, Error, Key, KeyPart, MemtableMode, ReadMode,
    Result, SortRange,
};

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

/// Compiles the code of the page on tuning.
#[cfg(doctest)]
#[doc = include_str!("../../docs/tuning.md")]
mod tuning {}
