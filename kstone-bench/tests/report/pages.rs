//! Reports: what must be in them, what must not, and what happens to bad input.

use assert_cmd::Command;
use kstone_bench::chapter::{ChapterTable, Group, Line, Says};
use kstone_bench::engine::{Durability, counter};
use kstone_bench::record::{RunFile, Step};
use kstone_bench::report::{self, Document};
use kstone_bench::results;
use kstone_bench::units::Unit;

use crate::sample;

/// The document, the page and the tables.
fn report_of(files: &[RunFile]) -> (Document, String, String) {
    let document = report::document(files).unwrap();
    let (html, markdown) = (report::html(&document).unwrap(), report::markdown(&document).unwrap());
    (document, html, markdown)
}

/// One file, nothing from elsewhere, and every plot has what makes it legible.
fn check_page(document: &Document, html: &str) {
    for outside in ["http:", "https:", "//", "<script", "<link", "<img", "@import", "url(", "src=", "<iframe"]
    {
        assert!(!html.contains(outside), "the page refers to something else: {outside}");
    }
    let plots: Vec<_> = document.sections.iter().flat_map(|section| &section.plots).collect();
    assert_eq!(html.matches("<svg ").count(), plots.len());
    assert_eq!(html.matches("</svg>").count(), plots.len());
    for plot in plots {
        let svg = &plot.svg;
        assert!(
            svg.contains("role=\"img\" aria-label=\"") && !svg.contains("aria-label=\"\""),
            "{}",
            plot.title
        );
        let title = plot.title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(svg.contains(&format!("<title>{title}</title>")), "{}", plot.title);
        assert!(html.contains(&format!("<h3>{title}</h3>")), "{}", plot.title);
        assert!(svg.matches("<title>").count() > 1, "{}: tooltips", plot.title);
        let sizes = svg.split("font-size=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let sizes: Vec<f64> = sizes.map(|size| size.parse().unwrap()).collect();
        assert!(sizes.iter().all(|size| *size >= 11.0), "{}: {sizes:?}", plot.title);
        // Labels of axes are larger than all other text, and one of the two stands upright.
        let labels = sizes.iter().filter(|size| **size > 13.2).count();
        assert!(labels >= 2 && svg.contains("rotate(270"), "{}: {labels} labels of axes", plot.title);
        assert!(!plot.caption.is_empty() && !svg.contains("NaN"), "{}", plot.title);
    }
}

#[test]
fn a_run_with_peers_is_one_page_with_every_kind_of_plot() {
    let (document, html, markdown) = report_of(&[sample::run_file()]);
    check_page(&document, &html);
    let titles: Vec<&str> =
        document.sections.iter().flat_map(|section| &section.plots).map(|plot| plot.title.as_str()).collect();
    for workload in ["fillrandom", "readrandom", "fillsync"] {
        let kind = if workload == "readrandom" { "get" } else { "put" };
        for title in [
            format!("{workload}: operations a second"),
            format!("{workload}: throughput over time"),
            format!("{workload}: latency of {kind}"),
            format!("{workload}: percentiles of {kind}"),
        ] {
            assert!(titles.contains(&title.as_str()), "{title}: {titles:?}");
        }
    }
    assert!(html.contains("flushes of kstone: 780") && html.contains("merges of kstone: 64"));
    assert!(html.contains("<title>heed: p99"), "tooltips of percentiles");
    for text in [&html, &markdown] {
        assert!(
            text.contains("AMD EPYC 7B13") && text.contains("1.30 ms"),
            "the machine goes with the figures"
        );
        assert!(text.contains("Durability") && text.contains("buffered") && text.contains("sync"));
    }
}

#[test]
fn engines_stand_from_fast_to_slow_and_losses_are_said() {
    let (document, _, markdown) = report_of(&[sample::run_file()]);
    let reads = document.sections.iter().find(|section| section.title == "readrandom").unwrap();
    let order: Vec<&str> = reads.tables[0].rows.iter().map(|row| row.cells[0].as_str()).collect();
    assert_eq!(order, ["heed", "kstone", "redb", "fjall", "rusqlite-tuned"]);
    assert_eq!(document.losses.len(), 1, "{:?}", document.losses);
    let loss = document.losses[0].as_str();
    assert!(loss.starts_with("readrandom") && loss.contains("heed is 2.1"), "{loss}");
    assert!(markdown.contains("**Where KeystoneDB is slower**\n\n* readrandom"), "{markdown}");
}

#[test]
fn the_tables_of_durabilities_are_apart() {
    let (document, ..) = report_of(&[sample::run_file()]);
    let rows = |at: usize| -> Vec<String> {
        document.summaries[at].rows.iter().map(|row| row.cells[0].clone()).collect()
    };
    assert_eq!(document.summaries.len(), 2);
    assert!(document.summaries[0].caption.contains("\"buffered\""));
    assert_eq!(rows(0), ["fillrandom", "readrandom"]);
    assert!(document.summaries[1].caption.contains("\"sync\""));
    assert_eq!(rows(1), ["fillsync"]);
    // A workload may decide it for itself.
    let mut file = sample::run_file();
    for trial in &mut file.trials {
        trial.steps[0].durability = Some(Durability::Sync);
    }
    let (document, ..) = report_of(&[file]);
    assert_eq!(document.summaries[0].rows[0].cells[0], "readrandom");
    assert_eq!(document.summaries[1].rows[0].cells[0], "fillrandom");
}

/// Three trials of round numbers, as text.
#[test]
fn markdown_of_a_small_run_is_this() {
    let mut file = sample::file(sample::trials(&sample::peers()[..2], 3, Durability::Buffered, 1));
    for trial in &mut file.trials {
        trial.steps.truncate(1);
        let rate = if trial.spec.engine.name == "kstone" { 200_000.0 } else { 150_000.0 };
        let latency = trial.steps[0].latencies["put"].clone();
        trial.steps[0] = Step {
            workload: "fillrandom".to_owned(),
            operations: 1_000_000,
            rate: rate * (1.0 + trial.number as f64 / 100.0),
            steady: true,
            latencies: [("put".to_owned(), latency)].into(),
            write_amplification: Some(3.25),
            ..Step::default()
        };
        let latency = trial.steps[0].latencies.get_mut("put").unwrap();
        (latency.p50, latency.p90, latency.p99) = (12_000, 20_000, 96_000);
        (latency.p999, latency.max, latency.count) = (410_000, 38_000_000, 1_000_000);
    }
    let (_, _, markdown) = report_of(&[file]);
    let expected = "\
Durability \"buffered\": operations a second, medians, in brackets × kstone; \\* the fastest:

| workload | kstone | fjall |
|---|---:|---:|
| fillrandom | 202,000 \\* | 151,500 (0.75) |

## fillrandom

1,000,000 items x 200 B, 4 threads, closed loop, durability=buffered

Throughput:

| engine | trials | operations/s | min … max | × kstone | 95 % interval |
|---|---:|---:|---:|---:|---:|
| **kstone** | 3 | 202,000 | 200,000 … 204,000 | 1 | - |
| fjall | 3 | 151,500 | 150,000 … 153,000 | 0.75 | - |

Latency, medians of the trials; the slowest of all of them:

| engine | operation | counted from | p50 | p90 | p99 | p99.9 | max | count |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
| **kstone** | put | its start | 12.0 µs | 20.0 µs | 96.0 µs | 410 µs | 38.0 ms | 3,000,000 |
| fjall | put | its start | 12.0 µs | 20.0 µs | 96.0 µs | 410 µs | 38.0 ms | 3,000,000 |

Resource usage, medians of the trials:

| engine | write ampl. |
|---|---:|
| **kstone** | 3.25 |
| fjall | 3.25 |
";
    let found = &markdown[markdown.find("Durability \"buffered\"").unwrap()..];
    assert_eq!(found, expected);
    assert!(markdown.contains("75 % for 3 trials"), "{markdown}");
}

#[test]
fn sweeps_are_plotted_with_what_theory_says() {
    let (document, html, markdown) = report_of(&[sample::sweep_file()]);
    check_page(&document, &html);
    let plot = |title: &str| {
        let mut plots = document.sections.iter().flat_map(|section| &section.plots);
        plots.find(|plot| plot.title == title).unwrap_or_else(|| panic!("{title}"))
    };
    let cells = |title: &str| plot(title).table.as_ref().unwrap().rows.iter().map(|row| row.cells.clone());
    let bits: Vec<_> = cells("readmissing: false positives against bits per key").collect();
    assert_eq!(
        bits.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(),
        ["6", "8", "10", "12", "16", "20"]
    );
    let theory = |row: &Vec<String>| row[3].trim_end_matches(" %").parse::<f64>().unwrap();
    assert!((theory(&bits[2]) - 0.9).abs() < 0.15, "{bits:?}");
    assert!(bits.windows(2).all(|pair| theory(&pair[0]) > theory(&pair[1])), "{bits:?}");
    let runs: Vec<_> = cells("readrandom: read latency against runs").map(|row| row[0].clone()).collect();
    assert_eq!(runs, ["2", "5", "10", "20", "30"]);
    let mut told_less = sample::sweep_file();
    for step in told_less.trials.iter_mut().flat_map(|trial| &mut trial.steps) {
        step.counters.remove("runs");
    }
    let less = report::document(&[told_less]).unwrap();
    let mut plots = less.sections.iter().flat_map(|section| &section.plots);
    let looked = plots.find(|plot| plot.title == "readmissing: read latency against runs").unwrap();
    assert!(looked.svg.contains("runs looked at per get, mean"));
    let k: Vec<_> = cells("fillrandom: write amplification against sst_threshold").collect();
    assert_eq!(k.len(), 5);
    let model = |row: &Vec<String>| row[3].parse::<f64>().unwrap();
    assert!(k.windows(2).all(|pair| model(&pair[0]) >= model(&pair[1]) && model(&pair[1]) > 1.0), "{k:?}");
    assert!(plot("fillrandom: write amplification against sst_threshold").svg.contains("model: K 10"));
    assert!(markdown.contains("| bits per key | measured |"), "exact figures are in the tables too");
    let rates: Vec<_> = cells("fillrandom: throughput against sst_threshold").collect();
    assert_eq!(rates.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["4", "6", "10", "16", "20"]);
    assert!(rates.iter().all(|row| row[2].contains(" … ")), "{rates:?}");
    assert!(plot("readmissing: throughput against max_memtable_records").svg.contains("(logarithmic)"));
    assert_eq!(cells("readmissing: throughput against bloom_bits_per_key").count(), 6);
    let fill = document.sections.iter().find(|section| section.title == "fillrandom").unwrap();
    for table in &fill.tables {
        assert!(table.rows.iter().all(|row| row.cells[0].starts_with("sst_threshold=")), "{:?}", table.rows);
    }
    assert!(fill.notes.iter().any(|note| note.ends_with("names: max_memtable_records=200, stripes=16")));
}

#[test]
fn tables_of_the_chapter_are_sections_with_plots_where_rows_are_numbers() {
    let line = |row: f64, values: [f64; 3], says: f64| Line {
        at: Some(row),
        says: Some(Says::about("about so", says)),
        model: Some(values[1] * 1.1),
        ..Line::new(row.to_string(), values.to_vec())
    };
    let group = |quantity: &str, unit, by: &str, lines| Group {
        quantity: quantity.to_owned(),
        unit,
        by: by.to_owned(),
        lines,
        shape: None,
    };
    let lines = vec![
        line(500.0, [61e3, 63e3, 64e3], 40e3),
        line(1000.0, [90e3, 93e3, 97e3], 50e3),
        line(5000.0, [131e3, 133e3, 140e3], 70e3),
        line(10_000.0, [139e3, 141e3, 144e3], 80e3),
    ];
    let other = group("lag", Unit::Nanos, "interval", vec![Line::not_here("10 s", "it takes <too> long")]);
    let group = group("write throughput", Unit::PerSecond, "threshold", lines);
    let table = ChapterTable {
        id: "23.1-throughput".to_owned(),
        title: "Write throughput".to_owned(),
        done: "Filled <randomly>.".to_owned(),
        trials: 3,
        groups: vec![group, other],
        error: Some("half | of it".to_owned()),
        ..ChapterTable::default()
    };
    let mut file = sample::file(Vec::new());
    file.command = "kstone-bench chapter --only 23.1".to_owned();
    file.machine = Default::default();
    file.chapter = Some(vec![table]);
    let text = serde_json::to_string(&file).unwrap();
    let (document, html, markdown) = report_of(&[results::parse(&text).unwrap()]);
    check_page(&document, &html);
    let section = &document.sections[0];
    assert!(document.sources[0].starts_with("kstone-bench chapter --only"), "{:?}", document.sources);
    assert!(markdown.contains("machine is not recorded") && markdown.contains("| processor | unknown |"));
    assert_eq!(section.plots.len(), 1, "the other group has no figures");
    assert!(
        ["measured: 93,000/s at 1000", "chapter says: 50,000/s", "model: "]
            .iter()
            .all(|tip| html.contains(tip))
    );
    assert!(html.contains("it takes &lt;too&gt; long") && html.contains("Filled &lt;randomly&gt;"));
    assert!(markdown.contains("| write throughput | threshold 500 | about so | 63,000/s"), "{markdown}");
    assert!(document.troubles[0].contains("half | of it") && markdown.contains("half \\| of it"));
}

#[test]
fn a_run_without_a_sweep_has_no_plots_of_sweeps() {
    let (document, ..) = report_of(&[sample::run_file()]);
    assert!(document.sections.iter().all(|section| !section.title.starts_with("Sweep")));
    let mut file = sample::sweep_file();
    for step in file.trials.iter_mut().flat_map(|trial| &mut trial.steps) {
        step.counters.clear();
    }
    let document = report::document(&[file]).unwrap();
    assert!(document.sections.iter().all(|section| !section.title.starts_with("Sweep")));
}

#[test]
fn names_from_outside_stay_text() {
    let evil = "<script>alert(1)</script> & \"x\" | `y` [z](w)";
    let mut file = sample::file(sample::trials(&sample::peers()[..2], 2, Durability::Buffered, 1));
    file.command = evil.to_owned();
    file.machine.cpu = evil.to_owned();
    file.warnings.push(evil.to_owned());
    for trial in &mut file.trials {
        if trial.spec.engine.name == "fjall" {
            trial.spec.engine.name = evil.to_owned();
        }
        trial.steps[0].workload = evil.to_owned();
        let latencies = &mut trial.steps[0].latencies;
        let put = latencies.remove("put").unwrap();
        latencies.insert(evil.to_owned(), put);
        trial.error = Some(format!("{evil}\n# heading"));
    }
    let (document, html, markdown) = report_of(&[file]);
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    assert_eq!(
        html.matches("<svg ").count(),
        document.sections.iter().map(|section| section.plots.len()).sum::<usize>()
    );
    assert!(!markdown.contains("<script") && !markdown.contains("\n# heading"));
    let bars = |line: &str| line.replace("\\|", "").matches('|').count();
    let lines: Vec<&str> = markdown.lines().collect();
    for table in lines.split(|line| !line.starts_with('|')).filter(|table| !table.is_empty()) {
        assert!(table.iter().all(|line| bars(line) == bars(table[0])), "columns of one number: {table:?}");
    }
    assert!(markdown.contains("\\[z\\]") && markdown.contains("\\`y\\`"));
}

#[test]
fn figures_that_are_missing_or_absurd_do_no_harm() {
    let change: [fn(&mut Step); 9] = [
        |step| step.rate = 0.0,
        |step| step.rate = f64::NAN,
        |step| step.rate = f64::INFINITY,
        |step| step.latencies.clear(),
        |step| step.latencies.values_mut().for_each(|latency| latency.histogram = "no base64!".to_owned()),
        |step| step.latencies.values_mut().for_each(|latency| latency.histogram = "AAAA".to_owned()),
        |step| step.timeline.iter_mut().for_each(|slice| slice.end = f64::NAN),
        |step| {
            step.timeline.truncate(1);
            step.marks = vec![
                (f64::NAN, kstone_bench::engine::MarkKind::Flush),
                (1e300, step.marks.first().map_or(kstone_bench::engine::MarkKind::Flush, |mark| mark.1)),
            ];
        },
        |step| {
            step.counters.insert(counter::FILTER_NEGATIVES.to_owned(), 0.0);
            step.counters.insert(counter::USER_BYTES_WRITTEN.to_owned(), 0.0);
            step.counters.insert(counter::FILTER_FALSE_POSITIVES.to_owned(), f64::NAN);
        },
    ];
    for (number, change) in change.iter().enumerate() {
        for one in [true, false] {
            let mut files = [sample::run_file(), sample::sweep_file()];
            for file in &mut files {
                let steps = file.trials.iter_mut().flat_map(|trial| &mut trial.steps);
                steps.take(if one { 1 } else { usize::MAX }).for_each(change);
                let document = report::document(std::slice::from_ref(file)).unwrap();
                let (html, _) = (report::html(&document).unwrap(), report::markdown(&document).unwrap());
                assert!(!html.contains("NaN") && !html.contains("inf"), "{number}");
            }
        }
    }
}

#[test]
fn trials_that_ended_in_an_error_are_said_and_the_others_shown() {
    let mut file = sample::run_file();
    for trial in file.trials.iter_mut().filter(|trial| trial.spec.engine.name == "redb" && trial.number < 2) {
        trial.steps.clear();
        trial.error = Some("no space left".to_owned());
    }
    file.trials[0].steps[0].wrong = 3;
    file.trials[0].steps[0].steady = false;
    let (document, html, markdown) = report_of(&[file.clone()]);
    assert!(
        document.troubles.iter().any(|trouble| trouble.contains("redb, trial 1: ended after 0 of 2 steps"))
    );
    for text in [&html, &markdown] {
        assert!(text.contains("no space left") && text.contains("3 answers of fillrandom were WRONG"));
        assert!(text.contains("had not become steady"));
    }
    let redb = |row: &&report::Row| row.cells[0] == "redb";
    assert_eq!(
        document.sections[0].tables[0].rows.iter().find(redb).unwrap().cells[1],
        "3",
        "trials that count"
    );
    for trial in &mut file.trials {
        trial.steps.clear();
        trial.error = Some("no space left".to_owned());
    }
    let (document, ..) = report_of(&[file.clone()]);
    assert!(document.sections.is_empty() && !document.troubles.is_empty());
    file.trials.clear();
    assert!(report::document(&[file]).unwrap_err().to_string().contains("nothing to report"));
}

#[test]
fn an_open_loop_shows_what_users_wait_and_what_operations_take() {
    let mut file = sample::file(sample::trials(&sample::peers()[..2], 5, Durability::Buffered, 1));
    for trial in &mut file.trials {
        for (asked, step) in trial.spec.steps.iter_mut().zip(&mut trial.steps) {
            (asked.rate, step.offered, step.rate) = (Some(50_000.0), Some(50_000.0), 50_000.0);
            for latency in step.latencies.values_mut() {
                latency.service = Some(Box::new(latency.clone()));
                latency.from_intended = true;
                latency.p99 = 7_770_000;
            }
        }
        trial.spec.memory_limit = Some(256 << 20);
        trial.memory_limited = trial.number > 5;
    }
    let (document, html, markdown) = report_of(&[file]);
    check_page(&document, &html);
    for text in [&html, &markdown] {
        assert!(text.contains("open loop at 50,000") && text.contains("memory limit not in force"));
        assert!(text.contains("7.77 ms") && text.contains("when it was due") && text.contains("its start"));
    }
    assert!(html.contains("latency of get, since it was due"));
}

#[test]
fn the_engine_that_does_nothing_is_no_rival() {
    let mut samples = sample::peers()[..2].to_vec();
    samples[1].engine.name = "noop".to_owned();
    samples[1].loads.iter_mut().for_each(|load| load.rate *= 50.0);
    let (document, html, _) =
        report_of(&[sample::file(sample::trials(&samples, 5, Durability::Buffered, 1))]);
    check_page(&document, &html);
    assert_eq!(document.losses, Vec::<String>::new());
    assert_eq!(document.sections[0].tables[0].rows[0].cells[0], "noop", "its figures are told");
    assert!(document.summaries[0].rows[0].cells[1].ends_with('*'), "{:?}", document.summaries);
}

#[test]
fn files_of_different_machines_are_not_put_side_by_side() {
    let (first, mut second) = (sample::run_file(), sample::run_file());
    second.machine.commit = "fedcba".to_owned();
    let document = report::document(&[first.clone(), second.clone()]).unwrap();
    let labels: Vec<String> =
        document.sections[0].tables[0].rows.iter().map(|row| row.cells[0].clone()).collect();
    assert!(
        labels.contains(&"kstone @0123456789".to_owned()) && labels.contains(&"kstone @fedcba".to_owned())
    );
    second.machine.disk = "sdb, turning".to_owned();
    let error = report::document(&[first, second]).unwrap_err().to_string();
    assert!(error.contains("disk differs"), "{error}");
}

#[test]
fn the_command_writes_both_and_says_what_is_wrong_with_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("run.json"), serde_json::to_string(&sample::run_file()).unwrap()).unwrap();
    std::fs::write(path("cut.json"), "{\"schema\": \"kstone-ben").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::cargo_bin("kstone-bench").unwrap();
        let output = command.arg("report").args(arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, err) =
        run(&[&path("run.json"), "--html", &path("report.html"), "--md", &path("tables.md")]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    let html = std::fs::read_to_string(path("report.html")).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    assert!(std::fs::read_to_string(path("tables.md")).unwrap().starts_with("# KeystoneDB, measured"));
    let (code, out, _) = run(&[&path("run.json")]);
    assert!(code == Some(0) && out.starts_with("# KeystoneDB, measured"), "{out}");
    let (code, _, err) = run(&[&path("cut.json")]);
    assert!(code == Some(1) && err.contains("cut.json") && err.contains("ends too early"), "{err}");
    let (code, ..) = run(&[]);
    assert_eq!(code, Some(2));
}

#[test]
fn the_sample_is_a_file_that_can_be_read_again() {
    let file = sample::run_file();
    let again = results::parse(&serde_json::to_string(&file).unwrap()).unwrap();
    assert_eq!(again.trials.len(), file.trials.len());
    assert_eq!(results::series(&[&again]).len(), 15);
}
