//! The README's commands do what it says.

use crate::Fixture;

const README: &str = include_str!("../../../README.md");

/// Runs each command of the README's console blocks that calls `kstone`, on the demo's database, and compares what it
/// prints if the README shows it.
#[test]
fn the_commands_of_the_readme_work() {
    let db = Fixture::new();
    let airports = concat!(env!("CARGO_MANIFEST_DIR"), "/data/airports.jsonl.gz");
    let import =
        ["import", "demo.keystone", airports, "--key-attr", "country", "--sort-attr", "icao", "--create"];
    db.run(&import).assert().success();
    let mut path = assert_cmd::cargo::cargo_bin("kstone").parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut ran = 0;
    for block in README.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        for command in block.split("$ ").filter(|command| command.starts_with("kstone ")) {
            let (line, shown) = command.split_once('\n').unwrap();
            let mut shell = assert_cmd::Command::new("sh");
            let done =
                shell.current_dir(db.dir.path()).env("PATH", &path).args(["-c", line]).assert().success();
            if !shown.trim().is_empty() {
                done.stdout(shown.to_owned());
            }
            ran += 1;
        }
    }
    assert!(ran >= 7, "{ran}");
}
