use super::*;
use crate::vfs::mem::conformance;
use crate::vfs::{CrashMode, DiskVfs, MemVfs, StrictVfs, read_all, read_full_at, write_all_at};

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn strict() -> (StrictVfs, FaultVfs) {
    let strict = StrictVfs::new();
    (strict.clone(), FaultVfs::new(Arc::new(strict)))
}

fn bytes(vfs: &dyn Vfs, name: &str) -> Option<Vec<u8>> {
    let file = vfs.open(&path(name), OpenMode::Read).ok()?;
    Some(read_all(&*file, 1 << 20).unwrap())
}

#[test]
fn without_rules_it_is_the_file_system_below() {
    conformance::check(&FaultVfs::new(Arc::new(MemVfs::new())), Path::new("/"));
    conformance::check(&strict().1, Path::new("/"));
}

#[test]
fn what_a_file_system_may_lack_is_passed_on_counted_and_failed() {
    let disk = tempfile::tempdir().unwrap();
    let vfs = FaultVfs::new(Arc::new(DiskVfs::new()));
    let at = |name: &str| disk.path().join(name);
    vfs.open(&at("a"), OpenMode::Create).unwrap();
    vfs.create_dir(&at("dir")).unwrap();
    vfs.hard_link(&at("a"), &at("b")).unwrap();
    let known = vfs.identity(&at("a")).unwrap();
    assert!(known.is_some() && known == vfs.identity(&at("b")).unwrap());
    assert_ne!(known, vfs.identity(&at("dir")).unwrap());
    vfs.remove_dir(&at("dir")).unwrap();
    assert_eq!(vfs.kind(&at("dir")).unwrap(), None);
    vfs.create_dir(&at("dir")).unwrap();
    vfs.add(Rule::fail(Errno::Io).on(&[Op::HardLink, Op::RemoveDir, Op::Identity]));
    assert!(vfs.hard_link(&at("a"), &at("c")).is_err() && vfs.kind(&at("c")).unwrap().is_none());
    assert!(vfs.remove_dir(&at("dir")).is_err() && vfs.kind(&at("dir")).unwrap().is_some());
    assert!(vfs.identity(&at("a")).is_err());
    let counts = [Op::HardLink, Op::RemoveDir, Op::Identity].map(|op| vfs.count(op));
    assert_eq!(counts, [2, 2, 4]);
    // A link creates a name, for which a full file system has no space. It changes something, unlike a mere check.
    vfs.clear();
    vfs.add(Rule::full());
    assert_eq!(vfs.hard_link(&at("a"), &at("c")).unwrap_err().kind(), io::ErrorKind::StorageFull);
    vfs.remove_dir(&at("dir")).unwrap();
    assert!(Op::HardLink.changes() && Op::RemoveDir.changes() && !Op::Identity.changes());
}

#[test]
fn patterns() {
    for (pattern, name, fits) in [
        ("*", "", true),
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "a", true),
        ("*.sst", "001-7.sst", true),
        ("*.sst", "001-7.sst2", false),
        ("wal-*.log", "wal-000001.log", true),
        ("wal-*.log", "wal-.log.log", true),
        ("*a*b*", "xaxbx", true),
        ("*a*b*", "xbxax", false),
        ("é*", "éa", true),
    ] {
        assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
    }
}

#[test]
fn a_rule_strikes_the_occurrences_that_it_is_about() {
    let (_, vfs) = strict();
    let (a, b) = (vfs.open(&path("a.x"), OpenMode::Create), vfs.open(&path("b.y"), OpenMode::Create));
    let (a, b) = (a.unwrap(), b.unwrap());
    let failures = |rule: Rule| {
        let rule = vfs.add(rule.on(&[Op::Write]).files("*.x"));
        let failed: Vec<u64> = (1..=6)
            .filter(|_| {
                b.write_at(b"b", 0).unwrap();
                b.sync().unwrap();
                a.write_at(b"a", 0).is_err()
            })
            .collect();
        vfs.clear();
        assert_eq!((rule.seen(), rule.hits()), (6, failed.len() as u64));
        failed
    };
    assert_eq!(failures(Rule::fail(Errno::Io)), [1, 2, 3, 4, 5, 6]);
    assert_eq!(failures(Rule::fail(Errno::Io).nth(2)), [2]);
    assert_eq!(failures(Rule::fail(Errno::Io).from(5)), [5, 6]);
    assert_eq!(failures(Rule::fail(Errno::Io).range(2..=4)), [2, 3, 4]);
    a.write_at(b"a", 0).unwrap();
}

