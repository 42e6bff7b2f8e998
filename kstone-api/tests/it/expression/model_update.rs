//! Updates against a naive model: actions one after the other, on a decoded item.

use std::collections::BTreeMap;

use kstone_api::{Item, ItemView, Number, Params, Update, Value, fuzzing};
use proptest::prelude::*;
use proptest::sample::select;

use super::model::{Step, Steps, Text, look_up, small_item, steps, value};

#[derive(Clone, Debug)]
enum Given {
    Value(Value),
    Path(Steps),
    IfAbsent(Steps, Box<Given>),
    Append(Box<Given>, Box<Given>),
    Plus(Box<Given>, Box<Given>),
    Minus(Box<Given>, Box<Given>),
}

#[derive(Clone, Debug)]
enum Action {
    Set(Given),
    Remove,
    Add(Value),
    Delete(Value),
}

fn simple() -> impl Strategy<Value = Given> {
    let list = proptest::collection::vec(value(), 0..3).prop_map(|list| Given::Value(Value::L(list)));
    prop_oneof![
        steps().prop_map(Given::Path),
        value().prop_map(Given::Value),
        (-5..5i64).prop_map(|n| Given::Value(Value::from(n))),
        list,
    ]
}

fn given() -> impl Strategy<Value = Given> {
    let inner = || {
        prop_oneof![
            2 => simple(),
            1 => (steps(), simple()).prop_map(|(steps, given)| Given::IfAbsent(steps, Box::new(given))),
        ]
    };
    prop_oneof![
        3 => inner(),
        1 => (inner(), inner()).prop_map(|(a, b)| Given::Append(Box::new(a), Box::new(b))),
        2 => (inner(), inner()).prop_map(|(a, b)| Given::Plus(Box::new(a), Box::new(b))),
        1 => (inner(), inner()).prop_map(|(a, b)| Given::Minus(Box::new(a), Box::new(b))),
    ]
}

fn set() -> impl Strategy<Value = Value> {
    let texts = proptest::collection::btree_set(select(vec!["", "a", "ab"]).prop_map(str::to_owned), 1..3);
    let numbers = proptest::collection::vec(select(vec!["0", "1.0", "10"]), 1..3);
    prop_oneof![
        texts.prop_map(Value::Ss),
        numbers.prop_map(|texts| Value::Ns(texts.iter().map(|text| text.parse().unwrap()).collect())),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => given().prop_map(Action::Set),
        2 => Just(Action::Remove),
        1 => (-5..5i64).prop_map(|n| Action::Add(Value::from(n))),
        1 => set().prop_map(Action::Add),
        1 => set().prop_map(Action::Delete),
    ]
}

// By text: list_append is no method of an operand.

fn word(given: &Given, text: &mut Text) -> String {
    match given {
        Given::Value(value) => text.value(value.clone()),
        Given::Path(steps) => text.steps(steps),
        Given::IfAbsent(steps, other) => {
            format!("if_not_exists({}, {})", text.steps(steps), word(other, text))
        }
        Given::Append(a, b) => format!("list_append({}, {})", word(a, text), word(b, text)),
        Given::Plus(a, b) => format!("{} + {}", word(a, text), word(b, text)),
        Given::Minus(a, b) => format!("{} - {}", word(a, text), word(b, text)),
    }
}

fn parse(actions: &[(Steps, Action)]) -> kstone_api::Result<Update> {
    let (mut text, mut clauses) = (Text::default(), BTreeMap::<&str, Vec<String>>::new());
    for (steps, action) in actions {
        let path = text.steps(steps);
        let (clause, written) = match action {
            Action::Set(given) => ("SET", format!("{path} = {}", word(given, &mut text))),
            Action::Remove => ("REMOVE", path),
            Action::Add(value) => ("ADD", format!("{path} {}", text.value(value.clone()))),
            Action::Delete(value) => ("DELETE", format!("{path} {}", text.value(value.clone()))),
        };
        clauses.entry(clause).or_default().push(written);
    }
    let clauses: Vec<String> =
        clauses.iter().map(|(clause, actions)| format!("{clause} {}", actions.join(", "))).collect();
    Update::parse(&clauses.join(" "), &text.params())
}

