//! The contents of a write, on their way from the caller to the log and the memtables.

use crate::config::DatabaseConfig;
use crate::error::{Error, Result};
use crate::key::{EncodedKey, Key, stripe_of};
use crate::record::{self, ITEMS, OpRef};
use crate::wal::Payload;

/// Puts and deletes that are applied all or none, whatever their stripes. If a key occurs more than once, the last
/// operation wins.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub(super) ops: Vec<(Key<'static>, Option<Vec<u8>>)>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key to a value.
    pub fn put<'k>(&mut self, key: impl Into<Key<'k>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push((key.into().into_owned(), Some(value.into())));
        self
    }

    /// Deletes a key, which need not exist.
    pub fn delete<'k>(&mut self, key: impl Into<Key<'k>>) -> &mut Self {
        self.ops.push((key.into().into_owned(), None));
        self
    }

    /// The keys, with the values to put; `None` for a delete.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = (&Key<'static>, Option<&[u8]>)> {
        self.ops.iter().map(|(key, value)| (key, value.as_deref()))
    }

    /// The number of puts and deletes in the batch.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether the batch has no operations.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds the number of the rejected operation to the error: its key alone may not identify it.
    pub(super) fn at(&self, n: usize, error: Error) -> Error {
        match error {
            Error::InvalidKey { why } => {
                let verb =
                    if self.ops.get(n).is_some_and(|(_, value)| value.is_some()) { "put" } else { "delete" };
                Error::InvalidKey { why: format!("operation {} of {}, a {verb}: {why}", n + 1, self.len()) }
            }
            other => other,
        }
    }
}

/// An operation on its way to the log and a memtable. Its key is encoded and hashed only once.
#[derive(Debug)]
pub(super) struct PendingOp<'a> {
    pub(super) key: EncodedKey,
    /// `None`: a delete.
    pub(super) value: Option<&'a [u8]>,
    pub(super) stripe: u16,
}

impl<'a> PendingOp<'a> {
    pub(super) fn new(
        key: &Key<'_>,
        value: Option<&'a [u8]>,
        limits: &DatabaseConfig,
        stripes: usize,
    ) -> Result<Self> {
        Self::encoded(key.encode(limits.max_key_bytes)?, value, limits, stripes)
    }

    /// The same for a key that is encoded already.
    pub(super) fn encoded(
        key: EncodedKey,
        value: Option<&'a [u8]>,
        limits: &DatabaseConfig,
        stripes: usize,
    ) -> Result<Self> {
        if let Some(value) = value
            && value.len() > limits.max_item_bytes
        {
            return Err(Error::ItemTooLarge { len: value.len(), max: limits.max_item_bytes });
        }
        let stripe = stripe_of(key.partition_hash, stripes) as u16;
        Ok(Self { key, value, stripe })
    }

    pub(super) fn as_ref(&self) -> OpRef<'_> {
        match self.value {
            Some(value) => OpRef::put(&self.key.bytes, value),
            None => OpRef::delete(&self.key.bytes),
        }
    }

    pub(super) fn stripe(&self) -> usize {
        self.stripe.into()
    }
}

/// The operations of one log record.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchRecord<'a> {
    pub(super) ops: &'a [PendingOp<'a>],
    encoded_len: usize,
}

impl<'a> BatchRecord<'a> {
    pub(super) fn new(ops: &'a [PendingOp<'a>]) -> Self {
        Self { ops, encoded_len: ops.iter().map(|op| op.as_ref().encoded_len(ITEMS)).sum() }
    }

    /// Whether the space reserved for `other` serves this one too, if it is not too long: it changes the same keys, and
    /// puts no key that `other` deletes, which is granted more.
    pub(super) fn is_covered_by(&self, other: &BatchRecord<'_>) -> bool {
        let serves = |(op, other): (&PendingOp<'_>, &PendingOp<'_>)| {
            op.key.hash == other.key.hash && (op.value.is_none() || other.value.is_some())
        };
        self.ops.len() == other.ops.len() && self.ops.iter().zip(other.ops).all(serves)
    }
}

impl Payload for BatchRecord<'_> {
    fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.ops.iter().for_each(|op| record::encode(out, ITEMS, op.as_ref()));
    }
}
