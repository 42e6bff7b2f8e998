//! [`Setting`]: what a row of a table says of a setting, for tools and documents.

use std::fmt;

/// One setting: what tools and documents need to know of it.
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
    /// The field.
    pub name: &'static str,
    /// The method that sets it.
    pub builder: &'static str,
    /// Its name in the database and in [`text`](crate::config::text).
    pub stored: &'static str,
    /// What its number counts there; empty where that is clear or it has no number.
    pub unit: &'static str,
    /// The default, in words.
    pub default: &'static str,
    /// The values that are accepted.
    pub range: SettingRange,
    /// When a change takes effect.
    pub live: Live,
    /// Settings of one group are described together.
    pub group: &'static str,
    /// What more of it, or another choice, gains and costs, in Markdown.
    pub more: &'static str,
    /// Fields of the statistics that show its effect, in Markdown.
    pub seen_in: &'static str,
}

/// The values that a setting accepts, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingRange {
    /// The least and the most, where they are numbers that depend on nothing else.
    pub bounds: Option<(Bound, Bound)>,
    /// Zero turns it off, and is accepted below the least. It stands for `None` in an option.
    pub or_zero: bool,
    /// The names of the choices, if it is one.
    pub choices: &'static [&'static str],
    /// What else is required of the value, or all that is; empty if nothing.
    pub note: &'static str,
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bound {
    /// In [`Setting::unit`].
    pub number: u64,
    text: &'static str,
}

/// When a change of a setting on an open database takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Live {
    /// With the next decision.
    Now,
    /// For SSTs written from then on.
    NewSsts,
    /// For SSTs opened from then on.
    OpenedSsts,
    /// Never: it is fixed when the database is created.
    AtCreation,
}

/// Its name, default and range.
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
                // A unit that both have is named once.
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

/// Numbers as people write them.
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
