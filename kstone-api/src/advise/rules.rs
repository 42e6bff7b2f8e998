//! The rules of [`advise`](super), causes before symptoms. Thresholds are those of the alerts where there is one.

use kstone_core::lsm::{Exhausted, StallReason, StripeStats};
use kstone_core::{Compression, ReadMode};

use super::goal::difference;
use super::situation::{FEW_ENTRIES, Situation, evidence};
use super::{Advice, Evidence, Expected, Source, Urgency};
use crate::model::{Goal, Point};

/// One cause.
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// What it looks for, in one line.
    pub(super) about: &'static str,
    /// Rules below whose findings this cause accounts for.
    pub(super) explains: &'static [&'static str],
    pub(super) check: fn(&Situation<'_>) -> Option<Advice>,
}

/// In this order they are asked, and their advice is given.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "writing-stopped",
        about: "an error after which no write is accepted",
        explains: &["background-fails", "writes-held-up"],
        check: writing_stopped,
    },
    Rule {
        name: "file-system-full",
        about: "no space or inodes left on the file system",
        explains: &[
            "background-fails",
            "quota-reached",
            "writes-held-up",
            "full-log",
            "long-log",
            "slow-flushes",
        ],
        check: file_system_full,
    },
    Rule {
        name: "background-fails",
        about: "flushes, merges or checkpoints that fail",
        explains: &["many-runs", "full-log", "long-log", "writes-held-up", "slow-flushes"],
        check: background_fails,
    },
    Rule {
        name: "compaction-off",
        about: "runs that accumulate because nothing merges them",
        explains: &["many-runs", "tombstones", "garbage", "slow-gets", "false-positives"],
        check: compaction_off,
    },
    Rule {
        name: "snapshot-held",
        about: "a snapshot, transaction or iterator that keeps much replaced data on disk",
        explains: &["tombstones", "garbage", "quota-reached"],
        check: snapshot_held,
    },
    Rule {
        name: "quota-reached",
        about: "max_total_disk_bytes nearly used up",
        explains: &["writes-held-up", "many-runs", "slow-flushes"],
        check: quota_reached,
    },
    Rule {
        name: "tombstones",
        about: "SSTs that consist mostly of tombstones",
        explains: &["garbage", "slow-gets"],
        check: tombstones,
    },
    Rule { name: "garbage", about: "SSTs with several versions of each item", explains: &[], check: garbage },
    Rule {
        name: "large-items",
        about: "items so large that a memtable holds few of them",
        explains: &["small-memory-budget", "write-amplification", "writes-held-up", "slow-flushes"],
        check: large_items,
    },
    Rule {
        name: "hot-stripes",
        about: "data or writes in few of the stripes, because they are in few partitions",
        explains: &["small-memory-budget", "write-amplification", "merging-behind", "writes-held-up"],
        check: hot_stripes,
    },
    Rule {
        name: "small-memory-budget",
        about: "memtables flushed far below their limit because all of them exceed the memory budget",
        explains: &["write-amplification", "writes-held-up", "merging-behind", "slow-flushes"],
        check: small_memory_budget,
    },
    Rule {
        name: "slow-flushes",
        about: "writers that wait for flushes to a slow disk",
        explains: &["writes-held-up", "merging-behind"],
        check: slow_flushes,
    },
    Rule {
        name: "merging-behind",
        about: "writers that wait for merges",
        explains: &["writes-held-up", "many-runs"],
        check: merging_behind,
    },
    Rule {
        name: "many-runs",
        about: "stripes with many more runs than the threshold",
        explains: &["slow-gets"],
        check: many_runs,
    },
    Rule {
        name: "false-positives",
        about: "filters of so few bits that they often pass absent keys",
        explains: &["slow-gets"],
        check: false_positives,
    },
    Rule {
        name: "small-block-cache",
        about: "ReadMode::Pread with a cache that misses most blocks",
        explains: &["slow-gets"],
        check: small_block_cache,
    },
    Rule {
        name: "compressed-reads",
        about: "gets that decompress most blocks they read",
        explains: &["slow-gets"],
        check: compressed_reads,
    },
    Rule {
        name: "larger-than-memory",
        about: "gets that wait for the disk because the SSTs do not fit into memory",
        explains: &["slow-gets"],
        check: larger_than_memory,
    },
    Rule {
        name: "rare-checkpoints",
        about: "a log kept long by a long checkpoint interval",
        explains: &["full-log", "long-log"],
        check: rare_checkpoints,
    },
    Rule {
        name: "full-log",
        about: "a log near its limit, which flushes and checkpoints do not shorten",
        explains: &["long-log"],
        check: full_log,
    },
    Rule {
        name: "long-log",
        about: "a log that takes more than a second to replay",
        explains: &[],
        check: long_log,
    },
    Rule {
        name: "write-amplification",
        about: "flushes and merges that write more than ten times what callers put",
        explains: &[],
        check: write_amplification,
    },
    Rule {
        name: "writes-held-up",
        about: "more than 1 % of the writes waited, for a reason that no rule above accounts for",
        explains: &[],
        check: writes_held_up,
    },
    Rule {
        name: "slow-gets",
        about: "gets above 5 ms at the 99th percentile, for a reason that no rule above accounts for",
        explains: &[],
        check: slow_gets,
    },
];

