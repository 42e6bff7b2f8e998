//! The state shared by the threads, snapshots and iterators of one open database.

use std::sync::Arc;
use std::time::Duration;

use super::background::Background;
use super::commit::Commits;
use super::held::Held;
use super::io::{Io, ManifestGuard};
use super::lifecycle::Lifecycle;
use super::observe::Observed;
use super::options::Workers;
use super::removal::Removal;
use super::settings::Settings;
use super::space::Space;
use super::stripes::Stripes;
use super::tuning::Tuner;
use crate::backpressure::StallReason;
use crate::clock::{Clock, Now};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::manifest::Change;
use crate::planted::{Bug, planted};
use crate::stripe::Stripe;
use crate::sync::ArcSwap;

/// Everything that the threads, snapshots and iterators of one open database share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) life: Lifecycle,
    pub(crate) io: Io,
    pub(crate) space: Space,
    pub(crate) removal: Removal,
    pub(crate) observed: Observed,
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) stripes: Stripes,
    pub(crate) commits: Commits,
    /// Work that readers hold back: removals and merges.
    pub(crate) held: Held,
    pub(crate) background: Background<Self>,
    pub(crate) tuner: Tuner,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) workers: Workers,
    /// The durability of writes that specify none.
    pub(crate) durability: Durability,
    /// Entries of a memtable or a merge that one step of a job processes.
    pub(crate) chunk: usize,
}

impl Shared {
    /// Returns the stripe, creating it if necessary. Ids come from `stripe_of` or were checked.
    pub(crate) fn stripe(&self, id: usize) -> Result<&Stripe> {
        self.stripes.get_or_make(id).ok_or_else(|| self.no_stripe(id))
    }

    #[cold]
    fn no_stripe(&self, id: usize) -> Error {
        self.life.health().internal(format!("there is no stripe {id}, of {}", self.stripes.count()))
    }

    pub(crate) fn now(&self) -> Now {
        Now::of(&*self.clock)
    }

    /// The time elapsed since `moment`.
    pub(crate) fn since(&self, moment: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(moment)
    }

    /// Puts settings in force. Most code reads them at each decision; the rest is notified here.
    pub(super) fn apply(&self, settings: Settings) {
        self.io.wal().set_limits(settings.log_limits());
        self.io.tables().apply(&settings.database);
        self.settings.store(Arc::new(settings));
        self.limit_disk(false);
    }

    /// Appends one durable edit: see [`Io::append_edit`].
    pub(crate) fn edit_manifest(&self, changes: Vec<Change>) -> Result<()> {
        self.append_edit(&mut self.io.manifest(), changes)
    }

    /// The same for a caller that holds the manifest.
    pub(super) fn append_edit(&self, manifest: &mut ManifestGuard<'_>, changes: Vec<Change>) -> Result<()> {
        self.io.append_edit(manifest, &self.life, &self.space, changes)
    }

    /// Called before the first write after a clean open, including writes of background work. Cancels the recorded
    /// clean end, so that a crash from here on is recognized as one. After a recovery that ran out of space: completes
    /// it. The caller holds the gate, or is a worker (close stops the workers before it checks), or is the only thread
    /// so far.
    pub(crate) fn ensure_opened(&self) -> Result<()> {
        if self.life.is_opened() {
            return Ok(());
        }
        let since = self.clock.monotonic();
        let mut manifest = self.io.manifest();
        if self.life.is_opened() || self.life.is_unfinished() {
            let settings = self.settings_change(manifest.state());
            let finished = self.finish_recovery(&mut manifest, settings);
            self.observed.waited(StallReason::Recovery, since);
            return finished;
        }
        let settings = self.settings_change(manifest.state());
        self.life.start_writing(|_| {
            if planted(Bug::CleanEndNotCancelled) {
                return Ok(());
            }
            self.append_edit(&mut manifest, [Change::Opened].into_iter().chain(settings).collect())
        })
    }

    /// Writes what remains to be written of a recovery, if anything does, with these settings.
    pub(super) fn finish_recovery(
        &self,
        manifest: &mut ManifestGuard<'_>,
        settings: Option<Change>,
    ) -> Result<()> {
        if !self.life.is_unfinished() {
            return Ok(());
        }
        self.life.start_writing(|unfinished| {
            let Some(rest) = unfinished else { return Ok(()) };
            let tidy = rest.finish(&**self.io.vfs(), self.io.dir(), |mut changes| {
                changes.extend(settings);
                self.append_edit(manifest, changes)
            })?;
            if !tidy {
                self.removal.note_orphans();
            }
            Ok(())
        })
    }
}
