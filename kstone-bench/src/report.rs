//! Turns result files into one document: tables in Markdown, and one self-contained HTML page that also has the plots.
//!
//! Figures are compared only under the same conditions ([`crate::results::Conditions`]), including durability, and only
//! from one machine. Engines are listed from the fastest to the slowest.

use anyhow::{Result, bail};
use comfy_table::{ContentArrangement, presets};
use serde::Serialize;

use crate::plot::Chart;
use crate::record::RunFile;
use crate::results::{self, Series};
use crate::units::NOTHING;
use crate::workload::{Task, Workload};
use crate::{machine, statistics, units};

mod chapter;
mod contest;
mod figures;
mod page;
mod resource_usage;
mod speed;
mod summary;
mod sweep;
mod throughput;

pub use chapter::{chapter_markdown, chapter_text};
pub use page::{html, markdown};
pub use speed::{speed_markdown, speed_text};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Document {
    pub title: String,
    /// Commands, and when they ran.
    pub sources: Vec<String>,
    /// The machine and the build.
    pub machine: Vec<(String, String)>,
    /// How to read the figures.
    pub method: Vec<String>,
    /// Reasons to doubt the figures.
    pub warnings: Vec<String>,
    /// Trials that ended early or gave wrong answers.
    pub troubles: Vec<String>,
    /// All workloads, a table for each durability.
    pub summaries: Vec<Table>,
    /// Workloads in which KeystoneDB is slower.
    pub losses: Vec<String>,
    /// A section for each set of conditions, and for each sweep.
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Section {
    /// For links within the page.
    pub id: String,
    pub title: String,
    /// A summary of what was done, on one line.
    pub about: String,
    /// Plots, each followed by its table if it has one.
    pub plots: Vec<Plot>,
    pub tables: Vec<Table>,
    /// Further notes for the reader.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Plot {
    pub title: String,
    pub caption: String,
    pub svg: String,
    /// The same in exact figures.
    pub table: Option<Table>,
}

impl Plot {
    fn of(chart: Chart, caption: &str, table: Option<Table>) -> Result<Self> {
        let (svg, caption) = (chart.svg()?, caption.to_owned());
        Ok(Self { title: chart.title, caption, svg, table })
    }
}

/// A table. Cells are plain text; the templates escape them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    pub caption: String,
    pub head: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// One cell for each heading.
    pub cells: Vec<String>,
    pub ours: bool,
}

impl Table {
    fn new(caption: &str, head: &[&str]) -> Self {
        let head = head.iter().map(|&head| head.to_owned()).collect();
        Self { caption: caption.to_owned(), head, rows: Vec::new() }
    }

    fn push(&mut self, ours: bool, cells: Vec<String>) {
        self.rows.push(Row { cells, ours });
    }

    /// Removes columns that are empty in every row.
    fn without_empty(mut self) -> Self {
        let empty = |row: &Row, at: usize| row.cells.get(at).is_none_or(|cell| cell == NOTHING);
        let keep: Vec<bool> =
            (0..self.head.len()).map(|at| !self.rows.iter().all(|row| empty(row, at))).collect();
        let kept = |cells: &mut Vec<String>| {
            let mut keep = keep.iter();
            cells.retain(|_| *keep.next().unwrap_or(&true));
        };
        kept(&mut self.head);
        self.rows.iter_mut().for_each(|row| kept(&mut row.cells));
        self
    }
}

/// A section for a terminal, at most `width` columns wide, without its plots.
fn text(section: &Section, width: u16) -> String {
    let mut text = format!("{}\n{}\n", section.title, section.about);
    for table in section.tables.iter().filter(|table| !table.rows.is_empty()) {
        let mut grid = comfy_table::Table::new();
        grid.load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width)
            .set_header(&table.head)
            .add_rows(table.rows.iter().map(|row| &row.cells));
        text += &format!("{grid}\n");
    }
    section.notes.iter().for_each(|line| text += &format!("  {line}\n"));
    text
}

pub fn document(files: &[RunFile]) -> Result<Document> {
    let Some(first) = files.first() else { bail!("no file to report on") };
    for other in files {
        let different = machine::differences(&first.machine, &other.machine);
        if let Some(difference) = different.iter().find(|difference| difference.matters) {
            bail!(
                "these files come from different machines or builds, report on them separately: {difference}"
            );
        }
    }
    let mut all = results::series(&files.iter().collect::<Vec<_>>());
    // The time until an engine is at rest is not a result: it depends on the interval between two checks.
    let waits = |one: &results::Series<'_>| {
        Workload::by_name(&one.conditions.workload).is_ok_and(|workload| workload.task == Task::Settle)
    };
    all.retain(|one| !waits(one));
    let contests = contest::contests(&all);
    let mut document = Document {
        title: "KeystoneDB, measured".to_owned(),
        sources: files.iter().map(source).collect(),
        machine: machine_rows(files),
        method: method(&all),
        troubles: files.iter().flat_map(|file| results::troubles(&file.trials)).collect(),
        summaries: summary::tables(&contests),
        losses: summary::losses(&contests),
        ..Document::default()
    };
    for file in files {
        for doubt in file.warnings.iter().cloned().chain(machine::warnings(&file.machine)) {
            if !document.warnings.contains(&doubt) {
                document.warnings.push(doubt);
            }
        }
    }
    for table in files.iter().filter_map(|file| file.chapter.as_ref()).flatten() {
        document.sections.push(chapter::section(table)?);
        let error = table.error.iter().map(|error| format!("{} {}: {error}", table.id, table.title));
        document.troubles.extend(error);
    }
    document
        .sections
        .extend(files.iter().filter_map(|file| file.speed.as_ref()).flatten().map(speed::section));
    document.sections.extend(sweep::sections(&all)?);
    for contest in &contests {
        document.sections.push(contest.section()?);
    }
    for (number, section) in document.sections.iter_mut().enumerate() {
        section.id = format!("s{}", number + 1);
    }
    if document.sections.is_empty() && document.troubles.is_empty() {
        bail!("nothing to report: no trial in these files completed a step");
    }
    Ok(document)
}

fn source(file: &RunFile) -> String {
    let command = file.command.trim_start_matches("kstone-bench").trim_start();
    format!("kstone-bench {command} ({})", file.started)
}

fn machine_rows(files: &[RunFile]) -> Vec<(String, String)> {
    let Some(first) = files.first() else { return Vec::new() };
    let mut commits: Vec<String> =
        files.iter().map(|file| format!("{} ({})", file.machine.version, file.machine.commit)).collect();
    commits.dedup();
    let rows = machine::rows(&first.machine, &commits.join(", "));
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn method(all: &[Series<'_>]) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let fewest = all.iter().map(|series| series.runs.len()).min().unwrap_or(0);
    let most = all.iter().map(|series| series.runs.len()).max().unwrap_or(0);
    let trials = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
    let coverage = units::short(statistics::widest_coverage(fewest) * 100.0);
    vec![
        format!(
            "{trials} trials each, in fresh directories, engines taking turns. A figure is the median of the trials, in \
             brackets the smallest and the largest, which hold the true median with a chance of {coverage} % for \
             {fewest} trials."
        ),
        "A ratio is that of two medians, with its 95 % bootstrap interval over turns; below 5 trials there is none. \
         Where the interval holds 1, chance alone explains the difference."
            .to_owned(),
        "Closed loop: a thread sends its next request as soon as it has the answer; latencies are service times and \
         do not include queueing. Open loop: operations are due at a fixed rate, and latencies count from when they were \
         due."
            .to_owned(),
    ]
}
