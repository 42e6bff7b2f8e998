//! [`Update`]: what to change in an item.

use std::fmt;

use kstone_core::{Error, Result};

use super::limits::{self, Refusal};
use super::operand::{Operand, Term};
use super::params::{Expressions, Params};
use super::path::Path;
use super::tree::Tree;
use super::{Type, print};
use crate::number::Number;
use crate::value::Value;

/// What to change in an item. Everything else in it stays as it is.
///
/// ```
/// use kstone_api::{Item, Params, Update, attr};
///
/// let mut item = Item::builder().number("visits", 41).string("state", "new").build();
/// let update = Update::new().add("visits", 1).set("state", "known").append("log", ["seen"]);
/// update.apply(&mut item)?;
/// assert_eq!(item.to_string(), r#"{"log":["seen"],"state":"known","visits":42}"#);
///
/// let params = Params::new().value(":one", 1);
/// assert_eq!(Update::parse("ADD visits :one", &params)?, Update::new().add("visits", 1));
/// # Ok::<(), kstone_api::Error>(())
/// ```
///
/// * Operands see the item as it was before the update; so the order of actions does not matter, and no two of them may
///   change the same value or one within the other (`InvalidExpression`).
/// * A path of several steps leads through maps and lists that exist. Setting an index past the end of a list appends.
/// * Elements of lists are found by their index before the update, then removed together.
/// * Numbers are exact: a result with more than 38 significant digits, or out of range, is refused, never rounded.
///
/// An update has at most 300 actions, operators and functions together.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Update(Result<Actions, Refusal>);

/// The actions by clause, each clause in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Actions {
    pub(super) set: Vec<(Path, Term)>,
    pub(super) remove: Vec<Path>,
    /// Numbers and sets.
    pub(super) add: Vec<(Path, Value)>,
    /// Sets.
    pub(super) delete: Vec<(Path, Value)>,
    operators: usize,
}

/// What happens to the value at a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action<'a> {
    Set(&'a Term),
    Remove,
    Add(&'a Value),
    Delete(&'a Value),
}

impl Actions {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, Action<'_>)> {
        let set = self.set.iter().map(|(path, term)| (path, Action::Set(term)));
        let remove = self.remove.iter().map(|path| (path, Action::Remove));
        let add = self.add.iter().map(|(path, value)| (path, Action::Add(value)));
        let delete = self.delete.iter().map(|(path, value)| (path, Action::Delete(value)));
        set.chain(remove).chain(add).chain(delete)
    }

    /// The actions by path. Fails if paths overlap.
    pub(super) fn tree(&self) -> Result<Tree<&str, Action<'_>>, Refusal> {
        let mut tree = Tree::new();
        self.iter().try_for_each(|(path, action)| tree.insert(path, action))?;
        Ok(tree)
    }

    fn count(&mut self, path: &Path, operators: usize) -> Result<(), Refusal> {
        path.check()?;
        self.operators += operators + 1;
        limits::check_size(self.operators, 0)
    }
}

impl Default for Update {
    fn default() -> Self {
        Self(Ok(Actions::default()))
    }
}

