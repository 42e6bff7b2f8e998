//! Settings as text, `name=value,...`: what command lines and records of measurements hold.
//!
//! Names and numbers are those of the manifest and of docs/settings-and-counters.md, and `stripes`.

use super::{CompactionConfig, DatabaseConfig};
use crate::error::{Error, Result};

/// These settings, with those of the text in place of what they were; of a setting that is named twice the last counts.
/// `default`, and nothing, change nothing.
///
/// # Errors
/// `InvalidConfig`: there is no such setting, its value is no whole number, or out of range.
pub fn changed(
    text: &str,
    database: &DatabaseConfig,
    compaction: &CompactionConfig,
) -> Result<(DatabaseConfig, CompactionConfig)> {
    let mut stripes = database.stripes;
    let mut settings = [database.to_settings(), compaction.to_settings()].concat();
    let mut given: Vec<(String, u64)> = Vec::new();
    for part in text.split(',').filter(|part| !matches!(*part, "" | "default")) {
        let wrong = |why: &str| Error::config("settings", format!("{part:?}: {why}"));
        let (name, value) = part.split_once('=').ok_or_else(|| wrong("it is not name=value"))?;
        let value = value.parse().map_err(|_| wrong("the value is not a whole number"))?;
        if name == "stripes" {
            stripes = Some(value as usize);
        } else {
            given.retain(|(known, _)| known != name);
            given.push((name.to_owned(), value));
        }
    }
    settings.retain(|(name, _)| !given.iter().any(|(changed, _)| changed == name));
    settings.extend(given.iter().cloned());
    let mut database = DatabaseConfig::from_settings(&settings);
    database.stripes = stripes;
    let database = database.validated()?;
    let compaction = CompactionConfig::from_settings(&settings).validated()?;
    let stored = [database.to_settings(), compaction.to_settings()].concat();
    match given.into_iter().find(|setting| !stored.contains(setting)) {
        Some((name, value)) => {
            Err(Error::config("settings", format!("{name}={value}: there is no such setting or value")))
        }
        None => Ok((database, compaction)),
    }
}

/// The settings that are not the default, in the form that [`changed`] reads; empty when all are.
pub fn differing(database: &DatabaseConfig, compaction: &CompactionConfig) -> String {
    let all = |database: &DatabaseConfig, compaction: &CompactionConfig| {
        let stripes = database.stripes.map(|stripes| ("stripes".to_owned(), stripes as u64));
        [database.to_settings(), compaction.to_settings(), Vec::from_iter(stripes)].concat()
    };
    let defaults = all(&DatabaseConfig::default(), &CompactionConfig::default());
    let mut settings = all(database, compaction);
    settings.retain(|setting| !defaults.contains(setting));
    settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
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
