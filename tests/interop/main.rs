//! anyvip hosts against real routers, in namespaces: what counts is the routing table of the router's kernel.
//!
//! `stories` says what must happen; `bird` and `frr` tell each story with their router.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bfd;
mod bird;

mod frr;
mod policy;
mod protection;
mod stories;
