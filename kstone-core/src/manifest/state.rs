//! The state that a manifest's edits add up to. Pure.
//!
//! Invariants, checked by [`ManifestState::apply`] and [`ManifestState::check`]:
//! 1. flushed_to, log_start, the durable LSN and the file reservation never decrease.
//! 2. Every listed SST belongs to an existing stripe and keyspace, has an id below the reservation, and has no sequence
//!    above its stripe's flushed_to.
//! 3. A run is listed completely; its parts are in key order and do not overlap.
//! 4. Runs of a stripe (and keyspace) do not overlap in sequence, so ordering them by sequence orders them by age.
//! 5. While there is a clean end, only the settings may change before [`Change::Opened`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use super::edit::{Change, CleanEnd, Facts};
use crate::error::Error;
use crate::record::ITEMS;
use crate::types::{FileId, LogCut, Lsn, SeqNo, SstDetails, SstMeta};

/// No SST is larger than this, so sums over all listed SSTs cannot overflow 64 bits.
const MAX_BYTES: u64 = 1 << 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestState {
    /// Number of the last edit.
    pub(crate) edit: u64,
    pub(crate) facts: Facts,
    pub(crate) keyspaces: BTreeMap<u32, Arc<str>>,
    /// The names of the keyspaces.
    names: BTreeSet<Arc<str>>,
    // Shared, because every edit is first applied to a copy of the state.
    pub(crate) ssts: BTreeMap<FileId, Arc<SstMeta>>,
    flushed_to: BTreeMap<(u32, u16), SeqNo>,
    /// The highest value in `flushed_to`.
    most_flushed: SeqNo,
    /// The start of the part of the log that is still needed.
    pub(crate) log_start: Lsn,
    /// The log was durable up to here when the last edit that changed this value was written.
    pub(crate) durable: Lsn,
    /// The cuts whose next generation is above `log_start`, and always the newest cut, for its sequence. Oldest first,
    /// one per generation.
    pub(crate) cuts: VecDeque<LogCut>,
    pub(crate) clean_end: Option<CleanEnd>,
    pub(crate) files_below: FileId,
    pub(crate) settings: Vec<(String, u64)>,
}

impl ManifestState {
    /// The state after the first edit of a manifest, whose first change is the facts.
    pub(crate) fn first(number: u64, changes: Vec<Change>) -> Result<Self, String> {
        let mut changes = changes.into_iter();
        let Some(Change::Facts(facts)) = changes.next() else {
            return Err("the first edit does not start with the database's facts".into());
        };
        let mut state = Self::of(facts);
        state.apply(number, changes)?;
        Ok(state)
    }

    /// A state with nothing but the facts.
    pub(super) fn of(facts: Facts) -> Self {
        Self {
            edit: 0,
            facts,
            keyspaces: BTreeMap::new(),
            names: BTreeSet::new(),
            ssts: BTreeMap::new(),
            flushed_to: BTreeMap::new(),
            most_flushed: 0,
            log_start: Lsn::ZERO,
            durable: Lsn::ZERO,
            cuts: VecDeque::new(),
            clean_end: None,
            files_below: 0,
            settings: Vec::new(),
        }
    }

    /// Returns an error for contents that this version would misread.
    pub(crate) fn check_supported(&self, file: &Path) -> Result<(), Error> {
        self.facts.check_supported(file)?;
        if self.keyspaces.keys().eq([&ITEMS]) {
            return Ok(());
        }
        Err(Error::UnsupportedFormat {
            file: file.to_path_buf(),
            found: match self.keyspaces.iter().find(|(id, _)| **id != ITEMS) {
                Some((id, name)) => {
                    let name: String = name.chars().take(40).collect();
                    format!("{} keyspaces, {id} ({name}) among them", self.keyspaces.len())
                }
                None => "no keyspace for items".into(),
            },
            supported: format!("keyspace {ITEMS}, the items, and no other"),
        })
    }

    /// Whether this SST is part of the database.
    pub(crate) fn lists(&self, id: FileId) -> bool {
        self.ssts.contains_key(&id)
    }

    /// Every write of the stripe and keyspace up to the returned sequence is in a listed SST, or no longer needed.
    pub(crate) fn flushed_to(&self, stripe: u16, keyspace: u32) -> SeqNo {
        // A stripe without an entry was never flushed.
        self.flushed_to.get(&(keyspace, stripe)).copied().unwrap_or(0)
    }

