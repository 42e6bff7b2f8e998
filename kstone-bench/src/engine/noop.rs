//! Does nothing, so that measuring it measures the harness.

use std::hint::black_box;
use std::path::Path;

use anyhow::Result;

use super::{Durability, Engine, EngineSpec, Session};
use crate::data::BenchKey;

#[derive(Debug, Default)]
struct Noop {
    empty: [u8; 0],
}

pub(super) fn open(_: &EngineSpec, _: &Path, _: Durability) -> Result<Box<dyn Engine>> {
    Ok(Box::new(Noop::default()))
}

impl Engine for Noop {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Nothing(&self.empty)))
    }
}

struct Nothing<'a>(&'a [u8]);

impl Session for Nothing<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        black_box((key, value));
        Ok(())
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        black_box(key);
        Ok(())
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        black_box(key);
        visit(self.0);
        Ok(true)
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        keys.iter().for_each(|key| visit(black_box(key).sort().unwrap_or(self.0)));
        Ok(keys.len() as u64)
    }

    fn query(&mut self, from: &BenchKey, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        black_box(from);
        (0..limit).for_each(|_| visit(self.0));
        Ok(limit)
    }

    fn partition(&mut self, first: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        self.query(first, 100, visit)
    }

    fn scan(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        (0..limit).for_each(|_| visit(self.0));
        Ok(limit)
    }
}