/// The most that settings of memory accept, in bytes.
const MOST_BYTES: u64 = 1 << 40;

/// An advice that names no setting; rules fill in the rest.
fn advice(urgency: Urgency, cause: impl Into<String>, evidence: Vec<Evidence>) -> Advice {
    Advice {
        rule: "",
        urgency,
        cause: cause.into(),
        evidence,
        settings: String::new(),
        action: String::new(),
        expected: Vec::new(),
        cost: String::new(),
        check: "kstone info DB".into(),
    }
}

fn expected(figure: &'static str, unit: &'static str, before: f64, after: f64) -> Expected {
    Expected { figure, unit, before, after }
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// From 10 % on rounded down, so that 100 % means all.
fn percent(share: f64) -> String {
    match 100.0 * share {
        small if small < 10.0 => format!("{small:.1} %"),
        percent => format!("{:.0} %", percent.floor()),
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn share(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

fn writing_stopped(s: &Situation<'_>) -> Option<Advice> {
    let why = s.stats.poisoned.as_ref()?;
    Some(Advice {
        action: "reopen the database; if it happens again, kstone verify DB".into(),
        cost: "the time to open, with a recovery".into(),
        check: "kstone events DB".into(),
        ..advice(
            Urgency::Critical,
            "an error made the state of the files uncertain, so no write is accepted until the database \
             is reopened",
            vec![evidence(why.as_str(), Source::Runtime)],
        )
    })
}

fn background_fails(s: &Situation<'_>) -> Option<Advice> {
    let why = s.stats.background_error.as_ref()?;
    Some(Advice {
        action: "mend what the error names; the work is tried again by itself".into(),
        cost: "none".into(),
        check: "kstone events DB".into(),
        ..advice(
            Urgency::Critical,
            "background work fails, so the log grows and space is not freed; writes will have to wait",
            vec![evidence(why.as_str(), Source::Runtime)],
        )
    })
}

/// Less than this on a file system is little, if it is also less than a twentieth of it.
const LITTLE_SPACE: u64 = 64 << 20;

fn file_system_full(s: &Situation<'_>) -> Option<Advice> {
    let exhausted = matches!(s.disk.exhausted, Some(Exhausted::Bytes | Exhausted::Inodes));
    let little = s.disk.free_bytes.is_some_and(|bytes| bytes < LITTLE_SPACE);
    let no_inodes = s.disk.free_inodes == Some(0);
    (exhausted || little || no_inodes).then(|| {
        let bytes = s.disk.free_bytes.map(|bytes| format!("{} are free on the file system", mb(bytes)));
        let inodes = s.disk.free_inodes.map(|inodes| format!("{inodes} more files can be created"));
        let figures = [bytes, inodes].into_iter().flatten();
        let action = if s.disk.exhausted == Some(Exhausted::Inodes) || no_inodes {
            "remove files from the file system, or move the database to one with more inodes (df -i \
             shows them)"
        } else {
            "free space on the file system, or move the database to a larger one"
        };
        Advice {
            action: action.into(),
            cost: "none for the data that is there: reads go on, and puts work again once there is \
                   space"
                .into(),
            ..advice(
                Urgency::Critical,
                "the file system is full or nearly so: puts fail, or soon will",
                figures.map(|figure| evidence(figure, Source::System)).collect(),
            )
        }
    })
}

fn compaction_off(s: &Situation<'_>) -> Option<Advice> {
    let (runs, most) = (s.mean_runs(), s.most_runs());
    (!s.compaction.enabled && most >= s.compaction.sst_threshold).then(|| Advice {
        settings: "compaction_enabled=1".into(),
        action: "kstone compact DB".into(),
        expected: vec![
            expected("runs of a stripe", "", runs, 1.0),
            expected("filters tested by a get of an absent key", "", runs, 1.0),
        ],
        cost: format!(
            "merging reads and writes {} once, and goes on as data is \
                       written",
            mb(s.stats.sst_bytes)
        ),
        ..advice(
            Urgency::High,
            format!(
                "compaction is off, so each get of an absent key searches every run of its stripe: \
                     {most} in the worst"
            ),
            vec![
                evidence("compaction_enabled is 0", Source::Settings),
                evidence(
                    format!(
                        "{runs:.1} runs in a stripe on average, {most} at most; with compaction fewer \
                         than {}",
                        s.compaction.sst_threshold
                    ),
                    Source::Files,
                ),
            ],
        )
    })
}

fn snapshot_held(s: &Situation<'_>) -> Option<Advice> {
    let lag = s.stats.snapshot_lag;
    let now = s.stats.amplification.entries?;
    // Replaced data is what it costs: a snapshot beside inserts costs nothing.
    (lag >= 10 * FEW_ENTRIES && lag > s.stats.items_estimate / 4 && now > 1.5).then(|| Advice {
        action: "drop the snapshot, transaction or iterator, or take a new one".into(),
        expected: vec![expected("entries in SSTs per item, once merged", "", now, 1.0)],
        cost: "the reader no longer sees the old state".into(),
        check: "kstone stats DB".into(),
        ..advice(
            Urgency::High,
            "a snapshot is held for so long that what was replaced since fills the disk",
            vec![
                evidence(
                    format!("{lag} writes since the oldest snapshot, transaction or iterator"),
                    Source::Runtime,
                ),
                evidence(format!("{now:.1} entries in SSTs per item"), Source::Files),
            ],
        )
    })
}

fn quota_reached(s: &Situation<'_>) -> Option<Advice> {
    let limit = s.disk.limit?;
    let taken = s.disk.used.saturating_add(s.disk.reserved);
    let now = share(taken, limit);
    let exhausted = s.disk.exhausted == Some(Exhausted::Quota);
    (now >= 0.9 || exhausted).then(|| {
        let raised = taken.max(limit).saturating_mul(2).checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX);
        let mut figures = vec![
            evidence(format!("max_total_disk_bytes is {}", mb(limit)), Source::Settings),
            evidence(
                format!("{} used, {} reserved for flushes and merges", mb(s.disk.used), mb(s.disk.reserved)),
                Source::Files,
            ),
        ];
        if s.stats.disk_full_refusals > 0 {
            figures
                .push(evidence(format!("{} puts were refused", s.stats.disk_full_refusals), Source::Runtime));
        }
        Advice {
            settings: format!("max_total_disk_bytes={raised}"),
            expected: vec![expected(
                "used and reserved space",
                "% of the quota",
                100.0 * now,
                100.0 * share(taken, raised),
            )],
            cost: format!("the directory may grow to {}", mb(raised)),
            ..advice(
                Urgency::Critical,
                format!(
                    "the quota is {}: {} used and {} reserved are {} of {}",
                    if exhausted || now >= 1.0 { "reached" } else { "nearly reached" },
                    mb(s.disk.used),
                    mb(s.disk.reserved),
                    percent(now),
                    mb(limit)
                ),
                figures,
            )
        }
    })
}

fn tombstones(s: &Situation<'_>) -> Option<Advice> {
    let (tombstones, entries) = (s.sum(|stripe| stripe.tombstones), s.sum(|stripe| stripe.entries));
    let now = share(tombstones, entries);
    (tombstones >= FEW_ENTRIES / 10 && now >= 0.5).then(|| {
        let items = entries.saturating_sub(tombstones.saturating_mul(2)).max(1);
        let percent_now = s.compaction.tombstone_percent;
        let settings = if percent_now > 25 { "tombstone_percent=25".into() } else { String::new() };
        Advice {
            settings,
            action: "kstone compact DB".into(),
            expected: vec![
                expected("tombstones among the entries", "%", 100.0 * now, 0.0),
                expected("entries read by a scan, per item", "", share(entries, items), 1.0),
            ],
            cost: format!("merging reads {} once", mb(s.stats.sst_bytes)),
            ..advice(
                Urgency::High,
                format!(
                    "{} of the entries in SSTs are tombstones, {} of them: scans pass over each",
                    percent(now),
                    grouped(tombstones)
                ),
                vec![
                    evidence(
                        format!(
                            "{} tombstones among {} \
                                      entries",
                            grouped(tombstones),
                            grouped(entries)
                        ),
                        Source::Files,
                    ),
                    evidence(
                        format!("stripes are merged for their tombstones from {percent_now} % on"),
                        Source::Settings,
                    ),
                ],
            )
        }
    })
}

fn garbage(s: &Situation<'_>) -> Option<Advice> {
    let now = s.stats.amplification.entries?;
    let threshold = 1.5 * (1.0 + f64::from(s.compaction.garbage_percent) / 100.0);
    let enough = s.sum(|stripe| stripe.entries) >= FEW_ENTRIES;
    (enough && now > threshold).then(|| Advice {
        action: "kstone compact DB".into(),
        expected: vec![expected("entries in SSTs per item", "", now, 1.0)],
        cost: format!("merging reads {} once", mb(s.stats.sst_bytes)),
        ..advice(
            Urgency::High,
            format!("the SSTs hold {now:.1} versions of each item: replaced ones have not been merged away"),
            vec![evidence(
                format!(
                    "{} of SSTs; stripes are merged for garbage from {} % on",
                    mb(s.stats.sst_bytes),
                    s.compaction.garbage_percent
                ),
                Source::Files,
            )],
        )
    })
}

/// Items from this size on are large: beyond it, copying the bytes costs more than all else.
const LARGE_ITEM: u64 = 64 << 10;

fn large_items(s: &Situation<'_>) -> Option<Advice> {
    let workload = s.model().workload;
    let mean = workload.value_bytes;
    (s.stats.items_estimate >= 16 && mean >= LARGE_ITEM).then(|| {
        let budget = s.database.memory_budget_bytes() as u64;
        let source = if s.stats.written_sizes.values.count > 0 { Source::Runtime } else { Source::Files };
        Advice {
            action: "keep the bytes in parts under one partition, key (name, part), or in files beside \
                     the database"
                .into(),
            cost: "a change of the program: an item is then read with a query, and written with a \
                   batch"
                .into(),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                format!(
                    "items of {} on average fill the memtables: each update of one writes all of \
                         it, several times",
                    mb(mean)
                ),
                vec![
                    evidence(format!("values of {mean} bytes on average"), source),
                    evidence(
                        format!(
                            "{} such items fill the memory budget of \
                                 {}",
                            budget / mean.max(1),
                            mb(budget)
                        ),
                        Source::Settings,
                    ),
                ],
            )
        }
    })
}

fn hot_stripes(s: &Situation<'_>) -> Option<Advice> {
    let entries = |stripe: &StripeStats| stripe.entries.saturating_add(stripe.memtable_records as u64);
    let (all, stripes) = (s.sum(entries), s.stats.stripe_count as u64);
    let hottest = s.stats.stripes.iter().max_by_key(|stripe| entries(stripe))?;
    let used = s.stats.stripes.len() as u64;
    let hot = share(entries(hottest), all);
    // Keys spread evenly over stripes, so few of many stripes in use means few partitions.
    let few = used <= stripes / 16;
    (all >= FEW_ENTRIES && stripes > 4 && (few || hot >= 0.25 && hot * stripes as f64 >= 4.0)).then(|| {
        let record = s.model().workload.key_bytes + s.model().workload.value_bytes + 96;
        // The hot stripes may use the memory that the others do not.
        let affordable =
            s.database.memory_budget_bytes() as u64 / record / s.model().workload.stripes.max(1) as u64;
        let now = s.database.max_memtable_records as u64;
        let records = affordable.min(1_000_000).max(now);
        let mut figures = vec![
            evidence(
                format!(
                    "stripe {:03} has {} of all entries; even would be \
                         {}",
                    hottest.stripe,
                    percent(hot),
                    percent(1.0 / stripes as f64)
                ),
                Source::Files,
            ),
            evidence(format!("{used} of {stripes} stripes hold data"), Source::Files),
        ];
        let writes = s.sum(|stripe| stripe.writes);
        if s.writes() > 0 {
            let most = s.stats.stripes.iter().map(|stripe| stripe.writes).max().unwrap_or(0);
            figures.push(evidence(
                format!(
                    "the stripe written most took {} of the writes since \
                         open",
                    percent(share(most, writes))
                ),
                Source::Runtime,
            ));
        }
        let better = records >= 2 * now;
        let flushes = |records: u64| 1e6 / records as f64;
        Advice {
            settings: if better { format!("max_memtable_records={records}") } else { String::new() },
            action: "spread such a partition over several, as (format!(\"{name}#{}\", n % 16), sort), \
                     and read them with as many queries"
                .into(),
            expected: if better {
                vec![expected(
                    "flushes of such a stripe, per million \
                               writes",
                    "",
                    flushes(now),
                    flushes(records),
                )]
            } else {
                Vec::new()
            },
            cost: "larger memtables of such stripes, a longer log; spreading: a change of the program, \
                   and a query per part"
                .into(),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                if hot >= 0.25 {
                    format!(
                        "stripe {:03} is hot: {} of the entries are in it, as all of a partition is in \
                         one stripe",
                        hottest.stripe,
                        percent(hot)
                    )
                } else {
                    format!("only {used} of {stripes} stripes hold data, because there are few partitions")
                },
                figures,
            )
        }
    })
}

fn small_memory_budget(s: &Situation<'_>) -> Option<Advice> {
    let limit = s.database.max_memtable_records as f64;
    let workload = s.model().workload;
    let record = (workload.key_bytes + workload.value_bytes + 96) as f64;
    let used = s.stats.stripes.len() as f64;
    let budget = s.database.memory_budget_bytes() as f64;
    // Stripes fill out of step, so they hold half of their limits on average.
    let needed = used * limit * record / 2.0;
    let memtables = s.sum(|stripe| stripe.memtable_records as u64);
    let flushed = s.sum(|stripe| stripe.writes).saturating_sub(memtables) as f64;
    let per_flush = flushed / s.stats.flushes.max(1) as f64;
    (s.stats.flushes as f64 >= used && used > 0.0 && per_flush < limit / 4.0 && budget < needed / 2.0).then(
        || {
            let now = s.point();
            let budget_wanted = (needed as u64).min(MOST_BYTES).next_multiple_of(1 << 20);
            let better = Point { memory_budget: budget_wanted, ..now };
            let (before, after) = (s.model().predict(&now), s.model().predict(&better));
            Advice {
                settings: difference(&now, &better),
                expected: vec![
                    expected("records in a flush", "", per_flush, after.flush_records.min(limit)),
                    expected(
                        "bytes that flushes and merges write per byte put",
                        "",
                        s.stats.amplification.write_tables.unwrap_or(before.write_amplification),
                        after.write_amplification,
                    ),
                ],
                cost: format!(
                    "up to {} of memory for memtables instead of {}, and a longer \
                           log",
                    mb(budget_wanted),
                    mb(budget as u64)
                ),
                check: "kstone stats DB".into(),
                ..advice(
                    Urgency::High,
                    format!(
                        "the memory budget is too small for the memtables: they are flushed with \
                         {per_flush:.0} records instead of {limit:.0}"
                    ),
                    vec![
                        evidence(format!("memory_budget is {}", mb(budget as u64)), Source::Settings),
                        evidence(
                            format!(
                                "{used:.0} stripes of records of {record:.0} bytes need {} to fill \
                                 their memtables",
                                mb(needed as u64)
                            ),
                            Source::Files,
                        ),
                        evidence(
                            format!(
                                "{} flushes of {per_flush:.0} \
                                      records",
                                s.stats.flushes
                            ),
                            Source::Runtime,
                        ),
                    ],
                )
            }
        },
    )
}

/// Of the writes, this many may wait before it counts.
const HELD_UP: f64 = 0.01;
/// A disk that takes flushes at less than this many bytes a second is slow.
const SLOW_DISK: f64 = 20e6;

fn slow_flushes(s: &Situation<'_>) -> Option<Advice> {
    let held_up = s.held_up(|reason| matches!(reason, StallReason::Memtables | StallReason::Log));
    let seconds = s.stats.flush_nanos as f64 / 1e9;
    let rate = s.stats.flush_bytes_written as f64 / seconds.max(1e-9);
    (held_up > HELD_UP && s.stats.flushes > 0 && rate < SLOW_DISK).then(|| {
        let now = s.point();
        let best = s.model().best(Goal::Write, &Default::default());
        let better =
            best.map_or(now, |best| Point { bloom_bits_per_key: now.bloom_bits_per_key, ..best.point });
        let (before, after) = (s.model().predict(&now), s.model().predict(&better));
        Advice {
            settings: difference(&now, &better),
            action: "a faster disk, if there is one: the settings only make it write less".into(),
            expected: vec![expected(
                "bytes that flushes and merges write per byte put",
                "",
                s.stats.amplification.write_tables.unwrap_or(before.write_amplification),
                after.write_amplification,
            )],
            cost: "more memory, more runs for reads to search, a longer recovery".into(),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                format!("the disk takes {:.1} MB/s, and writers wait for flushes", rate / 1e6),
                vec![
                    evidence(
                        format!("{} of the writes waited for flushes", percent(held_up)),
                        Source::Runtime,
                    ),
                    evidence(
                        format!(
                            "{} flushes wrote {} in {seconds:.1} s",
                            s.stats.flushes,
                            mb(s.stats.flush_bytes_written)
                        ),
                        Source::Runtime,
                    ),
                ],
            )
        }
    })
}

