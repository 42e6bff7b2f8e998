//! KeystoneDB: an embedded database for typed items.
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
//! # Where to find what
//!
//! | group | types |
//! |---|---|
//! | **Database** | [`Database`] opens, reads and writes. [`DatabaseBuilder`]: with settings. [`WriteBatch`]: several writes, atomically. [`WriteOptions`], [`Durability`]: what a write survives. [`Snapshot`]: the database at one moment |
//! | **Items** | [`Item`], [`ItemBuilder`], [`Value`], [`Number`]. Read in place: [`ItemView`], [`ValueView`], [`ListView`], [`MapView`], [`SetView`], [`Slice`]. As JSON: [`json`], [`JsonLines`], [`EncodedItem`] |
//! | **Keys** | [`Key`], [`KeyPart`]; numbers in keys: [`number_key`], [`number_from_key`] |
//! | **Queries** | [`Query`] reads a partition, [`Scan`] everything. They return [`Items`], [`Views`] or [`Keys`]; fastest row by row, [`Items::next_row`]. [`SortRange`] |
//! | **Settings** | [`DatabaseConfig`], [`CompactionConfig`], [`Preset`]; [`MemtableMode`], [`Compression`], [`ReadMode`]. [`config`]: their names, defaults and ranges as data. [`PendingRewrite`]: settings that existing files were not written with. [`model`]: the estimated cost of settings |
//! | **Monitoring** | [`EngineStats`] ([`OperationStats`], [`ReadStats`], [`StripeStats`], [`StallStats`], [`StallReason`], [`FilterStats`], [`BlockCacheStats`], [`Amplification`], [`RecoveryStats`], [`CompactionStats`], [`CompactionReasonStats`], [`CompactionReason`]), [`Latencies`] ([`LatencySummary`], [`LatencyBuckets`]), [`StatsSnapshot`]. [`DiskUsage`], [`Exhausted`]. [`EventListener`], [`Event`], [`SettingChange`]. [`AlertThresholds`], [`PerformanceAlert`], [`check_alerts`], [`measure_average_sst_count`], [`measure_p99_read_latency`]. [`Explain`], [`ExplainQuery`]: what a read costs. For your own calls: [`LatencyTracker`], [`DatabaseMetrics`] |
//! | **Maintenance** | Backups: [`BackupOptions`], [`BackupReport`], [`BackupProgress`]. [`verify`]: [`VerifyOptions`], [`VerifyMode`], [`VerifyReport`], [`Finding`], [`FindingKind`], [`Severity`], [`Affected`], [`LogReport`], [`Progress`], [`ProgressFn`], [`ValueCheck`]. [`repair`]: [`RepairOptions`], [`RepairReport`], [`Loss`], [`Action`], [`Now`]. [`free_space`], [`FreeSpace`] |
//! | **Errors** | [`Error`], [`Result`], [`NumberError`], [`CancelReason`]. [`escape`]: displaying untrusted keys and text |
//! | **The engine** | [`LsmEngine`], [`EngineOptions`] |
//!
//! The repository's `docs/modeling.md` shows how to lay out keys and items, `docs/tuning.md` describes every setting,
//! and `docs/durability.md` what is guaranteed after a crash.
//!
//! # Durability
//!
//! By default a write is *buffered*: it has reached the operating system when the call returns, so a crash of the
//! process loses nothing, while a power cut may lose the newest writes, those of about the last second.
//! [`Durability::Sync`], for the database or for a single write ([`WriteOptions::sync`]), makes a write survive a power
//! cut too, and [`Database::sync`] does so for everything written before it.
//!
//! # Threads
//!
//! All calls block. A [`Database`] is a handle to clone and share between threads; in an asynchronous program, call it
//! where blocking is allowed. One handle at a time, with its clones, may write to a database; meanwhile any number may
//! open it read-only, in other processes too.
//!
//! # Features
//!
//! `prometheus`: `Database::openmetrics`, the counters as text for Prometheus. `tracing`: spans and events of
//! background work for the `tracing` crate. Both are off by default.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod alerts;
mod batch;
mod codec;
mod damage;
mod database;
mod explain;
mod item_error;
// For fuzzers and the tests that replay their corpus; not part of the library.
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
pub use query::{Items, Keys, Query, Row, Scan, Views};
pub use snapshot::Snapshot;
pub use value::Value;
pub use view::{ItemView, ListView, MapView, SetView, ValueView};

pub use kstone_core::config;
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
    CancelReason, CompactionConfig, Compression, DatabaseConfig, Durability, Error, Key, KeyPart,
    MemtableMode, ReadMode, Result, SortRange,
};

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

/// Compiles and runs the code of the guide to modeling.
#[cfg(doctest)]
#[doc = include_str!("../../docs/modeling.md")]
mod modeling {}

/// Compiles the code of the page on tuning.
#[cfg(doctest)]
#[doc = include_str!("../../docs/tuning.md")]
mod tuning {}
