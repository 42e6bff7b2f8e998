//! Memory available on the machine, behind a trait so that tests can set it.
//!
//! The minimum of what the kernel reports as available and what each control group above this process has left of its
//! limit: in a container the machine may have plenty while the process is about to be killed.

use std::fmt::Debug;
use std::path::Path;

use crate::vfs::{DiskVfs, OpenMode, Vfs, read_full_at};

/// Reports available memory to the engine.
pub trait MemoryProbe: Debug + Send + Sync {
    /// Bytes that could be allocated now without evicting anything else; `None` if unknown.
    fn available(&self) -> Option<u64>;

    /// Page faults of this process that had to wait for a disk, since it started; `None` if unknown.
    fn major_faults(&self) -> Option<u64> {
        None
    }
}

/// Reads `/proc` and `/sys/fs/cgroup` on Linux, versions 1 and 2.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemMemory;

impl MemoryProbe for SystemMemory {
    fn available(&self) -> Option<u64> {
        available(&read)
    }

    fn major_faults(&self) -> Option<u64> {
        major_faults(&read("/proc/self/stat")?)
    }
}

/// The fields after the name of the program, which is in parentheses and may contain any character: state, parent,
/// group, session, terminal, its group, flags, minor faults, those of children, major faults (proc_pid_stat(5)).
fn major_faults(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(9)?.parse().ok()
}

/// The same amount always, so that what depends on it can be reproduced.
#[derive(Clone, Copy, Debug)]
pub struct FixedMemory(pub u64);

impl MemoryProbe for FixedMemory {
    fn available(&self) -> Option<u64> {
        Some(self.0)
    }
}

/// The text of a kernel file. Such files report a length of zero, so the length cannot be used.
fn read(path: &str) -> Option<String> {
    /// The longest of these files, `memory.stat`, has about 2 KiB.
    const LONGEST: usize = 16 << 10;
    let file = DiskVfs::new().open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = vec![0; LONGEST];
    let len = read_full_at(&*file, &mut bytes, 0).ok()?;
    bytes.truncate(len);
    String::from_utf8(bytes).ok()
}

fn available(read: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| field(&text, "MemAvailable:")?.checked_mul(1024));
    // A file that cannot be read sets no limit.
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let left = groups.lines().filter_map(|line| {
        // hierarchy:controllers:path; version 2 has no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            let files = ["memory.max", "memory.current", "inactive_file"];
            // The second path is where systems mount version 2 beside version 1.
            let of = |mount: &str| least_left(read, mount, path, files);
            of("/sys/fs/cgroup").or_else(|| of("/sys/fs/cgroup/unified"))
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let files = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
            least_left(read, "/sys/fs/cgroup/memory", path, files)
        } else {
            None
        }
    });
    machine.into_iter().chain(left).min()
}

/// The least that a group and its ancestors have left of their limits. Inside a container its own group is mounted as
/// the root, and the path may not exist: a missing group has no limit.
fn least_left(
    read: &impl Fn(&str) -> Option<String>,
    mount: &str,
    path: &str,
    [limit, usage, cached]: [&str; 3],
) -> Option<u64> {
    let groups = Path::new(path.trim_start_matches('/')).ancestors().filter_map(Path::to_str);
    let left = groups.filter_map(|group| {
        let dir = if group.is_empty() { mount.to_string() } else { format!("{mount}/{group}") };
        let number = |name: &str| read(&format!("{dir}/{name}"))?.trim().parse::<u64>().ok();
        let (limit, usage) = (number(limit)?, number(usage)?);
        // Pages of files not used recently count as used, yet they are reclaimed first under memory pressure: without
        // this, reading one large file would look like running out of memory.
        let cached = read(&format!("{dir}/memory.stat")).and_then(|text| field(&text, cached)).unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    });
    left.min()
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree: 5 kB\nMemAvailable:    2000 kB\n";

    fn with(files: &[(&str, &str)]) -> Option<u64> {
        available(&|path: &str| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string())
        })
    }

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("/proc/meminfo", MEMINFO)]), Some(2_048_000));
        assert_eq!(with(&[("/proc/meminfo", "MemAvailable: lots kB")]), None);
        let v2 = |max, current, stat| {
            with(&[
                ("/proc/meminfo", MEMINFO),
                ("/proc/self/cgroup", "0::/app/db\n"),
                ("/sys/fs/cgroup/app/db/memory.max", "max\n"),
                ("/sys/fs/cgroup/app/db/memory.current", "7\n"),
                ("/sys/fs/cgroup/app/memory.max", max),
                ("/sys/fs/cgroup/app/memory.current", current),
                ("/sys/fs/cgroup/app/memory.stat", stat),
            ])
        };
        assert_eq!(v2("1000000\n", "400000\n", ""), Some(600_000), "a parent group has the limit");
        assert_eq!(v2("1000000\n", "400000\n", "anon 1\ninactive_file 300000\n"), Some(900_000));
        assert_eq!(v2("1000000\n", "2000000\n", ""), Some(0));
        assert_eq!(v2("9000000\n", "400000\n", ""), Some(2_048_000));
        assert_eq!(v2("max\n", "400000\n", ""), Some(2_048_000));
    }

    #[test]
    fn major_faults_are_read_past_any_name() {
        let stat = "7 (a) b) S 1 2 3 0 -1 4194560 111 222 333 444 5 6";
        assert_eq!(major_faults(stat), Some(333));
        assert_eq!((major_faults("7 (a) S 1"), major_faults("")), (None, None));
    }

    #[test]
    fn version_1_counts_its_memory_controller() {
        let v1 = with(&[
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "9:name=systemd:/x\n4:cpu,memory:/job\n0::/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
            ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000\n"),
            ("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "900000\n"),
            ("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 200000\n"),
        ]);
        assert_eq!(v1, Some(300_000));
    }

    #[test]
    fn this_machine_answers_something_sensible_or_nothing() {
        assert!(SystemMemory.available().is_none_or(|bytes| bytes < 1 << 50));
    }
}
