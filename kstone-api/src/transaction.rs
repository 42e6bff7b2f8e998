//! [`Database::transaction`]: reads and writes of a closure, as if nothing else ran meanwhile.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use kstone_core::lsm::{self, ReadSet, WriteOptions};
use kstone_core::{Error, Key, KeyPart, Result, SortRange};

use crate::database::Database;
use crate::expression::Update;
use crate::item::Item;
use crate::snapshot::Snapshot;
use crate::view::ItemView;

mod query;

pub use query::TransactionQuery;

/// How [`Database::transaction_with`] tries.
///
/// ```
/// # use kstone_api::TransactionOptions;
/// let options = TransactionOptions::new().attempts(3);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// How often the closure runs at most; at least 1. Default: 16.
    pub attempts: u32,
    /// How old an attempt may become before its commit. What it sees is kept on disk meanwhile. Default: 60 s.
    pub timeout: Duration,
    /// The durability of the commit, if another than the handle's.
    pub write: WriteOptions,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { attempts: 16, timeout: Duration::from_secs(60), write: WriteOptions::default() }
    }
}

impl TransactionOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the closure runs at most; 0 counts as 1.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// How old an attempt may become before its commit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The durability of the commit.
    pub fn write(mut self, write: WriteOptions) -> Self {
        self.write = write;
        self
    }
}

/// From this attempt on, transactions that are tried again take turns.
const TAKES_TURNS: u32 = 4;

/// The longest pause between two attempts, and the longest wait for a turn.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// One attempt at a transaction; see [`Database::transaction`].
///
/// It reads the database as of the moment when it began, with its own writes over it. Everything that it reads counts,
/// also that something is not there: if another write changes it before the commit, the closure runs again. Reads
/// through [`Transaction::snapshot`] do not count.
pub struct Transaction<'a> {
    database: &'a Database,
    snapshot: &'a Snapshot,
    reads: RefCell<ReadSet>,
    /// Encoded items to put; `None`: to delete.
    writes: BTreeMap<Key<'static>, Option<Vec<u8>>>,
}

