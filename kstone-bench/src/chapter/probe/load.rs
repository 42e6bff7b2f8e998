//! A load on the database: trials with the few workloads that the tables need, closed loop or open.
//!
//! In a closed loop a latency is service time; in an open one it counts from the moment an operation was due, whenever it
//! began. One thread asks; where "others write", one more does. Nothing is left out as warm-up: a fill is followed by the
//! step that counts, and a fill's throughput has its rounds from the first on.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Found, absent, anonymous_memory, cpu, histogram, record};
use crate::data::{BenchKey, Layout, Values, splitmix};
use crate::engine::{self, Counters, Engine, Session, counter};
use crate::record::{Latency, Resources, Step, StepSpec, Trial, TrialSpec};

/// Below this a wait spins, as sleeping takes longer than it is asked to.
const SPIN: Duration = Duration::from_micros(200);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// What to do.
    pub spec: TrialSpec,
    /// Which of the trials it is.
    pub number: usize,
}

/// Of a workload: gets among its operations, in hundredths, and what else there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mix {
    gets: u64,
    /// Gets ask for what is there.
    there: bool,
    /// Another thread writes meanwhile.
    beside: bool,
}

fn mix(workload: &str) -> Result<Mix> {
    let (gets, there, beside) = match workload {
        "fillrandom" | "log-ingestion" => (0, true, false),
        "readmissing" => (100, false, false),
        "readwhilewriting" => (100, true, true),
        "readrandomwriterandom" => (90, true, false),
        // 50,000 of 55,000, and 500 of 600.
        "low-latency-cache" => (91, true, false),
        "embedded" => (83, true, false),
        other => bail!("{other}: no workload of the chapter's loads"),
    };
    Ok(Mix { gets, there, beside })
}

/// What one thread did.
struct Done {
    gets: Histogram<u64>,
    puts: Histogram<u64>,
    not_found: u64,
    wrong: u64,
}

impl Load {
    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        let engine = engine::open(&self.spec.engine, directory, self.spec.durability)?;
        let mut steps = Vec::new();
        for spec in &self.spec.steps {
            steps.push(self.step(&*engine, directory, spec)?);
        }
        engine.close()?;
        let trial =
            Trial { spec: self.spec.clone(), number: self.number, steps, error: None, memory_limited: false };
        Ok(Found { trial: Some(Box::new(trial)), ..Found::default() })
    }

    fn step(&self, engine: &dyn Engine, directory: &Path, spec: &StepSpec) -> Result<Step> {
        let mix = mix(&spec.workload)?;
        if spec.workload == "readmissing" {
            engine.settle()?;
        }
        let (before, used, written) = (engine.counters()?, cpu(), written_bytes());
        let (stop, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        let start = Instant::now();
        let done = std::thread::scope(|scope| {
            scope.spawn(|| watch(&stop, &peak));
            let beside = mix.beside.then(|| scope.spawn(|| self.beside(engine, &stop)));
            let done = self.ask(engine, spec, mix, start);
            let seconds = start.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            match beside.map(|thread| thread.join()) {
                Some(Err(_)) => Err(anyhow!("the thread that writes panicked")),
                Some(Ok(Err(error))) => Err(error),
                _ => done.map(|done| (done, seconds)),
            }
        });
        let (done, seconds) = done?;
        let operations = done.gets.len() + done.puts.len();
        let counters = since(&before, engine.counters()?);
        let disk_bytes = size(directory)?;
        // Keys are drawn from all of them: when each was drawn once on average, 1 - 1/e are there.
        let live = self.spec.items as f64 * (1.0 - (-1.0_f64).exp()) * (self.spec.value_bytes + 16) as f64;
        let latencies =
            [("get", &done.gets), ("put", &done.puts)].into_iter().filter(|(_, of)| !of.is_empty());
        Ok(Step {
            workload: spec.workload.clone(),
            operations,
            seconds,
            rate: operations as f64 / seconds,
            offered: spec.rate,
            not_found: done.not_found,
            wrong: done.wrong,
            latencies: latencies
                .map(|(kind, of)| (kind.to_owned(), latency(of, spec.rate.is_some())))
                .collect(),
            resources: Resources {
                cpu_user: (cpu() - used).as_secs_f64(),
                write_bytes: (written_bytes() - written) as u64,
                peak_anonymous: peak.load(Ordering::Relaxed),
                longest: done.gets.max().max(done.puts.max()),
                ..Resources::default()
            },
            space_amplification: Some(disk_bytes as f64 / live),
            disk_bytes,
            counters,
            ..Step::default()
        })
    }

    /// Operations of the thread that is measured.
    fn ask(&self, engine: &dyn Engine, spec: &StepSpec, mix: Mix, start: Instant) -> Result<Done> {
        let values = Values::new(self.spec.value_bytes, self.spec.seed)?;
        let mut session = engine.session()?;
        let mut done = Done { gets: histogram()?, puts: histogram()?, not_found: 0, wrong: 0 };
        let until = spec.seconds.map(Duration::from_secs_f64);
        let (mut random, mut value, mut asked) = (splitmix(self.spec.seed), Vec::new(), 0);
        while spec.operations.is_none_or(|operations| asked < operations)
            && until.is_none_or(|until| start.elapsed() < until)
        {
            let due = spec.rate.map(|rate| start + Duration::from_secs_f64(asked as f64 / rate));
            due.iter().for_each(|due| wait_until(*due));
            random = splitmix(random);
            let n = random % self.spec.items;
            let begun = due.unwrap_or_else(Instant::now);
            if (random >> 40) % 100 < mix.gets {
                let n = if mix.there { n } else { absent(n) };
                get(&mut *session, &values, n, mix.there, &mut done)?;
                record(&mut done.gets, begun.elapsed().as_nanos() as u64);
            } else {
                values.fill(n, asked, &mut value);
                session.put(&BenchKey::new(Layout::Scattered, n), &value)?;
                record(&mut done.puts, begun.elapsed().as_nanos() as u64);
            }
            asked += 1;
        }
        Ok(done)
    }

    /// The thread that writes while another reads.
    fn beside(&self, engine: &dyn Engine, stop: &AtomicBool) -> Result<()> {
        let values = Values::new(self.spec.value_bytes, self.spec.seed)?;
        let mut session = engine.session()?;
        let (mut random, mut value) = (splitmix(!self.spec.seed), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            random = splitmix(random);
            let n = random % self.spec.items;
            values.fill(n, random, &mut value);
            session.put(&BenchKey::new(Layout::Scattered, n), &value)?;
        }
        Ok(())
    }
}

