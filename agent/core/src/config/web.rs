//! Keys of an HTTP check: URL, path, status codes, headers.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::Secret;
use super::addresses::unusable;
use super::document::{Node, Value, join};
use super::read::{Read, Reader};

/// Path and query of a request (RFC 9112 §3.2.1), as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlPath(pub(crate) String);

impl Read for UrlPath {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "a path")?;
        match url_path_problem(text) {
            None => Some(UrlPath(text.to_owned())),
            Some((message, help)) => reader.refuse(node, path, format!("{text:?} {message}"), help),
        }
    }

    fn describe() -> String {
        "string that starts with `/`".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/[!-\"$-~]*$" })
    }
}

fn url_path_problem(text: &str) -> Option<(&'static str, &'static str)> {
    if !text.starts_with('/') {
        Some(("does not start with '/'", "write \"/…\""))
    } else if text.contains('#') {
        Some(("has a fragment, which is never sent", "remove what follows '#'"))
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some(("has characters that a URL cannot carry", "percent-encode them, a space as %20"))
    } else {
        None
    }
}

/// `http[s]://ADDRESS[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebAddress {
    pub(crate) secure: bool,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Read for WebAddress {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "a URL")?;
        let example = "write for example \"http://127.0.0.1:9000/ok\" or \"https://[::1]:8443/\"";
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return reader.refuse(node, path, format!("{text:?} is no http or https URL"), example),
        };
        let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(split);
        let tail = match tail {
            "" => "/".to_owned(),
            tail if tail.starts_with('?') => format!("/{tail}"),
            tail => tail.to_owned(),
        };
        if let Some((message, help)) = url_path_problem(&tail) {
            return reader.refuse(node, path, format!("{tail:?} {message}"), help);
        }
        let default_port = if secure { 443 } else { 80 };
        let Some((host, port)) = split_authority(authority, default_port) else {
            return reader.refuse(node, path, format!("{authority:?} is no address and port"), example);
        };
        let Ok(address) = host.parse::<IpAddr>() else {
            let help = "write its address, and the name as host = \"…\"";
            return reader.refuse(
                node,
                path,
                format!("{host:?} is no address; names are not resolved"),
                help,
            );
        };
        match unusable(address) {
            None | Some("a loopback address") => Some(WebAddress { secure, address, port, path: tail }),
            Some(kind) => reader.refuse(node, path, format!("{address} is {kind}"), example),
        }
    }

    fn describe() -> String {
        "URL with a literal address".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

fn split_authority(authority: &str, default_port: u16) -> Option<(&str, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0)?
        }
        Some(_) => return None,
    };
    (!host.is_empty()).then_some((host, port))
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
pub(crate) struct HeaderTable(Vec<(String, String)>);

impl HeaderTable {
    pub(crate) fn meant(&self) -> Vec<(String, Secret)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
    }
}

impl Read for HeaderTable {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            return reader.expected(node, path, "a table", "write headers = { Accept = \"text/plain\" }");
        };
        let mut headers = Vec::new();
        let mut good = true;
        for (name, entry) in table {
            let path = join(path, name);
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
