//! SSTs: opened, searched, iterated in both directions and verified, both mapped and with `pread`.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::edits;
use super::files::Files;
use super::{Input, expect_corruption, is_about_bytes, seal};
use crate::config::{DatabaseConfig, ReadMode};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{KeyRange, key_hash};
use crate::memory::SystemMemory;
use crate::paths;
use crate::sst::{SstParams, SstWriter, Table, TableContext};
use crate::types::{Direction, EntryKind, EntryRef, GetCost, SeqNo, SstMeta};
use crate::vfs::{MemVfs, OpenMode, Vfs, read_all, write_all_at};

/// Key, sequence, kind and value, in file order.
type Row = (Vec<u8>, SeqNo, EntryKind, Vec<u8>);

const MODES: [ReadMode; 2] = [ReadMode::Mmap, ReadMode::Pread];
const DIRECTIONS: [Direction; 2] = [Direction::Forward, Direction::Reverse];
/// Maximum number of rows from a forged file; an input's few bytes hold fewer, unless blocks overlap.
const MAX_ROWS: usize = 100_000;

/// A genuine file.
struct SstSample {
    bytes: Vec<u8>,
    meta: SstMeta,
    rows: Vec<Row>,
}

/// Files with and without compression, with both kinds of filter, of one block and of many.
static WRITTEN: LazyLock<Vec<SstSample>> = LazyLock::new(|| {
    let ways = [(128, 10, false), (128, 12, true), (4096, 1, true), (64, 12, false)];
    ways.iter()
        .map(|&(block_size, bits, compress)| write(&known_rows(), block_size, bits, compress))
        .collect()
});

/// Reads, or writes and reads, the SST described by the input.
pub fn sst(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 => damage(&mut input),
        1 => {
            let open = input.byte();
            let mut file = input.rest().to_vec();
            if file.len() >= 192 {
                // Checksums are rarely left wrong: otherwise hardly any file would be read.
                let meta = seal::sst(&mut file, if open > 224 { open } else { 0 });
                anything(&file, &meta);
            }
        }
        2 => built(&mut input),
        _ => {
            let written = &WRITTEN[input.below(WRITTEN.len())];
            let file = input.rest();
            let meta = SstMeta { len: file.len() as u64, ..written.meta.clone() };
            anything(file, &meta);
        }
    }
}

/// A damaged genuine file: every answer is right, or an error that reports corruption.
fn damage(input: &mut Input<'_>) {
    let written = &WRITTEN[input.below(WRITTEN.len())];
    let other = &WRITTEN[input.below(WRITTEN.len())];
    let mut files =
        vec![(String::from("a"), written.bytes.clone()), (String::from("b"), other.bytes.clone())];
    let done = edits::apply(&mut files, &Files::new(), input);
    let Some((_, bytes)) = files.iter().find(|(name, _)| name == "a") else { return };
    let same = *bytes == written.bytes;
    assert!(same || done.edits > 0);
    for mode in MODES {
        let table = table(bytes, &written.meta, mode);
        let keys = written.rows.iter().map(|row| row.0.as_slice());
        for key in keys.chain([b"".as_slice(), b"user#", b"user#0500", b"zz"]) {
            for max_seq in [0, 3, SeqNo::MAX] {
                let newest = written.rows.iter().find(|row| row.0 == key && row.1 <= max_seq);
                match get(&table, key, max_seq) {
                    Ok(found) => assert_eq!(found.as_ref(), newest),
                    Err(error) => expect_corruption(&error),
                }
            }
        }
        for direction in DIRECTIONS {
            for range in [KeyRange::all(), between(b"user#01", b"user#03")] {
                let expected = expected(&written.rows, &range, direction);
                let (rows, error) = walk(&table, range, direction);
                match error {
                    None => assert_eq!(rows, expected),
                    Some(error) => {
                        assert_eq!(rows, expected[..rows.len()]);
                        expect_corruption(&error);
                    }
                }
            }
        }
        match table.verify() {
            Ok(()) => assert!(same, "verified, but not as it was written"),
            Err(error) => {
                assert!(!same, "{error}");
                expect_corruption(&error);
            }
        }
    }
}

