//! Limits the memory of a process, page cache included, with a control group, so that data is certain to exceed memory.

#![expect(clippy::disallowed_methods, reason = "control groups are files")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A new control group, removed when this is dropped. Its process should have ended by then.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
}

/// Parent directory of the groups and file name of the limit: version 1, then 2.
const HIERARCHIES: [(&str, &str); 2] =
    [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];

impl ControlGroup {
    /// Creates a group whose processes may use this many bytes.
    pub fn new(bytes: u64) -> Result<Self> {
        let (root, limit) = HIERARCHIES
            .into_iter()
            .find(|(root, limit)| limited_by(Path::new(root), limit))
            .context("no control groups for memory are mounted")?;
        let path = (0..)
            .map(|n| Path::new(root).join(format!("kstone-bench-{}-{n}", std::process::id())))
            .find(|path| !path.exists())
            .context("no name is free")?;
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let group = Self { path };
        group.write(limit, bytes)?;
        Ok(group)
    }

    /// Adds a process to the group; its allocations from now on count.
    pub fn add(&self, process: u32) -> Result<()> {
        self.write("cgroup.procs", process.into())
    }

    fn write(&self, file: &str, value: u64) -> Result<()> {
        let file = self.path.join(file);
        std::fs::write(&file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Whether the root offers this limit. The root of version 2 has no limit itself, but lists the controllers.
fn limited_by(root: &Path, limit: &str) -> bool {
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    root.join(limit).exists() || controllers.split_whitespace().any(|name| name == "memory")
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A group that is left behind does no harm.
        let _ = std::fs::remove_dir(&self.path);
    }
}
