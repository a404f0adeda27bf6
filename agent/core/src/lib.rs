//! What the anyvip agent decides, without touching anything.
//!
//! # The straight path
//!
//! Probes, the kernel view, operators and peers are *facts*. Health machines, drain machines and the VIP machine turn
//! them into plain values; [`gates`] asks those values, in one fixed order, whether a service's VIP may be announced
//! to a peer, and the first closed gate is the [`Reason`] that people see. What passes is the wanted set of each peer; the
//! BGP speaker sends the difference. Start-up, failure, recovery, drain, reload and a new session all take this same path.
//!
//! # Parts, and who owns what
//!
//! - [`boundary`]: every [`Event`] and [`Action`], on one page.
//! - `agent`: the machine; owns everything below and `anyvip_bgp::Speaker`; `settle()` after each event.
//! - `checks`: every check on every target; `schedule`: when each runs; `health`: its rise and fall.
//! - `vip`: order in and out, ownership, contest; `guard`: uplinks and their ARP values; both read [`KernelView`] and ask
//!   the kernel by `attempt`s (answer, confirmation by the view, back-off), through `asks`.
//! - `drain`: operator state; `store`: one write of the [`state`] in flight, newest wins; `crash_loop`: past exits.
//! - `gates`: values of each gate, and the first closed one; `announce`: next hop, attributes, way back;
//!   `verdicts`: from gates to peer → prefix → attributes; `services`: what was decided last, and since when.
//! - `neighbours`: peers that are known by their link; owns `anyvip_nd::Advertiser`.
//! - `peers`: sessions, and what has been written to whom; `ends`: why one ended, in words; `notices`: how often others can make us speak;
//!   `strangers`: connections that were turned away.
//! - `reload`: a new configuration on a living agent; `stop`: the end in order.
//! - [`recording`]: events and checkpoints as bytes, for `anyvip run --record` and `anyvip-sim replay`.
//! - [`config`]: written → meant, all errors at once; [`status`]: what `status` and `explain` print, filled in by `explain`.
//!
//! # Who waits for whom
//!
//! Old ARP values and the names of VIPs on disk → guard seen in the view → VIP seen in the view → checks at rise →
//! UPDATE. Out: UPDATE with the withdrawal written → VIP removed (where it is not wanted any more) → ARP values restored.
#![forbid(unsafe_code)]

mod agent;
mod announce;
mod asks;
mod attempt;
mod bfd;
mod bgp;
pub mod boundary;
mod calendar;
mod checks;
pub mod config;
mod crash_loop;
mod default_route;
mod drain;
mod ends;
mod explain;
mod gates;
mod guard;
mod health;
pub mod kernel;
mod neighbours;
mod notices;
mod peers;
pub mod recording;
mod reload;
mod responder;
pub mod restored;
mod schedule;
mod services;
pub mod state;
pub mod status;
mod stop;
mod store;
mod strangers;
mod upgrade;
mod verdicts;
mod vip;

pub use agent::Agent;
pub use boundary::{
    Action, CheckName, Command, Event, Fact, KernelRequest, KernelRequestId, ProbeId, ProbeOutcome,
    ProbeResult, Reason, Reply, RequestId, ServiceName, Start, Target, Verdict,
};
pub use calendar::utc;
pub use config::Config;
pub use kernel::KernelView;
