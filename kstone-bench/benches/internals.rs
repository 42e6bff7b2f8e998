//! Small, stable benchmarks of the engine's inner operations, on one thread, with nothing of the engine around them:
//! no locks of stripes, no manifest, no syncs, no background work.
//!
//! * `bloom_probe`: asking a filter of 65,536 keys at 10 bits a key (80 KiB, so in a cache of the processor) for one
//!   key, which is there (`present`) or is not (`absent`). The time is that of one probe; probes follow each other
//!   without waiting, as their answers do not depend on each other. An absent key looks at fewer bits, but the processor
//!   cannot guess at which one it ends. Hashing the key is not in it.
//! * `memtable_insert`: 1000 records of 200 bytes into an empty memtable, in random order, the allocation of each
//!   record included. Creating and dropping the memtable, and the log, are not in it.
//! * `wal_append`: 1000 records of 200 bytes (248 in the file) appended to a log on disk, one write call a record, room
//!   reserved for each. They reach the page cache and are not synced. Creating the segment and allocating its space,
//!   which the engine does off the path of writes or for many writes at once, are not in it.
//! * `sst_build`: a file of 10,000 records of 200 bytes, ordered by key: blocks, filter, index and checksums, written
//!   to disk and not synced, not compressed. Sorting the records is not in it.
//! * `merge_4`: all entries of 4 runs of 5,000 records of 200 bytes each, whose keys overlap, in one order: opening the
//!   cursors and walking them. The files are mapped, in the page cache, and their checksums were checked before.
//!   Dropping old versions and writing the result, which a compaction does as well, are not in it.
//!
//! Records are counted with their encoded keys of 18 bytes. Files are in the directory for temporary files (`TMPDIR`).

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on stops")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kstone_bench::key;
use kstone_core::bench::{Filter, Log, Memtable, Record, Run, Written, merge};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tempfile::TempDir;

const RECORD_BYTES: usize = 200;

/// The records of these items, with sequences from `first_seq` on.
fn records(items: impl Iterator<Item = u64>, first_seq: u64) -> Vec<Record> {
    items
        .zip(first_seq..)
        .map(|(n, seq)| Record::new(&key(n), seq, RECORD_BYTES).expect("a record"))
        .collect()
}

/// The numbers below `end`, in an order that depends on the seed alone.
fn shuffled(end: u64, seed: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..end).collect();
    numbers.shuffle(&mut StdRng::seed_from_u64(seed));
    numbers
}

fn bloom_probe(c: &mut Criterion) {
    const KEYS: u64 = 1 << 16;
    /// A part of a round over the keys may have this many more or less that pass than its length suggests.
    const SLACK: f64 = 150.0;
    let hashes = |keys| records(keys, 1).iter().map(Record::hash).collect::<Vec<_>>();
    let (present, absent) = (hashes(0..KEYS), hashes(KEYS..2 * KEYS));
    let filter = Filter::new(&present, 10);
    let passes = |hashes: &[u64]| hashes.iter().filter(|hash| filter.may_contain(**hash)).count() as f64;
    assert_eq!(passes(&present), KEYS as f64, "every key that is there passes");
    let false_positives = passes(&absent) / KEYS as f64;
    assert!((0.005..0.015).contains(&false_positives), "{false_positives} of the absent keys pass");

    let mut group = c.benchmark_group("bloom_probe");
    group.throughput(Throughput::Elements(1));
    for (name, hashes, share) in [("present", present, 1.0), ("absent", absent, false_positives)] {
        group.bench_function(name, |b| {
            let (mut probes, mut passed) = (0usize, 0u64);
            b.iter(|| {
                let hash = hashes[probes % KEYS as usize];
                probes += 1;
                passed += u64::from(filter.may_contain(black_box(hash)));
            });
            let expected = probes as f64 * share;
            assert!((passed as f64 - expected).abs() < SLACK, "{passed} of {probes} passed, not {expected}");
        });
    }
    group.finish();
}

