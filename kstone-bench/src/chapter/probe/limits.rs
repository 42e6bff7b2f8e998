//! Limits, and how close a database comes to them when pushed.

#![expect(clippy::disallowed_methods, reason = "it lists a directory from outside")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kstone_api::{Error, Event, LsmEngine, WriteOptions};
use kstone_core::vfs::{DiskVfs, FaultVfs, Op, Rule};
use serde::{Deserialize, Serialize};

use super::{Figures, Setup, VALUE, put};
use crate::data::{BenchKey, Layout, Values, splitmix};

/// Memtables limited by bytes, with values of very different sizes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MemtableBytes {
    pub(crate) limit: usize,
    pub(crate) flushes: usize,
}

/// The length of the longest value.
const LONGEST: u64 = 4000;

impl MemtableBytes {
    /// One stripe and one writer: each flush contains the next records in the order of the writes, so the bytes of each
    /// memtable are known exactly.
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        let settings =
            format!("stripes=1,max_memtable_size_bytes={},max_memtable_records=100000000", self.limit);
        let (engine, log) = setup.open(&settings)?;
        let mut sizes = Vec::new();
        let mut random = setup.seed;
        let (mut written, wanted) = (0, self.limit * self.flushes + self.limit / 2);
        while written < wanted {
            random = splitmix(random);
            let value = vec![7; 40 + (random % LONGEST) as usize];
            let key = BenchKey::new(Layout::Scattered, sizes.len() as u64);
            engine.put(&key.key(), &value, WriteOptions::new())?;
            sizes.push(key.flat().len() + value.len());
            written += sizes[sizes.len() - 1];
        }
        engine.flush()?;
        let mut rest = sizes.iter();
        let mut filled = Vec::new();
        for (_, event) in log.events() {
            if let Event::Flush { records, .. } = event {
                filled.push(rest.by_ref().take(records as usize).sum::<usize>() as f64);
            }
        }
        ensure!(rest.next().is_none(), "not every record was flushed once");
        // The last memtable was flushed only on request.
        filled.pop();
        ensure!(filled.len() >= self.flushes / 2, "there were only {} flushes", filled.len());
        let mut found = Figures::default();
        found.set("largest_bytes", filled.iter().copied().fold(0.0, f64::max));
        found.set("longest_record", sizes.iter().copied().max().unwrap_or(0) as f64);
        engine.close()?;
        Ok(found)
    }
}

/// A log with a limit, to which many times its length is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LogLimit {
    pub(crate) limit: u64,
    pub(crate) items: u64,
}

impl LogLimit {
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        // Memtables alone would let the log grow far beyond the limit. A log always has space for the largest item.
        let (engine, _) = setup.open(&format!(
            "max_wal_size_bytes={},max_memtable_records=1000000,max_item_bytes=65536,max_batch_bytes=65536",
            self.limit
        ))?;
        let values = setup.values()?;
        let mut most = 0.0;
        let step = (self.items / 2000).max(20);
        let mut n = 0;
        while n < self.items {
            put(&engine, &values, n..n + step)?;
            n += step;
            most = f64::max(most, engine.disk_usage()?.log as f64);
        }
        let mut found = Figures::default();
        found.set("largest_bytes", most);
        found.set("log_bytes_written", engine.stats()?.log_bytes_written as f64);
        engine.close()?;
        Ok(found)
    }
}

/// A directory with a quota, filled until a write is rejected, then half emptied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Quota {
    pub(crate) limit: u64,
}

