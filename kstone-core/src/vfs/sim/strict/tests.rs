use std::collections::BTreeMap;

use super::content::{SECTOR, below};
use super::*;
use crate::clock::ManualClock;
use crate::vfs::mem::conformance;
use crate::vfs::read_all;

mod modes;

const SEEDS: u64 = 400;

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn create(vfs: &StrictVfs, name: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = vfs.open(&path(name), OpenMode::Create).unwrap();
    write_all_at(&*file, bytes, 0).unwrap();
    file
}

/// Creates a file whose bytes and name are durable.
fn create_durable(vfs: &StrictVfs, name: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = create(vfs, name, bytes);
    file.sync().unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    file
}

/// The bytes of a file; `None` if no file has this name.
fn content(vfs: &StrictVfs, name: &str) -> Option<Vec<u8>> {
    let file = vfs.open(&path(name), OpenMode::Read).ok()?;
    Some(read_all(&*file, 1 << 24).unwrap())
}

fn random_images(vfs: &StrictVfs) -> impl Iterator<Item = StrictVfs> {
    (0..SEEDS).map(|seed| vfs.crash(CrashMode::Random { seed }))
}

#[test]
fn conforms() {
    let vfs = StrictVfs::new();
    conformance::check(&vfs, Path::new("/"));
    conformance::check(&vfs, Path::new(""));
    conformance::check(&vfs.crash(CrashMode::Strict), Path::new("/"));
}

/// Two names of one file still refer to the same file after a power cut, however much of its contents is lost.
#[test]
fn two_names_of_one_file_are_one_file_after_a_crash() {
    let mut partly = 0;
    for n in 0..CrashMode::KINDS * 40 {
        let vfs = StrictVfs::new();
        let dir = path("dir");
        vfs.create_dir(&dir).unwrap();
        let file = create_durable(&vfs, "a", b"synced");
        vfs.hard_link(&path("a"), &dir.join("b")).unwrap();
        vfs.sync_dir(&dir).unwrap();
        for at in 0..8 {
            file.write_at(&[at as u8 + 1; 2000], at * 1000).unwrap();
        }
        let mode = CrashMode::nth(n, n);
        let image = vfs.crash(mode);
        let (a, b) = (content(&image, "a").unwrap(), content(&image, "dir/b").unwrap());
        assert_eq!(a, b, "{mode:?}");
        partly += u64::from(a != b"synced" && a != content(&vfs, "a").unwrap());
        let other = image.open(&dir.join("b"), OpenMode::Write).unwrap();
        other.write_at(b"!", 0).unwrap();
        assert_eq!(content(&image, "a").unwrap()[0], b'!', "two files, {mode:?}");
    }
    assert!(partly > 100, "{partly} images that kept a part of the bytes");
}

#[test]
fn bytes_survive_from_their_sync_on() {
    let vfs = StrictVfs::new();
    let file = create_durable(&vfs, "f", b"synced");
    file.write_at(b"later", 6).unwrap();
    file.write_at(b"S", 0).unwrap();
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "f").unwrap(), b"synced");
    assert_eq!(content(&vfs.crash(CrashMode::All), "f").unwrap(), b"Syncedlater");
    file.sync().unwrap();
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "f").unwrap(), b"Syncedlater");
    file.set_len(2).unwrap();
    file.allocate(9000).unwrap();
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "f").unwrap(), b"Syncedlater");
    assert_eq!(content(&vfs.crash(CrashMode::All), "f").unwrap().len(), 9000);
    drop(vfs.open(&path("f"), OpenMode::Truncate).unwrap());
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "f").unwrap(), b"Syncedlater");
    assert_eq!(content(&vfs.crash(CrashMode::All), "f").unwrap(), b"");
}

#[test]
fn a_sync_covers_bytes_or_names_never_both() {
    let vfs = StrictVfs::new();
    create(&vfs, "no name", b"data").sync().unwrap();
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "no name"), None);
    assert_eq!(content(&vfs.crash(CrashMode::All), "no name").unwrap(), b"data");
    vfs.sync_dir(Path::new("/")).unwrap();
    create(&vfs, "no data", b"data");
    vfs.sync_dir(Path::new("/")).unwrap();
    let image = vfs.crash(CrashMode::Strict);
    assert_eq!(content(&image, "no name").unwrap(), b"data");
    assert_eq!(content(&image, "no data").unwrap(), b"");
}

