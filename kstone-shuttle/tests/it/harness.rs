//! What all scenarios share: how many schedules, by which schedulers, on which clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kstone_shuttle::clock::Clock;
use kstone_shuttle::sync::{Time, Timed};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// The simulated time, and numbers that each execution gives out anew.
#[derive(Debug, Default)]
pub(crate) struct SimulatedClock {
    random: AtomicU64,
}

impl Clock for SimulatedClock {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + Time::now().as_millis() as u64
    }

    fn monotonic(&self) -> Duration {
        Time::now()
    }

    fn random(&self) -> u64 {
        let n = self.random.fetch_add(1, Ordering::Relaxed) + 1;
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[expect(clippy::disallowed_methods, reason = "the time that the test took")]
/// Runs the scenario under many schedules, half of them random, half with few changes of thread (PCT).
pub(crate) fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    let schedules = 2000;
    let scenario = Arc::new(scenario);
    let started = Instant::now();
    let run = |scheduler: Box<dyn Scheduler + Send>, once_in| {
        let mut config = Config::new();
        config.stack_size = 256 << 10;
        config.silence_warnings = true;
        config.max_steps = MaxSteps::FailAfter(200_000);
        let scenario = Arc::clone(&scenario);
        Runner::new(Timed::new(scheduler, once_in, 1), config).run(move || Time::run(&*scenario))
    };
    let ran = run(Box::new(RandomScheduler::new_from_seed(1, schedules / 2)), 0)
        + run(Box::new(PctScheduler::new_from_seed(2, 4, schedules / 2)), 200);
    println!("{name}: {ran} schedules in {:.1?}", started.elapsed());
    assert!(ran >= 2000);
}
