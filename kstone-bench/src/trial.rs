//! A trial: one process, one database in a fresh directory, its steps one after the other. Probes of the engine run in
//! similar processes.
//!
//! The parent creates the directory and the memory limit, starts the child, which is this program with the command
//! `trial`, and gives it a job as one line of JSON. The child answers each step with a line of its own. To die without
//! closing the database, it asks to be killed, and another child continues.

#![expect(clippy::disallowed_methods, reason = "it starts processes, times an open, and drops caches")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::cgroup::ControlGroup;
use crate::chapter::probe::{Figures, Probe, Setup};
use crate::data::Values;
use crate::driver::Bench;
use crate::engine::{self, Durability, Engine};
use crate::record::{Latency, Resources, Step, Trial, TrialSpec};
use crate::resources::{Usage, directory_bytes, drop_from_cache};
use crate::tune;
use crate::workload::{Task, Workload, plan};

#[derive(Clone, Debug)]
pub struct Options {
    /// An existing directory; databases are created in it and removed again.
    pub directory: PathBuf,
    pub trials: usize,
    /// Whether databases are kept.
    pub keep: bool,
    /// The program that runs a trial when called with `trial`: this one.
    pub program: PathBuf,
    /// Another build of it, which runs the trials of engines whose name ends in [`BEFORE`].
    pub before: Option<PathBuf>,
}

/// Marks an engine as that of another build: `kstone#before`.
pub const BEFORE: &str = "#before";

/// Runs the trials of all specs, interleaved: one trial of each, then the next of each, so that changes on the machine
/// affect all alike. `progress` reports each start. A trial that fails is in the result, with its error.
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

/// The work of a child.
#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Steps(Steps),
    Probe(Probe, Setup),
    Tune(tune::Task),
}

/// The steps of a trial.
#[derive(Debug, Serialize, Deserialize)]
struct Steps {
    spec: TrialSpec,
    directory: PathBuf,
    /// The first step to run; a step that reopens is completed by opening.
    from: usize,
    /// Items below this have been written.
    end: u64,
}

/// The reports of a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// A step has ended; items below this number have been written.
    Done(Box<Step>, u64),
    Found(Figures),
    /// Kill this process while its database is open.
    Kill,
    /// The database is closed.
    End,
}

/// Runs a probe in a process of its own, with a database in this directory, which is created if it does not exist.
pub(crate) fn probe(program: &Path, probe: Probe, setup: Setup) -> Result<Figures> {
    let directory = &setup.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    figures(&Job::Probe(probe, setup), program)
}

/// Runs a task of `tune` in a process of its own.
pub(crate) fn tune(program: &Path, task: &tune::Task) -> Result<Figures> {
    figures(&Job::Tune(task.clone()), program)
}

fn figures(job: &Job, program: &Path) -> Result<Figures> {
    let mut found = None;
    one_process(job, None, program, &mut |message| {
        if let Message::Found(figures) = message {
            found = Some(figures);
        }
    })?;
    found.context("a process sent no figures")
}

fn run(spec: &TrialSpec, number: usize, options: &Options) -> Result<Trial> {
    let mut trial =
        Trial { spec: spec.clone(), number, steps: Vec::new(), error: None, memory_limited: false };
    let mut made = tempfile::Builder::new().prefix("kstone-bench-").tempdir_in(&options.directory);
    let directory = made.as_mut().map_err(|error| anyhow!("{}: {error}", options.directory.display()))?;
    directory.disable_cleanup(options.keep);
    let made_in = directory.path();
    let group = match spec.memory_limit.map(ControlGroup::new).transpose() {
        Ok(group) => group,
        Err(error) => {
            eprintln!("kstone-bench: cannot limit memory: {error:#}");
            None
        }
    };
    trial.memory_limited = group.is_some();
    let before = options.before.as_ref().filter(|_| spec.engine.name.ends_with(BEFORE));
    let program = before.unwrap_or(&options.program);
    let mut end = 0;
    loop {
        let (spec, directory, from) = (spec.clone(), made_in.to_owned(), trial.steps.len());
        let job = Job::Steps(Steps { spec, directory, from, end });
        let left = one_process(&job, group.as_ref(), program, &mut |message| {
            if let Message::Done(step, written) = message {
                trial.steps.push(*step);
                end = written;
            }
        });
        match left {
            Ok(Left::Ended) => return Ok(trial),
            Ok(Left::Killed) => {
                let step = trial.spec.steps.get(trial.steps.len());
                let step = step.context("a trial's process asked to be killed after its last step")?;
                if Workload::by_name(&step.workload)?.task == Task::ReopenCold {
                    drop_from_cache(made_in)?;
                }
            }
            Err(error) => {
                trial.error = Some(format!("{error:#}"));
                return Ok(trial);
            }
        }
    }
}

/// Why a child ended.
enum Left {
    Ended,
    Killed,
}

