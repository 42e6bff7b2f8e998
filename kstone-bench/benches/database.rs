//! Small, stable benchmarks of the library. Durability is `Buffered`, settings are the defaults, files are on
//! disk in a temporary directory.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on stops")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kstone_api::{Database, ItemBuilder};
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

/// What a test pays that opens a database of its own.
fn open_close_empty(c: &mut Criterion) {
    c.bench_function("open_close_empty", |b| {
        b.iter(|| Database::in_memory().and_then(Database::close).expect("an empty database"));
    });
}

criterion_group!(benches, put_1000_items, get, open_close_empty);
criterion_main!(benches);
