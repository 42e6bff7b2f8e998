//! Command-line arguments.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::escape::Escaped;
use crate::key_types::KeyTypes;

mod transfer;

pub(crate) use transfer::{As, ExportArgs, ImportArgs, ImportForm, OnConflict, OnError};

const EXIT_STATUS: &str = "\
Exit status:
  0  done                                     4  missing, permission, I/O, disk full
  1  no such key, a refused write, an alert   5  in use by another process
  2  usage                                    6  finished, but data was lost or lines were rejected
  3  corruption found                         130  interrupted

Keys are printed and read with one escaping: printable text as it is,
\\xNN for any other byte, \\\\ for a backslash.";

const EXPRESSIONS: &str = "\
Expressions are those of DynamoDB. Values are placeholders, and so are names that are reserved
or not plain words:
  'version = :v AND attribute_exists(#s)' --value ':v=3' --name '#s=state'
A value is JSON: 3, \"text\", true, null, [..], {..}. An object whose only member is named like a
type of DynamoDB is of that type: {\"SS\":[\"a\",\"b\"]} is a set of strings, {\"B\":\"AP8=\"} bytes.";

const PATHS: &str = "\
Paths are those of DynamoDB. Names that are reserved or not plain words are placeholders:
  'address.#z, visits[0]' --name '#z=zip code'";

/// Inspect and change a KeystoneDB directory.
#[derive(Debug, Parser)]
#[command(name = "kstone", version, after_help = EXIT_STATUS, max_term_width = 110)]
pub(crate) struct Cli {
    /// When to use colour; respects NO_COLOR.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Output format: a table for people, one JSON document, or one JSON value per line.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Print the causes of an error too.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what the database is, how big and how healthy, on one screen. `kstone DB` is short for this.
    Info(Database),
    /// Create a database.
    Create(CreateArgs),
    /// Print the item under a key.
    Get(GetArgs),
    /// Store an item under a key, replacing any existing item.
    Put(PutArgs),
    /// Change attributes of the item under a key; without an item, of an empty one.
    Update(UpdateArgs),
    /// Delete the item under a key.
    Delete(DeleteArgs),
    /// Print the items of one partition, ordered by sort key. A table shortens long ones, as in scan.
    Query(QueryArgs),
    /// Print all items, ordered by key. A table shortens long ones: --format jsonl prints them whole.
    Scan(ScanArgs),
    /// Count the items by reading every key.
    Count(Database),
    /// Show every step of a read, and its cost.
    #[command(subcommand)]
    Explain(ExplainCommand),
    /// Draw a map of all stripes, to find those that differ: many SSTs, much data, old files.
    Stripes(StripesArgs),
    /// List every file of the directory: what it is, which keys it holds, how long it is.
    Files(Database),
    /// Count keys or items by size, or keys by their number of versions. Reads everything.
    Hist(HistArgs),
    /// List the largest items, and the partitions and prefixes of keys with the most bytes. Reads everything.
    Big(BigArgs),
    /// List every version of a key in every file, older ones and tombstones too.
    Find(KeyArgs),
    /// Look into SST files, one by one, without their database.
    #[command(subcommand)]
    Sst(FileCommand),
    /// Look into log segments, one by one, without their database.
    #[command(subcommand)]
    Wal(LogCommand),
    /// Look into the manifest, which lists the files of the database.
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Show the stored settings, their defaults and ranges, and when a change takes effect; `config set` changes them.
    Config(ConfigArgs),
    /// Show file sizes, and the counters of the program that has the database open.
    Stats(StatsArgs),
    /// List past events, oldest first: flushes, compactions, stalls, errors.
    Events(EventsArgs),
    /// Say why the database is slow or large, what to change, and what to expect of it: the cause first.
    Advise(AdviseArgs),
    /// List metrics that exceed their thresholds; exit status 1 if there are any.
    Alerts(AlertsArgs),
    /// List the presets for common workloads, one per line, or print one as Rust code.
    Presets(PresetsArgs),
    /// Estimate memory, disk space and cost of reads and writes for planned data; no database is needed.
    Model(ModelArgs),
    /// Print the counters of the program that has the database open as OpenMetrics text, such as for the textfile
    /// collector of node_exporter.
    Metrics(Database),
    /// Write all items to stdout or a file, as of one moment: as DynamoDB JSON, which keeps every type, or as JSON Lines.
    Export(ExportArgs),
    /// Store items from DynamoDB JSON, JSON Lines or CSV, plain or gzipped.
    Import(ImportArgs),
    /// Merge the SSTs of each stripe into one run; skips stripes that would not change.
    Compact(CompactArgs),
    /// Make a copy as of now, even while a program writes to the database; the copy opens as a database.
    Backup(BackupArgs),
    /// Read all files and report everything that is wrong with them; exit status 3 if data is damaged.
    Verify(VerifyArgs),
    /// Salvage a damaged database, and report what is lost; exit status 6 if anything is.
    Repair(RepairArgs),
    /// Print a script that completes commands and options in a shell.
    Completions(CompletionsArgs),
    /// Write the manual pages, one for each command, to a directory.
    Man(ManArgs),
    /// Print the version; with -v, those of the file formats too.
    Version,
    /// Bring the files of the database to the current format.
    Upgrade(Database),
    /// Remove the database: its own files, and the directory if nothing else is in it.
    Destroy(DestroyArgs),
}

impl Command {
    /// The database that the command is about, if any.
    pub(crate) fn database(&self) -> Option<&Path> {
        let db = match self {
            Self::Info(db) | Self::Count(db) | Self::Metrics(db) | Self::Upgrade(db) => db,
            Self::Create(args) => &args.db,
            Self::Stats(args) => &args.db,
            Self::Alerts(args) => &args.db,
            Self::Destroy(args) => &args.db,
            Self::Config(args) => return args.database(),
            Self::Files(db) => db,
            Self::Stripes(args) => &args.db,
            Self::Hist(args) => &args.db,
            Self::Big(args) => &args.db,
            Self::Find(args) => &args.db,
            Self::Manifest(ManifestCommand::Dump(args)) => &args.db,
            Self::Explain(ExplainCommand::Get(args)) => &args.db,
            Self::Get(args) => &args.key.db,
            Self::Delete(args) => &args.key.db,
            Self::Update(args) => &args.db,
            Self::Explain(ExplainCommand::Query(args)) => &args.db,
            Self::Put(args) => &args.db,
            Self::Query(args) => &args.db,
            Self::Scan(args) => &args.db,
            Self::Events(args) => &args.db,
            Self::Export(args) => &args.db,
            Self::Import(args) => &args.db,
            Self::Compact(args) => &args.db,
            Self::Backup(args) => &args.db,
            Self::Verify(args) => &args.db,
            Self::Repair(args) => &args.db,
            Self::Advise(args) => args.db.as_ref()?,
            Self::Presets(_) | Self::Model(_) | Self::Sst(_) | Self::Wal(_) => return None,
            Self::Completions(_) | Self::Man(_) | Self::Version => return None,
        };
        Some(&db.path)
    }

    /// Whether the command changes the database.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Create(_) | Self::Put(_) | Self::Update(_) | Self::Delete(_) => true,
            // Also a dry run, which reads its input once and so cannot be repeated.
            Self::Import(_) | Self::Compact(_) | Self::Destroy(_) => true,
            Self::Config(args) => args.set.is_some(),
            Self::Repair(args) => !args.dry_run && args.into.is_none(),
            _ => false,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Database {
    /// The database directory.
    #[arg(value_name = "DB")]
    pub(crate) path: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// A setting, by its name in `kstone config`, such as max_total_disk_bytes=10GiB; repeatable.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Start from this preset, see `kstone presets`.
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ConfigArgs {
    /// The database directory.
    #[arg(value_name = "DB", required = true)]
    path: Option<PathBuf>,
    /// Only settings that differ from their defaults.
    #[arg(long)]
    pub(crate) diff: bool,
    #[command(subcommand)]
    pub(crate) set: Option<ConfigCommand>,
}

impl ConfigArgs {
    pub(crate) fn database(&self) -> Option<&Path> {
        match &self.set {
            Some(ConfigCommand::Set(args)) => Some(&args.db.path),
            None => self.path.as_deref(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Change stored settings. A program that opens the database with settings of its own replaces them.
    Set(SetArgs),
}

#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// A setting and its new value: a number, or with a unit (64MiB, 10s), a choice (Mmap), on, off, none or default.
    #[arg(value_name = "NAME=VALUE", required_unless_present = "preset")]
    pub(crate) settings: Vec<String>,
    /// Every setting that presets differ in, as in this one; settings that are given too win.
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Show rates and latencies again and again, every 2 seconds or as given, until Ctrl-C.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s",
          value_parser = humantime::parse_duration)]
    pub(crate) watch: Option<Duration>,
}

/// Thresholds of alerts. What is not given keeps its default.
#[derive(Args, Debug)]
pub(crate) struct AlertsArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Runs per stripe, on average. Default: 15.
    #[arg(long, value_name = "N", value_parser = threshold)]
    pub(crate) max_ssts: Option<f64>,
    /// Bytes written by flushes and compactions per byte put. Default: 10.
    #[arg(long, value_name = "N", value_parser = threshold)]
    pub(crate) max_write_amp: Option<f64>,
    /// The 99th percentile of gets, such as 5ms. Default: 5ms.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) max_p99: Option<Duration>,
    /// Writes that were held up, in percent. Default: 1.
    #[arg(long, value_name = "PERCENT", value_parser = threshold)]
    pub(crate) max_held_up: Option<f64>,
    /// Used and reserved space, in percent of the quota. Default: 90.
    #[arg(long, value_name = "PERCENT", value_parser = threshold)]
    pub(crate) max_disk: Option<f64>,
    /// Estimated recovery after a crash, such as 1s. Default: 1s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) max_recovery: Option<Duration>,
    /// The log, in percent of its limit. Default: 90.
    #[arg(long, value_name = "PERCENT", value_parser = threshold)]
    pub(crate) max_log: Option<f64>,
}

fn threshold(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value >= 0.0 { Ok(value) } else { Err("not a number from 0 on".into()) }
}

#[derive(Args, Debug)]
pub(crate) struct ModelArgs {
    /// Number of items, such as 10M.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) items: u64,
    /// Size of an encoded item, such as 200B.
    #[arg(long, value_name = "SIZE")]
    pub(crate) item_size: ByteSize,
    /// Size of a key, partition key and sort key together.
    #[arg(long, value_name = "SIZE", default_value = "24B")]
    pub(crate) key_size: ByteSize,
    /// With the settings of this preset instead of the defaults.
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Writes per second.
    #[arg(long, value_name = "N", value_parser = count, default_value = "1000")]
    pub(crate) writes_per_second: u64,
    /// Point reads per second.
    #[arg(long, value_name = "N", value_parser = count, default_value = "1000")]
    pub(crate) reads_per_second: u64,
    /// Memory of the machine, page cache included. Default: enough for everything.
    #[arg(long, value_name = "SIZE")]
    pub(crate) ram: Option<ByteSize>,
}

/// A number with an optional suffix: `10M` is ten million.
fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (text.split_at(at).0, 1_000),
        Some((at, 'M')) => (text.split_at(at).0, 1_000_000),
        Some((at, 'G')) => (text.split_at(at).0, 1_000_000_000),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(|| "not a number such as 10M".into())
}

#[derive(Args, Debug)]
pub(crate) struct DestroyArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// The partition key.
    pub(crate) key: Escaped,
    /// The sort key.
    pub(crate) sort: Option<Escaped>,
    #[command(flatten)]
    pub(crate) types: KeyTypes,
}

