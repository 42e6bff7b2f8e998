//! LMDB through heed: a memory-mapped B-tree in C with the fastest reads of all.
//!
//! * `Buffered`: `NO_SYNC`. The death of the process loses nothing; a power cut may damage the file, which is less than
//!   KeystoneDB's `Buffered` promises.
//! * `Sync`: its default, a sync with each commit.
//! * A map of 64 GiB, which is only address space. Tuned: `WRITE_MAP`: pages are changed in the map instead of written;
//!   the promise is the same.
//!
//! Each write is a transaction of its own, and so is each get.

#![expect(unsafe_code, reason = "its calls to open a database are")]

use std::ops::Bound;
use std::path::Path;

use anyhow::Result;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithTls};

use super::{Durability, Engine, EngineSpec, Session, counted};
use crate::data::BenchKey;

struct Heed {
    env: Env<WithTls>,
    items: Items,
}

type Items = Database<'static, Bytes, Bytes>;

pub(super) fn open(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let mut flags = EnvFlags::empty();
    if durability == Durability::Buffered {
        flags |= EnvFlags::NO_SYNC;
    }
    if spec.tuned {
        flags |= EnvFlags::WRITE_MAP;
    }
    let mut options = EnvOpenOptions::new();
    options.map_size(64 << 30);
    // SAFETY: no other process and no other handle uses the files of this benchmark, and nothing truncates them.
    let env = unsafe { options.flags(flags).open(directory)? };
    let items = env
        .create_databases_and_commit(env.write_txn()?, |databases, write| {
            databases.create_database(write, None).map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    Ok(Box::new(Heed { env, items }))
}

impl Engine for Heed {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access { env: &self.env, items: self.items }))
    }

    /// There is no background work. It reuses pages in place, and its only smaller form is a copy.
    fn settle(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }
}

struct Access<'a> {
    env: &'a Env<WithTls>,
    items: Items,
}

impl Session for Access<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        let mut write = self.env.write_txn()?;
        self.items.put(&mut write, key.flat(), value)?;
        Ok(write.commit()?)
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        let mut write = self.env.write_txn()?;
        self.items.delete(&mut write, key.flat())?;
        Ok(write.commit()?)
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let read = self.env.read_txn()?;
        let found = self.items.get(&read, key.flat())?;
        Ok(found.inspect(|value| visit(value)).is_some())
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let read = self.env.read_txn()?;
        counted(keys.iter(), u64::MAX, |key| {
            Ok(self.items.get(&read, key.flat())?.inspect(|value| visit(value)).is_some())
        })
    }

    fn range(&mut self, from: &[u8], end: &[u8], limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let read = self.env.read_txn()?;
        let range = (Bound::Included(from), Bound::Excluded(end));
        counted(self.items.range(&read, &range)?, limit, |entry| {
            visit(entry?.1);
            Ok(true)
        })
    }
}