/// A file whose checksums may match: both modes read the same, and a file that verifies answers consistently.
fn anything(bytes: &[u8], meta: &SstMeta) {
    let [mapped, read] = MODES.map(|mode| table(bytes, meta, mode));
    let verified = mapped.verify();
    assert_eq!(verified.is_ok(), read.verify().is_ok(), "{verified:?}");
    let (rows, error) = walk(&mapped, KeyRange::all(), Direction::Forward);
    assert_eq!(same(walk(&read, KeyRange::all(), Direction::Forward)), (rows.clone(), error.is_some()));
    let (mut backwards, back_error) = walk(&mapped, KeyRange::all(), Direction::Reverse);
    let keys = [&b""[..], b"user#0001", &meta.keys.0, &meta.keys.1];
    for key in rows.iter().take(200).map(|row| row.0.as_slice()).chain(keys) {
        for max_seq in [3, SeqNo::MAX] {
            let (a, b) = (get(&mapped, key, max_seq), get(&read, key, max_seq));
            assert_eq!(a.as_ref().ok(), b.as_ref().ok());
            if verified.is_ok() {
                let newest = rows.iter().find(|row| row.0 == key && row.1 <= max_seq);
                assert_eq!(a.expect("a verified file").as_ref(), newest);
            }
        }
    }
    for (start, end) in [(0, 1), (1, 3)] {
        let key = |n: usize| rows.get(n).map_or(b"user#0002".as_slice(), |row| &row.0);
        for direction in DIRECTIONS {
            let range = between(key(start), key(end));
            let (some, error) = walk(&mapped, range.clone(), direction);
            if verified.is_ok() {
                assert!(error.is_none());
                assert_eq!(some, expected(&rows, &range, direction));
            }
        }
    }
    match verified {
        Ok(()) => {
            assert!(error.is_none() && back_error.is_none());
            backwards.reverse();
            assert_eq!(backwards, rows);
            assert_eq!(rows.len() as u64, meta.entries);
            assert!(rows.is_sorted_by(|a, b| (&a.0, b.1) < (&b.0, a.1)));
        }
        Err(error) => assert!(is_about_bytes(&error), "{error:?}"),
    }
}

/// Rows from the input, written and found again.
fn built(input: &mut Input<'_>) {
    let (flags, size) = (input.byte(), input.byte());
    let mut rows = Vec::new();
    while !input.is_empty() && rows.len() < 300 {
        let (lens, seq, value) = (input.byte(), 1 + u64::from(input.byte() % 16), input.byte());
        let start: &[u8] = if lens & 128 > 0 { b"user#" } else { b"" };
        let key = [start, input.bytes(usize::from(lens & 15))].concat();
        if key.is_empty() {
            continue;
        }
        let repeated = if lens & 64 > 0 { 20 } else { 1 };
        let kind = if value == 255 { EntryKind::Delete } else { EntryKind::Put };
        let value = if value == 255 { Vec::new() } else { vec![value; repeated * usize::from(value % 16)] };
        rows.push((key, seq, kind, value));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    rows.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
    if rows.is_empty() {
        return;
    }
    let written = write(&rows, 64 + 16 * usize::from(size), 1 + u32::from(flags % 16), flags & 128 > 0);
    anything(&written.bytes, &written.meta);
    for mode in MODES {
        let table = table(&written.bytes, &written.meta, mode);
        table.verify().expect("what was written");
        assert_eq!(same(walk(&table, KeyRange::all(), Direction::Forward)), (rows.clone(), false));
    }
    // Sealing reproduces what the writer wrote.
    let mut sealed = written.bytes.clone();
    let meta = seal::sst(&mut sealed, 0);
    assert!(
        sealed == written.bytes && meta.len == written.meta.len && meta.checksum == written.meta.checksum
    );
}

fn between(start: &[u8], end: &[u8]) -> KeyRange {
    KeyRange { start: start.to_vec(), end: Some(end.to_vec()) }
}

fn expected(rows: &[Row], range: &KeyRange, direction: Direction) -> Vec<Row> {
    let within = |row: &&Row| row.0 >= range.start && range.end.as_ref().is_none_or(|end| row.0 < *end);
    let mut rows: Vec<Row> = rows.iter().filter(within).cloned().collect();
    if direction == Direction::Reverse {
        rows.reverse();
    }
    rows
}

fn get(table: &Table, key: &[u8], max_seq: SeqNo) -> Result<Option<Row>> {
    let found = table.get(key, key_hash(key), max_seq, &mut GetCost::default())?;
    Ok(found.map(|found| (key.to_vec(), found.seq, found.kind, found.value.to_vec())))
}

/// The rows that an iteration returns, and the error that ended it; the error persists.
fn walk(table: &Arc<Table>, range: KeyRange, direction: Direction) -> (Vec<Row>, Option<Error>) {
    let mut rows = Vec::new();
    let mut cursor = match table.iter(&range, direction) {
        Ok(cursor) => cursor,
        Err(error) => return (rows, Some(error)),
    };
    while let Some(entry) = cursor.entry() {
        assert_eq!(&*cursor.value(), entry.value);
        rows.push((entry.key.to_vec(), entry.seq, entry.kind, entry.value.to_vec()));
        assert!(rows.len() < MAX_ROWS, "an endless iteration");
        if let Err(error) = cursor.advance() {
            assert!(cursor.advance().is_err(), "the error went away");
            return (rows, Some(error));
        }
    }
    (rows, None)
}

fn same(walked: (Vec<Row>, Option<Error>)) -> (Vec<Row>, bool) {
    (walked.0, walked.1.is_some())
}

fn dir() -> &'static Path {
    Path::new("/")
}

