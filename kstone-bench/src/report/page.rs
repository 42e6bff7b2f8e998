//! Renders the document as one self-contained HTML page (no scripts, no fonts, no external images), and as Markdown
//! with everything but the plots.

use anyhow::{Context, Result};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};

use super::{Document, Section};

/// The file extensions determine how values are escaped.
const HTML: &str = "report.html";
const MARKDOWN: &str = "report.md";

fn render(name: &str, values: Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.add_filter("md", escape);
    environment.add_template(HTML, include_str!("report.html")).context("the template of the page")?;
    environment.add_template(MARKDOWN, include_str!("report.md")).context("the template of the tables")?;
    environment.get_template(name)?.render(values).with_context(|| format!("a report as {name}"))
}

pub fn html(document: &Document) -> Result<String> {
    render(HTML, context! { document => Value::from(Serde(document)) })
}

pub fn markdown(document: &Document) -> Result<String> {
    let text = render(MARKDOWN, context! { document => Value::from(Serde(document)) })?;
    Ok(text.trim_end().to_owned() + "\n")
}

/// A single section, with a third-level heading.
pub(super) fn section(section: &Section) -> Result<String> {
    render(MARKDOWN, context! { section_alone => Value::from(Serde(section)) })
}

/// Names and errors come from outside: they must not be interpreted as markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            // An underscore within a word is not markup, and names of settings have many.
            '\\' | '|' | '`' | '[' | ']' | '*' => escaped.extend(['\\', character]),
            other => escaped.push(other),
        }
    }
    escaped
}
