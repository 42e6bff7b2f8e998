//! `kstone-bench speed`: every table, end to end, in processes of their own, with so few items that the figures mean
//! nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

use assert_cmd::Command;
use kstone_bench::record::RunFile;
use kstone_bench::speed::list;

/// A directory on a disk: bytes written to files in memory are not counted.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn speed(arguments: &str, directory: &tempfile::TempDir) -> (RunFile, String) {
    let out = directory.path().join("speed.json");
    let mut command = Command::cargo_bin("kstone-bench").unwrap();
    command.arg("speed").args(arguments.split_whitespace()).arg("--dir").arg(directory.path());
    let output = command.arg("--out").arg(&out).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap(), text)
}

#[test]
fn every_figure_of_every_table_is_measured() {
    // At the same time: they mostly wait for background work.
    std::thread::scope(|scope| {
        let ids: Vec<_> = list().unwrap().into_iter().map(|(id, _)| id).collect();
        for ids in ids.chunks(2).map(<[_]>::to_vec) {
            scope.spawn(move || every_figure_is_measured(&ids));
        }
    });
}

fn every_figure_is_measured(ids: &[String]) {
    let directory = directory();
    let markdown = directory.path().join("speed.md");
    let arguments = "--items 1k --trials 1 --engine kstone,kstone-items --md";
    let (file, text) = speed(&format!("{} {arguments} {}", ids.join(" "), markdown.display()), &directory);
    println!("{text}");
    let markdown = std::fs::read_to_string(markdown).unwrap();
    let tables = file.speed.unwrap();
    assert_eq!(tables.iter().map(|table| &table.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    for table in &tables {
        let alone = usize::from(table.id == "threads");
        assert_eq!((table.columns.len(), table.trials), (2 + alone, 1), "{table:?}");
        for row in &table.rows {
            assert!(text.contains(&row.name) && markdown.contains(&row.name), "{}: {}", table.id, row.id);
            assert_eq!(row.figures.len(), table.columns.len());
            for (column, figures) in table.columns.iter().zip(&row.figures) {
                let measured =
                    figures.len() == 1 && figures.iter().all(|figure| *figure > 0.0 && *figure < 1e12);
                assert!(measured, "{}, {}, {column}: {figures:?}", table.id, row.id);
            }
            for goal in &row.goals {
                let peers = ["heed", "fjall", "rocksdb", "lsm", "peers"];
                let absent =
                    peers.iter().any(|peer| goal.goal.ends_with(peer)) || goal.goal.contains("read_mode");
                assert_eq!(goal.reached.is_some(), !absent, "{}, {}: {goal:?}", table.id, row.id);
            }
        }
    }
}

#[test]
fn two_builds_take_turns_and_rows_can_be_chosen() {
    let directory = directory();
    let program = env!("CARGO_BIN_EXE_kstone-bench");
    let (file, text) = speed(&format!("--only fill --items 1k --trials 2 --before {program}"), &directory);
    let table = &file.speed.unwrap()[0];
    assert_eq!(table.columns, ["kstone#before", "kstone", "kstone-items#before", "kstone-items"]);
    let ids: Vec<_> = table.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["fill", "fill-p99"]);
    assert!(table.rows.iter().all(|row| row.before.len() == 2), "{table:?}");
    assert!(file.trials.iter().all(|trial| trial.steps.len() == 2) && file.trials.len() == 8);
    assert!(text.contains("against before") && text.contains("not in this build: "), "{text}");
}

#[test]
fn tables_are_listed_and_unknown_names_refused() {
    let run = |arguments: &[&str]| {
        let mut command = Command::cargo_bin("kstone-bench").unwrap();
        let output = command.arg("speed").args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (listed, text) = run(&["--list"]);
    assert!(listed && text.lines().count() == list().unwrap().len() && text.starts_with("memory "));
    for wrong in [&["nonsense"][..], &["--only", "delete"], &["--engine", "oracle", "--trials", "1"]] {
        let (done, text) = run(wrong);
        assert!(!done && !text.is_empty(), "{wrong:?}: {text}");
    }
}
