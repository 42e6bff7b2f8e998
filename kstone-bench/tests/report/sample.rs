//! Files of results as measurements would make them, of figures that are made up: seeded, so always the same.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use kstone_bench::engine::{Counters, Durability, EngineSpec, MarkKind, counter};
use kstone_bench::record::{
    Latency, Machine, Resources, RunFile, SCHEMA, Slice, Step, StepSpec, Trial, TrialSpec,
};
use kstone_bench::results;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal, Normal};

/// What one engine does in one workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) workload: &'static str,
    pub(crate) kind: &'static str,
    /// Operations a second.
    pub(crate) rate: f64,
    /// The median latency, in nanoseconds.
    pub p50: f64,
}

/// An engine of the sample.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) engine: EngineSpec,
    pub(crate) loads: Vec<Load>,
    /// Of figures from trial to trial, as a share.
    pub(crate) noise: f64,
}

pub(crate) fn quiet_machine() -> Machine {
    Machine {
        cpu: "AMD EPYC 7B13".to_owned(),
        cores: 8,
        memory_bytes: 32 << 30,
        governor: "performance".to_owned(),
        kernel: "Linux 6.12.0".to_owned(),
        file_system: "ext4 (rw,relatime)".to_owned(),
        disk: "nvme0n1, 256.0 GiB, solid state".to_owned(),
        fsync_p50_nanos: 1_300_000,
        read_4k_p50_nanos: 92_000,
        load: 0.12,
        rustc: "rustc 1.95.0".to_owned(),
        version: "0.1.0".to_owned(),
        commit: "0123456789".to_owned(),
        features: vec!["peer-fjall".to_owned(), "peer-redb".to_owned()],
        profile: "release".to_owned(),
        allocator: "system (glibc)".to_owned(),
    }
}

pub(crate) fn file(trials: Vec<Trial>) -> RunFile {
    RunFile {
        schema: SCHEMA.to_owned(),
        command: "run --workload fillrandom,readrandom --items 1M".to_owned(),
        started: "2026-01-02T03:04:05Z".to_owned(),
        machine: quiet_machine(),
        warnings: Vec::new(),
        chapter: None,
        speed: None,
        trials,
    }
}

/// Trials of all samples, taking turns.
pub(crate) fn trials(samples: &[Sample], count: usize, durability: Durability, seed: u64) -> Vec<Trial> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut trials = Vec::new();
    for number in 0..count {
        for sample in samples {
            let steps = sample.loads.iter().map(|load| step(sample, *load, &mut random)).collect();
            trials.push(Trial {
                spec: spec(sample, durability),
                number,
                steps,
                error: None,
                memory_limited: false,
            });
        }
    }
    trials
}

fn spec(sample: &Sample, durability: Durability) -> TrialSpec {
    let steps = sample.loads.iter().map(|load| StepSpec::of(load.workload)).collect();
    TrialSpec { threads: 4, durability, ..TrialSpec::of(sample.engine.clone(), steps, 1_000_000) }
}

fn set(counters: &mut Counters, name: &str, value: f64) {
    counters.insert(name.to_owned(), value);
}

/// Bytes that were put, and how many times they were merged.
fn rewritten(counters: &mut Counters, bytes: f64, merged: f64) {
    set(counters, counter::USER_BYTES_WRITTEN, bytes);
    set(counters, counter::FLUSH_BYTES, bytes * 1.06);
    set(counters, counter::COMPACTION_BYTES, bytes * merged);
}

fn step(sample: &Sample, load: Load, random: &mut StdRng) -> Step {
    let speed = f64::exp(Normal::new(0.0, sample.noise).unwrap().sample(random));
    let rate = load.rate * speed;
    let writes = load.kind == "put";
    let operations = (rate * 20.0) as u64;
    let latency = latency(load.p50 / speed, writes, random);
    let timeline = timeline(rate, &sample.engine.name, writes, random);
    let marks = if sample.engine.name == "kstone" && writes { marks(random) } else { Vec::new() };
    let user_bytes = operations as f64 * 216.0;
    let reads = if writes { 0.0 } else { operations as f64 };
    let mut counters = BTreeMap::new();
    if sample.engine.name == "kstone" {
        set(&mut counters, counter::FLUSHES, 780.0);
        set(&mut counters, counter::COMPACTIONS, 64.0);
        set(&mut counters, counter::GETS, reads);
        set(&mut counters, counter::RUNS_LOOKED_AT, reads * 2.1);
        set(&mut counters, counter::FILTER_NEGATIVES, operations as f64);
        set(&mut counters, counter::FILTER_FALSE_POSITIVES, operations as f64 * 0.0094);
        if writes {
            rewritten(&mut counters, user_bytes, 2.2);
        }
    }
    Step {
        workload: load.workload.to_owned(),
        operations,
        seconds: 20.0,
        rate,
        warm_up_operations: operations / 5,
        warm_up_seconds: 4.0,
        steady: true,
        resources: Resources {
            cpu_user: 31.0 / speed,
            cpu_system: 9.0,
            write_bytes: if writes { (user_bytes * 4.1) as u64 } else { 0 },
            read_bytes: 4096,
            peak_resident: 412 << 20,
            peak_anonymous: 180 << 20,
            longest: latency.max,
        },
        latencies: BTreeMap::from([(load.kind.to_owned(), latency)]),
        timeline,
        marks,
        counters,
        write_amplification: writes.then_some(4.1),
        space_amplification: Some(1.23),
        disk_bytes: 260 << 20,
        ..Step::default()
    }
}

