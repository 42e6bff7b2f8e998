//! `compare` tells regressions from noise, and its exit status says so.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use kstone_bench::compare::{self, Pairing, Verdict};
use kstone_bench::engine::Durability;
use kstone_bench::record::RunFile;

use crate::sample;

fn write(directory: &Path, name: &str, file: &RunFile) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, serde_json::to_string(file).unwrap()).unwrap();
    path
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("kstone-bench").unwrap().arg("compare").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Five trials of `kstone`; all rates that many times as high.
fn measured(times: f64, noise: f64, trials: usize, seed: u64) -> RunFile {
    let mut sample = sample::peers().remove(0);
    sample.noise = noise;
    for load in &mut sample.loads {
        load.rate *= times;
        load.p50 /= times;
    }
    sample::file(sample::trials(&[sample], trials, Durability::Buffered, seed))
}

#[test]
fn the_exit_status_is_1_for_a_regression_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, file: &RunFile| write(directory.path(), name, file).display().to_string();
    let base = path("base", &measured(1.0, 0.01, 5, 1));
    let slower = path("slower", &measured(0.8, 0.01, 5, 2));
    let again = path("again", &measured(1.0, 0.01, 5, 3));
    let (code, out, err) = run(&[&base, &slower]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("REGRESSION") && out.contains("slower for real"), "{out}");
    let (code, out, err) = run(&[&base, &again]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("within the limit") && out.contains("no regression"), "{out}");
    let (code, out, _) = run(&[&slower, &base]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("better"), "{out}");
    let (code, out, _) = run(&[&base, &slower, "--max-regress", "60%"]);
    assert_eq!(code, 0, "{out}");
    let few = path("few", &measured(0.5, 0.01, 3, 4));
    let (code, out, _) = run(&[&base, &few]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("too few trials to tell") && out.contains("--trials 5"), "{out}");
}

#[test]
fn the_exit_status_is_2_when_it_cannot_be_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, file: &RunFile| write(directory.path(), name, file).display().to_string();
    let good = measured(1.0, 0.01, 5, 1);
    let base = path("base", &good);
    let cut = directory.path().join("cut");
    let text = serde_json::to_string(&good).unwrap();
    std::fs::write(&cut, &text[..text.len() / 2]).unwrap();
    let old = directory.path().join("old");
    std::fs::write(&old, text.replacen("kstone-bench/1", "kstone-bench/0", 1)).unwrap();
    let elsewhere = {
        let mut file = good.clone();
        file.machine.cores = 2;
        path("elsewhere", &file)
    };
    let other_work = {
        let mut file = good.clone();
        for trial in &mut file.trials {
            trial.spec.threads = 1;
        }
        path("other_work", &file)
    };
    let (cut, old) = (cut.display().to_string(), old.display().to_string());
    for (arguments, word) in [
        (vec![base.as_str(), "/no/such/file"], "/no/such/file cannot be read"),
        (vec![&base, &cut], "ends too early"),
        (vec![&base, &old], "kstone-bench/0"),
        (vec![&base, &elsewhere], "number of cores differs: 8 and 2"),
        (vec![&base, &other_work], "no series in common"),
        (vec![&base], "required"),
        (vec![&base, &base, "--max-regress", "fast"], "number of percent"),
        (vec![&base, "--engines", "kstone,fjall"], "it has: kstone"),
    ] {
        let (code, out, err) = run(&arguments);
        assert_eq!(code, 2, "{arguments:?}: {out}{err}");
        assert!(err.contains(word), "{arguments:?}: {err}");
    }
    let (code, out, _) = run(&[&base, &elsewhere, "--force"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("warning: number of cores differs"), "{out}");
}

#[test]
fn wrong_answers_and_engines_that_fail_now_are_as_bad_as_a_regression() {
    let base = measured(1.0, 0.01, 5, 1);
    let mut wrong = measured(1.0, 0.01, 5, 2);
    wrong.trials[3].steps[1].wrong = 7;
    let comparison = compare::files(&base, &wrong, 0.05, Pairing::default()).unwrap();
    assert!(comparison.regressed() && comparison.failures[0].contains("7 answers were wrong"));
    let mut broken = measured(1.0, 0.01, 5, 2);
    for trial in &mut broken.trials {
        trial.steps.truncate(1);
        trial.error = Some("the disk is full".to_owned());
    }
    let comparison = compare::files(&base, &broken, 0.05, Pairing::default()).unwrap();
    assert!(comparison.regressed() && comparison.failures.len() == 1, "{:?}", comparison.failures);
    assert!(comparison.warnings.iter().any(|warning| warning.contains("the disk is full")));
}