fn table(bytes: &[u8], meta: &SstMeta, mode: ReadMode) -> Arc<Table> {
    let vfs = MemVfs::new();
    let path = paths::sst(dir(), usize::from(meta.stripe), meta.id);
    let file = vfs.open(&path, OpenMode::Create).expect("memory");
    write_all_at(&*file, bytes, 0).expect("memory");
    let config = DatabaseConfig::new().with_read_mode(mode).with_block_cache_bytes(64 << 10);
    Arc::new(Table::new(
        &TableContext::new(Arc::new(vfs), dir(), &config, Arc::new(SystemMemory)),
        meta.clone().into(),
    ))
}

fn write(rows: &[Row], block_size: usize, bits_per_key: u32, compress: bool) -> SstSample {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let key = |row: Option<&Row>| row.map(|row| row.0.clone()).unwrap_or_default();
    let seqs = rows.iter().map(|row| row.1);
    let params = SstParams {
        id: 7,
        stripe: 3,
        keyspace: 0,
        run: 1,
        part: 0,
        depth: 0,
        run_seq: (seqs.clone().min().unwrap_or(0), seqs.max().unwrap_or(0)),
        key_bounds: (key(rows.first()), key(rows.last())),
        block_size,
        bits_per_key,
        compress,
        pad: true,
        write_unit: 0,
        database_id: [1; 16],
        incarnation: [2; 16],
        created_ms: 1_000,
    };
    let mut writer = SstWriter::create(&vfs, dir(), params).expect("memory");
    for (key, seq, kind, value) in rows {
        writer.add(EntryRef { key, seq: *seq, kind: *kind, value }, None).expect("rows in order");
    }
    let (meta, _unsynced) = writer.finish().expect("memory");
    let file = vfs.open(&paths::sst(dir(), 3, 7), OpenMode::Read).expect("memory");
    SstSample { bytes: read_all(&*file, 1 << 30).expect("memory"), meta, rows: rows.to_vec() }
}

/// A few keys, some with several versions, some deleted.
fn known_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for key in 0..30u8 {
        // Enough versions of one key to continue from one block into the next.
        let versions = if key == 20 { 12 } else { u64::from(key % 3) + 1 };
        for seq in (1..=versions).rev() {
            let gone = key % 7 == 4;
            let kind = if gone { EntryKind::Delete } else { EntryKind::Put };
            let value = if gone { Vec::new() } else { vec![key; usize::from(key)] };
            rows.push((format!("user#{:04}", u32::from(key) * 17).into_bytes(), seq, kind, value));
        }
    }
    rows
}

/// Initial inputs.
pub fn sst_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        vec![2, 10, 0, 0x83, 1, 9, b'a', b'b', b'c', 0x83, 1, 255, b'a', b'b', b'd', 0xc2, 3, 15, 0, 1],
        vec![2, 0x8c, 255, 0xc1, 1, 15, 1, 0xc1, 2, 15, 2, 0xc1, 3, 15, 3, 0xc1, 3, 14, 3, 0xc1, 3, 15, 4],
    ];
    for (n, written) in WRITTEN.iter().enumerate() {
        seeds.push(vec![0, n as u8, 0]);
        for op in 0..14 {
            seeds.push(vec![0, n as u8, 1, op, 0, 200, 0, 3]);
        }
        seeds.push([&[1, 0][..], &written.bytes].concat());
    }
    seeds.push([&[3, 0][..], &WRITTEN[0].bytes].concat());
    seeds
}
