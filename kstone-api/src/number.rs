//! [`Number`]: a decimal that keeps its text.
//!
//! Invariant: the text of a valid number has the shape of a JSON number, so it can be printed into JSON unchanged.
//! Values are compared through [`Decimal`], which reads the digits in place.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The maximum number of significant digits.
const MAX_DIGITS: usize = 38;
/// The range of exponents of the first significant digit: 1E-130 to 9.99...E+125.
const MAGNITUDES: std::ops::RangeInclusive<i32> = -130..=125;
/// No number in range needs more text than this, except for superfluous zeros.
const MAX_TEXT: usize = 400;

/// A decimal number of up to 38 significant digits, from 1E-130 to 9.99E+125 (and its negatives, and 0): the numbers of
/// DynamoDB. It keeps the text it was parsed from, so nothing is ever rounded.
///
/// Numbers compare by value, as in DynamoDB: `1`, `1.0` and `1e0` are equal, and are one member of a number set;
/// [`Number::as_str`] distinguishes them.
///
/// Every integer and float converts into a `Number`. A float out of range (NaN, an infinity, 1e300) converts too, but
/// writing an item that contains it fails with [`Error::InvalidNumber`](crate::Error::InvalidNumber).
///
/// ```
/// use kstone_api::Number;
///
/// let price: Number = "9.90".parse()?;
/// assert_eq!(price.as_str(), "9.90");
/// assert_eq!(price, Number::from(9.9));
/// assert_eq!(i64::try_from(&Number::from(42))?, 42);
/// assert!(!Number::from(f64::NAN).is_valid());
/// # Ok::<(), kstone_api::NumberError>(())
/// ```
#[derive(Clone)]
pub struct Number(Repr);

#[derive(Clone)]
enum Repr {
    Valid(String),
    Invalid(String),
}

/// The reason why text is not a [`Number`], or why a [`Number`] does not fit an integer type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberError {
    why: &'static str,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for NumberError {}

pub(crate) const fn err<T>(why: &'static str) -> Result<T, NumberError> {
    Err(NumberError { why })
}

impl Number {
    /// The text it was parsed from, or the shortest text that converts back to the integer or float.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Valid(text) | Repr::Invalid(text) => text,
        }
    }

    /// Whether it can be stored; only floats that are NaN, infinite or out of range cannot.
    pub fn is_valid(&self) -> bool {
        matches!(self.0, Repr::Valid(_))
    }

    /// The text, or the reason why the number cannot be stored.
    pub(crate) fn check(&self) -> Result<&str, NumberError> {
        match &self.0 {
            Repr::Valid(text) => Ok(text),
            Repr::Invalid(text) => err(match text.as_str() {
                "NaN" => "it is not a number (NaN)",
                "inf" | "-inf" => "it is infinite",
                _ => "its magnitude is outside of 1E-130 to 9.99E+125",
            }),
        }
    }

    /// Parses text written by this module.
    pub(crate) fn from_stored(text: &str) -> Result<Self, NumberError> {
        check_stored(text)?;
        Ok(Self::checked(text))
    }

    /// The same for text that was checked before.
    pub(crate) fn checked(text: &str) -> Self {
        debug_assert!(check_stored(text).is_ok(), "{text:?} was not checked");
        Self(Repr::Valid(text.to_owned()))
    }

    /// Returns whether the number is negative, the exponent of its first significant digit, and its significant digits;
    /// none for zero.
    pub(crate) fn significant(&self) -> Result<(bool, i32, impl Iterator<Item = u8> + '_), NumberError> {
        let decimal = Decimal::scan(self.check()?)?;
        let (digits, magnitude) = decimal.significant();
        Ok((decimal.negative, magnitude, digits))
    }

    fn decimal(&self) -> Option<Decimal<'_>> {
        match &self.0 {
            Repr::Valid(text) => Decimal::scan(text).ok(),
            Repr::Invalid(_) => None,
        }
    }
}

/// Checks that text is a valid number in its stored form.
pub(crate) fn check_stored(text: &str) -> Result<(), NumberError> {
    let decimal = Decimal::scan(text)?;
    decimal.check_range()?;
    if decimal.json_shape { Ok(()) } else { err("it is not in the form in which numbers are stored") }
}

/// The order of two numbers by value; `None` if one of the texts is not a number.
pub(crate) fn compare(a: &str, b: &str) -> Option<Ordering> {
    // Filters compare a number of each row, and most are short integers.
    if let (Some(a), Some(b)) = (short_integer(a), short_integer(b)) {
        return Some(a.cmp(&b));
    }
    Some(Decimal::scan(a).ok()?.cmp(&Decimal::scan(b).ok()?))
}

