//! `kstone-bench run`: workloads on engines, side by side.

use std::process::ExitCode;

use anyhow::Result;

use super::measure::{Measure, all_is_well, describe};
use crate::engine::EngineSpec;
use crate::{results, sweep};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    measure: Measure,
    /// Engines, whose trials take turns: `kstone`, `kstone-items` (the same with items instead of bytes), `noop` (does nothing: the cost of the harness), and the peers of this
    /// build, such as `fjall` and `fjall-tuned`. `kstone#1,kstone#2` measures the same engine twice.
    #[arg(long, value_delimiter = ',', default_value = "kstone", value_name = "NAME")]
    engine: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let settings = args.measure.settings()?;
    let specs: Vec<_> = args
        .engine
        .iter()
        .map(|name| {
            let mut engine = EngineSpec::parse(name);
            if engine.is_ours() {
                engine.settings.clone_from(&settings);
            }
            args.measure.spec(engine)
        })
        .collect::<Result<_>>()?;
    let file = args.measure.run(&specs)?;
    let mut series = results::series(&[&file]);
    // Groups engines with the same conditions.
    let order: Vec<_> = series.iter().map(|one| one.conditions.clone()).collect();
    series.sort_by_key(|one| order.iter().position(|conditions| *conditions == one.conditions));
    for one in &series {
        println!("{}", describe(one, &file));
        if let Some(warning) = sweep::only_memtables(one) {
            println!("{warning}\n");
        }
    }
    Ok(if all_is_well(&file) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
