//! `run` and `sweep` from the command line: every option reaches the trials, and what is printed is what was measured.

#![expect(clippy::unwrap_used, reason = "tests")]

use assert_cmd::Command;
use kstone_bench::engine::Durability;
use kstone_bench::record::{RunFile, TrialSpec};

/// What was written with `--out`, and printed.
fn bench(arguments: &[&str]) -> (RunFile, String) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.json");
    let mut command = Command::cargo_bin("kstone-bench").unwrap();
    command.args(arguments).arg("--dir").arg(directory.path()).args(["--force", "--out"]).arg(&out);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap(), text)
}

fn run(options: &str) -> TrialSpec {
    let base = ["run", "--workload", "fillrandom,readrandom", "--trials", "1"];
    let mut arguments: Vec<_> = base.into_iter().chain(options.split_whitespace()).collect();
    if !arguments.contains(&"--items") {
        arguments.extend(["--items", "2k"]);
    }
    let (file, _) = bench(&arguments);
    file.trials[0].spec.clone()
}

#[test]
fn engines_take_turns_and_each_is_described() {
    let run = "run --workload fillrandom,readrandom --items 2k --trials 2 --engine kstone#1,kstone#2,noop";
    let (file, text) = bench(&run.split(' ').collect::<Vec<_>>());
    let names: Vec<_> = file.trials.iter().map(|trial| trial.spec.engine.name.as_str()).collect();
    assert_eq!(names, ["kstone#1", "kstone#2", "noop"].repeat(2));
    assert!(file.trials.iter().all(|trial| trial.steps.len() == 2 && trial.error.is_none()));
    assert!(file.command.starts_with("kstone-bench run") && file.machine.cores > 0);
    for described in
        ["fillrandom  kstone#1 ", "readrandom  kstone#2 ", "readrandom  noop", "ops/s", "service p50"]
    {
        assert!(text.contains(described), "{described}: {text}");
    }
}

#[test]
fn every_option_reaches_the_trial() {
    let plain = run("");
    assert_eq!((plain.items, plain.value_bytes, plain.threads, plain.seed), (2_000, 200, 1, 42));
    assert_eq!((plain.durability, plain.memory_limit), (Durability::Buffered, None));
    assert_eq!(run("--items 3k").items, 3_000);
    assert_eq!(run("--value 100B").value_bytes, 100);
    assert_eq!(run("--threads 3").threads, 3);
    assert_eq!(run("--seed 7").seed, 7);
    assert_eq!(run("--durability sync --items 100").durability, Durability::Sync);
    assert_eq!(run("--mem-limit 1GiB").memory_limit, Some(1 << 30));
    assert_eq!(run("--ops 500").steps[1].operations, Some(500));
    assert_eq!(run("--rate 50k").steps[1].rate, Some(50_000.0));
    assert_eq!(run("--duration 1s --rate 1k").steps[1].seconds, Some(1.0));
    let settings = run("--preset embedded --set sst_threshold=3").engine.settings;
    assert!(
        settings.contains("max_memtable_records=200") && settings.contains("sst_threshold=3"),
        "{settings}"
    );
}

#[test]
fn a_sweep_has_a_row_for_each_value_and_sets_it() {
    let sweep = |param: &str| {
        bench(&["sweep", "--param", param, "--workload", "fillrandom", "--items", "2k", "--trials", "1"])
    };
    let (file, text) = sweep("max_memtable_records=77,99");
    let settings: Vec<_> = file.trials.iter().map(|trial| trial.spec.engine.settings.as_str()).collect();
    assert_eq!(settings, ["max_memtable_records=77", "max_memtable_records=99"]);
    let rows = text.lines().filter(|line| line.starts_with("| 77 ") || line.starts_with("| 99 ")).count();
    assert_eq!(rows, 2, "{text}");
    assert!(text.contains("verdict: max_memtable_records=") && text.contains("may be chance"), "{text}");
    assert_eq!(sweep("items=1k,2k").0.trials[0].spec.items, 1_000);
    assert_eq!(sweep("value=100,300").0.trials[1].spec.value_bytes, 300);
    assert_eq!(sweep("threads=1,2").0.trials[1].spec.threads, 2);
}

#[test]
fn a_sweep_has_a_verdict_and_warns_of_reads_that_never_left_the_memtables() {
    let base = "sweep --param max_memtable_records=20,1000 --items 2k --trials 5 --workload";
    let sweep = |workload: &str| bench(&base.split(' ').chain([workload]).collect::<Vec<_>>()).1;
    // 2,000 items in 256 stripes fill no memtable of 1,000.
    let text = sweep("fillrandom,readrandom");
    let warnings: Vec<_> = text.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 2, "{text}");
    assert!(warnings[1].contains("readrandom, kstone: no get left the memtables"), "{text}");
    assert_eq!(text.matches("\nverdict: ").count(), 2, "{text}");
    assert!(text.contains("max_memtable_records=1000, the default"), "{text}");
    let text = sweep("fillrandom,waitforcompaction,readrandom");
    assert!(!text.contains("warning: ") && text.matches("\nverdict: ").count() == 2, "{text}");
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    for (arguments, why) in [
        (&["run", "--workload", "nonsense"][..], "there is no workload"),
        (&["run", "--workload", "fillrandom", "--set", "nonsense=1"], "no such setting"),
        (&["run", "--workload", "fillrandom", "--preset", "fastest"], "preset"),
        (&["run", "--workload", "fillrandom", "--items", "many"], "--items"),
        (
            &["run", "--workload", "fillrandom", "--items", "9", "--trials", "1", "--engine", "oracle"],
            "not in this build",
        ),
        (&["sweep", "--workload", "fillrandom", "--param", "sst_threshold"], "--param is like"),
    ] {
        let output = Command::cargo_bin("kstone-bench").unwrap().args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
    }
}

#[test]
fn workloads_and_engines_are_listed() {
    let output = Command::cargo_bin("kstone-bench").unwrap().arg("workloads").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("ycsb-e ") && text.contains("engines of this build: kstone, kstone-items, noop"),
        "{text}"
    );
}
