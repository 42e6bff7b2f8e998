//! Conditions and projections against a naive evaluator: it knows nothing of views, works on decoded items, and compares by
//! means of its own.

use std::cmp::Ordering;

use kstone_api::{Condition, Item, ItemView, Operand, Params, Path, Projection, Type, Value, attr, fuzzing};
use proptest::prelude::*;
use proptest::sample::select;

/// A path as a list of steps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Index(usize),
    Name(&'static str),
}

pub(super) type Steps = Vec<Step>;

#[derive(Clone, Debug)]
enum Thing {
    Value(Value),
    Path(Steps),
    Size(Steps),
}

#[derive(Clone, Debug)]
enum Rule {
    Compare(Thing, &'static str, Thing),
    Between(Thing, Thing, Thing),
    In(Thing, Vec<Thing>),
    Exists(Steps),
    Absent(Steps),
    Type(Steps, Type),
    Begins(Steps, Thing),
    Contains(Steps, Thing),
    ItemExists,
    ItemAbsent,
    Not(Box<Rule>),
    And(Box<Rule>, Box<Rule>),
    Or(Box<Rule>, Box<Rule>),
}

const NAMES: [&str; 6] = ["a", "b", "c", "name", "odd.name", "é"];

/// Values of a small world, in which paths meet and values are often equal.
pub(super) fn value() -> impl Strategy<Value = Value> {
    let number = || select(vec!["0", "1", "1.0", "1e0", "-1", "2.5", "10", "1E+100"]);
    let text = || select(vec!["", "a", "ab", "b", "10", "é", "a\0"]);
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        number().prop_map(|text| Value::N(text.parse().unwrap())),
        text().prop_map(|text| Value::B(text.as_bytes().to_vec())),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        proptest::collection::btree_set(text().prop_map(str::to_owned), 1..3).prop_map(Value::Ss),
        proptest::collection::btree_set(number().prop_map(|text| text.parse().unwrap()), 1..3)
            .prop_map(Value::Ns),
        proptest::collection::btree_set(text().prop_map(|text| text.as_bytes().to_vec()), 1..3)
            .prop_map(Value::Bs),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::L),
            proptest::collection::vec((select(NAMES.to_vec()), inner), 0..4)
                .prop_map(|a| Value::M(Item::from_iter(a))),
        ]
    })
}

pub(super) fn small_item() -> impl Strategy<Value = Item> {
    proptest::collection::vec((select(NAMES.to_vec()), value()), 0..7).prop_map(Item::from_iter)
}

pub(super) fn steps() -> impl Strategy<Value = Steps> {
    let name = || select(NAMES.to_vec()).prop_map(Step::Name);
    let step = prop_oneof![name(), (0..4usize).prop_map(Step::Index)];
    (name(), proptest::collection::vec(step, 0..3)).prop_map(|(name, mut rest)| {
        rest.insert(0, name);
        rest
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        3 => steps().prop_map(Thing::Path),
        3 => value().prop_map(Thing::Value),
        1 => steps().prop_map(Thing::Size),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let kinds =
        [Type::S, Type::N, Type::B, Type::Bool, Type::Null, Type::L, Type::M, Type::Ss, Type::Ns, Type::Bs];
    let leaf = prop_oneof![
        4 => (thing(), select(vec!["=", "<>", "<", "<=", ">", ">="]), thing()).prop_map(|(a, sign, b)| Rule::Compare(a, sign, b)),
        1 => (thing(), thing(), thing()).prop_map(|(a, b, c)| Rule::Between(a, b, c)),
        1 => (thing(), proptest::collection::vec(thing(), 1..4)).prop_map(|(a, list)| Rule::In(a, list)),
        1 => steps().prop_map(Rule::Exists),
        1 => steps().prop_map(Rule::Absent),
        1 => (steps(), select(kinds.to_vec())).prop_map(|(path, kind)| Rule::Type(path, kind)),
        1 => (steps(), thing()).prop_map(|(path, start)| Rule::Begins(path, start)),
        2 => (steps(), thing()).prop_map(|(path, part)| Rule::Contains(path, part)),
        1 => any::<bool>().prop_map(|exists| if exists { Rule::ItemExists } else { Rule::ItemAbsent }),
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|rule| Rule::Not(Box::new(rule))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Rule::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Rule::Or(Box::new(a), Box::new(b))),
        ]
    })
}

