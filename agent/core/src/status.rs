//! What `anyvip status` prints. The JSON form is a contract: fields may be added, never changed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::boundary::{CheckName, ProbeResult, Reason, ServiceName};
use crate::config::Standing;

/// The whole picture at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent; filled in by the driver.
    pub version: String,
    pub router_id: Ipv4Addr,
    pub uptime_ms: u64,
    pub warnings: Vec<Warning>,
    pub services: Vec<ServiceStatus>,
    pub peers: Vec<PeerStatus>,
    /// Event received → the write of its UPDATE returned; filled in by the driver.
    pub decision_to_wire_us: Histogram,
    /// An upgrade under way, or how the last one ended that this process knows of.
    #[serde(default)]
    pub upgrade: Option<UpgradeStatus>,
    /// Connections to `bgp.listen` that were turned away; `None` when there were none.
    #[serde(default)]
    pub turned_away: Option<TurnedAwayStatus>,
}

/// Who called and is no peer, or not there, or not as agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedAwayStatus {
    /// Since the agent started.
    pub connections: u64,
    /// Who came last, why it was not heard, and what helps.
    pub last: String,
    pub last_for_ms: u64,
}

/// How far `anyvip upgrade` has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// `preparing` and `failed` in the old process, `taking_over` and `done` in the new one.
    pub phase: String,
    /// Version that this process took over from.
    pub from: Option<String>,
    pub text: String,
    /// In this phase.
    pub for_ms: u64,
    /// Peers that keep routes of the former process and are not told yet that they know everything.
    pub waiting_for: Vec<String>,
}

/// What `anyvip upgrade` would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradePlan {
    pub lines: Vec<UpgradeLine>,
}

impl UpgradePlan {
    /// What would be lost for a while.
    pub fn lost(&self) -> impl Iterator<Item = &UpgradeLine> {
        self.lines.iter().filter(|line| !line.kept)
    }
}

/// One peer, path or service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeLine {
    /// As `peer tor1`.
    pub subject: String,
    /// Whether no route is lost by it.
    pub kept: bool,
    pub text: String,
}

/// Something that works against the operator, with a stable code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub code: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: ServiceName,
    /// `up`, `down`, `unknown` or `error`.
    pub health: String,
    /// `enabled`, `draining` or `drained`.
    pub admin: String,
    /// Since the last change of health.
    pub for_ms: u64,
    pub drain: Option<DrainStatus>,
    pub checks: Vec<CheckStatus>,
    /// What routers that track this host by probe are told; `None` where none may ask.
    #[serde(default)]
    pub responder: Option<ResponderStatus>,
    pub vips: Vec<VipStatus>,
}