// Naively.

/// Two paths that cannot be in one update.
fn clash(a: &[Step], b: &[Step]) -> bool {
    match a.iter().zip(b).find(|(a, b)| a != b) {
        None => true,
        Some((a, b)) => matches!(a, Step::Name(_)) != matches!(b, Step::Name(_)),
    }
}

fn evaluate(given: &Given, item: &Item) -> Option<Value> {
    let number = |given: &Given| match evaluate(given, item)? {
        // Tenths, which the numbers of this world are, but for a huge one.
        Value::N(number) if number != "1E+100".parse().unwrap() => {
            Some((f64::try_from(number).unwrap() * 10.0) as i64)
        }
        _ => None,
    };
    let list = |given: &Given| match evaluate(given, item)? {
        Value::L(list) => Some(list),
        _ => None,
    };
    Some(match given {
        Given::Value(value) => value.clone(),
        Given::Path(steps) => look_up(Some(item), steps)?,
        Given::IfAbsent(steps, other) => {
            look_up(Some(item), steps).map_or_else(|| evaluate(other, item), Some)?
        }
        Given::Append(a, b) => Value::L([list(a)?, list(b)?].concat()),
        Given::Plus(a, b) => tenths(number(a)? + number(b)?),
        Given::Minus(a, b) => tenths(number(a)? - number(b)?),
    })
}

fn tenths(n: i64) -> Value {
    let sign = if n < 0 { "-" } else { "" };
    Value::N(format!("{sign}{}.{}", n.abs() / 10, n.abs() % 10).parse().unwrap())
}

/// In place of a value that is removed at the end.
fn gone() -> Value {
    Value::from("\u{10ffff}")
}

fn combine(old: Option<Value>, action: &Action, item: &Item) -> Option<Value> {
    Some(match (old, action) {
        (_, Action::Set(given)) => evaluate(given, item)?,
        (_, Action::Remove) | (None, Action::Delete(_)) => gone(),
        (None, Action::Add(value)) => value.clone(),
        (Some(old @ Value::N(_)), Action::Add(value @ Value::N(_))) => {
            evaluate(&Given::Plus(Given::Value(old).into(), Given::Value(value.clone()).into()), item)?
        }
        (Some(Value::Ss(old)), Action::Add(Value::Ss(set))) => Value::Ss(&old | set),
        (Some(Value::Ns(old)), Action::Add(Value::Ns(set))) => Value::Ns(&old | set),
        (Some(Value::Ss(old)), Action::Delete(Value::Ss(set))) => {
            let left = &old - set;
            if left.is_empty() { gone() } else { Value::Ss(left) }
        }
        (Some(Value::Ns(old)), Action::Delete(Value::Ns(set))) => {
            let left = &old - set;
            if left.is_empty() { gone() } else { Value::Ns(left) }
        }
        _ => return None,
    })
}

fn change(value: Option<Value>, steps: &[Step], action: &Action, item: &Item) -> Option<Value> {
    let Some((step, rest)) = steps.split_first() else { return combine(value, action, item) };
    match (value, step) {
        (Some(Value::M(mut map)), Step::Name(name)) => {
            let new = change(map.get(name).cloned(), rest, action, item)?;
            map.insert(*name, new);
            Some(Value::M(map))
        }
        (Some(Value::L(mut list)), Step::Index(index)) => {
            let new = change(list.get(*index).cloned(), rest, action, item)?;
            match list.get_mut(*index) {
                Some(place) => *place = new,
                None => list.push(new),
            }
            Some(Value::L(list))
        }
        (old, _) if matches!(action, Action::Remove | Action::Delete(_)) => Some(old.unwrap_or_else(gone)),
        _ => None,
    }
}

