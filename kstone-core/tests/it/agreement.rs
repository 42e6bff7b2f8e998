//! What opening, verify and repair say of a directory is the same; see `kstone_core::fuzzing::Agreed`.

use kstone_core::fuzzing::{Agreed, forged};
use kstone_core::torture::Watchdog;

/// Symptom: `verify` and `repair` found nothing wrong with databases that do not open, or that cannot be read: a key that
/// is none in a record of the log, numbers at the end of their range, entries of other stripes, a setting out of range; and
/// repair panicked where overflow is checked. Cause: each of the three had checks of its own. Fix: they share them, and
/// the numbers of damaged files are counted on from only as far as a database reaches.
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
