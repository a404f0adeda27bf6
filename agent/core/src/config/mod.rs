//! Configuration as meant. How it is written, read, checked and compared is in the files beside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyvip_bfd::AuthenticationKind;
use anyvip_bgp::{PeerConfig, PeerName};
use serde::{Deserialize, Serialize};

use crate::boundary::{CheckName, ServiceName};

mod addresses;
mod announce;
mod check;
mod diagnostic;
mod diff;
mod document;
mod keys;
mod read;
mod resolve;
mod schema;
mod secret;
mod show;
#[cfg(test)]
mod tests;
mod validate;
mod values;
mod web;
mod words;

pub use announce::{Announce, Attributes, Communities, Layers, Standing};
pub use diagnostic::{At, Diagnostic, Place, Related, Severity, Source};
pub use diff::{Change, diff};
pub use keys::Class;
pub use read::{Written, includes, read};
pub use resolve::{HostFacts, InterfaceAddress, Loaded, load, resolve};
pub use schema::{reference, schema};
pub use secret::{Digest, Secret};
pub use show::show;
pub use validate::validate;

/// Everything, resolved: defaults filled in, names looked up, contradictions refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// BGP Identifier.
    pub router_id: Ipv4Addr,
    pub host: Host,
    pub bgp: Bgp,
    /// `[static.peer.NAME]`: routers that track a static route to this host by BFD.
    pub statics: BTreeMap<PeerName, StaticPeer>,
    pub services: BTreeMap<ServiceName, Service>,
    #[serde(default)]
    pub responder: Responder,
}

/// `[responder]` and the key `responder` of services: what answers routers that track this host by probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responder {
    /// Where HTTP is answered for all services.
    pub listen: Option<SocketAddr>,
    /// Where a port is open, and answers HTTP, only while its service is offered.
    pub ports: BTreeMap<ServiceName, SocketAddr>,
}

impl Responder {
    /// Whether nobody is answered.
    pub fn is_none(&self) -> bool {
        self.listen.is_none() && self.ports.is_empty()
    }
}

/// `[host]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Where VIPs go: `lo` or an existing dummy.
    pub vip_interface: String,
    /// Interfaces to guard; `None`: found by their routes.
    pub uplinks: Option<BTreeSet<String>>,
    /// Whether a missing return path withholds.
    pub return_path: ReturnPath,
    /// How long to stay after the withdrawals were sent on SIGTERM (2 s).
    pub stop_time: Duration,
    /// Whether an orderly stop removes VIPs and guard.
    pub stop_removes_vip: bool,
}

/// `host.return_path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReturnPath {
    /// Withhold from a peer whose traffic rp_filter would drop.
    Require,
    /// Only warn.
    Warn,
}

/// `[bgp]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bgp {
    pub asn: u32,
    /// `None`: we connect, nobody connects to us.
    pub listen: Option<SocketAddr>,
    /// Whether default routes that peers tell are installed.
    #[serde(default)]
    pub install_default: bool,
    /// `receive` is the agent's to fill in; families are those of the VIPs unless written.
    pub peers: BTreeMap<PeerName, PeerConfig>,
    /// Of those peers whose path BFD watches.
    pub bfd: BTreeMap<PeerName, Bfd>,
}

impl Bgp {
    /// Of a host with static peers alone.
    pub(crate) fn none() -> Bgp {
        Bgp { asn: 0, listen: None, install_default: false, peers: BTreeMap::new(), bfd: BTreeMap::new() }
    }

    /// Whether this host speaks BGP at all.
    pub fn is_none(&self) -> bool {
        self.peers.is_empty() && self.asn == 0
    }
}

/// `[bgp.peer.NAME] bfd`, and the same keys of `[static.peer.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bfd {
    /// Between packets, both ways.
    pub interval: Duration,
    /// Packets that may be missing before the other end gives up.
    pub multiplier: u8,
    /// Whether announcing waits for BFD.
    pub strict: bool,
    /// Set for a peer behind other routers: the least TTL that its packets may arrive with.
    pub min_ttl: Option<u8>,
    pub authentication: Option<BfdAuthentication>,
}

/// How BFD packets are authenticated. The key itself is not part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdAuthentication {
    pub kind: AuthenticationKind,
    pub key_id: u8,
    /// Its first line is the key.
    pub key_file: PathBuf,
}

/// `[static.peer.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPeer {
    pub address: IpAddr,
    /// Where the address is a link-local one.
    pub interface: Option<String>,
    /// `strict` has no meaning here.
    pub bfd: Bfd,
}

/// `[service.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Host addresses, at least one, in the order written.
    pub vips: Vec<IpAddr>,
    /// Empty only if `checks = "none"` was written out.
    pub checks: Vec<Check>,
    /// Peers to tell.
    pub peers: BTreeSet<PeerName>,
    /// Static peers that are told the health of this service.
    pub statics: BTreeSet<PeerName>,
    pub announce: Announce,
    /// What a check that cannot be made does.
    pub on_error: OnError,
    /// What an unhealthy service does.
    pub on_failure: OnFailure,
    /// How long a drained service is still told, with the attributes of [`Standing::Draining`]; zero: withdrawn at once.
    pub drain_time: Duration,
}

/// `service.on_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is withdrawn.
    Withdraw,
    /// It is told with the attributes of [`Standing::Depreferenced`].
    Depreference,
}

/// `service.on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The last health stands.
    Hold,
    /// The service counts as down.
    Fail,
}

/// One check of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: CheckName,
    pub kind: CheckKind,
    /// True: each VIP is probed and gated by itself. False: the check has an address or command of its own.
    pub on_vip: bool,
    /// From start to start.
    pub interval: Duration,
    pub timeout: Duration,
    /// Passes in a row until up.
    pub rise: u32,
    /// Fails in a row until down.
    pub fall: u32,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CheckKind {
    Http(HttpCheck),
    Tcp(TcpCheck),
    Exec(ExecCheck),
}

/// HTTP/1.1, with or without TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// `None`: the VIP. A literal address; names are not resolved.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub method: HttpMethod,
    /// Starts with `/`.
    pub path: String,
    /// Host header; `None`: the address.
    pub host: Option<String>,
    /// Values may be tokens.
    pub headers: Vec<(String, Secret)>,
    /// Inclusive ranges; default 200–299.
    pub expect_status: Vec<(u16, u16)>,
    /// Text that must occur in the first 64 KiB of the body.
    pub expect_body: Option<String>,
    pub tls: Option<Tls>,
}

/// The two methods a check may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    Get,
    Head,
}

/// TLS of an HTTPS check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    /// Name that the certificate must carry; `None`: the host, else the address.
    pub server_name: Option<String>,
    /// PEM file of the certificate authority; needed unless `insecure`.
    pub ca_file: Option<PathBuf>,
    /// Take any certificate.
    pub insecure: bool,
}

/// TCP connect, and optionally a word each way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcpCheck {
    /// `None`: the VIP.
    pub address: Option<IpAddr>,
    pub port: u16,
    /// May be a password.
    pub send: Option<Secret>,
    /// Text that must occur in the first 64 KiB of what comes back.
    pub expect: Option<String>,
}

/// A command: exit 0 passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecCheck {
    /// Program (absolute path) and arguments; no shell. `ANYVIP_SERVICE`, `ANYVIP_CHECK` and, per VIP, `ANYVIP_VIP` are set.
    pub command: Vec<String>,
}