fn get(session: &mut dyn Session, values: &Values, n: u64, there: bool, done: &mut Done) -> Result<()> {
    let mut item = None;
    let found = session.get(&BenchKey::new(Layout::Scattered, n), &mut |value| item = values.read(value))?;
    done.not_found += u64::from(!found);
    // What was never drawn is not there, but what is there must be what was asked for.
    let right = !found || (there && item.is_some_and(|(item, _)| item == n));
    done.wrong += u64::from(!right);
    Ok(())
}

fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SPIN {
            std::thread::sleep(left - SPIN);
        } else {
            std::hint::spin_loop();
        }
    }
}

fn watch(stop: &AtomicBool, peak: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        // Where the system does not tell, the peak stays 0.
        peak.fetch_max(anonymous_memory().unwrap_or(0.0) as u64, Ordering::Relaxed);
        std::thread::sleep(LOOK);
    }
}

/// Totals of a step; what is no total stays as it is.
fn since(before: &Counters, mut after: Counters) -> Counters {
    let kept = [
        counter::MEMTABLE_BYTES,
        counter::REPLAY_BYTES,
        counter::LONGEST_STALL_NANOS,
        counter::FILTER_BYTES,
        "runs",
        "sst_bytes",
    ];
    for (name, value) in &mut after {
        if !kept.contains(&name.as_str()) {
            *value -= before.get(name).copied().unwrap_or(0.0);
        }
    }
    after
}

fn latency(of: &Histogram<u64>, from_intended: bool) -> Latency {
    Latency {
        from_intended,
        count: of.len(),
        mean: of.mean(),
        p50: of.value_at_quantile(0.5),
        p90: of.value_at_quantile(0.9),
        p99: of.value_at_quantile(0.99),
        p999: of.value_at_quantile(0.999),
        max: of.max(),
        ..Latency::default()
    }
}

fn written_bytes() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    bytes.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0.0)
}

fn size(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}
