//! Applies an update: to an item, or to a stored one, of which only what it touches is decoded.

use std::collections::BTreeMap;
use std::fmt;

use kstone_core::{Error, Result};

use super::evaluate::{self, Source};
use super::limits::{self, Refusal};
use super::operand::Term;
use super::path::{Path, Step, attr};
use super::tree::{Node, Tree};
use super::update::{Action, Update};
use crate::codec;
use crate::item::Item;
use crate::number::Number;
use crate::value::Value;
use crate::view::ItemView;

/// An item after an update.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Its stored form.
    pub(crate) item: Vec<u8>,
    /// The attributes that the paths of the update begin with, in order.
    names: Vec<String>,
}

impl Applied {
    /// Of the stored item before or after the update, the attributes that the update names.
    pub(crate) fn attributes(&self, stored: Option<&[u8]>) -> Result<Item> {
        let Some(stored) = stored else { return Ok(Item::new()) };
        let view = ItemView::new(stored)?;
        let mut found = Vec::new();
        for name in &self.names {
            if let Some(value) = view.get(name)? {
                found.push((name.clone(), value.to_value()?));
            }
        }
        Ok(Item::from_unsorted(found))
    }
}

/// An update whose paths are known not to overlap, as a tree of them: made once for a call that may apply it several
/// times.
#[derive(Debug)]
pub(crate) struct Prepared<'u>(Tree<&'u str, Action<'u>>);

/// What an update makes of an attribute: a value, or nothing.
type Edit<'a> = (&'a str, Option<Value>);

impl Update {
    /// Applies it to an item in memory. After an error the item is unchanged.
    ///
    /// ```
    /// use kstone_api::{Item, Update};
    ///
    /// let mut item = Item::builder().number("n", 1).build();
    /// Update::new().add("n", 2).set("state", "new").apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"n":3,"state":"new"}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `UpdateFailed`, with the path: an operand is missing or of the wrong type, a path leads through something that
    /// is no map or list, a number would have to be rounded, or the result nests too deep. `InvalidExpression` if the
    /// update was refused, or its paths overlap.
    pub fn apply(&self, item: &mut Item) -> Result<()> {
        for (name, value) in self.prepare()?.edits(item)? {
            match value {
                Some(value) => drop(item.insert(name, value)),
                None => drop(item.remove(name)),
            }
        }
        Ok(())
    }

    /// Checks it, for a call that applies it later. `InvalidExpression` if it was refused, or its paths overlap.
    pub(crate) fn prepare(&self) -> Result<Prepared<'_>> {
        self.actions()?.tree().map(Prepared).map_err(Refusal::into_error)
    }

    /// As [`Prepared::apply_stored`].
    pub(crate) fn apply_stored(&self, old: Option<&[u8]>) -> Result<Applied> {
        self.prepare()?.apply_stored(old)
    }
}

impl<'u> Prepared<'u> {
    /// Applies the update to what is stored under a key, which may be nothing: then to an empty item. Decodes the
    /// attributes that it changes within and the values that it reads; the others are copied as they are.
    pub(crate) fn apply_stored(&self, old: Option<&[u8]>) -> Result<Applied> {
        let view = old.map(ItemView::new).transpose()?;
        let edits = self.edits(&view.as_ref())?;
        let item = match old {
            Some(old) => {
                let edits: Vec<_> = edits.iter().map(|(name, value)| (*name, value.as_ref())).collect();
                codec::patch(old, &edits)?
            }
            None => {
                let set = edits.iter().filter_map(|(name, value)| Some((*name, value.clone()?)));
                codec::encode(&set.collect())?
            }
        };
        Ok(Applied { item, names: edits.iter().map(|(name, _)| (*name).to_owned()).collect() })
    }