#[test]
fn names_survive_from_the_sync_of_their_directory_on() {
    let vfs = StrictVfs::new();
    create_durable(&vfs, "old", b"1");
    create_durable(&vfs, "target", b"2");
    vfs.rename(&path("old"), &path("target")).unwrap();
    let image = vfs.crash(CrashMode::Strict);
    assert_eq!((content(&image, "old"), content(&image, "target")), (Some(b"1".into()), Some(b"2".into())));
    for image in random_images(&vfs) {
        let found = (content(&image, "old"), content(&image, "target"));
        let undone = (Some(b"1".into()), Some(b"2".into()));
        assert!(found == undone || found == (None, Some(b"1".into())), "a rename is whole or absent");
    }
    vfs.sync_dir(Path::new("/")).unwrap();
    let image = vfs.crash(CrashMode::Strict);
    assert_eq!((content(&image, "old"), content(&image, "target")), (None, Some(b"1".into())));

    vfs.remove(&path("target")).unwrap();
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "target").unwrap(), b"1", "it reappears");
    assert_eq!(content(&vfs.crash(CrashMode::All), "target"), None);
    vfs.sync_dir(Path::new("/")).unwrap();
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "target"), None);
}

#[test]
fn a_directory_without_a_durable_name_takes_all_below_it_along() {
    let vfs = StrictVfs::new();
    vfs.create_dir(&path("dir")).unwrap();
    create(&vfs, "dir/f", b"data").sync().unwrap();
    vfs.sync_dir(&path("dir")).unwrap();
    let image = vfs.crash(CrashMode::Strict);
    assert_eq!(image.kind(&path("dir")).unwrap(), None);
    assert_eq!(image.kind(&path("dir/f")).unwrap(), None);
    image.create_dir(&path("dir")).unwrap();
    assert!(image.list(&path("dir")).unwrap().is_empty());
    vfs.sync_dir(Path::new("/")).unwrap();
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "dir/f").unwrap(), b"data");
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let vfs = StrictVfs::new();
    create_durable(&vfs, "f", b"data");
    vfs.create_dir(&path("dir")).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    vfs.rename(&path("f"), &path("dir/f")).unwrap();
    vfs.sync_dir(&path("dir")).unwrap();
    let image = vfs.crash(CrashMode::Strict);
    assert_eq!(
        (content(&image, "f"), content(&image, "dir/f")),
        (Some(b"data".into()), Some(b"data".into()))
    );
    vfs.sync_dir(Path::new("/")).unwrap();
    let image = vfs.crash(CrashMode::Strict);
    assert_eq!((content(&image, "f"), content(&image, "dir/f")), (None, Some(b"data".into())));
}

#[test]
fn an_image_is_independent_unlocked_and_durable() {
    let vfs = StrictVfs::new();
    let file = create_durable(&vfs, "f", &[1; 10_000]);
    let lock = vfs.lock(&path("LOCK"), "me").unwrap();
    let image = vfs.crash(CrashMode::All);
    assert_eq!(image.ops(), 0);
    drop(image.lock(&path("LOCK"), "me too").unwrap());
    assert_eq!(content(&vfs, "LOCK").unwrap(), b"me");
    file.write_at(b"here", 0).unwrap();
    image.open(&path("f"), OpenMode::Write).unwrap().write_at(b"there", 5000).unwrap();
    assert_eq!(content(&vfs, "f").unwrap()[..5], *b"here\x01");
    assert_eq!(content(&vfs, "f").unwrap()[5000..5005], [1; 5]);
    assert_eq!(content(&image, "f").unwrap()[..5], [1; 5]);
    assert_eq!(content(&image.crash(CrashMode::Strict), "f").unwrap(), [1; 10_000]);
    drop(lock);
}

#[test]
fn random_crashes_reorder_tear_and_grow() {
    const LEN: usize = 4096;
    let vfs = StrictVfs::new();
    let file = create_durable(&vfs, "f", &[9; 100]);
    write_all_at(&*file, &[1; LEN], 100).unwrap();
    write_all_at(&*file, &[2; LEN], 100 + LEN as u64).unwrap();
    let mut seen = BTreeMap::<&str, u32>::new();
    for image in random_images(&vfs) {
        let bytes = content(&image, "f").unwrap();
        assert_eq!(bytes[..100], [9; 100], "synced bytes survive");
        let part = |from: usize, value: u8| {
            let part: Vec<u8> = (from..from + LEN).map(|at| bytes.get(at).copied().unwrap_or(0)).collect();
            assert!(part.iter().all(|byte| *byte == value || *byte == 0));
            for (at, pair) in part.windows(2).enumerate() {
                assert!(
                    pair[0] == pair[1] || (from + at + 1).is_multiple_of(SECTOR as usize),
                    "torn inside a sector"
                );
            }
            part.iter().filter(|byte| **byte == value).count()
        };
        let (first, second) = (part(100, 1), part(100 + LEN, 2));
        let mut note = |what, happened| *seen.entry(what).or_default() += u32::from(happened);
        note("all kept", first == LEN && second == LEN);
        note("nothing kept", bytes.len() == 100);
        note("the first only", first == LEN && second == 0);
        note("the second only", first == 0 && second == LEN);
        note("torn", first % LEN > 0 || second % LEN > 0);
        note("grown without data", bytes.len() == 100 + 2 * LEN && second == 0);
    }
    for (what, times) in seen {
        assert!(times >= 5, "{what}: {times} times");
    }
}

