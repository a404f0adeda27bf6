//! From a containerlab topology file to a [`Lab`].

use std::collections::BTreeMap;

use super::labels;
use super::merge::Written;
use super::{Bind, Exec, Lab, Link, Node, Port};
use crate::diagnostic::{Diagnostics, Place};
use crate::yaml::{Key, Yaml};

pub(super) fn lab(text: &str, diagnostics: &mut Diagnostics) -> Option<Lab> {
    let yaml = Yaml::read(text, diagnostics)?;
    let mut lab = Lab { name: String::new(), nodes: BTreeMap::new(), links: Vec::new() };
    let mut topology = None;
    for (key, value) in yaml.entries("lab file", diagnostics) {
        match key.text.as_str() {
            "name" => lab.name = name(value, diagnostics),
            "topology" => topology = Some(value),
            "prefix" | "mgmt" => {
                diagnostics.warning(key.place, format!("`{}` has no effect without containers", key.text));
            }
            other => diagnostics
                .error(key.place, format!("`{other}` is not supported (a lab has name and topology)")),
        }
    }
    if lab.name.is_empty() && !diagnostics.has_errors() {
        diagnostics.error(Place { line: 1, column: 1 }, "a lab needs a `name`");
    }
    match topology {
        Some(value) => read_topology(value, &mut lab, diagnostics),
        None => diagnostics.error(Place { line: 1, column: 1 }, "a lab needs a `topology`"),
    }
    Some(lab)
}

fn name(value: &Yaml, diagnostics: &mut Diagnostics) -> String {
    let name = value.text("name", diagnostics).unwrap_or_default();
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 40 || !name.chars().all(good) {
        diagnostics.error(value.place, format!("name `{name}`: 1 to 40 letters, digits, `-` or `_`"));
    }
    name
}

fn read_topology(yaml: &Yaml, lab: &mut Lab, diagnostics: &mut Diagnostics) {
    let mut defaults = Written::default();
    let mut kinds = BTreeMap::new();
    let mut nodes: &[(Key, Yaml)] = &[];
    for (key, value) in yaml.entries("topology", diagnostics) {
        match key.text.as_str() {
            "defaults" => defaults = Written::read(value, "defaults", diagnostics),
            "kinds" => {
                for (kind, value) in value.entries("kinds", diagnostics) {
                    let written = Written::read(value, &format!("kind {}", kind.text), diagnostics);
                    kinds.insert(kind.text.clone(), written);
                }
            }
            "nodes" => nodes = value.entries("nodes", diagnostics),
            "links" => {
                let links = value.items("links", diagnostics);
                lab.links = links.iter().filter_map(|item| link(item, diagnostics)).collect();
            }
            other => diagnostics.error(
                key.place,
                format!("topology: `{other}` is not supported (it has defaults, kinds, nodes, links)"),
            ),
        }
    }
    for (key, value) in nodes {
        let written = Written::read(value, &format!("node {}", key.text), diagnostics);
        let kind = written.kind.as_ref().or(defaults.kind.as_ref()).map(|word| word.text.clone());
        let of_kind = kind.and_then(|kind| kinds.get(&kind).cloned()).unwrap_or_default();
        let merged = defaults.under(&of_kind).under(&written);
        if let Some(node) = node(key, merged, diagnostics) {
            lab.nodes.insert(key.text.clone(), node);
        }
    }
}

