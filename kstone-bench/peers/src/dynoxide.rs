//! dynoxide 3, as a library: DynamoDB's operations in the process, on one file of SQLite.
//!
//! * `Buffered`: the log of SQLite with `synchronous=NORMAL`, as of the engine `sqlite`: a power cut takes the newest
//!   writes and damages nothing.
//! * `Sync`: `synchronous=FULL`, a sync with each write. It is what this SQLite does when nobody says anything, and
//!   dynoxide does not.
//! * No tuned setting: the one that it has, for bulk loading, gives up syncs altogether.
//! * Closing is dropping: SQLite then moves what is in its log to where it belongs.
//!
//! The interface is its typed one, without HTTP. It stores an item as JSON, binary values in base64, and each put first
//! reads what it replaces, in a transaction. All threads share one connection behind one lock. Partition and sort keys are
//! strings, since ours are hexadecimal digits. A table has a sort key or has none, so there is one of each. Scans come in
//! the order of a hash of the partition key, not in that of the keys, and are refused.

use std::path::Path;

use ::dynoxide::actions::create_table::CreateTableRequest;
use ::dynoxide::actions::delete_item::DeleteItemRequest;
use ::dynoxide::actions::get_item::GetItemRequest;
use ::dynoxide::actions::put_item::PutItemRequest;
use ::dynoxide::actions::query::QueryRequest;
use ::dynoxide::actions::transact_get_items::{TransactGet, TransactGetItem, TransactGetItemsRequest};
use ::dynoxide::types::{AttributeDefinition, KeySchemaElement, KeyType, ScalarAttributeType};
use ::dynoxide::{AttributeValue, Database, Item};
use anyhow::{Context, Result, bail, ensure};
use kstone_bench::data::BenchKey;
use kstone_bench::engine::{Counters, Durability, Engine, EngineSpec, Session};

/// Not `partition`, which is a reserved word of expressions.
const PARTITION: &str = "pk";
const SORT: &str = "sk";
const VALUE: &str = "value";

/// The table of keys with a sort key, and that of keys without.
const SORTED: &str = "sorted";
const SINGLE: &str = "single";

pub(crate) struct Dynoxide(Database);

impl Dynoxide {
    pub(crate) fn open(
        spec: &EngineSpec,
        directory: &Path,
        durability: Durability,
    ) -> Result<Box<dyn Engine>> {
        ensure!(!spec.tuned, "dynoxide has no tuned setting");
        let file = directory.join("items.dynoxide");
        let made = file.exists();
        let database = Database::new(file.to_str().context("dynoxide wants a path in Unicode")?)?;
        if durability == Durability::Buffered {
            // The one call that sets `synchronous=NORMAL`; what else it sets are SQLite's defaults.
            database.disable_bulk_loading()?;
        }
        if !made {
            create(&database, SINGLE, &[(PARTITION, KeyType::HASH)])?;
            create(&database, SORTED, &[(PARTITION, KeyType::HASH), (SORT, KeyType::RANGE)])?;
        }
        Ok(Box::new(Self(database)))
    }
}

fn create(database: &Database, table: &str, keys: &[(&str, KeyType)]) -> Result<()> {
    let schema = keys
        .iter()
        .map(|(name, kind)| KeySchemaElement { attribute_name: (*name).to_owned(), key_type: kind.clone() });
    let attributes = keys.iter().map(|(name, _)| AttributeDefinition {
        attribute_name: (*name).to_owned(),
        attribute_type: ScalarAttributeType::S,
    });
    database.create_table(CreateTableRequest {
        table_name: table.to_owned(),
        key_schema: schema.collect(),
        attribute_definitions: attributes.collect(),
        billing_mode: Some("PAY_PER_REQUEST".to_owned()),
        ..CreateTableRequest::default()
    })?;
    Ok(())
}

impl Engine for Dynoxide {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access(&self.0)))
    }

    /// Nothing goes on in the background, and there is no call that moves the log to where it belongs.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        Ok(self.0.vacuum()?)
    }

    fn counters(&self) -> Result<Counters> {
        Ok(Counters::new())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct Access<'a>(&'a Database);

impl Session for Access<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        let mut item = attributes(key)?;
        item.insert(VALUE.to_owned(), AttributeValue::B(value.to_vec()));
        self.0.put_item(PutItemRequest { table_name: table(key), item, ..PutItemRequest::default() })?;
        Ok(())
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        self.0.delete_item(DeleteItemRequest {
            table_name: table(key),
            key: attributes(key)?,
            ..DeleteItemRequest::default()
        })?;
        Ok(())
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let answer = self.0.get_item(GetItemRequest {
            table_name: table(key),
            key: attributes(key)?,
            ..GetItemRequest::default()
        })?;
        answer.item.as_ref().map(|item| show(item, visit)).transpose().map(|found| found.is_some())
    }

    /// In a transaction, which refuses duplicate keys.
    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut asked: Vec<&BenchKey> = Vec::with_capacity(keys.len());
        for key in keys {
            if !asked.contains(&key) {
                asked.push(key);
            }
        }
        let gets = asked.iter().map(|key| -> Result<_> {
            let get = TransactGet { table_name: table(key), key: attributes(key)?, ..TransactGet::default() };
            Ok(TransactGetItem { get })
        });
        let answer = self.0.transact_get_items(TransactGetItemsRequest {
            transact_items: gets.collect::<Result<_>>()?,
            ..TransactGetItemsRequest::default()
        })?;
        let mut found = 0;
        for key in keys {
            let place = asked.iter().position(|one| *one == key);
            let answered = place.and_then(|place| answer.responses.get(place)).context("too few answers")?;
            if let Some(item) = &answered.item {
                show(item, visit)?;
                found += 1;
            }
        }
        Ok(found)
    }

    /// In pages, of which none has more than 1 MB.
    fn query(&mut self, from: &BenchKey, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut condition = format!("{PARTITION} = :pk");
        let mut values = vec![(":pk".to_owned(), text(from.partition())?)];
        if let Some(sort) = from.sort() {
            condition += &format!(" AND {SORT} >= :sk");
            values.push((":sk".to_owned(), text(sort)?));
        }
        let (mut found, mut start) = (0, None);
        while found < limit {
            let answer = self.0.query(QueryRequest {
                table_name: table(from),
                key_condition_expression: Some(condition.clone()),
                expression_attribute_values: Some(values.iter().cloned().collect()),
                scan_index_forward: true,
                limit: Some(usize::try_from(limit - found)?),
                exclusive_start_key: start,
                ..QueryRequest::default()
            })?;
            for item in answer.items.iter().flatten() {
                show(item, visit)?;
                found += 1;
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn scan(&mut self, _: u64, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
        bail!("dynoxide has no scans in the order of the keys: they come in the order of a hash")
    }
}

fn table(key: &BenchKey) -> String {
    let name = if key.sort().is_some() { SORTED } else { SINGLE };
    name.to_owned()
}

fn attributes(key: &BenchKey) -> Result<Item> {
    let mut attributes = Item::from([(PARTITION.to_owned(), text(key.partition())?)]);
    if let Some(sort) = key.sort() {
        attributes.insert(SORT.to_owned(), text(sort)?);
    }
    Ok(attributes)
}

fn text(digits: &[u8]) -> Result<AttributeValue> {
    Ok(AttributeValue::S(std::str::from_utf8(digits)?.to_owned()))
}

fn show(item: &Item, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
    match item.get(VALUE) {
        Some(AttributeValue::B(value)) => visit(value),
        other => bail!("a value of another kind: {other:?}"),
    }
    Ok(())
}
