//! Section 23.4: every limit, pushed against.

use anyhow::Result;

use crate::chapter::context::{Context, figures};
use crate::chapter::probe::{Found, LogLimit, MemtableBytes, Probe, Quota, RECORD, WriteBuffer};
use crate::chapter::table::{ChapterTable, Group, Line, Says};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::{all, at_most};

const MIB: u64 = 1 << 20;
/// The chapter's buffers: its default, its example, and the most it recommends.
const BUFFERS: [usize; 3] = [1024, 4096, 65_536];

/// What is measured.
fn probes(context: &Context<'_>, seed: u64) -> [Probe; 3] {
    let scale = &context.scale;
    let tiny = scale.divide > 1;
    let limit = |bytes: u64| if tiny { bytes / 16 } else { bytes };
    let log = limit(16 * MIB);
    [
        Probe::MemtableBytes(MemtableBytes { limit: limit(MIB) as usize, flushes: 40, seed }),
        Probe::LogLimit(LogLimit {
            settings: scale.settings(""),
            limit: log,
            items: 8 * log / RECORD as u64,
            seed,
        }),
        Probe::Quota(Quota {
            settings: scale.settings("max_memtable_records=2000"),
            limit: limit(64 * MIB),
            seed,
        }),
    ]
}

/// "DatabaseConfig Options".
///
/// # Errors
/// A measurement fails.
pub(crate) fn settings(context: &mut Context<'_>) -> Result<ChapterTable> {
    let mut found: [Vec<Found>; 3] = Default::default();
    for trial in 0..context.scale.trials as u64 {
        let probes = probes(context, 42 + trial);
        for (probe, found) in probes.into_iter().zip(&mut found) {
            found.push(context.measure("a limit of section 23.4", probe)?);
        }
    }
    let [memtable, log, quota] = found;
    let buffers = context.interleaved(&BUFFERS, |context, buffer, seed| {
        let items = context.scale.items().min(200_000);
        let settings = context.scale.settings("");
        let probe = WriteBuffer { settings, buffer: *buffer, threads: 4, items, seed };
        context.measure(&format!("a write buffer of {buffer} bytes"), Probe::WriteBuffer(probe))
    })?;
    let [Probe::MemtableBytes(bytes), Probe::LogLimit(length), Probe::Quota(disk)] = probes(context, 0)
    else {
        anyhow::bail!("the measurements are in another order");
    };
    let longest = figures(&memtable, "longest_record")?.into_iter().fold(0.0, f64::max);
    let mut groups = vec![
        limit("memtable of a stripe, largest", &memtable, bytes.limit as f64, longest)?,
        limit("log, longest", &log, length.limit as f64, 0.0)?,
        limit("directory, largest", &quota, disk.limit as f64, 0.0)?,
    ];
    groups.push(after_the_quota(&quota)?);
    groups.extend(write_buffers(&buffers)?);
    let notes = vec![
        format!(
            "A memtable is sealed by the record that reaches the limit: it may have one record more, here at most {}.",
            Unit::Bytes.text(longest)
        ),
        format!(
            "The log was written {:.0} times its limit.",
            mean(&log, "log_bytes_written")? / length.limit as f64
        ),
        "A record that is longer than the buffer is written alone. A writer alone never waits to fill it."
            .into(),
    ];
    Ok(ChapterTable {
        title: "Settings: each limit, and how near to it a database comes that is pushed against it".into(),
        done: format!(
            "Memtable bytes: values of 40 to 4,040 bytes into one stripe, each flush counted. Log, quota and buffer: \
             records of {RECORD} bytes into {} The quota: written until a put was refused, half of it deleted, and \
             put again. The buffer: four threads at the same time.",
            context.scale.text()
        ),
        groups,
        notes,
        ..ChapterTable::default()
    })
}

fn mean(found: &[Found], figure: &str) -> Result<f64> {
    Ok(figures(found, figure)?.iter().sum::<f64>() / found.len() as f64)
}

/// What was the largest, against a limit and what may be beyond it.
fn limit(quantity: &str, found: &[Found], limit: f64, beyond: f64) -> Result<Group> {
    let largest = figures(found, "largest_bytes")?;
    let worst = largest.iter().copied().fold(0.0, f64::max);
    let line = Line::new(format!("limit {}", Unit::Bytes.text(limit)), largest).says(Says::between(
        format!("at most {}", Unit::Bytes.text(limit)),
        0.0,
        limit,
    ));
    let mut group = Group::new(quantity, Unit::Bytes, "").lines([line]);
    let claim = if beyond > 0.0 { "never above, but for one record:" } else { "never above:" };
    group.shape = Some(at_most(claim, &[(quantity.into(), worst, limit + beyond)], 0.0));
    Ok(group)
}

fn after_the_quota(quota: &[Found]) -> Result<Group> {
    let again = figures(quota, "again")?;
    let refusals = figures(quota, "refusals")?;
    let conditions = [
        ("a put was refused", refusals.iter().all(|count| *count > 0.0)),
        ("puts went on after half was deleted", again.iter().all(|again| *again == 1.0)),
    ];
    let line = Line::new("items when the first put was refused", figures(quota, "items_when_full")?)
        .says(Says::words("Writes fail with DiskFull, compaction reclaims"));
    let mut group = Group::new("quota reached", Unit::Count, "").lines([line]);
    group.shape = Some(all("writes fail, then go on:", &conditions));
    Ok(group)
}

fn write_buffers(buffers: &[Vec<Found>]) -> Result<[Group; 3]> {
    let mut largest = Group::new("largest write call to the log", Unit::Bytes, "buffer");
    let mut rate = Group::new("write throughput, 4 threads", Unit::PerSecond, "buffer");
    let mut gathered = Group::new("records a write call", Unit::Count, "buffer");
    let mut points = Vec::new();
    for (buffer, found) in BUFFERS.iter().zip(buffers) {
        let (row, limit) = (buffer.to_string(), *buffer as f64);
        let calls = figures(found, "largest_bytes")?;
        points.push((row.clone(), calls.iter().copied().fold(0.0, f64::max), limit));
        let said = Says::between(format!("at most {buffer} bytes"), 0.0, limit);
        largest.lines.push(Line::new(&row, calls).says(said).at(limit));
        let said = if *buffer == 1024 { "fine for most" } else { "Better throughput" };
        rate.lines.push(Line::new(&row, figures(found, "rate")?).says(Says::words(said)).at(limit));
        gathered.lines.push(Line::new(&row, figures(found, "records_per_call")?).at(limit));
    }
    largest.shape = Some(at_most("never above the buffer:", &points, 0.0));
    Ok([largest, rate, gathered])
}