impl Update {
    /// No changes yet. Applied so, it changes nothing.
    ///
    /// ```
    /// # use kstone_api::{Item, Update};
    /// let mut item = Item::new();
    /// Update::new().apply(&mut item)?;
    /// assert!(item.is_empty());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    fn with(self, change: impl FnOnce(&mut Actions) -> Result<(), Refusal>) -> Self {
        Self(self.0.and_then(|mut actions| {
            change(&mut actions)?;
            Ok(actions)
        }))
    }

    /// Sets the value at a path, whether or not there is one.
    ///
    /// ```
    /// # use kstone_api::{Item, Update, attr};
    /// let mut item = Item::builder().list("tags", ["a", "b"]).build();
    /// Update::new().set("copy", attr("tags").at(0)).set(attr("tags").at(1), "c").apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"copy":"a","tags":["a","c"]}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn set(self, path: impl Into<Path>, operand: impl Into<Operand>) -> Self {
        let (path, operand) = (path.into(), operand.into());
        self.with(|actions| actions.set(path, operand.0?))
    }

    /// Sets the value at a path if there is none.
    ///
    /// ```
    /// # use kstone_api::{Item, Update};
    /// let mut item = Item::builder().number("a", 1).build();
    /// Update::new().set_if_absent("a", 2).set_if_absent("b", 2).apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"a":1,"b":2}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn set_if_absent(self, path: impl Into<Path>, operand: impl Into<Operand>) -> Self {
        let path = path.into();
        let operand = path.clone().or(operand);
        self.set(path, operand)
    }

    /// Adds to a number, or creates it with this value. To subtract, add a negative number.
    ///
    /// ```
    /// # use kstone_api::{Item, Update};
    /// let mut item = Item::builder().number("stock", 10).build();
    /// Update::new().add("stock", -3).add("sold", 3).apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"sold":3,"stock":7}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn add(self, path: impl Into<Path>, number: impl Into<Number>) -> Self {
        let (path, number) = (path.into(), number.into());
        self.with(|actions| actions.add(path, Value::N(number)))
    }

    /// Inserts members into a set, or creates it with these.
    ///
    /// ```
    /// # use std::collections::BTreeSet;
    /// # use kstone_api::{Item, Update};
    /// let mut item = Item::builder().string_set("roles", ["author"]).build();
    /// Update::new().insert("roles", BTreeSet::from(["admin".to_string()])).apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"roles":["admin","author"]}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn insert(self, path: impl Into<Path>, set: impl Into<Value>) -> Self {
        let (path, set) = (path.into(), set.into());
        self.with(|actions| {
            check_set(&set, "insert")?;
            actions.add(path, set)
        })
    }

    /// Deletes members from a set. A set without members is removed.
    ///
    /// ```
    /// # use std::collections::BTreeSet;
    /// # use kstone_api::{Item, Update};
    /// let mut item = Item::builder().string_set("roles", ["author"]).build();
    /// Update::new().delete_from("roles", BTreeSet::from(["author".to_string()])).apply(&mut item)?;
    /// assert!(item.is_empty());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn delete_from(self, path: impl Into<Path>, set: impl Into<Value>) -> Self {
        let (path, set) = (path.into(), set.into());
        self.with(|actions| actions.delete(path, set))
    }

    /// Appends values to a list, or creates it with these.
    ///
    /// ```
    /// # use kstone_api::{Item, Update};
    /// let update = Update::new().append("log", ["seen"]);
    /// assert_eq!(update.to_string(), r#"SET log = list_append(if_not_exists(log, []), ["seen"])"#);
    /// ```
    pub fn append<V: Into<Value>>(self, path: impl Into<Path>, list: impl IntoIterator<Item = V>) -> Self {
        self.extend(path.into(), list.into_iter().map(Into::into).collect(), false)
    }

    /// Inserts values at the start of a list, in their order, or creates it with these.
    ///
    /// ```
    /// # use kstone_api::{Item, Update};
    /// let mut item = Item::builder().list("log", [3]).build();
    /// Update::new().prepend("log", [1, 2]).apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"log":[1,2,3]}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn prepend<V: Into<Value>>(self, path: impl Into<Path>, list: impl IntoIterator<Item = V>) -> Self {
        self.extend(path.into(), list.into_iter().map(Into::into).collect(), true)
    }

    fn extend(self, path: Path, list: Vec<Value>, at_start: bool) -> Self {
        self.with(|actions| {
            let old = Term::if_absent(path.clone(), Term::Value(Value::L(Vec::new())))?;
            let list = Operand::from(Value::L(list)).0?;
            let term = if at_start { Term::append(list, old) } else { Term::append(old, list) };
            actions.set(path, term?)
        })
    }

    /// Removes the value at a path, if there is one. Elements of a list that follow move forward.
    ///
    /// ```
    /// # use kstone_api::{Item, Update, attr};
    /// let mut item = Item::builder().list("l", [1, 2, 3]).build();
    /// Update::new().remove(attr("l").at(0)).remove(attr("l").at(1)).remove("absent").apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"l":[3]}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn remove(self, path: impl Into<Path>) -> Self {
        let path = path.into();
        self.with(|actions| actions.remove(path))
    }

    /// Parses the text of an update, as DynamoDB writes it: the clauses SET, REMOVE, ADD and DELETE, each at most once.
    /// For several texts that share placeholders, see [`Expressions`].
    ///
    /// ```
    /// use kstone_api::{Params, Update, attr};
    ///
    /// let params = Params::new().value(":n", 1).name("#s", "state");
    /// let update = Update::parse("SET visits = visits + :n REMOVE #s", &params)?;
    /// assert_eq!(update, Update::new().set("visits", attr("visits").plus(1)).remove("state"));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ExpressionSyntax` with the position; `InvalidExpression` if paths overlap, a clause occurs twice, a placeholder is
    /// missing or unused, a limit is exceeded, or an operand does not fit.
    pub fn parse(text: &str, params: &Params) -> Result<Self> {
        Expressions::only(params, |expressions| expressions.update(text))
    }

    /// The text for DynamoDB. Names that need a placeholder, and all values, are added to the parameters under names that
    /// are still free.
    ///
    /// ```
    /// # use kstone_api::{Params, Update};
    /// let mut params = Params::new();
    /// assert_eq!(Update::new().add("visits", 1).to_dynamodb(&mut params)?, "ADD visits :v0");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidExpression` if the update was refused, contains no action, or its text is longer than 4096 bytes.
    pub fn to_dynamodb(&self, params: &mut Params) -> Result<String> {
        let actions = self.actions()?;
        actions.tree().map_err(Refusal::into_error)?;
        if actions.operators == 0 {
            return Err(Error::InvalidExpression { why: "an update without actions has no text".into() });
        }
        print::for_dynamodb(params, |printer| printer.actions(actions))
    }

    /// What to do; `InvalidExpression` if it was refused.
    pub(super) fn actions(&self) -> Result<&Actions> {
        self.0.as_ref().map_err(|refusal| Error::InvalidExpression { why: refusal.0.clone() })
    }

    /// The actions of both.
    ///
    /// ```
    /// # use kstone_api::Update;
    /// let both = Update::new().add("visits", 1).and(Update::new().remove("draft"));
    /// assert_eq!(both, Update::new().add("visits", 1).remove("draft"));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn and(self, other: Self) -> Self {
        let Ok(more) = other.0 else { return Self(self.0.and(other.0)) };
        self.with(|actions| actions.append(more))
    }

    /// Reports a refusal or overlapping paths, for calls that use the update later.
    pub(crate) fn check(&self) -> Result<()> {
        self.prepare().map(drop)
    }
}