    /// The attributes that it changes. The source stays as it was, so operands see the item before the update.
    fn edits(&self, source: &impl Source) -> Result<Vec<Edit<'u>>> {
        let Self(tree) = self;
        let mut edits = Vec::with_capacity(tree.attributes.len());
        for (name, node) in &tree.attributes {
            // An attribute that is replaced need not be decoded.
            let old = match node {
                Node::End(Action::Set(_) | Action::Remove) => None,
                _ => evaluate::value_at(source, &attr(*name))?,
            };
            let new = change(source, old, node, &mut At { name, steps: Vec::new() })?;
            if let Some(value) = &new {
                limits::check_value(value, 0).map_err(|error| failed(name, error.into_error()))?;
            }
            edits.push((*name, new));
        }
        Ok(edits)
    }
}

fn failed(path: impl fmt::Display, why: impl fmt::Display) -> Error {
    Error::UpdateFailed { path: path.to_string(), why: why.to_string() }
}

/// Where in the item a change is.
struct At<'a> {
    name: &'a str,
    steps: Vec<Step>,
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().cloned().fold(attr(self.name), Path::step).fmt(f)
    }
}

/// What becomes of a value, or of its absence.
fn change(
    source: &impl Source,
    old: Option<Value>,
    node: &Node<&str, Action<'_>>,
    at: &mut At<'_>,
) -> Result<Option<Value>> {
    match (node, old) {
        (Node::End(Action::Set(term)), _) => evaluate(term, source, at).map(Some),
        (Node::End(Action::Remove), _) => Ok(None),
        (Node::End(Action::Add(value)), old) => add(old, value).map(Some).map_err(|why| failed(at, why)),
        (Node::End(Action::Delete(value)), old) => delete(old, value).map_err(|why| failed(at, why)),
        (Node::Fields(fields), Some(Value::M(mut map))) => {
            for (name, node) in fields {
                let old = map.get_mut(name).map(|value| std::mem::replace(value, Value::Null));
                at.steps.push(Step::Field((*name).to_owned()));
                let new = change(source, old, node, at)?;
                at.steps.pop();
                match new {
                    Some(value) => drop(map.insert(*name, value)),
                    None => drop(map.remove(name)),
                }
            }
            Ok(Some(Value::M(map)))
        }
        (Node::Elements(elements), Some(Value::L(list))) => {
            change_list(source, list, elements, at).map(|list| Some(Value::L(list)))
        }
        (node, old) if only_removes(node) => Ok(old),
        (Node::Fields(_), Some(_)) => Err(failed(at, "it is not a map")),
        (Node::Elements(_), Some(_)) => Err(failed(at, "it is not a list")),
        (_, None) => Err(failed(at, "it does not exist, so nothing can be changed within it")),
    }
}

fn change_list(
    source: &impl Source,
    mut list: Vec<Value>,
    elements: &BTreeMap<usize, Node<&str, Action<'_>>>,
    at: &mut At<'_>,
) -> Result<Vec<Value>> {
    let (len, mut removed) = (list.len(), Vec::new());
    // In order of the indexes, so that what is beyond the end is appended in that order.
    for (&index, node) in elements {
        let place = list.get_mut(index).filter(|_| index < len);
        let old = place.map(|value| std::mem::replace(value, Value::Null));
        at.steps.push(Step::Index(index));
        let new = change(source, old, node, at)?;
        at.steps.pop();
        match (new, list.get_mut(index).filter(|_| index < len)) {
            (Some(value), Some(place)) => *place = value,
            (Some(value), None) => list.push(value),
            (None, Some(_)) => removed.push(index),
            (None, None) => {}
        }
    }
    // Indexes are those before the update.
    let mut removed = removed.into_iter().peekable();
    let mut index = 0;
    list.retain(|_| {
        let stays = removed.next_if_eq(&index).is_none();
        index += 1;
        stays
    });
    Ok(list)
}

/// Whether the actions change nothing where there is nothing.
fn only_removes(node: &Node<&str, Action<'_>>) -> bool {
    match node {
        Node::End(action) => matches!(action, Action::Remove | Action::Delete(_)),
        Node::Fields(fields) => fields.values().all(only_removes),
        Node::Elements(elements) => elements.values().all(only_removes),
    }
}

