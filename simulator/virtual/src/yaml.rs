//! YAML as a tree that remembers where each part stands.
//!
//! A derived struct would stop at the first error; walking the tree finds all of them. Anchors, aliases and merge
//! keys (`<<`) are applied by the reader, and merged values keep the place where they were written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::diagnostic::{Diagnostics, Place};

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Yaml {
    /// Where it is written.
    pub place: Place,
    /// What is written.
    pub value: Value,
}

/// What a YAML node can be. Scalars are the text as it is written, as containerlab takes them for words: `yes` and `0x10` stay
/// what they are until somebody wants a truth value or a number.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing written.
    Null,
    /// Any scalar.
    Scalar(String),
    /// `- a`
    List(Vec<Yaml>),
    /// `key: value`, in the order of the file.
    Map(Vec<(Key, Yaml)>),
}

/// A key of a map and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where it is written.
    pub place: Place,
    /// The key.
    pub text: String,
}

impl Yaml {
    /// Reads a whole file; what is not YAML at all is one error.
    pub fn read(text: &str, diagnostics: &mut Diagnostics) -> Option<Yaml> {
        match serde_saphyr::from_str::<Node>(text) {
            Ok(node) => Some(node.written(text)),
            Err(error) => {
                let place = error.location().map(place_of).unwrap_or_default();
                let message = error.without_snippet().to_string();
                diagnostics.error(place, first_sentence(&message));
                None
            }
        }
    }

