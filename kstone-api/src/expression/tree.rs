//! [`Tree`]: paths by their steps, which finds paths that overlap.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::limits::Refusal;
use super::path::{Path, Step};

/// What is at the end of each path, by the steps that lead there. At most as deep as a path is long.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree<K, T> {
    pub(super) attributes: BTreeMap<K, Node<K, T>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node<K, T> {
    /// A path ends here.
    End(T),
    Fields(BTreeMap<K, Node<K, T>>),
    Elements(BTreeMap<usize, Node<K, T>>),
}

impl<K, T> Tree<K, T> {
    pub(super) fn new() -> Self {
        Self { attributes: BTreeMap::new() }
    }

    /// Inserts a path. Fails if it leads to, through or into the value of another one.
    pub(super) fn insert<'a>(&mut self, path: &'a Path, end: T) -> Result<(), Refusal>
    where
        K: Ord + From<&'a str>,
    {
        insert(self.attributes.entry(path.name().into()), path.steps(), end).map_err(
            |overlap| match overlap {
                Overlap::Same => Refusal(format!("two paths overlap at {path}")),
                Overlap::Kinds => {
                    Refusal(format!("{path} and another path need a list and a map at the same place"))
                }
            },
        )
    }
}

enum Overlap {
    Same,
    Kinds,
}

fn insert<'a, K: Ord + From<&'a str>, T, P: Ord>(
    entry: Entry<'_, P, Node<K, T>>,
    steps: &'a [Step],
    end: T,
) -> Result<(), Overlap> {
    let Some((step, rest)) = steps.split_first() else {
        return match entry {
            Entry::Vacant(slot) => {
                slot.insert(Node::End(end));
                Ok(())
            }
            Entry::Occupied(_) => Err(Overlap::Same),
        };
    };
    let node = entry.or_insert_with(|| match step {
        Step::Field(_) => Node::Fields(BTreeMap::new()),
        Step::Index(_) => Node::Elements(BTreeMap::new()),
    });
    match (node, step) {
        (Node::End(_), _) => Err(Overlap::Same),
        (Node::Fields(fields), Step::Field(name)) => insert(fields.entry(name.as_str().into()), rest, end),
        (Node::Elements(elements), Step::Index(index)) => insert(elements.entry(*index), rest, end),
        _ => Err(Overlap::Kinds),
    }
}