#[test]
fn the_first_rule_that_strikes_decides_and_all_count() {
    let (_, vfs) = strict();
    let first = vfs.add(Rule::fail(Errno::Access).on(&[Op::Kind]).nth(2));
    let second = vfs.add(Rule::fail(Errno::NoMemory).on(&[Op::Kind]).from(2));
    let kinds: Vec<_> = (0..4).map(|_| vfs.kind(&path("a")).map_err(|e| e.raw_os_error())).collect();
    let code = |errno: Errno| Err(errno.error().raw_os_error());
    let memory = code(Errno::NoMemory);
    assert_eq!(kinds, [Ok(None), code(Errno::Access), memory, memory]);
    assert_eq!((first.seen(), first.hits(), second.seen(), second.hits()), (4, 1, 4, 2));
    second.set(false);
    vfs.kind(&path("a")).unwrap();
    assert_eq!((first.seen(), second.seen()), (5, 4));
}

#[test]
fn errors_are_what_the_system_gives() {
    use io::ErrorKind as Kind;
    for (errno, kind) in [
        (Errno::NoSpace, Kind::StorageFull),
        (Errno::Quota, Kind::QuotaExceeded),
        (Errno::Interrupted, Kind::Interrupted),
        (Errno::NoMemory, Kind::OutOfMemory),
        (Errno::ReadOnly, Kind::ReadOnlyFilesystem),
        (Errno::Access, Kind::PermissionDenied),
        (Errno::NotPermitted, Kind::PermissionDenied),
        (Errno::NotFound, Kind::NotFound),
        (Errno::Unsupported, Kind::Unsupported),
    ] {
        assert_eq!(errno.error().kind(), kind);
        assert!(errno.error().raw_os_error().is_some());
    }
}

#[test]
fn short_and_torn_operations_do_a_part() {
    let (_, vfs) = strict();
    let file = vfs.open(&path("a"), OpenMode::Create).unwrap();
    vfs.add(Rule::new(Effect::Short(3)).on(&[Op::Write, Op::Read]));
    assert_eq!(file.write_at(b"0123456789", 0).unwrap(), 3);
    write_all_at(&*file, b"0123456789", 0).unwrap();
    let mut buf = [0; 10];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3);
    assert_eq!(read_full_at(&*file, &mut buf, 0).unwrap(), 10);
    assert_eq!(&buf, b"0123456789");
    vfs.clear();
    vfs.add(Rule::new(Effect::Torn(Errno::NoSpace)));
    assert_eq!(file.write_at(b"abcdef", 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(file.sync().is_err());
    vfs.clear();
    assert_eq!(bytes(&vfs, "a").unwrap(), b"01abc56789");
    // An interrupted operation is retried.
    let rule = vfs.add(Rule::fail(Errno::Interrupted).on(&[Op::Read, Op::Write]).range(1..=3));
    write_all_at(&*file, b"x", 0).unwrap();
    assert_eq!((bytes(&vfs, "a").unwrap()[0], rule.hits()), (b'x', 3));
}

#[test]
fn a_full_file_system_refuses_what_takes_space() {
    let (_, vfs) = strict();
    let file = vfs.open(&path("a"), OpenMode::Create).unwrap();
    write_all_at(&*file, &[1; 100], 0).unwrap();
    vfs.add(Rule::full());
    let full = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::StorageFull;
    assert!(full(file.write_at(&[2; 10], 91).map(drop)));
    assert!(full(file.allocate(101)) && full(file.set_len(101)));
    assert!(full(vfs.open(&path("b"), OpenMode::Create).map(drop)));
    assert!(full(vfs.create_dir(&path("c"))));
    assert_eq!(file.write_at(&[2; 10], 90).unwrap(), 10);
    file.allocate(100).unwrap();
    file.set_len(50).unwrap();
    file.sync().unwrap();
    vfs.rename(&path("a"), &path("b")).unwrap();
    vfs.remove(&path("b")).unwrap();
}

/// As on Linux: the first sync fails, the lost bytes remain readable, the second sync succeeds, and a power cut
/// reveals the loss.
#[test]
fn what_a_failed_sync_loses_is_readable_until_the_power_cut() {
    let (strict, vfs) = strict();
    let file = vfs.open(&path("a"), OpenMode::Create).unwrap();
    file.write_at(b"kept", 0).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    file.write_at(b"lost", 4).unwrap();
    vfs.rename(&path("a"), &path("lost")).unwrap();
    vfs.add(Rule::new(Effect::LoseUnsynced(Errno::Io)).on(&[Op::Sync, Op::SyncDir]).range(1..=2));
    assert!(file.sync().is_err() && vfs.sync_dir(Path::new("/")).is_err());
    file.write_at(b"later", 8).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    assert_eq!(bytes(&vfs, "lost").unwrap(), b"keptlostlater");
    for mode in [CrashMode::Strict, CrashMode::All, CrashMode::Random { seed: 3 }] {
        let image = strict.crash(mode);
        assert_eq!(bytes(&image, "a").unwrap(), b"kept\0\0\0\0later", "{mode:?}");
        assert_eq!(bytes(&image, "lost"), None, "{mode:?}");
    }
    // Once written again, the bytes are like any others.
    file.write_at(b"lost", 4).unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&strict.crash(CrashMode::Strict), "a").unwrap(), b"keptlostlater");
}

