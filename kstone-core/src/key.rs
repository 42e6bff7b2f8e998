//! Keys: a partition key with an optional sort key, their order, their encoding and their hashes.
//!
//! Encoded keys compare bytewise in key order: by partition key, then the key without a sort key before those with one,
//! then by sort key. The encoding replaces each 0x00 byte of the partition key with 00 FF; 00 00 ends a key without a
//! sort key; 00 01 precedes the raw sort key. The encoding is part of the file format ([`KEY_ENCODING`]).

pub(crate) mod after;
mod encoding;
mod integer;
mod part;
mod range;
mod sort_range;
mod text;

use std::borrow::Cow;

use self::encoding::{END_BEFORE_SORT, END_WITHOUT_SORT, ESCAPE, ESCAPED_ZERO, encode_partition};
use crate::coding::first_zero;
use crate::error::{Error, Result};
use crate::types::MAX_KEY_BYTES;

pub use encoding::KEY_ENCODING;
pub(crate) use encoding::{EncodedKey, KEY_HASH_SEED, key_hash, partition_hash, plain_partition, stripe_of};
pub use integer::{KeyInteger, integer_from_key};
pub use part::KeyPart;
pub(crate) use range::{KeyRange, partition_prefix_range};
pub use range::{PartitionRange, SortRange};

/// The key of an item: a partition key and an optional sort key, which orders the items of a partition. Both are bytes
/// and compare bytewise; together they are at most 64 KiB long, or `max_key_bytes` if that is lower.
///
/// Any string, byte or integer type ([`KeyPart`]) converts into a key without a sort key, and a pair into a key with one.
/// A missing sort key and an empty one make different keys. Calls reject a key with an empty partition key.
///
/// ```
/// # use kstone_core::Key;
/// let user: Key<'_> = "user#42".into();
/// let airport: Key<'_> = ("US", "KJFK").into();
/// let order: Key<'_> = ("user#42", 7_u64).into();
/// assert_eq!(user.sort(), None);
/// assert_eq!(airport.sort(), Some(&b"KJFK"[..]));
/// assert_eq!(airport.to_string(), "US KJFK");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a> {
    partition: Cow<'a, [u8]>,
    sort: Option<Cow<'a, [u8]>>,
}

impl<'a> Key<'a> {
    /// Makes a key without a sort key.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// assert_eq!(Key::new("user#42"), Key::from("user#42"));
    /// ```
    pub fn new(partition: impl KeyPart<'a>) -> Self {
        Self { partition: partition.into_bytes(), sort: None }
    }

    /// Makes a key with a sort key, which may be empty.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// assert_eq!(Key::with_sort("US", "KJFK"), Key::from(("US", "KJFK")));
    /// assert_ne!(Key::with_sort("US", ""), Key::new("US"));
    /// ```
    pub fn with_sort(partition: impl KeyPart<'a>, sort: impl KeyPart<'a>) -> Self {
        Self { partition: partition.into_bytes(), sort: Some(sort.into_bytes()) }
    }

    /// Returns the partition key.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// assert_eq!(Key::with_sort("US", "KJFK").partition(), b"US");
    /// ```
    pub fn partition(&self) -> &[u8] {
        &self.partition
    }

    /// Returns the sort key, if the key has one.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// assert_eq!(Key::with_sort("US", "KJFK").sort(), Some(&b"KJFK"[..]));
    /// assert_eq!(Key::new("US").sort(), None);
    /// ```
    pub fn sort(&self) -> Option<&[u8]> {
        self.sort.as_deref()
    }

