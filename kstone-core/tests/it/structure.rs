//! Checks the structure that ARCHITECTURE.md describes against the sources: layers import only downwards, files do not
//! import each other in circles except declared ones, every file is part of the crate, every file that a document names
//! exists, and phrases that the style rules reject become fewer.
//!
//! Each rule is also violated on purpose, to check that this is detected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Files that import each other, and the reason. A declared circle must be found exactly: once it is cut, its line has
/// to be removed.
const CIRCLES: &[(&[&str], &str)] = &[
    (&["manifest", "manifest::load"], "the facade offers loading, which makes the state it declares"),
    (
        &[
            "repair",
            "repair::commit",
            "repair::examine",
            "repair::gather",
            "repair::losses",
            "repair::plan",
            "repair::salvage",
        ],
        "all steps fill in the report that is declared at the head",
    ),
    (
        &["sst::open", "sst::table"],
        "a table opens its file at its first read, and an open file knows its table",
    ),
    (&["sync", "sync::scheduled"], "with the flag `shuttle` alone"),
    (&["verify", "verify::check", "verify::files"], "both fill in the report that is declared at the head"),
    (&["vfs", "vfs::disk", "vfs::disk::open"], "the head opens files on disk for callers without a `Vfs`"),
    (&["wal::append", "wal::segments", "wal::writer"], "parts of the implementation of one type, `Wal`"),
    (
        &[
            "fuzzing",
            "fuzzing::agree",
            "fuzzing::directory",
            "fuzzing::edits",
            "fuzzing::forged",
            "fuzzing::key",
            "fuzzing::log",
            "fuzzing::manifest",
            "fuzzing::ops",
            "fuzzing::sst",
        ],
        "the targets, and what they have in common at their head",
    ),
    (&["torture::faults", "torture::faults::run"], "the head asks for runs and gathers what they found"),
];

/// Rejected phrases, and how often they still occur in the sources: at most this often.
const WORDS: &[(&str, usize)] = &[
    ("so many", 0),
    ("is told", 1),
    ("are told", 1),
    ("the one that", 2),
    ("what can be said", 0),
    ("for its sake", 0),
    ("worth to", 0),
];

/// Rejected in documents without exception.
const DOCUMENT_WORDS: &[&str] =
    &["so many", "is told", "are told", "the one that", "what can be said", "for its sake"];

/// Directories that a document may leave out of a file's path.
const BASES: &[&str] = &[
    "",
    "docs",
    "kstone-core/src",
    "kstone-core/tests/it",
    "kstone-core",
    "kstone-core/fuzz",
    "kstone-api/src",
    "kstone-api",
    "kstone-api/tests/it",
    "kstone-api/examples",
    "kstone-cli/src",
    "kstone-bench/src",
    "kstone-bench",
    "kstone-bench/examples",
];

