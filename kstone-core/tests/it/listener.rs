//! Listeners that close the engine at inconvenient moments.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::time::Duration;

use kstone_core::lsm::{EngineOptions, Event, EventListener, LsmEngine, Workers, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::vfs::{OpenMode, StrictVfs, Vfs, read_all};
use kstone_core::{DatabaseConfig, Key};

use crate::model::manual;

fn key() -> Key<'static> {
    Key::new(b"key".to_vec())
}

/// On a flush: reports it, waits, if `wait`, until another thread has started to close the engine, and closes it too.
#[derive(Debug)]
struct Closer {
    engine: OnceLock<Weak<LsmEngine>>,
    at_flush: mpsc::Sender<()>,
    wait: bool,
    done: AtomicBool,
    heard: Mutex<Vec<Event>>,
}

impl Closer {
    fn new(wait: bool) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (at_flush, receive) = mpsc::channel();
        let (engine, done, heard) = (OnceLock::new(), AtomicBool::new(false), Mutex::default());
        (Arc::new(Self { engine, at_flush, wait, done, heard }), receive)
    }
}

impl EventListener for Closer {
    fn on_event(&self, event: &Event) {
        self.heard.lock().unwrap().push(event.clone());
        if !matches!(event, Event::Flush { .. }) || self.done.swap(true, Ordering::SeqCst) {
            return;
        }
        let engine = self.engine.get().and_then(Weak::upgrade).unwrap();
        self.at_flush.send(()).unwrap();
        while self.wait && engine.get(&key()).is_ok() {
            std::thread::yield_now();
        }
        engine.close().unwrap();
    }
}

fn create(vfs: Arc<dyn Vfs>, closer: &Arc<Closer>, workers: Workers) -> Arc<LsmEngine> {
    let mut options: EngineOptions = manual(vfs, 1);
    options.config = Some(DatabaseConfig::new().with_stripes(1));
    options.workers = workers;
    options.listener = Some(Arc::clone(closer) as _);
    let engine = Arc::new(LsmEngine::create(Path::new("db"), options).unwrap());
    closer.engine.set(Arc::downgrade(&engine)).unwrap();
    engine
}

/// The closing thread waits for the worker that calls the listener: this worker must not wait for the closing thread.
#[test]
fn a_close_within_a_listener_does_not_wait_for_the_one_that_waits_for_it() {
    let _watchdog =
        Watchdog::start("listener::a_close_within_a_listener_does_not_wait_for_the_one_that_waits_for_it");
    let (closer, at_flush) = Closer::new(true);
    let engine = create(Arc::new(StrictVfs::new()), &closer, Workers::Threads);
    engine.put(&key(), b"value", WriteOptions::new()).unwrap();
    engine.flush().unwrap();
    at_flush.recv_timeout(Duration::from_secs(60)).unwrap();
    let (closed, receive) = mpsc::channel();
    // Not in a scope, which would wait for the thread that may hang.
    let closing = std::thread::Builder::new().spawn(move || closed.send(engine.close().is_ok()));
    drop(closing.unwrap());
    assert_eq!(receive.recv_timeout(Duration::from_secs(60)), Ok(true));
}

/// Events before a close are reported before it, and nothing is written after the directory is released.
#[test]
fn what_a_listener_that_closes_has_not_heard_yet_comes_before_the_end() {
    let _watchdog =
        Watchdog::start("listener::what_a_listener_that_closes_has_not_heard_yet_comes_before_the_end");
    let vfs = StrictVfs::new();
    let (closer, _at_flush) = Closer::new(false);
    let engine = create(Arc::new(vfs.clone()), &closer, Workers::Manual);
    engine.put(&key(), b"value", WriteOptions::new()).unwrap();
    engine.flush().unwrap();
    let names = |events: &[serde_json::Value]| -> Vec<String> {
        events.iter().map(|event| event["event"].as_str().unwrap().into()).collect()
    };
    let heard: Vec<_> =
        closer.heard.lock().unwrap().iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert_eq!(names(&heard), ["opened", "flush", "checkpoint", "closed"]);
    let file = vfs.open(Path::new("db/EVENTS.jsonl"), OpenMode::Read).unwrap();
    let text = String::from_utf8(read_all(&*file, 1 << 20).unwrap()).unwrap();
    let written: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(names(&written), ["opened", "flush", "checkpoint", "closed"]);
}