fn merging_behind(s: &Situation<'_>) -> Option<Advice> {
    let held_up = s.held_up(|reason| reason == StallReason::Runs);
    (held_up > HELD_UP).then(|| {
        let now = s.point();
        let records = now.max_memtable_records.saturating_mul(4).min(10_000).max(now.max_memtable_records);
        let better = Point {
            max_memtable_records: records,
            memory_budget: now
                .memory_budget
                .saturating_mul((records / now.max_memtable_records.max(1)).max(1) as u64)
                .min(MOST_BYTES),
            sst_threshold: now.sst_threshold.saturating_mul(2).min(30).max(now.sst_threshold),
            ..now
        };
        let (before, after) = (s.model().predict(&now), s.model().predict(&better));
        let waited = s.stats.stripes.iter().max_by_key(|stripe| stripe.held_up_nanos);
        let mut figures =
            vec![evidence(format!("{} of the writes waited for merges", percent(held_up)), Source::Runtime)];
        if let Some(stripe) = waited.filter(|stripe| stripe.held_up > 0) {
            figures.push(evidence(
                format!(
                    "longest in stripe {:03}: {} writes, {:.1} s in all",
                    stripe.stripe,
                    stripe.held_up,
                    stripe.held_up_nanos as f64 / 1e9
                ),
                Source::Runtime,
            ));
        }
        Advice {
            settings: difference(&now, &better),
            expected: vec![expected(
                "bytes that flushes and merges write per byte put",
                "",
                s.stats.amplification.write_tables.unwrap_or(before.write_amplification),
                after.write_amplification,
            )],
            cost: "more memory, a longer recovery, and more runs for reads to search".into(),
            check: "kstone stats DB".into(),
            ..advice(Urgency::High, "merging is slower than writing, and writers wait for it", figures)
        }
    })
}

