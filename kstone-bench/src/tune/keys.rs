//! A sample of the keys that a database holds, with bounded memory, and the keys derived from it.
//!
//! The parent draws the sample by reading the database once, every item with the same probability (Vitter's algorithm
//! R), and writes it to a file that the processes of the trials read: `u32` lengths of partition and sort key,
//! [`NO_SORT`] without a sort key, the length of the value, then the bytes of the key.

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kstone_api::{Database, Key};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// The most keys of a sample.
const MOST_KEYS: usize = 500_000;
/// The most bytes of those keys.
const MOST_BYTES: usize = 32 << 20;
const NO_SORT: u32 = u32::MAX;
/// Bytes that make a derived key differ from all that exist.
const TAIL: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampled {
    pub(super) key: Key<'static>,
    pub(super) value_bytes: u32,
}

/// Draws a sample. `each` is called now and then, and an error of it ends the reading.
pub(super) fn draw(
    db: &Database,
    seed: u64,
    mut each: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Sampled>> {
    let (engine, mut random) = (db.engine(), StdRng::seed_from_u64(seed));
    let snapshot = engine.snapshot()?;
    let mut sample = Reservoir { kept: Vec::new(), bytes: 0, room: MOST_KEYS, seen: 0 };
    for stripe in 0..engine.stripe_count() {
        let mut entries = engine.scan_stripe(stripe, Some(&snapshot))?;
        while let Some((key, value)) = entries.next_entry()? {
            sample.offer(&key, value.len(), &mut random);
            if sample.seen.is_multiple_of(65_536) {
                each(sample.seen)?;
            }
        }
    }
    Ok(sample.kept)
}

struct Reservoir {
    kept: Vec<Sampled>,
    bytes: usize,
    /// The size of the sample; it shrinks if the keys are long.
    room: usize,
    seen: u64,
}

impl Reservoir {
    fn offer(&mut self, key: &Key<'_>, value_bytes: usize, random: &mut impl Rng) {
        self.seen += 1;
        let at = if self.kept.len() < self.room {
            None
        } else {
            match random.random_range(0..self.seen) {
                place if place < self.kept.len() as u64 => Some(place as usize),
                _ => return,
            }
        };
        let sampled = Sampled { key: key.clone().into_owned(), value_bytes: value_bytes as u32 };
        self.bytes += key.len();
        match at.and_then(|at| self.kept.get_mut(at)) {
            Some(old) => self.bytes -= std::mem::replace(old, sampled).key.len(),
            None => self.kept.push(sampled),
        }
        // Dropping a key at random leaves a sample as good as before, and smaller.
        while self.bytes > MOST_BYTES && self.kept.len() > 1 {
            let dropped = self.kept.swap_remove(random.random_range(0..self.kept.len()));
            self.bytes -= dropped.key.len();
            self.room = self.kept.len();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a file of this program, beside the working copies")]
pub(super) fn save(sample: &[Sampled], path: &Path) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut out = BufWriter::new(std::fs::File::create(path).with_context(failed)?);
    let mut write = || -> std::io::Result<()> {
        for Sampled { key, value_bytes } in sample {
            let sort = key.sort().map_or(NO_SORT, |sort| sort.len() as u32);
            for number in [key.partition().len() as u32, sort, *value_bytes] {
                out.write_all(&number.to_le_bytes())?;
            }
            out.write_all(key.partition())?;
            out.write_all(key.sort().unwrap_or_default())?;
        }
        out.flush()
    };
    write().with_context(failed)
}

#[expect(clippy::disallowed_methods, reason = "a file of this program, beside the working copies")]
pub(super) fn load(path: &Path) -> Result<Vec<Sampled>> {
    let failed = || format!("cannot read {}", path.display());
    let mut from = BufReader::new(std::fs::File::open(path).with_context(failed)?);
    let mut sample = Vec::new();
    loop {
        let mut head = [0; 12];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(sample),
            read => read.with_context(failed)?,
        }
        let [partition, sort, value_bytes] = [0, 4, 8].map(|at| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        });
        let mut part = |len: u32| -> Result<Vec<u8>> {
            ensure!(len <= 1 << 20, "{} is not a file of sampled keys", path.display());
            let mut bytes = vec![0; len as usize];
            from.read_exact(&mut bytes).with_context(failed)?;
            Ok(bytes)
        };
        let partition = part(partition)?;
        let key = match sort {
            NO_SORT => Key::new(partition),
            sort => Key::with_sort(partition, part(sort)?),
        };
        sample.push(Sampled { key, value_bytes });
    }
}

/// A key that is not in the database: `model` with other bytes at its end, as long as it. Its partition is the same if
/// it has a sort key, so that it falls where the data is. Keys shorter than those bytes become as long.
pub(super) fn fresh(model: &Key<'_>, random: &mut impl Rng) -> Key<'static> {
    let mut changed = model.sort().unwrap_or(model.partition()).to_vec();
    let (start, tail) = (changed.len().saturating_sub(TAIL), random.random::<[u8; TAIL]>());
    changed.truncate(start);
    changed.extend(tail);
    match model.sort() {
        Some(_) => Key::with_sort(model.partition().to_vec(), changed),
        None => Key::new(changed),
    }
}

#[cfg(test)]
mod tests {
    use kstone_api::ItemBuilder;

    use super::*;

    fn sampled(n: u32) -> Sampled {
        let key = match n % 2 {
            0 => Key::new(format!("user{n}")),
            _ => Key::with_sort(
                format!("user{n}"),
                if n.is_multiple_of(3) { String::new() } else { format!("{n}") },
            ),
        };
        Sampled { key: key.into_owned(), value_bytes: n }
    }

    #[test]
    fn a_sample_is_read_as_it_was_written_and_a_cut_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let all: Vec<_> = (0..50).map(sampled).collect();
        save(&all, &path).unwrap();
        assert_eq!(load(&path).unwrap(), all);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(load(&path).is_err());
        std::fs::write(&path, [0xfe; 12]).unwrap();
        assert!(format!("{:#}", load(&path).unwrap_err()).contains("not a file of sampled keys"));
    }

    #[test]
    fn each_item_is_sampled_with_the_same_probability_and_memory_is_bounded() {
        let mut random = StdRng::seed_from_u64(5);
        let mut early = 0;
        for _ in 0..200 {
            let mut sample = Reservoir { kept: Vec::new(), bytes: 0, room: 10, seen: 0 };
            for n in 0..100_u32 {
                sample.offer(&Key::new(n.to_be_bytes().to_vec()), n as usize, &mut random);
            }
            assert_eq!((sample.kept.len(), sample.bytes), (10, 40));
            early += sample.kept.iter().filter(|one| one.value_bytes < 50).count();
        }
        assert!((900..1_100).contains(&early), "{early} of 2000 in the first half");
        let mut sample = Reservoir { kept: Vec::new(), bytes: 0, room: 10_000, seen: 0 };
        for n in 0..1_000_u32 {
            let mut long = vec![7; 60_000];
            long.extend(n.to_be_bytes());
            sample.offer(&Key::new(long), 1, &mut random);
            assert!(sample.bytes <= MOST_BYTES);
        }
        assert!(sample.kept.len() > 500 && sample.room == sample.kept.len(), "{}", sample.room);
    }

    #[test]
    fn a_sample_of_a_small_database_is_all_of_it() {
        let db = Database::in_memory().unwrap();
        for n in 0..300 {
            db.put(("p", format!("{n:04}")), ItemBuilder::new().number("n", n)).unwrap();
        }
        let mut sample = draw(&db, 1, |_| Ok(())).unwrap();
        sample.sort_by(|a, b| a.key.sort().cmp(&b.key.sort()));
        let keys: Vec<_> = (0..300).map(|n| Key::with_sort("p", format!("{n:04}"))).collect();
        assert_eq!(sample.iter().map(|one| one.key.clone()).collect::<Vec<_>>(), keys);
        assert!(sample.iter().all(|one| one.value_bytes > 0));
    }

    #[test]
    fn fresh_keys_are_where_the_data_is_and_not_in_it() {
        let mut random = StdRng::seed_from_u64(9);
        let key = fresh(&Key::with_sort("US", "0123456789"), &mut random);
        assert_eq!((key.partition(), key.sort().unwrap().len()), (&b"US"[..], 10));
        assert_eq!(&key.sort().unwrap()[..2], b"01");
        let key = fresh(&Key::new("user0000000001"), &mut random);
        assert_eq!((&key.partition()[..6], key.len()), (&b"user00"[..], 14));
        assert_ne!(key, Key::new("user0000000001"));
        assert_eq!(fresh(&Key::new("ab"), &mut random).partition().len(), TAIL);
        assert_eq!(fresh(&Key::with_sort("p", ""), &mut random).sort().unwrap().len(), TAIL);
    }
}
