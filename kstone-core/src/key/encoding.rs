//! The stored form of a partition key, and the hashes of keys.

use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::coding::first_zero;

/// Number of this encoding in the manifest.
pub const KEY_ENCODING: u32 = 1;

/// Seed of the hash used by filters and hash indexes. That hash must be independent of the stripe hash: if both came
/// from the same bits, all keys of a stripe would share those bits and its filters would pass nearly every key.
pub(crate) const KEY_HASH_SEED: u64 = 0x4b53_544f_4e45_4b48;

pub(super) const ESCAPE: u8 = 0x00;
pub(super) const ESCAPED_ZERO: u8 = 0xff;
pub(super) const END_WITHOUT_SORT: u8 = 0x00;
pub(super) const END_BEFORE_SORT: u8 = 0x01;

pub(super) type KeyBytes = SmallVec<[u8; 64]>;

/// A key in its stored form, with its two hashes.
#[derive(Clone, Debug)]
pub(crate) struct EncodedKey {
    pub(crate) bytes: KeyBytes,
    /// Selects the filter bits and the slot in the hash index.
    pub(crate) hash: u64,
    /// Selects the stripe.
    pub(crate) partition_hash: u64,
}

pub(super) fn encode_partition(partition: &[u8]) -> KeyBytes {
    let mut bytes = KeyBytes::with_capacity(partition.len() + 2);
    let mut rest = partition;
    // Most partition keys have no zero byte; for these, the loop is skipped and the key is copied in one step.
    while let Some(zero) = first_zero(rest) {
        let (plain, tail) = rest.split_at(zero);
        bytes.extend_from_slice(plain);
        bytes.extend_from_slice(&[ESCAPE, ESCAPED_ZERO]);
        rest = tail.get(1..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// The length of the partition key, if the encoded key has a sort key and its partition key no zero byte, as most have:
/// then both are stored as they are, with two bytes between them.
#[inline]
pub(crate) fn plain_partition(encoded: &[u8]) -> Option<usize> {
    let zero = first_zero(encoded)?;
    (zero > 0 && encoded.get(zero + 1) == Some(&END_BEFORE_SORT)).then_some(zero)
}

/// Hashes an encoded key for filters and hash indexes.
pub(crate) fn key_hash(encoded: &[u8]) -> u64 {
    xxh3_64_with_seed(encoded, KEY_HASH_SEED)
}

pub(crate) fn partition_hash(partition: &[u8]) -> u64 {
    xxh3_64(partition)
}

/// The stripe of a partition, from the top bits of its hash; all items of a partition are in one stripe.
pub(crate) fn stripe_of(partition_hash: u64, stripes: usize) -> usize {
    let bits = stripes.trailing_zeros();
    // `stripes` is a power of two from 1 to 256; shifting by 64 (one stripe) would overflow.
    partition_hash.checked_shr(64 - bits).unwrap_or(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripe_comes_from_the_top_bits() {
        assert_eq!(stripe_of(u64::MAX, 256), 255);
        assert_eq!(stripe_of(u64::MAX, 1), 0);
        assert_eq!(stripe_of(1 << 63, 4), 2);
    }
}