/// What a map of the stripes shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// SST files
    Ssts,
    /// Runs, which compaction counts against its threshold
    Runs,
    /// Bytes of SSTs
    Bytes,
    /// Entries that are not tombstones, in SSTs and memtables
    Items,
    /// Tombstones in SSTs
    Tombstones,
    /// Age of the oldest SST
    Age,
}

/// How text is drawn.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Drawing {
    /// Draw with ASCII characters only; the default where the locale is not UTF-8.
    #[arg(long)]
    pub(crate) ascii: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StripesArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// What to show of each stripe.
    #[arg(long, value_enum, default_value_t = Measure::Ssts)]
    pub(crate) by: Measure,
    /// List the N stripes with the most instead of all.
    #[arg(long, value_name = "N", conflicts_with = "stripe")]
    pub(crate) top: Option<usize>,
    /// List the files of this stripe.
    #[arg(long, value_name = "N")]
    pub(crate) stripe: Option<usize>,
    #[command(flatten)]
    pub(crate) drawing: Drawing,
}

/// What a histogram counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Counted {
    /// Keys, by their bytes
    Keys,
    /// Items, by their bytes as stored
    Items,
    /// Keys, by the number of their versions, tombstones included
    Versions,
}

#[derive(Args, Debug)]
pub(crate) struct HistArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// What to count.
    #[arg(value_enum)]
    pub(crate) what: Counted,
    #[command(flatten)]
    pub(crate) drawing: Drawing,
}