    /// The highest sequence known without the log: flushed, or removed by a cut.
    pub(crate) fn base_seq(&self) -> SeqNo {
        self.cuts.iter().map(|cut| cut.seq).fold(self.max_flushed_to(), SeqNo::max)
    }

    /// The highest flushed_to of all stripes.
    pub(crate) fn max_flushed_to(&self) -> SeqNo {
        self.most_flushed
    }

    /// The changes that recreate this state: passing them to [`Self::first`] yields the same state.
    pub(crate) fn to_changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::Facts(self.facts.clone())];
        let mut add = |change| changes.push(change);
        for (&id, name) in &self.keyspaces {
            add(Change::Keyspace { id, name: name.to_string() });
            let flushed = self.flushed_to.range((id, 0)..=(id, u16::MAX));
            let flushed: Vec<_> = flushed.map(|(&(_, stripe), &seq)| (stripe, id, seq)).collect();
            if !flushed.is_empty() {
                add(Change::FlushedTo(flushed));
            }
        }
        add(Change::Reserve { files_below: self.files_below });
        self.ssts.values().flat_map(Change::adding).for_each(&mut add);
        add(Change::LogStart { start: self.log_start, durable: self.durable });
        self.cuts.iter().for_each(|&cut| add(Change::Cut(cut)));
        if !self.settings.is_empty() {
            add(Change::Settings(self.settings.clone()));
        }
        // Last, because nothing else may follow it.
        if let Some(end) = self.clean_end {
            add(Change::CleanEnd(end));
        }
        changes
    }

    /// Applies an edit. After an error the state may be partly changed and must be discarded.
    pub(crate) fn apply(
        &mut self,
        number: u64,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), String> {
        for change in changes {
            self.apply_one(change)?;
        }
        self.edit = number;
        Ok(())
    }

    pub(super) fn apply_one(&mut self, change: Change) -> Result<(), String> {
        let harmless = matches!(change, Change::Opened | Change::Settings(_));
        if self.clean_end.is_some() && !harmless {
            return Err("a cleanly closed database is changed before it is marked as opened".into());
        }
        match change {
            Change::Facts(_) => return Err("the database's facts are set twice".into()),
            Change::Keyspace { id, name } => self.add_keyspace(id, name)?,
            Change::AddSst(meta) => self.add_sst(meta)?,
            Change::SstDetails(id, details) => self.set_details(id, details)?,
            Change::RemoveSst(id) => {
                self.ssts.remove(&id).ok_or_else(|| format!("file {id} is removed but not listed"))?;
            }
            Change::FlushedTo(list) => {
                for (stripe, keyspace, seq) in list {
                    self.set_flushed_to(stripe, keyspace, seq)?;
                }
            }
            Change::LogStart { start, durable } => self.set_log_start(start, durable)?,
            Change::Cut(cut) => self.add_cut(cut)?,
            Change::CleanEnd(end) => self.set_clean_end(end)?,
            Change::Opened => {
                // The fact that the log was durable up to its end outlives the clean end: damage below it is not a torn
                // tail.
                let end = self.clean_end.take().and_then(|clean| clean.end);
                self.durable = end.map_or(self.durable, |end| end.max(self.durable));
            }
            Change::Reserve { files_below } => {
                if files_below < self.files_below {
                    return Err(went_back("the file reservation", self.files_below, files_below));
                }
                self.files_below = files_below;
            }
            Change::Settings(settings) => self.settings = settings,
        }
        Ok(())
    }

    fn add_keyspace(&mut self, id: u32, name: String) -> Result<(), String> {
        let name = Arc::<str>::from(name);
        if self.keyspaces.contains_key(&id) || !self.names.insert(Arc::clone(&name)) {
            return Err(format!("keyspace {id} {name:?} is added twice"));
        }
        self.keyspaces.insert(id, name);
        Ok(())
    }

    fn check_place(&self, stripe: u16, keyspace: u32) -> Result<(), String> {
        let stripes = self.facts.stripes();
        if usize::from(stripe) >= stripes {
            return Err(format!("stripe {stripe} of {stripes}"));
        }
        if !self.keyspaces.contains_key(&keyspace) {
            return Err(format!("keyspace {keyspace} does not exist"));
        }
        Ok(())
    }

    fn add_sst(&mut self, meta: Arc<SstMeta>) -> Result<(), String> {
        let id = meta.id;
        self.check_place(meta.stripe, meta.keyspace).map_err(|why| format!("file {id}: {why}"))?;
        let refused = if id >= self.files_below {
            "its id is not reserved"
        } else if meta.part >= meta.parts {
            "its run has fewer parts"
        } else if meta.keys.0 > meta.keys.1 {
            "its keys are not in order"
        } else if meta.seq.0 > meta.seq.1 || meta.seq.0 < meta.run_seq.0 || meta.seq.1 > meta.run_seq.1 {
            "its sequences are not within its run's"
        } else if meta.tombstones > meta.entries {
            "it has more tombstones than entries"
        } else if meta.entries > MAX_BYTES || meta.raw_bytes > MAX_BYTES || meta.len > MAX_BYTES {
            "it is larger than any file"
        } else if self.ssts.insert(id, meta).is_some() {
            "it is added but already listed"
        } else {
            return Ok(());
        };
        Err(format!("file {id}: {refused}"))
    }

    fn set_details(&mut self, id: FileId, details: Arc<SstDetails>) -> Result<(), String> {
        let meta =
            self.ssts.get_mut(&id).ok_or_else(|| format!("file {id} has details but is not listed"))?;
        if details.keys > meta.entries {
            return Err(format!("file {id}: it has more keys than entries"));
        }
        if !details.sample.is_sorted_by(|a, b| a < b) || details.sample.len() as u64 > details.keys {
            return Err(format!("file {id}: its sample of keys is invalid"));
        }
        // Details that the caller added with the SST are already there and remain shared with it.
        if meta.details.as_ref() != Some(&details) {
            Arc::make_mut(meta).details = Some(details);
        }
        Ok(())
    }

    fn set_flushed_to(&mut self, stripe: u16, keyspace: u32, seq: SeqNo) -> Result<(), String> {
        self.check_place(stripe, keyspace).map_err(|why| format!("flushed_to: {why}"))?;
        let before = self.flushed_to(stripe, keyspace);
        if seq < before {
            return Err(went_back(&format!("flushed_to of stripe {stripe}"), before, seq));
        }
        // 0 means never flushed, like a missing entry. It is not stored, so that equal states compare equal.
        if seq > 0 {
            self.flushed_to.insert((keyspace, stripe), seq);
            self.most_flushed = self.most_flushed.max(seq);
        }
        Ok(())
    }

    fn set_log_start(&mut self, start: Lsn, durable: Lsn) -> Result<(), String> {
        if start < self.log_start {
            return Err(went_back("the log's start", self.log_start, start));
        }
        if durable < self.durable {
            return Err(went_back("the durable LSN", self.durable, durable));
        }
        (self.log_start, self.durable) = (start, durable);
        // Sequences assigned after the newest cut and then lost may have left no other trace.
        self.drop_cuts(1);
        Ok(())
    }

    fn add_cut(&mut self, cut: LogCut) -> Result<(), String> {
        if cut.next_generation <= cut.generation {
            return Err(format!("the log is cut from {} to {}", cut.generation, cut.next_generation));
        }
        if let Some(last) = self.cuts.back()
            && (cut.generation < last.generation || cut.next_generation < last.next_generation)
        {
            return Err(went_back("the log's cut", last.generation, cut.generation));
        }
        // A second cut of the same segment, by a recovery that ran again, replaces the first: the next generation that
        // the first one named was never used.
        if self.cuts.back().is_some_and(|last| last.generation == cut.generation) {
            self.cuts.pop_back();
        }
        self.drop_cuts(0);
        self.cuts.push_back(cut);
        Ok(())
    }

    /// Drops the cuts that the log no longer extends back to, except the newest `keep`. Next generations rise from cut
    /// to cut, so the dropped ones come first, and an edit does not have to check the others.
    fn drop_cuts(&mut self, keep: usize) {
        let start = self.log_start.generation();
        while self.cuts.len() > keep && self.cuts.front().is_some_and(|cut| cut.next_generation <= start) {
            self.cuts.pop_front();
        }
    }

    fn set_clean_end(&mut self, end: CleanEnd) -> Result<(), String> {
        if end.end.is_some_and(|lsn| lsn < self.log_start || lsn < self.durable) {
            return Err("the log ends before its start, or before what was durable".into());
        }
        if end.next_seq <= self.max_flushed_to() {
            return Err(format!("the next sequence, {}, was flushed already", end.next_seq));
        }
        if self.ssts.last_key_value().is_some_and(|(&id, _)| end.next_file <= id) {
            return Err(format!("the next file, {}, is listed already", end.next_file));
        }
        self.clean_end = Some(end);
        Ok(())
    }

    /// Checks the conditions that need to hold only between edits: the runs are complete, and flushed.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut parts: Vec<&SstMeta> = self.ssts.values().map(Arc::as_ref).collect();
        parts.sort_by_key(|m| (m.stripe, m.keyspace, m.run_seq, m.run, m.part));
        let run_of = |m: &SstMeta| (m.stripe, m.keyspace, m.run_seq, m.run);
        let mut before: Option<&SstMeta> = None;
        for run in parts.chunk_by(|a, b| run_of(a) == run_of(b)) {
            check_run(run)?;
            let Some(&first) = run.first() else { continue }; // a chunk is never empty
            let flushed_to = self.flushed_to(first.stripe, first.keyspace);
            if first.run_seq.1 > flushed_to {
                let (run, seq, stripe) = (first.run, first.run_seq.1, first.stripe);
                return Err(format!(
                    "run {run} reaches sequence {seq}, stripe {stripe} is flushed to {flushed_to}"
                ));
            }
            if let Some(before) = before
                && (before.stripe, before.keyspace) == (first.stripe, first.keyspace)
                && before.run_seq.1 >= first.run_seq.0
            {
                return Err(format!("runs {} and {} overlap in sequence", before.run, first.run));
            }
            before = Some(first);
        }
        Ok(())
    }
}

