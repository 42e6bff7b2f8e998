//! Backs up a database while a thread writes to it; then the database is lost and replaced by its backup.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kstone_api::{BackupOptions, Database, ItemBuilder};

fn main() -> kstone_api::Result<()> {
    let at = |name: &str| std::env::temp_dir().join(format!("kstone-{name}-{}", std::process::id()));
    let (path, backup) = (at("notes"), at("backup"));

    let db = Database::create(&path)?;
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let put = |n: u64| db.put(format!("note-{n}").into_bytes(), ItemBuilder::new().number("n", n));
    (0..5000).try_for_each(put)?;
    db.flush()?;
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 5000.. {
                if stop.load(Ordering::Relaxed) || put(n).is_err() {
                    return;
                }
                written.store(n + 1, Ordering::Release);
            }
        });
        while written.load(Ordering::Acquire) < 6000 {
            std::thread::yield_now();
        }
        let before = written.load(Ordering::Acquire);
        let mut reports = 0;
        let mut progress = |_: &kstone_api::BackupProgress| {
            reports += 1;
            ControlFlow::Continue(())
        };
        let report = db.backup_with(&backup, BackupOptions::new().progress(&mut progress));
        stop.store(true, Ordering::Relaxed);
        let report = report?;
        println!(
            "{} SSTs, {} of them linked, and {} bytes of log",
            report.ssts, report.linked, report.log_bytes
        );
        println!("progress was reported {} times", if reports > 1 { "several" } else { "no" });
        Ok::<_, kstone_api::Error>(before)
    })?;
    drop(db);

    // The database is lost. The backup is a database: to restore it, open it or a copy of it.
    let _ = std::fs::remove_dir_all(&path);
    let db = Database::open(&backup)?;
    println!("verified {} SSTs", db.engine().verify()?);
    let items = db.segment(0, 1)?.count() as u64;
    println!("all that was there is there: {}", items >= before);
    db.put("and", ItemBuilder::new().string("it", "goes on"))?;
    db.close()?;
    let _ = std::fs::remove_dir_all(&backup);
    Ok(())
}
