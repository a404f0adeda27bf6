//! What people are told about their configuration, and what is written about it.
//!
//! `ANYVIP_REFRESH=1 cargo test -p anyvip-core --test config` writes the expected files anew.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use anyvip_core::config::{HostFacts, Source, load, reference, schema};

/// Compares with a committed file, or writes it.
#[expect(clippy::disallowed_methods, reason = "a test reads and refreshes the files it is compared with")]
fn expect_file(path: &Path, actual: &str) {
    if std::env::var("ANYVIP_REFRESH").is_ok() {
        assert!(std::fs::write(path, actual).is_ok(), "{} cannot be written", path.display());
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(actual, expected, "{} is not up to date: run with ANYVIP_REFRESH=1", path.display());
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_mistake_in_a_file_is_told_at_once_with_place_and_remedy() {
    let text = include_str!("config/errors.toml");
    let source = Source { name: "errors.toml".to_owned(), text: text.to_owned() };
    let found = load(&[source], &HostFacts::default()).unwrap_err();
    for found in &found {
        assert!(found.help.is_some(), "no remedy: {found}");
        assert!(text.get(found.span.clone()).is_some());
    }
    let lines: String = found.iter().map(|found| format!("{found}\n")).collect();
    expect_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/errors.txt"), &lines);
}

#[test]
fn the_committed_schema_is_that_of_the_key_table() {
    expect_file(&project().join("docs/config.schema.json"), &schema());
}

#[test]
fn the_committed_reference_is_that_of_the_key_table() {
    expect_file(&project().join("docs/configuration.md"), &reference());
}
