//! Changes to measure: those that advice names, and those given on the command line with the predictions of the model.

use anyhow::{Context, Result, ensure};
use kstone_api::config::text;
use kstone_api::model::{Goal, Model, Point, Workload};
use kstone_api::{Advice, CompactionConfig, DatabaseConfig, EngineStats, escape};

use super::verdict::{self, Claim, Verdict};
use super::{Merge, Options, figures, too_few};
use crate::chapter::probe::Figures;

/// The action that a copy can follow.
const MERGE: &str = "kstone compact DB";

#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The rule that advises it; empty for `--set`.
    rule: &'static str,
    cause: String,
    pub(super) settings: String,
    pub(super) merge: Merge,
    /// Whether it merged, once it is prepared.
    pub(super) merged: bool,
    pub(super) claims: Vec<Claim>,
}

/// The changes that can be measured, and a line for each advice that cannot.
pub(super) fn advised(advice: &[Advice], goal: Option<Goal>) -> (Vec<Change>, Vec<String>) {
    let (mut changes, mut lines) = (Vec::new(), Vec::new());
    for one in advice {
        let merge = if one.action == MERGE { Merge::Yes } else { Merge::No };
        if one.settings.is_empty() && merge == Merge::No {
            let Advice { rule, cause, action, .. } = one;
            lines.push(format!("{rule}: {cause}; a copy cannot show what helps: {action}"));
            continue;
        }
        let purpose = |figure: &str| one.rule != "goal" || serves(goal, figure);
        let claims = one.expected.iter().map(|expected| Claim::of(expected, purpose(expected.figure)));
        changes.push(Change {
            rule: one.rule,
            cause: one.cause.clone(),
            settings: one.settings.clone(),
            merge,
            merged: false,
            claims: claims.collect(),
        });
    }
    (changes, lines)
}

/// Whether a figure is what the goal is about.
fn serves(goal: Option<Goal>, figure: &str) -> bool {
    match goal {
        Some(Goal::Write) => figure == "time of a write",
        Some(Goal::Read) => figure == "time of a get",
        Some(Goal::Memory) => figure == "memtables, filters and indexes",
        Some(Goal::Recovery) => figure == "recovery",
        Some(Goal::Space) => figure == "SSTs",
        _ => figure.starts_with("time of"),
    }
}

/// A change given as settings, with what the model predicts of it. Without a goal, it is for whatever is predicted to
/// become better.
pub(super) fn given(
    settings: &str,
    stats: &EngineStats,
    (database, compaction): (&DatabaseConfig, &CompactionConfig),
    goal: Option<Goal>,
) -> Result<Change> {
    let (database_then, compaction_then) =
        text::changed(settings, database, compaction).with_context(|| format!("--set {settings}"))?;
    ensure!(
        database_then.stripes == database.stripes,
        "--set {settings}: the number of stripes is fixed when a database is created, so no copy can have another"
    );
    ensure!(
        (&database_then, &compaction_then) != (database, compaction),
        "--set {settings}: the database already has these settings, so there is nothing to compare"
    );
    let model = Model::new(Workload::observed(stats));
    let before = model.predict(&Point::of(database, compaction));
    let after = model.predict(&Point::of(&database_then, &compaction_then));
    let figures = [
        (
            "filters tested by a get of an absent key",
            "",
            before.filter_tests_per_miss,
            after.filter_tests_per_miss,
        ),
        (
            "absent keys that pass a filter",
            "%",
            100.0 * before.false_positive_rate,
            100.0 * after.false_positive_rate,
        ),
        (figures::REWRITTEN, "", before.write_amplification, after.write_amplification),
        ("time of a write", "us", before.write_ns / 1e3, after.write_ns / 1e3),
        ("time of a get", "us", before.read_ns / 1e3, after.read_ns / 1e3),
        ("memtables, filters and indexes", "MB", before.memory_bytes() / 1e6, after.memory_bytes() / 1e6),
        ("SSTs", "MB", before.sst_bytes / 1e6, after.sst_bytes / 1e6),
    ];
    let differing =
        figures.into_iter().filter(|(_, _, before, after)| (after - before).abs() > before.abs() * 0.01);
    let claims = differing.map(|(figure, unit, before, after)| Claim {
        figure: figures::name(figure, unit),
        before,
        after,
        purpose: if goal.is_some() { serves(goal, figure) } else { after < before },
    });
    Ok(Change {
        rule: "",
        cause: String::new(),
        settings: settings.to_owned(),
        merge: Merge::IfPending,
        merged: false,
        claims: claims.collect(),
    })
}

impl Change {
    /// On one line: the settings, and what else is done.
    pub(super) fn title(&self) -> String {
        match (self.settings.is_empty(), self.merge) {
            (true, _) => MERGE.to_owned(),
            (false, Merge::Yes) => format!("{}, {MERGE}", self.settings),
            (false, _) => self.settings.clone(),
        }
    }