impl<'a> Transaction<'a> {
    /// Gets the item under a key, decoded; `None` if there is none.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.transaction(|tx| {
    ///     tx.put("a", Item::new())?;
    ///     assert!(tx.get("a")?.is_some()); // its own write
    ///     Ok::<_, kstone_api::Error>(())
    /// })?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Database::get`].
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        let key = key.into();
        match self.writes.get(&key) {
            Some(own) => own.as_deref().map(Item::decode).transpose(),
            None => {
                self.read(&key)?;
                self.snapshot.get(key)
            }
        }
    }

    /// Gets the item under a key, to be read in place. Errors are those of [`Database::get`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ValueView};
    /// # let db = Database::in_memory()?;
    /// # db.put("page", Item::builder().number("views", 1))?;
    /// let views = db.transaction(|tx| match tx.get_view("page")? {
    ///     Some(page) => Ok(page.get("views")?.and_then(ValueView::as_i64)),
    ///     None => Ok::<_, kstone_api::Error>(None),
    /// })?;
    /// assert_eq!(views, Some(1));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn get_view<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<ItemView>> {
        let key = key.into();
        match self.writes.get(&key) {
            Some(own) => own.as_deref().map(|bytes| ItemView::new(bytes.into())).transpose(),
            None => {
                self.read(&key)?;
                self.snapshot.get_view(key)
            }
        }
    }

    /// Whether there is an item under a key. Errors are those of [`Database::get`].
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// assert!(!db.transaction(|tx| tx.contains("user#42"))?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn contains<'k>(&self, key: impl Into<Key<'k>>) -> Result<bool> {
        Ok(self.get_view(key)?.is_some())
    }

    /// Reads the items of a partition; the range that was read counts, with all that is not there.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// // At most one booking of a room a day, whoever asks at the same time.
    /// let book = |day: &str, guest: &str| {
    ///     db.transaction(|tx| {
    ///         let taken = !tx.query("room#1").sort_prefix(day).limit(1).run()?.is_empty();
    ///         if !taken {
    ///             tx.put(("room#1", format!("{day}/{guest}")), Item::new())?;
    ///         }
    ///         Ok::<_, kstone_api::Error>(!taken)
    ///     })
    /// };
    /// assert!(book("2026-02-01", "Ann")?);
    /// assert!(!book("2026-02-01", "Bob")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn query<'k>(&self, partition: impl KeyPart<'k>) -> TransactionQuery<'_, 'a> {
        TransactionQuery::new(self, partition)
    }

    /// The database as of the moment when this attempt began, without the transaction's own writes. What is read through
    /// it does not count: it may change before the commit.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.transaction(|tx| {
    ///     // An estimate is enough here.
    ///     let about = tx.snapshot().scan().limit(1000).run()?.count();
    ///     println!("{about}");
    ///     Ok::<_, kstone_api::Error>(())
    /// })?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Stores an item at the commit.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.transaction(|tx| tx.put("a", Item::new()))?;
    /// assert!(db.contains("a")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of a key or an item that cannot be stored.
    pub fn put<'k>(&mut self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<()> {
        let bytes = item.into().encode()?;
        self.write(key.into(), Some(bytes))
    }

    /// Deletes an item, which need not exist, at the commit.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.put("a", Item::new())?;
    /// db.transaction(|tx| tx.delete("a"))?;
    /// assert!(!db.contains("a")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of a key that cannot be stored.
    pub fn delete<'k>(&mut self, key: impl Into<Key<'k>>) -> Result<()> {
        self.write(key.into(), None)
    }

    /// Changes some attributes of an item at the commit; without an item, it starts from an empty one. The item is read,
    /// and counts.
    ///
    /// ```
    /// # use kstone_api::{Database, Update, Value};
    /// # let db = Database::in_memory()?;
    /// db.transaction(|tx| tx.update("page", &Update::new().add("views", 1)))?;
    /// assert_eq!(db.get("page")?.unwrap().get("views").and_then(Value::as_i64), Some(1));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`UpdateCall::run`](crate::UpdateCall::run), at once.
    pub fn update<'k>(&mut self, key: impl Into<Key<'k>>, update: &Update) -> Result<()> {
        let key = key.into();
        let update = update.prepare()?;
        let old = self.get_view(key.clone())?;
        let applied = update.apply_stored(old.as_ref().map(ItemView::as_bytes));
        let applied = applied.map_err(|error| crate::damage::of_item(self.database, &key, error))?;
        self.write(key, Some(applied.item))
    }

    fn write(&mut self, key: Key<'_>, item: Option<Vec<u8>>) -> Result<()> {
        key.check()?;
        let max = self.database.engine().max_item_bytes();
        if let Some(len) = item.as_ref().map(Vec::len)
            && len > max
        {
            return Err(Error::ItemTooLarge { len, max });
        }
        self.writes.insert(key.into_owned(), item);
        Ok(())
    }

    fn read(&self, key: &Key<'_>) -> Result<()> {
        self.reads.borrow_mut().get(key)
    }

    fn read_range(&self, partition: &[u8], range: SortRange) {
        self.reads.borrow_mut().query(partition, range);
    }

    fn commit(self, options: WriteOptions) -> Result<()> {
        let mut batch = lsm::WriteBatch::new();
        for (key, item) in self.writes {
            match item {
                Some(bytes) => batch.put(key, bytes),
                None => batch.delete(key),
            };
        }
        let engine = self.database.engine();
        engine.write_if_unchanged(self.snapshot.as_core(), &self.reads.into_inner(), &batch, options)?;
        Ok(())
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("seq", &self.snapshot.as_core().seq())
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Runs a transaction: the closure reads and writes through it, and what it returned `Ok` for is written as one atomic
    /// step. **The closure may run several times**, each time on a newer state: do in it nothing but read and write the
    /// transaction, and no work that must not be repeated. If it returns `Err`, or panics, nothing is written.
    ///
    /// Transactions are *serializable*: all of them, and all other writes, have the same effect as if they had run one
    /// after the other. Nothing is locked while the closure runs. At the commit it is checked that nothing which it read
    /// has been changed, added or deleted since; otherwise it runs again, up to 16 times, after pauses of at most 10 ms.
    /// A transaction that writes nothing needs no check.
    ///
    /// ```
    /// use kstone_api::{Database, Error, Item, Value};
    ///
    /// let db = Database::in_memory()?;
    /// db.put("account#1", Item::builder().number("balance", 100))?;
    /// db.put("account#2", Item::builder().number("balance", 0))?;
    /// let moved = db.transaction(|tx| {
    ///     let balance = |item: Option<Item>| item.and_then(|item| item.get("balance")?.as_i64()).unwrap_or(0);
    ///     let (from, to) = (balance(tx.get("account#1")?), balance(tx.get("account#2")?));
    ///     let amount = from / 2;
    ///     tx.put("account#1", Item::builder().number("balance", from - amount))?;
    ///     tx.put("account#2", Item::builder().number("balance", to + amount))?;
    ///     Ok::<_, Error>(amount)
    /// })?;
    /// assert_eq!(moved, 50);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the closure. [`Error::Conflict`] if other writes came first each time, or if the closure took longer than
    /// 60 s. [Those of every write](Database#errors-of-every-write), `BatchTooLarge` for all of its writes together.
    pub fn transaction<T, E: From<Error>>(
        &self,
        run: impl FnMut(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction_with(TransactionOptions::default(), run)
    }

    /// Like [`Database::transaction`], with another number of attempts, another limit on their age, or a durability.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, TransactionOptions, WriteOptions};
    /// # let db = Database::in_memory()?;
    /// let options = TransactionOptions::new().write(WriteOptions::sync());
    /// db.transaction_with(options, |tx| tx.put("a", Item::new()))?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn transaction_with<T, E: From<Error>>(
        &self,
        options: TransactionOptions,
        mut run: impl FnMut(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let most = options.attempts.max(1);
        let mut attempt = 1;
        loop {
            let turn = (attempt >= TAKES_TURNS).then(|| self.turns().take());
            let snapshot = self.snapshot()?;
            let began = self.engine().monotonic();
            let mut transaction = Transaction {
                database: self,
                snapshot: &snapshot,
                reads: RefCell::default(),
                writes: BTreeMap::new(),
            };
            let returned = run(&mut transaction)?;
            let age = self.engine().monotonic().saturating_sub(began);
            if age > options.timeout && !transaction.writes.is_empty() {
                return Err(Error::Conflict { attempts: attempt }.into());
            }
            match transaction.commit(options.write) {
                Ok(()) => return Ok(returned),
                Err(Error::Conflict { .. }) if attempt < most => {}
                Err(Error::Conflict { .. }) => return Err(Error::Conflict { attempts: attempt }.into()),
                Err(error) => return Err(error.into()),
            }
            drop((turn, snapshot));
            self.engine().pause(pause(attempt, self.engine().random()));
            attempt += 1;
        }
    }
}

/// A random pause that gets longer with each attempt, so that transactions that met do not meet again.
fn pause(attempt: u32, random: u64) -> Duration {
    let longest = LONGEST_PAUSE.min(Duration::from_micros(20) * 2_u32.saturating_pow(attempt.min(16)));
    longest.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

/// Lets transactions that failed repeatedly run one after the other.
///
/// No lock: a closure may wait for another thread, or for a transaction within it. Whoever has waited long enough goes
/// on without its turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<bool>,
    free: Condvar,
}

/// A turn, ended when dropped.
struct Turn<'a>(&'a Turns);

impl Turns {
    fn take(&self) -> Option<Turn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.free.wait_timeout_while(taken, LONGEST_PAUSE, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return None;
        }
        *taken = true;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits too long goes on without a turn: a transaction that ends late must not stop all others.
    #[test]
    fn turns_are_taken_one_at_a_time_and_nobody_waits_for_long() {
        let turns = Turns::default();
        let first = turns.take().unwrap();
        assert!(turns.take().is_none(), "while the first is not over");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (0..1_000).find_map(|_| turns.take()).is_some());
            drop(first);
            assert!(waiting.join().unwrap());
        });
        assert!(turns.take().is_some(), "a turn ends when it is dropped");
    }
}
