//! `kstone advise`: the cause of what is slow or large, and what to do about it.

use std::path::Path;

use anyhow::Result;
use kstone_api::{
    Advice, CompactionConfig, Database, DatabaseConfig, DiskUsage, EngineStats, Latencies, Situation, model,
};
use serde::Serialize;

use crate::args::{self, AdviseArgs, AdviseGoal, Format};
use crate::commands::stats::{Runtime, told};
use crate::commands::{damage, open_to_look};
use crate::failure::Failure;
use crate::output::{counted, print_result};

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    advice: Vec<Item<'a>>,
    runtime: bool,
}

/// An advice, with the lines that apply it.
#[derive(Serialize)]
struct Item<'a> {
    #[serde(flatten)]
    advice: &'a Advice,
    command: Option<String>,
    rust: String,
}

/// What advice is based on: the files as they are now, with the counters of the process that has them open, if it
/// writes any.
pub(super) struct Figures {
    pub(super) stats: EngineStats,
    pub(super) disk: DiskUsage,
    pub(super) database: DatabaseConfig,
    compaction: CompactionConfig,
    latencies: Option<Latencies>,
}

impl Figures {
    pub(super) fn of(db: &Database, runtime: Option<&Runtime>) -> Result<Self> {
        Ok(Self::with(db.stats()?, db.disk_usage()?, db, runtime))
    }

    /// From figures of the files that were read before: each reading lists the directory.
    pub(super) fn with(now: EngineStats, disk: DiskUsage, db: &Database, runtime: Option<&Runtime>) -> Self {
        let (stats, latencies) = match runtime {
            None => (now, None),
            Some(Runtime { snapshot, .. }) => (snapshot.stats_beside(now), Some(snapshot.latencies)),
        };
        let (database, compaction) = (db.config(), db.compaction_config());
        Self { stats, disk, database, compaction, latencies }
    }

    pub(super) fn situation(&self) -> Situation<'_> {
        let situation = Situation::new(&self.stats, &self.disk, &self.database, &self.compaction);
        match &self.latencies {
            Some(latencies) => situation.latencies(latencies),
            None => situation,
        }
    }
}

pub(crate) fn run(args: &AdviseArgs, format: Format) -> Result<()> {
    let Some(db) = &args.db else { return list(format) };
    advise(args, db, format)
}

fn advise(args: &AdviseArgs, database: &args::Database, format: Format) -> Result<()> {
    let db = open_to_look(database)?;
    let read = Runtime::read(database);
    let line = Runtime::line(&read);
    let (runtime, mut troubles) = told(read);
    troubles.extend(damage(&db));
    let figures = Figures::of(&db, runtime.as_ref())?;
    let mut situation = figures.situation();
    if let Some(goal) = args.goal {
        situation = situation.goal(goal.into());
    }
    if let Some(ram) = args.ram {
        situation = situation.memory(ram.as_u64());
    }
    let advice = situation.advise();
    let text = text(&advice, &database.path, &line);
    let item = |advice| -> Result<Item<'_>> {
        let command = Advice::command(advice, &database.path);
        Ok(Item { advice, command, rust: advice.rust_code()? })
    };
    let report = Report {
        schema: "kstone.advise/1",
        advice: advice.iter().map(item).collect::<Result<_>>()?,
        runtime: runtime.is_some(),
    };
    print_result(format, &text, report)?;
    Failure::all(troubles)
}

fn text(advice: &[Advice], database: &Path, runtime: &str) -> String {
    let mut text = String::new();
    for (n, advice) in advice.iter().enumerate() {
        text += &format!("{:<3}{}\n", n + 1, advice.display(database).to_string().replace('\n', "\n   "));
    }
    let fired: Vec<&str> = advice.iter().map(|advice| advice.rule).collect();
    let calm = Situation::rules().filter(|(name, _)| !fired.contains(name)).count() as u64;
    if advice.is_empty() {
        text += "nothing to change: ";
    }
    text += &format!("no sign of {} (kstone advise --list)\n{runtime}", counted(calm, "other cause"));
    if advice.is_empty() {
        text = text.replace("other ", "");
    }
    text
}

/// All causes that are looked for.
fn list(format: Format) -> Result<()> {
    let width = Situation::rules().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = Situation::rules().map(|(name, about)| format!("{name:<width$}  {about}")).collect();
    let rules: Vec<_> =
        Situation::rules().map(|(name, about)| serde_json::json!({ "name": name, "about": about })).collect();
    print_result(format, &lines.join("\n"), serde_json::json!({ "schema": "kstone.rules/1", "rules": rules }))
}

impl From<AdviseGoal> for model::Goal {
    fn from(goal: AdviseGoal) -> Self {
        match goal {
            AdviseGoal::Balanced => Self::Balanced,
            AdviseGoal::Write => Self::Write,
            AdviseGoal::Read => Self::Read,
            AdviseGoal::Memory => Self::Memory,
            AdviseGoal::Recovery => Self::Recovery,
            AdviseGoal::Space => Self::Space,
        }
    }
}
