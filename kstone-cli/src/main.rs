//! `kstone`: a KeystoneDB directory from the command line.
//!
//! Data goes to stdout, everything else to stderr; the exit status says what happened (see `failure`).

#![forbid(unsafe_code)]

mod args;
mod commands;
mod escape;
mod failure;
mod input;
mod interrupt;
mod key_types;
mod output;

use std::process::ExitCode;

use anstream::ColorChoice;
use clap::Parser as _;

use args::{Cli, Color};

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::with_default_command(std::env::args_os()));
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
