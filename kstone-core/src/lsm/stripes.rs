//! The stripes of an open database, each created when it first receives data.

use std::sync::OnceLock;

use crate::stripe::Stripe;

#[derive(Debug)]
pub(crate) struct Stripes(Box<[OnceLock<Box<Stripe>>]>);

impl Stripes {
    /// Takes the stripes of a database in order; `None` for a stripe that never received data.
    pub(crate) fn new(stripes: impl Iterator<Item = Option<Stripe>>) -> Self {
        let cell = |stripe: Option<Stripe>| stripe.map_or_else(OnceLock::new, |s| Box::new(s).into());
        Self(stripes.map(cell).collect())
    }

    /// The number of stripes, used or not.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the stripe, creating it if necessary; `None` if `id` is out of range.
    #[inline]
    pub(crate) fn get_or_make(&self, id: usize) -> Option<&Stripe> {
        let stripe = self.0.get(id)?;
        Some(stripe.get_or_init(|| Box::new(Stripe::new(id, Vec::new(), 0))))
    }

    /// Returns the stripe if it ever received data.
    #[inline]
    pub(crate) fn if_used(&self, id: usize) -> Option<&Stripe> {
        self.0.get(id)?.get().map(|stripe| &**stripe)
    }

    pub(crate) fn used(&self) -> impl Iterator<Item = &Stripe> {
        self.0.iter().filter_map(|stripe| stripe.get().map(|stripe| &**stripe))
    }
}
