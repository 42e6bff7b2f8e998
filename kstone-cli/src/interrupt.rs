//! Ctrl-C and SIGTERM, for commands that must end cleanly. The command polls for the first signal, also while it waits
//! for input; a second one ends the process at once, which a database survives like any crash. Read-only commands do
//! not use this: the signal itself ends them.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

use crate::failure::{Failure, exit};

#[derive(Clone)]
pub(crate) struct Interrupt {
    seen: Arc<AtomicBool>,
    /// Becomes readable once a signal has arrived.
    woken: Arc<UnixStream>,
}

impl Interrupt {
    /// From now on, signals are recorded instead of ending the process.
    pub(crate) fn watch() -> Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        let (woken, wake) = UnixStream::pair().context("cannot watch for signals")?;
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal sets the flag, and the second finds it set.
            flag::register_conditional_shutdown(signal, exit::INTERRUPTED.into(), Arc::clone(&seen))
                .and_then(|_| flag::register(signal, Arc::clone(&seen)))
                .and_then(|_| pipe::register(signal, wake.try_clone()?))
                .context("cannot watch for signals")?;
        }
        Ok(Self { seen, woken: Arc::new(woken) })
    }

    pub(crate) fn is_seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    /// For progress callbacks.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.is_seen() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Waits for this long, or until a signal arrives or nobody reads stdout any more.
    pub(crate) fn wait(&self, time: Duration) -> Result<Waited> {
        let stdout = io::stdout();
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        loop {
            let mut ready =
                [PollFd::new(&*self.woken, PollFlags::IN), PollFd::new(&stdout, PollFlags::empty())];
            let polled = poll(&mut ready, Some(&time));
            let [_, stdout] = ready;
            match polled {
                _ if self.is_seen() => return Ok(Waited::Interrupted),
                // Another signal, such as that of a resized terminal.
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
                Ok(0) => return Ok(Waited::Elapsed),
                // Nothing but an error or a hang-up was asked for.
                Ok(_) if !stdout.revents().is_empty() => return Ok(Waited::Unread),
                Ok(_) => {}
            }
        }
    }

    /// Reads the file until a signal arrives, then fails.
    pub(crate) fn reader(&self, file: File) -> impl Read + use<> {
        Watched { file, interrupt: self.clone() }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Elapsed,
    Interrupted,
    /// The reader of stdout has seen enough, as with `head`.
    Unread,
}

struct Watched {
    file: File,
    interrupt: Interrupt,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let woken = &*self.interrupt.woken;
            let mut ready = [PollFd::new(&self.file, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let [input, _] = ready;
            if self.interrupt.is_seen() {
                return Err(io::Error::other("interrupted"));
            }
            if !input.revents().is_empty() {
                return self.file.read(buffer);
            }
        }
    }
}

/// The failure of a command that was to run until it is interrupted: nothing is reported.
pub(crate) fn ended() -> Failure {
    Failure { exit: exit::INTERRUPTED, code: "interrupted", message: String::new(), hint: None }
}

/// The failure of an interrupted command; `what` describes the state that it left behind.
pub(crate) fn interrupted(what: &str, hint: Option<String>) -> Failure {
    Failure { exit: exit::INTERRUPTED, code: "interrupted", message: format!("interrupted: {what}"), hint }
}
