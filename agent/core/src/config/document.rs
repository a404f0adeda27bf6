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
    let table = table_of(table.get_ref(), index);
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for problem in &errors {
        let place = Place { source: index, span: problem.span().unwrap_or(0..0) };
        let diagnostic = syntax(sources, &place, problem.message(), &table);
        if !diagnostics.contains(&diagnostic) {
            diagnostics.push(diagnostic);
        }
    }
    (table, diagnostics)
}

/// What TOML refuses, in the words of the rest.
fn syntax(sources: &[Source], place: &Place, message: &str, table: &Table) -> Diagnostic {
    if message == "duplicate key" {
        let twice = error(sources, place, "", "set twice").help("remove one of the two");
        return match first_of(sources, place, table) {
            Some(first) => twice.related(sources, &first, "first"),
            None => twice,
        };
    }
    let message = message.trim_end_matches(", expected nothing");
    let unquoted = [
        "string values must be quoted",
        "invalid float",
        "invalid integer",
        "invalid boolean",
        "unexpected leading zero",
    ];
    let help = if unquoted.iter().any(|start| message.starts_with(start)) {
        "put text, addresses and durations in quotes"
    } else {
        "the file must be TOML (https://toml.io)"
    };
    error(sources, place, "", message).help(help)
}

/// Where a key or header that is there twice was first: recovery keeps it, but the error does not say which table is meant.
fn first_of(sources: &[Source], second: &Place, table: &Table) -> Option<Place> {
    let text = &sources.get(second.source)?.text;
    let before = text.get(..second.span.start)?;
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    let (mut start, mut found, mut region) = (0, None, 0);
    let own = header(text.get(line..)?.lines().next()?);
    for earlier in text.get(..line)?.split_inclusive('\n') {
        if let Some(this) = header(earlier) {
            region = start;
            if found.is_none() && Some(this) == own {
                found = Some(Place { source: second.source, span: start..start + earlier.trim_end().len() });
            }
        }
        start += earlier.len();
    }
    if own.is_some() {
        return found;
    }
    let name = text.get(second.span.clone())?.trim_matches(['"', '\'']);
    keys_named(table, name)
        .into_iter()
        .find(|key| (region..second.span.start).contains(&key.span.start))
        .cloned()
}

/// `[a.b]` without comment, if the line is one.
fn header(line: &str) -> Option<&str> {
    line.split('#').next().map(str::trim).filter(|line| line.starts_with('['))
}

fn keys_named<'t>(table: &'t Table, name: &str) -> Vec<&'t Place> {
    fn visit<'t>(node: &'t Node, name: &str, found: &mut Vec<&'t Place>) {
        match &node.value {
            Value::Table(table) => found.extend(keys_named(table, name)),
            Value::Array(items) => items.iter().for_each(|item| visit(item, name, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (key, entry) in table {
        if key == name {
            found.push(&entry.key);
        }
        visit(&entry.node, name, &mut found);
    }
    found
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
