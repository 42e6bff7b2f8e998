//! Which items of a read are printed, what of them, and how many.

use anyhow::Result;
use kstone_api::{Filter, Projection, Token};

use crate::args::Selection;
use crate::expressions::{self, Parser};

/// The options of a read, parsed.
pub(crate) struct Selected {
    pub(crate) filter: Option<Filter>,
    pub(crate) projection: Option<Projection>,
    /// The most items to print.
    pub(crate) limit: usize,
    /// The most items to look at.
    pub(crate) examine: usize,
    pub(crate) after: Option<Token>,
}

impl Selected {
    pub(crate) fn new(given: &Selection) -> Result<Self> {
        let params = expressions::placeholders(&given.placeholders)?;
        let mut parser = Parser::new(&params);
        let filter = parser.condition("--filter", given.filter.as_ref())?;
        let projection = parser.projection("--project", given.project.as_ref())?;
        parser.finish()?;
        Ok(Self {
            filter,
            projection,
            limit: given.limit.unwrap_or(usize::MAX),
            examine: given.examine.unwrap_or(usize::MAX),
            after: given.after.as_ref().map(|token| token.parse()).transpose()?,
        })
    }
}
