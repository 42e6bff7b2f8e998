//! CREATE: turns an empty directory into a database.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::LsmEngine;
use super::assemble::Start;
use super::claim::{Claim, PathContents, absolute, claim};
use super::io::FileIds;
use super::lifecycle::Access;
use super::open::{metered, take_stock, validate};
use super::options::EngineOptions;
use super::settings::Settings;
use crate::clock::Clock;
use crate::config::DatabaseConfig;
use crate::error::{Error, Result};
use crate::file_header::Id;
use crate::manifest::{Change, Facts, Ids, Manifest};
use crate::paths::{self, FileName};
use crate::planted::{Bug, planted};
use crate::vfs::{Floor, MeteredVfs, Vfs};

impl LsmEngine {
    /// Creates a database. The directory may exist if it is empty; its parent must exist.
    ///
    /// # Errors
    /// `AlreadyExists` if there is a database or anything else; `Corruption` if there are SSTs or log records without a
    /// manifest; `InvalidConfig`. In all these cases nothing is changed.
    pub fn create(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let since = options.clock.monotonic();
        let path = &absolute(&*options.vfs, path)?;
        let (options, meter) = metered(path, options);
        let vfs = Arc::clone(&options.vfs);
        let claim = claim(&*vfs, path, || Ok(PathContents::at(&*vfs, path)?.for_create(path)))?;
        Self::create_in(path, options, claim, &meter, since)
    }

    /// Creates a database in a directory that is suitable for one.
    pub(super) fn create_in(
        path: &Path,
        options: EngineOptions,
        Claim { guard: lock, made }: Claim,
        meter: &MeteredVfs,
        since: Duration,
    ) -> Result<Self> {
        let vfs = Arc::clone(&options.vfs);
        if let Some(parent) = path.parent().filter(|_| !(made && planted(Bug::CreationNotSynced))) {
            match vfs.sync_dir(parent) {
                // The process that created the directory may not have synced its parent, nor can this one without the
                // right to read the parent.
                Err(e) if !made && e.kind() == std::io::ErrorKind::PermissionDenied => {}
                synced => synced.map_err(Error::io("sync", parent))?,
            }
        }
        remove_leftovers(&*vfs, path)?;
        take_stock(meter, path)?;
        let database = options.config.clone().unwrap_or_default();
        let stripes = database.stripes.unwrap_or_else(|| database.default_stripes());
        let database = DatabaseConfig { stripes: Some(stripes), ..database };
        let compaction = options.compaction.clone().unwrap_or_default();
        let now = options.clock.unix_ms();
        let ids = Ids {
            database_id: random_id(&*options.clock),
            incarnation: random_id(&*options.clock),
            created_ms: now,
        };
        let changes = vec![
            Change::Facts(Facts::new(stripes, now)),
            Change::Keyspace { id: 0, name: "items".into() },
            Change::Settings(Settings::new(database.clone(), compaction.clone(), None).stored()),
            Change::Reserve { files_below: 1 + FileIds::BLOCK },
        ];
        let manifest = Manifest::create(Arc::clone(&vfs), path, ids, changes)?;
        let start = Start {
            chain: None,
            next_seq: 1,
            file_ids: FileIds::new(1, 1 + FileIds::BLOCK),
            settings: Settings::new(database, compaction, None),
            access: Access::Write { lock, place: Arc::clone(meter.place()), unfinished: None },
            since,
            meter: Arc::clone(meter.meter()),
            log: Arc::clone(&options.vfs),
            held: BTreeMap::new(),
        };
        let engine = Self::assemble(path, options, manifest, start)?;
        // Reserves the first segment, so that a handle whose directory is removed while it is open can continue in it.
        // If that fails, the database still exists: its first write fails for the same reason.
        drop(engine.shared.io.wal().try_reserve(0, Floor::NONE));
        engine.shared.observed.opened(true, true, false);
        engine.keep_time();
        Ok(engine)
    }
}

/// A new id.
pub(super) fn random_id(clock: &dyn Clock) -> Id {
    (u128::from(clock.random()) << 64 | u128::from(clock.random())).to_le_bytes()
}

/// Removes the segments left behind by an interrupted creation: they hold no records, and their names are needed.
fn remove_leftovers(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    for entry in vfs.list(path).map_err(Error::io("list", path))? {
        if matches!(paths::parse(&entry.name), FileName::Log(_)) {
            let file = path.join(&entry.name);
            vfs.remove(&file).map_err(Error::io("remove", &file))?;
        }
    }
    Ok(())
}
