//! RocksDB, the yardstick for other engines.
//!
//! * `Buffered`: its default, in which the log is written but not synced. `Sync`: `sync` with each write.
//! * Defaults: no filters, a cache of 32 MiB. Tuned: Bloom filters of 10 bits, a cache of 512 MiB, background threads for
//!   all cores. Neither compresses: this build has no compression.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, Options, ReadOptions,
    WaitForCompactOptions, WriteOptions,
};

use super::{Counters, Durability, Engine, EngineSpec, Session, counted, counter};
use crate::data::BenchKey;

struct Rocksdb {
    database: DB,
    sync: bool,
}

pub(super) fn open(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let mut options = Options::default();
    options.create_if_missing(true);
    // The default is Snappy, which this build leaves out.
    options.set_compression_type(DBCompressionType::None);
    if spec.tuned {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(512 << 20));
        blocks.set_bloom_filter(10.0, false);
        options.set_block_based_table_factory(&blocks);
        options.increase_parallelism(std::thread::available_parallelism().map_or(2, |n| n.get() as i32));
    }
    Ok(Box::new(Rocksdb { database: DB::open(&options, directory)?, sync: durability == Durability::Sync }))
}

impl Rocksdb {
    fn property(&self, name: &str) -> Result<f64> {
        Ok(self.database.property_int_value(name)?.unwrap_or(0) as f64)
    }
}

impl Engine for Rocksdb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let mut write = WriteOptions::default();
        write.set_sync(self.sync);
        Ok(Box::new(Access { database: &self.database, write }))
    }

    fn settle(&self) -> Result<()> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        Ok(self.database.wait_for_compact(&options)?)
    }

    fn compact(&self) -> Result<()> {
        self.database.compact_range::<&[u8], &[u8]>(None, None);
        self.settle()
    }

    fn counters(&self) -> Result<Counters> {
        let memtables = self.property("rocksdb.cur-size-all-mem-tables")?;
        let filters = self.property("rocksdb.estimate-table-readers-mem")?;
        let all = [(counter::MEMTABLE_BYTES, memtables), ("table_readers_memory_bytes", filters)];
        Ok(all.map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.flush_wal(true)?;
        self.database.cancel_all_background_work(true);
        Ok(())
    }
}

struct Access<'a> {
    database: &'a DB,
    write: WriteOptions,
}

impl Session for Access<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        Ok(self.database.put_opt(key.flat(), value, &self.write)?)
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        Ok(self.database.delete_opt(key.flat(), &self.write)?)
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.database.get_pinned(key.flat())?;
        Ok(found.inspect(|value| visit(value)).is_some())
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        counted(self.database.multi_get(keys.iter().map(BenchKey::flat)).into_iter(), u64::MAX, |value| {
            Ok(value?.inspect(|value| visit(value)).is_some())
        })
    }

    fn range(&mut self, from: &[u8], end: &[u8], limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let start = IteratorMode::From(from, Direction::Forward);
        counted(self.database.iterator_opt(start, options), limit, |entry| {
            visit(&entry?.1);
            Ok(true)
        })
    }
}
