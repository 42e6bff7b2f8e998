//! Section 23.3: bits per key, and the scenario of a key that is in none of 10 SSTs.

use anyhow::Result;
use kstone_core::model::{Model, Point, Workload};
use kstone_core::{CompactionConfig, DatabaseConfig};

use crate::chapter::context::{Context, figures};
use crate::chapter::probe::{Filters, Found, Probe, VALUE, theory};
use crate::chapter::said::{self, BITS, S, SCENARIO, US};
use crate::chapter::table::{ChapterTable, Group, Line, Says};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::{Direction, agrees, at_most, factor, monotone};

/// Runs of each stripe, as in the scenario.
const RUNS: usize = 10;
/// The share by which false positives may be above what the chapter says.
const WITHIN: f64 = 0.2;

fn probe(context: &Context<'_>, bits: usize, seed: u64) -> Filters {
    let scale = &context.scale;
    Filters {
        settings: scale.settings(""),
        bits,
        runs: RUNS,
        items: scale.items(),
        misses: if bits >= 16 { scale.rare_misses } else { scale.misses },
        seed,
    }
}

fn measured(context: &mut Context<'_>) -> Result<()> {
    if context.filters.len() == BITS.len() {
        return Ok(());
    }
    let all = context.interleaved(&BITS, |context, (bits, ..), seed| {
        let probe = Probe::Filters(probe(context, *bits, seed));
        context.measure(&format!("filters of {bits} bits"), probe)
    })?;
    context.filters = BITS.iter().map(|(bits, ..)| *bits).zip(all).collect();
    Ok(())
}

fn of<'a>(context: &'a Context<'_>, bits: usize) -> &'a [Found] {
    context.filters.get(&bits).map_or(&[], Vec::as_slice)
}

fn name(bits: usize) -> String {
    if bits == 10 { "10 (default)".into() } else { bits.to_string() }
}

fn group(context: &Context<'_>, quantity: &str, unit: Unit, figure: &str) -> Result<Group> {
    let mut group = Group::new(quantity, unit, "bits");
    for (bits, ..) in BITS {
        group.lines.push(Line::new(name(bits), figures(of(context, bits), figure)?).at(bits as f64));
    }
    Ok(group)
}

fn done(context: &Context<'_>) -> String {
    let (few, many) = (probe(context, 6, 0), probe(context, 16, 0));
    format!(
        "{} items in {RUNS} runs of each of {} One thread got {} different keys that are in none of them, which asks \
         {} filters; with 16 and 20 bits {} keys and {} filters. From memory.",
        few.items,
        context.scale.text(),
        few.misses,
        few.misses * RUNS as u64,
        many.misses,
        many.misses * RUNS as u64,
    )
}

/// "Memory vs. False Positive Rate".
///
/// # Errors
/// A measurement fails.
pub(crate) fn bits(context: &mut Context<'_>) -> Result<ChapterTable> {
    measured(context)?;
    let mut memory = group(context, "memory of 1M keys", Unit::Bytes, "filter_bytes_per_million")?;
    let mut rate = group(context, "false positives", Unit::Percent, "false_positive_percent")?;
    let (mut sizes, mut rates) = (Vec::new(), Vec::new());
    for (at, (bits, said_memory, said_rate)) in BITS.into_iter().enumerate() {
        let line = std::mem::replace(&mut memory.lines[at], Line::new("", Vec::new()));
        sizes.push((line.row.clone(), line.measured.median().unwrap_or(f64::NAN), said_memory.1));
        memory.lines[at] = line.says(said::about(said_memory)).model(1e6 * bits as f64 / 8.0);
        let line = std::mem::replace(&mut rate.lines[at], Line::new("", Vec::new()));
        rates.push((line.row.clone(), line.measured.median().unwrap_or(f64::NAN), said_rate.1));
        rate.lines[at] = line.says(said::about(said_rate)).model(100.0 * expected(bits));
    }
    let claim = "no more than a fifth above what the chapter says:";
    memory.shape = Some(agrees("within a fifth of what the chapter says:", &sizes, WITHIN));
    rate.shape = Some(at_most(claim, &rates, WITHIN));
    let mut theoretical = Group::new("(1 - e^(-kn/m))^k, of a standard filter", Unit::Percent, "bits");
    for (bits, _, said_rate) in BITS {
        theoretical.lines.push(Line::new(name(bits), vec![theory(bits)]).says(said::about(said_rate)));
    }
    let build = group(context, "flush of a key, filter and all", Unit::Nanos, "flush_nanos_per_key")?;
    Ok(ChapterTable {
        title: "Bits per key: memory and false positives".into(),
        done: done(context),
        groups: vec![memory, rate, theoretical, build],
        notes: vec![
            "The model has what the engine's own filters are expected to do: up to 10 bits they keep all bits of a \
             key in one cache line, which costs accuracy and saves misses of the processor's cache."
                .into(),
            "Building filters is not timed alone: it is a part of the flush, which writes blocks and index too.".into(),
        ],
        ..ChapterTable::default()
    })
}

