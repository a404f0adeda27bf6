//! Reading: each key by itself, so that one mistake hides no other.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::diagnostic::{At, Diagnostic, Place, Source, did_you_mean, error, sort};
use super::document::{self, Node, Table, Value, join};
use super::keys::{Section, WrittenFile};

/// Configuration as written: each key absent, given with its place, or unreadable (and then reported).
#[derive(Clone, Debug)]
pub struct Written {
    pub(crate) file: WrittenFile,
    pub(crate) sources: Vec<Source>,
    /// Some TOML could not be parsed: what seems absent may only be lost.
    pub(crate) broken: bool,
}

/// Reads all sources as one file. The first one is the main file; only there may `include` stand.
#[must_use]
pub fn read(sources: &[Source]) -> (Written, Vec<Diagnostic>) {
    let (mut table, mut diagnostics) = document::merge(sources);
    // Only what TOML itself refused has no key.
    let broken = diagnostics.iter().any(|found| found.key.is_empty());
    if let Some(include) = table.get("include").filter(|include| include.key.source != 0) {
        diagnostics.push(
            error(sources, &include.key, "include", "only the main file may include others")
                .help("move the pattern to the main file"),
        );
        table.remove("include");
    }
    let syntax: Vec<(usize, usize)> = diagnostics.iter().map(|found| (found.source, found.line)).collect();
    let mut reader = Reader { sources, diagnostics: Vec::new() };
    let root = Node { place: Place::default(), value: Value::Table(table) };
    let file = WrittenFile::read(&root, "", &mut reader).unwrap_or_default();
    // What recovery made of a line that is not TOML is noise.
    diagnostics
        .extend(reader.diagnostics.into_iter().filter(|found| !syntax.contains(&(found.source, found.line))));
    sort(&mut diagnostics);
    (Written { file, sources: sources.to_vec(), broken }, diagnostics)
}

/// The patterns of `include` in a main file, relative to its folder. The caller resolves them, sorted, and hands all
/// sources to [`read`], which tells what is wrong here once more.
#[must_use]
pub fn includes(source: &Source) -> (Vec<At<String>>, Vec<Diagnostic>) {
    let sources = std::slice::from_ref(source);
    let (table, _) = document::parse(sources, 0);
    let mut reader = Reader { sources, diagnostics: Vec::new() };
    let patterns = reader.leaf::<Vec<At<String>>>(&table, "include", "");
    (patterns.value().cloned().unwrap_or_default(), reader.diagnostics)
}

/// A key of a section as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Leaf<T> {
    #[default]
    Absent,
    /// Written, but unreadable; that has been reported.
    Bad,
    Given(At<T>),
}

impl<T> Leaf<T> {
    /// What was written, if it could be read.
    pub(crate) fn given(&self) -> Option<&At<T>> {
        match self {
            Leaf::Given(at) => Some(at),
            Leaf::Absent | Leaf::Bad => None,
        }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Leaf::Absent)
    }

    /// This, or where it is not written, the other.
    pub(crate) fn or<'a>(&'a self, other: &'a Leaf<T>) -> &'a Leaf<T> {
        if self.is_absent() { other } else { self }
    }
}