fn node(key: &Key, written: Written, diagnostics: &mut Diagnostics) -> Option<Node> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if key.text.is_empty() || key.text.len() > 60 || !key.text.chars().all(good) {
        diagnostics
            .error(key.place, format!("node name `{}`: 1 to 60 letters, digits, `-`, `_` or `.`", key.text));
        return None;
    }
    let kind = match &written.kind {
        Some(word) if word.text == "linux" || word.text == "bridge" => word.text.as_str(),
        Some(word) => {
            diagnostics.error(
                word.place,
                format!("node {}: kind `{}` is not supported (linux, bridge)", key.text, word.text),
            );
            return None;
        }
        None => {
            diagnostics.error(key.place, format!("node {}: `kind` is missing (linux, bridge)", key.text));
            return None;
        }
    };
    let meant = labels::read(key, kind == "bridge", &written, diagnostics)?;
    let mut sysctls = BTreeMap::new();
    for (name, word) in &written.sysctls {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if !name.starts_with("net.") || name.contains("..") || !name.chars().all(good) {
            diagnostics
                .error(word.place, format!("sysctl `{name}`: only `net.*` belongs to a network namespace"));
        }
        sysctls.insert(name.clone(), word.text.clone());
    }
    let here = |text: &str| text.replace("__clabNodeName__", &key.text);
    let mut binds = Vec::new();
    for word in &written.binds {
        let text = here(&word.text);
        match text.split(':').collect::<Vec<_>>().as_slice() {
            [source, target] | [source, target, _] if !source.is_empty() && target.starts_with('/') => {
                binds.push(Bind { source: (*source).to_owned(), target: (*target).to_owned() });
            }
            _ => diagnostics.error(word.place, format!("bind `{text}`: expected SOURCE:/TARGET[:OPTIONS]")),
        }
    }
    let mut exec = Vec::new();
    for word in &written.exec {
        let text = here(&word.text);
        if text.contains(['\'', '"', '\\', '|', '>', '<', '&', ';', '$', '`']) {
            diagnostics
                .error(word.place, format!("exec `{text}`: quotes and shell characters are not supported"));
            continue;
        }
        let argv: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match argv.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => diagnostics.error(word.place, "exec: empty command"),
            [program, "node", arguments @ ..] if program.rsplit('/').next() == Some("anyvip-sim") => {
                match arguments.iter().position(|word| *word == "--name").map(|at| arguments.get(at + 1)) {
                    Some(Some(name)) if *name == key.text => exec.push(Exec::Role),
                    _ => diagnostics.error(
                        word.place,
                        format!("exec `{text}`: node {} must start as `--name {}`", key.text, key.text),
                    ),
                }
            }
            _ => exec.push(Exec::Command(argv)),
        }
    }
    if kind != "bridge" && !exec.contains(&Exec::Role) {
        diagnostics.error(
            key.place,
            format!(
                "node {}: `exec` never starts its role (anyvip-sim node --lab FILE --name {0})",
                key.text
            ),
        );
    }
    Some(Node {
        place: key.place,
        role: meant.role,
        addresses: meant.addresses,
        gateways: meant.gateways,
        sysctls,
        binds,
        env: written.env.into_iter().map(|(name, word)| (name, word.text)).collect(),
        exec,
    })
}

fn link(yaml: &Yaml, diagnostics: &mut Diagnostics) -> Option<Link> {
    let mut ends = Vec::new();
    for (key, value) in yaml.entries("link", diagnostics) {
        if key.text != "endpoints" {
            diagnostics.error(
                key.place,
                format!("link: `{}` is not supported (only `endpoints: [\"a:eth1\", \"b:eth1\"]`)", key.text),
            );
            continue;
        }
        for item in value.items("endpoints", diagnostics) {
            let text = item.text("endpoint", diagnostics)?;
            match text.split_once(':') {
                Some((node, interface)) if !node.is_empty() && !interface.is_empty() => {
                    ends.push(Port { node: node.to_owned(), interface: interface.to_owned() });
                }
                _ => diagnostics.error(item.place, format!("endpoint `{text}`: expected NODE:INTERFACE")),
            }
        }
    }
    match <[Port; 2]>::try_from(ends) {
        Ok(ends) => Some(Link { place: yaml.place, ends }),
        Err(ends) => {
            diagnostics.error(yaml.place, format!("a link has two endpoints, not {}", ends.len()));
            None
        }
    }
}