    /// Returns the same key with its bytes owned, copying any that were borrowed.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// fn key_of(id: u32) -> Key<'static> {
    ///     Key::new(format!("user#{id}").as_str()).into_owned()
    /// }
    /// assert_eq!(key_of(42).partition(), b"user#42");
    /// ```
    pub fn into_owned(self) -> Key<'static> {
        Key {
            partition: Cow::Owned(self.partition.into_owned()),
            sort: self.sort.map(|s| Cow::Owned(s.into_owned())),
        }
    }

    /// Returns the length in bytes that limits apply to: partition key plus sort key.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// assert_eq!(Key::with_sort("US", "KJFK").len(), 6);
    /// ```
    #[expect(clippy::len_without_is_empty, reason = "an empty key is refused, there is nothing to ask")]
    pub fn len(&self) -> usize {
        self.partition.len() + self.sort.as_ref().map_or(0, |s| s.len())
    }

    /// Returns an error for a key that no database can store: one with an empty partition key, or longer than 64 KiB. A
    /// database may have a lower limit.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// assert!(Key::new("user#42").check().is_ok());
    /// assert_eq!(Key::new("").check().unwrap_err().code(), "invalid_key");
    /// ```
    ///
    /// # Errors
    /// `InvalidKey`, `KeyTooLarge`.
    pub fn check(&self) -> Result<()> {
        self.check_within(MAX_KEY_BYTES)
    }

    fn check_within(&self, max: usize) -> Result<()> {
        if self.partition.is_empty() {
            return Err(Error::InvalidKey { why: "the partition key is empty".into() });
        }
        if self.len() > max {
            return Err(Error::KeyTooLarge { len: self.len(), max });
        }
        Ok(())
    }

    /// Checks the key against `max_len` and encodes it.
    pub(crate) fn encode(&self, max_len: usize) -> Result<EncodedKey> {
        self.check_within(max_len)?;
        let mut bytes = encode_partition(&self.partition);
        match &self.sort {
            None => bytes.extend_from_slice(&[ESCAPE, END_WITHOUT_SORT]),
            Some(sort) => {
                bytes.extend_from_slice(&[ESCAPE, END_BEFORE_SORT]);
                bytes.extend_from_slice(sort);
            }
        }
        let hash = key_hash(&bytes);
        Ok(EncodedKey { bytes, hash, partition_hash: partition_hash(&self.partition) })
    }

    /// Decodes the stored form of a key, or returns `None` if the bytes are not a valid encoding. The key borrows the
    /// bytes, except for a partition key with a zero byte.
    ///
    /// ```
    /// # use kstone_core::Key;
    /// assert_eq!(Key::decode(b"US\x00\x01KJFK"), Some(Key::with_sort("US", "KJFK")));
    /// assert_eq!(Key::decode(b"US"), None);
    /// ```
    #[inline]
    pub fn decode(encoded: &'a [u8]) -> Option<Self> {
        match plain_partition(encoded) {
            Some(len) => Self::decode_plain(encoded, len),
            None => Self::decode_any(encoded),
        }
    }

    /// The same for a key whose [`plain_partition`] has this length.
    #[inline]
    pub(crate) fn decode_plain(encoded: &'a [u8], len: usize) -> Option<Self> {
        let (partition, [_, _, sort @ ..]) = encoded.split_at_checked(len)? else { return None };
        Some(Self { partition: Cow::Borrowed(partition), sort: Some(Cow::Borrowed(sort)) })
    }

    pub(crate) fn decode_any(encoded: &'a [u8]) -> Option<Self> {
        let mut partition = Cow::Borrowed([].as_slice());
        let mut rest = encoded;
        loop {
            let zero = first_zero(rest)?;
            let (plain, tail) = rest.split_at_checked(zero)?;
            if partition.is_empty() {
                partition = Cow::Borrowed(plain);
            } else {
                partition.to_mut().extend_from_slice(plain);
            }
            let sort = match *tail.get(1)? {
                ESCAPED_ZERO => {
                    partition.to_mut().push(0);
                    rest = tail.get(2..)?;
                    continue;
                }
                END_WITHOUT_SORT if tail.len() == 2 => None,
                END_BEFORE_SORT => Some(Cow::Borrowed(tail.get(2..)?)),
                _ => return None,
            };
            return (!partition.is_empty()).then_some(Self { partition, sort });
        }
    }
}

impl EncodedKey {
    /// The length that limits apply to: partition key plus sort key.
    pub(crate) fn data_len(&self) -> usize {
        Key::decode(&self.bytes).map_or(0, |key| key.len())
    }
}

impl<'a, P: KeyPart<'a>> From<P> for Key<'a> {
    fn from(partition: P) -> Self {
        Key::new(partition)
    }
}

impl<'a, P: KeyPart<'a>, S: KeyPart<'a>> From<(P, S)> for Key<'a> {
    fn from((partition, sort): (P, S)) -> Self {
        Key::with_sort(partition, sort)
    }
}

/// Borrows both components.
impl<'a, P, S> From<&'a (P, S)> for Key<'a>
where
    &'a P: KeyPart<'a>,
    &'a S: KeyPart<'a>,
{
    fn from((partition, sort): &'a (P, S)) -> Self {
        Key::with_sort(partition, sort)
    }
}

impl<'a> From<&'a Key<'_>> for Key<'a> {
    fn from(key: &'a Key<'_>) -> Self {
        Key { partition: Cow::Borrowed(&key.partition), sort: key.sort.as_deref().map(Cow::Borrowed) }
    }
}

