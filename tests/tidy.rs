//! The rules of the project that no compiler checks: which crate may know which, what pure crates may use, the size of files,
//! words that must not be there.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// What each pure crate may depend on. Purity is held here and by `purity.clippy.toml`.
const PURE: &[(&str, &[&str])] = &[
    ("anyvip-machine", &["rand_chacha", "serde"]),
    ("anyvip-bfd", &["anyvip-machine", "md-5", "serde", "sha1", "thiserror"]),
    ("anyvip-nd", &["anyvip-machine", "serde", "serde_bytes", "thiserror"]),
    ("anyvip-bgp", &["anyvip-machine", "bytes", "ipnet", "serde", "serde_bytes", "smallvec", "thiserror"]),
    (
        "anyvip-core",
        &[
            "anyvip-bfd",
            "anyvip-bgp",
            "anyvip-machine",
            "anyvip-nd",
            "ciborium",
            "ipnet",
            "serde",
            "serde_json",
            "smallvec",
            "thiserror",
            "toml",
            "xxhash-rust",
        ],
    ),
    ("anyvip-ecmp", &["anyvip-machine", "serde", "thiserror"]),
    (
        "anyvip-virtual",
        &[
            "anyvip-bfd",
            "anyvip-bgp",
            "anyvip-core",
            "anyvip-ecmp",
            "anyvip-machine",
            "anyvip-nd",
            "ipnet",
            "postcard",
            "serde",
            "serde-saphyr",
            "sha2",
            "smallvec",
            "thiserror",
        ],
    ),
];

/// Which of our crates the others may know. io knows the protocol types, neither core nor simulator.
const IMPURE: &[(&str, &[&str])] = &[
    ("anyvip-io", &["anyvip-bfd", "anyvip-bgp", "anyvip-machine", "anyvip-nd"]),
    ("anyvip", &["anyvip-bfd", "anyvip-bgp", "anyvip-core", "anyvip-io", "anyvip-machine", "anyvip-nd"]),
    (
        "anyvip-sim",
        &["anyvip-bfd", "anyvip-bgp", "anyvip-ecmp", "anyvip-io", "anyvip-machine", "anyvip-virtual"],
    ),
];

/// Lines of a file without its tests: look hard, and refused.
const LARGE: usize = 600;
const TOO_LARGE: usize = 1000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn packages() -> Vec<Package> {
    MetadataCommand::new().current_dir(root()).no_deps().exec().expect("cargo metadata").packages
}

/// Names of a package's dependencies of this kind.
fn dependencies(package: &Package, kind: DependencyKind) -> BTreeSet<String> {
    package.dependencies.iter().filter(|one| one.kind == kind).map(|one| one.name.clone()).collect()
}

/// All files of the project below a folder, without what tools put there.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("read a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !["target", "corpus", "artifacts", ".git"].contains(&name.as_str()) {
            files(&entry.path(), found);
        } else if kind.is_file() && name != ".git" {
            found.push(entry.path());
        }
    }
}

fn texts() -> BTreeMap<String, String> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    found
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            Some((path.strip_prefix(root()).unwrap().display().to_string(), text))
        })
        .collect()
}

fn sources() -> BTreeMap<String, String> {
    texts().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// Fails with all of them at once.
#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn every_crate_is_known_here() {
    let known: BTreeSet<&str> =
        PURE.iter().chain(IMPURE).map(|(name, _)| *name).chain(["anyvip-tests"]).collect();
    let packages = packages();
    let real: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(real, known, "a new crate gets its arrows in this file first");
}

#[test]
fn a_pure_crate_depends_on_nothing_that_is_not_listed() {
    let mut found = Vec::new();
    for package in packages() {
        let Some((_, allowed)) = PURE.iter().find(|(name, _)| *name == package.name.as_str()) else {
            continue;
        };
        for kind in [DependencyKind::Normal, DependencyKind::Build] {
            for name in dependencies(&package, kind) {
                if !allowed.contains(&name.as_str()) {
                    found.push(format!("{} → {name}", package.name));
                }
            }
        }
    }
    none("dependencies that pure crates may not have", found);
}

