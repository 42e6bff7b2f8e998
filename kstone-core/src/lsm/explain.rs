//! EXPLAIN: what one get or one query does, step by step, and what each step costs.
//!
//! The steps are those of the read itself: the same code runs, with a [`Recorder`] as its trace. An error that the read
//! would return becomes the last step of the explanation instead of an error of its own.

use std::sync::Arc;

use serde::Serialize;

use super::state::Shared;
use super::{LsmEngine, Snapshot};
use crate::bloom;
use crate::error::Result;
use crate::escape;
use crate::key::{EncodedKey, Key, stripe_of};
use crate::model::INDEX_FALSE_MATCHES;
use crate::paths;
use crate::slice::Found;
use crate::sst::{Table, Trace};
use crate::types::{EntryKind, SeqNo, SstMeta};
use crate::version::{ReadTrace, Run, Version};

mod display;
mod query;

pub use query::{ExplainQuery, SourceStep};

/// What a get did. `Display` renders it for people, serde for programs; both escape keys as ASCII.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explain {
    /// The partition key, and the sort key if there is one.
    pub key: String,
    /// See [`Explain::key`].
    pub sort: Option<String>,
    /// The bytes of partition key and sort key.
    pub key_bytes: usize,
    /// The stripe. The top bits of the hash of the partition key choose it.
    pub stripe: usize,
    /// The hash of the partition key.
    pub partition_hash: u64,
    /// The number of bits of the hash that choose the stripe.
    pub stripe_bits: u32,
    /// The newest visible write.
    pub seq: SeqNo,
    /// The memtables searched, newest first.
    pub memtables: Vec<MemtableStep>,
    /// All runs, newest first, including those that need not be searched.
    pub runs: Vec<RunStep>,
    /// The write that decided the result, of a value or a tombstone. `None`: there is none, or it could not be read.
    pub found_seq: Option<SeqNo>,
    /// The length of the value in bytes; `None` when there is no value.
    pub value_bytes: Option<usize>,
    /// Whether the newest version is a tombstone.
    pub deleted: bool,
    /// The error the get failed with.
    pub error: Option<String>,
    /// Filters tested.
    pub filter_tests: usize,
    /// Filters that passed the key although it is not in the file.
    pub false_positives: usize,
    /// Blocks read, how many of them held no version of the key, and their size in bytes as stored.
    pub block_reads: usize,
    /// See [`Explain::block_reads`].
    pub wasted_block_reads: usize,
    /// See [`Explain::block_reads`].
    pub block_bytes: u64,
    /// Versions of the key in runs that the get did not need to search.
    pub older_versions: Vec<OlderVersion>,
    /// The cost of a get of a missing key in this stripe, estimated from the bits of its filters.
    pub missing: Expected,
    /// The same, once the stripe is a single run.
    pub missing_when_compacted: Expected,
}

/// A memtable that was searched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemtableStep {
    /// Whether it is sealed and waits to be flushed.
    pub sealed: bool,
    /// Records in it.
    pub records: usize,
    /// The oldest log file that its records come from.
    pub log: Option<String>,
    /// Whether it holds a version of the key.
    pub found: bool,
}

/// A run, and the part of it that concerns the key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunStep {
    /// The file that was searched, or would be searched first; empty when the key lies between two of the run's files.
    pub file: String,
    /// How many files the run has.
    pub parts: usize,
    /// How many merges deep the run is.
    pub depth: u32,
    /// How long ago it was written, in milliseconds.
    pub age_ms: u64,
    /// The first and last key of the file, escaped.
    pub keys: (String, String),
    /// Whether the key is between them.
    pub in_range: bool,
    /// Bits per key of the file's filter, if it was tested.
    pub filter_bits: Option<f64>,
    /// The blocks read.
    pub blocks: Vec<BlockRead>,
    /// The outcome.
    pub verdict: Verdict,
}

/// A block that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BlockRead {
    /// Its number within the file.
    pub block: usize,
    /// The first group of entries in it that the index pointed to.
    pub group: usize,
    /// Its offset in the file, in bytes.
    pub offset: u64,
    /// Its length as stored, in bytes.
    pub bytes: u64,
}

/// The outcome of searching a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Not searched: a newer version had been found.
    NotOpened,
    /// The key lies between two files of the run.
    BetweenFiles,
    /// The filter ruled the key out.
    FilterNo,
    /// The filter passed the key, but the index ruled it out: no block was read.
    IndexNo,
    /// A block was read in vain: the key is not in it.
    FalsePositive,
    /// The run holds only versions newer than the snapshot.
    OnlyNewer,
    /// The run holds the visible version of the key.
    Found {
        /// The sequence of the write.
        seq: SeqNo,
    },
    /// The get ended here, with an error.
    Failed {
        /// The message of the error.
        error: String,
    },
}

/// A version of the key that is shadowed by a newer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OlderVersion {
    /// The file it is in.
    pub file: String,
    /// The sequence of the write.
    pub seq: SeqNo,
    /// Whether it is a tombstone.
    pub deleted: bool,
}

