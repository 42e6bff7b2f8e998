//! Numbers as people read them.

use serde::{Deserialize, Serialize};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things.
    Count,
    /// Things a second.
    PerSecond,
    /// Bytes; shown in decimal multiples, as the chapter counts.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Nanoseconds.
    Nanos,
    /// Hundredths.
    Percent,
    /// Hundredths more or less than something.
    PercentMore,
    /// Multiples.
    Times,
    /// Processor cores.
    Cores,
}

impl Unit {
    /// The number with its unit, three significant digits.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Count => thousands(value),
            Self::PerSecond => format!("{}/s", thousands(value)),
            Self::Bytes => scaled(value, 1000.0, &["B", "KB", "MB", "GB", "TB"]),
            Self::BytesPerSecond => scaled(value, 1000.0, &["B/s", "KB/s", "MB/s", "GB/s"]),
            Self::Nanos if value >= 1e9 => format!("{} s", digits(value / 1e9)),
            Self::Nanos => scaled(value, 1000.0, &["ns", "µs", "ms"]),
            Self::Percent => format!("{} %", digits(value)),
            Self::PercentMore if value >= 0.0 => format!("+{} %", digits(value)),
            Self::PercentMore => format!("-{} %", digits(-value)),
            Self::Times => format!("{} x", digits(value)),
            Self::Cores => format!("{} cores", digits(value)),
        }
    }
}

fn scaled(mut value: f64, step: f64, names: &[&str]) -> String {
    let mut names = names.iter().peekable();
    let mut name = names.next();
    // 999.6 would be shown as 1000.
    while value.abs() >= step - 0.5 && names.peek().is_some() {
        value /= step;
        name = names.next();
    }
    format!("{} {}", digits(value), name.unwrap_or(&""))
}

/// Three significant digits, without an exponent.
fn digits(value: f64) -> String {
    let size = value.abs();
    let places = match size {
        _ if size == 0.0 => 0,
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ => (2.0 - size.log10().floor()).clamp(2.0, 8.0) as usize,
    };
    format!("{value:.places$}")
}

fn thousands(value: f64) -> String {
    if value.abs() < 999.5 {
        return digits(value);
    }
    let whole = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_their_unit() {
        for (unit, value, text) in [
            (Unit::Count, 199.84, "200"),
            (Unit::Count, 19.96, "20.0"),
            (Unit::PerSecond, 254_321.9, "254,322/s"),
            (Unit::PerSecond, 999.7, "1,000/s"),
            (Unit::Bytes, 25_600_000.0, "25.6 MB"),
            (Unit::Bytes, 999_900.0, "1.00 MB"),
            (Unit::Bytes, 12.0, "12.0 B"),
            (Unit::BytesPerSecond, 5.1e8, "510 MB/s"),
            (Unit::Nanos, 850.0, "850 ns"),
            (Unit::Nanos, 1_234.0, "1.23 µs"),
            (Unit::Nanos, 2.5e9, "2.50 s"),
            (Unit::Percent, 0.00812, "0.00812 %"),
            (Unit::Percent, 0.0, "0 %"),
            (Unit::PercentMore, 41.23, "+41.2 %"),
            (Unit::PercentMore, -3.0, "-3.00 %"),
            (Unit::Times, 1.954, "1.95 x"),
            (Unit::Cores, 1.5, "1.50 cores"),
            (Unit::Count, -12_345.0, "-12,345"),
        ] {
            assert_eq!(unit.text(value), text, "{unit:?} {value}");
        }
    }
}
