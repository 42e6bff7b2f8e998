//! What a read does and costs.

use kstone_core::lsm::{Explain, ExplainQuery};
use kstone_core::{Key, Result, SortRange};

use crate::database::Database;

impl Database {
    /// What [`Database::get`] of the key does now, step by step: memtables, runs, filters, blocks, and what each
    /// costs. Printed, it is for people; serialized, for programs.
    ///
    /// ```
    /// # fn main() -> kstone_api::Result<()> {
    /// use kstone_api::{Database, Item};
    ///
    /// let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// let explain = db.explain_get("user#42")?;
    /// assert!(explain.memtables[0].found && explain.block_reads == 0);
    /// println!("{explain}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for a get; what is damaged on the way is told as a step, not as an error.
    pub fn explain_get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Explain> {
        self.engine().explain_get(&key.into())
    }

    /// What a query of that part of a partition does now. It makes the query, to its end.
    pub fn explain_query(&self, partition: impl AsRef<[u8]>, range: &SortRange) -> Result<ExplainQuery> {
        self.engine().explain_query(partition.as_ref(), range)
    }
}
