//! The operations tried, acknowledged and durable, and hence the contents allowed after a crash.
//!
//! 1. Commits are kept in the order in which they were tried. The surviving state is the state after a prefix of them:
//!    at least all durable ones and, after the death of a process alone, all acknowledged ones.
//! 2. A commit that was neither acknowledged nor refused is in doubt: it may be there as a whole, or not at all. Once a
//!    later commit is acknowledged it must be gone, because the engine promises to undo what it refused, or to refuse
//!    everything.
//! 3. States are distinguished by a fingerprint of 128 bits over their entries, so that a prefix costs 16 bytes.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use crate::key::Key;

/// An expectation, and what was found instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Mismatch {
    /// An unexpected error.
    pub fn error(doing: &str, error: &crate::Error) -> Self {
        Self { expected: format!("{doing} without an error"), found: format!("{}: {error}", error.code()) }
    }
}

/// A key and its value.
pub type Entry = (Key<'static>, Vec<u8>);
/// All items of a database.
pub type State = BTreeMap<Key<'static>, Vec<u8>>;
/// The puts and deletes (`None`) of one commit, in order.
pub type Change = Vec<(Key<'static>, Option<Vec<u8>>)>;

/// Maximum number of commits in doubt; the oldest beyond that are treated as refused.
const DOUBTS: usize = 6;

/// Distinguishes states: the sum of a hash over each entry, and the number of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    sum: u128,
    entries: u64,
}

impl Fingerprint {
    /// The fingerprint of all items of a database, in any order.
    pub fn of<'a>(entries: impl IntoIterator<Item = (&'a Key<'static>, &'a Vec<u8>)>) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|(key, value)| all.add(key, value));
        all
    }

    /// Turns this into the fingerprint of a series: its states so far, followed by `other`.
    pub(super) fn also(&mut self, other: Self) {
        self.sum = self.sum.rotate_left(1).wrapping_mul(5).wrapping_add(other.sum);
        self.entries = self.entries.wrapping_add(other.entries);
    }

    fn add(&mut self, key: &Key<'_>, value: &[u8]) {
        self.sum = self.sum.wrapping_add(hash(key, value));
        self.entries = self.entries.wrapping_add(1);
    }

    fn remove(&mut self, key: &Key<'_>, value: &[u8]) {
        self.sum = self.sum.wrapping_sub(hash(key, value));
        self.entries = self.entries.wrapping_sub(1);
    }
}

fn hash(key: &Key<'_>, value: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(key.partition().len() as u64).to_le_bytes());
    hash.update(key.partition());
    // One more than its length, so that an empty sort key differs from a missing one.
    hash.update(&key.sort().map_or(0, |sort| sort.len() as u64 + 1).to_le_bytes());
    hash.update(key.sort().unwrap_or_default());
    hash.update(value);
    hash.digest128()
}

/// The minimum that must have survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// Durable commits: after a power cut.
    Durable,
    /// Acknowledged commits: after the death of a process.
    Acknowledged,
}

/// See the module. A new history is that of a database that was never created.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The state after all acknowledged commits.
    state: State,
    /// Fingerprints of the state after each commit, from the last durable to the last acknowledged one; empty before
    /// the database was created.
    prints: Vec<Fingerprint>,
    /// Whether the database must exist after a power cut.
    created: bool,
    doubts: Vec<Change>,
    commits: u64,
}

impl History {
    /// The state after all acknowledged commits.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Number of commits acknowledged so far.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Commits that were neither acknowledged nor refused.
    pub fn doubts(&self) -> &[Change] {
        &self.doubts
    }

    /// The creation returned: the database exists and is durable.
    pub fn created(&mut self) {
        self.created = true;
        self.prints = vec![Fingerprint::of(&self.state)];
    }

    /// Starts a commit: it is in doubt until [`History::acknowledge`] or [`History::refuse`].
    pub fn begin(&mut self, change: Change) {
        self.doubts.push(change);
        if self.doubts.len() > DOUBTS {
            self.doubts.remove(0);
        }
    }