#[derive(Args, Debug)]
pub(crate) struct BigArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// How many of each to list.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Print the entries, in order.
    Dump(DumpArgs),
    /// Print what the file says about itself.
    Props(FilesArgs),
    /// Print the properties of the filter.
    Bloom(FilesArgs),
    /// Check every part and every entry; exit status 3 if anything is damaged.
    Verify(FilesArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print the records, in order.
    Dump(DumpArgs),
    /// Print what the segment holds.
    Props(FilesArgs),
    /// Check every record; exit status 3 if any is damaged.
    Verify(FilesArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Print the edits, in order.
    Dump(ManifestDumpArgs),
}

#[derive(Args, Debug)]
pub(crate) struct FilesArgs {
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// At most this many of each file.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct ManifestDumpArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// At most this many changes.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The directory, which is created if necessary.
    pub(crate) dir: PathBuf,
}

/// The placeholders of names in the expressions of a command.
#[derive(Args, Debug)]
pub(crate) struct Names {
    /// The attribute that a placeholder in an expression stands for; repeatable.
    #[arg(long = "name", value_name = "#N=NAME")]
    pub(crate) names: Vec<String>,
}

/// The placeholders in the expressions of a command.
#[derive(Args, Debug)]
pub(crate) struct Placeholders {
    #[command(flatten)]
    pub(crate) names: Names,
    /// The value that a placeholder in an expression stands for; repeatable.
    #[arg(long = "value", value_name = ":V=JSON")]
    pub(crate) values: Vec<String>,
}

/// The condition of a write.
#[derive(Args, Debug)]
pub(crate) struct If {
    /// Only if the item, or its absence, meets this condition; if not, nothing is written, and the exit status is 1.
    #[arg(long = "if", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,
    #[command(flatten)]
    pub(crate) placeholders: Placeholders,
}

#[derive(Args, Debug)]
#[command(after_help = PATHS)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Only these parts of the item, such as 'city, address.zip'.
    #[arg(long, value_name = "PATHS")]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) names: Names,
}

