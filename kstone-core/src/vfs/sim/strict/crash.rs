//! What a power cut leaves: the modes, and their effect on names and bytes.
//!
//! | mode | unsynced names | unsynced bytes | as seen on |
//! |---|---|---|---|
//! | `Strict` | none | none | any, if nothing happened to be written back |
//! | `All` | all | all | any, if everything was written back in time |
//! | `Process` | all, still not durable | all, still not durable | the death of the process only |
//! | `Random` | the first few | any subset, in sectors | ext4, xfs, btrfs: names are journalled in order, bytes are not |
//! | `Torn` | all before the cut | all before the cut; the write at the cut in part | a disk with an ordered queue; writes are torn at a byte by memory-like devices, at 512 by disks, at 4096 by the page cache |
//! | `Garbage` | the first few | holes in newly allocated space have the disk's previous contents | ext4 `data=writeback`, file systems without journalled data |
//! | `Grown` | all | only the lengths | xfs, ext4 with delayed allocation: the length is journalled, the bytes are not |
//! | `Undone` | the first few, not all | all | a journal that was not committed: an unlinked file is back, a rename is lost |
//! | `Emptied` | all | files never synced are empty, or zeros | ext4 with `noauto_da_alloc`, xfs: written, renamed, never synced |
//! | `Jumbled` | any subset | any subset, in sectors | no journal: ext2, FAT; names kept although an earlier one was lost |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::content::{Bytes, Left, below};
use super::{Dir, Inode, Names, Node, State, StrictVfs, parent};
use crate::clock::{Clock, ManualClock};
use crate::sync::Mutex;

/// Where a write may be torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// Anywhere.
    Byte,
    /// Between sectors of 512 bytes.
    Sector,
    /// Between pages of 4096 bytes.
    Page,
}

impl Tear {
    pub(super) fn unit(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Sector => 512,
            Self::Page => 4096,
        }
    }
}

/// Which pending operations a power cut leaves. The same seed and history give the same image. A table at the head
/// of `vfs/sim/strict/crash.rs` names the real file systems that each mode represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashMode {
    /// Keeps nothing: only synced bytes and synced names remain.
    Strict,
    /// Keeps everything except data lost by a failed sync.
    All,
    /// The death of the process only: everything is readable, and pending operations remain pending, so that a power
    /// failure may still lose them.
    Process,
    /// Keeps some operations, chosen by the seed. Of each directory's name operations, the first few. Of each file's
    /// operations, any subset, so a later write may survive without an earlier one. A write may also survive in part,
    /// in any of its 512-byte sectors, or only its length may, so that the file reads zeros there.
    Random {
        /// Seed of the choice.
        seed: u64,
    },
    /// Keeps everything up to some operation, in chronological order over all files; that operation, if it is a write,
    /// in part.
    Torn {
        /// Seed of the choice of operation and position.
        seed: u64,
        /// Where the write may be torn.
        at: Tear,
    },
    /// As `Random`, but the space by which a lost write would have extended the file has bytes that were never written
    /// there: random ones, or those of another file, as old blocks do.
    Garbage {
        /// Seed of the choice.
        seed: u64,
    },
    /// Keeps all names, but of the bytes only the lengths of the files, which read zeros where they grew. Some files,
    /// chosen by the seed, keep their bytes as well.
    Grown {
        /// Seed of the choice.
        seed: u64,
    },
    /// Keeps all bytes, but of each directory's name operations only the first few, and never all: created files are
    /// missing, renames are lost, and removed files are back, with all of their bytes.
    Undone {
        /// Seed of the choice.
        seed: u64,
    },
    /// Keeps all names. Files that were never synced are empty, or have their length but read zeros; others keep all
    /// bytes.
    Emptied {
        /// Seed of the choice.
        seed: u64,
    },
    /// Keeps any subset of the name operations, including later ones without earlier ones; bytes as with `Random`.
    Jumbled {
        /// Seed of the choice.
        seed: u64,
    },
}

impl CrashMode {
    /// The number of kinds, with the three tears counted separately.
    pub const KINDS: u64 = 12;

