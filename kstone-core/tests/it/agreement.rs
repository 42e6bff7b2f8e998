//! Opening, verify and repair agree about a directory; see `kstone_core::fuzzing::Agreed`.

use kstone_core::fuzzing::{Agreed, forged};
use kstone_core::torture::Watchdog;

/// Symptom: `verify` and `repair` found nothing wrong with databases that do not open, or cannot be read: an invalid
/// key in a log record, numbers at the end of their range, entries of other stripes, a setting out of range; and repair
/// panicked if overflow checks were on. Cause: each of the three had its own checks. Fix: they share them, and numbers
/// from damaged files are only continued within the range that a database can reach.
#[test]
fn forged_databases_are_judged_alike_by_all() {
    let _watchdog = Watchdog::start("agreement::forged_databases_are_judged_alike_by_all");
    let all = forged();
    let failed: Vec<_> = all.iter().filter(|(_, agreed)| agreed.is_none()).map(|(name, _)| name).collect();
    assert!(failed.is_empty(), "{} without agreement: {failed:#?}", failed.len());
    let count = |wanted: Agreed| all.iter().filter(|(_, agreed)| *agreed == Some(wanted)).count();
    let (good, refused) = (count(Agreed::Good), count(Agreed::Refused));
    let [whole, lossy] = [false, true].map(|lossy| count(Agreed::Repaired { lossy }));
    println!(
        "forged: {} directories, {good} good, {whole} repaired whole, {lossy} with losses, {refused} refused",
        all.len()
    );
    assert!(all.len() > 1000 && good > 50 && lossy > 100 && whole > 50, "{good} {whole} {lossy} {refused}");
}
