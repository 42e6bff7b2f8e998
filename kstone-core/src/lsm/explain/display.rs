//! Explanations of reads, for people.

use std::fmt;

use super::{Explain, ExplainQuery, RunStep, Verdict};
use crate::escape;

/// `count` and `thing`, in the singular or the plural.
fn some(count: impl Into<u64>, thing: &str) -> String {
    let count = count.into();
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{:.1} KiB", bytes as f64 / 1024.0) }
}

fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

impl fmt::Display for RunStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verdict == Verdict::BetweenFiles {
            return write!(f, "run of {} files   the key lies between two of them", self.parts);
        }
        let (first, last) = &self.keys;
        write!(f, "{}   age {}   keys [{first} … {last}]", self.file, age(self.age_ms))?;
        if let Some(bits) = self.filter_bits {
            let says = if self.verdict == Verdict::FilterNo { "no" } else { "maybe" };
            write!(f, "   filter {says} ({bits:.0} bits)")?;
        }
        for block in &self.blocks {
            write!(f, "   block {} at {:#x} read {}", block.block, block.offset, size(block.bytes))?;
        }
        match &self.verdict {
            Verdict::NotOpened => write!(f, "   not opened"),
            Verdict::BetweenFiles => Ok(()),
            Verdict::FilterNo => write!(f, "   skipped"),
            Verdict::IndexNo => write!(f, "   index no   (false positive)"),
            Verdict::FalsePositive => write!(f, "   NOT THERE   (false positive)"),
            Verdict::OnlyNewer => write!(f, "   ONLY NEWER versions"),
            Verdict::Found { seq } => write!(f, "   FOUND  seq {seq}"),
            Verdict::Failed { error } => write!(f, "   FAILED: {}", escape::text(error)),
        }
    }
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = self.sort.as_ref().map(|sort| format!(" \"{sort}\"")).unwrap_or_default();
        writeln!(f, "get \"{}\"{sort}   {} bytes", self.key, self.key_bytes)?;
        let top = self.partition_hash.checked_shr(64 - self.stripe_bits).unwrap_or(0);
        writeln!(
            f,
            "  stripe {:03}   hash {:#018x}, top {} = {top:#x}",
            self.stripe,
            self.partition_hash,
            some(self.stripe_bits, "bit")
        )?;
        let mut step = 0;
        for memtable in &self.memtables {
            step += 1;
            let kind = if memtable.sealed { "sealed memtable" } else { "memtable" };
            let log = memtable.log.as_ref().map(|log| format!(" (from {log})")).unwrap_or_default();
            let verdict = if memtable.found { "FOUND" } else { "not there" };
            writeln!(f, "  {step}  {kind}{log}   {}   {verdict}", some(memtable.records as u64, "record"))?;
        }
        let asked = self.runs.iter().filter(|run| run.verdict != Verdict::NotOpened);
        for run in asked.clone() {
            step += 1;
            writeln!(f, "  {step}  {run}")?;
        }
        let asked = asked.count();
        if asked < self.runs.len() {
            let why = if self.error.is_some() { "the read had failed" } else { "a newer version was found" };
            writeln!(f, "     {} not opened: {why}", some((self.runs.len() - asked) as u64, "older run"))?;
        }
        match (&self.error, self.value_bytes) {
            (Some(error), _) => writeln!(f, "result: {}", escape::text(error))?,
            (None, Some(bytes)) => writeln!(f, "result: item, {bytes} bytes")?,
            (None, None) if self.deleted => writeln!(f, "result: deleted")?,
            (None, None) => writeln!(f, "result: no such key")?,
        }
        writeln!(
            f,
            "cost: {} in the stripe, {asked} looked at, {}, {} ({} wasted), {}",
            some(self.runs.len() as u64, "run"),
            some(self.filter_tests as u64, "filter test"),
            some(self.block_reads as u64, "block read"),
            self.wasted_block_reads,
            size(self.block_bytes)
        )?;
        if !self.older_versions.is_empty() {
            let files: Vec<_> = self.older_versions.iter().map(|older| older.file.as_str()).collect();
            writeln!(f, "older versions of this key: {} ({})", files.len(), files.join(", "))?;
        }
        let (now, compacted) = (&self.missing, &self.missing_when_compacted);
        write!(
            f,
            "a missing key here: {:.0} filter tests + {:.4} expected block reads; after compaction {:.0} + {:.4}",
            now.filter_tests, now.block_reads, compacted.filter_tests, compacted.block_reads
        )
    }
}

impl fmt::Display for ExplainQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "query \"{}\"   from \"{}\"   stripe {:03}", self.partition, self.range.0, self.stripe)?;
        for (n, source) in self.sources.iter().enumerate() {
            write!(f, "  {}  {}", n + 1, source.source)?;
            if let Some((first, last)) = &source.keys {
                write!(f, "   keys [{first} … {last}]")?;
            }
            if !source.in_range {
                writeln!(f, "   out of range")?;
                continue;
            }
            write!(f, "   {} ({} tombstones)", some(source.entries, "record"), source.tombstones)?;
            if source.blocks > 0 {
                write!(f, "   {} {}", some(source.blocks, "block"), size(source.block_bytes))?;
            }
            writeln!(f)?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "FAILED: {}", escape::text(error))?;
        }
        let (entries, blocks) = self.cost_per_row();
        writeln!(
            f,
            "result: {} of {} read; {} shadowed, {} tombstones",
            some(self.rows, "item"),
            some(self.entries, "record"),
            self.shadowed,
            self.tombstones
        )?;
        write!(
            f,
            "cost: {}, {}; {entries:.2} records and {blocks:.2} blocks for an item",
            some(self.blocks, "block"),
            size(self.block_bytes)
        )
    }
}
