//! How anyvip touches Linux. Thin parts that a driver (the daemon, the simulator) puts together in a tokio
//! `current_thread` runtime; nothing here decides anything.
//!
//! - [`bfd`]: BFD sessions on a thread of their own; takes what is wanted, gives back what happened.
//! - [`clock`]: the one place that turns machine time into timers.
//! - [`connections`]: the TCP connections of a BGP speaker; takes its actions, gives back its events.
//! - [`nd`]: router advertisements on links; takes the actions of an advertiser, gives back its events.
//! - [`netlink`]: addresses, links, routes and next hops; a [`netlink::Monitor`] that shows the host as one value.
//! - [`namespace`]: network namespaces, and what runs inside them.
//! - [`child`]: commands with a timeout.
//! - [`process`]: this process as a whole, and how it becomes another program.
//! - [`state_file`]: files that survive a crash, and locks.
//! - [`capabilities`]: what this process may do.
//! - [`failure`]: system errors as [`anyvip_machine::Failure`].
//!
//! No type of a netlink or socket library appears in a public signature. `unsafe` lives in `sys/`, one file per subject.
#![deny(unsafe_code)]

pub mod bfd;
pub mod capabilities;
pub mod child;
pub mod clock;
pub mod connections;
pub mod failure;
pub mod namespace;
pub mod nd;
pub mod netlink;
pub mod process;
pub mod state_file;
mod sys;

pub use clock::Clock;
pub use connections::Connections;
pub use namespace::Namespace;
