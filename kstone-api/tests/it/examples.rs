//! Runs each example for a second.

use std::path::PathBuf;
use std::process::Command;

/// The output of an example; `None`, with a note on stderr, if it was not built: `cargo test --test it` builds none.
fn run(name: &str) -> Option<String> {
    // target/debug/deps/it-... -> target/debug/examples/NAME
    let test = std::env::current_exe().unwrap();
    let target: PathBuf = test.ancestors().nth(2).unwrap().into();
    let program = target.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    if !program.exists() {
        eprintln!("skipped: {} was not built", program.display());
        return None;
    }
    let output = Command::new(program).arg("--quick").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
    Some(out.into_owned())
}

fn has(name: &str, texts: &[&str]) {
    let Some(out) = run(name) else { return };
    for text in texts {
        assert!(out.contains(text), "{text:?} is missing in the output of {name}:\n{out}");
    }
}

#[test]
fn tuning() {
    let presets = kstone_api::Preset::all();
    let names: Vec<_> = presets.iter().map(|preset| preset.name).collect();
    has("tuning", &names);
    has("tuning", &["refused: sst_threshold", "opened again: threshold 5"]);
}

#[test]
fn log_ingestion() {
    has("log_ingestion", &[".with_sst_threshold(30)", "offered  100000/s", "P99.9", "memory  ", "disk  "]);
}

#[test]
fn low_latency_cache() {
    has(
        "low_latency_cache",
        &[".with_sst_threshold(4)", "offered   50000/s", "offered    5000/s", "memory  "],
    );
}

#[test]
fn embedded_256mb() {
    has("embedded_256mb", &[".with_max_memtable_records(200)", "offered     500/s", "offered     100/s"]);
}

#[test]
fn metrics() {
    has("metrics", &["Writes: ", "Reads: ", "P99.9"]);
}

#[test]
fn alerts() {
    has("alerts", &["High SST count", "Disk quota nearly full", "no alerts"]);
}

#[test]
fn backup() {
    has(
        "backup",
        &["of them linked", "reported several times", "verified ", "all that was there is there: true"],
    );
}

#[test]
fn safe_changes() {
    has(
        "safe_changes",
        &[
            "user#3: the name ann is taken",
            r#""visits":4000"#,
            "paid: true, false",
            "page of [6, 7, 8]",
            "page of [9]",
        ],
    );
}
