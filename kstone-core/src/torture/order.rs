//! A check of the order in which the engine makes things durable, beside any workload: before each operation that
//! relies on durable state, the file system is asked whether that state is durable.
//!
//! A crash explorer finds a missing sync if a crash between two operations reveals it; this check finds it whenever the
//! operations occur, even without a crash. It checks:
//! 1. before an edit is written to the manifest, or to its replacement: each SST that it lists has its recorded length
//!    and checksum, and its bytes and directory entry are durable; and so is the log, up to the highest sequence in
//!    those SSTs;
//! 2. before a manifest is renamed: all of its bytes are durable;
//! 3. before a record is written into a log segment: the segment's header and directory entry are durable;
//! 4. before an SST or a segment is removed: the durable manifest does not need it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::lsm::validate::{log_owner, log_rules};
use crate::manifest::{Ids, Manifest, ManifestState};
use crate::paths::{self, FileName};
use crate::types::{FileId, SeqNo};
use crate::vfs::{
    Call, CrashMode, FaultVfs, MemVfs, Op, OpenMode, Rule, StrictVfs, Vfs, read_all, write_all_at,
};
use crate::wal::{self, Chain, LogRules};

/// Longer than any file of a workload.
const MAX_LEN: u64 = 1 << 30;
/// Maximum number of violations kept.
const KEPT: usize = 10;

/// Watches one database. See the module.
#[derive(Clone, Debug)]
pub struct OrderCheck {
    strict: StrictVfs,
    dir: PathBuf,
    found: Arc<Mutex<OrderFindings>>,
}

/// The checks made, and the violations found.
#[derive(Debug, Default)]
struct OrderFindings {
    violations: Vec<String>,
    checked: Checked,
    /// SSTs listed by an earlier edit.
    listed: BTreeSet<FileId>,
}

/// How often each rule was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Edits of the manifest.
    pub edits: u64,
    /// SSTs listed for the first time.
    pub ssts: u64,
    /// Log records that had to be durable because of those SSTs.
    pub records: u64,
    /// Manifests that replaced another.
    pub renames: u64,
    /// Writes of log records.
    pub writes: u64,
    /// Files removed.
    pub removals: u64,
}

impl Checked {
    /// Adds the counts of another check.
    pub fn add(&mut self, other: &Self) {
        let Self { edits, ssts, records, renames, writes, removals } = other;
        self.edits += edits;
        self.ssts += ssts;
        self.records += records;
        self.renames += renames;
        self.writes += writes;
        self.removals += removals;
    }
}

impl OrderCheck {
    /// Watches the database in `dir`, which is written through `vfs` on top of `strict`.
    pub fn watch(vfs: &FaultVfs, strict: &StrictVfs, dir: &Path) -> Self {
        let check = Self { strict: strict.clone(), dir: dir.to_path_buf(), found: Arc::default() };
        let watching = check.clone();
        let rule = Rule::hook(move |call| {
            watching.before(call);
            Ok(())
        });
        vfs.add(rule.on(&[Op::Write, Op::Rename, Op::Remove]));
        check
    }

    /// The first few violations.
    pub fn violations(&self) -> Vec<String> {
        self.found.lock().violations.clone()
    }

    /// The number of checks made.
    pub fn checked(&self) -> Checked {
        self.found.lock().checked
    }

    fn before(&self, call: &Call<'_>) {
        if call.path.parent() != Some(&self.dir) {
            return;
        }
        let mut found = self.found.lock();
        let checked = match (call.op, paths::parse(&call.name())) {
            (Op::Write, FileName::Manifest | FileName::ManifestTmp) => self.edit(&mut found, call),
            (Op::Write, FileName::Log(_)) => self.record(&mut found, call),
            (Op::Rename, FileName::ManifestTmp) => self.rename(&mut found, call),
            (Op::Remove, FileName::Log(_) | FileName::Sst { .. }) => self.removal(&mut found, call),
            _ => Ok(()),
        };
        let Err(why) = checked else { return };
        let violation = format!("{:?} {}: {why}", call.op, call.path.display());
        if found.violations.len() < KEPT && !found.violations.contains(&violation) {
            found.violations.push(violation);
        }
    }

