//! Reading the log: finding its segments and its end, and replaying its records.
//!
//! Unsynced pages reach the disk in any order. After a power cut, a hole followed by valid records is therefore a
//! torn tail if it lies past the last sync, and damage if it lies before. [`validate`] walks to the first bad record
//! and then checks every later header that is still valid: a watermark beyond the bad record proves that the record had
//! been synced. A header vouches for its watermark even if its payload is torn.
//!
//! Only [`harden`] writes anything. A read error is an error, never the end of the log. Payloads are verified through a
//! window: memory is bounded by its size, or by the largest record with matching checksums whose payload is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::coding::part;
use crate::error::{Error, Result};
use crate::file_header::Id;
use crate::parallel::{self, Threads};
use crate::paths::{self, FileName};
use crate::planted::{Bug, planted};
use crate::types::{LogCut, Lsn, MAX_BATCH_BYTES, SeqNo};
use crate::vfs::{DirEntry, OpenMode, Vfs, VfsFile, WINDOW, Window, read_full_at, write_all_at};

use super::SegmentInfo;
use super::buffer::{BufferedTail, buffer_in, open_with, read_buffer};
use super::format::{
    ALIGN, BATCH, LINK, LINK_LEN, LSN_FIELD, MAX_SEGMENT, PAD, RECORD_HEADER, RECORDS_START, RecordHeader,
    SegmentHeader, decode_link, record_len,
};

/// A log file as found in the directory.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// The number in its name, which need not be its generation.
    named: u32,
    /// `None` if both copies are zero or damaged.
    header: Option<SegmentHeader>,
    /// The end of the previous segment according to the first record; `None` if that record is not valid.
    link: Option<Lsn>,
    /// Length of the file, including preallocated space.
    len: u64,
    /// Records that the file may lack.
    tail: Option<Arc<BufferedTail>>,
}

impl Segment {
    fn generation(&self) -> u32 {
        self.header.as_ref().map_or(self.named, |header| header.generation)
    }
}

/// The manifest's knowledge of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogRules {
    /// Records before this position are retired.
    pub(crate) log_start: Lsn,
    /// Ascending, both by generation and by next generation.
    pub(crate) cuts: Vec<LogCut>,
    /// The log was durable up to here.
    pub(crate) durable: Lsn,
    /// The log was closed here, and nothing was written since.
    pub(crate) clean_end: Option<Lsn>,
    /// Number of the manifest's newest edit.
    pub(crate) last_edit: u64,
}

impl LogRules {
    /// Whether records of this generation are retired, or declared dead by a recovery.
    fn is_dead(&self, generation: u32) -> bool {
        // Next generations rise with generations, so of the cuts before this generation, the last one reaches furthest.
        let before = self.cuts.partition_point(|cut| cut.generation < generation);
        let cut = before.checked_sub(1).and_then(|last| self.cuts.get(last));
        generation < self.log_start.generation() || cut.is_some_and(|cut| generation < cut.next_generation)
    }

    fn cut_in(&self, generation: u32) -> Option<u32> {
        let found = self.cuts.binary_search_by_key(&generation, |cut| cut.generation).ok()?;
        self.cuts.get(found).map(|cut| cut.end)
    }
}

/// The valid part of the log.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// Segments with live records, oldest first.
    pub(crate) segments: Vec<SegmentInfo>,
    /// Their records, in order.
    pub(crate) parts: Vec<LogPart>,
    /// The end of the log.
    pub(crate) end: Lsn,
    /// The last sequence in the log; 0 if it is empty.
    pub(crate) last_seq: SeqNo,
    /// The highest watermark in any valid header.
    pub(crate) watermark: Lsn,
    /// The highest generation known to be taken, including by dead segments. After a clean close, the manifest's next
    /// generation may be higher still.
    pub(crate) max_generation: u32,
    /// Files without live records.
    pub(crate) dead: Vec<PathBuf>,
    /// Whether the last segment may be appended to at `end`: only after a clean close, and never at a cut, because
    /// everything after a cut in its segment is dead.
    pub(crate) resumable: bool,
}

/// Neighbouring records of a segment: a quarter of a megabyte, or one longer record, or what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogPart {
    /// The index of the segment in the chain.
    segment: usize,
    start: u32,
    end: u32,
}

impl LogPart {
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.end - self.start)
    }

    /// Where the payload of a batch is in the bytes of this part.
    pub(crate) fn offset_of(&self, batch: &RecordRef<'_>) -> usize {
        (batch.lsn.offset() - self.start) as usize + RECORD_HEADER
    }
}

