//! `kstone export`: writes all items, as of one moment, in a form that `kstone import` reads back.
//!
//! Nothing is written under the name of the file before everything is: until then it has a name of its own beside it,
//! and goes when the export ends early.

use std::fs::Permissions;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};
use kstone_api::{Item, Key, Value, ValueView, escape};
use serde::Serialize;
use serde_json::value::RawValue;
use tempfile::NamedTempFile;

use crate::args::{As, ExportArgs, Format};
use crate::commands::{damaged, open_to_read};
use crate::failure::{Failure, exit};
use crate::interrupt::{Interrupt, interrupted};
use crate::key_types::{of_typed_attribute, to_attribute};
use crate::output::{self, counted, print_result, tell};
use crate::records::{KEY_ATTR, SORT_ATTR};

const BUFFER: usize = 256 << 10;
/// Items between two updates of the progress bar.
const STEP: u64 = 1000;

pub(crate) fn run(args: &ExportArgs, format: Format) -> Result<()> {
    check(args)?;
    let to_stdout = args.out == Path::new("-");
    // To stdout, a signal ends the command as it ends any other that only reads; there is no file to remove.
    let interrupt = if to_stdout { None } else { Some(Interrupt::watch()?) };
    let db = open_to_read(&args.db)?;
    let gzip = args.gzip || args.out.extension().is_some_and(|extension| extension == "gz");
    let (file, out): (Option<Unfinished>, Box<dyn Write>) = if to_stdout {
        if gzip && io::stdout().is_terminal() {
            return Err(Failure::usage(
                "compressed data is not for a terminal: redirect it, or add --out PATH",
            )
            .into());
        }
        output::printing();
        (None, Box::new(io::stdout().lock()))
    } else {
        let file = Unfinished::create(args)?;
        let out = file.temp.as_file().try_clone().with_context(|| file.failed())?;
        (Some(file), Box::new(out))
    };
    let mut export =
        Export { args, out: Sink::new(out, gzip), done: 0, warned: false, bar: progress(to_stdout) };
    // Stripe by stripe, of one snapshot: all of them at once would take a block of memory each, and blocks are as long
    // as the longest item.
    let ended = export.write_all(db.segment(0, 1)?, interrupt.as_ref());
    let Export { out, done, bar, .. } = export;
    bar.finish_and_clear();
    let ended = ended.and_then(|()| Ok(out.finish()?)).map_err(|e| match &file {
        Some(file) if e.is::<io::Error>() => e.context(file.failed()),
        _ => e,
    });
    let Some(file) = file else { return ended };
    ended?;
    let path = file.finish(args.force)?;
    let text = format!("exported {} to {}", counted(done, "item"), escape::path(&path));
    let path = path.display().to_string();
    print_result(format, &text, Exported { schema: "kstone.export/1", path, items: done })
}

#[derive(Serialize)]
struct Exported {
    schema: &'static str,
    path: String,
    items: u64,
}

fn check(args: &ExportArgs) -> Result<(), Failure> {
    let keys = args.key_attr.is_some() || args.sort_attr.is_some() || args.key_in_item;
    if args.form == As::Jsonl && (keys || args.key_type.is_some() || args.sort_type.is_some()) {
        let message =
            "in --as jsonl keys stand beside the items, as they are typed: they have no attributes or types";
        return Err(Failure::usage(message));
    }
    if key_attr(args) == sort_attr(args) {
        return Err(Failure::usage(format!("{:?} cannot be both the key and the sort key", key_attr(args))));
    }
    Ok(())
}

fn key_attr(args: &ExportArgs) -> &str {
    args.key_attr.as_deref().unwrap_or(KEY_ATTR)
}

fn sort_attr(args: &ExportArgs) -> &str {
    args.sort_attr.as_deref().unwrap_or(SORT_ATTR)
}

fn progress(to_stdout: bool) -> ProgressBar {
    if !io::stderr().is_terminal() || to_stdout && io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

struct Export<'a> {
    args: &'a ExportArgs,
    out: Sink,
    done: u64,
    /// Whether the warning about lost types was printed.
    warned: bool,
    bar: ProgressBar,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    item: &'a Item,
}

