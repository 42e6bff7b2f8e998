//! Keys: their encoding, order and decoding.

use super::Input;
use crate::escape;
use crate::key::{Key, encoded_partition_hash, integer_from_key, partition_hash};

/// Prints and parses bytes as part of a key, as a key and as an integer.
pub fn key_text(bytes: &[u8]) {
    assert_eq!(escape::parse_key(&escape::key(bytes)).expect("what was printed"), bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Ok(part) = escape::parse_key(&text) {
        assert_eq!(escape::parse_key(&escape::key(&part)).expect("what was printed"), part);
    }
    if let Ok(key) = text.parse::<Key<'_>>() {
        printed(&key);
    }
    let mut input = Input::new(bytes);
    printed(&next_key(&mut input));
    integers(bytes);
}

/// Decodes bytes as a key, and encodes keys made from them.
pub fn key(bytes: &[u8]) {
    // A key has exactly one encoding, so decoded bytes equal the encoding of the key.
    let decoded = Key::decode(bytes);
    assert_eq!(encoded_partition_hash(bytes), decoded.as_ref().map(|key| partition_hash(key.partition())));
    if let Some(key) = &decoded {
        let encoded = key.encode(usize::MAX).expect("a key that was decoded");
        assert_eq!(&*encoded.bytes, bytes);
        assert_eq!(encoded.partition_hash, partition_hash(key.partition()));
    }
    let mut input = Input::new(bytes);
    let (first, second) = (next_key(&mut input), next_key(&mut input));
    let encode = |key: &Key<'static>| key.encode(usize::MAX).ok().map(|encoded| encoded.bytes);
    for key in [&first, &second] {
        let encoded = encode(key);
        assert_eq!(encoded.is_none(), key.partition().is_empty());
        assert!(encoded.is_none_or(|bytes| Key::decode(&bytes).as_ref() == Some(key)));
    }
    if let (Some(a), Some(b)) = (encode(&first), encode(&second)) {
        assert_eq!(a.cmp(&b), first.cmp(&second), "the order of {first:?} and {second:?}");
    }
}

/// The text of a key is read back.
fn printed(key: &Key<'_>) {
    let text = key.to_string();
    assert!(text.chars().chain(format!("{key:?}").chars()).all(escape::is_shown), "{key:?}");
    match text.parse::<Key<'_>>() {
        Ok(read) => assert_eq!(read, *key),
        Err(_) => assert!(key.partition().is_empty(), "{key:?} is not read back"),
    }
}

/// Integers are read back from bytes of their width, and only from these.
fn integers(bytes: &[u8]) {
    macro_rules! read {
        ($($integer:ident)*) => {$(
            let read = integer_from_key::<$integer>(bytes);
            assert_eq!(read.is_some(), bytes.len() == size_of::<$integer>());
            assert!(read.is_none_or(|integer| Key::new(integer).partition() == bytes));
        )*};
    }
    read!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128);
}

fn next_key(input: &mut Input<'_>) -> Key<'static> {
    let lens = input.byte();
    let partition = input.bytes(usize::from(lens & 15)).to_vec();
    match lens >> 4 {
        0..4 => Key::new(partition),
        _ => {
            let len = usize::from(lens >> 4) - 4;
            Key::with_sort(partition, input.bytes(len).to_vec())
        }
    }
}

/// Initial inputs.
pub fn key_seeds() -> Vec<Vec<u8>> {
    let keys: [(&[u8], Option<&[u8]>); 6] = [
        (b"user#42", None),
        (b"US", Some(b"KJFK")),
        (b"a\0b", Some(b"\0\xff")),
        (b"\0", None),
        (b"\0\xff\0", Some(b"")),
        (b"p", Some(b"\0\0")),
    ];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (partition, sort) in keys {
        let key = match sort {
            None => Key::new(partition),
            Some(sort) => Key::with_sort(partition, sort),
        };
        seeds.push(key.encode(usize::MAX).expect("a key").bytes.to_vec());
        let lens = partition.len() as u8 | sort.map_or(0, |sort| 0x40 + ((sort.len() as u8) << 4));
        let one = [&[lens], partition, sort.unwrap_or_default()].concat();
        seeds.push([one.clone(), one].concat());
    }
    seeds
}
