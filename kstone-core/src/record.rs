//! The payload of a batch record in the log: its operations, one after another.
//!
//! ```text
//! operation   1      kind: 1 put, 2 delete; others reserved
//!             varint keyspace; 0 is the items, the only one in this version
//!             varint length of the options, in bytes
//!             ..     options, each: varint tag, varint length, value
//!             varint length of the key
//!             ..     encoded key
//!             varint length of the value    } put only
//!             ..     value                  }
//! ```
//!
//! Operation i of a batch has the batch's first sequence plus i. An option with an odd tag is critical: a reader that
//! does not know it must stop. An option with an even tag may be skipped.

use std::path::{Path, PathBuf};

use crate::coding::{Reader, put_varint, varint_len};
use crate::error::{Error, Result};
use crate::key::encoded_partition_hash;
use crate::types::EntryKind;

/// The keyspace of items.
pub(crate) const ITEMS: u32 = 0;

/// An operation of a batch, borrowed from its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpRef<'a> {
    pub(crate) kind: EntryKind,
    /// The encoded key.
    pub(crate) key: &'a [u8],
    /// Empty for a delete.
    pub(crate) value: &'a [u8],
}

/// Why an operation could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadOp {
    /// Truncated, or a number out of range.
    Damaged,
    /// An operation kind that this version does not support.
    UnknownKind(u8),
    /// A keyspace that this version does not support; its keys are not keys of items.
    UnknownKeyspace(u32),
    /// A critical option that this version does not support.
    UnknownOption(u64),
}

impl BadOp {
    /// The error for a batch whose record is at `offset` of the log segment `file`.
    pub(crate) fn in_file(self, file: &Path, offset: u64) -> Error {
        let found = match self {
            Self::Damaged => {
                return Error::corrupt(file, offset, "an operation of this batch cannot be decoded");
            }
            Self::UnknownKind(kind) => format!("operation kind {kind}"),
            Self::UnknownKeyspace(id) => format!("an operation of keyspace {id}"),
            Self::UnknownOption(tag) => format!("operation option {tag}"),
        };
        Error::UnsupportedFormat {
            file: file.to_path_buf(),
            found,
            supported: "puts and deletes of keyspace 0 without critical options".into(),
        }
    }
}

/// Checks that every operation of a batch, whose record is at `offset` of the log segment `file`, can be replayed, and
/// that their number matches the record. `file` is called for an error only: making paths would take longer than the
/// check.
pub(crate) fn check_batch(payload: &[u8], count: u32, file: impl Fn() -> PathBuf, offset: u64) -> Result<()> {
    let mut found = 0u32;
    for op in Ops::new(payload) {
        let op = op.map_err(|bad| bad.in_file(&file(), offset))?;
        if encoded_partition_hash(op.key).is_none() {
            let detail = format!("\"{}\" is not a valid key", op.key.escape_ascii());
            return Err(Error::corrupt(&file(), offset, detail));
        }
        found = found.saturating_add(1);
    }
    if found != count {
        let detail = format!("the record says {count} operations but holds {found}");
        return Err(Error::corrupt(&file(), offset, detail));
    }
    Ok(())
}

impl<'a> OpRef<'a> {
    pub(crate) fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        Self { kind: EntryKind::Put, key, value }
    }

    pub(crate) fn delete(key: &'a [u8]) -> Self {
        Self { kind: EntryKind::Delete, key, value: &[] }
    }

    /// The number of bytes that [`encode`] appends.
    pub(crate) fn encoded_len(&self, keyspace: u32) -> usize {
        let prefixed = |bytes: &[u8]| varint_len(bytes.len() as u64) + bytes.len();
        let value = if self.kind == EntryKind::Put { prefixed(self.value) } else { 0 };
        1 + varint_len(u64::from(keyspace)) + 1 + prefixed(self.key) + value
    }
}

/// Appends an operation to a batch's payload.
pub(crate) fn encode(out: &mut Vec<u8>, keyspace: u32, op: OpRef<'_>) {
    out.push(op.kind as u8);
    put_varint(out, u64::from(keyspace));
    put_varint(out, 0); // no options
    put_varint(out, op.key.len() as u64);
    out.extend_from_slice(op.key);
    if op.kind == EntryKind::Put {
        put_varint(out, op.value.len() as u64);
        out.extend_from_slice(op.value);
    }
}

/// The operations of a batch's payload, in order. Ends after the first that cannot be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Ops<'a> {
    rest: Reader<'a>,
}

impl<'a> Ops<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: Reader::new(payload) }
    }

    /// Bytes of the payload that are not decoded yet.
    pub(crate) fn bytes_left(&self) -> usize {
        self.rest.remaining()
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<OpRef<'a>, BadOp>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let op = decode(&mut self.rest);
        if op.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(op)
    }
}

