//! The metrics of a database as text for Prometheus, in the OpenMetrics format, computed from the engine's counters on
//! each call. Nothing is counted twice, and no registry outlives the call.

use std::fmt;

use kstone_core::DatabaseConfig;
use kstone_core::lsm::{
    CompactionStats, DiskUsage, EngineStats, Latencies, LatencyBuckets, LatencySummary, StatsSnapshot,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::database::Database;

/// Upper bounds of the latency buckets in microseconds: 1, 2 and 5 of each power of ten, up to ten seconds.
const BOUNDS_US: [u64; 22] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

impl Database {
    /// Returns the metrics of [`Database::stats`] in the OpenMetrics text format, which Prometheus reads: names start
    /// with `keystonedb_`. Serve it with the content type `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    ///
    /// Counters start at zero with each open. Latencies are histograms of the timed operations, one in
    /// [`latency_sampling`](crate::DatabaseConfig::latency_sampling); `keystonedb_writes_total` and similar counters
    /// count all operations. A closed database returns only `keystonedb_up 0`.
    ///
    /// ```
    /// let db = kstone_api::Database::in_memory()?;
    /// db.put("key", kstone_api::ItemBuilder::new().number("n", 1))?;
    /// assert!(db.openmetrics().contains("keystonedb_writes_total 1\n"));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn openmetrics(&self) -> String {
        // A closed database has no other metrics.
        let (Ok(stats), Ok(disk)) = (self.stats(), self.disk_usage()) else { return encoded(Scrape::Closed) };
        encoded(Scrape::Open(Box::new(Open {
            stats,
            disk,
            compactions: self.compaction_stats(),
            config: self.config(),
            latencies: self.engine().latency_buckets(&BOUNDS_US.map(|us| us * 1000)),
        })))
    }
}

/// Returns the metrics of a database that another program has open, from the statistics that it wrote to `STATS.json`, in
/// the form of [`Database::openmetrics`]; `up`: whether it is still open. What the file does not contain is missing:
/// limits, compactions by reason, and histograms of latencies, of which there are percentiles instead.
pub fn openmetrics_of(snapshot: Option<&StatsSnapshot>, up: bool) -> String {
    encoded(match snapshot {
        None => Scrape::Unknown { up },
        Some(snapshot) => Scrape::Written { snapshot: Box::new(snapshot.clone()), up },
    })
}

