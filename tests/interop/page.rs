//! `docs/interop.md`: what each router has shown, written from the results of these tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::features::Feature;

/// One column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// What it lacks, and why.
    pub(crate) lacks: BTreeMap<Feature, &'static str>,
}

/// Who has passed what in this run.
static PASSED: Mutex<Vec<(&'static str, Feature)>> = Mutex::new(Vec::new());

/// Notes a test that came to a good end.
pub(crate) fn passed(router: &'static str, feature: Feature) {
    PASSED.lock().unwrap_or_else(PoisonError::into_inner).push((router, feature));
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/interop.md")
}

const INTRODUCTION: &str = "# Interoperability

What anyvip does with other BGP speakers, as shown by tests against the real programs, each in network namespaces of its own. This page is
written by these tests; a test fails when it says something else than they do. Run them all and write it again, as root:

    ANYVIP_REFRESH=1 cargo test -p anyvip-tests --test interop

`pass`: a test with this program came to a good end; its name is that of the row's story in `tests/interop/`, behind the name of the
program. `no`: the program does not have it, and why. ExaBGP is a strict reader of what is sent, not a router. How each router is
configured for a feature is in [operations.md](operations.md#router-side) and, complete, in the program's file in `tests/interop/`.
";

fn render(columns: &[Column], cell: impl Fn(&Column, Feature) -> String) -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut part = "";
    for feature in Feature::ALL {
        if feature.part() != part {
            part = feature.part();
            text += &format!("\n## {part}\n\n| feature |");
            for column in columns {
                text += &format!(" {} {} |", column.name, column.version);
            }
            text += &format!("\n|---|{}\n", "---|".repeat(columns.len()));
        }
        text += &format!("| {} |", feature.row());
        for column in columns {
            text += &format!(" {} |", cell(column, *feature));
        }
        text.push('\n');
    }
    text
}

/// As it has to be: everything that is not lacked passes.
fn declared(columns: &[Column]) -> String {
    render(columns, |column, feature| match column.lacks.get(&feature) {
        Some(reason) => format!("no: {reason}"),
        None => "pass".to_owned(),
    })
}

/// Fails unless the page says what the tests declare, for whatever versions it was written with.
pub(crate) fn says_what_the_tests_declare(columns: &[Column]) {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let header = text.lines().find(|line| line.starts_with("| feature |")).unwrap_or_default();
    let written: Vec<&str> = header.split('|').skip(2).map(str::trim).collect();
    let columns: Vec<Column> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let title = written.get(at).copied().unwrap_or_default();
            let version = title.strip_prefix(column.name).unwrap_or_default().trim().to_owned();
            assert!(
                !version.is_empty(),
                "docs/interop.md does not say with which {} it was written",
                column.name
            );
            Column { version, ..column.clone() }
        })
        .collect();
    let wanted = declared(&columns);
    let differing = wanted.lines().zip(text.lines()).find(|(wanted, is)| wanted != is);
    assert!(
        wanted == text,
        "docs/interop.md is not what the tests declare, first here: {differing:?}. Write it again, as root: \
         ANYVIP_REFRESH=1 cargo test -p anyvip-tests --test interop"
    );
}

/// Writes the page from this run.
///
/// # Errors
/// When something did not run or did not pass; then the page stays.
pub(crate) fn write(columns: &[Column]) -> Result<(), String> {
    let passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    for column in columns {
        for feature in Feature::ALL {
            let has = passed.contains(&(column.name, *feature));
            if !has && !column.lacks.contains_key(feature) {
                let what = feature.story_name();
                return Err(format!("{what} has not passed with {}: the page is not written", column.name));
            }
        }
    }
    std::fs::write(path(), declared(columns)).map_err(|error| error.to_string())
}

/// The first word with digits and dots that a program says of itself.
pub(crate) fn version(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = std::process::Command::new(program).args(arguments).output() else {
        return String::new();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    text.split_whitespace().find(number).unwrap_or_default().to_owned()
}
