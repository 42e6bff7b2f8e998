//! Memory that SSTs need to be read efficiently.

use std::sync::Arc;

use super::LsmEngine;
use crate::error::Result;
use crate::sst::SectionLengths;

impl LsmEngine {
    /// Size of all filters in bytes: [`crate::DatabaseConfig::bloom_bits_per_key`] bits for each key of each SST. Gets
    /// need them in memory to be fast; when mapped, the operating system keeps the used parts there.
    ///
    /// # Errors
    /// Reads the section directory of every SST not read yet: `Corruption` or `Io` if that fails.
    pub fn estimate_bloom_memory(&self) -> Result<u64> {
        self.total_lengths(|lengths| lengths.filter)
    }

    /// Size of all indexes in bytes; gets and scans find a key's block in them: about 5 bytes per key and 20 per block.
    /// Otherwise like [`LsmEngine::estimate_bloom_memory`].
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
