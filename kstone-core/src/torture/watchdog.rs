//! Turns a hang into a named failure: if a suite makes no progress for a long time, the process reports what it was
//! doing and aborts. Without this, a deadlock would silently block everything behind the suite.
//!
//! This is the only place in the suites where real time matters, and it only decides when to give up.

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Many times longer than any step takes, even while other builds use every core.
const PATIENCE: Duration = Duration::from_secs(600);

/// Watches its owner until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    watched: Arc<Watched>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Watched {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    doing: String,
    /// Increases with each step.
    steps: u64,
    done: bool,
}

impl Watchdog {
    /// Aborts the process if the next step, or the end, is not reached within ten minutes. `doing` should contain what
    /// reproduces the step: a seed, or a command.
    pub fn start(doing: impl Display) -> Self {
        Self::with_patience(doing, PATIENCE)
    }

    /// The same with a different limit for each step.
    pub fn with_patience(doing: impl Display, patience: Duration) -> Self {
        let state = State { doing: doing.to_string(), steps: 0, done: false };
        let watched = Arc::new(Watched { state: Mutex::new(state), changed: Condvar::new() });
        let test = std::thread::current().name().unwrap_or("unnamed").to_string();
        let watch = {
            let watched = Arc::clone(&watched);
            move || watched.watch(&test, patience)
        };
        // Without a thread there is no watchdog, but the suite still runs.
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(watch).ok();
        Self { watched, thread }
    }

    /// Starts the next step.
    pub fn step(&self, doing: impl Display) {
        let mut state = self.watched.state.lock();
        state.doing = doing.to_string();
        state.steps += 1;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.watched.state.lock().done = true;
        self.watched.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread does nothing that could panic.
            let _ = thread.join();
        }
    }
}

impl Watched {
    fn watch(&self, test: &str, patience: Duration) {
        let mut state = self.state.lock();
        while !state.done {
            let seen = state.steps;
            let timed_out = self.changed.wait_for(&mut state, patience).timed_out();
            if timed_out && state.steps == seen && !state.done {
                // Written directly: the test harness would capture `eprintln!` as output of the hanging test.
                let text = format!("\nHANG: no progress for {patience:?} in {test}: {}\n", state.doing);
                let _ = std::io::stderr().write_all(text.as_bytes());
                std::process::abort();
            }
        }
    }
}
