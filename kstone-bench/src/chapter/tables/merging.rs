//! Section 23.2: runs and reads, the check interval, concurrent compactions.

use anyhow::Result;

use crate::chapter::context::{Context, figures};
use crate::chapter::probe::{Debt, Found, Lag, Probe, RECORD, Runs};
use crate::chapter::said::{
    self, CHECK_INTERVALS, CONCURRENCY, Concurrency, Number, READ_P99, S, SST_COUNTS,
};
use crate::chapter::table::{ChapterTable, Group, Line, Says};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::{Direction, at_most, monotone};

/// Runs, the name of the row, its P50 and its P99.
type Point = (usize, &'static str, Number, Number);

/// Of latencies.
const NOISE: f64 = 0.15;
/// Runs of each stripe of a debt.
const DEBT_RUNS: usize = 8;
/// Stripes of the measurement of checks: all, whatever the scale, as the cost is theirs.
const CHECKED_STRIPES: usize = 256;

/// "Read Performance vs. SST Count".
///
/// # Errors
/// A measurement fails.
pub(crate) fn sst_count(context: &mut Context<'_>) -> Result<ChapterTable> {
    let scale = context.scale.clone();
    let points: Vec<_> = SST_COUNTS
        .iter()
        .flat_map(|(name, counts, p50, p99)| counts.iter().map(move |count| (*count, *name, *p50, *p99)))
        .collect();
    let cold_reads = (scale.reads / 200).max(20);
    let found = context.interleaved(&points, |context, (runs, ..), seed| {
        let probe = Runs {
            settings: context.scale.settings(""),
            runs: *runs,
            items: context.scale.items(),
            reads: context.scale.reads,
            cold_reads,
            seed,
        };
        context.measure(&format!("reads with {runs} runs"), Probe::Runs(probe))
    })?;
    let lines = |figure: &str, put: fn(Line, Number, Number) -> Line| -> Result<Vec<Line>> {
        let lines = points.iter().zip(&found).map(|((runs, name, p50, p99), found)| {
            let line = Line::new(format!("{runs} ({name})"), figures(found, figure)?).at(*runs as f64);
            Ok(put(line, *p50, *p99))
        });
        lines.collect()
    };
    let mut groups = Vec::new();
    for (figure, what) in [("hit", "a get that hits, warm"), ("miss", "a get that misses, warm")] {
        let p50 = lines(&format!("{figure}_p50"), |line, p50, _| line.says(said::about(p50)))?;
        let p50 = Group::new(&format!("{what}, P50"), Unit::Nanos, "runs").lines(p50);
        groups.push(p50.judged(|points| monotone("more runs are slower:", Direction::Rises, points, NOISE)));
        let p99 = lines(&format!("{figure}_p99"), |line, _, p99| {
            line.says(said::about(p99)).graded(|value| READ_P99.grade(value))
        })?;
        let p99 = Group::new(&format!("{what}, P99"), Unit::Nanos, "runs").lines(p99);
        groups.push(p99.judged(|points| monotone("more runs are slower:", Direction::Rises, points, NOISE)));
    }
    for (figure, what) in [("cold_hit", "a get that hits, cold"), ("cold_miss", "a get that misses, cold")] {
        groups.extend(cold(&points, &found, figure, what)?);
    }
    let looked = lines("hit_runs", |line, _, _| {
        let model = (line.at.unwrap_or(0.0) + 1.0) / 2.0;
        line.model(model)
    })?;
    let looked = Group::new("runs looked at by a get that hits", Unit::Count, "runs").lines(looked);
    groups.push(
        looked.judged(|points| monotone("more runs, more to look at:", Direction::Rises, points, 0.05)),
    );
    Ok(ChapterTable {
        title: "SST count and read latency".into(),
        done: format!(
            "The same {} items of {RECORD} bytes in exactly so many overlapping runs in each of {} Compaction off. \
             One thread, one get after the other (service time): {} of each kind warm; {cold_reads} right after the \
             database was opened and the system had been asked to forget its files.",
            scale.items(),
            scale.text(),
            scale.reads
        ),
        groups,
        notes: vec![
            "Each get is timed alone, which adds some 50 ns.".into(),
            "The model's column is the mean position of an item: (runs + 1) / 2, all equally likely.".into(),
        ],
        ..ChapterTable::default()
    })
}

fn cold(points: &[Point], found: &[Vec<Found>], figure: &str, what: &str) -> Result<[Group; 2]> {
    let bytes = found.iter().map(|found| figures(found, &format!("{figure}_device_bytes")));
    // Filters and indexes of all runs come from the device at least.
    let forgotten = bytes.collect::<Result<Vec<_>>>()?.iter().flatten().all(|bytes| *bytes > 0.0);
    let why = "nothing came from the device: the system does not forget files when it is asked to, or does not tell";
    let group = |percentile: &str, says: fn(&Point) -> Number| -> Result<Group> {
        let mut group = Group::new(&format!("{what}, {}", percentile.to_uppercase()), Unit::Nanos, "runs");
        for (point, found) in points.iter().zip(found) {
            let row = format!("{} ({})", point.0, point.1);
            let line = match forgotten {
                true => Line::new(row, figures(found, &format!("{figure}_{percentile}"))?),
                false => Line::not_here(row, why),
            };
            group.lines.push(line.says(said::about(says(point))).at(point.0 as f64));
        }
        Ok(group)
    };
    let slower =
        |points: &[(String, f64)]| monotone("more runs are slower:", Direction::Rises, points, NOISE);
    Ok([group("p50", |point| point.2)?.judged(slower), group("p99", |point| point.3)?.judged(slower)])
}

/// "Check Interval Impact".
///
/// # Errors
/// A measurement fails.
pub(crate) fn check_interval(context: &mut Context<'_>) -> Result<ChapterTable> {
    let tiny = context.scale.divide > 1;
    let stripes = if tiny { 4 } else { CHECKED_STRIPES };
    let interval = context.scale.check_interval;
    // Waiting for minutes would show nothing new, nor would doing it again.
    let lag = Lag { stripes, runs: 9, interval, samples: 16 };
    let found = vec![context.measure("the lag of checks", Probe::Lag(lag))?];
    let sweep = figures(&found, "sweep_nanos")?;
    let mut cost = Group::new("processor time, sweep / interval", Unit::Percent, "interval");
    let mut late = Group::new("lag of what comes with time, most", Unit::Nanos, "interval");
    let mut points = Vec::new();
    for (seconds, lag, cpu) in CHECK_INTERVALS {
        let row = if seconds == 60 { "60s (default)".into() } else { format!("{seconds}s") };
        let share: Vec<_> = sweep.iter().map(|nanos| 100.0 * nanos / (seconds as f64 * S)).collect();
        points.push((row.clone(), share[0], cpu.2));
        cost.lines.push(Line::new(&row, share).says(said::between(cpu)).at(seconds as f64));
        let says = Says::between(lag.0, lag.1 * S, lag.2 * S);
        let line = match seconds == interval || (tiny && seconds == 10) {
            true => Line::new(&row, figures(&found, "age_lag_max")?),
            false => Line::not_here(
                &row,
                "by the formula at most the interval and the merges before it; not waited for",
            ),
        };
        late.lines.push(line.says(says).at(seconds as f64));
    }
    cost.lines.push(Line::new("Manual only", vec![0.0]).says(Says::about("0%", 0.0)));
    cost.shape = Some(at_most("no more than the chapter says:", &points, 0.0));
    let most = found[0].get("age_lag_max")?;
    let bound = vec![(format!("{interval}s"), most, (interval as f64) * S)];
    late.shape = Some(at_most("no later than an interval, and a tenth for the merges:", &bound, 0.1));
    let by_count = [("in the middle", "count_lag_p50"), ("most", "count_lag_max")].map(|(row, figure)| {
        Ok::<_, anyhow::Error>(Line::new(row, figures(&found, figure)?).says(Says::words("the lags above")))
    });
    let by_count = Group::new("lag of a stripe that a flush brings to the threshold", Unit::Nanos, "")
        .lines(by_count.into_iter().collect::<Result<Vec<_>>>()?);
    let idle =
        Group::new("processor time of the database while it waited, everything", Unit::Percent, "interval")
            .lines([Line::new(format!("{interval}s"), figures(&found, "idle_cpu_percent")?)]);
    Ok(ChapterTable {
        title: "Check interval: lag and processor time".into(),
        done: format!(
            "{stripes} stripes of 9 runs, one below the threshold. The cost of a check is the mean of 200 over all \
             stripes. Lag: 16 stripes whose tombstones grow too old at moments spread over {interval} s, checked \
             every {interval} s."
        ),
        groups: vec![cost, late, by_count, idle],
        notes: vec![
            format!("One check of all stripes takes {}.", Unit::Nanos.text(sweep[0])),
            "A flush that brings a stripe to the threshold has it merged at once, whatever the interval; the chapter's \
             lags are those of a design that only checks. What waits for a check is what comes with time alone."
                .into(),
        ],
        trials: 1,
        ..ChapterTable::default()
    })
}

/// What was found with so many compactions at the same time.
fn debts(context: &mut Context<'_>, points: &[usize], items: u64) -> Result<Vec<Vec<Found>>> {
    context.interleaved(points, |context, concurrent, seed| {
        let settings = context.scale.settings("");
        let probe = Debt { settings, concurrent: *concurrent, runs: DEBT_RUNS, items, seed };
        context.measure(&format!("{concurrent} compactions at the same time"), Probe::Debt(probe))
    })
}

/// "Concurrent Compactions".
///
/// # Errors
/// A measurement fails.
pub(crate) fn concurrency(context: &mut Context<'_>) -> Result<ChapterTable> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Two are no row of the chapter's, but show something on a machine of two cores.
    let points: Vec<_> = [1, 2, 4, 8, 16].into_iter().filter(|concurrent| *concurrent <= cores).collect();
    let items = if context.scale.divide > 1 { context.scale.items() } else { 3 * context.scale.items() };
    let found = debts(context, &points, items)?;
    let measured =
        |concurrent: usize| points.iter().position(|point| *point == concurrent).map(|at| &found[at]);
    let base = Line::new("", figures(&found[0], "items_per_second")?).measured.median().unwrap_or(f64::NAN);
    let why = format!("as many cores are needed, and there are {cores}");
    let rows = || [1, 2, 4, 8, 16].into_iter().filter(|row| *row != 2 || measured(2).is_some());
    let said = |concurrent: usize| CONCURRENCY.iter().find(|row| row.concurrent == concurrent);
    let group =
        |quantity: &str, unit, figure: &str, scale: f64, says: fn(&Concurrency) -> Says| -> Result<Group> {
            let mut group = Group::new(quantity, unit, "concurrent");
            for concurrent in rows() {
                let row = if concurrent == 4 { "4 (default)".into() } else { concurrent.to_string() };
                let line = match measured(concurrent) {
                    Some(found) => Line::new(
                        row,
                        figures(found, figure)?.into_iter().map(|value| value * scale).collect(),
                    ),
                    None => Line::not_here(row, why.clone()),
                };
                let line = line.at(concurrent as f64);
                group.lines.push(match said(concurrent) {
                    Some(row) => line.says(says(row)),
                    None => line,
                });
            }
            Ok(group)
        };
    let rises =
        |group: Group, claim: &str| group.judged(|points| monotone(claim, Direction::Rises, points, NOISE));
    let times = group("throughput", Unit::Times, "items_per_second", 1.0 / base, |row| {
        said::between(row.throughput)
    })?;
    let together = group("compactions seen at the same time", Unit::Count, "together", 1.0, |row| {
        Says::about(row.concurrent.to_string(), row.concurrent as f64)
    })?;
    let used = group("cores used, a reader's share in it", Unit::Cores, "cores", 1.0, |row| {
        said::between(row.cores)
    })?;
    let disk = group("SSTs read and written", Unit::BytesPerSecond, "bytes_per_second", 1.0, |row| {
        said::about(row.disk)
    })?;
    let latency = group("a get every 0.5 ms meanwhile, P99", Unit::Nanos, "read_p99", 1.0, |row| {
        Says::words(row.latency)
    })?;
    Ok(ChapterTable {
        title: "Concurrent compactions".into(),
        done: format!(
            "{items} items in {DEBT_RUNS} runs of each of {} Prepared with compaction off; then compaction is switched \
             on and each stripe merged once, while one thread gets an item every 0.5 ms (from the moment it was due).",
            context.scale.text()
        ),
        groups: vec![
            rises(together, "as many as are allowed:"),
            rises(times, "more at the same time, sooner done:"),
            rises(used, "more at the same time, more cores:"),
            rises(disk, "more at the same time, more for the disk:"),
            rises(latency, "more at the same time, later reads:"),
        ],
        notes: vec![format!(
            "This machine has {cores} cores; the engine never runs more than two compactions a core, and leaves one core \
             free until stripes have twice as many runs as the threshold, as they have here. Nothing is extrapolated."
        )],
        ..ChapterTable::default()
    })
}
