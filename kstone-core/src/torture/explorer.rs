//! The crash explorer: a crash at every mutating I/O operation of a workload, in several ways each.
//!
//! While a workload runs, the strict file system takes an image of what a crash would leave right before each mutating
//! operation. After each operation of the workload its images are checked against the history as it was before, with
//! the running commit in doubt:
//!
//! ```text
//! image -> sometimes opened read-only: an allowed state, and nothing changed
//!       -> opened: an allowed state in every way of reading, all files intact, none left over
//!          during recovery, images again, sometimes, checked in the same way: crashes during recovery
//!       -> written to, with more crashes and reopens, cut off, opened once more: an allowed state again
//! ```
//!
//! 1. Each image is checked with its own generator, seeded by the image's origin: checked alone, it behaves the same.
//! 2. Nothing durable in an image may be lost, even if its recovery is cut off, however often.

use std::path::Path;
use std::sync::Arc;

use super::reads::check_query;
use super::{
    DATABASE, Failure, Harness, History, Least, Mismatch, Mix, Rng, SettingsOf, State, Tolerance, Totals,
    Watchdog, Workload, World, check_all, contents,
};
use crate::clock::ManualClock;
use crate::error::{Error, Result};
use crate::lsm::{EngineOptions, LsmEngine};
use crate::vfs::{Choose, CrashMode, Image, StrictVfs, Vfs};

/// Maximum nesting of crashes.
const DEPTH: usize = 3;

/// An exploration of one workload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explorer {
    /// Determines everything.
    pub seed: u64,
    /// Number of operations in the workload.
    pub operations: u64,
    /// The source of its settings.
    pub settings: SettingsOf,
    /// Images at each mutating operation; at least 4 for the figures to hold.
    pub images: u64,
    /// One image in this many has the crashes during its recovery explored.
    pub recoveries: u64,
    /// One image in this many is written to after the comparison, opened once more, and compared again.
    pub continuations: u64,
    /// Checks only the images of this operation in the workload.
    pub only_operation: Option<u64>,
    /// Checks only images of this kind ([`CrashMode::kind`]).
    pub only_kind: Option<String>,
    /// The command that a failure reports; the seed and other identifying arguments are appended.
    pub command: String,
    /// The file system passed to the engine: the strict one itself, or a faulty wrapper, to test that the fault is
    /// found.
    pub around: fn(StrictVfs) -> Arc<dyn Vfs>,
}

/// A crash state, and its origin.
struct CrashState<'a> {
    crashes: &'a [(u64, CrashMode)],
    history: &'a History,
    least: Least,
}

