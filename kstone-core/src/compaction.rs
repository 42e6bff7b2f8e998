//! Compaction: which runs of a stripe to merge ([`picker`]), and which versions survive the merge ([`Retain`]). Both
//! are pure; the merge itself is elsewhere.
//!
//! The policy is the binomial one for online Bigtable merge compaction (Mathieu, Staelin, Young, Yousefi, "Bigtable
//! merge compaction", 2014): it bounds the number of runs, which determines the cost of reads, at a write cost close to
//! the optimum of all schedules that never have more runs. Each run has a depth, 0 for a flush; a merge takes the
//! newest run and all runs below it that are no deeper than the first of these. Merging everything at the threshold
//! would rewrite ten times as much; merging the cheapest runs first even more, because small runs pile up behind large
//! ones.
//!
//! Retention keeps every version above the horizon, min(oldest snapshot, visible sequence), and the newest version at
//! or below it. A version between two snapshots that neither of them sees is also kept, until the older snapshot is
//! gone: snapshots are few and short-lived, and the rule needs one number instead of a list.

use crate::types::{EntryKind, SeqNo};

pub(crate) mod picker;

/// The fate of a version in a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    Keep,
    /// Shadowed: a newer version hides it from every reader.
    DropShadowed,
    /// A tombstone visible to every reader, with nothing older left for it to hide.
    DropTombstone,
}

/// Decides for each entry of a merge, in order (by key, newest first), whether it survives.
#[derive(Debug)]
pub(crate) struct Retain {
    horizon: SeqNo,
    reaches_oldest: bool,
    /// The last key with a version at or below the horizon. The buffer is reused.
    settled: Option<Vec<u8>>,
}

impl Retain {
    /// `horizon` is the highest sequence visible to every present and future reader. `reaches_oldest`: the merge
    /// includes the stripe's oldest run, so nothing older is left outside of it.
    pub(crate) fn new(horizon: SeqNo, reaches_oldest: bool) -> Self {
        Self { horizon, reaches_oldest, settled: None }
    }

    pub(crate) fn keep(&mut self, key: &[u8], seq: SeqNo, kind: EntryKind) -> Retention {
        if seq > self.horizon {
            return Retention::Keep;
        }
        if self.settled.as_deref() == Some(key) {
            return Retention::DropShadowed;
        }
        let settled = self.settled.get_or_insert_default();
        settled.clear();
        settled.extend_from_slice(key);
        if self.reaches_oldest && kind == EntryKind::Delete {
            Retention::DropTombstone
        } else {
            Retention::Keep
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    type Versions = BTreeMap<(u8, std::cmp::Reverse<SeqNo>), EntryKind>;

    /// The sequence of the value that a reader at `at` finds for a key, if any.
    fn read(versions: &Versions, key: u8, at: SeqNo) -> Option<SeqNo> {
        let newest = versions.iter().find(|((k, seq), _)| *k == key && seq.0 <= at)?;
        (*newest.1 == EntryKind::Put).then_some(newest.0.1.0)
    }

    fn merge(versions: &Versions, horizon: SeqNo, reaches_oldest: bool) -> (Versions, Vec<Retention>) {
        let mut retain = Retain::new(horizon, reaches_oldest);
        let mut kept = Versions::new();
        let mut verdicts = Vec::new();
        for (&(key, seq), &kind) in versions {
            let verdict = retain.keep(&[key], seq.0, kind);
            if verdict == Retention::Keep {
                kept.insert((key, seq), kind);
            }
            verdicts.push(verdict);
        }
        (kept, verdicts)
    }

    fn versions(seqs: std::ops::Range<SeqNo>) -> impl Strategy<Value = Versions> {
        let kind = prop_oneof![Just(EntryKind::Put), Just(EntryKind::Delete)];
        proptest::collection::btree_map((0u8..4, seqs.prop_map(std::cmp::Reverse)), kind, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn readers_at_or_above_the_horizon_see_no_difference(
            merged in versions(20..60), older in versions(1..20), newer in versions(60..70),
            horizon in 0u64..70, reaches_oldest in any::<bool>(),
        ) {
            let older = if reaches_oldest { Versions::new() } else { older };
            let (kept, _) = merge(&merged, horizon, reaches_oldest);
            let whole = |part: &Versions| -> Versions {
                older.iter().chain(part).chain(&newer).map(|(k, v)| (*k, *v)).collect()
            };
            let (before, after) = (whole(&merged), whole(&kept));
            for key in 0..4 {
                for at in horizon..=71 {
                    prop_assert_eq!(read(&before, key, at), read(&after, key, at), "key {} at {}", key, at);
                }
            }
        }

        #[test]
        fn at_most_one_version_at_or_below_the_horizon_survives(
            merged in versions(20..60), horizon in 0u64..70, reaches_oldest in any::<bool>(),
        ) {
            let (kept, verdicts) = merge(&merged, horizon, reaches_oldest);
            for key in 0..4 {
                let low = |v: &Versions| v.iter().filter(|((k, s), _)| *k == key && s.0 <= horizon).map(|(_, k)| *k).collect::<Vec<_>>();
                let (before, after) = (low(&merged), low(&kept));
                let gone = reaches_oldest && before.first() == Some(&EntryKind::Delete);
                prop_assert_eq!(after.len(), usize::from(!before.is_empty() && !gone));
            }
            prop_assert!(reaches_oldest || !verdicts.contains(&Retention::DropTombstone));
        }
    }

    #[test]
    fn the_first_key_may_be_empty() {
        let mut retain = Retain::new(9, true);
        assert_eq!(retain.keep(b"", 10, EntryKind::Put), Retention::Keep);
        assert_eq!(retain.keep(b"", 9, EntryKind::Put), Retention::Keep);
        assert_eq!(retain.keep(b"", 8, EntryKind::Delete), Retention::DropShadowed);
        assert_eq!(retain.keep(b"a", 8, EntryKind::Delete), Retention::DropTombstone);
        assert_eq!(retain.keep(b"a", 7, EntryKind::Put), Retention::DropShadowed);
    }
}
