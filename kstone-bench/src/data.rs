//! Keys and values of the workloads: every engine gets the same bytes.
//!
//! `n` and the [`Layout`] determine the key of item `n`. Its value is one encoded item of an exact length. The payload
//! is half random and half constant, so that it compresses, and starts with `n` and the version, so that every answer
//! can be checked. Values too short for all that are the first bytes of such a payload, and only their length is checked.

use anyhow::{Context, Result, ensure};
use kstone_api::{ItemBuilder, Key};

/// The layout of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A partition for each item, named by a permutation of the numbers: in no order.
    Scattered,
    /// The same, with names in the order of the numbers.
    Ordered,
    /// Scattered partitions of this many items; within a partition, items are in the order of their numbers.
    Partitions(u64),
    /// The same with keys of 16 bytes instead of hexadecimal digits: 8 for the partition and 8 for the sort key.
    Rows(u64),
    /// One partition that holds everything, in the order of the numbers.
    OnePartition,
}

/// A key, for engines with partitions and for engines with plain byte keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchKey {
    bytes: [u8; PARTITION + SORT],
    len: usize,
    /// The length of the partition key.
    partition: usize,
}

const PARTITION: usize = 16;
const SORT: usize = 10;

impl Layout {
    /// The number of items in a partition.
    pub fn partition_items(self) -> u64 {
        match self {
            Self::Scattered | Self::Ordered => 1,
            Self::Partitions(size) | Self::Rows(size) => size.max(1),
            Self::OnePartition => u64::MAX,
        }
    }
}

impl BenchKey {
    pub fn new(layout: Layout, n: u64) -> Self {
        let (partition, sort) = match layout {
            Layout::Scattered => (scatter(n), None),
            Layout::Ordered => (n, None),
            Layout::Partitions(size) | Layout::Rows(size) => {
                (scatter(n / size.max(1)), Some(n % size.max(1)))
            }
            Layout::OnePartition => (0, Some(n)),
        };
        let mut bytes = [0; PARTITION + SORT];
        if let (Layout::Rows(_), Some(sort)) = (layout, sort) {
            bytes[..8].copy_from_slice(&partition.to_be_bytes());
            bytes[8..16].copy_from_slice(&sort.to_be_bytes());
            return Self { bytes, len: 16, partition: 8 };
        }
        hexadecimal(partition, &mut bytes[..PARTITION]);
        if let Some(sort) = sort {
            hexadecimal(sort, &mut bytes[PARTITION..]);
        }
        let len = if sort.is_some() { PARTITION + SORT } else { PARTITION };
        Self { bytes, len, partition: PARTITION }
    }

    /// Partition and sort key in one: in this order, each partition is one range.
    pub fn flat(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The partition key, a prefix of [`BenchKey::flat`].
    pub fn partition(&self) -> &[u8] {
        &self.bytes[..self.partition]
    }

    /// The sort key: what follows in [`BenchKey::flat`]; `None` for keys without one.
    pub fn sort(&self) -> Option<&[u8]> {
        (self.len > self.partition).then(|| &self.bytes[self.partition..self.len])
    }

    /// The key in the form that the database takes.
    pub fn key(&self) -> Key<'_> {
        match self.sort() {
            Some(sort) => Key::with_sort(self.partition(), sort),
            None => Key::new(self.partition()),
        }
    }
}

