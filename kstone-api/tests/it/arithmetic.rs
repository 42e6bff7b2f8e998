//! Sums and differences of numbers, compared with a library of decimals of any length.

use bigdecimal::BigDecimal;
use kstone_api::Number;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn sum(a: &str, b: &str) -> Result<String, String> {
    let (a, b): (Number, Number) = (a.parse().unwrap(), b.parse().unwrap());
    match a.checked_add(&b) {
        Ok(sum) => Ok(sum.as_str().to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

#[test]
fn the_text_of_results() {
    let nines = "9".repeat(38);
    let one_and = |zeros: usize| format!("1{}", "0".repeat(zeros));
    for (a, b, expected) in [
        ("1", "2", "3"),
        ("0.10", "0.20", "0.3"),
        ("9.90", "0", "9.9"),
        ("0", "-0.50e1", "-5"),
        ("-0", "-0", "0"),
        ("-0", "0.000", "0"),
        ("1.50", "-1.5", "0"),
        ("99.95", "0.05", "100"),
        ("1e3", "2e2", "1200"),
        ("-100", "0.01", "-99.99"),
        ("0.01", "-100", "-99.99"),
        ("1e-7", "0", "0.0000001"),
        ("-12e-8", "0", "-0.00000012"),
        ("1e-8", "0", "1E-8"),
        ("1.25e-9", "-0.25e-9", "1E-9"),
        ("125e-11", "0", "1.25E-9"),
        ("9e36", "1e36", &one_and(37)),
        ("9e37", "1e37", "1E+38"),
        (&nines, "1", "1E+38"),
        (&nines, "-1", &format!("{}8", &nines[1..])),
        ("1.2e40", "-0.2e40", "1E+40"),
        ("-1.2e125", "-1.1e125", "-2.3E+125"),
        ("2e-130", "-1e-130", "1E-130"),
        ("1e37", "1", &format!("1{}1", "0".repeat(36))),
        (&one_and(37), "0.0", &one_and(37)),
    ] {
        assert_eq!(sum(a, b).as_deref(), Ok(expected), "{a} + {b}");
        assert_eq!(sum(b, a).as_deref(), Ok(expected), "{b} + {a}");
    }
}

#[test]
fn what_would_be_rounded_is_refused() {
    let nines = "9".repeat(38);
    let digits = "the result has more than 38 significant digits";
    let range = "its magnitude is outside of 1E-130 to 9.99E+125";
    for (a, b, why) in [
        ("1e38", "1", digits),
        ("1e38", "-1e-1", digits),
        ("1e125", "1e-130", digits),
        ("-1e125", "1e-130", digits),
        (&nines, "0.1", digits),
        // The multiplication overflows; the addition.
        ("4e38", "1", digits),
        ("34e37", "-99999999999999999999999999999999999999", digits),
        ("34e37", "99999999999999999999999999999999999999", digits),
        (&nines, "2", digits),
        ("9e125", "1e125", range),
        ("-9.9e125", "-0.1e125", range),
        ("1.1e-130", "-1e-130", range),
    ] {
        assert_eq!(sum(a, b).unwrap_err(), why, "{a} + {b}");
        assert_eq!(sum(b, a).unwrap_err(), why, "{b} + {a}");
    }
    for bad in [f64::NAN, f64::INFINITY, 1e300] {
        let (bad, one) = (Number::from(bad), Number::from(1));
        assert!(
            bad.checked_add(&one).is_err()
                && one.checked_sub(&bad).is_err()
                && bad.checked_sub(&bad).is_err()
        );
    }
}

/// A number: sign, digits, and the exponent of the last one; in any notation of the same value.
fn text() -> impl Strategy<Value = String> {
    let digits = prop_oneof![
        3 => "[1-9][0-9]{0,37}",
        2 => "[1-9][0-9]{37}",
        1 => (1..=38usize).prop_map(|n| "9".repeat(n)),
        1 => (0..=37usize).prop_map(|n| format!("1{}", "0".repeat(n))),
        2 => "[1-9]",
        1 => Just("0".to_owned()),
    ];
    let magnitude = prop_oneof![4 => -45..45i32, 2 => -130..=125i32, 1 => 120..=125i32, 1 => -130..=-120i32];
    (any::<bool>(), digits, magnitude, any::<bool>()).prop_map(|(negative, digits, magnitude, pointed)| {
        let sign = if negative { "-" } else { "" };
        if pointed {
            return format!("{sign}{}.{}0e{magnitude}", &digits[..1], &digits[1..]);
        }
        format!("{sign}{digits}E{}", magnitude + 1 - digits.len() as i32)
    })
}

/// The other number: any, or one whose last digit is near the first one's, so that sums carry and cancel.
fn pair() -> impl Strategy<Value = (String, String)> {
    let near = (text(), -3..3i32, -40..40i32).prop_map(|(a, step, shift)| {
        let number: BigDecimal = a.parse().unwrap();
        // Of opposite sign and almost the same size; or a step at some digit.
        let small = BigDecimal::new(step.into(), i64::from(shift));
        let b = if shift % 2 == 0 { small - &number } else { small };
        (a, b.normalized().to_scientific_notation())
    });
    prop_oneof![2 => (text(), text()), 3 => near]
}

/// The digits of a decimal and the exponent of the first one.
fn shape(decimal: &BigDecimal) -> (usize, i64) {
    let (digits, scale) = decimal.normalized().into_bigint_and_exponent();
    let count = digits.to_string().trim_start_matches('-').len();
    (count, count as i64 - 1 - scale)
}

fn fits(decimal: &BigDecimal) -> bool {
    let (count, magnitude) = shape(decimal);
    *decimal == BigDecimal::default() || (count <= 38 && (-130..=125).contains(&magnitude))
}

fn agrees(
    result: Result<Number, kstone_api::NumberError>,
    expected: &BigDecimal,
) -> Result<(), TestCaseError> {
    let number = match result {
        Ok(number) => number,
        Err(e) => {
            prop_assert!(!fits(expected), "{expected} was refused: {e}");
            return Ok(());
        }
    };
    let text = number.as_str();
    prop_assert!(fits(expected), "{text} was given for {expected}");
    prop_assert_eq!(&text.parse::<BigDecimal>().unwrap(), expected);
    let (count, magnitude) = shape(expected);
    let is_zero = *expected == BigDecimal::default();
    prop_assert_eq!(text.contains('E'), !is_zero && !(-7..=37).contains(&magnitude), "{}", text);
    // No superfluous digit: the fraction does not end in 0, and the digits are all there is.
    let mantissa = text.split('E').next().unwrap();
    let frac = mantissa.split_once('.').map(|(_, frac)| frac);
    prop_assert!(frac.is_none_or(|frac| !frac.ends_with('0') && !frac.is_empty()), "{}", text);
    if text.contains('E') {
        prop_assert_eq!(mantissa.bytes().filter(u8::is_ascii_digit).count(), count, "{}", text);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

    #[test]
    fn sums_and_differences_are_exact((a, b) in pair()) {
        let (exact_a, exact_b): (BigDecimal, BigDecimal) = (a.parse().unwrap(), b.parse().unwrap());
        let (Ok(a), Ok(b)) = (a.parse::<Number>(), b.parse::<Number>()) else {
            // Only the derived number may be out of range.
            prop_assert!(!fits(&exact_b), "{b}");
            return Ok(());
        };
        agrees(a.checked_add(&b), &(&exact_a + &exact_b))?;
        agrees(b.checked_add(&a), &(&exact_a + &exact_b))?;
        agrees(a.checked_sub(&b), &(exact_a - exact_b))?;
    }
}