// By builders.

fn path(steps: &[Step]) -> Path {
    let mut path = None;
    for step in steps {
        path = Some(match (path, step) {
            (None, Step::Name(name)) => attr(*name),
            (Some(path), Step::Name(name)) => Path::field(path, *name),
            (Some(path), Step::Index(index)) => path.at(*index),
            (None, Step::Index(_)) => panic!("a path begins with a name"),
        });
    }
    path.unwrap()
}

fn operand(thing: &Thing) -> Operand {
    match thing {
        Thing::Value(value) => Operand::from(value.clone()),
        Thing::Path(steps) => Operand::from(path(steps)),
        Thing::Size(steps) => path(steps).size(),
    }
}

fn build(rule: &Rule) -> Condition {
    match rule {
        Rule::Compare(a, sign, b) => {
            let (a, b) = (operand(a), operand(b));
            match *sign {
                "=" => a.eq(b),
                "<>" => a.ne(b),
                "<" => a.lt(b),
                "<=" => a.le(b),
                ">" => a.gt(b),
                _ => a.ge(b),
            }
        }
        Rule::Between(a, b, c) => operand(a).between(operand(b), operand(c)),
        Rule::In(a, list) => operand(a).is_in(list.iter().map(operand)),
        Rule::Exists(steps) => path(steps).exists(),
        Rule::Absent(steps) => path(steps).absent(),
        Rule::Type(steps, kind) => path(steps).is_type(*kind),
        Rule::Begins(steps, start) => path(steps).begins_with(operand(start)),
        Rule::Contains(steps, part) => path(steps).contains(operand(part)),
        Rule::ItemExists => Condition::item_exists(),
        Rule::ItemAbsent => Condition::item_absent(),
        Rule::Not(rule) => !build(rule),
        Rule::And(a, b) => build(a) & build(b),
        Rule::Or(a, b) => build(a) | build(b),
    }
}

// By text, with all the parentheses and a placeholder for everything.

#[derive(Default)]
pub(super) struct Text {
    names: Vec<String>,
    values: Vec<Value>,
}

impl Text {
    pub(super) fn steps(&mut self, steps: &[Step]) -> String {
        let mut text = String::new();
        for step in steps {
            match step {
                Step::Name(name) => {
                    text += if text.is_empty() { "" } else { "." };
                    text += &format!("#x{}", self.names.len());
                    self.names.push((*name).to_owned());
                }
                Step::Index(index) => text += &format!("[{index}]"),
            }
        }
        text
    }

    pub(super) fn value(&mut self, value: Value) -> String {
        self.values.push(value);
        format!(":x{}", self.values.len() - 1)
    }

    fn thing(&mut self, thing: &Thing) -> String {
        match thing {
            Thing::Value(value) => self.value(value.clone()),
            Thing::Path(steps) => self.steps(steps),
            Thing::Size(steps) => format!("size({})", self.steps(steps)),
        }
    }

    fn rule(&mut self, rule: &Rule) -> String {
        match rule {
            Rule::Compare(a, sign, b) => format!("{}{sign}{}", self.thing(a), self.thing(b)),
            Rule::Between(a, b, c) => {
                format!("{} between {} and {}", self.thing(a), self.thing(b), self.thing(c))
            }
            Rule::In(a, list) => {
                let value = self.thing(a);
                let list: Vec<String> = list.iter().map(|thing| self.thing(thing)).collect();
                format!("{value} IN({})", list.join(","))
            }
            Rule::Exists(steps) => format!("attribute_exists({})", self.steps(steps)),
            Rule::Absent(steps) => format!("attribute_not_exists({})", self.steps(steps)),
            Rule::Type(steps, kind) => {
                format!("attribute_type({},{})", self.steps(steps), self.value(Value::from(kind.to_string())))
            }
            Rule::Begins(steps, start) => format!("begins_with({},{})", self.steps(steps), self.thing(start)),
            Rule::Contains(steps, part) => format!("contains({},{})", self.steps(steps), self.thing(part)),
            Rule::ItemExists => "item_exists()".into(),
            Rule::ItemAbsent => "item_not_exists()".into(),
            Rule::Not(rule) => format!("(not ({}))", self.rule(rule)),
            Rule::And(a, b) => format!("(({})AND({}))", self.rule(a), self.rule(b)),
            Rule::Or(a, b) => format!("(({})or({}))", self.rule(a), self.rule(b)),
        }
    }

