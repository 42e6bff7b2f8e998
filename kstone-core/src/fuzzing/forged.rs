//! Forged databases: every checksum matches, but the contents are wrong. Each has a name, for a test that checks its
//! outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use super::agree::{Agreed, agree};
use super::directory::written_files;
use super::files::{Files, listed, on_disk};
use super::seal;
use crate::manifest::{Change, CleanEnd, Manifest};
use crate::paths::{self, FileName};
use crate::types::{LogCut, Lsn, SstMeta};
use crate::wal::format::{BATCH, RECORD_HEADER, RECORDS_START, record_len};

fn dir() -> &'static Path {
    Path::new("/db")
}

/// Each forged directory with its result; `None` if the checks disagreed, in which case the panic says why.
pub fn forged() -> Vec<(String, Option<Agreed>)> {
    let mut all = Vec::new();
    for (kind, base) in ["closed", "cut off", "recovered", "merged"].iter().zip(written_files()) {
        let mut cases = Vec::new();
        manifests(&base, &mut cases);
        logs(&base, &mut cases);
        tables(&base, &mut cases);
        for (what, files) in cases {
            let agreed = catch_unwind(AssertUnwindSafe(|| agree(&files))).ok();
            all.push((format!("{what}, {kind}"), agreed));
        }
    }
    all
}

/// The files with these changes appended to the manifest; `None` if it would contradict itself.
fn with_changes(base: &Files, changes: Vec<Change>) -> Option<Files> {
    let vfs = on_disk(dir(), base);
    let loaded = Manifest::load(&vfs, dir()).expect("it was written");
    let closed = loaded.state.clean_end.is_some();
    let mut manifest = Manifest::resume(Arc::new(vfs.clone()), dir(), loaded);
    let opened = Some(Change::Opened).filter(|_| closed);
    manifest.append(opened.into_iter().chain(changes).collect()).ok()?;
    Some(listed(dir(), &vfs))
}

