//! Section 23.9: the three examples, each with its own preset, offered its own load.

use anyhow::Result;

use crate::chapter::context::Context;
use crate::chapter::load::{self, anonymous, closed, figures, p99, rate};
use crate::chapter::probe::RECORD;
use crate::chapter::said::{MB, MS, US};
use crate::chapter::scale::Scale;
use crate::chapter::table::{ChapterTable, Group, Line, Says};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::{Grade, Target, all};
use crate::record::{Step, Trial};

/// Steps of each trial.
const FILL: usize = 0;
const LOAD: usize = 1;
/// The share of what is offered that must be done.
const KEPT_UP: f64 = 0.99;

/// An example and what it claims.
struct Example {
    /// Of the preset and of the workload.
    name: &'static str,
    /// Operations a second.
    offered: f64,
    /// Bytes that the process may use.
    limit: Option<u64>,
    /// Writes a second, with nothing to wait for.
    throughput: (&'static str, f64),
    /// Memory.
    memory: (&'static str, f64),
    /// P99 of reads, what it claims, and what is required.
    read: Option<(&'static str, f64, f64)>,
}

const EXAMPLES: [Example; 3] = [
    Example {
        name: "log-ingestion",
        offered: 100_000.0,
        limit: None,
        throughput: ("120,000 ops/sec", 120_000.0),
        memory: ("~600MB", 600.0 * MB),
        read: None,
    },
    Example {
        name: "low-latency-cache",
        offered: 55_000.0,
        limit: None,
        throughput: ("25,000 ops/sec", 25_000.0),
        memory: ("~150MB", 150.0 * MB),
        read: Some(("600μs, <1ms required", 600.0 * US, MS)),
    },
    Example {
        name: "embedded",
        offered: 600.0,
        limit: Some(256 << 20),
        throughput: ("500 ops/sec", 500.0),
        memory: ("~20MB", 20.0 * MB),
        read: Some(("3ms", 3.0 * MS, 3.0 * MS)),
    },
];

/// "Real-World Tuning Examples".
///
/// # Errors
/// A measurement fails.
pub(crate) fn three(context: &mut Context<'_>) -> Result<ChapterTable> {
    let scale = context.scale.clone();
    let mut specs = Vec::new();
    for example in &EXAMPLES {
        let offered = offered(&scale, example);
        let steps = vec![
            closed("fillrandom", scale.load_items),
            load::open(example.name, offered, scale.load_seconds),
        ];
        let mut spec = load::spec(load::preset(example.name, scale.stripes)?, scale.load_items, steps);
        spec.memory_limit = example.limit;
        specs.push(spec);
    }
    let trials = load::run(context, "the three examples", specs)?;
    let mut kept = Group::new("operations done, of those offered", Unit::PerSecond, "");
    let mut writes = Group::new("write throughput, closed loop", Unit::PerSecond, "");
    let mut reads = Group::new("get P99, from when it was due", Unit::Nanos, "");
    let mut puts = Group::new("put P99, from when it was due", Unit::Nanos, "");
    let mut memory = Group::new("anonymous memory, most", Unit::Bytes, "");
    let mut disk = Group::new("bytes to the device in an hour", Unit::Bytes, "");
    let mut conditions = Vec::new();
    for (example, trials) in EXAMPLES.iter().zip(&trials) {
        let offered = offered(&scale, example);
        let line = |step, figure: &dyn Fn(&Step) -> Option<f64>| {
            Ok::<_, anyhow::Error>(Line::new(example.name, figures(trials, step, figure)?))
        };
        let done =
            line(LOAD, &rate)?.says(Says::about(format!("{} ops/sec offered", example.offered), offered));
        conditions.push((example.name, done.measured.median().is_some_and(|rate| rate >= KEPT_UP * offered)));
        kept.lines.push(done);
        let claimed = Target { good: example.throughput.1, excellent: f64::INFINITY, more_is_better: true };
        let written = line(FILL, &rate)?.says(Says::about(example.throughput.0, example.throughput.1));
        writes.lines.push(written.graded(|value| claimed.grade(value)));
        if let Some((text, claimed, required)) = example.read {
            let target = Target { good: required, excellent: claimed, more_is_better: false };
            let read = line(LOAD, &p99("get"))?.says(Says::about(text, claimed));
            reads.lines.push(read.graded(|value| target.grade(value)));
        }
        puts.lines.push(line(LOAD, &p99("put"))?);
        memory.lines.push(of_memory(example, line(LOAD, &anonymous)?));
        if example.name == "log-ingestion" {
            let hour = |step: &Step| Some(step.resources.write_bytes as f64 / step.seconds * 3600.0);
            let written = line(LOAD, &hour)?.says(Says::about("~30GB/hour", 3e10));
            let why = "100,000 writes/s of 200 bytes are 72 GB in an hour before anything is written twice";
            disk.lines.push(written.not_graded(why));
        }
    }
    kept.shape = Some(all("each does all that is offered, but for one in a hundred:", &conditions));
    Ok(ChapterTable {
        title: "Three real-world examples".into(),
        done: format!(
            "Each preset with {} {} items of {RECORD} bytes, each once and in no order, by one thread, buffered; then \
             the example's own load, open loop, for {} s: latencies count from the moment each operation was due.",
            scale.text(),
            scale.load_items,
            scale.load_seconds
        ),
        groups: vec![kept, writes, reads, puts, memory, disk],
        notes: notes(&trials, scale.stripes),
        ..ChapterTable::default()
    })
}

/// What is offered. Tests offer less: an unoptimised build on a busy machine keeps up with that.
fn offered(scale: &Scale, example: &Example) -> f64 {
    if scale.divide > 1 { example.offered.min(1000.0) } else { example.offered }
}

/// With a grade for the claim.
fn of_memory(example: &Example, line: Line) -> Line {
    let target = Target { good: example.memory.1, excellent: example.memory.1, more_is_better: false };
    let graded = |value: f64| match target.grade(value) {
        Grade::Excellent => Grade::Good,
        other => other,
    };
    line.says(Says::about(example.memory.0, example.memory.1)).graded(graded)
}

fn notes(trials: &[Vec<Trial>], stripes: usize) -> Vec<String> {
    let limited = trials.last().is_some_and(|trials| trials.iter().all(|trial| trial.memory_limited));
    let limit = match limited {
        true => "The embedded example ran under a limit of 256 MiB, page cache included.",
        false => "No limit on memory could be set here: the embedded example ran without its 256 MiB.",
    };
    vec![
        limit.into(),
        "Grades here are of the example's own claims: Good when it is as claimed (or required), Excellent when the \
         better of two is reached."
            .into(),
        format!("Memory is of {stripes} stripes and what the loads hold, and of the harness too."),
    ]
}
