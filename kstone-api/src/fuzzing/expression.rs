//! Expressions: what parses prints as text that parses to the same, and its evaluation agrees on items and their bytes.

use crate::expression::Applied;
use crate::{
    Condition, Error, Expressions, Item, ItemBuilder, ItemView, Params, Path, Projection, Result, Update,
    Value,
};

/// An updated item, and the attributes that the update names, before and after it.
#[derive(Debug)]
pub struct Updated {
    /// The stored form.
    pub item: Vec<u8>,
    /// What they were before.
    pub old: Item,
    /// What they are now.
    pub new: Item,
}

/// Applies an update to a stored item, or to nothing.
pub fn apply_stored(update: &Update, old: Option<&[u8]>) -> Result<Updated> {
    update.check()?;
    let applied: Applied = update.apply_stored(old)?;
    let (old, new) = (applied.attributes(old)?, applied.attributes(Some(&applied.item))?);
    Ok(Updated { item: applied.item, old, new })
}

/// Whether a condition holds for what is stored under a key, which may be nothing.
pub fn holds<B: AsRef<[u8]>>(condition: &Condition, item: Option<&ItemView<B>>) -> Result<bool> {
    condition.holds(item)
}

/// Text of an expression of any kind. A `:` before a letter and a `#` before one have a fixed meaning.
pub fn expression(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (params, item) = (params(), item());
    let stored = item.encode().expect("an item that can be stored");
    let view = ItemView::new(&stored).expect("a stored item");
    let expressions = || Expressions::new(&params);
    if let Some(condition) = read(&text, expressions().condition(&text)) {
        drop(condition.to_string());
        let mut params = Params::new();
        // The placeholders may be longer than those of the text.
        if let Some(printed) = printed(condition.to_dynamodb(&mut params)) {
            assert_eq!(Condition::parse(&printed, &params).expect("printed text"), condition, "{printed}");
        }
        let seen = condition.matches(&view).expect("a valid item");
        assert_eq!(seen, condition.matches_item(&item).expect("a valid item"), "{text}");
        assert_eq!(seen, (!!condition.clone()).holds(Some(&view)).unwrap_or(seen), "{text}");
        assert!(condition.holds(None::<&ItemView>).is_ok());
    }
    if let Some(update) = read(&text, expressions().update(&text)) {
        drop(update.to_string());
        let mut params = Params::new();
        if let Some(printed) = printed(update.to_dynamodb(&mut params)) {
            assert_eq!(Update::parse(&printed, &params).expect("printed text"), update, "{printed}");
        }
        let mut changed = item.clone();
        match (update.apply(&mut changed), apply_stored(&update, Some(&stored))) {
            (Ok(()), Ok(updated)) => {
                assert_eq!(updated.item, changed.encode().expect("an updated item"), "{text}");
            }
            (Err(Error::UpdateFailed { path, why }), Err(Error::UpdateFailed { path: at, why: also })) => {
                assert_eq!((path, why), (at, also));
                assert_eq!(changed, item);
            }
            (one, other) => panic!("{text}: {one:?}, stored {other:?}"),
        }
        let _ = apply_stored(&update, None);
    }
    if let Some(projection) = read(&text, expressions().projection(&text)) {
        drop(projection.to_string());
        assert!(projection.check().is_ok());
        let mut params = Params::new();
        if let Some(printed) = printed(projection.to_dynamodb(&mut params)) {
            assert_eq!(Projection::parse(&printed, &params).expect("printed text"), projection, "{printed}");
        }
        let part = projection.apply(&view).expect("a valid item");
        assert!(part.iter().all(|(name, _)| item.contains(name)));
    }
    if let Some(path) = read(&text, Path::parse(&text)) {
        drop(path.to_string());
    }
}

/// What was parsed. An error states a position in the text.
fn read<T>(text: &str, parsed: Result<T>) -> Option<T> {
    match parsed {
        Ok(parsed) => return Some(parsed),
        Err(Error::ExpressionSyntax { text: whole, at, .. }) => {
            assert!(whole == text && text.is_char_boundary(at), "byte {at} of {text:?}");
        }
        Err(Error::InvalidExpression { .. }) => {}
        Err(error) => panic!("{text:?}: {error}"),
    }
    None
}

fn printed(text: Result<String>) -> Option<String> {
    match text {
        Ok(text) => Some(text),
        Err(Error::InvalidExpression { why }) if why.contains("longer than") => None,
        Err(error) => panic!("what was parsed does not print: {error}"),
    }
}

fn params() -> Params {
    Params::new()
        .name("#n", "name")
        .name("#o", "odd.name")
        .value(":n", 2)
        .value(":d", -0.25)
        .value(":s", "ab")
        .value(":t", "S")
        .value(":b", vec![1u8])
        .value(":l", vec![Value::from(1)])
        .value(":m", ItemBuilder::new().number("x", 1).build())
        .value(":z", Value::Null)
        .value(":c", Value::Ss(["a".to_owned(), "b".to_owned()].into()))
        .value(":e", Value::Ns([1.into()].into()))
}

fn item() -> Item {
    ItemBuilder::new()
        .number("n", 7)
        .string("s", "abc")
        .binary("b", vec![1, 2])
        .bool("t", true)
        .null("z")
        .list("l", [Value::from(1), Value::from("x"), Value::from(vec![Value::from(2)])])
        .map("m", ItemBuilder::new().number("x", 1).list("l", [1, 2]))
        .string_set("c", ["a", "c"])
        .number_set("e", [1, 2])
        .string("name", "Ann")
        .number("odd.name", 3)
        .build()
}

/// Seed inputs for [`expression`].
pub fn expression_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "n = :n AND (s <> :s OR NOT t = :z)",
        "n BETWEEN :d AND :n AND s IN (:s, #n, m.l[0])",
        "attribute_exists(m.x) AND attribute_not_exists(q) AND attribute_type(s, :t)",
        "begins_with(s, :s) OR contains(c, :s) OR contains(l, :l) OR size(l) >= :n",
        "item_exists() AND NOT item_not_exists()",
        "m = :m OR l = :l OR c < :s OR e = :e OR b > :b",
        "SET n = n + :n, m.x = :n - n, #o = if_not_exists(q, :d) REMOVE l[0], m.l[1] ADD k :n, c :c DELETE e :e",
        "SET l = list_append(l, :l), m.l[9] = (n), q = m ADD m.y :d",
        "ADD n :n, c :c",
        "DELETE c :c REMOVE z",
        "n, m.l[1], l[2][0], #n, #o",
        "a.b[0][12].c",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
