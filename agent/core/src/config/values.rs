//! Numbers, durations and plain text: how each is written, and what to say when it is not written so.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::diagnostic::At;
use super::document::{Node, Value};
use super::read::{Read, Reader};

impl Read for String {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        reader.string(node, path, "a string").map(str::to_owned)
    }

    fn describe() -> String {
        "string".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Read for bool {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Boolean(value) => Some(*value),
            _ => reader.expected(node, path, "true or false", "write true or false, without quotes"),
        }
    }

    fn describe() -> String {
        "boolean".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// An integer from MIN to MAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Int<const MIN: i64, const MAX: i64>(u32);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    pub(crate) fn u32(self) -> u32 {
        self.0
    }

    /// For ranges that fit; saturates otherwise.
    pub(crate) fn u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }

    /// For ranges that fit; saturates otherwise.
    pub(crate) fn u8(self) -> u8 {
        u8::try_from(self.0).unwrap_or(u8::MAX)
    }
}

impl<const MIN: i64, const MAX: i64> Read for Int<MIN, MAX> {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let number = integer(node, path, reader)?;
        match u32::try_from(number) {
            Ok(value) if (i128::from(MIN)..=i128::from(MAX)).contains(&number) => Some(Int(value)),
            _ => reader.refuse(
                node,
                path,
                format!("{number} is out of range"),
                format!("write a number from {MIN} to {MAX}"),
            ),
        }
    }

    fn describe() -> String {
        format!("integer, {MIN} to {MAX}")
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

fn integer(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<i128> {
    match &node.value {
        Value::Integer(number) => Some(number.unwrap_or(i128::MAX)),
        Value::String(text) if text.parse::<i128>().is_ok() => {
            reader.expected(node, path, "an integer", format!("write it without quotes: {text}"))
        }
        _ => reader.expected(node, path, "an integer", "write a number without quotes"),
    }
}

/// An AS number that a session can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asn(pub(crate) u32);

impl Read for Asn {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let number = integer(node, path, reader)?;
        let remedy = "write the AS number of this end, for example 65001";
        match u32::try_from(number) {
            Ok(0) => reader.refuse(node, path, "AS number 0 is reserved (RFC 7607)", remedy),
            Ok(23456) => {
                reader.refuse(node, path, "AS number 23456 stands for others (AS_TRANS, RFC 6793)", remedy)
            }
            Ok(asn) => Some(Asn(asn)),
            Err(_) => {
                let message = format!("{number} is no AS number");
                reader.refuse(node, path, message, "write a number from 1 to 4294967295")
            }
        }
    }

    fn describe() -> String {
        "integer, 1 to 4294967295 except 23456".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX, "not": { "const": 23456 } })
    }
}

/// The version of the format: 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigVersion;

impl Read for ConfigVersion {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        match integer(node, path, reader)? {
            1 => Some(ConfigVersion),
            other => reader.refuse(
                node,
                path,
                format!("version {other} is not supported by this version"),
                "write config_version = 1, or install a version of anyvip that knows this format",
            ),
        }
    }

    fn describe() -> String {
        "1".to_owned()
    }

    fn schema() -> Json {
        json!({ "const": 1 })
    }
}

/// A duration from MIN to MAX milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait<const MIN: u64, const MAX: u64>(pub(crate) Duration);

impl<const MIN: u64, const MAX: u64> Read for Wait<MIN, MAX> {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let (least, most) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        let duration = duration(node, path, reader)?;
        if (least..=most).contains(&duration) {
            return Some(Wait(duration));
        }
        let message = format!("{} is out of range", format_duration(duration));
        let help = format!("write \"{}\" to \"{}\"", format_duration(least), format_duration(most));
        reader.refuse(node, path, message, help)
    }

    fn describe() -> String {
        let (least, most) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        format!("duration, {} to {}", format_duration(least), format_duration(most))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" })
    }
}

/// 0 (`None`) or whole seconds from 3 to 65535 (RFC 4271 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldTime(pub(crate) Option<Duration>);

impl Read for HoldTime {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let duration = duration(node, path, reader)?;
        if duration.is_zero() {
            return Some(HoldTime(None));
        }
        if duration.subsec_nanos() == 0 && (3..=65535).contains(&duration.as_secs()) {
            return Some(HoldTime(Some(duration)));
        }
        let message = format!("{} is no hold time (RFC 4271 §4.2)", format_duration(duration));
        reader.refuse(
            node,
            path,
            message,
            "write whole seconds from \"3s\" to \"65535s\", or \"0s\" for none",
        )
    }

    fn describe() -> String {
        "duration, 0s or 3s to 65535s, whole seconds".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" })
    }
}

fn duration(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Duration> {
    let what = "a duration with its unit, like \"500ms\" or \"2s\"";
    match &node.value {
        Value::String(text) => match parse_duration(text) {
            Some(duration) => Some(duration),
            None => reader.refuse(
                node,
                path,
                format!("{text:?} is no duration"),
                "write one whole number and one unit of ms, s, m, h: \"300ms\", \"2s\", \"1m\"",
            ),
        },
        Value::Integer(Some(number)) => reader.expected(
            node,
            path,
            what,
            format!("write \"{number}s\" for seconds, \"{number}ms\" for milliseconds"),
        ),
        _ => reader.expected(node, path, what, "write for example \"1s\""),
    }
}

/// `300ms`, `1s`, `2m`, `1h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale).map(Duration::from_millis)
}

/// As [`parse_duration`] reads it; parts of a millisecond are cut off.
pub(crate) fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// One value, or an array of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<At<T>>);

impl<T: Read> Read for OneOrMany<T> {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Array(_) => Vec::read(node, path, reader).map(OneOrMany),
            _ => T::read(node, path, reader)
                .map(|value| OneOrMany(vec![At { value, place: node.place.clone() }])),
        }
    }

    fn describe() -> String {
        format!("{}, or array of such", T::describe())
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}
