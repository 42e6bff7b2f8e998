//! The merge of cursors into one, and the versions among its entries that a reader sees.
//!
//! Forward, entries are ordered by ascending key and descending sequence (the newest version first); in reverse, they
//! come in exactly the opposite order.

use std::cmp::Ordering;
use std::fmt;

use crate::coding::{fence, shared_prefix};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::types::{Direction, EntryHead, EntryKind, EntryRef, SeqNo};

/// Several cursors as one: a loser tree. Each inner node keeps the source that lost there, so that a step replays one
/// path from a leaf to the root, with one comparison per level. While one of many sources wins again and again, as a
/// stripe does for all items of a partition, it is compared with the second best only.
pub(crate) struct MergeCursor<C> {
    sources: Vec<C>,
    /// The current key of each source.
    heads: Vec<Head>,
    /// `losers[0]` is the winner; node n has the children 2n and 2n + 1, and leaf n + i is source i.
    losers: Vec<usize>,
    /// The best of all sources that the winner beat, once it has won twice. Not known among few sources, where it is
    /// compared with one or two anyway.
    second: Option<usize>,
    direction: Direction,
    /// Common prefix of all current keys.
    common: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Head {
    /// The 8 bytes of the current key after the common prefix, zero-padded: if two fences differ, they decide.
    fence: u64,
    ended: bool,
}

impl<C> fmt::Debug for MergeCursor<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeCursor").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

/// Up to this many sources, as the runs of a stripe are, a step replays the path.
const FEW: usize = 8;

/// No source has reached this node of the tree yet.
const NOBODY: usize = usize::MAX;

impl<C: Cursor> MergeCursor<C> {
    pub(crate) fn new(mut sources: Vec<C>, direction: Direction) -> Self {
        sources.retain(|cursor| cursor.head().is_some());
        let common = sources.first().and_then(Cursor::head).map_or(Vec::new(), |head| head.key.to_vec());
        let heads = vec![Head { fence: 0, ended: false }; sources.len()];
        let losers = vec![NOBODY; sources.len()];
        let mut merge = Self { sources, heads, losers, second: None, direction, common };
        (0..merge.sources.len()).for_each(|n| merge.look_at(n));
        (0..merge.sources.len()).for_each(|n| merge.play(n));
        merge
    }

    /// Updates the head of a source for its current entry.
    #[inline]
    fn look_at(&mut self, n: usize) {
        let (Some(source), Some(head)) = (self.sources.get(n), self.heads.get_mut(n)) else { return };
        match source.head().map(|head| head.key.strip_prefix(self.common.as_slice()).ok_or(head.key)) {
            Some(Ok(rest)) => head.fence = fence(rest),
            Some(Err(key)) => {
                let shared = shared_prefix(&self.common, key);
                self.shorten(shared);
            }
            None => head.ended = true,
        }
    }

    /// Shortens the common prefix. Happens at most once per byte of it.
    #[cold]
    fn shorten(&mut self, to: usize) {
        self.common.truncate(to);
        for (source, head) in self.sources.iter().zip(&mut self.heads) {
            head.fence = fence(source.head().and_then(|head| head.key.get(to..)).unwrap_or_default());
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
            // Which of the two wins is random, so it is selected without a jump.
            let beaten = self.beats(waiting, winner);
            self.leave(node, if beaten { winner } else { waiting });
            winner = if beaten { waiting } else { winner };
            node /= 2;
        }
        self.leave(0, winner);
    }

    #[inline]
    fn leave(&mut self, node: usize, source: usize) {
        if let Some(loser) = self.losers.get_mut(node) {
            *loser = source;
        }
    }

    /// The best of the sources on the path of the winner, `n`: all others lost to one of these.
    fn second_to(&self, n: usize) -> Option<usize> {
        let path = std::iter::successors(Some(usize::midpoint(n, self.sources.len())), |node| Some(node / 2));
        let losers = path.take_while(|node| *node > 0).filter_map(|node| self.losers.get(node).copied());
        losers.reduce(|best, other| if self.beats(other, best) { other } else { best })
    }

    /// Whether the entry of source `a` comes before that of source `b`.
    #[inline]
    fn beats(&self, a: usize, b: usize) -> bool {
        let (Some(left), Some(right)) = (self.heads.get(a), self.heads.get(b)) else { return false };
        if left.ended || right.ended {
            return !left.ended;
        }
        if left.fence == right.fence {
            return self.beats_by_key(a, b);
        }
        (left.fence < right.fence) == (self.direction == Direction::Forward)
    }