/// The expected cost of a get that finds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Expected {
    /// Filters tested.
    pub filter_tests: f64,
    /// How many of them pass the key.
    pub false_positives: f64,
    /// Blocks read in vain: the index catches most keys that the filters wrongly pass.
    pub block_reads: f64,
}

impl Expected {
    fn add_filter(&mut self, bits_per_key: f64) {
        let passes = bloom::expected_false_positives(bits_per_key.round() as u32);
        self.filter_tests += 1.0;
        self.false_positives += passes;
        self.block_reads += passes * INDEX_FALSE_MATCHES;
    }
}

/// Records the steps of a get.
#[derive(Debug, Default)]
struct Recorder {
    version: Option<Arc<Version>>,
    seq: SeqNo,
    memtables: Vec<bool>,
    runs: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    part: Option<Arc<Table>>,
    filter: Option<bool>,
    groups: Vec<(usize, usize)>,
}

impl Trace for Recorder {
    fn filter(&mut self, passed: bool) {
        if let Some(asked) = self.runs.last_mut() {
            asked.filter = Some(passed);
        }
    }

    fn group(&mut self, block: usize, group: usize) {
        if let Some(asked) = self.runs.last_mut() {
            asked.groups.push((block, group));
        }
    }
}

impl ReadTrace for Recorder {
    fn begin(&mut self, version: &Arc<Version>, seq: SeqNo) {
        (self.version, self.seq) = (Some(Arc::clone(version)), seq);
    }

    fn memtable(&mut self, found: bool) {
        self.memtables.push(found);
    }

    fn run(&mut self, part: Option<&Arc<Table>>) {
        self.runs.push(Asked { part: part.cloned(), filter: None, groups: Vec::new() });
    }
}

impl LsmEngine {
    /// Explains, step by step, what [`LsmEngine::get`] of the key does now. It reads what the get reads and, in the
    /// runs that the get skips, looks up older versions of the key.
    ///
    /// # Errors
    /// `InvalidKey`, `KeyTooLarge`, `Closed`. An error of the get itself is in [`Explain::error`].
    pub fn explain_get(&self, key: &Key<'_>) -> Result<Explain> {
        self.shared.explain_get(key, None)
    }

    /// The same for [`LsmEngine::get_at`].
    pub fn explain_get_at(&self, key: &Key<'_>, snapshot: &Snapshot) -> Result<Explain> {
        self.shared.explain_get(key, Some(snapshot.seq()))
    }
}

impl Shared {
    fn explain_get(&self, key: &Key<'_>, at: Option<SeqNo>) -> Result<Explain> {
        self.life.check_open()?;
        let encoded = key.encode(self.settings.load().database.max_key_bytes)?;
        let mut recorder = Recorder::default();
        let result = self.look_up(&encoded, at, &mut recorder);

        let mut explain = Explain {
            key: escape::key(key.partition()),
            sort: key.sort().map(escape::key),
            key_bytes: key.len(),
            stripe: stripe_of(encoded.partition_hash, self.stripes.count()),
            partition_hash: encoded.partition_hash,
            stripe_bits: self.stripes.count().trailing_zeros(),
            seq: if recorder.version.is_some() { recorder.seq } else { at.unwrap_or_default() },
            ..Explain::default()
        };
        match &result {
            Ok(Some(found)) => {
                explain.found_seq = Some(found.seq);
                explain.deleted = found.kind == EntryKind::Delete;
                explain.value_bytes = (!explain.deleted).then(|| found.value.len());
            }
            Ok(None) => {}
            Err(error) => explain.error = Some(error.to_string()),
        }
        let bits = self.settings.load().database.bloom_bits_per_key as f64;
        explain.missing_when_compacted.add_filter(bits);
        if let Some(version) = recorder.version.take() {
            self.explain_memtables(&mut explain, &version, &recorder);
            self.explain_runs(&mut explain, &version, &recorder, &encoded, &result);
        }
        explain.add_up();
        Ok(explain)
    }

    fn explain_memtables(&self, explain: &mut Explain, version: &Version, recorder: &Recorder) {
        for (n, (memtable, &found)) in version.memtables().zip(&recorder.memtables).enumerate() {
            explain.memtables.push(MemtableStep {
                sealed: n > 0,
                records: memtable.len(),
                log: memtable.first_lsn().map(|lsn| name(&paths::log(self.io.dir(), lsn.generation()))),
                found,
            });
        }
    }

