//! Requirements: on a poisoned handle, once the fault is lifted, and after a power cut.

use std::sync::Arc;
use std::time::Duration;

use super::run::{Checks, FaultRun, dir, mismatch};
use crate::error::Error;
use crate::key::Key;
use crate::lsm::{LsmEngine, WriteOptions};
use crate::torture::{Least, Mismatch, Operation, Way, check_all, contents};
use crate::vfs::CrashMode;

/// More steps of background work than a workload can need.
const MOST_STEPS: u32 = 5_000;

impl FaultRun {
    pub(super) fn check_late(&self) -> Checks {
        match self.beside.late.lock().clone() {
            Some(late) => mismatch("nothing removed, renamed or truncated by a poisoned handle", late),
            None => Ok(()),
        }
    }

    /// Checks that the first cause is kept, and that nothing is written or removed any more.
    pub(super) fn check_poisoned(&mut self) -> Checks {
        self.check_late()?;
        let (cause, written) = (self.cause(), self.written());
        match (&self.poisoned, cause) {
            (None, Some(cause)) => {
                self.totals.poisoned = 1;
                self.poisoned = Some((cause, written));
                self.vfs.record(true);
            }
            (Some((first, before)), Some(cause)) => {
                if *first != cause {
                    return mismatch(format!("the first cause, {first}"), cause);
                }
                if *before != written {
                    let done: Vec<_> = self.vfs.take_records().iter().map(ToString::to_string).collect();
                    let done = done.join("\n");
                    return mismatch(format!("no write by a handle poisoned by: {first}"), done);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens the image that a power cut would leave now.
    pub(super) fn check_image(&mut self, mode: CrashMode) -> Checks {
        self.crash = Some(mode);
        let image = self.strict.crash(mode);
        match LsmEngine::open(dir(), self.options(Arc::new(image))) {
            Ok(engine) => {
                self.totals.opened += 1;
                let found = contents(&engine, None).map_err(|error| Mismatch::error("scan", &error))?;
                self.history.check(&found, Least::Durable)?;
                engine.verify().map_err(|error| Mismatch::error("verify", &error))?;
            }
            Err(Error::NotFound { .. } | Error::NotADatabase { .. })
                if self.history.may_be_absent(Least::Durable) => {}
            Err(error) => return Err(Mismatch::error("open after a power cut", &error)),
        }
        self.crash = None;
        Ok(())
    }

    pub(super) fn check_all(&mut self) -> Checks {
        let Some(engine) = &self.engine else { return mismatch("an engine", "none") };
        let found = contents(engine, None).map_err(|error| Mismatch::error("scan", &error))?;
        self.history.check(&found, Least::Acknowledged)?;
        check_all(engine, &found, None, &mut self.rng)?;
        engine.verify().map(drop).map_err(|error| Mismatch::error("verify", &error))
    }

    /// The fault is lifted: checks what must hold now, after a power cut, and after a close or the death of the
    /// process.
    pub(super) fn after(&mut self) -> Checks {
        let mode = CrashMode::Random { seed: self.rng.next() };
        let mode = if self.rng.one_in(2) { CrashMode::Strict } else { mode };
        self.check_image(mode)?;
        if self.engine.is_some() {
            self.read()?;
            if self.is_poisoned() { self.check_refuses()? } else { self.check_heals()? }
        }
        let clean = self.rng.one_in(2);
        self.let_go(clean)?;
        self.open()?;
        self.totals.opened += 1;
        self.check_all()?;
        // Opening made its contents durable.
        self.check_image(CrashMode::Strict)?;
        self.check_heals()?;
        self.let_go(true)?;
        self.check_image(CrashMode::Strict)
    }

    /// Checks that reads still work and writes are refused.
    fn check_refuses(&mut self) -> Checks {
        let Some(engine) = &self.engine else { return Ok(()) };
        let key = Key::from("refused");
        for done in [
            engine.put(&key, b"value", WriteOptions::new()).map(drop),
            engine.delete(&key, WriteOptions::new()).map(drop),
            engine.sync(),
            engine.flush(),
            engine.trigger_compaction(0),
        ] {
            if !matches!(done, Err(Error::Poisoned { .. })) {
                return mismatch("a poisoned handle refuses", format!("{done:?}"));
            }
        }
        while engine.step(0) {}
        self.check_poisoned()?;
        self.read()
    }

    /// Checks that writes are accepted, background work continues, and no trace of the failure is left.
    fn check_heals(&mut self) -> Checks {
        self.clock.advance(Duration::from_secs(60));
        // An error of work that is no longer due: kept until work of its kind succeeds.
        let before = self.background_error();
        for sync in [false, true] {
            let key = Key::new(format!("healed{sync}").into_bytes());
            self.write(&Operation::Write {
                change: vec![(key, Some(b"value".to_vec()))],
                sync,
                way: Way::Plain,
            })?;
        }
        let Some(engine) = &self.engine else { return mismatch("an engine", "none") };
        let mut steps = 0;
        while engine.step(self.rng.next()) {
            steps += 1;
            if steps > MOST_STEPS {
                return mismatch("background work that ends", format!("{steps} steps"));
            }
        }
        engine.flush().map_err(|error| Mismatch::error("flush", &error))?;
        self.history.synced();
        if let Some(error) = self.background_error().filter(|error| Some(error) != before.as_ref()) {
            return mismatch("background work without an error", error);
        }
        self.totals.healed += u64::from(self.totals.failed > 0);
        self.check_all()
    }

    fn background_error(&self) -> Option<String> {
        self.engine.as_ref()?.stats().ok()?.background_error
    }
}