/// A bulk, and a tail of those that waited for a disk.
pub(crate) fn latency(p50: f64, writes: bool, random: &mut StdRng) -> Latency {
    let bulk = LogNormal::new(p50.ln(), 0.35).unwrap();
    let tail = LogNormal::new((p50 * 20.0).ln(), 0.5).unwrap();
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    for _ in 0..20_000 {
        let slow = random.random_range(0.0..1.0) < if writes { 0.02 } else { 0.005 };
        let nanos = if slow { tail.sample(random) } else { bulk.sample(random) };
        histogram.record(nanos as u64).unwrap();
    }
    results::latency(&histogram).unwrap()
}

fn timeline(rate: f64, engine: &str, writes: bool, random: &mut StdRng) -> Vec<Slice> {
    let noise = Normal::new(1.0, 0.04).unwrap();
    let slice = |n: u32| {
        // Trees write in bursts, and are slower meanwhile.
        let dip = if writes && engine != "redb" && n % 25 < 5 { 0.7 } else { 1.0 };
        Slice {
            end: f64::from(n + 1) * 0.2,
            operations: (rate * 0.2 * dip * noise.sample(random)) as u64,
            slowest: 3_000_000,
            anonymous_bytes: u64::from(n) << 20,
            runs: None,
        }
    };
    (0..100).map(slice).collect()
}

fn marks(random: &mut StdRng) -> Vec<(f64, MarkKind)> {
    let mut marks = Vec::new();
    for burst in 0..4 {
        let begin = f64::from(burst) * 5.0;
        marks.extend((0..195).map(|_| (begin + random.random_range(0.0..1.0), MarkKind::Flush)));
        marks.extend((0..16).map(|_| (begin + random.random_range(0.4..2.5), MarkKind::Compaction)));
    }
    marks
}

/// Ours, and peers that are faster in one thing and slower in the other.
pub(crate) fn peers() -> Vec<Sample> {
    let sample = |engine: &str, write: f64, read: f64| Sample {
        engine: EngineSpec::parse(engine),
        noise: 0.02,
        loads: vec![
            Load { workload: "fillrandom", kind: "put", rate: write, p50: 4e9 / write * 0.8 },
            Load { workload: "readrandom", kind: "get", rate: read, p50: 4e9 / read * 0.8 },
        ],
    };
    vec![
        sample("kstone", 212_400.0, 1_050_000.0),
        sample("fjall", 168_000.0, 610_000.0),
        sample("redb", 41_000.0, 890_000.0),
        sample("heed", 72_000.0, 2_310_000.0),
        sample("rusqlite-tuned", 58_000.0, 160_000.0),
    ]
}

/// A file as `run --engine kstone,...` makes it, in both durabilities.
pub(crate) fn run_file() -> RunFile {
    let mut all = trials(&peers(), 5, Durability::Buffered, 1);
    let mut durable = peers();
    for sample in &mut durable {
        sample.loads.truncate(1);
        for load in &mut sample.loads {
            (load.workload, load.rate) = ("fillsync", load.rate / 60.0);
            load.p50 *= 60.0;
        }
    }
    all.extend(trials(&durable, 5, Durability::Sync, 2));
    file(all)
}

/// A file as sweeps make it: of `sst_threshold` with writes, of the number of runs with reads, of bits per key.
pub(crate) fn sweep_file() -> RunFile {
    let mut random = StdRng::seed_from_u64(9);
    let mut all = Vec::new();
    for number in 0..5 {
        let mut add = |settings: String, load: Load, random: &mut StdRng, change: &dyn Fn(&mut Counters)| {
            let mut trial = one(&settings, load, random);
            change(&mut trial.steps[0].counters);
            all.push(Trial { number, ..trial });
        };
        for k in [4, 6, 10, 16, 20] {
            let merged = (14.0 / (f64::from(k) + 2.0) + 0.6) * random.random_range(0.98..1.02);
            let settings = format!("max_memtable_records=200,stripes=16,sst_threshold={k}");
            let load = Load { workload: "fillrandom", kind: "put", rate: 2e5, p50: 1.5e4 };
            add(settings, load, &mut random, &|counters| rewritten(counters, 1_000_000.0 * 216.0, merged));
        }
        for runs in [2.0, 5.0, 10.0, 20.0, 30.0] {
            for (workload, share) in [("readrandom", 0.5), ("readmissing", 1.0)] {
                let settings = format!("max_memtable_records={},stripes=16", (60_000.0 / runs) as u64);
                let load = Load { workload, kind: "get", rate: 9e5, p50: 900.0 + runs * 60.0 * share };
                add(settings, load, &mut random, &|counters| {
                    let gets = counters[counter::GETS];
                    set(counters, counter::RUNS_LOOKED_AT, gets * runs * share);
                    set(counters, "runs", runs * 16.0);
                    set(counters, "stripes_used", 16.0);
                });
            }
        }
        for (bits, rate) in [(6, 0.057), (8, 0.022), (10, 0.0094), (12, 0.0034), (16, 0.00052), (20, 0.00008)]
        {
            let load = Load { workload: "readmissing", kind: "get", rate: 9e5, p50: 1_100.0 };
            let found = (1e7 * rate * random.random_range(0.96..1.04_f64)).round();
            add(format!("bloom_bits_per_key={bits}"), load, &mut random, &|counters| {
                set(counters, counter::FILTER_NEGATIVES, 1e7);
                set(counters, counter::FILTER_FALSE_POSITIVES, found);
            });
        }
    }
    file(all)
}

fn one(settings: &str, load: Load, random: &mut StdRng) -> Trial {
    let engine = EngineSpec { settings: settings.to_owned(), ..EngineSpec::new("kstone") };
    let sample = Sample { engine, loads: vec![load], noise: 0.02 };
    let seed = random.random_range(0..u64::MAX);
    trials(&[sample], 1, Durability::Buffered, seed).remove(0)
}
