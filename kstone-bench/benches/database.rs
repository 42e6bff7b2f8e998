//! Small, stable benchmarks of the library. Durability is `Buffered`, settings are the defaults, files are on
//! disk in a temporary directory. Reads find the files in the page cache, and are of views: no item is decoded.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on stops")]
#![expect(
    clippy::disallowed_methods,
    reason = "it copies the files of a database, as a crash would leave them"
)]

use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kstone_api::{Database, ItemBuilder, Key};
use kstone_bench::{item, key};
use tempfile::TempDir;

const ITEMS: u64 = 200_000;

/// The chapter's benchmark, but for one thing: the directory outlives the measurement, and removing it is not
/// timed.
fn put_1000_items(c: &mut Criterion) {
    let mut group = c.benchmark_group("put");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("put_1000_items", |b| {
        b.iter_batched_ref(
            || {
                let dir = TempDir::new().expect("a temporary directory");
                let db = Database::create(dir.path().join("db")).expect("a new database");
                (db, dir)
            },
            |(db, _dir)| {
                for i in 0..1000 {
                    let key = format!("key{i:010}");
                    let item = ItemBuilder::new().string("value", format!("data{i}")).build();
                    db.put(key.as_bytes(), item).expect("a write");
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn get(c: &mut Criterion) {
    let dir = TempDir::new().expect("a temporary directory");
    let db = Database::create(dir.path().join("db")).expect("a new database");
    for n in 0..ITEMS {
        db.put(key(n), item(n)).expect("a write");
    }
    db.flush().expect("a flush");
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let mut n = 0;
    group.bench_function("get_hit", |b| {
        b.iter_batched(
            || {
                n += 7_919;
                key(n % ITEMS)
            },
            |key| db.get_view(&key).expect("a read").is_some(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("get_miss", |b| {
        b.iter_batched(
            || {
                n += 1;
                key(ITEMS + n)
            },
            |key| db.get_view(&key).expect("a read").is_some(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Of 100 keys that exist.
fn batch_get(c: &mut Criterion) {
    const KEYS: u64 = 100;
    let dir = TempDir::new().expect("a temporary directory");
    let db = Database::create(dir.path().join("db")).expect("a new database");
    for n in 0..ITEMS {
        db.put(key(n), item(n)).expect("a write");
    }
    db.flush().expect("a flush");
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(KEYS));
    let mut n = 0;
    group.bench_function("batch_get", |b| {
        b.iter_batched(
            || {
                n += 7_919;
                (0..KEYS).map(|i| key((n + i * 104_729) % ITEMS)).collect::<Vec<_>>()
            },
            |keys| {
                let items = db.batch_get(keys).expect("a read");
                assert_eq!(items.iter().flatten().count() as u64, KEYS);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The first 50 items of a partition that has 100.
fn query_50(c: &mut Criterion) {
    const PARTITIONS: u64 = 2_000;
    const FOUND: usize = 50;
    let dir = TempDir::new().expect("a temporary directory");
    let db = Database::create(dir.path().join("db")).expect("a new database");
    for n in 0..PARTITIONS * 100 {
        let (partition, sort) = (key(n / 100), format!("{:02}", n % 100));
        db.put(Key::with_sort(partition.as_bytes(), sort.as_bytes()), item(n)).expect("a write");
    }
    db.flush().expect("a flush");
    let mut group = c.benchmark_group("query");
    group.throughput(Throughput::Elements(FOUND as u64));
    let mut n = 0;
    group.bench_function("query_50", |b| {
        b.iter_batched(
            || {
                n += 7_919;
                key(n % PARTITIONS)
            },
            |partition| {
                let items = db.query(&partition).limit(FOUND).run().expect("a query").views();
                assert_eq!(items.filter(|item| item.is_ok()).count(), FOUND);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Opening what a killed process leaves whose last 20,000 writes are in the log only. The files are in the page cache.
fn recovery(c: &mut Criterion) {
    const WRITES: u64 = 20_000;
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("db");
    let db = Database::create(&path).expect("a new database");
    for n in 0..WRITES {
        db.put(key(n), item(n)).expect("a write");
    }
    assert_eq!(db.stats().expect("figures").flushes, 0, "writes are in the log only");
    let mut group = c.benchmark_group("recovery");
    group.throughput(Throughput::Elements(WRITES)).sample_size(10);
    group.bench_function("recovery", |b| {
        b.iter_batched(
            || {
                let dir = TempDir::new().expect("a temporary directory");
                copy(&path, dir.path());
                dir
            },
            // Both are dropped after the measurement.
            |dir| (Database::open(dir.path()).expect("a database that opens"), dir),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let copied = TempDir::new().expect("a temporary directory");
    copy(&path, copied.path());
    let opened = Database::open(copied.path()).expect("a database that opens");
    assert!(opened.contains(key(WRITES - 1)).expect("a read"), "the last write was replayed");
    assert!(opened.stats().expect("figures").recovery.replayed_bytes > 0, "from the log");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// What a test pays that opens a database of its own.
fn open_close_empty(c: &mut Criterion) {
    c.bench_function("open_close_empty", |b| {
        b.iter(|| Database::in_memory().and_then(Database::close).expect("an empty database"));
    });
}

criterion_group!(benches, put_1000_items, get, batch_get, query_50, recovery, open_close_empty);
criterion_main!(benches);
