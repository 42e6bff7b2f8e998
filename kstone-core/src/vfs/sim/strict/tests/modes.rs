//! Tests of what each crash mode keeps.

use super::*;

fn images(vfs: &StrictVfs, mode: impl Fn(u64) -> CrashMode) -> Vec<StrictVfs> {
    (0..SEEDS).map(|seed| vfs.crash(mode(seed))).collect()
}

/// The number of images that satisfy `so`.
fn count(images: &[StrictVfs], so: impl Fn(&StrictVfs) -> bool) -> usize {
    images.iter().filter(|image| so(image)).count()
}

#[test]
fn torn_ends_time_at_one_moment_for_all_files() {
    let vfs = StrictVfs::new();
    let (a, b) = (create_durable(&vfs, "a", b""), create_durable(&vfs, "b", b""));
    a.write_at(&[1; 3000], 100).unwrap();
    b.write_at(&[2; 3000], 0).unwrap();
    vfs.rename(&path("b"), &path("c")).unwrap();
    a.write_at(&[3; 9000], 3100).unwrap();
    for (at, unit) in [(Tear::Byte, 1), (Tear::Sector, 512), (Tear::Page, 4096)] {
        let images = images(&vfs, |seed| CrashMode::Torn { seed, at });
        let mut lens = std::collections::BTreeSet::new();
        for image in &images {
            let first = content(image, "a").unwrap();
            let second = content(image, "b").or_else(|| content(image, "c")).unwrap();
            lens.insert(first.len());
            assert!(
                first.len() == 12_100
                    || first.is_empty()
                    || first.len().is_multiple_of(unit)
                    || first.len() == 3100
            );
            assert!(first.len() >= 3100 || second.is_empty(), "the second file is later than the first");
            let renamed = content(image, "c").is_some();
            assert!(!renamed || second.len() == 3000, "the rename is later than the second file");
            assert!(renamed || first.len() <= 3100, "the last write is later than the rename");
            let expected: Vec<u8> = [vec![0; 100], vec![1; 3000], vec![3; 9000]].concat();
            assert!(expected.starts_with(&first));
        }
        let whole = 12_100usize.div_ceil(unit);
        assert!(lens.len() > 2.max(whole.min(100) / 8), "{at:?}: {lens:?}");
    }
}

#[test]
fn garbage_lies_only_where_lost_writes_would_have_grown_the_file() {
    let vfs = StrictVfs::new();
    create_durable(&vfs, "old", &[8; 6000]);
    let file = create_durable(&vfs, "f", &[9; 1000]);
    file.write_at(&[1; 1000], 0).unwrap();
    file.write_at(&[2; 2000], 1000).unwrap();
    let images = images(&vfs, |seed| CrashMode::Garbage { seed });
    let bytes = |image: &StrictVfs| content(image, "f").unwrap();
    assert!(images.iter().all(|image| bytes(image)[..1000].iter().all(|byte| [1, 9].contains(byte))));
    let tail =
        |image: &StrictVfs, byte: u8| bytes(image)[1000..].iter().filter(|found| **found == byte).count();
    let foreign = |image: &StrictVfs| bytes(image).len() > 1000 && tail(image, 0) + tail(image, 2) < 2000;
    assert!(count(&images, foreign) > 30, "{}", count(&images, foreign));
    assert!(count(&images, |image| tail(image, 8) > 1000) > 5, "old blocks of another file");
    assert!(count(&images, |image| tail(image, 0xff) > 1000) > 5, "erased blocks");
    assert!(count(&images, |image| bytes(image).len() == 1000) > 10, "some do not grow at all");
}

#[test]
fn grown_keeps_lengths_and_no_bytes() {
    let vfs = StrictVfs::new();
    let file = create_durable(&vfs, "f", &[9; 100]);
    file.write_at(&[1; 200], 0).unwrap();
    create(&vfs, "new", &[2; 50]);
    let images = images(&vfs, |seed| CrashMode::Grown { seed });
    let grown = [vec![9; 100], vec![0; 100]].concat();
    let without = count(&images, |image| content(image, "f").unwrap() == grown);
    let with = count(&images, |image| content(image, "f").unwrap() == [1; 200]);
    assert!(without + with == images.len() && without > 100 && with > 50);
    assert!(images.iter().all(|image| content(image, "new").unwrap().len() == 50), "all names");
}

#[test]
fn undone_brings_removed_files_back_and_loses_new_names() {
    let vfs = StrictVfs::new();
    create_durable(&vfs, "gone", b"whole").write_at(b"later", 5).unwrap();
    vfs.remove(&path("gone")).unwrap();
    create(&vfs, "new", b"1");
    vfs.rename(&path("new"), &path("newer")).unwrap();
    let images = images(&vfs, |seed| CrashMode::Undone { seed });
    let back = count(&images, |image| content(image, "gone").as_deref() == Some(b"wholelater"));
    let renamed = count(&images, |image| content(image, "newer").is_some());
    let created = count(&images, |image| content(image, "new").as_deref() == Some(b"1"));
    assert!(back > 50 && created > 50 && renamed == 0, "{back} {created} {renamed}");
    // If nothing is pending, nothing is undone.
    vfs.sync_dir(Path::new("/")).unwrap();
    let image = vfs.crash(CrashMode::Undone { seed: 1 });
    assert!(content(&image, "gone").is_none() && content(&image, "newer").is_some());
}

