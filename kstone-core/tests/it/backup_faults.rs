//! Every I/O operation of a backup and of a read-only open fails, once or permanently: the result is a clear error, or
//! the same as without. The source is unharmed; and at the destination of the backup, there is nothing, nothing that is
//! taken for a database, or a complete copy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{BackupOptions, EngineOptions, LsmEngine, WriteOptions};
use kstone_core::vfs::{Errno, FaultVfs, MemVfs, Op, Rule, Vfs};
use kstone_core::{DatabaseConfig, Error, Key, ReadMode};

use crate::model::{contents, manual};
use crate::readers::{Writer, check};

const DB: &str = "db";
const COPY: &str = "copy";
const ERRNOS: [Errno; 4] = [Errno::Io, Errno::NoSpace, Errno::TooManyFiles, Errno::NoMemory];

/// The operations of an open that check whether there is a database.
const LOOKS: u64 = 2;

/// The number of runs by error code; `whole` counts those that succeeded anyway.
type Outcomes = BTreeMap<&'static str, u32>;

/// A database, and the fault-injecting file system that it is on.
struct Source {
    faults: FaultVfs,
    vfs: Arc<dyn Vfs>,
    writer: Writer,
}

impl Source {
    fn new() -> Self {
        let faults = FaultVfs::new(Arc::new(MemVfs::new()));
        let vfs: Arc<dyn Vfs> = Arc::new(faults.clone());
        let writer = Writer::new(&vfs, 5);
        Self { faults, vfs, writer }
    }

    fn read_only(&self, mode: ReadMode) -> Result<LsmEngine, Error> {
        let mut options = manual(Arc::clone(&self.vfs), 3);
        options.config = Some(DatabaseConfig::new().with_read_mode(mode));
        LsmEngine::open_read_only(Path::new(DB), options)
    }

    /// Checks that everything is there, nothing is pinned needlessly, and the database keeps working. Reopens it if the
    /// handle is poisoned.
    fn unharmed(mut self, context: &str) -> Self {
        let commits = self.writer.commits();
        check(&self.writer.engine, &self.writer, commits, context);
        if let Err(error) = self.writer.engine.put(&Key::from("more"), b"value", WriteOptions::new()) {
            assert!(matches!(error, Error::Poisoned { .. }), "{error}, {context}");
            let options = || manual(Arc::clone(&self.vfs), 2);
            drop(std::mem::replace(&mut self.writer.engine, Arc::new(other())));
            let engine =
                LsmEngine::open(Path::new(DB), options()).unwrap_or_else(|e| panic!("{e}, {context}"));
            check(&engine, &self.writer, commits, context);
            return Self::new();
        }
        self.writer.engine.delete(&Key::from("more"), WriteOptions::new()).unwrap();
        self.writer.turn_over();
        let stats = self.writer.engine.stats().unwrap();
        let ssts: usize = stats.stripes.iter().map(|stripe| stripe.ssts).sum();
        let listing = self.faults.inner().list(Path::new(DB)).unwrap();
        let data = listing.iter().filter(|entry| entry.name.ends_with("sst") || entry.name.ends_with("log"));
        assert_eq!(data.count(), ssts + stats.log_segments, "{context}");
        self
    }
}

/// A placeholder for an engine that is being dropped.
fn other() -> LsmEngine {
    LsmEngine::create(Path::new(DB), manual(Arc::new(MemVfs::new()), 1)).unwrap()
}

fn clear(error: &Error, context: &str) -> &'static str {
    let code = error.code();
    // Neither damage nor a missing database is reported: only the check failed.
    assert!(matches!(code, "io" | "disk_full" | "poisoned"), "{error}, {context}");
    if let Error::Io { path, source, .. } = error {
        assert!(!path.as_os_str().is_empty(), "{error}, {context}");
        assert!(source.raw_os_error().is_some() || source.kind() != std::io::ErrorKind::Other, "{context}");
    }
    code
}

/// Whether there is a database at the destination; if so, checks that it is complete.
fn whole(source: &Source, context: &str) -> bool {
    let copy: EngineOptions = manual(Arc::clone(&source.vfs), 6);
    match LsmEngine::open(Path::new(COPY), copy) {
        Ok(copy) => {
            check(&copy, &source.writer, source.writer.commits(), context);
            copy.close().unwrap();
            true
        }
        Err(Error::NotFound { .. } | Error::NotADatabase { .. }) => false,
        Err(error) => panic!("{error}, {context}"),
    }
}

fn remove_copy(vfs: &dyn Vfs) {
    for entry in vfs.list(Path::new(COPY)).unwrap_or_default() {
        vfs.remove(&Path::new(COPY).join(entry.name)).unwrap();
    }
    let _ = vfs.remove_dir(Path::new(COPY));
}