#[derive(Args, Debug)]
#[command(after_help = EXPRESSIONS)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) only: If,
}

#[derive(Args, Debug)]
#[command(override_usage = "kstone put [OPTIONS] <DB> <KEY> [SORT] <ITEM|->", after_help = EXPRESSIONS)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// The partition key, the sort key if there is one, and the item as a JSON object (`-`: from stdin).
    #[arg(num_args = 1.., required = true, value_names = ["KEY", "[SORT] ITEM"])]
    pub(crate) key_and_item: Vec<String>,
    #[command(flatten)]
    pub(crate) only: If,
    #[command(flatten)]
    pub(crate) types: KeyTypes,
}

#[derive(Args, Debug)]
#[command(override_usage = "kstone update [OPTIONS] <DB> <KEY> [SORT] <UPDATE>", after_help = EXPRESSIONS)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// The partition key, the sort key if there is one, and what to change, such as 'SET n = n + :one'.
    #[arg(num_args = 1.., required = true, value_names = ["KEY", "[SORT] UPDATE"])]
    pub(crate) key_and_update: Vec<String>,
    #[command(flatten)]
    pub(crate) only: If,
    /// Print the item, or only the attributes that the update names, as before or after the update.
    #[arg(long = "return", value_name = "WHAT", value_enum)]
    pub(crate) returning: Option<Returned>,
    #[command(flatten)]
    pub(crate) types: KeyTypes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Returned {
    Old,
    New,
    UpdatedOld,
    UpdatedNew,
}

