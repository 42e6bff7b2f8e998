//! Several actors that create, open, back up into and repair into one path concurrently: each ends with success,
//! `Locked`, or a statement that is true when it is made, and none harms what another one creates.
//!
//! Symptom: of threads or processes that called `open_or_create` at the same moment, some failed with "already exists",
//! or with `EEXIST` from the directory; `repair --into` removed the names of another repair's files; a directory was
//! removed in which another actor had started. Cause: observations made without the lock were trusted after they had
//! changed, and clean-up did not check whose directory it was. Fix: before a call is refused, the reason is checked
//! again after the lock was found free; only observations under the lock decide who creates.
#![allow(clippy::disallowed_methods, reason = "tests, which start threads and inspect files from outside")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::repair::{RepairOptions, repair};
use kstone_core::torture::Watchdog;
use kstone_core::vfs::{DiskVfs, Effect, FaultVfs, Op, OpenMode, Rule, RuleHandle, StrictVfs, Vfs};
use kstone_core::{DatabaseConfig, Error, Key, ReadMode};

use crate::model::{Rng, manual};

const CHILD: &str = "KSTONE_TOGETHER_CHILD";

/// What an actor does with the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Create,
    Open,
    OpenOrCreate,
    OpenReadOnly,
    BackupInto,
    RepairInto,
}

use Doing::{BackupInto, Create, Open, OpenOrCreate, OpenReadOnly, RepairInto};

const ALL: [Doing; 6] = [Create, Open, OpenOrCreate, OpenReadOnly, BackupInto, RepairInto];

impl Doing {
    /// Whether it creates a database if there is none.
    fn makes(self) -> bool {
        matches!(self, Create | OpenOrCreate | BackupInto | RepairInto)
    }
}

/// What is at the path beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    EmptyDirectory,
    Database,
}

/// The path, and databases to copy from.
#[derive(Clone, Debug)]
struct Ground {
    path: PathBuf,
    sound: PathBuf,
    damaged: PathBuf,
}

impl Ground {
    fn new(vfs: &Arc<dyn Vfs>, root: &Path) -> Self {
        let at = |name: &str| root.join(name);
        let ground = Self { path: at("here"), sound: at("sound"), damaged: at("damaged") };
        for source in [&ground.sound, &ground.damaged] {
            let engine = LsmEngine::create(source, options(vfs)).unwrap();
            put(&engine, "source").unwrap();
            engine.flush().unwrap();
            put(&engine, "in the log").unwrap();
            engine.close().unwrap();
        }
        // The first SST of the damaged database loses its last byte.
        let listing = vfs.list(&ground.damaged).unwrap();
        let sst = listing.iter().find(|entry| entry.name.ends_with(".sst")).unwrap();
        let bytes = kstone_core::vfs::read_all(
            &*vfs.open(&ground.damaged.join(&sst.name), OpenMode::Read).unwrap(),
            1 << 20,
        )
        .unwrap();
        let damaged = vfs.open(&ground.damaged.join(&sst.name), OpenMode::Truncate).unwrap();
        kstone_core::vfs::write_all_at(&*damaged, &bytes[..bytes.len() - 1], 0).unwrap();
        ground
    }

    /// Prepares a separate path with what is to be there beforehand.
    fn at(&self, vfs: &Arc<dyn Vfs>, name: &str, before: Before) -> Self {
        let path = self.path.with_file_name(name);
        match before {
            Before::Nothing => {}
            Before::EmptyDirectory => vfs.create_dir(&path).unwrap(),
            Before::Database => {
                let engine = LsmEngine::create(&path, options(vfs)).unwrap();
                put(&engine, "before").unwrap();
                engine.close().unwrap();
            }
        }
        Self { path, ..self.clone() }
    }
}

fn options(vfs: &Arc<dyn Vfs>) -> EngineOptions {
    let mut options = manual(Arc::clone(vfs), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(4).with_read_mode(ReadMode::Mmap));
    options
}

fn put(engine: &LsmEngine, key: &str) -> Result<u64, Error> {
    engine.put(&Key::from(key), b"value", WriteOptions::new())
}

fn has(engine: &LsmEngine, key: &str) -> bool {
    engine.get(&Key::from(key)).unwrap().is_some()
}

/// The result of an actor.
struct Came {
    doing: Doing,
    result: Result<Option<LsmEngine>, Error>,
}

