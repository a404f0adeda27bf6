//! Keys that are addresses, names of interfaces, and paths of files.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::document::{Node, Value};
use super::read::{Read, Reader};

/// An address that packets can be sent to: a peer, a check's own target, a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostAddress(pub(crate) IpAddr);

impl Read for HostAddress {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "an IP address")?;
        let Ok(address) = text.parse::<IpAddr>() else {
            let help = if text.contains('/') {
                "write the address without a prefix length"
            } else if text.contains('%') {
                "write the interface of a link-local address as interface = \"…\", beside it"
            } else {
                "write an IPv4 or IPv6 address; names are not resolved"
            };
            return reader.refuse(node, path, format!("{text:?} is no IP address"), help);
        };
        match unusable(address) {
            Some("link-local") if address.is_ipv4() => Some(HostAddress(address)),
            Some("a loopback address") | None => Some(HostAddress(address)),
            Some("link-local") => {
                reader.refuse(node, path, format!("{address} is link-local"), "write a global address")
            }
            Some(kind) => {
                reader.refuse(node, path, format!("{address} is {kind}"), "write the address of one host")
            }
        }
    }

    fn describe() -> String {
        "IP address".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
    }
}

/// The address of a peer: that of one host, or of one on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

impl PeerAddress {
    /// Whether it means something on one link only.
    pub(crate) fn is_link_local(self) -> bool {
        matches!(self.0, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

impl Read for PeerAddress {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let link_local = match &node.value {
            Value::String(text) => {
                text.parse().ok().map(PeerAddress).filter(|address| address.is_link_local())
            }
            _ => None,
        };
        link_local.or_else(|| HostAddress::read(node, path, reader).map(|address| PeerAddress(address.0)))
    }

    fn describe() -> String {
        HostAddress::describe()
    }

    fn schema() -> Json {
        HostAddress::schema()
    }
}

/// Why this is not an address that one host can be reached at from another.
pub(crate) fn unusable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
        _ => None,
    }
}

/// A service address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VipAddress(pub(crate) IpAddr);

impl Read for VipAddress {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "an IP address")?;
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            let help = "write an IPv4 or IPv6 address, for example \"192.0.2.53\" or \"2001:db8::53\"";
            return reader.refuse(node, path, format!("{text:?} is no IP address"), help);
        };
        let (bits, plain) = if address.is_ipv4() { (32, "IPv4") } else { (128, "IPv6") };
        if let Some(length) = length
            && length != bits.to_string()
        {
            let message = match length.parse::<u32>() {
                Ok(length) if length <= bits => format!("a VIP is one address, not a /{length} network"),
                _ => format!("/{length} is no prefix length of {plain}"),
            };
            return reader.refuse(
                node,
                path,
                message,
                format!("write \"{address}\" or \"{address}/{bits}\""),
            );
        }
        match unusable(address) {
            None => Some(VipAddress(address)),
            Some(kind) => {
                let message = format!("{address} is {kind}: routers would not carry it");
                reader.refuse(node, path, message, "write a global or private unicast address")
            }
        }
    }

    fn describe() -> String {
        "IP address, optionally with /32 or /128".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9.]+(/32)?|[0-9A-Fa-f:.]+(/128)?)$" })
    }
}

/// A name of this host, of letters, digits, dots and hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(pub(crate) String);

impl Read for HostName {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "a host name")?;
        let (host, domain) = text.split_once('.').unwrap_or((text, ""));
        let good = |part: &str| {
            part.len() <= 64
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if host.is_empty() || !good(host) || !good(domain) {
            let help = "write for example \"h1.example.net\": at most 64 characters before the first dot, and 64 behind it";
            return reader.refuse(node, path, format!("{text:?} is no host name"), help);
        }
        Some(HostName(text.to_owned()))
    }

    fn describe() -> String {
        "host name".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}([.][A-Za-z0-9._-]{0,64})?$" })
    }
}

/// A prefix to tell: not the default route, no bit set beyond its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixNet(pub(crate) IpNet);