fn many_runs(s: &Situation<'_>) -> Option<Advice> {
    let threshold = s.compaction.sst_threshold;
    let over = s.stats.stripes.iter().filter(|stripe| stripe.runs.saturating_mul(2) >= 3 * threshold).count();
    let (runs, most) = (s.mean_runs(), s.most_runs());
    (s.compaction.enabled && over > 0).then(|| Advice {
        action: "kstone compact DB".into(),
        expected: vec![expected("runs of a stripe", "", runs, 1.0)],
        cost: format!("merging reads {} once", mb(s.stats.sst_bytes)),
        ..advice(
            Urgency::High,
            format!(
                "{over} stripes have many more runs than the threshold of {threshold}: {most} at \
                     most, all searched by a get of an absent key"
            ),
            vec![evidence(format!("{runs:.1} runs in a stripe on average"), Source::Files)],
        )
    })
}

/// A rate of false positives above this is worth a change.
const FALSE_POSITIVES: f64 = 0.03;

fn false_positives(s: &Situation<'_>) -> Option<Advice> {
    let bits = s.database.bloom_bits_per_key;
    let absent = s.stats.filter.negatives.saturating_add(s.stats.filter.false_positives);
    let measured = (absent >= FEW_ENTRIES).then_some(s.stats.filter.measured_rate);
    let by_settings = s.false_positives(bits);
    let now = measured.unwrap_or(by_settings);
    (now > FALSE_POSITIVES && s.sum(|stripe| stripe.entries) >= FEW_ENTRIES).then(|| {
        let misses: u64 = s.stats.reads.misses.iter().copied().fold(0, u64::saturating_add);
        let wanted = if share(misses, s.stats.operations.gets) > 0.3 { 16 } else { 10 };
        let wanted = wanted.max(bits);
        let after = s.false_positives(wanted);
        let mut figures = vec![evidence(
            format!(
                "bloom_bits_per_key is {bits}: {} of the absent keys are expected to pass",
                percent(by_settings)
            ),
            Source::Settings,
        )];
        if let Some(measured) = measured {
            figures.push(evidence(
                format!("{} of {absent} absent keys passed", percent(measured)),
                Source::Runtime,
            ));
        }
        let keys = s.sum(|stripe| stripe.entries);
        Advice {
            settings: if wanted == bits { String::new() } else { format!("bloom_bits_per_key={wanted}") },
            action: "kstone compact DB".into(),
            expected: vec![expected("absent keys that pass a filter", "%", 100.0 * now, 100.0 * after)],
            cost: format!(
                "{} of filters instead of {}; merging reads and writes {} once",
                mb(keys.saturating_mul(wanted as u64) / 8),
                mb(keys.saturating_mul(bits as u64) / 8),
                mb(s.stats.sst_bytes)
            ),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                format!(
                    "the filters let {} of absent keys pass, so gets search runs that do not hold their key",
                    percent(now)
                ),
                figures,
            )
        }
    })
}