#[test]
fn emptied_takes_the_bytes_of_files_that_were_never_synced() {
    let vfs = StrictVfs::new();
    create_durable(&vfs, "old", b"old").write_at(b"new", 0).unwrap();
    create(&vfs, "tmp", b"data");
    vfs.rename(&path("tmp"), &path("final")).unwrap();
    create(&vfs, "synced", b"data").sync().unwrap();
    let images = images(&vfs, |seed| CrashMode::Emptied { seed });
    let empty = count(&images, |image| content(image, "final").unwrap().is_empty());
    let zeros = count(&images, |image| content(image, "final").unwrap() == [0; 4]);
    assert!(empty > 100 && zeros > 100 && empty + zeros == images.len());
    for image in images {
        assert_eq!(content(&image, "old").unwrap(), b"new");
        assert_eq!(content(&image, "synced").unwrap(), b"data");
    }
}

#[test]
fn jumbled_keeps_names_beyond_one_that_is_lost() {
    let vfs = StrictVfs::new();
    create_durable(&vfs, "old", b"");
    vfs.remove(&path("old")).unwrap();
    create(&vfs, "first", b"").sync().unwrap();
    create(&vfs, "second", b"").sync().unwrap();
    let images = images(&vfs, |seed| CrashMode::Jumbled { seed });
    let there = |image: &StrictVfs| ["old", "first", "second"].map(|name| content(image, name).is_some());
    for old in [false, true] {
        for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
            let found = count(&images, |image| there(image) == [old, first, second]);
            assert!(found > 20, "{old} {first} {second}: {found}");
        }
    }
}

#[test]
fn after_the_death_of_a_process_a_power_cut_takes_what_it_would_have() {
    let vfs = StrictVfs::new();
    let file = create_durable(&vfs, "f", b"synced");
    file.write_at(b"LATER!", 0).unwrap();
    create(&vfs, "new", b"1").sync().unwrap();
    let lock = vfs.lock(&path("LOCK"), "me").unwrap();
    let dead = vfs.crash(CrashMode::Process);
    drop(dead.lock(&path("LOCK"), "me too").unwrap());
    drop(lock);
    assert_eq!(content(&dead, "f").unwrap(), b"LATER!");
    let cut = dead.crash(CrashMode::Strict);
    assert_eq!((content(&cut, "f").unwrap(), content(&cut, "new")), (b"synced".into(), None));
    // The image is independent, and syncing the file there affects the same file whose name is then made durable.
    let again = dead.open(&path("f"), OpenMode::Write).unwrap();
    again.write_at(b"again", 0).unwrap();
    again.sync().unwrap();
    dead.sync_dir(Path::new("/")).unwrap();
    let cut = dead.crash(CrashMode::Strict);
    assert_eq!((content(&cut, "f").unwrap(), content(&cut, "new").unwrap()), (b"again!".into(), b"1".into()));
    assert_eq!(content(&vfs.crash(CrashMode::Strict), "f").unwrap(), b"synced");
}

#[test]
fn images_are_made_right_before_each_change() {
    let vfs = StrictVfs::new();
    vfs.record(Some(Box::new(|point, syncs| {
        if syncs > 0 { vec![CrashMode::All] } else { vec![CrashMode::Strict, CrashMode::nth(point, 1)] }
    })));
    create_durable(&vfs, "f", b"1").write_at(b"2", 0).unwrap();
    let images = vfs.take_images();
    // Creation, write and sync with two images each, then the directory's sync and a write with one each.
    assert_eq!(images.iter().map(|image| image.point).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 3, 4]);
    let last = images.last().unwrap();
    assert_eq!((last.mode, content(&last.vfs, "f").unwrap()), (CrashMode::All, b"1".into()));
    vfs.stop_after(Some(vfs.ops()));
    assert!(
        vfs.sync_dir(Path::new("/")).is_err() && vfs.take_images().is_empty(),
        "nothing happens any more"
    );
    vfs.stop_after(None);
    vfs.record(None);
    vfs.sync_dir(Path::new("/")).unwrap();
    assert!(vfs.take_images().is_empty());
}

#[test]
fn every_kind_has_a_word_of_its_own() {
    let kinds: std::collections::BTreeSet<_> =
        (0..CrashMode::KINDS).map(|n| CrashMode::nth(n, 0).kind()).collect();
    assert_eq!(kinds.len() as u64, CrashMode::KINDS);
}
