//! Memory for decoding hostile bytes: a stated multiple of their length, whatever lengths, counts and depths they
//! claim.
//!
//! A separate binary, as it counts the allocations of the whole process.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kstone_api::{
    Compression, Database, DatabaseConfig, EncodedItem, EngineOptions, Error, Item, Key, LsmEngine,
    RepairOptions, VerifyOptions, WriteOptions, repair, verify,
};
use kstone_core::vfs::{MemVfs, OpenMode, Vfs, read_all, write_all_at};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller upholds the requirements of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allowed for every call, however short its input: caches, buffers of a fixed size, an engine.
const FIXED: usize = 3 << 20;

/// Runs `f`, and fails if it allocates more than [`FIXED`] plus `times` the length of its input.
fn within<T>(what: &str, input: usize, times: usize, f: impl FnOnce() -> T) -> T {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = f();
    let took = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    println!("{what}: {took} bytes for {input}, at most {times} times and {FIXED}");
    assert!(took <= input * times + FIXED, "{what} took {took} bytes for {input}");
    result
}

const DB: &str = "db";

fn seeded(seed: u64, parts: &[&[u8]]) -> u32 {
    parts.iter().fold(crc32c::crc32c(&seed.to_le_bytes()), |crc, part| crc32c::crc32c_append(crc, part))
}

fn directory(files: &[(&str, &[u8])]) -> Arc<dyn Vfs> {
    let vfs = MemVfs::new();
    vfs.create_dir(Path::new(DB)).unwrap();
    files.iter().for_each(|(name, bytes)| set(&vfs, name, bytes));
    Arc::new(vfs)
}

fn set(vfs: &dyn Vfs, name: &str, bytes: &[u8]) {
    write_all_at(&*vfs.open(&Path::new(DB).join(name), OpenMode::Truncate).unwrap(), bytes, 0).unwrap();
}

fn get(vfs: &dyn Vfs, name: &str) -> Vec<u8> {
    read_all(&*vfs.open(&Path::new(DB).join(name), OpenMode::Read).unwrap(), 1 << 30).unwrap()
}

fn on(vfs: &Arc<dyn Vfs>) -> EngineOptions {
    EngineOptions::on(Arc::clone(vfs))
}

/// Opens, verifies and repairs, ignoring the results. Returns whether a deep verify finds nothing wrong.
fn everything(what: &str, vfs: &Arc<dyn Vfs>, input: usize, times: usize) -> bool {
    let path = Path::new(DB);
    within(&format!("{what}, open"), input, times, || {
        if let Ok(engine) = LsmEngine::open_read_only(path, on(vfs)) {
            (0..100).for_each(|n| drop(engine.get(&Key::from(&format!("k{n}")))));
        }
    });
    let look = VerifyOptions::deep().on(Arc::clone(vfs));
    let clean = within(&format!("{what}, verify"), input, times, || {
        verify(path, &look).is_ok_and(|report| report.is_clean())
    });
    let plan = RepairOptions::new().on(Arc::clone(vfs)).dry_run();
    within(&format!("{what}, repair"), input, times, || drop(repair(path, &plan, &mut |_| {})));
    clean
}

/// The manifest file of a new database, and the database's id.
fn manifest(vfs: &dyn Vfs) -> (Vec<u8>, [u8; 16]) {
    let bytes = get(vfs, "MANIFEST");
    let id = bytes[24..40].try_into().unwrap();
    (bytes, id)
}

fn item(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0, 0], &(body.len() as u32).to_le_bytes(), body].concat()
}

fn frame(id: &[u8; 16], number: u64, body: &[u8]) -> Vec<u8> {
    let (len, n) = ((body.len() as u32).to_le_bytes(), number.to_le_bytes());
    let crc = seeded(number, &[id, &len, &n, body]);
    [&crc.to_le_bytes()[..], &len, &n, body].concat()
}

fn manifests() {
    let huge = [&[253u8][..], &(1u64 << 60).to_le_bytes()].concat();
    for (what, body) in [
        ("a list of 2^60", item(5, &huge)),
        ("settings of 2^60", item(11, &huge)),
        ("a key of 2^60 bytes", item(3, &[vec![1; 11], huge.clone()].concat())),
        ("a sample of 2^60", item(12, &[vec![1, 1], huge.clone()].concat())),
        (
            "a list of a million",
            item(5, &[&[252][..], &1_000_000u32.to_le_bytes(), &vec![1; 3_000_000]].concat()),
        ),
        (
            "settings of a million",
            item(11, &[&[252][..], &1_000_000u32.to_le_bytes(), &vec![0; 2_000_000]].concat()),
        ),
        ("a hundred thousand items", item(900, &[]).repeat(100_000)),
        ("a hundred thousand reservations", item(10, &[5]).repeat(100_000)),
    ] {
        let options = EngineOptions::memory();
        let vfs = Arc::clone(&options.vfs);
        LsmEngine::create(Path::new(DB), options).unwrap().close().unwrap();
        let (bytes, id) = manifest(&*vfs);
        // After the existing edits, and instead of the first.
        for (place, forged) in [
            ("behind", [bytes.clone(), (1..9).flat_map(|n| frame(&id, n, &body)).collect()].concat()),
            ("first", [bytes[..128].to_vec(), frame(&id, 1, &body)].concat()),
        ] {
            set(&*vfs, "MANIFEST", &forged);
            everything(&format!("manifest, {what} {place}"), &vfs, forged.len(), 64);
        }
    }
}

