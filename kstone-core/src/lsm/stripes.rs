//! The stripes of an open database, each created when it first receives data.

use std::sync::{Arc, OnceLock};

use crate::memtable::ChunkPool;
use crate::stripe::Stripe;

#[derive(Debug)]
pub(crate) struct Stripes {
    stripes: Box<[OnceLock<Box<Stripe>>]>,
    /// Shared by the memtables of all stripes.
    chunks: Arc<ChunkPool>,
}

impl Stripes {
    /// Takes the stripes of a database in order; `None` for a stripe that never received data.
    pub(crate) fn new(stripes: impl Iterator<Item = Option<Stripe>>, chunks: Arc<ChunkPool>) -> Self {
        let cell = |stripe: Option<Stripe>| stripe.map_or_else(OnceLock::new, |s| Box::new(s).into());
        Self { stripes: stripes.map(cell).collect(), chunks }
    }

    /// The number of stripes, used or not.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.stripes.len()
    }

    /// Returns the stripe, creating it if necessary; `None` if `id` is out of range.
    #[inline]
    pub(crate) fn get_or_make(&self, id: usize) -> Option<&Stripe> {
        let stripe = self.stripes.get(id)?;
        Some(stripe.get_or_init(|| Box::new(Stripe::new(id, Vec::new(), 0, &self.chunks))))
    }

    /// Returns the stripe if it ever received data.
    #[inline]
    pub(crate) fn if_used(&self, id: usize) -> Option<&Stripe> {
        self.stripes.get(id)?.get().map(|stripe| &**stripe)
    }

    /// Returns memory that no memtable uses to the system.
    pub(crate) fn release_memory(&self) {
        self.chunks.release();
    }

    #[cfg(test)]
    pub(crate) fn chunks(&self) -> &ChunkPool {
        &self.chunks
    }

    pub(crate) fn used(&self) -> impl Iterator<Item = &Stripe> {
        self.stripes.iter().filter_map(|stripe| stripe.get().map(|stripe| &**stripe))
    }
}
