//! What a run did, so that a shrunken one is seen.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of a run; add those of several with [`Totals::add`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Workloads, each from a seed of its own.
    pub workloads: u64,
    /// Their operations.
    pub operations: u64,
    /// Commits acknowledged.
    pub commits: u64,
    /// Puts and deletes in them.
    pub changes: u64,
    /// Operations refused for a limit on space or size.
    pub refused: u64,
    /// Operations that failed otherwise: only where the file system was told to.
    pub failed: u64,
    /// Gets, queries, scans of everything each of which was compared.
    pub reads: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Changes of settings.
    pub settings: u64,
    /// Clean closes.
    pub closes: u64,
    /// Deaths of the process in the middle of a workload.
    pub deaths: u64,
    /// Opens in the middle of a workload.
    pub reopens: u64,
    /// Opens for reading only.
    pub read_only_opens: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Compactions.
    pub compactions: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Log segments begun.
    pub rotations: u64,
    /// Changing I/O operations of the workloads: each is a crash point.
    pub points: u64,
    /// Crash states opened and compared, by what the crash kept, those inside recovery included.
    pub states: BTreeMap<&'static str, u64>,
    /// Crash states inside recovery, by depth: the first is a crash inside the recovery from a crash, and so on.
    pub in_recovery: Vec<u64>,
    /// Crash states in which there was no database, as is allowed before its creation returned.
    pub absent: u64,
    /// Crash states that were written to after they were opened, opened once more and compared again.
    pub continued: u64,
}

impl Totals {
    /// Crash states of all kinds.
    pub fn all_states(&self) -> u64 {
        self.states.values().sum()
    }

    /// Crash states inside recovery.
    pub fn all_in_recovery(&self) -> u64 {
        self.in_recovery.iter().sum()
    }

    /// Counts a crash state; `depth` says inside how many recoveries it lies.
    pub fn state(&mut self, kind: &'static str, depth: usize) {
        *self.states.entry(kind).or_default() += 1;
        if let Some(at) = depth.checked_sub(1) {
            self.in_recovery.resize(self.in_recovery.len().max(depth), 0);
            self.in_recovery.iter_mut().skip(at).take(1).for_each(|count| *count += 1);
        }
    }

    /// Adds what another run did.
    pub fn add(&mut self, other: &Self) {
        for ((_, to), (_, from)) in self.counts_mut().into_iter().zip(other.clone().counts_mut()) {
            *to += *from;
        }
        for (kind, count) in &other.states {
            *self.states.entry(kind).or_default() += count;
        }
        let depths = self.in_recovery.len().max(other.in_recovery.len());
        self.in_recovery.resize(depths, 0);
        for (to, from) in self.in_recovery.iter_mut().zip(&other.in_recovery) {
            *to += from;
        }
    }

    /// The single counts, each with a word for it.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.clone().counts_mut().into_iter().map(|(what, count)| (what, *count)).collect()
    }

    /// The single counts, with the words that `Display` has for them.
    fn counts_mut(&mut self) -> [(&'static str, &mut u64); 20] {
        [
            ("workloads", &mut self.workloads),
            ("operations", &mut self.operations),
            ("commits", &mut self.commits),
            ("puts and deletes", &mut self.changes),
            ("refused", &mut self.refused),
            ("failed", &mut self.failed),
            ("reads compared", &mut self.reads),
            ("snapshots", &mut self.snapshots),
            ("changes of settings", &mut self.settings),
            ("clean closes", &mut self.closes),
            ("deaths of the process", &mut self.deaths),
            ("reopens", &mut self.reopens),
            ("opens to read only", &mut self.read_only_opens),
            ("flushes", &mut self.flushes),
            ("compactions", &mut self.compactions),
            ("checkpoints", &mut self.checkpoints),
            ("log segments", &mut self.rotations),
            ("crash points", &mut self.points),
            ("states without a database", &mut self.absent),
            ("states continued", &mut self.continued),
        ]
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.clone();
        let counts = all.counts_mut();
        let done = counts.iter().filter(|(_, count)| **count > 0);
        let mut parts: Vec<String> = done.map(|(what, count)| format!("{count} {what}")).collect();
        if !self.states.is_empty() {
            let by_kind: Vec<_> = self.states.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            parts.push(format!("{} crash states ({})", self.all_states(), by_kind.join(", ")));
        }
        if self.all_in_recovery() > 0 {
            let by_depth: Vec<_> = self.in_recovery.iter().map(u64::to_string).collect();
            parts.push(format!(
                "{} of them inside recovery (by depth: {})",
                self.all_in_recovery(),
                by_depth.join(", ")
            ));
        }
        f.write_str(&parts.join(", "))
    }
}
