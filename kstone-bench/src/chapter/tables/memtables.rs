//! Section 23.1: what the memtable threshold does to throughput, memory and recovery.
//!
//! One process a threshold writes until the rounds are steady, and dies with nearly full memtables; others open what it
//! left. The three tables are of the same processes.

use anyhow::{Context as _, Result, ensure};
use kstone_core::model::{Model, Point, Prediction, Workload};
use kstone_core::{CompactionConfig, DatabaseConfig};

use crate::chapter::context::Context;
use crate::chapter::probe::{Fill, Found, Probe, RECORD, Reopen, VALUE};
use crate::chapter::said::{self, MEMTABLES, Memtable};
use crate::chapter::scale::Scale;
use crate::chapter::table::{ChapterTable, Group, Line, Says};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::{Direction, agrees, monotone};

/// Rounds of the largest threshold that count, and those before.
const ROUNDS: u64 = 5;
/// In halves: two and a half.
const HALF_ROUNDS_BEFORE: u64 = 5;
/// Of throughput and times.
const NOISE: f64 = 0.1;
/// Of counts.
const EXACT: f64 = 0.05;

/// One threshold: a trial each of the fill, and of opening what it left, twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filled {
    /// Of the process that wrote.
    pub(crate) fills: Vec<Found>,
    /// Killed while it was written to, files in memory.
    pub(crate) busy: Vec<Found>,
    /// Killed at rest, files in memory.
    pub(crate) warm: Vec<Found>,
    /// The same, files forgotten by the system.
    pub(crate) cold: Vec<Found>,
}

fn probe(scale: &Scale, threshold: usize, seed: u64) -> Fill {
    let records = scale.records(threshold);
    let largest = (scale.records(10_000) * scale.stripes) as u64;
    // Tests do not wait as long for checkpoints.
    let checkpoints = if scale.divide > 1 { ",checkpoint_interval_ms=50" } else { "" };
    Fill {
        settings: scale.settings(&format!("max_memtable_records={records}{checkpoints}")),
        stripes: scale.stripes,
        threshold: records,
        warm_up: HALF_ROUNDS_BEFORE * largest / 2,
        counted: ROUNDS * largest,
        seed,
    }
}

fn measured(context: &mut Context<'_>) -> Result<Vec<Filled>> {
    if let Some(filled) = &context.filled {
        return Ok(filled.clone());
    }
    let mut filled = vec![Filled::default(); MEMTABLES.len()];
    for trial in 0..context.scale.trials as u64 {
        for (row, filled) in MEMTABLES.iter().zip(&mut filled) {
            let directory = context.fresh()?;
            let at = directory.path().join("db");
            let what = format!("memtables of {} records", row.threshold);
            let fill = Probe::Fill(probe(&context.scale, row.threshold, 42 + trial));
            filled.fills.push(context.measure_in(&what, fill, at.clone())?);
            let what = format!("recovery of memtables of {} records", row.threshold);
            let openings = [
                (Reopen { cold: false, rest: true }, &mut filled.busy),
                (Reopen { cold: false, rest: false }, &mut filled.warm),
                (Reopen { cold: true, rest: false }, &mut filled.cold),
            ];
            for (reopen, found) in openings {
                found.push(context.measure_in(&what, Probe::Reopen(reopen), at.clone())?);
            }
            let replayed = |found: &[Found]| found[found.len() - 1].get("replayed_records");
            let (warm, cold) = (replayed(&filled.warm)?, replayed(&filled.cold)?);
            ensure!(warm == cold, "recovery replayed {warm} records, and {cold} when it was done again");
        }
    }
    context.filled = Some(filled.clone());
    Ok(filled)
}

/// What the model says of such a fill.
fn prediction(scale: &Scale, row: &Memtable, writes_per_second: f64) -> Prediction {
    let fill = probe(scale, row.threshold, 0);
    let mut workload = Workload::inserts(fill.items(), (RECORD - VALUE) as u64, VALUE as u64);
    (workload.stripes, workload.writes_per_second) = (scale.stripes, writes_per_second);
    let database = DatabaseConfig::new().with_max_memtable_records(fill.threshold);
    Model::new(workload).predict(&Point::of(&database, &CompactionConfig::new()))
}

