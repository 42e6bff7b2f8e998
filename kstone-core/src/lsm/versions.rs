//! VERSIONS: every version of a key, and of all keys, including those that reads no longer see.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::LsmEngine;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::gaps::above;
use crate::key::{Key, KeyRange, stripe_of};
use crate::merge::MergeCursor;
use crate::paths;
use crate::sst::ahead_of_each;
use crate::types::{Direction, EntryKind, EntryRef, SeqNo, SstMeta};

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyVersion {
    /// The name of the SST, or of the oldest log segment that the memtable's records come from.
    pub file: String,
    /// Whether it is in a memtable, and so only in the log.
    pub in_log: bool,
    /// The sequence of the write.
    pub seq: SeqNo,
    /// Put or tombstone.
    pub kind: EntryKind,
    /// Bytes of the value.
    pub value_bytes: usize,
}

/// The versions of a key.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct KeyVersions {
    /// The stripe of the key.
    pub stripe: usize,
    /// The versions, the newest first.
    pub versions: Vec<KeyVersion>,
    /// Number of SSTs whose key range includes the key.
    pub searched: usize,
    /// Why an SST could not be searched.
    pub errors: Vec<Error>,
}

impl LsmEngine {
    /// The SSTs of the database, by stripe, those of newer runs first.
    pub fn ssts(&self) -> Result<Vec<Arc<SstMeta>>> {
        self.shared.life.check_open()?;
        let versions = self.shared.stripes.used().map(|stripe| Arc::clone(&stripe.version()));
        Ok(versions
            .flat_map(|v| v.tables().map(|table| Arc::clone(table.meta())).collect::<Vec<_>>())
            .collect())
    }

    /// Every version of a key in memtables and SSTs. Damage to an SST is in the result, and the others are searched
    /// all the same.
    pub fn versions_of(&self, key: &Key<'_>) -> Result<KeyVersions> {
        self.shared.life.check_open()?;
        let encoded = key.encode(self.config().max_key_bytes)?;
        let stripe = stripe_of(encoded.partition_hash, self.stripe_count());
        let mut found = KeyVersions { stripe, ..KeyVersions::default() };
        let Some(used) = self.shared.stripes.if_used(stripe) else { return Ok(found) };
        let seq = self.shared.commits.visible();
        let version = Arc::clone(&used.version());
        let range = KeyRange { start: encoded.bytes.to_vec(), end: Some(above(&encoded.bytes)) };
        for memtable in version.memtables() {
            let log = memtable.first_lsn().map(|lsn| paths::log(self.path(), lsn.generation()));
            let file = log.as_deref().and_then(|path| path.file_name()).unwrap_or_default();
            let file = file.to_string_lossy();
            let mut cursor = memtable.cursor(&range, seq, Direction::Forward);
            collect(&mut cursor, &file, true, &mut found.versions)?;
        }
        for table in version.tables() {
            let (first, last) = &table.meta().keys;
            if !(first.as_slice()..=last.as_slice()).contains(&&*encoded.bytes) {
                continue;
            }
            found.searched += 1;
            let file = table.path().file_name().unwrap_or_default().to_string_lossy();
            let read = table.iter(&range, Direction::Forward);
            let read = read.and_then(|mut cursor| collect(&mut cursor, &file, false, &mut found.versions));
            found.errors.extend(read.err());
        }
        found.versions.sort_by_key(|version| std::cmp::Reverse(version.seq));
        Ok(found)
    }

    /// Passes every version of every key to `each`, stripe by stripe: within a stripe in order of keys, the newest
    /// version of each first. Reads every SST.
    pub fn for_each_version(&self, each: &mut dyn FnMut(EntryRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let seq = self.shared.commits.visible();
        let all = Arc::new(KeyRange::all());
        for stripe in self.shared.stripes.used() {
            self.shared.life.check_open()?;
            let version = Arc::clone(&stripe.version());
            let most_ahead = ahead_of_each(version.runs.len());
            let sources = version.cursors(&all, seq, Direction::Forward, most_ahead)?;
            let mut merged = MergeCursor::new(sources, Direction::Forward);
            while let Some(entry) = merged.entry() {
                if each(entry).is_break() {
                    return Ok(());
                }
                merged.advance()?;
            }
        }
        Ok(())
    }
}

fn collect(cursor: &mut dyn Cursor, file: &str, in_log: bool, found: &mut Vec<KeyVersion>) -> Result<()> {
    while let Some(head) = cursor.head() {
        let (seq, kind, value_bytes) = (head.seq, head.kind, head.value_len);
        found.push(KeyVersion { file: file.to_owned(), in_log, seq, kind, value_bytes });
        cursor.advance()?;
    }
    Ok(())
}