fn encoded(scrape: Scrape) -> String {
    let mut registry = Registry::with_prefix("keystonedb");
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

/// Where metrics come from.
#[derive(Debug)]
enum Scrape {
    Closed,
    Open(Box<Open>),
    /// `STATS.json`.
    Written {
        snapshot: Box<StatsSnapshot>,
        up: bool,
    },
    /// No program writes `STATS.json`.
    Unknown {
        up: bool,
    },
}

#[derive(Debug)]
struct Open {
    stats: EngineStats,
    disk: DiskUsage,
    compactions: CompactionStats,
    config: DatabaseConfig,
    latencies: [(&'static str, LatencyBuckets); 9],
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder };
        let up = match self {
            Self::Closed => false,
            Self::Open(_) => true,
            Self::Written { up, .. } | Self::Unknown { up } => *up,
        };
        out.gauge("up", "Whether the database is open", u64::from(up))?;
        match self {
            Self::Closed | Self::Unknown { .. } => Ok(()),
            Self::Open(open) => {
                operations(&mut out, &open.stats)?;
                background(&mut out, &open.stats, Some(&open.compactions))?;
                reading(&mut out, &open.stats)?;
                sizes(&mut out, &open.stats)?;
                limits(&mut out, &open.disk, &open.config)?;
                health(&mut out, &open.stats)?;
                latencies(&mut out, &open.latencies)
            }
            Self::Written { snapshot, .. } => {
                let written = snapshot.unix_ms as f64 / 1e3;
                out.gauge("stats_timestamp_seconds", "When these metrics were taken, in Unix time", written)?;
                operations(&mut out, &snapshot.stats)?;
                background(&mut out, &snapshot.stats, None)?;
                reading(&mut out, &snapshot.stats)?;
                sizes(&mut out, &snapshot.stats)?;
                health(&mut out, &snapshot.stats)?;
                percentiles(&mut out, &snapshot.latencies)
            }
        }
    }
}

fn operations(out: &mut Out<'_>, stats: &EngineStats) -> fmt::Result {
    let ops = &stats.operations;
    out.counter("writes", "Puts and deletes, including those in batches", ops.puts + ops.deletes)?;
    out.counter("deletes", "Deletes, including those in batches", ops.deletes)?;
    out.counter("batches", "Batches", ops.batches)?;
    out.counter("reads", "Gets", ops.gets)?;
    out.counter("queries", "Queries of one partition", ops.queries)?;
    out.counter("scans", "Scans of all partitions or of a segment", ops.scans)?;
    out.counter("items_scanned", "Items that queries and scans returned", ops.entries_read)?;
    out.counter(
        "entries_passed",
        "Entries that queries and scans read but did not return",
        ops.entries_passed,
    )?;
    out.counter("user_bytes_written", "Bytes of keys and items written", ops.user_bytes_written)?;
    out.counter("user_bytes_read", "Bytes of keys and items read", ops.user_bytes_read)?;
    out.counter("disk_full_refusals", "Writes refused for lack of space", stats.disk_full_refusals)
}

fn background(out: &mut Out<'_>, stats: &EngineStats, compactions: Option<&CompactionStats>) -> fmt::Result {
    out.counter("flushes", "Memtables flushed", stats.flushes)?;
    out.counter("flush_bytes_written", "Bytes of SSTs that flushes wrote", stats.flush_bytes_written)?;
    let (read, written) = ("Bytes of SSTs that compactions read", "Bytes of SSTs that compactions wrote");
    match compactions {
        Some(compactions) => {
            let by_reason = || compactions.by_reason.iter();
            let by = "reason";
            let counts = by_reason().map(|of| (word(&of.reason), of.count));
            out.counters("compactions", "Compactions", by, counts)?;
            let bytes = by_reason().map(|of| (word(&of.reason), of.bytes_read));
            out.counters("compaction_bytes_read", read, by, bytes)?;
            let bytes = by_reason().map(|of| (word(&of.reason), of.bytes_written));
            out.counters("compaction_bytes_written", written, by, bytes)?;
        }
        None => {
            out.counter("compactions", "Compactions", stats.compactions)?;
            out.counter("compaction_bytes_read", read, stats.compaction_bytes_read)?;
            out.counter("compaction_bytes_written", written, stats.compaction_bytes_written)?;
        }
    }
    out.counter("ssts_merged", "SSTs that compactions merged", stats.ssts_merged)?;
    out.counter("tombstones_removed", "Tombstones dropped", stats.tombstones_removed)?;
    out.counter("checkpoints", "Checkpoints", stats.checkpoints)?;
    out.counter("log_writes", "Write calls to the log", stats.log_writes)?;
    out.counter("log_records", "Records written to the log", stats.log_records)?;
    out.counter("log_bytes_written", "Bytes written to the log", stats.log_bytes_written)?;
    let stalls = &stats.stalls;
    out.counters(
        "stalls",
        "Writes that were delayed",
        "reason",
        stalls.iter().map(|of| (word(&of.reason), of.count)),
    )?;
    let seconds = stalls.iter().map(|of| (word(&of.reason), of.nanos as f64 / 1e9));
    out.counters("stall_seconds", "Time that writes were delayed", "reason", seconds)
}

fn reading(out: &mut Out<'_>, stats: &EngineStats) -> fmt::Result {
    let reads = &stats.reads;
    let sources = [
        ("memtable", reads.memtable),
        ("sealed", reads.sealed),
        ("sst", reads.runs.iter().sum()),
        ("none", reads.misses.iter().sum()),
    ];
    out.counters(
        "reads_by_source",
        "Gets, by where the search ended",
        "source",
        sources.map(|(source, gets)| (source.to_string(), gets)).into_iter(),
    )?;
    out.counter("runs_read", "Runs that gets searched", reads.runs_looked_at)?;
    out.counter("blocks_read", "Blocks of SSTs that gets read", reads.blocks_read)?;
    out.counter("filter_tests", "Filter tests", stats.filter.tests)?;
    out.counter("filter_negatives", "Negative results of filters", stats.filter.negatives)?;
    out.counter("filter_false_positives", "False positives of filters", stats.filter.false_positives)?;
    out.counter("block_cache_hits", "Blocks found in the cache", stats.block_cache.hits)?;
    out.counter("block_cache_misses", "Blocks read or decompressed", stats.block_cache.misses)?;
    out.counter("block_cache_evictions", "Blocks evicted", stats.block_cache.evictions)?;
    out.gauge("block_cache_bytes", "Bytes in the block cache", stats.block_cache.bytes)?;
    out.gauge("block_cache_capacity_bytes", "Bytes that the block cache may hold", stats.block_cache.capacity)
}

fn sizes(out: &mut Out<'_>, stats: &EngineStats) -> fmt::Result {
    let sum = |of: fn(&crate::StripeStats) -> usize| {
        stats.stripes.iter().map(|stripe| of(stripe) as u64).sum::<u64>()
    };
    out.gauge("items_estimate", "Estimated items, including older versions", stats.items_estimate)?;
    out.gauge("ssts", "SSTs", sum(|stripe| stripe.ssts))?;
    out.gauge("runs", "Runs in all stripes", sum(|stripe| stripe.runs))?;
    let worst = stats.stripes.iter().map(|stripe| stripe.runs as u64).max().unwrap_or(0);
    out.gauge("runs_worst", "Runs in the stripe with the most", worst)?;
    out.gauge("memtable_records", "Records in memtables", sum(|stripe| stripe.memtable_records))?;
    out.gauge("memtable_bytes", "Memory of memtables", sum(|stripe| stripe.memtable_bytes))?;
    out.gauge("sst_bytes", "Bytes of SSTs", stats.sst_bytes)?;
    out.gauge("log_bytes", "Bytes of the log", stats.log_bytes)?;
    out.gauge("log_segments", "Files of the log", stats.log_segments as u64)?;
    out.gauge("manifest_bytes", "Bytes of the manifest", stats.manifest_bytes)
}

fn limits(out: &mut Out<'_>, disk: &DiskUsage, config: &DatabaseConfig) -> fmt::Result {
    let budget = config.memory_budget_bytes() as u64;
    out.gauge("memtable_budget_bytes", "Limit on the memory of memtables", budget)?;
    out.gauge("log_limit_bytes", "Limit on the bytes of the log", config.wal_limit_bytes())?;
    out.gauge("disk_used_bytes", "Bytes of all files", disk.used)?;
    match disk.limit {
        Some(limit) => out.gauge("disk_limit_bytes", "The quota", limit),
        None => Ok(()),
    }
}

fn health(out: &mut Out<'_>, stats: &EngineStats) -> fmt::Result {
    let amplification = &stats.amplification;
    let known = |of: [(&'static str, Option<f64>); 3]| {
        of.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect::<Vec<_>>()
    };
    let written = known([
        ("compaction", amplification.write_compaction),
        ("ssts", amplification.write_tables),
        ("all", amplification.write_total),
    ]);
    out.gauges("write_amplification", "Bytes written per byte put", "by", written)?;
    let read = known([("runs", amplification.read_runs), ("blocks", amplification.read_blocks), ("", None)]);
    out.gauges("read_amplification", "Runs and blocks read per get", "in", read)?;
    if let Some(space) = amplification.space {
        out.gauge("space_amplification", "Bytes of SSTs per byte of live data", space)?;
    }
    let recovery = stats.estimated_recovery_nanos as f64 / 1e9;
    out.gauge("recovery_estimate_seconds", "Estimated time to open after a crash now", recovery)?;
    let failing = u64::from(stats.background_error.is_some());
    out.gauge("background_failing", "Whether background work is failing", failing)?;
    out.gauge(
        "poisoned",
        "Whether the database refuses writes after a failure",
        u64::from(stats.poisoned.is_some()),
    )
}

fn latencies(out: &mut Out<'_>, measured: &[(&'static str, LatencyBuckets)]) -> fmt::Result {
    for (name, operation, help) in [
        ("write_latency_microseconds", "put", "Latency of puts that were timed"),
        ("read_latency_microseconds", "get", "Latency of gets that were timed"),
        ("delete_latency_microseconds", "delete", "Latency of deletes that were timed"),
        ("query_latency_microseconds", "query", "Time spent by queries and scans in the engine"),
        ("batch_latency_microseconds", "batch", "Latency of batches that were timed"),
        ("flush_duration_microseconds", "flush", "Duration of flushes"),
        ("compaction_duration_microseconds", "compaction", "Duration of compactions"),
        ("checkpoint_duration_microseconds", "checkpoint", "Duration of checkpoints"),
        ("log_sync_duration_microseconds", "log_sync", "Duration of syncs of the log"),
    ] {
        let none = LatencyBuckets::default();
        let of = measured.iter().find(|(name, _)| *name == operation).map_or(&none, |(_, buckets)| buckets);
        out.histogram(name, help, of)?;
    }
    Ok(())
}

