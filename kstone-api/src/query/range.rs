//! Bounds of sort keys, and their intersection.

use std::ops::Bound::{self, Excluded, Included, Unbounded};

use kstone_core::SortRange;

/// The intersection of all three bounds. An item without a sort key is in it only if there are no bounds at all.
pub(super) fn sort_range(prefix: Option<Vec<u8>>, from: Bound<Vec<u8>>, to: Bound<Vec<u8>>) -> SortRange {
    let (from, to) = match (prefix, from, to) {
        (None, Unbounded, Unbounded) => return SortRange::All,
        (Some(prefix), Unbounded, Unbounded) => return SortRange::Prefix(prefix),
        (None, from, to) => (from, to),
        (Some(prefix), from, to) => {
            let end = successor(&prefix).map_or(Unbounded, Excluded);
            (higher(from, Included(prefix)), lower(to, end))
        }
    };
    // Bounds that cross contain nothing; normalise them to an ordinary empty range.
    if let (Included(a) | Excluded(a), Included(b) | Excluded(b)) = (&from, &to)
        && a > b
    {
        return SortRange::Between(Included(a.clone()), Excluded(a.clone()));
    }
    SortRange::Between(from, to)
}

/// The tighter of two lower bounds.
pub(super) fn higher(a: Bound<Vec<u8>>, b: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    let rank = |bound: &Bound<Vec<u8>>| match bound {
        Unbounded => None,
        Included(at) => Some((at.clone(), false)),
        Excluded(at) => Some((at.clone(), true)),
    };
    if rank(&a) >= rank(&b) { a } else { b }
}

/// The tighter of two upper bounds.
pub(super) fn lower(a: Bound<Vec<u8>>, b: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    match (&a, &b) {
        (_, Unbounded) => a,
        (Unbounded, _) => b,
        (Included(x) | Excluded(x), Included(y) | Excluded(y)) => {
            let tighter = x < y || (x == y && matches!(a, Excluded(_)));
            if tighter { a } else { b }
        }
    }
}

/// The smallest byte string above all those that start with `prefix`.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let (&byte, head) = prefix.get(..=last)?.split_last()?;
    Some([head, &[byte + 1]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeBounds;

    #[test]
    fn bounds_meet() {
        let strings: Vec<Vec<u8>> =
            ["", "a", "a\0", "ab", "abc", "ac", "b", "\u{7f}"].map(|s| s.as_bytes().to_vec()).to_vec();
        let bounds = || {
            let each = strings.iter().flat_map(|s| [Included(s.clone()), Excluded(s.clone())]);
            each.chain([Unbounded]).collect::<Vec<_>>()
        };
        let prefixes =
            [None, Some(vec![]), Some(b"a".to_vec()), Some(b"ab".to_vec()), Some(vec![0xff, 0xff])];
        for prefix in &prefixes {
            for from in bounds() {
                for to in bounds() {
                    let range = sort_range(prefix.clone(), from.clone(), to.clone());
                    for key in &strings {
                        let wanted = prefix.as_ref().is_none_or(|p| key.starts_with(p))
                            && (from.clone(), to.clone()).contains(key);
                        let held = match &range {
                            SortRange::All => true,
                            SortRange::Prefix(p) => key.starts_with(p),
                            SortRange::Between(a, b) => (a.clone(), b.clone()).contains(key),
                        };
                        assert_eq!(held, wanted, "{key:?} in {prefix:?} {from:?} {to:?}: {range:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn successors() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }
}
