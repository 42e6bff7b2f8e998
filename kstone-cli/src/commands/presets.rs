//! `kstone presets`.

use anyhow::Result;
use kstone_api::Preset;
use serde::Serialize;
use serde_json::json;

use crate::args::{Format, PresetsArgs};
use crate::output::{print_list, print_result, print_table};

#[derive(Serialize)]
struct Described {
    name: &'static str,
    trade_off: &'static str,
    rust_code: String,
}

impl Described {
    fn of(preset: &Preset) -> Self {
        Self { name: preset.name, trade_off: preset.trade_off(), rust_code: preset.rust_code() }
    }
}

pub(crate) fn run(args: &PresetsArgs, format: Format) -> Result<()> {
    if let Some(name) = &args.name {
        let preset = Preset::by_name(name)?;
        let json = json!({"schema": "kstone.preset/1", "preset": Described::of(&preset)});
        return print_result(format, preset.to_string().trim_end(), json);
    }
    let all: Vec<_> = Preset::all().iter().map(Described::of).collect();
    if format != Format::Table {
        return print_list(format, "kstone.presets/1", "presets", &all);
    }
    let rows: Vec<_> = all.iter().map(|preset| [preset.name, preset.trade_off].map(str::to_owned)).collect();
    print_table(["PRESET", "PURPOSE AND COST"], &rows)
}
