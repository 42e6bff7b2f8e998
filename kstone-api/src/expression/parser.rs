//! Text to expressions, by recursive descent.
//!
//! ```text
//! condition   and (OR and)*                    and   not (AND not)*
//! not         NOT not | "(" condition ")" | test
//! test        operand (= <> < <= > >=) operand | operand BETWEEN operand AND operand
//!           | operand IN "(" operand ("," operand)* ")" | function
//! function    attribute_exists(path) | attribute_not_exists(path) | attribute_type(path, :type)
//!           | begins_with(path, operand) | contains(path, operand) | item_exists() | item_not_exists()
//! operand     path | :value | size(path)
//! update      clauses, in any order, each at most once, one at least
//! clause      SET path = sum ("," path = sum)* | REMOVE path ("," path)*
//!           | ADD path :value ("," path :value)* | DELETE path :value ("," path :value)*
//! sum         term (("+" | "-") term)?
//! term        path | :value | if_not_exists(path, sum) | list_append(sum, sum) | "(" sum ")"
//! projection  path ("," path)*
//! path        name ("." name | "[" index "]")*  name  a word that is not reserved, or #name
//! ```
//!
//! Keywords may be in lower case, functions must be. The recursion ends at [`MAX_NESTING`].

use kstone_core::{Error, Result};

use super::Type;
use super::condition::{Comparison, Condition, Test};
use super::lexer::{self, Token};
use super::limits::{MAX_IN, MAX_NESTING, MAX_TEXT, Refusal};
use super::operand::Term;
use super::params::Expressions;
use super::path::{Path, Step, attr};
use super::projection::Projection;
use super::reserved;
use super::update::{Actions, Update};
use crate::value::Value;

/// Reads one text. `'a` is the life of the parameters.
pub(super) struct Parser<'t, 'e, 'a> {
    text: &'t str,
    expressions: &'e mut Expressions<'a>,
    /// The next token, where it starts and where it ends.
    next: (Token<'t>, usize, usize),
    /// How many parentheses, NOTs and functions are open.
    nesting: usize,
}

const FUNCTIONS: &str = "attribute_exists, attribute_not_exists, attribute_type, begins_with, contains, size, \
                         item_exists or item_not_exists";

impl<'t, 'e, 'a> Parser<'t, 'e, 'a> {
    pub(super) fn new(text: &'t str, expressions: &'e mut Expressions<'a>) -> Result<Self> {
        if text.len() > MAX_TEXT {
            return Err(Error::InvalidExpression {
                why: format!("its text is longer than {MAX_TEXT} bytes"),
            });
        }
        Ok(Self { text, expressions, next: lexer::token(text, 0), nesting: 0 })
    }

    // Tokens.