    pub(super) fn params(self) -> Params {
        let names = self.names.into_iter().enumerate();
        let params = names.fold(Params::new(), |params, (i, name)| params.name(format!("#x{i}"), name));
        let values = self.values.into_iter().enumerate();
        values.fold(params, |params, (i, value)| params.value(format!(":x{i}"), value))
    }
}

// Naively.

pub(super) fn look_up(item: Option<&Item>, steps: &[Step]) -> Option<Value> {
    let Step::Name(name) = steps[0] else { panic!("a path begins with a name") };
    steps[1..].iter().try_fold(item?.get(name)?.clone(), |value, step| match (value, step) {
        (Value::M(map), Step::Name(name)) => map.get(name).cloned(),
        (Value::L(list), Step::Index(index)) => list.get(*index).cloned(),
        _ => None,
    })
}

fn size(value: &Value) -> Option<usize> {
    Some(match value {
        Value::S(text) => text.len(),
        Value::B(bytes) => bytes.len(),
        Value::L(list) => list.len(),
        Value::M(map) => map.len(),
        Value::Ss(set) => set.len(),
        Value::Ns(set) => set.len(),
        Value::Bs(set) => set.len(),
        _ => return None,
    })
}

/// `Err` for the size of something without one.
fn given(thing: &Thing, item: Option<&Item>) -> Result<Option<Value>, ()> {
    match thing {
        Thing::Value(value) => Ok(Some(value.clone())),
        Thing::Path(steps) => Ok(look_up(item, steps)),
        Thing::Size(steps) => {
            look_up(item, steps).and_then(|v| size(&v)).map(|n| Some(Value::from(n))).ok_or(())
        }
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::S(a), Value::S(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::B(a), Value::B(b)) => Some(a.cmp(b)),
        // The numbers of this world are floats.
        (Value::N(_), Value::N(_)) => a.as_f64().unwrap().partial_cmp(&b.as_f64().unwrap()),
        _ => None,
    }
}

fn compare(a: &Thing, sign: &str, b: &Thing, item: Option<&Item>) -> bool {
    let (Ok(a), Ok(b)) = (given(a, item), given(b, item)) else { return false };
    let order = a.as_ref().zip(b.as_ref()).and_then(|(a, b)| order(a, b));
    let equal = a.is_some() && a == b;
    match sign {
        "=" => equal,
        "<>" => !equal,
        "<" => order == Some(Ordering::Less),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::S(text), Value::S(part)) => text.contains(part.as_str()),
        (Value::B(bytes), Value::B(part)) => {
            part.is_empty() || bytes.windows(part.len()).any(|window| window == part.as_slice())
        }
        (Value::Ss(set), Value::S(part)) => set.contains(part),
        (Value::Ns(set), Value::N(part)) => set.contains(part),
        (Value::Bs(set), Value::B(part)) => set.contains(part),
        (Value::L(list), part) => list.contains(part),
        _ => false,
    }
}

fn begins(value: &Value, start: &Value) -> bool {
    match (value, start) {
        (Value::S(text), Value::S(start)) => text.starts_with(start.as_str()),
        (Value::B(bytes), Value::B(start)) => bytes.starts_with(start),
        _ => false,
    }
}