/// What the responder says of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResponderStatus {
    /// Where HTTP is answered.
    pub http: Option<SocketAddr>,
    /// The port of the service alone.
    pub port: Option<SocketAddr>,
    /// 200 or 503. With 503, `port` takes no connection.
    pub answer: u16,
    pub reason: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainStatus {
    pub reason: Option<String>,
    /// Since the operator asked; across restarts.
    pub for_ms: u64,
    /// `telling` (with the attributes for draining), `withdrawing` or `withdrawn`.
    pub phase: String,
    /// Until it is withdrawn; only while `telling`.
    pub left_ms: Option<u64>,
    /// Peers whose withdrawal has not been written yet.
    pub waiting_for: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckStatus {
    pub name: CheckName,
    /// `http`, `tcp` or `exec`.
    pub kind: String,
    /// The VIP, or the check's own address or command.
    pub target: String,
    /// `up`, `down`, `unknown` or `error`.
    pub state: String,
    /// Equal results in a row.
    pub consecutive: u32,
    pub last: Option<LastResult>,
    /// How old the state is that was inherited from the process before an upgrade, until own results decide.
    #[serde(default)]
    pub inherited_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastResult {
    pub result: ProbeResult,
    pub latency_us: u64,
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipStatus {
    pub address: IpAddr,
    pub present: bool,
    pub owned: bool,
    /// `None` for IPv6, which needs no guard.
    pub arp_guarded: Option<bool>,
    /// True when no gate of service or VIP is closed.
    pub wanted: bool,
    pub reason: Option<Reason>,
    /// With which attributes it is told; `None` when withheld.
    pub standing: Option<Standing>,
    pub peers: Vec<VipPeerStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipPeerStatus {
    pub name: String,
    /// Written to the peer in an UPDATE and not withdrawn since.
    pub advertised: bool,
    pub reason: Option<Reason>,
    pub attributes: Option<AttributesStatus>,
    /// How many other origins of the route this peer shows us; `None` where it does not show the route at all. Without add-path a
    /// router shows its best way only.
    #[serde(default)]
    pub other_origins: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributesStatus {
    pub next_hop: String,
    pub med: Option<u32>,
    pub prepend: u8,
    pub local_pref: Option<u32>,
    /// All kinds, as text.
    pub communities: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub name: String,
    /// `bgp`, or `static` for a router that tracks a static route to this host by BFD.
    pub protocol: String,
    pub address: String,
    /// What keeps a peer without a session: of one that is known by its link, no router heard there, no carrier, and so on; of one that
    /// took the connection, that it says nothing.
    #[serde(default)]
    pub waiting_for: Option<String>,
    pub state: String,
    pub for_ms: u64,
    pub families: Vec<String>,
    /// The peer's role (RFC 9234), if it told one on this session.
    pub role: Option<String>,
    /// Whether this session has messages longer than 4096 octets (RFC 8654).
    #[serde(default)]
    pub extended_messages: bool,
    pub advertised: Vec<IpNet>,
    /// Where BFD watches the path.
    pub bfd: Option<BfdStatus>,
    /// How the last session or attempt ended; kept while the next session stands.
    pub last_error: Option<String>,
    /// How long ago that was.
    #[serde(default)]
    pub last_error_for_ms: Option<u64>,
    /// What it has told us on this session; `None` without one.
    #[serde(default)]
    pub heard: Option<HeardStatus>,
    /// How long it keeps our routes when the session ends without a word, as agreed on this session (RFC 4724).
    #[serde(default)]
    pub graceful_restart_s: Option<u64>,
    /// Sessions that were Established and ended, since the agent started.
    #[serde(default)]
    pub sessions_lost: u64,
}

/// What a peer has told. Nothing of it but a default route (`bgp.install_default`) is ever used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeardStatus {
    /// Announced prefixes, repetitions included.
    pub prefixes: u64,
    /// Those of them that are not about our VIPs, or lead back to us.
    pub dropped: u64,
    /// Families of which it tells all its ways.
    pub add_path: Vec<String>,
}

/// One BFD session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BfdStatus {
    /// `Up`, `Init`, `Down` or `AdminDown`.
    pub state: String,
    pub for_ms: u64,
    /// Between our packets, as agreed; while Up.
    pub transmit_us: Option<u64>,
    /// Without a packet for that long the path is down; while Up.
    pub detection_us: Option<u64>,
    /// Why it went down last.
    pub last_down: Option<String>,
    /// How long ago that was.
    #[serde(default)]
    pub last_down_for_ms: Option<u64>,
    /// Why it does not come up: what the peer sends, or why we cannot send. Of an Up session also what was refused in the last minute.
    pub trouble: Option<String>,
    /// How long ago that was told.
    #[serde(default)]
    pub trouble_for_ms: Option<u64>,
}

/// Counted in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// `anyvip explain SERVICE`: every gate between this service and the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub service: ServiceName,
    pub vips: Vec<VipExplanation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipExplanation {
    pub address: IpAddr,
    /// Gates of service and VIP, in order.
    pub gates: Vec<GateStatus>,
    pub peers: Vec<PeerExplanation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerExplanation {
    pub name: String,
    pub gates: Vec<GateStatus>,
    pub advertised: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateStatus {
    /// Name as in `reason`.
    pub gate: Reason,
    pub open: bool,
    /// Open, but only for a route with other attributes.
    pub lowers: Option<Standing>,
    /// What is seen.
    pub text: String,
    /// What would open it, when closed.
    pub remedy: Option<String>,
    /// How long it has stood so.
    pub for_ms: u64,
}
