//! What a look-up in an SST does, for whoever wants to know. A get counts, explaining writes everything
//! down, and `()` records nothing.

use super::table::Table;
use crate::bloom::Filter;
use crate::error::Result;
use crate::types::GetCost;

/// What a filter said of a key, and whether that was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterAnswer {
    No,
    Yes,
    /// It let a key pass that is not in the file.
    FalseYes,
}

/// Is told each step while it is done, so that an account of a look-up cannot be another one than the look-up.
pub(crate) trait Trace {
    /// The filter was asked; whether it let the key pass.
    #[inline]
    fn filter(&mut self, _passed: bool) {}

    /// The index named this group of this block, and it was read.
    #[inline]
    fn group(&mut self, _block: usize, _group: usize) {}

    /// How the filter's answer turned out.
    #[inline]
    fn answered(&mut self, _answer: FilterAnswer, _filter: &Filter) {}
}

impl Trace for () {}

impl Trace for GetCost {
    #[inline]
    fn group(&mut self, _block: usize, _group: usize) {
        self.blocks += 1;
    }

    #[inline]
    fn answered(&mut self, answer: FilterAnswer, filter: &Filter) {
        let tally = &mut self.filter;
        match answer {
            FilterAnswer::No => tally.negatives += 1,
            FilterAnswer::Yes => tally.true_positives += 1,
            FilterAnswer::FalseYes => tally.false_positives += 1,
        }
        if answer != FilterAnswer::Yes {
            tally.expected += u64::from(filter.expected());
        }
    }
}

impl Table {
    /// The bits that its filter has for each key.
    pub(crate) fn filter_bits_per_key(&self) -> Result<f64> {
        Ok(self.opened()?.filter.bits_per_key())
    }

    /// Where block `n` lies in the file, and its length; `None` when there is none.
    pub(crate) fn block_extent(&self, n: usize) -> Result<Option<(u64, u64)>> {
        let open = self.opened()?;
        let range = open.fences.block(open.fence_section(), n);
        Ok(range.map(|range| (range.start as u64, range.len() as u64)))
    }
}
