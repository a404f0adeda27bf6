//! What enters a [`SessionTable`](crate::SessionTable) and what leaves it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::{Failure, Time};
use serde::{Deserialize, Serialize};

use crate::authenticator::Authentication;
use crate::error::Discard;
use crate::wire::{Diagnostic, Discriminator, State};

/// Everything that can happen to a table of sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// `next_deadline()` has come. The only event that lets time act.
    DeadlineReached,
    /// All sessions that there shall be, and until when this counts. Sessions are compared by name: a new one starts, one whose
    /// path differs starts again, all others go on and take over what changed; a missing one says goodbye and ends.
    ///
    /// When the lease ends before it was renewed, sessions that carry health are held down until it is renewed: whoever
    /// decides on health is not there. `None` never ends.
    Wanted { sessions: BTreeMap<SessionName, SessionConfig>, lease: Option<Time> },
    /// A datagram as it came.
    Received { arrival: Arrival, bytes: Vec<u8> },
    /// An [`Action::Send`] came to nothing. Nothing is sent again; the next packet may fare better.
    SendFailed { session: Discriminator, failure: Failure },
}

/// Everything a table asks for or reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// A session begins: it needs a socket of its own (RFC 5881 §4: one source port from 49152 to 65535 for all its packets,
    /// different from those of other sessions) and sends with TTL 255. Not answered.
    Open { session: Discriminator, path: Path },
    /// It is over.
    Close { session: Discriminator },
    /// Send this datagram. Answered by `SendFailed` or not at all.
    Send { session: Discriminator, bytes: Vec<u8> },
    /// Something that whoever wants the sessions has to know.
    Fact(Fact),
}

/// What happened to sessions; on its way to whoever wants them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// A session went from one state to another.
    StateChanged(StateChanged),
    /// What both ends make of their wishes changed while Up.
    Negotiated(Negotiated),
    /// A datagram that changed nothing; at most one report a minute for each session and rule.
    Discarded { session: Option<SessionName>, remote: IpAddr, reason: Discard },
    /// Packets of this session cannot be sent, or, with `None`, can again.
    CannotSend { session: SessionName, failure: Option<Failure> },
}

/// A session's name, chosen by who wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionName(pub String);

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SessionName {
    fn from(name: &str) -> SessionName {
        SessionName(name.to_owned())
    }
}

/// One session as meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionConfig {
    /// Where it goes.
    pub path: Path,
    /// Whether we begin.
    pub role: Role,
    /// What the session shall be.
    pub wish: Wish,
    /// Its state is what tells a router whether this host is healthy: it goes down with the lease.
    pub carries_health: bool,
    /// Between our packets at least (bfd.DesiredMinTxInterval while Up; at least 1 s else).
    pub desired_min_tx: Duration,
    /// Between the peer's packets at least (bfd.RequiredMinRxInterval).
    pub required_min_rx: Duration,
    /// After how many of our packets missing the peer gives up; 1 to 255.
    pub multiplier: u8,
    /// Both ends need the same.
    pub authentication: Option<Authentication>,
}

/// Between which addresses. A session whose path changes is another session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    pub remote: IpAddr,
    /// Source address; `None` leaves it to the routing table.
    pub local: Option<IpAddr>,
    /// Name of the interface; needed for link-local addresses.
    pub interface: Option<String>,
    pub hops: Hops,
}

/// How far away the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Hops {
    /// On the same link (RFC 5881): port 3784, and only what arrives with TTL 255 is heard.
    Single,
    /// Behind routers (RFC 5883): port 4784, and only what arrives with at least this TTL is heard.
    Multi { min_ttl: u8 },
}

/// RFC 5880 §6.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Sends from the start.
    #[default]
    Active,
    /// Waits for the peer's first packet.
    Passive,
}

/// What a session shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wish {
    /// Up, when the peer is there.
    #[default]
    Up,
    /// Down, whatever the peer does, and telling it this (RFC 5882 §3: a peer takes Down for a failure of the path).
    HeldDown(Diagnostic),
    /// AdminDown: says nothing about the path.
    AdminDown,
}

/// A session that is Up, for a program that takes the place of this one within the detection time: all that it needs to go on, so
/// that the peer notices nothing. No key is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    pub path: Path,
    /// Ours, by which the peer's packets find the session.
    pub discriminator: Discriminator,
    /// bfd.RemoteDiscr.
    pub remote_discriminator: Discriminator,
    /// As the peer said last, in µs.
    pub remote_min_tx: u32,
    pub remote_min_rx: u32,
    pub remote_multiplier: u8,
    pub remote_demand: bool,
    /// bfd.XmitAuthSeq, where packets are authenticated.
    pub sequence: Option<u32>,
}

/// How a datagram came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    pub remote: IpAddr,
    pub local: IpAddr,
    /// Name of the interface, where the driver knows it.
    pub interface: Option<String>,
    /// TTL or hop limit it arrived with, where the kernel told.
    pub ttl: Option<u8>,
    /// Whether it came to the port of multihop sessions.
    pub multihop: bool,
}

/// A session changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChanged {
    pub session: SessionName,
    pub from: State,
    pub to: State,
    /// What we tell the peer as the reason.
    pub diagnostic: Diagnostic,
    pub cause: Cause,
}

impl StateChanged {
    /// Whether the path was there and is not any more, so that what depends on it must go at once: Up to Down by timeout or
    /// because the peer signalled Down (RFC 5882 §3.2). AdminDown of either end says nothing about the path.
    pub fn is_failure(&self) -> bool {
        let failed = matches!(self.cause, Cause::DetectionTimeExpired | Cause::NeighborSignaledDown { .. });
        self.from == State::Up && self.to == State::Down && failed
    }
}

/// Why a session changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Both ends found each other.
    Handshake,
    /// Nothing was heard for the detection time.
    DetectionTimeExpired,
    /// The peer says that its session is down, and why.
    NeighborSignaledDown { diagnostic: Diagnostic },
    /// The peer's session was switched off.
    NeighborAdminDown,
    /// [`Wish::HeldDown`].
    HeldDown,
    /// The lease ended.
    LeaseEnded,
    /// [`Wish::AdminDown`], or the session is not wanted any more.
    AdminDown,
    /// [`Wish::AdminDown`] is over.
    Enabled,
    /// It goes on where the program before this one left it.
    TakenOver,
    /// It was taken over, and the peer has given it up meanwhile: that says nothing about the path.
    NotTakenOver,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Handshake => "both ends hear each other",
            Cause::DetectionTimeExpired => "nothing heard for the detection time",
            Cause::NeighborSignaledDown { diagnostic } => {
                return write!(f, "the peer signalled Down: {diagnostic}");
            }
            Cause::NeighborAdminDown => "the peer switched its session off",
            Cause::HeldDown => "held down",
            Cause::LeaseEnded => "held down: the agent stands still",
            Cause::AdminDown => "switched off",
            Cause::Enabled => "switched on",
            Cause::TakenOver => "taken over from the former program",
            Cause::NotTakenOver => "the peer had given up the former program's session",
        })
    }
}

/// What is in force on a session that is Up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    pub session: SessionName,
    /// Between our packets, before jitter; `None` while the peer wants none.
    pub transmit: Option<Duration>,
    /// Without a packet for that long the session is Down.
    pub detection: Duration,
}
