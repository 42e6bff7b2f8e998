//! A trial: one process, one database in a fresh directory, its steps one after the other.
//!
//! The parent makes the directory and the limit on memory, starts the child, which is this program with the command
//! `trial`, and gives it a job as one line of JSON. The child answers each step with a line of its own. To die
//! without closing the database, it asks to be killed, and another child goes on.

#![expect(clippy::disallowed_methods, reason = "it starts processes, times an open, and drops caches")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use crate::cgroup::Group;
use crate::data::Values;
use crate::driver::Bench;
use crate::engine::{self, Durability, Engine};
use crate::record::{Latency, Resources, Step, Trial, TrialSpec};
use crate::resources::{Usage, directory_bytes};
use crate::workload::{Task, Workload, plan};

/// How trials are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory that exists; databases are made in it and removed again.
    pub directory: PathBuf,
    /// Trials of each spec.
    pub trials: usize,
    /// Databases are left where they are.
    pub keep: bool,
    /// What runs a trial when called with `trial`: this program.
    pub program: PathBuf,
}

/// Runs trials of all these, interleaved: a trial of each, then the next of each, so that what changes on the machine
/// meanwhile changes all alike. `progress` is told what begins. A trial that fails is in the result with its error.
///
/// # Errors
/// A spec cannot be run as it is: no such workload, or steps that do not go together.
pub fn run_all(specs: &[TrialSpec], options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Vec<Trial>> {
    let specs: Vec<TrialSpec> = specs.iter().map(plan::resolve).collect::<Result<_>>()?;
    let mut trials = Vec::new();
    for number in 0..options.trials {
        for spec in &specs {
            let steps: Vec<_> = spec.steps.iter().map(|step| step.workload.as_str()).collect();
            progress(&format!(
                "trial {} of {}: {}, {}",
                number + 1,
                options.trials,
                spec.engine.label(),
                steps.join(", ")
            ));
            trials.push(run(spec, number, options)?);
        }
    }
    Ok(trials)
}

/// What a child is told.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    spec: TrialSpec,
    directory: PathBuf,
    /// The first step to do; one that reopens is done by opening.
    from: usize,
    /// Items below this were written.
    end: u64,
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// A step has ended; and items below this were written.
    Done(Box<Step>, u64),
    /// The next step wants it killed.
    Kill,
    /// The database is closed.
    End,
}

fn run(spec: &TrialSpec, number: usize, options: &Options) -> Result<Trial> {
    let mut trial =
        Trial { spec: spec.clone(), number, steps: Vec::new(), error: None, memory_limited: false };
    let mut made = tempfile::Builder::new().prefix("kstone-bench-").tempdir_in(&options.directory);
    let directory = made.as_mut().map_err(|error| anyhow!("{}: {error}", options.directory.display()))?;
    directory.disable_cleanup(options.keep);
    let group = match spec.memory_limit.map(Group::new).transpose() {
        Ok(group) => group,
        Err(error) => {
            eprintln!("kstone-bench: no limit on memory: {error:#}");
            None
        }
    };
    trial.memory_limited = group.is_some();
    let mut end = 0;
    loop {
        let from = trial.steps.len();
        let job = Job { spec: spec.clone(), directory: directory.path().to_owned(), from, end };
        match one_process(&job, group.as_ref(), options, &mut trial.steps) {
            Ok(Left::Ended) => return Ok(trial),
            Ok(Left::Killed(written)) => {
                end = written;
                let step =
                    spec.steps.get(trial.steps.len()).context("a child wants to be killed at its end")?;
                if let Task::Reopen { cold: true } = Workload::by_name(&step.workload)?.task {
                    drop_from_cache(directory.path())?;
                }
            }
            Err(error) => {
                trial.error = Some(format!("{error:#}"));
                return Ok(trial);
            }
        }
    }
}

/// Why a child has ended.
enum Left {
    Ended,
    Killed(u64),
}

fn one_process(job: &Job, group: Option<&Group>, options: &Options, steps: &mut Vec<Step>) -> Result<Left> {
    let mut child = Command::new(&options.program)
        .arg("trial")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", options.program.display()))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = pipes else { bail!("a child has no pipes") };
    std::thread::scope(|scope| {
        // Read while it runs, or it would wait for ever once the pipe is full.
        let errors = scope.spawn(|| tail(errors));
        let done = talk(job, group, &mut child, input, output, steps);
        // It has ended, or has nothing more to do.
        let _ = child.kill();
        let status = child.wait();
        let errors = errors.join().unwrap_or_default();
        match (done, status) {
            (Ok(Some(left)), _) => Ok(left),
            (Ok(None), status) => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                bail!("the process of the trial died: {status}. It said: {}", errors.trim())
            }
            (Err(error), _) if errors.trim().is_empty() => Err(error),
            (Err(error), _) => Err(error.context(errors.trim().to_owned())),
        }
    })
}