/// A batch from the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordRef<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) first_seq: SeqNo,
    pub(crate) count: u32,
    /// The operations, for [`crate::record::Ops`].
    pub(crate) payload: &'a [u8],
    /// Commit time, seconds since the Unix epoch.
    pub(crate) time: u32,
}

/// The database, and the copy of it, that a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogOwner {
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
}

impl LogOwner {
    /// Why a segment with this header is not part of this log; `None` if it is. SSTs may come from the database that
    /// this one was copied from, but log segments never do.
    fn disowns(&self, header: &SegmentHeader) -> Option<&'static str> {
        if header.database_id != self.database_id {
            return Some("the segment belongs to another database");
        }
        (header.incarnation != self.incarnation)
            .then_some("the segment belongs to another copy of the database")
    }
}

/// Finds all segments in a directory. Returns them in order of their generations.
pub(crate) fn discover(vfs: &dyn Vfs, dir: &Path, owner: LogOwner) -> Result<Vec<Segment>> {
    let listing = vfs.list(dir).map_err(Error::io("list", dir))?;
    discover_in(&listing, vfs, dir, owner)
}

/// The same for a directory that was listed.
pub(crate) fn discover_in(
    listing: &[DirEntry],
    vfs: &dyn Vfs,
    dir: &Path,
    owner: LogOwner,
) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    // Before the segments: what is written from the buffer to a segment meanwhile is found there.
    let buffer = read_buffer(vfs, dir, listing)?;
    for entry in listing {
        let FileName::Log(named) = paths::parse(&entry.name) else { continue };
        let segment = Segment { len: entry.len, ..read_head(vfs, dir.join(&entry.name), named, &buffer)? };
        if let Some(why) = segment.header.as_ref().and_then(|header| owner.disowns(header)) {
            return Err(Error::corrupt(&segment.path, 0, why));
        }
        segments.push(segment);
    }
    drop_stale_headers(&mut segments);
    segments.sort_by_key(|segment| (segment.generation(), segment.named));
    let headed = || segments.iter().filter(|segment| segment.header.is_some());
    for (a, b) in headed().zip(headed().skip(1)) {
        if a.generation() == b.generation() {
            let detail = format!("the segment has the same generation as {}", a.path.display());
            return Err(Error::corrupt(&b.path, 0, detail));
        }
    }
    Ok(segments)
}

/// A segment is named after its generation. If a segment's name and generation differ, and another segment has the name
/// of that generation, its bytes are the other's: either it is a copy under another name, or it was still being created
/// and its blocks hold their previous contents. Its own header was never durable, so nothing in it was ever
/// acknowledged.
fn drop_stale_headers(segments: &mut [Segment]) {
    let true_to_name = |segment: &&Segment| segment.header.is_some() && segment.generation() == segment.named;
    let rightly_named: BTreeSet<u32> =
        segments.iter().filter(true_to_name).map(|segment| segment.named).collect();
    for segment in segments {
        let generation = segment.generation();
        if generation != segment.named && rightly_named.contains(&generation) {
            (segment.header, segment.link) = (None, None);
        }
    }
}

/// Reads and decodes the first bytes of a segment, of which the log buffer may have records.
fn read_head(vfs: &dyn Vfs, path: PathBuf, named: u32, buffer: &[u8]) -> Result<Segment> {
    let file = vfs.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
    let mut head = vec![0; RECORDS_START as usize + LINK_LEN as usize];
    let read = read_full_at(&*file, &mut head, 0).map_err(Error::io("read", &path))?;
    let header = SegmentHeader::decode(part(&head, ..read), &path)?;
    let tail = header.as_ref().and_then(|header| BufferedTail::of(buffer, header));
    let known = tail.as_ref().map_or(read, |tail| tail.complete(&mut head, 0, read));
    head.truncate(known);
    let link = header.as_ref().and_then(|header| first_link(&head, header));
    Ok(Segment { path, named, header, link, len: read as u64, tail })
}

/// Decodes the link in the first bytes of a segment.
fn first_link(head: &[u8], segment: &SegmentHeader) -> Option<Lsn> {
    let bytes = head.get(RECORDS_START as usize..)?;
    let header = RecordHeader::decode(bytes, segment.salt, Lsn::new(segment.generation, RECORDS_START))?;
    (header.kind == LINK && header.record_len() == LINK_LEN).then_some(())?;
    decode_link(header.payload(segment.salt, bytes)?)
}

