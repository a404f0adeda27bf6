//! BGP-4 for anyvip: a codec and state machines without sockets, clock or randomness of their own.
//!
//! # Parts, and who owns what
//!
//! - [`boundary`]: every [`Event`] that enters and every [`Action`] that leaves, on one page.
//! - [`Speaker`]: the machine. It owns one `PeerFsm` per configured peer and one agenda of their deadlines.
//! - `PeerFsm`: one peer. It owns up to two `Connection`s, initiated and accepted, settles their collision
//!   (RFC 4271 §6.8, RFC 6286), and owns the peer's wanted set, `AdjRibOut` and, where asked for, `AdjRibIn`.
//! - `Connection`: one TCP session from OpenSent on, with its hold, keepalive and send-hold deadlines.
//! - `AdjRibOut`: what the peer was told, against what it should know; grouped by equal attributes.
//! - [`wire`]: one file per message; `wire::Framer` cuts the byte stream.
//! - [`decision`]: best path and multipath as a pure function, for routers (the agent never calls it).
//!
//! # RFCs
//!
//! See `docs/rfc-coverage.md`: 4271, 4760, 6793, 5492, 2918, 8950, 7606, 6286, 9687, 9003, 4486, 1997, 4360, 8092.
#![forbid(unsafe_code)]

mod adj_rib_in;
mod adj_rib_out;
pub mod boundary;
mod connect_retry;
mod connection;
pub mod decision;
mod effects;
pub mod error;
mod peer_fsm;
mod speaker;
pub mod status;
pub mod wire;

pub use boundary::{
    Action, ConnectionId, DownReason, Endpoint, Event, PeerConfig, PeerName, PeerState, Receive,
    RouteAttributes, SessionFacts, SpeakerConfig,
};
pub use speaker::Speaker;
pub use status::{Counters, LastError, PeerView};
