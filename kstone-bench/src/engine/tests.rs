//! All engines of this build give the same answers, and reject settings that they do not have.

use super::contract::check;
use super::*;

#[test]
fn all_engines_answer_alike() {
    let checked: Vec<_> = names().into_iter().filter(|name| *name != "noop").collect();
    checked.iter().for_each(|name| check(name, &[]).unwrap_or_else(|error| panic!("{error:#}")));
    println!("engines that answer alike: {}", checked.join(", "));
}

#[test]
fn an_engine_that_does_nothing_is_found_out() {
    check("noop", &[]).unwrap_err();
}

#[test]
fn what_an_engine_cannot_be_told_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |spec: EngineSpec| {
        open(&spec, directory.path(), Durability::Buffered).map(drop).unwrap_err().to_string()
    };
    assert!(refused(EngineSpec::new("oracle")).contains("peer-fjall"));
    assert!(refused(EngineSpec::new("dynoxide")).contains("peers/Cargo.toml"));
    assert!(refused(EngineSpec::parse("kstone-tuned")).contains("settings"));
    assert!(refused(EngineSpec::parse("kstone-items-tuned")).contains("settings"));
    let settings = "sst_threshold=4".to_owned();
    assert!(refused(EngineSpec { settings, ..EngineSpec::new("noop") }).contains("kstone only"));
    let settings = "sst_threshold=1".to_owned();
    assert!(refused(EngineSpec { settings, ..EngineSpec::new("kstone") }).contains("sst_threshold"));
}