fn logs() {
    let options = EngineOptions::memory();
    let vfs = Arc::clone(&options.vfs);
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let stored = EncodedItem::read_json(&mut &b"{}"[..], 1 << 10).unwrap().unwrap();
    engine.put(&Key::from("k1"), stored.as_bytes(), WriteOptions::new()).unwrap();
    let manifest = get(&*vfs, "MANIFEST");
    let name =
        vfs.list(Path::new(DB)).unwrap().into_iter().find(|entry| entry.name.ends_with(".log")).unwrap().name;
    let log = get(&*vfs, &name);
    drop(engine);
    let (generation, salt) = (&log[64..68], u64::from_le_bytes(log[68..76].try_into().unwrap()));
    // The operation of the first record.
    let own_len = u32::from_le_bytes(log[1088..1092].try_into().unwrap()) as usize;
    let own = &log[1080 + 48..][..own_len];
    let lsn = u64::from(u32::from_le_bytes(generation.try_into().unwrap())) << 32 | 1080;
    for (what, payload_len, count, payload) in [
        ("a payload of 2^32", u32::MAX, 1u32, Vec::new()),
        ("a count of 2^32", 8, u32::MAX, vec![0; 8]),
        ("a key of 2^60", 16, 1, [&[1, 0, 0][..], &[0x80; 8], &[0x10], &[0; 4]].concat()),
        ("a million operations", 4_000_000, 1_000_000, [2, 0, 0, 0].repeat(1_000_000)),
        ("one operation missing", own.len() as u32, 2, own.to_vec()),
        ("what was written", own.len() as u32, 1, own.to_vec()),
    ] {
        let padded = payload.len().next_multiple_of(8);
        let padded = [payload.clone(), vec![0; padded - payload.len()]].concat();
        let mut head = Vec::new();
        head.extend_from_slice(&seeded(salt ^ lsn, &[&padded]).to_le_bytes());
        head.extend_from_slice(&payload_len.to_le_bytes());
        head.extend_from_slice(&[1, 0, 0, 0]);
        for number in [lsn, 2, 0] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        head.extend_from_slice(&count.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        let record = [&seeded(salt, &[&head]).to_le_bytes()[..], &head, &padded].concat();
        let forged = [&log[..1080], &record].concat();
        let vfs = directory(&[("MANIFEST", &manifest), (&name, &forged)]);
        let clean = everything(&format!("log, {what}"), &vfs, forged.len(), 64);
        // A truncated record is ignored, and ends the log; a record that passes its checksum must be valid.
        assert_eq!(clean, matches!(what, "a payload of 2^32" | "what was written"), "{what}");
    }
}

fn placed(id: u64, offset: u64, bytes: &[u8]) -> u32 {
    seeded(id, &[&offset.to_le_bytes(), bytes]).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn ssts() {
    let mut options = EngineOptions::memory();
    let vfs = Arc::clone(&options.vfs);
    let config = DatabaseConfig::new().with_stripes(1).with_compression(Compression::Always);
    options.config = Some(config);
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    for n in 0..100 {
        engine.put(&Key::from(&format!("k{n}")), &[7; 2000], WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    let name =
        vfs.list(Path::new(DB)).unwrap().into_iter().find(|entry| entry.name.ends_with(".sst")).unwrap().name;
    let sst = get(&*vfs, &name);
    let id = u64::from_le_bytes(sst[64..72].try_into().unwrap());
    // The first block ends where its checksum matches.
    let end = (140..sst.len())
        .find(|&end| placed(id, 128, &sst[128..end - 4]).to_le_bytes() == sst[end - 4..end])
        .unwrap();
    for (what, raw_len) in [
        ("a block of 4 GiB", u32::MAX),
        ("a block of 32 MiB", 32 << 20),
        ("a block of maximum length", 255 * (end as u32 - 137)),
    ] {
        let mut forged = sst.clone();
        forged[end - 8..end - 4].copy_from_slice(&raw_len.to_le_bytes());
        let crc = placed(id, 128, &forged[128..end - 4]);
        forged[end - 4..end].copy_from_slice(&crc.to_le_bytes());
        set(&*vfs, &name, &forged);
        // LZ4 expands by a factor of at most 255.
        everything(&format!("SST, {what}"), &vfs, forged.len(), 300);
    }
    let cut = |at: usize| [&sst[..at], &vec![0xff; sst.len() - at]].concat();
    for at in [0, 64, 128, 1000, sst.len() / 2, sst.len() - 200, sst.len() - 64] {
        set(&*vfs, &name, &cut(at));
        everything(&format!("SST, ones from {at}"), &vfs, sst.len(), 300);
    }
}

fn items() {
    let db = Database::in_memory().unwrap();
    let nested =
        |depth: usize| [1u8].into_iter().chain([5, 1, 7].into_iter().cycle().take(depth)).collect::<Vec<_>>();
    for (what, bytes) in [
        ("2^30 attributes", vec![1, 0xfc, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
        ("2^30 members", vec![1, 4, 200, 1, b'a', 9, 0xfc, 0xff, 0xff, 0xff, 0x0f]),
        ("a million empty values", [vec![1], vec![0; 1_000_000]].concat()),
        ("a million lists", nested(1_000_000)),
    ] {
        db.engine().put(&Key::from("k"), &bytes, WriteOptions::new()).unwrap();
        within(&format!("item, {what}"), bytes.len(), 64, || drop(db.get("k")));
    }
    for (what, text) in [
        ("deep lists", format!("{{\"a\":{}", "[".repeat(1_000_000))),
        ("deep maps", "{\"a\":".repeat(300_000)),
        ("many numbers", format!("{{\"a\":[{}1]}}", "1,".repeat(500_000))),
        ("many empty lists", format!("{{\"a\":[{}[]]}}", "[],".repeat(300_000))),
        ("a long number", format!("{{\"a\":{}}}", "1".repeat(1_000_000))),
        ("a long string", format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000))),
    ] {
        within(&format!("JSON, {what}"), text.len(), 128, || drop(Item::from_json_str(&text)));
    }
}

/// Long files with little in them, such as a sparse file or an archive of a few hundred bytes may contain: the lengths
/// that they claim take no memory, and no more time than reading them.
fn holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let engine = LsmEngine::create(&path, EngineOptions::disk()).unwrap();
    // At `Sync`, because the bytes are taken from the segment itself.
    engine.put(&Key::from("k1"), b"value", WriteOptions::sync()).unwrap();
    let disk = EngineOptions::disk().vfs;
    let read = |file: &Path| read_all(&*disk.open(file, OpenMode::Read).unwrap(), 1 << 30).unwrap();
    let (log, manifest) = (path.join("wal-000001.log"), path.join("MANIFEST"));
    let good = (read(&log)[..1080].to_vec(), read(&manifest));
    drop(engine);
    let (salt, lsn) = (u64::from_le_bytes(good.0[68..76].try_into().unwrap()), 1u64 << 32 | 1080);
    let write = |file: &Path, bytes: &[u8], len: u64| {
        let file = disk.open(file, OpenMode::Truncate).unwrap();
        write_all_at(&*file, bytes, 0).unwrap();
        file.set_len(len).unwrap();
    };
    let claim = |payload: u32| {
        let mut head = [0; 4].to_vec();
        head.extend_from_slice(&payload.to_le_bytes());
        head.extend_from_slice(&[1, 0, 0, 0]);
        [lsn, 1, 0].iter().for_each(|number| head.extend_from_slice(&number.to_le_bytes()));
        head.extend_from_slice(&1u32.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        [&good.0[..], &seeded(salt, &[&head]).to_le_bytes(), &head].concat()
    };
    // Symptom: a log of 1 KiB, extended to 4 GiB by a hole that a header claims, took 4 GiB and killed the process.
    // Cause: a record was read as a whole before its checksum was verified. Fix: the checksum is verified through a
    // window.
    for (payload, len, corrupt) in
        [(0xffff_dfff_u32, 4_294_967_288, true), (200 << 20, 256 << 20, false), (1 << 20, 256 << 20, false)]
    {
        let what = format!("a log of {len} bytes that claims {payload}");
        write(&manifest, &good.1, good.1.len() as u64);
        write(&log, &claim(payload), len);
        let verified =
            within(&format!("{what}, verify"), 0, 0, || verify(&path, &VerifyOptions::deep()).unwrap());
        assert_eq!(verified.is_clean(), !corrupt, "{what}");
        let plan = RepairOptions::new().dry_run();
        within(&format!("{what}, repair"), 0, 0, || repair(&path, &plan, &mut |_| {}).unwrap());
        let options = || {
            let mut options = EngineOptions::disk();
            options.config = Some(DatabaseConfig::new().with_wal_segment_size(16 << 10));
            options
        };
        let reading =
            within(&format!("{what}, open to read"), 0, 0, || LsmEngine::open_read_only(&path, options()));
        let writing = within(&format!("{what}, open"), 0, 0, || LsmEngine::open(&path, options()));
        for opened in [reading, writing] {
            match opened {
                Err(Error::Corruption { file, offset, .. }) => {
                    assert!(corrupt && (file.as_path(), offset) == (log.as_path(), 1080), "{what}");
                }
                Err(other) => panic!("{what}: {other}"),
                Ok(_) => assert!(!corrupt, "{what}"),
            }
        }
    }
    // Symptom: a manifest with a hole of 900 MB after its last edit was read as a whole, three times by a reader. Cause
    // and fix: as above.
    write(&log, &good.0, good.0.len() as u64);
    write(&manifest, &good.1, 900_000_000);
    within("a manifest with a hole, open to read", 0, 0, || {
        LsmEngine::open_read_only(&path, EngineOptions::disk()).unwrap();
    });
    within("a manifest with a hole, verify", 0, 0, || verify(&path, &VerifyOptions::deep()).unwrap());
    // The next frame claims the whole rest of the file.
    let mut claims = good.1.clone();
    claims.extend_from_slice(&[1; 4]);
    claims.extend_from_slice(&800_000_000u32.to_le_bytes());
    claims.extend_from_slice(&2u64.to_le_bytes());
    write(&manifest, &claims, 900_000_000);
    within("a manifest whose edit claims a hole, open", 0, 0, || {
        LsmEngine::open(&path, EngineOptions::disk()).unwrap();
    });
}

/// Large manifests: memory holds their state, which is about as long.
fn large_manifests() {
    let options = EngineOptions::memory();
    let vfs = Arc::clone(&options.vfs);
    LsmEngine::create(Path::new(DB), options).unwrap().close().unwrap();
    let (bytes, id) = manifest(&*vfs);
    let (mut at, mut last) = (128, 0);
    while at < bytes.len() {
        last = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
        at += 16 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    let number = |n: u32| [&[252][..], &n.to_le_bytes()].concat();
    let cut = |n: u32| item(7, &[number(n), vec![9], number(n + 1), vec![1]].concat());
    let keyspace = |n: u32| item(2, &[number(n), vec![9], format!("{n:09}").into()].concat());
    for (what, times, items) in [
        ("cuts", 6, (1..200_000).flat_map(cut).collect::<Vec<u8>>()),
        ("keyspaces", 8, (1..200_000).flat_map(keyspace).collect()),
        ("reservations", 0, item(10, &[253, 0, 0, 0, 0, 0, 0, 0, 1]).repeat(200_000)),
        ("opens", 0, item(9, &[]).repeat(500_000)),
        ("long unknown items", 0, item(900, &[1; 1000]).repeat(10_000)),
    ] {
        let edits = [frame(&id, last + 1, &item(9, &[])), frame(&id, last + 2, &items)].concat();
        let forged = [&bytes[..], &edits].concat();
        set(&*vfs, "MANIFEST", &forged);
        within(&format!("a manifest of {what}"), forged.len(), times, || {
            // The log does not have these cuts, and there is only one keyspace.
            let refused = LsmEngine::open_read_only(Path::new(DB), on(&vfs)).err().map(|e| e.to_string());
            let why = match what {
                "cuts" => Some("recovered"),
                "keyspaces" => Some("keyspace 0"),
                _ => None,
            };
            assert_eq!(refused.is_some(), why.is_some(), "{refused:?}");
            assert!(refused.zip(why).is_none_or(|(refused, why)| refused.contains(why)));
        });
    }
}

fn texts() {
    for text in
        ["[".repeat(2 << 20), "{\"a\":".repeat(400_000), "[1],".repeat(500_000), "1\n".repeat(1 << 20)]
    {
        let options = EngineOptions::memory();
        let vfs = Arc::clone(&options.vfs);
        LsmEngine::create(Path::new(DB), options).unwrap().close().unwrap();
        set(&*vfs, "EVENTS.jsonl", text.as_bytes());
        set(&*vfs, "STATS.json", text.as_bytes());
        everything("text files", &vfs, text.len(), 4);
    }
}

/// A single test, as allocations are counted for the whole process.
#[test]
fn hostile_bytes_take_a_stated_multiple_of_their_length() {
    manifests();
    logs();
    holes();
    large_manifests();
    ssts();
    items();
    texts();
}
