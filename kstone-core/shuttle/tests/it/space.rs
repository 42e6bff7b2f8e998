//! Checkpoints, log segments, settings and the disk limit, concurrent with writers.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstone_shuttle::lsm::WriteOptions;
use kstone_shuttle::vfs::{CrashMode, FaultVfs, MemVfs, Op, Rule, StrictVfs, Vfs};
use kstone_shuttle::{CompactionConfig, DatabaseConfig, Error};
use shuttle::rand::Rng;

use super::harness::*;
use super::workers::{Signal, sleep, slow_writes};

/// Symptom it looks for: a checkpoint that retires a log segment while an unflushed record of another stripe needs it,
/// or that lists records although a power cut loses earlier ones.
#[test]
fn a_checkpoint_gives_back_only_what_no_stripe_needs() {
    explore_some("checkpoint against writers and log rotation", 500, checkpoint_against_writers);
}

pub(crate) fn checkpoint_against_writers() {
    let vfs = StrictVfs::new();
    let mut options = options(Arc::new(vfs.clone()));
    options.config = options.config.map(|config| config.with_max_memtable_records(1));
    let engine = create(options);
    let written = Arc::new(Mutex::new(Vec::<Written>::new()));
    let writers = (0..2u64).map(|writer| {
        let (engine, written) = (Arc::clone(&engine), Arc::clone(&written));
        spawn(move || {
            for n in 0..3usize {
                // Two records fill a segment.
                let (key, value) = (key(writer, n), vec![n as u8; 7_000]);
                let seq = engine.put(&key, &value, WriteOptions::new()).unwrap();
                written.lock().unwrap().push(Written { seq, key: key.partition().to_vec(), value });
            }
        })
    });
    let mut threads: Vec<_> = writers.collect();
    let images = Arc::new(Mutex::new(Vec::new()));
    threads.push(spawn({
        let (engine, vfs, images) = (Arc::clone(&engine), vfs.clone(), Arc::clone(&images));
        move || {
            for _ in 0..2 {
                engine.flush().unwrap();
                let image = vfs.crash(CrashMode::Strict);
                images.lock().unwrap().push((image, CrashMode::Strict, 0));
            }
        }
    }));
    threads.push(spawn({
        let (vfs, images, written) = (vfs.clone(), Arc::clone(&images), Arc::clone(&written));
        move || {
            for mode in [CrashMode::All, CrashMode::Strict, CrashMode::Random { seed: 1 }] {
                let before = written.lock().unwrap().len();
                let image = vfs.crash(mode);
                images.lock().unwrap().push((image, mode, before));
            }
        }
    }));
    join(threads);
    engine.sync().unwrap();
    images.lock().unwrap().push((vfs.crash(CrashMode::Strict), CrashMode::All, 6));
    engine.close().unwrap();
    assert_no_wake_up_was_missed();
    let written = written.lock().unwrap();
    for (image, mode, before) in std::mem::take(&mut *images.lock().unwrap()) {
        let found = contents(image);
        assert_prefix(&written, &found);
        if mode == CrashMode::All {
            let lost = written.iter().take(before).filter(|write| !found.contains_key(&write.key)).count();
            assert_eq!(lost, 0, "acknowledged writes are lost");
        }
    }
    assert_eq!(contents(vfs).len(), 6);
}

/// Symptoms it looks for: a directory that outgrows its limit; a writer that waits forever, or is refused for a reason
/// other than space; a change of settings that deadlocks with readers of the settings.
#[test]
fn settings_change_and_the_limit_holds_under_writers() {
    explore_some("settings and quota against writers", 500, settings_and_quota_against_writers);
}

