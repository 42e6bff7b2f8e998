//! Empty key ranges of a stripe: ranges in which a reader found only tombstones and what they hide, so that later
//! readers can skip them. In memory only; a new handle has none.
//!
//! A gap guarantees that a reader that sees all writes up to `seq` finds nothing in it. Deletes, flushes and merges
//! preserve that; only a put can end it.
//! 1. A put splits the gap that contains its key before the put becomes visible: under the stripe's lock, before
//!    publication. A reader takes its sequence first and reads the gaps second, so the gaps it gets are already split
//!    around every key that it must see.
//! 2. Puts may also land between a reader's sequence and the moment at which it reports a gap. So it registers a watch
//!    first, under the stripe's lock, and the watch records the puts from then on. Earlier puts are no newer than the
//!    stripe's last sequence at that moment: a reader that does not see all of them reports nothing.
//!
//! Readers report a gap when they had to walk over one. Where many keys were deleted, background work explores the
//! range so that the first reader does not have to (`lsm/scan/explore.rs`).
//!
//! The lock in this module is a leaf.

use crate::key::KeyRange;
use crate::planted::{Bug, planted};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::SeqNo;

/// Gaps kept per stripe; a further one replaces the oldest.
const MOST_GAPS: usize = 8;
/// Gaps bounded by longer keys are not worth the memory.
const LONGEST_KEY: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    state: Mutex<State>,
    /// Whether there are gaps or watches. `Relaxed`: a watch is registered under the stripe's lock, which every put
    /// takes; a reader that sees the flag too late merely walks further.
    any: AtomicBool,
    /// A reader has walked over a potential gap. `Relaxed`: only a hint.
    wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Disjoint, in the order in which they were learned.
    gaps: Vec<Gap>,
    watches: Vec<Watch>,
    last_watch: u64,
    /// The lowest and highest key deleted since the last exploration; `deletes` is their number.
    deleted: Option<(Vec<u8>, Vec<u8>)>,
    deletes: u64,
}

#[derive(Clone, Debug)]
struct Gap {
    range: KeyRange,
    seq: SeqNo,
}

#[derive(Debug)]
struct Watch {
    id: u64,
    range: KeyRange,
    /// The lowest and highest key put into the range since registration.
    put: Option<(Vec<u8>, Vec<u8>)>,
}

impl Gaps {
    /// A put of `key` was inserted. The caller holds the stripe's lock and has not published the put.
    pub(crate) fn put(&self, key: &[u8]) {
        if !self.any.load(Ordering::Relaxed) || planted(Bug::GapNotCut) {
            return;
        }
        let mut state = self.state.lock();
        if let Some(at) = state.gaps.iter().position(|gap| gap.range.contains(key)) {
            let gap = state.gaps.swap_remove(at);
            let (before, behind) = around(gap.range, key, key);
            state.gaps.extend([before, behind].into_iter().flatten().map(|range| Gap { range, ..gap }));
            self.trim(&mut state);
        }
        for watch in state.watches.iter_mut().filter(|watch| watch.range.contains(key)) {
            widen(&mut watch.put, key);
        }
    }

    /// Notes that `key` was deleted; returns the number of deletes since the last [`take_deleted`](Self::take_deleted).
    pub(crate) fn deleted(&self, key: &[u8]) -> u64 {
        let mut state = self.state.lock();
        widen(&mut state.deleted, key);
        state.deletes += 1;
        state.deletes
    }

    /// The range of the keys deleted since the last call.
    pub(crate) fn take_deleted(&self) -> Option<KeyRange> {
        let mut state = self.state.lock();
        state.deletes = 0;
        let (lowest, highest) = state.deleted.take()?;
        Some(KeyRange { start: lowest, end: Some(above(&highest)) })
    }