fn done(scale: &Scale) -> String {
    let fill = probe(scale, 10_000, 0);
    format!(
        "{} items of {RECORD} bytes, each once and in no order, by one thread, buffered, into {} Counted over {} of \
         them: whole rounds, from the middle of one to the middle of another, at least {ROUNDS} of every memtable, \
         after at least two.",
        fill.items(),
        scale.text(),
        fill.counted,
    )
}

/// The group of one figure of the fills: a line for each threshold, with more put to it.
fn group(
    filled: &[Filled],
    (quantity, unit): (&str, Unit),
    values: impl Fn(&Filled) -> Result<Vec<f64>>,
    line: impl Fn(&Memtable, Line) -> Line,
) -> Result<Group> {
    let mut group = Group::new(quantity, unit, "threshold");
    for (row, filled) in MEMTABLES.iter().zip(filled) {
        let name = if row.threshold == 1000 { "1000 (default)".into() } else { row.threshold.to_string() };
        let plain = Line::new(name, values(filled)?).at(row.threshold as f64);
        group.lines.push(line(row, plain));
    }
    Ok(group)
}

fn of_fill(name: &str) -> impl Fn(&Filled) -> Result<Vec<f64>> {
    move |filled| crate::chapter::context::figures(&filled.fills, name)
}

/// Measured and said, of lines that have both.
fn pairs(group: &Group) -> Vec<(String, f64, f64)> {
    let pair = |line: &Line| Some((line.row.clone(), line.measured.median()?, line.says.as_ref()?.high?));
    group.lines.iter().filter_map(pair).collect()
}

/// "Write Throughput".
///
/// # Errors
/// A measurement fails.
pub(crate) fn throughput(context: &mut Context<'_>) -> Result<ChapterTable> {
    let filled = measured(context)?;
    let scale = context.scale.clone();
    let mut flushes = group(
        &filled,
        ("flushes per 100k writes", Unit::Count),
        of_fill("flushes_per_100k"),
        |row, line| {
            let model = 1e5 / prediction(&scale, row, 0.0).flush_records;
            line.says(Says::about(row.flushes.to_string(), row.flushes * scale.divide as f64)).model(model)
        },
    )?;
    flushes.shape = Some(agrees("100,000 by the threshold, in the steady state:", &pairs(&flushes), EXACT));
    let rate = group(&filled, ("write throughput", Unit::PerSecond), of_fill("rate"), |row, line| {
        let says = row.rate.map_or(Says::words(row.throughput), said::about);
        line.says(says).graded(|value| said::WRITE_THROUGHPUT.grade(value))
    })?
    .judged(|points| monotone("larger memtables write faster:", Direction::Rises, points, NOISE));
    let default = rate.lines[1].measured.median().unwrap_or(f64::NAN);
    let more = group(
        &filled,
        ("throughput against the default", Unit::PercentMore),
        |filled| Ok(of_fill("rate")(filled)?.iter().map(|rate| 100.0 * (rate / default - 1.0)).collect()),
        |row, line| match row.more {
            Some(more) => line.says(Says::about(row.throughput, more)),
            None => line.says(Says::words(row.throughput)),
        },
    )?;
    let amplification =
        group(&filled, ("write amplification", Unit::Times), of_fill("write_amplification"), |row, line| {
            let model = prediction(&scale, row, 0.0).write_amplification;
            line.model(model).graded(|value| said::WRITE_AMPLIFICATION.grade(value))
        })?
        .judged(|points| {
            monotone("larger memtables are merged less often:", Direction::Falls, points, EXACT)
        });
    let mut notes = vec![
        "The chapter has 50,000 writes/s at the default here, and 22,000 in its criterion sample (23.6).".into(),
        "100,000 random writes over 256 stripes put 391 records into each: no memtable of 500 would be full. The \
         chapter's flushes are those of the steady state, and so is what was measured."
            .into(),
    ];
    notes.extend(MEMTABLES.iter().zip(&filled).filter_map(|(row, filled)| burst(row, filled)));
    Ok(ChapterTable {
        title: "Memtable threshold: flushes and write throughput".into(),
        done: done(&scale),
        groups: vec![flushes, rate, more, amplification],
        notes,
        ..ChapterTable::default()
    })
}

