//! The resources that this process uses, as Linux reports them.

#![expect(clippy::disallowed_methods, reason = "it lists the files of a database from outside")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};

use crate::record::Resources;

/// Totals of this process since its start, and its current memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User processor time, in seconds: all that is not system time.
    pub cpu_user: f64,
    /// System processor time, in seconds, counted in hundredths.
    pub cpu_system: f64,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Bytes written to the page cache for the device.
    pub write_bytes: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Anonymous memory, in bytes.
    pub anonymous: u64,
}

/// Clock ticks per second in `/proc/self/stat`: 100 for user programs on all platforms.
const TICKS: f64 = 100.0;
/// The unit of `st_blocks`, whatever the block size of the file system.
const BLOCK: u64 = 512;

/// Processor time of all threads of this process so far.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Usage {
    pub fn now() -> Result<Self> {
        let mut usage = Self::memory()?;
        let stat = read("/proc/self/stat")?;
        // The name in parentheses may contain anything; field 15 of the line, the system time, has index 12 after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        // Both together are known to the nanosecond: a short step may take less than a tick.
        let together = processor_time().as_secs_f64();
        usage.cpu_system = (ticks(12) / TICKS).min(together);
        usage.cpu_user = together - usage.cpu_system;
        // Not readable everywhere; in that case, the figures are 0.
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        (usage.read_bytes, usage.write_bytes) = (field(&io, "read_bytes:"), field(&io, "write_bytes:"));
        Ok(usage)
    }

    /// The resources used since `before`, and the memory now.
    pub fn since(&self, before: &Self) -> Resources {
        Resources {
            cpu_user: self.cpu_user - before.cpu_user,
            cpu_system: self.cpu_system - before.cpu_system,
            read_bytes: self.read_bytes - before.read_bytes,
            write_bytes: self.write_bytes - before.write_bytes,
            peak_resident: self.resident,
            peak_anonymous: self.anonymous,
            longest: 0,
        }
    }

    pub fn memory() -> Result<Self> {
        let status = read("/proc/self/status")?;
        let kib = |name| field(&status, name) << 10;
        Ok(Self { resident: kib("VmRSS:"), anonymous: kib("RssAnon:"), ..Self::default() })
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes that all files in and below a directory take on disk, without holes; files that vanish meanwhile do not count.
pub fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * BLOCK,
            Err(_) => 0,
        })
        .sum()
}

/// Drops the files in and below a directory from the page cache, except for mapped pages.
pub fn drop_from_cache(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_from_cache(&path)?;
        } else {
            let file = std::fs::File::open(&path)?;
            // Only clean pages can be dropped.
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_processor_time_are_seen() {
        let before = Usage::now().unwrap();
        let block = vec![1u8; 64 << 20];
        let after = Usage::now().unwrap();
        assert!(block.iter().all(|byte| *byte == 1));
        assert!(after.anonymous >= before.anonymous + (60 << 20), "{before:?} {after:?}");
        assert!(after.resident >= after.anonymous && after.cpu_user + after.cpu_system > 0.0, "{after:?}");
    }

    #[test]
    fn files_below_count_and_holes_do_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("below")).unwrap();
        std::fs::write(directory.path().join("a"), [1; 10_000]).unwrap();
        std::fs::write(directory.path().join("below/b"), [1; 20_000]).unwrap();
        let sparse = std::fs::File::create(directory.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let bytes = directory_bytes(directory.path());
        assert!((30_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(directory_bytes(&directory.path().join("nowhere")), 0);
    }
}
