//! Reads page by page against a model, over random data.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::RangeBounds;

use kstone_api::{Database, Item, Key, Query, SortRange};
use proptest::prelude::*;

use super::{numbered, pages, query_page, scan_page};

#[derive(Clone, Debug)]
struct Read {
    partition: u8,
    prefix: Option<String>,
    from: Bound<String>,
    to: Bound<String>,
    reverse: bool,
    limit: usize,
    examine: usize,
}

fn sort() -> impl Strategy<Value = String> {
    "[ab\u{0}]{0,3}"
}

fn bound() -> impl Strategy<Value = Bound<String>> {
    prop_oneof![2 => Just(Unbounded), 1 => sort().prop_map(Included), 1 => sort().prop_map(Excluded)]
}

fn read() -> impl Strategy<Value = Read> {
    let limit = || prop_oneof![3 => 1usize..6, 1 => Just(usize::MAX)];
    (0u8..3, proptest::option::weighted(0.3, sort()), bound(), bound(), any::<bool>(), limit(), limit())
        .prop_map(|(partition, prefix, from, to, reverse, limit, examine)| Read {
            partition,
            prefix,
            from,
            to,
            reverse,
            limit,
            examine,
        })
}

impl Read {
    fn partition(&self) -> String {
        partition(self.partition)
    }

    fn query<'a>(&self, db: &'a Database) -> Query<'a> {
        let mut query = db.query(self.partition()).limit(self.limit).examine(self.examine);
        if let Some(prefix) = &self.prefix {
            query = query.sort_prefix(prefix);
        }
        query = match &self.from {
            Included(from) => query.sort_from(from),
            Excluded(from) => query.sort_after(from),
            Unbounded => query,
        };
        query = match &self.to {
            Included(to) => query.sort_to(to),
            Excluded(to) => query.sort_before(to),
            Unbounded => query,
        };
        if self.reverse { query.reverse() } else { query }
    }

    fn range(&self) -> SortRange {
        let bytes = |bound: &Bound<String>| bound.clone().map(String::into_bytes);
        match (&self.prefix, &self.from, &self.to) {
            (Some(prefix), ..) => SortRange::prefix(prefix),
            (None, Unbounded, Unbounded) => SortRange::All,
            (None, from, to) => SortRange::Between(bytes(from), bytes(to)),
        }
    }

    fn holds(&self, key: &Key<'_>) -> bool {
        let bounded = self.prefix.is_some() || (&self.from, &self.to) != (&Unbounded, &Unbounded);
        let within = |sort: &[u8]| {
            let sort = String::from_utf8(sort.to_vec()).unwrap();
            let prefix = self.prefix.as_ref().is_none_or(|prefix| sort.starts_with(prefix));
            prefix && (self.from.clone(), self.to.clone()).contains(&sort)
        };
        key.partition() == self.partition().as_bytes() && key.sort().map_or(!bounded, within)
    }
}

/// Partitions whose names begin alike.
fn partition(n: u8) -> String {
    "p\0".repeat(n.into()) + "p"
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Option<String>),
    Delete(u8, Option<String>),
    DeleteRange(Read),
    Flush,
    Read(Read),
    Scan(u8, bool, usize),
    Partitions(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || (0u8..3, proptest::option::weighted(0.9, sort()));
    prop_oneof![
        12 => key().prop_map(|(partition, sort)| Step::Put(partition, sort)),
        4 => key().prop_map(|(partition, sort)| Step::Delete(partition, sort)),
        1 => read().prop_map(Step::DeleteRange),
        1 => Just(Step::Flush),
        6 => read().prop_map(Step::Read),
        2 => (0u8..3, any::<bool>(), 1usize..8).prop_map(|(prefix, reverse, size)| Step::Scan(prefix, reverse, size)),
        1 => (0u8..3, any::<bool>()).prop_map(|(prefix, reverse)| Step::Partitions(prefix, reverse)),
    ]
}

fn key(n: u8, sort: &Option<String>) -> Key<'static> {
    match sort {
        None => Key::new(partition(n)),
        Some(sort) => Key::with_sort(partition(n), sort.clone()),
    }
}

type Model = BTreeMap<Key<'static>, i64>;

fn expected(model: &Model, reverse: bool, holds: impl Fn(&Key<'_>) -> bool) -> Vec<(Key<'static>, Item)> {
    let found = model.iter().filter(|(key, _)| holds(key));
    let mut found: Vec<_> = found.map(|(key, n)| (key.clone(), numbered(*n))).collect();
    if reverse {
        found.reverse();
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn reads_page_by_page_are_those_of_a_model(steps in proptest::collection::vec(step(), 1..90)) {
        let db = Database::in_memory().unwrap();
        let mut model = Model::new();
        for (n, step) in (0..).zip(steps) {
            match step {
                Step::Put(partition, sort) => {
                    let key = key(partition, &sort);
                    db.put(&key, numbered(n)).unwrap();
                    model.insert(key, n);
                }
                Step::Delete(partition, sort) => {
                    let key = key(partition, &sort);
                    db.delete(&key).unwrap();
                    model.remove(&key);
                }
                Step::DeleteRange(mut read) => {
                    if read.prefix.is_some() {
                        (read.from, read.to) = (Unbounded, Unbounded);
                    }
                    let deleted = db.delete_range(read.partition(), read.range()).unwrap();
                    let before = model.len();
                    model.retain(|key, _| !read.holds(key));
                    prop_assert_eq!(deleted.items as usize, before - model.len());
                    prop_assert_eq!(deleted.steps, u64::from(deleted.items > 0));
                }
                Step::Flush => db.flush().unwrap(),
                Step::Read(read) => {
                    let whole = expected(&model, read.reverse, |key| read.holds(key));
                    let size = read.limit.min(read.examine);
                    let (items, count) = pages(|after| query_page(read.query(&db), after));
                    prop_assert_eq!(&items, &whole);
                    prop_assert_eq!(count, whole.len().div_ceil(size).max(1));
                    prop_assert_eq!(read.query(&db).count().unwrap() as usize, whole.len().min(size));
                }
                Step::Scan(prefix, reverse, size) => {
                    let prefix = partition(prefix);
                    let whole = expected(&model, reverse, |key| key.partition().starts_with(prefix.as_bytes()));
                    let scan = || if reverse { db.scan().reverse() } else { db.scan() }.prefix(&prefix);
                    let (items, count) = pages(|after| scan_page(scan().limit(size), after));
                    prop_assert_eq!(&items, &whole);
                    prop_assert_eq!(count, whole.len().div_ceil(size).max(1));
                    prop_assert_eq!(scan().count().unwrap() as usize, whole.len());
                }
                Step::Partitions(prefix, reverse) => {
                    let prefix = partition(prefix);
                    let all: BTreeSet<Vec<u8>> = model.keys().map(|key| key.partition().to_vec()).collect();
                    let mut all: Vec<_> = all.into_iter().filter(|p| p.starts_with(prefix.as_bytes())).collect();
                    if reverse {
                        all.reverse();
                    }
                    let scan = if reverse { db.scan().reverse() } else { db.scan() };
                    let found: Vec<_> = scan.prefix(&prefix).partitions().unwrap().map(Result::unwrap).collect();
                    prop_assert_eq!(found, all);
                }
            }
        }
    }
}
