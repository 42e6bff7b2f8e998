//! Reads of many items: requests ([`Query`], [`Scan`]), results ([`Items`], [`Page`]) and positions ([`Token`]).

mod items;
mod page;
mod partition;
mod partitions;
mod range;
mod scan;
mod terms;
pub(crate) mod token;

pub use items::{Items, Keys, Row, Views};
pub use page::Page;
pub use partition::Query;
pub use partitions::Partitions;
pub(crate) use range::successor;
pub use scan::Scan;
pub use token::Token;
