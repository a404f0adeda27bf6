//! containerlab's inheritance: defaults, then the kind, then the node.

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
    pub(super) binds: Vec<Word>,
    pub(super) sysctls: BTreeMap<String, Word>,
    pub(super) labels: BTreeMap<String, (Place, Word)>,
    pub(super) env: BTreeMap<String, Word>,
    pub(super) exec: Vec<Word>,
}

/// Keys that matter only where there are containers: read by containerlab, without meaning for namespaces.
const CONTAINERS_ONLY: [&str; 9] =
    ["image", "image-pull-policy", "cap-add", "user", "memory", "cpu", "entrypoint", "cmd", "restart-policy"];

impl Written {
    /// Reads one such map; every key that is not understood is named.
    pub(super) fn read(yaml: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> Written {
        let mut written = Written::default();
        for (key, value) in yaml.entries(what, diagnostics) {
            let name = format!("{what}.{}", key.text);
            match key.text.as_str() {
                "kind" => written.kind = word(value, &name, diagnostics),
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
                other => diagnostics.error(
                    key.place,
                    format!("{what}: `{other}` is not supported here (a node has kind, image, binds, sysctls, exec, env, labels)"),
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
        merged.sysctls.extend(above.sysctls.clone());
        merged.labels.extend(above.labels.clone());
        merged.env.extend(above.env.clone());
        merged.exec.extend(above.exec.clone());
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