/// Performs the action; writes a key with the actor's name.
fn go(doing: Doing, name: &str, ground: &Ground, vfs: &Arc<dyn Vfs>, keep_open: bool) -> Came {
    let opened = |engine: LsmEngine| {
        put(&engine, name)?;
        if keep_open {
            return Ok(Some(engine));
        }
        engine.close().map(|()| None)
    };
    let path = &ground.path;
    let result = match doing {
        Create => LsmEngine::create(path, options(vfs)).and_then(opened),
        Open => LsmEngine::open(path, options(vfs)).and_then(opened),
        OpenOrCreate => LsmEngine::open_or_create(path, options(vfs)).and_then(opened),
        OpenReadOnly => {
            LsmEngine::open_read_only(path, options(vfs)).map(|engine| keep_open.then_some(engine))
        }
        BackupInto => LsmEngine::open_read_only(&ground.sound, options(vfs))
            .and_then(|source| source.backup(path).map(|_| None)),
        RepairInto => {
            let options = RepairOptions::new().on(Arc::clone(vfs)).into_dir(path);
            repair(&ground.damaged, &options, &mut |_| {}).map(|_| None)
        }
    };
    Came { doing, result }
}

/// Whether the result is a true statement now.
fn is_true(came: &Came, ground: &Ground, vfs: &Arc<dyn Vfs>) -> bool {
    let there = vfs.kind(&ground.path).unwrap().is_some();
    let database = there && vfs.kind(&ground.path.join("MANIFEST")).unwrap().is_some();
    match (&came.result, came.doing) {
        (Ok(_) | Err(Error::Locked { .. }), doing) => doing != OpenReadOnly || came.result.is_ok(),
        (Err(Error::NotFound { path }), Open | OpenReadOnly) => *path == ground.path && !there,
        (Err(Error::NotADatabase { .. }), Open | OpenReadOnly) => there && !database,
        (Err(Error::AlreadyExists { detail, .. }), Create | BackupInto | RepairInto) => {
            database && detail == "it is a database"
        }
        _ => false,
    }
}

/// Messages from an actor.
enum Sign {
    Parked,
    Came(Came, bool),
}

/// An actor that may pause before one of its operations.
struct Actor {
    signs: Receiver<Sign>,
    go_on: Sender<()>,
    stops: RuleHandle,
    came: Option<(Came, bool)>,
}

