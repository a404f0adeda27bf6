//! The types that keys have: how each is written, and what to say when it is not written so.

use std::time::Duration;

use anyvip_bgp::wire::{Community, Family, LargeCommunity};
use serde_json::{Value as Json, json};

use super::diagnostic::{At, did_you_mean};
use super::document::{Node, Value};
use super::keys::one_of;
use super::read::{Read, Reader};
use super::{HttpMethod, OnError, ReturnPath};

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

/// A closed set of words.
fn word<T: Copy>(node: &Node, path: &str, reader: &mut Reader<'_>, words: &[(&str, T)]) -> Option<T> {
    let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let choice = format!("\"{}\"", list.join("\" or \""));
    let text = reader.string(node, path, &choice)?;
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Some(*value),
        None => {
            let help = match did_you_mean(text, list) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write {choice}"),
            };
            reader.refuse(node, path, format!("{text:?} is not known here"), help)
        }
    }
}

macro_rules! words {
    ( $( #[doc = $doc:literal] $name:ident ( $type:ty ) { $( $word:literal => $value:expr ),+ $(,)? } )+ ) => { $(
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) struct $name(pub(crate) $type);

        impl Read for $name {
            fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
                word(node, path, reader, &[$( ($word, $value) ),+]).map($name)
            }

            fn describe() -> String {
                [$( concat!("`\"", $word, "\"`") ),+].join(" or ")
            }

            fn schema() -> Json {
                one_of(&[$( $word ),+])
            }
        }
    )+ };
}

words! {
    /// `host.return_path`.
    ReturnPathWord(ReturnPath) { "require" => ReturnPath::Require, "warn" => ReturnPath::Warn }
    /// `service.on_error`.
    OnErrorWord(OnError) { "hold" => OnError::Hold, "fail" => OnError::Fail }
    /// Method of an HTTP check.
    Method(HttpMethod) { "GET" => HttpMethod::Get, "HEAD" => HttpMethod::Head }
    /// An address family.
    FamilyWord(Family) { "ipv4" => Family::Ipv4, "ipv6" => Family::Ipv6 }
    /// Whether a check is made per VIP.
    CheckTarget(bool) { "vip" => true, "service" => false }
}

/// `service.on_failure`: `withdraw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnFailureWord;

impl Read for OnFailureWord {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(&node.value, Value::String(text) if text == "depreference") {
            let message = "\"depreference\" is not supported by this version";
            return reader.refuse(node, path, message, "write \"withdraw\" or remove this key");
        }
        word(node, path, reader, &[("withdraw", OnFailureWord)])
    }

    fn describe() -> String {
        "`\"withdraw\"`".to_owned()
    }

    fn schema() -> Json {
        one_of(&["withdraw"])
    }
}

/// `service.checks`: names, or `none` (empty).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CheckWords {
    None,
    Named(Vec<At<String>>),
}

impl Read for CheckWords {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::String(text) if text == "none" => Some(CheckWords::None),
            _ => Vec::read(node, path, reader).map(CheckWords::Named),
        }
    }

    fn describe() -> String {
        "array of string, or `\"none\"`".to_owned()
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "none" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

/// Standard or large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommunityWord {
    Standard(Community),
    Large(LargeCommunity),
}

/// Names to suggest; which number each one is, BGP knows.
const WELL_KNOWN: [&str; 6] =
    ["no-export", "no-advertise", "no-export-subconfed", "nopeer", "blackhole", "graceful-shutdown"];

impl Read for CommunityWord {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "a community like \"65001:100\"")?;
        if let Ok(community) = text.parse() {
            return Some(CommunityWord::Standard(community));
        }
        if let Ok(community) = text.parse() {
            return Some(CommunityWord::Large(community));
        }
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [asn, value] if asn.parse::<u32>().is_ok() && value.parse::<u32>().is_ok() => reader.refuse(
                node,
                path,
                format!("{text:?} is no standard community: its halves go to 65535"),
                format!("write a large community, for example \"{asn}:0:{value}\""),
            ),
            _ => {
                let help = match did_you_mean(text, WELL_KNOWN) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => {
                        "write \"ASN:VALUE\" (RFC 1997), \"ASN:VALUE:VALUE\" (RFC 8092) or a well-known name"
                            .to_owned()
                    }
                };
                reader.refuse(node, path, format!("{text:?} is no community"), help)
            }
        }
    }

    fn describe() -> String {
        "community".to_owned()
    }

    fn schema() -> Json {
        let names = WELL_KNOWN.join("|");
        json!({ "type": "string", "pattern": format!("^([0-9]+:[0-9]+(:[0-9]+)?|{names})$") })
    }
}

/// A status code or an inclusive range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusRange(pub(crate) (u16, u16));

impl Read for StatusRange {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let range = match &node.value {
            Value::Integer(number) => {
                number.and_then(|number| u16::try_from(number).ok()).map(|code| (code, code))
            }
            Value::String(text) => match text.split_once('-') {
                Some((from, to)) => from.trim().parse().ok().zip(to.trim().parse().ok()),
                None => text.trim().parse().ok().map(|code| (code, code)),
            },
            _ => return reader.expected(node, path, "a status code", "write 200 or \"200-299\""),
        };
        match range {
            Some((from, to)) if 100 <= from && from <= to && to <= 599 => Some(StatusRange((from, to))),
            _ => reader.refuse(
                node,
                path,
                format!("no status code or range from 100 to 599, found {}", node.describe()),
                "write 200, \"200-299\" or an array of such",
            ),
        }
    }

    fn describe() -> String {
        "status code (integer) or range (string)".to_owned()
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" },
        ] })
    }
}

/// A header's name and value, in the order of the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderTable(pub(crate) Vec<(String, String)>);

impl Read for HeaderTable {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            return reader.expected(node, path, "a table", "write headers = { Accept = \"text/plain\" }");
        };
        let mut headers = Vec::new();
        let mut good = true;
        for (name, entry) in table {
            let path = super::document::join(path, name);
            // RFC 9110 §5.1: a token.
            let token = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
            if !token {
                good = false;
                let _: Option<()> =
                    reader.refuse(&entry.node, &path, "not a header name", "use letters, digits and '-'");
            } else if ["host", "connection", "content-length", "transfer-encoding"]
                .contains(&name.to_ascii_lowercase().as_str())
            {
                good = false;
                let _: Option<()> = reader.refuse(
                    &entry.node,
                    &path,
                    "this header is set by the check itself",
                    "for Host, write host = \"…\"",
                );
            }
            match reader.string(&entry.node, &path, "a string") {
                Some(value) if is_field_value(value) => headers.push((name.clone(), value.to_owned())),
                Some(_) => {
                    good = false;
                    let _: Option<()> = reader.refuse(
                        &entry.node,
                        &path,
                        "not a header value",
                        "use printable ASCII on one line",
                    );
                }
                None => good = false,
            }
        }
        good.then_some(HeaderTable(headers))
    }

    fn describe() -> String {
        "table of string".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

/// RFC 9110 §5.5, kept to ASCII.
pub(crate) fn is_field_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic())
}
