//! Cursors over entries, and their merge into one.
//!
//! Forward, entries are ordered by ascending key and descending sequence (the newest version first); in reverse, they
//! come in exactly the opposite order.

use std::cmp::Ordering;
use std::fmt;

use crate::coding::{fence, shared_prefix};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::types::{Direction, EntryKind, EntryRef, SeqNo};

/// Several cursors as one: a loser tree. Each inner node keeps the source that lost there, so that a step replays one
/// path from a leaf to the root, with one comparison per level.
pub(crate) struct MergeCursor {
    sources: Vec<MergeInput>,
    /// `losers[0]` is the winner; node n has the children 2n and 2n + 1, and leaf n + i is source i.
    losers: Vec<usize>,
    direction: Direction,
    /// Common prefix of all current keys.
    common: Vec<u8>,
}

struct MergeInput {
    cursor: Box<dyn Cursor>,
    /// The 8 bytes of the current key after the common prefix, zero-padded: if two fences differ, they decide.
    fence: u64,
    ended: bool,
}

impl fmt::Debug for MergeCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeCursor").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

/// No source has reached this node of the tree yet.
const NOBODY: usize = usize::MAX;

impl MergeCursor {
    pub(crate) fn new(sources: Vec<Box<dyn Cursor>>, direction: Direction) -> Self {
        let losers = vec![NOBODY; sources.len()];
        let common = sources.iter().find_map(|cursor| Some(cursor.entry()?.key.to_vec())).unwrap_or_default();
        let sources =
            sources.into_iter().map(|cursor| MergeInput { cursor, fence: 0, ended: false }).collect();
        let mut merge = Self { sources, losers, direction, common };
        (0..merge.sources.len()).for_each(|n| merge.look_at(n));
        (0..merge.sources.len()).for_each(|n| merge.play(n));
        merge
    }

    /// Updates the fence of a source for its current entry.
    fn look_at(&mut self, n: usize) {
        let Some(source) = self.sources.get_mut(n) else { return };
        let Some(entry) = source.cursor.entry() else {
            source.ended = true;
            return;
        };
        match entry.key.strip_prefix(self.common.as_slice()) {
            Some(rest) => source.fence = fence(rest),
            None => {
                // Happens at most once per byte of the common prefix.
                self.common.truncate(shared_prefix(&self.common, entry.key));
                let skip = self.common.len();
                for source in &mut self.sources {
                    let key = source.cursor.entry().map_or([].as_slice(), |entry| entry.key);
                    source.fence = fence(key.get(skip..).unwrap_or_default());
                }
            }
        }
    }

    /// Plays a source up from its leaf: at each node the winner continues and the loser stays. A source that meets an
    /// empty node, which happens only during construction, waits there.
    fn play(&mut self, n: usize) {
        let mut winner = n;
        let mut node = usize::midpoint(n, self.sources.len());
        while node > 0 {
            let Some(&waiting) = self.losers.get(node) else { return };
            if waiting == NOBODY {
                return self.leave(node, winner);
            }
            if self.beats(waiting, winner) {
                self.leave(node, winner);
                winner = waiting;
            }
            node /= 2;
        }
        self.leave(0, winner);
    }

    fn leave(&mut self, node: usize, source: usize) {
        if let Some(loser) = self.losers.get_mut(node) {
            *loser = source;
        }
    }

    /// Whether the entry of source `a` comes before that of source `b`.
    fn beats(&self, a: usize, b: usize) -> bool {
        let (Some(left), Some(right)) = (self.sources.get(a), self.sources.get(b)) else { return false };
        if left.ended || right.ended {
            return !left.ended;
        }
        let order =
            left.fence.cmp(&right.fence).then_with(|| match (left.cursor.entry(), right.cursor.entry()) {
                (Some(left), Some(right)) => left.key.cmp(right.key).then(right.seq.cmp(&left.seq)),
                _ => Ordering::Equal,
            });
        match self.direction {
            Direction::Forward => order.is_lt(),
            Direction::Reverse => order.is_gt(),
        }
    }

    fn winner(&self) -> Option<&MergeInput> {
        self.sources.get(*self.losers.first()?)
    }
}

