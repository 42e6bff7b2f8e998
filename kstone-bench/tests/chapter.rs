//! `kstone-bench chapter`: every table, end to end, in processes of their own, at a scale whose figures mean nothing.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use assert_cmd::Command;
use kstone_bench::chapter::{Measured, list};
use kstone_bench::record::RunFile;

fn chapter() -> Command {
    let mut command = Command::cargo_bin("kstone-bench").unwrap();
    command.arg("chapter");
    command
}

#[test]
fn every_table_is_printed_and_in_the_file_and_none_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let (json, markdown) = (directory.path().join("chapter.json"), directory.path().join("tables.md"));
    let databases = directory.path().join("databases");
    std::fs::create_dir_all(&databases).unwrap();
    let mut command = chapter();
    command.args(["--scale", "tiny", "--dir"]).arg(&databases);
    let output = command.arg("--out").arg(&json).arg("--md").arg(&markdown).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));

    let file: RunFile = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let markdown = std::fs::read_to_string(&markdown).unwrap();
    let tables = file.chapter.unwrap();
    let ids: Vec<_> = tables.iter().map(|table| table.id.as_str()).collect();
    assert_eq!(ids, list().unwrap().iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
    for table in &tables {
        assert!(text.contains(&format!("{} {}", table.id, table.title)), "{}", table.id);
        assert!(markdown.contains(&format!("### {} {}", table.id, table.title)), "{}", table.id);
        assert!(table.error.is_none() && table.trials == 1 && !table.done.is_empty(), "{table:?}");
        let lines = || table.groups.iter().flat_map(|group| &group.lines);
        let measured = lines().filter(|line| line.measured.median().is_some()).count();
        assert!(measured > 0 && lines().any(|line| line.says.is_some()), "{table:?}");
        for line in lines() {
            match &line.measured {
                Measured::Values(values) => {
                    assert!(!values.is_empty() && values.iter().all(|v| v.is_finite()))
                }
                Measured::NotHere(why) => assert!(!why.is_empty()),
            }
        }
        assert!(table.groups.iter().all(|group| !group.lines.is_empty()), "{table:?}");
        let judged = |group: &kstone_bench::chapter::Group| group.shape.is_some();
        assert!(table.id == "23.10-targets" || table.groups.iter().any(judged), "{}: no verdict", table.id);
    }
    let trials: Vec<_> = file.trials.iter().map(|trial| trial.steps.len()).collect();
    assert_eq!(trials, [3, 3, 3, 6, 6, 6, 2, 2, 2, 2, 2, 2], "thresholds twice, configurations, examples");
    assert!(std::fs::read_dir(&databases).unwrap().next().is_none(), "databases are removed");
}

#[test]
fn tables_are_listed_and_unknown_ones_refused() {
    let output = chapter().arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), list().unwrap().len());
    assert!(text.starts_with("23.1-throughput "));
    let wrong = chapter().args(["--only", "23.99"]).output().unwrap();
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("23.10-targets"));
    let wrong = chapter().args(["--scale", "huge"]).output().unwrap();
    assert!(!wrong.status.success());
}
