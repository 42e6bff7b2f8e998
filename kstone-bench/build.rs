//! Tells the program what it was built from and with: commit, compiler, features.
//!
//! Without git, or when the sources are not the top of a work tree of their own (an archive that was unpacked, perhaps
//! inside another repository), the commit is that of the environment variable `KSTONE_COMMIT`, or "unknown".

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the measured program is made of, that of `peers` as well. A change elsewhere does not change what it does.
const SOURCES: [&str; 13] = [
    "kstone-core/src",
    "kstone-core/Cargo.toml",
    "kstone-api/src",
    "kstone-api/Cargo.toml",
    "kstone-bench/src",
    "kstone-bench/build.rs",
    "kstone-bench/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "kstone-bench/peers/src",
    "kstone-bench/peers/Cargo.toml",
    "kstone-bench/peers/Cargo.lock",
];

fn main() {
    let top = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .and_then(|package| package.parent().map(Path::to_owned))
        .unwrap_or_default();
    for source in SOURCES {
        watch(&top.join(source));
    }
    println!("cargo::rerun-if-env-changed=KSTONE_COMMIT");
    let commit = commit(&top).or_else(|| env::var("KSTONE_COMMIT").ok());
    println!("cargo::rustc-env=KSTONE_BENCH_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    let compiler = env::var("RUSTC").ok().and_then(|rustc| first_line(Command::new(rustc).arg("--version")));
    println!("cargo::rustc-env=KSTONE_BENCH_RUSTC={}", compiler.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=KSTONE_BENCH_FEATURES={}", features().join(","));
}

/// A path that is not there would make this run every time.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn commit(top: &Path) -> Option<String> {
    let git = |arguments: &[&str]| first_line(Command::new("git").arg("-C").arg(top).args(arguments));
    let found = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if found.canonicalize().ok()? != top.canonicalize().ok()? {
        return None;
    }
    let directory = PathBuf::from(git(&["rev-parse", "--absolute-git-dir"])?);
    // The second has a line for each commit and checkout.
    watch(&directory.join("HEAD"));
    watch(&directory.join("logs/HEAD"));
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    let dirty = git(&status).is_some();
    Some(if dirty { format!("{commit}+") } else { commit })
}

/// `None` when it fails or prints nothing.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn features() -> Vec<String> {
    let mut features: Vec<String> = env::vars()
        .filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_owned))
        .map(|name| name.to_lowercase().replace('_', "-"))
        .filter(|name| name != "default")
        .collect();
    features.sort();
    features
}
