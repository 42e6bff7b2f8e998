//! Settings as text, `name=value,...`, as used by command lines and records of measurements.
//!
//! Names and numbers are those used in the manifest: [`Setting::stored`](super::Setting::stored) in
//! [`Setting::unit`](super::Setting::unit). A setting may also be given by the name of its field.

use super::compaction::CompactionConfig;
use super::database::DatabaseConfig;
use super::setting::Setting;
use super::stored::number;
use crate::error::{Error, Result};

/// A setting with its value, as numbers in [`Setting::unit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its description.
    pub setting: &'static Setting,
    /// The value; `None` if it is not set.
    pub number: Option<u64>,
    /// The default; `None` if it is not set by default.
    pub default: Option<u64>,
}

/// All settings, in the order of their tables.
pub fn listed(database: &DatabaseConfig, compaction: &CompactionConfig) -> Vec<Listed> {
    let rows = [database.rows(), compaction.rows()].concat();
    let defaults = [DatabaseConfig::DEFAULT.rows(), CompactionConfig::DEFAULT.rows()].concat();
    let listed = rows.iter().zip(&defaults).map(|((setting, value), (_, default))| Listed {
        setting,
        number: number(setting, *value),
        default: number(setting, *default),
    });
    listed.collect()
}

/// Returns these settings with those in the text changed; if a setting occurs twice, the last occurrence counts.
/// `name=default` sets that default again; `default` alone and empty text change nothing.
///
/// # Errors
/// `InvalidConfig`: there is no such setting, or its value is not a whole number or out of range.
pub fn changed(
    text: &str,
    database: &DatabaseConfig,
    compaction: &CompactionConfig,
) -> Result<(DatabaseConfig, CompactionConfig)> {
    let (mut database, mut compaction) = (database.clone(), compaction.clone());
    let defaults = listed(&DatabaseConfig::DEFAULT, &CompactionConfig::DEFAULT);
    let mut rows = database.rows_mut();
    rows.append(&mut compaction.rows_mut());
    for part in text.split(',').filter(|part| !matches!(*part, "" | "default")) {
        let wrong = |why: &str| Error::config("settings", format!("{part:?}: {why}"));
        let (name, given) = part.split_once('=').ok_or_else(|| wrong("it is not name=value"))?;
        let row = rows.iter_mut().find(|(setting, _)| setting.stored == name || setting.name == name);
        let (setting, value) = row.ok_or_else(|| wrong("there is no such setting"))?;
        if given == "default" {
            let default = defaults.iter().find(|default| default.setting == *setting);
            match default.and_then(|default| default.number) {
                Some(default) => value.set(default, setting),
                None => value.unset(),
            }
            continue;
        }
        let given = given.parse().map_err(|_| wrong("the value is not a whole number"))?;
        value.set(given, setting);
        if value.out_of_range(setting).is_none() && number(setting, *value) != Some(given) {
            return Err(wrong("there is no such value"));
        }
    }
    drop(rows);
    Ok((database.validated()?, compaction.validated()?))
}

/// The Rust statements that change these settings of an open database `db`, one for each struct of settings.
///
/// # Errors
/// As [`changed`].
pub fn rust_statements(text: &str) -> Result<String> {
    let defaults = (DatabaseConfig::DEFAULT, CompactionConfig::DEFAULT);
    let (database, compaction) = changed(text, &defaults.0, &defaults.1)?;
    let named = |setting: &Setting| {
        let names = text.split(',').filter_map(|part| part.split_once('='));
        names.map(|(name, _)| name).any(|name| name == setting.stored || name == setting.name)
    };
    let tables = [("config", database.rows()), ("compaction_config", compaction.rows())];
    let mut statements = Vec::new();
    for (config, rows) in tables {
        let rows = || rows.iter().filter(|(setting, _)| named(setting));
        // A setting without a method of its own is set by a constructor, for one of its values.
        let (mut calls, mut fields) = (String::new(), String::new());
        for (setting, value) in rows() {
            match setting.builder {
                constructor if constructor.ends_with("()") => {
                    fields += &format!(" config.{} = {};", setting.name, value.code());
                }
                method => calls += &format!(".{method}({})", value.code()),
            }
        }
        match (calls.is_empty(), fields.is_empty()) {
            (true, true) => {}
            (_, true) => statements.push(format!("db.set_{config}(db.{config}(){calls})?;")),
            (_, false) => statements
                .push(format!("let mut config = db.{config}(){calls};{fields} db.set_{config}(config)?;")),
        }
    }
    Ok(statements.join("\n"))
}

