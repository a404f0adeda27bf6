//! Keys that take words: closed sets, names of checks, communities.

use std::time::Duration;

use anyvip_bfd::AuthenticationKind;
use anyvip_bgp::wire::{Community, ExtendedCommunity, Family, LargeCommunity, Role};
use serde_json::{Value as Json, json};

use super::diagnostic::{At, did_you_mean};
use super::document::{Node, Value};
use super::keys::{Section, WrittenBfd, one_of};
use super::read::{Nesting, Read, Reader};
use super::values::Wait;
use super::{HttpMethod, OnError, OnFailure, ReturnPath};

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
    /// `service.on_failure`.
    OnFailureWord(OnFailure) { "withdraw" => OnFailure::Withdraw, "depreference" => OnFailure::Depreference }
    /// Method of an HTTP check.
    Method(HttpMethod) { "GET" => HttpMethod::Get, "HEAD" => HttpMethod::Head }
    /// An address family.
    FamilyWord(Family) { "ipv4" => Family::Ipv4, "ipv6" => Family::Ipv6 }
    /// Our role on an external session.
    RoleWord(Role) {
        "customer" => Role::Customer, "peer" => Role::Peer, "provider" => Role::Provider, "rs" => Role::Rs,
        "rs-client" => Role::RsClient,
    }
    /// RFC 5880 §6.7.
    BfdAuthenticationWord(AuthenticationKind) {
        "simple" => AuthenticationKind::SimplePassword, "keyed-md5" => AuthenticationKind::KeyedMd5,
        "meticulous-keyed-md5" => AuthenticationKind::MeticulousKeyedMd5, "keyed-sha1" => AuthenticationKind::KeyedSha1,
        "meticulous-keyed-sha1" => AuthenticationKind::MeticulousKeyedSha1,
    }
    /// Whether a check is made per VIP.
    CheckTarget(bool) { "vip" => true, "service" => false }
}

/// `bgp.peer.NAME.graceful_restart`: off, on, or on with a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GracefulRestartWord(pub(crate) Option<Duration>);

impl GracefulRestartWord {
    /// Enough for a new process and its connection, and not long for routes of an agent that died.
    const USUAL: Duration = Duration::from_secs(10);
}

impl Read for GracefulRestartWord {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Boolean(on) => Some(GracefulRestartWord(on.then_some(Self::USUAL))),
            Value::String(_) => {
                let time = Wait::<1_000, 120_000>::read(node, path, reader)?.0;
                match time.subsec_nanos() {
                    0 => Some(GracefulRestartWord(Some(time))),
                    _ => reader.refuse(
                        node,
                        path,
                        "the router is told whole seconds",
                        "write whole seconds, as \"10s\"",
                    ),
                }
            }
            _ => reader.expected(node, path, "true, false or a duration", "write true, or a time as \"10s\""),
        }
    }

    fn describe() -> String {
        format!("boolean or {}", Wait::<1_000, 120_000>::describe())
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "boolean" }, Wait::<1_000, 120_000>::schema()] })
    }
}

/// `bgp.peer.NAME.bfd`: on, off, or on with settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BfdWord {
    Off,
    On(Box<WrittenBfd>),
}

impl BfdWord {
    const SECTION: &'static Section = WrittenBfd::SECTION;
}

impl Read for BfdWord {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Boolean(false) => Some(BfdWord::Off),
            Value::Boolean(true) => Some(BfdWord::On(Box::default())),
            Value::Table(_) => {
                WrittenBfd::read(node, path, reader).map(|settings| BfdWord::On(Box::new(settings)))
            }
            _ => reader.expected(
                node,
                path,
                "true, false or a table",
                "write true, or { interval = \"300ms\" }",
            ),
        }
    }

    fn describe() -> String {
        "boolean or table".to_owned()
    }

    fn schema() -> Json {
        json!({ "anyOf": [bool::schema(), WrittenBfd::schema()] })
    }

    fn nesting() -> Nesting {
        Nesting::Table(BfdWord::SECTION)
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

/// Of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommunityWord {
    Standard(Community),
    Extended(ExtendedCommunity),
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
        if let Ok(community) = text.parse() {
            return Some(CommunityWord::Extended(community));
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
                        "write \"ASN:VALUE\" (RFC 1997), \"ASN:VALUE:VALUE\" (RFC 8092), \"rt:ASN:VALUE\" (RFC 4360) or a well-known name"
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
        json!({ "type": "string", "pattern": format!("^([0-9]+:[0-9]+(:[0-9]+)?|(rt|soo|bandwidth):[0-9.]+L?:[0-9]+|0x[0-9A-Fa-f]{{16}}|{names})$") })
    }
}
