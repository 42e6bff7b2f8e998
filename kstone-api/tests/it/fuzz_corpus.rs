//! Runs the fuzz targets without a fuzzer: on every input of the corpus and of the seeds, and on seeded mutations of
//! them. See kstone-core/fuzz/README.md.

use std::path::{Path, PathBuf};

use kstone_api::fuzzing;

/// Runs a target. The number of mutations is chosen to take up to 20 seconds.
#[expect(clippy::disallowed_methods, reason = "the corpus is no database")]
fn replay(name: &str, seeds: Vec<Vec<u8>>, least: usize, mutations: usize, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kstone-core/fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let from_corpus = files.len();
    let inputs = files.iter().map(|file| std::fs::read(file).unwrap()).chain(seeds);
    let inputs: Vec<Vec<u8>> = inputs.collect();
    let failures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(name);
    let ran = kstone_core::fuzzing::replay(&inputs, mutations, &failures, target);
    println!(
        "fuzz {name}: {from_corpus} corpus inputs, {} seeds, {mutations} mutations",
        inputs.len() - from_corpus
    );
    assert!(from_corpus >= least, "{from_corpus} corpus inputs, there should be {least}");
    assert_eq!(ran, inputs.len() + mutations);
}

#[test]
fn item() {
    replay("item", fuzzing::item_seeds(), 5, 300_000, fuzzing::item);
}

#[test]
fn number_key() {
    replay("number_key", fuzzing::number_key_seeds(), 10, 60_000, fuzzing::number_key);
}

#[test]
fn json() {
    replay("json", fuzzing::json_seeds(), 40, 100_000, fuzzing::json);
}

#[test]
fn token() {
    replay("token", fuzzing::token_seeds(), 8, 20_000, fuzzing::token);
}

#[test]
fn expression() {
    replay("expression", fuzzing::expression_seeds(), 12, 20_000, fuzzing::expression);
}
