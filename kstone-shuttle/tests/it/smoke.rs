//! The smallest scenario: that an engine runs under the scheduler at all.

use std::path::Path;
use std::sync::Arc;

use kstone_shuttle::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_shuttle::{DatabaseConfig, Key};

use super::harness::{SimulatedClock, explore};

#[test]
fn writers_find_what_they_have_written() {
    explore("two writers", || {
        let mut options = EngineOptions::memory();
        options.clock = Arc::new(SimulatedClock::default());
        options.config = Some(DatabaseConfig::new().with_stripes(4).with_max_memtable_records(2));
        let engine = Arc::new(LsmEngine::create(Path::new("db"), options).unwrap());
        let threads: Vec<_> = (0..2)
            .map(|t| {
                let engine = Arc::clone(&engine);
                shuttle::thread::spawn(move || {
                    for i in 0..3 {
                        let key = format!("{t}{i}");
                        engine.put(&Key::from(&key), b"v", WriteOptions::sync()).unwrap();
                        assert!(engine.get(&Key::from(&key)).unwrap().is_some());
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        engine.close().unwrap();
    });
}
