//! Counts and latencies of one thread, and of all threads together.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::Answer;
use crate::record::Latency;
use crate::results;

/// Three significant digits, for values up to an hour.
const DIGITS: u8 = 3;
const HIGHEST: u64 = 3_600_000_000_000;

/// Counts and latencies.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) operations: u64,
    pub(super) not_found: u64,
    pub(super) wrong: u64,
    pub(super) bytes_written: u64,
    /// The longest of all operations, in nanoseconds.
    pub(super) longest: u64,
    /// Whether they began with the measurement; otherwise the thread ended during the warm-up, and they are all its work.
    pub(super) measured: bool,
    kinds: Vec<(&'static str, Kind)>,
}

#[derive(Clone, Debug)]
struct Kind {
    service: Histogram<u64>,
    /// Latencies from when the operations were due, in an open loop.
    waited: Option<Histogram<u64>>,
}

fn histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, HIGHEST, DIGITS).ok()
}

impl Tally {
    /// Records an operation of this kind; `waited` counts from when it was due.
    pub(super) fn record(&mut self, kind: &'static str, waited: Option<u64>, service: u64, longest: u64) {
        self.operations += 1;
        self.longest = self.longest.max(longest);
        let at = match self.kinds.iter().position(|(known, _)| *known == kind) {
            Some(at) => at,
            None => {
                let Some(service) = histogram() else { return };
                let waited = waited.and_then(|_| histogram());
                self.kinds.push((kind, Kind { service, waited }));
                self.kinds.len() - 1
            }
        };
        if let Some((_, kind)) = self.kinds.get_mut(at) {
            kind.service.saturating_record(service);
            if let (Some(histogram), Some(waited)) = (&mut kind.waited, waited) {
                histogram.saturating_record(waited);
            }
        }
    }

    pub(super) fn answered(&mut self, answer: &Answer) {
        self.not_found += answer.not_found;
        self.wrong += answer.wrong;
        self.bytes_written += answer.bytes_written;
    }

    /// Adds those of another thread.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.operations += other.operations;
        self.not_found += other.not_found;
        self.wrong += other.wrong;
        self.bytes_written += other.bytes_written;
        self.longest = self.longest.max(other.longest);
        for (kind, theirs) in &other.kinds {
            match self.kinds.iter_mut().find(|(known, _)| known == kind) {
                Some((_, ours)) => {
                    ours.service.add(&theirs.service)?;
                    if let (Some(ours), Some(theirs)) = (&mut ours.waited, &theirs.waited) {
                        ours.add(theirs)?;
                    }
                }
                None => self.kinds.push((kind, theirs.clone())),
            }
        }
        Ok(())
    }

    /// The latencies in the form of results.
    pub(super) fn latencies(&self) -> Result<BTreeMap<String, Latency>> {
        let of = |(name, kind): &(&'static str, Kind)| -> Result<(String, Latency)> {
            let service = results::latency(&kind.service)?;
            let latency = match &kind.waited {
                Some(waited) => {
                    let service = Some(Box::new(service));
                    Latency { from_intended: true, service, ..results::latency(waited)? }
                }
                None => service,
            };
            Ok(((*name).to_owned(), latency))
        };
        self.kinds.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_several_threads_are_those_of_all() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        (1..=500).for_each(|n| one.record("get", None, n * 1000, n * 1000));
        (501..=1000).for_each(|n| other.record("get", None, n * 1000, n * 1000));
        other.record("put", Some(9_000), 3_000, 9_000);
        one.add(&other).unwrap();
        let latencies = one.latencies().unwrap();
        let get = &latencies["get"];
        assert_eq!((get.count, one.operations, one.longest), (1000, 1001, 1_000_000));
        assert!((499_000..=502_000).contains(&get.p50) && (989_000..=992_000).contains(&get.p99), "{get:?}");
        let put = &latencies["put"];
        assert!(put.from_intended && put.p50 >= 9_000);
        assert!(put.service.as_ref().unwrap().p50 < 3_100);
    }
}
