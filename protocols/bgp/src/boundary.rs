//! What enters a [`Speaker`](crate::Speaker) and what leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyvip_machine::Failure;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::wire::{
    AsPath, Community, ExtendedCommunity, Family, GracefulRestart, LargeCommunity, NextHop, Notification,
    Origin, Role,
};

/// Everything that can happen to a speaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// `next_deadline()` has come. The only event that lets time act.
    DeadlineReached,
    /// The whole configuration, now and at each reload. Peers are compared by name: a new one starts, a missing one
    /// is closed with Cease/Peer De-configured (RFC 4486), one whose session-relevant fields differ is closed with
    /// Cease/Other Configuration Change and starts again, all others keep their sessions.
    Configure(SpeakerConfig),
    /// All routes that `peer` shall know from now on. The speaker sends the difference to what it was told. Routes
    /// that the session cannot carry (family or next hop not negotiated) are left out. Without an Established session
    /// this is forgotten: next hops depend on the session, so [`Action::SessionUp`] asks again.
    Wanted { peer: PeerName, routes: BTreeMap<IpNet, RouteAttributes> },
    /// These peers were told routes by the process before this one and keep them for a while (RFC 4724 §4.1): OPENs say so, and
    /// End-of-RIB, with which a peer drops what was not told again, is held back. The whole set, and from the first `Configure` on: a
    /// peer that is not in it any more is said End-of-RIB.
    Restarting { peers: BTreeSet<PeerName> },
    /// The path to this peer is down, as BFD found out: an Established session is closed with Cease/BFD Down (RFC 9384).
    PathDown { peer: PeerName },
    /// Close all sessions with Cease/Administrative Shutdown and this text (RFC 9003), and start none.
    Stop { text: String },
    /// The TCP connection asked for by [`Action::Connect`] stands.
    Connected { connection: ConnectionId, local: SocketAddr, remote: SocketAddr },
    /// It could not be made.
    ConnectFailed { connection: ConnectionId, failure: Failure },
    /// Somebody connected to our listener. The driver chose the id.
    Accepted { connection: ConnectionId, local: SocketAddr, remote: SocketAddr },
    /// Somebody connected to our listener and was closed before a byte was read: the driver sees what the addresses do not say.
    TurnedAway { remote: SocketAddr, why: Rejection },
    /// Bytes as they came, at most 64 KiB.
    Received {
        connection: ConnectionId,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The kernel took all bytes of the last [`Action::Send`] on this connection.
    Sent { connection: ConnectionId },
    /// The connection ended from outside; not sent in answer to [`Action::Close`].
    Closed { connection: ConnectionId, failure: Failure },
}

/// Everything a speaker asks for or reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Open a TCP connection. Answered by `Connected` or `ConnectFailed`.
    Connect {
        connection: ConnectionId,
        peer: PeerName,
        remote: Endpoint,
        ttl: Option<u8>,
        transport: Transport,
    },
    /// Write these whole messages (at most 64 KiB). Answered by `Sent`; until then no other `Send` on this connection.
    Send {
        connection: ConnectionId,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Close the connection once what was sent before is written. Not answered; the id is dead from here on.
    Close { connection: ConnectionId },

    /// A peer went from one state of RFC 4271 §8.2.2 to another.
    StateChanged { peer: PeerName, from: PeerState, to: PeerState },
    /// A session is Established; nothing has been advertised on it yet. Answer with [`Event::Wanted`].
    SessionUp { peer: PeerName, facts: SessionFacts },
    /// An Established session, or the attempt at one, ended.
    SessionDown { peer: PeerName, was_established: bool, reason: DownReason },
    /// What the peer has been told changed: these prefixes were written in an UPDATE (announced or replaced, withdrawn).
    Advertised { peer: PeerName, announced: Vec<IpNet>, withdrawn: Vec<IpNet> },
    /// At the end of a session all its routes are withdrawn before `SessionDown`. What the peer told us changed (only peers with [`Receive::Only`] or [`Receive::All`]); `None` is a withdrawal.
    RoutesChanged { peer: PeerName, changes: Vec<(IpNet, Option<crate::wire::ReceivedRoute>)> },
    /// The peer has told all its routes of this family (RFC 4724 §2). Only where [`Receive::All`] is asked for.
    EndOfRib { peer: PeerName, family: Family },
    /// The peer has announced this many prefixes within a minute, more than its `heard_limit`; once a session.
    HeardBeyondLimit { peer: PeerName, heard: u64 },
    /// The peer sent something RFC 7606 lets us survive. Counted in status, logged by the driver.
    Malformed { peer: PeerName, error: crate::error::AttributeError },
    /// A connection was refused.
    Rejected { remote: SocketAddr, why: Rejection },
}

/// Why a connection that somebody made to us was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// [`Event::Stop`] came before.
    #[error("stopped")]
    Stopped,
    /// Nobody is looked for at its address.
    #[error("no peer has this address")]
    NoSuchPeer,
    /// RFC 4271 §6.8.
    #[error("the session is Established already")]
    Established,
    /// It has the address of a peer, but came another way.
    #[error("the peer with this address is on {wanted}, and this came through {through}")]
    OtherInterface { wanted: String, through: String },
    /// The key of TCP MD5 could not be asked for: our listener did not know this address.
    #[error("not known to be signed: TCP MD5 is on for who is at the other end of this link")]
    Unsigned,
}

