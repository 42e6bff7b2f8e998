//! A log segment on its own: all of its records, and what cannot be read, without the manifest that says which of them
//! count. Nothing is written.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::{Segment, SegmentReader, read_buffer, read_head};
use crate::error::{Error, Result};
use crate::types::Lsn;
use crate::vfs::{OpenMode, Vfs, read_full_at};
use crate::wal::format::{ALIGN, RECORDS_START, RecordHeader, SegmentHeader};

/// Positions of unreadable bytes that are kept; more are only counted.
const MOST_HOLES: usize = 1000;

/// A record, or bytes that hold none.
pub(crate) enum Piece<'a> {
    Record {
        header: &'a RecordHeader,
        end: u32,
        payload: &'a [u8],
    },
    /// Up to the next record, or to the end of the file.
    Hole {
        offset: u64,
        len: u64,
    },
}

/// What a walk over a segment found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// `None`: the segment was reserved and never used.
    pub(crate) header: Option<SegmentHeader>,
    /// Length of the file.
    pub(crate) len: u64,
    /// The end of the last record.
    pub(crate) end: u64,
    /// Whether the walk came to the end of the segment.
    pub(crate) complete: bool,
    /// The log was durable up to here, according to the segment's own records.
    pub(crate) durable: Lsn,
    /// Offset and length of what cannot be read.
    pub(crate) holes: Vec<(u64, u64)>,
    pub(crate) more_holes: u64,
}

/// Passes the records of the segment at `path` to `each`, in order, with the newest ones from the log buffer beside it.
/// Memory is bounded by the longest record with right checksums.
///
/// # Errors
/// `Corruption` if both copies of the header are damaged, or the file is no segment; `UnsupportedFormat`.
pub(crate) fn walk_alone(
    vfs: &dyn Vfs,
    path: &Path,
    each: &mut dyn FnMut(&SegmentHeader, Piece<'_>) -> ControlFlow<()>,
) -> Result<Walk> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(PathBuf::from("."), Into::into);
    // A segment that was copied elsewhere has no buffer beside it.
    let buffer = vfs.list(&dir).map_or(Ok(Vec::new()), |listing| read_buffer(vfs, &dir, &listing))?;
    let segment = read_head(vfs, path.to_path_buf(), 0, &buffer)?;
    let Some(header) = segment.header.clone() else { return without_header(vfs, &segment) };
    let (generation, salt) = (header.generation, header.salt);
    let mut reader = SegmentReader::open(vfs, path, segment.tail.as_ref(), generation, salt)?;
    let len = reader.len();
    let mut walk = Walk { header: Some(header.clone()), len, end: RECORDS_START.into(), ..Walk::default() };
    let (mut offset, mut hole) = (RECORDS_START, None);
    loop {
        if let Some(record) = reader.record(offset)? {
            if let Some(start) = hole.take()
                && walk.hole(start, offset.into(), &header, each).is_break()
            {
                return Ok(walk);
            }
            walk.durable = walk.durable.max(record.header.watermark);
            (offset, walk.end) = (record.end, record.end.into());
            let piece = Piece::Record { header: &record.header, end: record.end, payload: record.payload };
            if each(&header, piece).is_break() {
                return Ok(walk);
            }
            continue;
        }
        hole = hole.or(Some(u64::from(offset)));
        let here = reader.header(offset)?;
        walk.durable = walk.durable.max(here.map_or(Lsn::ZERO, |header| header.watermark));
        let next = match here {
            Some(header) => u32::try_from(u64::from(offset) + header.record_len()).ok(),
            None => reader.next_candidate(offset.saturating_add(ALIGN))?,
        };
        match next.filter(|&next| u64::from(next) < len) {
            Some(next) => offset = next,
            None => break,
        }
    }
    // After the last record there may be zeros or stale bytes; only what names its own position was once a record.
    if let Some(start) = hole.filter(|&start| start < len)
        && reader.next_candidate(start as u32)?.is_some()
        && walk.hole(start, len, &header, each).is_break()
    {
        return Ok(walk);
    }
    walk.complete = true;
    Ok(walk)
}

impl Walk {
    fn hole(
        &mut self,
        start: u64,
        end: u64,
        header: &SegmentHeader,
        each: &mut dyn FnMut(&SegmentHeader, Piece<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (offset, len) = (start, end.saturating_sub(start));
        match self.holes.len() < MOST_HOLES {
            true => self.holes.push((offset, len)),
            false => self.more_holes += 1,
        }
        each(header, Piece::Hole { offset, len })
    }
}

/// A segment without a valid header is unused if its head is all zeros.
fn without_header(vfs: &dyn Vfs, segment: &Segment) -> Result<Walk> {
    let path = &segment.path;
    let file = vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let mut head = vec![0; RECORDS_START as usize];
    let read = read_full_at(&*file, &mut head, 0).map_err(Error::io("read", path))?;
    if read < head.len() || head.iter().any(|&byte| byte != 0) {
        let detail = "neither copy of the header can be read: it is damaged, or not a log segment";
        return Err(Error::corrupt(path, 0, detail));
    }
    let len = file.len().map_err(Error::io("read the length of", path))?;
    Ok(Walk { len, complete: true, ..Walk::default() })
}