impl Read for PrefixNet {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "a prefix")?;
        let remedy = "write for example \"192.0.2.0/24\" or \"2001:db8::/48\"";
        let prefix = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
            (Ok(prefix), _) => prefix,
            (Err(_), Ok(address)) => IpNet::from(address),
            _ => return reader.refuse(node, path, format!("{text:?} is no prefix"), remedy),
        };
        if prefix.trunc() != prefix {
            let (message, help) =
                (format!("{prefix} has bits set beyond its length"), format!("write \"{}\"", prefix.trunc()));
            return reader.refuse(node, path, message, help);
        }
        if prefix.prefix_len() == 0 {
            return reader.refuse(node, path, "a default route is no service's prefix", remedy);
        }
        match unusable(prefix.addr()) {
            None => Some(PrefixNet(prefix)),
            Some(kind) => reader.refuse(
                node,
                path,
                format!("{prefix} begins with {kind}: routers would not carry it"),
                "write a global or private unicast prefix",
            ),
        }
    }

    fn describe() -> String {
        "prefix".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]+)?$" })
    }
}

/// A BGP Identifier: not zero (RFC 6286 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouterId(pub(crate) Ipv4Addr);

impl Read for RouterId {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "an IPv4 address")?;
        let help = "write an IPv4 address of this host that no other router uses as its identifier";
        match text.parse::<Ipv4Addr>() {
            Ok(id) if id.is_unspecified() => {
                reader.refuse(node, path, "0.0.0.0 is no BGP Identifier (RFC 6286)", help)
            }
            Ok(id) => Some(RouterId(id)),
            Err(_) => reader.refuse(node, path, format!("{text:?} is no IPv4 address"), help),
        }
    }

    fn describe() -> String {
        "IPv4 address".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "format": "ipv4" })
    }
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortAddress(pub(crate) SocketAddr);

impl Read for PortAddress {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "\"ADDRESS:PORT\"")?;
        let help = "write for example \"0.0.0.0:8080\" or \"[::]:8080\"";
        port_address(text).map_err(|message| reader.refuse::<Self>(node, path, message, help)).ok()
    }

    fn describe() -> String {
        "`\"ADDR:PORT\"`".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^.+:[0-9]+$" })
    }
}

fn port_address(text: &str) -> Result<PortAddress, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err("port 0 is no port to listen on".to_owned()),
        Ok(address) => Ok(PortAddress(address)),
        Err(_) => Err(format!("{text:?} is no address with a port")),
    }
}

/// `bgp.listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl Read for Listen {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "\"off\" or \"ADDRESS:PORT\"")?;
        if text == "off" {
            return Some(Listen(None));
        }
        let help = "write \"off\", or for example \"0.0.0.0:179\" or \"[::]:179\"";
        let address = port_address(text).map_err(|message| reader.refuse::<Self>(node, path, message, help));
        address.ok().map(|address| Listen(Some(address.0)))
    }

    fn describe() -> String {
        "`\"off\"` or `\"ADDR:PORT\"`".to_owned()
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "off" }, { "type": "string", "pattern": "^.+:[0-9]+$" }] })
    }
}

/// The name of a network interface, as the kernel allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceName(pub(crate) String);

impl Read for InterfaceName {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "the name of an interface")?;
        let usable = (1..=15).contains(&text.len())
            && ![".", ".."].contains(&text)
            && text.chars().all(|character| character.is_ascii_graphic() && !"/:".contains(character));
        if usable {
            return Some(InterfaceName(text.to_owned()));
        }
        let help = "write 1 to 15 characters without space, '/' or ':', as `ip link` shows it";
        reader.refuse(node, path, format!("{text:?} is no name of an interface"), help)
    }

    fn describe() -> String {
        "interface name".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[!-.0-9;-~]{1,15}$" })
    }
}

/// A file by its absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AbsolutePath(pub(crate) PathBuf);

impl Read for AbsolutePath {
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, path, "a path")?;
        if text.starts_with('/') && !text.contains('\0') {
            return Some(AbsolutePath(PathBuf::from(text)));
        }
        reader.refuse(node, path, format!("{text:?} is no absolute path"), "write the whole path from '/'")
    }

    fn describe() -> String {
        "absolute path".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/" })
    }
}
