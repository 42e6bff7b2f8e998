//! [`Level`]: how deep a value nests, counted alike by what reads and what writes it.

use crate::codec::check_nesting;
use crate::item_error::ItemError;

/// How many newtypes and options may lie around a value.
const MAX_WRAPS: usize = 64;

#[derive(Clone, Copy)]
pub(super) struct Level {
    /// The lists, maps and sets around the value; `None` around the item itself, which is not one of them.
    depth: Option<usize>,
    /// Newtypes and options around the value, within the innermost list or map.
    wraps: usize,
}

impl Level {
    /// Of an item, whose attributes are the root.
    pub(super) const ITEM: Self = Self { depth: None, wraps: 0 };
    /// Of the value of an attribute.
    pub(super) const VALUE: Self = Self { depth: Some(0), wraps: 0 };

    /// Of what is within a list or map.
    pub(super) fn nest(self) -> Result<Self, ItemError> {
        let depth = match self.depth {
            None => 0,
            Some(depth) => {
                check_nesting(depth)?;
                depth + 1
            }
        };
        Ok(Self { depth: Some(depth), wraps: 0 })
    }

    /// Of what is within a newtype or an option. Types can nest in themselves without a list or map between: one such as
    /// `struct A(Option<Box<A>>)` would recurse for ever on any value.
    pub(super) fn wrap(self) -> Result<Self, ItemError> {
        let wraps = self.wraps + 1;
        if wraps > MAX_WRAPS {
            return Err(ItemError::new("newtypes and options nest deeper than 64 levels"));
        }
        Ok(Self { wraps, ..self })
    }
}
