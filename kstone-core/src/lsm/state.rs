//! What threads, snapshots and iterators of one open database share.

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

/// Everything that threads, snapshots and iterators of one open database share.
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
    /// What readers keep from being removed or merged.
    pub(crate) held: Held,
    pub(crate) background: Background<Self>,
    pub(crate) tuner: Tuner,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) workers: Workers,
    /// Of writes that ask for none.
    pub(crate) durability: Durability,
    /// Entries of a memtable or a merge that one step of a job takes.
    pub(crate) chunk: usize,
}

impl Shared {
    /// The stripe, made if need be. Ids come from `stripe_of` or were checked.
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

    /// How long that moment is ago.
    pub(crate) fn since(&self, moment: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(moment)
    }

    /// Puts settings in force: what reads them at each decision finds them, the rest is notified.
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

    /// The same, where the manifest is held.
    pub(super) fn append_edit(&self, manifest: &mut ManifestGuard<'_>, changes: Vec<Change>) -> Result<()> {
        self.io.append_edit(manifest, &self.life, &self.space, changes)
    }

    /// Before the first write after a clean open, also of background work: cancels the recorded end, so that a crash from
    /// here on is taken for what it is. After a recovery that found no space: finishes it. The caller holds the gate, or
    /// is a worker, which close stops before it looks, or is the only one yet.
    pub(crate) fn ensure_opened(&self) -> Result<()> {
        if self.life.is_opened() {
            return Ok(());
        }
        let since = self.clock.monotonic();
        let mut manifest = self.io.manifest();
        if self.life.is_opened() {
            self.observed.waited(StallReason::Recovery, since);
        } else {
            let settings = self.settings_change(manifest.state());
            self.life.start_writing(|unfinished| match unfinished {
                Some(rest) => {
                    let tidy = rest.finish(&**self.io.vfs(), self.io.dir(), |mut changes| {
                        changes.extend(settings);
                        self.append_edit(&mut manifest, changes)
                    });
                    self.observed.waited(StallReason::Recovery, since);
                    if !tidy? {
                        self.removal.note_orphans();
                    }
                    Ok(())
                }
                None if planted(Bug::CleanEndNotCancelled) => Ok(()),
                None => {
                    self.append_edit(&mut manifest, [Change::Opened].into_iter().chain(settings).collect())
                }
            })?;
        }
        Ok(())
    }
}