fn small_block_cache(s: &Situation<'_>) -> Option<Advice> {
    let cache = &s.stats.block_cache;
    let looked_up = cache.hits.saturating_add(cache.misses);
    let hits = share(cache.hits, looked_up);
    let full = cache.bytes >= cache.capacity / 10 * 8 && cache.evictions > 0;
    (s.database.read_mode == ReadMode::Pread && looked_up >= FEW_ENTRIES && hits < 0.5 && full).then(|| {
        // Blocks take somewhat more in the cache than in the file, where they may be compressed.
        let wanted = (s.stats.sst_bytes.saturating_mul(5) / 4)
            .max(cache.capacity.saturating_mul(2))
            .min(MOST_BYTES)
            .next_power_of_two();
        Advice {
            settings: format!("block_cache_bytes={wanted}"),
            expected: vec![expected(
                "blocks found in the cache, once it is warm",
                "%",
                100.0 * hits,
                100.0 * share(wanted, s.stats.sst_bytes.max(wanted)),
            )],
            cost: format!("up to {} of memory instead of {}", mb(wanted), mb(cache.capacity)),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                "the block cache holds too little of what is read, and with ReadMode::Pread nothing \
                 else does",
                vec![
                    evidence(
                        format!(
                            "{} of {looked_up} blocks were in the \
                                      cache",
                            percent(hits)
                        ),
                        Source::Runtime,
                    ),
                    evidence(
                        format!(
                            "block_cache_bytes is {}; the SSTs have \
                                 {}",
                            mb(cache.capacity),
                            mb(s.stats.sst_bytes)
                        ),
                        Source::Settings,
                    ),
                ],
            )
        }
    })
}

