//! The form of an import, from the name of the file and its first line.

use std::path::Path;

use crate::args::{ImportArgs, ImportForm};
use crate::failure::Failure;

/// What lines contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Items whose attributes are their keys.
    Plain,
    /// Objects with key, sort key and item.
    Entries,
    Dynamodb,
    Csv,
}

impl Form {
    /// The requested form, or that of the first line.
    pub(crate) fn of(args: &ImportArgs, start: &[u8]) -> Result<Self, Failure> {
        let form = match args.from {
            ImportForm::DynamodbJson => Self::Dynamodb,
            ImportForm::Csv => Self::Csv,
            ImportForm::Jsonl if args.key_attr.is_some() => Self::Plain,
            ImportForm::Jsonl => Self::Entries,
            ImportForm::Auto => Self::detect(args, start)?,
        };
        let refuse = |message: &str, hint: &str| {
            let hint = Some(hint.to_owned());
            Err(Failure { hint, ..Failure::usage(message) })
        };
        if form == Self::Csv && args.key_attr.is_none() {
            return refuse("--key-attr is missing", "it names the column that is the key");
        }
        if form == Self::Entries && args.sort_attr.is_some() {
            return refuse("--sort-attr needs --key-attr", "lines with key, sort and item need neither");
        }
        if form != Self::Dynamodb && args.key_in_item {
            return refuse("--key-in-item is for DynamoDB JSON", "in other forms, keys stay in the items");
        }
        if form != Self::Csv && !args.csv_numbers.is_empty() {
            return refuse("--csv-numbers is for CSV", "add --from csv if this is CSV");
        }
        Ok(form)
    }

    fn detect(args: &ImportArgs, start: &[u8]) -> Result<Self, Failure> {
        let text = String::from_utf8_lossy(start);
        let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
        let line = text.lines().next().unwrap_or_default();
        let key_attr = args.key_attr.as_deref();
        if is_csv(&args.file) || key_attr.is_some_and(|key| is_header(line, key)) {
            return Ok(Self::Csv);
        }
        if is_dynamodb(line) {
            return Ok(Self::Dynamodb);
        }
        if key_attr.is_some() {
            return Ok(Self::Plain);
        }
        if line.is_empty() || is_entry(line) {
            return Ok(Self::Entries);
        }
        let (message, hint) = match line.as_bytes().first() {
            Some(b'{') => (
                "the first line is an item without its key",
                "--key-attr A says which attribute is the key; without it, lines are {\"key\":...,\"item\":{...}} or \
                 {\"Item\":{...}}",
            ),
            Some(b'[') => (
                "the first line is a JSON array, not an object",
                "`jq -c '.[]'` makes lines of the objects in it",
            ),
            _ => (
                "cannot tell what the file contains from its first line",
                "say it with --from dynamodb-json, jsonl or csv; CSV also needs --key-attr",
            ),
        };
        Err(Failure { hint: Some(hint.into()), ..Failure::usage(message) })
    }
}

fn is_csv(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    name.ends_with(".csv") || name.ends_with(".csv.gz")
}

/// Whether the line names columns, one of which is the key.
fn is_header(line: &str, key: &str) -> bool {
    !line.starts_with(['{', '[']) && line.split(',').any(|name| name.trim().trim_matches('"') == key)
}

/// Whether the line starts with `{"Item":{`, and a value with its type, if any.
fn is_dynamodb(line: &str) -> bool {
    let Some(item) = member(line, '{').filter(|(name, _)| *name == "Item").map(|(_, rest)| rest) else {
        return false;
    };
    if item.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('}')) {
        return true;
    }
    let Some((_, value)) = member(item, '{') else { return false };
    let kind = member(value, '{').map(|(name, _)| name);
    kind.is_some_and(|kind| ["S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"].contains(&kind))
}

/// Whether the line starts with a key, and has nothing else than a sort key and an item after it.
fn is_entry(line: &str) -> bool {
    let Some(("key", value)) = member(line, '{') else { return false };
    let Some(rest) = string(value).map(|(_, rest)| rest.trim_start()) else { return false };
    rest.starts_with('}') || member(rest, ',').is_some_and(|(name, _)| ["sort", "item"].contains(&name))
}

/// The name of a member that follows `before`, and its value with what comes after.
fn member(text: &str, before: char) -> Option<(&str, &str)> {
    let (name, rest) = string(text.strip_prefix(before)?.trim_start())?;
    Some((name, rest.trim_start().strip_prefix(':')?.trim_start()))
}

/// The string that the text starts with, as it is written, and what comes after.
fn string(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    let (string, rest) = text.split_at(end);
    Some((string, rest.strip_prefix('"')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        for line in
            [r#"{"Item":{"pk":{"S":"a"}}}"#, r#" {"Item" : { "p\"k" : { "NULL" : true"#, r#"{"Item":{}}"#]
        {
            assert!(is_dynamodb(line.trim_start()) && !is_entry(line), "{line}");
        }
        for line in [r#"{"key":"a","item":{}}"#, r#"{ "key" : "a\\", "sort":"b","item":{"#, r#"{"key":"a"}"#]
        {
            assert!(is_entry(line) && !is_dynamodb(line), "{line}");
        }
        for line in [
            r#"{"Item":{"S":"a"}}"#,
            r#"{"Item":{"pk":{"X":"a"}}}"#,
            r#"{"item":{"pk":{"S":"a"}}}"#,
            r#"{"Item":"#,
            r#"{"key":"a","value":1}"#,
            r#"{"key":1,"item":{}}"#,
            r#"{"key":"a"#,
            "key,sort",
            "",
        ] {
            assert!(!is_entry(line) && !is_dynamodb(line), "{line}");
        }
        assert!(is_header("a,\"k\" ,b\r", "k") && is_header("k", "k") && !is_header("ak", "k"));
        assert!(!is_header("{\"a\":1,k,", "k"));
        assert!(is_csv(Path::new("a.CSV")) && is_csv(Path::new("a.csv.gz")) && !is_csv(Path::new("-")));
    }
}
