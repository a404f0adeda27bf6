//! From a containerlab topology file to a [`Lab`].

use std::collections::{BTreeMap, BTreeSet};

use super::labels;
use super::merge::Written;
use super::{Bind, Exec, Lab, Link, Node, Port};
use crate::diagnostic::{Diagnostics, Place};
use crate::yaml::{Key, Value, Yaml, decimal};

pub(super) fn lab(text: &str, diagnostics: &mut Diagnostics) -> Option<Lab> {
    let yaml = Yaml::read(text, diagnostics)?;
    variables(&yaml, diagnostics);
    let (nodes, links, refused) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    let mut lab = Lab { name: String::new(), nodes, links, refused };
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

/// containerlab puts variables of its environment into the file before it reads it.
fn variables(yaml: &Yaml, diagnostics: &mut Diagnostics) {
    match &yaml.value {
        Value::Null => {}
        Value::Scalar(text) => {
            let name =
                |rest: &str| rest.starts_with(|c: char| c == '{' || c == '_' || c.is_ascii_alphabetic());
            if text.split('$').skip(1).any(name) {
                diagnostics.error(
                    yaml.place,
                    format!(
                        "`{text}`: containerlab would put a variable of its environment here; write the value"
                    ),
                );
            }
        }
        Value::List(items) => items.iter().for_each(|item| variables(item, diagnostics)),
        Value::Map(entries) => entries.iter().for_each(|(_, value)| variables(value, diagnostics)),
    }
}

fn read_topology(yaml: &Yaml, lab: &mut Lab, diagnostics: &mut Diagnostics) {
    let mut defaults = Written::default();
    let (mut kinds, mut groups) = (BTreeMap::new(), BTreeMap::new());
    let mut nodes: &[(Key, Yaml)] = &[];
    for (key, value) in yaml.entries("topology", diagnostics) {
        match key.text.as_str() {
            "defaults" => defaults = Written::read(value, "defaults", diagnostics),
            "kinds" => kinds = named(value, "kind", diagnostics),
            "groups" => groups = named(value, "group", diagnostics),
            "nodes" => nodes = value.entries("nodes", diagnostics),
            "links" => {
                let links = value.items("links", diagnostics);
                lab.links = links.iter().filter_map(|item| link(item, diagnostics)).collect();
            }
            other => diagnostics.error(
                key.place,
                format!(
                    "topology: `{other}` is not supported (it has defaults, kinds, groups, nodes, links)"
                ),
            ),
        }
    }
    for (key, value) in nodes {
        let written = Written::read(value, &format!("node {}", key.text), diagnostics);
        let merged = inherited(&written, &defaults, &kinds, &groups);
        match node(key, &lab.name, merged, diagnostics) {
            Some(node) => drop(lab.nodes.insert(key.text.clone(), node)),
            None => drop(lab.refused.insert(key.text.clone())),
        }
    }
}

/// Kinds or groups by name.
fn named(value: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> BTreeMap<String, Written> {
    let mut found = BTreeMap::new();
    for (name, value) in value.entries(&format!("{what}s"), diagnostics) {
        found.insert(name.text.clone(), Written::read(value, &format!("{what} {}", name.text), diagnostics));
    }
    found
}

/// A node with everything it inherits. Its kind is its own, else its group's, else that of the defaults' group, else the defaults';
/// its group is its own, else its kind's, else the defaults'. A group that is written nowhere is only a word, as in containerlab.
fn inherited(
    written: &Written,
    defaults: &Written,
    kinds: &BTreeMap<String, Written>,
    groups: &BTreeMap<String, Written>,
) -> Written {
    let group_of = |level: &Written| level.group.as_ref().and_then(|group| groups.get(&group.text));
    let kind_of = |level: Option<&Written>| level.and_then(|level| level.kind.clone());
    let kind = kind_of(Some(written))
        .or_else(|| kind_of(group_of(written)))
        .or_else(|| kind_of(group_of(defaults)))
        .or_else(|| kind_of(Some(defaults)));
    let of_kind = kind.as_ref().and_then(|kind| kinds.get(&kind.text)).cloned().unwrap_or_default();
    let group = written.group.clone().or(of_kind.group.clone()).or(defaults.group.clone());
    let of_group = group.as_ref().and_then(|group| groups.get(&group.text)).cloned().unwrap_or_default();
    Written { kind, group, ..defaults.under(&of_kind).under(&of_group).under(written) }
}

fn node(key: &Key, lab: &str, written: Written, diagnostics: &mut Diagnostics) -> Option<Node> {
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
        sysctls.insert(name.clone(), decimal(&word.text));
    }
    let here = |text: &str| text.replace("__clabNodeName__", &key.text).replace("__clabLabName__", lab);
    for word in written.binds.iter().chain(&written.exec) {
        if let Some(variable) =
            ["__clabDir__", "__clabNodeDir__"].iter().find(|name| word.text.contains(**name))
        {
            diagnostics.error(word.place, format!("`{variable}`: there is no folder of containerlab's here"));
        }
    }
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
    // A foreign daemon is started by its own image.
    if kind != "bridge" && meant.role.daemon().is_none() && !exec.contains(&Exec::Role) {
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
        places: meant.places,
        gateways: meant.gateways,
        sysctls,
        binds,
        env: written.env.into_iter().map(|(name, word)| (name, word.text)).collect(),
        exec,
    })
}

