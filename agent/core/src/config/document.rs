//! Several TOML files as one tree whose every key and value knows its place.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place, Source, error};

/// A value as written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// TOML values, as far as the configuration uses them.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    /// Any integer that TOML can write; `None` beyond 128 bits.
    Integer(Option<i128>),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
    /// Kinds that no key has, with the word for them.
    Other(&'static str),
}

/// Keys in order.
pub(crate) type Table = BTreeMap<String, Entry>;

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Place,
    pub(crate) node: Node,
}

impl Node {
    /// What it is, for "found …".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::String(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
            Value::String(_) => "a long string".to_owned(),
            Value::Integer(Some(number)) => format!("the integer {number}"),
            Value::Integer(None) => "an integer".to_owned(),
            Value::Boolean(value) => format!("the boolean {value}"),
            Value::Array(_) => "an array".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(word) => (*word).to_owned(),
        }
    }
}

/// All sources as one table. The errors are of syntax, and keys set in two files.
pub(crate) fn merge(sources: &[Source]) -> (Table, Vec<Diagnostic>) {
    let mut merged = Table::new();
    let mut diagnostics = Vec::new();
    for index in 0..sources.len() {
        let (table, errors) = parse(sources, index);
        diagnostics.extend(errors);
        merge_table(&mut merged, table, "", sources, &mut diagnostics);
    }
    (merged, diagnostics)
}

/// One source as a table, as far as it can be read.
pub(crate) fn parse(sources: &[Source], index: usize) -> (Table, Vec<Diagnostic>) {
    let Some(source) = sources.get(index) else {
        return (Table::new(), Vec::new());
    };
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let diagnostics = errors
        .iter()
        .map(|problem| {
            let span = problem.span().unwrap_or(0..0);
            error(sources, &Place { source: index, span }, "", problem.message())
                .help("the file must be TOML (https://toml.io)")
        })
        .collect();
    (table_of(table.get_ref(), index), diagnostics)
}

fn table_of(table: &DeTable<'_>, source: usize) -> Table {
    let mut entries = Table::new();
    for (key, value) in table {
        let key_place = Place { source, span: key.span() };
        let node = node_of(value, source);
        entries.insert(key.get_ref().to_string(), Entry { key: key_place, node });
    }
    entries
}

fn node_of(value: &Spanned<DeValue<'_>>, source: usize) -> Node {
    let place = Place { source, span: value.span() };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            Value::Integer(i128::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Float(_) => Value::Other("a floating-point number"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| node_of(item, source)).collect()),
        DeValue::Table(table) => Value::Table(table_of(table, source)),
    };
    Node { place, value }
}

/// Tables of the same name grow together; anything else may be set once.
fn merge_table(
    into: &mut Table,
    from: Table,
    path: &str,
    sources: &[Source],
    diagnostics: &mut Vec<Diagnostic>,
) {
    for (name, entry) in from {
        let path = join(path, &name);
        match into.get_mut(&name) {
            None => {
                into.insert(name, entry);
            }
            Some(present) => match (&mut present.node.value, entry.node.value) {
                (Value::Table(present), Value::Table(new)) => {
                    merge_table(present, new, &path, sources, diagnostics);
                }
                _ => diagnostics.push(
                    error(sources, &entry.key, path, "set twice")
                        .related(sources, &present.key, "first")
                        .help("remove one of the two"),
                ),
            },
        }
    }
}

/// `a.b` of `a` and `b`; names that TOML would quote are quoted.
pub(crate) fn join(path: &str, name: &str) -> String {
    let bare =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    match (path.is_empty(), bare) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{name:?}"),
        (false, true) => format!("{path}.{name}"),
        (false, false) => format!("{path}.{name:?}"),
    }
}