#[test]
fn after_a_crash_nothing_changes() {
    let (strict, vfs) = strict();
    let file = vfs.open(&path("a"), OpenMode::Create).unwrap();
    vfs.add(Rule::new(Effect::Crash).on_changes().nth(2));
    file.write_at(b"a", 0).unwrap();
    let ops = strict.ops();
    assert!(file.write_at(b"b", 0).is_err() && file.sync().is_err());
    assert!(vfs.remove(&path("a")).is_err() && vfs.open(&path("b"), OpenMode::Create).is_err());
    assert_eq!(strict.ops(), ops);
    assert_eq!(bytes(&vfs, "a").unwrap(), b"a");
    vfs.revive();
    vfs.remove(&path("a")).unwrap();
}

#[test]
fn operations_are_counted_recorded_and_told_to_hooks() {
    let (_, vfs) = strict();
    vfs.record(true);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (ear, inside) = (Arc::clone(&heard), vfs.clone());
    vfs.add(Rule::hook(move |call| {
        // The hook may use the file system.
        inside.inner().kind(call.path)?;
        ear.lock().push((call.op, call.name().into_owned(), call.bytes.to_vec()));
        if call.op == Op::Remove { Err(Errno::NotPermitted.error()) } else { Ok(()) }
    }));
    let file = vfs.open(&path("a"), OpenMode::Create).unwrap();
    file.write_at(b"xyz", 5).unwrap();
    assert_eq!(vfs.open_now("*"), [path("a")]);
    vfs.rename(&path("a"), &path("b")).unwrap();
    assert_eq!(vfs.open_now("*"), [path("b")], "it goes by its new name");
    drop(file);
    assert_eq!(vfs.open_now("*"), [] as [PathBuf; 0]);
    vfs.remove(&path("b")).unwrap_err();
    vfs.record(false);
    vfs.kind(&path("b")).unwrap();
    let records: Vec<String> = vfs.take_records().iter().map(ToString::to_string).collect();
    let refused = Errno::NotPermitted.error();
    assert_eq!(
        records,
        [
            "    1 Create /a".to_string(),
            "    2 Write /a at 5, 3 bytes".to_string(),
            "    3 Rename /a -> /b".to_string(),
            format!("    4 Remove /b: {refused}"),
        ]
    );
    assert_eq!((vfs.total(), vfs.count(Op::Create), vfs.count(Op::Kind), vfs.count(Op::Sync)), (5, 1, 1, 0));
    let heard = heard.lock();
    assert_eq!(heard.len(), 5);
    assert_eq!(heard[1], (Op::Write, "a".to_string(), b"xyz".to_vec()));
}
