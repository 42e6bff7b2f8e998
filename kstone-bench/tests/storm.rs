//! The storm of changing settings, with a number of operations instead of a time.

use kstone_bench::storm::{After, Storm};

#[test]
fn nothing_is_lost_while_settings_change() {
    let dir = tempfile::tempdir().unwrap();
    let storm =
        Storm { seed: 1, keys: 4000, threads: 2, until: After::Writes(40_000), change: After::Writes(200) };
    let outcome = storm.run(&dir.path().join("db")).unwrap();
    println!("{outcome}");
    assert!(outcome.writes > 40_000 && outcome.changes + outcome.refused >= 199, "{outcome}");
    assert!(outcome.refused < outcome.changes / 4, "{outcome}");
}
