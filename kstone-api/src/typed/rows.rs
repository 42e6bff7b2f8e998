//! Reads of many items as a type.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

use kstone_core::{Key, Result};
use serde::de::DeserializeOwned;

use crate::query::Items;

/// An iterator over keys and items read as a type; see [`Items::typed`].
pub struct TypedItems<T> {
    items: Items,
    read: PhantomData<fn() -> T>,
}

impl<T> TypedItems<T> {
    pub(super) fn new(items: Items) -> Self {
        Self { items, read: PhantomData }
    }
}

impl<T: DeserializeOwned> Iterator for TypedItems<T> {
    type Item = Result<(Key<'static>, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.items.next()?;
        Some(entry.and_then(|(key, item)| match item.deserialize_as() {
            Ok(value) => Ok((key, value)),
            Err(e) => Err(super::of_key(&key, e)),
        }))
    }
}

impl<T: DeserializeOwned> FusedIterator for TypedItems<T> {}

impl<T> fmt::Debug for TypedItems<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedItems").finish_non_exhaustive()
    }
}
