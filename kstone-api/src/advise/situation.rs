//! [`Situation`]: what advice is based on.

use kstone_core::lsm::{DiskUsage, EngineStats, Latencies, StripeStats};
use kstone_core::{CompactionConfig, DatabaseConfig};

use super::goal;
use super::rules::{RULES, Rule};
use super::{Advice, Evidence, Source};
use crate::model::{Goal, Model, Point, Workload};

/// What advice is based on: figures of a database, open here or elsewhere. [`Database::advise`](crate::Database::advise)
/// takes those of an open one; this is for tools, which have them from files.
///
/// ```
/// use kstone_api::{Database, Situation};
///
/// let db = Database::in_memory()?;
/// let (stats, disk) = (db.stats()?, db.disk_usage()?);
/// let (config, compaction) = (db.config(), db.compaction_config());
/// assert_eq!(Situation::new(&stats, &disk, &config, &compaction).advise(), []);
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub(super) stats: &'a EngineStats,
    pub(super) disk: &'a DiskUsage,
    pub(super) database: &'a DatabaseConfig,
    pub(super) compaction: &'a CompactionConfig,
    pub(super) latencies: Option<&'a Latencies>,
    pub(super) goal: Option<Goal>,
    pub(super) memory: Option<u64>,
}

/// With fewer entries than this, nothing can be said of their distribution.
pub(super) const FEW_ENTRIES: u64 = 1000;

impl<'a> Situation<'a> {
    /// From figures and settings. Counters of `stats` are those since open; if they are all zero, as from a database
    /// opened read-only, only what the files and settings show is judged.
    pub fn new(
        stats: &'a EngineStats,
        disk: &'a DiskUsage,
        database: &'a DatabaseConfig,
        compaction: &'a CompactionConfig,
    ) -> Self {
        Self { stats, disk, database, compaction, latencies: None, goal: None, memory: None }
    }

    /// Adds latencies.
    pub fn latencies(mut self, latencies: &'a Latencies) -> Self {
        self.latencies = Some(latencies);
        self
    }

    /// Asks for the settings that suit this goal best, too.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// The most bytes that memtables, filters and indexes may take together with those settings.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// What is wrong, the cause first, and what to do about it.
    pub fn advise(&self) -> Vec<Advice> {
        let mut advice = Vec::new();
        let mut explained: Vec<&str> = Vec::new();
        for Rule { name, explains, check, .. } in RULES {
            if explained.contains(name) {
                continue;
            }
            if let Some(found) = check(self) {
                explained.extend(*explains);
                advice.push(Advice { rule: name, ..found });
            }
        }
        // Stable: within one urgency, causes stay before symptoms.
        advice.sort_by_key(|advice| advice.urgency > super::Urgency::High);
        advice.extend(goal::advise(self));
        advice
    }

    /// The names of all rules, and what each looks for, in the order in which they are asked.
    pub fn rules() -> impl Iterator<Item = (&'static str, &'static str)> {
        RULES.iter().map(|rule| (rule.name, rule.about))
    }

    pub(super) fn sum(&self, of: fn(&StripeStats) -> u64) -> u64 {
        self.stats.stripes.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Runs of the stripes that have any, on average.
    pub(super) fn mean_runs(&self) -> f64 {
        let stripes = self.stats.stripes.iter().filter(|stripe| stripe.runs > 0).count();
        self.sum(|stripe| stripe.runs as u64) as f64 / stripes.max(1) as f64
    }

    pub(super) fn most_runs(&self) -> usize {
        self.stats.stripes.iter().map(|stripe| stripe.runs).max().unwrap_or(0)
    }

    /// Puts and deletes since open.
    pub(super) fn writes(&self) -> u64 {
        self.stats.operations.puts.saturating_add(self.stats.operations.deletes)
    }

    /// Writes held up by reasons that `counts` accepts, as a share of all writes since open.
    pub(super) fn held_up(&self, counts: fn(kstone_core::lsm::StallReason) -> bool) -> f64 {
        let stalls = self.stats.stalls.iter().filter(|stall| counts(stall.reason));
        let held_up = stalls.map(|stall| stall.count).fold(0, u64::saturating_add);
        held_up as f64 / self.writes().max(1) as f64
    }

    /// The costs of the work seen since open.
    pub(super) fn model(&self) -> Model {
        let memory_bytes = None;
        Model::new(Workload { memory_bytes, ..Workload::observed(self.stats) })
    }

    pub(super) fn point(&self) -> Point {
        Point::of(self.database, self.compaction)
    }

    /// The expected rate of false positives with this many bits a key.
    pub(super) fn false_positives(&self, bits: usize) -> f64 {
        self.model().predict(&Point { bloom_bits_per_key: bits, ..self.point() }).false_positive_rate
    }
}

pub(super) fn evidence(figure: impl Into<String>, source: Source) -> Evidence {
    Evidence { figure: figure.into(), source }
}
