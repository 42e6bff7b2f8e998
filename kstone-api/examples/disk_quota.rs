//! A database limited to 16 MiB: filled until it is full, half emptied, and filled again.

use kstone_api::{Database, DatabaseConfig, Error, ItemBuilder};

fn fill(db: &Database, from: u64) -> kstone_api::Result<u64> {
    for n in from.. {
        let item = ItemBuilder::new().string("text", "x".repeat(1000));
        match db.put(format!("note-{n}").into_bytes(), item) {
            Ok(()) => {}
            Err(Error::DiskFull) => return Ok(n),
            Err(error) => return Err(error),
        }
    }
    Ok(u64::MAX)
}

fn main() -> kstone_api::Result<()> {
    let dir = std::env::temp_dir().join(format!("kstone-disk-quota-{}", std::process::id()));
    let config = DatabaseConfig::new().with_max_total_disk_bytes(16 << 20);
    let db = Database::builder(&dir).config(config).create()?;
    let full = fill(&db, 0)?;
    println!("full after {full} items: {}", db.disk_usage()?);
    for n in 0..full / 2 {
        db.delete(format!("note-{n}").into_bytes())?;
    }
    println!("half deleted: {}", db.disk_usage()?);
    let more = fill(&db, full)? - full;
    println!("{more} more fit: {}", db.disk_usage()?);
    db.close()?;
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}
