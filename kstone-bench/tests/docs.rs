//! docs/benchmarks.md names what there is: every workload, every peer, every small benchmark.

use kstone_bench::workload::WORKLOADS;

const PAGE: &str = include_str!("../../docs/benchmarks.md");

fn listed(name: &str) -> bool {
    PAGE.contains(&format!("`{name}`"))
}

#[test]
fn every_workload_is_listed_with_what_it_does() {
    for workload in WORKLOADS.iter() {
        let row = format!("| `{}` | {} |", workload.name, workload.about);
        assert!(PAGE.contains(&row), "there is no row like this: {row}");
    }
}

#[test]
fn every_peer_is_listed() {
    let features = include_str!("../Cargo.toml").lines().filter_map(|line| line.strip_prefix("peer-"));
    let peers: Vec<_> = features.filter_map(|line| line.split_once(' ')).map(|(name, _)| name).collect();
    assert_eq!(peers.len(), 5, "{peers:?}");
    peers.iter().for_each(|peer| assert!(listed(peer), "{peer}"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "sources are no database")]
fn every_small_benchmark_is_listed() {
    let benches = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let mut names = Vec::new();
    for file in std::fs::read_dir(benches).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("bench_function(") {
            rest = &rest[at + "bench_function(".len()..];
            // The others have their name in a variable, and the group's is listed.
            if rest.starts_with('"') {
                names.push(rest.split('"').nth(1).unwrap().to_owned());
            }
        }
    }
    assert!(names.len() >= 8, "{names:?}");
    names.iter().for_each(|name| assert!(listed(name), "{name}"));
}