/// Whether a segment holds anything that resembles a record, damaged or not. Without a manifest, a segment that does is
/// not the remains of a creation. `named` is the number in its name, for a segment whose header does not give its
/// generation.
pub(crate) fn has_records(vfs: &dyn Vfs, path: &Path, named: u32) -> Result<bool> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let mut head = vec![0; RECORDS_START as usize];
    let read = read_full_at(&*file, &mut head, 0).map_err(Error::io("read", path))?;
    let header = SegmentHeader::decode(part(&head, ..read), path)?;
    let generation = header.map_or(named, |header| header.generation);
    Ok(SegmentReader::open(vfs, path, None, generation, 0)?.next_candidate(RECORDS_START)?.is_some())
}

/// Reads one segment.
struct SegmentReader<'a> {
    window: Window,
    path: &'a Path,
    generation: u32,
    salt: u64,
}

/// A record with matching checksums.
struct CheckedRecord<'a> {
    header: RecordHeader,
    payload: &'a [u8],
    /// The end of the record.
    end: u32,
}

impl<'a> SegmentReader<'a> {
    fn open(
        vfs: &dyn Vfs,
        path: &'a Path,
        tail: Option<&Arc<BufferedTail>>,
        generation: u32,
        salt: u64,
    ) -> Result<Self> {
        let file = open_with(vfs, path, tail).map_err(Error::io("open", path))?;
        let len = file.len().map_err(Error::io("read", path))?.min(MAX_SEGMENT);
        Ok(Self { window: Window::new(file, len), path, generation, salt })
    }

    fn len(&self) -> u64 {
        self.window.len()
    }

    fn header(&mut self, offset: u32) -> Result<Option<RecordHeader>> {
        let at = Lsn::new(self.generation, offset);
        let bytes = self.window.get(offset.into(), RECORD_HEADER as u64);
        let bytes = bytes.map_err(Error::io("read", self.path))?;
        Ok(bytes.and_then(|bytes| RecordHeader::decode(bytes, self.salt, at)))
    }

    /// Returns the header of the record at `offset`, and the end of the record; `None` if there is no valid record. A
    /// record of a newer format is an error. Takes no more memory than a window, whatever length the header claims.
    fn check(&mut self, offset: u32) -> Result<Option<(RecordHeader, u32)>> {
        let Some(mut header) = self.header(offset)? else { return Ok(None) };
        let (start, len) = (u64::from(offset), header.record_len());
        let end = (start + len) as u32;
        let mut holds = false;
        if !header.is_too_long() {
            let payload = start + RECORD_HEADER as u64..start + len;
            let crc = self.window.crc(header.payload_seed(self.salt), payload);
            holds = crc.map_err(Error::io("read", self.path))?.is_some_and(|crc| header.is_payload(crc));
        }
        if !holds {
            header.kind = PAD;
            return Ok(planted(Bug::DamagedRecordSkipped).then_some((header, end)));
        }
        header.check_known(self.path)?;
        Ok(Some((header, end)))
    }

