//! `kstone version`.

use anyhow::Result;
use kstone_api::inspect;
use serde_json::json;

use crate::args::Format;
use crate::output::print_result;

pub(crate) fn run(verbose: bool, format: Format) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let (file, key) = (inspect::FILE_FORMAT, inspect::KEY_FORMAT);
    let more = match verbose {
        true => format!("\nfile format   {file}\nkey encoding  {key}"),
        false => String::new(),
    };
    let json =
        json!({"schema": "kstone.version/1", "version": version, "file_format": file, "key_encoding": key});
    print_result(format, &format!("kstone {version}{more}"), json)
}