/// The value of text that is nothing but a sign and at most 18 digits, which fit.
#[inline]
fn short_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if digits.len() == text.len() { value } else { -value })
}

impl FromStr for Number {
    type Err = NumberError;

    /// Parses decimal text such as `42`, `-0.50`, `6.02e23`. The text is kept, except where JSON does not allow it: a
    /// leading `+` and leading zeros are dropped, `.5` and `5.` gain a zero.
    fn from_str(text: &str) -> Result<Self, NumberError> {
        let decimal = Decimal::scan(text)?;
        decimal.check_range()?;
        if decimal.json_shape {
            return Ok(Self(Repr::Valid(text.to_owned())));
        }
        let int = decimal.int.trim_start_matches('0');
        let mut shaped = String::with_capacity(text.len() + 1);
        shaped.push_str(if decimal.negative { "-" } else { "" });
        shaped.push_str(if int.is_empty() { "0" } else { int });
        if let Some(frac) = decimal.frac {
            shaped.push('.');
            shaped.push_str(if frac.is_empty() { "0" } else { frac });
        }
        shaped.push_str(decimal.exponent_text);
        Ok(Self(Repr::Valid(shaped)))
    }
}

/// The parts of a number's text.
struct Decimal<'a> {
    negative: bool,
    int: &'a str,
    /// The digits after the point; `None` without a point.
    frac: Option<&'a str>,
    /// The rest of the text, from the `e` on.
    exponent_text: &'a str,
    exponent: i32,
    json_shape: bool,
}

impl<'a> Decimal<'a> {
    fn scan(text: &'a str) -> Result<Self, NumberError> {
        if text.len() > MAX_TEXT {
            return err("its text is longer than 400 characters");
        }
        let (sign, unsigned) = match text.as_bytes().first() {
            Some(b'-' | b'+') => text.split_at(1),
            _ => ("", text),
        };
        let (int, rest) = split_digits(unsigned);
        let (frac, exponent_text) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (frac, rest) = split_digits(rest);
                (Some(frac), rest)
            }
            None => (None, rest),
        };
        if int.is_empty() && frac.unwrap_or_default().is_empty() {
            return err("it is not decimal text");
        }
        let exponent = match exponent_text.strip_prefix(['e', 'E']) {
            None if exponent_text.is_empty() => 0,
            None => return err("it is not decimal text"),
            Some(text) => {
                let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return err("it is not decimal text");
                }
                match text.parse::<i32>() {
                    Ok(exponent) if exponent.unsigned_abs() < 10_000 => exponent,
                    _ => return err("its exponent is out of range"),
                }
            }
        };
        let json_shape =
            sign != "+" && (int == "0" || !int.starts_with('0')) && !int.is_empty() && frac != Some("");
        Ok(Self { negative: sign == "-", int, frac, exponent_text, exponent, json_shape })
    }

    /// The digits from the first to the last significant one, and the exponent of the first: 0.0120 has digits 12 and
    /// exponent -2. Zero has no digits.
    fn significant(&self) -> (impl Iterator<Item = u8> + Clone + use<'a>, i32) {
        let (int, frac) = (self.int.as_bytes(), self.frac.unwrap_or_default().as_bytes());
        let is_digit = |&b: &u8| b != b'0';
        let (int_from, frac_from) = match int.iter().position(is_digit) {
            Some(at) => (at, 0),
            None => (int.len(), frac.iter().position(is_digit).unwrap_or(frac.len())),
        };
        let (int_to, frac_to) = match frac.iter().rposition(is_digit) {
            Some(at) => (int.len(), at + 1),
            None => (int.iter().rposition(is_digit).map_or(0, |at| at + 1), 0),
        };
        // Texts are at most MAX_TEXT long and exponents below 10,000, so this cannot overflow.
        let magnitude = int.len() as i32 - int_from as i32 - frac_from as i32 - 1 + self.exponent;
        let digits = int.get(int_from..int_to).unwrap_or_default().iter();
        (digits.chain(frac.get(frac_from..frac_to).unwrap_or_default()).copied(), magnitude)
    }

    fn check_range(&self) -> Result<(), NumberError> {
        // The fast path for almost all numbers: few digits, no exponent.
        if self.exponent_text.is_empty() && self.int.len() + self.frac.map_or(0, str::len) <= MAX_DIGITS {
            return Ok(());
        }
        let (digits, magnitude) = self.significant();
        match digits.count() {
            0 => Ok(()),
            n if n > MAX_DIGITS => err("it has more than 38 significant digits"),
            _ if !MAGNITUDES.contains(&magnitude) => err("its magnitude is outside of 1E-130 to 9.99E+125"),
            _ => Ok(()),
        }
    }

    fn is_zero(&self) -> bool {
        self.significant().0.next().is_none()
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |d: &Self| if d.is_zero() { 0 } else { 1 - 2 * i32::from(d.negative) };
        let (here, there) = (sign(self), sign(other));
        if here != there || here == 0 {
            return here.cmp(&there);
        }
        let ((digits, magnitude), (others, other_magnitude)) = (self.significant(), other.significant());
        let order = magnitude.cmp(&other_magnitude).then_with(|| digits.cmp(others));
        if here < 0 { order.reverse() } else { order }
    }

    fn to_i128(&self) -> Result<i128, NumberError> {
        let (digits, magnitude) = self.significant();
        let count = digits.clone().count();
        if count == 0 {
            return Ok(0);
        }
        let zeros = match usize::try_from(magnitude) {
            Ok(magnitude) if magnitude + 1 >= count => magnitude + 1 - count,
            _ => return err("it has a fraction"),
        };
        let value = digits
            .chain(std::iter::repeat_n(b'0', zeros))
            .try_fold(0i128, |value, digit| value.checked_mul(10)?.checked_add(i128::from(digit - b'0')));
        match value {
            Some(value) => Ok(if self.negative { -value } else { value }),
            None => err("it does not fit the integer type"),
        }
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    // All bytes before `end` are ASCII, so it is a character boundary.
    text.split_at_checked(end).unwrap_or((text, ""))
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By value; numbers that cannot be stored sort last, by text.
impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.decimal(), other.decimal()) {
            (Some(here), Some(there)) => here.cmp(&there),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.as_str().cmp(other.as_str()),
        }
    }
}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Numbers that cannot be stored are equal if their texts are.
        let Some(decimal) = self.decimal() else { return self.as_str().hash(state) };
        let (digits, magnitude) = decimal.significant();
        if !decimal.is_zero() {
            (decimal.negative, magnitude).hash(state);
        }
        digits.for_each(|digit| digit.hash(state));
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! from_int {
    ($($int:ty)*) => {$(
        impl From<$int> for Number {
            fn from(value: $int) -> Self {
                Self(Repr::Valid(value.to_string()))
            }
        }
    )*};
}

