//! What SSTs need in memory to be read well.

use std::sync::Arc;

use super::LsmEngine;
use crate::error::Result;
use crate::sst::SectionLengths;

impl LsmEngine {
    /// Bytes of all filters: [`crate::DatabaseConfig::bloom_bits_per_key`] bits for each key of each SST. Gets need
    /// them in memory to be fast; mapped, the operating system keeps there what is used.
    ///
    /// # Errors
    /// Of a file that was not read yet, the section directory is: `Corruption` or `Io`, if that fails.
    pub fn estimate_bloom_memory(&self) -> Result<u64> {
        self.total_lengths(|lengths| lengths.filter)
    }

    /// Bytes of all indexes, by which gets and scans find a key's block: about 5 a key and 20 a block. Else as
    /// [`LsmEngine::estimate_bloom_memory`].
    pub fn estimate_index_memory(&self) -> Result<u64> {
        self.total_lengths(|lengths| lengths.index)
    }

    fn total_lengths(&self, of: fn(SectionLengths) -> u64) -> Result<u64> {
        self.shared.life.check_open()?;
        let mut total = 0;
        for stripe in self.shared.stripes.used() {
            let version = Arc::clone(&stripe.version());
            for table in version.tables() {
                total += of(table.section_lengths()?);
            }
        }
        Ok(total)
    }
}
