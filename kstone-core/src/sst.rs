//! SSTs: immutable files of entries in order, `NNN-<id>.sst`. Each is a part of a run of its stripe.
//!
//! An SST is written once, front to back ([`SstWriter`]), and from then on only read ([`Table`]), through a mapping or
//! with `pread`. Decoded blocks that cannot be read in place are cached ([`TableContext`] has the cache). An SST
//! becomes durable with [`Table::sync`] and a manifest that lists it, in that order; until then the log holds its data.
//!
//! ```text
//! file header           128 bytes, see file_header.rs; its fields in sst/format.rs
//! data blocks           sst_block.rs
//! key-hash index        sst/index.rs
//! fences                sst/fences.rs
//! filter                bloom.rs
//! properties            sst/format.rs
//! section directory     sst/format.rs
//! footer                64 bytes, sst/format.rs
//! ```
//!
//! Sections start at multiples of 64 bytes, so that the filter's lines are cache lines. The directory has a checksum
//! for every section, and the footer one for the directory; blocks have their own.
//!
//! A get goes filter -> index -> group of 8 entries -> value; a scan goes fences -> group and continues from there.

mod block_cache;
mod blocks;
mod context;
mod cursor;
mod fences;
mod filter_stats;
mod format;
mod get;
mod index;
mod lone;
mod open;
mod open_files;
mod read_ahead;
mod salvage;
mod sync;
mod table;
mod trace;
mod verify;
mod writer;