    /// Returns a one-word name of the mode, without its seed.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::All => "all",
            Self::Process => "process",
            Self::Random { .. } => "random",
            Self::Torn { at: Tear::Byte, .. } => "torn-byte",
            Self::Torn { at: Tear::Sector, .. } => "torn-512",
            Self::Torn { at: Tear::Page, .. } => "torn-4096",
            Self::Garbage { .. } => "garbage",
            Self::Grown { .. } => "grown",
            Self::Undone { .. } => "undone",
            Self::Emptied { .. } => "emptied",
            Self::Jumbled { .. } => "jumbled",
        }
    }

    /// Returns a mode with this seed; `n` is taken modulo [`CrashMode::KINDS`].
    pub fn nth(n: u64, seed: u64) -> Self {
        match n % Self::KINDS {
            0 => Self::Random { seed },
            1 => Self::Torn { seed, at: Tear::Byte },
            2 => Self::Torn { seed, at: Tear::Sector },
            3 => Self::Torn { seed, at: Tear::Page },
            4 => Self::Garbage { seed },
            5 => Self::Grown { seed },
            6 => Self::Undone { seed },
            7 => Self::Emptied { seed },
            8 => Self::Jumbled { seed },
            9 => Self::Strict,
            10 => Self::All,
            _ => Self::Process,
        }
    }

    fn seed(self) -> u64 {
        match self {
            Self::Strict | Self::All | Self::Process => 0,
            Self::Random { seed }
            | Self::Torn { seed, .. }
            | Self::Garbage { seed }
            | Self::Grown { seed }
            | Self::Undone { seed }
            | Self::Emptied { seed }
            | Self::Jumbled { seed } => seed,
        }
    }
}

/// What a crash left of each file, by the original file.
type Survivors = BTreeMap<*const Inode, Arc<Inode>>;

/// A crash in progress.
struct Crash {
    mode: CrashMode,
    rng: ManualClock,
    /// For `Torn`: the operation at which time ends.
    cut: u64,
    /// For `Garbage`: possible contents of old blocks.
    stale: Vec<Bytes>,
}

impl State {
    pub(super) fn image(&self, mode: CrashMode) -> StrictVfs {
        if mode == CrashMode::Process {
            return self.fork();
        }
        let rng = ManualClock::new(mode.seed());
        let cut = if let CrashMode::Torn { .. } = mode { self.cut(&rng) } else { 0 };
        let stale = if let CrashMode::Garbage { .. } = mode { self.all_bytes() } else { Vec::new() };
        let crash = Crash { mode, rng, cut, stale };
        let mut survivors = Survivors::new();
        let mut dirs = BTreeMap::<PathBuf, Dir>::new();
        // Directories come after their parents in this order, and are lost if their name in the parent is.
        for (path, dir) in &self.dirs {
            let lost = path.file_name().is_some_and(|name| {
                let names = dirs.get(parent(path)).map(|dir| &dir.durable);
                !matches!(names.and_then(|names| names.get(name)), Some(Node::Dir))
            });
            if lost {
                continue;
            }
            let left = crash.names(dir).into_iter();
            let names: Names = left.map(|(name, node)| (name, crash.node(&node, &mut survivors))).collect();
            dirs.insert(path.clone(), Dir { current: names.clone(), durable: names, pending: Vec::new() });
        }
        StrictVfs::of(State { dirs, shares: self.shares, ..State::default() })
    }

    /// The moment at which time ends, that of a pending operation: in half of the cases the last one.
    fn cut(&self, rng: &ManualClock) -> u64 {
        let mut moments = Vec::new();
        for dir in self.dirs.values() {
            moments.extend(dir.pending.iter().map(|op| op.at));
            for inode in dir.files() {
                moments.extend(inode.content.lock().moments());
            }
        }
        moments.sort_unstable();
        let last = moments.last().copied();
        let any = moments.get(below(rng, moments.len() as u64) as usize).copied();
        if below(rng, 2) == 0 { last.unwrap_or(0) } else { any.unwrap_or(0) }
    }

    fn all_bytes(&self) -> Vec<Bytes> {
        self.dirs.values().flat_map(Dir::files).map(|inode| inode.content.lock().current()).collect()
    }