fn compressed_reads(s: &Situation<'_>) -> Option<Advice> {
    let (cache, gets) = (&s.stats.block_cache, s.stats.operations.gets);
    let per_get = share(cache.misses, gets);
    let always = s.database.compression == Compression::Always;
    (always && s.database.read_mode == ReadMode::Mmap && gets >= FEW_ENTRIES && per_get > 0.25).then(|| {
        Advice {
            settings: "compression=0".into(),
            action: "kstone compact DB".into(),
            expected: vec![expected("blocks decompressed by a get", "", per_get, 0.0)],
            cost: "more space on disk, as much as compression saves; merging writes all SSTs once".into(),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                "most gets decompress a block, because all blocks are compressed",
                vec![
                    evidence("compression is Always", Source::Settings),
                    evidence(format!("{} blocks decompressed in {gets} gets", cache.misses), Source::Runtime),
                ],
            )
        }
    })
}

fn larger_than_memory(s: &Situation<'_>) -> Option<Advice> {
    let (faults, gets) = (s.stats.major_faults?, s.stats.operations.gets);
    let per_get = share(faults, gets);
    (s.database.read_mode == ReadMode::Mmap
        && gets >= 10 * FEW_ENTRIES
        && faults >= FEW_ENTRIES
        && per_get > 0.1)
        .then(|| Advice {
            settings: "read_mode=1".into(),
            action: "more memory, if there is any: the system keeps SSTs in what programs leave free".into(),
            cost: "about 7 bytes of memory a record for filters and indexes, and a copy of each block \
                   that is read"
                .into(),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                "the SSTs do not fit into memory, so gets wait for the disk",
                vec![
                    evidence(
                        format!(
                            "{faults} page faults waited for a disk, {per_get:.2} for each of \
                                      {gets} gets"
                        ),
                        Source::Runtime,
                    ),
                    evidence(format!("{} of SSTs", mb(s.stats.sst_bytes)), Source::Files),
                ],
            )
        })
}

