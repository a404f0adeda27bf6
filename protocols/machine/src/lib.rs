//! The vocabulary that every anyvip state machine shares.
//!
//! A machine is a plain struct with two methods, and only these change it:
//!
//! ```text
//! fn handle(&mut self, now: Time, event: Event) -> Vec<Action>;
//! fn next_deadline(&self) -> Option<Time>;
//! ```
//!
//! Whoever drives it waits for an event or for the deadline, calls `handle`, and carries out the actions.
//! This crate holds the few words that all machines have in common, and nothing else:
//!
//! - [`Time`], a number of nanoseconds that the driver hands in;
//! - [`Agenda`], the ordered deadlines of many children;
//! - [`Seed`], reproducible randomness;
//! - [`Complaints`], what was told lately of bad messages;
//! - [`Failure`], how the outside world says no.
#![forbid(unsafe_code)]

mod agenda;
mod complaints;
mod failure;
mod seed;
mod time;

pub use agenda::Agenda;
pub use complaints::Complaints;
pub use failure::{Failure, FailureKind};
pub use seed::Seed;
pub use time::Time;