fn naive(rule: &Rule, item: Option<&Item>) -> bool {
    let found = |steps: &Steps| look_up(item, steps);
    match rule {
        Rule::Compare(a, sign, b) => compare(a, sign, b, item),
        Rule::Between(a, b, c) => compare(a, ">=", b, item) && compare(a, "<=", c, item),
        Rule::In(a, list) => list.iter().any(|b| compare(a, "=", b, item)),
        Rule::Exists(steps) => found(steps).is_some(),
        Rule::Absent(steps) => found(steps).is_none(),
        Rule::Type(steps, kind) => found(steps).is_some_and(|value| Type::of(&value) == *kind),
        Rule::Begins(steps, start) => match (found(steps), given(start, item)) {
            (Some(value), Ok(Some(start))) => begins(&value, &start),
            _ => false,
        },
        Rule::Contains(steps, part) => match (found(steps), given(part, item)) {
            (Some(value), Ok(Some(part))) => contains(&value, &part),
            _ => false,
        },
        Rule::ItemExists => item.is_some(),
        Rule::ItemAbsent => item.is_none(),
        Rule::Not(rule) => !naive(rule, item),
        Rule::And(a, b) => naive(a, item) && naive(b, item),
        Rule::Or(a, b) => naive(a, item) || naive(b, item),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn conditions_hold_as_naively_evaluated(rule in rule(), item in small_item()) {
        let condition = build(&rule);
        // A value of a type without order, or size() where text is needed, is refused.
        if let Err(error) = condition.to_dynamodb(&mut Params::new()) {
            prop_assert!(error.to_string().contains(" takes "), "{}", error);
            return Ok(());
        }
        let view = ItemView::new(item.encode().unwrap()).unwrap();
        let expected = naive(&rule, Some(&item));
        prop_assert_eq!(condition.matches(&view).unwrap(), expected, "{}", condition);
        prop_assert_eq!(condition.matches_item(&item).unwrap(), expected, "{}", condition);
        let none: Option<&ItemView<Vec<u8>>> = None;
        prop_assert_eq!(fuzzing::holds(&condition, none).unwrap(), naive(&rule, None), "{}", condition);

        let mut params = Params::new();
        let printed = condition.to_dynamodb(&mut params).unwrap();
        prop_assert_eq!(&Condition::parse(&printed, &params).unwrap(), &condition, "{}", printed);
        let mut text = Text::default();
        let written = text.rule(&rule);
        prop_assert_eq!(&Condition::parse(&written, &text.params()).unwrap(), &condition, "{}", written);
    }

    #[test]
    fn projections_select_as_naively_found(paths in proptest::collection::vec(steps(), 1..5), item in small_item()) {
        let projection = Projection::of(paths.iter().map(|steps| path(steps)));
        let Ok(printed) = projection.to_dynamodb(&mut Params::new()) else { return Ok(()) };
        let view = ItemView::new(item.encode().unwrap()).unwrap();
        let part = projection.apply(&view).unwrap();
        // Whatever is selected is there, and nothing else: the number of values that are no list or map agrees.
        let mut selected = 0;
        for steps in &paths {
            let Some(value) = look_up(Some(&item), steps) else { continue };
            selected += ends(&value);
            // Indexes count the selected elements alone.
            let mut at = vec![steps[0].clone()];
            for (i, step) in steps.iter().enumerate().skip(1) {
                at.push(match step {
                    Step::Name(name) => Step::Name(name),
                    Step::Index(index) => {
                        let mut before: Vec<usize> = paths
                            .iter()
                            .filter(|other| look_up(Some(&item), other).is_some() && other.len() > i && other[..i] == steps[..i])
                            .filter_map(|other| if let Step::Index(at) = other[i] { Some(at) } else { None })
                            .filter(|at| at < index)
                            .collect();
                        before.sort_unstable();
                        before.dedup();
                        Step::Index(before.len())
                    }
                });
            }
            prop_assert_eq!(look_up(Some(&part), &at), Some(value), "{} of {}", printed, item);
        }
        prop_assert_eq!(ends(&Value::M(part.clone())).max(1), selected.max(1), "{} of {}: {}", printed, item, part);
        let mut params = Params::new();
        let printed = projection.to_dynamodb(&mut params).unwrap();
        prop_assert_eq!(Projection::parse(&printed, &params).unwrap(), projection);
    }
}

/// Values that are no list or map; an empty one counts as such a value.
fn ends(value: &Value) -> usize {
    match value {
        Value::L(list) if !list.is_empty() => list.iter().map(ends).sum(),
        Value::M(map) if !map.is_empty() => map.iter().map(|(_, value)| ends(value)).sum(),
        _ => 1,
    }
}
