//! What threads, snapshots and iterators of one open database share.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::lifecycle::Lifecycle;
use super::options::Workers;
use super::settings::Settings;
use super::space::Space;
use super::{background, commit, held, observe, pins, tuning};
use crate::backpressure::StallReason;
use crate::clock::{Clock, Now};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::manifest::{Change, Manifest};
use crate::planted::{Bug, planted};
use crate::sst::{Table, TableContext};
use crate::stripe::Stripe;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{ArcSwap, Mutex};
use crate::types::FileId;
use crate::vfs::Vfs;
use crate::wal::Wal;

/// Everything that threads, snapshots and iterators of one open database share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) life: Lifecycle,
    pub(crate) space: Space,
    pub(crate) dir: PathBuf,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) workers: Workers,
    pub(crate) durability: Durability,
    /// Entries of a memtable or a merge that one step of a job takes.
    pub(crate) chunk: usize,
    pub(crate) settings: ArcSwap<Settings>,
    /// Made when something first goes into them.
    pub(crate) stripes: Box<[OnceLock<Box<Stripe>>]>,
    pub(crate) tables: Arc<TableContext>,
    pub(crate) wal: Wal,
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) file_ids: FileIds,
    pub(crate) commits: commit::Commits,
    /// The log segment that the last write went to.
    pub(crate) newest_generation: AtomicU32,
    /// SSTs that no version holds any more, to be unlinked once nobody refers to them.
    pub(crate) obsolete: Mutex<Vec<Arc<Table>>>,
    /// What backups under way keep from being removed.
    pub(crate) pins: pins::Pins,
    /// What readers keep from being removed or merged.
    pub(crate) held: held::Held,
    /// A file that belongs to nothing could not be removed.
    pub(crate) untidy: AtomicBool,
    /// Files that nobody needs and that could not be removed yet.
    pub(crate) leftovers: Mutex<Vec<PathBuf>>,
    pub(crate) background: background::Background,
    pub(crate) observed: observe::Observed,
    pub(crate) tuner: tuning::Tuner,
}

/// The numbers of new SSTs. They are reserved in the manifest ahead of use, so that none is used twice even if a
/// crash brings a removed file back.
#[derive(Debug)]
pub(crate) struct FileIds {
    next: AtomicU64,
    /// Reserved up to here, exclusive.
    limit: AtomicU64,
}

impl FileIds {
    pub(super) const BLOCK: u64 = 1024;

    pub(super) fn new(next: FileId, limit: FileId) -> Self {
        Self { next: AtomicU64::new(next), limit: AtomicU64::new(limit) }
    }

    /// The number that comes next.
    pub(crate) fn next(&self) -> FileId {
        self.next.load(Ordering::Relaxed)
    }

    /// The change that extends the reservation, once half of it is used.
    pub(crate) fn top_up(&self) -> Option<Change> {
        let left = self.limit.load(Ordering::Relaxed).saturating_sub(self.next());
        (left < Self::BLOCK / 2).then(|| Change::Reserve { files_below: self.next() + Self::BLOCK })
    }
}

impl Shared {
    /// The stripe, made if need be. Ids come from `stripe_of` or were checked.
    pub(crate) fn stripe(&self, id: usize) -> Result<&Stripe> {
        let Some(stripe) = self.stripes.get(id) else { return Err(self.no_stripe(id)) };
        Ok(stripe.get_or_init(|| Box::new(Stripe::new(id, Vec::new(), 0))))
    }

    #[cold]
    fn no_stripe(&self, id: usize) -> Error {
        self.life.health().internal(format!("there is no stripe {id}, of {}", self.stripes.len()))
    }

    /// The stripe, if anything was ever put into it.
    pub(crate) fn stripe_if_used(&self, id: usize) -> Option<&Stripe> {
        self.stripes.get(id)?.get().map(|stripe| &**stripe)
    }

    pub(crate) fn used_stripes(&self) -> impl Iterator<Item = &Stripe> {
        self.stripes.iter().filter_map(|stripe| stripe.get().map(|stripe| &**stripe))
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
        self.wal.set_limits(settings.log_limits());
        self.tables.apply(&settings.database);
        self.settings.store(Arc::new(settings));
        self.limit_disk(false);
    }

    /// A number for a new SST.
    pub(crate) fn next_file_id(&self) -> Result<FileId> {
        let id = self.file_ids.next.fetch_add(1, Ordering::Relaxed);
        if id >= self.file_ids.limit.load(Ordering::Acquire) {
            let mut manifest = self.manifest.lock();
            if id >= manifest.state().files_below {
                let reserve = Change::Reserve { files_below: id + FileIds::BLOCK };
                self.append_edit(&mut manifest, vec![reserve])?;
            }
        }
        Ok(id)
    }

    /// Appends one durable edit. Out of space is an error that passes, unless a sync met it; any other makes the
    /// handle read-only, for nobody knows what a failed sync left behind.
    pub(crate) fn edit_manifest(&self, changes: Vec<Change>) -> Result<()> {
        self.append_edit(&mut self.manifest.lock(), changes)
    }

    pub(super) fn append_edit(&self, manifest: &mut Manifest, changes: Vec<Change>) -> Result<()> {
        self.life.health().check()?;
        self.life.check_place(&*self.vfs, &self.dir)?;
        let result = manifest.append(changes);
        if manifest.is_broken()
            && let Err(error) = &result
        {
            self.life.health().poison(error);
        }
        self.wal.set_last_edit(result?);
        self.space.manifest_takes(manifest.room());
        self.file_ids.limit.fetch_max(manifest.state().files_below, Ordering::Release);
        Ok(())
    }

    /// Before the first write after a clean open, also of background work: cancels the recorded end, so that a crash from
    /// here on is taken for what it is. After a recovery that found no space: finishes it. The caller holds the gate, or
    /// is a worker, which close stops before it looks, or is the only one yet.
    pub(crate) fn ensure_opened(&self) -> Result<()> {
        if self.life.is_opened() {
            return Ok(());
        }
        let since = self.clock.monotonic();
        let mut manifest = self.manifest.lock();
        if self.life.is_opened() {
            self.observed.waited(StallReason::Recovery, since);
        } else {
            let settings = self.settings_change(manifest.state());
            self.life.start_writing(|unfinished| match unfinished {
                Some(rest) => {
                    let tidy = rest.finish(&*self.vfs, &self.dir, |mut changes| {
                        changes.extend(settings);
                        self.append_edit(&mut manifest, changes)
                    });
                    self.observed.waited(StallReason::Recovery, since);
                    self.untidy.fetch_or(!tidy?, Ordering::Relaxed);
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

    pub(crate) fn sync_dir(&self) -> Result<()> {
        let synced = self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir));
        if synced.as_ref().is_err_and(Error::is_unbegun_sync) {
            synced
        } else {
            self.life.poison_on_error(synced)
        }
    }
}