fn decode<'a>(reader: &mut Reader<'a>) -> Result<OpRef<'a>, BadOp> {
    let kind = reader.u8().ok_or(BadOp::Damaged)?;
    // The layout after the kind is only known for known kinds.
    let kind = EntryKind::from_u8(kind).ok_or(BadOp::UnknownKind(kind))?;
    let keyspace = reader.varint().and_then(|v| u32::try_from(v).ok()).ok_or(BadOp::Damaged)?;
    if keyspace != ITEMS {
        return Err(BadOp::UnknownKeyspace(keyspace));
    }
    check_options(reader.prefixed().ok_or(BadOp::Damaged)?)?;
    let key = reader.prefixed().ok_or(BadOp::Damaged)?;
    let value = match kind {
        EntryKind::Put => reader.prefixed().ok_or(BadOp::Damaged)?,
        EntryKind::Delete => &[],
    };
    Ok(OpRef { kind, key, value })
}

/// Skips options. This version knows none, so a critical one is an error.
fn check_options(options: &[u8]) -> Result<(), BadOp> {
    let mut reader = Reader::new(options);
    while !reader.is_empty() {
        let tag = reader.varint().ok_or(BadOp::Damaged)?;
        reader.prefixed().ok_or(BadOp::Damaged)?;
        if tag % 2 == 1 {
            return Err(BadOp::UnknownOption(tag));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (bool, Vec<u8>, Vec<u8>);

    fn encode_all(ops: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        for (put, key, value) in ops {
            let op = if *put { OpRef::put(key, value) } else { OpRef::delete(key) };
            let len = out.len() + op.encoded_len(ITEMS);
            encode(&mut out, ITEMS, op);
            assert_eq!(out.len(), len);
        }
        out
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..200)
    }

    proptest! {
        #[test]
        fn batches_round_trip_and_cuts_give_a_prefix(
            ops in proptest::collection::vec((any::<bool>(), bytes(), bytes()), 0..5)
        ) {
            let payload = encode_all(&ops);
            let got: Vec<_> = Ops::new(&payload).map(Result::unwrap).collect();
            prop_assert_eq!(got.len(), ops.len());
            for (op, (put, key, value)) in got.iter().zip(&ops) {
                prop_assert_eq!(op.kind == EntryKind::Put, *put);
                prop_assert_eq!(op.key, &key[..]);
                prop_assert_eq!(op.value, if *put { &value[..] } else { &[] });
            }
            for cut in 0..payload.len() {
                let part: Vec<_> = Ops::new(&payload[..cut]).collect();
                for (i, op) in part.iter().enumerate() {
                    match op {
                        Ok(op) => prop_assert_eq!(op, &got[i]),
                        Err(e) => prop_assert!(*e == BadOp::Damaged && i + 1 == part.len()),
                    }
                }
            }
        }

        #[test]
        fn any_bytes_end(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Ops::new(&payload).count() <= payload.len());
        }
    }

    #[test]
    fn unknown_kinds_and_critical_options_are_unsupported_and_optional_ones_skipped() {
        let op = |options: &[u8]| {
            let mut out = vec![1, 0];
            put_varint(&mut out, options.len() as u64);
            out.extend_from_slice(options);
            out.extend_from_slice(&[1, b'k', 1, b'v']);
            out
        };
        fn only(payload: &[u8]) -> Vec<Result<OpRef<'_>, BadOp>> {
            Ops::new(payload).collect()
        }
        let plain = OpRef { kind: EntryKind::Put, key: b"k", value: b"v" };
        assert_eq!(only(&op(&[])), [Ok(plain)]);
        assert_eq!(only(&op(&[2, 3, 9, 9, 9, 4, 0])), [Ok(plain)]);
        assert_eq!(only(&op(&[2, 0, 7, 1, 9])), [Err(BadOp::UnknownOption(7))]);
        assert_eq!(only(&op(&[2, 3, 9])), [Err(BadOp::Damaged)]);
        assert_eq!(only(&[3, 0, 0, 0]), [Err(BadOp::UnknownKind(3))]);
        let mut other = Vec::new();
        encode(&mut other, 7, OpRef::put(b"k", b"v"));
        assert_eq!(only(&other), [Err(BadOp::UnknownKeyspace(7))]);
        let file = Path::new("wal-000001.log");
        assert_eq!(BadOp::UnknownKind(3).in_file(file, 8).code(), "unsupported_format");
        assert_eq!(BadOp::Damaged.in_file(file, 8).code(), "corruption");
    }
}