/// A reader's own files that examples name.
const EXAMPLES: &[&str] = &["tables.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All files below a directory with this ending, by relative path, without build output and generated data.
#[expect(clippy::disallowed_methods, reason = "the sources are no database")]
fn files(dir: &Path, ending: &str) -> BTreeMap<String, String> {
    let (mut found, mut left) = (BTreeMap::new(), vec![dir.to_path_buf()]);
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
            let name = name.to_str().unwrap();
            if path.is_dir() {
                left.extend((name != "target" && !name.starts_with('.')).then_some(path));
            } else if name.ends_with(ending) {
                let from_dir = path.strip_prefix(dir).unwrap().to_str().unwrap().to_string();
                found.insert(from_dir, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn sources() -> BTreeMap<String, String> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), ".rs")
}

/// The modules of the crate, `""` for its root, and the imports of each, without tests.
struct Crate {
    imports: BTreeMap<String, BTreeSet<String>>,
    /// Files that no `mod` reaches.
    unreached: Vec<String>,
    /// The layer of each top-level module.
    layers: BTreeMap<String, usize>,
}

impl Crate {
    fn of(sources: &BTreeMap<String, String>) -> Self {
        let (mut modules, mut reached) = (BTreeMap::new(), BTreeSet::new());
        let mut left = vec![(String::new(), "lib.rs".to_string(), false)];
        while let Some((module, file, test)) = left.pop() {
            let parsed = syn::parse_file(&sources[&file]).unwrap_or_else(|e| panic!("{file}: {e}"));
            reached.insert(file);
            for item in &parsed.items {
                if let syn::Item::Mod(child) = item
                    && child.content.is_none()
                {
                    let name = if module.is_empty() {
                        child.ident.to_string()
                    } else {
                        format!("{module}::{}", child.ident)
                    };
                    let file = format!("{}.rs", name.replace("::", "/"));
                    assert!(sources.contains_key(&file), "mod {name}: there is no {file}");
                    left.push((name, file, test || is_test(&child.attrs)));
                }
            }
            if !test {
                modules.insert(module, parsed);
            }
        }
        let known: BTreeSet<String> = modules.keys().cloned().collect();
        let imports = modules.iter().map(|(module, parsed)| {
            // Without comments and tests.
            let code = |line: &&str| !line.trim_start().starts_with("//");
            let source = sources[&file_of(module)].split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let source = source.lines().filter(code).collect::<Vec<_>>().join("\n");
            let mut imports =
                Imports { module, source, known: &known, reexported: false, found: BTreeSet::new() };
            imports.visit_file(parsed);
            imports.found.remove(module);
            (module.clone(), imports.found)
        });
        let unreached = sources.keys().filter(|file| !reached.contains(*file)).cloned().collect();
        Self { imports: imports.collect(), unreached, layers: layers(&sources["lib.rs"]) }
    }

    /// Imports from a higher layer.
    fn upward(&self) -> Vec<String> {
        let top = |module: &str| module.split("::").next().unwrap_or_default().to_string();
        let pairs = self.imports.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
        let higher =
            pairs.filter(|(from, to)| !from.is_empty() && self.layers[&top(to)] > self.layers[&top(from)]);
        higher.map(|(from, to)| format!("{from} imports {to}, which is in a layer above it")).collect()
    }

    /// Sets of modules that import each other: strongly connected components, after R. Tarjan, "Depth-first search and
    /// linear graph algorithms", 1972, but by plain reachability, as a crate is small.
    fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let reach = |from: &String| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
            while let Some(at) = left.pop() {
                left.extend(self.imports.get(at).into_iter().flatten().filter(|&to| seen.insert(to.clone())));
            }
            seen
        };
        let reached: BTreeMap<&String, BTreeSet<String>> =
            self.imports.keys().map(|module| (module, reach(module))).collect();
        let circle = |of: &String| -> BTreeSet<String> {
            reached[of].iter().filter(|to| reached[*to].contains(of)).cloned().collect()
        };
        self.imports.keys().map(circle).filter(|circle| circle.len() > 1).collect()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = self.upward();
        faults.extend(self.unreached.iter().map(|file| format!("no `mod` reaches {file}")));
        let mut found = self.circles();
        for (declared, reason) in CIRCLES {
            let declared: BTreeSet<String> = declared.iter().map(ToString::to_string).collect();
            assert!(reason.len() > 20);
            // With other features or flags, only parts of a declared circle may be built.
            let within: Vec<_> = found.iter().filter(|circle| circle.is_subset(&declared)).cloned().collect();
            let all: BTreeSet<String> = within.iter().flatten().cloned().collect();
            if all != declared {
                let gone: Vec<_> = declared.difference(&all).collect();
                faults.push(format!("a declared circle has become smaller, without {gone:?}"));
            }
            for circle in within {
                found.remove(&circle);
            }
        }
        faults.extend(found.iter().map(|circle| format!("files import each other: {circle:?}")));
        faults
    }
}

fn file_of(module: &str) -> String {
    if module.is_empty() { "lib.rs".into() } else { format!("{}.rs", module.replace("::", "/")) }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

/// Reads the layer of each module from `// L` and a number above its line in the crate's root.
fn layers(lib: &str) -> BTreeMap<String, usize> {
    let (mut layers, mut layer) = (BTreeMap::new(), None);
    for line in lib.lines() {
        if let Some(number) =
            line.strip_prefix("// L").and_then(|rest| rest.split([',', ' ']).next()?.parse().ok())
        {
            layer = Some(number);
        }
        let name = line.split_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
        if let Some(name) = name {
            layers.insert(name.to_string(), layer.unwrap_or_else(|| panic!("{name} is in no layer")));
        }
    }
    layers
}

/// Collects the modules that the paths in a file lead to.
struct Imports<'a> {
    module: &'a str,
    source: String,
    known: &'a BTreeSet<String>,
    /// Whether the current tree belongs to a `pub use`.
    reexported: bool,
    found: BTreeSet<String>,
}

