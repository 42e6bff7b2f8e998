//! KeystoneDB 0.1.0 of another project, by its crate `kstone-core`: the LSM engine that its database is made of.
//!
//! * `Buffered`: more than requested. It has no setting: each put and each delete syncs the log (`sync_all`) while it
//!   holds the lock of the whole database, so that writers do not share a sync.
//! * `Sync`: the same, which is less in two ways. Directories are never synced, so that a power cut may take a new file
//!   away whole; and a record that was half written makes the next open fail.
//! * No tuned setting.
//! * Closing is dropping: it writes nothing, and there is nothing that was not synced.
//!
//! The log is never cut, and all of it is replayed into the memtables when a database is opened; files of records are
//! read into memory whole as well. So everything is in memory always. Queries and scans read the memtables only and leave
//! out without a word what was flushed (a stripe of the 256 is, after 1,000 records): they are refused here, since
//! an answer may be incomplete without any sign. Gets of several keys are single ones and not of one moment: its
//! `transact_get` takes a lock that it has already, and waits for ever if a writer came in between.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kstone_bench::data::BenchKey;
use kstone_bench::engine::{Counters, Durability, Engine, EngineSpec, Session, counter};
use kstone_core_01::{CompactionConfig, Item, Key, LsmEngine, Value};

/// Stripes of a database, a number that it does not report.
const STRIPES: usize = 256;
const VALUE: &str = "value";

pub(crate) struct Keystonedb(LsmEngine);

impl Keystonedb {
    pub(crate) fn open(spec: &EngineSpec, directory: &Path, _: Durability) -> Result<Box<dyn Engine>> {
        ensure!(!spec.tuned, "keystonedb-0.1 has no tuned setting");
        let made = directory.join("wal.log").exists();
        let engine = if made { LsmEngine::open(directory)? } else { LsmEngine::create(directory)? };
        Ok(Box::new(Self(engine)))
    }
}

impl Engine for Keystonedb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access(&self.0)))
    }

    /// Nothing goes on in the background: what is in memtables is written out, as the others do.
    fn settle(&self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    /// It merges what has as many files as the setting says, so that is as low as it may be meanwhile. A stripe with
    /// one file stays as it is.
    fn compact(&self) -> Result<()> {
        self.0.flush()?;
        let before = self.0.compaction_config();
        self.0.set_compaction_config(CompactionConfig::new().with_sst_threshold(0));
        let merged = (0..STRIPES).try_for_each(|stripe| self.0.trigger_compaction(stripe));
        self.0.set_compaction_config(before);
        Ok(merged?)
    }

    fn counters(&self) -> Result<Counters> {
        let merges = self.0.compaction_stats().total_compactions;
        Ok([(counter::COMPACTIONS.to_owned(), merges as f64)].into())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct Access<'a>(&'a LsmEngine);

impl Session for Access<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        let item = Item::from([(VALUE.to_owned(), Value::binary(value.to_vec()))]);
        Ok(self.0.put(converted(key), item)?)
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        Ok(self.0.delete(converted(key))?)
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(item) = self.0.get(&converted(key))? else { return Ok(false) };
        match item.get(VALUE).context("an item without its value")? {
            Value::B(value) => visit(value),
            other => bail!("a value of another kind: {other:?}"),
        }
        Ok(true)
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut found = 0;
        for key in keys {
            found += u64::from(self.get(key, visit)?);
        }
        Ok(found)
    }

    fn query(&mut self, _: &BenchKey, _: u64, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
        bail!("keystonedb-0.1 has no queries that can be relied on: they leave out what was flushed")
    }

    fn scan(&mut self, _: u64, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
        bail!("keystonedb-0.1 has no scans that can be relied on: they leave out what was flushed")
    }
}

fn converted(key: &BenchKey) -> Key {
    match key.sort() {
        Some(sort) => Key::with_sk(key.partition().to_vec(), sort.to_vec()),
        None => Key::new(key.partition().to_vec()),
    }
}
