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

/// What a YAML node can be. Numbers keep only their text, which is all that sysctls, ports and durations need.
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
        match serde_saphyr::from_str::<Yaml>(text) {
            Ok(yaml) => Some(yaml),
            Err(error) => {
                let place = error.location().map(place_of).unwrap_or_default();
                let message = error.without_snippet().to_string();
                diagnostics.error(place, message.lines().next().unwrap_or("not YAML").to_owned());
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
        match text.parse() {
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

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Yaml, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Yaml { place: place_of(spanned.defined), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Scalar(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Scalar(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Scalar(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Scalar(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Scalar(value.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = access.next_key::<Spanned<String>>()? {
                    let key = Key { place: place_of(key.defined), text: key.value };
                    entries.push((key, access.next_value()?));
                }
                Ok(Value::Map(entries))
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
        assert!(diagnostics.into_sorted()[0].text.contains("duplicate"));
    }
}