/// The settings that differ from the defaults, in the form that [`changed`] reads; empty if none does.
pub fn differing(database: &DatabaseConfig, compaction: &CompactionConfig) -> String {
    let listed = listed(database, compaction);
    let differing = listed.iter().filter_map(|Listed { setting, number, default }| {
        number.filter(|_| number != default).map(|set| format!("{}={set}", setting.stored))
    });
    differing.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_changes_what_it_names_and_comes_back() {
        let text =
            "max_memtable_records=77,sync_interval_ms=5,sst_threshold=3,compaction_enabled=0,stripes=16";
        let base = (DatabaseConfig::new().with_block_size(512), CompactionConfig::new());
        let (database, compaction) = changed(text, &base.0, &base.1).unwrap();
        assert_eq!(
            database,
            DatabaseConfig::new()
                .with_block_size(512)
                .with_max_memtable_records(77)
                .with_sync_interval(std::time::Duration::from_millis(5))
                .with_stripes(16)
        );
        assert_eq!(compaction, CompactionConfig::disabled().with_sst_threshold(3));
        let text = differing(&database, &compaction);
        assert!(text.contains("block_size=512") && text.contains("stripes=16"), "{text}");
        let back = changed(&text, &DatabaseConfig::default(), &CompactionConfig::default()).unwrap();
        assert_eq!(back, (database, compaction));
        assert_eq!(changed("default", &base.0, &base.1).unwrap(), base);
        let twice = changed("sst_threshold=8,block_size=256,sst_threshold=3", &base.0, &base.1).unwrap();
        assert_eq!(twice.1, CompactionConfig::new().with_sst_threshold(3));
        assert_eq!(differing(&DatabaseConfig::default(), &CompactionConfig::default()), "");
    }

    #[test]
    fn text_becomes_statements_for_an_open_database() {
        let rust = |text| rust_statements(text).unwrap();
        assert_eq!(rust("bloom_bits_per_key=16"), "db.set_config(db.config().with_bloom_bits_per_key(16))?;");
        assert_eq!(
            rust("sst_threshold=5,checkpoint_interval_ms=2000"),
            "db.set_config(db.config().with_checkpoint_interval(Duration::from_secs(2)))?;\n\
             db.set_compaction_config(db.compaction_config().with_sst_threshold(5))?;"
        );
        assert_eq!(
            rust("compaction_enabled=1,compression=0"),
            "db.set_config(db.config().with_compression(Compression::Never))?;\n\
             let mut config = db.compaction_config(); config.enabled = true; db.set_compaction_config(config)?;"
        );
        assert_eq!(rust("enabled=1"), rust("compaction_enabled=1"));
        assert_eq!(rust(""), "");
        assert_eq!(rust_statements("sst_threshold=1").unwrap_err().code(), "invalid_config");
    }

    #[test]
    fn a_default_is_set_again_and_fields_are_names_too() {
        let set = DatabaseConfig::new().with_max_total_disk_bytes(1 << 30).with_block_size(512);
        let age = CompactionConfig::new().with_tombstone_age(std::time::Duration::MAX);
        let back = |text| changed(text, &set, &age).unwrap();
        assert_eq!(back("max_total_disk_bytes=default").0, DatabaseConfig::new().with_block_size(512));
        assert_eq!(back("block_size=default").0, DatabaseConfig::new().with_max_total_disk_bytes(1 << 30));
        let (database, compaction) = back("sync_interval=7,enabled=0,tombstone_age=default");
        assert_eq!(database.sync_interval.as_millis(), 7);
        assert_eq!(compaction, CompactionConfig::disabled());
        let listed = listed(&set, &age);
        let of = |name: &str| {
            let found = listed.iter().find(|listed| listed.setting.name == name).unwrap();
            (found.number, found.default)
        };
        assert_eq!(of("max_total_disk_bytes"), (Some(1 << 30), None));
        assert_eq!((of("block_size"), of("memory_budget")), ((Some(512), Some(4096)), (None, None)));
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name() {
        let defaults = (DatabaseConfig::default(), CompactionConfig::default());
        for wrong in [
            "nonsense=1",
            "sst_threshold",
            "sst_threshold=x",
            "sst_threshold=1",
            "stripes=3",
            "compression=9",
        ] {
            let error = changed(wrong, &defaults.0, &defaults.1).unwrap_err();
            assert_eq!(error.code(), "invalid_config", "{wrong}: {error}");
        }
    }
}