/// What lies below a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nesting {
    Leaf,
    Table(&'static Section),
    /// A table of tables with names of the user's choice.
    Named(&'static Section),
    /// An array of tables.
    Array(&'static Section),
}

/// A type that a key can have.
pub(crate) trait Read: Sized {
    /// The value, or `None` after the problem was reported.
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self>;
    /// For people.
    fn describe() -> String;
    /// JSON Schema of it.
    fn schema() -> Json;
    fn nesting() -> Nesting {
        Nesting::Leaf
    }
}

/// Collects what is wrong.
pub(crate) struct Reader<'a> {
    pub(crate) sources: &'a [Source],
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// Reports that `node` is not right.
    pub(crate) fn refuse<T>(
        &mut self,
        node: &Node,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Option<T> {
        self.diagnostics.push(error(self.sources, &node.place, path, message).help(help));
        None
    }

    /// Reports a wrong type.
    pub(crate) fn expected<T>(
        &mut self,
        node: &Node,
        path: &str,
        what: &str,
        help: impl Into<String>,
    ) -> Option<T> {
        self.refuse(node, path, format!("expected {what}, found {}", node.describe()), help)
    }

    /// The string here.
    pub(crate) fn string<'n>(&mut self, node: &'n Node, path: &str, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::String(text) => Some(text),
            Value::Integer(Some(number)) => {
                self.expected(node, path, what, format!("put it in quotes: \"{number}\""))
            }
            _ => self.expected(node, path, what, "put it in quotes"),
        }
    }

    /// The key `name` of `table`.
    pub(crate) fn leaf<T: Read>(&mut self, table: &Table, name: &str, path: &str) -> Leaf<T> {
        let Some(entry) = table.get(name) else { return Leaf::Absent };
        match T::read(&entry.node, &join(path, name), self) {
            None => Leaf::Bad,
            Some(value) => {
                let place = match entry.node.value {
                    Value::Table(_) => entry.key.clone(),
                    _ => entry.node.place.clone(),
                };
                Leaf::Given(At { value, place })
            }
        }
    }

    /// Refuses what `section` does not know.
    pub(crate) fn refuse_unknown(&mut self, table: &Table, path: &str, section: &Section) {
        for (name, entry) in table {
            if section.keys.iter().any(|key| key.name == name) {
                continue;
            }
            let path = join(path, name);
            let instead = section.instead.iter().find(|(written, _)| written == name).map(|(_, help)| *help);
            let (message, help) = if section.later.contains(&name.as_str()) {
                ("not supported by this version", instead.unwrap_or("remove this key").to_owned())
            } else if let Some(instead) = instead {
                ("unknown key", instead.to_owned())
            } else if let Some(near) = did_you_mean(name, section.keys.iter().map(|key| key.name)) {
                ("unknown key", format!("did you mean `{near}`?"))
            } else {
                let known: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
                ("unknown key", format!("known here: {}", known.join(", ")))
            };
            self.diagnostics.push(error(self.sources, &entry.key, path, message).help(help));
        }
    }
}

impl<T: Read> Read for Vec<At<T>> {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Array(items) = &node.value else {
            let help = match (&node.value, T::nesting()) {
                (Value::Table(_), Nesting::Table(_)) => format!("write [[{path}]] with two brackets"),
                (Value::String(text), _) => format!("write [{text:?}]"),
                _ => "put it in brackets: [ … ]".to_owned(),
            };
            return reader.expected(node, path, "an array", help);
        };
        let mut read = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if let Some(value) = T::read(item, &format!("{path}[{index}]"), reader) {
                read.push(At { value, place: item.place.clone() });
            }
        }
        // All bad is not empty.
        if read.is_empty() && !items.is_empty() { None } else { Some(read) }
    }

    fn describe() -> String {
        format!("array of {}", T::describe())
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }

    fn nesting() -> Nesting {
        match T::nesting() {
            Nesting::Table(section) => Nesting::Array(section),
            other => other,
        }
    }
}

/// Tables by name. A name that cannot be read keeps its place, as `Bad`, so that mentioning it elsewhere is no second error.
impl<T: Read> Read for BTreeMap<String, Leaf<T>> {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            return reader.expected(node, path, "tables with names", format!("write [{path}.NAME]"));
        };
        let mut read = BTreeMap::new();
        for (name, entry) in table {
            let well_named = (1..=64).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            if !well_named {
                reader.diagnostics.push(
                    error(reader.sources, &entry.key, join(path, name), "not a usable name")
                        .help("use 1 to 64 letters, digits, '.', '_' and '-'"),
                );
            }
            read.insert(name.clone(), reader.leaf(table, name, path));
        }
        Some(read)
    }

    fn describe() -> String {
        "tables with names".to_owned()
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9._-]{1,64}$" },
            "additionalProperties": T::schema(),
        })
    }

    fn nesting() -> Nesting {
        match T::nesting() {
            Nesting::Table(section) => Nesting::Named(section),
            other => other,
        }
    }
}
