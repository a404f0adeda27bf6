//! What the tests of this package stand on: labs of network namespaces, and one driver per program that runs in them.
//!
//! Everything is done by child processes (`ip`, `nsenter`): a threaded test process never changes its own namespace.
//! Whatever a test starts is bound to a value whose `Drop` ends it, also when the test panics; what a killed test
//! run left behind is swept by the next one. All traffic stays inside namespaces made here.
//!
//! - [`Lab`]: namespaces and wires; [`Fabric`]: a router, a client and hosts on links of their own.
//! - [`Agent`]: the program under test; [`Service`]: what it watches.
//! - [`Sessions`]: the program's BFD without the rest of it.
//! - [`Browser`]: looks at pages.
//! - [`Bird`], [`Frr`], [`Gobgp`], [`Openbgpd`], [`Exabgp`]: foreign speakers; [`Speaker`]: a scripted one that misbehaves on request.
//! - [`need`]: what a test needs of the machine; [`wait_until`]: the only way to wait.
#![forbid(unsafe_code)]
// A test fails by panicking; so does what it stands on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod bfd;
mod bird;
mod browser;
mod exabgp;
mod fabric;
mod frr;
mod gobgp;
mod lab;
pub mod mutants;
mod need;
mod openbgpd;
mod process;
mod scratch;
mod service;
mod speaker;
mod wait;

pub use agent::{Agent, AgentFiles, advertised, peer_state, reason, vip};
pub use bfd::Sessions;
pub use bird::Bird;
pub use browser::{Browser, Light};
pub use exabgp::Exabgp;
pub use fabric::{Fabric, SERVICE_PORT, VIP4, VIP6, agent_config, agent_config_with};
pub use frr::Frr;
pub use gobgp::Gobgp;
pub use lab::{Lab, Namespace};
pub use need::{Need, met, met_by};
pub use openbgpd::Openbgpd;
pub use process::Process;
pub use scratch::Scratch;
pub use service::Service;
pub use speaker::Speaker;
pub use wait::{LONG, wait_until};

/// Where the programs under test are; made by [`binaries!`] in the test that uses them, so that they are fresh.
#[derive(Clone, Copy, Debug)]
pub struct Binaries {
    /// `anyvip`.
    pub agent: &'static str,
    /// `anyvip-sim`.
    pub simulator: &'static str,
    /// The service that the agent watches.
    pub service: &'static str,
    /// The scripted BGP speaker.
    pub speaker: &'static str,
    /// The witness of addresses.
    pub addresses: &'static str,
    /// BFD sessions without an agent.
    pub bfd: &'static str,
}

/// The programs that cargo built for the test that says this.
#[macro_export]
macro_rules! binaries {
    () => {
        $crate::Binaries {
            agent: env!("CARGO_BIN_EXE_anyvip-under-test"),
            simulator: env!("CARGO_BIN_EXE_anyvip-sim-under-test"),
            service: env!("CARGO_BIN_EXE_lab-service"),
            speaker: env!("CARGO_BIN_EXE_lab-speaker"),
            addresses: env!("CARGO_BIN_EXE_lab-addresses"),
            bfd: env!("CARGO_BIN_EXE_lab-bfd"),
        }
    };
}
