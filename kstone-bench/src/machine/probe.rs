//! Two times that decide what a database can do on a disk: making 4 KiB durable, and reading 4 KiB that no cache of this
//! machine has. A cache of the device, or of the machine below a virtual one, is not avoided.

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

use crate::data::splitmix;

const BLOCK: usize = 4096;
/// Syncs that are timed, and before them some that are not: the first ones allocate.
const SYNCS: usize = 50;
const UNTIMED: usize = 5;
/// Of the file that blocks are read from, each at most once.
const BLOCKS: u64 = 8192;
const READS: usize = 200;
/// On slow disks fewer will do.
const LONGEST: Duration = Duration::from_secs(3);

/// The middle of the times that appending 4 KiB and `fdatasync` took, in nanoseconds.
pub(super) fn fsync(directory: &Path) -> Result<u64> {
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

/// The middle of the times of reads of 4 KiB at random places of a file of 32 MiB, in nanoseconds; `None` where the
/// page cache cannot be told to let go of it.
pub(super) fn read_4k(directory: &Path) -> Result<Option<u64>> {
    let file = written(directory).with_context(|| format!("32 MiB in {}", directory.display()))?;
    let uncached =
        fadvise(&file, 0, None, Advice::DontNeed).and_then(|()| fadvise(&file, 0, None, Advice::Random));
    if uncached.is_err() {
        return Ok(None);
    }
    let before = device_reads();
    let mut times = Vec::new();
    let mut block = [0; BLOCK];
    let begin = Instant::now();
    for n in 0..READS as u64 {
        // The odd factor makes this a permutation of the blocks.
        let at = n.wrapping_mul(0x9e37_79b1) % BLOCKS * BLOCK as u64;
        let start = Instant::now();
        file.read_exact_at(&mut block, at)?;
        times.push(start.elapsed());
        if begin.elapsed() > LONGEST {
            break;
        }
    }
    // The kernel counts what came from the device: if that is less, a cache answered after all.
    let expected = (times.len() * BLOCK) as u64;
    let from_device = before.zip(device_reads()).is_none_or(|(before, after)| after - before >= expected);
    Ok(from_device.then(|| middle(times)))
}

fn written(directory: &Path) -> Result<File> {
    let mut file = tempfile::tempfile_in(directory)?;
    for n in 0..BLOCKS / 256 {
        file.write_all(&noise(n, 256 * BLOCK))?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Bytes that nothing below can make smaller.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let words = std::iter::successors(Some(splitmix(seed)), |state| Some(splitmix(*state)));
    words.take(bytes / 8).flat_map(u64::to_le_bytes).collect()
}

/// Bytes that this thread had read from devices so far, if the kernel counts them.
fn device_reads() -> Option<u64> {
    let io = fs::read_to_string("/proc/thread-self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.parse().ok()
}

fn middle(mut times: Vec<Duration>) -> u64 {
    times.sort();
    times.get(times.len() / 2).map_or(0, |time| time.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_are_read_once_each_and_noise_does_not_repeat() {
        let places: BTreeSet<u64> = (0..READS as u64).map(|n| n.wrapping_mul(0x9e37_79b1) % BLOCKS).collect();
        assert_eq!(places.len(), READS);
        let words: BTreeSet<Vec<u8>> = noise(3, BLOCK).chunks(8).map(<[u8]>::to_vec).collect();
        assert_eq!(words.len(), BLOCK / 8);
    }

    #[test]
    fn the_middle_is_the_middle() {
        let times = [5, 1, 9].map(Duration::from_nanos).to_vec();
        assert_eq!((middle(times), middle(Vec::new())), (5, 0));
    }
}
