//! `kstone hist`: how sizes and numbers of versions are distributed.

use std::ops::ControlFlow;

use anyhow::Result;
use kstone_api::inspect::{EntryKind, EntryRef};
use kstone_api::{Database, Key};
use serde::Serialize;
use serde_json::json;

use crate::args::{Counted, Format, HistArgs};
use crate::commands::{damage, draws_unicode, open_to_read};
use crate::failure::Failure;
use crate::output::{grouped, print_result};

/// Characters of the longest bar.
const BAR: u64 = 40;

/// Counts by powers of two: bucket 0 holds zeros, and bucket n what has n binary digits.
#[derive(Default)]
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    least: Option<u64>,
    most: u64,
}

#[derive(Serialize)]
struct Bucket {
    from: u64,
    to: u64,
    count: u64,
}

pub(crate) fn run(args: &HistArgs, format: Format) -> Result<()> {
    let db = open_to_read(&args.db)?;
    let histogram = Histogram::of(&db, args.what)?;
    let (what, unit) = match args.what {
        Counted::Keys => ("keys", "bytes"),
        Counted::Items => ("items", "bytes"),
        Counted::Versions => ("keys", "versions"),
    };
    let text = histogram.text(what, unit, if draws_unicode(args.drawing) { "█" } else { "#" });
    let json = json!({
        "schema": "kstone.hist/1",
        "what": what,
        "unit": unit,
        "count": histogram.count,
        "sum": histogram.sum,
        "min": histogram.least,
        "max": histogram.most,
        "buckets": histogram.buckets().collect::<Vec<_>>(),
    });
    print_result(format, &text, json)?;
    Failure::all(damage(&db))
}

impl Histogram {
    fn of(db: &Database, what: Counted) -> Result<Self> {
        let mut histogram = Self::default();
        let (mut current, mut versions) = (None::<Vec<u8>>, 0);
        let mut take = |entry: EntryRef<'_>| {
            let newest = current.as_deref() != Some(entry.key);
            if newest {
                if what == Counted::Versions && current.is_some() {
                    histogram.add(versions);
                }
                let key = current.get_or_insert_default();
                key.clear();
                key.extend_from_slice(entry.key);
                versions = 0;
            }
            versions += 1;
            // A key whose newest version is a tombstone has no item.
            if newest && entry.kind == EntryKind::Put {
                match what {
                    Counted::Keys => histogram.add(Key::decode(entry.key).map_or(0, |key| key.len()) as u64),
                    Counted::Items => histogram.add(entry.value.len() as u64),
                    Counted::Versions => {}
                }
            }
            ControlFlow::Continue(())
        };
        db.engine().for_each_version(&mut take)?;
        if what == Counted::Versions && current.is_some() {
            histogram.add(versions);
        }
        Ok(histogram)
    }

    fn add(&mut self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.least = Some(self.least.map_or(value, |least| least.min(value)));
        self.most = self.most.max(value);
    }

    /// From the first bucket that is not empty to the last.
    fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let buckets = (0u32..).zip(&self.buckets).skip_while(|&(_, &count)| count == 0);
        buckets.map(|(n, &count)| match n.checked_sub(1) {
            None => Bucket { from: 0, to: 0, count },
            Some(bits) => Bucket { from: 1 << bits, to: u64::MAX >> (u64::BITS - n), count },
        })
    }

    fn text(&self, what: &str, unit: &str, block: &str) -> String {
        let mean = self.sum as f64 / self.count.max(1) as f64;
        let least = grouped(self.least.unwrap_or(0));
        let (count, most) = (grouped(self.count), grouped(self.most));
        let mut lines =
            vec![format!("{count} {what}   {unit}: least {least}   mean {mean:.1}   most {most}")];
        let highest = self.buckets.iter().copied().max().unwrap_or(0).max(1);
        for Bucket { from, to, count } in self.buckets() {
            let range = if from == to { from.to_string() } else { format!("{from}-{to}") };
            let cells = u128::from(count) * u128::from(BAR) / u128::from(highest);
            // A bar for each bucket that is not empty, however short.
            let cells = if count > 0 { cells.max(1) } else { 0 } as usize;
            lines.push(
                format!("{range:>21}  {:>12}  {}", grouped(count), block.repeat(cells)).trim_end().into(),
            );
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_powers_of_two() {
        let mut histogram = Histogram::default();
        [0, 1, 2, 3, 4, 7, 8, u64::MAX].into_iter().for_each(|value| histogram.add(value));
        let buckets: Vec<_> = histogram.buckets().map(|b| (b.from, b.to, b.count)).collect();
        assert_eq!(buckets[..5], [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 15, 1)]);
        assert_eq!(buckets.last(), Some(&(1 << 63, u64::MAX, 1)));
        assert_eq!((histogram.count, histogram.least, histogram.most), (8, Some(0), u64::MAX));
    }
}
