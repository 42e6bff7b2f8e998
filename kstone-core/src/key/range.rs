//! Ranges of keys: of a partition by sort key, and of partitions by prefix.

use super::encoding::{END_BEFORE_SORT, END_WITHOUT_SORT, ESCAPE, encode_partition};

/// A range of encoded keys, from `start` (inclusive) to `end` (exclusive). Without an `end` it extends to the last key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
}

impl KeyRange {
    pub(crate) fn all() -> Self {
        Self { start: Vec::new(), end: None }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }
}

/// Which items of a partition a query reads, by sort key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SortRange {
    /// All items of the partition, including the one without a sort key.
    #[default]
    All,
    /// Items whose sort key starts with these bytes.
    Prefix(Vec<u8>),
    /// Items whose sort key lies between two bounds.
    Between(std::ops::Bound<Vec<u8>>, std::ops::Bound<Vec<u8>>),
}

impl SortRange {
    pub(crate) fn to_key_range(&self, partition: &[u8]) -> KeyRange {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let base = encode_partition(partition);
        let with = |tail: &[&[u8]]| {
            let mut key = base.to_vec();
            tail.iter().for_each(|part| key.extend_from_slice(part));
            key
        };
        let first_sort: &[u8] = &[ESCAPE, END_BEFORE_SORT];
        let past_sorts: &[u8] = &[ESCAPE, END_BEFORE_SORT + 1];
        match self {
            Self::All => {
                KeyRange { start: with(&[&[ESCAPE, END_WITHOUT_SORT]]), end: Some(with(&[past_sorts])) }
            }
            Self::Prefix(prefix) => {
                let start = with(&[first_sort, prefix]);
                let end = successor_of_prefix(&start);
                KeyRange { start, end }
            }
            Self::Between(from, to) => {
                let start = match from {
                    Included(sort) => with(&[first_sort, sort]),
                    Excluded(sort) => with(&[first_sort, sort, &[0]]),
                    Unbounded => with(&[first_sort]),
                };
                let end = match to {
                    Included(sort) => with(&[first_sort, sort, &[0]]),
                    Excluded(sort) => with(&[first_sort, sort]),
                    Unbounded => with(&[past_sorts]),
                };
                // Bounds that cross contain nothing, and readers expect no inverted range.
                let end = if end < start { start.clone() } else { end };
                KeyRange { start, end: Some(end) }
            }
        }
    }
}

/// All keys whose partition key starts with these bytes. An empty prefix matches all keys.
pub(crate) fn partition_prefix_range(prefix: &[u8]) -> KeyRange {
    let start = encode_partition(prefix).to_vec();
    let end = successor_of_prefix(&start);
    KeyRange { start, end }
}

/// Which partitions a scan reads, by partition key: those that all three allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRange {
    /// They start with these bytes; an empty prefix matches all.
    pub prefix: Vec<u8>,
    /// This one, and those after it.
    pub from: Option<Vec<u8>>,
    /// This one, and those before it.
    pub to: Option<Vec<u8>>,
}

impl PartitionRange {
    pub(crate) fn to_key_range(&self) -> KeyRange {
        let KeyRange { mut start, mut end } = partition_prefix_range(&self.prefix);
        if let Some(from) = &self.from {
            start = start.max(encode_partition(from).to_vec());
        }
        if let Some(to) = &self.to {
            let past = [&encode_partition(to)[..], &[ESCAPE, END_BEFORE_SORT + 1]].concat();
            end = Some(end.map_or(past.clone(), |end| end.min(past)));
        }
        // Bounds that cross contain nothing, and readers expect no inverted range.
        let end = end.map(|end| end.max(start.clone()));
        KeyRange { start, end }
    }
}

/// The lowest byte string above every string that starts with `prefix`; `None` if there is none.
fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut next = prefix.get(..=last)?.to_vec();
    if let Some(byte) = next.last_mut() {
        *byte += 1;
    }
    Some(next)
}
