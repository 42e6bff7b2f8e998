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
    /// A write that is done in part, and then ENOSPC.
    Torn,
    /// EIO from a mutation that was made nevertheless.
    Done,
    /// A read or write that is done only in part.
    Short,
    /// A sync that fails and loses what it should have made durable; the next one succeeds.
    LostSync,
    /// EINTR from a read or write, three times in a row.
    Interrupted,
    /// EMFILE, from operations that need a descriptor.
    TooManyFiles,
    /// ENOMEM, from a mapping.
    NoMemory,
}

impl Fault {
    /// All faults.
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

    /// A name after the errno.
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

    /// Whether the operating system can fail the operation in this way.
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

    /// Whether the fault must go unnoticed.
    pub(super) fn is_invisible(self) -> bool {
        matches!(self, Self::Short | Self::Interrupted)
    }

    /// The rules that make operation `n` fail and, if lasting, all later ones of the kind.
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

/// One run: the fault, the I/O operation that it strikes, and whether it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injection {
    /// The way in which the operation fails.
    pub fault: Fault,
    /// The number of the I/O operation, from 1.
    pub at: u64,
    /// Whether all later operations fail too.
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
        let bad = || format!("{text:?} does not have the form EIO:17:once");
        let mut parts = text.split(':');
        let name = parts.next().ok_or_else(bad)?;
        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(bad)?;
        let at = parts.next().and_then(|at| at.parse().ok()).ok_or_else(bad)?;
        let lasting = parts.next().ok_or_else(bad)? == "lasting";
        Ok(Self { fault, at, lasting })
    }
}