    /// Returns the record at `offset`, as [`Self::check`] does, with its payload in memory.
    fn record(&mut self, offset: u32) -> Result<Option<CheckedRecord<'_>>> {
        let Some((header, end)) = self.check(offset)? else { return Ok(None) };
        let payload = self.payload(&header)?;
        Ok(Some(CheckedRecord { header, payload, end }))
    }

    /// Returns the payload of a record that was [checked](Self::check), all in memory.
    fn payload(&mut self, header: &RecordHeader) -> Result<&[u8]> {
        let offset = u64::from(header.lsn.offset());
        let record = self.window.get(offset, header.record_len()).map_err(Error::io("read", self.path))?;
        match record.and_then(|record| header.unchecked_payload(record)) {
            Some(payload) => Ok(payload),
            None if header.kind == PAD => Ok(&[]),
            None => Err(Error::corrupt(self.path, offset, "the record changed while it was read")),
        }
    }

    /// Fails on a valid header that claims more than the maximum length of a record, if the file is long enough to hold
    /// that much: an interrupted write cannot look like this.
    fn refuse_claim(&mut self, offset: u32) -> Result<()> {
        let Some(header) = self.header(offset)?.filter(RecordHeader::is_too_long) else { return Ok(()) };
        if u64::from(offset) + header.record_len() > self.len() {
            return Ok(());
        }
        let detail = format!(
            "a record claims {} bytes, but no record has more than {}",
            header.record_len(),
            record_len(MAX_BATCH_BYTES as usize)
        );
        Err(self.corrupt(offset, detail))
    }

    /// The first aligned offset from `from` on whose bytes, in the position field of a record header, name that offset.
    fn next_candidate(&mut self, from: u32) -> Result<Option<u32>> {
        let mut offset = u64::from(from);
        while offset + RECORD_HEADER as u64 <= self.len() {
            let position = Lsn::new(self.generation, offset as u32).0;
            let bytes = self.window.from(offset + u64::from(LSN_FIELD), 8);
            let (words, _) = bytes.map_err(Error::io("read", self.path))?.as_chunks::<8>();
            let named = |(word, i): (&[u8; 8], u64)| u64::from_le_bytes(*word) == position + 8 * i;
            if let Some(i) = words.iter().zip(0..).position(named) {
                return Ok(Some(offset as u32 + 8 * i as u32));
            }
            if words.is_empty() {
                return Ok(None);
            }
            offset += 8 * words.len() as u64;
        }
        Ok(None)
    }

    /// The highest watermark of the valid headers from `from` on.
    fn highest_watermark(&mut self, from: u32) -> Result<Lsn> {
        let mut highest = Lsn::ZERO;
        let mut from = from;
        while let Some(offset) = self.next_candidate(from)? {
            if let Some(header) = self.header(offset)? {
                let proven = if planted(Bug::TailTakenForDamage) { header.lsn } else { header.watermark };
                highest = highest.max(proven);
            }
            from = offset.saturating_add(ALIGN);
        }
        Ok(highest)
    }

    fn corrupt(&self, offset: u32, detail: impl Into<String>) -> Error {
        Error::corrupt(self.path, u64::from(offset), detail)
    }
}

/// Fails on a segment in which a header claims an impossible length. Walks over headers only.
pub(super) fn refuse_claims(vfs: &dyn Vfs, path: &Path, named: u32) -> Result<()> {
    let Some(header) = read_head(vfs, path.to_path_buf(), named, &[])?.header else { return Ok(()) };
    let mut reader = SegmentReader::open(vfs, path, None, header.generation, header.salt)?;
    let mut offset = RECORDS_START;
    while let Some(header) = reader.header(offset)? {
        reader.refuse_claim(offset)?;
        // There is no record beyond the maximum size of a segment.
        let Ok(next) = u32::try_from(u64::from(offset) + header.record_len()) else { break };
        offset = next;
    }
    Ok(())
}

/// A segment that may hold live records.
struct Live<'a> {
    segment: &'a Segment,
    generation: u32,
    salt: u64,
    link: Option<Lsn>,
}

impl Live<'_> {
    fn open(&self, vfs: &dyn Vfs) -> Result<SegmentReader<'_>> {
        let Segment { path, tail, .. } = self.segment;
        SegmentReader::open(vfs, path, tail.as_ref(), self.generation, self.salt)
    }
}

/// The state of a walk along the chain.
struct ChainWalk<'a> {
    vfs: &'a dyn Vfs,
    rules: &'a LogRules,
    check: Option<&'a CheckBatch<'a>>,
    /// In order of their generations.
    live: Vec<Live<'a>>,
    /// What each of them holds, if they were read ahead.
    ahead: Vec<Option<Result<Walked>>>,
    /// The links of these segments: the position that a segment continues, and its generation.
    links: BTreeSet<(Lsn, u32)>,
    /// The end of a segment by generation, according to the first segment that continues it.
    linked: BTreeMap<u32, u32>,
    segments: Vec<SegmentInfo>,
    parts: Vec<LogPart>,
    last_seq: SeqNo,
    watermark: Lsn,
    refused: Option<Error>,
}

/// The records of a segment, up to its end or to the first that is not part of the log.
struct Walked {
    info: SegmentInfo,
    /// Where the parts of the segment end.
    parts: Vec<u32>,
    /// The first and the last sequence; 0 without batches.
    first_seq: SeqNo,
    last_seq: SeqNo,
    watermark: Lsn,
    /// The error of the first batch that did not pass the check.
    refused: Option<Error>,
}

/// A check of a batch.
pub(crate) type CheckBatch<'a> = dyn Fn(RecordRef<'_>) -> Result<()> + Sync + 'a;

