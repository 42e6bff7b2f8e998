//! The machine and the build that figures come from: facts that can be read, two probes of the disk, their meaning for
//! a database, and reasons to doubt a measurement.
//!
//! All facts come from Linux; whatever it does not report is "unknown" or 0, never a guess.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::record::Machine;
use crate::units;

mod mount;
mod probe;

pub(crate) use probe::read_4k;

const UNKNOWN: &str = "unknown";

/// Records this machine, this build, and the disk of `directory`. Takes about a second, longer on slow disks; the files
/// of the probes are removed.
pub fn record(directory: &Path) -> Result<Machine> {
    let directory = directory.canonicalize().with_context(|| format!("{}", directory.display()))?;
    // Before the probes, because they are a load themselves.
    let load = load();
    let mount = mount::Mount::of(&directory, &read("/proc/self/mountinfo"));
    let fsync = probe::fsync(&directory)
        .with_context(|| format!("the time of an fsync in {} cannot be measured", directory.display()))?;
    let read_4k = match mount.in_memory() {
        true => None,
        // In a file of 32 MiB. Reads answered by a cache say nothing.
        false => read_4k(&directory, 8192, 200, probe::LONGEST)?
            .filter(|reads| reads.device_share.is_none_or(|share| share >= 1.0)),
    };
    Ok(Machine {
        cpu: processor(&read("/proc/cpuinfo")),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: memory(&read("/proc/meminfo")),
        governor: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        kernel: format!(
            "{} {}",
            first_line("/proc/sys/kernel/ostype"),
            first_line("/proc/sys/kernel/osrelease")
        ),
        file_system: mount.file_system(),
        disk: mount.disk(),
        fsync_p50_nanos: fsync.as_nanos() as u64,
        read_4k_p50_nanos: read_4k.map_or(0, |reads| reads.middle.as_nanos() as u64),
        load,
        ..build()
    })
}

/// The facts known without examining the machine.
pub fn build() -> Machine {
    let features = env!("KSTONE_BENCH_FEATURES").split(',').filter(|feature| !feature.is_empty());
    let allocator = if cfg!(target_env = "gnu") { "system (glibc)" } else { "system" };
    Machine {
        rustc: env!("KSTONE_BENCH_RUSTC").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("KSTONE_BENCH_COMMIT").to_owned(),
        features: features.map(str::to_owned).collect(),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        allocator: allocator.to_owned(),
        ..Machine::default()
    }
}

/// The record in words, as rows of a table. `build` names the versions and commits measured.
pub fn rows(machine: &Machine, build: &str) -> Vec<(&'static str, String)> {
    let probed = |nanos: u64| match nanos {
        0 => "not known".to_owned(),
        nanos => units::nanoseconds(nanos as f64),
    };
    let features = if machine.features.is_empty() { "none".to_owned() } else { machine.features.join(", ") };
    let rows = vec![
        ("processor", machine.cpu.clone()),
        ("cores", machine.cores.to_string()),
        ("memory", units::bytes(machine.memory_bytes as f64)),
        ("governor", machine.governor.clone()),
        ("kernel", machine.kernel.clone()),
        ("file system", machine.file_system.clone()),
        ("disk", machine.disk.clone()),
        ("4 KiB appended and made durable", probed(machine.fsync_p50_nanos)),
        ("4 KiB read past the page cache", probed(machine.read_4k_p50_nanos)),
        ("load before", format!("{:.2}", machine.load)),
        ("compiler", machine.rustc.clone()),
        ("KeystoneDB", build.to_owned()),
        ("features", features),
        ("profile, allocator", format!("{}, {}", machine.profile, machine.allocator)),
    ];
    let known = |value: String| if value.is_empty() { UNKNOWN.to_owned() } else { value };
    rows.into_iter().map(|(name, value)| (name, known(value))).collect()
}

