//! Decodes the items that describe SSTs, of which opening a database reads thousands: a tenth of the work of the generic
//! decoder, which takes a call for each byte of a key. Accepts what that one accepts; a test compares them.

use crate::coding::Reader;
use crate::types::{FileId, SstDetails, SstMeta};

/// The first bytes of numbers that do not fit into their first byte: two, four or eight bytes follow.
const TWO: u8 = 251;
const FOUR: u8 = 252;
const EIGHT: u8 = 253;

/// The fields of an item, in bincode's encoding. `None`: the item is too short, or a number too long for its field.
struct Fields<'a>(Reader<'a>);

impl Fields<'_> {
    #[inline]
    fn number(&mut self, longest: u8) -> Option<u64> {
        match self.0.u8()? {
            small if small < TWO => Some(small.into()),
            long if long > longest => None,
            TWO => self.0.u16().map(u64::from),
            FOUR => self.0.u32().map(u64::from),
            _ => self.0.u64(),
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.number(TWO)?.try_into().ok()
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        self.number(FOUR)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.number(EIGHT)
    }

    /// A length, of things that take at least a byte each.
    fn len(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok().filter(|&len| len <= self.0.remaining())
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = self.len()?;
        self.0.bytes(len).map(<[u8]>::to_vec)
    }

    fn numbers(&mut self) -> Option<Vec<u32>> {
        let len = self.len()?;
        let mut numbers = Vec::with_capacity(len);
        for _ in 0..len {
            numbers.push(self.u32()?);
        }
        Some(numbers)
    }

    fn meta(&mut self) -> Option<SstMeta> {
        Some(SstMeta {
            id: self.u64()?,
            stripe: self.u16()?,
            keyspace: self.u32()?,
            run: self.u64()?,
            part: self.u32()?,
            parts: self.u32()?,
            depth: self.u32()?,
            run_seq: (self.u64()?, self.u64()?),
            seq: (self.u64()?, self.u64()?),
            keys: (self.bytes()?, self.bytes()?),
            entries: self.u64()?,
            tombstones: self.u64()?,
            raw_bytes: self.u64()?,
            len: self.u64()?,
            directory: (self.u64()?, self.u32()?),
            checksum: self.u32()?,
            oldest_tombstone_ms: self.u64()?,
            created_ms: self.u64()?,
            origin: self.0.id()?,
            details: None,
        })
    }

    fn details(&mut self) -> Option<SstDetails> {
        Some(SstDetails {
            keys: self.u64()?,
            sample: self.numbers()?,
            bits_per_key: self.u32()?,
            block_size: self.u32()?,
            codec: self.0.u8()?,
        })
    }
}

/// Decodes an SST that is added.
pub(super) fn meta(body: &[u8]) -> Result<SstMeta, String> {
    whole(body, |fields| fields.meta())
}

/// Decodes the details of an SST.
pub(super) fn details(body: &[u8]) -> Result<(FileId, SstDetails), String> {
    whole(body, |fields| Some((fields.u64()?, fields.details()?)))
}

fn whole<T>(body: &[u8], decode: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Result<T, String> {
    let mut fields = Fields(Reader::new(body));
    let decoded = decode(&mut fields).ok_or("its fields are cut short, or a number is too long")?;
    match fields.0.remaining() {
        0 => Ok(decoded),
        rest => Err(format!("{rest} of {} bytes remain after decoding", body.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{from_bytes, to_bytes};
    use super::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..260u64,
            any::<u16>().prop_map(u64::from),
            any::<u32>().prop_map(u64::from),
            any::<u64>()
        ]
    }

    prop_compose! {
        fn metas()(
            at in (number(), any::<u16>(), any::<u32>(), number()),
            parts in any::<(u32, u32, u32)>(),
            seqs in (number(), number(), number(), number()),
            keys in any::<(Vec<u8>, Vec<u8>)>(),
            counts in (number(), number(), number(), number()),
            directory in (number(), any::<u32>()),
            rest in (any::<u32>(), number(), number(), any::<[u8; 16]>()),
        ) -> SstMeta {
            SstMeta {
                id: at.0, stripe: at.1, keyspace: at.2, run: at.3,
                part: parts.0, parts: parts.1, depth: parts.2,
                run_seq: (seqs.0, seqs.1), seq: (seqs.2, seqs.3), keys,
                entries: counts.0, tombstones: counts.1, raw_bytes: counts.2, len: counts.3,
                directory,
                checksum: rest.0, oldest_tombstone_ms: rest.1, created_ms: rest.2, origin: rest.3,
                details: None,
            }
        }
    }

    prop_compose! {
        fn all_details()(
            keys in number(), sample in any::<Vec<u32>>(), settings in any::<(u32, u32)>(), codec in any::<u8>(),
        ) -> SstDetails {
            let (bits_per_key, block_size) = settings;
            SstDetails { keys, sample, bits_per_key, block_size, codec }
        }
    }

    /// The bytes with one of them changed, and as many of them as `keep` leaves.
    fn damaged(mut bytes: Vec<u8>, at: prop::sample::Index, to: u8, keep: prop::sample::Index) -> Vec<u8> {
        let (at, keep) = (at.index(bytes.len()), keep.index(4));
        bytes[at] = to;
        bytes.truncate(if keep == 0 { at } else { bytes.len() });
        bytes
    }

    proptest! {
        #[test]
        fn the_generic_decoder_agrees(
            meta_in in metas(), details_in in (number(), all_details()),
            at in any::<prop::sample::Index>(), to in prop_oneof![249u8..=255, any::<u8>()],
            keep in any::<prop::sample::Index>(),
        ) {
            let bytes = to_bytes(&meta_in).unwrap();
            prop_assert_eq!(meta(&bytes).unwrap(), meta_in);
            let bytes = damaged(bytes, at, to, keep);
            prop_assert_eq!(meta(&bytes).ok(), from_bytes::<SstMeta>(&bytes).ok());

            let bytes = to_bytes(&details_in).unwrap();
            prop_assert_eq!(details(&bytes).unwrap(), details_in);
            let bytes = damaged(bytes, at, to, keep);
            prop_assert_eq!(details(&bytes).ok(), from_bytes::<(FileId, SstDetails)>(&bytes).ok());
        }
    }
}
