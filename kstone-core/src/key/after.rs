//! Where a walk in key order continues.

use super::encoding::{END_BEFORE_SORT, END_WITHOUT_SORT, ESCAPE, encode_partition};
use super::{Key, KeyRange};
use crate::error::{Error, Result};
use crate::types::{Direction, MAX_KEY_BYTES};

/// The position at which an earlier walk stopped. What it names need not exist any more.
#[derive(Clone, Copy, Debug)]
pub enum After<'a> {
    /// Continue with the key next to this one.
    Key(&'a Key<'a>),
    /// Continue with the partition next to this one.
    Partition(&'a [u8]),
}

impl After<'_> {
    /// The lowest encoded key that a walk in this direction has yet to read or, in reverse, the lowest that it has
    /// already passed.
    fn boundary(&self, direction: Direction) -> Result<Vec<u8>> {
        // Whatever the database accepts today, a key within the limit of the format is a position.
        let mut boundary = match self {
            Self::Key(key) => key.encode(MAX_KEY_BYTES)?.bytes.to_vec(),
            Self::Partition([]) => {
                return Err(Error::InvalidKey { why: "the partition key is empty".into() });
            }
            Self::Partition(partition) => encode_partition(partition).to_vec(),
        };
        match (self, direction) {
            (Self::Key(_), Direction::Forward) => boundary.push(0),
            (Self::Key(_), Direction::Reverse) => {}
            (Self::Partition(_), Direction::Forward) => {
                boundary.extend_from_slice(&[ESCAPE, END_BEFORE_SORT + 1]);
            }
            (Self::Partition(_), Direction::Reverse) => {
                boundary.extend_from_slice(&[ESCAPE, END_WITHOUT_SORT]);
            }
        }
        Ok(boundary)
    }
}

impl KeyRange {
    /// The part of the range that a walk in this direction has yet to read. A position outside the range leaves all of
    /// it or nothing.
    pub(crate) fn after(mut self, after: After<'_>, direction: Direction) -> Result<Self> {
        let boundary = after.boundary(direction)?;
        match direction {
            Direction::Forward => {
                let start = self.start.max(boundary);
                // Readers expect a range of no keys to be empty, not inverted.
                self.start = self.end.iter().fold(start, |start, end| start.min(end.clone()));
            }
            Direction::Reverse => {
                let end = self.end.map_or(boundary.clone(), |end| end.min(boundary));
                self.end = Some(end.max(self.start.clone()));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SortRange, partition_prefix_range};
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), Just(b'a')], 0..4)
    }

    fn key() -> impl Strategy<Value = Key<'static>> {
        (bytes(), proptest::option::of(bytes())).prop_map(|(mut partition, sort)| {
            partition.push(b'p');
            match sort {
                None => Key::new(partition),
                Some(sort) => Key::with_sort(partition, sort),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_left_is_what_lies_behind(
            key in key(), at in key(), prefix in bytes(), sort in bytes(), whole in any::<bool>(), reverse in any::<bool>(),
        ) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            let order = if whole { key.partition().cmp(at.partition()) } else { key.cmp(&at) };
            let is_behind = if reverse { order.is_lt() } else { order.is_gt() };
            let after = if whole { After::Partition(at.partition()) } else { After::Key(&at) };
            let encoded = key.encode(100).unwrap().bytes;
            for range in [
                KeyRange::all(),
                partition_prefix_range(&prefix),
                SortRange::Prefix(sort).to_key_range(at.partition()),
                SortRange::All.to_key_range(key.partition()),
            ] {
                let left = range.clone().after(after, direction).unwrap();
                prop_assert_eq!(left.contains(&encoded), range.contains(&encoded) && is_behind);
                prop_assert!(left.end.is_none_or(|end| left.start <= end));
            }
        }
    }

    #[test]
    fn what_is_no_key_is_no_position() {
        let code = |after: After<'_>| KeyRange::all().after(after, Direction::Forward).unwrap_err().code();
        assert_eq!(code(After::Partition(b"")), "invalid_key");
        assert_eq!(code(After::Key(&Key::new(""))), "invalid_key");
        assert_eq!(code(After::Key(&Key::new(vec![b'k'; MAX_KEY_BYTES + 1]))), "key_too_large");
    }
}
