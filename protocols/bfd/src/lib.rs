//! BFD (bidirectional forwarding detection) for anyvip: a codec and state machines without sockets, clock or randomness
//! of their own.
//!
//! # Parts, and who owns what
//!
//! - [`boundary`]: every [`Event`] that enters and every [`Action`] that leaves, on one page.
//! - [`SessionTable`]: the machine. It owns the sessions, finds the one that a packet is for (RFC 5880 §6.3), and holds the
//!   lease that the main loop has to renew.
//! - `Session`: one session. Its state (`Current`) owns what is known of the other end and until when that counts.
//! - `Timing`: what we ask for, what is in force, and the poll sequence between the two (RFC 5880 §6.5, §6.8.3).
//! - `Authenticator`: one session's key and sequence numbers (RFC 5880 §6.7). [`Secret`] holds a key and never prints it.
//! - [`status`]: read-only views of all that.
//! - [`wire`]: the control packet and its authentication section.
//! - [`error`]: why a packet is not for us.
//!
//! # Life of a packet
//!
//! In: `Event::Received` → TTL (RFC 5881 §5) → `ControlPacket::decode` → session by discriminator or addresses → the rules of
//! RFC 5880 §6.8.6 in their order → state, timing, poll sequence → `Fact::StateChanged`, and at once a packet that says so.
//!
//! Out: a session is due → `ControlPacket` from its state → `Authenticator` seals it → `Action::Send`.
//!
//! Asynchronous mode only. Demand mode is never asked for, and granted to a peer that asks (RFC 5880 §6.8.7); the echo function
//! is not offered (Required Min Echo RX Interval is 0).
//!
//! # RFCs
//!
//! 5880 (base), 5881 (single hop over IPv4 and IPv6), 5882 (what a client makes of it), 5883 (multihop).
#![forbid(unsafe_code)]

mod authenticator;
pub mod boundary;
mod current;
pub mod error;
mod secret;
mod session;
mod session_table;
pub mod status;
mod timing;
pub mod wire;

pub use authenticator::Authentication;
pub use boundary::{
    Action, Arrival, Cause, Event, Fact, Former, Hops, Negotiated, Path, Role, SessionConfig, SessionName,
    StateChanged, Wish,
};
pub use error::Discard;
pub use secret::Secret;
pub use session_table::SessionTable;
pub use status::SessionView;
pub use wire::{AuthenticationKind, Diagnostic, Discriminator, State};