    /// Whether its figures are only known after a kill.
    pub(super) fn needs_a_crash(&self) -> bool {
        self.claims.iter().any(|claim| claim.purpose && figures::needs_a_crash(&claim.figure))
    }

    /// Whether its figures are only known once all background work is done.
    pub(super) fn needs_rest(&self) -> bool {
        self.claims.iter().any(|claim| claim.figure == figures::REWRITTEN)
    }

    /// The table, the verdict, and what to type.
    pub(super) fn report(&self, turns: &[(Figures, Figures)], options: &Options, open: bool) -> String {
        let turns: Vec<_> = turns.iter().map(|(today, changed)| (today, changed)).collect();
        let rows = verdict::rows(&self.claims, &turns);
        let mut text = match self.rule {
            "" => format!("\n--set {}\n", self.settings),
            rule => format!("\n{rule}: {}\n  {}\n", self.cause, self.title()),
        };
        text += &format!("{}\n", verdict::table(&rows));
        let verdict = match (self.rule, verdict::verdict(&rows)) {
            // The model does not know every setting: the work as a whole is then the measure.
            ("", Verdict::NotMeasured) => verdict::by_rate(&rows),
            (_, verdict) => verdict,
        };
        for cost in verdict::costs(&rows) {
            text += &format!("costs: {cost}\n");
        }
        text += &match verdict {
            Verdict::Apply => self.command("to apply: ", options, open),
            Verdict::Mixed => {
                "the figures it is for moved as predicted, but the work as a whole got slower, by more than chance \
                 explains\n"
                    .to_owned()
                    + &self.command("if it is worth that: ", options, open)
            }
            Verdict::Worse => {
                "measured to be worse here, whatever was predicted: nothing to apply\n".to_owned()
            }
            Verdict::Chance => "chance explains the difference: nothing to apply\n".to_owned(),
            Verdict::TooFew => too_few(options.rounds as u64) + "\n",
            Verdict::NotMeasured => {
                "no figure that this is for can be measured by a replay: nothing to apply\n".to_owned()
            }
        };
        text
    }

    fn command(&self, label: &str, options: &Options, open: bool) -> String {
        let db = escape::shell_word(&options.database);
        let mut commands = Vec::new();
        if !self.settings.is_empty() {
            commands.push(format!("kstone config set {db} {}", self.settings.replace(',', " ")));
        }
        if self.merged {
            commands.push(format!("kstone compact {db}"));
        }
        if open {
            commands.push("(once the process that has it open has closed it)".to_owned());
        }
        format!("{label}{}\n", commands.join(&format!("\n{}", " ".repeat(label.len()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(settings: &str, goal: Option<Goal>) -> Result<Change> {
        let mut stats = EngineStats::default();
        (stats.items_estimate, stats.stripe_count) = (1_000_000, 256);
        (stats.operations.puts, stats.operations.gets, stats.uptime_ms) = (1_000_000, 1_000_000, 1_000_000);
        super::given(settings, &stats, (&DatabaseConfig::default(), &CompactionConfig::default()), goal)
    }

    #[test]
    fn a_given_change_is_for_what_the_model_says_becomes_better() {
        let change = given("bloom_bits_per_key=16", None).unwrap();
        let of = |figure: &str| change.claims.iter().find(|claim| claim.figure == figure).unwrap();
        let passed = of("absent keys that pass a filter [%]");
        assert!(passed.purpose && passed.after < 0.1 && passed.before > 0.5, "{passed:?}");
        assert!(!of("memtables, filters and indexes [MB]").purpose, "that is the cost");
        let goal = given("bloom_bits_per_key=4", Some(Goal::Memory)).unwrap();
        let purposes = goal.claims.iter().filter(|claim| claim.purpose).map(|claim| claim.figure.as_str());
        assert_eq!(purposes.collect::<Vec<_>>(), ["memtables, filters and indexes [MB]"]);
    }

    #[test]
    fn changes_that_cannot_be_compared_are_refused() {
        for (settings, why) in [
            ("stripes=16", "fixed when a database is created"),
            ("sst_threshold=10", "already has these settings"),
            ("nonsense=1", "no such setting"),
        ] {
            let error = format!("{:#}", given(settings, None).unwrap_err());
            assert!(error.contains(why), "{settings}: {error}");
        }
    }

    #[test]
    fn each_goal_has_a_figure() {
        for goal in [Goal::Write, Goal::Read, Goal::Memory, Goal::Recovery, Goal::Space] {
            let figures =
                ["time of a write", "time of a get", "memtables, filters and indexes", "recovery", "SSTs"];
            assert_eq!(figures.iter().filter(|figure| serves(Some(goal), figure)).count(), 1, "{goal:?}");
        }
    }
}