/// Checks the parts of one run, which are ordered by part.
fn check_run(parts: &[&SstMeta]) -> Result<(), String> {
    for (place, meta) in (0u32..).zip(parts) {
        if meta.part != place || meta.parts as usize != parts.len() {
            let (id, run, part) = (meta.id, meta.run, meta.part);
            return Err(format!(
                "file {id} is part {part} of {} of run {run}, whose next part is {place}, of {} in all",
                meta.parts,
                parts.len()
            ));
        }
    }
    for pair in parts.windows(2) {
        if let [a, b] = pair
            && (a.keys.1 >= b.keys.0 || a.depth != b.depth)
        {
            return Err(format!("files {} and {} of run {} do not fit together", a.id, b.id, a.run));
        }
    }
    Ok(())
}

fn went_back(what: &str, from: impl std::fmt::Display, to: impl std::fmt::Display) -> String {
    format!("{what} goes back from {from} to {to}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sst(id: FileId, stripe: u16, run_seq: (SeqNo, SeqNo)) -> SstMeta {
        SstMeta {
            id,
            stripe,
            keyspace: 0,
            run: id,
            part: 0,
            parts: 1,
            depth: 0,
            run_seq,
            seq: run_seq,
            keys: (b"a".to_vec(), b"z".to_vec()),
            entries: 10,
            tombstones: 1,
            raw_bytes: 100,
            len: 4096,
            directory: (4000, 64),
            checksum: 1,
            oldest_tombstone_ms: 0,
            created_ms: 0,
            origin: [0; 16],
            details: None,
        }
    }

    pub(crate) fn add(meta: SstMeta) -> Change {
        Change::AddSst(Arc::new(meta))
    }

    pub(crate) fn creation() -> Vec<Change> {
        vec![
            Change::Facts(Facts::new(4, 1)),
            Change::Keyspace { id: 0, name: "items".into() },
            Change::Reserve { files_below: 100 },
        ]
    }

    /// Flushed to 50, cut once, with SSTs 1 and 2 in stripe 1.
    fn state() -> ManifestState {
        let mut state = ManifestState::first(1, creation()).unwrap();
        let changes = vec![
            add(sst(1, 1, (1, 20))),
            add(sst(2, 1, (21, 40))),
            Change::FlushedTo(vec![(1, 0, 50), (2, 0, 0)]),
            Change::LogStart { start: Lsn::new(3, 50), durable: Lsn::new(3, 100) },
            Change::Cut(LogCut { generation: 3, end: 200, next_generation: 5, seq: 50 }),
            Change::Settings(vec![("a".into(), 1)]),
        ];
        state.apply(2, changes).unwrap();
        state.check().unwrap();
        state
    }

    #[test]
    fn changes_of_a_state_make_it_again() {
        let mut state = state();
        assert_eq!(ManifestState::first(2, state.to_changes()).unwrap(), state);
        let end = CleanEnd { end: Some(Lsn::new(5, 8)), next_seq: 51, next_generation: 6, next_file: 3 };
        state.apply(3, [Change::CleanEnd(end)]).unwrap();
        assert_eq!(ManifestState::first(3, state.to_changes()).unwrap(), state);
        assert_eq!((state.flushed_to(1, 0), state.flushed_to(2, 0), state.max_flushed_to()), (50, 0, 50));
    }

    #[test]
    fn edits_that_contradict_the_state_are_refused() {
        let clean = CleanEnd { end: None, next_seq: 51, next_generation: 6, next_file: 3 };
        let cut = LogCut { generation: 4, end: 1, next_generation: 6, seq: 60 };
        let bad = |edit: &dyn Fn(&mut SstMeta)| {
            let mut meta = sst(9, 1, (41, 50));
            edit(&mut meta);
            vec![add(meta)]
        };
        let refused: Vec<(&str, Vec<Change>)> = vec![
            ("listed", vec![add(sst(1, 1, (60, 61)))]),
            ("not listed", vec![Change::RemoveSst(9)]),
            ("not listed", vec![Change::RemoveSst(1), Change::RemoveSst(1)]),
            ("stripe 4 of 4", bad(&|m| m.stripe = 4)),
            ("keyspace 7", bad(&|m| m.keyspace = 7)),
            ("reserved", bad(&|m| m.id = 100)),
            ("fewer parts", bad(&|m| m.part = 1)),
            ("order", bad(&|m| m.keys.0 = b"zz".to_vec())),
            ("within", bad(&|m| m.seq = (40, 50))),
            ("within", bad(&|m| m.seq = (50, 41))),
            ("tombstones", bad(&|m| m.tombstones = 11)),
            ("goes back", vec![Change::FlushedTo(vec![(1, 0, 49)])]),
            ("stripe 9", vec![Change::FlushedTo(vec![(9, 0, 60)])]),
            ("goes back", vec![Change::LogStart { start: Lsn::new(3, 49), durable: Lsn::new(3, 100) }]),
            ("goes back", vec![Change::LogStart { start: Lsn::new(3, 50), durable: Lsn::new(3, 99) }]),
            ("goes back", vec![Change::Cut(LogCut { generation: 2, ..cut })]),
            ("cut from", vec![Change::Cut(LogCut { next_generation: 4, ..cut })]),
            ("goes back", vec![Change::Reserve { files_below: 99 }]),
            ("twice", vec![Change::Keyspace { id: 0, name: "other".into() }]),
            ("twice", vec![Change::Keyspace { id: 1, name: "items".into() }]),
            ("twice", vec![Change::Facts(Facts::new(4, 1))]),
            ("flushed", vec![Change::CleanEnd(CleanEnd { next_seq: 50, ..clean })]),
            ("listed", vec![Change::CleanEnd(CleanEnd { next_file: 2, ..clean })]),
            ("ends before", vec![Change::CleanEnd(CleanEnd { end: Some(Lsn::new(3, 99)), ..clean })]),
            ("opened", vec![Change::CleanEnd(clean), Change::RemoveSst(1)]),
        ];
        for (expected, changes) in refused {
            let why = state().apply(3, changes.clone()).expect_err(&format!("{changes:?}"));
            assert!(why.contains(expected), "{expected}: {why}");
        }
        assert!(ManifestState::first(1, Vec::new()).is_err());
        assert!(ManifestState::first(1, vec![Change::Opened]).is_err());
    }

    #[test]
    fn details_are_those_of_a_listed_file() {
        let good = SstDetails { keys: 3, sample: vec![1, 2, 9], ..SstDetails::default() };
        let apply = |id, details: &SstDetails| {
            let mut state = state();
            state.apply(3, [Change::SstDetails(id, Arc::new(details.clone()))]).map(|()| state)
        };
        let with = apply(2, &good).unwrap();
        assert_eq!(with.ssts[&2].details.as_deref(), Some(&good));
        assert_eq!(with.ssts[&1].details, None);
        assert_eq!(ManifestState::first(3, with.to_changes()).unwrap(), with);
        assert_eq!(with.to_changes().len(), state().to_changes().len() + 1);
        for (expected, id, details) in [
            ("not listed", 3, good.clone()),
            ("more keys", 2, SstDetails { keys: 11, ..good.clone() }),
            ("sample", 2, SstDetails { sample: vec![1, 1], ..good.clone() }),
            ("sample", 2, SstDetails { sample: vec![2, 1], ..good.clone() }),
            ("sample", 2, SstDetails { keys: 2, ..good.clone() }),
        ] {
            let why = apply(id, &details).expect_err(expected);
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }

    #[test]
    fn runs_are_whole_ordered_and_flushed() {
        let check = |changes: Vec<Change>| {
            let mut state = state();
            state.apply(3, changes).unwrap();
            state.check()
        };
        let part = |id: FileId, part: u32, from: &str, to: &str| {
            let keys = (from.as_bytes().to_vec(), to.as_bytes().to_vec());
            SstMeta { part, parts: 2, run: 7, keys, ..sst(id, 1, (41, 50)) }
        };
        let (first, second) = (part(8, 0, "a", "m"), part(7, 1, "n", "z"));
        check(vec![add(second.clone()), add(first.clone())]).unwrap();
        // The same sequences in another stripe do not overlap.
        check(vec![add(sst(9, 2, (30, 40))), Change::FlushedTo(vec![(2, 0, 40)])]).unwrap();
        let refused: Vec<(&str, Vec<Change>)> = vec![
            ("part", vec![add(first.clone())]),
            ("part", vec![add(second.clone())]),
            ("part", vec![add(first.clone()), add(SstMeta { part: 0, ..second.clone() })]),
            ("fit together", vec![add(part(8, 0, "a", "n")), add(second.clone())]),
            ("fit together", vec![add(first.clone()), add(SstMeta { depth: 1, ..second.clone() })]),
            ("part", vec![add(first), add(SstMeta { run_seq: (41, 51), ..second })]),
            ("overlap", vec![add(sst(9, 1, (40, 50)))]),
            ("overlap", vec![add(sst(9, 1, (5, 50)))]),
            ("flushed to", vec![add(sst(9, 1, (41, 51)))]),
        ];
        for (expected, changes) in refused {
            let why = check(changes.clone()).expect_err(&format!("{changes:?}"));
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }

    #[test]
    fn cuts_stay_as_long_as_the_log_reaches_back_to_them() {
        let mut state = state();
        let again = LogCut { generation: 3, end: 200, next_generation: 6, seq: 50 };
        let later = LogCut { generation: 6, end: 9, next_generation: 8, seq: 70 };
        state.apply(3, [Change::Cut(again)]).unwrap();
        assert_eq!(state.cuts, [again]);
        state.apply(4, [Change::Cut(later)]).unwrap();
        assert_eq!(state.cuts, [again, later]);
        state.apply(5, [Change::LogStart { start: Lsn::new(6, 0), durable: Lsn::new(6, 9) }]).unwrap();
        assert_eq!(state.cuts, [later]);
        // The newest cut is kept for its sequence, until there is a newer one.
        state.apply(6, [Change::LogStart { start: Lsn::new(8, 0), durable: Lsn::new(8, 0) }]).unwrap();
        assert_eq!(state.cuts, [later]);
        assert_eq!(ManifestState::first(6, state.to_changes()).unwrap(), state);
        let newest = LogCut { generation: 8, end: 0, next_generation: 9, seq: 90 };
        state.apply(7, [Change::Cut(newest)]).unwrap();
        assert_eq!(state.cuts, [newest]);
    }

    #[test]
    fn opening_cancels_the_clean_end() {
        let mut state = state();
        let end = CleanEnd { end: None, next_seq: 51, next_generation: 6, next_file: 3 };
        state.apply(3, [Change::CleanEnd(end), Change::Settings(Vec::new())]).unwrap();
        assert_eq!(state.clean_end, Some(end));
        state.apply(4, [Change::Opened, Change::RemoveSst(2)]).unwrap();
        assert_eq!((state.clean_end, state.durable), (None, Lsn::new(3, 100)));
        // The log remains known to be durable up to its former end.
        let end = CleanEnd { end: Some(Lsn::new(3, 160)), next_seq: 51, next_generation: 6, next_file: 3 };
        state.apply(5, [Change::CleanEnd(end), Change::Opened]).unwrap();
        assert_eq!((state.clean_end, state.durable), (None, Lsn::new(3, 160)));
    }
}