    /// Rule 1.
    fn edit(&self, found: &mut OrderFindings, call: &Call<'_>) -> Result<(), String> {
        let mut bytes = self.bytes(call.path)?;
        let start = call.offset as usize;
        bytes.resize(bytes.len().max(start + call.bytes.len()), 0);
        if let Some(to) = bytes.get_mut(start..start + call.bytes.len()) {
            to.copy_from_slice(call.bytes);
        }
        // A partial edit has no effect yet.
        let image = MemVfs::new();
        let file = image.open(Path::new(paths::MANIFEST), OpenMode::Create);
        file.and_then(|file| write_all_at(&*file, &bytes, 0)).map_err(|error| error.to_string())?;
        let Ok(loaded) = Manifest::load(&image, Path::new("")) else { return Ok(()) };
        found.checked.edits += 1;
        let state = loaded.state;
        let mut newest = 0;
        for meta in state.ssts.values().filter(|meta| found.listed.insert(meta.id)) {
            found.checked.ssts += 1;
            newest = newest.max(meta.run_seq.1);
            let path = paths::sst(&self.dir, meta.stripe.into(), meta.id);
            let name = path.display();
            let Some(sst) = self.strict.durability(&path) else {
                return Err(format!("edit {} lists {name}, which is not there", state.edit));
            };
            if !sst.whole || !sst.named {
                let what = if sst.whole { "the name" } else { "the bytes" };
                return Err(format!("edit {} lists {name}, {what} of which would not survive", state.edit));
            }
            if sst.bytes.len() as u64 != meta.len || crc32c::crc32c(&sst.bytes) != meta.checksum {
                return Err(format!("edit {} lists {name}, which is not what was written", state.edit));
            }
        }
        self.log_reaches(&mut found.checked, &state, &loaded.ids, newest)
    }

    /// Checks that the log is durable up to `newest`.
    fn log_reaches(
        &self,
        checked: &mut Checked,
        state: &ManifestState,
        ids: &Ids,
        newest: SeqNo,
    ) -> Result<(), String> {
        if newest == 0 {
            return Ok(());
        }
        let chain = self.chain(&self.strict, state, ids)?;
        let mut durable = BTreeMap::new();
        let mut lost = None;
        let replayed = wal::replay(&self.strict, &chain, |record| {
            if record.first_seq > newest {
                return Ok(());
            }
            checked.records += 1;
            let segment = chain.segments.iter().find(|info| info.generation == record.lsn.generation());
            let Some(path) = segment.map(|info| info.path.clone()) else { return Ok(()) };
            let bytes = durable
                .entry(path.clone())
                .or_insert_with(|| self.strict.durability(&path).filter(|segment| segment.named));
            let start = record.lsn.offset() as usize;
            let end = start + wal::format::record_len(record.payload.len()) as usize;
            let now = self.bytes(&path).unwrap_or_default();
            let survives =
                bytes.as_ref().is_some_and(|segment| segment.bytes.get(start..end) == now.get(start..end));
            if !survives {
                lost.get_or_insert((record.first_seq, path));
            }
            Ok(())
        });
        replayed.map_err(|error| format!("the log cannot be read: {error}"))?;
        match lost {
            None => Ok(()),
            Some((seq, path)) => Err(format!(
                "edit {} lists SSTs up to sequence {newest}, but {seq} in {} would not survive",
                state.edit,
                path.display()
            )),
        }
    }

    fn chain(&self, vfs: &dyn Vfs, state: &ManifestState, ids: &Ids) -> Result<Chain, String> {
        // This edit may record a clean end.
        let rules = LogRules { clean_end: None, ..log_rules(state) };
        let segments = wal::discover(vfs, &self.dir, log_owner(ids));
        let chain = segments.and_then(|segments| wal::validate(vfs, &self.dir, &segments, &rules));
        chain.map_err(|error| format!("the log of edit {} cannot be read: {error}", state.edit))
    }

    /// Rule 2.
    fn rename(&self, found: &mut OrderFindings, call: &Call<'_>) -> Result<(), String> {
        found.checked.renames += 1;
        match self.strict.durability(call.path) {
            Some(file) if file.whole => Ok(()),
            _ => Err("it is renamed before its bytes are durable".into()),
        }
    }

