//! The tables of settings and counters have a row for each of them, everything that a row names exists, and its tests
//! run: no setting without an asserted effect, and no counter that is never tested.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kstone_core::config::{CompactionConfig, DatabaseConfig, Live, Setting};
use kstone_core::vfs::{DiskVfs, Vfs};

/// The documents with the tables.
const TABLES: &[&str] = &["docs/settings-and-counters.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The public fields of a struct in a source file.
fn fields(file: &str, name: &str) -> Vec<String> {
    let source = read(file);
    let from = source.find(&format!("pub struct {name} {{")).unwrap_or_else(|| panic!("{file}: no {name}"));
    let body = &source[from..];
    let body = &body[..body.find("\n}").unwrap()];
    let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    fields.filter(|(name, _)| !name.contains(' ')).map(|(name, _)| name.to_string()).collect()
}

/// The text between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_setting_and_counter_has_a_row_and_each_row_a_test() {
    let table: String = TABLES.iter().map(|file| read(file)).collect();
    let mut named = BTreeSet::new();
    let mut tests = 0;
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        for name in quoted(cells[0]) {
            assert!(named.insert(name.to_string()), "{name} has two rows");
        }
        let places = quoted(cells[cells.len() - 1]);
        assert!(!places.is_empty(), "no test: {row}");
        for place in places {
            let (file, function) = place.split_once("::").unwrap_or_else(|| panic!("{place}: {row}"));
            let source = read(file);
            let (before, _) = source
                .split_once(&format!("fn {function}("))
                .unwrap_or_else(|| panic!("{place} does not exist: {row}"));
            let attributes = before.rsplit("\n\n").next().unwrap();
            assert!(attributes.contains("#[test]") && !attributes.contains("#[ignore"), "{place} is not run");
            tests += 1;
        }
    }
    let mut expected: Vec<String> = settings().map(|setting| setting.name.to_owned()).collect();
    for (file, name, prefix) in STRUCTS {
        expected.extend(fields(file, name).into_iter().map(|field| format!("{prefix}{field}")));
    }
    expected.retain(|name| !ENVIRONMENT.contains(&&**name));
    let missing: Vec<_> = expected.iter().filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !expected.contains(name)).collect();
    assert!(unknown.is_empty(), "rows for names that do not exist: {unknown:?}");
    println!("{} settings and counters, {tests} tests", expected.len());
}

/// The rules behind the guarantees: all tests named in the table exist, and it has every bug that can be planted.
#[test]
fn every_rule_names_tests_and_planted_bugs_that_exist() {
    let (mut rules, mut tests, mut bugs, mut uncovered) = (0, BTreeSet::new(), BTreeSet::new(), 0);
    for row in read("docs/crash-rules.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_start_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 5 && !cells[0].is_empty() && !cells[1].is_empty(), "{row}");
        if cells[2] == "covered by" {
            continue;
        }
        rules += 1;
        let places = quoted(cells[2]);
        // A rule without a test must give a reason.
        assert!(!places.is_empty() || !cells[3].is_empty(), "{row}");
        uncovered += u32::from(places.is_empty());
        for place in places {
            let (file, name) = place.split_once("::").unwrap_or_else(|| panic!("{place}: {row}"));
            if file == "Bug" {
                bugs.insert(name.to_string());
                continue;
            }
            let (file, _) = place_of(place).unwrap();
            assert!(all_tests(&file).contains(&format!("fn {name}(")), "{place} does not exist: {row}");
            tests.insert(place.to_string());
        }
    }
    let all: BTreeSet<_> = kstone_core::planted::Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
    assert_eq!(bugs, all, "planted bugs in the table, and those in the code");
    println!(
        "{rules} rules, {} tests and {} planted bugs; {uncovered} rules without",
        tests.len(),
        bugs.len()
    );
    assert!(rules > 80 && uncovered <= 2);
}

/// The file and the name of a test that a document names as `file::test`.
fn place_of(place: &str) -> Option<(String, &str)> {
    let (file, name) = place.split_once("::")?;
    let file = match file.split_once('/') {
        Some(("src", unit)) => format!("kstone-core/src/{unit}"),
        _ if file == "kstone-shuttle" => return Some((SHUTTLE.into(), name)),
        _ => format!("kstone-core/tests/it/{file}.rs"),
    };
    Some((file, name))
}

/// There is no guarantee without a test.
#[test]
fn every_promise_names_tests_that_exist() {
    let (mut promises, mut tests) = (0, BTreeSet::new());
    let short = ["crash", "faults"];
    for row in read("docs/durability.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let numbered = cells[0].trim().parse::<u32>().is_ok();
        promises += u32::from(numbered);
        let of_promise = quoted(if numbered { cells[2] } else { row });
        let named =
            |text: &&&str| text.contains("::") && !text.starts_with("Durability") || short.contains(text);
        assert!(!numbered || of_promise.iter().any(|text| named(&text)), "no test: {row}");
        for (file, name) in of_promise.iter().filter_map(|text| place_of(text)) {
            if !name.starts_with(char::is_uppercase) && !name.ends_with(')') {
                assert!(all_tests(&file).contains(&format!("fn {name}(")), "{file}: {name}: {row}");
                tests.insert(name.to_string());
            }
        }
    }
    println!("{promises} promises, {} tests", tests.len());
    assert!(promises >= 24 && tests.len() > 50);
}

/// The source of a file, or of all tests of interleavings.
fn all_tests(file: &str) -> String {
    if file != SHUTTLE {
        return read(file);
    }
    let files = DiskVfs::new().list(&root().join(file)).unwrap();
    files.iter().map(|entry| read(&format!("{file}/{}", entry.name))).collect()
}

/// The directory of the tests of interleavings.
const SHUTTLE: &str = "kstone-core/shuttle/tests/it";

fn settings() -> impl Iterator<Item = &'static Setting> {
    DatabaseConfig::SETTINGS.iter().chain(CompactionConfig::SETTINGS)
}

/// Where options are declared, and the prefix of their names in the table.
const STRUCTS: &[(&str, &str, &str)] = &[
    ("kstone-core/src/lsm/options.rs", "EngineOptions", "EngineOptions."),
    ("kstone-core/src/lsm/options.rs", "WriteOptions", "WriteOptions."),
];

/// The environment of an engine; none of these is a setting.
const ENVIRONMENT: &[&str] =
    &["EngineOptions.vfs", "EngineOptions.clock", "EngineOptions.workers", "EngineOptions.memory_probe"];

/// Tested by `intervals_and_parallelism_change_live`: with a single-threaded worker, their effects are not visible from
/// outside.
const UNSEEN: &[&str] = &["checkpoint_interval", "max_concurrent_compactions"];

/// Each setting that can change while the database is open has a case in the test of that.
#[test]
fn every_setting_that_changes_live_is_in_the_test_of_that() {
    let tests = read("kstone-core/tests/it/live.rs");
    for setting in settings() {
        let (name, live) = (setting.name, setting.live != Live::AtCreation);
        let case = tests.contains(&format!("setting: \"{name}\""));
        assert_eq!(live, case || UNSEEN.contains(&name), "{setting}");
    }
}