    fn advance(&mut self) -> Token<'t> {
        let (token, _, end) = self.next;
        self.next = lexer::token(self.text, end);
        token
    }

    fn at(&self) -> usize {
        self.next.1
    }

    fn failed<T>(&self, expected: impl Into<String>) -> Result<T> {
        Err(Error::ExpressionSyntax { text: self.text.to_owned(), at: self.at(), expected: expected.into() })
    }

    fn invalid<T>(&self, at: usize, why: impl std::fmt::Display) -> Result<T> {
        Err(Error::InvalidExpression { why: format!("at byte {at}: {why}") })
    }

    /// What a part of the text made, or why it was refused.
    fn made<T>(&self, at: usize, made: Result<T, Refusal>) -> Result<T> {
        made.or_else(|refusal| self.invalid(at, refusal.0))
    }

    fn takes(&mut self, sign: &'static str) -> bool {
        let found = self.next.0 == Token::Sign(sign);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<()> {
        if self.takes(sign) { Ok(()) } else { self.failed(format!("{sign:?}")) }
    }

    fn takes_keyword(&mut self, keyword: &str) -> bool {
        let found = self.next.0.is_keyword(keyword);
        if found {
            self.advance();
        }
        found
    }

    fn expect_end(&self, expected: &str) -> Result<()> {
        if self.next.0 == Token::End { Ok(()) } else { self.failed(expected) }
    }

    /// Whether a word is followed by a parenthesis: then it is a function.
    fn function(&self) -> Option<&'t str> {
        let (Token::Word(word), _, end) = self.next else { return None };
        (lexer::token(self.text, end).0 == Token::Sign("(")).then_some(word)
    }

    /// Reads something that is nested.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting == MAX_NESTING {
            return self.invalid(self.at(), format_args!("it nests deeper than {MAX_NESTING} levels"));
        }
        self.nesting += 1;
        let found = read(self)?;
        self.nesting -= 1;
        Ok(found)
    }

    // Conditions.

    pub(super) fn condition(&mut self) -> Result<Condition> {
        let condition = self.or()?;
        self.expect_end("AND, OR, or the end")?;
        // Limits that only the whole exceeds.
        condition.check()?;
        Ok(condition)
    }

    fn or(&mut self) -> Result<Condition> {
        let mut condition = self.and()?;
        while self.takes_keyword("OR") {
            condition = condition | self.and()?;
        }
        Ok(condition)
    }

    fn and(&mut self) -> Result<Condition> {
        let mut condition = self.not()?;
        while self.takes_keyword("AND") {
            condition = condition & self.not()?;
        }
        Ok(condition)
    }

    fn not(&mut self) -> Result<Condition> {
        if self.takes_keyword("NOT") {
            return Ok(!self.nested(Self::not)?);
        }
        if self.takes("(") {
            let condition = self.nested(Self::or)?;
            if !self.takes(")") {
                return self.failed("AND, OR or \")\"");
            }
            return Ok(condition);
        }
        let at = self.at();
        let test = self.test()?;
        let condition = Condition::leaf(|| test);
        match condition.check() {
            Err(Error::InvalidExpression { why }) => self.invalid(at, why),
            _ => Ok(condition),
        }
    }

    fn test(&mut self) -> Result<Result<Test, Refusal>> {
        match self.function() {
            None | Some("size") => {}
            Some(function) => return self.test_function(function),
        }
        let value = self.operand()?;
        if self.takes_keyword("BETWEEN") {
            let least = self.operand()?;
            if !self.takes_keyword("AND") {
                return self.failed("AND and the greatest value");
            }
            return Ok(Test::between(value, least, self.operand()?));
        }
        if self.takes_keyword("IN") {
            return Ok(Test::is_in(value, self.list()?));
        }
        let comparison = match self.next.0 {
            Token::Sign("=") => Comparison::Eq,
            Token::Sign("<>") => Comparison::Ne,
            Token::Sign("<") => Comparison::Lt,
            Token::Sign("<=") => Comparison::Le,
            Token::Sign(">") => Comparison::Gt,
            Token::Sign(">=") => Comparison::Ge,
            _ => return self.failed("=, <>, <, <=, >, >=, BETWEEN or IN"),
        };
        self.advance();
        Ok(Test::compare(value, comparison, self.operand()?))
    }

    fn list(&mut self) -> Result<Vec<Term>> {
        self.expect("(")?;
        let mut list = vec![self.operand()?];
        while self.takes(",") {
            if list.len() == MAX_IN {
                return self.invalid(self.at(), format_args!("IN takes 1 to {MAX_IN} operands"));
            }
            list.push(self.operand()?);
        }
        if !self.takes(")") {
            return self.failed("\",\" or \")\"");
        }
        Ok(list)
    }

    fn test_function(&mut self, function: &str) -> Result<Result<Test, Refusal>> {
        let names = [
            "attribute_exists",
            "attribute_not_exists",
            "attribute_type",
            "begins_with",
            "contains",
            "item_exists",
            "item_not_exists",
        ];
        if !names.contains(&function) {
            return self.failed(match function {
                "if_not_exists" | "list_append" => format!("a condition: {function} is for updates"),
                _ => format!("one of the functions {FUNCTIONS}"),
            });
        }
        self.advance();
        self.expect("(")?;
        let test = match function {
            "item_exists" => Ok(Test::ItemExists),
            "item_not_exists" => Ok(Test::ItemAbsent),
            "attribute_exists" => Ok(Test::Exists(self.path()?)),
            "attribute_not_exists" => Ok(Test::Absent(self.path()?)),
            "attribute_type" => {
                let path = self.path()?;
                self.expect(",")?;
                let at = self.at();
                let kind = self.value()?;
                let kind = kind.as_str().and_then(Type::from_name);
                let Some(kind) = kind else {
                    return self.invalid(at, "the type is one of S, N, B, BOOL, NULL, L, M, SS, NS and BS");
                };
                Ok(Test::IsType(path, kind))
            }
            "begins_with" => {
                let path = self.path()?;
                self.expect(",")?;
                Test::begins_with(path, self.operand()?)
            }
            _ => {
                let path = self.path()?;
                self.expect(",")?;
                Test::contains(path, self.operand()?)
            }
        };
        self.expect(")")?;
        Ok(test)
    }

    /// An operand of a condition.
    fn operand(&mut self) -> Result<Term> {
        match self.function() {
            Some("size") => {
                self.advance();
                self.expect("(")?;
                let path = self.path()?;
                self.expect(")")?;
                Ok(Term::Size(path))
            }
            Some(_) => self.failed("a path, a value such as :v, or size(path)"),
            None => match self.next.0 {
                Token::Value(_) => self.value().map(Term::Value),
                Token::Word(_) | Token::Name(_) => self.path().map(Term::Path),
                _ => self.failed("a path, a value such as :v, or a function"),
            },
        }
    }

    // Updates.

    pub(super) fn update(&mut self) -> Result<Update> {
        let mut actions = Actions::default();
        let mut done: Vec<&str> = Vec::new();
        loop {
            let clauses = ["SET", "REMOVE", "ADD", "DELETE"];
            let Some(clause) = clauses.into_iter().find(|clause| self.next.0.is_keyword(clause)) else {
                return match done.is_empty() {
                    true => self.failed("SET, REMOVE, ADD or DELETE"),
                    false => self.failed("\",\", SET, REMOVE, ADD, DELETE, or the end"),
                };
            };
            if done.contains(&clause) {
                return self.invalid(
                    self.at(),
                    format_args!("{clause} occurs twice; separate its actions by commas"),
                );
            }
            done.push(clause);
            self.advance();
            self.action(clause, &mut actions)?;
            while self.takes(",") {
                self.action(clause, &mut actions)?;
            }
            if self.next.0 == Token::End {
                return actions.finish().map_err(Refusal::into_error);
            }
        }
    }

    fn action(&mut self, clause: &str, actions: &mut Actions) -> Result<()> {
        let at = self.at();
        let path = self.path()?;
        let added = match clause {
            "SET" => {
                self.expect("=")?;
                let term = self.sum()?;
                actions.set(path, term)
            }
            "REMOVE" => actions.remove(path),
            "ADD" => actions.add(path, self.value()?),
            _ => actions.delete(path, self.value()?),
        };
        self.made(at, added)
    }

    fn sum(&mut self) -> Result<Term> {
        let at = self.at();
        let first = self.term()?;
        if self.takes("+") {
            let second = self.term()?;
            return self.made(at, Term::plus(first, second));
        }
        if self.takes("-") {
            let second = self.term()?;
            return self.made(at, Term::minus(first, second));
        }
        Ok(first)
    }

    fn term(&mut self) -> Result<Term> {
        let at = self.at();
        if self.takes("(") {
            let term = self.nested(Self::sum)?;
            self.expect(")")?;
            return Ok(term);
        }
        match self.function() {
            Some("if_not_exists") => {
                self.advance();
                self.expect("(")?;
                let path = self.path()?;
                self.expect(",")?;
                let other = self.nested(Self::sum)?;
                self.expect(")")?;
                self.made(at, Term::if_absent(path, other))
            }
            Some("list_append") => {
                self.advance();
                self.expect("(")?;
                let first = self.nested(Self::sum)?;
                self.expect(",")?;
                let second = self.nested(Self::sum)?;
                self.expect(")")?;
                self.made(at, Term::append(first, second))
            }
            Some(_) => self.failed("a path, a value such as :v, if_not_exists or list_append"),
            None => match self.next.0 {
                Token::Value(_) => self.value().map(Term::Value),
                Token::Word(_) | Token::Name(_) => self.path().map(Term::Path),
                _ => self.failed("a path, a value such as :v, or a function"),
            },
        }
    }

    // Projections.

    pub(super) fn projection(&mut self) -> Result<Projection> {
        let mut projection = Projection::new().path(self.path()?);
        while self.takes(",") {
            projection = projection.path(self.path()?);
        }
        self.expect_end("\",\" or the end")?;
        projection.checked().map_err(Refusal::into_error)
    }

    // Paths and values.

    fn path(&mut self) -> Result<Path> {
        let at = self.at();
        let mut path = attr(self.name()?);
        loop {
            if self.takes(".") {
                path = path.step(Step::Field(self.name()?));
            } else if self.takes("[") {
                let Token::Digits(digits) = self.next.0 else { return self.failed("an index") };
                let Ok(index) = digits.parse() else { return self.failed("a smaller index") };
                self.advance();
                path = path.step(Step::Index(index));
                self.expect("]")?;
            } else {
                return match path.check() {
                    Ok(()) => Ok(path),
                    Err(refusal) => self.invalid(at, refusal.0),
                };
            }
        }
    }

    fn name(&mut self) -> Result<String> {
        let name = match self.next.0 {
            Token::Word(word) if reserved::is_reserved(word) => {
                return self.failed(format!(
                    "a name, and {} is a reserved word; use a placeholder such as #{}",
                    word.to_ascii_uppercase(),
                    word.to_ascii_lowercase()
                ));
            }
            Token::Word(word) => word.to_owned(),
            Token::Name(placeholder) => match self.expressions.use_name(placeholder) {
                Some(name) => name.to_owned(),
                None => return self.invalid(self.at(), format_args!("there is no name for {placeholder}")),
            },
            _ => return self.failed("a name"),
        };
        self.advance();
        Ok(name)
    }

    fn value(&mut self) -> Result<Value> {
        let Token::Value(placeholder) = self.next.0 else { return self.failed("a value such as :v") };
        let Some(value) = self.expressions.use_value(placeholder) else {
            return self.invalid(self.at(), format_args!("there is no value for {placeholder}"));
        };
        self.advance();
        Ok(value.clone())
    }
}
