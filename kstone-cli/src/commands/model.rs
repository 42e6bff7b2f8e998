//! `kstone model`: what settings cost for planned data, each figure with its formula.

use anyhow::Result;
use kstone_api::Preset;
use kstone_api::model::{Model, Point, Workload};
use serde_json::json;

use crate::args::{Format, ModelArgs};
use crate::output::{grouped, print_result, print_table, size, time};

pub(crate) fn run(args: &ModelArgs, format: Format) -> Result<()> {
    let preset = match &args.preset {
        Some(name) => Preset::by_name(name)?,
        None => Preset::balanced(),
    };
    let mut workload = Workload::inserts(args.items, args.key_size.as_u64(), args.item_size.as_u64());
    workload.writes_per_second = args.writes_per_second as f64;
    workload.reads_per_second = args.reads_per_second as f64;
    workload.memory_bytes = args.ram.map(|ram| ram.as_u64());
    let point = Point::of(&preset.database, &preset.compaction);
    let p = Model::new(workload).predict(&point);
    let bytes = |bytes: f64| size(bytes as u64);
    let nanos = |nanos: f64| time(nanos as u64);
    let (stripes, bits, k) = (workload.stripes, point.bloom_bits_per_key, point.sst_threshold);
    let budget = size(point.memory_budget);
    let rows = [
        (
            "records per flush",
            grouped(p.flush_records as u64),
            format!(
                "min(max_memtable_records {}, 2 x memory budget / stripes / record)",
                point.max_memtable_records
            ),
        ),
        (
            "memtables",
            bytes(p.memtable_bytes),
            format!(
                "at most {stripes} stripes x records per flush x (key + item + overhead), budget {budget}"
            ),
        ),
        ("filters", bytes(p.filter_bytes), format!("items x {bits} bits / 8, mapped")),
        ("indexes", bytes(p.index_bytes), "items x 5 bytes, mapped".into()),
        ("memory", bytes(p.memory_bytes()), "memtables + filters + indexes".into()),
        (
            "SSTs",
            bytes(p.sst_bytes),
            format!("items x (key + item + 17 + {bits} / 8) = {:.2} x the items", p.space_amplification),
        ),
        (
            "log",
            bytes(p.log_bytes),
            format!("unflushed records x (key + item + 56), at most {}", size(point.log_limit)),
        ),
        ("recovery", nanos(p.replay_ns), "log x 0.4 ns a byte + records x 350 ns".into()),
        (
            "write amplification",
            format!("{:.2}", p.write_amplification),
            format!("1 for the flush + merges of {:.1} flushes a stripe at {k} runs", p.flushes_per_stripe),
        ),
        (
            "disk writes",
            format!("{}/s", bytes(p.disk_bytes_per_second)),
            format!(
                "{} writes/s x (log record + amplification x SST record)",
                grouped(args.writes_per_second)
            ),
        ),
        ("runs per stripe", format!("{:.1}", p.average_runs), format!("average up to a threshold of {k}")),
        (
            "false positives",
            format!("{:.2} %", p.false_positive_rate * 100.0),
            format!("filter of {bits} bits a key"),
        ),
        (
            "get that finds",
            format!("{:.1} filters, {:.3} blocks", p.filter_tests_per_hit, p.block_reads_per_hit),
            "half of the runs, and a block".into(),
        ),
        (
            "get that misses",
            format!("{:.1} filters, {:.5} blocks", p.filter_tests_per_miss, p.block_reads_per_miss),
            "all runs, and a block for a false positive that the index confirms".into(),
        ),
        (
            "time per get",
            nanos(p.read_ns),
            format!("memtables + filters + blocks, {:.0} % of them from the disk", p.disk_share * 100.0),
        ),
        (
            "busy reading",
            format!("{:.1} % of a core", p.read_ns * workload.reads_per_second / 1e7),
            format!("{} gets/s x time per get", grouped(args.reads_per_second)),
        ),
        (
            "busy writing",
            format!("{:.1} % of a core", p.write_ns * workload.writes_per_second / 1e7),
            format!("{} writes/s x {} with its merges", grouped(args.writes_per_second), nanos(p.write_ns)),
        ),
    ];
    if format != Format::Table {
        let json = json!({
            "schema": "kstone.model/1", "preset": preset.name, "workload": workload, "settings": point,
            "prediction": p,
        });
        return print_result(format, "", json);
    }
    let rows: Vec<_> = rows.map(|(name, value, formula)| [name.to_owned(), value, formula]).into();
    print_table(["ESTIMATE", "VALUE", "FORMULA"], &rows)
}