/// The default interval between checkpoints, in milliseconds.
const CHECKPOINT_MS: u64 = 2_000;

fn recovery_seconds(s: &Situation<'_>) -> f64 {
    s.stats.estimated_recovery_nanos as f64 / 1e9
}

fn rare_checkpoints(s: &Situation<'_>) -> Option<Advice> {
    let interval = s.database.checkpoint_interval;
    // What memtables hold takes somewhat less in the log.
    let held = s.sum(|stripe| stripe.memtable_bytes as u64);
    let needed = held.saturating_add(s.database.wal_segment_bytes().saturating_mul(2));
    let log = s.stats.log_bytes;
    (interval.as_secs() >= 30 && log > needed.saturating_mul(2) && recovery_seconds(s) > 0.1).then(|| {
        let after = recovery_seconds(s) * share(needed, log);
        Advice {
            settings: format!("checkpoint_interval_ms={CHECKPOINT_MS}"),
            expected: vec![
                expected("the log", "MB", log as f64 / 1e6, needed as f64 / 1e6),
                expected("recovery after a crash", "s", recovery_seconds(s), after),
            ],
            cost: "a few more syncs, one for each SST that is merged again within the longer interval".into(),
            ..advice(
                Urgency::High,
                "the log is kept long after its records are in SSTs, because checkpoints are rare",
                vec![
                    evidence(format!("checkpoint_interval_ms is {}", interval.as_millis()), Source::Settings),
                    evidence(
                        format!("the log has {}; the memtables, which need it, {}", mb(log), mb(held)),
                        Source::Files,
                    ),
                ],
            )
        }
    })
}

fn full_log(s: &Situation<'_>) -> Option<Advice> {
    let (log, limit) = (s.stats.log_bytes, s.database.wal_limit_bytes());
    let wanted = limit.saturating_mul(2);
    (limit > 0 && log >= limit / 10 * 9).then(|| Advice {
        settings: format!("max_wal_size_bytes={wanted}"),
        expected: vec![expected(
            "the log",
            "% of its limit",
            100.0 * share(log, limit),
            100.0 * share(log, wanted),
        )],
        cost: format!("up to {} of log, and a recovery that takes as much longer", mb(wanted)),
        ..advice(
            Urgency::High,
            "the log is at its limit, where writers wait for flushes and checkpoints to shorten it",
            vec![
                evidence(format!("the log has {}", mb(log)), Source::Files),
                evidence(format!("its limit is {}", mb(limit)), Source::Settings),
            ],
        )
    })
}

