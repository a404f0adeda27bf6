//! Stories: the straight path from a probe to the wire, in virtual time, with real speakers as routers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod announce;
mod bfd;
mod disorder;
mod drain;
mod fuzz;
mod guard;
mod health;
mod next_hop;
mod reload;
mod responder;
mod start;
mod state;
mod stop;
mod strangers;
mod unnumbered;
mod upgrade;
mod vips;
mod wire;
mod world;
