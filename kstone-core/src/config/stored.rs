//! Settings as named numbers, as the manifest stores them, and the handling of stored settings that cannot be used.

use std::fmt;

use super::setting::{Live, Setting};
use super::value::SettingValue;
use crate::error::{Error, Result};

/// The number of a setting, if it has one. Zero stands for `None` where that is not the default, since a missing
/// setting means the default.
pub(super) fn number(setting: &Setting, value: &dyn SettingValue) -> Option<u64> {
    value.number().or(setting.range.or_zero.then_some(0))
}

/// The settings that can change; the others are stored with the facts about the database.
pub(super) fn to_settings(rows: &[(&Setting, &dyn SettingValue)]) -> Vec<(String, u64)> {
    let stored = rows.iter().filter(|(setting, _)| setting.live != Live::AtCreation);
    stored
        .filter_map(|(setting, value)| Some((setting.stored.to_owned(), number(setting, *value)?)))
        .collect()
}

/// Unknown names are skipped: a later version may have stored them.
pub(super) fn from_settings(mut rows: Vec<(&Setting, &mut dyn SettingValue)>, settings: &[(String, u64)]) {
    rows.retain(|(setting, _)| setting.live != Live::AtCreation);
    for (name, number) in settings {
        for (setting, value) in rows.iter_mut().filter(|(setting, _)| setting.stored == name) {
            value.set(*number, setting);
        }
    }
}

/// A stored setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidSetting {
    pub(crate) name: String,
    pub(crate) value: u64,
    pub(crate) why: String,
    /// The value used instead; `None`: the default.
    pub(crate) instead: Option<u64>,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, why, instead } = self;
        write!(f, "the setting {name} is stored as {value} ({why}); ")?;
        match instead {
            Some(instead) => write!(f, "{instead} is used"),
            None => f.write_str("the default is used"),
        }
    }
}

/// The stored settings without those that cannot be used: nothing that is stored may keep a database from being read.
/// The quota is not left out but raised to an acceptable value: without it the database would grow without bound.
pub(super) fn usable<C: Default>(
    table: &[Setting],
    settings: &[(String, u64)],
    make: impl Fn(&[(String, u64)]) -> Result<C>,
) -> (C, Vec<InvalidSetting>) {
    let (mut settings, mut invalid) = (settings.to_vec(), Vec::new());
    loop {
        let (field, why) = match make(&settings) {
            Ok(config) => return (config, invalid),
            Err(Error::InvalidConfig { field, why }) => (field, why),
            Err(_) => return (C::default(), invalid),
        };
        let is_stored = |name: &&str| settings.iter().any(|(stored, _)| stored == name);
        let refused = table.iter().find(|setting| setting.name == field).map(|setting| setting.stored);
        // If the rejected setting has its default, the setting that contradicts it is at fault.
        let at_fault = refused.into_iter().chain(CONTRADICTORY).find(is_stored);
        let Some(name) = at_fault else { return (C::default(), invalid) };
        let value = settings.iter().rev().find(|(stored, _)| stored == name).map_or(0, |(_, value)| *value);
        settings.retain(|(stored, _)| stored != name);
        let accepted = |value| {
            let with = [settings.as_slice(), &[(name.to_owned(), value)]].concat();
            !matches!(make(&with), Err(Error::InvalidConfig { field: QUOTA, .. }))
        };
        let instead = if name == QUOTA { raised(value, accepted) } else { None };
        settings.extend(instead.map(|value| (name.to_owned(), value)));
        invalid.push(InvalidSetting { name: name.to_owned(), value, why, instead });
    }
}

/// Settings that are checked against each other.
const CONTRADICTORY: [&str; 4] =
    ["max_item_bytes", "wal_segment_size", "max_wal_size_bytes", "max_batch_bytes"];
const QUOTA: &str = "max_total_disk_bytes";

/// Doubles the value until it is accepted.
fn raised(value: u64, accepted: impl Fn(u64) -> bool) -> Option<u64> {
    std::iter::successors(Some(value.max(1)), |value| value.checked_mul(2)).find(|&value| accepted(value))
}
