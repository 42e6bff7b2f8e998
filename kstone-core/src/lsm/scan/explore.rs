//! Looks for gaps where keys were deleted, in the background, before a reader has to walk over them.

use std::sync::Arc;

use super::{StripeWalk, visible};
use crate::error::Result;
use crate::key::KeyRange;
use crate::lsm::options::Workers;
use crate::lsm::state::Shared;
use crate::stripe::Stripe;
use crate::types::{Direction, SeqNo};

/// Items found before an exploration may stop, and entries after which it stops if it still finds items.
const MOST_THERE: u64 = 16;
const MOST_WALKED: u64 = 4096;

/// A registered sequence, for work that ends before the engine does.
struct Registered<'a>(&'a Shared, SeqNo);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.commits.unpin(self.1);
    }
}

impl Shared {
    /// The number of deletes in a stripe after which the background explores it for gaps. At twice as many the deleting
    /// thread does it. Walking over fewer tombstones costs a reader little.
    pub(crate) fn explore_after(&self) -> u64 {
        if self.workers == Workers::Manual { 8 } else { 128 }
    }

    /// Looks for gaps where keys were deleted, and up to the gaps next to them, so that a caller that deletes many keys
    /// and then reads does not pay for all of it at once.
    pub(crate) fn explore(&self, stripe: usize) {
        let Some(used) = self.stripes.if_used(stripe) else { return };
        let Some(range) = used.gaps.take_deleted() else { return };
        let (from, back) = (Direction::Forward, Direction::Reverse);
        // Errors are reported to readers; here one only leaves a gap unknown.
        if let Ok(false) = self.explore_range(used, &range, from, false) {
            let _ = self.explore_range(used, &range, back, false);
        }
        for range in used.gaps.next_to(&range) {
            let _ = self.explore_range(used, &range, from, true);
        }
    }

    /// Ends early, returning false, where most keys exist or, if the range is expected to be a gap as a `whole`, at the
    /// first key that does.
    fn explore_range(
        &self,
        stripe: &Stripe,
        range: &KeyRange,
        direction: Direction,
        whole: bool,
    ) -> Result<bool> {
        let (mut walk, written) = StripeWalk::watch(stripe, range, direction);
        let registered = Registered(self, self.commits.pin());
        let seq = registered.1;
        let explored =
            if seq < written { Ok(true) } else { self.explore_parts(&mut walk, stripe, range, seq, whole) };
        walk.end_watch(self);
        explored
    }

    fn explore_parts(
        &self,
        walk: &mut StripeWalk,
        stripe: &Stripe,
        range: &KeyRange,
        seq: SeqNo,
        whole: bool,
    ) -> Result<bool> {
        let (mut there, mut gone) = (0, 0);
        let version = Arc::clone(&stripe.version());
        let mut parts = stripe.gaps.around(range, seq).unwrap_or_else(|| vec![range.clone()]);
        if walk.direction == Direction::Reverse {
            parts.reverse();
        }
        for part in parts {
            walk.enter(&part);
            let sources = version.cursors(&Arc::new(part), seq, walk.direction, 0)?;
            let mut cursor = visible(vec![sources], walk.direction, seq);
            while cursor.step()? {
                let passed = cursor.passed().gone;
                let Some((key, _)) = cursor.key() else { break };
                walk.came_to(Some(key), passed, self, seq);
                (there, gone) = (there + 1, gone + passed);
                let enough = there > gone / 2 || there + gone > MOST_WALKED;
                if whole || there > MOST_THERE && enough {
                    return Ok(false);
                }
            }
            let passed = cursor.passed().gone;
            walk.came_to(None, if whole { u64::MAX } else { passed }, self, seq);
            gone += passed;
        }
        Ok(true)
    }
}
