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
//! | **Items** | [`Item`], [`ItemBuilder`], [`Value`], [`Number`]. Read in place: [`ItemView`], [`ValueView`], [`ListView`], [`MapView`], [`SetView`], [`Slice`]. As JSON: [`json`], [`JsonLines`], [`EncodedItem`]. From and to structs, with the feature `typed`: module `typed`, `TypedItems` |
//! | **Expressions** | [`Condition`] (as a filter, [`Filter`]), [`Update`] and [`Projection`], made of a [`Path`] ([`attr`]), [`Operand`]s and a [`Type`], or parsed from DynamoDB's text with [`Params`]; several texts at once, [`Expressions`] |
//! | **Keys** | [`Key`], [`KeyPart`]; integers in keys: [`KeyInteger`], [`integer_from_key`]; decimals: [`number_key`], [`number_from_key`] |
//! | **Queries** | [`Query`] reads a partition, [`Scan`] everything. They return [`Items`], [`Views`] or [`Keys`]; fastest row by row, [`Items::next_row`]. Page by page: [`Page`], [`Token`]. [`Partitions`]: the partition keys. [`SortRange`]; deleting one: [`DeletedRange`] |
//! | **Settings** | [`DatabaseConfig`], [`CompactionConfig`], [`Preset`]; [`MemtableMode`], [`Compression`], [`ReadMode`]. [`config`]: their names, defaults and ranges as data. [`PendingRewrite`]: settings that existing files were not written with. [`model`]: the estimated cost of settings |
//! | **Monitoring** | [`EngineStats`] ([`OperationStats`], [`ReadStats`], [`StripeStats`], [`StallStats`], [`StallReason`], [`FilterStats`], [`BlockCacheStats`], [`Amplification`], [`RecoveryStats`], [`CompactionStats`], [`CompactionReasonStats`], [`CompactionReason`]), [`Latencies`] ([`LatencySummary`], [`LatencyBuckets`]), [`StatsSnapshot`]. [`DiskUsage`], [`Exhausted`]. [`EventListener`], [`Event`], [`SettingChange`]. [`AlertThresholds`], [`PerformanceAlert`], [`check_alerts`], [`measure_average_sst_count`], [`measure_p99_read_latency`]. [`Explain`], [`ExplainQuery`]: what a read costs. For your own calls: [`LatencyTracker`], [`DatabaseMetrics`] |
//! | **Maintenance** | Backups: [`BackupOptions`], [`BackupReport`], [`BackupProgress`]. [`verify`]: [`VerifyOptions`], [`VerifyMode`], [`VerifyReport`], [`Finding`], [`FindingKind`], [`Severity`], [`Affected`], [`LogReport`], [`Progress`], [`ProgressFn`], [`ValueCheck`]. [`repair`]: [`RepairOptions`], [`RepairReport`], [`Loss`], [`Action`], [`Now`]. [`free_space`], [`FreeSpace`]. [`inspect`]: the contents of single files; [`KeyVersions`], [`KeyVersion`]: every version of a key. [`Database::destroy`]: [`Destroyed`] |
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
//! `typed`: structs that serde describes, as items and back: `Database::put_as`, `Database::get_as`, `Items::typed`,
//! the module `typed`. `prometheus`: `Database::openmetrics`, the counters as text for Prometheus. `tracing`: spans and
//! events of background work for the `tracing` crate. All are off by default.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod advise;
mod alerts;
mod arithmetic;
mod batch;
mod change;
mod codec;
mod damage;
mod database;
mod delete_range;
mod explain;
mod expression;
mod item_error;
// For fuzzers and the tests that replay their corpus; not part of the library.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
#[expect(clippy::expect_used, clippy::panic, reason = "a broken promise must stop the fuzzer")]
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
mod steps;
mod transact;
mod transaction;
#[cfg(feature = "typed")]
pub mod typed;
mod update_call;
mod value;
mod view;

pub use advise::{Advice, Evidence, Expected, Situation, Source, Urgency};
pub use alerts::{
    AlertThresholds, PerformanceAlert, check_alerts, measure_average_sst_count, measure_p99_read_latency,
};
pub use batch::WriteBatch;
pub use codec::{EncodedItem, JsonLines};
pub use damage::{repair, verify};
pub use database::{Database, DatabaseBuilder};
pub use expression::{Condition, Expressions, Filter, Operand, Params, Path, Projection, Type, Update, attr};
pub use item::{Item, Iter};
pub use item_builder::ItemBuilder;
pub use latency::LatencyTracker;
pub use metrics::DatabaseMetrics;
pub use number::{Number, NumberError};
pub use number_key::{number_from_key, number_key};
#[cfg(feature = "prometheus")]
pub use openmetrics::openmetrics_of;
pub use preset::Preset;
pub use query::{Items, Keys, Page, Partitions, Query, Row, Scan, Token, Views};
pub use snapshot::Snapshot;
pub use transact::TransactWrite;
pub use transaction::{Transaction, TransactionOptions, TransactionQuery};
#[cfg(feature = "typed")]
pub use typed::TypedItems;
pub use update_call::{Returning, UpdateCall};
pub use value::Value;
pub use view::{ItemView, ListView, MapView, SetView, ValueView};

pub use kstone_core::config;
pub use kstone_core::escape;
pub use kstone_core::inspect;
pub use kstone_core::lsm::{
    Amplification, BackupOptions, BackupProgress, BackupReport, BlockCacheStats, CompactionReason,
    CompactionReasonStats, CompactionStats, DeletedRange, Destroyed, DiskUsage, EngineOptions, EngineStats,
    Event, EventListener, Exhausted, Explain, ExplainQuery, FilterStats, KeyVersion, KeyVersions, Latencies,
    LatencyBuckets, LatencySummary, LsmEngine, OperationStats, PendingRewrite, ReadStats, RecoveryStats,
    SettingChange, SizeSummary, StallReason, StallStats, StatsSnapshot, StripeStats, WriteOptions,
    WrittenSizes,
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
    CancelReason, CompactionConfig, Compression, DatabaseConfig, Durability, Error, Key, KeyInteger, KeyPart,
    MemtableMode, ReadMode, Result, SortRange, integer_from_key,
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
