//! Small, stable benchmarks of the encoding of items, in memory: an item of some 200 bytes with three attributes.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on stops")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kstone_api::ItemView;
use kstone_bench::item;

/// An item into its bytes, which are allocated.
fn item_encode(c: &mut Criterion) {
    let item = item(7);
    let bytes = item.encode().expect("an item").len() as u64;
    let mut group = c.benchmark_group("item");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("item_encode", |b| b.iter(|| black_box(&item).encode().expect("an item")));
    group.finish();
}

/// One attribute of the encoded bytes, read in place.
fn item_view(c: &mut Criterion) {
    let bytes = item(7).encode().expect("an item");
    let mut group = c.benchmark_group("item");
    group.throughput(Throughput::Elements(1));
    group.bench_function("item_view", |b| {
        b.iter(|| {
            let view = ItemView::new(black_box(&bytes[..])).expect("an item");
            let count = view.get("count").expect("an item").and_then(|value| value.as_i64());
            assert_eq!(count, Some(7));
        });
    });
    group.finish();
}

criterion_group!(benches, item_encode, item_view);
criterion_main!(benches);
