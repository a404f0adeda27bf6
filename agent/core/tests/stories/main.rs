//! Stories: the straight path from a probe to the wire, in virtual time, with real speakers as routers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod start;
mod world;
