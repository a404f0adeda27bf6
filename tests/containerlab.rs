//! Labs are containerlab's own files: they hold to its published schema, and to what its format asks in any version.
//!
//! The schema (srl-labs/containerlab, schemas/clab.schema.json, BSD-3-Clause) is not a part of this project. The test that needs it takes
//! it from where `ANYVIP_CLAB_SCHEMA` says (and needs Python with jsonschema and yaml), and is skipped with a line where nobody says so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyvip_tests::{Need, Scratch, met};
use serde_json::{Value, json};

fn topology() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("topology")
}

fn labs() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(topology()).unwrap().map(|entry| entry.unwrap().path());
    let labs: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(".clab.yml")).collect();
    assert!(labs.len() >= 3, "{labs:?}");
    labs
}

/// As YAML means it: merge keys applied, numbers and truth values told from words.
fn read(lab: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(lab).unwrap()).unwrap()
}

/// Validates a lab with Python's jsonschema, which knows nothing of us.
const VALIDATE: &str = "
import json, sys, jsonschema, yaml
schema = json.load(open(sys.argv[1]))
bad = 0
for name in sys.argv[2:]:
    for error in jsonschema.Draft7Validator(schema).iter_errors(yaml.safe_load(open(name))):
        bad = 1
        print(name, list(error.path), error.message[:300])
sys.exit(bad)
";

fn validate(schema: &Path, labs: &[PathBuf]) -> (bool, String) {
    let output = Command::new("python3").args(["-c", VALIDATE]).arg(schema).args(labs).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!said.contains("Traceback"), "{said}");
    (output.status.success(), said)
}

#[test]
fn every_lab_we_ship_is_valid_by_containerlabs_published_schema() {
    let Some(schema) = std::env::var_os("ANYVIP_CLAB_SCHEMA").map(PathBuf::from) else {
        let line = "skipped every_lab_we_ship_is_valid_by_containerlabs_published_schema: ANYVIP_CLAB_SCHEMA names no schema";
        let _ = writeln!(std::io::stderr(), "{line}");
        return;
    };
    if !met(&[Need::Program("python3")]) {
        return;
    }
    let (valid, said) = validate(&schema, &labs());
    assert!(valid, "{said}");
    // And it would find something.
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(topology().join("quickstart.clab.yml")).unwrap();
    for (from, to) in
        [("endpoints:", "endpoint:"), ("anyvip.role: client", "anyvip.role: true"), ("  nodes:", "  node:")]
    {
        assert!(text.contains(from));
        let worse = scratch.write("worse.clab.yml", &text.replacen(from, to, 1));
        assert!(!validate(&schema, &[worse]).0, "{from} → {to} is found");
    }
}

/// What is wrong with a lab by the rules of the format that our files could break; an independent reading, not that of the simulator.
fn breaches(lab: &Value) -> Vec<String> {
    const NODE: [&str; 10] = [
        "kind",
        "group",
        "image",
        "binds",
        "sysctls",
        "exec",
        "env",
        "labels",
        "cap-add",
        "image-pull-policy",
    ];
    let mut found = Vec::new();
    let mut keys = |what: &str, value: &Value, known: &[&str]| {
        for key in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if !known.contains(&key.as_str()) {
                found.push(format!("{what}: {key}"));
            }
        }
    };
    keys("lab", lab, &["name", "prefix", "mgmt", "topology"]);
    let topology = &lab["topology"];
    keys("topology", topology, &["defaults", "kinds", "groups", "nodes", "links"]);
    keys("defaults", &topology["defaults"], &NODE);
    let named = |part: &str| topology[part].as_object().cloned().unwrap_or_default();
    let all: Vec<(String, Value)> =
        ["kinds", "groups", "nodes"].iter().flat_map(|part| named(part)).collect();
    for (name, node) in &all {
        keys(name, node, &NODE);
    }
    for (name, node) in all.iter().chain([&("defaults".to_owned(), topology["defaults"].clone())]) {
        for (label, value) in node["labels"].as_object().into_iter().flatten() {
            // A truth value is no label: it must be written as a word.
            let good = match value {
                Value::String(text) => !text.is_empty(),
                Value::Number(number) => number.as_f64().is_some_and(|number| number >= 0.0),
                _ => false,
            };
            if !good {
                found.push(format!("{name}: label {label}: {value}"));
            }
        }
        for list in ["binds", "exec", "cap-add"] {
            let words = node[list].as_array().cloned().unwrap_or_default();
            if words.iter().any(|word| !word.is_string()) || (node.get(list).is_some() && words.is_empty()) {
                found.push(format!("{name}: {list}: {}", node[list]));
            }
        }
    }
    let nodes = named("nodes");
    let links = topology["links"].as_array().cloned().unwrap_or_default();
    for link in &links {
        let ends = link["endpoints"].as_array().cloned().unwrap_or_default();
        let known = |end: &Value| match end {
            Value::String(text) => {
                text.split_once(':').is_some_and(|(node, port)| nodes.contains_key(node) && !port.is_empty())
            }
            end => nodes.contains_key(end["node"].as_str().unwrap_or_default()) && link["type"] == "veth",
        };
        if ends.len() != 2 || !ends.iter().all(known) {
            found.push(format!("link {link}"));
        }
    }
    if links.is_empty() {
        found.push("no links".to_owned());
    }
    found
}

#[test]
fn every_lab_we_ship_holds_to_what_the_format_asks() {
    for lab in labs() {
        assert_eq!(breaches(&read(&lab)), Vec::<String>::new(), "{}", lab.display());
    }
}

#[test]
fn the_independent_reading_finds_what_it_looks_for() {
    let good = read(&topology().join("quickstart.clab.yml"));
    assert_eq!(breaches(&good), Vec::<String>::new());
    for (pointer, value) in [
        ("/topology/nodes/h1/labels/anyvip.asn", json!(true)),
        ("/topology/nodes/h1/labels/anyvip.asn", json!("")),
        ("/topology/nodes/h1/binds", json!([])),
        ("/topology/links/0/endpoints/0", json!("h9:eth1")),
        ("/topology/links/0/endpoints", json!(["router:eth1"])),
        ("/topology/links", json!([])),
        ("/topology/defaults", json!({"imag": "x"})),
    ] {
        let mut worse = good.clone();
        *worse.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        assert_eq!(breaches(&worse).len(), 1, "{pointer}: {:?}", breaches(&worse));
    }
}

#[test]
fn what_this_backend_does_not_do_is_said_with_file_line_and_column_before_anything_starts() {
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(topology().join("quickstart.clab.yml")).unwrap();
    let text = text.replacen(
        "    image: debian:12\n",
        "    image: debian:12\n    startup-config: x\n    memory: 1GB\n",
        1,
    );
    let lab = scratch.write("worse.clab.yml", &text);
    let output = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"))
        .arg("run")
        .arg(&lab)
        .args(["--backend", "virtual"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = 1 + text.lines().position(|line| line.contains("startup-config")).unwrap();
    let at = |line: usize| format!("{}:{line}:5: ", lab.display());
    assert!(
        said.contains(&format!("{}error: defaults: containerlab's `startup-config`", at(line))),
        "{said}"
    );
    assert!(said.contains(&format!("{}warning: defaults: `memory`", at(line + 1))), "{said}");
    assert!(said.contains("nothing was started"), "{said}");
}
