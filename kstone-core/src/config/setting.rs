//! [`Setting`]: the description of a setting, from its row in a table, for tools and documents.

use std::fmt;

/// The description of a setting, for tools and documents.
///
/// ```
/// use kstone_core::config::{DatabaseConfig, Live};
///
/// let setting = DatabaseConfig::SETTINGS.iter().find(|setting| setting.name == "block_size").unwrap();
/// assert_eq!(setting.to_string(), "block_size: 4 KiB; 64 bytes to 1 MiB");
/// assert_eq!((setting.unit, setting.live), ("bytes", Live::NewSsts));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The name of the field.
    pub name: &'static str,
    /// The method that sets it.
    pub builder: &'static str,
    /// Its name in the database and in [`text`](crate::config::text).
    pub stored: &'static str,
    /// The unit of its number there; empty if that is obvious or it has no number.
    pub unit: &'static str,
    /// The default, in words.
    pub default: &'static str,
    /// The accepted values.
    pub range: SettingRange,
    /// When a change takes effect.
    pub live: Live,
    /// The group of settings that it is documented with.
    pub group: &'static str,
    /// The benefits and costs of a higher value, or of another choice, in Markdown.
    pub more: &'static str,
    /// Fields of the statistics that show its effect, in Markdown.
    pub seen_in: &'static str,
}

/// The values that a setting accepts, regardless of other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingRange {
    /// The minimum and maximum, if they are numbers that depend on nothing else.
    pub bounds: Option<(Bound, Bound)>,
    /// Whether zero, which turns the setting off, is accepted below the minimum. It stands for `None` in an option.
    pub or_zero: bool,
    /// The names of the choices, if the setting is a choice.
    pub choices: &'static [&'static str],
    /// Further requirements on the value, or all of them; empty if there are none.
    pub note: &'static str,
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bound {
    /// The bound, in [`Setting::unit`].
    pub number: u64,
    text: &'static str,
}

/// When a change of a setting on an open database takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Live {
    /// At the next decision.
    Now,
    /// For SSTs written from then on.
    NewSsts,
    /// For SSTs opened from then on.
    OpenedSsts,
    /// Never: it is fixed when the database is created.
    AtCreation,
}

/// Writes its name, default and range.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.name, self.default, self.range)
    }
}

impl fmt::Display for SettingRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let choices: Vec<_> = self.choices.iter().map(|choice| format!("`{choice}`")).collect();
        let range = match self.bounds {
            Some((least, most)) => {
                // A unit common to both ends is written once.
                let unit = |bound: Bound| bound.text.split_once(' ').map(|(_, unit)| unit);
                let number = least.text.split(' ').next().unwrap_or_default();
                let short = if unit(least) == unit(most) { number } else { least.text };
                format!("{} to {most}", with_commas(short))
            }
            None => choices.join(", "),
        };
        let parts = [range.as_str(), self.note];
        f.write_str(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_commas(self.text))
    }
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now => "yes",
            Self::NewSsts => "new SSTs",
            Self::OpenedSsts => "SSTs opened from now on",
            Self::AtCreation => "never",
        })
    }
}

impl Bound {
    pub(super) const fn new(number: u64, text: &'static str) -> Self {
        Self { number, text }
    }
}

/// Writes underscores between digits as commas.
fn with_commas(text: &str) -> String {
    let mut before = ' ';
    let of = |c| {
        if c == '_' && std::mem::replace(&mut before, c).is_ascii_digit() {
            ','
        } else {
            before = c;
            c
        }
    };
    text.chars().map(of).collect()
}
