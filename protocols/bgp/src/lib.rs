//! BGP-4 for anyvip: a codec and state machines without sockets, clock or randomness of their own.
//!
//! # Parts, and who owns what
//!
//! - [`boundary`]: every [`Event`] that enters and every [`Action`] that leaves, on one page.
//! - [`Speaker`]: the machine. It owns one `PeerFsm` per configured peer and one agenda of their deadlines.
//! - `PeerFsm`: one peer: when to connect (`RetryPolicy`), what its messages cause, how its sessions end.
//! - `Connections`: its one or two `Connection`s, initiated and accepted, and which stays (RFC 4271 §6.8, RFC 6286).
//! - `Connection`: one TCP connection from OpenSent on. Each state owns its hold, keepalive and send-hold deadlines and
//!   what was negotiated; an Established one owns the session's `AdjRibOut` and `AdjRibIn`.
//! - `AdjRibOut`: what the peer was told, against what it should know; grouped by equal attributes.
//! - `AdjRibIn`: what the peer told us, as far as it was asked for.
//! - [`status`]: read-only views of all that.
//! - [`wire`]: one file per message; `wire::Framer` cuts the byte stream.
//! - [`decision`]: best path and multipath as a pure function, for routers (the agent never calls it).
//!
//! # Life of a message
//!
//! In: `Event::Received` → `Framer` cuts → `Message::decode` → `Connection` moves its state and timers → `PeerFsm` acts
//! on what was heard → `AdjRibIn` → `Action::RoutesChanged`.
//!
//! Out: `Event::Wanted` → `AdjRibOut` notes the difference → at the end of the turn, unless a `Send` is in flight,
//! `Connection` writes one batch of whole messages → `Action::Send` … `Event::Sent` → `Action::Advertised`, next batch.
//!
//! # RFCs
//!
//! See `docs/rfc-coverage.md`: 4271, 4760, 6793, 5492, 2918, 8950, 7606, 6286, 9687, 9234, 9003, 9384, 4486, 1997, 4360,
//! 8092.
#![forbid(unsafe_code)]

mod adj_rib_in;
mod adj_rib_out;
pub mod boundary;
mod connect_retry;
mod connection;
mod connections;
pub mod decision;
mod effects;
pub mod error;
mod negotiation;
mod peer_fsm;
mod speaker;
pub mod status;
pub mod wire;

pub use boundary::{
    Action, ConnectionId, DownReason, Endpoint, Event, Neighbour, PeerConfig, PeerName, PeerState, Receive,
    Rejection, Remote, RouteAttributes, SessionFacts, SessionOptions, SpeakerConfig, Transport,
};
pub use speaker::Speaker;
pub use status::{Counters, LastError, PeerView};
