//! Reads a damaged log: every record whose checksums match, in order, complete.
//!
//! Where `validate` fails, salvaging continues after the damage and reports what it had to leave out. Nothing is
//! written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{LogOwner, LogRules, RecordRef, Segment, SegmentReader, buffer_in, read_buffer, read_head};
use crate::error::{Error, Result};
use crate::paths::{self, FileName};
use crate::types::{Lsn, MAX_NUMBER, SeqNo};
use crate::vfs::Vfs;
use crate::wal::format::{ALIGN, BATCH, RECORDS_START, RecordHeader};

/// A part of the log that cannot be read, and the range of sequences it must have held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogGap {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The last sequence that was read before it; 0 if there is none.
    pub(crate) after: SeqNo,
    /// The next sequence after it; `None` if unknown.
    pub(crate) before: Option<SeqNo>,
    pub(crate) why: String,
}

impl LogGap {
    /// The maximum number of operations it held, if known.
    pub(crate) fn operations(&self) -> Option<u64> {
        Some(self.before?.saturating_sub(self.after).saturating_sub(1))
    }
}

/// The result of a salvage.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSalvage {
    /// Segments of this copy of the database, whether or not anything in them is needed.
    pub(crate) files: Vec<PathBuf>,
    /// The log buffer.
    pub(crate) buffer: Option<PathBuf>,
    /// Files named like a segment that are not part of this log.
    pub(crate) foreign: Vec<PathBuf>,
    /// The foreign files again, with the numbers in their names.
    displaced: Vec<(u32, PathBuf)>,
    pub(crate) gaps: Vec<LogGap>,
    pub(crate) records: u64,
    /// The first sequence that was read; 0 if there is none.
    pub(crate) first_seq: SeqNo,
    pub(crate) last_seq: SeqNo,
    /// The generations of all segments, from their headers and from their names.
    pub(crate) generations: Vec<u32>,
    /// The highest manifest edit number in any header.
    pub(crate) last_edit: u64,
}

/// Damage not yet judged: only what follows shows whether anything was lost.
struct UnjudgedDamage {
    file: PathBuf,
    at: Lsn,
    len: u64,
    why: &'static str,
    /// Whether something was lost for certain, whatever follows.
    certain: bool,
}

