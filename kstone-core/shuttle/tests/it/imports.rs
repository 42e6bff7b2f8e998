//! Keeps the engine under the scheduler: its sources import locks, atomics and threads from `sync.rs`.

use std::collections::BTreeSet;
use std::path::Path;

/// Names by which a source would bypass `sync.rs`.
const PAST_IT: [&str; 8] = [
    "parking_lot::",
    "arc_swap::ArcSwap",
    "sync::Mutex",
    "sync::RwLock",
    "sync::Condvar",
    "std::sync::atomic::Atomic",
    "std::sync::atomic::{",
    "std::thread",
];

/// Files that may bypass it, and why that does not affect how threads interact.
const MAY: [(&str, &str); 20] = [
    ("clock.rs", "a clock of tests"),
    ("counters.rs", "counts; its locks are held for a few instructions, without any other"),
    ("latency.rs", "histograms: locks held without any other, and samples that block no thread"),
    ("lsm/compaction_stats.rs", "counts"),
    ("lsm/counts.rs", "counts"),
    ("lsm/observe.rs", "counts"),
    ("lsm/sizes.rs", "histograms: a lock held without any other, and samples that block no thread"),
    ("lsm/stats.rs", "counts"),
    ("planted.rs", "the choice of one test thread"),
    ("process.rs", "a mark that only a fork changes"),
    ("sst/block_cache.rs", "a cache that may forget anything at any time"),
    ("sst/context.rs", "a flag that holds for the next file opened, and a count"),
    ("sst/filter_stats.rs", "counts"),
    ("sst/open.rs", "which blocks were checked: checking one again changes nothing"),
    ("torture/faults/beside.rs", "a suite, which has no threads that these tests schedule"),
    ("torture/faults/run.rs", "counts the I/O of a run"),
    ("torture/order.rs", "a suite, which has no threads that these tests schedule"),
    ("torture/watchdog.rs", "watches suites, in real time"),
    ("vfs/disk.rs", "waits for locks of the operating system, on files that these tests do not use"),
    ("wal/append.rs", "counts"),
];

#[expect(clippy::disallowed_methods, reason = "reads the sources, not a database")]
fn sources(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else {
            into.push(path);
        }
    }
}

#[test]
fn the_engine_takes_its_locks_atomics_and_threads_from_one_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut found = BTreeSet::new();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
        // Modules and helpers of unit tests run on real threads.
        if name.starts_with("sync") || name.ends_with("tests.rs") || name == "wal/testing.rs" {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let goes_past = code.lines().map(str::trim_start).any(|line| {
            !line.starts_with("//")
                && !line.contains("crate::sync")
                && PAST_IT.iter().any(|p| line.contains(p))
        });
        if goes_past {
            found.insert(name.to_string());
        }
    }
    let may: BTreeSet<_> = MAY.iter().map(|&(name, _)| name.to_string()).collect();
    println!("{} files checked, {} with reasons of their own", files.len(), found.len());
    assert!(files.len() > 80);
    assert_eq!(found, may, "import these from crate::sync, or give a reason here");
}