/// Which items of a read to print, what of them, and how many.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// Only items that meet this condition; the others are read and passed over.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) filter: Option<String>,
    /// Only these parts of each item, such as 'city, address.zip'.
    #[arg(long, value_name = "PATHS")]
    pub(crate) project: Option<String>,
    /// At most this many items; if more are left, a token for --after is printed.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Look at no more than this many items, whether or not they meet the filter; then as with --limit.
    #[arg(long, value_name = "N")]
    pub(crate) examine: Option<usize>,
    /// Continue where an earlier read with the same key range and direction ended: the token that it printed.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) after: Option<String>,
    #[command(flatten)]
    pub(crate) placeholders: Placeholders,
}

#[derive(Args, Debug)]
#[command(after_help = EXPRESSIONS)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// The partition key.
    pub(crate) partition: Escaped,
    /// Only sort keys that start with this.
    #[arg(long, value_name = "P", conflicts_with_all = ["sort_from", "sort_to"])]
    pub(crate) sort_prefix: Option<Escaped>,
    /// Only this sort key and those after it.
    #[arg(long, value_name = "A")]
    pub(crate) sort_from: Option<Escaped>,
    /// Only this sort key and those before it.
    #[arg(long, value_name = "B")]
    pub(crate) sort_to: Option<Escaped>,
    /// In descending order of sort keys.
    #[arg(long)]
    pub(crate) reverse: bool,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) types: KeyTypes,
}

#[derive(Args, Debug)]
#[command(after_help = EXPRESSIONS)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Only partition keys that start with this.
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"])]
    pub(crate) prefix: Option<Escaped>,
    /// Only this partition key and those after it.
    #[arg(long, value_name = "A")]
    pub(crate) from: Option<Escaped>,
    /// Only this partition key and those before it.
    #[arg(long, value_name = "B")]
    pub(crate) to: Option<Escaped>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Print keys only, without their items.
    #[arg(long, conflicts_with = "project")]
    pub(crate) keys_only: bool,
    /// Only this stripe.
    #[arg(long, value_name = "N", conflicts_with_all = ["prefix", "from", "to", "filter", "project", "examine", "after"])]
    pub(crate) stripe: Option<usize>,
    #[command(flatten)]
    pub(crate) types: KeyTypes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// Explain the read of one item.
    Get(KeyArgs),
    /// Explain the read of one partition's items.
    Query(ExplainQueryArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ExplainQueryArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// The partition key.
    pub(crate) partition: Escaped,
    /// Only sort keys that start with this.
    #[arg(long, value_name = "P")]
    pub(crate) sort_prefix: Option<Escaped>,
    #[command(flatten)]
    pub(crate) types: KeyTypes,
}

