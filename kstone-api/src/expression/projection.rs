//! [`Projection`]: which parts of an item to copy.

use std::collections::BTreeMap;
use std::fmt;

use kstone_core::{Error, Result};

use super::limits::Refusal;
use super::params::{Expressions, Params};
use super::path::Path;
use super::print;
use super::tree::{Node, Tree};
use crate::item::Item;
use crate::value::Value;
use crate::view::{ItemView, ListView, MapView, ValueView};

/// Which parts of items to return.
///
/// ```
/// use kstone_api::{Item, ItemView, Projection, attr};
///
/// let item = Item::builder()
///     .string("name", "Ann")
///     .map("address", Item::builder().string("city", "Ghent").string("street", "Kouter"))
///     .build();
/// let view = ItemView::new(item.encode()?)?;
/// let projection = Projection::of(["name"]).path(attr("address").field("city"));
/// assert_eq!(projection.apply(&view)?.to_string(), r#"{"address":{"city":"Ghent"},"name":"Ann"}"#);
/// # Ok::<(), kstone_api::Error>(())
/// ```
///
/// Maps on the way to a value are kept, with nothing else in them; so are lists, with the selected elements in their
/// order. Paths that lead nowhere are left out. Paths that overlap are refused with `InvalidExpression` by the call that
/// uses the projection. A projection without paths selects nothing.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Projection(Result<Selected, Refusal>);

#[derive(Clone, Debug, PartialEq)]
struct Selected {
    /// In the order given, for printing.
    paths: Vec<Path>,
    tree: Tree<String, ()>,
}

impl Default for Projection {
    fn default() -> Self {
        Self(Ok(Selected { paths: Vec::new(), tree: Tree::new() }))
    }
}

impl Projection {
    /// Selects nothing yet.
    ///
    /// ```
    /// # use kstone_api::{Projection, attr};
    /// assert_eq!(Projection::new().path(attr("a")), Projection::of(["a"]));
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects attributes by name, or values by path. A string is one name, dots and all.
    ///
    /// ```
    /// # use kstone_api::Projection;
    /// assert_eq!(Projection::of(["name", "city"]).to_string(), "name, city");
    /// ```
    pub fn of<P: Into<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        paths.into_iter().fold(Self::new(), |projection, path| projection.path(path))
    }

    /// Selects another value.
    ///
    /// ```
    /// # use kstone_api::{Projection, attr};
    /// let projection = Projection::of(["name"]).path(attr("visits").at(0));
    /// assert_eq!(projection.to_string(), "name, visits[0]");
    /// ```
    pub fn path(self, path: impl Into<Path>) -> Self {
        let path = path.into();
        Self(self.0.and_then(|mut selected| {
            path.check()?;
            selected.tree.insert(&path, ())?;
            selected.paths.push(path);
            Ok(selected)
        }))
    }

    /// Parses the text of a projection: paths separated by commas. For several texts that share placeholders, see
    /// [`Expressions`].
    ///
    /// ```
    /// use kstone_api::{Params, Projection, attr};
    ///
    /// let params = Params::new().name("#n", "name");
    /// let projection = Projection::parse("#n, visits[0]", &params)?;
    /// assert_eq!(projection, Projection::of([attr("name"), attr("visits").at(0)]));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ExpressionSyntax` with the position; `InvalidExpression` if paths overlap, a placeholder is missing or unused, or
    /// a limit is exceeded.
    pub fn parse(text: &str, params: &Params) -> Result<Self> {
        Expressions::only(params, |expressions| expressions.projection(text))
    }

    /// The text for DynamoDB. Names that need a placeholder are added to the parameters.
    ///
    /// ```
    /// # use kstone_api::{Params, Projection};
    /// let mut params = Params::new();
    /// assert_eq!(Projection::of(["city", "name"]).to_dynamodb(&mut params)?, "city, #n0");
    /// assert_eq!(params.names().collect::<Vec<_>>(), [("#n0", "name")]);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidExpression` if the projection was refused, contains no path, or its text is longer than 4096 bytes.
    pub fn to_dynamodb(&self, params: &mut Params) -> Result<String> {
        let selected = self.selected()?;
        if selected.paths.is_empty() {
            return Err(Error::InvalidExpression { why: "a projection without paths has no text".into() });
        }
        print::for_dynamodb(params, |printer| printer.paths(&selected.paths))
    }

    fn selected(&self) -> Result<&Selected> {
        self.0.as_ref().map_err(|refusal| Error::InvalidExpression { why: refusal.0.clone() })
    }

    /// Reports a refusal, for calls that use the projection later.
    pub(crate) fn check(&self) -> Result<()> {
        self.selected().map(drop)
    }

    /// The projection, or why it was refused.
    pub(super) fn checked(self) -> Result<Self, Refusal> {
        self.0.map(|selected| Self(Ok(selected)))
    }

    /// Copies the selected parts of an item, and decodes nothing else.
    ///
    /// ```
    /// # use kstone_api::{Item, ItemView, Projection};
    /// let view = ItemView::new(Item::builder().number("a", 1).number("b", 2).build().encode()?)?;
    /// assert_eq!(Projection::of(["b", "c"]).apply(&view)?.to_string(), r#"{"b":2}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidExpression` if the projection was refused; `Corruption` if the item is damaged where it is read.
    pub fn apply<B: AsRef<[u8]>>(&self, item: &ItemView<B>) -> Result<Item> {
        project_map(item.as_map()?, &self.selected()?.tree.attributes)
    }
}

type Fields = BTreeMap<String, Node<String, ()>>;
type Elements = BTreeMap<usize, Node<String, ()>>;

fn project_map(map: MapView<'_>, fields: &Fields) -> Result<Item> {
    let mut found = Vec::with_capacity(fields.len().min(map.len()));
    for (name, node) in fields {
        if let Some(value) = map.get(name)?
            && let Some(value) = project(value, node)?
        {
            found.push((name.clone(), value));
        }
    }
    Ok(Item::from_unsorted(found))
}

fn project_list(list: ListView<'_>, elements: &Elements) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for (index, node) in elements {
        if let Some(value) = list.get(*index)?
            && let Some(value) = project(value, node)?
        {
            found.push(value);
        }
    }
    Ok(found)
}

fn project(value: ValueView<'_>, node: &Node<String, ()>) -> Result<Option<Value>> {
    match (node, value) {
        (Node::End(()), value) => value.to_value().map(Some),
        // What leads to no selected value is left out.
        (Node::Fields(fields), ValueView::M(map)) => {
            let map = project_map(map, fields)?;
            Ok((!map.is_empty()).then_some(Value::M(map)))
        }
        (Node::Elements(elements), ValueView::L(list)) => {
            let list = project_list(list, elements)?;
            Ok((!list.is_empty()).then_some(Value::L(list)))
        }
        _ => Ok(None),
    }
}

/// For people: DynamoDB's text with names in place; [`Projection::to_dynamodb`] is for programs.
impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(selected) => f.write_str(&print::for_people(|printer| printer.paths(&selected.paths))),
            Err(refusal) => print::refused(refusal, f),
        }
    }
}
