//! The parts of the simulator that are pure: what a lab is, what happens in it, and what to make of it.
//!
//! # Parts
//!
//! - [`lab`]: a containerlab topology file, read into nodes with roles, addresses and links.
//! - [`scenario`]: traffic and steps, read from YAML and checked against the lab before anything starts.
//! - [`router`]: the embedded router, a machine like all others.
//! - [`world`]: hosts with the real agent, routers, cables and people in virtual time; the virtual backend.
//! - [`checker`]: the invariants, checked while a world or a lab runs; [`sweep`]: swarms of faults from seeds.
//! - [`study`]: what a whole fleet goes through when something dies.
//! - [`observation`]: what was seen, and the verdict on each expectation.
//! - [`prediction`]: what the twin of the kernel says of a lab's flows, to be held against what was seen.
//! - [`replay`]: a recording of a real agent, played again through the same core.
//! - [`diagnostic`], [`yaml`]: all errors of a file at once, each with its line and column.
//!
//! Nothing here touches the world: text comes in, values go out. The namespace backend is in the crate `anyvip-sim`.
#![forbid(unsafe_code)]

pub mod checker;
pub mod diagnostic;
pub mod duration;
pub mod lab;
pub mod observation;
pub mod prediction;
pub mod replay;
pub mod router;
pub mod scenario;
pub mod study;
pub mod sweep;
pub mod world;
pub mod yaml;