from_int!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

macro_rules! from_float {
    ($($float:ty)*) => {$(
        impl From<$float> for Number {
            fn from(value: $float) -> Self {
                // Display would write out every zero of a large or small float.
                let plain = value == 0.0 || (1e-7..1e21).contains(&value.abs());
                let text = if plain || !value.is_finite() { value.to_string() } else { format!("{value:e}") };
                Self(if check_stored(&text).is_ok() { Repr::Valid(text) } else { Repr::Invalid(text) })
            }
        }
    )*};
}

from_float!(f32 f64);

macro_rules! try_to_int {
    ($($int:ty)*) => {$(
        impl TryFrom<&Number> for $int {
            type Error = NumberError;

            /// Converts a number that is an integer, however it is written; fails for `1.5` and `1e30`.
            fn try_from(number: &Number) -> Result<Self, NumberError> {
                let text = number.check()?;
                match text.parse() {
                    Ok(value) => Ok(value),
                    Err(_) => match <$int>::try_from(Decimal::scan(text)?.to_i128()?) {
                        Ok(value) => Ok(value),
                        Err(_) => err("it does not fit the integer type"),
                    },
                }
            }
        }

        impl TryFrom<Number> for $int {
            type Error = NumberError;

            fn try_from(number: Number) -> Result<Self, NumberError> {
                Self::try_from(&number)
            }
        }
    )*};
}

try_to_int!(i64 u64);

impl TryFrom<&Number> for f64 {
    type Error = NumberError;

    /// Returns the nearest float.
    fn try_from(number: &Number) -> Result<Self, NumberError> {
        number.check()?.parse().or(err("it is not decimal text"))
    }
}

impl TryFrom<Number> for f64 {
    type Error = NumberError;

    fn try_from(number: Number) -> Result<Self, NumberError> {
        Self::try_from(&number)
    }
}

/// The name by which typed items recognize a number among the types of serde.
pub(crate) const SERDE_NAME: &str = "$kstone_api::N";

/// As a string: the text. In typed items, as a number.
impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(SERDE_NAME, self.as_str())
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map_err(|e| E::custom(format_args!("{text:?} is not a valid number: {e}")))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, text: D) -> Result<Number, D::Error> {
                #[cfg(feature = "typed")]
                if crate::typed::is_reading() {
                    return crate::typed::buffered_number(text);
                }
                text.deserialize_str(self)
            }
        }

        deserializer.deserialize_newtype_struct(SERDE_NAME, Text)
    }
}