#[test]
fn arrows_between_our_crates_point_the_right_way() {
    let packages = packages();
    let ours: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let mut found = Vec::new();
    for package in &packages {
        let Some((_, allowed)) = PURE.iter().chain(IMPURE).find(|(name, _)| *name == package.name.as_str())
        else {
            continue;
        };
        for name in dependencies(package, DependencyKind::Normal) {
            if ours.contains(&name) && !allowed.contains(&name.as_str()) {
                found.push(format!("{} → {name}", package.name));
            }
        }
    }
    none("arrows that must not be", found);
}

#[test]
fn no_crate_of_ours_has_features() {
    let with: Vec<String> = packages()
        .iter()
        .filter(|package| package.features.keys().any(|name| name != "default"))
        .map(|package| package.name.to_string())
        .collect();
    none("crates with features", with);
}

#[test]
fn every_crate_holds_to_the_lints_of_the_workspace() {
    let mut found = Vec::new();
    for package in packages() {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        if !manifest.contains("[lints]\nworkspace = true") {
            found.push(package.name.to_string());
        }
    }
    none("crates without `[lints] workspace = true`", found);
}

#[test]
fn the_purity_rules_are_linked_into_every_pure_crate_and_only_there() {
    assert!(!root().join("clippy.toml").exists(), "a clippy.toml at the root would hide those of the crates");
    for package in packages() {
        let pure = PURE.iter().any(|(name, _)| *name == package.name.as_str());
        let link = package.manifest_path.parent().unwrap().join("clippy.toml");
        let linked = fs::canonicalize(&link).ok() == fs::canonicalize(root().join("purity.clippy.toml")).ok();
        assert_eq!(linked, pure, "{link}");
    }
}

#[test]
fn a_pure_crate_says_what_it_is_on_its_first_page_and_has_one_boundary() {
    for package in packages() {
        if ["anyvip-bfd", "anyvip-bgp", "anyvip-core", "anyvip-nd"].contains(&package.name.as_str()) {
            let folder = package.manifest_path.parent().unwrap();
            assert!(folder.join("src/boundary.rs").exists(), "{} has no boundary.rs", package.name);
        }
        if PURE.iter().any(|(name, _)| *name == package.name.as_str()) {
            let text =
                fs::read_to_string(package.manifest_path.parent().unwrap().join("src/lib.rs")).unwrap();
            let essay = text.lines().take_while(|line| line.starts_with("//!")).count();
            assert!(essay >= 5, "{}: the essay at the top of lib.rs has {essay} lines", package.name);
        }
    }
}

#[test]
fn unsafe_code_is_only_where_the_kernel_is_touched() {
    let mut found = Vec::new();
    for package in packages() {
        for target in &package.targets {
            let root = fs::read_to_string(&target.src_path).unwrap();
            if !(target.is_lib() || target.is_bin()) {
                continue;
            }
            if package.name.as_str() != "anyvip-io" && !root.contains("#![forbid(unsafe_code)]") {
                found.push(format!("{} does not forbid it", target.src_path));
            }
        }
    }
    let block = concat!("unsafe", " {");
    for (path, text) in sources() {
        if text.contains(block) && !path.starts_with("agent/io/src/sys/") {
            found.push(format!("{path} uses it"));
        }
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.contains(block)) {
            if !lines[at.saturating_sub(4)..=at].iter().any(|line| line.contains("SAFETY")) {
                found.push(format!("{path}:{} has no SAFETY line", at + 1));
            }
        }
    }
    none("unsafe code", found);
}

/// A file's lines up to its tests.
fn lines_without_tests(text: &str) -> usize {
    let end = text.lines().position(|line| line == "#[cfg(test)]");
    end.unwrap_or_else(|| text.lines().count())
}

#[test]
fn files_are_of_a_size_that_can_be_read() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        if path.contains("/tests/") || path.ends_with("/tests.rs") {
            continue;
        }
        let lines = lines_without_tests(&text);
        if lines > TOO_LARGE {
            found.push(format!("{path}: {lines} lines"));
        } else if lines > LARGE {
            println!("look hard: {path} has {lines} lines without tests");
        }
    }
    none("files beyond 1,000 lines without tests", found);
}

