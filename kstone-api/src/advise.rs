//! Advice: why a database is slow or large, what to change, and what to expect of the change.
//!
//! A rule names one cause. Rules are asked in the order of [`rules::RULES`], in which causes come before what they cause,
//! and a cause that is found silences the rules for its symptoms. Each piece of advice carries its evidence, with the
//! source of each figure, and figures that the change is expected to improve: those that follow from the settings are
//! computed by the [cost model](crate::model) or in closed form, so that they can be compared with what is measured
//! afterwards.

use std::fmt;
use std::path::Path;

use kstone_core::Result;
use kstone_core::config::text;
use kstone_core::escape;
use serde::Serialize;

use crate::database::Database;
use crate::model::Goal;

mod goal;
mod rules;
mod situation;

pub use situation::Situation;

/// How much the matter of an [`Advice`] hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Urgency {
    /// Writes fail, or soon will.
    Critical,
    /// Reads, writes or recovery are slow, or space is wasted.
    High,
    /// It can be better.
    Info,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// The files of the database: as of now.
    Files,
    /// Counters of the process that has it open: since open.
    Runtime,
    /// The settings in force.
    Settings,
    /// The file system.
    System,
}

/// A figure that supports an advice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Evidence {
    /// The figure, in words.
    pub figure: String,
    /// Where it comes from.
    pub source: Source,
}

/// A figure before and after the change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Expected {
    /// What is measured.
    pub figure: &'static str,
    /// Its unit; empty for a number.
    pub unit: &'static str,
    /// Its value now.
    pub before: f64,
    /// Its value after the change, once existing files are rewritten where that is part of the advice.
    pub after: f64,
}

/// One cause, and what to do about it; from [`Database::advise`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// The name of the rule. Names are stable: programs may compare them.
    pub rule: &'static str,
    /// How much it hurts.
    pub urgency: Urgency,
    /// The cause, in one sentence.
    pub cause: String,
    /// The figures that support it.
    pub evidence: Vec<Evidence>,
    /// The settings to change, as `name=value,...`; empty if no setting helps. See [`config::text`](crate::config::text).
    pub settings: String,
    /// What else to do, such as a command to run afterwards, with `DB` for the directory; empty if nothing.
    pub action: String,
    /// What improves.
    pub expected: Vec<Expected>,
    /// What it costs.
    pub cost: String,
    /// How to see whether it helped, with `DB` for the directory.
    pub check: String,
}

impl Advice {
    /// The Rust statements that make the change on an open database `db`; empty if no setting helps.
    ///
    /// # Errors
    /// None for an advice that this library has given.
    pub fn rust_code(&self) -> Result<String> {
        text::rust_statements(&self.settings)
    }

    /// The command that makes the change on a closed database; `None` if no setting helps.
    pub fn command(&self, database: &Path) -> Option<String> {
        let settings = self.settings.replace(',', " ");
        (!settings.is_empty())
            .then(|| format!("kstone config set {} {settings}", escape::shell_word(database)))
    }

    /// All of it, as lines with a label each.
    fn lines(&self, database: &Path) -> Vec<(&'static str, String)> {
        let name = escape::shell_word(database);
        // The placeholder is a word of its own.
        let named = |text: &str| {
            let words: Vec<_> = text.split(' ').map(|word| if word == "DB" { &name } else { word }).collect();
            words.join(" ")
        };
        let mut lines = Vec::new();
        for Evidence { figure, source } in &self.evidence {
            lines.push(("because", format!("{figure}   [{source}]")));
        }
        if let Some(command) = self.command(database) {
            lines.push(("do", command));
            // Settings that no advice can contain have no code.
            let code = self.rust_code().unwrap_or_default();
            lines.extend(code.lines().map(|line| ("in Rust", line.to_owned())));
        }
        if !self.action.is_empty() {
            lines.push((if self.settings.is_empty() { "do" } else { "then" }, named(&self.action)));
        }
        lines.extend(self.expected.iter().map(|expected| ("expect", expected.to_string())));
        lines.push(("costs", self.cost.clone()));
        lines.push(("check", named(&self.check)));
        lines
    }

    /// Writes the advice for people: the cause on the first line, evidence, change, cost and check on those below.
    pub fn display<'a>(&'a self, database: &'a Path) -> impl fmt::Display + 'a {
        struct Lines<'a>(&'a Advice, &'a Path);
        impl fmt::Display for Lines<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(advice, database) = self;
                write!(f, "{:<8} {}", advice.urgency, advice.cause)?;
                for (label, line) in advice.lines(database) {
                    write!(f, "\n         {label:<8} {line}")?;
                }
                Ok(())
            }
        }
        Lines(self, database)
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.display(Path::new("DB")).fmt(f)
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Critical => "CRITICAL",
            Self::High => "HIGH",
            Self::Info => "INFO",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "files",
            Self::Runtime => "runtime",
            Self::Settings => "settings",
            Self::System => "system",
        })
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f64| match value.abs() {
            0.0 => "0".to_owned(),
            small if small < 0.1 => format!("{value:.4}"),
            small if small < 10.0 => format!("{value:.2}"),
            _ => format!("{value:.0}"),
        };
        let Self { figure, unit, before, after } = self;
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        write!(f, "{figure}: {} -> {}{unit}", number(*before), number(*after))
    }
}

impl Database {
    /// What is wrong with the speed, the memory or the space of this database, the cause first, and what to do about it.
    /// Empty if nothing is. Reads counters and sizes, like [`Database::stats`]; the longer the database has been open,
    /// the more it has to go by.
    ///
    /// With a goal, also the settings that suit it best for the work seen since open, if they are better by a tenth.
    ///
    /// ```
    /// use kstone_api::{CompactionConfig, Database, ItemBuilder};
    ///
    /// let db = Database::in_memory()?;
    /// db.set_compaction_config(CompactionConfig::disabled())?;
    /// for n in 0..12 {
    ///     db.put("key", ItemBuilder::new().number("n", n))?;
    ///     db.flush()?;
    /// }
    /// let advice = db.advise(None)?;
    /// assert_eq!(advice[0].rule, "compaction-off");
    /// assert_eq!(advice[0].settings, "compaction_enabled=1");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`; `Io` if the directory cannot be listed.
    pub fn advise(&self, goal: Option<Goal>) -> Result<Vec<Advice>> {
        let (stats, disk) = (self.stats()?, self.disk_usage()?);
        let (database, compaction) = (self.config(), self.compaction_config());
        let latencies = self.latencies();
        let mut situation = Situation::new(&stats, &disk, &database, &compaction).latencies(&latencies);
        if let Some(goal) = goal {
            situation = situation.goal(goal);
        }
        Ok(situation.advise())
    }
}