    /// The scalar, or an error that says what was expected.
    pub fn text(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<String> {
        match &self.value {
            Value::Scalar(text) => Some(text.clone()),
            other => {
                diagnostics.error(self.place, format!("{what}: expected a word, found {}", other.kind()));
                None
            }
        }
    }

    /// The scalar parsed, or an error with the parser's own word.
    pub fn parse<T>(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<T>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let text = self.text(what, diagnostics)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                diagnostics.error(self.place, format!("{what}: `{text}`: {error}"));
                None
            }
        }
    }

    /// The entries of a map; nothing written is an empty map.
    pub fn entries(&self, what: &str, diagnostics: &mut Diagnostics) -> &[(Key, Yaml)] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                diagnostics.error(self.place, format!("{what}: expected a map, found {}", other.kind()));
                &[]
            }
        }
    }

    /// The items of a list; nothing written is an empty list.
    pub fn items(&self, what: &str, diagnostics: &mut Diagnostics) -> &[Yaml] {
        match &self.value {
            Value::List(items) => items,
            Value::Null => &[],
            other => {
                diagnostics.error(self.place, format!("{what}: expected a list, found {}", other.kind()));
                &[]
            }
        }
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a word",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

fn place_of(location: serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

/// What a scalar means where a number or a truth value is wanted; also as YAML 1.1 lets it be written.
pub fn parse<T: std::str::FromStr>(text: &str) -> Result<T, T::Err> {
    text.parse().or_else(|error| match meaning(text).and_then(|meant| meant.parse().ok()) {
        Some(value) => Ok(value),
        None => Err(error),
    })
}

/// A number in decimal digits, `0x37` as 55; anything else as it is.
pub fn decimal(text: &str) -> String {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.map_or_else(|| text.to_owned(), |number| number.to_string())
}

/// `0x1092` is 4242, and `yes` is true.
fn meaning(text: &str) -> Option<String> {
    let number = decimal(text);
    if number != text {
        return Some(number);
    }
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some("true".to_owned()),
        "false" | "no" | "off" => Some("false".to_owned()),
        _ => None,
    }
}

/// Without what the reader says to programmers, and without the place, which is said already.
fn first_sentence(message: &str) -> String {
    let line = message.lines().next().unwrap_or("not YAML");
    let line = line.split(" at line ").next().unwrap_or(line);
    line.split(", set DuplicateKeyPolicy").next().unwrap_or(line).to_owned()
}

/// A value as it is read: what looks like a number or a truth value is still to be looked up in the file.
struct Node {
    location: serde_saphyr::Location,
    raw: Raw,
}

enum Raw {
    Null,
    Text(String),
    /// Its text in the file is between these octets; else it is this.
    Typed(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Node {
    fn written(self, source: &str) -> Yaml {
        let value = match self.raw {
            Raw::Null => Value::Null,
            Raw::Text(text) => Value::Scalar(text),
            Raw::Typed(meant) => Value::Scalar(slice(source, self.location).map_or(meant, str::to_owned)),
            Raw::List(items) => Value::List(items.into_iter().map(|item| item.written(source)).collect()),
            Raw::Map(entries) => {
                Value::Map(entries.into_iter().map(|(key, value)| (key, value.written(source))).collect())
            }
        };
        Yaml { place: place_of(self.location), value }
    }
}

/// A plain scalar of one line, as it stands in the file.
fn slice(source: &str, location: serde_saphyr::Location) -> Option<&str> {
    let span = location.span();
    let (from, long) = (usize::try_from(span.byte_offset()?).ok()?, usize::try_from(span.byte_len()?).ok()?);
    let text = source.get(from..from.checked_add(long)?)?.trim();
    (!text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "{}[],#\"'".contains(c)))
        .then_some(text)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let spanned = Spanned::<Raw>::deserialize(deserializer)?;
        Ok(Node { location: spanned.defined, raw: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Typed(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = access.next_key::<Spanned<String>>()? {
                    let key = Key { place: place_of(key.defined), text: key.value };
                    entries.push((key, access.next_value()?));
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(yaml: &'a Yaml, key: &str) -> &'a (Key, Yaml) {
        let Value::Map(entries) = &yaml.value else { panic!("not a map: {yaml:?}") };
        entries.iter().find(|(k, _)| k.text == key).unwrap()
    }

    #[test]
    fn values_and_keys_know_their_place_also_when_they_were_merged_in() {
        let text = "a: &x\n  image: alpine\n  port: 8080\nb:\n  <<: *x\n  exec:\n    - ip addr\n";
        let mut diagnostics = Diagnostics::new("t");
        let yaml = Yaml::read(text, &mut diagnostics).unwrap();
        let (_, b) = get(&yaml, "b");
        let (key, image) = get(b, "image");
        assert_eq!(image.value, Value::Scalar("alpine".into()));
        assert_eq!(image.place, Place { line: 2, column: 10 });
        assert_eq!(key.text, "image");
        let (key, exec) = get(b, "exec");
        assert_eq!(key.place, Place { line: 6, column: 3 });
        assert_eq!(exec.items("exec", &mut diagnostics)[0].place, Place { line: 7, column: 7 });
        assert_eq!(get(b, "port").1.value, Value::Scalar("8080".into()));
        assert!(!diagnostics.has_errors());
    }

    #[test]
    fn text_that_is_no_yaml_is_one_error_with_its_place() {
        let mut diagnostics = Diagnostics::new("t");
        assert!(Yaml::read("a: [1\nb: 2\n", &mut diagnostics).is_none());
        let list = diagnostics.into_sorted();
        assert_eq!(list.len(), 1);
        assert!(list[0].place.line >= 1, "{}", list[0]);
    }

    #[test]
    fn a_key_written_twice_is_an_error() {
        let mut diagnostics = Diagnostics::new("t");
        assert!(Yaml::read("a: 1\na: 2\n", &mut diagnostics).is_none());
        assert_eq!(diagnostics.into_sorted()[0].to_string(), "t:2:1: error: duplicate mapping key: a");
    }

    #[test]
    fn scalars_are_what_is_written_also_where_yaml_sees_numbers_and_truth_values() {
        let words = "yes no on y True 010 0x10 1.50 1e3 1_000 -7 8080 .5 1:30 2026-11-21";
        let list: String = words.split(' ').map(|word| format!("- {word}   # ü\n")).collect();
        let flow = format!(
            "ü: &x {{ all: [{}], one: yes }}\nmerged: {{ <<: *x }}\nlist:\n{list}",
            words.replace(' ', ", ")
        );
        let mut diagnostics = Diagnostics::new("t");
        let yaml = Yaml::read(&flow, &mut diagnostics).unwrap();
        let read = |yaml: &Yaml| {
            let mut diagnostics = Diagnostics::new("t");
            let items = yaml.items("words", &mut diagnostics).iter();
            items.map(|item| item.text("word", &mut diagnostics).unwrap()).collect::<Vec<_>>().join(" ")
        };
        let (_, merged) = get(&yaml, "merged");
        for all in [&get(&yaml, "list").1, &get(&get(&yaml, "ü").1, "all").1, &get(merged, "all").1] {
            assert_eq!(read(all), words);
        }
        assert_eq!(get(merged, "one").1.value, Value::Scalar("yes".into()));
    }

    #[test]
    fn where_a_number_or_a_truth_value_is_wanted_yamls_ways_to_write_it_are_taken() {
        assert_eq!(parse::<u32>("0x1092"), Ok(4242));
        assert_eq!(parse::<u32>("4242"), Ok(4242));
        assert_eq!((decimal("0x37"), decimal("0 4 7")), ("55".to_owned(), "0 4 7".to_owned()));
        assert_eq!((parse::<bool>("yes"), parse::<bool>("Off")), (Ok(true), Ok(false)));
        assert_eq!(parse::<String>("yes").as_deref(), Ok("yes"));
        assert!(parse::<u32>("yes").is_err() && parse::<bool>("maybe").is_err());
    }
}
