//! Counts of what a run did, so that a run that shrank is noticed.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of a run; add several with [`Totals::add`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Workloads, each with its own seed.
    pub workloads: u64,
    /// Operations in these workloads.
    pub operations: u64,
    /// Acknowledged commits.
    pub commits: u64,
    /// Conditional writes and transactions, refused ones included.
    pub conditional: u64,
    /// Those among them that were refused, as they should be: for their condition, or in conflict.
    pub unmet: u64,
    /// Puts and deletes in the acknowledged commits.
    pub changes: u64,
    /// Operations refused because of a limit on space or size.
    pub refused: u64,
    /// Operations that failed otherwise: only with injected faults.
    pub failed: u64,
    /// Gets, queries and full scans, each compared with the model.
    pub reads: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Changes of settings.
    pub settings: u64,
    /// Clean closes.
    pub closes: u64,
    /// Deaths of the process during a workload.
    pub deaths: u64,
    /// Opens during a workload.
    pub reopens: u64,
    /// Read-only opens.
    pub read_only_opens: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Compactions.
    pub compactions: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Log segments started.
    pub rotations: u64,
    /// Mutating I/O operations of the workloads: each is a crash point.
    pub points: u64,
    /// Crash states opened and compared, by what the crash kept, including those during recovery.
    pub states: BTreeMap<&'static str, u64>,
    /// Crash states during recovery, by depth: the first is a crash during the recovery from a crash, and so on.
    pub in_recovery: Vec<u64>,
    /// Crash states without a database, as is allowed before its creation returns.
    pub absent: u64,
    /// Crash states that were opened, written to, opened once more and compared again.
    pub continued: u64,
}

impl Totals {
    /// Crash states of all kinds.
    pub fn all_states(&self) -> u64 {
        self.states.values().sum()
    }

    /// Crash states during recovery.
    pub fn all_in_recovery(&self) -> u64 {
        self.in_recovery.iter().sum()
    }

    /// Counts a crash state; `depth` is the number of recoveries that it is nested in.
    pub fn state(&mut self, kind: &'static str, depth: usize) {
        *self.states.entry(kind).or_default() += 1;
        if let Some(at) = depth.checked_sub(1) {
            self.in_recovery.resize(self.in_recovery.len().max(depth), 0);
            self.in_recovery.iter_mut().skip(at).take(1).for_each(|count| *count += 1);
        }
    }

    /// Adds the counts of another run.
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

    /// The single counts, with their names.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.clone().counts_mut().into_iter().map(|(what, count)| (what, *count)).collect()
    }

    /// The single counts, with the names used by `Display`.
    fn counts_mut(&mut self) -> [(&'static str, &mut u64); 22] {
        [
            ("workloads", &mut self.workloads),
            ("operations", &mut self.operations),
            ("commits", &mut self.commits),
            ("conditional ones", &mut self.conditional),
            ("of them not met", &mut self.unmet),
            ("puts and deletes", &mut self.changes),
            ("refused", &mut self.refused),
            ("failed", &mut self.failed),
            ("reads compared", &mut self.reads),
            ("snapshots", &mut self.snapshots),
            ("changes of settings", &mut self.settings),
            ("clean closes", &mut self.closes),
            ("deaths of the process", &mut self.deaths),
            ("reopens", &mut self.reopens),
            ("read-only opens", &mut self.read_only_opens),
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
