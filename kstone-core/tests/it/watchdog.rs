//! A suite that hangs ends, printing its name and how to reproduce it, in a separate process.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use kstone_core::torture::Watchdog;

const CHILD: &str = "KSTONE_WATCHDOG_CHILD";

#[test]
#[ignore = "started by the tests below"]
fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let watchdog = Watchdog::with_patience("seed 17", Duration::from_millis(20));
    watchdog.step("seed 18");
    if what == "hangs" {
        loop {
            std::thread::park();
        }
    }
}

fn run(what: &str) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["watchdog::child", "--exact", "--ignored"])
        .env(CHILD, what)
        .output()
        .unwrap()
}

#[test]
fn a_hang_ends_the_process_and_names_the_test_and_its_seed() {
    let output = run("hangs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{said}");
    assert!(said.contains("HANG") && said.contains("watchdog::child") && said.contains("seed 18"), "{said}");
}

#[test]
fn what_ends_is_left_alone() {
    assert!(run("ends").status.success());
}