    fn beats_by_key(&self, a: usize, b: usize) -> bool {
        let order = self.compare(a, b);
        if self.direction == Direction::Forward { order.is_lt() } else { order.is_gt() }
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let head = |n: usize| self.sources.get(n).and_then(Cursor::head);
        match (head(a), head(b)) {
            (Some(left), Some(right)) => left.key.cmp(right.key).then(right.seq.cmp(&left.seq)),
            _ => Ordering::Equal,
        }
    }

    #[inline]
    fn winner(&self) -> Option<&C> {
        self.sources.get(*self.losers.first()?)
    }
}

impl<C: Cursor> Cursor for MergeCursor<C> {
    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.winner()?.entry()
    }

    #[inline]
    fn head(&self) -> Option<EntryHead<'_>> {
        self.winner()?.head()
    }

    fn value(&self) -> Slice {
        self.winner().map_or_else(Slice::default, Cursor::value)
    }

    #[inline]
    fn advance(&mut self) -> Result<()> {
        let Some(&n) = self.losers.first() else { return Ok(()) };
        if let Some(source) = self.sources.get_mut(n) {
            // After an error the tree is unchanged, so that the next call retries the same source.
            match source.advance() {
                Err(_) if planted(Bug::ReadErrorIsEnd) => {
                    self.sources.clear();
                    return Ok(());
                }
                advanced => advanced?,
            }
        }
        if self.sources.len() == 1 {
            return Ok(());
        }
        self.look_at(n);
        match self.second {
            Some(second) if !self.beats(second, n) => {}
            Some(_) => {
                self.second = None;
                self.play(n);
            }
            None => {
                self.play(n);
                if self.sources.len() > FEW && self.losers.first() == Some(&n) {
                    self.second = self.second_to(n);
                }
            }
        }
        Ok(())
    }
}

/// The entries visible to a reader at a sequence: for each key the newest version at or below it, unless that is a
/// tombstone.
#[derive(Debug)]
pub(crate) struct VisibleCursor<C> {
    entries: C,
    direction: Direction,
    max_seq: SeqNo,
    /// The key decided last or, in reverse, the key whose versions are being read. The buffer is reused.
    key: Vec<u8>,
    /// Forward: whether a key was decided yet.
    decided: bool,
    /// Length of the value of the key returned last.
    value_len: usize,
    /// In reverse: the newest version of the key so far; `Some(None)` is a tombstone.
    newest: Option<Option<Slice>>,
    /// In reverse: the value of the key returned last.
    value: Slice,
    /// The entries must advance first: the current one was consumed, or the last step failed.
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

impl<C: Cursor> VisibleCursor<C> {
    /// `entries` come in this direction.
    pub(crate) fn new(entries: C, direction: Direction, max_seq: SeqNo) -> Self {
        Self {
            entries,
            direction,
            max_seq,
            key: Vec::new(),
            decided: false,
            value_len: 0,
            newest: None,
            value: Slice::default(),
            stale: false,
            shown: false,
            versions: 0,
            passed: Passed::default(),
        }
    }

    #[inline]
    pub(crate) fn has_passed(&self) -> bool {
        self.passed.gone | self.passed.older != 0
    }

    /// Returns and resets the counts of skipped entries.
    pub(crate) fn passed(&mut self) -> Passed {
        std::mem::take(&mut self.passed)
    }

    /// Moves to the next key; false at the end. After an error the next call retries the same step.
    #[inline]
    pub(crate) fn step(&mut self) -> Result<bool> {
        match self.direction {
            Direction::Forward => self.step_forward(),
            Direction::Reverse => self.step_in_reverse(),
        }
    }

    /// The key that the last step came to, and the length of its value.
    #[inline]
    pub(crate) fn key(&self) -> Option<(&[u8], usize)> {
        self.shown.then_some((&self.key, self.value_len))
    }

    /// The value that the last step came to.
    #[inline(always)]
    pub(crate) fn lent_value(&self) -> &[u8] {
        match self.direction {
            Direction::Forward => self.entries.entry().map_or(&[], |entry| entry.value),
            Direction::Reverse => &self.value,
        }
    }

    /// The same, without a copy where possible.
    #[inline]
    pub(crate) fn value(&self) -> Slice {
        match self.direction {
            Direction::Forward => self.entries.value(),
            Direction::Reverse => self.value.clone(),
        }
    }

    #[inline]
    fn refresh(&mut self) -> Result<()> {
        if self.stale {
            self.entries.advance()?;
            self.stale = false;
        }
        Ok(())
    }

