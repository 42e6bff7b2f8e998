//! Arguments of `export` and `import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Database;
use crate::key_types::{KeyType, KeyTypes};

const EXPORT: &str = "\
dynamodb-json: {\"Item\":{...}} for each item, the form of DynamoDB's own exports. It keeps every type.
The key goes into attributes, which `kstone import` takes out again; without a sort key there is no
such attribute, and an empty sort key is an empty one.
jsonl: {\"key\":...,\"sort\":...,\"item\":{...}}, as `kstone scan --format jsonl` prints it, with keys as they
are typed. Sets become lists and binary becomes text, and a warning says so.
Items of one partition are written together, by sort key; partitions have no particular order.";

const IMPORT: &str = "\
dynamodb-json: {\"Item\":{...}} on each line, from `kstone export` or DynamoDB. The key is taken from pk
and sk, or the attributes that are named, with the types that they have, and these are removed.
jsonl: plain items with --key-attr; without it, {\"key\":...,\"sort\":...,\"item\":{...}}, from `kstone export`
or `kstone scan --format jsonl`.
csv: the first row names the attributes. Values are text; an empty cell is no attribute.
Attributes that are the key stay in items of plain JSON and CSV.";

/// A form in which items are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum As {
    /// Keeps every type
    DynamodbJson,
    /// The lines of `kstone scan --format jsonl`
    Jsonl,
}

#[derive(Args, Debug)]
#[command(after_help = EXPORT)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// What to write.
    #[arg(long = "as", value_name = "FORM", value_enum, default_value_t = As::DynamodbJson)]
    pub(crate) form: As,
    /// The file to write, which appears once it is complete; `-` is stdout.
    #[arg(long, value_name = "PATH", default_value = "-")]
    pub(crate) out: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// Compress with gzip; the default for a file whose name ends with .gz.
    #[arg(long)]
    pub(crate) gzip: bool,
    /// The attribute for the partition key. No item may have one of this name. Default: pk.
    #[arg(long, value_name = "A")]
    pub(crate) key_attr: Option<String>,
    /// The attribute for the sort key, likewise. Default: sk.
    #[arg(long, value_name = "B")]
    pub(crate) sort_attr: Option<String>,
    /// Type of the partition key's attribute: B binary, S text, which must be UTF-8, N a number that was stored with
    /// this type. Default: B.
    #[arg(long, value_enum, value_name = "B|S|N", hide_possible_values = true, ignore_case = true)]
    pub(crate) key_type: Option<KeyType>,
    /// Type of the sort key's attribute, likewise.
    #[arg(long, value_enum, value_name = "B|S|N", hide_possible_values = true, ignore_case = true)]
    pub(crate) sort_type: Option<KeyType>,
    /// Items have their keys in these attributes already, and are written as they are; an item whose attributes do not
    /// give its key ends the export. Give it to the import too.
    #[arg(long)]
    pub(crate) key_in_item: bool,
}

/// A form in which items are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportForm {
    /// By the name and the first line
    Auto,
    /// Lines from DynamoDB or `kstone export`
    DynamodbJson,
    /// Plain items, or lines with key, sort and item
    Jsonl,
    /// Comma-separated values with a header
    Csv,
}

#[derive(Args, Debug)]
#[command(after_help = IMPORT)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// The file to read, plain or gzipped; `-` is stdin.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// What the file contains.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = ImportForm::Auto)]
    pub(crate) from: ImportForm,
    /// The attribute to use as the partition key: a string or a number, in DynamoDB JSON also binary. Default for
    /// DynamoDB JSON: pk.
    #[arg(long, value_name = "A")]
    pub(crate) key_attr: Option<String>,
    /// The attribute to use as the sort key. Default for DynamoDB JSON: sk, if an item has it.
    #[arg(long, value_name = "B")]
    pub(crate) sort_attr: Option<String>,
    /// Items without the attribute of --sort-attr have no sort key, instead of being refused.
    #[arg(long, requires = "sort_attr")]
    pub(crate) sort_optional: bool,
    #[command(flatten)]
    pub(crate) types: KeyTypes,
    /// Leave the attributes that are the key in items of DynamoDB JSON.
    #[arg(long)]
    pub(crate) key_in_item: bool,
    /// Columns of CSV that are numbers.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) csv_numbers: Vec<String>,
    /// Create the database if it does not exist.
    #[arg(long)]
    pub(crate) create: bool,
    /// What to do with a line that is not an item with such a key: stop there, or skip it.
    #[arg(long, value_enum, default_value_t = OnError::Fail)]
    pub(crate) on_error: OnError,
    /// What to do if there is an item under the key, from before or from this import: replace it, skip the new one, or
    /// stop there.
    #[arg(long, value_enum, default_value_t = OnConflict::Replace)]
    pub(crate) on_conflict: OnConflict,
    /// Skip the lines before this one, as printed by an import that ended early.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) from_line: u64,
    /// Store nothing: read and check every line, and say what would be stored. Lines are compared with the items that
    /// are stored, but not with each other.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    Skip,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnConflict {
    Replace,
    Skip,
    Fail,
}
