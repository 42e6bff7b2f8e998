//! Runs one step on an open database: threads send requests, a sampler watches them, and the results are put together.
//!
//! *Closed loop*: each thread sends its next request as soon as it has the answer. This finds the highest throughput;
//! latencies are service times. *Open loop*: operation `i` is due at `i / rate` after the start, whatever happened to
//! the previous ones, and its latency counts from that moment, so that queueing is included (this avoids what Tene
//! calls coordinated omission); the service time is recorded as well.
//!
//! Measuring starts when throughput is steady, or after a fifth of the step at the latest; the time before is reported
//! as warm-up and left out.

#![expect(clippy::disallowed_methods, reason = "it measures how long operations take")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::data::{BenchKey, Layout, Values};
use crate::engine::{Counters, Engine, Session, counter};
use crate::record::{Slice, Step, StepSpec, TrialSpec};
use crate::resources::Usage;
use crate::workload::keys::Chooser;
use crate::workload::{
    EXAMPLE_SECONDS, Keys, MULTI_GET_KEYS, Operation, PARTITION_ITEMS, QUERY_ITEMS, Task, Workload,
};

mod pace;
mod sampler;
mod tally;

use pace::Pace;
use sampler::Watched;
use tally::Tally;

/// A trial's database, and the state that its steps share.
pub struct Bench<'a> {
    /// The trial, resolved.
    pub spec: &'a TrialSpec,
    pub engine: &'a dyn Engine,
    /// The layout of the keys.
    pub layout: Layout,
    pub values: Values,
    /// Items below this have been written; it is the next to be inserted.
    pub end: AtomicU64,
    /// Whether answers are checked; those of the engine that does nothing are not.
    pub checks: bool,
}

/// The work of one thread.
#[derive(Clone, Copy)]
struct Role<'a> {
    thread: usize,
    threads: usize,
    mix: &'a [(Operation, u32)],
    keys: Keys,
    /// The number of operations; `None`: until other threads stop it.
    operations: Option<u64>,
    /// The offered rate, in operations a second.
    rate: Option<f64>,
    /// Whether it only provides the load beside the threads that are measured: then it does not take a core by spinning.
    beside: bool,
    /// See [`Bench::is_whole`].
    whole: bool,
}

impl Role<'_> {
    fn pace(&self, start: Instant, rate: f64) -> Pace {
        let pace = Pace::new(start, rate, self.thread as f64 / self.threads as f64);
        if self.beside { pace.without_spinning() } else { pace }
    }
}

