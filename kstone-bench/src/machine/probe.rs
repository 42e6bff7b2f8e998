//! Two times that determine what a database can do on a disk: making 4 KiB durable, and reading 4 KiB that no cache of
//! this machine holds. Caches of the device, or of the host of a virtual machine, are not avoided.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures the disk of this machine, not the engine: no test replays its time"
)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};

use crate::noise;

const BLOCK: usize = 4096;
/// The number of timed syncs. Some untimed ones come first, because those allocate.
const SYNCS: usize = 50;
const UNTIMED: usize = 5;
/// On slow disks, fewer are enough.
pub(super) const LONGEST: Duration = Duration::from_secs(3);

/// The median time of appending 4 KiB and `fdatasync`.
pub(super) fn fsync(directory: &Path) -> Result<Duration> {
    let mut file = tempfile::tempfile_in(directory)?;
    let block = noise(1, BLOCK);
    let mut times = Vec::new();
    let begin = Instant::now();
    for n in 0..UNTIMED + SYNCS {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        if n >= UNTIMED {
            times.push(start.elapsed());
        }
        if begin.elapsed() > LONGEST && !times.is_empty() {
            break;
        }
    }
    Ok(middle(times))
}

/// Reads past the page cache.
pub(crate) struct Reads {
    /// The median time.
    pub(crate) middle: Duration,
    /// The fraction of the bytes read that came from the device, if the kernel counts that. If it is less than 1, a
    /// cache answered after all.
    pub(crate) device_share: Option<f64>,
}

/// Reads 4 KiB at random places of a file of this many blocks, for at most `longest`; `None` if the page cache cannot
/// be made to drop the file.
pub(crate) fn read_4k(directory: &Path, blocks: u64, reads: u64, longest: Duration) -> Result<Option<Reads>> {
    let file = written(directory, blocks).with_context(|| format!("a file in {}", directory.display()))?;
    let uncached =
        fadvise(&file, 0, None, Advice::DontNeed).and_then(|()| fadvise(&file, 0, None, Advice::Random));
    if uncached.is_err() {
        return Ok(None);
    }
    let before = device_reads();
    let mut times = Vec::new();
    let mut block = [0; BLOCK];
    let begin = Instant::now();
    for n in 0..reads {
        let start = Instant::now();
        file.read_exact_at(&mut block, place(n, blocks) * BLOCK as u64)?;
        times.push(start.elapsed());
        if begin.elapsed() > longest {
            break;
        }
    }
    let bytes = (times.len() * BLOCK) as f64;
    let from_device = before.zip(device_reads());
    let device_share = from_device.map(|(before, after)| (after - before) as f64 / bytes);
    Ok(Some(Reads { middle: middle(times), device_share }))
}

/// Visits each block once, far from the previous one: the factor is a prime.
fn place(n: u64, blocks: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b1) % blocks
}

fn written(directory: &Path, blocks: u64) -> Result<File> {
    let mut file = tempfile::tempfile_in(directory)?;
    for n in 0..blocks {
        file.write_all(&noise(n, BLOCK))?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Bytes that this thread has read from devices so far, if the kernel counts them.
fn device_reads() -> Option<u64> {
    let io = fs::read_to_string("/proc/thread-self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.parse().ok()
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_are_read_once_each_and_noise_does_not_repeat() {
        for blocks in [8192, 2400, 16_000] {
            let places: BTreeSet<u64> = (0..blocks).map(|n| place(n, blocks)).collect();
            assert_eq!(places.len() as u64, blocks);
        }
        let words: BTreeSet<Vec<u8>> = noise(3, BLOCK).chunks(8).map(<[u8]>::to_vec).collect();
        assert_eq!(words.len(), BLOCK / 8);
    }

    #[test]
    fn the_middle_is_the_middle() {
        let times = [5, 1, 9].map(Duration::from_nanos).to_vec();
        assert_eq!((middle(times), middle(Vec::new())), (Duration::from_nanos(5), Duration::ZERO));
    }
}