fn manifests(base: &Files, cases: &mut Vec<(String, Files)>) {
    let vfs = on_disk(dir(), base);
    let loaded = Manifest::load(&vfs, dir()).expect("it was written");
    let (state, ids) = (loaded.state.clone(), loaded.ids);
    let mut add = |what: &str, changes: Vec<Change>| {
        cases.extend(with_changes(base, changes).map(|files| (what.to_owned(), files)));
    };
    for highest in [u64::MAX, u64::MAX - 3, (1 << 62) + 1] {
        add("file numbers at the end", vec![Change::Reserve { files_below: highest }]);
        add("sequences at the end", vec![Change::FlushedTo(vec![(0, 0, highest)])]);
        let end = CleanEnd {
            end: state.clean_end.and_then(|c| c.end),
            next_seq: highest,
            next_generation: 90,
            next_file: 900_000,
        };
        add("a clean end with a sequence at the end", vec![Change::CleanEnd(end)]);
        add(
            "a clean end with a file at the end",
            vec![Change::CleanEnd(CleanEnd { next_seq: 1 << 40, next_file: highest, ..end })],
        );
        add(
            "a cut with a sequence at the end",
            vec![Change::Cut(LogCut { generation: 50, end: 0, next_generation: 60, seq: highest })],
        );
    }
    for generation in [u32::MAX, u32::MAX - 1, u32::MAX - 16, u32::MAX - 17, u32::MAX - 40] {
        let at = Lsn::new(generation, 0);
        add("a log that starts at the end of generations", vec![Change::LogStart { start: at, durable: at }]);
        add(
            "a log that is durable to the end of generations",
            vec![Change::LogStart { start: state.log_start, durable: at }],
        );
        let cut = LogCut { generation: 50, end: 0, next_generation: generation, seq: 0 };
        add("a cut to the end of generations", vec![Change::Cut(cut)]);
        let end = CleanEnd { end: None, next_seq: 1 << 40, next_generation: generation, next_file: 900_000 };
        add("a clean end at the end of generations", vec![Change::CleanEnd(end)]);
    }
    let cuts =
        (10..200).map(|n| Change::Cut(LogCut { generation: n, end: 8, next_generation: n + 1, seq: 3 }));
    add("many cuts", cuts.collect());
    add(
        "a cut in the middle of the log",
        vec![Change::Cut(LogCut { generation: 1, end: 1100, next_generation: 2, seq: 5 })],
    );
    add("a second keyspace", vec![Change::Keyspace { id: 1, name: "other".into() }]);
    for name in [
        "block_size",
        "max_item_bytes",
        "max_total_disk_bytes",
        "sst_threshold",
        "sync_interval_ms",
        "latency_sampling",
        "tombstone_age_ms",
    ] {
        for value in [0, 1, u64::MAX] {
            add("a setting out of range", vec![Change::Settings(vec![(name.to_owned(), value)])]);
        }
    }
    add(
        "settings that contradict each other",
        vec![Change::Settings(vec![("max_item_bytes".into(), 200 << 20)])],
    );
    let metas: Vec<Arc<SstMeta>> = state.ssts.values().cloned().collect();
    for meta in metas.iter().take(1).chain(metas.last()) {
        let mut forge = |what: &str, edit: &dyn Fn(&mut SstMeta)| {
            let mut forged = SstMeta::clone(meta);
            edit(&mut forged);
            let mut changes = vec![Change::RemoveSst(meta.id)];
            changes.extend(Change::adding(&Arc::new(forged)));
            add(what, changes);
        };
        forge("another stripe", &|m| m.stripe ^= 1);
        forge("a deep run", &|m| m.depth = u32::MAX);
        forge("a run with the last number", &|m| m.run = u64::MAX);
        forge("more entries", &|m| m.entries += 1);
        forge("absurdly many entries", &|m| m.entries = 1 << 39);
        forge("as many tombstones as entries", &|m| m.tombstones = m.entries);
        forge("other bytes", &|m| m.raw_bytes += 1);
        forge("absurdly many bytes", &|m| m.raw_bytes = 1 << 40);
        forge("one sequence only", &|m| m.seq = (m.seq.1, m.seq.1));
        forge("a narrow run", &|m| (m.seq, m.run_seq) = ((m.seq.1, m.seq.1), (m.run_seq.1, m.run_seq.1)));
        forge("a wide run", &|m| m.run_seq.0 = 0);
        forge("other first key", &|m| m.keys.0.clear());
        forge("other last key", &|m| m.keys.1.push(7));
        forge("another checksum", &|m| m.checksum ^= 1);
        forge("another length", &|m| m.len += 1);
        forge("the longest length", &|m| m.len = u64::MAX);
        forge("sections elsewhere", &|m| m.directory.0 = u64::MAX);
        forge("sections without length", &|m| m.directory.1 = 0);
        forge("longer sections", &|m| m.directory.1 = u32::MAX);
        forge("of another database", &|m| m.origin = [7; 16]);
        forge("old tombstones", &|m| m.oldest_tombstone_ms = u64::MAX);
        forge("made in the future", &|m| m.created_ms = u64::MAX);
        forge("no details", &|m| m.details = None);
        forge("one part of many", &|m| m.parts += 1);
    }
    for edit in [u64::MAX - 2, u64::MAX - 1, (1 << 62) + 1] {
        let mut state = state.clone();
        state.edit = edit;
        let vfs = on_disk(dir(), base);
        Manifest::install(Arc::new(vfs.clone()), dir(), ids, state).expect("memory");
        cases.push(("edits at the end".into(), listed(dir(), &vfs)));
    }
}

/// The offsets of a segment's records.
fn records(log: &[u8]) -> Vec<usize> {
    let (mut places, mut at) = (Vec::new(), RECORDS_START as usize);
    while let Some(head) = log.get(at..at + RECORD_HEADER).filter(|head| head.iter().any(|&byte| byte != 0)) {
        places.push(at);
        let len = head.get(8..12).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes);
        at += record_len(len as usize) as usize;
    }
    places
}