    /// Versions come newest first: the first visible version of a key decides.
    #[inline]
    fn step_forward(&mut self) -> Result<bool> {
        loop {
            self.refresh()?;
            let Some(entry) = self.entries.head() else {
                self.shown = false;
                return Ok(false);
            };
            self.stale = true;
            let decided = self.decided && self.key == entry.key;
            if entry.seq > self.max_seq || decided {
                let of_shown = decided && self.shown;
                self.passed.older += u64::from(of_shown);
                self.passed.gone += u64::from(!of_shown);
                continue;
            }
            self.decided = true;
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            self.shown = entry.kind == EntryKind::Put;
            if self.shown {
                self.value_len = entry.value_len;
                return Ok(true);
            }
            self.passed.gone += 1;
        }
    }

    /// Versions come oldest first: the last visible version of a key decides, once another key or the end is reached.
    fn step_in_reverse(&mut self) -> Result<bool> {
        loop {
            self.refresh()?;
            let entry = self.entries.head();
            if let Some(entry) = entry.filter(|entry| self.newest.is_none() || self.key == entry.key) {
                self.stale = true;
                // Provisional, until it is decided whether the key is returned.
                self.passed.gone += 1;
                if entry.seq <= self.max_seq {
                    self.versions += 1;
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                    self.newest = Some((entry.kind == EntryKind::Put).then(|| self.entries.value()));
                }
                continue;
            }
            let newest = self.newest.take();
            self.shown = matches!(newest, Some(Some(_)));
            match newest {
                None => return Ok(false),
                Some(None) => self.versions = 0,
                Some(Some(value)) => {
                    let versions = std::mem::take(&mut self.versions);
                    self.passed.gone = self.passed.gone.saturating_sub(versions);
                    self.passed.older += versions.saturating_sub(1);
                    (self.value_len, self.value) = (value.len(), value);
                    return Ok(true);
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

    use crate::error::Error;

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

    fn merge(
        rows: &[Row],
        sources: usize,
        direction: Direction,
        failures: &[(usize, u32)],
    ) -> MergeCursor<Rows> {
        let source = |n: usize| {
            let mine = rows.iter().enumerate().filter(|(at, row)| (at / 3 + row.1 as usize) % sources == n);
            let mut rows: Vec<Row> = mine.map(|(_, row)| row.clone()).collect();
            if direction == Direction::Reverse {
                rows.reverse();
            }
            Rows { rows, at: 0, failures: failures.to_vec() }
        };
        MergeCursor::new((0..sources).map(source).collect(), direction)
    }

    /// All entries of a cursor, in ascending order.
    fn drained(mut cursor: impl Cursor, direction: Direction) -> Vec<Row> {
        let mut got = Vec::new();
        while let Some(entry) = cursor.entry() {
            got.push((entry.key.to_vec(), entry.seq, entry.kind));
            cursor.advance().unwrap();
        }
        if direction == Direction::Reverse {
            got.reverse();
        }
        got
    }

    proptest! {
        #[test]
        fn merges_in_order(rows in rows(), sources in 1usize..12, reverse in any::<bool>()) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            prop_assert_eq!(drained(merge(&rows, sources, direction, &[]), direction), rows);
        }

        #[test]
        fn merges_of_merges_are_merges(rows in rows(), inner in 1usize..4, outer in 1usize..5, reverse in any::<bool>()) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            // As stripes do, each inner merge has all versions of its keys, and often many keys in succession.
            let of = |n: usize| -> Vec<Row> {
                let mine = |row: &&Row| row.0.iter().take(20).map(|&byte| usize::from(byte)).sum::<usize>() % outer == n;
                rows.iter().filter(mine).cloned().collect()
            };
            let merges = (0..outer).map(|n| merge(&of(n), inner, direction, &[])).collect();
            prop_assert_eq!(drained(MergeCursor::new(merges, direction), direction), rows);
        }

        #[test]
        fn errors_neither_end_nor_change_what_is_read(
            rows in rows(), sources in 1usize..6, reverse in any::<bool>(), max_seq in 0u64..32,
            failures in proptest::collection::vec((0usize..20, 1u32..3), 0..5),
        ) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            let read = |failures: &[(usize, u32)]| {
                let mut cursor = VisibleCursor::new(merge(&rows, sources, direction, failures), direction, max_seq);
                let mut got = Vec::new();
                loop {
                    match cursor.step() {
                        Ok(true) => {
                            let (key, len) = cursor.key().unwrap();
                            assert_eq!(*cursor.value(), *cursor.lent_value());
                            assert_eq!(cursor.value().len(), len);
                            got.push((key.to_vec(), cursor.value().to_vec()));
                        }
                        Ok(false) => return got,
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
            let empty = || Rows { rows: Vec::new(), at: 0, failures: Vec::new() };
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
            let mut cursor = VisibleCursor::new(merge, direction, 9);
            if direction == Direction::Forward {
                assert!(cursor.step().unwrap());
            }
            for _ in 0..3 {
                assert!(matches!(cursor.step(), Err(Error::Corruption { .. })));
            }
        }
    }
}
