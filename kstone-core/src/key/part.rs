//! [`KeyPart`]: what a partition key or a sort key can be made of.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

pub(super) mod sealed {
    pub trait Sealed {}
}

/// One component of a key, a partition key or a sort key: a string, bytes or an integer, owned or borrowed.
///
/// | type | bytes of the key |
/// |---|---|
/// | strings: `&str`, `String`, `Cow<str>`, `Box<str>`, `Rc<str>`, `Arc<str>`, `char` | UTF-8 |
/// | bytes: `&[u8]`, `[u8; N]`, `Vec<u8>`, `Cow<[u8]>`, `Box<[u8]>`, `Rc<[u8]>`, `Arc<[u8]>` | as they are |
/// | `u8` to `u128` | big-endian: 1, 2, 4, 8 or 16 bytes |
/// | `i8` to `i128` | big-endian with the sign bit inverted: 1, 2, 4, 8 or 16 bytes |
///
/// # Integers
///
/// Keys with integers of one type sort as the integers do, negative ones before positive ones.
/// [`integer_from_key`](crate::key::integer_from_key) reads them back.
///
/// The width is part of the key, and so is whether the type is signed: `42_u8`, `42_u64` and `42_i64` are three different
/// keys. Use one type for all keys of a kind. An integer literal without a suffix is an `i32`, as everywhere in Rust, so
/// write `42_u64`, or declare a variable or constant with its type. `usize` and `isize` are not components, since their
/// width depends on the machine.
///
/// ```
/// use kstone_core::Key;
///
/// assert_eq!(Key::from(("user", 42_u64)).sort(), Some(&[0, 0, 0, 0, 0, 0, 0, 42][..]));
/// assert!(Key::from(("user", -7_i64)) < Key::from(("user", 5_i64)));
/// assert_ne!(Key::from(("user", 42_u8)), Key::from(("user", 42_u64)));
/// assert_eq!(Key::from(("user", 42)), Key::from(("user", 42_i32)));
/// ```
///
/// # Two components at most
///
/// A key has one partition key and at most one sort key. A [`Key`](crate::Key) or a pair therefore cannot be a part of
/// another key, and a key of more than two parts does not compile:
///
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key: Key<'_> = ("chat", ("room1", "m1")).into();
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from((("chat", "room1"), "m1"));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from(("chat", "room1", "m1"));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from(("chat", Key::from("room1")));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from((Key::from("chat"), 42_u64));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from(("chat", &("room1", "m1")));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::with_sort(("chat", "room1"), "m1");
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::new(Key::from(("chat", "room1")));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from(("chat", None::<&str>));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from(("chat", 1.5));
/// ```
/// ```compile_fail,E0277
/// use kstone_core::Key;
/// let key = Key::from(("chat", 42_usize));
/// ```
/// Join further components into one of the two parts, most significant first, so that they sort in the order they are
/// read:
///
/// ```
/// use kstone_core::Key;
/// let key = Key::from(("chat", format!("{}/{}", "room1", "m1")));
/// assert_eq!(key.sort(), Some(&b"room1/m1"[..]));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not one component of a key",
    label = "strings, bytes and integers of a fixed width are components",
    note = "a key is a partition key, or a pair of a partition key and a sort key: join further components into one \
            of the two, as in `(\"chat\", format!(\"{{room}}/{{message}}\"))`",
    note = "convert `usize` to `u64`, and floats and decimals with `number_key`"
)]
pub trait KeyPart<'a>: sealed::Sealed {
    /// Returns the bytes.
    #[doc(hidden)]
    fn into_bytes(self) -> Cow<'a, [u8]>;
}

// Separate implementations instead of one for `AsRef<[u8]>`, so that for an unsupported type the compiler prints the
// notes above, and integers can be components.
macro_rules! key_parts {
    ($(<$($generics:ident : $bound:ty)?> $source:ty => $bytes:expr),* $(,)?) => {$(
        impl<'a, $(const $generics: $bound)?> sealed::Sealed for $source {}

        impl<'a, $(const $generics: $bound)?> KeyPart<'a> for $source {
            fn into_bytes(self) -> Cow<'a, [u8]> {
                let bytes: fn($source) -> Cow<'a, [u8]> = $bytes;
                bytes(self)
            }
        }
    )*};
}

fn text(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn utf8(c: char) -> Cow<'static, [u8]> {
    Cow::Owned(c.encode_utf8(&mut [0; 4]).as_bytes().to_vec())
}

key_parts! {
    <> &'a [u8] => Cow::Borrowed,
    <> &'a str => |s| Cow::Borrowed(s.as_bytes()),
    <> &'a Vec<u8> => |v| Cow::Borrowed(v.as_slice()),
    <> &'a String => |s| Cow::Borrowed(s.as_bytes()),
    <> &'a Box<[u8]> => |b| Cow::Borrowed(b),
    <> &'a Box<str> => |s| Cow::Borrowed(s.as_bytes()),
    <> &'a Rc<[u8]> => |b| Cow::Borrowed(b),
    <> &'a Rc<str> => |s| Cow::Borrowed(s.as_bytes()),
    <> &'a Arc<[u8]> => |b| Cow::Borrowed(b),
    <> &'a Arc<str> => |s| Cow::Borrowed(s.as_bytes()),
    <> &'a Cow<'_, [u8]> => |b| Cow::Borrowed(b),
    <> &'a Cow<'_, str> => |s| Cow::Borrowed(s.as_bytes()),
    <N: usize> &'a [u8; N] => |b| Cow::Borrowed(b),
    <N: usize> [u8; N] => |b| Cow::Owned(b.to_vec()),
    <> Vec<u8> => Cow::Owned,
    <> String => |s| Cow::Owned(s.into_bytes()),
    <> Box<[u8]> => |b| Cow::Owned(b.into_vec()),
    <> Box<str> => |s| Cow::Owned(s.into_string().into_bytes()),
    <> Rc<[u8]> => |b| Cow::Owned(b.to_vec()),
    <> Rc<str> => |s| Cow::Owned(s.as_bytes().to_vec()),
    <> Arc<[u8]> => |b| Cow::Owned(b.to_vec()),
    <> Arc<str> => |s| Cow::Owned(s.as_bytes().to_vec()),
    <> Cow<'a, [u8]> => |b| b,
    <> Cow<'a, str> => text,
    // Double references, as iterators over borrowed strings and bytes yield them. Not for any type: with an
    // implementation for all references to references the compiler searches without end where types are to be inferred.
    <> &&'a [u8] => |b| Cow::Borrowed(b),
    <> &&'a str => |s| Cow::Borrowed(s.as_bytes()),
    <> &&'a Vec<u8> => |b| Cow::Borrowed(b.as_slice()),
    <> &&'a String => |s| Cow::Borrowed(s.as_bytes()),
    <> char => utf8,
    <> &char => |c| utf8(*c),
}