/// Finds the end of the log, without writing anything.
///
/// Fails on evidence of damage, as opposed to a torn tail: a first bad record below a watermark, below the manifest's
/// durable position or below a cut; a log that does not end where it was closed; a manifest older than a segment says
/// that it was.
pub(crate) fn validate(vfs: &dyn Vfs, dir: &Path, segments: &[Segment], rules: &LogRules) -> Result<Chain> {
    validate_batches(vfs, dir, segments, rules, Threads::One, None).map(|(chain, _)| chain)
}

/// The same by several threads, and with a check of each batch. The second result is the error of the first batch that did not
/// pass it: the log was found to be intact all the same.
pub(crate) fn validate_batches(
    vfs: &dyn Vfs,
    dir: &Path,
    segments: &[Segment],
    rules: &LogRules,
    threads: Threads,
    check: Option<&CheckBatch<'_>>,
) -> Result<(Chain, Result<()>)> {
    let newest =
        segments.iter().filter_map(|s| Some((s.header.as_ref()?.last_edit, s))).max_by_key(|(e, _)| *e);
    if let Some((edit, segment)) =
        newest.filter(|(edit, _)| *edit > rules.last_edit && !planted(Bug::RolledBackManifestBelieved))
    {
        let detail = format!(
            "the manifest ends at edit {}, but edit {edit} was durable when {} was created",
            rules.last_edit,
            segment.path.display()
        );
        return Err(Error::corrupt(&dir.join(paths::MANIFEST), 0, detail));
    }
    check_headerless(vfs, segments, rules)?;
    let mut live = Vec::new();
    for segment in segments {
        let Some(header) = segment.header.as_ref().filter(|h| !rules.is_dead(h.generation)) else { continue };
        let (generation, salt) = (header.generation, header.salt);
        live.push(Live { segment, generation, salt, link: segment.link });
    }
    let mut walk = ChainWalk::new(vfs, rules, check, live);
    walk.read_ahead(threads);
    let end = walk.find_end()?;
    if let Some(clean) = rules.clean_end {
        if end != clean && !planted(Bug::CleanEndIgnored) {
            let detail = format!("the log ends at {end}, but was closed at {clean}");
            return Err(walk.corrupt_at(dir, end.min(clean), detail));
        }
    } else {
        walk.judge_the_rest(dir, end)?;
    }
    let last = walk.segments.last();
    let resumable = (rules.clean_end.is_some() || planted(Bug::OldSegmentAppendedTo))
        && last.is_some_and(|last| Lsn::new(last.generation, last.end) == end)
        && rules.cut_in(end.generation()) != Some(end.offset());
    let live: BTreeSet<&Path> = walk.segments.iter().map(|info| info.path.as_path()).collect();
    let dead = segments.iter().filter(|segment| !live.contains(segment.path.as_path()));
    let chain = Chain {
        end,
        last_seq: walk.last_seq,
        watermark: walk.watermark,
        max_generation: max_generation(segments, rules),
        dead: dead.map(|segment| segment.path.clone()).collect(),
        segments: walk.segments,
        parts: walk.parts,
        resumable,
    };
    Ok((chain, walk.refused.map_or(Ok(()), Err)))
}

/// Files whose generations were used may be gone, so the positions in the manifest count as well.
fn max_generation(segments: &[Segment], rules: &LogRules) -> u32 {
    let found = segments.iter().map(|segment| segment.generation().max(segment.named));
    let skipped = rules.cuts.iter().map(|cut| cut.next_generation.saturating_sub(1));
    let known = [rules.log_start.generation(), rules.durable.generation()];
    found.chain(skipped).chain(known).max().unwrap_or(0)
}

impl<'a> ChainWalk<'a> {
    fn new(
        vfs: &'a dyn Vfs,
        rules: &'a LogRules,
        check: Option<&'a CheckBatch<'a>>,
        live: Vec<Live<'a>>,
    ) -> Self {
        let (mut links, mut linked) = (BTreeSet::new(), BTreeMap::new());
        for (generation, link) in live.iter().filter_map(|live| Some((live.generation, live.link?))) {
            links.insert((link, generation));
            linked.entry(link.generation()).or_insert(link.offset());
        }
        Self {
            vfs,
            rules,
            check,
            live,
            ahead: Vec::new(),
            links,
            linked,
            segments: Vec::new(),
            parts: Vec::new(),
            last_seq: 0,
            watermark: Lsn::ZERO,
            refused: None,
        }
    }

