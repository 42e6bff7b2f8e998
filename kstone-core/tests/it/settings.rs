//! The tables of settings in docs/tuning.md are those of the code. When a setting changes, write them anew:
//!
//! ```sh
//! KSTONE_BLESS=1 cargo test -p kstone-core --test it settings
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kstone_core::config::{CompactionConfig, DatabaseConfig, Setting};

/// Ends a table that begins after a line of [`begin`].
const END: &str = "<!-- end of the table -->\n";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/tuning.md")
}

fn all() -> impl Iterator<Item = &'static Setting> {
    DatabaseConfig::SETTINGS.iter().chain(CompactionConfig::SETTINGS)
}

fn begin(group: &str) -> String {
    format!("<!-- {group}: a table of settings, made by kstone-core/tests/it/settings.rs -->\n")
}

/// The table of a group.
fn table(group: &str) -> String {
    let mut table =
        "| setting | default | range | more of it | live | seen in |\n|---|---|---|---|---|---|\n".to_owned();
    for setting in all().filter(|setting| setting.group == group) {
        let Setting { builder, default, range, live, more, seen_in, .. } = setting;
        writeln!(table, "| `{builder}` | {default} | {range} | {more} | {live} | {seen_in} |").unwrap();
    }
    table
}

/// The page with the tables of the code in place of those that it has.
fn rendered(page: &str) -> String {
    let groups: BTreeSet<&str> = all().map(|setting| setting.group).collect();
    groups.into_iter().fold(page.to_owned(), |page, group| {
        let begin = begin(group);
        let (before, rest) =
            page.split_once(&begin).unwrap_or_else(|| panic!("docs/tuning.md has no line {begin}"));
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("docs/tuning.md: no end of {group}"));
        [before, &begin, &table(group), END, after].concat()
    })
}

#[test]
fn the_page_on_tuning_has_the_settings_as_they_are() {
    let found = std::fs::read_to_string(page()).unwrap();
    let rendered = rendered(&found);
    if std::env::var_os("KSTONE_BLESS").is_some() {
        std::fs::write(page(), rendered).unwrap();
        return;
    }
    for (found, rendered) in found.lines().zip(rendered.lines()) {
        assert_eq!(
            found, rendered,
            "docs/tuning.md differs from the settings of kstone-core/src/config; write its tables anew with\n\
             KSTONE_BLESS=1 cargo test -p kstone-core --test it settings"
        );
    }
    assert_eq!(
        found.len(),
        rendered.len(),
        "docs/tuning.md has rows too many or too few; KSTONE_BLESS=1 writes them"
    );
}

#[test]
fn every_setting_is_described() {
    let mut names = BTreeSet::new();
    for setting in all() {
        assert!(names.insert(setting.stored), "two are stored as {}", setting.stored);
        for text in [setting.more, setting.seen_in, setting.default, setting.range.note] {
            assert!(!text.contains(['|', '\n']) && text.trim() == text && !text.ends_with('.'), "{text:?}");
        }
        assert!(!setting.more.is_empty() && !setting.default.is_empty(), "{setting}");
        assert!(!setting.range.to_string().is_empty(), "{setting}");
    }
}