impl Cursor for MergeCursor {
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.winner()?.cursor.entry()
    }

    fn value(&self) -> Slice {
        self.winner().map_or_else(|| Slice::from([].as_slice()), |source| source.cursor.value())
    }

    fn advance(&mut self) -> Result<()> {
        let Some(&n) = self.losers.first() else { return Ok(()) };
        if let Some(source) = self.sources.get_mut(n) {
            // After an error the tree is unchanged, so that the next call retries the same source.
            match source.cursor.advance() {
                Err(_) if planted(Bug::ReadErrorIsEnd) => {
                    source.cursor = Box::new(Self::new(Vec::new(), self.direction));
                }
                advanced => advanced?,
            }
        }
        self.look_at(n);
        self.play(n);
        Ok(())
    }
}

/// The entries visible to a reader at a sequence: for each key the newest version at or below it, unless that is a
/// tombstone.
#[derive(Debug)]
pub(crate) struct VisibleCursor {
    merge: MergeCursor,
    max_seq: SeqNo,
    /// The key decided last or, in reverse, the key whose versions are being read.
    key: Option<Vec<u8>>,
    /// In reverse: the newest version of that key so far; `Some(None)` is a tombstone.
    newest: Option<Option<Slice>>,
    /// The merge must advance first: its current entry was consumed, or the last step failed.
    stale: bool,
    /// Whether the key decided last was returned.
    shown: bool,
    /// In reverse: number of visible versions read of the current key.
    versions: u64,
    passed: Passed,
}

/// Entries that a cursor read and did not return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Entries of keys that the reader does not find.
    pub(crate) gone: u64,
    /// Further versions of keys that were returned.
    pub(crate) older: u64,
}

impl VisibleCursor {
    pub(crate) fn new(merge: MergeCursor, max_seq: SeqNo) -> Self {
        let passed = Passed::default();
        Self { merge, max_seq, key: None, newest: None, stale: false, shown: false, versions: 0, passed }
    }

    pub(crate) fn has_passed(&self) -> bool {
        self.passed.gone | self.passed.older != 0
    }

    /// Returns and resets the counts of skipped entries.
    pub(crate) fn passed(&mut self) -> Passed {
        std::mem::take(&mut self.passed)
    }

    /// The next key and its value. After an error the next call retries the same step.
    pub(crate) fn next(&mut self) -> Result<Option<(Vec<u8>, Slice)>> {
        match self.merge.direction {
            Direction::Forward => self.next_forward(),
            Direction::Reverse => self.next_reverse(),
        }
    }

    fn refresh(&mut self) -> Result<()> {
        if self.stale {
            self.merge.advance()?;
            self.stale = false;
        }
        Ok(())
    }

    /// Versions come newest first: the first visible version of a key decides.
    fn next_forward(&mut self) -> Result<Option<(Vec<u8>, Slice)>> {
        loop {
            self.refresh()?;
            let Some(entry) = self.merge.entry() else { return Ok(None) };
            self.stale = true;
            let decided = self.key.as_deref() == Some(entry.key);
            if entry.seq > self.max_seq || decided {
                let of_shown = decided && self.shown;
                self.passed.older += u64::from(of_shown);
                self.passed.gone += u64::from(!of_shown);
                continue;
            }
            let key = self.key.get_or_insert_default();
            key.clear();
            key.extend_from_slice(entry.key);
            self.shown = entry.kind == EntryKind::Put;
            if self.shown {
                return Ok(Some((key.clone(), self.merge.value())));
            }
            self.passed.gone += 1;
        }
    }