impl Explorer {
    /// The usual thoroughness, with random tiny settings.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            operations: 60,
            settings: SettingsOf::Random,
            images: 4,
            recoveries: 60,
            continuations: 2,
            only_operation: None,
            only_kind: None,
            command: "kstone-bench torture --replay".into(),
            around: |strict| Arc::new(strict),
        }
    }

    /// Runs the workload and checks every image.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&self) -> Result<Totals, Failure> {
        let watchdog = Watchdog::start(format_args!("{} {}", self.command, self.seed));
        let strict = StrictVfs::new().with_shared_bytes();
        strict.record(Some(self.chooser(self.seed, self.images)));
        let mut world = World::new(self.bed(&strict), self.seed, self.settings.clone(), Tolerance::Limits);
        let mut totals = Totals::default();
        world.create().map_err(|mismatch| self.failure(0, &[], mismatch))?;
        self.check_images(0, &strict, world.history(), &mut totals)?;
        world.created();
        for (number, operation) in (1..=self.operations).zip(Workload::new(self.seed, Mix::Crash)) {
            watchdog.step(format_args!("{} {}:{number}", self.command, self.seed));
            let outcome =
                world.perform(&operation).map_err(|mismatch| self.failure(number, &[], mismatch))?;
            self.check_images(number, &strict, world.history(), &mut totals)?;
            world.settle(outcome);
        }
        // The end is a crash point too.
        let last = self.operations + 1;
        let mut modes = self.chooser(self.seed, CrashMode::KINDS);
        for mode in modes(strict.ops(), 0) {
            let image = Image { point: strict.ops(), mode, vfs: strict.crash(mode) };
            if self.wants(last, mode) {
                self.check_image(last, image, world.history(), Least::Acknowledged, &[], &mut totals)?;
            }
        }
        totals.points += strict.ops() + 1;
        totals.add(&world.end().1);
        Ok(totals)
    }

    /// The crash modes at each point: the strictest if a sync has happened since the previous point, process death or
    /// everything kept, and two or more others in turn.
    fn chooser(&self, seed: u64, images: u64) -> Choose {
        let mut seen = u64::MAX;
        Box::new(move |point, syncs| {
            let mut rng = Rng(seed ^ point.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let news = std::mem::replace(&mut seen, syncs) != syncs;
            (0..images)
                .map(|n| match n {
                    0 if news => CrashMode::Strict,
                    1 if rng.one_in(4) => CrashMode::Process,
                    1 if rng.one_in(3) => CrashMode::All,
                    // Each seeded kind occurs once in nine images.
                    _ => CrashMode::nth(point.wrapping_mul(images).wrapping_add(n) % 9, rng.next()),
                })
                .collect()
        })
    }

    fn wants(&self, operation: u64, mode: CrashMode) -> bool {
        self.only_operation.is_none_or(|only| only == operation)
            && self.only_kind.as_deref().is_none_or(|only| only == mode.kind())
    }

    fn check_images(
        &self,
        operation: u64,
        strict: &StrictVfs,
        history: &History,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        for image in strict.take_images() {
            if self.wants(operation, image.mode) {
                self.check_image(operation, image, history, Least::Acknowledged, &[], totals)?;
            }
        }
        Ok(())
    }

    /// `least` is what must have survived if the machine did not lose power.
    fn check_image(
        &self,
        operation: u64,
        image: Image,
        history: &History,
        least: Least,
        before: &[(u64, CrashMode)],
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        let Image { point, mode, vfs } = image;
        let crashes = [before, &[(point, mode)]].concat();
        let depth = before.len();
        totals.state(mode.kind(), depth);
        let survives = matches!(mode, CrashMode::All | CrashMode::Process);
        // Anything that survived a power cut is durable. After the death of a process alone, a later power cut takes
        // the same as it would have before.
        let lost = !survives && before.iter().all(|(_, mode)| *mode == CrashMode::Process);
        let least = if lost { Least::Durable } else { least };
        let found = CrashState { crashes: &crashes, history, least };
        let seed = crashes.iter().fold(self.seed, |seed, (point, mode)| {
            let kind = mode.kind().bytes().fold(0u64, |sum, byte| sum * 31 + u64::from(byte));
            Rng(seed ^ point.wrapping_mul(0x1_0001)).next() ^ kind
        });
        let mut rng = Rng(seed);
        let explore = depth < DEPTH && rng.one_in(if depth == 0 { self.recoveries } else { 100 });
        if explore {
            vfs.record(Some(self.chooser(rng.next(), 2)));
        }
        let checked = self.check(&vfs, &found, &mut rng, totals);
        vfs.record(None);
        checked.map_err(|mismatch| self.failure(operation, &crashes, mismatch))?;
        for image in vfs.take_images() {
            self.check_image(operation, image, history, least, &crashes, totals)?;
        }
        Ok(())
    }

    fn check(
        &self,
        image: &StrictVfs,
        found: &CrashState<'_>,
        rng: &mut Rng,
        totals: &mut Totals,
    ) -> Result<(), Mismatch> {
        if rng.one_in(16) {
            read_only(&self.bed(image), found, rng)?;
            totals.read_only_opens += 1;
        }
        let Some((engine, state)) = open(&self.bed(image), found, rng)? else {
            totals.absent += 1;
            return Ok(());
        };
        totals.reads += 1;
        // The images of the recovery are taken; anything later belongs to another history.
        image.record(None);
        let one_in = if found.crashes.len() > 1 { 4 * self.continuations } else { self.continuations };
        if rng.one_in(one_in) {
            totals.continued += 1;
            return self.go_on(image, engine, state, rng);
        }
        Ok(())
    }

    /// Runs a separate workload on the recovered database, cuts it off, and opens it once more.
    fn go_on(
        &self,
        image: &StrictVfs,
        engine: LsmEngine,
        state: State,
        rng: &mut Rng,
    ) -> Result<(), Mismatch> {
        let seed = rng.next();
        let mut world = World::resume(self.bed(image), engine, state, seed);
        let mut done = Vec::new();
        for operation in Workload::new(seed, Mix::Crash).take(8) {
            let outcome = world.perform(&operation)?;
            done.push(operation);
            world.settle(outcome);
        }
        world.check()?;
        let mode = CrashMode::nth(rng.next(), rng.next());
        let (history, _) = world.end();
        let image = image.crash(mode);
        let least = match mode {
            CrashMode::All | CrashMode::Process => Least::Acknowledged,
            _ => Least::Durable,
        };
        let found = CrashState { crashes: &[], history: &history, least };
        open(&self.bed(&image), &found, rng).map(drop).map_err(|mismatch| Mismatch {
            expected: format!("{}, after {mode:?}, after {done:?}", mismatch.expected),
            ..mismatch
        })
    }

    fn bed(&self, strict: &StrictVfs) -> Harness {
        Harness::behind(strict.clone(), (self.around)(strict.clone()))
    }

    fn failure(&self, operation: u64, crashes: &[(u64, CrashMode)], mismatch: Mismatch) -> Failure {
        let mut replay = format!("{} {}", self.command, self.seed);
        if let Some((_, mode)) = crashes.first() {
            replay = format!("{replay}:{operation}:{}", mode.kind());
        }
        Failure {
            seed: self.seed,
            operation,
            crashes: crashes.to_vec(),
            expected: mismatch.expected.into(),
            found: mismatch.found.into(),
            replay: replay.into(),
        }
    }
}

