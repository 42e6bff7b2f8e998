//! redb 4: a copy-on-write B-tree in Rust.
//!
//! * `Buffered`: commits with `Durability::None`. Less than the promise of other engines: these commits are only in the
//!   memory of the process, and its death loses everything since the last durable commit. redb has nothing between that
//!   and a sync.
//! * `Sync`: `Durability::Immediate`, its default.
//! * Defaults: a cache of 1 GiB. Tuned: 4 GiB.
//!
//! Each write is a transaction of its own, and so is each get; their cost is part of what single operations cost a
//! user.

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadableDatabase, TableDefinition};

use super::{Durability, Engine, EngineSpec, Session, counted};
use crate::data::BenchKey;

const ITEMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("items");

struct Redb {
    database: Database,
    durability: redb::Durability,
}

pub(super) fn open(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let mut builder = Database::builder();
    if spec.tuned {
        builder.set_cache_size(4 << 30);
    }
    let database = builder.create(directory.join("items.redb"))?;
    let first = database.begin_write()?;
    first.open_table(ITEMS)?;
    first.commit()?;
    let durability = match durability {
        Durability::Buffered => redb::Durability::None,
        Durability::Sync => redb::Durability::Immediate,
    };
    Ok(Box::new(Redb { database, durability }))
}

impl Engine for Redb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access(self)))
    }

    /// Makes everything durable; there is no background work. Its own `compact` requires exclusive access to the
    /// database, which is impossible while there are other sessions.
    fn settle(&self) -> Result<()> {
        Ok(self.database.begin_write()?.commit()?)
    }
}

struct Access<'a>(&'a Redb);

impl Access<'_> {
    fn write(&self, key: &BenchKey, value: Option<&[u8]>) -> Result<()> {
        let mut write = self.0.database.begin_write()?;
        write.set_durability(self.0.durability)?;
        {
            let mut items = write.open_table(ITEMS)?;
            match value {
                Some(value) => drop(items.insert(key.flat(), value)?),
                None => drop(items.remove(key.flat())?),
            }
        }
        Ok(write.commit()?)
    }
}

impl Session for Access<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        self.write(key, Some(value))
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        self.write(key, None)
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let items = self.0.database.begin_read()?.open_table(ITEMS)?;
        let found = items.get(key.flat())?;
        Ok(found.inspect(|value| visit(value.value())).is_some())
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let items = self.0.database.begin_read()?.open_table(ITEMS)?;
        counted(keys.iter(), u64::MAX, |key| {
            Ok(items.get(key.flat())?.inspect(|value| visit(value.value())).is_some())
        })
    }

    fn range(&mut self, from: &[u8], end: &[u8], limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let items = self.0.database.begin_read()?.open_table(ITEMS)?;
        counted(items.range(from..end)?, limit, |entry| {
            visit(entry?.1.value());
            Ok(true)
        })
    }
}
