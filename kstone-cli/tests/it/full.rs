//! Symptom: `error: the disk is full, or the database has reached its size limit`, and the hint `make room on the
//! disk`, which was wrong for a limit and for inodes. Cause: the error does not say which, and the command did not ask
//! the database. Fix: a command that fails this way asks what ran out, and prints the figures and what to do about it.

use std::process::Command;

use kstone_api::{Database, DatabaseConfig, Error, Item};

fn kstone(args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_kstone")).args(args).output().unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn a_limit_that_is_reached_is_told_with_its_figures() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::builder(&path)
        .config(DatabaseConfig::new().with_max_total_disk_bytes(1 << 20))
        .create()
        .unwrap();
    let noise = |n: u64| {
        let mut state = n;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            format!("{state:016x}")
        });
        words.take(60).collect::<String>()
    };
    let item = |n| Item::from_json_str(&format!("{{\"text\":\"{}\"}}", noise(n))).unwrap();
    let refused = (0..100_000).find_map(|n| db.put(format!("k{n}"), item(n)).err());
    assert!(matches!(refused, Some(Error::DiskFull)));
    db.close().unwrap();
    let path = path.to_str().unwrap();
    let text = format!("{{\"text\":\"{}\"}}", (0..40).map(noise).collect::<String>());
    let refused = (0..200).find_map(|n| {
        let (status, said) = kstone(&["put", path, &format!("new{n}"), &text]);
        (status != Some(0)).then_some((status, said))
    });
    let (status, said) = refused.unwrap();
    assert_eq!(status, Some(4), "{said}");
    assert!(said.contains("max_total_disk_bytes") && said.contains("of 1048576"), "{said}");
    assert!(said.contains("hint: delete items"), "{said}");
    let (_, said) = kstone(&["--format", "json", "put", path, "newer", &text]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["error"]["code"], "disk_full");
    assert!(said["error"]["message"].as_str().unwrap().contains("of 1048576"), "{said}");
}
