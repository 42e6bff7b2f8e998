//! What the tables measure with: the scale, directories, processes; and what several tables share, measured once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::probe::{self, Disk, Found, Job, Probe};
use super::scale::Scale;
use super::tables::memtables::Filled;
use crate::record::{Trial, TrialSpec};
use crate::trial;

/// Handed from table to table.
pub(crate) struct Context<'a> {
    /// How much is done.
    pub(crate) scale: Scale,
    /// What measures: this program, unless a test runs another.
    pub(crate) program: PathBuf,
    /// Where databases are made and removed.
    pub(crate) directory: PathBuf,
    /// Is told what goes on.
    pub(crate) progress: &'a mut dyn FnMut(&str),
    /// Trials that the driver ran.
    pub(crate) trials: Vec<Trial>,
    /// Of section 23.1, by threshold.
    pub(crate) filled: Option<Vec<Filled>>,
    /// Of section 23.3, by bits.
    pub(crate) filters: BTreeMap<usize, Vec<Found>>,
    /// Of section 23.5, by configuration.
    pub(crate) configured: Option<Vec<Vec<Trial>>>,
    /// What the disk needs.
    pub(crate) disk: Option<Found>,
}

impl<'a> Context<'a> {
    /// Nothing measured yet.
    pub(crate) fn new(
        scale: Scale,
        program: PathBuf,
        directory: PathBuf,
        progress: &'a mut dyn FnMut(&str),
    ) -> Self {
        Self {
            scale,
            program,
            directory,
            progress,
            trials: Vec::new(),
            filled: None,
            filters: BTreeMap::new(),
            configured: None,
            disk: None,
        }
    }

    /// A directory of its own for a measurement, removed with what is returned.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn fresh(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix("chapter-").tempdir_in(&self.directory);
        made.with_context(|| format!("cannot make a directory in {}", self.directory.display()))
    }

    /// Measures with a database of its own.
    ///
    /// # Errors
    /// The measurement fails.
    pub(crate) fn measure(&mut self, what: &str, probe: Probe) -> Result<Found> {
        let directory = self.fresh()?;
        self.measure_in(what, probe, directory.path().join("db"))
    }

    /// Measures with the database in that directory, which is made if there is none.
    ///
    /// # Errors
    /// The measurement fails.
    pub(crate) fn measure_in(&mut self, what: &str, probe: Probe, directory: PathBuf) -> Result<Found> {
        (self.progress)(what);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let found = probe::run(&self.program, &Job { probe, directory });
        found.with_context(|| what.to_owned())
    }

    /// What the disk needs for a read that no cache has.
    ///
    /// # Errors
    /// The measurement fails.
    pub(crate) fn disk(&mut self) -> Result<Found> {
        if let Some(disk) = &self.disk {
            return Ok(disk.clone());
        }
        let reads = self.scale.reads.min(2000);
        let disk =
            self.measure("reads of 4 KiB from the disk", Probe::Disk(Disk { pages: 8 * reads, reads }))?;
        self.disk = Some(disk.clone());
        Ok(disk)
    }

    /// Runs trials of a load with the driver; all specs in turn, as often as the scale says.
    ///
    /// # Errors
    /// A spec cannot be run as it is.
    pub(crate) fn drive(&mut self, specs: &[TrialSpec]) -> Result<Vec<Trial>> {
        let options = trial::Options {
            directory: self.directory.clone(),
            trials: self.scale.trials,
            keep: false,
            program: self.program.clone(),
        };
        let trials = trial::run_all(specs, &options, self.progress)?;
        self.trials.extend_from_slice(&trials);
        Ok(trials)
    }

    /// For each trial all points, one after the other, so that what changes on the machine meanwhile changes all points
    /// alike; what was found of each point, in the order of the trials.
    ///
    /// # Errors
    /// A measurement fails.
    pub(crate) fn interleaved<P, F>(&mut self, points: &[P], mut measure: F) -> Result<Vec<Vec<Found>>>
    where
        F: FnMut(&mut Self, &P, u64) -> Result<Found>,
    {
        let mut all: Vec<Vec<Found>> = points.iter().map(|_| Vec::new()).collect();
        for trial in 0..self.scale.trials as u64 {
            for (point, found) in points.iter().zip(&mut all) {
                found.push(measure(self, point, 42 + trial)?);
            }
        }
        Ok(all)
    }
}

/// A figure of all trials.
///
/// # Errors
/// A trial has no figure of that name.
pub(crate) fn figures(found: &[Found], name: &str) -> Result<Vec<f64>> {
    found.iter().map(|found| found.get(name)).collect()
}