/// A name from the configuration. Peers are known by name, never by address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerName(pub String);

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> PeerName {
        PeerName(name.to_owned())
    }
}

/// One TCP connection, never used twice in a process. Speaker and driver number their own kind each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConnectionId {
    /// Numbered by the speaker in [`Action::Connect`].
    Initiated(u64),
    /// Numbered by the driver in [`Event::Accepted`].
    Accepted(u64),
}

/// The local end of all sessions, and the peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeakerConfig {
    /// Our AS number, 1 to 4294967295 except 23456.
    pub asn: u32,
    /// BGP Identifier, not zero (RFC 6286).
    pub router_id: Ipv4Addr,
    /// All peers.
    pub peers: BTreeMap<PeerName, PeerConfig>,
}

/// One peer as meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerConfig {
    /// Where the peer is.
    pub remote: Remote,
    /// Its AS number; equal to ours makes the session internal.
    pub asn: u32,
    /// Whether we connect. If not, we wait for the peer's connection.
    pub connect: bool,
    /// The hold time we offer: `None` (written 0) or at least 3 s. The session uses the smaller of both offers.
    pub hold_time: Option<Duration>,
    /// Base of the ConnectRetryTimer while TCP is refused or reset before OPEN; drawn anew within ±25 %.
    pub connect_retry: Duration,
    /// IP TTL of our packets; `None` leaves the system's default. 1 for directly connected eBGP.
    pub ttl: Option<u8>,
    /// Families we offer.
    pub families: BTreeSet<Family>,
    /// What to keep of what the peer tells us.
    pub receive: Receive,
    /// What else is offered and asked for.
    pub session: SessionOptions,
    /// How TCP is made and protected.
    pub transport: Transport,
}

impl PeerConfig {
    /// Our AS number towards this peer, where `speaker` is that of the speaker.
    pub fn local_asn(&self, speaker: u32) -> u32 {
        self.session.local_asn.unwrap_or(speaker)
    }
}

/// What a session is negotiated with beyond families and hold time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOptions {
    /// Our AS number towards this peer, where it is not that of the speaker.
    pub local_asn: Option<u32>,
    /// Our role (RFC 9234); told and checked on external sessions only.
    pub role: Option<Role>,
    /// Whether a peer that tells no role is refused.
    pub role_strict: bool,
    /// Name of this host for the peer's operator (draft-walton-bgp-hostname-capability), with or without a domain.
    pub host_name: Option<String>,
    /// Name and version of the program (draft-abraitis-bgp-version-capability).
    pub software_version: Option<String>,
    /// Whether the peer is asked for all its paths, not only for its best (RFC 7911).
    #[serde(default)]
    pub add_path: bool,
    /// Whether messages longer than 4096 octets are offered (RFC 8654).
    #[serde(default)]
    pub extended_messages: bool,
    /// A peer that announces more prefixes than this within a minute is told about, once a session; nothing else happens.
    #[serde(default)]
    pub heard_limit: Option<u32>,
    /// Whether the peer is asked to keep our routes when the session ends without a NOTIFICATION, and for how long, in whole seconds up
    /// to 4095 (RFC 4724). Zero: it is asked to keep nothing, and told that we keep its routes if it restarts.
    #[serde(default)]
    pub graceful_restart: Option<Duration>,
}

/// How TCP is made and protected; the driver's to carry out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// Address of ours to connect from.
    pub source: Option<IpAddr>,
    /// GTSM (RFC 5082): we send 255, and what has passed this many routers or more is dropped.
    pub ttl_security: Option<u8>,
    /// TCP MD5 (RFC 2385): the file that holds the key. Never the key itself.
    pub password_file: Option<PathBuf>,
}

/// What to keep of a peer's routes. Everything else is counted and dropped at decode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Receive {
    /// Nothing (the agent's default).
    #[default]
    Nothing,
    /// These prefixes.
    Only(BTreeSet<IpNet>),
    /// Everything (a router).
    All,
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The interface, where the address alone does not say it (link-local).
    pub interface: Option<String>,
    /// TCP port, normally 179.
    pub port: u16,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Remote {
    /// At an address.
    At(Endpoint),
    /// At the other end of a link, known by a link-local address. Whoever configures the speaker finds out which; until then
    /// nothing is tried.
    OnLink {
        interface: String,
        /// TCP port, normally 179.
        port: u16,
        neighbour: Option<Neighbour>,
    },
}

/// The other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    /// Link-local.
    pub address: Ipv6Addr,
    /// The number of the interface: the same address may be on several links.
    pub scope: u32,
}

