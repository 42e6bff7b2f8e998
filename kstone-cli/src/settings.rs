//! Settings by name, with values as people write them.

use bytesize::ByteSize;
use kstone_api::config::text::{self, Listed};
use kstone_api::config::{Live, Setting};
use kstone_api::{CompactionConfig, DatabaseConfig, Error, Preset};

use crate::failure::Failure;

/// Similarity from which a name may be meant, 0 to 1, and the most names to suggest.
const SIMILAR: f64 = 0.8;
const SUGGESTED: usize = 3;

/// Settings of a database.
pub(crate) type Both = (DatabaseConfig, CompactionConfig);

/// Changes of settings, parsed: they need no database until they are applied.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    text: String,
}

impl Changes {
    /// `given` are texts `name=value`; a preset comes before them.
    pub(crate) fn parse(given: &[String], preset: Option<&str>) -> anyhow::Result<Self> {
        let defaults = defaults();
        let mut parts = match preset {
            Some(name) => of_preset(&Preset::by_name(name)?),
            None => Vec::new(),
        };
        for text in given {
            let Some((name, value)) = text.split_once('=') else {
                return Err(Failure::usage(format!("{text:?} is not NAME=VALUE")).into());
            };
            let setting = by_name(&defaults, name.trim())?;
            let stored = stored_value(setting, value.trim()).map_err(|why| {
                refused(setting.setting, format!("{}={value}: {why}", setting.setting.stored))
            })?;
            parts.push(format!("{}={stored}", setting.setting.stored));
        }
        Ok(Self { text: parts.join(",") })
    }

    /// The names of changed settings that are fixed at creation.
    pub(crate) fn at_creation(&self) -> Option<&'static Setting> {
        let names: Vec<_> = self.text.split(',').filter_map(|part| part.split_once('=')).collect();
        let fixed = defaults().into_iter().filter(|listed| listed.setting.live == Live::AtCreation);
        fixed.map(|listed| listed.setting).find(|fixed| names.iter().any(|(name, _)| *name == fixed.stored))
    }

    /// Settings with these changes. A value that is out of range is refused with its range.
    pub(crate) fn apply(&self, (database, compaction): &Both) -> anyhow::Result<Both> {
        text::changed(&self.text, database, compaction).map_err(|error| {
            let Error::InvalidConfig { field, .. } = &error else { return error.into() };
            let setting = defaults().into_iter().find(|listed| listed.setting.name == *field);
            match setting {
                Some(listed) => refused(listed.setting, error.to_string()).into(),
                None => error.into(),
            }
        })
    }
}

/// All settings with their defaults.
pub(crate) fn defaults() -> Vec<Listed> {
    text::listed(&DatabaseConfig::default(), &CompactionConfig::default())
}

/// Every setting in which presets differ, as in this one: so a preset undoes another.
fn of_preset(preset: &Preset) -> Vec<String> {
    let differs = |preset: &Preset| text::differing(&preset.database, &preset.compaction);
    let named: Vec<String> = Preset::all().iter().map(differs).collect();
    let is_named = |name: &str| {
        let parts = named.iter().flat_map(|text| text.split(','));
        parts.filter_map(|part| part.split_once('=')).any(|(of, _)| of == name)
    };
    let all = text::listed(&preset.database, &preset.compaction);
    let named = all.iter().filter(|listed| is_named(listed.setting.stored));
    let part = |listed: &Listed| match listed.number {
        Some(number) => format!("{}={number}", listed.setting.stored),
        None => format!("{}=default", listed.setting.stored),
    };
    named.map(part).collect()
}

fn by_name<'a>(all: &'a [Listed], name: &str) -> Result<&'a Listed, Failure> {
    let is = |listed: &&Listed| listed.setting.stored == name || listed.setting.name == name;
    all.iter().find(is).ok_or_else(|| {
        let mut failure = Failure::usage(format!("there is no setting {name:?}"));
        let lower = name.to_ascii_lowercase();
        let alike = |listed: &Listed| {
            let Setting { name, stored, .. } = *listed.setting;
            strsim::jaro_winkler(name, &lower).max(strsim::jaro_winkler(stored, &lower))
        };
        let mut near: Vec<_> = all.iter().map(|listed| (alike(listed), listed.setting.stored)).collect();
        near.retain(|(alike, _)| *alike >= SIMILAR);
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near: Vec<_> = near.into_iter().take(SUGGESTED).map(|(_, name)| name).collect();
        failure.hint = Some(match near.as_slice() {
            [] => "kstone config DB lists all settings".into(),
            near => format!("did you mean {}?", near.join(" or ")),
        });
        failure
    })
}

fn refused(setting: &Setting, message: String) -> Failure {
    let mut failure = Failure::usage(message);
    failure.code = "invalid_config";
    failure.hint = Some(format!("{} accepts {}", setting.stored, range(setting)));
    failure
}

/// The accepted values, for people.
pub(crate) fn range(setting: &Setting) -> String {
    setting.range.to_string().replace('`', "")
}