    /// The ranges between `range` and the gaps nearest to it on each side.
    pub(crate) fn next_to(&self, range: &KeyRange) -> Vec<KeyRange> {
        let state = self.state.lock();
        let gaps = || state.gaps.iter().map(|gap| &gap.range);
        let below = gaps().filter_map(|gap| gap.end.as_ref()).filter(|end| **end < range.start).max();
        let below = below.map(|end| KeyRange { start: end.clone(), end: Some(range.start.clone()) });
        let end = range.end.as_ref();
        let above = gaps().map(|gap| &gap.start).filter(|start| end.is_some_and(|end| end < start)).min();
        let above =
            end.zip(above).map(|(end, start)| KeyRange { start: end.clone(), end: Some(start.clone()) });
        below.into_iter().chain(above).collect()
    }

    /// The parts of a range that a reader at `seq` must walk, in order; `None` means all of it.
    pub(crate) fn around(&self, range: &KeyRange, seq: SeqNo) -> Option<Vec<KeyRange>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut gaps: Vec<KeyRange> = {
            let state = self.state.lock();
            let known = state.gaps.iter().filter(|gap| gap.seq <= seq && gap.range.overlaps(range));
            known.map(|gap| gap.range.clone()).collect()
        };
        if gaps.is_empty() {
            return None;
        }
        gaps.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let (mut parts, mut from) = (Vec::new(), Some(range.start.clone()));
        for gap in gaps {
            if let Some(from) = from.take_if(|from| *from < gap.start) {
                parts.push(KeyRange { start: from, end: Some(gap.start) });
            }
            from = gap.end;
        }
        let tail = from.map(|start| KeyRange { start, end: range.end.clone() });
        parts.extend(tail.filter(|tail| !tail.is_empty()));
        Some(parts)
    }

    /// A reader has walked over a range that a gap would save the next reader.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether the next reader should report gaps.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Registers a watch over the range that a reader is about to walk. The caller holds the stripe's lock, and the
    /// reader has not taken its sequence yet.
    pub(crate) fn watch(&self, range: KeyRange) -> u64 {
        self.wanted.store(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.last_watch += 1;
        let id = state.last_watch;
        state.watches.push(Watch { id, range, put: None });
        self.any.store(true, Ordering::Relaxed);
        id
    }

    /// The reader of that watch, which sees up to `seq`, found nothing in `range`, whose ends are keys that it found or
    /// the ends of its own range.
    pub(crate) fn learn(&self, watch: u64, range: KeyRange, seq: SeqNo) {
        let mut state = self.state.lock();
        // Once a watch has ended nothing records puts: the gap is not learned.
        let Some(watch) = state.watches.iter().find(|known| known.id == watch) else { return };
        let parts = match &watch.put {
            Some((lowest, highest)) => {
                let (before, behind) = around(range, lowest, highest);
                [before, behind]
            }
            None => [Some(range), None],
        };
        for range in parts.into_iter().flatten() {
            state.add(Gap { range, seq });
        }
        self.trim(&mut state);
    }

    /// Ends a watch.
    pub(crate) fn unwatch(&self, watch: u64) {
        let mut state = self.state.lock();
        state.watches.retain(|known| known.id != watch);
        self.trim(&mut state);
    }

    fn trim(&self, state: &mut State) {
        let long = |key: &[u8]| key.len() > LONGEST_KEY;
        state.gaps.retain(|Gap { range, .. }| !long(&range.start) && !range.end.as_deref().is_some_and(long));
        let over = state.gaps.len().saturating_sub(MOST_GAPS);
        state.gaps.drain(..over);
        self.any.store(!(state.gaps.is_empty() && state.watches.is_empty()), Ordering::Relaxed);
    }
}

impl State {
    /// A gap that touches others is merged with them; the result holds for readers that see the newest `seq` among
    /// them.
    fn add(&mut self, mut gap: Gap) {
        if gap.range.is_empty() {
            return; // A query of no keys walks an empty range.
        }
        self.gaps.retain(|known| {
            let apart = known.range.is_below(&gap.range) || gap.range.is_below(&known.range);
            if !apart {
                gap.seq = gap.seq.max(known.seq);
                let range = &mut gap.range;
                if known.range.start < range.start {
                    range.start.clone_from(&known.range.start);
                }
                range.end = range.end.take().zip(known.range.end.as_ref()).map(|(a, b)| a.max(b.clone()));
            }
            apart
        });
        self.gaps.push(gap);
    }
}