/// A permutation of the numbers, since the multiplier is odd.
pub fn scatter(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hexadecimal(mut n: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

#[derive(Clone, Debug)]
pub struct Values {
    template: Vec<u8>,
    payload: usize,
    /// Whether no part of the payload is constant.
    random: bool,
    seed: u64,
}

impl Values {
    /// Creates values of exactly `bytes` bytes.
    pub fn new(bytes: usize, seed: u64) -> Result<Self> {
        if bytes < STAMP {
            ensure!(bytes > 0, "values must have at least one byte");
            return Ok(Self { template: vec![MARK; bytes], payload: 0, random: false, seed });
        }
        // The overhead of the encoding grows with the payload, by a byte here and there: first get close, then step.
        let encoded = |payload: usize| {
            ItemBuilder::new().binary("payload", vec![MARK; payload]).build().encode().context("an item")
        };
        let overhead = encoded(bytes)?.len() - bytes;
        let least = bytes.saturating_sub(overhead).max(STAMP);
        for payload in least..least + 8 {
            let template = encoded(payload)?;
            if template.len() == bytes {
                let start = template.windows(STAMP).position(|window| window == [MARK; STAMP]);
                let start = start.context("an encoded item does not have its payload in one piece")?;
                return Ok(Self { template, payload: start, random: false, seed });
            }
        }
        let least = encoded(STAMP)?.len();
        ensure!(bytes >= least, "values must have at least {least} bytes, not {bytes}");
        anyhow::bail!("no item is exactly {bytes} bytes long; use one byte more or less");
    }

    /// The same, but random all over, so that they do not compress.
    pub fn incompressible(self) -> Self {
        Self { random: true, ..self }
    }

    pub fn len(&self) -> usize {
        self.template.len()
    }

    /// Always false: a value has bytes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes this version of the value of item `n` to `buffer`.
    pub fn fill(&self, n: u64, version: u64, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&self.template);
        if self.len() < STAMP {
            let stamp = splitmix(scatter(n ^ self.seed).wrapping_add(version)).to_le_bytes();
            buffer.iter_mut().zip(stamp).for_each(|(byte, stamp)| *byte = stamp);
            return;
        }
        let payload = &mut buffer[self.payload..];
        payload[..8].copy_from_slice(&n.to_le_bytes());
        payload[8..16].copy_from_slice(&version.to_le_bytes());
        let end = if self.random { payload.len() } else { (payload.len() / 2).max(STAMP) };
        let mut state = scatter(n ^ self.seed).wrapping_add(scatter(version));
        for chunk in payload[STAMP..end].chunks_mut(8) {
            state = splitmix(state);
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
    }

    /// Whether this is one of these values, and its item and version `agree`, if it is long enough to contain them.
    pub fn check(&self, value: &[u8], agree: impl FnOnce(u64, u64) -> bool) -> bool {
        match self.len() < STAMP {
            true => value.len() == self.len(),
            false => self.read(value).is_some_and(|(n, version)| agree(n, version)),
        }
    }

    /// The item and version of a value; `None` if it is not one of these values, or too short to contain them.
    pub fn read(&self, value: &[u8]) -> Option<(u64, u64)> {
        if value.len() != self.template.len() || value.len() < STAMP {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
        Some((number(self.payload)?, number(self.payload + 8)?))
    }
}

const MARK: u8 = 0xb5;

/// The shortest payload: a number and a version.
const STAMP: usize = 16;

/// The next of a sequence of pseudorandom numbers (Steele, Lea and Flood, Fast Splittable Pseudorandom Number
/// Generators, 2014).
pub fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kstone_api::ItemView;

    use super::*;

    #[test]
    fn values_have_exactly_the_length_asked_for_and_are_items() {
        for bytes in [40, 100, 200, 300, 1000, 100_000] {
            let values = Values::new(bytes, 42).unwrap();
            let mut value = Vec::new();
            values.fill(7, 9, &mut value);
            assert_eq!((value.len(), values.len()), (bytes, bytes));
            assert_eq!(values.read(&value), Some((7, 9)));
            ItemView::new(&value).unwrap().validate().unwrap();
            let mut other = Vec::new();
            values.fill(7, 10, &mut other);
            assert_ne!(value, other);
        }
        assert!(Values::new(20, 42).is_err(), "too short for an item with its number and version");
    }

    #[test]
    fn short_values_differ_and_only_their_length_can_be_checked() {
        for bytes in [1, 8] {
            let values = Values::new(bytes, 42).unwrap();
            let mut seen = BTreeSet::new();
            for n in 0..100 {
                let mut value = Vec::new();
                values.fill(n, 1, &mut value);
                assert!(values.check(&value, |_, _| false) && value.len() == bytes);
                seen.insert(value);
            }
            assert!(seen.len() > 50 && !values.check(&[0; 9], |_, _| true), "{bytes}");
        }
        assert!(Values::new(0, 42).is_err());
    }

    #[test]
    fn half_of_a_value_compresses() {
        let values = Values::new(1000, 1).unwrap();
        let mut value = Vec::new();
        values.fill(3, 0, &mut value);
        let constant = value.iter().filter(|byte| **byte == MARK).count();
        assert!((450..550).contains(&constant), "{constant}");
        let values = values.incompressible();
        values.fill(3, 0, &mut value);
        assert!(
            value.iter().filter(|byte| **byte == MARK).count() < 50 && values.read(&value) == Some((3, 0))
        );
    }

    #[test]
    fn keys_are_distinct_and_their_partitions_are_ranges() {
        let rows = Layout::Rows(10);
        for layout in [Layout::Scattered, Layout::Ordered, Layout::Partitions(10), rows, Layout::OnePartition]
        {
            let keys: BTreeSet<Vec<u8>> =
                (0..1000).map(|n| BenchKey::new(layout, n).flat().to_vec()).collect();
            assert_eq!(keys.len(), 1000, "{layout:?}");
        }
        for layout in [Layout::Partitions(10), rows] {
            let (a, b) = (BenchKey::new(layout, 31), BenchKey::new(layout, 38));
            assert_eq!(a.partition(), b.partition());
            assert!(a.flat() < b.flat() && a.flat().starts_with(a.partition()));
            assert_eq!(a.key().sort(), a.sort());
        }
        let row = BenchKey::new(rows, 31);
        assert_eq!((row.partition().len(), row.flat().len()), (8, 16));
        assert!(BenchKey::new(Layout::Ordered, 1).flat() < BenchKey::new(Layout::Ordered, 2).flat());
    }
}
