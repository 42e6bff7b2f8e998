//! The chapter's claims, read from `claims.toml`, and the tables made from them and from the results of the sweeps.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Deserialize;

use super::probe::Figures;
use super::scale::Scale;
use super::sweep::{SweepPoint, Swept};
use super::table::{ChapterTable, Group, Line, Says};
use super::verdict::{self, Direction, Grade, Shape, Target};
use crate::units::Unit;

/// The number of stripes that the chapter's totals refer to.
const STRIPES: f64 = 256.0;

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) scales: BTreeMap<String, Scale>,
    targets: BTreeMap<String, Target>,
    pub(super) table: Vec<TableClaim>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableClaim {
    pub(super) id: String,
    pub(super) about: String,
    pub(super) title: String,
    pub(super) sweeps: Vec<String>,
    done: String,
    notes: Vec<String>,
    group: Vec<toml::Table>,
}

#[derive(Debug, Deserialize)]
struct GroupClaim {
    quantity: String,
    unit: Unit,
    by: String,
    shape: Option<ShapeClaim>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LineClaim {
    point: String,
    /// Whether the point may be missing, because a machine may be too small for it.
    optional: bool,
    row: Option<String>,
    figure: String,
    medians: bool,
    when: Option<String>,
    otherwise: String,
    says: Option<SaysClaim>,
    tail: Option<SaysClaim>,
    of_tail: bool,
    up_to: Option<String>,
    equals: Option<String>,
    scaled: Option<Scaled>,
    model: Option<String>,
    grade: Option<GradeClaim>,
    not_graded: Option<String>,
    plotted: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum SaysClaim {
    Words(String),
    About(String, f64),
    Between(String, f64, f64),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scaled {
    Stripes,
    Records,
    Inverse,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum GradeClaim {
    Named(String),
    Own(Target),
}

/// One of the claims, and the figures that decide it. Without any, there is no shape.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ShapeClaim {
    rises: Option<String>,
    falls: Option<String>,
    agrees: Option<String>,
    at_most: Option<String>,
    factor: Option<String>,
    all: Option<String>,
    each: Option<String>,
    tolerance: f64,
    /// Instead of the tolerance, where there are enough trials: what they show themselves.
    paired: bool,
    /// The limit of `at_most`, instead of the claimed figure; the worst trial counts.
    limit: Option<String>,
    worst: bool,
    low: f64,
    high: f64,
    /// Only these points.
    points: Vec<String>,
    figure: String,
    conditions: Vec<(String, String)>,
}

/// A line, its point, and the claim it was made from.
type Row<'a> = (Line, &'a SweepPoint);

impl Claims {
    pub(super) fn read() -> Result<Self> {
        toml::from_str(include_str!("claims.toml")).context("the chapter's claims")
    }
}

impl TableClaim {
    /// Makes the table from the results of the sweeps. `common` holds the names available to all tables.
    pub(super) fn table(
        &self,
        claims: &Claims,
        common: &BTreeMap<String, Value>,
        swept: &[&Swept],
    ) -> Result<ChapterTable> {
        let made = Maker::new(claims, common, swept);
        let mut groups = Vec::new();
        for table in &self.group {
            let all = match table.get("each").and_then(toml::Value::as_array) {
                None => vec![table.clone()],
                Some(each) => {
                    each.iter().filter_map(toml::Value::as_table).map(|own| merged(table, own)).collect()
                }
            };
            for one in all {
                let quantity =
                    one.get("quantity").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
                groups.push(made.group(one).with_context(|| quantity)?);
            }
        }
        let notes =
            self.notes.iter().map(|note| made.text(note, &Figures::default())).collect::<Result<Vec<_>>>()?;
        Ok(ChapterTable {
            id: self.id.clone(),
            title: self.title.clone(),
            done: made.text(&self.done, &Figures::default())?,
            trials: swept.iter().find_map(|swept| swept.trials).unwrap_or(0),
            groups,
            notes: notes.iter().flat_map(|note| note.lines()).map(str::to_owned).collect(),
            ..ChapterTable::default()
        })
    }
}

/// The common names, overridden by the table's own.
fn merged(common: &toml::Table, own: &toml::Table) -> toml::Table {
    let mut all = common.clone();
    all.remove("each");
    all.extend(own.clone());
    all
}

fn of_point(point: &SweepPoint) -> toml::Value {
    toml::Value::Table([("point".to_owned(), point.key.clone().into())].into_iter().collect())
}

struct Maker<'a> {
    claims: &'a Claims,
    environment: Environment<'static>,
    /// The names available everywhere in templates and expressions.
    names: BTreeMap<String, Value>,
    points: Vec<&'a SweepPoint>,
    stripes: f64,
    divide: f64,
}

impl<'a> Maker<'a> {
    fn new(claims: &'a Claims, common: &BTreeMap<String, Value>, swept: &[&'a Swept]) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_filter("nanos", |value: f64| Unit::Nanos.text(value));
        environment.add_filter("bytes", |value: f64| Unit::Bytes.text(value));
        let number =
            |name: &str| common.get(name).and_then(|value| f64::try_from(value.clone()).ok()).unwrap_or(1.0);
        let (stripes, divide) = (number("stripes"), number("divide"));
        let mut names = common.clone();
        names.extend(swept.iter().flat_map(|swept| swept.names.clone()));
        let points: Vec<&SweepPoint> = swept.iter().flat_map(|swept| &swept.points).collect();
        let rows: BTreeMap<&str, Figures> =
            points.iter().map(|point| (point.key.as_str(), point.medians())).collect();
        names.insert("rows".to_owned(), Value::from(Serde(&rows)));
        Self { claims, environment, names, points, stripes, divide }
    }

    fn scope(&self, figures: &Figures) -> BTreeMap<String, Value> {
        let mut names = self.names.clone();
        names.extend(figures.0.iter().map(|(name, value)| (name.clone(), Value::from(*value))));
        names
    }

    fn value(&self, expression: &str, figures: &Figures) -> Result<Value> {
        let compiled = self.environment.compile_expression(expression);
        let value = compiled.and_then(|compiled| compiled.eval(self.scope(figures)));
        value.with_context(|| format!("the measurement has no figure {expression:?}"))
    }

    fn number(&self, expression: &str, figures: &Figures) -> Result<f64> {
        let value = self.value(expression, figures)?;
        f64::try_from(value).with_context(|| format!("{expression:?} is no number"))
    }

    fn holds(&self, expression: &str, figures: &Figures) -> Result<bool> {
        Ok(self.value(expression, figures)?.is_true())
    }

    fn text(&self, template: &str, figures: &Figures) -> Result<String> {
        self.environment.render_str(template, self.scope(figures)).with_context(|| template.to_owned())
    }

    fn group(&self, mut table: toml::Table) -> Result<Group> {
        let lines = table.remove("lines").and_then(|lines| lines.as_array().cloned());
        let claim: GroupClaim = toml::Value::Table(table.clone()).try_into()?;
        for key in ["quantity", "unit", "by", "shape"] {
            table.remove(key);
        }
        let lines = match lines {
            Some(lines) => lines,
            None => self.points.iter().map(|point| of_point(point)).collect(),
        };
        let mut rows = Vec::new();
        for line in lines.iter().filter_map(toml::Value::as_table) {
            let line: LineClaim = toml::Value::Table(merged(&table, line)).try_into()?;
            match self.points.iter().find(|point| point.key == line.point) {
                Some(point) => rows.push((self.line(&line, point)?, *point)),
                None if line.optional => {}
                None => bail!("there is no point {:?}", line.point),
            }
        }
        let shape = claim.shape.as_ref().map(|shape| self.shape(shape, &rows)).transpose()?.flatten();
        let lines = rows.into_iter().map(|(line, _)| line).collect();
        let GroupClaim { quantity, unit, by, .. } = claim;
        Ok(Group { quantity, unit, by, lines, shape })
    }

    fn line(&self, claim: &LineClaim, point: &SweepPoint) -> Result<Line> {
        let medians = point.medians();
        let row = claim.row.as_ref().map_or(Ok(point.row.clone()), |row| self.text(row, &medians))?;
        let measured = claim.when.as_ref().map_or(Ok(true), |when| self.holds(when, &medians))?;
        let mut line = match &point.absent {
            Some(why) => Line::not_here(row, why),
            None if !measured => Line::not_here(row, &claim.otherwise),
            None if claim.medians => Line::new(row, vec![self.number(&claim.figure, &medians)?]),
            None => {
                let trials = point.trials().map(|figures| self.number(&claim.figure, &figures));
                Line::new(row, trials.collect::<Result<_>>()?)
            }
        };
        line.at = point.at.filter(|_| claim.plotted != Some(false));
        line.says = self.says(claim, &medians)?;
        line.model = claim.model.as_ref().map(|model| self.number(model, &medians)).transpose()?;
        line.grade = match (&claim.grade, &claim.not_graded) {
            (_, Some(why)) => Some(Grade::NotGraded(why.clone())),
            (None, None) => None,
            (Some(grade), None) => {
                let target = match grade {
                    GradeClaim::Own(target) => target,
                    GradeClaim::Named(name) => {
                        self.claims.targets.get(name).with_context(|| format!("no target {name}"))?
                    }
                };
                line.measured.median().map(|value| target.grade(value))
            }
        };
        Ok(line)
    }

    /// Converts a claim about whole memtables or all stripes to fewer of them: in the same words, with the number
    /// scaled.
    fn says(&self, claim: &LineClaim, figures: &Figures) -> Result<Option<Says>> {
        let claimed = if claim.of_tail { &claim.tail } else { &claim.says };
        let Some(claimed) = claimed.clone() else { return Ok(None) };
        let (suffix, share) = match claim.scaled {
            None => ("", 1.0),
            Some(Scaled::Inverse) => ("", self.divide),
            Some(Scaled::Records) => ("", 1.0 / self.divide),
            Some(Scaled::Stripes) if self.stripes == STRIPES => ("", 1.0 / self.divide),
            Some(Scaled::Stripes) => (" at 256 stripes", self.stripes / STRIPES / self.divide),
        };
        let number =
            |expression: &Option<String>| expression.as_ref().map(|it| self.number(it, figures)).transpose();
        Ok(Some(match (claimed, number(&claim.up_to)?, number(&claim.equals)?) {
            (SaysClaim::Words(text), Some(limit), _) => Says::between(self.text(&text, figures)?, 0.0, limit),
            (SaysClaim::Words(text), _, Some(value)) => Says::about(text, value),
            (SaysClaim::Words(text), None, None) => Says::words(text),
            (SaysClaim::About(text, value), ..) => Says::about(text + suffix, value * share),
            (SaysClaim::Between(text, low, high), ..) => {
                Says::between(text + suffix, low * share, high * share)
            }
        }))
    }

    fn shape(&self, claim: &ShapeClaim, rows: &[Row<'_>]) -> Result<Option<Shape>> {
        let chosen = |key: &String| claim.points.is_empty() || claim.points.contains(key);
        let rows = || rows.iter().filter(|(_, point)| chosen(&point.key));
        let measured = || rows().filter_map(|(line, point)| Some((line, *point, line.measured.median()?)));
        let values: Vec<(String, f64)> =
            measured().map(|(line, _, value)| (line.row.clone(), value)).collect();
        let claimed_limits = || {
            let limit = |line: &Line| line.says.as_ref().and_then(|says| says.high);
            measured()
                .filter_map(move |(line, _, value)| Some((line.row.clone(), value, limit(line)?)))
                .collect::<Vec<_>>()
        };
        let trials: Vec<(String, &[f64])> =
            measured().map(|(line, ..)| (line.row.clone(), line.measured.values())).collect();
        let monotone = |claimed: &String, direction| {
            let paired = claim.paired.then(|| verdict::paired(claimed, direction, &trials)).flatten();
            paired.unwrap_or_else(|| verdict::monotone(claimed, direction, &values, claim.tolerance))
        };
        Ok(Some(if let Some(claimed) = &claim.rises {
            monotone(claimed, Direction::Rises)
        } else if let Some(claimed) = &claim.falls {
            monotone(claimed, Direction::Falls)
        } else if let Some(claimed) = &claim.agrees {
            verdict::agrees(claimed, &claimed_limits(), claim.tolerance)
        } else if let Some(claimed) = &claim.at_most {
            let mut points = claimed_limits();
            if let Some(limit) = &claim.limit {
                points.clear();
                for (line, point, middle) in measured() {
                    let value = if claim.worst {
                        line.measured.range().map_or(middle, |range| range.1)
                    } else {
                        middle
                    };
                    points.push((line.row.clone(), value, self.number(limit, &point.medians())?));
                }
            }
            verdict::at_most(claimed, &points, claim.tolerance)
        } else if let Some(claimed) = &claim.factor {
            let points = self.points.iter().filter(|point| chosen(&point.key));
            let value =
                |point: &&SweepPoint| Ok((point.row.clone(), self.number(&claim.figure, &point.medians())?));
            verdict::factor(claimed, &points.map(value).collect::<Result<Vec<_>>>()?, claim.low, claim.high)
        } else if let Some(claimed) = &claim.all {
            let mut conditions = Vec::new();
            for (name, condition) in &claim.conditions {
                let mut trials = rows().flat_map(|(_, point)| point.trials());
                let holds = trials.try_fold(true, |all, figures| {
                    Ok::<_, anyhow::Error>(all & self.holds(condition, &figures)?)
                })?;
                conditions.push((name.as_str(), holds));
            }
            verdict::all(claimed, &conditions)
        } else if let Some(claimed) = &claim.each {
            let holds = |(line, point): &'_ Row<'_>| {
                Ok((line.row.clone(), self.holds(&claim.figure, &point.medians())?))
            };
            let conditions: Vec<(String, bool)> = rows().map(holds).collect::<Result<_>>()?;
            verdict::all(
                claimed,
                &conditions.iter().map(|(name, holds)| (name.as_str(), *holds)).collect::<Vec<_>>(),
            )
        } else {
            return Ok(None);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers in the claims for each line of the group.
    fn claims_of(table: &str, quantity: &str) -> Vec<(f64, f64)> {
        let claims = Claims::read().unwrap();
        let table = claims.table.iter().find(|one| one.id == table).unwrap();
        let group = table
            .group
            .iter()
            .find(|group| group.get("quantity").and_then(|it| it.as_str()) == Some(quantity));
        let number = |line: &toml::Value| {
            let line: LineClaim = line.clone().try_into().unwrap();
            let Some(SaysClaim::About(_, value)) = line.says else { panic!("{line:?}") };
            (line.point.parse().unwrap(), value)
        };
        group.unwrap()["lines"].as_array().unwrap().iter().map(number).collect()
    }

    #[test]
    fn the_rows_are_consistent_where_the_chapter_is() {
        let flushes = claims_of("23.1-throughput", "flushes per 100k writes");
        assert!(
            flushes.len() == 4 && flushes.iter().all(|(at, said)| at * said == 1e5),
            "100k writes: {flushes:?}"
        );
        let stripe = claims_of("23.1-memory", "fullest memtable of a stripe");
        assert!(
            stripe.len() == 4 && stripe.iter().all(|(at, said)| *said == 200.0 * at),
            "200 bytes: {stripe:?}"
        );
        let bits = claims_of("23.3-bits", "memory of 1M keys");
        assert!(bits.len() == 6 && bits.iter().all(|(at, said)| *said == at * 1e6 / 8.0), "{bits:?}");
    }

    fn made(stripes: u32, claim: &str) -> Group {
        let point = |key: &str, values: &[f64], absent: Option<&str>| SweepPoint {
            found: values.iter().map(|value| Figures([("speed".to_owned(), *value)].into())).collect(),
            absent: absent.map(str::to_owned),
            ..SweepPoint::named(key)
        };
        let points =
            vec![point("1", &[1.0, 3.0], None), point("8", &[], Some("2 cores")), point("2", &[4.0], None)];
        let swept = Swept { points, ..Swept::default() };
        let common =
            [("stripes", stripes), ("divide", 1)].map(|(name, value)| (name.to_owned(), value.into()));
        let claims = Claims::read().unwrap();
        Maker::new(&claims, &common.into(), &[&swept]).group(toml::from_str(claim).unwrap()).unwrap()
    }

    const SPEED: &str = "quantity = 'speed'\nunit = 'bytes'\nby = 'threads'\nfigure = 'speed'\n";

    #[test]
    fn a_group_is_judged_by_what_was_measured_only() {
        let group = made(256, &format!("{SPEED}shape = {{ rises = 'more:', tolerance = 0.5 }}"));
        assert_eq!(group.lines.len(), 3);
        let shape = group.shape.unwrap();
        assert!(shape.holds == Some(true) && shape.why.starts_with("2 against 1: +100 %"), "{shape:?}");
    }

    #[test]
    fn totals_of_all_stripes_are_compared_with_their_share() {
        let claim = format!("{SPEED}says = ['~50 MB', 50e6]\nscaled = 'stripes'");
        let says = made(16, &claim).lines[0].says.clone().unwrap();
        assert_eq!((says.text.as_str(), says.low), ("~50 MB at 256 stripes", Some(3.125e6)));
        assert_eq!(made(256, &claim).lines[0].says, Some(Says::about("~50 MB", 50e6)));
    }

    #[test]
    fn what_a_claim_names_must_be_there() {
        let claims = Claims::read().unwrap();
        let (swept, common) = (Swept::default(), BTreeMap::new());
        let maker = Maker::new(&claims, &common, &[&swept]);
        assert!(maker.number("nothing + 1", &Figures::default()).is_err());
        let line = format!("{SPEED}lines = [{{ point = '3' }}]");
        assert!(maker.group(toml::from_str(&line).unwrap()).unwrap_err().to_string().contains("no point"));
    }
}