fn add(old: Option<Value>, value: &Value) -> Result<Value, String> {
    Ok(match (old, value) {
        (None, value) => value.clone(),
        (Some(Value::N(old)), Value::N(number)) => {
            Value::N(old.checked_add(number).map_err(|error| out_of_range(&error))?)
        }
        (Some(Value::Ss(mut old)), Value::Ss(set)) => {
            old.extend(set.iter().cloned());
            Value::Ss(old)
        }
        (Some(Value::Ns(mut old)), Value::Ns(set)) => {
            old.extend(set.iter().cloned());
            Value::Ns(old)
        }
        (Some(Value::Bs(mut old)), Value::Bs(set)) => {
            old.extend(set.iter().cloned());
            Value::Bs(old)
        }
        (Some(old), value) => return Err(other_type(&old, value)),
    })
}

fn delete(old: Option<Value>, value: &Value) -> Result<Option<Value>, String> {
    Ok(match (old, value) {
        (None, _) => None,
        (Some(Value::Ss(mut old)), Value::Ss(set)) => {
            old.retain(|member| !set.contains(member));
            (!old.is_empty()).then_some(Value::Ss(old))
        }
        (Some(Value::Ns(mut old)), Value::Ns(set)) => {
            old.retain(|member| !set.contains(member));
            (!old.is_empty()).then_some(Value::Ns(old))
        }
        (Some(Value::Bs(mut old)), Value::Bs(set)) => {
            old.retain(|member| !set.contains(member));
            (!old.is_empty()).then_some(Value::Bs(old))
        }
        (Some(old), value) => return Err(other_type(&old, value)),
    })
}

fn other_type(old: &Value, value: &Value) -> String {
    let (old, value) = (super::Type::of(old), super::Type::of(value));
    format!("it is of type {old}, and the value of type {value}")
}

fn out_of_range(error: &crate::number::NumberError) -> String {
    format!("the result cannot be stored: {error}")
}

/// The value that a SET gives to a path.
fn evaluate(term: &Term, source: &impl Source, at: &At<'_>) -> Result<Value> {
    match term {
        Term::Value(value) => Ok(value.clone()),
        Term::Path(path) => match evaluate::value_at(source, path)? {
            Some(value) => Ok(value),
            None => Err(failed(path, "it does not exist")),
        },
        Term::IfAbsent(path, other) => match evaluate::value_at(source, path)? {
            Some(value) => Ok(value),
            None => evaluate(other, source, at),
        },
        Term::Append(first, second) => {
            let mut list = list(first, source, at)?;
            list.append(&mut self::list(second, source, at)?);
            Ok(Value::L(list))
        }
        Term::Plus(first, second) => {
            let (first, second) = (number(first, source, at)?, number(second, source, at)?);
            first.checked_add(&second).map(Value::N).map_err(|error| failed(at, out_of_range(&error)))
        }
        Term::Minus(first, second) => {
            let (first, second) = (number(first, source, at)?, number(second, source, at)?);
            first.checked_sub(&second).map(Value::N).map_err(|error| failed(at, out_of_range(&error)))
        }
        // Updates refuse it.
        Term::Size(path) => Err(failed(path, "size() is for conditions")),
    }
}

/// The path to blame for the value of an operand.
fn blamed(term: &Term, at: &At<'_>) -> String {
    match term {
        Term::Path(path) | Term::IfAbsent(path, _) => path.to_string(),
        _ => at.to_string(),
    }
}

fn list(term: &Term, source: &impl Source, at: &At<'_>) -> Result<Vec<Value>> {
    match evaluate(term, source, at)? {
        Value::L(list) => Ok(list),
        other => {
            let why = format!("list_append takes lists, and this is of type {}", super::Type::of(&other));
            Err(failed(blamed(term, at), why))
        }
    }
}

fn number(term: &Term, source: &impl Source, at: &At<'_>) -> Result<Number> {
    match evaluate(term, source, at)? {
        Value::N(number) => Ok(number),
        other => {
            let why = format!("+ and - take numbers, and this is of type {}", super::Type::of(&other));
            Err(failed(blamed(term, at), why))
        }
    }
}
