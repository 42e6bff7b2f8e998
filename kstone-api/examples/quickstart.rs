//! A two-minute tour: `cargo run --example quickstart [DIRECTORY]`.

use kstone_api::{Database, ItemBuilder, Result, Value, ValueView, WriteBatch, WriteOptions};

fn main() -> Result<()> {
    let db = match std::env::args_os().nth(1) {
        Some(path) => Database::open_or_create(path)?,
        None => Database::temporary()?,
    };

    // An item under a key.
    db.put("user#42", ItemBuilder::new().string("name", "Ann").number("age", 42))?;
    if let Some(item) = db.get("user#42")? {
        println!("user#42 is {item}");
        println!("name: {:?}", item.get("name").and_then(Value::as_str));
    }

    // Partition and sort key: one partition is one ordered list of items.
    for (icao, city, elevation) in
        [("KJFK", "New York", 13), ("KJFC", "Cotulla", 477), ("KLAX", "Los Angeles", 127)]
    {
        let item = ItemBuilder::new().string("city", city).number("elevation", elevation);
        db.put(("US", icao), item)?;
    }
    for entry in db.query("US").sort_prefix("KJ").run()? {
        let (key, item) = entry?;
        println!("{} {item}", key.sort().unwrap_or_default().escape_ascii());
    }

    // One attribute, read in place.
    if let Some(view) = db.get_view(("US", "KLAX"))? {
        println!("KLAX lies in {:?}", view.get("city")?.and_then(ValueView::as_str));
    }

    // Writes applied together, and on disk before the call returns.
    let mut batch = WriteBatch::new();
    batch.put("user#43", ItemBuilder::new().string("name", "Bo"))?;
    batch.delete("user#42")?;
    db.write_with(batch, WriteOptions::sync())?;

    // All users, in key order.
    for entry in db.prefix("user#")? {
        let (key, item) = entry?;
        println!("{} {item}", key.partition().escape_ascii());
    }
    db.close()
}
