//! A long workload, with every answer compared with the model. Power is never cut; processes die.

use super::{Failure, Harness, Mismatch, Mix, SettingsOf, Tolerance, Totals, Watchdog, Workload, World};
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::torture::Fingerprint;

/// A run. The same seed and count perform the same operations with any settings.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// Determines everything.
    pub seed: u64,
    /// Number of operations.
    pub operations: u64,
    /// The source of the settings.
    pub settings: SettingsOf,
}

impl Oracle {
    /// Runs the workload.
    ///
    /// # Errors
    /// The first wrong answer.
    pub fn run(&self) -> Result<Totals, Failure> {
        self.answers().map(|(totals, _)| totals)
    }

    /// Runs the workload, and also returns a fingerprint of all its answers: the same for the same operations, whatever
    /// the settings, unless a limit on disk space refuses some of them.
    ///
    /// # Errors
    /// The first wrong answer.
    pub fn answers(&self) -> Result<(Totals, Fingerprint), Failure> {
        let _watchdog = Watchdog::start(self.replay());
        let mut world = World::new(Harness::new(), self.seed, self.settings.clone(), Tolerance::Limits);
        world.create().map_err(|mismatch| self.failure(0, mismatch))?;
        world.created();
        for (number, operation) in (1..=self.operations).zip(Workload::new(self.seed, Mix::Oracle)) {
            let done = world.perform(&operation).and_then(|outcome| {
                world.settle(outcome);
                world.check_limits()
            });
            done.map_err(|mismatch| self.failure(number, mismatch))?;
        }
        world.check().map_err(|mismatch| self.failure(self.operations, mismatch))?;
        let answers = world.answers();
        Ok((world.end().1, answers))
    }

    /// Runs the same operations with each of these settings; all must give the same answers.
    ///
    /// # Errors
    /// The first wrong answer, or the first settings whose answers differ from the first run's.
    pub fn agree(&self, settings: &[(DatabaseConfig, CompactionConfig)]) -> Result<Totals, Failure> {
        let (mut totals, mut first) = (Totals::default(), None);
        for (config, compaction) in settings {
            let given = SettingsOf::Given(Box::new(config.clone()), Box::new(compaction.clone()));
            let (done, answers) = Self { settings: given, ..self.clone() }.answers()?;
            totals.add(&done);
            if *first.get_or_insert(answers) != answers {
                return Err(self.failure(
                    self.operations,
                    Mismatch {
                        expected: "the same answers whatever the settings".into(),
                        found: format!("others with {config:?}, {compaction:?}"),
                    },
                ));
            }
        }
        Ok(totals)
    }

    fn failure(&self, operation: u64, mismatch: Mismatch) -> Failure {
        Failure {
            seed: self.seed,
            operation,
            crashes: Vec::new(),
            expected: mismatch.expected.into(),
            found: mismatch.found.into(),
            replay: self.replay().into(),
        }
    }

    fn replay(&self) -> String {
        format!("KSTONE_SEED={} cargo test -p kstone-core --test it oracle", self.seed)
    }
}
