//! The operations of the workload, each of which may fail, and the required meaning of success and failure.

use std::sync::Arc;

use super::run::{Checks, FaultRun, dir, mismatch};
use crate::error::Error;
use crate::lsm::{LsmEngine, WriteOptions};
use crate::torture::commit::Attempt;
use crate::torture::{Least, Mismatch, Operation, Rng, SettingsOf, Way, any_settings, contents, random_key};

/// Maximum number of snapshots held at a time.
const SNAPSHOTS: usize = 2;

impl FaultRun {
    pub(super) fn perform(&mut self, operation: &Operation) -> Checks {
        if let Operation::Reopen { clean, .. } = operation {
            self.let_go(*clean)?;
        }
        let Some(engine) = &self.engine else { return self.open() };
        let done = match operation {
            Operation::Write { .. } => return self.write(operation),
            Operation::Get { .. } | Operation::Query { .. } | Operation::Check => return self.read(),
            Operation::TakeSnapshot | Operation::CheckSnapshot { .. } | Operation::DropSnapshot { .. } => {
                return self.snapshot(operation);
            }
            Operation::Step { choice } => {
                engine.step(*choice);
                return self.read_one();
            }
            Operation::Advance { by } => {
                self.clock.advance(*by);
                Ok(false)
            }
            Operation::SetClock { unix_ms } => {
                self.clock.set_unix_ms(*unix_ms);
                Ok(false)
            }
            Operation::Sync => engine.sync().map(|()| true),
            Operation::Flush => engine.flush().map(|()| true),
            Operation::Compact { stripe } => {
                // Only the merged runs are durable.
                engine.trigger_compaction((stripe % engine.stripe_count() as u64) as usize).map(|()| false)
            }
            Operation::Settings { .. } if matches!(self.settings, SettingsOf::Given(..)) => Ok(false),
            Operation::Settings { seed } => {
                let (config, compaction) = any_settings(&mut Rng(*seed));
                let config = crate::DatabaseConfig { stripes: None, max_total_disk_bytes: None, ..config };
                engine
                    .set_config(config)
                    .and_then(|()| engine.set_compaction_config(compaction))
                    .map(|()| false)
            }
            Operation::ReadOnly => return self.read_only(),
            Operation::Limit { .. } | Operation::Reopen { .. } => Ok(false),
        };
        match done {
            Ok(durable) => {
                if durable {
                    self.history.synced();
                }
                Ok(())
            }
            Err(error) => self.tolerate(&format!("{operation:?}"), &error),
        }
    }

    pub(super) fn write(&mut self, operation: &Operation) -> Checks {
        let (Some(engine), Operation::Write { change, sync, way }) = (&self.engine, operation) else {
            return Ok(());
        };
        let healthy = !self.is_poisoned();
        let known = self.history.doubts().is_empty();
        let options = if *sync { WriteOptions::sync() } else { WriteOptions::buffered() };
        let held = self.snapshots.iter().map(|(snapshot, _)| snapshot).min_by_key(|held| held.seq());
        let state = (known && *way != Way::Plain).then(|| self.history.state().clone());
        let attempt = Attempt { engine, change, way: *way, held, state: state.as_ref(), options };
        let refusal = attempt.is_refused().map_err(|error| Mismatch::error("snapshot", &error))?;
        if !refusal {
            self.history.begin(change.clone());
        }
        match attempt.make()? {
            Ok(()) if !healthy => return mismatch("a poisoned handle refuses writes", "it accepted one"),
            Ok(()) if refusal => self.totals.unmet += 1,
            Ok(()) => {
                self.history.acknowledge();
                if *sync {
                    self.history.synced();
                }
            }
            Err(error) => {
                // Only a write whose own sync failed, or that could not be undone, is in doubt.
                if !refusal && (!healthy || !self.is_poisoned()) {
                    self.history.refuse();
                }
                self.tolerate("write", &error)?;
            }
        }
        Ok(())
    }

    /// Checks that all items are as expected, or cannot be read.
    pub(super) fn read(&mut self) -> Checks {
        let Some(engine) = &self.engine else { return Ok(()) };
        match contents(engine, None) {
            Ok(found) => self.history.check(&found, Least::Acknowledged),
            Err(error) => self.tolerate("scan", &error),
        }
    }

    fn read_one(&mut self) -> Checks {
        let key = random_key(&mut self.rng);
        let Some(engine) = self.engine.as_ref().filter(|_| self.history.doubts().is_empty()) else {
            return Ok(());
        };
        match engine.get(&key) {
            Ok(found) if found.as_deref() == self.history.state().get(&key).map(Vec::as_slice) => Ok(()),
            Ok(found) => mismatch(format!("get {key:?} to agree with a scan"), format!("{found:?}")),
            Err(error) => self.tolerate("get", &error),
        }
    }

    fn snapshot(&mut self, operation: &Operation) -> Checks {
        let Some(engine) = &self.engine else { return Ok(()) };
        match operation {
            Operation::TakeSnapshot if self.snapshots.len() < SNAPSHOTS => {
                let taken = engine.snapshot().and_then(|snapshot| {
                    let state = contents(engine, Some(&snapshot))?;
                    Ok((snapshot, state))
                });
                match taken {
                    Ok((snapshot, state)) => {
                        self.history.check(&state, Least::Acknowledged)?;
                        self.snapshots.push((snapshot, state));
                    }
                    Err(error) => self.tolerate("snapshot", &error)?,
                }
            }
            Operation::CheckSnapshot { .. } => {
                let Some((snapshot, state)) = self.snapshots.first() else { return Ok(()) };
                match contents(engine, Some(snapshot)) {
                    Ok(found) if found == *state => {}
                    Ok(found) => {
                        return mismatch(format!("{} items", state.len()), format!("{}", found.len()));
                    }
                    Err(error) => self.tolerate("scan of a snapshot", &error)?,
                }
            }
            _ => self.snapshots.truncate(1),
        }
        Ok(())
    }

    fn read_only(&mut self) -> Checks {
        let clean = self.rng.one_in(2);
        self.let_go(clean)?;
        let before = self.strict.ops();
        let opened = LsmEngine::open_read_only(dir(), self.options(Arc::new(self.vfs.clone())));
        let found = opened.and_then(|engine| contents(&engine, None));
        if self.strict.ops() != before {
            return mismatch("a read-only open changes nothing", "it did");
        }
        match found {
            Ok(found) => self.history.check(&found, Least::Acknowledged)?,
            Err(Error::NotFound { .. } | Error::NotADatabase { .. })
                if self.history.may_be_absent(Least::Acknowledged) => {}
            Err(error) => self.tolerate("read-only open", &error)?,
        }
        self.open()
    }
}
