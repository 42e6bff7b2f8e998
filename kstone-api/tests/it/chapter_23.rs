//! Every snippet of the specification's chapter on tuning, section by section in order, compiled and run.
//!
//! Snippets are shown as printed. Where one is not Rust, or not valid as printed, this is what was changed:
//!
//! * all: snippets end in `let config = ...`; here the settings are then applied to a database, and read back.
//! * 23.1, 23.3: `const MEMTABLE_THRESHOLD` and `const BITS_PER_KEY` "in" files of the engine are constants that the
//!   engine exports; they are compared with the printed values.
//! * 23.1, 23.3, 23.8: `const BITS_PER_KEY` with another value, "requires code change", requires none: it is passed to
//!   `with_bloom_bits_per_key`.
//! * 23.1: the pseudocode of `adaptive_threshold` calls functions that do not exist; they are passed as arguments. The
//!   engine's own version is `MemtableMode::Adaptive`.
//! * 23.2, 23.4: the definitions of the two structs are compared with ours field by field, in type and default; ours
//!   have more fields.
//! * 23.2, 23.8: `engine.trigger_compaction(stripe_id)?` and `engine.set_compaction_config(...)?` are in a function
//!   that returns `Result`; `needs_compaction(stripe_id)` is a method of the engine and returns a `Result` too.
//! * 23.6: repeated `use` lines and criterion's macros are left out (the benchmarks are `kstone-bench`); the tracker
//!   and the metrics are run as printed, and ours by the same code.
//! * 23.7: `memtable_size_per_stripe`, `estimate_bloom_memory`, `estimate_index_memory`, `original_writes` are taken
//!   from the engine's statistics; `check_alerts` is compiled as printed with our two measuring functions, then ours is
//!   called.
//! * 23.7: the loops over files are run by bash, as not every `sh` expands `{0..255}`.
//! * 23.7: the pseudocode for Prometheus needs a global registry; the names that it exports are those of
//!   `Database::openmetrics`, see `openmetrics.rs`.
//! * 23.10: the presets are expressions without `let`; a `let` is added.
#![allow(clippy::indexing_slicing, reason = "the specification's code, as it is printed")]

mod benchmarking;
mod bloom_filters;
mod compaction;
mod database_config;
mod examples;
mod memtables;
mod monitoring;
mod optimization;
mod summary;
mod troubleshooting;

use kstone_api::{CompactionConfig, Database, DatabaseConfig, ItemBuilder};

/// Checks that the settings are valid, are applied, and leave the database usable.
fn works(config: DatabaseConfig, compaction: CompactionConfig) {
    let db = Database::temporary().unwrap();
    db.set_config(config.clone()).unwrap();
    db.set_compaction_config(compaction.clone()).unwrap();
    let stripes = db.config().stripes;
    assert_eq!(db.config(), with_stripes(config, stripes));
    assert_eq!(db.compaction_config(), compaction);
    db.put("key", ItemBuilder::new().string("data", "value")).unwrap();
    db.flush().unwrap();
    assert!(db.get("key").unwrap().is_some());
}

/// The engine fills in the number of stripes.
fn with_stripes(mut config: DatabaseConfig, stripes: Option<usize>) -> DatabaseConfig {
    config.stripes = stripes;
    config
}

fn database_works(config: DatabaseConfig) {
    works(config, CompactionConfig::default());
}

fn compaction_works(config: CompactionConfig) {
    works(DatabaseConfig::default(), config);
}