/// Fails one operation of a backup after another; returns the number of runs.
fn fail_each(errno: Errno, lasting: bool, copy: bool, reader: bool, outcomes: &mut Outcomes) -> u64 {
    let mut source = Source::new();
    for n in 1.. {
        let context = format!("{errno:?} at {n}, lasting {lasting}, copy {copy}, reader {reader}");
        let handle = reader.then(|| source.read_only(ReadMode::Mmap).unwrap());
        let engine = handle.as_ref().unwrap_or(&source.writer.engine);
        let rule = Rule::fail(errno);
        let rule = source.faults.add(if lasting { rule.from(n) } else { rule.nth(n) });
        let made = engine.backup_with(Path::new(COPY), BackupOptions::new().copy(copy));
        source.faults.clear();
        drop(handle);
        if rule.hits() == 0 {
            made.unwrap();
            return n;
        }
        let inner = Arc::clone(source.faults.inner());
        match made {
            Ok(_) => {
                assert!(whole(&source, &context), "{context}");
                *outcomes.entry("whole").or_default() += 1;
            }
            Err(error) => {
                *outcomes.entry(clear(&error, &context)).or_default() += 1;
                let left = inner.kind(Path::new(COPY)).unwrap();
                assert!(lasting || left.is_none(), "{left:?} is left behind after {error}, {context}");
                if !whole(&source, &context) {
                    // A new backup can replace the remains, unless this handle is poisoned.
                    match source.writer.engine.backup(Path::new(COPY)) {
                        Err(Error::Poisoned { .. }) => {}
                        made => {
                            made.unwrap_or_else(|e| panic!("{e}, {context}"));
                            assert!(whole(&source, &context), "{context}");
                        }
                    }
                }
            }
        }
        remove_copy(&*inner);
        source = source.unharmed(&context);
    }
    0
}

#[test]
fn every_operation_of_a_backup_fails() {
    let (mut runs, mut outcomes) = (0, Outcomes::new());
    for errno in ERRNOS {
        for lasting in [false, true] {
            for (copy, reader) in [(false, false), (true, false), (false, true), (true, true)] {
                runs += fail_each(errno, lasting, copy, reader, &mut outcomes);
            }
        }
    }
    println!("backup: {runs} runs with a fault, {outcomes:?}");
    assert!(runs > 1500 && outcomes["whole"] > 200 && outcomes["io"] > 1000, "{runs} runs, {outcomes:?}");
}

#[test]
fn every_operation_of_an_open_that_only_reads_fails() {
    let source = Source::new();
    let expected = contents(&source.writer.engine, None);
    let (mut runs, mut outcomes) = (0, Outcomes::new());
    for errno in ERRNOS.into_iter().chain([Errno::Interrupted]) {
        for (lasting, mode) in [
            (false, ReadMode::Mmap),
            (false, ReadMode::Pread),
            (true, ReadMode::Mmap),
            (true, ReadMode::Pread),
        ] {
            for n in 1.. {
                let context = format!("{errno:?} at {n}, lasting {lasting}, {mode:?}");
                if errno == Errno::Interrupted && lasting {
                    break; // This would be retried for ever.
                }
                let rule = Rule::fail(errno);
                let rule = source.faults.add(if lasting { rule.from(n) } else { rule.nth(n) });
                let changes = source.faults.add(Rule::hook(|_| Ok(())).on_changes());
                let opened = source.read_only(mode);
                let (hits, changed) = (rule.hits(), changes.seen());
                source.faults.clear();
                assert_eq!(changed, 0, "a reader changed something, {context}");
                match opened {
                    Ok(reader) => {
                        assert_eq!(contents(&reader, None), expected, "{context}");
                        *outcomes.entry("whole").or_default() += u32::from(hits > 0);
                    }
                    Err(error) => {
                        // Once a manifest is found, failed reads are retried.
                        assert!(lasting || n <= LOOKS, "{error}, {context}");
                        *outcomes.entry(clear(&error, &context)).or_default() += 1;
                    }
                }
                if hits == 0 {
                    break;
                }
                runs += 1;
            }
        }
    }
    println!("open_read_only: {runs} runs with a fault, {outcomes:?}");
    assert!(runs > 300 && outcomes["whole"] > 50 && outcomes["io"] > 100, "{runs} runs, {outcomes:?}");
    source.unharmed("at the end");
}

/// A handle that no longer knows what is durable makes no backup; a reopened database can.
#[test]
fn a_poisoned_handle_makes_no_backup() {
    let source = Source::new();
    source.faults.add(Rule::fail(Errno::Io).on(&[Op::Sync]).files("wal-*").nth(1));
    let written = source.writer.engine.put(&Key::from("more"), b"value", WriteOptions::sync());
    assert!(written.is_err(), "{written:?}");
    source.faults.clear();
    let made = source.writer.engine.backup(Path::new(COPY));
    assert!(matches!(made, Err(Error::Poisoned { .. })), "{made:?}");
    assert_eq!(source.faults.inner().kind(Path::new(COPY)).unwrap(), None);
    let reader = source.read_only(ReadMode::Mmap).unwrap();
    reader.backup(Path::new(COPY)).unwrap();
}
