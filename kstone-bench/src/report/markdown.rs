//! The document as Markdown: everything but the plots.

use std::fmt::Write as _;

use super::{Document, Section, Table};

/// The whole text.
pub fn markdown(document: &Document) -> String {
    let mut text = format!("# {}\n\n", escape(&document.title));
    list(&mut text, "", &document.sources);
    list(&mut text, "**Warnings**", &document.warnings);
    list(&mut text, "**Trials that failed**", &document.troubles);
    let _ = writeln!(text, "| machine | |\n|---|---|");
    for (name, value) in &document.machine {
        let _ = writeln!(text, "| {} | {} |", escape(name), escape(value));
    }
    text.push('\n');
    list(&mut text, "", &document.method);
    for table in &document.summaries {
        push(&mut text, table);
    }
    list(&mut text, "**Where KeystoneDB is slower**", &document.losses);
    for one in &document.sections {
        section(&mut text, "##", one);
    }
    while text.ends_with("\n\n") {
        text.pop();
    }
    text
}

/// With a heading of that level.
pub(super) fn section(text: &mut String, level: &str, section: &Section) {
    let _ = write!(text, "{level} {}\n\n{}\n\n", escape(&section.title), escape(&section.about));
    for plot in &section.plots {
        if let Some(table) = &plot.table {
            push(text, table);
            let _ = write!(text, "{}\n\n", escape(&plot.caption));
        }
    }
    for table in &section.tables {
        push(text, table);
    }
    list(text, "", &section.notes);
}

/// Nothing for a list without items.
fn list(text: &mut String, heading: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    if !heading.is_empty() {
        let _ = write!(text, "{heading}\n\n");
    }
    for item in items {
        let _ = writeln!(text, "* {}", escape(item));
    }
    text.push('\n');
}

fn push(text: &mut String, table: &Table) {
    if table.rows.is_empty() {
        return;
    }
    let line = |cells: &[String], bold: bool| {
        let cells = cells.iter().enumerate().map(|(at, cell)| match (bold, at) {
            (true, 0) => format!("**{}**", escape(cell)),
            _ => escape(cell),
        });
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    let rules = std::iter::once("---").chain(std::iter::repeat("---:")).take(table.head.len());
    let rules = rules.collect::<Vec<_>>().join("|");
    if !table.caption.is_empty() {
        let _ = write!(text, "{}:\n\n", escape(&table.caption));
    }
    let _ = writeln!(text, "{}\n|{rules}|", line(&table.head, false));
    for row in &table.rows {
        let _ = writeln!(text, "{}", line(&row.cells, row.ours));
    }
    text.push('\n');
}

/// Names and errors come from outside: nothing in them may become markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            // An underscore is no markup within words, and names of settings have many.
            '\\' | '|' | '`' | '[' | ']' | '*' => escaped.extend(['\\', character]),
            other => escaped.push(other),
        }
    }
    escaped
}