#[derive(Serialize)]
struct Entry {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    item: Box<RawValue>,
}

impl Export<'_> {
    fn write_all(&mut self, items: kstone_api::Items, interrupt: Option<&Interrupt>) -> Result<()> {
        for entry in items.views() {
            if interrupt.is_some_and(Interrupt::is_seen) {
                let what = format!("after {}; no file was written", counted(self.done, "item"));
                return Err(interrupted(&what, None).into());
            }
            let (key, view) = entry?;
            let item = view.to_item().map_err(|e| damaged(&key, &e))?;
            let line = match self.args.form {
                As::Jsonl => self.entry(&key, &item)?,
                As::DynamodbJson if self.args.key_in_item => {
                    self.expect_key(&key, |name| view.get(name))?;
                    serde_json::to_string(&Line { item: &item }).map_err(io::Error::from)?
                }
                As::DynamodbJson => {
                    let item = self.with_key(&key, item)?;
                    serde_json::to_string(&Line { item: &item }).map_err(io::Error::from)?
                }
            };
            // On a terminal, no character of an item must act.
            self.out.write_all(escape::json(&line).as_bytes())?;
            self.out.write_all(b"\n")?;
            self.done += 1;
            if self.done.is_multiple_of(STEP) {
                self.bar.set_message(counted(self.done, "item"));
                self.bar.tick();
            }
        }
        Ok(())
    }

    fn entry(&mut self, key: &Key<'_>, item: &Item) -> Result<String> {
        if !self.warned && item.iter().any(|(_, value)| loses_type(value)) {
            self.warned = true;
            self.bar.suspend(|| {
                tell(format_args!(
                    "warning: sets become lists and binary becomes text, first in the item under {key}; --as \
                     dynamodb-json keeps every type"
                ));
            });
        }
        let entry = Entry {
            key: escape::key(key.partition()),
            sort: key.sort().map(escape::key),
            item: RawValue::from_string(item.to_string()).map_err(io::Error::from)?,
        };
        Ok(serde_json::to_string(&entry).map_err(io::Error::from)?)
    }

    /// The item with its key in attributes.
    fn with_key(&self, key: &Key<'_>, mut item: Item) -> Result<Item, Failure> {
        let parts = [
            (key_attr(self.args), self.args.key_type, "--key", Some(key.partition())),
            // Without a sort key, too, an attribute of this name would become one.
            (sort_attr(self.args), self.args.sort_type, "--sort", key.sort()),
        ];
        for (name, kind, option, part) in parts {
            if item.contains(name) {
                let hint = format!(
                    "{option}-attr NAME chooses a name that no item has; if items have their keys in their \
                     attributes already, --key-in-item writes them as they are"
                );
                let message =
                    format!("the item under {key} has an attribute {name:?}, which its key would replace");
                return Err(refused(message, hint));
            }
            let Some(part) = part else { continue };
            let value = to_attribute(kind, part).map_err(|why| {
                let what = if option == "--key" { "partition key" } else { "sort key" };
                let message = format!("the {what} of {key} {why}");
                refused(message, format!("{option}-type B, the default, writes any key"))
            })?;
            item.insert(name, value);
        }
        Ok(item)
    }

    /// Checks that an import would take the same key from the item.
    fn expect_key<'i>(
        &self,
        key: &Key<'_>,
        get: impl Fn(&str) -> kstone_api::Result<Option<ValueView<'i>>>,
    ) -> Result<()> {
        let parts = [
            (key_attr(self.args), self.args.key_type, Some(key.partition())),
            (sort_attr(self.args), self.args.sort_type, key.sort()),
        ];
        for (name, kind, part) in parts {
            let value = get(name).map_err(|e| damaged(key, &e))?;
            let why = match (part, value) {
                (None, None) => continue,
                (None, Some(_)) => format!("attribute {name:?} would become its sort key, and it has none"),
                (Some(part), value) => match of_typed_attribute(kind, name, value) {
                    Ok((found, _)) if found == part => continue,
                    Ok(_) => format!("attribute {name:?} is another key"),
                    Err(why) => why,
                },
            };
            let hint = "without --key-in-item, keys are added to the items; --key-type and --sort-type S compare \
                        numbers that were stored as text";
            return Err(refused(
                format!("the item under {key} does not contain its key: {why}"),
                hint.into(),
            )
            .into());
        }
        Ok(())
    }
}