    /// Rule 3.
    fn record(&self, found: &mut OrderFindings, call: &Call<'_>) -> Result<(), String> {
        let head = wal::RECORDS_START as usize;
        if call.offset < head as u64 {
            return Ok(());
        }
        found.checked.writes += 1;
        let now = self.bytes(call.path)?;
        match self.strict.durability(call.path) {
            Some(segment) if !segment.named => Err("a record before the segment's name is durable".into()),
            Some(segment) if now.len() >= head && segment.bytes.get(..head) == now.get(..head) => Ok(()),
            _ => Err("a record before the segment's header is durable".into()),
        }
    }

    /// Rule 4.
    fn removal(&self, found: &mut OrderFindings, call: &Call<'_>) -> Result<(), String> {
        found.checked.removals += 1;
        let image = self.strict.crash(CrashMode::Strict);
        // Without a manifest there is no database yet.
        let Ok(loaded) = Manifest::load(&image, &self.dir) else { return Ok(()) };
        let state = loaded.state;
        if let FileName::Sst { id, .. } = paths::parse(&call.name()) {
            return if state.lists(id) { Err(format!("edit {} still lists it", state.edit)) } else { Ok(()) };
        }
        let chain = self.chain(&image, &state, &loaded.ids)?;
        let needed = chain.segments.iter().find(|info| info.path == call.path && info.start < info.end);
        let Some(needed) = needed.filter(|info| info.generation >= state.log_start.generation()) else {
            return Ok(());
        };
        Err(format!("edit {} still needs its records from {} to {}", state.edit, needed.start, needed.end))
    }

    /// The current contents of a file.
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, String> {
        let read = self.strict.open(path, OpenMode::Read).and_then(|file| read_all(&*file, MAX_LEN));
        read.map_err(|error| format!("cannot read {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::lsm::{EngineOptions, LsmEngine, WriteOptions};
    use crate::vfs::Effect;
    use crate::{CompactionConfig, DatabaseConfig, Key};

    /// A workload with checkpoints, merges, a log of several segments, a close and a reopen, on a disk that fakes the
    /// syncs matched by `lie`.
    fn check(lie: Option<Rule>) -> (Vec<String>, Checked) {
        let strict = StrictVfs::new();
        let vfs = FaultVfs::new(Arc::new(strict.clone()));
        let dir = Path::new("db");
        let check = OrderCheck::watch(&vfs, &strict, dir);
        lie.into_iter().for_each(|rule| drop(vfs.add(rule)));
        let options = || EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::new(ManualClock::new(1)));
        let mut first = options();
        first.config = Some(DatabaseConfig::new().with_stripes(2).with_wal_segment_size(16 << 10));
        first.compaction = Some(CompactionConfig::disabled());
        let mut engine = LsmEngine::create(dir, first).unwrap();
        for round in 0..3 {
            for n in 0..60 {
                engine.put(&Key::from(&format!("key{n}")), &[round; 800], WriteOptions::new()).unwrap();
            }
            // One stripe after the other, so that SSTs are listed while the other stripe still needs the log.
            (0..2).for_each(|stripe| engine.trigger_compaction(stripe).unwrap());
            if round == 1 {
                engine.close().unwrap();
                engine = LsmEngine::open(dir, options()).unwrap();
            }
        }
        engine.close().unwrap();
        (check.violations(), check.checked())
    }

    #[test]
    fn the_engine_keeps_the_order() {
        let (violations, checked) = check(None);
        assert_eq!(violations, [""; 0]);
        let Checked { edits, ssts, records, renames, writes, removals } = checked;
        assert!(edits > 8 && ssts >= 6 && records > 100 && renames > 1, "{checked:?}");
        assert!(writes > 150 && removals > 10, "{checked:?}");
    }

    #[test]
    fn each_sync_that_is_left_out_is_found() {
        for (op, files, found) in [
            (Op::Sync, "*.sst", "the bytes of which would not survive"),
            (Op::SyncDir, "db", "before the segment's name is durable"),
            (Op::Sync, "*.log", "before the segment's header is durable"),
            (Op::Sync, "*.log", "lists SSTs up to sequence"),
            (Op::Sync, "MANIFEST.tmp", "renamed before its bytes are durable"),
            (Op::Sync, "MANIFEST", "still"),
        ] {
            let lie = Rule::new(Effect::Pretend).on(&[op]).files(files);
            // The first sync of a segment is for its header.
            let lie = if found.contains("sequence") { lie.from(2) } else { lie };
            let (violations, _) = check(Some(lie));
            let all = violations.join("\n");
            assert!(all.contains(found), "{op:?} {files} left out, found only: {all}");
        }
    }
}