impl Actor {
    /// Starts an actor; returns when it has paused before operation `stop`, or has finished.
    fn start(
        doing: Doing,
        name: &'static str,
        stop: u64,
        vfs: &FaultVfs,
        ground: &Ground,
        keep: bool,
    ) -> Self {
        let (tell, signs) = channel();
        let (go_on, wait) = channel::<()>();
        let operations = FaultVfs::new(Arc::new(vfs.clone()));
        let (parked, wait) = (tell.clone(), std::sync::Mutex::new(wait));
        let park = move |_: &kstone_core::vfs::Call<'_>| {
            parked.send(Sign::Parked).unwrap();
            wait.lock().unwrap().recv().unwrap();
            Ok(())
        };
        let stops = operations.add(Rule::hook(park).nth(stop));
        let (own, below) =
            (Arc::new(operations.clone()) as Arc<dyn Vfs>, Arc::new(vfs.clone()) as Arc<dyn Vfs>);
        let ground = ground.clone();
        thread::spawn(move || {
            let came = go(doing, name, &ground, &own, keep);
            let is_true = is_true(&came, &ground, &below);
            tell.send(Sign::Came(came, is_true)).unwrap();
        });
        let mut actor = Self { signs, go_on, stops, came: None };
        actor.watch();
        actor
    }

    fn watch(&mut self) {
        if let Sign::Came(came, is_true) = self.signs.recv().unwrap() {
            self.stops.set(false); // its open handle is closed by others
            self.came = Some((came, is_true));
        }
    }

    fn end(&mut self) {
        if self.came.is_none() {
            self.go_on.send(()).unwrap();
            self.watch();
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    succeeded: u64,
    locked: u64,
    refused: u64,
}

/// The first actor runs up to its operation `first`, then the other one up to `second`, then the first to its end, then
/// the other. Returns false if the first has fewer operations.
fn run(
    (a, b): (Doing, Doing),
    (first, second): (u64, u64),
    (ground, vfs): (&Ground, &FaultVfs),
    (before, keep): (Before, bool),
    seen: &mut Seen,
) -> bool {
    seen.runs += 1;
    let below: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let ground = ground.at(&below, &format!("here{}", seen.runs), before);
    let mut one = Actor::start(a, "one", first, vfs, &ground, keep);
    let stopped = one.came.is_none();
    let mut other = Actor::start(b, "other", second, vfs, &ground, keep);
    one.end();
    other.end();
    let context = || format!("{a:?} to {first}, {b:?} to {second}, {before:?}, kept open: {keep}");
    let mut keys = Vec::new();
    let mut made = before == Before::Database;
    for (actor, name) in [(&mut one, "one"), (&mut other, "other")] {
        let (came, is_true) = actor.came.take().unwrap();
        let said = came.result.as_ref().err().map(ToString::to_string);
        assert!(is_true, "{name} said {said:?}, {}", context());
        match came.result {
            Ok(engine) => {
                seen.succeeded += 1;
                made |= came.doing.makes();
                match came.doing {
                    Create | Open | OpenOrCreate => keys.push(name),
                    BackupInto => keys.extend(["source", "in the log"]),
                    RepairInto => keys.push("in the log"),
                    OpenReadOnly => {}
                }
                drop(engine);
            }
            Err(Error::Locked { .. }) => seen.locked += 1,
            Err(_) => seen.refused += 1,
        }
    }
    assert!(made || !(a.makes() || b.makes()), "each prevented the other, {}", context());
    if made {
        let engine = LsmEngine::open(&ground.path, options(&below));
        let engine = engine.unwrap_or_else(|e| panic!("{e} at the end, {}", context()));
        if before == Before::Database {
            keys.push("before");
        }
        for key in keys {
            assert!(has(&engine, key), "{key} is not there, {}", context());
        }
        engine.verify().unwrap();
        engine.close().unwrap();
    }
    assert!(!below.list(&ground.path).is_ok_and(|names| names.iter().any(|e| e.name == "BACKUP.unfinished")));
    stopped
}

const BEFORE: [Before; 3] = [Before::Nothing, Before::EmptyDirectory, Before::Database];

/// All pairs: the first actor pauses before each of its operations in turn, while the other runs to its end; if
/// `both_stop`, the other also pauses, somewhere.
fn all_pairs(vfs: Arc<dyn Vfs>, root: &Path, both_stop: bool) -> Seen {
    let on_disk = root.is_absolute();
    let vfs = FaultVfs::new(vfs);
    vfs.add(Rule::new(Effect::Pretend).on(&[Op::Sync, Op::SyncDir])); // power cuts are not tested here
    let ground = Ground::new(&(Arc::new(vfs.clone()) as Arc<dyn Vfs>), root);
    let (mut seen, mut rng) = (Seen::default(), Rng(7));
    for (a, b) in ALL.into_iter().flat_map(|a| ALL.map(|b| (a, b))) {
        for before in BEFORE {
            for first in 1.. {
                let second = if both_stop { 1 + rng.below(40) } else { u64::MAX };
                let keep = (first + u64::from(both_stop) * rng.below(2)).is_multiple_of(2);
                let keep = [keep, !keep].into_iter().take(if both_stop || on_disk { 1 } else { 2 });
                let runs =
                    keep.map(|keep| run((a, b), (first, second), (&ground, &vfs), (before, keep), &mut seen));
                if !runs.fold(true, |all, stopped| all & stopped) {
                    break;
                }
            }
        }
    }
    println!("operations on one path, one paused before each of its own: {seen:?}");
    assert!(seen.runs > 1_500 && seen.locked > 100 && seen.refused > 100, "{seen:?}");
    seen
}

#[test]
fn each_pair_at_each_operation_in_memory() {
    let _watchdog = Watchdog::start("same_path::each_pair_at_each_operation_in_memory");
    all_pairs(Arc::new(StrictVfs::new()), Path::new(""), false);
}

#[test]
fn each_pair_with_both_stopped_in_memory() {
    let _watchdog = Watchdog::start("same_path::each_pair_with_both_stopped_in_memory");
    all_pairs(Arc::new(StrictVfs::new()), Path::new(""), true);
}

#[test]
fn each_pair_at_each_operation_on_disk() {
    let _watchdog = Watchdog::start("same_path::each_pair_at_each_operation_on_disk");
    let dir = tempfile::tempdir().unwrap();
    all_pairs(Arc::new(DiskVfs::new()), dir.path(), false);
}

fn disk() -> Arc<dyn Vfs> {
    Arc::new(DiskVfs::new())
}

/// Performs the action, retrying while the path is locked: an actor that retries often enough gets its turn.
fn insist(doing: Doing, name: &str, ground: &Ground) -> Came {
    for _ in 0..60_000 {
        let came = go(doing, name, ground, &disk(), false);
        if !matches!(came.result, Err(Error::Locked { .. })) {
            return came;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{doing:?} found it locked each time");
}

/// Checks the results of actors that ran concurrently: the state may have changed since.
fn check_told(came: &Came, what: &str) {
    let fits = match (&came.result, came.doing) {
        (Ok(_), _) => true,
        (Err(Error::NotFound { .. } | Error::NotADatabase { .. }), Open | OpenReadOnly) => true,
        (Err(Error::AlreadyExists { detail, .. }), Create | BackupInto | RepairInto) => {
            detail == "it is a database"
        }
        _ => false,
    };
    assert!(fits, "{:?}: {:?}, {what}", came.doing, came.result.as_ref().err());
}

const ROUNDS: u64 = 150;

#[test]
fn threads_on_one_path() {
    let _watchdog = Watchdog::start("same_path::threads_on_one_path");
    let dir = tempfile::tempdir().unwrap();
    let ground = Ground::new(&disk(), dir.path());
    let mut made = 0;
    for round in 0..ROUNDS {
        let ground = ground.at(&disk(), &format!("threads{round}"), Before::Nothing);
        let mut doings: Vec<_> = if round % 2 == 0 { vec![OpenOrCreate; 6] } else { ALL.to_vec() };
        doings.rotate_left(round as usize % 6);
        let barrier = Barrier::new(doings.len());
        let came: Vec<_> = thread::scope(|scope| {
            let spawn = |(n, doing): (usize, Doing)| {
                let (barrier, ground) = (&barrier, &ground);
                scope.spawn(move || {
                    barrier.wait();
                    insist(doing, &format!("thread{n}"), ground)
                })
            };
            let threads: Vec<_> = doings.iter().copied().enumerate().map(spawn).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let engine = LsmEngine::open(&ground.path, options(&disk())).unwrap();
        for (n, came) in came.iter().enumerate() {
            check_told(came, &format!("round {round}"));
            if came.result.is_ok() && matches!(came.doing, Create | Open | OpenOrCreate) {
                assert!(has(&engine, &format!("thread{n}")), "round {round}");
                made += 1;
            }
        }
    }
    assert!(made >= ROUNDS * 3, "{made}");
}

/// A process that runs concurrently with others doing the same, on one path after another.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let (root, number) = given.split_once('|').unwrap();
    let (root, number) = (Path::new(root), number.parse::<usize>().unwrap());
    let at = |name: &str| root.join(name);
    for round in 0..ROUNDS {
        let ground =
            Ground { path: at(&format!("processes{round}")), sound: at("sound"), damaged: at("damaged") };
        let doing = if round % 2 == 0 { OpenOrCreate } else { ALL[(number + round as usize) % ALL.len()] };
        let ready = at(&format!("ready{round}"));
        std::fs::File::options().create(true).append(true).open(&ready).unwrap().write_all(b".").unwrap();
        while std::fs::metadata(&ready).unwrap().len() < PROCESSES as u64 {
            thread::yield_now();
        }
        let came = insist(doing, &format!("process{number}"), &ground);
        check_told(&came, &format!("round {round}, process {number}"));
    }
}

const PROCESSES: usize = 4;

#[test]
fn processes_on_one_path() {
    let _watchdog = Watchdog::start("same_path::processes_on_one_path");
    let dir = tempfile::tempdir().unwrap();
    let ground = Ground::new(&disk(), dir.path());
    let start = |number: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["same_path::child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, format!("{}|{number}", dir.path().display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
    // A child that fails would leave the others waiting.
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        let failed =
            children.iter_mut().any(|child| child.try_wait().unwrap().is_some_and(|end| !end.success()));
        if failed {
            children.iter_mut().for_each(|child| _ = child.kill());
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    for round in 0..ROUNDS {
        let path = ground.path.with_file_name(format!("processes{round}"));
        match LsmEngine::open(&path, options(&disk())) {
            Ok(engine) if round % 2 == 0 => {
                assert!(
                    (0..PROCESSES).all(|number| has(&engine, &format!("process{number}"))),
                    "round {round}"
                );
            }
            Ok(engine) => _ = engine.verify().unwrap(),
            Err(e) => panic!("{e}, round {round}"),
        }
    }
}