    /// Versions come oldest first: the last visible version of a key decides, once another key or the end is reached.
    fn next_reverse(&mut self) -> Result<Option<(Vec<u8>, Slice)>> {
        loop {
            self.refresh()?;
            let entry = self.merge.entry();
            if let Some(entry) = entry.filter(|e| self.newest.is_none() || self.key.as_deref() == Some(e.key))
            {
                self.stale = true;
                // Provisional, until it is decided whether the key is returned.
                self.passed.gone += 1;
                if entry.seq <= self.max_seq {
                    self.versions += 1;
                    let key = self.key.get_or_insert_default();
                    key.clear();
                    key.extend_from_slice(entry.key);
                    self.newest = Some((entry.kind == EntryKind::Put).then(|| self.merge.value()));
                }
                continue;
            }
            match self.newest.take() {
                None => return Ok(None),
                Some(None) => self.versions = 0,
                Some(Some(value)) => {
                    let versions = std::mem::take(&mut self.versions);
                    self.passed.gone = self.passed.gone.saturating_sub(versions);
                    self.passed.older += versions.saturating_sub(1);
                    let key = self.key.take();
                    let key = key.ok_or_else(|| Error::internal("a merge has a value without its key"))?;
                    return Ok(Some((key, value)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use std::path::Path;

    type Row = (Vec<u8>, SeqNo, EntryKind);

    /// Rows in memory; each step listed in `failures` fails this many times before it succeeds.
    struct Rows {
        rows: Vec<Row>,
        at: usize,
        failures: Vec<(usize, u32)>,
    }

    impl Cursor for Rows {
        fn entry(&self) -> Option<EntryRef<'_>> {
            self.rows.get(self.at).map(|row| EntryRef { key: &row.0, seq: row.1, kind: row.2, value: &row.0 })
        }

        fn value(&self) -> Slice {
            Slice::from(self.entry().map_or([].as_slice(), |entry| entry.value))
        }

        fn advance(&mut self) -> Result<()> {
            let failure = self.failures.iter_mut().find(|(at, times)| *at == self.at && *times > 0);
            if let Some((_, times)) = failure {
                *times -= 1;
                return Err(Error::corrupt(Path::new("f"), self.at as u64, "planted"));
            }
            self.at += usize::from(self.at < self.rows.len());
            Ok(())
        }
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let start = prop_oneof![5 => Just(b"a-long-common-start".as_slice()), 1 => Just(b"a-".as_slice())];
        let key = (start, proptest::collection::vec(0u8..3, 0..4)).prop_map(|(a, b)| [a, &b].concat());
        let kind = prop_oneof![3 => Just(EntryKind::Put), 1 => Just(EntryKind::Delete)];
        proptest::collection::vec((key, 1u64..30, kind), 0..120).prop_map(|mut rows| {
            rows.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            rows.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
            rows
        })
    }

    fn merge(rows: &[Row], sources: usize, direction: Direction, failures: &[(usize, u32)]) -> MergeCursor {
        let source = |n: usize| {
            let mine = rows.iter().enumerate().filter(|(at, row)| (at / 3 + row.1 as usize) % sources == n);
            let mut rows: Vec<Row> = mine.map(|(_, row)| row.clone()).collect();
            if direction == Direction::Reverse {
                rows.reverse();
            }
            Box::new(Rows { rows, at: 0, failures: failures.to_vec() }) as Box<dyn Cursor>
        };
        MergeCursor::new((0..sources).map(source).collect(), direction)
    }

    proptest! {
        #[test]
        fn merges_in_order(rows in rows(), sources in 1usize..12, reverse in any::<bool>()) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            let mut merge = merge(&rows, sources, direction, &[]);
            let mut got = Vec::new();
            while let Some(entry) = merge.entry() {
                got.push((entry.key.to_vec(), entry.seq, entry.kind));
                merge.advance().unwrap();
            }
            if reverse {
                got.reverse();
            }
            prop_assert_eq!(got, rows);
        }

        #[test]
        fn errors_neither_end_nor_change_what_is_read(
            rows in rows(), sources in 1usize..6, reverse in any::<bool>(), max_seq in 0u64..32,
            failures in proptest::collection::vec((0usize..20, 1u32..3), 0..5),
        ) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            let read = |failures: &[(usize, u32)]| {
                let mut cursor = VisibleCursor::new(merge(&rows, sources, direction, failures), max_seq);
                let mut got = Vec::new();
                loop {
                    match cursor.next() {
                        Ok(Some(found)) => got.push(found),
                        Ok(None) => return got,
                        Err(_) => {}
                    }
                }
            };
            prop_assert_eq!(read(&failures), read(&[]));
        }
    }

    #[test]
    fn nothing_merges_to_nothing() {
        for sources in [0, 1, 3] {
            let empty =
                || Box::new(Rows { rows: Vec::new(), at: 0, failures: Vec::new() }) as Box<dyn Cursor>;
            let mut merge = MergeCursor::new((0..sources).map(|_| empty()).collect(), Direction::Forward);
            merge.advance().unwrap();
            assert!(merge.entry().is_none() && merge.value().is_empty());
        }
    }

    #[test]
    fn an_error_that_stays_is_reported_each_time() {
        let rows = vec![(b"a".to_vec(), 1, EntryKind::Put), (b"b".to_vec(), 2, EntryKind::Put)];
        for direction in [Direction::Forward, Direction::Reverse] {
            let merge = merge(&rows, 1, direction, &[(0, u32::MAX)]);
            let mut cursor = VisibleCursor::new(merge, 9);
            if direction == Direction::Forward {
                assert!(cursor.next().unwrap().is_some());
            }
            for _ in 0..3 {
                assert!(matches!(cursor.next(), Err(Error::Corruption { .. })));
            }
        }
    }
}
