//! Numbers on disk that nothing can be counted on from.

use super::*;
use crate::clock::ManualClock;
use crate::lsm::WriteOptions;
use crate::types::MAX_NUMBER;
use crate::vfs::{MemVfs, OpenMode};

fn dir() -> &'static Path {
    Path::new("/db")
}

fn options(vfs: &MemVfs) -> EngineOptions {
    let mut options = EngineOptions::on(Arc::new(vfs.clone()));
    options.clock = Arc::new(ManualClock::new(1));
    options.workers = Workers::Manual;
    options
}

/// A database with an item, cleanly closed.
fn closed() -> MemVfs {
    let vfs = MemVfs::new();
    let engine = LsmEngine::create(dir(), options(&vfs)).unwrap();
    engine.put(&crate::Key::from("k"), b"v", WriteOptions::new()).unwrap();
    engine.close().unwrap();
    vfs
}

/// Opening added to numbers near the highest there are: a panic with overflow checks, and without them a database that
/// began again with sequence, file or generation 0. What comes next was not checked before it was counted on from; it
/// is now, before anything is written.
#[test]
fn numbers_at_the_end_of_their_range_are_refused_and_nothing_is_changed() {
    let flushed = |seq| Change::FlushedTo(vec![(0, 0, seq)]);
    let forged = [
        Change::Reserve { files_below: u64::MAX - 3 },
        flushed(u64::MAX - 5),
        flushed(MAX_NUMBER),
        Change::LogStart { start: Lsn::new(u32::MAX, 0), durable: Lsn::new(u32::MAX, 0) },
    ];
    for change in forged {
        let vfs = closed();
        let loaded = Manifest::load(&vfs, dir()).unwrap();
        let mut manifest = Manifest::resume(Arc::new(vfs.clone()), dir(), loaded);
        manifest.append(vec![Change::Opened, change.clone()]).unwrap();
        let before = Manifest::load(&vfs, dir()).unwrap().state;
        for read_only in [true, false] {
            let open = if read_only { LsmEngine::open_read_only } else { LsmEngine::open };
            let error = open(dir(), options(&vfs)).unwrap_err();
            assert_eq!(error.code(), "corruption", "{change:?}: {error}");
        }
        assert_eq!(Manifest::load(&vfs, dir()).unwrap().state, before);
    }
}

/// The same for the number in the name of an empty file.
#[test]
fn a_file_with_the_name_of_the_last_segment_there_is_is_refused() {
    let vfs = closed();
    let path = paths::log(dir(), u32::MAX);
    vfs.open(&path, OpenMode::Create).unwrap();
    let error = LsmEngine::open(dir(), options(&vfs)).unwrap_err();
    assert!(matches!(&error, Error::Corruption { file, .. } if *file == path), "{error}");
    vfs.remove(&path).unwrap();
    LsmEngine::open(dir(), options(&vfs)).unwrap();
}