/// A recovery longer than this is long, in seconds.
const LONG_RECOVERY: f64 = 1.0;

fn long_log(s: &Situation<'_>) -> Option<Advice> {
    let now = recovery_seconds(s);
    let target = s.database.recovery_target.map(|target| target.as_secs_f64());
    (now > LONG_RECOVERY && target.is_none_or(|target| now > 1.5 * target)).then(|| Advice {
        settings: "recovery_target_ms=1000".into(),
        action: "open the database once: it shortens the log by flushing".into(),
        expected: vec![expected("recovery after a crash, at most", "s", now, LONG_RECOVERY)],
        cost: "smaller flushes, so somewhat more merging".into(),
        ..advice(
            Urgency::High,
            format!("the log is so long that opening after a crash takes about {now:.1} s"),
            vec![
                evidence(
                    format!("the log has {} in {} segments", mb(s.stats.log_bytes), s.stats.log_segments),
                    Source::Files,
                ),
                evidence(
                    format!("this machine replays {} a second", mb(s.stats.replay_rate)),
                    Source::Runtime,
                ),
                evidence(
                    format!(
                        "it may grow to {}, and there is no recovery_target_ms",
                        mb(s.database.wal_limit_bytes())
                    ),
                    Source::Settings,
                ),
            ],
        )
    })
}

fn write_amplification(s: &Situation<'_>) -> Option<Advice> {
    let now = s.stats.amplification.write_tables?;
    (now > 10.0 && s.stats.operations.user_bytes_written >= 1 << 20).then(|| {
        let point = s.point();
        let best = s.model().best(Goal::Write, &Default::default());
        let better =
            best.map_or(point, |best| Point { bloom_bits_per_key: point.bloom_bits_per_key, ..best.point });
        Advice {
            settings: difference(&point, &better),
            expected: vec![expected(
                "bytes that flushes and merges write per byte put",
                "",
                now,
                s.model().predict(&better).write_amplification,
            )],
            cost: "more memory, more runs for reads to search, a longer recovery".into(),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                format!(
                    "flushes and merges write {now:.1} bytes for each byte put: small flushes are \
                         merged too often"
                ),
                vec![
                    evidence(
                        format!(
                            "{} put, {} flushed, {} merged",
                            mb(s.stats.operations.user_bytes_written),
                            mb(s.stats.flush_bytes_written),
                            mb(s.stats.compaction_bytes_written)
                        ),
                        Source::Runtime,
                    ),
                    evidence(
                        format!(
                            "sst_threshold is {}, max_memtable_records \
                                 {}",
                            point.sst_threshold, point.max_memtable_records
                        ),
                        Source::Settings,
                    ),
                ],
            )
        }
    })
}

fn writes_held_up(s: &Situation<'_>) -> Option<Advice> {
    // The quota's rule accounts for waits for space.
    let counts = |reason: StallReason| reason.is_backlog() && reason != StallReason::Space;
    let held_up = s.held_up(counts);
    (held_up > HELD_UP).then(|| {
        let reasons = s.stats.stalls.iter().filter(|stall| counts(stall.reason));
        let figures = reasons.map(|stall| {
            let figure = format!(
                "{:?}: {} writes, {:.2} s in all, {:.0} ms at most",
                stall.reason,
                stall.count,
                stall.nanos as f64 / 1e9,
                stall.longest_nanos as f64 / 1e6
            );
            evidence(figure, Source::Runtime)
        });
        Advice {
            action: "write more slowly, or spread the writes: background work goes on between bursts".into(),
            cost: "the same data takes longer to write".into(),
            check: "kstone stats DB".into(),
            ..advice(
                Urgency::High,
                format!(
                    "{} of the writes waited for background work, which is slower than they are",
                    percent(held_up)
                ),
                figures.collect(),
            )
        }
    })
}

fn slow_gets(s: &Situation<'_>) -> Option<Advice> {
    let timed = s.latencies?.get;
    (timed.count >= 100 && timed.p99_nanos > 5_000_000).then(|| Advice {
        action: "kstone explain get DB KEY shows what one get reads; look for other load on the disk \
                 and the cores"
            .into(),
        cost: "none".into(),
        check: "kstone stats DB".into(),
        ..advice(
            Urgency::High,
            format!(
                "gets take {:.1} ms at the 99th percentile, and no setting accounts for \
                     it",
                timed.p99_nanos as f64 / 1e6
            ),
            vec![evidence(format!("{timed}"), Source::Runtime)],
        )
    })
}