impl Bench<'_> {
    pub fn step(&self, number: usize, step: &StepSpec) -> Result<Step> {
        let workload = Workload::by_name(&step.workload)?;
        match workload.task {
            Task::Operations => {
                let operations = self.operations(number, step, workload);
                let done = operations.with_context(|| workload.name.clone())?;
                let cut =
                    step.seconds.is_some() || step.operations.is_some_and(|most| most < self.spec.items);
                if workload.fills() && !cut {
                    self.end.fetch_max(self.spec.items, Ordering::Relaxed);
                }
                Ok(done)
            }
            Task::Scan | Task::ScanUnordered => {
                let whole = self.is_whole(number)?;
                let ordered = workload.task == Task::Scan;
                self.once(step, "scan", |bench| bench.scan_all(ordered, whole))
            }
            Task::Compact => self.once(step, "compact", |bench| bench.engine.compact().map(|()| (1, 0))),
            Task::Settle => self.once(step, "settle", |bench| bench.engine.settle().map(|()| (1, 0))),
            Task::CloseOpen | Task::Reopen | Task::ReopenCold => {
                Err(anyhow!("{}: the owner of the database does that", workload.name))
            }
        }
    }

    /// Runs one thing that is timed as a whole; `work` returns the number of operations, and of wrong answers.
    fn once(
        &self,
        step: &StepSpec,
        kind: &'static str,
        work: impl FnOnce(&Self) -> Result<(u64, u64)>,
    ) -> Result<Step> {
        let watched = Watched::new(0);
        let begin = self.begin()?;
        let (done, ended, sampled) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| sampler::watch(&watched, self.engine, None));
            let started = Instant::now();
            let done = work(self);
            // The time until the sampler notices is excluded.
            let ended = (started.elapsed(), Instant::now());
            watched.stop.store(true, Ordering::Relaxed);
            (done, ended, sampler.join())
        });
        let mut figures = Tally::default();
        let nanos = ended.0.as_nanos() as u64;
        figures.record(kind, None, nanos, nanos);
        let (operations, wrong) = done?;
        (figures.operations, figures.wrong) = (operations, wrong);
        let sampled = sampled.map_err(|_| anyhow!("the sampler panicked"))??;
        self.summary(step, (&begin, ended.1), figures, sampled)
    }

    /// Each thread reads everything; an item is an operation.
    fn scan_all(&self, ordered: bool, whole: bool) -> Result<(u64, u64)> {
        let scan = || -> Result<(u64, u64)> {
            let (mut session, mut wrong) = (self.engine.session()?, 0);
            let mut visit = |value: &[u8]| {
                wrong += u64::from(self.checks && !self.values.check(value, |_, _| true));
            };
            // The engine that does nothing never ends a scan.
            let end = self.end.load(Ordering::Relaxed);
            let limit = self.spec.items.max(end) * 2;
            let found = match ordered {
                true => session.scan(limit, &mut visit)?,
                false => session.scan_unordered(limit, &mut visit)?,
            };
            wrong += if whole { found.abs_diff(end) } else { 0 };
            Ok((found, wrong))
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.spec.threads).map(|_| scope.spawn(scan)).collect();
            let mut all = (0, 0);
            for thread in threads {
                let (found, wrong) = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
                all = (all.0 + found, all.1 + wrong);
            }
            Ok(all)
        })
    }

    fn operations(&self, number: usize, step: &StepSpec, workload: &Workload) -> Result<Step> {
        let limited = step.operations.is_some() || step.seconds.is_some();
        let example = (workload.example.is_some() && !limited).then_some(EXAMPLE_SECONDS);
        let seconds = step.seconds.or(example);
        let given = if seconds.is_some() { None } else { workload.operations_for(self.spec.items) };
        let operations = step.operations.or(given);
        let rate = step.rate.filter(|rate| *rate > 0.0);
        let threads = self.spec.threads;
        let beside = workload.beside.map(|operation| [(operation, 1)]);
        let share = |thread: usize| {
            let (threads, thread) = (threads as u64, thread as u64);
            operations.map(|all| all / threads + u64::from(thread < all % threads))
        };
        let whole = self.is_whole(number)?;
        let role = |thread| Role {
            thread,
            threads,
            mix: &workload.mix,
            keys: workload.keys,
            operations: share(thread),
            rate: if beside.is_some() { None } else { rate.map(|rate| rate / threads as f64) },
            beside: false,
            whole,
        };
        let mut roles: Vec<Role<'_>> = (0..threads).map(role).collect();
        if let Some(mix) = &beside {
            let keys = Keys::Uniform;
            let thread = threads;
            roles.push(Role { thread, threads: 1, mix, keys, operations: None, rate, beside: true, whole });
        }
        let watched = Watched::new(roles.len());
        let limits = sampler::Limits { operations, seconds, warm_up: rate.is_none() };
        // Before the threads start: without a warm-up, their first operations count.
        watched.measuring.store(!limits.warm_up, Ordering::Relaxed);
        let begin = self.begin()?;
        let (figures, ended, sampled) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| sampler::watch(&watched, self.engine, Some(limits)));
            let mut working = Vec::new();
            for role in &roles {
                let (watched, start) = (&watched, begin.at);
                working.push(scope.spawn(move || {
                    let done = self.work(number, role, watched, start);
                    // A failure ends all threads; so does the end of the threads that count.
                    if done.is_err() || role.thread < role.threads && watched.finished() >= threads {
                        watched.stop.store(true, Ordering::Relaxed);
                    }
                    done
                }));
            }
            let figures: Vec<_> = working.into_iter().map(|thread| thread.join()).collect();
            let ended = Instant::now();
            watched.stop.store(true, Ordering::Relaxed);
            (figures, ended, sampler.join())
        });
        let figures = figures.into_iter().map(|figures| figures.map_err(|_| anyhow!("a thread panicked"))?);
        let figures = figures.collect::<Result<Vec<_>>>()?;
        let mut sampled = sampled.map_err(|_| anyhow!("the sampler panicked"))??;
        // A short step may end before any thread sees that measuring has started: then all of it counts.
        let measured = figures.iter().any(|figures| figures.measured);
        if !measured {
            (sampled.begin, sampled.warm_up) = (None, (0, 0.0));
        }
        let mut all = Tally::default();
        for figures in figures.iter().filter(|figures| figures.measured == measured) {
            all.add(figures)?;
        }
        let mut done = self.summary(step, (&begin, ended), all, sampled)?;
        done.offered = rate;
        Ok(done)
    }

    /// Whether every item must be found: all were written before the step, and none is removed before its end.
    fn is_whole(&self, number: usize) -> Result<bool> {
        for step in self.spec.steps.iter().take(number + 1) {
            if Workload::by_name(&step.workload)?.deletes() {
                return Ok(false);
            }
        }
        Ok(self.checks && self.end.load(Ordering::Relaxed) >= self.spec.items)
    }

    /// The work of one thread.
    fn work(&self, number: usize, role: &Role<'_>, watched: &Watched, start: Instant) -> Result<Tally> {
        let mut random =
            StdRng::seed_from_u64(self.spec.seed ^ ((number as u64) << 40) ^ ((role.thread as u64) << 32));
        let seed = self.spec.seed.wrapping_add(number as u64);
        let mut chooser =
            Chooser::new(role.keys, self.spec.items, seed, role.thread % role.threads.max(1), role.threads)?;
        let total: u32 = role.mix.iter().map(|(_, weight)| *weight).sum();
        let mut client = Client {
            bench: self,
            session: self.engine.session()?,
            value: Vec::with_capacity(self.spec.value_bytes),
            version: number as u64 + 1,
            whole: role.whole,
            keys: Vec::with_capacity(MULTI_GET_KEYS),
        };
        let mut figures = Tally::default();
        let pace = role.rate.map(|rate| role.pace(start, rate));
        let mut warm = true;
        for i in 0..role.operations.unwrap_or(u64::MAX) {
            if watched.stop.load(Ordering::Relaxed) {
                break;
            }
            if warm && watched.measuring.load(Ordering::Relaxed) {
                warm = false;
                figures = Tally::default();
                figures.measured = true;
            }
            let operation = drawn(role.mix, total, &mut random);
            let Some(item) = chooser.next(&mut random, self.end.load(Ordering::Relaxed).max(1)) else {
                break;
            };
            client.prepare(operation, item, &mut chooser, &mut random);
            let due = pace.as_ref().map(|pace| pace.wait(i));
            let begun = Instant::now();
            let answer = client.ask(operation, item, &mut random)?;
            let ended = Instant::now();
            let service = ended.duration_since(begun).as_nanos() as u64;
            let waited = due.map_or(service, |due| ended.saturating_duration_since(due).as_nanos() as u64);
            figures.record(operation.kind(), due.is_some().then_some(waited), service, waited);
            figures.answered(&answer);
            watched.done(role.thread, waited);
        }
        watched.end();
        Ok(figures)
    }

    fn begin(&self) -> Result<Begin> {
        Ok(Begin { at: Instant::now(), usage: Usage::now()?, counters: self.engine.counters()? })
    }

    /// Combines the results of the threads and the sampler.
    fn summary(
        &self,
        step: &StepSpec,
        (begin, ended): (&Begin, Instant),
        figures: Tally,
        sampled: sampler::Sampled,
    ) -> Result<Step> {
        let now = Usage::now()?;
        let written_bytes = now.write_bytes - begin.usage.write_bytes;
        let begin = sampled.begin.as_ref().unwrap_or(begin);
        let seconds = ended.saturating_duration_since(begin.at).as_secs_f64();
        let counters = since(&begin.counters, self.engine.counters()?);
        let user = figures.bytes_written as f64;
        let written = [counter::FLUSH_BYTES, counter::COMPACTION_BYTES, counter::LOG_BYTES];
        let written: Option<f64> = written.iter().map(|name| counters.get(*name)).sum();
        let mut resources = now.since(&begin.usage);
        resources.peak_resident = resources.peak_resident.max(sampled.peak_resident);
        resources.peak_anonymous = resources.peak_anonymous.max(sampled.peak_anonymous);
        resources.longest = figures.longest;
        let given = resources.write_bytes as f64;
        let marks = self.engine.marks().into_iter().filter(|mark| mark.at >= begin.at);
        Ok(Step {
            workload: step.workload.clone(),
            operations: figures.operations,
            seconds,
            rate: figures.operations as f64 / seconds.max(1e-9),
            not_found: figures.not_found,
            wrong: figures.wrong,
            warm_up_operations: sampled.warm_up.0,
            warm_up_seconds: sampled.warm_up.1,
            steady: sampled.steady,
            latencies: figures.latencies()?,
            marks: marks.map(|mark| (mark.at.duration_since(begin.at).as_secs_f64(), mark.kind)).collect(),
            resources,
            write_amplification: (user > 0.0).then(|| written.unwrap_or(given) / user),
            counters,
            timeline: sampled.slices,
            written_bytes,
            ..Step::default()
        })
    }
}