fn percentiles(out: &mut Out<'_>, latencies: &Latencies) -> fmt::Result {
    let each = |of: fn(&LatencySummary) -> u64| {
        let timed = latencies.all().into_iter().filter(|(_, summary)| summary.count > 0);
        timed.map(|(name, summary)| (name.to_string(), of(&summary) as f64 / 1e3)).collect::<Vec<_>>()
    };
    let by = "operation";
    out.gauges("latency_p50_microseconds", "Median of timed operations", by, each(|of| of.p50_nanos))?;
    out.gauges(
        "latency_p99_microseconds",
        "99th percentile of timed operations",
        by,
        each(|of| of.p99_nanos),
    )?;
    out.gauges("latency_max_microseconds", "Longest of timed operations", by, each(|of| of.max_nanos))
}

/// The serialised name of a reason, such as `run_count`.
fn word(reason: &impl serde::Serialize) -> String {
    // Cannot fail: reasons are plain enums.
    serde_json::to_value(reason).ok().and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default()
}

/// Writes metrics, one call each.
struct Out<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Out<'_> {
    fn start<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, None, kind)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.start(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.start(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (String, impl EncodeCounterValue)>,
    ) -> fmt::Result {
        let mut encoder = self.start(name, help, MetricType::Counter)?;
        for (of, value) in values {
            let labels = labels(label, of);
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: Vec<(String, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.start(name, help, MetricType::Gauge)?;
        for (of, value) in values {
            encoder.encode_family(&labels(label, of))?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, of: &LatencyBuckets) -> fmt::Result {
        let ends = BOUNDS_US.iter().map(|&us| us as f64).chain([f64::INFINITY]);
        let buckets: Vec<_> = ends.zip(of.counts.iter().copied().chain(std::iter::repeat(0))).collect();
        let sum = of.sum_nanos as f64 / 1e3;
        let count = of.counts.iter().sum();
        let mut encoder = self.start(name, help, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn labels(name: &'static str, value: String) -> impl EncodeLabelSet {
    [(name, value)]
}
