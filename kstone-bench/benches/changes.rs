//! What safe changes cost beside plain writes: each group has a plain write to compare with. Durability is `Buffered`,
//! settings are the defaults, files are on disk in a temporary directory.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on stops")]

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use kstone_api::{
    Condition, Database, Item, ItemBuilder, Projection, TransactWrite, Update, WriteBatch, attr,
};
use kstone_bench::key;
use tempfile::TempDir;

const ITEMS: u64 = 100_000;

fn item(n: u64) -> Item {
    let item = ItemBuilder::new().number("n", n).string("name", format!("item {n}")).bool("open", true);
    item.number("a", 1).number("b", 2).string("c", "three").string("d", "four").build()
}

/// Items in SSTs.
fn stored() -> (Database, TempDir) {
    let dir = TempDir::new().expect("a temporary directory");
    let db = Database::create(dir.path().join("db")).expect("a new database");
    for n in 0..ITEMS {
        db.put(key(n), item(n)).expect("a write");
    }
    db.flush().expect("a flush");
    (db, dir)
}

fn each(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut run: impl FnMut(u64)) {
    let mut n = 0;
    group.bench_function(name, |b| {
        b.iter(|| {
            n += 1;
            run(n);
        });
    });
}

fn one_item(c: &mut Criterion) {
    let (db, _dir) = stored();
    let mut group = c.benchmark_group("one_item");
    group.throughput(Throughput::Elements(1));
    let there = |n: u64| key(n * 7_919 % ITEMS);
    each(&mut group, "put_new", |n| db.put(key(ITEMS + n), item(n)).expect("a write"));
    each(&mut group, "put_if_absent_key", |n| {
        db.put_if(key((1 << 40) + n), item(n), Condition::item_absent()).expect("a write");
    });
    each(&mut group, "put_stored", |n| db.put(there(n), item(n)).expect("a write"));
    each(&mut group, "put_if_stored_key", |n| {
        db.put_if(there(n), item(n), attr("open").eq(true)).expect("a write");
    });
    let add = Update::new().add("n", 1);
    each(&mut group, "update_7_attributes", |n| {
        db.update(there(n)).apply(add.clone()).run().expect("a write");
    });
    group.finish();
}

fn large_item(c: &mut Criterion) {
    let dir = TempDir::new().expect("a temporary directory");
    let db = Database::create(dir.path().join("db")).expect("a new database");
    let large: Item = (0..100).map(|i| (format!("attribute{i:03}"), i)).chain([("n".into(), 0)]).collect();
    let keys = 1_000;
    let put = |n: u64| db.put(key(n % keys), large.clone()).expect("a write");
    (0..keys).for_each(put);
    let mut group = c.benchmark_group("large_item");
    group.throughput(Throughput::Elements(1));
    each(&mut group, "put_100_attributes", put);
    let add = Update::new().add("n", 1);
    each(&mut group, "update_100_attributes", |n| {
        db.update(key(n % keys)).apply(add.clone()).run().expect("a write");
    });
    group.finish();
}

/// 4,000 additions to one counter, by one thread and by four.
fn counter(c: &mut Criterion) {
    let (db, _dir) = stored();
    let mut group = c.benchmark_group("counter");
    group.throughput(Throughput::Elements(4_000));
    group.sample_size(20);
    let on = |threads: u64, run: &(dyn Fn(u64) + Sync)| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(move || (0..4_000 / threads).for_each(run));
            }
        });
    };
    group.bench_function("one_thread_puts", |b| {
        b.iter(|| on(1, &|n| db.put("counter", item(n)).expect("a write")));
    });
    for threads in [1, 4] {
        group.bench_function(format!("adds_of_{threads}"), |b| {
            b.iter(|| {
                on(threads, &|_| drop(db.update("counter").add("n", 1).run().expect("a write")));
            });
        });
    }
    group.finish();
}

fn several_items(c: &mut Criterion) {
    let (db, _dir) = stored();
    let mut group = c.benchmark_group("several_items");
    let there = |n: u64| key(n * 7_919 % ITEMS);
    each(&mut group, "batch_of_4", |n| {
        let mut batch = WriteBatch::new();
        for i in 0..4 {
            batch.put(there(4 * n + i), item(n)).expect("a key");
        }
        db.write(batch).expect("a write");
    });
    each(&mut group, "transact_write_of_4", |n| {
        let mut write = TransactWrite::new();
        for i in 0..4 {
            write = write.put_if(there(4 * n + i), item(n), Condition::item_exists()).expect("a key");
        }
        db.transact_write(&write).expect("a write");
    });
    each(&mut group, "batch_of_2", |n| {
        let mut batch = WriteBatch::new();
        for i in 0..2 {
            batch.put(there(2 * n + i), item(n)).expect("a key");
        }
        db.write(batch).expect("a write");
    });
    each(&mut group, "transaction_of_2_reads_and_2_writes", |n| {
        let done = db.transaction(|tx| {
            for i in 0..2 {
                assert!(tx.contains(there(2 * n + i))?);
                tx.put(there(2 * n + i), item(n))?;
            }
            Ok::<_, kstone_api::Error>(())
        });
        done.expect("a write");
    });
    group.finish();
}

/// 100 rows of a partition.
fn query(c: &mut Criterion) {
    let dir = TempDir::new().expect("a temporary directory");
    let db = Database::create(dir.path().join("db")).expect("a new database");
    for n in 0..ITEMS {
        db.put((key(n / 100), format!("{:02}", n % 100)), item(n % 100)).expect("a write");
    }
    db.flush().expect("a flush");
    let mut group = c.benchmark_group("query_100");
    group.throughput(Throughput::Elements(100));
    let partition = |n: u64| key(n * 7 % (ITEMS / 100));
    each(&mut group, "views", |n| {
        let rows = db.query(partition(n)).run().expect("a read").views();
        assert_eq!(rows.filter(|row| row.is_ok()).count(), 100);
    });
    each(&mut group, "filter_keeps_10", |n| {
        let rows = db.query(partition(n)).filter(attr("n").lt(10)).run().expect("a read").views();
        assert_eq!(rows.filter(|row| row.is_ok()).count(), 10);
    });
    each(&mut group, "items", |n| {
        let rows = db.query(partition(n)).run().expect("a read");
        assert_eq!(rows.filter(|row| row.is_ok()).count(), 100);
    });
    each(&mut group, "projection_of_1", |n| {
        let rows = db.query(partition(n)).project(Projection::of(["n"])).run().expect("a read");
        assert_eq!(rows.filter(|row| row.is_ok()).count(), 100);
    });
    group.finish();
}

criterion_group!(changes, one_item, large_item, counter, several_items, query);
criterion_main!(changes);
