//! Loads on whole configurations: the thresholds of section 23.2's guidelines, the three of section 23.5, and the
//! targets of section 23.10.

use anyhow::Result;
use kstone_core::model::{Model, Point, Workload};
use kstone_core::{CompactionConfig, DatabaseConfig};

use super::memtables;
use crate::chapter::context::{Context, figures as probed};
use crate::chapter::load::{self, anonymous, closed, figures, mean, p99, per, rate, write_amplification};
use crate::chapter::probe::{RECORD, VALUE};
use crate::chapter::said::{self, CONFIGURATIONS, MEMORY, READ_P99, THRESHOLDS, WRITE_THROUGHPUT};
use crate::chapter::scale::Scale;
use crate::chapter::table::{ChapterTable, Group, Line, Says};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::{Direction, Target, monotone};
use crate::engine::counter;
use crate::record::{Trial, TrialSpec};

/// Of throughput and latencies.
const NOISE: f64 = 0.1;
/// Operations a second that are offered to a configuration, a tenth of them writes.
const OFFERED: f64 = 10_000.0;
/// Steps of the trials here.
const FILL: usize = 0;
const READ: usize = 1;
const MISS: usize = 3;

/// What the guidelines promise of `sst_threshold`.
///
/// # Errors
/// A measurement fails.
pub(crate) fn thresholds(context: &mut Context<'_>) -> Result<ChapterTable> {
    let scale = context.scale.clone();
    let records = scale.records(1000);
    // Flushes of each stripe: enough that the largest threshold has merged its merges.
    let items = (60 * records * scale.stripes) as u64;
    let specs = THRESHOLDS.iter().map(|row| threshold_spec(&scale, row.threshold, records, items));
    let trials = load::run(context, "sst_threshold", specs.collect())?;
    let group =
        |quantity: &str, unit, step, figure: &dyn Fn(&crate::record::Step) -> Option<f64>| -> Result<Group> {
            let mut group = Group::new(quantity, unit, "sst_threshold");
            for (row, trials) in THRESHOLDS.iter().zip(&trials) {
                let line = Line::new(row.threshold.to_string(), figures(trials, step, figure)?);
                group.lines.push(line.at(row.threshold as f64));
            }
            Ok(group)
        };
    let rises = |group: Group, claim| group.judged(|points| monotone(claim, Direction::Rises, points, NOISE));
    let writes = group("write throughput", Unit::PerSecond, FILL, &rate)?;
    let reads = group("a get that hits, while others write, mean", Unit::Nanos, READ, &mean("get"))?;
    let misses = group("a get that misses, at rest, mean", Unit::Nanos, MISS, &mean("get"))?;
    let merged = per(counter::COMPACTION_BYTES, counter::USER_BYTES_WRITTEN);
    let merging = group("bytes merged for a byte written", Unit::Times, FILL, &merged)?;
    let runs = group(
        "runs looked at by a get, while others write",
        Unit::Count,
        READ,
        &per(counter::RUNS_LOOKED_AT, counter::GETS),
    )?;
    let disk = group("bytes on disk for a live byte", Unit::Times, READ, &|step| step.space_amplification)?;
    let more_writes =
        against(&writes, "write throughput against the default", |row| said::between(row.writes));
    let more_reads = against(&reads, "time of a get against the default", |row| said::between(row.reads));
    let merging =
        modelled(merging, items, records, scale.stripes, |prediction| prediction.write_amplification - 1.0);
    let times = merged_against(&merging);
    Ok(ChapterTable {
        title: "SST threshold: what the guidelines promise".into(),
        done: format!(
            "{items} items of {RECORD} bytes, each once and in no order, into {} By one thread, buffered, memtables of \
             {records} records: 60 flushes a stripe. Then {} gets while another thread writes, and as many of absent \
             keys at rest.",
            scale.text(),
            scale.reads
        ),
        groups: vec![
            rises(writes, "a higher threshold writes faster:"),
            more_writes,
            rises(reads, "a higher threshold reads slower:"),
            more_reads,
            misses,
            merging,
            times,
            rises(runs, "a higher threshold has more runs to look into:"),
            disk,
        ],
        notes: vec![
            "The thread that writes asks again as soon as it has its answer: with few cores, reads also wait for it and \
             for merging, of which a lower threshold has more."
                .into(),
        ],
        ..ChapterTable::default()
    })
}

