//! The stripes of an open database, each made when something first goes into it.

use std::sync::OnceLock;

use crate::stripe::Stripe;

#[derive(Debug)]
pub(crate) struct Stripes(Box<[OnceLock<Box<Stripe>>]>);

impl Stripes {
    /// Those of a database in their order, `None` for what nothing was ever put into.
    pub(crate) fn new(stripes: impl Iterator<Item = Option<Stripe>>) -> Self {
        let cell = |stripe: Option<Stripe>| stripe.map_or_else(OnceLock::new, |s| Box::new(s).into());
        Self(stripes.map(cell).collect())
    }

    /// How many there are, used or not.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The stripe, made if need be; `None` when there are not as many.
    #[inline]
    pub(crate) fn get_or_make(&self, id: usize) -> Option<&Stripe> {
        let stripe = self.0.get(id)?;
        Some(stripe.get_or_init(|| Box::new(Stripe::new(id, Vec::new(), 0))))
    }

    /// The stripe, if anything was ever put into it.
    #[inline]
    pub(crate) fn if_used(&self, id: usize) -> Option<&Stripe> {
        self.0.get(id)?.get().map(|stripe| &**stripe)
    }

    pub(crate) fn used(&self) -> impl Iterator<Item = &Stripe> {
        self.0.iter().filter_map(|stripe| stripe.get().map(|stripe| &**stripe))
    }
}
