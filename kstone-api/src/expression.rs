//! Expressions: conditions on items, changes to them, and which parts of them to return.
//!
//! There is one tree for each, made by typed builders or parsed from DynamoDB's text, and printed as that text. Where
//! what a part of it means differs from DynamoDB, the documentation of the part says so. [`limits`] bounds every tree.

mod apply;
mod condition;
mod evaluate;
mod kind;
mod lexer;
mod limits;
mod operand;
mod params;
mod parser;
mod path;
mod print;
mod projection;
mod reserved;
mod seen;
mod tree;
mod update;

#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
pub(crate) use apply::Applied;
pub use condition::{Condition, Filter};
pub use kind::Type;
pub use operand::Operand;
pub use params::{Expressions, Params};
pub use path::{Path, attr};
pub use projection::Projection;
pub use update::Update;
