//! Checks `docs/tuning.md` against the code.

use kstone_api::{Database, ItemBuilder, Preset};
use serde_json::Value;

const TUNING: &str = include_str!("../../../docs/tuning.md");

#[test]
fn every_setting_is_in_the_page_on_tuning() {
    for method in super::builders() {
        let described = TUNING.lines().any(|line| line.starts_with(&format!("| `{method}` |")));
        assert!(described, "docs/tuning.md has no row for {method}");
    }
}

#[test]
fn every_preset_is_in_the_page_on_tuning() {
    for preset in Preset::all() {
        let row = TUNING.lines().find(|line| line.starts_with(&format!("| `{}` |", preset.name)));
        let row = row.unwrap_or_else(|| panic!("docs/tuning.md has no row for {}", preset.name));
        let settings = row.split('|').nth(2).unwrap();
        // The numbers in the code, with commas in thousands as on the page.
        let code = preset.rust_code();
        for number in code.split(['(', ')']).filter(|part| part.parse::<u64>().is_ok()) {
            let number = if number == "10000" { "10,000" } else { number };
            assert!(settings.contains(number), "{}: {number} is missing in {settings}", preset.name);
        }
    }
}

/// The last column of the tables of settings names fields of the statistics, which must exist.
#[test]
fn every_counter_of_the_page_on_tuning_is_a_field_of_the_statistics() {
    let db = Database::in_memory().unwrap();
    db.put("key", ItemBuilder::new().number("n", 1)).unwrap();
    let mut stats = serde_json::to_value(db.stats().unwrap()).unwrap();
    stats["latencies"] = serde_json::to_value(db.latencies()).unwrap();
    let exists = |path: &str| {
        path.split('.').try_fold(&stats, |at: &Value, field| match field.strip_suffix("[]") {
            Some(list) => at.get(list)?.get(0),
            None => at.get(field),
        })
    };
    let mut checked = 0;
    for line in
        TUNING.lines().filter(|line| line.starts_with("| `with_") || line.starts_with("| `Compaction"))
    {
        let seen_in = line.trim_end_matches('|').rsplit('|').next().unwrap();
        for path in seen_in.split('`').skip(1).step_by(2).filter(|path| !path.starts_with("db.")) {
            assert!(exists(path).is_some(), "there is no {path}: {line}");
            checked += 1;
        }
    }
    assert!(checked >= 25, "{checked}");
}
