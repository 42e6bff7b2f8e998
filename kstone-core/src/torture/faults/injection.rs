//! Which operation fails, and how.

use std::fmt;

use crate::vfs::{Effect, Errno, Op, Rule};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// EIO, from any operation.
    Io,
    /// ENOSPC, from operations that take space, and from syncs.
    NoSpace,
    /// A write that takes a part, and then ENOSPC.
    Torn,
    /// EIO, from a change that was made all the same.
    Done,
    /// A read or write that takes only a part.
    Short,
    /// A sync that fails and loses what it was to make durable; the next one succeeds.
    LostSync,
    /// EINTR from a read or write, three times in a row.
    Interrupted,
    /// EMFILE, from what needs a descriptor.
    TooManyFiles,
    /// ENOMEM, from a mapping.
    NoMemory,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Io,
        Self::NoSpace,
        Self::Torn,
        Self::Done,
        Self::Short,
        Self::LostSync,
        Self::Interrupted,
        Self::TooManyFiles,
        Self::NoMemory,
    ];

    /// As the errno is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "EIO",
            Self::NoSpace => "ENOSPC",
            Self::Torn => "torn-ENOSPC",
            Self::Done => "done-EIO",
            Self::Short => "short",
            Self::LostSync => "lost-sync",
            Self::Interrupted => "EINTR",
            Self::TooManyFiles => "EMFILE",
            Self::NoMemory => "ENOMEM",
        }
    }

    /// Whether the operating system can answer so.
    pub(super) fn befalls(self, op: Op) -> bool {
        use Op::{Allocate, Create, CreateDir, List, Lock, LockShared, Map, OpenRead, OpenWrite};
        use Op::{Read, Rename, SetLen, Sync, SyncDir, Truncate, Write};
        match self {
            Self::Io => true,
            Self::NoSpace => {
                matches!(
                    op,
                    Create | Truncate | Write | Allocate | SetLen | Rename | CreateDir | Sync | SyncDir
                )
            }
            Self::Torn => op == Write,
            Self::Done => op.changes(),
            Self::Short | Self::Interrupted => matches!(op, Read | Write),
            Self::LostSync => matches!(op, Sync | SyncDir),
            Self::TooManyFiles => {
                matches!(op, OpenRead | OpenWrite | Create | Truncate | List | Lock | LockShared | SyncDir)
            }
            Self::NoMemory => op == Map,
        }
    }

    /// Nobody may notice it.
    pub(super) fn is_invisible(self) -> bool {
        matches!(self, Self::Short | Self::Interrupted)
    }

    /// What lets operation `n` fail, and all later ones of the kind if it is lasting.
    pub(super) fn rules(self, n: u64, lasting: bool) -> Vec<Rule> {
        let ops: Vec<Op> = Op::ALL.into_iter().filter(|&op| self.befalls(op)).collect();
        let rule = |effect| {
            let rule = Rule::new(effect).on(&ops).after(n);
            if lasting { rule } else { rule.nth(1) }
        };
        match self {
            Self::Io => vec![rule(Effect::Fail(Errno::Io))],
            Self::NoSpace if lasting => vec![Rule::full().after(n)],
            Self::NoSpace => vec![rule(Effect::Fail(Errno::NoSpace))],
            Self::Torn => {
                let torn = Rule::new(Effect::Torn(Errno::NoSpace)).on(&ops).after(n).nth(1);
                if lasting { vec![torn, Rule::full().after(n + 1)] } else { vec![torn] }
            }
            Self::Done => vec![rule(Effect::Done(Errno::Io))],
            Self::Short => vec![rule(Effect::Short(if lasting { 200 } else { 1 + n as usize % 300 }))],
            Self::LostSync => vec![rule(Effect::LoseUnsynced(Errno::Io))],
            Self::Interrupted => {
                vec![Rule::fail(Errno::Interrupted).on(&ops).after(n).range(1..=3)]
            }
            Self::TooManyFiles => vec![rule(Effect::Fail(Errno::TooManyFiles))],
            Self::NoMemory => vec![rule(Effect::Fail(Errno::NoMemory))],
        }
    }
}

/// One run: which fault, at which I/O operation, and whether it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injection {
    /// How it fails.
    pub fault: Fault,
    /// The I/O operation, from 1.
    pub at: u64,
    /// Whether all later ones fail, too.
    pub lasting: bool,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.fault.name(), self.at, if self.lasting { "lasting" } else { "once" })
    }
}

impl std::str::FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not like EIO:17:once");
        let mut parts = text.split(':');
        let name = parts.next().ok_or_else(bad)?;
        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(bad)?;
        let at = parts.next().and_then(|at| at.parse().ok()).ok_or_else(bad)?;
        let lasting = parts.next().ok_or_else(bad)? == "lasting";
        Ok(Self { fault, at, lasting })
    }
}