/// `None`: it ended without a word.
fn talk(
    job: &Job,
    group: Option<&Group>,
    child: &mut Child,
    mut input: ChildStdin,
    output: ChildStdout,
    steps: &mut Vec<Step>,
) -> Result<Option<Left>> {
    if let Some(group) = group {
        // Before it has the job, so that all it takes counts.
        group.add(child.id())?;
    }
    if writeln!(input, "{}", serde_json::to_string(job)?).is_err() {
        return Ok(None);
    }
    let mut end = job.end;
    for line in BufReader::new(output).lines() {
        match serde_json::from_str(&line?).context("a child said something strange")? {
            Message::Done(step, written) => {
                steps.push(*step);
                end = written;
            }
            Message::Kill => return Ok(Some(Left::Killed(end))),
            Message::End => return Ok(Some(Left::Ended)),
        }
    }
    Ok(None)
}

/// The last that somebody said.
fn tail(mut from: impl Read) -> String {
    const KEEP: usize = 2000;
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(KEEP));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn drop_from_cache(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_from_cache(&path)?;
        } else {
            let file = File::open(&path)?;
            // Only what is on the disk can be dropped.
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// The child: reads a job, does it, answers.
///
/// # Errors
/// The job is none, or the engine fails.
pub fn serve() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line).context("this command is for kstone-bench itself")?;
    let say = |message: &Message| -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(message)?)?;
        Ok(out.flush()?)
    };
    let spec = &job.spec;
    let durability = |step: &crate::record::StepSpec| -> Result<Durability> {
        Ok(Workload::by_name(&step.workload)?.durability.unwrap_or(spec.durability))
    };
    let first = spec.steps.get(job.from).context("there is no such step")?;
    let mut open = durability(first)?;
    let (opened, mut engine) = timed_open(&job, open)?;
    let end = AtomicU64::new(job.end);
    for (number, step) in spec.steps.iter().enumerate().skip(job.from) {
        let workload = Workload::by_name(&step.workload)?;
        let mut done = if let Task::Reopen { .. } = workload.task {
            if number > job.from {
                say(&Message::Kill)?;
                // Until it happens.
                loop {
                    std::thread::park();
                }
            }
            reopened(&opened, &*engine)?
        } else {
            if durability(step)? != open {
                engine.close()?;
                open = durability(step)?;
                engine = timed_open(&job, open)?.1;
            }
            let bench = Bench {
                spec,
                engine: &*engine,
                layout: plan::layout(spec)?,
                values: Values::new(spec.value_bytes, spec.seed)?,
                end: AtomicU64::new(end.load(Ordering::Relaxed)),
                checks: spec.engine.engine() != "noop",
            };
            let done = bench.step(number, step)?;
            end.store(bench.end.load(Ordering::Relaxed), Ordering::Relaxed);
            done
        };
        done.workload.clone_from(&step.workload);
        done.durability = Some(open);
        let end = end.load(Ordering::Relaxed);
        measure_space(&mut done, &job, number, end)?;
        say(&Message::Done(Box::new(done), end))?;
    }
    engine.close()?;
    say(&Message::End)
}

/// How long an open took, and what it took.
struct Opened {
    seconds: f64,
    resources: Resources,
}

fn timed_open(job: &Job, durability: Durability) -> Result<(Opened, Box<dyn Engine>)> {
    let (before, start) = (Usage::now()?, Instant::now());
    let engine = engine::open(&job.spec.engine, &job.directory, durability)?;
    let (seconds, after) = (start.elapsed().as_secs_f64(), Usage::now()?);
    let resources = Resources {
        cpu_user: after.cpu_user - before.cpu_user,
        cpu_system: after.cpu_system - before.cpu_system,
        read_bytes: after.read_bytes - before.read_bytes,
        write_bytes: after.write_bytes - before.write_bytes,
        peak_resident: after.resident,
        peak_anonymous: after.anonymous,
        longest: (seconds * 1e9) as u64,
    };
    Ok((Opened { seconds, resources }, engine))
}

fn reopened(opened: &Opened, engine: &dyn Engine) -> Result<Step> {
    let nanos = opened.resources.longest;
    let mean = nanos as f64;
    let latency = Latency {
        count: 1,
        mean,
        p50: nanos,
        p90: nanos,
        p99: nanos,
        p999: nanos,
        max: nanos,
        ..Latency::default()
    };
    Ok(Step {
        operations: 1,
        seconds: opened.seconds,
        rate: 1.0 / opened.seconds.max(1e-9),
        latencies: [("open".to_owned(), latency)].into(),
        resources: opened.resources.clone(),
        counters: engine.counters()?,
        ..Step::default()
    })
}

/// What is on the disk now, against what is live, as long as that is known: nothing was removed.
fn measure_space(step: &mut Step, job: &Job, number: usize, end: u64) -> Result<()> {
    step.disk_bytes = directory_bytes(&job.directory);
    let mut deletes = false;
    for done in job.spec.steps.iter().take(number + 1) {
        deletes |= Workload::by_name(&done.workload)?.deletes();
    }
    let layout = plan::layout(&job.spec)?;
    let record = crate::data::BenchKey::new(layout, 0).flat().len() + job.spec.value_bytes;
    let live = end as f64 * record as f64;
    step.space_amplification = (!deletes && live > 0.0).then(|| step.disk_bytes as f64 / live);
    Ok(())
}