    fn explain_runs(
        &self,
        explain: &mut Explain,
        version: &Version,
        recorder: &Recorder,
        key: &EncodedKey,
        result: &Result<Option<Found>>,
    ) {
        for (n, run) in version.runs.iter().enumerate() {
            let asked = recorder.runs.get(n);
            // The part that was searched, or else the part that could hold the key.
            let likely =
                || run.parts.iter().find(|part| part.meta().keys.1.as_slice() >= key.bytes.as_slice());
            let part = asked.map_or_else(|| likely().or(run.parts.last()), |asked| asked.part.as_ref());
            let mut step = self.run_step(run, part, key);
            // The explanation omits what it cannot read; an error that a get would return is in `result`.
            if let Some(bits) = part.and_then(|part| part.filter_bits_per_key().ok()) {
                step.filter_bits = asked.is_some_and(|asked| asked.filter.is_some()).then_some(bits);
                explain.missing.add_filter(bits);
            }
            let Some(asked) = asked else {
                if let Ok(Some(older)) = run.get(&key.bytes, key.hash, recorder.seq, &mut ()) {
                    let deleted = older.kind == EntryKind::Delete;
                    explain.older_versions.push(OlderVersion {
                        file: step.file.clone(),
                        seq: older.seq,
                        deleted,
                    });
                }
                explain.runs.push(step);
                continue;
            };
            for &(block, group) in &asked.groups {
                let known = step.blocks.iter().any(|read| read.block == block);
                let extent = part.and_then(|part| part.block_extent(block).ok().flatten());
                if let Some((offset, bytes)) = extent.filter(|_| !known) {
                    step.blocks.push(BlockRead { block, group, offset, bytes });
                }
            }
            let last = n + 1 == recorder.runs.len();
            step.verdict = match (result, asked.filter) {
                (Err(error), _) if last => Verdict::Failed { error: error.to_string() },
                (Ok(Some(found)), _) if last && !recorder.memtables.contains(&true) => {
                    Verdict::Found { seq: found.seq }
                }
                (_, None) => Verdict::BetweenFiles,
                (_, Some(false)) => Verdict::FilterNo,
                (_, Some(true)) if asked.groups.is_empty() => Verdict::IndexNo,
                (_, Some(true)) => match run.get(&key.bytes, key.hash, SeqNo::MAX, &mut ()) {
                    Ok(Some(_)) => Verdict::OnlyNewer,
                    _ => Verdict::FalsePositive,
                },
            };
            explain.runs.push(step);
        }
    }

    fn run_step(&self, run: &Run, part: Option<&Arc<Table>>, key: &EncodedKey) -> RunStep {
        let meta: Option<&SstMeta> = part.map(|part| &**part.meta());
        let (first, last) = meta.map(|meta| (&meta.keys.0, &meta.keys.1)).unzip();
        let bytes = key.bytes.as_slice();
        RunStep {
            file: part.map(|part| name(part.path())).unwrap_or_default(),
            parts: run.parts.len(),
            depth: run.depth(),
            age_ms: meta.map_or(0, |meta| self.clock.unix_ms().saturating_sub(meta.created_ms)),
            keys: (
                first.map_or_else(String::new, |key| show(key)),
                last.map_or_else(String::new, |key| show(key)),
            ),
            in_range: first.is_some_and(|first| first.as_slice() <= bytes)
                && last.is_some_and(|last| bytes <= last.as_slice()),
            filter_bits: None,
            blocks: Vec::new(),
            verdict: Verdict::NotOpened,
        }
    }
}

impl Explain {
    fn add_up(&mut self) {
        for run in &self.runs {
            let wasted = matches!(run.verdict, Verdict::FalsePositive | Verdict::OnlyNewer);
            self.filter_tests += usize::from(run.filter_bits.is_some());
            self.false_positives +=
                usize::from(matches!(run.verdict, Verdict::IndexNo | Verdict::FalsePositive));
            self.block_reads += run.blocks.len();
            self.wasted_block_reads += if wasted { run.blocks.len() } else { 0 };
            self.block_bytes += run.blocks.iter().map(|block| block.bytes).sum::<u64>();
        }
    }
}

/// Renders an encoded key: the partition key, and the sort key after a space.
fn show(encoded: &[u8]) -> String {
    // For people: bytes that do not decode to a key are rendered as they are.
    let Some(key) = Key::decode(encoded) else { return escape::key(encoded) };
    let sort = key.sort().map(|sort| format!(" {}", escape::key(sort))).unwrap_or_default();
    format!("{}{sort}", escape::key(key.partition()))
}

/// The last component of a path.
fn name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::lsm::{EngineOptions, WriteOptions};

    #[test]
    fn an_account_is_json_with_numbers_as_numbers() {
        let engine = LsmEngine::create(Path::new("db"), EngineOptions::memory()).unwrap();
        let key = Key::with_sort(b"a\0".to_vec(), b"b".to_vec());
        engine.put(&key, b"value", WriteOptions::new()).unwrap();
        engine.flush().unwrap();
        let json = serde_json::to_value(engine.explain_get(&key).unwrap()).unwrap();
        assert_eq!((&json["key"], &json["sort"]), (&"a\\x00".into(), &"b".into()));
        assert_eq!((&json["value_bytes"], &json["filter_tests"]), (&5.into(), &1.into()));
        assert_eq!(json["runs"][0]["verdict"]["found"]["seq"], 1);
    }
}
