//! KeystoneDB, twice. `kstone` is its engine with byte values, like the peers: measured operations neither encode nor
//! decode items. `kstone-items` is its interface of items: each value is the only attribute of an item, a binary one. Writes
//! build that item, reads get the attribute from a view of it.
//!
//! Durability maps to [`kstone_core::Durability`] of the same name.

#![expect(clippy::disallowed_methods, reason = "it stamps events with the time of the measurement")]

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use kstone_api::{
    CompactionConfig, Database, DatabaseConfig, EngineOptions, Event, EventListener, ItemBuilder, ItemView,
    LsmEngine, SortRange, Value, ValueView, WriteOptions,
};
use kstone_core::config::text;
use kstone_core::lsm::Entries;
use kstone_core::types::Direction;

use super::{Counters, Durability, Engine, EngineSpec, Mark, MarkKind, Session, at_rest, counted, counter};
use crate::data::BenchKey;

struct Kstone {
    database: Database,
    /// Whether its sessions use items.
    items: bool,
    marks: Arc<Marks>,
}

pub(super) fn open(
    spec: &EngineSpec,
    directory: &Path,
    durability: Durability,
    items: bool,
) -> Result<Box<dyn Engine>> {
    let defaults = (DatabaseConfig::default(), CompactionConfig::default());
    let (database, compaction) = text::changed(&spec.settings, &defaults.0, &defaults.1)?;
    let marks = Arc::new(Marks::default());
    let mut options = EngineOptions::disk();
    options.config = Some(database);
    options.compaction = Some(compaction);
    options.durability = match durability {
        Durability::Buffered => kstone_api::Durability::Buffered,
        Durability::Sync => kstone_api::Durability::Sync,
    };
    options.listener = Some(Arc::clone(&marks) as Arc<dyn EventListener>);
    let database = Database::from(LsmEngine::open_or_create(directory, options)?);
    Ok(Box::new(Kstone { database, items, marks }))
}

impl Engine for Kstone {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(match self.items {
            true => Box::new(Items(&self.database)),
            false => Box::new(Bytes(self.database.engine())),
        })
    }

    /// Merges while the database is idle are waited for, too, and the checkpoint after them.
    fn settle(&self) -> Result<()> {
        let engine = self.database.engine();
        engine.flush()?;
        at_rest(|| {
            let stats = engine.stats()?;
            if let Some(error) = &stats.background_error {
                return Err(anyhow!("background work fails: {error}"));
            }
            let done = stats.flushes + stats.compactions + stats.checkpoints;
            Ok(engine.is_settled()?.then_some(done))
        })
    }

    fn compact(&self) -> Result<()> {
        let engine = self.database.engine();
        engine.flush()?;
        for stripe in 0..engine.stripe_count() {
            engine.trigger_compaction(stripe)?;
        }
        Ok(())
    }

    fn counters(&self) -> Result<Counters> {
        let stats = self.database.engine().stats()?;
        let absent = stats.filter.negatives + stats.filter.false_positives;
        let memtables: usize = stats.stripes.iter().map(|stripe| stripe.memtable_bytes).sum();
        let runs: usize = stats.stripes.iter().map(|stripe| stripe.runs).sum();
        let all = [
            (counter::FLUSHES, stats.flushes),
            (counter::COMPACTIONS, stats.compactions),
            (counter::USER_BYTES_WRITTEN, stats.operations.user_bytes_written),
            (counter::FLUSH_BYTES, stats.flush_bytes_written),
            (counter::COMPACTION_BYTES, stats.compaction_bytes_written),
            (counter::LOG_BYTES, stats.log_bytes_written),
            (counter::STALLS, stats.stalls.iter().map(|stall| stall.count).sum()),
            (counter::STALL_NANOS, stats.stalls.iter().map(|stall| stall.nanos).sum()),
            (
                counter::LONGEST_STALL_NANOS,
                stats.stalls.iter().map(|stall| stall.longest_nanos).max().unwrap_or(0),
            ),
            (counter::GETS, stats.operations.gets),
            (counter::RUNS_LOOKED_AT, stats.reads.runs_looked_at),
            (counter::FILTER_NEGATIVES, absent),
            (counter::FILTER_FALSE_POSITIVES, stats.filter.false_positives),
            (counter::FILTER_BYTES, self.database.engine().estimate_bloom_memory()?),
            (counter::MEMTABLE_BYTES, memtables as u64),
            (counter::REPLAY_BYTES, stats.log_bytes),
            ("checkpoints", stats.checkpoints),
            ("runs", runs as u64),
            ("stripes_used", stats.stripes.len() as u64),
            ("blocks_read", stats.reads.blocks_read),
            ("index_memory_bytes", self.database.engine().estimate_index_memory()?),
            ("replayed_bytes", stats.recovery.replayed_bytes),
            ("replay_nanos", stats.recovery.replay_nanos),
            ("open_nanos", stats.recovery.open_nanos),
            ("sst_bytes", stats.sst_bytes),
        ];
        let mut counters: Counters = all.map(|(name, value)| (name.to_owned(), value as f64)).into();
        if let Some(space) = stats.amplification.space {
            counters.insert("space_amplification_estimate".to_owned(), space);
        }
        Ok(counters)
    }

    fn marks(&self) -> Vec<Mark> {
        self.marks.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.close()?)
    }
}

