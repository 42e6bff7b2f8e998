//! What an import reads: keys and items from DynamoDB JSON, JSON Lines or CSV, one at a time, whatever the input.

use std::io::{self, BufRead};

use kstone_api::{EncodedItem, Error, JsonLines, Key, ValueView, escape};

use crate::args::ImportArgs;
use crate::key_types::{KeyType, of_attribute, of_typed_attribute};

mod csv;
mod form;

pub(crate) use form::Form;

use csv::Csv;

pub(crate) type Input = Box<dyn BufRead>;

/// Names of the attributes that `kstone export` writes keys to.
pub(crate) const KEY_ATTR: &str = "pk";
pub(crate) const SORT_ATTR: &str = "sk";
/// Bytes around an item that are not stored with it: names of its keys, and more.
const AROUND: usize = 4096;

/// An item with its key.
pub(crate) struct Record {
    pub(crate) key: Key<'static>,
    pub(crate) item: EncodedItem,
    /// A number is stored as text in the key, without having been requested.
    pub(crate) number: bool,
}

/// The lengths that a database accepts.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) key: usize,
    pub(crate) item: usize,
}

/// Records in the order of the input.
pub(crate) struct Records<'a> {
    args: &'a ImportArgs,
    limits: Limits,
    reader: Reader,
}

enum Reader {
    Plain(JsonLines<Input>),
    Entries(JsonLines<Input>),
    Dynamodb(JsonLines<Input>),
    Csv(Box<Csv<Input>>),
}

impl<'a> Records<'a> {
    pub(crate) fn new(form: Form, input: Input, args: &'a ImportArgs, limits: Limits) -> Self {
        // Keys are read as attributes; each byte of one may be typed as four characters.
        let with_key = limits.item.saturating_add(limits.key.saturating_mul(4)).saturating_add(AROUND);
        let reader = match form {
            Form::Plain => Reader::Plain(JsonLines::new(input, limits.item)),
            Form::Entries => Reader::Entries(JsonLines::new(input, with_key)),
            Form::Dynamodb => Reader::Dynamodb(JsonLines::new(input, with_key)),
            Form::Csv => {
                let mut numbers = args.csv_numbers.clone();
                let parts = [(args.types.key_type, &args.key_attr), (args.types.sort_type, &args.sort_attr)];
                for (kind, name) in parts {
                    numbers.extend(name.iter().filter(|_| kind == Some(KeyType::N)).cloned());
                }
                let keys = args.key_attr.iter().chain(&args.sort_attr).cloned().collect();
                Reader::Csv(Box::new(Csv::new(input, keys, numbers, limits.item)))
            }
        };
        Self { args, limits, reader }
    }

    /// The number of the line at which the last record started, read or not.
    pub(crate) fn line(&self) -> u64 {
        match &self.reader {
            Reader::Plain(lines) | Reader::Entries(lines) | Reader::Dynamodb(lines) => lines.line(),
            Reader::Csv(csv) => csv.line(),
        }
    }

    /// The line at which the next record starts, or an earlier one that is blank.
    pub(crate) fn next_line(&self) -> u64 {
        match &self.reader {
            Reader::Plain(lines) | Reader::Entries(lines) | Reader::Dynamodb(lines) => lines.line() + 1,
            Reader::Csv(csv) => csv.next_line(),
        }
    }

    /// Skips records that start before this line.
    pub(crate) fn skip_to(&mut self, line: u64) -> io::Result<Result<(), String>> {
        match &mut self.reader {
            Reader::Plain(lines) | Reader::Entries(lines) | Reader::Dynamodb(lines) => {
                lines.skip_lines(line.saturating_sub(1)).map(Ok)
            }
            Reader::Csv(csv) => match csv.header()? {
                Ok(()) => csv.skip_to(line).map(Ok),
                Err(why) => Ok(Err(why)),
            },
        }
    }

