//! A hang becomes a named failure: when a suite makes no progress for a long time, the process says what it was doing
//! and aborts. Without it a deadlock would hold up everything behind the suite and say nothing.
//!
//! It is the one place of the suites where real time counts, and it decides only when to give up.

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Many times what any step takes, even where other builds use every core.
const PATIENCE: Duration = Duration::from_secs(600);

/// Watches what its owner does until it is dropped.
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
    /// Rises with each step.
    steps: u64,
    done: bool,
}

impl Watchdog {
    /// Aborts the process when the next step, or the end, is not reached within ten minutes. `doing` should hold what
    /// repeats the step: a seed, or a command.
    pub fn start(doing: impl Display) -> Self {
        Self::with_patience(doing, PATIENCE)
    }

    /// The same with another limit for each step.
    pub fn with_patience(doing: impl Display, patience: Duration) -> Self {
        let state = State { doing: doing.to_string(), steps: 0, done: false };
        let watched = Arc::new(Watched { state: Mutex::new(state), changed: Condvar::new() });
        let test = std::thread::current().name().unwrap_or("unnamed").to_string();
        let watch = {
            let watched = Arc::clone(&watched);
            move || watched.watch(&test, patience)
        };
        // Without a thread there is no watchdog, and the suite runs all the same.
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(watch).ok();
        Self { watched, thread }
    }

    /// The next step begins.
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
            // It does nothing that could panic.
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
                // Directly: `eprintln!` would go where the test harness collects the output of the test that hangs.
                let text = format!("\nHANG: no progress for {patience:?} in {test}: {}\n", state.doing);
                let _ = std::io::stderr().write_all(text.as_bytes());
                std::process::abort();
            }
        }
    }
}
