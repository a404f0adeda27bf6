//! Two speakers in virtual time, by subject.
#![forbid(unsafe_code)]

#[path = "pair/chaos.rs"]
mod chaos;
#[path = "pair/configuration.rs"]
mod configuration;
#[path = "pair/connecting.rs"]
mod connecting;
#[path = "pair/liveness.rs"]
mod liveness;
#[path = "pair/restarting.rs"]
mod restarting;
#[path = "pair/routes.rs"]
mod routes;
#[path = "pair/world.rs"]
mod world;