    /// Reads the segments, each on its own, by several threads. Which of them are part of the log is decided later, and
    /// errors count only in those.
    fn read_ahead(&mut self, threads: Threads) {
        let bytes = self.live.iter().map(|live| live.segment.len).fold(0, u64::saturating_add);
        let threads = threads.for_bytes(bytes);
        if threads > 1 && self.live.len() > 1 {
            let read = |live| Some(self.read_segment(live, 0));
            self.ahead = parallel::each(threads, self.live.iter().collect(), read);
        }
    }

    /// The index of a generation in `live`.
    fn find(&self, generation: u32) -> Option<usize> {
        self.live.binary_search_by_key(&generation, |live| live.generation).ok()
    }

    /// Follows records and links from the start of the log to the first position that has neither.
    fn find_end(&mut self) -> Result<Lsn> {
        let mut generation = self.rules.log_start.generation();
        loop {
            let offset = match self.find(generation) {
                Some(i) => self.walk_segment(i)?,
                None => 0, // no segment was created yet, or it is missing
            };
            let at = Lsn::new(generation, offset);
            let later = (Bound::Excluded((at, generation)), Bound::Included((at, u32::MAX)));
            match self.links.range(later).next() {
                Some(&(_, next)) => generation = next,
                None => return Ok(at),
            }
        }
    }

    /// Walks to the end of a segment, or to its first bad record. Returns that offset.
    fn walk_segment(&mut self, index: usize) -> Result<u32> {
        let live = self.live.get(index).ok_or_else(|| Error::internal("a segment of the log is missing"))?;
        let walked = match self.ahead.get_mut(index).and_then(Option::take) {
            // Read without knowing where the sequences before it end.
            Some(Ok(walked)) if walked.first_seq > 0 && walked.first_seq <= self.last_seq => None,
            ahead => ahead,
        };
        let walked = walked.unwrap_or_else(|| self.read_segment(live, self.last_seq))?;
        let (segment, end, mut start) = (self.segments.len(), walked.info.end, walked.info.start);
        for end in walked.parts {
            self.parts.push(LogPart { segment, start, end });
            start = end;
        }
        self.segments.push(walked.info);
        self.last_seq = self.last_seq.max(walked.last_seq);
        self.watermark = self.watermark.max(walked.watermark);
        self.refused = self.refused.take().or(walked.refused);
        Ok(end)
    }

    /// Reads a segment, after sequences up to `last_seq`.
    fn read_segment(&self, live: &Live<'_>, mut last_seq: SeqNo) -> Result<Walked> {
        // A cut and the next segment's link are both authoritative about the end of this segment.
        let linked = || self.linked.get(&live.generation).copied();
        let stop = self.rules.cut_in(live.generation).or_else(linked).unwrap_or(u32::MAX);
        let mut reader = live.open(self.vfs)?;
        let log_start = self.rules.log_start;
        let mut offset = RECORDS_START;
        // Retired records need not be read, unless the file ends before the log's start: then they are read to find out
        // why.
        if live.generation == log_start.generation() && u64::from(log_start.offset()) <= reader.len() {
            offset = offset.max(log_start.offset());
        }
        let (start, mut part) = (offset, offset);
        let (mut parts, mut first_seq, mut watermark, mut refused) = (Vec::new(), 0, Lsn::ZERO, None);
        while offset < stop {
            let Some((header, end)) = reader.check(offset)? else {
                reader.refuse_claim(offset)?;
                break;
            };
            if (header.kind == LINK) != (offset == RECORDS_START) || end > stop {
                break;
            }
            if header.kind == BATCH {
                let more = header.count.checked_sub(1).filter(|_| header.first_seq > 0);
                let Some(last) = more.and_then(|more| header.first_seq.checked_add(more.into())) else {
                    let detail = format!("{} operations from sequence {} on", header.count, header.first_seq);
                    return Err(reader.corrupt(offset, detail));
                };
                // Sequences rise. A record that does not continue them is not part of this chain: an undone write that
                // reappeared. The log ends here. Below a watermark this counts as damage, as any other end would.
                if header.first_seq <= last_seq {
                    break;
                }
                if first_seq == 0 {
                    first_seq = header.first_seq;
                }
                last_seq = last;
                if let (Some(check), None) = (self.check, &refused) {
                    refused = check(header.batch(reader.payload(&header)?)).err();
                }
            }
            watermark = watermark.max(header.watermark);
            if u64::from(end - part) > WINDOW && offset > part {
                parts.push(offset);
                part = offset;
            }
            offset = end;
        }
        parts.extend((offset > part).then_some(offset));
        let info = SegmentInfo {
            generation: live.generation,
            path: live.segment.path.clone(),
            salt: live.salt,
            len: reader.len(),
            start,
            end: offset,
            tail: live.segment.tail.clone(),
        };
        let last_seq = if first_seq == 0 { 0 } else { last_seq };
        Ok(Walked { info, parts, first_seq, last_seq, watermark, refused })
    }

