//! `kstone`: the command line of KeystoneDB.
//!
//! Data goes to stdout, everything else to stderr; the exit status reports the outcome (see `failure`).

#![forbid(unsafe_code)]

mod args;
mod commands;
mod escape;
mod expressions;
mod failure;
mod input;
mod interrupt;
mod key_types;
mod output;
mod records;
mod selection;
mod settings;

use std::process::ExitCode;

use anstream::ColorChoice;
use clap::Parser as _;
use clap::error::{ContextValue, ErrorKind};

use args::{Cli, Color};

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(args::with_default_command(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return usage(error),
    };
    match cli.color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    }
    .write_global();
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failure::report(&e, &cli),
    }
}

/// Prints help, the version, or a usage error. A usage error quotes arguments, which may contain anything.
fn usage(mut error: clap::Error) -> ExitCode {
    let quoted: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in quoted {
        let shown = |text: &str| kstone_api::escape::text(text).into_owned();
        let value = match value {
            ContextValue::String(text) => ContextValue::String(shown(&text)),
            ContextValue::Strings(texts) => {
                ContextValue::Strings(texts.iter().map(|text| shown(text)).collect())
            }
            ContextValue::StyledStr(text) => ContextValue::StyledStr(shown(&text.to_string()).into()),
            ContextValue::StyledStrs(texts) => {
                ContextValue::StyledStrs(texts.iter().map(|text| shown(&text.to_string()).into()).collect())
            }
            other => other,
        };
        error.insert(kind, value);
    }
    // An error is ignored: stderr is closed.
    let _ = error.print();
    if error.kind() == ErrorKind::InvalidUtf8 {
        output::tell("hint: write keys that are not UTF-8 as text: \\xNN stands for a byte");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::exit::USAGE))
}
