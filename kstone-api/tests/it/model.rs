//! The database against a map: every verb, with random conditions and updates, transactions, pages and snapshots,
//! between flushes, merges and reopens. Expressions run as they were built, and as the text that they print.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kstone_api::{
    CancelReason, CompactionConfig, Condition, Database, DatabaseConfig, EngineOptions, Error, Item, Key,
    LsmEngine, Params, Projection, Returning, Snapshot, Token, TransactWrite, Update, Value, WriteBatch,
    attr,
};
use kstone_core::torture::{Rng, Watchdog};
use kstone_core::vfs::MemVfs;

type Items = BTreeMap<Key<'static>, Item>;

struct Model {
    rng: Rng,
    vfs: MemVfs,
    db: Option<Database>,
    items: Items,
    /// Taken at some time, with what was there.
    snapshot: Option<(Snapshot, Items)>,
    /// A scan read page by page: where it is, and the last key it gave out.
    paging: Option<(Token, Key<'static>)>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut model = Self {
            rng: Rng(seed),
            vfs: MemVfs::new(),
            db: None,
            items: Items::new(),
            snapshot: None,
            paging: None,
        };
        model.db = Some(LsmEngine::create(Path::new("db"), model.options()).unwrap().into());
        model
    }

    fn options(&self) -> EngineOptions {
        let mut options = EngineOptions::on(Arc::new(self.vfs.clone()));
        options.config = Some(DatabaseConfig::new().with_stripes(2).with_max_memtable_records(60));
        options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
        options
    }

    fn db(&self) -> Database {
        self.db.clone().unwrap()
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn key(&mut self) -> Key<'static> {
        let partition = format!("p{}", self.below(4));
        match self.below(12) {
            0 => Key::new(partition),
            sort => Key::with_sort(partition, format!("s{sort:02}")),
        }
    }

    fn value(&mut self) -> Value {
        match self.below(6) {
            0 => Value::from("text"),
            1 => Value::Ss(["a", "b"].map(String::from).into()),
            2 => Value::L(vec![Value::from(1), Value::from("x")]),
            3 => Value::M(Item::builder().number("n", 1).string("s", "y").build()),
            _ => Value::from(self.below(5) as i64),
        }
    }

    fn item(&mut self) -> Item {
        (0..self.below(4)).map(|_| (["n", "s", "l", "m"][self.below(4) as usize], self.value())).collect()
    }

    fn path(&mut self) -> kstone_api::Path {
        match self.below(7) {
            0 => attr("m").field("n"),
            1 => attr("l").at(self.below(3) as usize),
            n => attr(["n", "s", "l", "m", "n"][n as usize % 5]),
        }
    }

    fn condition(&mut self) -> Condition {
        let path = self.path();
        match self.below(11) {
            0 => path.exists(),
            1 => path.absent(),
            2 => path.eq(self.value()),
            3 => path.ne(self.value()),
            4 => path.lt(3),
            5 => path.between(1, 3),
            6 => path.size().gt(1),
            7 => path.contains("x"),
            8 => Condition::item_absent(),
            9 => self.condition() | self.condition(),
            _ => !self.condition(),
        }
    }

    /// The condition as it is or, half of the time, as its text is read.
    fn as_text(&mut self, condition: Condition) -> Condition {
        if self.below(2) == 0 {
            return condition;
        }
        let mut params = Params::new();
        let text = condition.to_dynamodb(&mut params).unwrap();
        Condition::parse(&text, &params).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn update(&mut self) -> Update {
        let mut update = Update::new();
        for _ in 0..=self.below(2) {
            let path = self.path();
            update = match self.below(8) {
                0 | 1 => update.add(path, self.below(9) as i64 - 4),
                2 => update.set(path, self.value()),
                3 => update.set(path, attr("n").or(0).plus(1)),
                4 => update.set_if_absent(path, self.value()),
                5 => update.append(path, ["z"]),
                6 => update.insert(path, Value::Ss(["b", "c"].map(String::from).into())),
                _ => update.remove(path),
            };
        }
        if self.below(2) == 0 {
            return update;
        }
        let mut params = Params::new();
        // Paths that overlap, or are too many: refused either way.
        let Ok(text) = update.to_dynamodb(&mut params) else { return update };
        Update::parse(&text, &params).unwrap_or(update)
    }

    fn run(&mut self, operations: usize) {
        for n in 0..operations {
            self.step();
            if n % 1000 == 0 {
                self.check();
            }
        }
        self.check();
    }

    fn step(&mut self) {
        let (db, key) = (self.db(), self.key());
        let old = self.items.get(&key).cloned();
        match self.below(100) {
            0..12 => {
                let item = self.item();
                db.put(key.clone(), item.clone()).unwrap();
                self.items.insert(key, item);
            }
            12..20 => {
                db.delete(key.clone()).unwrap();
                self.items.remove(&key);
            }
            20..30 => assert_eq!(db.get(key).unwrap(), old),
            30..38 => {
                let (item, condition) = (self.item(), self.condition());
                let condition = self.as_text(condition);
                let met = meets(&condition, old.as_ref());
                let result = db.put_if(key.clone(), item.clone(), condition);
                if expect(met, result, old.as_ref()) {
                    self.items.insert(key, item);
                }
            }
            38..43 => {
                let condition = self.condition();
                let condition = self.as_text(condition);
                let met = meets(&condition, old.as_ref());
                if expect(met, db.delete_if(key.clone(), condition), old.as_ref()) {
                    self.items.remove(&key);
                }
            }
            43..46 => {
                let item = self.item();
                assert_eq!(db.put_if_absent(key.clone(), item.clone()).unwrap(), old.is_none());
                self.items.entry(key).or_insert(item);
            }
            46..49 => {
                let item = self.item();
                assert_eq!(db.replace(key.clone(), item.clone()).unwrap(), old);
                self.items.insert(key, item);
            }
            49..52 => {
                assert_eq!(db.take(key.clone()).unwrap(), old);
                self.items.remove(&key);
            }
            52..66 => self.update_one(&db, key, old),
            66..72 => self.batch(&db),
            72..78 => self.transact(&db),
            78..84 => self.transaction(&db),
            84..90 => self.query(&db),
            90..94 => self.page(&db),
            94..97 => self.snapshot(&db),
            97..98 => db.flush().unwrap(),
            98..99 if self.below(20) == 0 => db.compact_all().unwrap(),
            _ if self.below(60) == 0 => self.reopen(),
            _ => assert_eq!(db.contains(key).unwrap(), old.is_some()),
        }
    }

    fn update_one(&mut self, db: &Database, key: Key<'static>, old: Option<Item>) {
        let update = self.update();
        let mut new = old.clone().unwrap_or_default();
        let expected = update.apply(&mut new);
        let condition = (self.below(3) == 0).then(|| self.condition());
        let met = condition.as_ref().is_none_or(|condition| meets(condition, old.as_ref()));
        let mut call = db.update(key.clone()).apply(update);
        if let Some(condition) = condition {
            call = call.when(self.as_text(condition));
        }
        let all = self.below(2) == 0;
        let result = call.returning(if all { Returning::New } else { Returning::Old }).run();
        match (expected, result) {
            (Err(Error::InvalidExpression { .. }), Err(Error::InvalidExpression { .. })) => {}
            (_, Err(Error::ConditionFailed { .. })) if !met => {}
            (Err(expected), Err(error)) if met => assert_eq!(error.to_string(), expected.to_string()),
            (Ok(()), Ok(returned)) if met => {
                assert_eq!(returned, if all { Some(new.clone()) } else { old });
                self.items.insert(key, new);
            }
            (expected, result) => panic!("{key}: {result:?} where the model has {expected:?}, met: {met}"),
        }
    }

    fn batch(&mut self, db: &Database) {
        let (mut batch, mut after, mut reasons) = (WriteBatch::new(), self.items.clone(), Vec::new());
        for _ in 0..=self.below(4) {
            let key = self.key();
            match self.below(4) {
                0 => {
                    let condition = self.condition();
                    let met = meets(&condition, self.items.get(&key));
                    batch.require(key, condition).unwrap();
                    reasons.push(met);
                    continue;
                }
                1 => {
                    let _ = batch.delete(key.clone());
                    after.remove(&key);
                }
                _ => {
                    let item = self.item();
                    batch.put(key.clone(), item.clone()).unwrap();
                    after.insert(key, item);
                }
            }
            reasons.push(true);
        }
        match db.write(batch) {
            Ok(()) => {
                assert!(reasons.iter().all(|met| *met));
                self.items = after;
            }
            Err(Error::TransactionCancelled { reasons: told }) => {
                assert_eq!(told.iter().map(Option::is_none).collect::<Vec<_>>(), reasons);
                assert!(reasons.contains(&false));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn transact(&mut self, db: &Database) {
        let (mut write, mut after, mut refused) = (TransactWrite::new(), self.items.clone(), Vec::new());
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..=self.below(4) {
            let key = self.key();
            if !keys.insert(key.clone()) {
                assert_eq!(write.clone().delete(key).unwrap_err().code(), "invalid_key");
                continue;
            }
            let old = self.items.get(&key).cloned();
            let condition = self.condition();
            let met = meets(&condition, old.as_ref());
            let mut failed = false;
            write = match self.below(5) {
                0 => write.check(key, condition).unwrap(),
                1 => {
                    after.remove(&key);
                    write.delete_if(key, condition).unwrap()
                }
                2 => {
                    let item = self.item();
                    after.insert(key.clone(), item.clone());
                    write.put_if(key, item, condition).unwrap()
                }
                _ => {
                    let update = self.update();
                    let mut new = old.unwrap_or_default();
                    match update.apply(&mut new) {
                        Err(Error::InvalidExpression { .. }) => {
                            assert!(write.clone().update(key.clone(), update).is_err());
                            keys.remove(&key);
                            continue;
                        }
                        applied => failed = applied.is_err(),
                    }
                    after.insert(key.clone(), new);
                    write.update_if(key, update, condition).unwrap()
                }
            };
            refused.push(!met || failed);
        }
        match db.transact_write(&write) {
            Ok(()) => {
                assert!(!refused.contains(&true));
                self.items = after;
            }
            Err(Error::TransactionCancelled { reasons }) => {
                assert_eq!(reasons.iter().map(Option::is_some).collect::<Vec<_>>(), refused);
                let fits = |reason: &CancelReason| {
                    matches!(reason, CancelReason::Condition { .. } | CancelReason::Update { .. })
                };
                assert!(reasons.iter().flatten().all(fits) && refused.contains(&true));
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// What is read, and what is written, with a write from outside in between at times.
    fn transaction(&mut self, db: &Database) {
        let keys = [self.key(), self.key(), self.key()];
        let (item, gives_up, outside) = (self.item(), self.below(5) == 0, self.below(3) == 0);
        let (mut runs, mut after) = (0, self.items.clone());
        let done = db.transaction(|tx| {
            runs += 1;
            after.clone_from(&self.items);
            let first = tx.get(keys[0].clone())?;
            assert_eq!(first, after.get(&keys[0]).cloned());
            if outside && runs == 1 {
                db.put(keys[0].clone(), item.clone())?;
                self.items.insert(keys[0].clone(), item.clone());
            }
            tx.put(keys[1].clone(), first.unwrap_or_default())?;
            after.insert(keys[1].clone(), after.get(&keys[0]).cloned().unwrap_or_default());
            tx.delete(keys[2].clone())?;
            after.remove(&keys[2]);
            let partition = keys[1].partition();
            let read = tx.query(partition).run()?;
            let expected = after.iter().filter(|(key, _)| key.partition() == partition);
            assert!(read.iter().map(|(key, item)| (key, item)).eq(expected));
            if gives_up { Err(Error::Cancelled) } else { Ok(()) }
        });
        assert_eq!(done.is_err(), gives_up);
        assert_eq!(runs, if outside && !gives_up { 2 } else { 1 });
        if !gives_up {
            self.items = after;
        }
    }

    fn query(&mut self, db: &Database) {
        let partition = format!("p{}", self.below(4));
        let (from, to) = (format!("s{:02}", self.below(12)), format!("s{:02}", self.below(12)));
        let condition = (self.below(2) == 0).then(|| self.condition());
        let limit = self.below(8) as usize;
        let reverse = self.below(2) == 0;
        let mut query = db.query(&partition).sort_between(&from, &to).limit(limit);
        if reverse {
            query = query.reverse();
        }
        let items = self.items.clone();
        let mut expected: Vec<_> = (items.iter())
            .filter(|(key, item)| {
                let sort = key.sort().unwrap_or_default();
                key.partition() == partition.as_bytes()
                    && from.as_bytes() <= sort
                    && sort <= to.as_bytes()
                    && condition.as_ref().is_none_or(|condition| meets(condition, Some(item)))
            })
            .collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        if let Some(condition) = condition {
            query = query.filter(self.as_text(condition));
        }
        let projected = self.below(3) == 0;
        if projected {
            query = query.project(Projection::of(["n", "l"]));
        }
        let found: Vec<_> = query.run().unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), expected.len());
        for ((key, item), (expected_key, expected)) in found.iter().zip(expected) {
            assert_eq!(key, expected_key);
            let mut expected = expected.clone();
            if projected {
                expected.remove("s");
                expected.remove("m");
            }
            assert_eq!(*item, expected);
        }
    }

    /// One page of a scan that goes on beside writes.
    fn page(&mut self, db: &Database) {
        let mut scan = db.scan().limit(3);
        let paging = self.paging.take();
        if let Some((token, _)) = &paging {
            // As after a restart of the program.
            let token: Token = token.to_string().parse().unwrap();
            scan = scan.after(&token);
        }
        let page = scan.page().unwrap();
        let expected: Vec<_> = match &paging {
            Some((_, last)) => {
                self.items.range(last.clone()..).filter(|(key, _)| *key != last).take(3).collect()
            }
            None => self.items.iter().take(3).collect(),
        };
        assert!(page.items.iter().map(|(key, item)| (key, item)).eq(expected));
        let last = page.items.last().map(|(key, _)| key.clone());
        self.paging = page.next.zip(last);
    }

    fn snapshot(&mut self, db: &Database) {
        match self.snapshot.take() {
            None => self.snapshot = Some((db.snapshot().unwrap(), self.items.clone())),
            Some((snapshot, items)) => {
                let found: Items = snapshot.scan().run().unwrap().map(Result::unwrap).collect();
                assert_eq!(found, items);
            }
        }
    }

    fn reopen(&mut self) {
        self.snapshot = None;
        self.db.take().unwrap().close().unwrap();
        self.db = Some(LsmEngine::open(Path::new("db"), self.options()).unwrap().into());
    }

    fn check(&self) {
        let found: Items = self.db().scan().run().unwrap().map(Result::unwrap).collect();
        assert_eq!(found, self.items);
    }
}

/// Whether the condition holds for the item, or for its absence.
fn meets(condition: &Condition, item: Option<&Item>) -> bool {
    match item {
        Some(item) => condition.matches_item(item).unwrap(),
        None => condition.matches_absence().unwrap(),
    }
}

/// Whether the write was made, as the model expects.
fn expect(met: bool, result: kstone_api::Result<()>, old: Option<&Item>) -> bool {
    match result {
        Ok(()) => assert!(met),
        Err(Error::ConditionFailed { old: told }) => {
            assert!(!met);
            assert_eq!(told.map(|bytes| Item::decode(&bytes).unwrap()).as_ref(), old);
        }
        Err(error) => panic!("{error}"),
    }
    met
}

#[test]
fn the_database_is_a_map_that_changes_safely() {
    for seed in 0..3 {
        let watchdog = Watchdog::start(format!("the model of items, seed {seed}"));
        Model::new(seed).run(100_000);
        drop(watchdog);
    }
}
