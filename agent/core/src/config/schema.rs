//! What the key table says, for editors (JSON Schema) and for people (the reference).

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::keys::{Class, ROOT, Section};
use super::read::Nesting;

/// JSON Schema (draft 2020-12) of a configuration file. Files that are included obey it as well.
#[must_use]
pub fn schema() -> String {
    let mut schema = object(ROOT);
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        object.insert("title".to_owned(), json!("anyvip configuration"));
    }
    format!("{schema:#}\n")
}

/// Schema of a table.
pub(crate) fn object(section: &Section) -> Json {
    let mut properties = Map::new();
    for key in section.keys {
        let mut schema = (key.schema)();
        if let Some(schema) = schema.as_object_mut() {
            let default = match key.default {
                "" => String::new(),
                "required" => " Required.".to_owned(),
                default => format!(" Default: {default}."),
            };
            schema.insert("description".to_owned(), json!(format!("{}{default}", key.meaning)));
        }
        properties.insert(key.name.to_owned(), schema);
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

/// The reference of all keys, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         The file is TOML, by default `/etc/anyvip/config.toml`. Durations are strings of one number and one unit: `\"300ms\"`,\n\
         `\"1s\"`, `\"2m\"`, `\"1h\"`. Unknown keys are refused. `anyvip validate` shows all errors at once, `anyvip validate --show`\n\
         the file with all defaults filled in. [config.schema.json](config.schema.json) is for editors.\n\n\
         *On reload*: `live` changes nothing that is announced; `readvertise` tells routes again on sessions that stay; `reset`\n\
         closes the sessions concerned and makes them again.\n",
    );
    let mut done = Vec::new();
    write_section(&mut text, ROOT, &mut done);
    text
}

fn write_section(text: &mut String, section: &'static Section, done: &mut Vec<&'static str>) {
    if done.contains(&section.title) {
        return;
    }
    done.push(section.title);
    let heading = if section.title.contains(['[', '{']) {
        format!("`{}`", section.title)
    } else {
        "Top level".to_owned()
    };
    let _ = write!(text, "\n## {heading}\n\n{}\n\n", section.about);
    text.push_str("| key | type | default | on reload | meaning |\n|---|---|---|---|---|\n");
    let mut below = Vec::new();
    for key in section.keys {
        let (class, default) = match (key.nesting)() {
            Nesting::Leaf => (class_word(key.class), default_text(key.default)),
            Nesting::Table(nested) | Nesting::Named(nested) | Nesting::Array(nested) => {
                below.push(nested);
                ("", String::new())
            }
        };
        let name = match (key.nesting)() {
            Nesting::Named(_) => format!("{}.NAME", key.name),
            _ => key.name.to_owned(),
        };
        let (kind, meaning) = ((key.describe)().replace('|', "\\|"), key.meaning.replace('|', "\\|"));
        let _ = writeln!(text, "| `{name}` | {kind} | {default} | {class} | {meaning} |");
    }
    if !section.later.is_empty() {
        let names: Vec<String> = section.later.iter().map(|name| format!("`{name}`")).collect();
        let _ = write!(text, "\nNot supported by this version, and refused: {}.\n", names.join(", "));
    }
    for nested in below {
        write_section(text, nested, done);
    }
}

fn class_word(class: Class) -> &'static str {
    match class {
        Class::Live => "live",
        Class::Readvertise => "readvertise",
        Class::ResetSession => "reset",
    }
}

/// Values of the file in code type, words as they are.
fn default_text(default: &str) -> String {
    let literal = default.parse::<u64>().is_ok() || matches!(default, "true" | "false");
    if literal || (default.starts_with('"') && default.ends_with('"') && default.matches('"').count() == 2) {
        format!("`{default}`")
    } else {
        default.to_owned()
    }
}
