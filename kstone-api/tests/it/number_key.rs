//! Numbers as keys: the order of the bytes is that of the numbers.

use kstone_api::{Number, number_from_key, number_key};
use proptest::prelude::*;

#[test]
fn numbers_as_keys() {
    let key = |text: &str| number_key(&text.parse().unwrap()).unwrap();
    assert_eq!(key("42"), [0x81, 0x83, 0x2b]);
    assert_eq!(key("-42"), [0x7f, 0x7c, 0xd4, 0xff]);
    for zero in ["0", "-0", "0.00", "0e99", "-0e-99"] {
        assert_eq!(key(zero), [0x80]);
    }
    for one in ["1", "1.0", "1e0", "10e-1", "0.1E1", "1.000000000000000000000000000000000000000000000"] {
        assert_eq!(key(one), [0x81, 0x82, 0x0b]);
    }
    let in_order = [
        "-9.9999999999999999999999999999999999999E125",
        "-1e30",
        "-101",
        "-100.5",
        "-100",
        "-99",
        "-10",
        "-9",
        "-1.05",
        "-1.01",
        "-1",
        "-0.5",
        "-1e-130",
        "0",
        "1e-130",
        "1.1e-130",
        "0.000001",
        "0.5",
        "1",
        "1.01",
        "1.05",
        "1.1",
        "2",
        "9",
        "10",
        "12",
        "99",
        "100",
        "100.5",
        "101",
        "1000",
        "1e3000e-0",
    ];
    let keys: Vec<_> =
        in_order.iter().take_while(|text| !text.contains("e-0")).map(|text| key(text)).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    assert!(keys.iter().all(|key| key.len() <= 22));
    assert_eq!(key("-9.9999999999999999999999999999999999999E125").len(), 22);
    for (text, written) in [
        ("42.0", "42"),
        ("1e3", "1000"),
        ("-0.50", "-0.5"),
        ("12.5", "12.5"),
        ("1e19", "10000000000000000000"),
        ("1e20", "1e20"),
        ("1.5e-7", "0.00000015"),
        ("1.5e-8", "1.5e-8"),
        ("-2e-130", "-2e-130"),
        ("0.0", "0"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
    ] {
        assert_eq!(number_from_key(&key(text)).unwrap().as_str(), written);
    }
    for bytes in [
        &[][..],
        &[0x80, 1],
        &[0x81],
        &[0x81, 0x83],
        &[0x81, 0x83, 0],
        &[0x81, 0x83, 102],
        &[0x81, 0x83, 5],
        &[0x81, 0x83, 0x2b, 1],
        &[0x7f, 0x7c, 0xd4],
        &[0x7f, 0xff],
        &[0x7f],
        b"42",
        &[0x81; 40],
    ] {
        assert!(number_from_key(bytes).is_none(), "{bytes:?}");
    }
    assert!(number_key(&Number::from(f64::NAN)).is_err());
}

/// Numbers of all sizes.
fn number() -> impl Strategy<Value = Number> {
    let wide = ("-?(0|[1-9][0-9]{0,18})([.][0-9]{1,19})?", -120..100i32)
        .prop_map(|(text, exponent)| format!("{text}e{exponent}"));
    let near = "-?[0-9]{1,3}([.][0-9]{1,3})?".prop_map(String::from);
    let digits =
        ("-?[1-9][.][0-9]{37}", -130..126i32).prop_map(|(text, exponent)| format!("{text}e{exponent}"));
    prop_oneof![wide, near, digits].prop_filter_map("out of range", |text| text.parse().ok())
}

/// Numbers that differ in their last digit, sign, exponent or notation alone, or not at all.
fn near() -> impl Strategy<Value = (Number, Number)> {
    let digit = 0..10_u8;
    ("-?[0-9]{0,35}", digit.clone(), digit, -130..130_i32, -1..2_i32, 0..4_u8).prop_filter_map(
        "out of range",
        |(digits, a, b, exponent, apart, form)| {
            let first = format!("{digits}{a}e{exponent}");
            let second = match form {
                0 => format!("{digits}{b}e{exponent}"),
                1 => format!("{digits}{a}e{}", exponent + apart),
                2 => format!("{digits}{a}00e{}", exponent - 2),
                _ => format!("{}{a}e{exponent}", digits.trim_start_matches('-')),
            };
            Some((first.parse().ok()?, second.parse().ok()?))
        },
    )
}

fn agree(a: &Number, b: &Number) -> Result<(), TestCaseError> {
    let (key, other) = (number_key(a).unwrap(), number_key(b).unwrap());
    prop_assert_eq!(key.cmp(&other), a.cmp(b), "{} {}", a, b);
    prop_assert!((1..=22).contains(&key.len()));
    let back = number_from_key(&key).unwrap();
    prop_assert_eq!(&back, a);
    prop_assert_eq!(number_key(&back).unwrap(), key);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn keys_of_numbers_sort_as_the_numbers_do(a in number(), b in number(), near in near()) {
        agree(&a, &b)?;
        agree(&near.0, &near.1)?;
        agree(&near.1, &near.0)?;
    }

    #[test]
    fn any_bytes_are_a_key_of_one_number_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..24), sign in 0x7eu8..0x83) {
        for bytes in [bytes.clone(), [&[sign], bytes.as_slice()].concat()] {
            if let Some(number) = number_from_key(&bytes) {
                prop_assert_eq!(number_key(&number).unwrap(), bytes);
            }
        }
    }
}
