//! Kernel truth: the real agent in a namespace, and what the kernel and a scripted router see of it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod capabilities;
mod disk;
mod guard;
mod heard;
mod log;
mod operator;
mod peers;
mod prepare;
mod pressure;
mod record;
mod reload;
mod responder;
mod return_path;
mod socket;
mod stop;
mod systemd;
mod upgrade;
mod uplink;
mod vip;

use anyvip_tests::{Agent, Fabric, LONG, Need, Service, Speaker, binaries, met, wait_until};

/// One host with a healthy service, its agent, and a scripted router. Fields drop in this order: programs before namespaces.
struct Host {
    agent: Agent,
    service: Service,
    router: Speaker,
    fabric: Fabric,
}

/// What a test of this file needs of the machine.
fn possible() -> bool {
    met(&[Need::Root])
}

impl Host {
    /// With the usual configuration; waits for nothing but the agent's socket.
    fn new() -> Self {
        Host::with(&anyvip_tests::agent_config(1))
    }

    /// With this configuration.
    fn with(config: &str) -> Self {
        Host::prepared(config, |_| {})
    }

    /// With this configuration, on a host that was changed before the agent starts.
    fn prepared(config: &str, change: impl FnOnce(&Fabric)) -> Self {
        let fabric = Fabric::new(binaries!(), 1);
        let router = fabric.speaker(1, "plain");
        let service = fabric.service(1);
        change(&fabric);
        let agent = fabric.agent_with(1, config);
        Host { agent, service, router, fabric }
    }

    /// The agent's next life, with the same files.
    fn restart(&mut self) {
        let files = self.agent.files.clone();
        self.agent = Agent::start(&self.fabric.lab, self.fabric.host(1), files);
    }

    /// Waits until the router has been told of an address (with the last byte of 198.51.100.x).
    #[track_caller]
    fn wait_told(&self, last: u8) {
        wait_until(LONG, || {
            let told = told(&self.router);
            if told.contains(&Told::Announced(last)) { Ok(()) } else { Err(format!("router heard {told:?}")) }
        });
    }

    /// Waits until the router has been told that an address is gone.
    #[track_caller]
    fn wait_withdrawn(&self, last: u8) {
        wait_until(LONG, || {
            let told = told(&self.router);
            if told.contains(&Told::Withdrawn(last)) { Ok(()) } else { Err(format!("router heard {told:?}")) }
        });
    }
}

/// What a router heard of 198.51.100.x, x being the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Announced(u8),
    Withdrawn(u8),
}

/// What a router heard of 198.51.100.0/24, in order. RFC 4271 §4.3: withdrawn routes, attributes, NLRI.
fn told(router: &Speaker) -> Vec<Told> {
    let mut heard = Vec::new();
    for line in router.lines("update ") {
        let hex = line.trim_start_matches("update ");
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        let withdrawn = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        let attributes = usize::from(u16::from_be_bytes([bytes[2 + withdrawn], bytes[3 + withdrawn]]));
        heard.extend(lasts(&bytes[2..2 + withdrawn]).map(Told::Withdrawn));
        heard.extend(lasts(&bytes[4 + withdrawn + attributes..]).map(Told::Announced));
    }
    heard
}

/// The last bytes of /32 routes below 198.51.100.0/24.
fn lasts(routes: &[u8]) -> impl Iterator<Item = u8> {
    routes.chunks(5).filter(|route| route.starts_with(&[32, 198, 51, 100])).map(|route| route[4])
}