/// Passes all readable batches of the live log to `apply`, or those of the whole directory if `rules` is the default.
/// Only a read error or a newer format is an error.
pub(crate) fn salvage(
    vfs: &dyn Vfs,
    dir: &Path,
    owner: LogOwner,
    rules: &LogRules,
    mut apply: impl FnMut(RecordRef<'_>) -> Result<()>,
) -> Result<LogSalvage> {
    let mut found = LogSalvage::default();
    let segments = segments(vfs, dir, owner, &mut found)?;
    let mut walk = Salvager { rules, pending: None, reached: rules.log_start, known: rules.durable, found };
    walk.known = walk.known.max(rules.clean_end.unwrap_or_default());
    walk.known = rules.cuts.iter().map(super::LogCut::position).fold(walk.known, Lsn::max);
    let generations: BTreeSet<u32> = segments.iter().map(Segment::generation).collect();
    for (segment, linked) in segments.iter().zip(linked(&segments)) {
        if rules.is_dead(segment.generation())
            || rules.clean_end.is_some_and(|end| end.generation() < segment.generation())
        {
            continue;
        }
        walk.missing_before(dir, segment, &generations);
        walk.segment(vfs, segment, linked, &mut apply)?;
    }
    let mut found = walk.finish(dir);
    // A foreign file may have taken the name of one of our segments. Only a clean end rules out that the segment held
    // records.
    let displaced = std::mem::take(&mut found.displaced);
    let next = segments.last().map_or(1, |last| last.generation().saturating_add(1));
    let own = |named| named > next || generations.contains(&named);
    for (_, file) in displaced.into_iter().filter(|(named, _)| !own(*named) && !rules.is_dead(*named)) {
        if rules.clean_end.is_none() && found.gaps.iter().all(|gap| gap.file != file) {
            let why = "a foreign file has the name of the segment".to_owned();
            found.gaps.push(LogGap { file, offset: 0, len: 0, after: found.last_seq, before: None, why });
        }
    }
    Ok(found)
}

/// For each segment, its end according to the links of later segments.
fn linked(segments: &[Segment]) -> Vec<Option<u32>> {
    let mut said = BTreeMap::<u32, u32>::new();
    let mut ends: Vec<_> = (segments.iter().rev())
        .map(|segment| {
            let end = said.get(&segment.generation()).copied();
            if let Some(link) = segment.link {
                let least = said.entry(link.generation()).or_insert(link.offset());
                *least = (*least).min(link.offset());
            }
            end
        })
        .collect();
    ends.reverse();
    ends
}

/// Finds the segments, in order of their generations, one for each.
fn segments(vfs: &dyn Vfs, dir: &Path, owner: LogOwner, found: &mut LogSalvage) -> Result<Vec<Segment>> {
    let mut segments = Vec::<Segment>::new();
    let listing = vfs.list(dir).map_err(Error::io("list", dir))?;
    let buffer = read_buffer(vfs, dir, &listing)?;
    found.buffer = buffer_in(&listing).map(|entry| dir.join(&entry.name));
    for entry in listing {
        let FileName::Log(named) = paths::parse(&entry.name) else { continue };
        let path = dir.join(&entry.name);
        if !entry.is_file {
            found.displaced.push((named, path.clone()));
            found.foreign.push(path);
            continue;
        }
        let segment = read_head(vfs, path, named, &buffer)?;
        if segment.header.as_ref().is_some_and(|header| owner.disowns(header).is_some()) {
            found.displaced.push((named, segment.path.clone()));
            found.foreign.push(segment.path);
            continue;
        }
        found.generations.extend([segment.generation(), named]);
        let edit = segment.header.as_ref().map_or(0, |header| header.last_edit);
        found.last_edit = found.last_edit.max(if edit > MAX_NUMBER { 0 } else { edit });
        segments.push(segment);
    }
    // Of two files with the same generation, the one with the matching name comes first.
    segments.sort_by_key(|s| (s.generation(), s.generation() != s.named));
    segments.dedup_by(|later, first| {
        let same = later.header.is_some() && later.generation() == first.generation();
        if same {
            found.displaced.push((later.named, later.path.clone()));
            found.foreign.push(later.path.clone());
        }
        same
    });
    found.files = segments.iter().map(|segment| segment.path.clone()).collect();
    Ok(segments)
}

/// Whether a batch has operations, and sequences in the range that a database can reach.
fn has_numbers(header: &RecordHeader) -> bool {
    let last = header.count.checked_sub(1).and_then(|more| header.first_seq.checked_add(more.into()));
    header.first_seq > 0 && last.is_some_and(|last| last <= MAX_NUMBER)
}

struct Salvager<'a> {
    rules: &'a LogRules,
    pending: Option<UnjudgedDamage>,
    /// The end of the last record that was read.
    reached: Lsn,
    /// The log is known to have been durable up to here.
    known: Lsn,
    found: LogSalvage,
}

