//! `kstone-bench sweep`: one setting of kstone, several values.

use std::process::ExitCode;

use anyhow::{Context, Result};
use comfy_table::Table;

use super::measure::{Measure, all_is_well, number};
use crate::engine::{EngineSpec, counter};
use crate::record::{Latency, Step, TrialSpec};
use crate::results::{self, Series, latency_of};
use crate::workload::{Task, Workload};
use crate::{statistics, sweep, units};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    measure: Measure,
    /// What to vary: a setting of docs/settings-and-counters.md, or `items`, `value`, `threads`.
    #[arg(long, value_name = "NAME=VALUE,VALUE,...")]
    param: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (name, values) = args.param.split_once('=').context("--param is like sst_threshold=5,10,20")?;
    let values: Vec<&str> = values.split(',').collect();
    let specs = values.iter().map(|value| spec(&args.measure, name, value)).collect::<Result<Vec<_>>>()?;
    let file = args.measure.run(&specs)?;
    let series = results::series(&[&file]);
    for workload in specs.first().map(|spec| &spec.steps).into_iter().flatten().map(|step| &step.workload) {
        println!("{}", table(name, &values, &specs, workload, &series));
    }
    Ok(if all_is_well(&file) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spec(measure: &Measure, name: &str, value: &str) -> Result<TrialSpec> {
    let mut measure = measure.clone();
    let given = || number(value).map_err(|why| anyhow::anyhow!("{name}={value}: {why}"));
    match name {
        "items" => measure.items = given()?,
        "value" => measure.value = given()?,
        "threads" => measure.threads = given()?,
        _ => measure.set = format!("{},{name}={value}", measure.set),
    }
    let settings = measure.settings()?;
    measure.spec(EngineSpec { settings, ..EngineSpec::new("kstone") })
}

fn table(name: &str, values: &[&str], specs: &[TrialSpec], workload: &str, series: &[Series<'_>]) -> String {
    let mut table = Table::new();
    table.set_header([
        name,
        "ops/s",
        "p50",
        "p99",
        "write amp",
        "runs/get",
        "filter FPR",
        "anonymous",
        "stalled",
    ]);
    for (value, spec) in values.iter().zip(specs) {
        let Some(one) = found(spec, workload, series) else {
            table.add_row([*value, "failed"]);
            continue;
        };
        let kind = one.kinds().into_iter().next().unwrap_or_default().to_owned();
        let latency = |figure: fn(&Latency) -> u64| {
            one.median(
                |step| latency_of(step, &kind).map(|latency| figure(latency) as f64),
                units::nanoseconds,
            )
        };
        table.add_row([
            (*value).to_owned(),
            units::optional(statistics::summary(&one.rates()), |summary| summary.text(units::rate)),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            one.median(|step| step.write_amplification, units::digits),
            one.median(Step::runs_per_get, units::digits),
            one.median(Step::false_positives, units::percent),
            one.median(|step| Some(step.resources.peak_anonymous as f64), units::bytes),
            one.median(|step| step.counters.get(counter::STALL_NANOS).copied(), units::nanoseconds),
        ]);
    }
    let circumstances = series.iter().find(|one| one.conditions.workload == workload);
    let circumstances = circumstances.map_or(String::new(), |one| one.conditions.circumstances());
    format!("{workload}, {circumstances}\n{table}\n{}", verdict(name, values, specs, workload, series))
}

/// The series of a value.
fn found<'a>(spec: &TrialSpec, workload: &str, series: &'a [Series<'a>]) -> Option<&'a Series<'a>> {
    series.iter().find(|one| {
        one.conditions.workload == workload
            && one.engine == &spec.engine
            && one.conditions.items == spec.items
            && one.conditions.value_bytes == spec.value_bytes
            && one.conditions.threads == spec.threads
    })
}

/// What the table shows, in words, and what makes it doubtful.
fn verdict(
    name: &str,
    values: &[&str],
    specs: &[TrialSpec],
    workload: &str,
    series: &[Series<'_>],
) -> String {
    // Steps that prepare others are no subject of the sweep.
    if Workload::by_name(workload).is_ok_and(|workload| workload.task == Task::Settle) {
        return String::new();
    }
    let pairs = values.iter().zip(specs);
    let found: Vec<_> =
        pairs.filter_map(|(value, spec)| Some((*value, spec, found(spec, workload, series)?))).collect();
    let Some((.., first)) = found.first() else { return String::new() };
    let measure = sweep::Measure::of(first);
    // Settings at their defaults are left out of a spec; the number of items and the like have none.
    let setting = !matches!(name, "items" | "value" | "threads");
    let set = |spec: &TrialSpec| {
        spec.engine.settings.split(',').any(|part| part.split_once('=').is_some_and(|(set, _)| set == name))
    };
    let value = |(value, spec, one): &(&str, &TrialSpec, &Series<'_>)| sweep::Value {
        name: format!("{name}={value}"),
        figures: measure.figures(one),
        default: setting && !set(spec),
    };
    let mut text = sweep::verdict(&found.iter().map(value).collect::<Vec<_>>(), measure) + "\n";
    for warning in found.iter().filter_map(|(.., one)| sweep::only_memtables(one)) {
        text += &format!("{warning}\n");
    }
    text
}