pub use block_cache::BlockCacheStats;
pub(crate) use context::TableContext;
pub(crate) use cursor::ChainCursor;
pub use filter_stats::FilterStats;
pub(crate) use open::{SectionLengths, refuse_newer};
pub(crate) use read_ahead::ahead_of_each;
pub(crate) use salvage::{Fault, Part, SalvagedTable, describe};
pub(crate) use table::Table;
pub(crate) use trace::Trace;
pub(crate) use writer::{SstParams, SstWriter, Unsynced};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{DatabaseConfig, ReadMode};
    use crate::cursor::Cursor;
    use crate::error::{Error, Result};
    use crate::key::{KeyRange, key_hash};
    use crate::memory::{FixedMemory, SystemMemory};
    use crate::merge::{MergeCursor, VisibleCursor};
    use crate::paths;
    use crate::slice::Slice;
    use crate::sst_block::checksum_at;
    use crate::types::{Direction, EntryKind, EntryRef, GetCost, SeqNo, SstDetails, SstMeta};
    use crate::vfs::{MemVfs, OpenMode, Vfs, read_all, write_all_at};

    /// Key, sequence, kind, value; in file order.
    type Row = (Vec<u8>, SeqNo, EntryKind, Vec<u8>);

    const MAX_SEQ: SeqNo = 40;

    fn dir() -> &'static Path {
        Path::new("/")
    }

    fn memory() -> Arc<dyn Vfs> {
        Arc::new(MemVfs::new())
    }

    fn as_entry(row: &Row) -> EntryRef<'_> {
        EntryRef { key: &row.0, seq: row.1, kind: row.2, value: &row.3 }
    }

    fn as_row(entry: EntryRef<'_>) -> Row {
        (entry.key.to_vec(), entry.seq, entry.kind, entry.value.to_vec())
    }

    fn params(id: u64, rows: &[Row]) -> SstParams {
        let key = |row: Option<&Row>| row.map(|row| row.0.clone()).unwrap_or_default();
        SstParams {
            id,
            stripe: 3,
            keyspace: 0,
            run: 1,
            part: 0,
            depth: 0,
            run_seq: (1, MAX_SEQ),
            key_bounds: (key(rows.first()), key(rows.last())),
            block_size: 128,
            bits_per_key: 10,
            compress: false,
            pad: true,
            write_unit: 0,
            database_id: [1; 16],
            incarnation: [2; 16],
            created_ms: 1_000,
        }
    }

    fn write(vfs: &Arc<dyn Vfs>, params: SstParams, rows: &[Row]) -> SstMeta {
        let compress = params.compress;
        let mut writer = SstWriter::create(vfs, dir(), params).unwrap();
        for row in rows {
            writer.add(as_entry(row), None).unwrap();
        }
        assert_eq!(writer.entries(), rows.len() as u64);
        let estimate = writer.estimated_len();
        let meta = writer.finish().unwrap().0;
        // How much the last block shrinks is unknown until it is finished.
        let close = meta.len <= estimate + 1_500 && (compress || estimate <= meta.len + 1_500);
        assert!(close, "{estimate} for {}", meta.len);
        meta
    }

    fn table(vfs: &Arc<dyn Vfs>, meta: SstMeta) -> Arc<Table> {
        table_in(vfs, meta, ReadMode::Mmap)
    }

    fn table_in(vfs: &Arc<dyn Vfs>, meta: SstMeta, mode: ReadMode) -> Arc<Table> {
        let config = DatabaseConfig::new().with_read_mode(mode).with_block_cache_bytes(64 << 10);
        Arc::new(Table::new(
            &TableContext::new(Arc::clone(vfs), dir(), &config, Arc::new(SystemMemory)),
            meta.into(),
        ))
    }

    fn built(vfs: &Arc<dyn Vfs>, params: SstParams, rows: &[Row]) -> Arc<Table> {
        let meta = write(vfs, params, rows);
        table(vfs, meta)
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        let bytes = prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)];
        // Mostly with a long common start, so that prefixes are stripped; some without.
        (
            prop_oneof![4 => Just("user#0000"), 1 => Just("use"), 1 => Just("v")],
            proptest::collection::vec(bytes, 0..5),
        )
            .prop_map(|(start, rest)| [start.as_bytes(), &rest].concat())
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => proptest::collection::vec(any::<u8>(), 0..40),
            1 => (any::<u8>(), 100usize..6_000).prop_map(|(byte, len)| vec![byte; len]),
        ]
    }

    fn rows(max: usize) -> impl Strategy<Value = Vec<Row>> {
        let row = (
            key(),
            1..=MAX_SEQ,
            prop_oneof![3 => Just(EntryKind::Put), 1 => Just(EntryKind::Delete)],
            value(),
        );
        proptest::collection::vec(row, 1..max).prop_map(|mut rows| {
            rows.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            rows.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
            rows.iter_mut().filter(|row| row.2 == EntryKind::Delete).for_each(|row| row.3.clear());
            rows
        })
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        (prop_oneof![Just(Vec::new()), key()], proptest::option::of(key()))
            .prop_map(|(start, end)| KeyRange { start, end })
    }

    /// Block size, filter bits and compression for writing, and the read mode.
    fn settings() -> impl Strategy<Value = (usize, u32, bool, ReadMode)> {
        (
            prop_oneof![Just(64usize), Just(200), Just(4_096)],
            prop_oneof![Just(1u32), Just(10), Just(12)],
            any::<bool>(),
            prop_oneof![Just(ReadMode::Mmap), Just(ReadMode::Pread)],
        )
    }

    /// All combinations of compression and read mode.
    const WAYS: [(bool, ReadMode); 4] =
        [(false, ReadMode::Mmap), (true, ReadMode::Mmap), (false, ReadMode::Pread), (true, ReadMode::Pread)];

    /// A cursor over a run, at its first entry.
    fn chain(run: &[Arc<Table>], range: &KeyRange, direction: Direction) -> Result<ChainCursor> {
        let mut cursor = ChainCursor::new(run, &Arc::new(range.clone()), direction, ahead_of_each(300))?;
        cursor.seek()?;
        Ok(cursor)
    }

    /// All entries of a cursor, and the error that ended it, if any.
    fn drain(cursor: &mut dyn Cursor) -> (Vec<Row>, Option<Error>) {
        let mut rows = Vec::new();
        while let Some(entry) = cursor.entry() {
            rows.push(as_row(entry));
            assert_eq!(&*cursor.value(), entry.value);
            if let Err(error) = cursor.advance() {
                return (rows, Some(error));
            }
        }
        cursor.advance().unwrap();
        assert!(cursor.entry().is_none() && cursor.value().is_empty());
        (rows, None)
    }

    fn expected(rows: &[Row], range: &KeyRange, direction: Direction) -> Vec<Row> {
        let mut rows: Vec<_> = rows.iter().filter(|row| range.contains(&row.0)).cloned().collect();
        if direction == Direction::Reverse {
            rows.reverse();
        }
        rows
    }

    fn newest<'a>(rows: &'a [Row], key: &[u8], max_seq: SeqNo) -> Option<&'a Row> {
        rows.iter().find(|row| row.0 == key && row.1 <= max_seq)
    }

    fn check_get(table: &Table, rows: &[Row], key: &[u8], max_seq: SeqNo) -> Result<()> {
        let got = table.get(key, key_hash(key), max_seq, &mut GetCost::default())?;
        let got = got.map(|found| (found.seq, found.kind, found.value.to_vec()));
        let expected = newest(rows, key, max_seq).map(|row| (row.1, row.2, row.3.clone()));
        assert_eq!(got, expected, "{:?} at {max_seq}", key.escape_ascii().to_string());
        Ok(())
    }

    fn check_visible(
        merge: MergeCursor<ChainCursor>,
        rows: &[Row],
        range: &KeyRange,
        direction: Direction,
        max_seq: SeqNo,
    ) {
        let keys: BTreeSet<_> = rows.iter().map(|row| &row.0).filter(|key| range.contains(key)).collect();
        let visible =
            keys.iter().filter_map(|key| newest(rows, key, max_seq)).filter(|r| r.2 == EntryKind::Put);
        let mut expected: Vec<_> =
            visible.map(|row| (row.0.clone(), Slice::from(row.3.as_slice()))).collect();
        if direction == Direction::Reverse {
            expected.reverse();
        }
        let mut cursor = VisibleCursor::new(merge, direction, max_seq);
        let mut got = Vec::new();
        while cursor.step().unwrap() {
            let (key, len) = cursor.key().unwrap();
            assert_eq!(*cursor.value(), *cursor.lent_value());
            assert_eq!(cursor.value().len(), len);
            got.push((key.to_vec(), cursor.value()));
        }
        assert_eq!(got, expected, "{direction:?} at {max_seq}");
        assert!(!cursor.step().unwrap());
    }

    const DIRECTIONS: [Direction; 2] = [Direction::Forward, Direction::Reverse];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn one_file_answers_like_a_map(
            rows in rows(150), (block_size, bits_per_key, compress, mode) in settings(), others in proptest::collection::vec(key(), 20),
            ranges in proptest::collection::vec(range(), 10),
        ) {
            let vfs = memory();
            let params = SstParams { block_size, bits_per_key, compress, ..params(7, &rows) };
            let table = table_in(&vfs, write(&vfs, params, &rows), mode);
            for key in rows.iter().map(|row| &row.0).chain(&others) {
                for max_seq in (0..=MAX_SEQ + 1).chain([SeqNo::MAX]) {
                    check_get(&table, &rows, key, max_seq).unwrap();
                }
            }
            for range in ranges.iter().chain([&KeyRange::all()]) {
                for direction in DIRECTIONS {
                    let (got, error) = drain(&mut table.iter(range, direction).unwrap());
                    prop_assert!(error.is_none());
                    prop_assert_eq!(got, expected(&rows, range, direction));
                }
            }
            table.verify().unwrap();
            table.sync(&*table.open_to_sync().unwrap()).unwrap();
        }

        #[test]
        fn runs_of_parts_merge_like_a_map(
            rows in rows(200), (block_size, bits_per_key, compress, mode) in settings(), runs in 1u64..9, part_len in 1usize..60,
            ranges in proptest::collection::vec(range(), 6), max_seqs in proptest::collection::vec(0..=MAX_SEQ, 3),
        ) {
            let vfs = memory();
            let mut id = 0;
            let mut all_runs = Vec::new();
            for run in 0..runs {
                let mine: Vec<Row> = rows.iter().filter(|row| row.1 % runs == run).cloned().collect();
                // Parts end between keys.
                let mut parts: Vec<Vec<Row>> = Vec::new();
                for row in mine {
                    match parts.last_mut() {
                        Some(part) if part.len() < part_len || part.last().unwrap().0 == row.0 => part.push(row),
                        _ => parts.push(vec![row]),
                    }
                }
                let build = |rows: Vec<Row>| {
                    id += 1;
                    let params = SstParams { block_size, bits_per_key, compress, ..params(id, &rows) };
                    table_in(&vfs, write(&vfs, params, &rows), mode)
                };
                all_runs.push(parts.into_iter().map(build).collect::<Vec<_>>());
            }
            for range in ranges.iter().chain([&KeyRange::all()]) {
                for direction in DIRECTIONS {
                    let merge = || {
                        let chain = |run: &Vec<_>| chain(run, range, direction).unwrap();
                        MergeCursor::new(all_runs.iter().map(chain).collect(), direction)
                    };
                    let (got, error) = drain(&mut merge());
                    prop_assert!(error.is_none());
                    prop_assert_eq!(got, expected(&rows, range, direction));
                    for &max_seq in &max_seqs {
                        check_visible(merge(), &rows, range, direction, max_seq);
                    }
                }
            }
        }

        #[test]
        fn forged_blocks_never_panic(
            rows in rows(60), at in any::<prop::sample::Index>(), byte in any::<u8>(),
            (_, _, compress, mode) in settings(),
        ) {
            let vfs = memory();
            let meta = write(&vfs, SstParams { compress, ..params(7, &rows) }, &rows);
            let path = paths::sst(dir(), 3, 7);
            let mut bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
            // A block with a matching checksum and nonsensical content.
            let places = block_places(&vfs, &meta);
            let (start, end) = places[at.index(places.len())];
            let target = start + at.index(end - start - 4);
            bytes[target] ^= byte;
            let crc = checksum_at(7, start as u64, &bytes[start..end - 4]);
            bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());
            replace(&vfs, &path, &bytes);
            let table = table_in(&vfs, meta, mode);
            for row in &rows {
                let _ = table.get(&row.0, key_hash(&row.0), row.1, &mut GetCost::default());
            }
            for direction in DIRECTIONS {
                if let Ok(mut cursor) = table.iter(&KeyRange::all(), direction) {
                    for _ in 0..1_000 {
                        cursor.entry();
                        if cursor.advance().is_err() {
                            break;
                        }
                    }
                }
            }
            prop_assert!(byte == 0 || table.verify().is_err());
        }
    }

    fn block_places(vfs: &Arc<dyn Vfs>, meta: &SstMeta) -> Vec<(usize, usize)> {
        let table = table(vfs, meta.clone());
        let open = table.opened().unwrap();
        let place = |n| open.fences.block(open.fence_section(), n).unwrap();
        (0..open.fences.blocks()).map(|n| (place(n).start, place(n).end)).collect()
    }

    fn replace(vfs: &Arc<dyn Vfs>, path: &Path, bytes: &[u8]) {
        let file = vfs.open(path, OpenMode::Truncate).unwrap();
        write_all_at(&*file, bytes, 0).unwrap();
    }

    /// A few keys with a few versions each, in several blocks.
    fn small() -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for key in 0..9u8 {
            for seq in (1..=u64::from(key % 3) + 1).rev() {
                let kind = if key == 4 { EntryKind::Delete } else { EntryKind::Put };
                let value = if key == 4 { Vec::new() } else { vec![key; 10 + usize::from(key)] };
                rows.push((format!("user#{key}").into_bytes(), seq, kind, value));
            }
        }
        rows
    }

    /// Checks that every read returns either the right answer or an error. Returns the number of errors.
    fn errors(table: &Arc<Table>, rows: &[Row]) -> usize {
        let mut errors = 0;
        for row in rows {
            errors += usize::from(check_get(table, rows, &row.0, row.1).is_err());
        }
        errors += usize::from(check_get(table, rows, b"user#99", SeqNo::MAX).is_err());
        for direction in DIRECTIONS {
            let all = expected(rows, &KeyRange::all(), direction);
            match table.iter(&KeyRange::all(), direction) {
                Err(_) => errors += 1,
                Ok(mut cursor) => match drain(&mut cursor) {
                    (got, None) => assert_eq!(got, all),
                    (got, Some(_)) => {
                        assert_eq!(got, all[..got.len()]);
                        assert!(cursor.advance().is_err(), "the error must stay");
                        errors += 1;
                    }
                },
            }
        }
        errors
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_an_error_or_harmless() {
        for (compress, mode) in WAYS {
            let (vfs, rows) = (memory(), small());
            let meta = write(&vfs, SstParams { compress, ..params(7, &rows) }, &rows);
            let table = || table_in(&vfs, meta.clone(), mode);
            let path = paths::sst(dir(), 3, 7);
            let good = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 20).unwrap();
            let places = block_places(&vfs, &meta);
            let compressed = places.iter().filter(|(_, end)| good[end - 9] == 1).count();
            assert_eq!(compressed > 1, compress, "{compressed} of {} blocks", places.len());
            assert_eq!(errors(&table(), &rows), 0);
            for len in (0..good.len()).chain([good.len() + 1]) {
                let mut bytes = good.clone();
                bytes.resize(len, 0);
                replace(&vfs, &path, &bytes);
                let got = table().get(b"user#1", key_hash(b"user#1"), 9, &mut GetCost::default());
                assert!(matches!(got, Err(Error::Corruption { .. })), "length {len}: {got:?}");
                assert!(table().section_lengths().is_err());
            }
            let mut harmless = 0;
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                replace(&vfs, &path, &bytes);
                let table = table();
                let errors = errors(&table, &rows);
                harmless += usize::from(errors == 0);
                assert!(table.verify().is_err(), "bit {bit}");
                let _ = table.section_lengths();
            }
            println!("{} bytes, {} flips, {harmless} of them in padding", good.len(), good.len() * 8);
            assert!(harmless <= 5 * format::SECTION_ALIGN * 8, "{harmless}");
        }
    }

    #[test]
    fn a_damaged_block_leaves_the_others_readable() {
        for (compress, mode) in WAYS {
            let (vfs, rows) = (memory(), small());
            let meta = write(&vfs, SstParams { compress, ..params(7, &rows) }, &rows);
            let path = paths::sst(dir(), 3, 7);
            let places = block_places(&vfs, &meta);
            assert!(places.len() >= 4);
            let mut bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 20).unwrap();
            let (start, _) = places[1];
            bytes[start] ^= 1;
            replace(&vfs, &path, &bytes);
            let table = table_in(&vfs, meta, mode);
            let mut failed = 0;
            for row in &rows {
                for _ in 0..2 {
                    match check_get(&table, &rows, &row.0, row.1) {
                        Ok(()) => {}
                        Err(Error::Corruption { file, offset, .. }) => {
                            assert_eq!((file.as_path(), offset), (path.as_path(), start as u64));
                            failed += 1;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            assert!(failed >= 2 && failed % 2 == 0 && failed < rows.len(), "{failed} of {}", rows.len());
        }
    }

    #[test]
    fn a_file_cut_short_while_it_is_read_is_an_error_each_time() {
        let (vfs, rows) = (memory(), small());
        let meta = write(&vfs, params(7, &rows), &rows);
        let table = table_in(&vfs, meta.clone(), ReadMode::Pread);
        check_get(&table, &rows, b"user#0", 9).unwrap();
        vfs.open(table.path(), OpenMode::Write).unwrap().set_len(meta.len / 3).unwrap();
        for _ in 0..2 {
            let got = check_get(&table, &rows, b"user#8", 9);
            assert!(matches!(&got, Err(Error::Corruption { file, .. }) if file == table.path()), "{got:?}");
        }
        check_get(&table, &rows, b"user#0", 9).unwrap(); // from the cache
        assert!(table.verify().is_err());
    }

    #[test]
    fn files_that_are_not_the_listed_one_are_refused_each_time() {
        let (vfs, rows) = (memory(), small());
        let meta = write(&vfs, params(7, &rows), &rows);
        let other = write(&vfs, SstParams { database_id: [9; 16], ..params(8, &rows) }, &rows);
        let good = read_all(&*vfs.open(&paths::sst(dir(), 3, 7), OpenMode::Read).unwrap(), 1 << 20).unwrap();
        replace(&vfs, &paths::sst(dir(), 3, 9), &good);
        replace(&vfs, &paths::sst(dir(), 4, 7), &good);
        let metas = [
            SstMeta { id: 9, ..meta.clone() },             // another file under this name
            SstMeta { stripe: 4, ..meta.clone() },         // of another stripe
            SstMeta { keyspace: 1, ..meta.clone() },       // of another keyspace
            SstMeta { origin: [1; 16], ..other },          // of another database
            SstMeta { id: 77, ..meta.clone() },            // missing
            SstMeta { len: meta.len + 1, ..meta.clone() }, // of another length
            SstMeta { directory: (128, 28), ..meta.clone() }, // of another layout
            SstMeta { entries: meta.entries + 1, ..meta.clone() }, // with other contents
        ];
        for meta in metas {
            let table = table(&vfs, meta.clone());
            for _ in 0..2 {
                let got = table.get(b"user#1", key_hash(b"user#1"), 9, &mut GetCost::default());
                assert!(matches!(got, Err(Error::Corruption { .. })), "{meta:?}: {got:?}");
                assert!(table.iter(&KeyRange::all(), Direction::Forward).is_err());
            }
        }
        let missing = table(&vfs, SstMeta { id: 77, ..meta.clone() });
        assert!(matches!(missing.open_to_sync(), Err(Error::Corruption { .. })));
        // A failed open is not remembered: the file may be there later.
        assert!(missing.verify().is_err());
        let later = write(&vfs, params(77, &rows), &rows);
        assert_eq!(missing.meta().len, later.len);
        check_get(&missing, &rows, b"user#1", 9).unwrap();
    }

    #[test]
    fn verify_finds_what_the_manifest_has_wrong() {
        let (vfs, rows) = (memory(), small());
        let meta = write(&vfs, params(7, &rows), &rows);
        let wrong = SstMeta { checksum: meta.checksum ^ 1, ..meta.clone() };
        assert!(table(&vfs, wrong).verify().is_err());
        let details = |change: fn(&mut SstDetails)| {
            let mut details = SstDetails::clone(meta.details.as_deref().unwrap());
            change(&mut details);
            SstMeta { details: Some(Arc::new(details)), ..meta.clone() }
        };
        assert!(table(&vfs, details(|d| d.keys -= 1)).verify().is_err());
        assert!(table(&vfs, details(|d| d.block_size += 1)).verify().is_err());
        table(&vfs, SstMeta { details: None, ..meta.clone() }).verify().unwrap();
        table(&vfs, meta).verify().unwrap();
    }

    /// Symptom: verify passed a file whose fences differed from the starts of their separators, so that searches missed
    /// rows. Cause: it only checked the separators. Fix: it compares the two.
    #[test]
    fn verify_finds_fences_that_mislead_a_search() {
        let (vfs, rows) = (memory(), small());
        let meta = write(&vfs, params(7, &rows), &rows);
        let path = paths::sst(dir(), 3, 7);
        let mut bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 20).unwrap();
        let directory = meta.directory.0 as usize;
        let fences = (0..4).map(|n| directory + 28 * n).find(|&entry| bytes[entry] == 2).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let (start, len) = (number(fences + 4), number(fences + 12));
        // Change the second fence, then recompute every checksum that covers it.
        bytes[start + 8 + 8] ^= 1;
        let crc = checksum_at(7, start as u64, &bytes[start..start + len]);
        bytes[fences + 20..fences + 24].copy_from_slice(&crc.to_le_bytes());
        let footer = bytes.len() - 64;
        let crc = checksum_at(7, directory as u64, &bytes[directory..footer]);
        bytes[footer + 12..footer + 16].copy_from_slice(&crc.to_le_bytes());
        let crc = checksum_at(7, footer as u64, &bytes[footer..footer + 60]);
        bytes[footer + 60..].copy_from_slice(&crc.to_le_bytes());
        replace(&vfs, &path, &bytes);
        let meta = SstMeta { checksum: crc32c::crc32c(&bytes), ..meta };
        let error = table(&vfs, meta).verify().unwrap_err();
        assert!(error.to_string().contains("fence"), "{error}");
    }

    #[test]
    fn a_missing_part_stops_a_run_with_an_error_and_not_an_end() {
        let (vfs, rows) = (memory(), small());
        let (left, right) = rows.split_at(rows.iter().position(|row| row.0 == b"user#5").unwrap());
        let run = [built(&vfs, params(1, left), left), built(&vfs, params(2, right), right)];
        vfs.remove(run[1].path()).unwrap();
        let forward = chain(&run, &KeyRange::all(), Direction::Forward).unwrap();
        let mut merge = MergeCursor::new(vec![forward], Direction::Forward);
        let (got, error) = drain(&mut merge);
        assert_eq!(got, left);
        assert!(matches!(error, Some(Error::Corruption { .. })));
        assert!(merge.advance().is_err());
        assert!(chain(&run, &KeyRange::all(), Direction::Reverse).is_err());
        // Parts outside the range are not opened.
        let range = KeyRange { start: Vec::new(), end: Some(b"user#5".to_vec()) };
        let mut reverse = chain(&run, &range, Direction::Reverse).unwrap();
        assert!(drain(&mut reverse).1.is_none());
    }

    #[test]
    fn the_writer_refuses_what_could_not_be_read_back() {
        let vfs = memory();
        let put = |key: &'static [u8], seq| EntryRef { key, seq, kind: EntryKind::Put, value: b"v" };
        let bounds =
            [(b"key-b".to_vec(), 1, EntryKind::Put, vec![]), (b"key-d".to_vec(), 1, EntryKind::Put, vec![])];
        for bad in [
            put(b"key-c", 5),           // the same entry again
            put(b"key-c", 6),           // a newer version after an older one
            put(b"key-b", 1),           // a lower key
            put(b"key-e", 1),           // past the bounds
            put(b"key-d", 0),           // older than the run
            put(b"key-d", MAX_SEQ + 1), // newer than the run
        ] {
            let mut writer = SstWriter::create(&vfs, dir(), params(7, &bounds)).unwrap();
            assert!(SstWriter::create(&vfs, dir(), params(7, &bounds)).is_err());
            writer.add(put(b"key-c", 5), None).unwrap();
            assert!(matches!(writer.add(bad, None), Err(Error::Io { .. })), "{bad:?}");
            writer.abandon().unwrap();
            assert!(vfs.list(dir()).unwrap().is_empty());
        }
        let mut empty = SstWriter::create(&vfs, dir(), params(7, &bounds)).unwrap();
        assert!(empty.finish().is_err());
        empty.abandon().unwrap();
        assert!(vfs.list(dir()).unwrap().is_empty());
    }

    #[test]
    fn meta_says_what_is_in_the_file() {
        let vfs = memory();
        let rows = small();
        let mut writer = SstWriter::create(&vfs, dir(), SstParams { part: 2, ..params(7, &rows) }).unwrap();
        for row in &rows {
            writer.add(as_entry(row), Some(500 + row.1)).unwrap();
        }
        assert!(!writer.is_full(1 << 20) && writer.is_full(100));
        let meta = writer.finish().unwrap().0;
        let tombstones = rows.iter().filter(|row| row.2 == EntryKind::Delete).count() as u64;
        assert_eq!((meta.id, meta.stripe, meta.part, meta.parts, meta.run), (7, 3, 2, 3, 1));
        assert_eq!((meta.entries, meta.tombstones), (rows.len() as u64, tombstones));
        assert_eq!(meta.keys, (b"user#0".to_vec(), b"user#8".to_vec()));
        assert_eq!((meta.seq, meta.run_seq), ((1, 3), (1, MAX_SEQ)));
        assert_eq!(meta.raw_bytes, rows.iter().map(|row| row.0.len() + row.3.len()).sum::<usize>() as u64);
        assert_eq!((meta.oldest_tombstone_ms, meta.created_ms, meta.origin), (501, 1_000, [1; 16]));
        let bytes = read_all(&*vfs.open(&paths::sst(dir(), 3, 7), OpenMode::Read).unwrap(), 1 << 20).unwrap();
        assert_eq!((meta.len, meta.checksum), (bytes.len() as u64, crc32c::crc32c(&bytes)));
    }

    #[test]
    fn equal_entries_make_equal_bytes() {
        let rows = small();
        let bytes = || {
            let vfs = memory();
            let meta = write(&vfs, params(7, &rows), &rows);
            (read_all(&*vfs.open(&paths::sst(dir(), 3, 7), OpenMode::Read).unwrap(), 1 << 20).unwrap(), meta)
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn overhead_is_small() {
        for (count, most) in [(1_000u64, 22.0), (100_000, 22.0)] {
            let rows: Vec<Row> = (0..count)
                .map(|n| {
                    (
                        format!("user#{n:017}\0\0").into_bytes(),
                        1 + n * 37 % count,
                        EntryKind::Put,
                        vec![7; 150],
                    )
                })
                .collect();
            let vfs = memory();
            let wide = SstParams { block_size: 4_096, run_seq: (1, count), ..params(7, &rows) };
            let meta = write(&vfs, wide, &rows);
            let values = count * 150;
            let len = meta.len;
            let table = table(&vfs, meta);
            table.verify().unwrap();
            let padding = paddings(&table).iter().sum::<usize>() as u64;
            let each = (len - values - padding) as f64 / count as f64;
            println!(
                "{count} entries of 24 + 150 bytes: {len} bytes, {padding} of them padding, {each:.2} per entry besides \
                 that and the value"
            );
            assert!(each < most && padding < len / 16, "{each} {padding}");
        }
    }

    /// The bytes of padding in each block.
    fn paddings(table: &Table) -> Vec<usize> {
        let open = table.opened().unwrap();
        let of = |n| {
            let data = table.block(open, n, blocks::CacheFill::Bypass).unwrap();
            table.parse(&data).unwrap().padding().unwrap()
        };
        (0..open.fences.blocks()).map(of).collect()
    }

    /// Rows with values that do not compress.
    fn random_rows(count: u64, value: usize) -> Vec<Row> {
        let value_of =
            |n: u64| (0..value as u64).map(|at| key_hash(&(n << 20 | at).to_le_bytes()) as u8).collect();
        (0..count)
            .map(|n| (format!("{n:08}").into_bytes(), 1 + n % 40, EntryKind::Put, value_of(n)))
            .collect()
    }

    #[test]
    fn blocks_of_short_entries_lie_within_pages() {
        const PAGE: usize = 4_096;
        let across = |value: usize, compress: bool, pad: bool| {
            let (vfs, rows) = (memory(), random_rows(300, value));
            let table = built(&vfs, SstParams { block_size: PAGE, compress, pad, ..params(7, &rows) }, &rows);
            table.verify().unwrap();
            let (open, mut across) = (table.opened().unwrap(), 0);
            let blocks = open.fences.blocks();
            for n in 0..blocks {
                let at = open.fences.block(open.fence_section(), n).unwrap();
                across += usize::from(at.start / PAGE != (at.end - 1) / PAGE);
            }
            let bytes = open.fences.block(open.fence_section(), blocks - 1).unwrap().end;
            (across, blocks, bytes as f64 / (300 * value) as f64)
        };
        for value in [100, 150, 200, 230] {
            for compress in [false, true] {
                let (across, blocks, space) = across(value, compress, true);
                assert!(across == 0 && space < 1.2, "{value}: {across} of {blocks}, {space}");
            }
            // Unless it is asked for, no byte goes into padding.
            let (across, blocks, _) = across(value, false, false);
            assert!(across > blocks / 2, "{value}: {across} of {blocks}");
        }
        // The space for this would be too much.
        for value in [700, 1_500, 3_000] {
            let (across, blocks, space) = across(value, false, true);
            assert!(across > blocks / 4 && space < 1.05, "{value}: {across} of {blocks}, {space}");
        }
    }

    #[test]
    fn a_get_loads_the_blocks_around_its_own_only_if_all_tables_fit_into_memory() {
        let (vfs, rows) = (memory(), random_rows(300, 200));
        let meta = write(&vfs, SstParams { block_size: 4_096, ..params(7, &rows) }, &rows);
        let len = meta.len;
        for (available, fits) in [(len, true), (len - 1, false)] {
            let config = DatabaseConfig::new();
            let context =
                TableContext::new(Arc::clone(&vfs), dir(), &config, Arc::new(FixedMemory(available)));
            let table = Table::new(&context, meta.clone().into());
            let open = table.opened().unwrap();
            let block = open.fences.block(open.fence_section(), 1).unwrap();
            let loaded = |touched| table.to_load(open, 1, &block, touched);
            assert_eq!(loaded(0).len() > 7 * 4_000, fits, "{:?}", loaded(0));
            assert_eq!(loaded(1 << 2), block, "one of them was touched before");
            drop(table);
            assert_eq!(context.mapped_bytes.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn one_key_with_many_versions_spans_blocks() {
        let rows: Vec<Row> = (1..=500u64)
            .rev()
            .map(|seq| (b"hot".to_vec(), seq, EntryKind::Put, seq.to_le_bytes().to_vec()))
            .collect();
        let vfs = memory();
        let wide = SstParams { run_seq: (1, 500), block_size: 64, ..params(7, &rows) };
        let table = built(&vfs, wide, &rows);
        for max_seq in 0..=501 {
            check_get(&table, &rows, b"hot", max_seq).unwrap();
        }
        table.verify().unwrap();
        for direction in DIRECTIONS {
            let range = KeyRange { start: b"hot".to_vec(), end: Some(b"hot\0".to_vec()) };
            assert_eq!(drain(&mut table.iter(&range, direction).unwrap()).0.len(), 500);
            let before = KeyRange { start: b"ho".to_vec(), end: Some(b"hot".to_vec()) };
            assert!(table.iter(&before, direction).unwrap().entry().is_none());
        }
    }
}