impl Salvager<'_> {
    /// Notes damage if the segment that this one continues is missing.
    fn missing_before(&mut self, dir: &Path, segment: &Segment, all: &BTreeSet<u32>) {
        let Some(before) = segment.link.filter(|link| link.generation() >= self.rules.log_start.generation())
        else {
            return;
        };
        let absent = before.offset() > RECORDS_START
            && !self.rules.is_dead(before.generation())
            && !all.contains(&before.generation());
        if absent {
            let file = paths::log(dir, before.generation());
            self.judge(None);
            let at = Lsn::new(before.generation(), 0);
            self.pending = Some(UnjudgedDamage {
                file,
                at,
                len: before.offset().into(),
                why: "the segment is missing",
                certain: false,
            });
        }
    }

    fn segment(
        &mut self,
        vfs: &dyn Vfs,
        segment: &Segment,
        linked: Option<u32>,
        apply: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let generation = segment.generation();
        let Some(header) = &segment.header else {
            let mut reader = SegmentReader::open(vfs, &segment.path, None, segment.named, 0)?;
            // The link of a later segment proves that this one held records, even if none is left.
            let needed = linked.is_some_and(|end| Lsn::new(generation, end) > self.rules.log_start);
            if needed || reader.next_candidate(RECORDS_START)?.is_some() {
                let why =
                    "both copies of the segment's header are damaged, so none of its records can be read";
                let at = Lsn::new(generation, RECORDS_START);
                self.known = self.known.max(Lsn::new(generation, RECORDS_START + 1));
                let len = reader.len().saturating_sub(RECORDS_START.into());
                self.note_bad(&segment.path, at, len, why, false);
            }
            return Ok(());
        };
        let mut reader =
            SegmentReader::open(vfs, &segment.path, segment.tail.as_ref(), generation, header.salt)?;
        let start = self.rules.log_start;
        let mut offset = RECORDS_START;
        if generation == start.generation() {
            offset = offset.max(start.offset());
        }
        let clean = self.rules.clean_end.filter(|end| end.generation() == generation).map(Lsn::offset);
        let stop = [self.rules.cut_in(generation), linked, clean].into_iter().flatten().min();
        while stop.is_none_or(|stop| offset < stop) {
            let at = Lsn::new(generation, offset);
            if let Some(record) = reader.record(offset)? {
                let (header, end) = (record.header, record.end);
                self.known = self.known.max(header.watermark);
                if header.kind == BATCH && !has_numbers(&header) {
                    let why = "the record's checksum matches, but its sequences are invalid";
                    self.note_bad(&segment.path, at, u64::from(end - offset), why, true);
                    (self.reached, offset) = (Lsn::new(generation, end), end);
                    continue;
                }
                // A lower sequence says nothing about what came before it.
                if header.first_seq > self.found.last_seq {
                    self.judge(Some(header.first_seq));
                }
                let last = header.first_seq.saturating_add(header.count.into()).saturating_sub(1);
                // A lower sequence belongs to a write that was refused and undone.
                if header.kind == BATCH && header.first_seq > self.found.last_seq {
                    let (lsn, first_seq, count) = (header.lsn, header.first_seq, header.count);
                    apply(RecordRef { lsn, first_seq, count, payload: record.payload, time: header.time })?;
                    if self.found.records == 0 {
                        self.found.first_seq = first_seq;
                    }
                    (self.found.last_seq, self.found.records) = (last, self.found.records + 1);
                }
                self.reached = Lsn::new(generation, end);
                offset = end;
                continue;
            }
            let header = reader.header(offset)?;
            self.known = self.known.max(header.map_or(Lsn::ZERO, |header| header.watermark));
            let next = match header {
                Some(header) => u32::try_from(u64::from(offset) + header.record_len()).ok(),
                None => reader.next_candidate(offset.saturating_add(ALIGN))?,
            };
            let next =
                next.filter(|&next| u64::from(next) < reader.len() && stop.is_none_or(|stop| next < stop));
            let end = next.map_or(stop.map_or(reader.len(), u64::from), u64::from);
            let len = end.saturating_sub(offset.into());
            self.note_bad(&segment.path, at, len, "no record can be read here", false);
            let Some(next) = next else { break };
            offset = next;
        }
        if let Some(linked) = linked {
            self.known = self.known.max(Lsn::new(generation, linked));
        }
        Ok(())
    }

    fn note_bad(&mut self, file: &Path, at: Lsn, len: u64, why: &'static str, certain: bool) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.file == file) {
            let end = u64::from(at.offset()).saturating_add(len);
            pending.len = end.saturating_sub(pending.at.offset().into());
            pending.certain |= certain;
            return;
        }
        self.judge(None);
        self.pending = Some(UnjudgedDamage { file: file.to_path_buf(), at, len, why, certain });
    }

    /// The last sequence that cannot have been at `at`: one read before it, or one that a cut before it left out.
    fn sequence_before(&self, at: Lsn) -> SeqNo {
        let cuts = self.rules.cuts.iter().filter(|cut| cut.next_generation <= at.generation());
        cuts.map(|cut| cut.seq).fold(self.found.last_seq, SeqNo::max)
    }

    /// Decides whether the pending damage lost anything, given `next`, the sequence that follows it. If that is
    /// unknown, the position alone decides.
    fn judge(&mut self, next: Option<SeqNo>) {
        let Some(UnjudgedDamage { file, at, len, why, certain }) = self.pending.take() else { return };
        let after = self.sequence_before(at);
        let nothing = next.map_or(at >= self.known && !certain, |next| next <= after.saturating_add(1));
        if !nothing {
            let offset = at.offset().into();
            self.found.gaps.push(LogGap { file, offset, len, after, before: next, why: why.into() });
        }
    }

    fn finish(mut self, dir: &Path) -> LogSalvage {
        self.judge(None);
        let covered = self.found.gaps.last().is_some_and(|gap| gap.before.is_none());
        if self.reached < self.known && !covered {
            let (reached, known) = (self.reached, self.known);
            self.found.gaps.push(LogGap {
                file: paths::log(dir, reached.generation().max(1)),
                offset: reached.offset().into(),
                len: 0,
                after: self.sequence_before(reached),
                before: None,
                why: format!("the log ends at {reached}, but was durable up to {known}"),
            });
        }
        self.found
    }
}
