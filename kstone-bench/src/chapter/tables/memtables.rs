//! Section 23.1: what the memtable threshold does to throughput, memory and recovery.
//!
//! One process a threshold writes until the rounds are steady, and dies with nearly full memtables; others open what it
//! left. The three tables are of the same processes.

use anyhow::{Result, ensure};
use kstone_core::model::{Model, Point, Prediction, Workload};
use kstone_core::{CompactionConfig, DatabaseConfig};

use crate::chapter::context::Context;
use crate::chapter::probe::{Fill, Found, Probe, RECORD, Reopen, VALUE};
use crate::chapter::said::{self, MEMTABLES, Memtable};
use crate::chapter::scale::Scale;
use crate::chapter::table::{ChapterTable, Group, Line, Says};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::{Direction, agrees, at_most, monotone};

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
    /// Files in memory.
    pub(crate) warm: Vec<Found>,
    /// Files forgotten by the system.
    pub(crate) cold: Vec<Found>,
}

fn probe(scale: &Scale, threshold: usize, seed: u64) -> Fill {
    let records = scale.records(threshold);
    let largest = (scale.records(10_000) * scale.stripes) as u64;
    Fill {
        settings: scale.settings(&format!("max_memtable_records={records}")),
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
            for (cold, found) in [(false, &mut filled.warm), (true, &mut filled.cold)] {
                found.push(context.measure_in(&what, Probe::Reopen(Reopen { cold }), at.clone())?);
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
fn prediction(scale: &Scale, row: &Memtable) -> Prediction {
    let fill = probe(scale, row.threshold, 0);
    let mut workload = Workload::inserts(fill.items(), (RECORD - VALUE) as u64, VALUE as u64);
    workload.stripes = scale.stripes;
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
            let model = 1e5 / prediction(&scale, row).flush_records;
            line.says(Says::about(row.flushes.to_string(), row.flushes * scale.divide as f64)).model(model)
        },
    )?;
    flushes.shape = Some(agrees("100,000 by the threshold, in the steady state:", &pairs(&flushes), EXACT));
    let rate = group(&filled, ("write throughput", Unit::PerSecond), of_fill("rate"), |row, line| {
        let says = row
            .rate
            .map_or(Says::words(row.throughput), |rate| Says::about(format!("{rate} writes/sec"), rate));
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
            let model = prediction(&scale, row).write_amplification;
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
            line.says(says).model(prediction(&scale, row).memtable_bytes)
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
    let of = |name: &'static str, cold: bool| {
        move |filled: &Filled| {
            crate::chapter::context::figures(if cold { &filled.cold } else { &filled.warm }, name)
        }
    };
    let says = |row: &Memtable| said::of_stripes(divided(row.recovery), scale.stripes);
    let log = group(&filled, ("log replayed", Unit::Bytes), of("replayed_log_bytes", false), |row, line| {
        line.says(said::of_stripes(divided(row.log), scale.stripes))
            .model(prediction(&scale, row).log_bytes)
            .not_graded("the chapter's log sizes are twice its memtables, for which it gives no reason")
    })?
    .judged(|points| monotone("larger memtables leave more log:", Direction::Rises, points, EXACT));
    let warm = group(&filled, ("recovery time, warm", Unit::Nanos), of("open_nanos", false), |row, line| {
        let line = line.says(says(row)).model(prediction(&scale, row).replay_ns);
        line.graded(|value| said::RECOVERY.grade(value))
    })?
    .judged(|points| monotone("larger memtables take longer to recover:", Direction::Rises, points, NOISE));
    let mut groups = vec![log, warm];
    let cold = |filled: &Filled| {
        let share = |found: &Found| Ok(found.get("device_bytes")? / found.get("replayed_log_bytes")?);
        filled.cold.iter().map(share).collect::<Result<Vec<f64>>>()
    };
    let forgotten = filled.iter().map(cold).collect::<Result<Vec<_>>>()?;
    let forgotten = forgotten.iter().flatten().all(|share| *share > 0.5);
    let quantity = ("recovery time, cold", Unit::Nanos);
    groups.push(group(&filled, quantity, of("open_nanos", true), |row, line| {
        let line = if forgotten {
            line
        } else {
            Line::not_here(line.row, "the system does not forget files when it is asked to, or does not tell")
        };
        line.says(says(row)).graded(|value| said::RECOVERY.grade(value))
    })?);
    groups.push(group(&filled, ("replay speed, warm", Unit::BytesPerSecond), speed, |row, line| {
        let (log, time) = (row.log.1, row.recovery.1 / said::S);
        line.says(Says::about(format!("{} in {}", row.log.0, row.recovery.0), log / time))
    })?);
    let limit = scale.stripes as f64 / said::STRIPES as f64;
    let within = pairs(&groups[1]);
    groups[3].shape = Some(at_most("recovery takes no longer than the chapter says:", &within, 0.0));
    Ok(ChapterTable {
        title: "Memtable threshold: recovery".into(),
        done: format!(
            "{} Then the process was killed with memtables about nine tenths full, and the database opened: with its \
             files in memory, killed again, and opened once more after the system had been asked to forget them.",
            done(&scale)
        ),
        groups,
        notes: vec![format!(
            "The chapter's totals are those of 256 stripes; here they are compared with their share, {limit:.4}."
        )],
        ..ChapterTable::default()
    })
}

fn speed(filled: &Filled) -> Result<Vec<f64>> {
    let of = |found: &Found| Ok(found.get("replayed_log_bytes")? / (found.get("replay_nanos")? / said::S));
    filled.warm.iter().map(of).collect()
}
