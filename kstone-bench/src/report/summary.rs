//! All workloads on one page: a table for each durability, and the workloads in which KeystoneDB is slower.

use super::Table;
use super::contest::{Contest, rate};
use crate::engine::Durability;
use crate::results::{Conditions, Series, durability};
use crate::statistics;
use crate::units::{self, NOTHING};

/// A contest with more engines than this is a sweep rather than a table, and has a section of its own.
const MOST: usize = 12;

/// A row for each set of conditions under which several engines ran, a column for each engine.
pub(super) fn tables(contests: &[Contest<'_>]) -> Vec<Table> {
    [Durability::Buffered, Durability::Sync].into_iter().filter_map(|of| table(contests, of)).collect()
}

fn table(contests: &[Contest<'_>], of: Durability) -> Option<Table> {
    let chosen = |contest: &&Contest<'_>| {
        contest.conditions.durability == of && (2..=MOST).contains(&contest.series.len())
    };
    let contests: Vec<&Contest<'_>> = contests.iter().filter(chosen).collect();
    let mut labels: Vec<String> = Vec::new();
    for series in contests.iter().flat_map(|contest| &contest.series) {
        if !labels.contains(&series.label()) {
            labels.push(series.label());
        }
    }
    labels.sort_by_key(|label| (label != "kstone", label.clone()));
    if labels.is_empty() || labels.len() > MOST {
        return None;
    }
    let caption = format!(
        "Durability \"{}\": operations a second, medians, in brackets × kstone; * the fastest",
        durability(of)
    );
    let mut head = vec!["workload"];
    head.extend(labels.iter().map(String::as_str));
    let mut table = Table::new(&caption, &head);
    for contest in &contests {
        let best = contest.rivals().next().map(|series| series.label());
        let mut cells = vec![name(contest.conditions, &contests)];
        for label in &labels {
            let series = contest.series.iter().find(|series| series.label() == *label);
            let star = if best.as_ref() == Some(label) { " *" } else { "" };
            cells.push(units::optional(series, |series| format!("{}{star}", cell(contest, series))));
        }
        table.push(false, cells);
    }
    Some(table)
}

fn cell<'a>(contest: &Contest<'a>, series: &Series<'a>) -> String {
    let Some(median) = statistics::median(&series.rates()) else { return NOTHING.to_owned() };
    match contest.ratio(series) {
        Some(ratio) => format!("{} ({:.2})", rate(median), ratio.value),
        None => rate(median),
    }
}

/// The workload, and how it differs from others with that name.
fn name(conditions: &Conditions, contests: &[&Contest<'_>]) -> String {
    let same = contests.iter().filter(|contest| contest.conditions.workload == conditions.workload);
    if same.count() > 1 { conditions.to_string() } else { conditions.workload.clone() }
}

/// A sentence for each engine that was faster than KeystoneDB, and whether that may be chance.
pub(super) fn losses(contests: &[Contest<'_>]) -> Vec<String> {
    let mut losses = Vec::new();
    for contest in contests {
        for series in contest.rivals().filter(|series| series.engine.name != "kstone") {
            let Some(ratio) = contest.ratio(series).filter(|ratio| ratio.value > 1.0) else { continue };
            let sure = if ratio.excludes_no_change() { "" } else { ", which may be chance" };
            let (conditions, label) = (contest.conditions, series.label());
            losses.push(format!("{conditions}: {label} is {:.2} times as fast{sure}", ratio.value));
        }
    }
    losses
}
