//! Code shared by `run` and `sweep`: the options of trials, and printing and writing results.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use kstone_core::config::text;

use crate::engine::{Durability, EngineSpec};
use crate::record::{RunFile, SCHEMA, Step, StepSpec, Trial, TrialSpec};
use crate::results::{self, Series, latency_of};
use crate::workload::{Place, Workload, plan};
use crate::{machine, statistics, trial, units};

/// The maximum number of lines of a latency histogram.
const BARS: usize = 12;
/// The length of its longest bar, in characters.
const BAR: f64 = 30.0;

/// The options of `chapter` and `speed`, which measure tables.
#[derive(clap::Args, Debug)]
pub(crate) struct TableArgs {
    /// Directory for the databases, which are removed afterwards; default: the system's temporary directory.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
    /// Write the tables, and the trials behind them, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write the tables as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) md: Option<PathBuf>,
    /// List the tables and measure nothing.
    #[arg(long)]
    pub(crate) list: bool,
}

impl TableArgs {
    pub(crate) fn directory(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Writes the tables as Markdown, if asked.
    pub(crate) fn save_markdown<T>(
        &self,
        tables: &[T],
        markdown: impl Fn(&T) -> Result<String>,
    ) -> Result<()> {
        let Some(path) = &self.md else { return Ok(()) };
        let text = tables.iter().map(markdown).collect::<Result<Vec<_>>>()?;
        std::fs::write(path, text.concat()).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Measure {
    /// Workloads to run one after the other on the same database; `kstone-bench workloads` lists them. Before a workload
    /// that needs a filled database, a step `load` fills it.
    #[arg(long, value_delimiter = ',', required = true, value_name = "NAME")]
    pub(crate) workload: Vec<String>,
    /// Items in the database: `100k`, `10M`.
    #[arg(long, default_value = "1M", value_parser = number, value_name = "N")]
    pub(crate) items: u64,
    /// Bytes of a value: `200B`, `100KB`.
    #[arg(long, default_value = "200B", value_parser = number, value_name = "SIZE")]
    pub(crate) value: u64,
    /// Threads that send requests.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256), value_name = "T")]
    pub(crate) threads: u64,
    /// What a write survives once it has returned: the death of the process, or a power cut as well.
    #[arg(long, value_enum, default_value_t = Promise::Buffered)]
    pub(crate) durability: Promise,
    /// Open loop: offer this many operations a second, `55k`. Latencies then count from when an operation was due.
    #[arg(long, value_parser = number, value_name = "RATE")]
    pub(crate) rate: Option<u64>,
    /// End each workload after this time: `60s`.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) duration: Option<std::time::Duration>,
    /// Operations of each workload that does not fill the database; default: one for each item, fewer where an operation
    /// is expensive.
    #[arg(long, value_parser = number, value_name = "N")]
    pub(crate) ops: Option<u64>,
    /// Settings of kstone: a preset, then single ones.
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Settings of kstone, `name=value,...` as in docs/settings-and-counters.md.
    #[arg(long, default_value = "", value_name = "SETTINGS")]
    pub(crate) set: String,
    /// Memory limit of a trial, page cache included: `256MiB`. Needs control groups, and usually root.
    #[arg(long, value_parser = number, value_name = "SIZE")]
    pub(crate) mem_limit: Option<u64>,
    /// Trials of each engine or value. An interval needs at least five.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=999), value_name = "N")]
    pub(crate) trials: u64,
    /// Seed of all random choices.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Write all results as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write results even if the machine is loaded or the sources have uncommitted changes.
    #[arg(long)]
    pub(crate) force: bool,
    /// Directory for the databases, which are removed afterwards; default: the system's temporary directory.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
    /// Keep the databases.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Promise {
    Buffered,
    Sync,
}

impl From<Promise> for Durability {
    fn from(promise: Promise) -> Self {
        match promise {
            Promise::Buffered => Self::Buffered,
            Promise::Sync => Self::Sync,
        }
    }
}

/// Parses `10M`, `256MiB`, `200B`, `55k`: a number of bytes, or of anything else.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.as_u64())
}

impl Measure {
    /// The settings of kstone.
    pub(crate) fn settings(&self) -> Result<String> {
        settings(self.preset.as_deref(), &self.set)
    }

    /// The spec of a trial of this engine.
    pub(crate) fn spec(&self, engine: EngineSpec) -> Result<TrialSpec> {
        let step = |workload: &String| StepSpec {
            workload: workload.clone(),
            operations: self.ops.filter(|_| {
                let fills = Workload::by_name(workload).is_ok_and(|workload| workload.fills());
                !fills && (self.rate.is_none() || self.duration.is_none())
            }),
            seconds: self.duration.map(|time| time.as_secs_f64()),
            rate: self.rate.map(|rate| rate as f64),
        };
        plan::resolve(&TrialSpec {
            engine,
            steps: self.workload.iter().map(step).collect(),
            items: self.items,
            value_bytes: self.value as usize,
            threads: self.threads as usize,
            durability: self.durability.into(),
            seed: self.seed,
            memory_limit: self.mem_limit,
            place: Place::Any,
            incompressible: false,
        })
    }

    /// Runs the trials, writes the results, and returns them.
    pub(crate) fn run(&self, specs: &[TrialSpec]) -> Result<RunFile> {
        let directory = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut file = begin(&directory)?;
        let doubtful = machine::is_loaded(&file.machine) || machine::is_dirty(&file.machine);
        ensure!(
            self.out.is_none() || self.force || !doubtful,
            "nothing was measured: the results would be doubtful, see above, and --out would keep them. --force measures \
             and writes them anyway"
        );
        let options = trial::Options {
            before: None,
            directory,
            trials: self.trials as usize,
            keep: self.keep,
            program: std::env::current_exe().context("cannot find the path of this program")?,
        };
        file.trials = trial::run_all(specs, &options, &mut |what| eprintln!("  {what}"))?;
        if let Some(path) = &self.out {
            save(&file, path)?;
        }
        Ok(file)
    }
}

/// The settings of kstone: those of a preset, changed by single ones.
pub(crate) fn settings(preset: Option<&str>, set: &str) -> Result<String> {
    let preset = preset.map(plan::preset).transpose()?.unwrap_or_default();
    let all = [preset.as_str(), set].join(",");
    let (database, compaction) = text::changed(&all, &Default::default(), &Default::default())?;
    Ok(text::differing(&database, &compaction))
}

/// Starts results of this command on this machine, without trials. Prints whatever makes them doubtful.
pub(crate) fn begin(directory: &Path) -> Result<RunFile> {
    let machine = machine::record(directory)?;
    let warnings = machine::warnings(&machine);
    warnings.iter().for_each(|warning| eprintln!("kstone-bench: {warning}"));
    Ok(RunFile {
        schema: SCHEMA.into(),
        command: std::env::args().skip(1).fold("kstone-bench".into(), |all, word| all + " " + &word),
        started: jiff::Timestamp::now().to_string(),
        machine,
        warnings,
        trials: Vec::new(),
        chapter: None,
        speed: None,
    })
}

/// Writes a file of results.
pub(crate) fn save(file: &RunFile, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(file)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether every trial succeeded and every answer was right; prints those that did not.
pub(crate) fn all_is_well(file: &RunFile) -> bool {
    let troubles = results::troubles(&file.trials);
    troubles.iter().for_each(|trouble| println!("FAILED: {trouble}"));
    troubles.is_empty() && file.trials.iter().all(|trial: &Trial| trial.error.is_none())
}

/// The heading, the throughput and the latencies of a series.
pub(crate) fn describe(series: &Series<'_>, file: &RunFile) -> String {
    let build = match series.engine.is_ours() {
        true => format!(" {} ({})", file.machine.version, file.machine.commit),
        false => String::new(),
    };
    let trials = series.runs.len();
    let mut text = format!(
        "{}  {}{build}  {}  {trials} {}\n  {} ops/s",
        series.conditions.workload,
        series.label(),
        series.conditions.circumstances(),
        if trials == 1 { "trial" } else { "trials" },
        units::optional(statistics::summary(&series.rates()), |summary| summary.text(units::rate)),
    );
    let extra = |name: &str, values: Vec<f64>, unit: fn(f64) -> String| match statistics::median(&values) {
        Some(median) => format!("   {name} {}", unit(median)),
        None => String::new(),
    };
    text += &extra("write amp", series.figures(|step| step.write_amplification), units::digits);
    text += &extra("space amp", series.figures(|step| step.space_amplification), units::digits);
    text += &extra("runs/get", series.figures(Step::runs_per_get), units::digits);
    text += &extra("filter FPR", series.figures(Step::false_positives), units::percent);
    text += &extra("anon", series.figures(|step| Some(step.resources.peak_anonymous as f64)), units::bytes);
    text += &extra(
        "CPU s",
        series.figures(|step| Some(step.resources.cpu_user + step.resources.cpu_system)),
        units::digits,
    );
    text += &extra("longest", series.figures(|step| Some(step.resources.longest as f64)), units::nanoseconds);
    text.push('\n');
    for kind in series.kinds() {
        text += &latencies(series, kind);
    }
    text
}

/// Medians of the percentiles, and a histogram of all trials together.
fn latencies(series: &Series<'_>, kind: &str) -> String {
    let median = |figure: fn(&crate::record::Latency) -> u64| {
        series.median(|step| latency_of(step, kind).map(|latency| figure(latency) as f64), units::nanoseconds)
    };
    let intended = series
        .runs
        .iter()
        .any(|run| results::latency_of(run.step, kind).is_some_and(|latency| latency.from_intended));
    let mut text = format!(
        "  {kind}: {} p50 {}  p99 {}  p99.9 {}  max {}\n",
        if intended { "from when it was due" } else { "service" },
        median(|latency| latency.p50),
        median(|latency| latency.p99),
        median(|latency| latency.p999),
        median(|latency| latency.max),
    );
    let service: Vec<f64> =
        series.figures(|step| Some(step.latencies.get(kind)?.service.as_ref()?.p99 as f64));
    if let Some(p99) = statistics::median(&service) {
        text += &format!("    service p99 {}\n", units::nanoseconds(p99));
    }
    text + &series.merged(kind, &mut Vec::new()).map_or(String::new(), |all| bars(&all))
}

/// A line for each power of two, without the nearly empty ends.
fn bars(histogram: &Histogram<u64>) -> String {
    let buckets: Vec<(u64, u64)> = histogram
        .iter_log(256, 2.0)
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect();
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let first = buckets.iter().position(|(_, count)| count * 1000 > most).unwrap_or(0);
    let mut text = String::new();
    for (upper, count) in buckets.iter().skip(first).take(BARS) {
        if *count == 0 && text.is_empty() {
            continue;
        }
        let length = (BAR * *count as f64 / most.max(1) as f64).round() as usize;
        text += &format!("  {:>9} ▏{}\n", units::nanoseconds(*upper as f64), "█".repeat(length));
    }
    text
}
