//! The document as one HTML page that needs nothing else: no scripts, no fonts, no pictures from elsewhere.

use anyhow::{Context, Result};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};

use super::Document;

/// The name decides that values are escaped.
const NAME: &str = "report.html";

/// The whole page.
pub fn html(document: &Document) -> Result<String> {
    let mut environment = Environment::new();
    environment.add_template(NAME, include_str!("report.html")).context("the template of the report")?;
    let template = environment.get_template(NAME)?;
    template.render(context! { document => Value::from(Serde(document)) }).context("the page of the report")
}
