//! containerlab's inheritance: defaults, then the kind, then the group, then the node.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostics, Place};
use crate::yaml::Yaml;

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub(super) place: Place,
    pub(super) text: String,
}

/// The keys of a node, of a kind, or of the defaults, as written.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) kind: Option<Word>,
    pub(super) group: Option<Word>,
    pub(super) binds: Vec<Word>,
    pub(super) sysctls: BTreeMap<String, Word>,
    pub(super) labels: BTreeMap<String, (Place, Word)>,
    pub(super) env: BTreeMap<String, Word>,
    pub(super) exec: Vec<Word>,
}

/// What every lab for containers needs, and namespaces do not: nothing is said about it.
const CONTAINERS_ONLY: [&str; 3] = ["image", "image-pull-policy", "cap-add"];

/// What a container would have and a namespace has not; the network is the same without it. Said once.
const WITHOUT_EFFECT: [&str; 24] = [
    "aliases",
    "auto-remove",
    "cgroup-parent",
    "cgroupns-mode",
    "cmd",
    "cpu",
    "cpu-set",
    "devices",
    "entrypoint",
    "healthcheck",
    "hostname",
    "memory",
    "mgmt-ipv4",
    "mgmt-ipv6",
    "pid-mode",
    "ports",
    "privileged",
    "restart-policy",
    "runtime",
    "security-opts",
    "shm-size",
    "tmpfs",
    "user",
    "volumes",
];

/// What containerlab would do and this does not, so that the lab would be another one.
const NOT_HERE: [&str; 17] = [
    "certificate",
    "components",
    "config",
    "credentials",
    "dns",
    "enforce-startup-config",
    "env-files",
    "extras",
    "license",
    "link-apply-mode",
    "network-mode",
    "stages",
    "startup-config",
    "startup-delay",
    "suppress-startup-config",
    "type",
    "wait-for",
];

impl Written {
    /// Reads one such map; every key that is not understood is named.
    pub(super) fn read(yaml: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> Written {
        let mut written = Written::default();
        for (key, value) in yaml.entries(what, diagnostics) {
            let name = format!("{what}.{}", key.text);
            match key.text.as_str() {
                "kind" => written.kind = word(value, &name, diagnostics),
                "group" => written.group = word(value, &name, diagnostics),
                "binds" => written.binds = words(value, &name, diagnostics),
                "exec" => written.exec = words(value, &name, diagnostics),
                "sysctls" => written.sysctls = map(value, &name, diagnostics),
                "env" => written.env = map(value, &name, diagnostics),
                "labels" => {
                    for (key, value) in value.entries(&name, diagnostics) {
                        if let Some(word) = word(value, &format!("label {}", key.text), diagnostics) {
                            written.labels.insert(key.text.clone(), (key.place, word));
                        }
                    }
                }
                known if CONTAINERS_ONLY.contains(&known) => {}
                known if WITHOUT_EFFECT.contains(&known) => diagnostics
                    .warning(key.place, format!("{what}: `{known}` has no effect without containers")),
                known if NOT_HERE.contains(&known) => diagnostics.error(
                    key.place,
                    format!("{what}: containerlab's `{known}` is not supported here"),
                ),
                other => diagnostics.error(
                    key.place,
                    format!("{what}: containerlab has no key `{other}` (here a node has kind, group, image, binds, sysctls, exec, env, labels)"),
                ),
            }
        }
        written
    }

    /// This under `above`: maps and single words of `above` win, lists follow each other.
    pub(super) fn under(&self, above: &Written) -> Written {
        let mut merged = self.clone();
        if above.kind.is_some() {
            merged.kind.clone_from(&above.kind);
        }
        if above.group.is_some() {
            merged.group.clone_from(&above.group);
        }
        merged.sysctls.extend(above.sysctls.clone());
        merged.labels.extend(above.labels.clone());
        merged.env.extend(above.env.clone());
        // A command that two levels write is run once.
        for command in &above.exec {
            if !merged.exec.iter().any(|former| former.text == command.text) {
                merged.exec.push(command.clone());
            }
        }
        for bind in &above.binds {
            merged.binds.retain(|former| bind_target(&former.text) != bind_target(&bind.text));
            merged.binds.push(bind.clone());
        }
        merged
    }
}

fn bind_target(text: &str) -> Option<&str> {
    text.split(':').nth(1)
}

fn word(yaml: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> Option<Word> {
    Some(Word { place: yaml.place, text: yaml.text(what, diagnostics)? })
}

fn words(yaml: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> Vec<Word> {
    let items = yaml.items(what, diagnostics);
    items.iter().filter_map(|item| word(item, what, diagnostics)).collect()
}

fn map(yaml: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> BTreeMap<String, Word> {
    let entries = yaml.entries(what, diagnostics);
    entries
        .iter()
        .filter_map(|(key, value)| {
            Some((key.text.clone(), word(value, &format!("{what}.{}", key.text), diagnostics)?))
        })
        .collect()
}