fn one_process(
    job: &Job,
    group: Option<&ControlGroup>,
    program: &Path,
    heard: &mut dyn FnMut(Message),
) -> Result<Left> {
    let mut child = Command::new(program)
        .arg("trial")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = pipes else { bail!("a trial's process has no pipes") };
    std::thread::scope(|scope| {
        // Read while the child runs: it would block forever once the pipe is full.
        let errors = scope.spawn(|| tail(errors));
        let done = talk(job, group, &child, input, output, heard);
        // The child has ended, or has nothing left to do.
        let _ = child.kill();
        let status = child.wait();
        let errors = errors.join().unwrap_or_default();
        match (done, status) {
            (Ok(Some(left)), _) => Ok(left),
            (Ok(None), status) => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                bail!("the process of the trial died: {status}. Its error output: {}", errors.trim())
            }
            (Err(error), _) if errors.trim().is_empty() => Err(error),
            (Err(error), _) => Err(error.context(errors.trim().to_owned())),
        }
    })
}

/// `None`: it ended without a message.
fn talk(
    job: &Job,
    group: Option<&ControlGroup>,
    child: &Child,
    mut input: ChildStdin,
    output: ChildStdout,
    heard: &mut dyn FnMut(Message),
) -> Result<Option<Left>> {
    if let Some(group) = group {
        // Before it has the job, so that all its memory counts.
        group.add(child.id())?;
    }
    if writeln!(input, "{}", serde_json::to_string(job)?).is_err() {
        return Ok(None);
    }
    for line in BufReader::new(output).lines() {
        match serde_json::from_str(&line?).context("a trial's process sent a message that cannot be read")? {
            Message::Kill => return Ok(Some(Left::Killed)),
            Message::End => return Ok(Some(Left::Ended)),
            message => heard(message),
        }
    }
    Ok(None)
}

/// The end of a process's output.
fn tail(mut from: impl Read) -> String {
    const KEEP: usize = 2000;
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(KEEP));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The child: reads a job, runs it, and reports.
pub fn serve() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    match serde_json::from_str(&line).context("only kstone-bench itself calls this command")? {
        Job::Steps(steps) => serve_steps(&steps),
        Job::Probe(probe, setup) => {
            say(&Message::Found(probe.measure(&setup)?))?;
            if probe.crashes() {
                die()?;
            }
            say(&Message::End)
        }
        Job::Tune(task) => {
            say(&Message::Found(task.run()?))?;
            if task.crashes() {
                die()?;
            }
            say(&Message::End)
        }
    }
}

fn say(message: &Message) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(message)?)?;
    Ok(out.flush()?)
}

/// Asks to be killed, and waits for it.
fn die() -> Result<std::convert::Infallible> {
    say(&Message::Kill)?;
    loop {
        std::thread::park();
    }
}

fn serve_steps(job: &Steps) -> Result<()> {
    let spec = &job.spec;
    let durability = |step: &crate::record::StepSpec| -> Result<Durability> {
        Ok(Workload::by_name(&step.workload)?.durability.unwrap_or(spec.durability))
    };
    let first = spec.steps.get(job.from).context("there is no such step")?;
    let mut open = durability(first)?;
    let (opened, mut engine) = timed_open(job, open)?;
    let end = AtomicU64::new(job.end);
    for (number, step) in spec.steps.iter().enumerate().skip(job.from) {
        let workload = Workload::by_name(&step.workload)?;
        let mut done = if matches!(workload.task, Task::Reopen | Task::ReopenCold) {
            if number > job.from {
                die()?;
            }
            reopened(&opened, &*engine)?
        } else if workload.task == Task::CloseOpen {
            engine.close()?;
            let (opened, again) = timed_open(job, open)?;
            engine = again;
            reopened(&opened, &*engine)?
        } else {
            if durability(step)? != open {
                engine.close()?;
                open = durability(step)?;
                engine = timed_open(job, open)?.1;
            }
            let values = Values::new(spec.value_bytes, spec.seed)?;
            let bench = Bench {
                spec,
                engine: &*engine,
                layout: plan::layout(spec)?,
                values: if spec.incompressible { values.incompressible() } else { values },
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
        measure_space(&mut done, job, number, end)?;
        say(&Message::Done(Box::new(done), end))?;
    }
    engine.close()?;
    say(&Message::End)
}

/// The duration of an open, and the resources it used.
struct Opened {
    seconds: f64,
    resources: Resources,
}

fn timed_open(job: &Steps, durability: Durability) -> Result<(Opened, Box<dyn Engine>)> {
    let (before, start) = (Usage::now()?, Instant::now());
    let engine = engine::open(&job.spec.engine, &job.directory, durability)?;
    let (seconds, after) = (start.elapsed().as_secs_f64(), Usage::now()?);
    let resources = Resources { longest: (seconds * 1e9) as u64, ..after.since(&before) };
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

/// Compares the size on disk with the live bytes, if those are known: nothing has been removed.
fn measure_space(step: &mut Step, job: &Steps, number: usize, end: u64) -> Result<()> {
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
