//! `kstone-bench` with two more engines to compare with: `keystonedb-0.1` and `dynoxide`.
//!
//! A workspace of its own, because what these are built from conflicts with what the other peers are built from: a crate
//! of the name of ours, and another SQLite.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use kstone_bench::engine::Open;

mod dynoxide;
mod keystonedb_01;

const ENGINES: &[(&str, Open)] =
    &[("dynoxide", dynoxide::Dynoxide::open), ("keystonedb-0.1", keystonedb_01::Keystonedb::open)];

fn main() -> ExitCode {
    kstone_bench::commands::main(ENGINES)
}

#[cfg(test)]
mod tests {
    use kstone_bench::engine::contract::{Lacks, check};
    use kstone_bench::engine::{self, Durability, EngineSpec};

    use super::ENGINES;

    /// The same as of the engines of kstone-bench, and that they refuse what they cannot do.
    #[test]
    fn both_answer_as_all_engines_do() {
        engine::add(ENGINES);
        check("dynoxide", &[Lacks::Tuned, Lacks::Scan]).unwrap();
        check("keystonedb-0.1", &[Lacks::Tuned, Lacks::Query, Lacks::Scan]).unwrap();
        check("kstone", &[]).unwrap();
        check("kstone-items", &[]).unwrap();
    }

    #[test]
    fn they_are_listed_and_what_is_nowhere_is_refused() {
        engine::add(ENGINES);
        assert_eq!(engine::names(), ["kstone", "kstone-items", "noop", "dynoxide", "keystonedb-0.1"]);
        let directory = tempfile::tempdir().unwrap();
        let refused = engine::open(&EngineSpec::new("oracle"), directory.path(), Durability::Buffered);
        assert!(refused.map(drop).unwrap_err().to_string().contains("dynoxide"));
    }
}
