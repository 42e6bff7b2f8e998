//! SETTINGS: reads and changes the settings of a running database.

use super::LsmEngine;
use super::settings::Settings;
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::error::{Error, Result};
use crate::manifest::Change;
use crate::planted::{Race, raced};

impl LsmEngine {
    /// Changes the settings of the running database and stores them. They apply from the next decision on; running jobs
    /// finish with the old ones. Settings of SSTs (filter bits, block size, compression, SST size) apply to files
    /// written from now on. The read mode applies to files opened from now on: each file is opened once, when it is
    /// first read.
    ///
    /// # Errors
    /// `InvalidConfig` names the field, including `stripes` if it is given and differs from that of the database. If
    /// storing fails, the old settings stay in force.
    pub fn set_config(&self, config: DatabaseConfig) -> Result<()> {
        config.validate()?;
        let stripes = self.stripe_count();
        if config.stripes.is_some_and(|asked| asked != stripes) {
            return Err(Error::config("stripes", format!("the database has {stripes}, which cannot change")));
        }
        let quota = config.max_total_disk_bytes.unwrap_or(u64::MAX);
        let lower = quota < self.config().max_total_disk_bytes.unwrap_or(u64::MAX);
        if lower {
            // While there is space for it: under the lower limit there may be too little for the flushes of existing
            // memtables.
            self.flush()?;
        }
        self.change_settings(|settings| {
            settings.database = DatabaseConfig { stripes: Some(stripes), ..config }
        })?;
        if lower { self.shared.give_back_log() } else { Ok(()) }
    }

    /// Changes the compaction settings of the running database and stores them. They apply from the next decision on;
    /// running jobs finish with the old ones.
    ///
    /// # Errors
    /// `InvalidConfig` names the field. If storing fails, the old settings stay in force.
    pub fn set_compaction_config(&self, compaction: CompactionConfig) -> Result<()> {
        compaction.validate()?;
        self.change_settings(|settings| settings.compaction = compaction)
    }

    /// Stored settings that this version cannot use, and what it uses instead, in words. The next change of settings
    /// replaces them.
    pub fn invalid_settings(&self) -> Vec<String> {
        let manifest = self.shared.io.manifest();
        let stored = &manifest.state().settings;
        let invalid = [DatabaseConfig::stored(stored).1, CompactionConfig::stored(stored).1].concat();
        invalid.iter().map(ToString::to_string).collect()
    }

    fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let (shared, _open) = self.writable()?;
        // Under the manifest's lock, so that concurrent changes are stored and put in force in the same order.
        let mut manifest = shared.io.manifest();
        let mut settings = Settings::clone(&shared.settings.load());
        change(&mut settings);
        let settings = Settings::new(settings.database, settings.compaction, settings.replay_rate);
        let stored = Change::Settings(settings.stored());
        shared.append_edit(&mut manifest, vec![stored])?;
        shared.observed.settings_changed(&shared.settings.load(), &settings);
        shared.apply(settings);
        drop(manifest);
        self.grow_pool()?;
        // The new limits may be lower than current usage. And when that job ends, workers that sleep according to the
        // old intervals check again.
        if !raced(Race::NewSettingsUnheard) {
            shared.background.request_seal();
        }
        for stripe in shared.stripes.used() {
            shared.background.queue_compaction(stripe.id);
        }
        Ok(())
    }
}