    /// Checks that the bytes after the end are a torn tail; an error if they had been synced.
    fn judge_the_rest(&mut self, dir: &Path, end: Lsn) -> Result<()> {
        let mut unlinked = None;
        for live in self.live.iter().filter(|live| live.generation >= end.generation()) {
            let mut from = RECORDS_START;
            if live.generation == end.generation() {
                if self.rules.cut_in(live.generation) == Some(end.offset()) {
                    continue; // declared dead
                }
                from = end.offset();
            }
            let watermark = live.open(self.vfs)?.highest_watermark(from)?;
            if watermark > end && live.generation > end.generation() && live.link.is_none() {
                unlinked = unlinked.or(Some(Lsn::new(live.generation, RECORDS_START)));
            }
            self.watermark = self.watermark.max(watermark);
        }
        if end < self.watermark && !planted(Bug::DamageTakenForTail) {
            let detail = format!("there is no valid record, but the log was synced up to {}", self.watermark);
            // If the log ends properly and the next segment has a bad start, the error names that start.
            return Err(self.corrupt_at(dir, unlinked.unwrap_or(end), detail));
        }
        if end < self.rules.durable && !planted(Bug::DurableEndIgnored) {
            let detail = format!("the log ends here, but was durable up to {}", self.rules.durable);
            return Err(self.corrupt_at(dir, end, detail));
        }
        match self.rules.cuts.iter().map(LogCut::position).max() {
            Some(cut) if end < cut => {
                Err(self.corrupt_at(dir, end, format!("the log ends here, but was recovered up to {cut}")))
            }
            _ => Ok(()),
        }
    }

    fn corrupt_at(&self, dir: &Path, at: Lsn, detail: String) -> Error {
        match self.find(at.generation()).and_then(|found| self.live.get(found)) {
            Some(live) => Error::corrupt(&live.segment.path, u64::from(at.offset()), detail),
            None => Error::corrupt(&paths::log(dir, at.generation()), 0, format!("missing: {detail}")),
        }
    }
}

/// Checks segments without a valid header. Such a segment was still being created, unless a record was ever written to
/// it: the header is durable before that, so in that case it is damaged, and the watermarks after it cannot be read.
fn check_headerless(vfs: &dyn Vfs, segments: &[Segment], rules: &LogRules) -> Result<()> {
    for segment in segments.iter().filter(|s| s.header.is_none() && !rules.is_dead(s.named)) {
        let mut reader = SegmentReader::open(vfs, &segment.path, None, segment.named, 0)?;
        if reader.next_candidate(RECORDS_START)?.is_some() {
            return Err(reader.corrupt(0, "both copies of the header are damaged"));
        }
    }
    Ok(())
}