/// Items cannot be written in this way.
fn refused(message: String, hint: String) -> Failure {
    Failure { exit: exit::NO, code: "not_exported", message, hint: Some(hint) }
}

/// Whether plain JSON has no type for the value, or for one within it.
fn loses_type(value: &Value) -> bool {
    match value {
        Value::B(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_) => true,
        Value::L(list) => list.iter().any(loses_type),
        Value::M(map) => map.iter().any(|(_, value)| loses_type(value)),
        _ => false,
    }
}

/// Where lines go.
enum Sink {
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(BufWriter<GzEncoder<BufWriter<Box<dyn Write>>>>),
}

impl Sink {
    fn new(out: Box<dyn Write>, gzip: bool) -> Self {
        let out = BufWriter::with_capacity(BUFFER, out);
        if !gzip {
            return Self::Plain(out);
        }
        let gzip = GzEncoder::new(out, Compression::default());
        Self::Gzip(BufWriter::with_capacity(BUFFER, gzip))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut out) => out.flush(),
            Self::Gzip(out) => {
                let gzip = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                gzip.finish()?.flush()
            }
        }
    }
}

/// A file that does not have its name yet. It is removed when dropped.
struct Unfinished {
    temp: NamedTempFile,
    path: PathBuf,
}

impl Unfinished {
    fn create(args: &ExportArgs) -> Result<Self> {
        let cannot = || format!("cannot write {}", escape::path(&args.out));
        let path = match args.out.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => args.out.clone(),
            Err(e) => return Err(anyhow::Error::from(e).context(cannot())),
            Ok(_) if !args.force => return Err(exists(&args.out)),
            // Of a link, the file that it leads to is replaced.
            Ok(_) => {
                let path = args.out.canonicalize().with_context(cannot)?;
                if !path.metadata().with_context(cannot)?.is_file() {
                    let message = format!("{}: {} is not a regular file", cannot(), escape::path(&path));
                    return Err(Failure { exit: exit::ENVIRONMENT, code: "io", message, hint: None }.into());
                }
                path
            }
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inside = dir.canonicalize().with_context(cannot)?;
        if args.db.path.canonicalize().is_ok_and(|db| inside.starts_with(db)) {
            let message = format!("{}: it is in the directory of the database", cannot());
            return Err(Failure::usage(message).into());
        }
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        prefix.push(".");
        // As any other new file: the system takes away what the user does not allow.
        let permissions = Permissions::from_mode(0o666);
        let temp =
            tempfile::Builder::new().prefix(&prefix).suffix(".tmp").permissions(permissions).tempfile_in(dir);
        Ok(Self { temp: temp.with_context(cannot)?, path })
    }

    fn failed(&self) -> String {
        format!("cannot write {}; no file was written", escape::path(&self.path))
    }

    /// Makes the file durable and gives it its name.
    fn finish(self, replace: bool) -> Result<PathBuf> {
        let failed = self.failed();
        self.temp.as_file().sync_all().with_context(|| failed.clone())?;
        let named = if replace {
            self.temp.persist(&self.path)
        } else {
            // Not one that has appeared meanwhile.
            self.temp.persist_noclobber(&self.path)
        };
        match named {
            Ok(_) => Ok(self.path),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&self.path)),
            Err(e) => Err(anyhow::Error::from(e.error).context(failed)),
        }
    }
}

fn exists(path: &Path) -> anyhow::Error {
    let message = format!("{} exists; nothing was written", escape::path(path));
    let hint = Some("--force replaces it".into());
    Failure { exit: exit::ENVIRONMENT, code: "already_exists", message, hint }.into()
}
