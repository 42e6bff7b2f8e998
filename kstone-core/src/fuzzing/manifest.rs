//! The manifest: loaded, rewritten, and loaded again.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::{Input, edits, expect_corruption, is_about_bytes, seal};
use crate::manifest::{Change, CleanEnd, Facts, Ids, Loaded, Manifest, ManifestState};
use crate::paths::MANIFEST;
use crate::types::{LogCut, Lsn, SeqNo, SstDetails, SstMeta};
use crate::vfs::{MemVfs, OpenMode, Vfs, read_all, write_all_at};

/// A genuine manifest.
struct ManifestSample {
    bytes: Vec<u8>,
    older: Vec<u8>,
    /// The state after each edit in the file.
    states: Vec<ManifestState>,
    /// Offset of the last edit.
    last: usize,
}

/// A snapshot alone, and snapshots followed by edits of every kind.
static WRITTEN: LazyLock<Vec<ManifestSample>> = LazyLock::new(|| vec![written(0), written(4), written(6)]);

/// Loads the manifest described by the input.
pub fn manifest(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 3 {
        0 => damage(&mut input),
        1 => {
            let open = input.byte();
            let mut file = input.rest().to_vec();
            seal::manifest(&mut file, |n| n + 1 == usize::from(open));
            anything(&file);
        }
        _ => anything(input.rest()),
    }
}

/// A damaged genuine manifest: loads as the state of some edit, or fails.
fn damage(input: &mut Input<'_>) {
    let written = &WRITTEN[input.below(WRITTEN.len())];
    let mut files = vec![(MANIFEST.to_owned(), written.bytes.clone())];
    let older = vec![(MANIFEST.to_owned(), written.older.clone())];
    let done = edits::apply(&mut files, &older, input);
    let Some((_, bytes)) = files.first() else { return };
    match load(bytes) {
        Err(error) => {
            assert!(done.edits > 0, "{error}");
            expect_corruption(&error);
        }
        Ok(loaded) => {
            let edit = written.states.iter().position(|state| *state == loaded.state);
            let edit = edit.unwrap_or_else(|| panic!("not the state after any edit: {:?}", loaded.state));
            if *bytes == written.bytes {
                assert_eq!(edit + 1, written.states.len());
            } else if let Some((_, at)) = done.flip.filter(|_| done.edits == 1) {
                // A single flipped bit is detected anywhere; in the last edit it makes the edit look cut short.
                assert!(at >= written.last && edit + 2 == written.states.len(), "bit at {at}, edit {edit}");
            }
        }
    }
}

/// Arbitrary bytes: a manifest that loads can be rewritten, and takes further edits.
fn anything(bytes: &[u8]) {
    let loaded = match load(bytes) {
        Ok(loaded) => loaded,
        Err(error) => return assert!(is_about_bytes(&error), "{error:?}"),
    };
    let state = loaded.state.clone();
    state.check().expect("what was loaded was checked");
    assert_eq!(ManifestState::first(state.edit, state.to_changes()).as_ref(), Ok(&state));
    let vfs = on_disk(bytes);
    let mut manifest = Manifest::resume(Arc::new(vfs.clone()), dir(), loaded);
    // A change that does not fit the state is refused, and nothing is written.
    let appended = manifest.append(vec![Change::Opened, Change::Settings(vec![("fuzz".into(), 1)])]);
    let again = Manifest::load(&vfs, dir()).expect("what was loaded before").state;
    match appended {
        Ok(number) => {
            let mut next = state;
            // The log was durable up to the clean end that opening cancels.
            let end = next.clean_end.and_then(|clean| clean.end);
            next.durable = end.map_or(next.durable, |end| end.max(next.durable));
            (next.edit, next.clean_end, next.settings) = (number, None, vec![("fuzz".to_owned(), 1)]);
            assert_eq!(again, next);
        }
        Err(error) => assert_eq!(again, state, "{error}"),
    }
}

fn dir() -> &'static Path {
    Path::new("/")
}

fn on_disk(bytes: &[u8]) -> MemVfs {
    let vfs = MemVfs::new();
    let file = vfs.open(&dir().join(MANIFEST), OpenMode::Create).expect("memory");
    write_all_at(&*file, bytes, 0).expect("memory");
    vfs
}

