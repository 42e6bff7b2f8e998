//! Runs the crash explorer, the fault runs and the oracle of `kstone_core::torture` for one seed after another, on
//! several threads, until the time is up.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kstone_core::clock::{Clock, SystemClock};
use kstone_core::torture::{Explorer, Failure, FaultRuns, FaultTotals, Oracle, SettingsOf, Totals};

/// How often totals are printed.
const EVERY: Duration = Duration::from_secs(30);
/// Operations of an oracle run per operation of a crashed workload.
const ORACLE_OPERATIONS: u64 = 300;
/// One in this many fault runs of a workload is executed: there are some 3,000, and some 1,000 crash states.
const ONE_FAULT_IN: u64 = 8;

#[derive(Clone, Debug)]
pub struct Torture {
    pub minutes: f64,
    pub seed: u64,
    pub threads: usize,
    pub operations: u64,
    pub settings: SettingsOf,
    /// The specification of the settings, for the command that replays a failure.
    pub config: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub totals: Totals,
    pub faults: FaultTotals,
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.totals.add(&other.totals);
        self.faults.add(&other.faults);
    }
}

impl From<Totals> for Done {
    fn from(totals: Totals) -> Self {
        Self { totals, ..Self::default() }
    }
}

impl From<FaultTotals> for Done {
    fn from(faults: FaultTotals) -> Self {
        Self { faults, ..Self::default() }
    }
}

/// A single workload, or a part of it: `SEED[:OPERATION[:KIND]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub seed: u64,
    /// Only crashes during this operation.
    pub operation: Option<u64>,
    /// Only crashes of this kind; `oracle`: no crashes, only the oracle run; `none`, or for example `EIO:17:once`: a
    /// fault run.
    pub kind: Option<String>,
}

impl FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut number = |what| {
            let part = parts.next();
            part.map(|part| part.parse::<u64>().map_err(|_| format!("{part:?} is not a number: {what}")))
                .transpose()
        };
        let seed = number("the seed of a workload")?.unwrap_or_default();
        let operation = number("one of its operations")?;
        Ok(Self { seed, operation, kind: parts.next().map(str::to_owned) })
    }
}

impl Torture {
    /// Runs until the time is up, and calls `print` with the totals from time to time.
    pub fn run(&self, print: &mut dyn FnMut(String)) -> Result<Done, Failure> {
        let clock = SystemClock::new();
        let until = Duration::try_from_secs_f64(self.minutes * 60.0).unwrap_or(Duration::MAX);
        let (next, stop) = (AtomicU64::new(self.seed), AtomicBool::new(false));
        let (send, receive) = channel();
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                let (send, next, stop) = (send.clone(), &next, &stop);
                scope.spawn(move || self.work(next, stop, &send));
            }
            drop(send);
            let (mut totals, mut failure, mut told) = (Done::default(), None, Duration::ZERO);
            loop {
                let now = clock.monotonic();
                if now >= until {
                    stop.store(true, Ordering::Relaxed);
                }
                if now >= told + EVERY {
                    told = now;
                    let Done { totals, faults } = &totals;
                    print(format!("{:>5} s: {totals}; {} fault runs", now.as_secs(), faults.all_runs()));
                }
                let wait =
                    (told + EVERY).min(until.max(now)).saturating_sub(now).max(Duration::from_millis(100));
                match receive.recv_timeout(wait) {
                    Ok(Ok(done)) => totals.add(&done),
                    Ok(Err(found)) => {
                        stop.store(true, Ordering::Relaxed);
                        failure.get_or_insert(found);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            failure.map_or(Ok(totals), Err)
        })
    }

    fn work(&self, next: &AtomicU64, stop: &AtomicBool, send: &Sender<Result<Done, Failure>>) {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            for runner in [Self::explore, Self::faults, Self::oracle] {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let done = runner(self, &Replay { seed, operation: None, kind: None });
                // The receiver is gone once another thread has failed.
                let _ = send.send(done);
            }
        }
    }

    /// Runs one workload, or a part of it, alone.
    pub fn replay(&self, replay: &Replay) -> Result<Done, Failure> {
        let kind = replay.kind.as_deref();
        if kind == Some("oracle") {
            return self.oracle(replay);
        }
        if let Some(done) = kind.and_then(|kind| self.fault_runs(replay.seed).run_named(kind)) {
            return done.map(Done::from);
        }
        let mut done = self.explore(replay)?;
        if replay.operation.is_none() {
            done.add(&self.faults(replay)?);
            done.add(&self.oracle(replay)?);
        }
        Ok(done)
    }

    fn command(&self) -> String {
        let mut command = "kstone-bench torture".to_owned();
        if self.config != "random" {
            command = format!("{command} --config {}", self.config);
        }
        if self.operations != 60 {
            command = format!("{command} --operations {}", self.operations);
        }
        format!("{command} --replay")
    }

    fn explore(&self, replay: &Replay) -> Result<Done, Failure> {
        let mut explorer = Explorer::new(replay.seed);
        explorer.operations = self.operations;
        explorer.settings = self.settings.clone();
        explorer.only_operation = replay.operation;
        explorer.only_kind.clone_from(&replay.kind);
        explorer.command = self.command();
        explorer.run().map(Done::from)
    }

    fn fault_runs(&self, seed: u64) -> FaultRuns {
        let (operations, settings) = (self.operations, self.settings.clone());
        FaultRuns { seed, operations, one_in: ONE_FAULT_IN, settings, command: self.command() }
    }

    fn faults(&self, replay: &Replay) -> Result<Done, Failure> {
        self.fault_runs(replay.seed).run().map(Done::from)
    }

    fn oracle(&self, replay: &Replay) -> Result<Done, Failure> {
        let operations = self.operations.saturating_mul(ORACLE_OPERATIONS);
        let oracle = Oracle { seed: replay.seed, operations, settings: self.settings.clone() };
        oracle.run().map(Done::from).map_err(|mut failure| {
            let Failure { seed, operation, .. } = &failure;
            failure.replay = format!("{} {seed}:{operation}:oracle", self.command()).into();
            failure
        })
    }
}

/// The totals, one per line.
pub fn table(Done { totals, faults }: &Done) -> String {
    let mut lines: Vec<(u64, String)> = Vec::new();
    for (what, count) in totals.counts() {
        lines.push((count, what.to_owned()));
    }
    lines.push((totals.all_states(), "crash states".into()));
    lines.extend(totals.states.iter().map(|(kind, count)| (*count, format!("  {kind}"))));
    lines.push((totals.all_in_recovery(), "of them inside recovery".into()));
    let depths = totals.in_recovery.iter().zip(1..);
    lines.extend(depths.map(|(count, depth)| (*count, format!("  {depth} deep"))));
    lines.push((faults.all_runs(), "runs in which I/O operations failed".into()));
    lines.extend(faults.runs.iter().map(|(fault, count)| (*count, format!("  {fault}"))));
    lines.push((faults.opened, "databases compared in them".into()));
    lines.push((faults.order.edits, "manifest edits whose order was checked".into()));
    let lines: Vec<_> = lines.into_iter().map(|(count, what)| format!("{count:>12}  {what}")).collect();
    lines.join("\n")
}