/// Reasons to doubt figures from this machine, one sentence each; empty if there are none.
pub fn warnings(machine: &Machine) -> Vec<String> {
    let mut warnings = Vec::new();
    if machine.cores == 0 {
        warnings
            .push("the machine is not recorded: nobody can tell where these figures come from".to_owned());
    }
    if is_loaded(machine) {
        warnings.push(format!(
            "the load was {:.2} on {} cores before the measurement: other programs distort the results",
            machine.load, machine.cores
        ));
    }
    if is_dirty(machine) {
        warnings.push(format!(
            "built from {} with changes that are not committed: nobody else can repeat this",
            machine.commit.trim_end_matches('+')
        ));
    }
    if machine.profile == "debug" {
        warnings
            .push("a debug build: its figures say nothing about a release build; use --release".to_owned());
    }
    if !matches!(machine.governor.as_str(), "performance" | UNKNOWN | "") {
        warnings.push(format!(
            "the frequency governor is \"{}\", not \"performance\": speed changes with temperature and load",
            machine.governor
        ));
    }
    warnings
}

/// Whether the load is above half of the cores.
pub fn is_loaded(machine: &Machine) -> bool {
    machine.cores > 0 && machine.load > machine.cores as f64 / 2.0
}

/// Whether the sources differ from the commit.
pub fn is_dirty(machine: &Machine) -> bool {
    machine.commit.ends_with('+')
}

/// A property in which two machines or builds differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whether figures from the two are incomparable. Otherwise the difference may be what is being measured.
    pub matters: bool,
    name: &'static str,
    first: String,
    second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} differs: {} and {}", self.name, self.first, self.second)
    }
}

/// The differences between two machines and builds, except for commit and times.
pub fn differences(first: &Machine, second: &Machine) -> Vec<Difference> {
    // Kernels reserve different amounts for themselves.
    let memory = |machine: &Machine| units::bytes(machine.memory_bytes.next_multiple_of(1 << 28) as f64);
    let fields = |machine: &Machine| {
        [
            (true, "processor", machine.cpu.clone()),
            (true, "number of cores", machine.cores.to_string()),
            (true, "memory", memory(machine)),
            (true, "file system", machine.file_system.clone()),
            (true, "disk", machine.disk.clone()),
            (true, "profile", machine.profile.clone()),
            (false, "governor", machine.governor.clone()),
            (false, "kernel", machine.kernel.clone()),
            (false, "compiler", machine.rustc.clone()),
            (false, "allocator", machine.allocator.clone()),
            (false, "version", machine.version.clone()),
        ]
    };
    let pairs = fields(first).into_iter().zip(fields(second));
    let differences =
        pairs.map(|((matters, name, first), (_, _, second))| Difference { matters, name, first, second });
    differences.filter(|difference| difference.first != difference.second).collect()
}

/// What to expect of a database on this machine, one sentence each.
pub fn meaning(machine: &Machine) -> Vec<String> {
    let mut meaning = Vec::new();
    let (sync, read) = (machine.fsync_p50_nanos as f64, machine.read_4k_p50_nanos as f64);
    if sync > 0.0 {
        meaning.push(format!(
            "a durable write costs at least {} here, so about {} a second by one thread; concurrent writers share a \
             sync",
            units::nanoseconds(sync),
            units::rate(1e9 / sync)
        ));
    }
    if read > 0.0 {
        meaning.push(format!(
            "a read of an item that is in no cache costs at least {}, so about {} a second by one thread; a filter's false \
             positive may cost as much",
            units::nanoseconds(read),
            units::rate(1e9 / read)
        ));
    } else {
        meaning.push(
            "reads past the page cache cannot be asked for here: the cost of a read when memory is short is unknown"
                .to_owned(),
        );
    }
    if machine.cores > 0 {
        meaning.push(format!(
            "{} cores, shared by client threads, flushes and merges; with more than {} threads, latencies include \
             waiting for a core",
            machine.cores, machine.cores
        ));
    }
    if machine.memory_bytes > 0 {
        meaning.push(format!(
            "data below about {} stays in the page cache and is read from memory, unless --mem-limit is given",
            units::bytes(machine.memory_bytes as f64)
        ));
    }
    meaning
}

