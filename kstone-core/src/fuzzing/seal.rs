//! Corrects the checksums of a file, whatever else is in it, so that inputs reach the code behind them.

use std::sync::Arc;

use crate::checksum::crc32c_seeded;
use crate::coding::Reader;
use crate::file_header::{HEADER_LEN, Id};
use crate::sst_block::checksum_at;
use crate::types::{Lsn, SstDetails, SstMeta};
use crate::wal::LogOwner;
use crate::wal::format::{ALIGN, RECORD_HEADER, RECORDS_START, record_len};

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    Reader::new(bytes.get(at..).unwrap_or_default()).u32().unwrap_or_default()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    Reader::new(bytes.get(at..).unwrap_or_default()).u64().unwrap_or_default()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

/// Writes the file header at `at`: magic, kind, version and checksum; with `plain`, also clears the features.
fn header(bytes: &mut [u8], at: usize, kind: u8, plain: bool) {
    let Some(header) = bytes.get_mut(at..at + HEADER_LEN) else { return };
    header[..12].copy_from_slice(&[b'K', b'S', b'T', b'O', b'N', b'E', b'D', b'B', kind, 1, 1, 0]);
    if plain {
        header[12..24].fill(0);
    }
    let crc = crc32c_seeded(0, &[&header[..HEADER_LEN - 4]]);
    header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// Seals a log segment: both headers, and every record from the first on. A record whose number is in `open` is left
/// alone. A payload that extends past the end of the file is shortened.
pub(super) fn segment(bytes: &mut [u8], owner: Option<LogOwner>, open: impl Fn(usize) -> bool) {
    if let Some(owner) = owner {
        put(bytes, 24, &owner.database_id);
        put(bytes, 40, &owner.incarnation);
    }
    header(bytes, 0, 2, true);
    if bytes.len() >= RECORDS_START as usize {
        bytes.copy_within(..HEADER_LEN, 512);
    }
    let (generation, salt) = (u32_at(bytes, 64), u64_at(bytes, 68));
    let mut at = RECORDS_START as usize;
    for n in 0.. {
        if at + RECORD_HEADER > bytes.len() || bytes[at..at + RECORD_HEADER].iter().all(|&byte| byte == 0) {
            break;
        }
        let room = (bytes.len() - at - RECORD_HEADER) / ALIGN as usize * ALIGN as usize;
        let payload = (u32_at(bytes, at + 8) as usize).min(room);
        let end = at + record_len(payload) as usize;
        if !open(n) {
            let lsn = Lsn::new(generation, at as u32);
            put(bytes, at + 8, &(payload as u32).to_le_bytes());
            put(bytes, at + 16, &lsn.0.to_le_bytes());
            let crc = crc32c_seeded(salt ^ lsn.0, &[&bytes[at + RECORD_HEADER..end]]);
            put(bytes, at + 4, &crc.to_le_bytes());
            let crc = crc32c_seeded(salt, &[&bytes[at + 4..at + RECORD_HEADER]]);
            put(bytes, at, &crc.to_le_bytes());
        }
        at = end;
    }
}

/// Seals a manifest: the header, and every frame from the first on, numbered consecutively from the header's number. A
/// body that extends past the end of the file is shortened.
pub(super) fn manifest(bytes: &mut [u8], open: impl Fn(usize) -> bool) {
    header(bytes, 0, 1, true);
    let id: Id = bytes.get(24..40).and_then(|id| id.try_into().ok()).unwrap_or_default();
    let first = u64_at(bytes, 64);
    let mut at = HEADER_LEN;
    for n in 0.. {
        if at + 16 > bytes.len() {
            break;
        }
        let body = (u32_at(bytes, at + 4) as usize).min(bytes.len() - at - 16);
        if !open(n) {
            let number = first.wrapping_add(n as u64);
            put(bytes, at + 4, &(body as u32).to_le_bytes());
            put(bytes, at + 8, &number.to_le_bytes());
            let crc = crc32c_seeded(number, &[&id, &bytes[at + 4..at + 16 + body]]);
            put(bytes, at, &crc.to_le_bytes());
        }
        at += 16 + body;
    }
}

/// Seals an SST: blocks, sections, directory, footer and header; returns its entry for a manifest. `open` selects the
/// checksums to leave alone: bit 0 blocks, 1 sections, 2 directory, 3 footer, 4 header.
pub(super) fn sst(bytes: &mut [u8], open: u8) -> SstMeta {
    let len = bytes.len();
    let footer = len.saturating_sub(64);
    let id = u64_at(bytes, 64);
    let at = (u64_at(bytes, footer) as usize).min(footer);
    let directory_len = (footer - at) as u32;
    let sections: Vec<(usize, usize, usize)> = (0..(footer - at) / 28)
        .map(|n| at + 28 * n)
        .map(|entry| (entry, u64_at(bytes, entry + 4) as usize, u64_at(bytes, entry + 12) as usize))
        .filter_map(|(entry, start, len)| {
            Some((entry, start, start.checked_add(len).filter(|&end| end <= at)?))
        })
        .collect();
    let section = |bytes: &[u8], kind: u8| {
        let found = sections.iter().find(|(entry, ..)| bytes[*entry] == kind && bytes[*entry + 1] == 0);
        found.map(|&(_, start, end)| start..end).unwrap_or_default()
    };
    if open & 1 == 0 {
        let fences = bytes[section(bytes, 2)].to_vec();
        blocks(bytes, &fences, id);
    }
    if open & 2 == 0 {
        for &(entry, start, end) in &sections {
            let crc = checksum_at(id, start as u64, &bytes[start..end]);
            put(bytes, entry + 20, &crc.to_le_bytes());
        }
    }
    if open & 4 == 0 {
        let crc = checksum_at(id, at as u64, &bytes[at..footer]);
        put(bytes, footer + 12, &crc.to_le_bytes());
    }
    if open & 8 == 0 {
        put(bytes, footer, &(at as u64).to_le_bytes());
        put(bytes, footer + 8, &directory_len.to_le_bytes());
        put(bytes, footer + 16, &id.to_le_bytes());
        put(bytes, footer + 24, &(len as u64).to_le_bytes());
        put(bytes, footer + 52, b"KSTONSST");
        let crc = checksum_at(id, footer as u64, &bytes[footer..footer.saturating_add(60).min(len)]);
        put(bytes, footer + 60, &crc.to_le_bytes());
    }
    if open & 16 == 0 {
        header(bytes, 0, 3, true);
    }
    let properties = bytes[section(bytes, 4)].to_vec();
    let mut meta = described(&properties);
    meta.id = id;
    meta.keyspace = u32_at(bytes, 80);
    meta.stripe = u32_at(bytes, 84) as u16;
    meta.origin = bytes.get(24..40).and_then(|id| id.try_into().ok()).unwrap_or_default();
    (meta.len, meta.directory) = (len as u64, (at as u64, directory_len));
    meta.checksum = crc32c::crc32c(bytes);
    meta
}

/// Seals every block that the fences list.
fn blocks(bytes: &mut [u8], fences: &[u8], id: u64) {
    let count = (u32_at(fences, 0) as usize).min(fences.len() / 20);
    let offset = |n: usize| u64_at(fences, 8 + 8 * (count + n)) as usize;
    for n in 0..count {
        let (start, end) = (offset(n), offset(n + 1));
        if start < end && end - start > 4 && end <= bytes.len() {
            let crc = checksum_at(id, start as u64, &bytes[start..end - 4]);
            put(bytes, end - 4, &crc.to_le_bytes());
        }
    }
}

/// The metadata in a file's properties.
fn described(properties: &[u8]) -> SstMeta {
    let mut meta = SstMeta {
        id: 0,
        stripe: 0,
        keyspace: 0,
        run: 0,
        part: 0,
        parts: 1,
        depth: 0,
        run_seq: (0, u64::MAX),
        seq: (0, 0),
        keys: (Vec::new(), Vec::new()),
        entries: 0,
        tombstones: 0,
        raw_bytes: 0,
        len: 0,
        directory: (0, 0),
        checksum: 0,
        oldest_tombstone_ms: 0,
        created_ms: 0,
        origin: [0; 16],
        details: None,
    };
    let (mut reader, mut details) = (Reader::new(properties), SstDetails::default());
    let mut next = || {
        let (tag, _flags, len) = (reader.u16()?, reader.u16()?, reader.u32()?);
        Some((tag, reader.bytes(len as usize)?))
    };
    while let Some((tag, value)) = next() {
        match tag {
            1 => meta.entries = u64_at(value, 0),
            2 => meta.tombstones = u64_at(value, 0),
            3 => meta.raw_bytes = u64_at(value, 0),
            4 => meta.seq = (u64_at(value, 0), u64_at(value, 8)),
            5 => meta.keys.0 = value.to_vec(),
            6 => meta.keys.1 = value.to_vec(),
            7 => meta.oldest_tombstone_ms = u64_at(value, 0),
            10 => {
                (details.bits_per_key, details.block_size) = (u32_at(value, 0), u32_at(value, 4));
                details.codec = value.get(8).copied().unwrap_or_default();
            }
            11 => {
                details.keys = u64_at(value, 0);
                let sample = value.get(8..).unwrap_or_default().chunks_exact(4);
                details.sample = sample.map(|hash| u32_at(hash, 0)).collect();
                meta.details = Some(Arc::new(details.clone()));
            }
            _ => {}
        }
    }
    meta
}