#[test]
fn noise_is_no_regression() {
    let mut alarms = 0;
    for seed in 0..40 {
        let (base, new) = (measured(1.0, 0.06, 5, seed), measured(1.0, 0.06, 5, seed + 1000));
        let comparison = compare::files(&base, &new, 0.05, Pairing::default()).unwrap();
        alarms += comparison.rows.iter().filter(|row| row.verdict == Verdict::Regression).count();
    }
    assert!(alarms <= 4, "{alarms} of 160 figures");
}

#[test]
fn engines_of_one_file_are_compared_turn_by_turn() {
    let file = sample::run_file();
    let comparison = compare::engines(&file, "kstone,fjall", 0.05).unwrap();
    assert!(comparison.regressed());
    assert!(comparison.rows.iter().all(|row| row.label == "kstone -> fjall"));
    assert_eq!(comparison.rows.len(), 6, "three workloads, throughput and p99");
    let heed = compare::engines(&file, "kstone,heed", 0.05).unwrap();
    let reads = heed.rows.iter().find(|row| row.conditions.workload == "readrandom").unwrap();
    assert_eq!(reads.verdict, Verdict::Better);
}

#[test]
fn files_are_compared_across_settings_if_asked() {
    let with = |settings: &str, times: f64, seed: u64| {
        let mut file = measured(times, 0.01, 5, seed);
        file.trials.iter_mut().for_each(|trial| trial.spec.engine.settings = settings.to_owned());
        file
    };
    let (base, new) = (with("stripes=16", 1.0, 1), with("sst_threshold=20,stripes=16", 0.8, 2));
    let refused = compare::files(&base, &new, 0.05, Pairing::default()).unwrap_err().to_string();
    assert!(refused.contains("no series in common") && refused.contains("--across"), "{refused}");
    let across = Pairing { across: true, ..Pairing::default() };
    let comparison = compare::files(&base, &new, 0.05, across).unwrap();
    assert!(comparison.regressed() && comparison.rows.len() == 4);
    assert!(comparison.rows.iter().all(|row| row.label == "kstone default -> sst_threshold=20"));
    assert!(
        !comparison.warnings.iter().any(|warning| warning.contains("only in")),
        "{:?}",
        comparison.warnings
    );
    let mut several = new.clone();
    several.trials.extend(with("sst_threshold=30", 1.0, 3).trials);
    for (base, new) in [(&base, &several), (&several, &base)] {
        let error = compare::files(base, new, 0.05, across).unwrap_err().to_string();
        assert!(
            error.contains("several series could be paired") && error.contains("sst_threshold=30"),
            "{error}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, file: &RunFile| write(directory.path(), name, file).display().to_string();
    let (code, out, err) = run(&[&path("base", &base), &path("new", &new), "--across"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("kstone default -> sst_threshold=20"), "{out}");
}

#[test]
fn names_with_commas_are_told_apart() {
    let file = sample::sweep_file();
    let names = "kstone bloom_bits_per_key=6,kstone bloom_bits_per_key=16";
    assert!(!compare::engines(&file, names, 0.5).unwrap().rows.is_empty());
    let settings = |k| format!("kstone max_memtable_records=200,stripes=16,sst_threshold={k}");
    let names = format!("{},{}", settings(4), settings(20));
    assert!(!compare::engines(&file, &names, 0.5).unwrap().rows.is_empty());
}

#[test]
fn an_engine_against_itself_shows_how_far_it_differs_from_itself() {
    let file = measured(1.0, 0.02, 10, 8);
    let comparison = compare::engines(&file, "kstone,kstone", 0.05).unwrap();
    assert!(!comparison.regressed());
    for row in &comparison.rows {
        let interval = row.ratio.unwrap().interval.unwrap();
        assert_eq!(row.base.unwrap().trials, 5);
        assert!(interval.contains(1.0) && interval.high - interval.low > 0.005, "{row:?}");
    }
}

#[test]
fn figures_that_are_none_are_said_to_be_none() {
    let mut base = measured(1.0, 0.01, 5, 1);
    for trial in &mut base.trials {
        trial.steps[0].rate = 0.0;
        trial.steps[1].latencies.clear();
    }
    let comparison = compare::files(&base, &measured(1.0, 0.01, 5, 2), 0.05, Pairing::default()).unwrap();
    assert_eq!(comparison.rows[0].verdict, Verdict::NoFigure);
    assert!(!comparison.regressed());
    base.trials[0].steps[0].rate = f64::NAN;
    let text = serde_json::to_string(&base).unwrap();
    assert!(kstone_bench::results::parse(&text).is_err(), "JSON has no such number");
}
