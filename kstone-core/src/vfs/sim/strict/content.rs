//! The bytes of a file: durable, current, and the pending operations between them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::clock::{Clock, ManualClock};
use crate::vfs::PAGE;

/// The unit that a disk writes atomically.
pub(super) const SECTOR: u64 = 512;

/// Invariant: applying `pending` in order to `durable` gives `current`, unless some operations were lost.
#[derive(Clone, Default)]
pub(super) struct Content {
    current: Bytes,
    durable: Bytes,
    pending: Vec<UnsyncedOp>,
    synced: bool,
    lost: bool,
}

/// A change to a file. Its end is known to be at most [`super::MAX_LEN`].
#[derive(Clone)]
pub(super) enum FileOp {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

/// A change that is not durable, and the number of the operation that made it.
#[derive(Clone)]
struct UnsyncedOp {
    at: u64,
    op: FileOp,
}

/// Which pending changes a crash leaves.
pub(super) enum Left<'a> {
    Durable,
    All,
    /// Any subset, and of lost writes any sectors. With `stale`, holes at the end may have stale bytes.
    Some {
        stale: Option<&'a [Bytes]>,
    },
    /// Those before `moment`, and a part of a write at that moment, in units of `unit` bytes.
    Until {
        moment: u64,
        unit: u64,
    },
    /// Only the lengths that result from them.
    Lengths,
}

/// Sparse bytes, in pages, so that reserved space and holes cost nothing and images share equal pages; missing pages read
/// as zeros. All bytes at `len` and beyond are zero.
#[derive(Clone, Default)]
pub(super) struct Bytes {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

/// A random number below `n`, which is at least 1.
pub(super) fn below(rng: &ManualClock, n: u64) -> u64 {
    rng.random() % n.max(1)
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.current.len
    }

    /// Returns the number of bytes read: fewer than requested at the end.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.current.read(buf, offset)
    }

    pub(super) fn current(&self) -> Bytes {
        self.current.clone()
    }

    /// The operation numbers of the pending changes.
    pub(super) fn moments(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|pending| pending.at)
    }

    pub(super) fn never_synced(&self) -> bool {
        !self.synced
    }

    pub(super) fn change(&mut self, at: u64, op: FileOp) {
        op.apply(&mut self.current);
        self.pending.push(UnsyncedOp { at, op });
    }

    pub(super) fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            pending.op.apply(&mut self.durable);
        }
        self.synced = true;
    }

    /// Makes sure that the pending changes never become durable.
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

    /// The contents after a crash, all durable.
    pub(super) fn survivor(&self, left: &Left<'_>, rng: &ManualClock) -> Self {
        let left = match *left {
            Left::Durable => self.durable.clone(),
            Left::All => self.all_pending(),
            Left::Some { stale } => self.some_pending(stale, rng),
            Left::Until { moment, unit } => self.until(moment, unit, rng),
            Left::Lengths => {
                let mut bytes = self.durable.clone();
                bytes.set_len(self.all_pending().len);
                bytes
            }
        };
        Self { current: left.clone(), durable: left, pending: Vec::new(), synced: true, lost: false }
    }

    fn all_pending(&self) -> Bytes {
        if !self.lost {
            return self.current.clone();
        }
        let mut bytes = self.durable.clone();
        self.pending.iter().for_each(|pending| pending.op.apply(&mut bytes));
        bytes
    }

    fn some_pending(&self, stale: Option<&[Bytes]>, rng: &ManualClock) -> Bytes {
        let mut bytes = self.durable.clone();
        // Some files keep all of their operations, some none, and the others each operation with this probability.
        let eighths = below(rng, 9);
        for UnsyncedOp { op, .. } in &self.pending {
            if below(rng, 8) < eighths {
                op.apply(&mut bytes);
                continue;
            }
            if let (Some(stale), FileOp::Write { offset, bytes: lost }) = (stale, op)
                && below(rng, 2) == 0
            {
                bytes.grow_over(stale, *offset, lost.len(), rng);
            }
            if eighths > 0 {
                op.tear(&mut bytes, rng);
            }
        }
        bytes
    }

    fn until(&self, moment: u64, unit: u64, rng: &ManualClock) -> Bytes {
        let mut bytes = self.durable.clone();
        for UnsyncedOp { at, op } in &self.pending {
            match op {
                _ if *at < moment => op.apply(&mut bytes),
                FileOp::Write { offset, bytes: torn } if *at == moment => {
                    let end = offset + torn.len() as u64;
                    let units = offset / unit..end.div_ceil(unit);
                    let cut = (units.start + below(rng, units.end - units.start + 1)) * unit;
                    let kept = cut.clamp(*offset, end) - offset;
                    if kept > 0 {
                        bytes.write(torn.get(..kept as usize).unwrap_or_default(), *offset);
                    }
                }
                _ => {}
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

    /// Applies a part of an operation that did not reach the disk completely: of a write, the sectors before a cut,
    /// those after it, any, or none, and perhaps its length; of a new length, nothing.
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

/// Splits `len` bytes at `offset` at page boundaries: the page, the range in it, and the range in the bytes.
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

    /// Extends the file by the space of a lost write beyond its end, filled as by the previous contents of the blocks.
    fn grow_over(&mut self, stale: &[Self], offset: u64, len: usize, rng: &ManualClock) {
        let from = offset.max(self.len);
        let Some(beyond) = (offset + len as u64).checked_sub(from).filter(|&beyond| beyond > 0) else {
            return;
        };
        let mut garbage = vec![0; beyond as usize];
        match below(rng, 3) {
            0 => garbage.fill(0xff),
            1 => garbage.iter_mut().for_each(|byte| *byte = rng.random() as u8),
            _ => {
                if let Some(other) = stale.get(below(rng, stale.len() as u64) as usize) {
                    other.read(&mut garbage, from);
                }
            }
        }
        self.write(&garbage, from);
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