    /// An independent copy with the same pending operations and without locks.
    fn fork(&self) -> StrictVfs {
        let mut copies = Survivors::new();
        let mut copy = |node: &Node| match node {
            Node::Dir => Node::Dir,
            Node::File(inode) => {
                let copy = copies.entry(Arc::as_ptr(inode)).or_insert_with(|| {
                    Arc::new(Inode { content: Mutex::new(inode.content.lock().clone()), ..Inode::default() })
                });
                Node::File(Arc::clone(copy))
            }
        };
        let mut names = |names: &Names| -> Names {
            names.iter().map(|(name, node)| (name.clone(), copy(node))).collect()
        };
        let mut dirs = BTreeMap::new();
        for (path, dir) in &self.dirs {
            let (current, durable) = (names(&dir.current), names(&dir.durable));
            let pending = dir.pending.iter().map(|op| {
                let mut op = op.clone();
                if let Some((name, node)) = &mut op.set {
                    let of = names(&Names::from([(name.clone(), node.clone())]));
                    of.into_values().for_each(|copied| *node = copied);
                }
                op
            });
            dirs.insert(path.clone(), Dir { pending: pending.collect(), current, durable });
        }
        StrictVfs::of(State { dirs, ops: self.ops, shares: self.shares, ..State::default() })
    }
}

impl Dir {
    /// All files that have, had or may get a name in this directory.
    fn files(&self) -> impl Iterator<Item = &Arc<Inode>> {
        let set = self.pending.iter().filter_map(|op| op.set.as_ref().map(|(_, node)| node));
        let nodes = self.current.values().chain(self.durable.values()).chain(set);
        nodes.filter_map(|node| if let Node::File(inode) = node { Some(inode) } else { None })
    }
}

impl Crash {
    fn names(&self, dir: &Dir) -> Names {
        let pending = dir.pending.len() as u64;
        let first = match self.mode {
            CrashMode::Strict => 0,
            CrashMode::Random { .. } | CrashMode::Garbage { .. } => below(&self.rng, pending + 1),
            CrashMode::Undone { .. } => below(&self.rng, pending),
            _ => pending,
        };
        let mut names = dir.durable.clone();
        for op in dir.pending.iter().take(first as usize) {
            let kept = match self.mode {
                CrashMode::Torn { .. } => op.at < self.cut,
                CrashMode::Jumbled { .. } => below(&self.rng, 2) == 0,
                _ => true,
            };
            if kept {
                op.apply(&mut names);
            }
        }
        names
    }

    /// What is left of a node. A file with several names remains a single file.
    fn node(&self, node: &Node, survivors: &mut Survivors) -> Node {
        let Node::File(inode) = node else { return Node::Dir };
        let survivor = survivors.entry(Arc::as_ptr(inode)).or_insert_with(|| Arc::new(self.survivor(inode)));
        Node::File(Arc::clone(survivor))
    }

    fn survivor(&self, inode: &Inode) -> Inode {
        let content = inode.content.lock();
        // A generator for each file: how many numbers a file draws depends on its length, which for some files differs
        // from run to run (process ids, per-thread counters).
        let rng = &ManualClock::new(self.rng.random());
        let left = match self.mode {
            CrashMode::Strict => Left::Durable,
            CrashMode::All | CrashMode::Process | CrashMode::Undone { .. } => Left::All,
            CrashMode::Random { .. } | CrashMode::Jumbled { .. } => Left::Some { stale: None },
            CrashMode::Garbage { .. } => Left::Some { stale: Some(&self.stale) },
            CrashMode::Torn { at, .. } => Left::Until { moment: self.cut, unit: at.unit() },
            CrashMode::Grown { .. } if below(rng, 3) > 0 => Left::Lengths,
            CrashMode::Emptied { .. } if content.never_synced() => match below(rng, 2) {
                0 => Left::Durable,
                _ => Left::Lengths,
            },
            CrashMode::Grown { .. } | CrashMode::Emptied { .. } => Left::All,
        };
        Inode { content: Mutex::new(content.survivor(&left, rng)), ..Inode::default() }
    }
}
