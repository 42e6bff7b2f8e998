//! SQLite through rusqlite: what most people use today.
//!
//! * Write-ahead log. `Buffered`: `synchronous=NORMAL`, which syncs at checkpoints: a power cut loses the newest writes
//!   and damages nothing, just like KeystoneDB's `Buffered`. `Sync`: `synchronous=FULL`, a sync with each commit.
//! * Otherwise the defaults. Tuned: a cache of 256 MiB per connection, reads from a map of 2 GB, checkpoints every
//!   10,000 pages.
//!
//! A table without row ids, with the key as its primary key; statements are prepared once; one connection per thread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{Durability, Engine, EngineSpec, Session, counted};
use crate::data::BenchKey;

const PUT: &str = "INSERT INTO items VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM items WHERE key = ?1";
const GET: &str = "SELECT value FROM items WHERE key = ?1";
const RANGE: &str = "SELECT value FROM items WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";

struct Sqlite {
    file: PathBuf,
    durability: Durability,
    tuned: bool,
}

pub(super) fn open(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let database = Sqlite { file: directory.join("items.sqlite"), durability, tuned: spec.tuned };
    database.connect()?.execute_batch(
        "CREATE TABLE IF NOT EXISTS items (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;",
    )?;
    Ok(Box::new(database))
}

impl Sqlite {
    fn connect(&self) -> Result<Connection> {
        let connection = Connection::open(&self.file)?;
        // Waits for writers of other threads as long as it takes.
        connection.busy_timeout(Duration::from_secs(600))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = match self.durability {
            Durability::Buffered => "NORMAL",
            Durability::Sync => "FULL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        if self.tuned {
            connection.pragma_update(None, "cache_size", -(256 << 10))?;
            connection.pragma_update(None, "mmap_size", 2i64 << 30)?;
            connection.pragma_update(None, "wal_autocheckpoint", 10_000)?;
        }
        Ok(connection)
    }
}

impl Engine for Sqlite {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access(self.connect()?)))
    }

    /// There is no background work; moves the contents of the log into the database file.
    fn settle(&self) -> Result<()> {
        self.connect()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        self.connect()?.execute_batch("VACUUM")?;
        self.settle()
    }
}

struct Access(Connection);

impl Session for Access {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        self.0.prepare_cached(PUT)?.execute((key.flat(), value))?;
        Ok(())
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        self.0.prepare_cached(DELETE)?.execute([key.flat()])?;
        Ok(())
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        get(&self.0, key, visit)
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let read = Transaction::new_unchecked(&self.0, TransactionBehavior::Deferred)?;
        let found = counted(keys.iter(), u64::MAX, |key| get(&read, key, visit))?;
        read.commit()?;
        Ok(found)
    }

    fn range(&mut self, from: &[u8], end: &[u8], limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        // SQLite's integers are signed.
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.0.prepare_cached(RANGE)?;
        let mut rows = statement.query((from, end, limit))?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            visit(row.get_ref(0)?.as_blob()?);
            found += 1;
        }
        Ok(found)
    }
}

fn get(connection: &Connection, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
    let mut statement = connection.prepare_cached(GET)?;
    let found = statement
        .query_row([key.flat()], |row| {
            visit(row.get_ref(0)?.as_blob()?);
            Ok(())
        })
        .optional()?;
    Ok(found.is_some())
}