#[test]
fn nothing_is_left_undone_and_no_test_is_switched_off() {
    // Put together here, so that this file does not hold them.
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let mut found = Vec::new();
    for (path, text) in texts() {
        if ["Cargo.lock", "Cargo.toml"].contains(&path.as_str()) {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                found.push(format!("{path}:{}: {word}", at + 1));
            }
        }
    }
    none("left undone", found);
}

/// Such a target leaves out what is marked as an ordinary test, without a word.
#[test]
fn no_ordinary_test_is_in_a_target_with_a_harness_of_its_own() {
    let mark = concat!("#[te", "st]");
    let with = |(path, text): (String, String)| {
        (path.starts_with("tests/interop/") && text.contains(mark)).then(|| {
            format!(
                "{path}: make it a story of tests/interop/features.rs, or a trial of tests/interop/main.rs"
            )
        })
    };
    none("tests that would never run", sources().into_iter().filter_map(with).collect());
}

#[test]
fn the_project_speaks_of_itself_alone() {
    // Places of one machine, and where one machine gets its packages from.
    let words =
        [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("localhost:", "80")];
    let mut found = Vec::new();
    for (path, text) in texts() {
        for (at, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                found.push(format!("{path}:{}: {word}", at + 1));
            }
        }
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for line in lock.lines().filter(|line| line.starts_with("source = ")) {
        if line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"" {
            found.push(format!("Cargo.lock: {line}"));
        }
    }
    none("words that tie the project to one machine", found);
}

#[test]
fn every_command_in_scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, text) in texts() {
        if path.starts_with("scripts/") || path == ".ci/run" {
            let mode = fs::metadata(root().join(&path)).unwrap().permissions().mode();
            assert!(mode & 0o111 != 0, "{path} is not executable");
            assert!(
                text.starts_with("#!/usr/bin/env bash\n"),
                "{path} does not begin with #!/usr/bin/env bash"
            );
            assert!(text.contains("set -euo pipefail"), "{path} goes on after a failure");
        }
    }
}

/// Files that a page names: targets of its links, and paths in backticks that begin with a folder of the project.
fn named_files(page: &str, text: &str) -> Vec<PathBuf> {
    let folders: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let beside = root().join(page).parent().unwrap().to_owned();
    let links = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|link| !link.is_empty() && !link.contains("://"))
        .map(|link| beside.join(link));
    let paths = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.split_once('/').is_some_and(|(first, _)| folders.contains(first)))
        .filter(|word| !word.contains(['*', '{', ' ', '…']))
        .map(|word| root().join(word));
    links.chain(paths).collect()
}

#[test]
fn every_file_that_the_documentation_names_is_there() {
    let mut found = Vec::new();
    let mut seen = 0;
    for (page, text) in texts().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        for file in named_files(&page, &text) {
            seen += 1;
            if !file.exists() {
                found.push(format!("{page}: {}", file.strip_prefix(root()).unwrap_or(&file).display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} names of files found: this test does not read what it should");
    none("named in the documentation, but not there", found);
}

/// The numbers after each "RFC " of a text.
fn rfcs(text: &str) -> BTreeSet<u32> {
    text.split("RFC ")
        .skip(1)
        .filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

#[test]
fn every_rfc_that_protocol_code_cites_is_on_the_page_of_rfcs() {
    let page = fs::read_to_string(root().join("docs/rfc-coverage.md")).unwrap();
    let known: BTreeSet<u32> =
        page.split(|letter: char| !letter.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let mut found = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("protocols/")) {
        found.extend(rfcs(&text).difference(&known).map(|rfc| format!("{path}: RFC {rfc}")));
    }
    none("cited in protocols/, but not in docs/rfc-coverage.md", found);
}

#[test]
fn every_bug_for_the_mutation_score_still_has_its_place() {
    let list = anyvip_tests::mutants::of(&root()).unwrap();
    assert!(list.len() >= 30, "only {} bugs", list.len());
    let place = |mutant: &anyvip_tests::mutants::Mutant| {
        let source = fs::read_to_string(root().join(&mutant.file)).unwrap_or_default();
        mutant.put_into(&source).err()
    };
    none("tests/mutants.txt", list.iter().filter_map(place).collect());
}