/// Makes the chain durable from `from` on. Above that position it may only appear to be: pages that a failed sync left
/// in the page cache can be read but are not on disk. Rewrites the same bytes, so a crash in between is harmless.
pub(crate) fn harden(vfs: &dyn Vfs, dir: &Path, chain: &Chain, from: Lsn) -> Result<()> {
    let mut touched = false;
    for info in chain.segments.iter().filter(|info| Lsn::new(info.generation, info.end) > from) {
        let start = if info.generation == from.generation() { from.offset() } else { 0 };
        let file = vfs.open(&info.path, OpenMode::Write).map_err(Error::io("open", &info.path))?;
        // What the file lacks is written to it here.
        let whole = open_with(vfs, &info.path, info.tail.as_ref()).map_err(Error::io("open", &info.path))?;
        let mut offset = u64::from(start.max(RECORDS_START));
        let mut window = Vec::new();
        while offset < u64::from(info.end) {
            window.resize((u64::from(info.end) - offset).min(WINDOW) as usize, 0);
            let read = read_full_at(&*whole, &mut window, offset).map_err(Error::io("read", &info.path))?;
            if read < window.len() {
                return Err(Error::corrupt(&info.path, offset, "the file became shorter"));
            }
            write_all_at(&*file, &window, offset).map_err(Error::io("write", &info.path))?;
            offset += read as u64;
        }
        file.sync().map_err(Error::io("sync", &info.path))?;
        touched = true;
    }
    if touched {
        vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

/// Passes the batches of a validated chain to `apply`, in order, verifying them again.
pub(crate) fn replay(
    vfs: &dyn Vfs,
    chain: &Chain,
    mut apply: impl FnMut(RecordRef<'_>) -> Result<()>,
) -> Result<()> {
    let mut buffer = Vec::new();
    for part in chain.in_order() {
        for record in chain.read(vfs, part, &mut buffer)? {
            apply(record?)?;
        }
    }
    Ok(())
}

impl Chain {
    /// The parts of the log in the order in which they have to be replayed.
    pub(crate) fn in_order(&self) -> Vec<LogPart> {
        let mut parts = self.parts.clone();
        if planted(Bug::SegmentsOrderedAsText) {
            let generation = |part: &LogPart| Some(self.segments.get(part.segment)?.generation.to_string());
            parts.sort_by_key(generation);
        }
        parts
    }

    /// Reads a part of the log into the buffer.
    pub(crate) fn read<'a>(
        &'a self,
        vfs: &dyn Vfs,
        part: LogPart,
        buffer: &'a mut Vec<u8>,
    ) -> Result<PartReader<'a>> {
        let Some(info) = self.segments.get(part.segment) else {
            return Err(Error::internal("a part of the log is in no segment"));
        };
        let path = &info.path;
        let file = open_with(vfs, path, info.tail.as_ref()).map_err(Error::io("open", path))?;
        let read = read_part(&*file, part, buffer).map_err(Error::io("read", path))?;
        let at = Lsn::new(info.generation, part.start);
        Ok(PartReader { bytes: crate::coding::part(buffer, ..read), end: part.end, at, info })
    }
}

/// Reads a part into the buffer, which may be longer. Returns the number of bytes read.
fn read_part(file: &dyn VfsFile, part: LogPart, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let len = usize::try_from(part.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
    if buffer.len() < len {
        buffer.try_reserve_exact(len - buffer.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        buffer.resize(len, 0);
    }
    read_full_at(file, buffer.get_mut(..len).unwrap_or_default(), part.start.into())
}

/// Reads the batches of a part of the log, in order. Ends after an error.
pub(crate) struct PartReader<'a> {
    /// The records from `at` on.
    bytes: &'a [u8],
    at: Lsn,
    /// The end of the part.
    end: u32,
    info: &'a SegmentInfo,
}

impl<'a> PartReader<'a> {
    /// The next record, verified, whatever its kind.
    fn record(&mut self) -> Result<(RecordHeader, &'a [u8])> {
        let (at, salt) = (self.at, self.info.salt);
        let changed = || {
            Error::corrupt(&self.info.path, at.offset().into(), "the record changed since it was validated")
        };
        let mut header = RecordHeader::decode(self.bytes, salt, at).ok_or_else(changed)?;
        let record = self.bytes.split_at_checked(header.record_len() as usize);
        let (record, rest) = record.ok_or_else(changed)?;
        let payload = match header.payload(salt, record) {
            Some(payload) => payload,
            None if planted(Bug::DamagedRecordSkipped) => {
                header.kind = PAD;
                &[]
            }
            None => return Err(changed()),
        };
        self.at = Lsn::new(at.generation(), at.offset() + record.len() as u32);
        self.bytes = rest;
        header.check_known(&self.info.path)?;
        Ok((header, payload))
    }
}

impl<'a> Iterator for PartReader<'a> {
    type Item = Result<RecordRef<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at.offset() < self.end {
            match self.record() {
                Ok((header, payload)) if header.kind == BATCH => return Some(Ok(header.batch(payload))),
                Ok(_) => {}
                Err(error) => {
                    self.end = 0;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl RecordHeader {
    fn batch<'a>(&self, payload: &'a [u8]) -> RecordRef<'a> {
        let Self { lsn, first_seq, count, time, .. } = *self;
        RecordRef { lsn, first_seq, count, payload, time }
    }
}

mod lone;
mod salvage;
#[cfg(test)]
mod tests;

pub(crate) use lone::{Piece, walk_alone};
pub(crate) use salvage::{LogGap, LogSalvage, salvage};