/// The partition hash computed from an encoded key, as replay needs it; `None` if the bytes are not a valid encoding.
pub(crate) fn encoded_partition_hash(encoded: &[u8]) -> Option<u64> {
    let zero = first_zero(encoded)?;
    match *encoded.get(zero + 1)? {
        // Most partition keys have no zero byte, so the bytes before the first zero are the partition key.
        END_BEFORE_SORT if zero > 0 => Some(partition_hash(encoded.get(..zero)?)),
        END_WITHOUT_SORT if zero > 0 && encoded.len() == zero + 2 => {
            Some(partition_hash(encoded.get(..zero)?))
        }
        _ => Key::decode(encoded).map(|key| partition_hash(key.partition())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        // Few distinct byte values, including 0x00 and 0xff, so that escapes and shared prefixes are frequent.
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), Just(b'a')], 0..6)
    }

    fn key() -> impl Strategy<Value = Key<'static>> {
        (bytes(), proptest::option::of(bytes())).prop_map(|(mut p, s)| {
            p.push(7);
            match s {
                None => Key::new(p),
                Some(s) => Key::with_sort(p, s),
            }
        })
    }

    proptest! {
        #[test]
        fn encoding_keeps_order_and_round_trips(a in key(), b in key()) {
            let (ea, eb) = (a.encode(100).unwrap(), b.encode(100).unwrap());
            prop_assert_eq!(a.cmp(&b), ea.bytes.cmp(&eb.bytes));
            prop_assert_eq!(encoded_partition_hash(&ea.bytes), Some(ea.partition_hash));
            prop_assert_eq!(Key::decode(&ea.bytes).unwrap(), a);
        }

        #[test]
        fn ranges_hold_just_what_they_say(
            a in key(), partition in bytes(), low in bytes(), high in bytes(),
        ) {
            use std::ops::Bound::*;
            let mut partition = partition;
            partition.push(7);
            let e = a.encode(100).unwrap().bytes;
            let here = a.partition() == partition;
            let holds = |range: SortRange| range.to_key_range(&partition).contains(&e);
            prop_assert_eq!(holds(SortRange::All), here);
            prop_assert_eq!(
                holds(SortRange::Prefix(low.clone())),
                here && a.sort().is_some_and(|s| s.starts_with(&low))
            );
            for (from, to) in [
                (Included(low.clone()), Excluded(high.clone())),
                (Excluded(low.clone()), Included(high.clone())),
                (Unbounded, Included(high.clone())),
                (Included(low.clone()), Unbounded),
            ] {
                let expected = here && a.sort().is_some_and(|s| {
                    use std::ops::RangeBounds;
                    (from.clone(), to.clone()).contains(&s.to_vec())
                });
                prop_assert_eq!(holds(SortRange::Between(from, to)), expected);
            }
            prop_assert_eq!(partition_prefix_range(&low).contains(&e), a.partition().starts_with(&low));
            let between = PartitionRange { from: Some(low.clone()), to: Some(high.clone()), ..Default::default() };
            let within = low.as_slice() <= a.partition() && a.partition() <= high.as_slice();
            prop_assert_eq!(between.to_key_range().contains(&e), within);
        }

        #[test]
        fn decode_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = (Key::decode(&bytes), encoded_partition_hash(&bytes));
        }
    }

    /// Symptom: replay accepted a log record whose key had bytes after the end of a key without a sort key, and every
    /// later scan failed with an error that named no file. Cause: the fast path to the partition hash did not check
    /// what follows the end. Fix: it accepts only what decoding accepts.
    #[test]
    fn a_hash_is_only_of_what_decodes() {
        for bytes in
            [&b"k\0\0"[..], b"k\0\0x", b"k\0\x01x", b"k\0\x02", b"k\0\xff\0\0", b"\0\0", b"k", b"k\0"]
        {
            let decoded = Key::decode(bytes).map(|key| partition_hash(key.partition()));
            assert_eq!(encoded_partition_hash(bytes), decoded, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn missing_and_empty_sort_key_differ() {
        let none = Key::from("a").encode(100).unwrap().bytes;
        let empty = Key::from(("a", "")).encode(100).unwrap().bytes;
        assert!(none < empty);
    }

    #[test]
    fn refuses_empty_and_long_keys() {
        assert!(matches!(Key::from("").encode(9), Err(Error::InvalidKey { .. })));
        assert!(matches!(
            Key::from(("12345", "67890")).encode(9),
            Err(Error::KeyTooLarge { len: 10, max: 9 })
        ));
        assert!(Key::from("123456789").encode(9).is_ok());
    }
}
