//! Operations that all values of settings have in common, whatever their type.

use std::fmt::Debug;
use std::time::Duration;

use super::setting::Setting;
use super::{Compression, MemtableMode, ReadMode};
use crate::error::{Error, Result};

/// The value of a setting: a number, a time, a switch or a choice, or an option of these.
pub(super) trait SettingValue {
    /// The value as a number, in the unit of its setting; `None` if it is not set.
    fn number(&self) -> Option<u64>;

    /// Sets the value from a number. A number too large for the type sets its largest value, which is out of range; a
    /// choice stays unchanged if it has no such value.
    fn set(&mut self, number: u64, setting: &Setting);

    /// Leaves the value unset, if it is an option; no other value changes.
    fn unset(&mut self) {}

    /// Why the value is out of range, if it is.
    fn out_of_range(&self, setting: &Setting) -> Option<String>;

    /// The value as the argument of its builder, in Rust.
    fn code(&self) -> String;
}

/// Checks each value separately; names the first that is out of range, and why.
pub(super) fn check(rows: &[(&'static Setting, &dyn SettingValue)]) -> Result<()> {
    let refused = rows.iter().find_map(|(setting, value)| Some((setting.name, value.out_of_range(setting)?)));
    refused.map_or(Ok(()), |(field, why)| Err(Error::config(field, why)))
}

/// The expression that turns the defaults into these settings.
pub(super) fn rust_code(
    config: &str,
    rows: &[(&Setting, &dyn SettingValue)],
    defaults: &[(&Setting, &dyn SettingValue)],
) -> String {
    let (mut start, mut calls) = (format!("{config}::new()"), String::new());
    for ((setting, value), (_, default)) in rows.iter().zip(defaults) {
        match setting.builder {
            _ if value.code() == default.code() => {}
            constructor if constructor.ends_with("()") => start = constructor.to_owned(),
            method => calls += &format!("\n    .{method}({})", value.code()),
        }
    }
    start + &calls
}

/// A type whose values are stored as numbers.
trait Number: Debug + PartialEq + Sized {
    fn to_number(&self) -> u64;

    fn of_number(number: u64) -> Option<Self>;

    /// Compares values rather than numbers: the number of a time is rounded.
    fn is_within(&self, least: u64, most: u64) -> bool {
        (least..=most).contains(&self.to_number())
    }

    fn to_code(&self) -> String {
        format!("{self:?}")
    }
}

/// A type with a few named values.
pub(super) trait Choices {
    const NAMES: &'static [&'static str];
}

impl<T: Number> SettingValue for T {
    fn number(&self) -> Option<u64> {
        Some(self.to_number())
    }

    fn set(&mut self, number: u64, _: &Setting) {
        if let Some(value) = T::of_number(number) {
            *self = value;
        }
    }

    fn out_of_range(&self, setting: &Setting) -> Option<String> {
        let (least, most) = setting.range.bounds?;
        let is_zero = || setting.range.or_zero && T::of_number(0).as_ref() == Some(self);
        let is_within = self.is_within(least.number, most.number) || is_zero();
        (!is_within).then(|| format!("{self:?} is not between {least} and {most}"))
    }

    fn code(&self) -> String {
        self.to_code()
    }
}

impl<T: Number> SettingValue for Option<T> {
    fn number(&self) -> Option<u64> {
        self.as_ref().map(T::to_number)
    }

    fn set(&mut self, number: u64, setting: &Setting) {
        *self = T::of_number(number).filter(|_| number > 0 || !setting.range.or_zero);
    }

    fn unset(&mut self) {
        *self = None;
    }

    fn out_of_range(&self, setting: &Setting) -> Option<String> {
        let (value, (least, most)) = (self.as_ref()?, setting.range.bounds?);
        let is_within = value.is_within(least.number, most.number);
        (!is_within).then(|| format!("{value:?} is not between {least} and {most}"))
    }

    fn code(&self) -> String {
        // Only times can have no value by choice without that being the default.
        self.as_ref().map_or_else(|| "Duration::MAX".to_owned(), T::to_code)
    }
}

macro_rules! integers {
    ($($type:ty)+) => {$(
        impl Number for $type {
            fn to_number(&self) -> u64 {
                *self as u64
            }

            fn of_number(number: u64) -> Option<Self> {
                Some(Self::try_from(number).unwrap_or(Self::MAX))
            }
        }
    )+};
}

integers!(usize u64 u32);

/// In milliseconds.
impl Number for Duration {
    fn to_number(&self) -> u64 {
        self.as_millis() as u64
    }

    fn of_number(number: u64) -> Option<Self> {
        Some(Self::from_millis(number))
    }

    fn is_within(&self, least: u64, most: u64) -> bool {
        (Self::from_millis(least)..=Self::from_millis(most)).contains(self)
    }

    fn to_code(&self) -> String {
        match self.subsec_nanos() {
            0 => format!("Duration::from_secs({})", self.as_secs()),
            nanos if nanos % 1_000_000 == 0 => format!("Duration::from_millis({})", self.as_millis()),
            nanos => format!("Duration::new({}, {nanos})", self.as_secs()),
        }
    }
}

impl Number for bool {
    fn to_number(&self) -> u64 {
        (*self).into()
    }

    fn of_number(number: u64) -> Option<Self> {
        Some(number != 0)
    }
}

impl Choices for bool {
    const NAMES: &'static [&'static str] = &["false", "true"];
}

macro_rules! choices {
    ($($type:ident { $($variant:ident),+ })+) => {$(
        impl Number for $type {
            fn to_number(&self) -> u64 {
                *self as u64
            }

            fn of_number(number: u64) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|variant| variant.to_number() == number)
            }

            fn to_code(&self) -> String {
                let name = match self {
                    $(Self::$variant => stringify!($variant),)+
                };
                format!("{}::{name}", stringify!($type))
            }
        }

        impl Choices for $type {
            const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];
        }
    )+};
}

choices! {
    MemtableMode { Fixed, Adaptive }
    Compression { Never, Older, Always }
    ReadMode { Mmap, Pread }
}