/// The start of the measurement.
struct Begin {
    at: Instant,
    usage: Usage,
    counters: Counters,
}

/// Counters that are not totals: the result has their value at the end.
const GAUGES: [&str; 10] = [
    counter::LONGEST_STALL_NANOS,
    counter::FILTER_BYTES,
    counter::MEMTABLE_BYTES,
    counter::REPLAY_BYTES,
    "runs",
    "stripes_used",
    "index_memory_bytes",
    "sst_bytes",
    "space_amplification_estimate",
    "table_readers_memory_bytes",
];

fn since(before: &Counters, mut now: Counters) -> Counters {
    for (name, value) in &mut now {
        if !GAUGES.contains(&name.as_str()) {
            *value -= before.get(name).unwrap_or(&0.0);
        }
    }
    now
}

fn drawn(mix: &[(Operation, u32)], total: u32, random: &mut StdRng) -> Operation {
    if let [(only, _)] = mix {
        return *only;
    }
    let mut at = random.random_range(0..total.max(1));
    for (operation, weight) in mix {
        if at < *weight {
            return *operation;
        }
        at -= weight;
    }
    Operation::Get
}

/// A thread's session and buffers.
struct Client<'a> {
    bench: &'a Bench<'a>,
    session: Box<dyn Session + 'a>,
    value: Vec<u8>,
    version: u64,
    /// See [`Bench::is_whole`].
    whole: bool,
    keys: Vec<(u64, BenchKey)>,
}