fn threshold_spec(scale: &Scale, threshold: usize, records: usize, items: u64) -> TrialSpec {
    let settings = format!("sst_threshold={threshold},max_memtable_records={records}");
    let steps = vec![
        closed("fillrandom", items),
        closed("readwhilewriting", scale.reads),
        closed("waitforcompaction", 1),
        closed("readmissing", scale.reads),
    ];
    load::spec(scale.settings(&settings), items, steps)
}

/// What was merged as a multiple of what the default merges.
fn merged_against(merging: &Group) -> Group {
    let mut times = Group::new("bytes merged, against the default", Unit::Times, "sst_threshold");
    let default = merging.lines[1].measured.median().unwrap_or(f64::NAN);
    for (row, line) in THRESHOLDS.iter().zip(&merging.lines) {
        let line = Line::new(&line.row, vec![line.measured.median().unwrap_or(f64::NAN) / default]);
        times.lines.push(line.says(row.merging.map_or(Says::words("Lower disk I/O"), said::about)));
    }
    times.judged(|points| monotone("a higher threshold rewrites less:", Direction::Falls, points, NOISE))
}

/// In percent more than the line of the default.
fn against(group: &Group, quantity: &str, says: impl Fn(&said::Threshold) -> Says) -> Group {
    let default = group.lines[1].measured.median().unwrap_or(f64::NAN);
    let mut more = Group::new(quantity, Unit::PercentMore, "sst_threshold");
    for (row, line) in THRESHOLDS.iter().zip(&group.lines) {
        let value = 100.0 * (line.measured.median().unwrap_or(f64::NAN) / default - 1.0);
        more.lines.push(Line::new(&line.row, vec![value]).says(says(row)));
    }
    more
}

fn modelled(
    mut group: Group,
    items: u64,
    records: usize,
    stripes: usize,
    figure: impl Fn(&kstone_core::model::Prediction) -> f64,
) -> Group {
    let mut workload = Workload::inserts(items, (RECORD - VALUE) as u64, VALUE as u64);
    workload.stripes = stripes;
    let database = DatabaseConfig::new().with_max_memtable_records(records);
    for (row, line) in THRESHOLDS.iter().zip(&mut group.lines) {
        let compaction = CompactionConfig::new().with_sst_threshold(row.threshold);
        line.model = Some(figure(&Model::new(workload).predict(&Point::of(&database, &compaction))));
    }
    group
}

fn configured(context: &mut Context<'_>) -> Result<Vec<Vec<Trial>>> {
    if let Some(trials) = &context.configured {
        return Ok(trials.clone());
    }
    let scale = context.scale.clone();
    let items = items(context);
    let mut specs = Vec::new();
    for (name, ..) in CONFIGURATIONS {
        let steps = vec![
            closed("fillrandom", items),
            load::open("readrandomwriterandom", OFFERED, scale.load_seconds),
        ];
        specs.push(load::spec(load::preset(name, scale.stripes)?, items, steps));
    }
    let trials = load::run(context, "the three configurations", specs)?;
    context.configured = Some(trials.clone());
    Ok(trials)
}

/// Enough for several rounds of the largest memtables.
fn items(context: &Context<'_>) -> u64 {
    (6 * context.scale.records(10_000) * context.scale.stripes) as u64
}