impl Remote {
    /// Where to connect to, if that is known.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Remote::At(endpoint) => Some(endpoint.clone()),
            Remote::OnLink { interface, port, neighbour } => neighbour.map(|neighbour| Endpoint {
                address: neighbour.address.into(),
                interface: Some(interface.clone()),
                port: *port,
            }),
        }
    }

    /// The peer's address, if it is known.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Remote::At(endpoint) => Some(endpoint.address),
            Remote::OnLink { neighbour, .. } => neighbour.map(|neighbour| neighbour.address.into()),
        }
    }

    /// The interface towards it, where one is configured.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Remote::At(endpoint) => endpoint.interface.as_deref(),
            Remote::OnLink { interface, .. } => Some(interface),
        }
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        match self {
            Remote::At(endpoint) => endpoint.port,
            Remote::OnLink { port, .. } => *port,
        }
    }

    /// Whether somebody at this address may be the peer.
    pub fn is_at(&self, remote: SocketAddr) -> bool {
        match (self, remote) {
            (Remote::At(endpoint), _) => endpoint.address.to_canonical() == remote.ip().to_canonical(),
            (Remote::OnLink { neighbour: Some(neighbour), .. }, SocketAddr::V6(remote)) => {
                (neighbour.address, neighbour.scope) == (*remote.ip(), remote.scope_id())
            }
            (Remote::OnLink { .. }, _) => false,
        }
    }
}

impl From<Endpoint> for Remote {
    fn from(endpoint: Endpoint) -> Remote {
        Remote::At(endpoint)
    }
}

/// RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PeerState {
    /// Not trying, or waiting before the next try.
    Idle,
    /// A TCP connection is being made.
    Connect,
    /// Waiting for the next try or for the peer to connect.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN accepted, KEEPALIVE awaited.
    OpenConfirm,
    /// Routes may flow.
    Established,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What both ends agreed on, and where the connection runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Our end of the connection: its address is the natural next hop of its family.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Negotiated hold time; `None` when either side offered 0.
    pub hold_time: Option<Duration>,
    /// Families both sides offered.
    pub families: BTreeSet<Family>,
    /// Families whose routes may carry an IPv6 next hop although they are IPv4 (RFC 8950), both sides agreeing.
    pub extended_next_hop: BTreeSet<Family>,
    /// Whether AS numbers are four octets on this session (RFC 6793).
    pub four_octet_as: bool,
    /// Whether the peer answers ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Whether the answers to ROUTE-REFRESH are marked at their begin and end (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// The peer's role (RFC 9234), if it told one.
    pub peer_role: Option<Role>,
    /// Families of which the peer tells all its paths (RFC 7911).
    #[serde(default)]
    pub add_path: BTreeSet<Family>,
    /// How long the peer keeps our routes when the session ends without a NOTIFICATION (RFC 4724); `None`: not at all.
    #[serde(default)]
    pub graceful_restart: Option<Duration>,
    /// What the peer says of its own restarts, where we have told it anything about that (RFC 4724 §3).
    #[serde(default)]
    pub peer_restart: Option<GracefulRestart>,
    /// Whether messages may be longer than 4096 octets, both sides agreeing (RFC 8654).
    #[serde(default)]
    pub extended_messages: bool,
}

/// Why a session or an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DownReason {
    /// TCP could not be made or ended without a NOTIFICATION.
    Connection(Failure),
    /// The peer sent a NOTIFICATION.
    PeerSaid(Notification),
    /// We sent a NOTIFICATION (also for our own hold timer, collision, stop).
    WeSaid(Notification),
    /// The peer took nothing for longer than the SendHoldTimer (RFC 9687).
    SendHoldTimerExpired,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Connection(failure) => failure.fmt(f),
            DownReason::PeerSaid(notification) => write!(f, "peer said: {notification}"),
            DownReason::WeSaid(notification) => write!(f, "we said: {notification}"),
            DownReason::SendHoldTimerExpired => {
                f.write_str("send hold timer expired: the peer reads nothing")
            }
        }
    }
}

/// One route as it shall be told. The speaker adds its own AS to the path and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteAttributes {
    /// Next hop, final.
    pub next_hop: NextHop,
    /// ORIGIN; our own routes are IGP.
    pub origin: Origin,
    /// The path before our own AS; empty for our own routes.
    pub as_path: AsPath,
    /// How many times more than once to put our AS in front (eBGP), or to put it in front at all (iBGP).
    pub prepend: u8,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; sent to internal peers only, 100 if absent.
    pub local_pref: Option<u32>,
    /// RFC 1997.
    pub communities: BTreeSet<Community>,
    /// RFC 4360.
    pub extended_communities: BTreeSet<ExtendedCommunity>,
    /// RFC 8092.
    pub large_communities: BTreeSet<LargeCommunity>,
}

impl RouteAttributes {
    /// A route of our own with this next hop and nothing else set.
    pub fn originated(next_hop: NextHop) -> RouteAttributes {
        RouteAttributes {
            next_hop,
            origin: Origin::Igp,
            as_path: AsPath::default(),
            prepend: 0,
            med: None,
            local_pref: None,
            communities: BTreeSet::new(),
            extended_communities: BTreeSet::new(),
            large_communities: BTreeSet::new(),
        }
    }
}