pub(crate) fn settings_and_quota_against_writers() {
    let limit = 512 << 10;
    let vfs = MemVfs::new();
    let mut options = options(Arc::new(vfs.clone()));
    let config = move |records| {
        DatabaseConfig::new()
            .with_stripes(4)
            .with_latency_sampling(0)
            .with_max_total_disk_bytes(limit)
            .with_max_memtable_records(records)
    };
    options.config = Some(config(2));
    let engine = create(options);
    let used = {
        let vfs = vfs.clone();
        move || {
            let pages = |len: u64| len.next_multiple_of(4096);
            vfs.list(Path::new(DB)).unwrap().iter().map(|entry| pages(entry.len)).sum::<u64>()
        }
    };
    let refused = Arc::new(Mutex::new(0));
    let writers = (0..2u64).map(|writer| {
        let (engine, used, refused) = (Arc::clone(&engine), used.clone(), Arc::clone(&refused));
        spawn(move || {
            for n in 0..4 {
                let len = shuttle::rand::thread_rng().gen_range(20_000..60_000);
                match engine.put(&key(writer, n % 2), &vec![1; len], WriteOptions::new()) {
                    Ok(_) => {}
                    Err(Error::DiskFull) => *refused.lock().unwrap() += 1,
                    Err(error) => panic!("{error}"),
                }
                assert!(used() <= limit, "{} of {limit}", used());
            }
        })
    });
    let mut threads: Vec<_> = writers.collect();
    threads.push(spawn({
        let engine = Arc::clone(&engine);
        move || {
            for n in 1..3 {
                engine.set_config(config(n * 3).with_write_buffer_size(4096 * n)).unwrap();
                let threshold = CompactionConfig::new().with_sst_threshold(1 + n);
                engine.set_compaction_config(threshold.with_max_concurrent(n)).unwrap();
            }
        }
    }));
    join(threads);
    // Deletes are always possible, and free space.
    for (stripe, n) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        engine.delete(&key(stripe, n), WriteOptions::new()).unwrap();
    }
    assert!(used() <= limit);
    engine.close().unwrap();
}

/// Symptom it looks for: a stopped writer and a worker that keep each other busy, each waking the other, while both
/// wait for a third thread. Under fair scheduling that only wastes processor time; a schedule that favours the two
/// keeps the third from its work until the writer is refused.
#[test]
fn a_writer_that_waits_keeps_nobody_busy() {
    explore_some("stopped writer against a slow flush", 500, stopped_writer_against_a_slow_flush);
}

pub(crate) fn stopped_writer_against_a_slow_flush() {
    let (vfs, released) = (FaultVfs::new(Arc::new(MemVfs::new())), Arc::new(Signal::default()));
    let mut options = options(Arc::new(vfs.clone()));
    options.config = options.config.map(|config| config.with_memory_budget(1_000));
    let engine = create(options);
    vfs.add(slow_writes(&released));
    let writer = spawn({
        let engine = Arc::clone(&engine);
        move || {
            for n in 0..4 {
                engine.put(&key(0, n), &[1; 600], WriteOptions::new()).unwrap();
            }
        }
    });
    // Time passes only when no thread can run: with a thread busy all the time, this would not end.
    sleep(Duration::from_secs(1));
    assert!(engine.stats().unwrap().log_records < 4, "the writer was not stopped");
    released.give();
    join([writer]);
    engine.close().unwrap();
}

/// Symptom it looks for: log files that exceed the log's limit at any moment.
#[test]
fn the_log_is_within_its_limit_at_every_operation() {
    explore_some("log's limit against writers", 500, limit_of_the_log_against_writers);
}

pub(crate) fn limit_of_the_log_against_writers() {
    let (segment, item) = (16 << 10, 9_000);
    let limit = 2 * segment + item + 8192 + 128;
    let within = move |vfs: &MemVfs| {
        let list = vfs.list(Path::new(DB)).unwrap_or_default();
        let log: u64 = list.iter().filter(|entry| entry.name.ends_with(".log")).map(|entry| entry.len).sum();
        assert!(log <= limit, "{log} bytes of {limit}: {list:?}");
    };
    let memory = MemVfs::new();
    let vfs = FaultVfs::new(Arc::new(memory.clone()));
    vfs.add(
        Rule::hook({
            let memory = memory.clone();
            move |_| {
                within(&memory);
                Ok(())
            }
        })
        .on(&[Op::Write, Op::Sync, Op::Remove]),
    );
    let mut options = options(Arc::new(vfs));
    options.config = options.config.map(|config| {
        config
            .with_max_memtable_records(1)
            .with_max_key_bytes(64)
            .with_max_item_bytes(item as usize)
            .with_wal_segment_size(segment)
            .with_max_wal_size_bytes(limit)
    });
    options.compaction = Some(CompactionConfig::disabled());
    let engine = create(options);
    let writers = (0..3u64).map(|writer| {
        let engine = Arc::clone(&engine);
        spawn(move || {
            for n in 0..4 {
                engine.put(&key(writer, n), &vec![1; 4_000], WriteOptions::new()).unwrap();
            }
        })
    });
    join(writers.collect::<Vec<_>>());
    within(&memory);
    engine.close().unwrap();
    within(&memory);
    assert_no_wake_up_was_missed();
}
