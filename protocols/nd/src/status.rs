//! Read-only views.

use std::net::Ipv6Addr;

use anyvip_machine::{Failure, Time};

/// One interface.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceView {
    /// Whether it can send.
    pub ready: bool,
    /// Routers heard since it became ready, in the order of their addresses.
    pub routers: Vec<RouterView>,
    /// Advertisements sent.
    pub advertised: u64,
    /// Packets refused.
    pub discarded: u64,
    /// Why nothing leaves.
    pub trouble: Option<Failure>,
}

/// One router on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterView {
    pub address: Ipv6Addr,
    /// When its last advertisement came.
    pub heard: Time,
}
