//! Numbers as keys: bytes that sort in the order of the numbers.
//!
//! ```text
//! zero      80
//! positive  81, magnitude + 130, pairs, each + 1
//! negative  7F, the complements of the same bytes after the first, FF
//! ```
//!
//! The magnitude is the exponent of the first significant digit, -130 to 125, so it fits one byte. The pairs are the
//! significant digits, two at a time from the first, the last one padded with a 0: 42 is `81 83 2B`. Nothing else is
//! written, so equal numbers have the same bytes, whatever their text. Between numbers of the same sign and magnitude,
//! the first differing digits decide; if one is a prefix of the other, the longer is the larger, as with bytes. For
//! negative numbers the complements reverse this order, and the final FF is above each of their bytes.

use crate::number::{Number, NumberError};

const NEGATIVE: u8 = 0x7f;
const ZERO: u8 = 0x80;
const POSITIVE: u8 = 0x81;
const END_OF_NEGATIVE: u8 = 0xff;
const LEAST_MAGNITUDE: i32 = -130;
/// Numbers of up to this many digits are written without an exponent.
const PLAIN: i32 = 20;

/// Encodes a number as a key, or as the last part of one: 1 to 22 bytes that sort in the order of the numbers. `1`,
/// `1.0` and `1e0` give the same bytes. Fails for a number that cannot be stored.
///
/// ```
/// use kstone_api::{Database, ItemBuilder, Number, number_from_key, number_key};
///
/// let db = Database::in_memory()?;
/// for n in [100, -3, 20] {
///     db.put(("readings", number_key(&Number::from(n))?), ItemBuilder::new().number("n", n))?;
/// }
/// let mut order = Vec::new();
/// for entry in db.query("readings").run()? {
///     order.extend(entry?.0.sort().and_then(number_from_key).map(|n| n.to_string()));
/// }
/// assert_eq!(order, ["-3", "20", "100"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn number_key(number: &Number) -> Result<Vec<u8>, NumberError> {
    let (negative, magnitude, digits) = number.significant()?;
    let mut digits = digits.map(|digit| digit - b'0');
    let Some(mut first) = digits.next() else { return Ok(vec![ZERO]) };
    let mut key = vec![POSITIVE, (magnitude - LEAST_MAGNITUDE) as u8];
    loop {
        // An odd number of digits is padded with a zero.
        key.push(first * 10 + digits.next().unwrap_or(0) + 1);
        match digits.next() {
            Some(digit) => first = digit,
            None => break,
        }
    }
    if negative {
        key.iter_mut().skip(1).for_each(|byte| *byte = !*byte);
        if let Some(sign) = key.first_mut() {
            *sign = NEGATIVE;
        }
        key.push(END_OF_NEGATIVE);
    }
    Ok(key)
}

/// Decodes the bytes of [`number_key`] to the number in its shortest text; `None` if the bytes are not from
/// [`number_key`].
pub fn number_from_key(key: &[u8]) -> Option<Number> {
    let (&sign, rest) = key.split_first()?;
    let (negative, rest): (bool, Vec<u8>) = match sign {
        ZERO if rest.is_empty() => return Some(Number::from(0)),
        POSITIVE => (false, rest.to_vec()),
        NEGATIVE => {
            let (&END_OF_NEGATIVE, rest) = rest.split_last()? else { return None };
            (true, rest.iter().map(|byte| !byte).collect())
        }
        _ => return None,
    };
    let (&magnitude, pairs) = rest.split_first()?;
    let magnitude = i32::from(magnitude) + LEAST_MAGNITUDE;
    let mut digits = String::new();
    for &pair in pairs {
        let pair = pair.checked_sub(1).filter(|pair| *pair < 100)?;
        digits.extend([char::from(b'0' + pair / 10), char::from(b'0' + pair % 10)]);
    }
    let digits = digits.trim_end_matches('0');
    let number: Number = written(negative, digits, magnitude).parse().ok()?;
    // Refuses bytes that are not the canonical encoding of their number.
    (number_key(&number).ok()? == key).then_some(number)
}

/// As plain decimal text if that is short.
fn written(negative: bool, digits: &str, magnitude: i32) -> String {
    let sign = if negative { "-" } else { "" };
    let count = digits.len() as i32;
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    match usize::try_from(magnitude + 1).ok().and_then(|at| digits.split_at_checked(at)) {
        Some((int, "")) if !int.is_empty() => format!("{sign}{int}"),
        Some((int, frac)) if !int.is_empty() => format!("{sign}{int}.{frac}"),
        None if (0..PLAIN).contains(&magnitude) => format!("{sign}{digits}{}", zeros(magnitude + 1 - count)),
        _ if (-7..0).contains(&magnitude) => format!("{sign}0.{}{digits}", zeros(-magnitude - 1)),
        _ => {
            let (first, more) = digits.split_at_checked(1).unwrap_or((digits, ""));
            let point = if more.is_empty() { "" } else { "." };
            format!("{sign}{first}{point}{more}e{magnitude}")
        }
    }
}