#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Only events of these kinds, such as `flush,stall`.
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub(crate) kind: Vec<String>,
    /// Only events no older than this, such as 1h.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<Duration>,
    /// At most this many, the newest.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Then print new events as they are written, until Ctrl-C.
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AdviseArgs {
    #[command(flatten)]
    pub(crate) db: Option<Database>,
    /// Also name the settings that suit this goal best for the work that STATS.json shows.
    #[arg(long, value_enum)]
    pub(crate) goal: Option<AdviseGoal>,
    /// The most memory for memtables, filters and indexes with those settings, such as 256MiB.
    #[arg(long, value_name = "SIZE", requires = "goal")]
    pub(crate) ram: Option<bytesize::ByteSize>,
    /// List the causes that are looked for.
    #[arg(long, required_unless_present = "path", conflicts_with = "path")]
    pub(crate) list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdviseGoal {
    Balanced,
    Write,
    Read,
    Memory,
    Recovery,
    Space,
}

#[derive(Args, Debug)]
pub(crate) struct PresetsArgs {
    /// Print only this preset, as Rust code.
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct CompactArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Only this stripe.
    #[arg(long, value_name = "N", conflicts_with_all = ["over", "all"])]
    pub(crate) stripe: Option<usize>,
    /// Only stripes with more than this many runs.
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub(crate) over: Option<usize>,
    /// All stripes, even those that would not change.
    #[arg(long)]
    pub(crate) all: bool,
    /// Stripes compacted at the same time.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) jobs: NonZeroUsize,
}

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// The directory to create: it must not exist, be empty, or hold an unfinished backup.
    #[arg(value_name = "DEST")]
    pub(crate) destination: PathBuf,
    /// Copy and check every file, instead of hard-linking SSTs where possible.
    #[arg(long)]
    pub(crate) copy: bool,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Check metadata only: the manifest, the log, and the lengths, headers and sections of SSTs.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Check every block and entry too (the default).
    #[arg(long, conflicts_with = "quick")]
    pub(crate) deep: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    pub(crate) db: Database,
    /// Change nothing; report what a repair would do and lose.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Build a repaired copy in this new directory, and leave the original unchanged.
    #[arg(long, value_name = "NEWDIR")]
    pub(crate) into: Option<PathBuf>,
    /// Write every loss to this new file outside the database, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Turns `kstone DB` into `kstone info DB` if DB exists or looks like a path. Any other word stays, so that clap can
/// suggest the likely command for a mistyped one.
pub(crate) fn with_default_command(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let first = args.iter().skip(1).position(|arg| !arg.to_string_lossy().starts_with('-'));
    let word_at = match first {
        // The word after --color or --format is its value.
        Some(at) if args.get(at).is_some_and(|flag| flag == "--color" || flag == "--format") => {
            let after = args.iter().skip(at + 2).position(|arg| !arg.to_string_lossy().starts_with('-'));
            after.map(|more| at + 2 + more)
        }
        first => first.map(|at| at + 1),
    };
    if let Some((at, word)) = word_at.and_then(|at| Some((at, args.get(at)?)))
        && !word.to_str().is_some_and(|word| word == "help" || Cli::command().find_subcommand(word).is_some())
        && (Path::new(word).exists() || word.to_string_lossy().contains(['.', '/']))
    {
        args.insert(at, "info".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_that_change_the_database_are_known() {
        let command = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap().command;
        let writing = [
            "create my.db",
            "put my.db k {}",
            "update my.db k UPDATE",
            "delete my.db k",
            "import my.db --key-attr k",
        ];
        for line in writing.into_iter().chain([
            "compact my.db",
            "repair my.db",
            "destroy my.db",
            "config set my.db a=1",
        ]) {
            assert!(command(&format!("kstone {line}")).writes(), "{line}");
        }
        let reading = ["get my.db k", "query my.db p", "scan my.db", "count my.db", "explain get my.db k"];
        for line in reading.into_iter().chain([
            "verify my.db",
            "repair my.db --dry-run",
            "backup my.db copy.db",
            "config my.db",
        ]) {
            assert!(!command(&format!("kstone {line}")).writes(), "{line}");
        }
        for line in writing.iter().chain(&reading) {
            assert_eq!(command(&format!("kstone {line}")).database(), Some(Path::new("my.db")), "{line}");
        }
    }

    #[test]
    fn a_path_alone_means_info() {
        let with = |line: &str| {
            let args = with_default_command(line.split(' ').map(OsString::from));
            args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(with("kstone my.db"), "kstone info my.db");
        assert_eq!(with("kstone -v --format json my.db"), "kstone -v --format json info my.db");
        assert_eq!(with("kstone --format=json ./db"), "kstone --format=json info ./db");
        for line in
            ["kstone", "kstone --help", "kstone get my.db k", "kstone improt my.db", "kstone help get"]
        {
            assert_eq!(with(line), line);
        }
    }
}
