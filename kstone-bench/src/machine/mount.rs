//! Determines the file system of a directory and the device below it, from `/proc/self/mountinfo` (proc(5)) and
//! `/sys/block`.

use std::fs;
use std::path::{Path, PathBuf};

use super::UNKNOWN;
use crate::units;

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mount {
    kind: String,
    options: String,
    /// `major:minor`, the names of devices in `/sys/dev/block`.
    device: String,
    source: String,
}

impl Mount {
    /// The file system of an absolute path without symbolic links; fields are empty if the table has none for it.
    pub(super) fn of(directory: &Path, mountinfo: &str) -> Self {
        let mut best = (0, Self::default());
        for (point, mount) in mountinfo.lines().filter_map(Self::parse) {
            let depth = point.components().count();
            // A later line covers an earlier one.
            if directory.starts_with(&point) && depth >= best.0 {
                best = (depth, mount);
            }
        }
        best.1
    }

    /// `36 35 98:0 /root /mnt/point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &str) -> Option<(PathBuf, Self)> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let mut right = right.split(' ');
        let mount = Self {
            kind: right.next()?.to_owned(),
            source: unescape(right.next()?),
            device: (*left.get(2)?).to_owned(),
            options: (*left.get(5)?).to_owned(),
        };
        Some((PathBuf::from(unescape(left.get(4)?)), mount))
    }

    /// Whether files are in memory, with no disk below.
    pub(super) fn in_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    /// The kind of file system and its mount options.
    pub(super) fn file_system(&self) -> String {
        match self.kind.as_str() {
            "" => UNKNOWN.to_owned(),
            kind => format!("{kind} ({})", self.options),
        }
    }

    /// The device's name, model, size, and whether it is rotational.
    pub(super) fn disk(&self) -> String {
        if self.in_memory() {
            return "none: files are in memory".to_owned();
        }
        let by_number = Some(self.device.as_str()).filter(|device| !device.is_empty());
        let by_number = by_number.map(|device| Path::new("/sys/dev/block").join(device));
        // Some file systems have a number that belongs to no device.
        let by_name = self.source.strip_prefix("/dev/").map(|name| Path::new("/sys/class/block").join(name));
        let found = [by_number, by_name].into_iter().flatten().find_map(|path| path.canonicalize().ok());
        found.as_deref().and_then(describe).unwrap_or_else(|| UNKNOWN.to_owned())
    }
}

/// Describes a directory of `/sys/devices/.../block/`; that of a partition is inside that of its disk.
fn describe(device: &Path) -> Option<String> {
    let disk = if device.join("queue").exists() { device } else { device.parent()? };
    let line = |name: &str| fs::read_to_string(disk.join(name)).ok().map(|text| text.trim().to_owned());
    let mut parts = vec![disk.file_name()?.to_string_lossy().into_owned()];
    parts.extend(line("device/model").filter(|model| !model.is_empty()));
    // In units of 512 bytes, whatever the sector size of the device.
    parts.extend(
        line("size").and_then(|size| size.parse::<f64>().ok()).map(|size| units::bytes(size * 512.0)),
    );
    let driver = fs::read_link(disk.join("device/driver")).ok();
    let driver = driver.as_ref().and_then(|driver| driver.file_name()).map(|name| name.to_string_lossy());
    // For a virtual device, `rotational` is a default that says nothing about the device behind it.
    match (driver, line("queue/rotational").as_deref()) {
        (Some(driver), _) if driver.starts_with("virtio") => parts.push("virtual".to_owned()),
        (_, Some("0")) => parts.push("solid state".to_owned()),
        (_, Some("1")) => parts.push("turning".to_owned()),
        _ => {}
    }
    Some(parts.join(", "))
}

/// Replaces `\` and three octal digits, which stand for space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 8:1 / /data rw,noatime shared:1 - xfs /dev/sda1 rw
29 27 0:30 / /data\\040two rw - tmpfs tmpfs rw,size=1k
30 28 0:31 / /data/over rw - btrfs /dev/sdb rw
31 28 0:32 / /data/over ro - overlay overlay ro
not a line
";

    #[test]
    fn the_deepest_and_last_mount_above_a_directory_is_its_file_system() {
        let at = |path: &str| Mount::of(Path::new(path), TABLE);
        assert_eq!(at("/home/x").file_system(), "ext4 (rw,relatime)");
        assert_eq!(at("/data/kv").file_system(), "xfs (rw,noatime)");
        assert_eq!((at("/data/kv").device.as_str(), at("/data/kv").source.as_str()), ("8:1", "/dev/sda1"));
        assert_eq!(at("/database").file_system(), "ext4 (rw,relatime)");
        assert_eq!(at("/data/over/x").file_system(), "overlay (ro)");
        assert!(at("/data two/x").in_memory() && !at("/data/x").in_memory());
        assert_eq!(at("/data two/x").disk(), "none: files are in memory");
        let unknown = Mount::of(Path::new("/x"), "");
        assert_eq!((unknown.file_system().as_str(), unknown.disk().as_str()), ("unknown", "unknown"));
    }
}
