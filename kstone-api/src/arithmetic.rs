//! Exact sums and differences of [`Number`]s.
//!
//! A number is `m * 10^e`, where `m` has at most 38 digits and its last digit is not 0. A sum is computed at the lower
//! of the two exponents: the `m` of the number with the higher one is multiplied by a power of ten. All of it takes place
//! in `u128`, which is enough: where it overflows, the exact result has more than 38 significant digits.
//!
//! *Proof.* Let `a * 10^d` and `b` be the aligned numbers, so `a, b < 10^38` and `d` is the difference of the exponents.
//! If `d = 0`, nothing is multiplied, and `a + b < 2 * 10^38 < 2^128`: no overflow. If `d > 0`, the last digit of `b` is
//! not 0 while that of `a * 10^d` is, so the last digit of their sum or difference is not 0: all of its digits are
//! significant. Suppose the multiplication overflows: then `a * 10^d >= 2^128 > 3.4 * 10^38`, and both the sum and the
//! difference exceed `3.4 * 10^38 - 10^38 > 10^38`, which takes 39 digits. If only the addition overflows, the sum is at
//! least `2^128`, which takes 39 digits too. Hence refusing is exact, and a number is never rounded. A zero has no
//! exponent: the other operand is the result.

use std::cmp::Ordering;

use crate::number::{Number, NumberError, err};

/// The magnitudes of numbers that are written without an exponent.
const PLAIN: std::ops::RangeInclusive<i32> = -7..=37;

impl Number {
    /// The exact sum. Fails if the result would have to be rounded, because it has more than 38 significant digits; if
    /// it is out of range; or if one of the numbers cannot be stored. Where DynamoDB refuses a sum, this does.
    ///
    /// The text of the result has no superfluous zeros. It is plain from 1E-7 to below 1E+38 (`0.25`, `1200`) and has an
    /// exponent beyond, `1.2E+40`; zero is `0`.
    ///
    /// ```
    /// use kstone_api::Number;
    ///
    /// let sum = |a: &str, b: &str| a.parse::<Number>()?.checked_add(&b.parse()?);
    /// assert_eq!(sum("0.10", "0.20")?.as_str(), "0.3");
    /// assert_eq!(sum("1e20", "-1")?.as_str(), "99999999999999999999");
    /// assert!(sum("1e38", "0.1").is_err()); // 40 digits
    /// # Ok::<(), kstone_api::NumberError>(())
    /// ```
    pub fn checked_add(&self, other: &Number) -> Result<Number, NumberError> {
        add(Term::of(self)?, Term::of(other)?)
    }

    /// The exact difference, `self - other`; see [`Number::checked_add`].
    ///
    /// ```
    /// use kstone_api::Number;
    ///
    /// assert_eq!(Number::from(1).checked_sub(&Number::from(0.9))?.as_str(), "0.1");
    /// # Ok::<(), kstone_api::NumberError>(())
    /// ```
    pub fn checked_sub(&self, other: &Number) -> Result<Number, NumberError> {
        let other = Term::of(other)?;
        add(Term::of(self)?, Term { negative: !other.negative, ..other })
    }
}

/// A number as an integer, without trailing zeros, times a power of ten.
#[derive(Clone, Copy)]
struct Term {
    negative: bool,
    digits: u128,
    exponent: i32,
}

impl Term {
    fn of(number: &Number) -> Result<Self, NumberError> {
        let (negative, magnitude, significant) = number.significant()?;
        // At most 38 digits, which fit.
        let (count, digits) = significant
            .fold((0, 0), |(count, digits), digit| (count + 1, digits * 10 + u128::from(digit - b'0')));
        Ok(Self { negative, digits, exponent: magnitude + 1 - count })
    }
}

const TOO_LONG: &str = "the result has more than 38 significant digits";

fn add(a: Term, b: Term) -> Result<Number, NumberError> {
    let (high, low) = match (a.digits, b.digits, a.exponent > b.exponent) {
        (_, 0, _) => return number(a),
        (0, _, _) => return number(b),
        (_, _, true) => (a, b),
        _ => (b, a),
    };
    let aligned = 10u128.checked_pow(high.exponent.abs_diff(low.exponent));
    let Some(aligned) = aligned.and_then(|power| high.digits.checked_mul(power)) else {
        return err(TOO_LONG);
    };
    let (negative, digits) = match (high.negative == low.negative, aligned.cmp(&low.digits)) {
        (true, _) => (high.negative, aligned.checked_add(low.digits)),
        (false, Ordering::Less) => (low.negative, low.digits.checked_sub(aligned)),
        (false, _) => (high.negative, aligned.checked_sub(low.digits)),
    };
    let Some(digits) = digits else { return err(TOO_LONG) };
    number(Term { negative, digits, exponent: low.exponent })
}

fn number(mut term: Term) -> Result<Number, NumberError> {
    if term.digits == 0 {
        return Ok(Number::from(0));
    }
    while term.digits.is_multiple_of(10) {
        term.digits /= 10;
        term.exponent += 1;
    }
    let digits = term.digits.to_string();
    let count = digits.len() as i32;
    if count > 38 {
        return err(TOO_LONG);
    }
    let magnitude = term.exponent + count - 1;
    let sign = if term.negative { "-" } else { "" };
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    // The digits before the point, if there is one among them.
    let split = |at: i32| usize::try_from(at).ok().and_then(|at| digits.split_at_checked(at));
    let text = if !PLAIN.contains(&magnitude) {
        let (first, rest) = split(1).unwrap_or((&digits, ""));
        let point = if rest.is_empty() { "" } else { "." };
        format!("{sign}{first}{point}{rest}E{magnitude:+}")
    } else if term.exponent >= 0 {
        format!("{sign}{digits}{}", zeros(term.exponent))
    } else if let Some((int, frac)) = split(magnitude + 1).filter(|_| magnitude >= 0) {
        format!("{sign}{int}.{frac}")
    } else {
        format!("{sign}0.{}{digits}", zeros(-magnitude - 1))
    };
    // Checks the range.
    text.parse()
}
