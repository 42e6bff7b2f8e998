//! Writes the initial inputs of the fuzzers into `seeds/<target>/`, the same ones each time.

use std::path::Path;

use kstone_api::fuzzing as api;
use kstone_core::fuzzing as core;

fn main() -> std::io::Result<()> {
    let targets = [
        ("directory", core::directory_seeds()),
        ("expression", api::expression_seeds()),
        ("item", api::item_seeds()),
        ("json", api::json_seeds()),
        ("key", core::key_seeds()),
        ("log", core::log_seeds()),
        ("manifest", core::manifest_seeds()),
        ("number_key", api::number_key_seeds()),
        ("ops", core::ops_seeds()),
        ("sst", core::sst_seeds()),
        ("token", api::token_seeds()),
    ];
    for (target, seeds) in targets {
        let directory = Path::new("seeds").join(target);
        std::fs::create_dir_all(&directory)?;
        for (n, seed) in seeds.iter().enumerate() {
            std::fs::write(directory.join(format!("{n:03}")), seed)?;
        }
        println!("{target}: {} seeds", seeds.len());
    }
    Ok(())
}
