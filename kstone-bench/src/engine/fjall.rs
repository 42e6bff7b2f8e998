//! fjall 3, the closest relative: an LSM tree in Rust.
//!
//! * `Buffered`: its default; each write reaches the operating system before it returns.
//! * `Sync`: `persist(SyncData)`, an fdatasync of the journal, after each write.
//! * Defaults: a cache of 32 MiB, memtables of 64 MiB, LZ4 below the second level. Tuned: a cache of 512 MiB, as its manual
//!   recommends (a fifth to a quarter of the memory), and no compression. Filters have 10 bits either way, more on the first
//!   level.

use std::path::Path;

use anyhow::Result;
use fjall::config::CompressionPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::{Counters, Durability, Engine, EngineSpec, Session, at_rest, counted, counter};
use crate::data::BenchKey;

struct Fjall {
    database: Database,
    items: Keyspace,
    durability: Durability,
}

pub(super) fn open(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let mut builder = Database::builder(directory);
    if spec.tuned {
        builder = builder.cache_size(512 << 20);
    }
    let database = builder.open()?;
    let options = || match spec.tuned {
        true => KeyspaceCreateOptions::default().data_block_compression_policy(CompressionPolicy::disabled()),
        false => KeyspaceCreateOptions::default(),
    };
    let items = database.keyspace("items", options)?;
    Ok(Box::new(Fjall { database, items, durability }))
}

impl Engine for Fjall {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access(self)))
    }

    fn settle(&self) -> Result<()> {
        self.items.rotate_memtable_and_wait()?;
        at_rest(|| {
            let database = &self.database;
            let busy = database.outstanding_flushes() > 0 || database.active_compactions() > 0;
            Ok((!busy).then(|| database.compactions_completed() as u64))
        })
    }

    fn compact(&self) -> Result<()> {
        self.items.rotate_memtable_and_wait()?;
        Ok(self.items.major_compact()?)
    }

    fn counters(&self) -> Result<Counters> {
        let all = [
            (counter::COMPACTIONS, self.database.compactions_completed() as u64),
            (counter::MEMTABLE_BYTES, self.database.write_buffer_size()),
            (counter::REPLAY_BYTES, self.database.journal_disk_space()?),
            ("tables", self.items.table_count() as u64),
        ];
        Ok(all.map(|(name, value)| (name.to_owned(), value as f64)).into())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

struct Access<'a>(&'a Fjall);

impl Access<'_> {
    fn written(&self) -> Result<()> {
        match self.0.durability {
            Durability::Buffered => Ok(()),
            Durability::Sync => Ok(self.0.database.persist(PersistMode::SyncData)?),
        }
    }
}

impl Session for Access<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        self.0.items.insert(key.flat(), value)?;
        self.written()
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        self.0.items.remove(key.flat())?;
        self.written()
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.0.items.get(key.flat())?;
        Ok(found.inspect(|value| visit(value)).is_some())
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let snapshot = self.0.database.snapshot();
        counted(keys.iter(), u64::MAX, |key| {
            Ok(snapshot.get(&self.0.items, key.flat())?.inspect(|value| visit(value)).is_some())
        })
    }

    fn range(&mut self, from: &[u8], end: &[u8], limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        counted(self.0.items.range(from..end), limit, |entry| {
            visit(&entry.value()?);
            Ok(true)
        })
    }
}