fn logs(base: &Files, cases: &mut Vec<(String, Files)>) {
    for (n, (name, bytes)) in base.iter().enumerate() {
        if !matches!(paths::parse(name), FileName::Log(_)) {
            continue;
        }
        let mut add = |what: &str, edit: &dyn Fn(&mut Vec<u8>)| {
            let mut files = base.clone();
            edit(&mut files[n].1);
            seal::segment(&mut files[n].1, None, |_| false);
            cases.push((format!("{name}: {what}"), files));
        };
        let put =
            |bytes: &mut Vec<u8>, at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        for generation in [0, u32::MAX, u32::MAX - 16, 77] {
            add(&format!("generation {generation}"), &|bytes| put(bytes, 64, &generation.to_le_bytes()));
        }
        for edit in [u64::MAX, 1 << 40] {
            add(&format!("made at edit {edit}"), &|bytes| put(bytes, 76, &edit.to_le_bytes()));
        }
        let batches: Vec<usize> = records(bytes).into_iter().filter(|&at| bytes[at + 12] == BATCH).collect();
        let places = [batches.first(), batches.get(batches.len() / 2), batches.last()];
        for (place, &at) in ["the first", "a middle one", "the last"].iter().zip(places.into_iter().flatten())
        {
            let u32_at =
                |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).expect("four bytes");
            let count = u32_at(at + 40);
            for count in [0, count + 1, count.wrapping_sub(1), u32::MAX] {
                add(&format!("{place}: {count} operations"), &|bytes| {
                    put(bytes, at + 40, &count.to_le_bytes())
                });
            }
            for seq in [0, 1, u64::MAX, u64::MAX - 2, (1 << 62) - 1, 1 << 61] {
                add(&format!("{place}: sequence {seq}"), &|bytes| put(bytes, at + 24, &seq.to_le_bytes()));
            }
            for mark in [u64::MAX, Lsn::new(90, 0).0] {
                add(&format!("{place}: durable to {mark}"), &|bytes| {
                    put(bytes, at + 32, &mark.to_le_bytes())
                });
            }
            let payload = at + RECORD_HEADER;
            for (byte, what) in ["kind", "keyspace", "options", "length of the key", "key"].iter().enumerate()
            {
                for value in [0, 1, 3, 0xff] {
                    add(&format!("{place}: {what} {value}"), &|bytes| bytes[payload + byte] = value);
                }
            }
            // The end of a key: the next byte starts its sort key, or ends the key.
            let key = payload + 4;
            let end = bytes[key..].iter().position(|&byte| byte == 0).map_or(key, |zero| key + zero);
            for value in [1, 0x20, 0xff] {
                add(&format!("{place}: a key without end {value}"), &|bytes| bytes[end] = value);
                add(&format!("{place}: a key that ends with {value}"), &|bytes| bytes[end + 1] = value);
            }
        }
    }
}

fn tables(base: &Files, cases: &mut Vec<(String, Files)>) {
    let vfs = on_disk(dir(), base);
    let state = Manifest::load(&vfs, dir()).expect("it was written").state;
    for (n, (name, bytes)) in base.iter().enumerate() {
        let FileName::Sst { id, .. } = paths::parse(name) else { continue };
        let Some(listed) = state.ssts.get(&id) else { continue };
        // Changes one byte in 37; the manifest gets the checksum of the result.
        for at in (128..bytes.len()).step_by(37) {
            for value in [bytes[at] ^ 1, bytes[at] ^ 0x80] {
                let mut files = base.clone();
                files[n].1[at] = value;
                let made = seal::sst(&mut files[n].1, 0);
                let meta = SstMeta { checksum: made.checksum, ..SstMeta::clone(listed) };
                let mut changes = vec![Change::RemoveSst(id)];
                changes.extend(Change::adding(&Arc::new(meta)));
                let forged = with_changes(&files, changes);
                cases.extend(forged.map(|files| (format!("{name}: byte {at} is {value}"), files)));
            }
        }
    }
}
