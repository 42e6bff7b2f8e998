//! SETTINGS: what the settings of a running database are, and changing them.

use super::LsmEngine;
use super::settings::Settings;
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::error::{Error, Result};
use crate::manifest::Change;
use crate::planted::{Race, raced};

impl LsmEngine {
    /// Changes the settings of the running database and stores them. They hold from the next decision on; what is
    /// running ends as it began. Settings of SSTs (filter bits, block size, compression, SST size) apply to the files
    /// written from now on, the read mode to those opened from now on: each file is opened once, when it is first read.
    ///
    /// # Errors
    /// `InvalidConfig` names the field: also `stripes`, when it is given and not what the database was created with.
    /// When storing fails the old settings stay in force.
    pub fn set_config(&self, config: DatabaseConfig) -> Result<()> {
        config.validate()?;
        let stripes = self.stripe_count();
        if config.stripes.is_some_and(|asked| asked != stripes) {
            return Err(Error::config("stripes", format!("the database has {stripes}, which cannot change")));
        }
        let quota = config.max_total_disk_bytes.unwrap_or(u64::MAX);
        let lower = quota < self.config().max_total_disk_bytes.unwrap_or(u64::MAX);
        if lower {
            // While there is space for it: under the lower limit there may be none for what memtables still need.
            self.flush()?;
        }
        self.change_settings(|settings| {
            settings.database = DatabaseConfig { stripes: Some(stripes), ..config }
        })?;
        if lower { self.shared.give_back_log() } else { Ok(()) }
    }

    /// Changes the compaction settings of the running database and stores them. They hold from the next decision
    /// on; what is running ends as it began.
    ///
    /// # Errors
    /// `InvalidConfig` names the field. When storing fails the old settings stay in force.
    pub fn set_compaction_config(&self, compaction: CompactionConfig) -> Result<()> {
        compaction.validate()?;
        self.change_settings(|settings| settings.compaction = compaction)
    }

    fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let (shared, _open) = self.writable()?;
        // Stored and in force in the same order, whoever else sets them.
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
        // Limits may have become lower than what is there. And when that job ends, who sleeps for as long as the old
        // intervals said looks again.
        if !raced(Race::NewSettingsUnheard) {
            shared.background.request_seal();
        }
        for stripe in shared.stripes.used() {
            shared.background.queue_compaction(stripe.id);
        }
        Ok(())
    }
}
