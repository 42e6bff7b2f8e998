//! The chapter's own benchmark: 1000 items into a new database, through the library's interface.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use kstone_api::{Database, ItemBuilder};
use serde::{Deserialize, Serialize};

use super::Found;

/// Items of one time.
const ITEMS: u64 = 1000;

/// All defaults. Making the database and removing it are not timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Puts {
    /// How often.
    pub times: usize,
}

impl Puts {
    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        let mut nanos = Vec::new();
        // The first few are not counted: the memory that later ones use again is new to them.
        let uncounted = (self.times / 10).max(1);
        for time in 0..self.times + uncounted {
            let db = Database::create(directory.join(time.to_string()))?;
            let start = Instant::now();
            for i in 0..ITEMS {
                let key = format!("key{i:010}");
                let item = ItemBuilder::new().string("value", format!("data{i}")).build();
                db.put(key.as_bytes(), item)?;
            }
            let took = start.elapsed().as_nanos() as f64;
            db.close()?;
            if time >= uncounted {
                nanos.push(took);
            }
        }
        let mut found = Found::default();
        found.set("mean_nanos", nanos.iter().sum::<f64>() / nanos.len() as f64);
        found.series.insert("nanos".into(), nanos);
        Ok(found)
    }
}
