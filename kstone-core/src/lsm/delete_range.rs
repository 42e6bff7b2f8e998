//! DELETE RANGE: the items of a part of one partition, in as few commits as their size allows.

use super::LsmEngine;
use super::batch::PendingOp;
use super::observe::WriteTotals;
use super::options::WriteOptions;
use super::scan::Entries;
use crate::counters::Operation;
use crate::error::Result;
use crate::key::{EncodedKey, SortRange, key_hash, partition_hash, stripe_of};
use crate::record::ITEMS;
use crate::types::Direction;

/// What a deletion of a range did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeletedRange {
    /// The items deleted.
    pub items: u64,
    /// The commits that it took; each is atomic. With at most one, all of the items went at once.
    pub steps: u64,
}

/// The deletes of one commit.
#[derive(Default)]
struct Step {
    ops: Vec<PendingOp<'static>>,
    encoded_len: usize,
    written: WriteTotals,
}

/// The keys of a range, on their way into steps.
struct Keys {
    entries: Entries,
    partition_hash: u64,
    stripe: u16,
    /// The delete, and the length of its key, that did not fit into the last step.
    left_over: Option<(PendingOp<'static>, usize)>,
}

impl Keys {
    fn next(&mut self) -> Result<Option<(PendingOp<'static>, usize)>> {
        if let Some(next) = self.left_over.take() {
            return Ok(Some(next));
        }
        if !self.entries.step()? {
            return Ok(None);
        }
        let len = self.entries.entry().map_or(0, |(key, _)| key.len());
        // As stored: the key may be longer than what the settings accept by now.
        let Some(bytes) = self.entries.encoded_key() else { return Ok(None) };
        let key =
            EncodedKey { bytes: bytes.into(), hash: key_hash(bytes), partition_hash: self.partition_hash };
        Ok(Some((PendingOp { key, value: None, stripe: self.stripe }, len)))
    }

    /// The deletes that fit into one commit, and at least one; `None` at the end.
    fn step(&mut self, max: usize) -> Result<Option<Step>> {
        let mut step = Step::default();
        while let Some((op, len)) = self.next()? {
            let encoded_len = op.as_ref().encoded_len(ITEMS);
            if step.encoded_len + encoded_len > max && !step.ops.is_empty() {
                self.left_over = Some((op, len));
                break;
            }
            step.encoded_len += encoded_len;
            step.written.add(len, None);
            step.ops.push(op);
        }
        Ok((!step.ops.is_empty()).then_some(step))
    }
}

impl LsmEngine {
    /// Deletes the items of a part of a partition that exist now. The deletion is atomic if its deletes fit into
    /// `max_batch_bytes`; otherwise it is a series of steps of about that size, in the order of sort keys, each of them
    /// atomic. A step takes about 150 bytes of memory for each of its items.
    ///
    /// A key that is put for the first time meanwhile is not deleted. A key that existed is deleted, even if another
    /// value was put meanwhile.
    ///
    /// # Errors
    /// `InvalidKey` for an empty partition key, the errors of a query, and those of [`LsmEngine::write`]. After an error,
    /// the steps made before it remain: the items that come first are gone. Repeating the call deletes the others.
    pub fn delete_range(
        &self,
        partition: &[u8],
        range: &SortRange,
        options: WriteOptions,
    ) -> Result<DeletedRange> {
        // A handle that cannot write says so even if there is nothing to delete.
        drop(self.writable()?);
        let entries = self.query(partition, range, Direction::Forward, None)?;
        let partition_hash = partition_hash(partition);
        let stripe = stripe_of(partition_hash, self.shared.stripes.count()) as u16;
        let mut keys = Keys { entries, partition_hash, stripe, left_over: None };
        let mut deleted = DeletedRange::default();
        loop {
            // For each step again: a close waits for the step, not for all of them, and settings may change in between.
            let (shared, _open) = self.writable()?;
            let settings = shared.settings.load();
            let max = settings.database.max_batch_bytes.min(settings.log.max_record);
            let Some(step) = keys.step(max)? else { return Ok(deleted) };
            let running = shared.observed.begin_operation(Operation::Batch, &settings);
            drop(settings);
            let result = shared.commit(&step.ops, options.durability.unwrap_or(shared.durability));
            shared.wrote(&running, step.written, &result);
            result?;
            deleted.items += step.ops.len() as u64;
            deleted.steps += 1;
        }
    }
}