fn load(bytes: &[u8]) -> crate::error::Result<Loaded> {
    Manifest::load(&on_disk(bytes), dir())
}

fn bytes_of(vfs: &MemVfs) -> Vec<u8> {
    read_all(&*vfs.open(&dir().join(MANIFEST), OpenMode::Read).expect("memory"), 1 << 30).expect("memory")
}

fn written(edits: usize) -> ManifestSample {
    let vfs = MemVfs::new();
    let ids = Ids { database_id: [1; 16], incarnation: [2; 16], created_ms: 3 };
    let first = vec![
        Change::Facts(Facts::new(4, 3)),
        Change::Keyspace { id: 0, name: "items".into() },
        Change::Settings(vec![("sst_threshold".into(), 10), ("block_size".into(), 4096)]),
        Change::Reserve { files_below: 1000 },
    ];
    let mut manifest = Manifest::create(Arc::new(vfs.clone()), dir(), ids, first).expect("memory");
    let (mut states, mut older, mut last) = (vec![manifest.state().clone()], bytes_of(&vfs), 0);
    for changes in changes().into_iter().take(edits) {
        (older, last) = (bytes_of(&vfs), bytes_of(&vfs).len());
        manifest.append(changes).expect("memory");
        states.push(manifest.state().clone());
    }
    ManifestSample { bytes: bytes_of(&vfs), older, states, last }
}

fn changes() -> Vec<Vec<Change>> {
    let add = |id: u64, stripe: u16, seq: (SeqNo, SeqNo)| {
        let meta = Arc::new(sst(id, stripe, seq));
        Change::adding(&meta).collect::<Vec<_>>()
    };
    let flushed = |stripe, seq| Change::FlushedTo(vec![(stripe, 0, seq)]);
    let start = |generation: u32, offset: u32| {
        let lsn = Lsn::new(generation, offset);
        Change::LogStart { start: lsn, durable: lsn }
    };
    vec![
        [vec![flushed(0, 9)], add(1, 0, (1, 9)), vec![start(1, 1024)]].concat(),
        [vec![flushed(3, 30), flushed(0, 12)], add(2, 0, (10, 12)), add(3, 3, (4, 30))].concat(),
        [vec![Change::RemoveSst(1), Change::RemoveSst(2)], add(4, 0, (1, 12))].concat(),
        vec![Change::Cut(LogCut { generation: 2, end: 2048, next_generation: 4, seq: 40 }), start(2, 1080)],
        vec![
            start(4, 1024),
            Change::CleanEnd(CleanEnd {
                end: Some(Lsn::new(4, 1080)),
                next_seq: 41,
                next_generation: 5,
                next_file: 5,
            }),
        ],
        vec![Change::Opened, Change::Settings(vec![("sst_threshold".into(), 4)])],
    ]
}

fn sst(id: u64, stripe: u16, run_seq: (SeqNo, SeqNo)) -> SstMeta {
    let details =
        SstDetails { keys: 3, sample: vec![5, 900, 70_000], bits_per_key: 10, block_size: 4096, codec: 1 };
    SstMeta {
        id,
        stripe,
        keyspace: 0,
        run: id,
        part: 0,
        parts: 1,
        depth: 0,
        run_seq,
        seq: run_seq,
        keys: (b"a\0\0".to_vec(), b"user#42\0\x01sort".to_vec()),
        entries: 5,
        tombstones: 1,
        raw_bytes: 300,
        len: 2000,
        directory: (1800, 112),
        checksum: 0xdead_beef,
        oldest_tombstone_ms: 1_700_000_000_000,
        created_ms: 1_700_000_000_000,
        origin: [1; 16],
        details: Some(Arc::new(details)),
    }
}

/// Initial inputs.
pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (n, written) in WRITTEN.iter().enumerate() {
        seeds.push(vec![0, n as u8]);
        for op in 0..14 {
            seeds.push(vec![0, n as u8, op, 0, 200, 1, 3]);
        }
        seeds.push([&[1, 0][..], &written.bytes].concat());
        seeds.push([&[2][..], &written.bytes].concat());
    }
    // The edits after the snapshot, without the snapshot.
    let last = &WRITTEN[2];
    seeds.push([&[1, 0][..], &last.bytes[..128], &last.bytes[last.last..]].concat());
    seeds
}
