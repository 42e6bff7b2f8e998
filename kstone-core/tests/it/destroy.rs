//! Destroying a database removes its files and no others, and can be repeated whatever a power cut leaves.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, OpenMode, StrictVfs, Vfs, write_all_at};
use kstone_core::{DatabaseConfig, Error, Key};

use crate::model::manual;

const DB: &str = "db";

/// A closed database of several files, with one beside them that is not part of it.
fn closed() -> StrictVfs {
    let vfs = StrictVfs::new();
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(4));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    for round in 0..3 {
        for n in 0..20 {
            engine
                .put(&Key::new(format!("key{n}").into_bytes()), &[round; 100], WriteOptions::new())
                .unwrap();
        }
        engine.flush().unwrap();
    }
    engine.put(&Key::from("last"), b"value", WriteOptions::sync()).unwrap();
    engine.close().unwrap();
    let foreign = vfs.open(&Path::new(DB).join("notes.txt"), OpenMode::Create).unwrap();
    write_all_at(&*foreign, b"mine", 0).unwrap();
    foreign.sync().unwrap();
    vfs.sync_dir(Path::new(DB)).unwrap();
    vfs.sync_dir(Path::new("")).unwrap();
    vfs
}

fn names(vfs: &StrictVfs) -> Vec<String> {
    let mut names: Vec<_> = vfs.list(Path::new(DB)).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn what_is_not_of_the_database_stays() {
    let vfs = closed();
    let before = names(&vfs).len();
    let destroyed = LsmEngine::destroy(Path::new(DB), &vfs).unwrap();
    assert_eq!(destroyed.kept, ["notes.txt"]);
    assert!(destroyed.files + 1 >= before && destroyed.files > 8 && destroyed.bytes > 1000, "{destroyed:?}");
    assert_eq!(names(&vfs), ["notes.txt"]);
    let again = LsmEngine::destroy(Path::new(DB), &vfs).unwrap_err();
    assert!(matches!(again, Error::NotADatabase { .. }), "{again}");
    vfs.remove(&Path::new(DB).join("notes.txt")).unwrap();
    let gone = LsmEngine::destroy(Path::new("none"), &vfs).unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
}

#[test]
fn a_power_cut_at_any_moment_leaves_what_can_be_destroyed_again() {
    let ops = {
        let vfs = closed();
        let before = vfs.ops();
        LsmEngine::destroy(Path::new(DB), &vfs).unwrap();
        vfs.ops() - before
    };
    assert!(ops > 10, "{ops}");
    let (mut states, mut whole, mut part, mut none) = (0, 0, 0, 0);
    for stop in 0..=ops {
        for mode in 0..CrashMode::KINDS {
            let vfs = closed();
            let files = names(&vfs).len();
            vfs.stop_after(Some(vfs.ops() + stop));
            let done = LsmEngine::destroy(Path::new(DB), &vfs);
            let mode = CrashMode::nth(mode, stop * 100 + mode);
            let image = vfs.crash(mode);
            let left = names(&image);
            let context = format!("{mode:?} after {stop} operations: {done:?}, {left:?}");
            assert!(left.contains(&"notes.txt".to_owned()), "{context}");
            let again = LsmEngine::destroy(Path::new(DB), &image);
            states += 1;
            match left.len() {
                1 => none += 1,
                len if len >= files => whole += 1,
                _ => part += 1,
            }
            match again {
                Ok(again) => assert_eq!(again.kept, ["notes.txt"], "{context}"),
                // Nothing is left but, at most, the lock.
                Err(error) => {
                    assert!(matches!(error, Error::NotADatabase { .. }), "{error}, {context}");
                    assert!(left.iter().all(|name| name == "notes.txt" || name == "LOCK"), "{context}");
                }
            }
            assert!(names(&image).iter().all(|name| name == "notes.txt" || name == "LOCK"), "{context}");
        }
    }
    println!("{states} states: {whole} whole, {part} in part, {none} without a file");
    assert!(states >= 200 && whole > 10 && part > 50 && none > 0);
}
