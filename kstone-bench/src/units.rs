//! Figures as people read them: three digits and a unit.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The unit of a figure in the chapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Count,
    PerSecond,
    /// Bytes, shown in decimal multiples as in the chapter.
    Bytes,
    BytesPerSecond,
    Nanos,
    /// Percent.
    Percent,
    /// Percent more or less than a reference.
    PercentMore,
    /// A factor.
    Times,
    Cores,
}

impl Unit {
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Count if value.abs() < 999.5 => digits(value),
            Self::Count => count(value.round()),
            Self::PerSecond => format!("{}/s", Self::Count.text(value)),
            Self::Bytes => scaled(value, &[(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B")]),
            Self::BytesPerSecond => format!("{}/s", Self::Bytes.text(value)),
            Self::Nanos => nanoseconds(value),
            Self::Percent => format!("{} %", digits(value)),
            Self::PercentMore if value >= 0.0 => format!("+{} %", digits(value)),
            Self::PercentMore => format!("-{} %", digits(-value)),
            Self::Times => format!("{} x", digits(value)),
            Self::Cores => format!("{} cores", digits(value)),
        }
    }
}

const TIMES: [(f64, &str); 4] = [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];

/// The unit in which a number has one to three digits before the point; 999.6 would be shown as 1000.
fn unit_of(value: f64, units: &[(f64, &'static str)]) -> (f64, &'static str) {
    let found = units.iter().find(|(unit, _)| value.abs() >= unit * 0.9995);
    found.or(units.last()).copied().unwrap_or((1.0, ""))
}

fn scaled(value: f64, units: &[(f64, &'static str)]) -> String {
    let (unit, name) = unit_of(value, units);
    format!("{} {name}", digits(value / unit))
}

/// `340 ns`, `1.30 ms`, `2.00 s`.
pub fn nanoseconds(nanoseconds: f64) -> String {
    scaled(nanoseconds, &TIMES)
}

/// `2.10 GiB`.
pub fn bytes(bytes: f64) -> String {
    ByteSize(bytes.max(0.0) as u64).display().iec().to_string()
}

/// `212,400`, for numbers of things and for rates per second.
pub fn count(number: f64) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    if number.abs() < 99.95 && number.fract() != 0.0 {
        return digits(number);
    }
    let whole = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 { format!("-{text}") } else { text }
}

/// [`count`], rounded to three significant digits.
pub fn rate(number: f64) -> String {
    if !number.is_finite() || number.abs() < 1000.0 {
        return count(if number.abs() < 99.95 { number } else { number.round() });
    }
    let unit = 10_f64.powi(number.abs().log10().floor() as i32 - 2);
    count((number / unit).round() * unit)
}

/// Three significant digits, without decimals for larger numbers.
pub fn digits(number: f64) -> String {
    let size = number.abs();
    let places = match size {
        _ if !number.is_finite() => return "-".to_owned(),
        _ if size >= 99.95 || number == 0.0 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ => (2.0 - size.log10().floor()).clamp(2.0, 8.0) as usize,
    };
    format!("{number:.places$}")
}

/// A time on an axis, in nanoseconds: `100 µs`, with no more digits than needed.
pub fn tick(nanoseconds: f64) -> String {
    let (unit, name) = unit_of(nanoseconds, &TIMES);
    format!("{} {name}", short(nanoseconds / unit))
}

/// At most three significant digits, without trailing zeros: `0.5`, `1`, `2.5`, `212 k`, `1.2 M`.
pub fn short(number: f64) -> String {
    let (number, unit) = match number.abs() {
        size if size >= 999.5e6 => (number / 1e9, " G"),
        size if size >= 999.5e3 => (number / 1e6, " M"),
        size if size >= 9_999.5 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    if number == 0.0 {
        return "0".to_owned();
    }
    let decimals = (2 - number.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{number:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Placeholder for absent figures.
pub const NOTHING: &str = "-";

/// A figure that may be absent.
pub fn optional<T>(figure: Option<T>, show: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| NOTHING.to_owned(), show)
}

/// A share, 0 to 1, as a percentage: `0.94 %`.
pub fn percent(share: f64) -> String {
    format!("{} %", digits(share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let times = [0.0, 340.0, 999.6, 1_300.0, 14_230.0, 1_300_000.0, 96e6, 2e9, 123e9];
        let texts =
            ["0 ns", "340 ns", "1.00 µs", "1.30 µs", "14.2 µs", "1.30 ms", "96.0 ms", "2.00 s", "123 s"];
        assert_eq!(times.map(nanoseconds), texts);
        assert_eq!(
            [0.0, 7.0, 1.5, 1_000.0, 212_400.4, 1e6, -1_234.0].map(count),
            ["0", "7", "1.50", "1,000", "212,400", "1,000,000", "-1,234"]
        );
        assert_eq!([0.0094, 0.5, 0.0].map(percent), ["0.940 %", "50.0 %", "0 %"]);
        assert_eq!(
            [12_897.0, 769.2, 1.24, 999_900.0, 0.0].map(rate),
            ["12,900", "769", "1.24", "1,000,000", "0"]
        );
        assert_eq!(
            [0.0, 0.5, 1.0, 0.001, 2.5, 1_000.0, 212_400.0, 1.2e6].map(short),
            ["0", "0.5", "1", "0.001", "2.5", "1000", "212 k", "1.2 M"]
        );
        assert_eq!([500.0, 1e3, 2e5, 1e9].map(tick), ["500 ns", "1 µs", "200 µs", "1 s"]);
        assert_eq!([count(f64::NAN), digits(f64::INFINITY)], ["-", "-"]);
    }

    #[test]
    fn figures_of_the_chapter_have_its_units() {
        for (unit, value, text) in [
            (Unit::Count, 199.84, "200"),
            (Unit::Count, 19.96, "20.0"),
            (Unit::Count, -12_345.0, "-12,345"),
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
        ] {
            assert_eq!(unit.text(value), text, "{unit:?} {value}");
        }
    }
}