impl Quota {
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        let settings = format!("max_memtable_records=2000,max_total_disk_bytes={}", self.limit);
        let (engine, _) = setup.open(&settings)?;
        let directory = &setup.directory;
        let values = setup.values()?;
        let (mut most, mut full) = (0.0, 0);
        loop {
            match put(&engine, &values, full..full + 1) {
                Ok(()) => full += 1,
                Err(error) if is_full(&error) => break,
                Err(error) => return Err(error),
            }
            if full % 64 == 0 {
                look(&engine, directory, &mut most)?;
            }
            let written = full * VALUE as u64;
            ensure!(written < 2 * self.limit, "twice the quota was written and nothing was refused");
        }
        for n in 0..full / 2 {
            engine.delete(&BenchKey::new(Layout::Scattered, n).key(), WriteOptions::new())?;
            if n % 64 == 0 {
                look(&engine, directory, &mut most)?;
            }
        }
        // The deleted items are merged away, and a put waits for that.
        let start = Instant::now();
        let mut again = false;
        while !again && start.elapsed() < Duration::from_secs(60) {
            again = match put(&engine, &values, full..full + 1) {
                Ok(()) => true,
                Err(error) if is_full(&error) => false,
                Err(error) => return Err(error),
            };
            look(&engine, directory, &mut most)?;
        }
        let mut found = Figures::default();
        found.set("largest_bytes", most);
        found.set("items_when_full", full as f64);
        found.set("refusals", engine.stats()?.disk_full_refusals as f64);
        found.set("again", f64::from(u8::from(again)));
        engine.close()?;
        Ok(found)
    }
}

/// Updates the maximum of two sizes: what the engine counts, and what the system reports for the directory's files.
fn look(engine: &LsmEngine, directory: &Path, most: &mut f64) -> Result<()> {
    let mut listed = 0.0;
    for entry in std::fs::read_dir(directory).context("cannot list a database")? {
        // A file may vanish before its length is read.
        listed += entry?.metadata().map_or(0.0, |metadata| metadata.len() as f64);
    }
    *most = most.max(engine.disk_usage()?.used as f64).max(listed);
    Ok(())
}

fn is_full(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::DiskFull))
}

/// Threads that write at the same time, with write buffer and log buffer of this size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WriteBuffer {
    pub(crate) buffer: usize,
    pub(crate) threads: u64,
    pub(crate) items: u64,
}

impl WriteBuffer {
    /// Throughput is measured on the plain file system, the largest call on one that is traced.
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        // The chapter has one buffer for the log; here, one gathers records of waiting writers, the other of all.
        let settings = format!("write_buffer_size={0},wal_buffer_size={0}", self.buffer);
        let (mut options, _) = setup.options(&settings)?;
        let mut found = Figures::default();
        let engine = LsmEngine::open_or_create(&setup.directory.join("plain"), options.clone())?;
        let start = Instant::now();
        self.write(&engine, &setup.values()?)?;
        found.set("rate", self.items as f64 / start.elapsed().as_secs_f64());
        let stats = engine.stats()?;
        found.set("records_per_call", stats.log_records as f64 / stats.log_writes.max(1) as f64);
        engine.close()?;

        let largest = Arc::new(AtomicU64::new(0));
        let watched = FaultVfs::new(Arc::new(DiskVfs::new()));
        let seen = Arc::clone(&largest);
        let rule = Rule::hook(move |call| {
            // A file starts with its header, not with records.
            if call.offset > 0 {
                seen.fetch_max(call.len, Ordering::Relaxed);
            }
            Ok(())
        });
        watched.add(rule.on(&[Op::Write]).files("wal-*"));
        options.vfs = Arc::new(watched);
        let engine = LsmEngine::open_or_create(&setup.directory.join("watched"), options)?;
        self.write(&engine, &setup.values()?)?;
        engine.close()?;
        found.set("largest_bytes", largest.load(Ordering::Relaxed) as f64);
        Ok(found)
    }

    fn write(&self, engine: &LsmEngine, values: &Values) -> Result<()> {
        let share = self.items / self.threads;
        std::thread::scope(|scope| {
            let threads = (0..self.threads)
                .map(|thread| scope.spawn(move || put(engine, values, thread * share..(thread + 1) * share)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread that wrote panicked"))?
            })
        })
    }
}
