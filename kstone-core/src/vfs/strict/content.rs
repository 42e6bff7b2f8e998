//! The bytes of one file: durable, current, and what lies between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::CrashMode;
use crate::clock::{Clock, ManualClock};

/// Bytes are held in pages, so that reserved space and holes cost nothing and images share what is equal.
const PAGE: u64 = 4096;
/// What a disk writes whole or not at all.
pub(super) const SECTOR: u64 = 512;

/// Invariant: `durable` and `pending` in order give `current`, unless some were lost.
#[derive(Default)]
pub(super) struct Content {
    current: Bytes,
    durable: Bytes,
    pending: Vec<FileOp>,
    lost: bool,
}

/// A change to a file. Its end, at most [`super::MAX_LEN`], was checked.
pub(super) enum FileOp {
    Write { offset: u64, bytes: Box<[u8]> },
    SetLen(u64),
}

/// Sparse bytes; pages that are missing read as zeros. Beyond `len` all bytes are zero.
#[derive(Clone, Default)]
struct Bytes {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

/// A number below `n`, which is at least 1.
pub(super) fn below(rng: &ManualClock, n: u64) -> u64 {
    rng.random() % n.max(1)
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.current.len
    }

    /// Returns the bytes read: fewer than asked for at the end.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.current.read(buf, offset)
    }

    pub(super) fn change(&mut self, op: FileOp) {
        op.apply(&mut self.current);
        self.pending.push(op);
    }

    pub(super) fn sync(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    /// What is pending will never be durable.
    pub(super) fn lose_pending(&mut self) {
        self.lost |= !self.pending.is_empty();
        self.pending.clear();
    }

    pub(super) fn is_durable(&self) -> bool {
        self.pending.is_empty() && (!self.lost || self.durable.to_vec() == self.current.to_vec())
    }

    pub(super) fn durable_bytes(&self) -> Vec<u8> {
        self.durable.to_vec()
    }

    /// What a crash leaves, all of it durable.
    pub(super) fn survivor(&self, mode: CrashMode, rng: &ManualClock) -> Self {
        let left = match mode {
            CrashMode::Strict => self.durable.clone(),
            CrashMode::All if self.lost => self.all_pending(),
            CrashMode::All => self.current.clone(),
            CrashMode::Random { .. } => self.some_pending(rng),
        };
        Self { current: left.clone(), durable: left, ..Self::default() }
    }

    fn all_pending(&self) -> Bytes {
        let mut bytes = self.durable.clone();
        self.pending.iter().for_each(|op| op.apply(&mut bytes));
        bytes
    }

    fn some_pending(&self, rng: &ManualClock) -> Bytes {
        let mut bytes = self.durable.clone();
        // Some files get all of their operations, some none, the others each with this chance.
        let eighths = below(rng, 9);
        for op in &self.pending {
            if below(rng, 8) < eighths {
                op.apply(&mut bytes);
            } else if eighths > 0 {
                op.tear(&mut bytes, rng);
            }
        }
        bytes
    }
}

impl FileOp {
    fn apply(&self, to: &mut Bytes) {
        match self {
            Self::Write { offset, bytes } => to.write(bytes, *offset),
            Self::SetLen(len) => to.set_len(*len),
        }
    }

    /// What may be left of an operation that did not reach the disk whole: of a write the sectors before
    /// a cut, those after it, any, or none, and perhaps the length; of a new length nothing.
    fn tear(&self, to: &mut Bytes, rng: &ManualClock) {
        let Self::Write { offset, bytes } = self else { return };
        let end = offset + bytes.len() as u64;
        let sectors = offset / SECTOR..end.div_ceil(SECTOR);
        let cut = sectors.start + below(rng, sectors.end - sectors.start);
        let shape = below(rng, 4);
        for sector in sectors {
            let kept = match shape {
                0 => sector < cut,
                1 => sector >= cut,
                2 => below(rng, 2) == 0,
                _ => false,
            };
            let from = offset.max(&(sector * SECTOR)) - offset;
            let until = end.min((sector + 1) * SECTOR) - offset;
            if kept && let Some(part) = bytes.get(from as usize..until as usize) {
                to.write(part, offset + from);
            }
        }
        if below(rng, 2) == 0 && to.len < end {
            to.set_len(end);
        }
    }
}

/// Cuts `len` bytes at `offset` at page bounds: the page, the range in it, and the range in the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let n = (len - done).min(PAGE as usize - within);
        let piece = (at / PAGE, within..within + n, done..done + n);
        done += n;
        (n > 0).then_some(piece)
    })
}

impl Bytes {
    fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let len = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (page, within, part) in pieces(offset, len) {
            let Some(to) = buf.get_mut(part) else { continue };
            match self.pages.get(&page).and_then(|page| page.get(within)) {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(0),
            }
        }
        len
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, within, part) in pieces(offset, bytes.len()) {
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            if let (Some(to), Some(from)) = (Arc::make_mut(page).get_mut(within), bytes.get(part)) {
                to.copy_from_slice(from);
            }
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            drop(self.pages.split_off(&len.div_ceil(PAGE)));
            let tail = self.pages.get_mut(&(len / PAGE)).map(Arc::make_mut);
            if let Some(tail) = tail.and_then(|page| page.get_mut((len % PAGE) as usize..)) {
                tail.fill(0);
            }
        }
        self.len = len;
    }
}