fn sweep(value: Value) -> Value {
    match value {
        Value::L(list) => Value::L(list.into_iter().filter(|value| *value != gone()).map(sweep).collect()),
        Value::M(map) => Value::M(
            map.into_iter()
                .filter(|(_, value)| *value != gone())
                .map(|(name, value)| (name, sweep(value)))
                .collect(),
        ),
        other => other,
    }
}

fn naive(actions: &[(Steps, Action)], item: &Item) -> Option<Item> {
    let mut sorted: Vec<&(Steps, Action)> = actions.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut value = Value::M(item.clone());
    for (steps, action) in sorted {
        value = change(Some(value), steps, action, item)?;
    }
    match sweep(value) {
        Value::M(map) => Some(map),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn updates_change_what_the_model_changes(
        actions in proptest::collection::vec((steps(), action()), 1..5),
        item in small_item(),
    ) {
        let clashes = (1..actions.len()).any(|i| actions[..i].iter().any(|other| clash(&actions[i].0, &other.0)));
        let update = match parse(&actions) {
            Ok(update) => update,
            Err(error) => {
                let error = error.to_string();
                let types = error.contains(" take");
                prop_assert!(types || (clashes && (error.contains("overlap") || error.contains("same place"))), "{}", error);
                return Ok(());
            }
        };
        prop_assert!(!clashes);
        // The huge number is outside of what the model adds.
        if format!("{actions:?} {item}").contains("1E+100") {
            return Ok(());
        }
        let stored = item.encode().unwrap();
        let mut changed = item.clone();
        let applied = update.apply(&mut changed);
        let updated = fuzzing::apply_stored(&update, Some(&stored));
        match naive(&actions, &item) {
            Some(expected) => {
                prop_assert!(applied.is_ok(), "{} on {}: {:?}", update, item, applied);
                prop_assert_eq!(&changed, &expected, "{} on {}", update, item);
                let updated = updated.unwrap();
                prop_assert_eq!(&updated.item, &changed.encode().unwrap());
                let named = |item: &Item| -> Item {
                    let names = actions.iter().filter_map(|(steps, _)| if let Step::Name(name) = steps[0] { Some(name) } else { None });
                    names.filter_map(|name| Some((name, item.get(name)?.clone()))).collect()
                };
                prop_assert_eq!(updated.old, named(&item));
                prop_assert_eq!(updated.new, named(&changed));
                // What the update does not name has the same bytes.
                let (before, after) = (ItemView::new(&stored).unwrap(), ItemView::new(&updated.item).unwrap());
                prop_assert!(before.validate().is_ok() && after.validate().is_ok());
            }
            None => {
                prop_assert_eq!(applied.unwrap_err().code(), "update_failed");
                prop_assert_eq!(updated.unwrap_err().code(), "update_failed");
                prop_assert_eq!(&changed, &item);
            }
        }
        let mut params = Params::new();
        let printed = update.to_dynamodb(&mut params).unwrap();
        prop_assert_eq!(Update::parse(&printed, &params).unwrap(), update, "{}", printed);
    }

    #[test]
    fn sums_are_those_of_numbers(a in super::super::number(), b in super::super::number()) {
        let item = Item::builder().value("a", a.clone()).value("b", b.clone()).build();
        let sum: Result<Number, _> = a.checked_add(&b);
        let difference = a.checked_sub(&b);
        for (text, expected) in [("SET c = a + b", &sum), ("SET c = a - b", &difference)] {
            let mut changed = item.clone();
            let applied = Update::parse(text, &Params::new()).unwrap().apply(&mut changed);
            match expected {
                Ok(expected) => prop_assert_eq!(changed.get("c"), Some(&Value::N(expected.clone()))),
                Err(_) => prop_assert_eq!(applied.unwrap_err().code(), "update_failed"),
            }
        }
        let mut changed = item.clone();
        let applied = Update::new().add("a", b).apply(&mut changed);
        prop_assert_eq!(applied.is_ok(), sum.is_ok());
        if let Ok(sum) = sum {
            prop_assert_eq!(changed.get("a"), Some(&Value::N(sum)));
        }
    }
}