/// What the engine's filters of so many bits let pass, 0 to 1.
fn expected(bits: usize) -> f64 {
    let database = DatabaseConfig::new().with_bloom_bits_per_key(bits);
    let model = Model::new(Workload::inserts(1_000_000, 16, VALUE as u64));
    model.predict(&Point::of(&database, &CompactionConfig::new())).false_positive_rate
}

/// "Scenario: Check 10 SSTs for non-existent key".
///
/// # Errors
/// A measurement fails.
pub(crate) fn scenario(context: &mut Context<'_>) -> Result<ChapterTable> {
    measured(context)?;
    let disk = context.disk()?;
    let read = disk.get("read_p50")?;
    let cold = disk.get("device_share")? > 0.5;
    let mut reads = Group::new("false positives a get", Unit::Count, "bits");
    let mut blocks = Group::new("blocks read a get", Unit::Count, "bits");
    let mut warm = Group::new("a get, from memory, mean", Unit::Nanos, "bits");
    let mut tail = Group::new("a get, from memory, P99", Unit::Nanos, "bits");
    let mut total = Group::new("a get, blocks from this disk, by arithmetic", Unit::Nanos, "bits");
    for (bits, disk_reads, cost) in SCENARIO {
        let found = of(context, bits);
        let line = |figure: &str| {
            Ok::<_, anyhow::Error>(Line::new(name(bits), figures(found, figure)?).at(bits as f64))
        };
        let said_reads = Says::about(format!("{disk_reads} disk reads"), disk_reads);
        reads.lines.push(line("false_positives_per_get")?.says(said_reads.clone()));
        blocks.lines.push(line("blocks_per_get")?.says(said_reads));
        warm.lines.push(line("miss_mean")?.says(said::about(cost)));
        tail.lines.push(
            line("miss_p99")?
                .not_graded("\"P99: 100μs → 15μs\" are the means of the scenario, no percentiles"),
        );
        let by_arithmetic = |found: &Found| Ok(found.get("miss_mean")? + found.get("blocks_per_get")? * read);
        let values = found.iter().map(by_arithmetic).collect::<Result<Vec<_>>>()?;
        let line = Line::new(name(bits), values).at(bits as f64);
        let why = "the system does not forget files when it is asked to: a read of the disk cannot be timed";
        let line = if cold { line } else { Line::not_here(name(bits), why) };
        total.lines.push(line.says(said::about(cost)));
    }
    let falls =
        |group: Group, claim| group.judged(|points| monotone(claim, Direction::Falls, points, WITHIN));
    let reads = falls(reads, "more bits, fewer false positives:");
    let blocks = falls(blocks, "more bits, fewer blocks read in vain:");
    let warm = falls(warm, "more bits make a miss cheaper, also from memory:");
    let total = falls(total, "more bits make a miss cheaper:");
    let ratios = ratios(&reads, &total);
    let disk_line = Line::new("4 KiB", vec![read]).says(Says::about("1000μs", 1000.0 * US));
    let disk_line = if cold { disk_line } else { Line::not_here("4 KiB", "as above") };
    let disk = Group::new("a read of the disk, P50", Unit::Nanos, "").lines([disk_line]);
    Ok(ChapterTable {
        title: "Scenario: 10 SSTs and a key that is in none".into(),
        done: done(context),
        groups: vec![reads, blocks, warm, tail, disk, total, ratios],
        notes: vec![
            "A false positive is no disk read yet: the hash index behind the filter says no to about 95 % of them.".into(),
            format!(
                "The chapter takes 1000 µs for a read of the disk. The last line of its scenario compares 16 bits with \
                 10 (7 times), the one before 10 bits with 6 (5.5 times). Filters of 10 runs take {} here, not 10 µs.",
                Unit::Nanos.text(figures(of(context, 16), "miss_mean")?.iter().sum::<f64>() / context.scale.trials as f64)
            ),
            format!("P50 of 4 KiB that this system had forgotten, at random places: {:.0} µs.", read / (S / 1e6)),
        ],
        ..ChapterTable::default()
    })
}

/// Both ratios of the scenario, of disk reads and of the total.
fn ratios(reads: &Group, total: &Group) -> Group {
    let mut ratios = Group::new("how many times less", Unit::Times, "");
    for (what, group, said) in [("cost", total, [5.5, 7.0]), ("false positives", reads, [6.0, 20.0])] {
        for (step, pair) in group.lines.windows(2).enumerate() {
            let [from, to] = pair else { continue };
            let row = format!("{what}, {} to {} bits", from.row, to.row);
            let says = Says::about(format!("{}x", said[step]), said[step]);
            let line = match (from.measured.median(), to.measured.median()) {
                (Some(from), Some(to)) if to > 0.0 => Line::new(row, vec![from / to]),
                (Some(_), Some(_)) => Line::not_here(row, "there was none at all with more bits"),
                _ => Line::not_here(row, "as above"),
            };
            ratios.lines.push(line.says(says));
        }
    }
    let rare: Vec<_> =
        reads.lines.iter().filter_map(|line| Some((line.row.clone(), line.measured.median()?))).collect();
    ratios.shape =
        Some(factor("16 bits have 5 to 200 times fewer false positives than 6:", &rare, 0.005, 0.2));
    ratios
}