/// The outcome of an operation.
#[derive(Default)]
struct Answer {
    not_found: u64,
    wrong: u64,
    bytes_written: u64,
}

impl Client<'_> {
    /// Prepares what a caller would have at hand, which is not part of the operation: values, and the keys for several
    /// reads.
    fn prepare(&mut self, operation: Operation, item: u64, chooser: &mut Chooser, random: &mut StdRng) {
        if operation == Operation::Put {
            self.bench.values.fill(item, self.version, &mut self.value);
        }
        if operation == Operation::MultiGet {
            self.keys.clear();
            let end = self.bench.end.load(Ordering::Relaxed).max(1);
            let mut next = Some(item);
            while let Some(item) = next.filter(|_| self.keys.len() < MULTI_GET_KEYS) {
                self.keys.push((item, BenchKey::new(self.bench.layout, item)));
                next = chooser.next(random, end);
            }
        }
    }

    fn ask(&mut self, operation: Operation, item: u64, random: &mut StdRng) -> Result<Answer> {
        let layout = self.bench.layout;
        match operation {
            Operation::Put => self.put(item),
            Operation::Insert => {
                let item = self.bench.end.fetch_add(1, Ordering::Relaxed);
                self.bench.values.fill(item, self.version, &mut self.value);
                self.put(item)
            }
            Operation::Delete => {
                self.session.delete(&BenchKey::new(layout, item))?;
                Ok(Answer {
                    bytes_written: BenchKey::new(layout, item).flat().len() as u64,
                    ..Answer::default()
                })
            }
            Operation::Get => self.get(item),
            Operation::GetMissing => {
                // Far beyond the last item, and scattered between the others.
                let answer = self.get(item + (1 << 40))?;
                Ok(Answer {
                    wrong: u64::from(answer.not_found == 0 && self.bench.checks),
                    ..Answer::default()
                })
            }
            Operation::MultiGet => self.multi_get(),
            Operation::Query => {
                let within = item % PARTITION_ITEMS.max(1);
                let from = item - within.saturating_sub(PARTITION_ITEMS - QUERY_ITEMS);
                self.query(from, QUERY_ITEMS)
            }
            Operation::Partition => self.partition(item),
            Operation::Scan => self.query(item, random.random_range(1..=100)),
            Operation::ReadModifyWrite => {
                let read = self.get(item)?;
                self.bench.values.fill(item, self.version, &mut self.value);
                let written = self.put(item)?;
                Ok(Answer { bytes_written: written.bytes_written, ..read })
            }
        }
    }

    fn put(&mut self, item: u64) -> Result<Answer> {
        let key = BenchKey::new(self.bench.layout, item);
        self.session.put(&key, &self.value)?;
        let bytes_written = (key.flat().len() + self.value.len()) as u64;
        Ok(Answer { bytes_written, ..Answer::default() })
    }

    fn get(&mut self, item: u64) -> Result<Answer> {
        let Self { bench, session, version, .. } = self;
        let mut right = false;
        let key = BenchKey::new(bench.layout, item);
        // Each step writes with its own number.
        let found = session.get(&key, &mut |value| {
            right = bench.values.check(value, |n, written| n == item && (1..=*version).contains(&written));
        })?;
        let wrong = match found {
            true => bench.checks && !right,
            false => self.whole && item < bench.spec.items,
        };
        Ok(Answer { not_found: u64::from(!found), wrong: u64::from(wrong), ..Answer::default() })
    }

    fn multi_get(&mut self) -> Result<Answer> {
        let Self { bench, session, keys, .. } = self;
        let asked: Vec<BenchKey> = keys.iter().map(|(_, key)| key.clone()).collect();
        let (mut wrong, mut at) = (0, 0);
        let found = session.multi_get(&asked, &mut |value| {
            // Answers come in key order, without absent ones.
            let right = bench.values.check(value, |seen, _| {
                let place = keys.iter().skip(at).position(|(item, _)| *item == seen);
                at += place.map_or(0, |place| place + 1);
                place.is_some()
            });
            wrong += u64::from(bench.checks && !right);
        })?;
        let not_found = (keys.len() as u64).saturating_sub(found);
        let new = keys.iter().filter(|(item, _)| *item >= bench.spec.items).count() as u64;
        wrong += if self.whole { not_found.saturating_sub(new) } else { 0 };
        Ok(Answer { not_found, wrong, ..Answer::default() })
    }

    fn query(&mut self, from: u64, limit: u64) -> Result<Answer> {
        let key = BenchKey::new(self.bench.layout, from);
        let (found, wrong) = self.in_order(from, |session, visit| session.query(&key, limit, visit))?;
        Ok(Answer { not_found: u64::from(found == 0), wrong, ..Answer::default() })
    }

    /// The partition of an item.
    fn partition(&mut self, item: u64) -> Result<Answer> {
        let size = self.bench.layout.partition_items();
        let first = item - item % size;
        let key = BenchKey::new(self.bench.layout, first);
        let (found, mut wrong) = self.in_order(first, |session, visit| session.partition(&key, visit))?;
        if self.whole {
            wrong += found.abs_diff(size.min(self.bench.end.load(Ordering::Relaxed).saturating_sub(first)));
        }
        Ok(Answer { not_found: u64::from(found == 0), wrong, ..Answer::default() })
    }

    /// Reads items in order from `least` on; returns the number found, and of wrong values.
    fn in_order(
        &mut self,
        mut least: u64,
        read: impl FnOnce(&mut dyn Session, &mut dyn FnMut(&[u8])) -> Result<u64>,
    ) -> Result<(u64, u64)> {
        let Self { bench, session, version, .. } = self;
        let mut wrong = 0;
        let found = read(&mut **session, &mut |value| {
            let right = bench.values.check(value, |item, written| {
                let right = item >= least && written <= *version;
                least = item + 1;
                right
            });
            wrong += u64::from(bench.checks && !right);
        })?;
        Ok((found, wrong))
    }
}
