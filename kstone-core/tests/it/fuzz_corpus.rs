//! Runs the fuzz targets without a fuzzer: on every input of the corpus and of the seeds, and on seeded mutations of
//! them. See kstone-core/fuzz/README.md.

use std::path::{Path, PathBuf};

use kstone_core::fuzzing;

/// Runs a target. The number of mutations is chosen to take up to 20 seconds.
#[expect(clippy::disallowed_methods, reason = "the corpus is no database")]
fn replay(name: &str, seeds: Vec<Vec<u8>>, least: usize, mutations: usize, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let from_corpus = files.len();
    let inputs = files.iter().map(|file| std::fs::read(file).unwrap()).chain(seeds);
    let inputs: Vec<Vec<u8>> = inputs.collect();
    let failures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(name);
    let ran = fuzzing::replay(&inputs, mutations, &failures, target);
    println!(
        "fuzz {name}: {from_corpus} corpus inputs, {} seeds, {mutations} mutations",
        inputs.len() - from_corpus
    );
    assert!(from_corpus >= least, "{from_corpus} corpus inputs, there should be {least}");
    assert_eq!(ran, inputs.len() + mutations);
}

#[test]
fn log() {
    replay("log", fuzzing::log_seeds(), 40, 600_000, fuzzing::log);
}

#[test]
fn sst() {
    replay("sst", fuzzing::sst_seeds(), 40, 30_000, fuzzing::sst);
}

#[test]
fn manifest() {
    replay("manifest", fuzzing::manifest_seeds(), 17, 80_000, fuzzing::manifest);
}

#[test]
fn key() {
    replay("key", fuzzing::key_seeds(), 4, 4_000_000, fuzzing::key);
}

#[test]
fn key_text() {
    replay("key", fuzzing::key_seeds(), 4, 300_000, fuzzing::key_text);
}

#[test]
fn directory() {
    replay("directory", fuzzing::directory_seeds(), 40, 8_000, fuzzing::directory);
}

#[test]
fn ops() {
    replay("ops", fuzzing::ops_seeds(), 40, 5_000, fuzzing::ops);
}