impl Imports<'_> {
    fn is_used(&self, name: &str) -> bool {
        let words = self.source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| *word == name).count() > 1
    }

    fn note(&mut self, path: &[String]) {
        let mut at: Vec<&str> = self.module.split("::").filter(|part| !part.is_empty()).collect();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => (at, rest) = (Vec::new(), &path[1..]),
            Some("self") => rest = &path[1..],
            Some("super") => {
                while rest.first().is_some_and(|part| part == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            Some(first) if self.known.contains(&[&at[..], &[first]].concat().join("::")) => {}
            _ => return,
        }
        let mut module = at.join("::");
        for part in rest {
            let deeper = if module.is_empty() { part.clone() } else { format!("{module}::{part}") };
            if !self.known.contains(&deeper) {
                break;
            }
            module = deeper;
        }
        // Re-exports of the root are for users; the crate's own files name the module.
        if !module.is_empty() {
            self.found.insert(module);
        }
    }

    fn note_tree(&mut self, tree: &syn::UseTree, path: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.note_tree(&step.tree, path);
                path.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_tree(tree, path)),
            // A re-export only forwards a name; it counts as an import if the file uses it.
            syn::UseTree::Name(name) if self.reexported && !self.is_used(&name.ident.to_string()) => {}
            syn::UseTree::Name(name) => self.note(&[&path[..], &[name.ident.to_string()]].concat()),
            syn::UseTree::Rename(name) => self.note(&[&path[..], &[name.ident.to_string()]].concat()),
            syn::UseTree::Glob(_) => self.note(path),
        }
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if let syn::Item::Mod(module) = item {
            // Tests, or a separate file.
            if !is_test(&module.attrs) && module.content.is_some() {
                visit::visit_item(self, item);
            }
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.reexported = !matches!(item.vis, syn::Visibility::Inherited);
        if !is_test(&item.attrs) {
            self.note_tree(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if parts.len() > 1 {
            self.note(&parts);
        }
        visit::visit_path(self, path);
    }
}

#[test]
fn modules_import_downwards_and_in_no_circle() {
    let found = Crate::of(&sources());
    let files: usize = found.imports.len();
    let imports: usize = found.imports.values().map(BTreeSet::len).sum();
    println!("{files} modules, {imports} imports, {} circles", found.circles().len());
    for circle in found.circles() {
        println!("  {circle:?}");
    }
    let faults = found.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(files > 120 && imports > 600);
}

#[test]
fn what_breaks_the_structure_is_found() {
    let sources = sources();
    let with = |file: &str, text: &str| {
        let mut sources = sources.clone();
        sources.entry(file.into()).or_default().push_str(text);
        Crate::of(&sources).faults()
    };
    let upward = with("bloom.rs", "use crate::lsm::LsmEngine;\n");
    assert_eq!(upward, ["bloom imports lsm, which is in a layer above it"]);
    let upward = with("wal/format.rs", "fn f() -> crate::stripe::Stripe { loop {} }\n");
    assert_eq!(upward, ["wal::format imports stripe, which is in a layer above it"]);
    assert_eq!(with("forgotten.rs", ""), ["no `mod` reaches forgotten.rs"]);
    let circle = with("types.rs", "use crate::key::Key;\n");
    assert_eq!(circle.len(), 1, "{circle:?}");
    assert!(circle[0].contains("\"key\"") && circle[0].contains("\"types\""), "{circle:?}");
    let mut fewer = sources.clone();
    fewer.insert("manifest/load.rs".into(), String::new());
    let faults = Crate::of(&fewer).faults();
    assert!(faults.len() == 1 && faults[0].contains("smaller"), "{faults:?}");
}

/// The documents, without those that a program writes.
fn documents() -> BTreeMap<String, String> {
    let mut documents = files(&root(), ".md");
    documents.retain(|file, _| !file.starts_with("docs/benchmark-"));
    documents
}

/// Names of files in a text that do not exist.
fn missing(file: &str, text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_./-".contains(c));
    let is_file = |word: &&str| [".rs", ".md", ".toml"].iter().any(|end| word.ends_with(end));
    let named = words
        .filter(|word| word.len() > 4 && !word.starts_with('/') && !EXAMPLES.contains(word) && is_file(word));
    let beside = Path::new(file).parent().unwrap().to_path_buf();
    let bases = || BASES.iter().map(|base| root().join(base)).chain([root().join(&beside)]);
    let is_there = |name: &&str| bases().any(|base| base.join(name).exists());
    named.filter(|name| !is_there(name)).map(|name| format!("{file} names {name}")).collect()
}

#[test]
fn every_file_that_a_document_names_exists() {
    let documents = documents();
    let nowhere: Vec<String> = documents.iter().flat_map(|(file, text)| missing(file, text)).collect();
    assert!(nowhere.is_empty(), "{}", nowhere.join("\n"));
    assert!(documents.len() > 10);
    assert_eq!(missing("docs/x.md", "see `lsm/nowhere.rs`, README.md"), ["docs/x.md names lsm/nowhere.rs"]);
}

fn count(text: &str, words: &str) -> usize {
    text.to_lowercase().matches(words).count()
}

#[test]
fn words_that_the_rules_of_style_refuse_become_fewer() {
    let mut sources = files(&root(), ".rs");
    sources.remove("kstone-core/tests/it/structure.rs");
    let all: String = sources.into_values().collect();
    for (words, most) in WORDS {
        let found = count(&all, words);
        println!("{words}: {found}");
        assert!(found <= *most, "\"{words}\": {found} times, {most} before");
    }
    for (file, text) in documents() {
        // Its table of phrases to avoid contains them.
        for words in DOCUMENT_WORDS.iter().filter(|_| file != "CONTRIBUTING.md") {
            assert_eq!(count(&text, words), 0, "{file}: \"{words}\"");
        }
    }
    assert_eq!(count("How many? So many.", "so many"), 1);
}