fn options(bed: &Harness) -> EngineOptions {
    bed.options(Arc::new(ManualClock::new(7)))
}

/// Whether the error means that there is no database, where that is allowed.
fn absent(error: &Error, found: &CrashState<'_>) -> bool {
    matches!(error, Error::NotFound { .. } | Error::NotADatabase { .. })
        && found.history.may_be_absent(found.least)
}

/// Reads an image without changing it.
fn read_only(bed: &Harness, found: &CrashState<'_>, rng: &mut Rng) -> Result<(), Mismatch> {
    let before = bed.strict.ops();
    match LsmEngine::open_read_only(Path::new(DATABASE), options(bed)) {
        Ok(engine) => {
            let state = contents(&engine, None).map_err(|error| Mismatch::error("scan", &error))?;
            found.history.check(&state, found.least)?;
            check_all(&engine, &state, None, rng)?;
        }
        Err(error) if absent(&error, found) => {}
        Err(error) => return Err(Mismatch::error("read-only open", &error)),
    }
    match bed.strict.ops() - before {
        0 => Ok(()),
        changes => Err(Mismatch {
            expected: "a read-only open changes nothing".into(),
            found: format!("{changes} mutating I/O operations"),
        }),
    }
}

/// Recovers an image and compares it with the allowed states; `None` if there is no database and none is required.
fn open(
    bed: &Harness,
    found: &CrashState<'_>,
    rng: &mut Rng,
) -> Result<Option<(LsmEngine, State)>, Mismatch> {
    let engine = match LsmEngine::open(Path::new(DATABASE), options(bed)) {
        Ok(engine) => engine,
        Err(error) if absent(&error, found) => return create(bed).map(|()| None),
        Err(error) => return Err(Mismatch::error("open", &error)),
    };
    let state = contents(&engine, None).map_err(|error| Mismatch::error("scan", &error))?;
    found.history.check(&state, found.least)?;
    check_all(&engine, &state, None, rng)?;
    check_query(&engine, &state, None, rng)?;
    engine.verify().map_err(|error| Mismatch::error("verify", &error))?;
    let stats = engine.stats().map_err(|error| Mismatch::error("stats", &error))?;
    let listed: usize = stats.stripes.iter().map(|stripe| stripe.ssts).sum();
    let names = bed.strict.list(Path::new(DATABASE)).unwrap_or_default();
    let there = names.iter().filter(|entry| entry.name.ends_with(".sst")).count();
    if listed != there {
        return Err(Mismatch {
            expected: format!("the {listed} SSTs that the manifest lists"),
            found: format!("{there} in the directory"),
        });
    }
    Ok(Some((engine, state)))
}

/// Checks that the remains of an interrupted creation do not prevent a new one.
fn create(bed: &Harness) -> Result<(), Mismatch> {
    let engine = LsmEngine::create(Path::new(DATABASE), options(bed))
        .map_err(|error| Mismatch::error("create what a crash undid", &error))?;
    let state = contents(&engine, None).map_err(|error| Mismatch::error("scan", &error))?;
    History::default().check(&state, Least::Acknowledged)
}