/// When flushes and merges ended.
#[derive(Debug, Default)]
struct Marks(Mutex<Vec<Mark>>);

impl EventListener for Marks {
    fn on_event(&self, event: &Event) {
        let kind = match event {
            Event::Flush { .. } => MarkKind::Flush,
            Event::Compaction { .. } => MarkKind::Compaction,
            _ => return,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Mark { at: Instant::now(), kind });
    }
}

/// Values are bytes.
struct Bytes<'a>(&'a LsmEngine);

impl Session for Bytes<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        self.0.put(&key.key(), value, WriteOptions::new())?;
        Ok(())
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        self.0.delete(&key.key(), WriteOptions::new())?;
        Ok(())
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.0.get(&key.key())?;
        Ok(found.inspect(|value| visit(value)).is_some())
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let keys: Vec<_> = keys.iter().map(BenchKey::key).collect();
        let values = self.0.batch_get(&keys, None)?;
        counted(values.iter(), u64::MAX, |value| Ok(value.as_ref().inspect(|value| visit(value)).is_some()))
    }

    fn query(&mut self, from: &BenchKey, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let range = match from.sort() {
            Some(sort) => {
                SortRange::Between(std::ops::Bound::Included(sort.to_vec()), std::ops::Bound::Unbounded)
            }
            None => SortRange::All,
        };
        let entries = self.0.query(from.partition(), &range, Direction::Forward, None)?;
        read(entries, limit, visit)
    }

    fn partition(&mut self, first: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        read(self.0.query(first.partition(), &SortRange::All, Direction::Forward, None)?, u64::MAX, visit)
    }

    fn scan_unordered(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let snapshot = self.0.snapshot()?;
        let mut found = 0;
        for stripe in 0..self.0.stripe_count() {
            found += read(self.0.scan_stripe(stripe, Some(&snapshot))?, limit - found, visit)?;
        }
        Ok(found)
    }

    fn scan(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        read(self.0.scan(&[], Direction::Forward, None)?, limit, visit)
    }
}

fn read(mut entries: Entries, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
    let mut found = 0;
    while found < limit
        && let Some((_, value)) = entries.next_entry()?
    {
        visit(value);
        found += 1;
    }
    Ok(found)
}

/// Values are attributes of items.
struct Items<'a>(&'a Database);

/// The name of the attribute.
const PAYLOAD: &str = "payload";

fn see(view: &ItemView<impl AsRef<[u8]>>, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
    let payload = view.get(PAYLOAD)?.and_then(ValueView::as_bytes);
    visit(payload.context("an item without its attribute")?);
    Ok(())
}

fn read_views(mut items: kstone_api::Items, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
    let mut found = 0;
    while found < limit
        && let Some((_, view)) = items.next_row()?
    {
        see(&view, visit)?;
        found += 1;
    }
    Ok(found)
}

impl Session for Items<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        Ok(self.0.put(key.key(), ItemBuilder::new().binary(PAYLOAD, value))?)
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        Ok(self.0.delete(key.key())?)
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.0.get_view(key.key())?;
        found.as_ref().map(|view| see(view, visit)).transpose()?;
        Ok(found.is_some())
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let items = self.0.batch_get(keys.iter().map(BenchKey::key))?;
        counted(items.iter(), u64::MAX, |item| {
            if let Some(item) = item {
                let payload = item.get(PAYLOAD).and_then(Value::as_bytes);
                visit(payload.context("an item without its attribute")?);
            }
            Ok(item.is_some())
        })
    }

    fn query(&mut self, from: &BenchKey, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let query = self.0.query(from.partition());
        let query = match from.sort() {
            Some(sort) => query.sort_from(sort),
            None => query,
        };
        read_views(query.run()?, limit, visit)
    }

    fn partition(&mut self, first: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        read_views(self.0.query(first.partition()).run()?, u64::MAX, visit)
    }

    fn scan_unordered(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        read_views(self.0.segment(0, 1)?, limit, visit)
    }

    fn scan(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        read_views(self.0.scan().run()?, limit, visit)
    }
}