fn memtable_insert(c: &mut Criterion) {
    const RECORDS: u64 = 1000;
    let records = records(shuffled(RECORDS, 1).into_iter(), 1);
    let mut group = c.benchmark_group("memtable_insert");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("memtable_insert", |b| {
        b.iter_batched_ref(
            Memtable::new,
            |memtable| {
                records.iter().for_each(|record| memtable.insert(record));
                assert_eq!(memtable.contents(), (records.len(), records.len() * RECORD_BYTES));
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn wal_append(c: &mut Criterion) {
    const RECORDS: u64 = 1000;
    /// What a record of 200 bytes takes in the file.
    const IN_FILE: u64 = 248;
    let record = [7; RECORD_BYTES];
    let mut group = c.benchmark_group("wal_append");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(20);
    group.bench_function("wal_append", |b| {
        b.iter_batched_ref(
            || {
                let dir = TempDir::new().expect("a temporary directory");
                let log = Log::create(dir.path(), (2 * RECORDS * IN_FILE) as usize).expect("a new log");
                let before = log.written();
                (log, before, dir)
            },
            |(log, before, _dir)| {
                for _ in 0..RECORDS {
                    log.append(black_box(&record)).expect("a write");
                }
                let (records, bytes) = log.written();
                assert_eq!((records - before.0, bytes - before.1), (RECORDS, RECORDS * IN_FILE));
                assert_eq!(log.segments(), 1, "no segment was created meanwhile");
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn sst_build(c: &mut Criterion) {
    const RECORDS: u64 = 10_000;
    let mut records = records(0..RECORDS, 1);
    records.sort_by(|a, b| a.key().cmp(b.key()));
    let dir = TempDir::new().expect("a temporary directory");
    let sample = Written::new(dir.path(), 1, &records).expect("a file");
    // Checks each byte of it.
    sample.open(dir.path()).expect("a file that is as it was written");
    let (entries, file_bytes) = sample.contents();
    // What all keys share is stored once, so it may be a little less than the records take.
    assert!(entries == RECORDS && file_bytes > RECORDS * RECORD_BYTES as u64 * 9 / 10, "{file_bytes} bytes");

    let mut group = c.benchmark_group("sst_build");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(20);
    group.bench_function("sst_build", |b| {
        b.iter_batched(
            || TempDir::new().expect("a temporary directory"),
            |dir| {
                let written = Written::new(dir.path(), 1, &records).expect("a file");
                assert_eq!(written.contents(), (entries, file_bytes));
                // Both are dropped after the measurement.
                (written, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn merge_4(c: &mut Criterion) {
    const RUNS: u64 = 4;
    const RECORDS: u64 = 5_000;
    let dir = TempDir::new().expect("a temporary directory");
    let run = |n: u64| -> Run {
        // Half of 10,000 keys, another half in each run: a key has two versions on average.
        let items = shuffled(2 * RECORDS, n).into_iter().take(RECORDS as usize);
        let mut records = records(items, 1 + n * RECORDS);
        records.sort_by(|a, b| a.key().cmp(b.key()));
        Written::new(dir.path(), 1 + n, &records).and_then(|run| run.open(dir.path())).expect("a run")
    };
    let runs: Vec<Run> = (0..RUNS).map(run).collect();
    let mut found = Vec::new();
    merge(&runs, |entry| found.push((entry.key.to_vec(), std::cmp::Reverse(entry.seq)))).expect("a merge");
    assert!(found.len() as u64 == RUNS * RECORDS && found.is_sorted_by(|a, b| a < b), "all, in order");
    found.dedup_by(|a, b| a.0 == b.0);
    let keys = found.len() as u64;
    assert!((RECORDS..=2 * RECORDS).contains(&keys), "runs overlap: they have {keys} keys");

    let mut group = c.benchmark_group("merge_4");
    group.throughput(Throughput::Elements(RUNS * RECORDS));
    group.bench_function("merge_4", |b| {
        b.iter(|| {
            let (mut entries, mut bytes) = (0, 0);
            merge(&runs, |entry| {
                entries += 1;
                bytes += black_box(entry.key).len() + black_box(entry.value).len();
            })
            .expect("a merge");
            assert_eq!((entries, bytes), (RUNS * RECORDS, (RUNS * RECORDS) as usize * RECORD_BYTES));
        });
    });
    group.finish();
}

criterion_group!(benches, bloom_probe, memtable_insert, wal_append, sst_build, merge_4);
criterion_main!(benches);