/// The value as [`text::changed`] reads it.
fn stored_value(listed: &Listed, value: &str) -> Result<String, String> {
    let setting = listed.setting;
    let lower = value.to_ascii_lowercase();
    if lower == "default" {
        return Ok(lower);
    }
    if !setting.range.choices.is_empty() {
        return choice(setting, &lower).ok_or_else(|| "there is no such choice".into());
    }
    if matches!(lower.as_str(), "none" | "never" | "off" | "unlimited") {
        let is_zero_accepted = setting.range.bounds.is_some_and(|(least, _)| least.number == 0);
        return match (setting.range.or_zero || is_zero_accepted, listed.default) {
            (true, _) => Ok("0".into()),
            (false, None) => Ok("default".into()),
            (false, Some(_)) => Err("it always has a value".into()),
        };
    }
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(value.to_owned());
    }
    let number = match setting.unit {
        "bytes" => {
            value.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| "not a size such as 64MiB")
        }
        "ms" => humantime::parse_duration(value)
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            .map_err(|_| "not a time such as 10s"),
        "seconds" => {
            humantime::parse_duration(value).map(|time| time.as_secs()).map_err(|_| "not a time such as 10s")
        }
        _ => Err("not a whole number"),
    };
    Ok(number?.to_string())
}

/// The number of a choice: its place in the list.
fn choice(setting: &Setting, lower: &str) -> Option<String> {
    let choices = setting.range.choices;
    let named = match lower {
        "on" | "yes" => "true",
        "off" | "no" => "false",
        other => other,
    };
    let at = choices.iter().position(|choice| choice.eq_ignore_ascii_case(named));
    let number = at.or_else(|| lower.parse().ok().filter(|&number: &usize| number < choices.len()));
    number.map(|number| number.to_string())
}

/// A value in words, which [`stored_value`] reads again.
pub(crate) fn words(setting: &Setting, number: Option<u64>) -> String {
    let Some(number) = number else { return "none".into() };
    if let Some(choice) = usize::try_from(number).ok().and_then(|at| setting.range.choices.get(at)) {
        return match *choice {
            "true" => "on".into(),
            "false" => "off".into(),
            choice => choice.into(),
        };
    }
    let is_below = setting.range.bounds.is_some_and(|(least, _)| number < least.number);
    match setting.unit {
        _ if number == 0 && setting.range.or_zero && is_below => "none".into(),
        "bytes" => bytes(number),
        "ms" => humantime::format_duration(std::time::Duration::from_millis(number)).to_string(),
        "seconds" => humantime::format_duration(std::time::Duration::from_secs(number)).to_string(),
        _ => number.to_string(),
    }
}

/// A size in the largest unit in which it is a whole number.
fn bytes(number: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| number > 0 && number.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{number}B"), |(shift, unit)| format!("{}{unit}", number >> shift))
}

/// When a change takes effect.
pub(crate) fn effect(live: Live) -> &'static str {
    match live {
        Live::Now => "now",
        Live::NewSsts => "new SSTs",
        Live::OpenedSsts => "SSTs opened from then on",
        Live::AtCreation => "never",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, value: &str) -> Result<String, String> {
        let all = defaults();
        stored_value(by_name(&all, name).unwrap(), value)
    }

    #[test]
    fn values_are_written_with_units_or_without() {
        for (name, value, number) in [
            ("max_wal_size_bytes", "64MiB", "67108864"),
            ("max_wal_size_bytes", "1.5 GiB", "1610612736"),
            ("max_wal_size_bytes", "77", "77"),
            ("max_wal_size_bytes", "none", "default"),
            ("sync_interval", "10s", "10000"),
            ("sync_interval_ms", "10", "10"),
            ("sync_interval", "never", "0"),
            ("check_interval_secs", "2m", "120"),
            ("wal_buffer_size", "off", "0"),
            ("read_mode", "pread", "1"),
            ("read_mode", "Mmap", "0"),
            ("compression", "2", "2"),
            ("enabled", "off", "0"),
            ("compaction_enabled", "on", "1"),
            ("block_size", "default", "default"),
        ] {
            assert_eq!(stored(name, value).as_deref(), Ok(number), "{name}={value}");
        }
        for (name, value) in [
            ("sst_threshold", "many"),
            ("sst_threshold", "none"),
            ("read_mode", "2"),
            ("read_mode", "disk"),
            ("sync_interval", "soon"),
            ("block_size", ""),
            ("block_size", "-1"),
        ] {
            assert!(stored(name, value).is_err(), "{name}={value}");
        }
    }

    /// What is shown can be given back, for every setting and its default, least and most value.
    #[test]
    fn words_are_read_again() {
        for listed in defaults() {
            let bounds = listed.setting.range.bounds.map(|(least, most)| [least.number, most.number]);
            let numbers = bounds.into_iter().flatten().map(Some).chain([listed.number]);
            for number in numbers {
                let words = words(listed.setting, number);
                let expected = number.map_or("default".into(), |number| number.to_string());
                assert_eq!(stored_value(&listed, &words), Ok(expected), "{} {words}", listed.setting.name);
            }
        }
    }

    #[test]
    fn a_preset_undoes_another() {
        let both = (DatabaseConfig::default(), CompactionConfig::default());
        let to = |name: &str, from: &Both| Changes::parse(&[], Some(name)).unwrap().apply(from).unwrap();
        let quota = (both.0.clone().with_max_total_disk_bytes(1 << 30), both.1.clone());
        let heavy = to("write-heavy", &quota);
        assert_eq!(heavy.0.max_memtable_records, 10_000);
        assert_eq!(to("balanced", &heavy), quota);
    }
}