impl KeyRange {
    fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether this range ends before the other starts, with space in between.
    fn is_below(&self, other: &Self) -> bool {
        self.end.as_ref().is_some_and(|end| *end < other.start)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let before = |a: &Self, b: &Self| a.end.as_ref().is_some_and(|end| *end <= b.start);
        !before(self, other) && !before(other, self)
    }
}

/// The lowest key above `key`.
pub(crate) fn above(key: &[u8]) -> Vec<u8> {
    let mut above = Vec::with_capacity(key.len() + 1);
    above.extend_from_slice(key);
    above.push(0);
    above
}

/// Extends the ends to include `key`.
fn widen(ends: &mut Option<(Vec<u8>, Vec<u8>)>, key: &[u8]) {
    match ends {
        None => *ends = Some((key.to_vec(), key.to_vec())),
        Some((lowest, _)) if key < lowest.as_slice() => key.clone_into(lowest),
        Some((_, highest)) if key > highest.as_slice() => key.clone_into(highest),
        Some(_) => {}
    }
}

/// The parts of a range below the lowest and above the highest key.
fn around(range: KeyRange, lowest: &[u8], highest: &[u8]) -> (Option<KeyRange>, Option<KeyRange>) {
    let before = KeyRange {
        start: range.start.clone(),
        end: Some(range.end.as_deref().map_or(lowest, |end| end.min(lowest)).to_vec()),
    };
    let behind = KeyRange { start: above(highest).max(range.start), end: range.end };
    (Some(before).filter(|part| !part.is_empty()), Some(behind).filter(|part| !part.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// For each key, by sequence: whether it is present.
    type Versions = BTreeMap<u8, BTreeMap<SeqNo, bool>>;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8),
        Delete(u8),
        /// A reader of a range starts.
        Begin(u8, u8),
        /// The oldest reader reports its gaps and ends.
        Tell,
        Explore,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..12).prop_map(Step::Put),
            6 => (0u8..12).prop_map(Step::Delete),
            2 => (0u8..12, 0u8..13).prop_map(|(from, to)| Step::Begin(from, to)),
            2 => Just(Step::Tell),
            1 => Just(Step::Explore),
        ]
    }

    fn there(versions: &Versions, key: u8, seq: SeqNo) -> bool {
        versions.get(&key).and_then(|all| all.range(..=seq).next_back()).is_some_and(|(_, put)| *put)
    }

    /// Reports the gaps between the keys that a reader of a range finds.
    fn tell(gaps: &Gaps, watch: u64, range: &KeyRange, versions: &Versions, seq: SeqNo) {
        let mut from = range.start.clone();
        for key in (0u8..12).filter(|key| range.contains(&[*key]) && there(versions, *key, seq)) {
            let gap = KeyRange { start: from, end: Some(vec![key]) };
            if !gap.is_empty() {
                gaps.learn(watch, gap, seq);
            }
            from = above(&[key]);
        }
        gaps.learn(watch, KeyRange { start: from, end: range.end.clone() }, seq);
        gaps.unwatch(watch);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Whatever readers report while others write, no later reader skips a key that is present.
        #[test]
        fn what_is_there_is_never_left_out(steps in proptest::collection::vec(step(), 1..80)) {
            let gaps = Gaps::default();
            let (mut versions, mut seq) = (Versions::new(), 0);
            let mut readers: Vec<(u64, KeyRange, SeqNo)> = Vec::new();
            for step in steps {
                match step {
                    Step::Put(key) | Step::Delete(key) => {
                        seq += 1;
                        let put = matches!(step, Step::Put(_));
                        versions.entry(key).or_default().insert(seq, put);
                        if put { gaps.put(&[key]) } else { _ = gaps.deleted(&[key]) }
                    }
                    Step::Begin(from, to) => {
                        let range = KeyRange { start: vec![from], end: (to < 12).then(|| vec![to]) };
                        readers.push((gaps.watch(range.clone()), range, seq));
                    }
                    Step::Tell if readers.is_empty() => {}
                    Step::Tell => {
                        let (watch, range, at) = readers.remove(0);
                        tell(&gaps, watch, &range, &versions, at);
                    }
                    Step::Explore => {
                        for range in gaps.take_deleted().into_iter().flat_map(|range| {
                            gaps.next_to(&range).into_iter().chain([range])
                        }) {
                            tell(&gaps, gaps.watch(range.clone()), &range, &versions, seq);
                        }
                    }
                }
                prop_assert!(gaps.state.lock().gaps.len() <= MOST_GAPS);
                let whole = KeyRange::all();
                for at in (seq.saturating_sub(6)..=seq).chain(readers.iter().map(|reader| reader.2)) {
                    let parts = gaps.around(&whole, at).unwrap_or_else(|| vec![whole.clone()]);
                    prop_assert!(parts.is_sorted_by(|a, b| a.end.as_ref().is_some_and(|end| *end <= b.start)));
                    for key in (0u8..12).filter(|key| there(&versions, *key, at)) {
                        let walked = parts.iter().any(|part| part.contains(&[key]));
                        prop_assert!(walked, "{key} at {at}: {parts:?}, {gaps:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn gaps_that_touch_are_one_and_a_put_splits_them() {
        let gaps = Gaps::default();
        let range = |from: &[u8], to: &[u8]| KeyRange { start: from.to_vec(), end: Some(to.to_vec()) };
        let watch = gaps.watch(KeyRange::all());
        for (from, to, seq) in [(b"b", b"c", 5), (b"d", b"e", 7), (b"c", b"d", 6)] {
            gaps.learn(watch, range(from, to), seq);
        }
        let around = |from: &[u8], to: &[u8], seq| gaps.around(&range(from, to), seq);
        assert_eq!(around(b"a", b"z", 7), Some(vec![range(b"a", b"b"), range(b"e", b"z")]));
        assert_eq!(around(b"a", b"z", 6), None, "this reader does not see all the deletes");
        assert_eq!(around(b"b", b"e", 7), Some(Vec::new()));
        assert_eq!(around(b"f", b"g", 7), None);
        gaps.put(b"c1");
        assert_eq!(around(b"b", b"z", 7), Some(vec![range(b"c1", b"c1\0"), range(b"e", b"z")]));
        // Keys put during the watch are not in a gap; between the lowest and highest of them no gap is learned.
        gaps.learn(watch, range(b"a", b"z"), 9);
        assert_eq!(around(b"a", b"z", 9), Some(vec![range(b"c1", b"c1\0")]));
        gaps.unwatch(watch);
        assert!(gaps.any.load(Ordering::Relaxed), "there are gaps");
        gaps.learn(watch, range(b"c1", b"c2"), 9);
        assert_eq!(around(b"c1", b"c2", 9), Some(vec![range(b"c1", b"c1\0")]), "the watch has ended");
    }

    #[test]
    fn neither_many_gaps_nor_long_keys_fill_memory() {
        let gaps = Gaps::default();
        let watch = gaps.watch(KeyRange::all());
        for n in 0..100u8 {
            gaps.learn(watch, KeyRange { start: vec![n, 0], end: Some(vec![n, 1]) }, 1);
        }
        assert_eq!(gaps.state.lock().gaps.len(), MOST_GAPS);
        gaps.learn(watch, KeyRange { start: vec![200; LONGEST_KEY + 1], end: None }, 1);
        gaps.unwatch(watch);
        assert_eq!(gaps.state.lock().gaps.len(), MOST_GAPS);
        assert_eq!(gaps.around(&KeyRange::all(), 1).map(|parts| parts.len()), Some(MOST_GAPS + 1));
    }
}
