//! `kstone big`: the largest items, and the partitions and prefixes of keys with the most bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use anyhow::Result;
use kstone_api::{Key, escape};
use serde::Serialize;
use serde_json::json;

use crate::args::{BigArgs, Format};
use crate::commands::{damage, open_to_read};
use crate::failure::Failure;
use crate::output::{counted, grouped, print_result, size};

/// Characters that usually end the first part of a partition key.
const SEPARATORS: [u8; 4] = *b"#:/|";

/// The largest of what was added, with bounded memory.
struct Largest<T> {
    most: usize,
    heap: BinaryHeap<Reverse<(u64, Reverse<T>)>>,
}

impl<T: Ord> Largest<T> {
    fn new(most: usize) -> Self {
        Self { most, heap: BinaryHeap::new() }
    }

    fn add(&mut self, bytes: u64, what: impl FnOnce() -> T) {
        let least = self.heap.peek().map(|Reverse((bytes, _))| *bytes);
        if self.heap.len() < self.most || least.is_some_and(|least| bytes > least) {
            self.heap.push(Reverse((bytes, Reverse(what()))));
            if self.heap.len() > self.most {
                self.heap.pop();
            }
        }
    }

    /// The largest first.
    fn into_sorted(self) -> Vec<(u64, T)> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|Reverse((bytes, Reverse(what)))| (bytes, what)).collect()
    }
}

/// Sums over neighbouring keys that have something in common: in the order of keys, these come together.
struct Sums {
    largest: Largest<(Vec<u8>, u64)>,
    current: Option<(Vec<u8>, u64, u64)>,
}

impl Sums {
    fn new(most: usize) -> Self {
        Self { largest: Largest::new(most), current: None }
    }

    fn add(&mut self, of: Option<&[u8]>, bytes: u64) {
        if let (Some((current, items, sum)), Some(of)) = (&mut self.current, of)
            && current.as_slice() == of
        {
            (*items, *sum) = (*items + 1, sum.saturating_add(bytes));
            return;
        }
        self.end();
        self.current = of.map(|of| (of.to_vec(), 1, bytes));
    }

    fn end(&mut self) {
        if let Some((of, items, sum)) = self.current.take() {
            self.largest.add(sum, || (of, items));
        }
    }

    fn into_rows(mut self) -> Vec<Sum> {
        self.end();
        let sums = self.largest.into_sorted().into_iter();
        sums.map(|(bytes, (key, items))| Sum { key: escape::key(&key), items, bytes }).collect()
    }
}

#[derive(Serialize)]
struct Sum {
    key: String,
    items: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Big {
    key: String,
    sort: Option<String>,
    bytes: u64,
}

/// The start of a partition key, up to and including its first separator.
fn prefix(partition: &[u8]) -> Option<&[u8]> {
    let end = partition.iter().position(|byte| SEPARATORS.contains(byte))?;
    partition.get(..=end)
}

pub(crate) fn run(args: &BigArgs, format: Format) -> Result<()> {
    let db = open_to_read(&args.db)?;
    let (mut items, mut bytes) = (0, 0u64);
    let mut largest = Largest::new(args.top);
    let (mut partitions, mut prefixes) = (Sums::new(args.top), Sums::new(args.top));
    let mut rows = db.scan().run()?;
    while let Some((key, view)) = rows.next_row()? {
        let value = view.as_bytes().len() as u64;
        let all = value + key.len() as u64;
        (items, bytes) = (items + 1, bytes.saturating_add(all));
        largest.add(value, || {
            let of = |key: &Key<'_>| (key.partition().to_vec(), key.sort().map(<[u8]>::to_vec));
            of(&key)
        });
        partitions.add(Some(key.partition()), all);
        prefixes.add(prefix(key.partition()), all);
    }
    let largest: Vec<Big> = largest
        .into_sorted()
        .into_iter()
        .map(|(bytes, (key, sort))| Big {
            key: escape::key(&key),
            sort: sort.as_deref().map(escape::key),
            bytes,
        })
        .collect();
    let (partitions, prefixes) = (partitions.into_rows(), prefixes.into_rows());
    let mut lines = vec![format!("{}   {} of keys and items", counted(items, "item"), size(bytes))];
    section(
        &mut lines,
        "largest items",
        largest.iter().map(|big| {
            let sort = big.sort.as_deref().map(|sort| if sort.is_empty() { "\"\"" } else { sort });
            format!("{:>14}  {} {}", grouped(big.bytes), big.key, sort.unwrap_or_default())
        }),
    );
    let sums = |sum: &Sum| format!("{:>14}  {:>10}  {}", grouped(sum.bytes), grouped(sum.items), sum.key);
    section(&mut lines, "partitions: bytes, items", partitions.iter().map(sums));
    section(&mut lines, "prefixes of partition keys, up to the first # : / or |", prefixes.iter().map(sums));
    let json = json!({
        "schema": "kstone.big/1",
        "count": items,
        "bytes": bytes,
        "items": largest,
        "partitions": partitions,
        "prefixes": prefixes,
    });
    print_result(format, &lines.join("\n"), json)?;
    Failure::all(damage(&db))
}

fn section(lines: &mut Vec<String>, title: &str, rows: impl ExactSizeIterator<Item = String>) {
    if rows.len() > 0 {
        lines.push(String::new());
        lines.push(title.into());
        lines.extend(rows.map(|row| row.trim_end().to_owned()));
    }
}
