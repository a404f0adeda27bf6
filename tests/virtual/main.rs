//! The virtual lab: the agent that ships, routers, cables and faults in virtual time.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bfd;
mod determinism;
mod hosts;
mod lab;
mod operators;
mod routers;
mod sabotage;
mod scenarios;
mod seeds;
mod streams;
mod upgrades;
