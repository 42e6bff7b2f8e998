//! Integers in keys: bytes of a fixed width that sort in the order of the integers.

use std::borrow::Cow;

use super::part::{KeyPart, sealed};

/// An integer type that can be a component of a key, and be read back from it: `u8` to `u128` and `i8` to `i128`. See
/// [`KeyPart`] for the bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an integer that keys hold",
    label = "`u8` to `u128` and `i8` to `i128` are",
    note = "`usize` and `isize` are not, because their width depends on the machine"
)]
pub trait KeyInteger: for<'a> KeyPart<'a> + Copy {
    /// Decodes the bytes.
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Reads an integer back from a partition key or sort key that was made of one; `None` if the bytes do not have the
/// width of this type. Bytes do not tell their type: read an integer with the type it was written with.
///
/// ```
/// use kstone_core::{Key, integer_from_key};
///
/// let key = Key::from(("user", 42_u64));
/// assert_eq!(key.sort().and_then(integer_from_key::<u64>), Some(42));
/// assert_eq!(key.sort().and_then(integer_from_key::<u32>), None);
///
/// let key = Key::new(-7_i64);
/// assert_eq!(integer_from_key(key.partition()), Some(-7_i64));
/// ```
pub fn integer_from_key<I: KeyInteger>(bytes: &[u8]) -> Option<I> {
    I::from_bytes(bytes)
}

/// The last column maps an integer to one whose big-endian bytes have the right order, and back: it inverts the sign bit
/// of signed integers, so that negative ones come first.
macro_rules! integers {
    ($($integer:ident: $mask:expr),* $(,)?) => {$(
        impl sealed::Sealed for $integer {}
        impl sealed::Sealed for &$integer {}

        impl<'a> KeyPart<'a> for $integer {
            fn into_bytes(self) -> Cow<'a, [u8]> {
                Cow::Owned((self ^ $mask).to_be_bytes().to_vec())
            }
        }

        impl<'a> KeyPart<'a> for &$integer {
            fn into_bytes(self) -> Cow<'a, [u8]> {
                (*self).into_bytes()
            }
        }

        impl KeyInteger for $integer {
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_be_bytes(bytes.try_into().ok()?) ^ $mask)
            }
        }
    )*};
}

integers! {
    u8: 0, u16: 0, u32: 0, u64: 0, u128: 0,
    i8: i8::MIN, i16: i16::MIN, i32: i32::MIN, i64: i64::MIN, i128: i128::MIN,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;
    use crate::Key;

    fn agree<I: KeyInteger + Ord + Debug>(a: I, b: I) {
        let (ka, kb) = (Key::new(a), Key::new(b));
        assert_eq!(ka.cmp(&kb), a.cmp(&b), "{a:?} {b:?}");
        assert_eq!(ka.len(), size_of::<I>());
        assert_eq!(integer_from_key(ka.partition()), Some(a));
        let encoded = |key: &Key<'_>| key.encode(100).unwrap().bytes;
        assert_eq!(encoded(&ka).cmp(&encoded(&kb)), a.cmp(&b), "{a:?} {b:?} as partition keys");
        let pairs = (Key::with_sort("p", a), Key::with_sort("p", b));
        assert_eq!(encoded(&pairs.0).cmp(&encoded(&pairs.1)), a.cmp(&b), "{a:?} {b:?} as sort keys");
    }

    macro_rules! all_agree {
        ($a:expr, $b:expr, $($integer:ident)*) => {$(
            let interesting = [$integer::MIN, $integer::MIN + 1, 0, 1, $integer::MAX - 1, $integer::MAX];
            for a in interesting.into_iter().chain([$a as $integer, $b as $integer, ($a >> 64) as $integer]) {
                agree(a, $b as $integer);
                interesting.into_iter().for_each(|b| agree(a, b));
            }
        )*};
    }

    proptest! {
        #[test]
        fn integers_sort_as_their_keys_and_are_read_back(a in any::<u128>(), b in any::<u128>()) {
            all_agree!(a, b, u8 u16 u32 u64 u128 i8 i16 i32 i64 i128);
        }
    }

    #[test]
    fn the_bytes_are_part_of_the_format() {
        let cases: [(Key<'_>, &[u8]); 10] = [
            (Key::new(0x2a_u8), &[0x2a]),
            (Key::new(0x1234_u16), &[0x12, 0x34]),
            (Key::new(1_u32), &[0, 0, 0, 1]),
            (Key::new(u64::MAX), &[0xff; 8]),
            (Key::new(1_u128), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (Key::new(-1_i8), &[0x7f]),
            (Key::new(0_i16), &[0x80, 0]),
            (Key::new(1_i32), &[0x80, 0, 0, 1]),
            (Key::new(i64::MIN), &[0; 8]),
            (Key::new(i128::MAX), &[0xff; 16]),
        ];
        for (key, bytes) in cases {
            assert_eq!(key.partition(), bytes);
        }
    }

    #[test]
    fn other_widths_are_not_read() {
        for len in 0..20 {
            let bytes = vec![7; len];
            assert_eq!(integer_from_key::<u8>(&bytes).is_some(), len == 1);
            assert_eq!(integer_from_key::<i16>(&bytes).is_some(), len == 2);
            assert_eq!(integer_from_key::<u32>(&bytes).is_some(), len == 4);
            assert_eq!(integer_from_key::<i64>(&bytes).is_some(), len == 8);
            assert_eq!(integer_from_key::<u128>(&bytes).is_some(), len == 16);
        }
    }
}