    /// The next record, or the reason why there is none in a line; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<Record, String>>> {
        let next = match &mut self.reader {
            Reader::Plain(lines) => lines.next_item()?.map(|item| item.map_err(|e| refusal(&e))),
            Reader::Entries(lines) => lines.next_holder()?.map(|item| item.map_err(|e| refusal(&e))),
            Reader::Dynamodb(lines) => lines.next_dynamodb()?.map(|item| item.map_err(|e| refusal(&e))),
            Reader::Csv(csv) => csv.next_item()?,
        };
        let Some(next) = next else { return Ok(None) };
        Ok(Some(next.and_then(|item| self.record(item))))
    }

    fn record(&self, item: EncodedItem) -> Result<Record, String> {
        let record = match &self.reader {
            Reader::Plain(_) | Reader::Csv(_) => self.plain(item),
            Reader::Entries(_) => self.entry(&item),
            Reader::Dynamodb(_) => self.typed(item),
        }?;
        if record.key.partition().is_empty() {
            let name = match &self.reader {
                Reader::Entries(_) => "key",
                _ => self.args.key_attr.as_deref().unwrap_or(KEY_ATTR),
            };
            return Err(format!("attribute {name:?}, the key, is empty"));
        }
        let (key, item, limits) = (record.key.len(), record.item.as_bytes().len(), self.limits);
        if key > limits.key {
            return Err(format!("its key is {key} bytes, the limit is {}", limits.key));
        }
        if item > limits.item {
            return Err(refusal(&Error::ItemTooLarge { len: item, max: limits.item }));
        }
        Ok(record)
    }

    /// An item whose attributes are the key, and stay.
    fn plain(&self, item: EncodedItem) -> Result<Record, String> {
        let ImportArgs { types, key_attr, sort_attr, sort_optional, .. } = self.args;
        let view = item.view().map_err(|e| e.to_string())?;
        let get = |name: &str| view.get(name).map_err(|e| e.to_string());
        let key_attr = key_attr.as_deref().unwrap_or_default();
        let (partition, mut number) = of_attribute(types.key_type, key_attr, get(key_attr)?)?;
        let sort = match sort_attr {
            None => None,
            Some(name) => match get(name)? {
                None if *sort_optional => None,
                value => {
                    let (sort, is_number) = of_attribute(types.sort_type, name, value)?;
                    number |= is_number;
                    Some(sort)
                }
            },
        };
        Ok(Record { key: key(partition, sort), item, number })
    }

    /// An item of DynamoDB, whose attributes are the key, and are removed.
    fn typed(&self, item: EncodedItem) -> Result<Record, String> {
        let ImportArgs { types, key_attr, sort_attr, sort_optional, .. } = self.args;
        let (key_name, sort_name) =
            (key_attr.as_deref().unwrap_or(KEY_ATTR), sort_attr.as_deref().unwrap_or(SORT_ATTR));
        let optional = sort_attr.is_none() || *sort_optional;
        let view = item.view().map_err(|e| e.to_string())?;
        let get = |name: &str| view.get(name).map_err(|e| e.to_string());
        let (partition, mut number) = of_typed_attribute(types.key_type, key_name, get(key_name)?)?;
        let sort = match get(sort_name)? {
            None if optional => None,
            value => {
                let (sort, is_number) = of_typed_attribute(types.sort_type, sort_name, value)?;
                number |= is_number;
                Some(sort)
            }
        };
        let key = key(partition, sort);
        if self.args.key_in_item {
            return Ok(Record { key, item, number });
        }
        let item = item.without(&[key_name, sort_name]).map_err(|e| e.to_string())?;
        Ok(Record { key, item, number })
    }

    /// A line with key, sort key and item.
    fn entry(&self, line: &EncodedItem) -> Result<Record, String> {
        let view = line.view().map_err(|e| e.to_string())?;
        let members = view.as_map().map_err(|e| e.to_string())?;
        for member in members.iter() {
            let (name, _) = member.map_err(|e| e.to_string())?;
            if !["key", "sort", "item"].contains(&name) {
                return Err(format!(
                    "it has a member {name:?}: without --key-attr, a line has key, sort and item, and no other"
                ));
            }
        }
        let get = |name: &str| members.get(name).map_err(|e| e.to_string());
        let part = |name: &str| match get(name)? {
            None => Ok(None),
            Some(ValueView::S(text)) => {
                let part = escape::parse_key(text).map_err(|e| format!("{name:?}: {e}"))?;
                Ok(Some(part))
            }
            Some(_) => Err(format!("{name:?} is not a string, as keys are printed")),
        };
        let partition = part("key")?.ok_or("there is no \"key\"")?;
        let stored = self.args.types.stored(&key(partition, part("sort")?)).map_err(|e| e.message)?;
        match get("item")? {
            Some(ValueView::M(map)) => {
                Ok(Record { key: stored, item: EncodedItem::of_map(map), number: false })
            }
            Some(_) => Err("\"item\" is not an object".into()),
            None => Err("there is no \"item\": a list of keys alone cannot be imported".into()),
        }
    }
}

fn key(partition: Vec<u8>, sort: Option<Vec<u8>>) -> Key<'static> {
    match sort {
        None => Key::new(partition),
        Some(sort) => Key::with_sort(partition, sort),
    }
}

/// The reason why an item cannot be stored.
pub(crate) fn refusal(error: &Error) -> String {
    match error {
        // The actual length is unknown: reading stopped at the limit.
        Error::ItemTooLarge { max, .. } => format!("the item is longer than the limit of {max} bytes"),
        other => other.to_string(),
    }
}