fn link(yaml: &Yaml, diagnostics: &mut Diagnostics) -> Option<Link> {
    let (mut ends, mut mtu) = (Vec::new(), None);
    for (key, value) in yaml.entries("link", diagnostics) {
        match key.text.as_str() {
            "mtu" => {
                // What IPv4 needs at least (RFC 791), and what a veth takes at most.
                mtu = value.parse::<u32>("mtu", diagnostics);
                if mtu.is_some_and(|mtu| !(68..=65_535).contains(&mtu)) {
                    diagnostics.error(value.place, "mtu must be 68 to 65535");
                }
            }
            "endpoints" => {
                for item in value.items("endpoints", diagnostics) {
                    ends.extend(endpoint(item, diagnostics));
                }
            }
            "type" => link_type(value, diagnostics),
            "labels" | "vars" => {
                diagnostics
                    .warning(key.place, format!("link: `{}` has no effect without containers", key.text));
            }
            other => diagnostics.error(
                key.place,
                format!(
                    "link: `{other}` is not supported (a link has `endpoints: [\"a:eth1\", \"b:eth1\"]` and `mtu`)"
                ),
            ),
        }
    }
    match <[Port; 2]>::try_from(ends) {
        Ok(ends) => Some(Link { place: yaml.place, ends, mtu }),
        Err(ends) => {
            diagnostics.error(yaml.place, format!("a link has two endpoints, not {}", ends.len()));
            None
        }
    }
}

/// The long form says its type; a cable between two nodes is a `veth`.
fn link_type(value: &Yaml, diagnostics: &mut Diagnostics) {
    let Some(text) = value.text("link: type", diagnostics) else { return };
    if text != "veth" {
        diagnostics.error(value.place, format!("link: type `{text}` is not supported (veth)"));
    }
}

/// `NODE:INTERFACE`, or the long form with `node` and `interface`.
fn endpoint(item: &Yaml, diagnostics: &mut Diagnostics) -> Option<Port> {
    if let Value::Map(entries) = &item.value {
        let (mut node, mut interface) = (None, None);
        for (key, value) in entries {
            match key.text.as_str() {
                "node" => node = value.text("endpoint: node", diagnostics),
                "interface" => interface = value.text("endpoint: interface", diagnostics),
                "vars" => {
                    diagnostics.warning(key.place, "endpoint: `vars` has no effect without containers");
                }
                "ipv4" | "ipv6" => diagnostics.error(
                    key.place,
                    format!("endpoint: `{}` is not supported (label `anyvip.address.INTERFACE`)", key.text),
                ),
                other => diagnostics.error(
                    key.place,
                    format!("endpoint: `{other}` is not supported (it has node, interface)"),
                ),
            }
        }
        if node.is_none() || interface.is_none() {
            diagnostics.error(item.place, "endpoint: `node` and `interface` are needed");
        }
        return Some(Port { node: node?, interface: interface? });
    }
    let text = item.text("endpoint", diagnostics)?;
    match text.split_once(':') {
        // What containerlab takes for the machine itself, whatever nodes there are.
        Some((special @ ("host" | "mgmt-net" | "macvlan"), _)) => {
            diagnostics
                .error(item.place, format!("endpoint `{text}`: a link to `{special}` is not supported"));
            None
        }
        Some((node, interface)) if !node.is_empty() && !interface.is_empty() => {
            Some(Port { node: node.to_owned(), interface: interface.to_owned() })
        }
        _ => {
            diagnostics.error(item.place, format!("endpoint `{text}`: expected NODE:INTERFACE"));
            None
        }
    }
}
