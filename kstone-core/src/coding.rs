//! Little-endian integers and varints, read with bounds checks: decoders never index and never panic.

/// Appends an unsigned LEB128 varint (1 to 10 bytes).
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number of bytes that [`put_varint`] appends.
pub(crate) fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Reads bytes from the front. A read past the end returns `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next 8 bytes as a number, which stay where they are.
    #[inline]
    pub(crate) fn peek_u64(&self) -> Option<u64> {
        self.rest.first_chunk().copied().map(u64::from_le_bytes)
    }

    pub(crate) fn id(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    /// Reads an unsigned LEB128 varint; `None` if it is truncated or exceeds 64 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Some(u64::from(byte))
            }
            // Two bytes: typical value lengths.
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Some(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a varint length and that many bytes.
    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.bytes(len)
    }
}

/// A part of `bytes` that must be within bounds: they were checked earlier, or follow from how the bytes were made.
/// With debug assertions an error in this panics. Without them the result is empty, which suits callers that cannot
/// return an error; code whose bytes are about to be written must return one instead.
#[inline]
#[track_caller]
pub(crate) fn part<I>(bytes: &[u8], range: I) -> &[u8]
where
    I: std::slice::SliceIndex<[u8], Output = [u8]>,
{
    let part = bytes.get(range);
    debug_assert!(part.is_some(), "a range that must be in bounds is not, of {} bytes", bytes.len());
    part.unwrap_or_default()
}

/// The position of the first zero byte.
#[inline]
pub(crate) fn first_zero(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A borrow reaches higher bytes only from a zero byte, so the lowest bit set is exact.
        let zeros = word.wrapping_sub(LOW) & !word & HIGH;
        if zeros != 0 {
            return Some(n * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    let zero = rest.iter().position(|&byte| byte == 0)?;
    Some(words.len() * 8 + zero)
}

/// The number of leading bytes that two strings share.
pub(crate) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let (words, others) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let mut shared = 0;
    for (word, other) in words.iter().zip(others) {
        let difference = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other);
        if difference != 0 {
            return shared + difference.trailing_zeros() as usize / 8;
        }
        shared += 8;
    }
    let rest = part(a, shared..).iter().zip(part(b, shared..));
    shared + rest.take_while(|(x, y)| x == y).count()
}

/// The first 8 bytes, zero-padded, as a number that compares as they do. If two fences differ, they order their
/// strings; if they are equal, the strings must be compared.
pub(crate) fn fence(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_shared_prefix_ends_where_bytes_differ(
            common in proptest::collection::vec(any::<u8>(), 0..30),
            a in proptest::collection::vec(0u8..2, 0..12),
            b in proptest::collection::vec(0u8..2, 0..12),
        ) {
            let (a, b) = ([&common[..], &a].concat(), [&common[..], &b].concat());
            let expected = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
            prop_assert_eq!(shared_prefix(&a, &b), expected);
        }

        #[test]
        fn varints_round_trip(value in any::<u64>(), tail in any::<u8>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            for cut in 0..out.len() {
                prop_assert_eq!(Reader::new(&out[..cut]).varint(), None);
            }
            out.push(tail);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert_eq!(reader.u8(), Some(tail));
        }
    }

    proptest! {
        #[test]
        fn finds_the_first_zero(bytes in proptest::collection::vec(prop_oneof![6 => any::<u8>(), 1 => Just(0), 1 => Just(1), 1 => Just(0x80)], 0..40)) {
            prop_assert_eq!(first_zero(&bytes), bytes.iter().position(|&byte| byte == 0));
        }
    }

    #[test]
    fn refuses_varints_over_64_bits() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), None);
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(Reader::new(&max).varint(), Some(u64::MAX));
        max[9] = 2;
        assert_eq!(Reader::new(&max).varint(), None);
    }
}
