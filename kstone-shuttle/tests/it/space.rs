//! Checkpoints, the log's segments, settings and the disk limit against writers.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kstone_shuttle::lsm::WriteOptions;
use kstone_shuttle::vfs::{CrashMode, MemVfs, StrictVfs, Vfs};
use kstone_shuttle::{CompactionConfig, DatabaseConfig, Error};
use shuttle::rand::Rng;

use super::harness::*;

/// Symptom it looks for: a log segment given back that an unflushed record of another stripe needs; a checkpoint that
/// lists records of which a power cut loses earlier ones.
#[test]
fn a_checkpoint_gives_back_only_what_no_stripe_needs() {
    explore("checkpoint against writers and log rotation", || {
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
                let lost =
                    written.iter().take(before).filter(|write| !found.contains_key(&write.key)).count();
                assert_eq!(lost, 0, "acknowledged writes are lost");
            }
        }
        assert_eq!(contents(vfs).len(), 6);
    });
}

/// Symptoms it looks for: a directory that outgrows its limit; a writer that waits for ever, or is refused for another
/// reason than space; settings that deadlock with those who read them.
#[test]
fn settings_change_and_the_limit_holds_under_writers() {
    explore("settings and quota against writers", || {
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
                        // Time passes whether or not others get on: it may be over for a writer, which may try again.
                        Err(Error::DiskFull | Error::WriteStalled { .. }) => *refused.lock().unwrap() += 1,
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
        // Deletes are always possible, and make space.
        for (stripe, n) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            engine.delete(&key(stripe, n), WriteOptions::new()).unwrap();
        }
        assert!(used() <= limit);
        engine.close().unwrap();
    });
}
