//! Explains what a read does and what it costs.

use kstone_core::lsm::{Explain, ExplainQuery};
use kstone_core::{Key, KeyPart, Result, SortRange};

use crate::database::Database;

impl Database {
    /// Reports what a [`Database::get`] of the key does now, step by step: memtables, runs, filters, blocks, and the
    /// cost of each. Its `Display` is for people, its serde form for programs.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// let explain = db.explain_get("user#42")?;
    /// assert!(explain.memtables[0].found && explain.block_reads == 0);
    /// println!("{explain}");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of a get; damage met on the way is a step in the result, not an error.
    pub fn explain_get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Explain> {
        self.engine().explain_get(&key.into())
    }

    /// Reports what a query of this part of a partition does now. It runs the query to its end.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, SortRange};
    /// # let db = Database::in_memory()?;
    /// db.put(("US", "KJFK"), Item::new())?;
    /// println!("{}", db.explain_query("US", &SortRange::Prefix(b"KJ".to_vec()))?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn explain_query<'k>(&self, partition: impl KeyPart<'k>, range: &SortRange) -> Result<ExplainQuery> {
        self.engine().explain_query(&partition.into_bytes(), range)
    }
}
