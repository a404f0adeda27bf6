//! The twin of the kernel's multipath against the kernel itself: lookups, real forwarded packets, tables of buckets.
//!
//! Every decision must be equal; one that is not fails its test. A kernel whose hash takes no seed (before Linux 6.11) has a
//! secret one, and no twin: the tests say so and pass.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;
mod decisions;
mod members;
mod packets;
mod resilient;
mod world;
