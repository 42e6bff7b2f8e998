//! `kstone config`: shows the stored settings, and changes them.

use anyhow::Result;
use kstone_api::config::Live;
use kstone_api::config::text::{self, Listed};
use kstone_api::{Database, escape};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::args::{self, ConfigArgs, ConfigCommand, Format, SetArgs};
use crate::commands::{open_to_look, open_to_write};
use crate::failure::Failure;
use crate::output::{counted, print_list, print_result, print_table, tell};
use crate::settings::{Both, Changes, effect, range, words};

pub(crate) fn run(args: &ConfigArgs, format: Format) -> Result<()> {
    match (&args.set, args.database()) {
        (Some(ConfigCommand::Set(args)), _) => set(args, format),
        (None, Some(path)) => show(&args::Database { path: path.to_owned() }, args.diff, format),
        // Cannot happen: clap demands it.
        (None, None) => Err(Failure::usage("no database is given").into()),
    }
}

fn both(db: &Database) -> Both {
    (db.config(), db.compaction_config())
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    field: &'static str,
    value: Json,
    default: Json,
    unit: &'static str,
    words: String,
    default_words: &'static str,
    range: String,
    takes_effect: &'static str,
}

impl Row {
    fn of(listed: &Listed) -> Self {
        let setting = listed.setting;
        Self {
            name: setting.stored,
            field: setting.name,
            value: listed.number.into(),
            default: listed.default.into(),
            unit: setting.unit,
            words: words(setting, listed.number),
            default_words: setting.default,
            range: range(setting),
            takes_effect: effect(setting.live),
        }
    }
}

fn show(args: &args::Database, diff: bool, format: Format) -> Result<()> {
    let db = open_to_look(args)?;
    let (database, compaction) = both(&db);
    let mut listed = text::listed(&database, &compaction);
    // The number of stripes is a fact of every database, whether or not it was chosen.
    let chosen = |listed: &Listed| listed.setting.live != Live::AtCreation && listed.number != listed.default;
    listed.retain(|listed| !diff || chosen(listed));
    let invalid = db.engine().invalid_settings();
    match format {
        Format::Table if listed.is_empty() => print_result(format, "all settings have their defaults", ())?,
        Format::Table => {
            let rows: Vec<_> = listed.iter().map(cells).collect();
            print_table(["SETTING", "VALUE", "STORED", "DEFAULT", "CHANGES APPLY", "RANGE"], &rows)?;
        }
        Format::Json => {
            let settings: Vec<_> = listed.iter().map(Row::of).collect();
            let json = json!({"schema": "kstone.config/1", "settings": settings, "invalid": invalid});
            print_result(format, "", json)?;
        }
        Format::Jsonl => {
            print_list(
                format,
                "kstone.config/1",
                "settings",
                &listed.iter().map(Row::of).collect::<Vec<_>>(),
            )?;
        }
    }
    if format != Format::Json {
        for invalid in &invalid {
            tell(format_args!("warning: {}", escape::text(invalid)));
        }
    }
    Ok(())
}

fn cells(listed: &Listed) -> [String; 6] {
    let setting = listed.setting;
    let stored = listed.number.map_or_else(String::new, |number| format!("{number} {}", setting.unit));
    let range = match listed.default {
        Some(_) => range(setting),
        None => format!("{}; by default {}", range(setting), setting.default.replace('`', "")),
    };
    [
        setting.stored.into(),
        words(setting, listed.number),
        stored.trim_end().into(),
        words(setting, listed.default),
        effect(setting.live).into(),
        range,
    ]
}

/// A changed setting.
#[derive(Serialize)]
struct Change {
    name: &'static str,
    old: Option<u64>,
    new: Option<u64>,
    unit: &'static str,
    old_words: String,
    new_words: String,
    takes_effect: &'static str,
}

fn set(args: &SetArgs, format: Format) -> Result<()> {
    let changes = Changes::parse(&args.settings, args.preset.as_deref())?;
    if let Some(fixed) = changes.at_creation() {
        let mut failure = Failure::usage(format!(
            "{} never changes: it is fixed when a database is created; nothing was changed",
            fixed.stored
        ));
        failure.hint = Some(format!("kstone create NEWDB --set {}=N, and copy the items", fixed.stored));
        return Err(failure.into());
    }
    let db = open_to_write(&args.db)?;
    let old = both(&db);
    let new = changes.apply(&old)?;
    if new.0 != old.0 {
        db.set_config(new.0.clone())?;
    }
    if new.1 != old.1 {
        db.set_compaction_config(new.1.clone())?;
    }
    let to_rewrite = db.pending_rewrites()?;
    db.close()?;
    let (before, after) = (text::listed(&old.0, &old.1), text::listed(&new.0, &new.1));
    let changed: Vec<Change> = before
        .iter()
        .zip(&after)
        .filter(|(old, new)| old != new)
        .map(|(old, new)| change(old, new))
        .collect();
    let text: String = changed
        .iter()
        .map(|change| {
            let Change { name, old_words, new_words, takes_effect, .. } = change;
            let ssts = to_rewrite.iter().find(|pending| pending.setting == *name).map(|pending| {
                let path = escape::path(&args.db.path);
                format!("; {} to rewrite: kstone compact {path}", counted(pending.ssts, "SST"))
            });
            format!(
                "{name}   {old_words} -> {new_words}   takes effect: {takes_effect}{}\n",
                ssts.unwrap_or_default()
            )
        })
        .collect();
    let text =
        if changed.is_empty() { "nothing to change: these are the stored settings" } else { text.trim_end() };
    print_result(
        format,
        text,
        json!({"schema": "kstone.config_set/1", "changes": changed, "to_rewrite": to_rewrite}),
    )
}

fn change(old: &Listed, new: &Listed) -> Change {
    let setting = new.setting;
    Change {
        name: setting.stored,
        old: old.number,
        new: new.number,
        unit: setting.unit,
        old_words: words(setting, old.number),
        new_words: words(setting, new.number),
        takes_effect: effect(setting.live),
    }
}