    /// The last commit started is there; earlier ones in doubt are not.
    pub fn acknowledge(&mut self) {
        let Some(change) = self.doubts.pop() else { return };
        self.doubts.clear();
        let print = Self::after(self.acknowledged(), &self.state, &change);
        apply(&mut self.state, &change);
        self.prints.push(print);
        self.commits += 1;
    }

    /// The last commit started was refused: it is not there, and never will be.
    pub fn refuse(&mut self) {
        self.doubts.pop();
    }

    /// All acknowledged commits are durable.
    pub fn synced(&mut self) {
        self.created = true;
        self.prints = vec![self.acknowledged()];
    }

    /// The database was opened with these contents: later states build on them and, since opening makes its contents
    /// durable, none of them may be lost.
    pub fn restart(&mut self, found: State) {
        self.prints = vec![Fingerprint::of(&found)];
        self.state = found;
        self.doubts.clear();
        self.created = true;
    }

    fn acknowledged(&self) -> Fingerprint {
        self.prints.last().copied().unwrap_or_default()
    }

    /// Whether there may be no database at all.
    pub fn may_be_absent(&self, least: Least) -> bool {
        match least {
            Least::Durable => !self.created,
            Least::Acknowledged => self.prints.is_empty(),
        }
    }

    /// Checks that the items found are an allowed state.
    ///
    /// # Errors
    /// The allowed states, and how the items found differ from the acknowledged state.
    pub fn check(&self, found: &State, least: Least) -> Result<(), Mismatch> {
        let print = Fingerprint::of(found);
        let prefixes = match least {
            Least::Durable => self.prints.as_slice(),
            Least::Acknowledged => self.prints.last().map(std::slice::from_ref).unwrap_or_default(),
        };
        let unborn = self.prints.is_empty() && found.is_empty();
        if unborn || prefixes.contains(&print) || self.with_doubts().contains(&print) {
            return Ok(());
        }
        let unsure = prefixes.len().saturating_sub(1);
        Err(Mismatch {
            expected: format!(
                "the state after {} commits or, at the earliest, {unsure} before; {} in doubt: {} items",
                self.commits,
                self.doubts.len(),
                self.state.len()
            ),
            found: format!("{} items: {}", found.len(), differences(&self.state, found)),
        })
    }

    /// The acknowledged state plus any subset of the commits in doubt, in their order.
    fn with_doubts(&self) -> Vec<Fingerprint> {
        if let [only] = self.doubts.as_slice() {
            return vec![Self::after(self.acknowledged(), &self.state, only)];
        }
        let mut states = vec![(self.acknowledged(), self.state.clone())];
        for change in &self.doubts {
            for at in 0..states.len() {
                let Some((print, mut state)) = states.get(at).cloned() else { continue };
                let print = Self::after(print, &state, change);
                apply(&mut state, change);
                states.push((print, state));
            }
        }
        states.into_iter().map(|(print, _)| print).collect()
    }

    fn after(mut print: Fingerprint, state: &State, change: &Change) -> Fingerprint {
        let mut changed: BTreeMap<&Key<'_>, Option<&Vec<u8>>> = BTreeMap::new();
        for (key, value) in change {
            let old = changed.insert(key, value.as_ref()).unwrap_or_else(|| state.get(key));
            if let Some(old) = old {
                print.remove(key, old);
            }
            if let Some(new) = value {
                print.add(key, new);
            }
        }
        print
    }
}

/// Applies a change to a state.
pub(super) fn apply(state: &mut State, change: &Change) {
    for (key, value) in change {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}

/// The first few keys in which the states differ.
pub(super) fn differences(expected: &State, found: &State) -> String {
    let short = |value: Option<&Vec<u8>>| match value {
        None => "nothing".to_owned(),
        Some(value) => format!("{} bytes of {:?}", value.len(), value.first()),
    };
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differing: Vec<_> = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key)).collect();
    let shown = differing.iter().take(4).map(|key| {
        let (expected, found) = (expected.get(*key), found.get(*key));
        format!("{key:?} has {} instead of {}", short(found), short(expected))
    });
    format!("{} keys differ: {}", differing.len(), shown.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests;
