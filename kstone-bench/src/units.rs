//! Figures as people read them: three digits and a unit.

use bytesize::ByteSize;

/// `340 ns`, `1.30 ms`, `2.00 s`.
pub fn nanoseconds(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    match units.into_iter().find(|(unit, _)| nanoseconds.abs() >= unit * 0.9995) {
        Some((unit, name)) => format!("{} {name}", digits(nanoseconds / unit)),
        None => format!("{} ns", digits(nanoseconds)),
    }
}

/// `2.10 GiB`.
pub fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// `212,400`, for numbers of things and for so many a second.
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

/// [`count`], rounded to three digits that count.
pub fn rate(number: f64) -> String {
    if !number.is_finite() || number.abs() < 1000.0 {
        return count(if number.abs() < 99.95 { number } else { number.round() });
    }
    let unit = 10_f64.powi(number.abs().log10().floor() as i32 - 2);
    count((number / unit).round() * unit)
}

/// Three digits that count, none behind the point for larger numbers.
pub fn digits(number: f64) -> String {
    let size = number.abs();
    match size {
        _ if !number.is_finite() => "-".to_owned(),
        _ if size >= 99.95 || number == 0.0 => format!("{number:.0}"),
        _ if size >= 9.995 => format!("{number:.1}"),
        _ if size >= 0.9995 => format!("{number:.2}"),
        _ if size >= 0.09995 => format!("{number:.3}"),
        _ if size >= 0.001 => format!("{number:.4}"),
        _ => format!("{number:.2e}"),
    }
}

/// A time on an axis, in nanoseconds: `100 µs`, no more digits than needed.
pub fn tick(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    match units.into_iter().find(|(unit, _)| nanoseconds.abs() >= unit * 0.9995) {
        Some((unit, name)) => format!("{} {name}", short(nanoseconds / unit)),
        None => format!("{} ns", short(nanoseconds)),
    }
}

/// Three digits that count at most, without zeros at the end: `0.5`, `1`, `2.5`, `212 k`, `1.2 M`.
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

/// A share, 0 to 1, in percent: `0.94 %`.
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
}
