//! What the disk needs for 4 KiB that no cache of this system has.

#![expect(clippy::disallowed_methods, reason = "it measures a file of its own")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Found, device_bytes, drop_caches, histogram, record, set_latency};
use crate::data::splitmix;

const PAGE: u64 = 4096;

/// Reads at random places of a file that was just forgotten, each place once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Pages of the file.
    pub pages: u64,
    /// Reads.
    pub reads: u64,
}

impl Disk {
    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        let path = directory.join("pages");
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&path).context("a file of pages")?;
        let mut page = vec![0; PAGE as usize];
        for n in 0..self.pages {
            page.chunks_mut(8).zip(0..).for_each(|(chunk, at)| {
                chunk.copy_from_slice(&splitmix(n << 16 | at).to_le_bytes());
            });
            file.write_all(&page).context("a file of pages")?;
        }
        drop_caches(directory)?;
        let file = File::open(&path)?;
        // Without it the system reads pages ahead, which nobody asked for.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
        let before = device_bytes();
        let mut latencies = histogram()?;
        // An odd stride over a power of two: each page once, far from the one before.
        let stride = (self.pages / 2 + 1) | 1;
        for n in 0..self.reads.min(self.pages) {
            let at = n.wrapping_mul(stride.wrapping_mul(7)) % self.pages * PAGE;
            let start = Instant::now();
            file.read_exact_at(&mut page, at)?;
            record(&mut latencies, start.elapsed().as_nanos() as u64);
        }
        let bytes = device_bytes().zip(before).map_or(0.0, |(after, before)| after - before);
        let mut found = Found::default();
        set_latency(&mut found, "read", &latencies);
        found.set("device_share", bytes / (self.reads.min(self.pages) * PAGE) as f64);
        Ok(found)
    }
}