/// "Configuration Comparison Table".
///
/// # Errors
/// A measurement fails.
pub(crate) fn three(context: &mut Context<'_>) -> Result<ChapterTable> {
    let trials = configured(context)?;
    let scale = context.scale.clone();
    let mut writes = Group::new("write throughput", Unit::PerSecond, "");
    let mut reads = Group::new("get P99 under load", Unit::Nanos, "");
    let mut memory = Group::new("anonymous memory, most", Unit::Bytes, "");
    let mut amplification = Group::new("write amplification", Unit::Times, "");
    let mut runs = Group::new("runs looked at by a get under load", Unit::Count, "");
    for ((name, said_writes, said_reads, said_memory), trials) in CONFIGURATIONS.iter().zip(&trials) {
        let line = |step, figure: &dyn Fn(&crate::record::Step) -> Option<f64>| {
            Ok::<_, anyhow::Error>(Line::new(*name, figures(trials, step, figure)?))
        };
        let written = line(FILL, &rate)?.says(said::about(*said_writes));
        writes.lines.push(written.graded(|value| WRITE_THROUGHPUT.grade(value)));
        let read = line(READ, &p99("get"))?.says(said::about(*said_reads));
        reads.lines.push(read.graded(|value| READ_P99.grade(value)));
        memory.lines.push(line(FILL, &anonymous)?.says(said::of_stripes(*said_memory, scale.stripes)));
        let written = line(FILL, &write_amplification)?;
        amplification.lines.push(written.graded(|value| said::WRITE_AMPLIFICATION.grade(value)));
        runs.lines.push(line(READ, &per(counter::RUNS_LOOKED_AT, counter::GETS))?);
    }
    let falls = |group: Group, claim| group.judged(|points| monotone(claim, Direction::Falls, points, NOISE));
    let order = "in the order write-optimized, balanced, read-optimized";
    Ok(ChapterTable {
        title: "Three configurations".into(),
        done: format!(
            "{} items of {RECORD} bytes, each once and in no order, into {} By one thread, buffered; then {OFFERED} \
             operations a second are offered for {} s, nine gets to a write, and latencies count from the moment each \
             was due.",
            items(context),
            scale.text(),
            scale.load_seconds
        ),
        groups: vec![
            falls(writes, &format!("fewer writes a second {order}:")),
            falls(reads, &format!("a lower P99 {order}:")),
            memory,
            amplification
                .judged(|points| monotone(&format!("more {order}:"), Direction::Rises, points, NOISE)),
            falls(runs, &format!("fewer runs {order}:")),
        ],
        notes: vec![
            "Section 23.5 has 80,000 to 100,000 writes/s in its text and 80,000 in its table.".into(),
        ],
        ..ChapterTable::default()
    })
}

/// "Performance Targets", with all defaults.
///
/// # Errors
/// A measurement fails.
pub(crate) fn targets(context: &mut Context<'_>) -> Result<ChapterTable> {
    let filled = memtables::default_of(context)?;
    let trials = configured(context)?;
    let balanced = &trials[1];
    let scale = context.scale.clone();
    let target = |line: Line, target: Target, says: &str| {
        let line = line.says(Says::words(says));
        line.graded(|value| target.grade(value))
    };
    let one = |quantity: &str, unit, line| Group::new(quantity, unit, "").lines([line]);
    let millions = memtables::items(&scale, 1000) as f64 / 1e6;
    let memory = filled.fills.iter().map(|found| {
        let held = found.get("anonymous_bytes")? + found.get("filter_bytes")? + found.get("index_bytes")?;
        Ok(held / millions)
    });
    let memory = memory.collect::<Result<Vec<_>>>()?;
    let groups = vec![
        one(
            "write throughput",
            Unit::PerSecond,
            target(
                Line::new("one thread", probed(&filled.fills, "rate")?),
                WRITE_THROUGHPUT,
                "50k, 100k ops/sec",
            ),
        ),
        one(
            "read latency, P99",
            Unit::Nanos,
            target(
                Line::new("warm, under load", figures(balanced, READ, p99("get"))?),
                READ_P99,
                "<2ms, <500μs",
            ),
        ),
        one(
            "memory per million records",
            Unit::Bytes,
            target(Line::new("memtables, filters, indexes", memory), MEMORY, "<100MB, <50MB"),
        ),
        one(
            "recovery time",
            Unit::Nanos,
            target(Line::new("warm", probed(&filled.warm, "open_nanos")?), said::RECOVERY, "<1s, <200ms"),
        ),
        one(
            "write amplification",
            Unit::Times,
            target(
                Line::new("SSTs", probed(&filled.fills, "write_amplification")?),
                said::WRITE_AMPLIFICATION,
                "<5x, <3x",
            ),
        ),
    ];
    Ok(ChapterTable {
        title: "Performance targets".into(),
        done: format!(
            "All defaults but for {} The figures of 23.1 at threshold 1000, and of 23.5's balanced configuration \
             under its load.",
            scale.text()
        ),
        groups,
        notes: vec![
            "The chapter's column has the target for Good and that for Excellent.".into(),
            "Write amplification is of SSTs, without the log, which adds one and a little.".into(),
        ],
        ..ChapterTable::default()
    })
}