/// When in a round flushes are: the time line of one round, each column a tenth of it.
fn burst(row: &Memtable, filled: &Filled) -> Option<String> {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shares = filled.fills.first()?.series.get("flush_bursts")?;
    let most = shares.iter().copied().fold(0.0, f64::max);
    let bar = |share: &f64| BARS.get((share / most * 8.0).round() as usize).copied().unwrap_or(' ');
    let line: String = shares.iter().map(bar).collect();
    Some(format!(
        "Flushes within a round, threshold {}: |{line}| the fullest tenth has {:.0} % of them.",
        row.threshold,
        100.0 * most
    ))
}

/// "Memory Usage".
///
/// # Errors
/// A measurement fails.
pub(crate) fn memory(context: &mut Context<'_>) -> Result<ChapterTable> {
    let filled = measured(context)?;
    let scale = context.scale.clone();
    let divided = |(text, bytes): (&'static str, f64)| (text, bytes / scale.divide as f64);
    let rises = |group: Group| {
        group.judged(|points| monotone("larger memtables take more memory:", Direction::Rises, points, EXACT))
    };
    let stripe = group(
        &filled,
        ("fullest memtable of a stripe", Unit::Bytes),
        of_fill("stripe_bytes"),
        |row, line| line.says(said::about(divided(row.stripe_memory))),
    )?;
    let all = group(
        &filled,
        ("all memtables, accounted", Unit::Bytes),
        of_fill("accounted_bytes"),
        |row, line| {
            let says = said::of_stripes(divided(row.memory), scale.stripes);
            line.says(says).model(prediction(&scale, row, 0.0).memtable_bytes)
        },
    )?;
    let resident = group(
        &filled,
        ("anonymous memory, above that of the empty database", Unit::Bytes),
        of_fill("anonymous_bytes"),
        |row, line| line.says(said::of_stripes(divided(row.memory), scale.stripes)),
    )?;
    let payload = group(
        &filled,
        ("the chapter's arithmetic: 200 B a record", Unit::Bytes),
        |_| Ok(Vec::new()),
        |row, line| {
            let bytes = (200 * scale.records(row.threshold) * scale.stripes) as f64;
            Line::new(line.row, vec![bytes]).says(said::of_stripes(divided(row.memory), scale.stripes))
        },
    )?;
    Ok(ChapterTable {
        title: "Memtable threshold: memory".into(),
        done: format!("{} The most that was seen every 20 ms while they were written.", done(&scale)),
        groups: vec![rises(stripe), rises(all), rises(resident), payload],
        notes: vec![
            "The chapter counts keys and values only. A record takes about 96 bytes more in a memtable, and sealed \
             memtables that wait for their flush count too."
                .into(),
            "Anonymous memory also has what merges need and what the allocator keeps.".into(),
        ],
        ..ChapterTable::default()
    })
}

/// "Recovery Time".
///
/// # Errors
/// A measurement fails.
pub(crate) fn recovery(context: &mut Context<'_>) -> Result<ChapterTable> {
    let filled = measured(context)?;
    let scale = context.scale.clone();
    let divided = |(text, value): (&'static str, f64)| (text, value / scale.divide as f64);
    let log_says = |row: &Memtable| said::of_stripes(divided(row.log), scale.stripes);
    let says = |row: &Memtable| said::of_stripes(divided(row.recovery), scale.stripes);
    let recovered =
        |line: Line, row: &Memtable| line.says(says(row)).graded(|value| said::RECOVERY.grade(value));
    let why = "the chapter's log sizes are twice its memtables, for which it gives no reason";
    let log_of = |quantity, of: fn(&Filled) -> &[Found]| {
        group(&filled, (quantity, Unit::Bytes), of_opening("replayed_log_bytes", of), |row, line| {
            line.says(log_says(row)).not_graded(why)
        })
    };
    let rises = |group: Group, claim, tolerance| {
        group.judged(|points| monotone(claim, Direction::Rises, points, tolerance))
    };
    let mut log = log_of("log replayed, killed at rest", |filled| &filled.warm)?;
    for (row, line) in MEMTABLES.iter().zip(&mut log.lines) {
        line.model = Some(prediction(&scale, row, 0.0).log_bytes);
    }
    let mut busy_log = log_of("log replayed, killed while written to", |filled| &filled.busy)?;
    for (row, (line, filled)) in MEMTABLES.iter().zip(busy_log.lines.iter_mut().zip(&filled)) {
        let written = Line::new("", of_fill("rate")(filled)?).measured.median();
        line.model = written.map(|rate| prediction(&scale, row, rate).log_bytes);
    }
    let time = |quantity, of: fn(&Filled) -> &[Found]| {
        group(&filled, (quantity, Unit::Nanos), of_opening("open_nanos", of), |row, line| {
            recovered(line, row)
        })
    };
    let mut warm = time("recovery time, killed at rest, warm", |filled| &filled.warm)?;
    for (row, line) in MEMTABLES.iter().zip(&mut warm.lines) {
        line.model = Some(prediction(&scale, row, 0.0).replay_ns);
    }
    let busy = time("recovery time, killed while written to, warm", |filled| &filled.busy)?;
    let mut cold = time("recovery time, killed at rest, cold", |filled| &filled.cold)?;
    if !forgotten(&filled)? {
        let why = "the system does not forget files when it is asked to, or does not tell";
        cold.lines.iter_mut().for_each(|line| {
            *line = Line { says: line.says.clone(), ..Line::not_here(&line.row, why) };
        });
    }
    let speed = speeds(&filled)?;
    Ok(ChapterTable {
        title: "Memtable threshold: recovery".into(),
        done: format!(
            "{} Then the process was killed with memtables about nine tenths full, and the database opened, with its \
             files in memory: killed while it was written to. Then it was left alone until checkpoints gave no more \
             of the log back, killed and opened; and once more after the system had been asked to forget the files.",
            done(&scale)
        ),
        groups: vec![
            rises(log, "larger memtables leave more log:", EXACT),
            rises(warm, "larger memtables take longer to recover:", NOISE),
            cold,
            busy_log,
            busy,
            speed,
        ],
        notes: vec![
            "The chapter's totals are those of 256 stripes; with fewer they are compared with their share.".into(),
            "While it is written to, the log also has what the last checkpoint, every two seconds, did not give back: \
             that is the same for all thresholds."
                .into(),
        ],
        ..ChapterTable::default()
    })
}

/// A figure of the openings that `of` takes.
fn of_opening(name: &str, of: fn(&Filled) -> &[Found]) -> impl Fn(&Filled) -> Result<Vec<f64>> {
    move |filled| crate::chapter::context::figures(of(filled), name)
}

/// Whether most of the log came from the device where the files were to be forgotten.
fn forgotten(filled: &[Filled]) -> Result<bool> {
    let cold = filled.iter().flat_map(|filled| &filled.cold);
    let shares = cold.map(|found| Ok(found.get("device_bytes")? / found.get("replayed_log_bytes")?));
    Ok(shares.collect::<Result<Vec<_>>>()?.iter().all(|share: &f64| *share > 0.5))
}

/// What was measured at the default threshold.
///
/// # Errors
/// A measurement fails.
pub(crate) fn default_of(context: &mut Context<'_>) -> Result<Filled> {
    let filled = measured(context)?;
    let default =
        MEMTABLES.iter().position(|row| row.threshold == 1000).and_then(|at| filled.get(at).cloned());
    default.context("no threshold is the default")
}

/// Items that the fill of a threshold writes.
pub(crate) fn items(scale: &Scale, threshold: usize) -> u64 {
    probe(scale, threshold, 0).items()
}

/// The group of the speed of replaying.
fn speeds(filled: &[Filled]) -> Result<Group> {
    group(filled, ("replay speed, warm", Unit::BytesPerSecond), speed, |row, line| {
        let (log, time) = (row.log.1, row.recovery.1 / said::S);
        line.says(Says::about(format!("{} in {}", row.log.0, row.recovery.0), log / time))
    })
}

fn speed(filled: &Filled) -> Result<Vec<f64>> {
    let of = |found: &Found| Ok(found.get("replayed_log_bytes")? / (found.get("replay_nanos")? / said::S));
    filled.warm.iter().map(of).collect()
}