impl Actions {
    pub(super) fn set(&mut self, path: Path, term: Term) -> Result<(), Refusal> {
        term.check_in_update()?;
        self.count(&path, term.size().0)?;
        self.set.push((path, term));
        Ok(())
    }

    pub(super) fn add(&mut self, path: Path, value: Value) -> Result<(), Refusal> {
        if !matches!(value, Value::N(_)) {
            check_set(&value, "ADD")?;
        }
        limits::check_literal(&value)?;
        self.count(&path, 0)?;
        self.add.push((path, value));
        Ok(())
    }

    pub(super) fn delete(&mut self, path: Path, value: Value) -> Result<(), Refusal> {
        check_set(&value, "DELETE")?;
        limits::check_literal(&value)?;
        self.count(&path, 0)?;
        self.delete.push((path, value));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: Path) -> Result<(), Refusal> {
        self.count(&path, 0)?;
        self.remove.push(path);
        Ok(())
    }

    fn append(&mut self, other: Self) -> Result<(), Refusal> {
        other.set.into_iter().try_for_each(|(path, term)| self.set(path, term))?;
        other.remove.into_iter().try_for_each(|path| self.remove(path))?;
        other.add.into_iter().try_for_each(|(path, value)| self.add(path, value))?;
        other.delete.into_iter().try_for_each(|(path, value)| self.delete(path, value))
    }

    /// The update, if paths do not overlap.
    pub(super) fn finish(self) -> Result<Update, Refusal> {
        self.tree()?;
        Ok(Update(Ok(self)))
    }
}

fn check_set(value: &Value, action: &str) -> Result<(), Refusal> {
    if matches!(value, Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) {
        return Ok(());
    }
    let numbers = if action == "ADD" { "a number or " } else { "" };
    Err(Refusal(format!("{action} takes {numbers}a set, and this value is of type {}", Type::of(value))))
}

/// For people: DynamoDB's text with names and values in place, values as JSON; [`Update::to_dynamodb`] is for programs.
impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(actions) => f.write_str(&print::for_people(|printer| printer.actions(actions))),
            Err(refusal) => print::refused(refusal, f),
        }
    }
}