#[test]
fn the_same_seed_gives_the_same_image() {
    let vfs = StrictVfs::new();
    for name in ["a", "b", "c"] {
        create(&vfs, name, &[7; 3000]);
    }
    let images = || random_images(&vfs).map(|image| ["a", "b", "c"].map(|name| content(&image, name)));
    assert!(images().eq(images()));
    assert!(images().collect::<std::collections::BTreeSet<_>>().len() > 20, "seeds differ");
}

#[test]
fn each_directory_keeps_a_prefix_of_its_operations() {
    let vfs = StrictVfs::new();
    let names: Vec<String> = (0..5).map(|i| i.to_string()).collect();
    for name in &names {
        create(&vfs, name, b"");
    }
    let mut seen = [0; 6];
    for image in random_images(&vfs) {
        let found: Vec<String> = image.list(Path::new("/")).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(found, names[..found.len()]);
        seen[found.len()] += 1;
    }
    assert!(seen.iter().all(|times| *times > 10), "{seen:?}");
}

#[test]
fn after_the_cut_nothing_changes_any_more() {
    // Everything that counts as an operation, in order.
    let history = |vfs: &StrictVfs| -> io::Result<()> {
        vfs.create_dir(&path("dir"))?;
        drop(vfs.lock(&path("LOCK"), "me")?);
        let file = vfs.open(&path("dir/f"), OpenMode::Truncate)?;
        file.write_at(b"data", 0)?;
        file.set_len(3)?;
        file.allocate(10)?;
        file.sync()?;
        vfs.rename(&path("dir/f"), &path("dir/g"))?;
        vfs.sync_dir(&path("dir"))?;
        vfs.open(&path("dir/g"), OpenMode::Truncate)?;
        vfs.remove(&path("dir/g"))
    };
    let names = |vfs: &StrictVfs| {
        let below = vfs.list(&path("dir")).ok();
        (vfs.list(Path::new("/")).unwrap(), below, content(vfs, "dir/f"), content(vfs, "LOCK"))
    };
    let whole = StrictVfs::new();
    history(&whole).unwrap();
    assert_eq!(whole.ops(), 13, "the lock file takes three: created, emptied, written");
    for ops in 0..whole.ops() {
        let vfs = StrictVfs::new();
        vfs.stop_after(Some(ops));
        let e = history(&vfs).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (io::ErrorKind::Other, "simulated power cut"));
        assert_eq!(vfs.ops(), ops);
        let before = names(&vfs);
        let image = vfs.crash(CrashMode::All);
        assert!(vfs.create_dir(&path("more")).is_err());
        assert!(vfs.sync_dir(Path::new("/")).is_err());
        assert_eq!((names(&vfs), vfs.ops()), (before, ops));
        // The image works again, and so does the original once the limit is lifted.
        image.create_dir(&path("more")).unwrap();
        vfs.stop_after(None);
        vfs.create_dir(&path("more")).unwrap();
    }
}

#[test]
fn agrees_with_plain_bytes_over_random_histories() {
    for seed in 0..200 {
        let rng = ManualClock::new(seed);
        let vfs = StrictVfs::new();
        let file = create_durable(&vfs, "f", b"");
        let (mut model, mut durable) = (Vec::<u8>::new(), Vec::new());
        for _ in 0..40 {
            let (at, len) = (below(&rng, 13_000) as usize, below(&rng, 6000) as usize + 1);
            match below(&rng, 6) {
                0 => {
                    file.set_len(at as u64).unwrap();
                    model.resize(at, 0);
                }
                1 => {
                    file.allocate(at as u64).unwrap();
                    model.resize(model.len().max(at), 0);
                }
                2 => {
                    file.sync().unwrap();
                    durable.clone_from(&model);
                }
                _ => {
                    let bytes: Vec<u8> = (0..len).map(|_| below(&rng, 256) as u8).collect();
                    file.write_at(&bytes, at as u64).unwrap();
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&bytes);
                }
            }
            assert!(content(&vfs, "f").unwrap() == model);
        }
        assert!(content(&vfs.crash(CrashMode::All), "f").unwrap() == model);
        assert!(content(&vfs.crash(CrashMode::Strict), "f").unwrap() == durable);
    }
}

#[test]
fn reserved_space_costs_nothing() {
    let vfs = StrictVfs::new();
    let file = create_durable(&vfs, "f", b"head");
    file.allocate(1 << 40).unwrap();
    file.write_at(b"tail", 1 << 39).unwrap();
    file.sync().unwrap();
    let image = vfs.crash(CrashMode::Strict);
    let file = image.open(&path("f"), OpenMode::Read).unwrap();
    let mut buf = [1; 6];
    file.read_at(&mut buf, (1 << 39) - 1).unwrap();
    assert_eq!((file.len().unwrap(), &buf), (1 << 40, b"\0tail\0"));
}
