//! Tables of sessions against each other in virtual time: delay, loss, cuts, standstill, replay.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "pair/world.rs"]
mod world;

#[path = "pair/authentication.rs"]
mod authentication;
#[path = "pair/health.rs"]
mod health;
#[path = "pair/liveness.rs"]
mod liveness;
#[path = "pair/parameters.rs"]
mod parameters;
#[path = "pair/reception.rs"]
mod reception;
#[path = "pair/taking_over.rs"]
mod taking_over;
