//! Reports: what must be in them, what must not, and what happens to bad input.

use kstone_bench::record::RunFile;
use kstone_bench::report;

use crate::sample;

/// Where a person can look at the reports of these tests: the directory in `KSTONE_REPORTS`.
fn keep(name: &str, text: &str) {
    if let Some(directory) = std::env::var_os("KSTONE_REPORTS") {
        std::fs::write(std::path::Path::new(&directory).join(name), text).unwrap();
    }
}

fn page(name: &str, files: &[RunFile]) -> (String, String) {
    let document = report::document(files).unwrap();
    let (html, markdown) = (report::html(&document).unwrap(), report::markdown(&document));
    keep(&format!("{name}.html"), &html);
    keep(&format!("{name}.md"), &markdown);
    (html, markdown)
}

#[test]
fn pages_can_be_looked_at() {
    page("run", &[sample::run_file()]);
    page("sweep", &[sample::sweep_file()]);
}