fn load() -> f64 {
    read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// Reads a file; empty if it does not exist.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn first_line(path: &str) -> String {
    let text = read(path);
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).unwrap_or(UNKNOWN).to_owned()
}

/// The processor's name in `/proc/cpuinfo`; some architectures have none there.
fn processor(cpuinfo: &str) -> String {
    let named = |name: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    named("model name")
        .or_else(|| named("Model"))
        .or_else(|| named("cpu"))
        .unwrap_or_else(|| format!("{UNKNOWN} ({})", std::env::consts::ARCH))
}

/// `MemTotal` of `/proc/meminfo`, which is in kibibytes.
fn memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes =
        total.and_then(|total| total.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Machine {
        Machine {
            cores: 4,
            load: 2.0,
            commit: "0123456789".to_owned(),
            profile: "release".to_owned(),
            governor: "performance".to_owned(),
            ..Machine::default()
        }
    }

    #[test]
    fn what_makes_figures_doubtful_is_told_and_nothing_else() {
        assert_eq!(warnings(&quiet()), Vec::<String>::new());
        let one = |change: fn(&mut Machine), word: &str| {
            let mut machine = quiet();
            change(&mut machine);
            let told = warnings(&machine);
            assert!(told.len() == 1 && told[0].contains(word), "{word}: {told:?}");
        };
        one(|machine| machine.load = 2.1, "load was 2.10");
        one(|machine| machine.cores = 0, "not recorded");
        one(|machine| machine.commit.push('+'), "not committed");
        one(|machine| machine.profile = "debug".to_owned(), "debug build");
        one(|machine| machine.governor = "powersave".to_owned(), "powersave");
    }

    #[test]
    fn this_machine_is_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let machine = record(directory.path()).unwrap();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.fsync_p50_nanos > 0, "{machine:?}");
        assert!(machine.rustc.starts_with("rustc "), "{machine:?}");
        assert_ne!(machine.file_system, "");
        assert_ne!(machine.disk, "");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0, "the probes' files are gone");
        let error = record(&directory.path().join("none")).unwrap_err();
        assert!(format!("{error:#}").contains("none"), "{error:#}");
    }

    #[test]
    fn meaning_is_in_figures_of_the_database() {
        let mut machine = quiet();
        machine.fsync_p50_nanos = 1_300_000;
        machine.read_4k_p50_nanos = 100_000;
        let text = meaning(&machine).join("\n");
        assert!(text.contains("at least 1.30 ms here, so about 769 a second"), "{text}");
        assert!(text.contains("at least 100 µs, so about 10,000 a second"), "{text}");
        machine.read_4k_p50_nanos = 0;
        assert!(meaning(&machine).join("\n").contains("cannot be asked for"));
    }

    #[test]
    fn machines_that_differ_are_told_apart() {
        assert_eq!(differences(&quiet(), &quiet()), []);
        let mut other = quiet();
        (other.load, other.fsync_p50_nanos, other.commit) = (0.1, 5, "abc".to_owned());
        assert_eq!(differences(&quiet(), &other), [], "these are not the machine");
        other.kernel = "Linux 7".to_owned();
        assert!(differences(&quiet(), &other).iter().all(|difference| !difference.matters));
        other.cores = 8;
        let told = differences(&quiet(), &other);
        assert!(told.iter().any(|difference| difference.matters));
        assert_eq!(told[0].to_string(), "number of cores differs: 4 and 8");
    }

    #[test]
    fn files_of_the_kernel_are_read_as_they_are() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nprocessor\t: 1\nmodel name\t: AMD EPYC 9B14\n";
        assert_eq!(processor(cpuinfo), "AMD EPYC 9B14");
        assert_eq!(processor("processor\t: 0\n"), format!("unknown ({})", std::env::consts::ARCH));
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       8050396 kB\n"), 8_050_396 * 1024);
        assert_eq!(memory(""), 0);
    }
}
