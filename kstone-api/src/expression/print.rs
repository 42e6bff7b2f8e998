//! Expressions to text: with placeholders for DynamoDB, or with names and values in place for people.

use std::fmt::{self, Write as _};

use kstone_core::{Error, Result};

use super::condition::Test;
use super::limits::{MAX_TEXT, Refusal};
use super::operand::Term;
use super::params::Params;
use super::path::{Path, Step};
use super::update::Actions;
use super::{lexer, reserved};
use crate::value::Value;

/// Writes an expression.
pub(super) struct Printer<'p> {
    out: String,
    /// Receives names and values; without it, they are written in place.
    params: Option<&'p mut Params>,
}

/// The text with names and values in place.
pub(super) fn for_people(print: impl FnOnce(&mut Printer<'_>)) -> String {
    let mut printer = Printer { out: String::new(), params: None };
    print(&mut printer);
    printer.out
}

/// The text with placeholders. After an error the parameters are as before.
pub(super) fn for_dynamodb(params: &mut Params, print: impl FnOnce(&mut Printer<'_>)) -> Result<String> {
    let mut filled = params.clone();
    let mut printer = Printer { out: String::new(), params: Some(&mut filled) };
    print(&mut printer);
    let text = printer.out;
    if text.len() > MAX_TEXT {
        return Err(Error::InvalidExpression { why: format!("its text is longer than {MAX_TEXT} bytes") });
    }
    *params = filled;
    Ok(text)
}

/// In place of an expression that cannot be used.
pub(super) fn refused(refusal: &Refusal, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "<invalid expression: {}>", refusal.0)
}

/// How tightly a test binds: an OR within an AND needs parentheses.
fn level(test: &Test) -> u8 {
    match test {
        Test::Or(_) => 0,
        Test::And(_) => 1,
        _ => 2,
    }
}

impl Printer<'_> {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn put_all<T>(&mut self, things: &[T], between: &str, mut put: impl FnMut(&mut Self, &T)) {
        for (i, thing) in things.iter().enumerate() {
            self.put(if i == 0 { "" } else { between });
            put(self, thing);
        }
    }

    fn name(&mut self, name: &str) {
        let is_plain = lexer::is_plain(name);
        match &mut self.params {
            Some(params) if !is_plain || reserved::is_reserved(name) || reserved::is_clause(name) => {
                self.out.push_str(params.print_name(name));
            }
            None if !is_plain => {
                // Writing to a string cannot fail.
                let _ = write!(self.out, "#{}", Value::from(name));
            }
            _ => self.out.push_str(name),
        }
    }

    fn value(&mut self, value: &Value) {
        match &mut self.params {
            Some(params) => self.out.push_str(&params.print_value(value)),
            None => {
                let _ = write!(self.out, "{value}");
            }
        }
    }

    pub(super) fn path(&mut self, path: &Path) {
        self.name(path.name());
        for step in path.steps() {
            match step {
                Step::Field(name) => {
                    self.put(".");
                    self.name(name);
                }
                Step::Index(index) => {
                    let _ = write!(self.out, "[{index}]");
                }
            }
        }
    }

    pub(super) fn paths(&mut self, paths: &[Path]) {
        self.put_all(paths, ", ", Self::path);
    }

    fn call(&mut self, function: &str, path: &Path, then: impl FnOnce(&mut Self)) {
        self.put(function);
        self.put("(");
        self.path(path);
        then(self);
        self.put(")");
    }

    fn pair(&mut self, first: &Term, between: &str, second: &Term) {
        self.term(first);
        self.put(between);
        self.term(second);
    }

    pub(super) fn term(&mut self, term: &Term) {
        match term {
            Term::Value(value) => self.value(value),
            Term::Path(path) => self.path(path),
            Term::Size(path) => self.call("size", path, |_| ()),
            Term::IfAbsent(path, other) => self.call("if_not_exists", path, |printer| {
                printer.put(", ");
                printer.term(other);
            }),
            Term::Append(first, second) => {
                self.put("list_append(");
                self.pair(first, ", ", second);
                self.put(")");
            }
            Term::Plus(first, second) => self.pair(first, " + ", second),
            Term::Minus(first, second) => self.pair(first, " - ", second),
        }
    }

    /// A test within another, which parentheses surround if it binds less tightly than this.
    fn within(&mut self, test: &Test, least: u8) {
        if level(test) >= least {
            return self.test(test);
        }
        self.put("(");
        self.test(test);
        self.put(")");
    }

    pub(super) fn test(&mut self, test: &Test) {
        match test {
            Test::Compare(a, comparison, b) => {
                self.term(a);
                self.put(" ");
                self.put(comparison.symbol());
                self.put(" ");
                self.term(b);
            }
            Test::Between(value, least, most) => {
                self.pair(value, " BETWEEN ", least);
                self.put(" AND ");
                self.term(most);
            }
            Test::In(value, list) => {
                self.term(value);
                self.put(" IN (");
                self.put_all(list, ", ", Self::term);
                self.put(")");
            }
            Test::Exists(path) => self.call("attribute_exists", path, |_| ()),
            Test::Absent(path) => self.call("attribute_not_exists", path, |_| ()),
            Test::IsType(path, kind) => self.call("attribute_type", path, |printer| {
                printer.put(", ");
                printer.value(&Value::from(kind.name()));
            }),
            Test::BeginsWith(path, start) => self.call("begins_with", path, |printer| {
                printer.put(", ");
                printer.term(start);
            }),
            Test::Contains(path, part) => self.call("contains", path, |printer| {
                printer.put(", ");
                printer.term(part);
            }),
            Test::ItemExists => self.put("item_exists()"),
            Test::ItemAbsent => self.put("item_not_exists()"),
            Test::Not(test) => {
                self.put("NOT ");
                self.within(test, 2);
            }
            Test::And(tests) => self.put_all(tests, " AND ", |printer, test| printer.within(test, 2)),
            Test::Or(tests) => self.put_all(tests, " OR ", |printer, test| printer.within(test, 1)),
        }
    }

    pub(super) fn actions(&mut self, actions: &Actions) {
        let clause = |printer: &mut Self, keyword: &str, print: &mut dyn FnMut(&mut Self)| {
            printer.put(if printer.out.is_empty() { "" } else { " " });
            printer.put(keyword);
            printer.put(" ");
            print(printer);
        };
        if !actions.set.is_empty() {
            clause(self, "SET", &mut |printer| {
                printer.put_all(&actions.set, ", ", |printer, (path, term)| {
                    printer.path(path);
                    printer.put(" = ");
                    printer.term(term);
                });
            });
        }
        if !actions.remove.is_empty() {
            clause(self, "REMOVE", &mut |printer| printer.paths(&actions.remove));
        }
        for (keyword, pairs) in [("ADD", &actions.add), ("DELETE", &actions.delete)] {
            if !pairs.is_empty() {
                clause(self, keyword, &mut |printer| {
                    printer.put_all(pairs, ", ", |printer, (path, value)| {
                        printer.path(path);
                        printer.put(" ");
                        printer.value(value);
                    });
                });
            }
        }
    }
}
