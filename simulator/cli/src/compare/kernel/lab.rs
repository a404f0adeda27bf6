//! The lab of a comparison: a network of its own for each design, all in one file.
//!
//! ```text
//! anycast:  client ── edge ─┬─ s1 …       names:  client ── edge ─┬─ s1 …
//!                           └─ sN                                 ├─ sN
//!                                                                 └─ ns
//! NAT:      client ── front ─┬─ lb1 ─┬─ back ── s1 … sN
//!                            └─ lb2 ─┘
//! direct:   client ── edge ── back ── lb1, lb2, s1 … sN
//! ```

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::compare::flows::{PORT, SERVICE};
use crate::compare::model::HASH_SEED;
use crate::compare::plan::{Checks, Kind, Plan};
use crate::hash::install::Install;

/// BFD looks less often than this many times before it gives up.
pub(super) const BFD_MULTIPLIER: u8 = 3;
/// The shortest hold time there is (RFC 4271 §4.2): below, BFD must do it.
const LEAST_HOLD_TIME: Duration = Duration::from_secs(3);
/// The fastest BFD that the agent takes.
const LEAST_BFD: Duration = Duration::from_millis(10);

/// The port that the agent's check asks.
const HTTP: u16 = 8080;
const ROUTER_ASN: u32 = 65_000;

/// Addresses of one design, which has a /16 of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    design: u8,
}

impl Addresses {
    pub(super) fn of(design: usize) -> Addresses {
        Addresses { design: u8::try_from(design + 1).unwrap_or(u8::MAX) }
    }

    fn at(self, net: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.design, net, host)
    }

    /// A server on a link of its own to the router.
    pub(super) fn server(self, number: u8) -> Ipv4Addr {
        self.at(number, 11)
    }

    fn router(self, number: u8) -> Ipv4Addr {
        self.at(number, 1)
    }

    /// A server on a LAN with others.
    pub(super) fn on_lan(self, number: u8) -> Ipv4Addr {
        self.at(251, 11 + number)
    }

    pub(super) fn client(self) -> Ipv4Addr {
        self.at(250, 2)
    }

    /// Where the client sends everything, whoever has it.
    pub(super) fn gateway(self) -> Ipv4Addr {
        self.at(250, 1)
    }

    pub(super) fn name_server(self) -> Ipv4Addr {
        self.at(252, 2)
    }

    /// Of the balancer in charge, towards the servers.
    pub(super) fn balancer(self) -> Ipv4Addr {
        self.at(251, 1)
    }

    /// The router on the servers' LAN.
    fn lan_router(self) -> Ipv4Addr {
        self.at(251, 254)
    }
}

/// How a router learns that a host is lost.
pub(super) enum Guard {
    Bfd(Duration),
    HoldTime(Duration),
}

impl Guard {
    /// The means that takes so long.
    pub(super) fn of(lost_host: Duration) -> Guard {
        if lost_host < LEAST_HOLD_TIME {
            Guard::Bfd((lost_host / u32::from(BFD_MULTIPLIER)).max(LEAST_BFD))
        } else {
            Guard::HoldTime(Duration::from_secs(lost_host.as_secs()))
        }
    }
}

/// Files by name, the lab first.
pub(super) struct Files {
    pub(super) lab: String,
    pub(super) configurations: Vec<(String, String)>,
}

/// The name of a node of a design.
pub(super) fn node(design: usize, name: &str) -> String {
    format!("{}-{name}", design + 1)
}

pub(super) fn server(design: usize, number: usize) -> String {
    node(design, &format!("s{}", number + 1))
}

/// Writes the lab for these designs of the plan.
pub(super) fn write(plan: &Plan, designs: &[usize]) -> Files {
    let mut draft = Draft { plan, nodes: String::new(), links: String::new(), configurations: Vec::new() };
    for number in designs {
        let Some(design) = plan.designs.get(*number) else { continue };
        let network = Network { design: *number, at: Addresses::of(*number) };
        match &design.kind {
            Kind::Anycast { install, lost_host, .. } => {
                draft.routed(network, Some((*install, Guard::of(*lost_host), design.checks)));
            }
            Kind::Dns => draft.routed(network, None),
            Kind::Balancer { dsr: false, .. } => draft.nat(network),
            Kind::Balancer { dsr: true, .. } => draft.direct(network),
            // Only the model plays these.
            Kind::Flooding { .. } | Kind::Redirect { .. } => {}
        }
    }
    let lab = format!(
        "name: compare\ntopology:\n  defaults:\n    kind: linux\n    exec: [anyvip-sim node --lab compare --name __clabNodeName__]\n  \
         nodes:\n{}  links:\n{}",
        draft.nodes, draft.links
    );
    Files { lab, configurations: draft.configurations }
}

struct Draft<'a> {
    plan: &'a Plan,
    nodes: String,
    links: String,
    configurations: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
struct Network {
    design: usize,
    at: Addresses,
}

impl Network {
    fn name(self, name: &str) -> String {
        node(self.design, name)
    }
}

/// A port that is closed says so to everybody who asks, not once a second.
const SERVER: &str = "net.ipv4.icmp_ratelimit: 0";

impl Draft<'_> {
    fn node(&mut self, name: &str, labels: &[String], sysctls: &[&str], more: &str) {
        let _ = write!(self.nodes, "    {name}:\n{more}      labels: {{ {} }}\n", labels.join(", "));
        if !sysctls.is_empty() {
            let _ = writeln!(self.nodes, "      sysctls: {{ {} }}", sysctls.join(", "));
        }
    }

    fn link(&mut self, one: &str, other: &str) {
        let _ = writeln!(self.links, "    - endpoints: [\"{one}\", \"{other}\"]");
    }

    fn servers(&self) -> u8 {
        u8::try_from(self.plan.servers).unwrap_or(u8::MAX)
    }

    fn client(&mut self, network: Network) {
        let at = network.at;
        let labels = [
            "anyvip.role: client".to_owned(),
            format!("anyvip.address.eth1: {}/24", at.client()),
            format!("anyvip.gateway: {}", at.gateway()),
        ];
        self.node(&network.name("client"), &labels, &[], "");
    }

    fn server(
        &mut self,
        network: Network,
        number: u8,
        sysctls: &[&str],
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) {
        let name = server(network.design, number.into());
        let asn = ROUTER_ASN + 1 + u32::from(number);
        let labels = [
            "anyvip.role: agent".to_owned(),
            format!("anyvip.asn: {asn}"),
            format!("anyvip.service.http: {HTTP}"),
            format!("anyvip.service.tcp: {PORT}"),
            format!("anyvip.service.udp: {PORT}"),
            format!("anyvip.address.eth1: {address}/24"),
            format!("anyvip.gateway: {gateway}"),
        ];
        let more = format!("      binds: [{name}.toml:/etc/anyvip/config.toml]\n");
        self.node(&name, &labels, &[&[SERVER], sysctls].concat(), &more);
    }

    /// A router with a link to each server; with agents, or with a name server.
    fn routed(&mut self, network: Network, anycast: Option<(Install, Guard, Option<Checks>)>) {
        let at = network.at;
        let edge = network.name("edge");
        let (install, hold_time) = match &anycast {
            Some((install, Guard::HoldTime(time), _)) => (label(*install), time.as_secs()),
            Some((install, Guard::Bfd(_), _)) => (label(*install), 9),
            None => ("plain".to_owned(), 9),
        };
        let mut labels = vec![
            "anyvip.role: router".to_owned(),
            format!("anyvip.asn: {ROUTER_ASN}"),
            format!("anyvip.hash-seed: {HASH_SEED}"),
            format!("anyvip.install: \"{install}\""),
            format!("anyvip.hold-time: {hold_time}s"),
            format!("anyvip.address.client: {}/24", at.gateway()),
        ];
        self.link(&format!("{edge}:client"), &format!("{}:eth1", network.name("client")));
        for number in 0..self.servers() {
            labels.push(format!("anyvip.address.s{}: {}/24", number + 1, at.router(number)));
            let name = server(network.design, number.into());
            self.link(&format!("{edge}:s{}", number + 1), &format!("{name}:eth1"));
            self.server(network, number, &[], at.server(number), at.router(number));
            if let Some((_, guard, Some(checks))) = &anycast {
                let text = configuration(at, number, guard, *checks);
                self.configurations.push((format!("{name}.toml"), text));
            }
        }
        if anycast.is_none() {
            labels.push(format!("anyvip.address.ns: {}/24", at.at(252, 1)));
            let ns = network.name("ns");
            self.link(&format!("{edge}:ns"), &format!("{ns}:eth1"));
            let of_ns = [
                "anyvip.role: client".to_owned(),
                format!("anyvip.address.eth1: {}/24", at.name_server()),
                format!("anyvip.gateway: {}", at.at(252, 1)),
            ];
            self.node(&ns, &of_ns, &[], "");
        }
        self.node(&edge, &labels, &[], "");
        self.client(network);
    }

    /// Both balancers; the first has the shared addresses.
    fn balancers(&mut self, network: Network, nets: &[(&str, u8, Ipv4Addr)], sysctls: &[&str]) {
        for (name, host) in [("lb1", 3), ("lb2", 4)] {
            let mut labels = vec!["anyvip.role: client".to_owned()];
            for (interface, net, shared) in nets {
                let own = network.at.at(*net, host);
                let also = if name == "lb1" { format!(", {shared}/24") } else { String::new() };
                labels.push(format!("anyvip.address.{interface}: \"{own}/24{also}\""));
            }
            self.node(&network.name(name), &labels, sysctls, "");
        }
    }

    fn bridge(&mut self, name: &str) {
        let _ = writeln!(self.nodes, "    {name}: {{ kind: bridge }}");
    }

    fn nat(&mut self, network: Network) {
        let at = network.at;
        let (front, back) = (network.name("front"), network.name("back"));
        self.bridge(&front);
        self.bridge(&back);
        // Between a client and the gateway that it shares a LAN with nothing is to be redirected.
        let forwards = [
            "net.ipv4.ip_forward: 1",
            "net.ipv4.conf.all.send_redirects: 0",
            "net.ipv4.conf.default.send_redirects: 0",
        ];
        self.balancers(network, &[("eth1", 250, at.gateway()), ("eth2", 251, at.balancer())], &forwards);
        self.client(network);
        for name in ["client", "lb1", "lb2"] {
            self.link(&format!("{front}:{name}"), &format!("{}:eth1", network.name(name)));
        }
        for name in ["lb1", "lb2"] {
            self.link(&format!("{back}:{name}"), &format!("{}:eth2", network.name(name)));
        }
        for number in 0..self.servers() {
            let name = server(network.design, number.into());
            self.link(&format!("{back}:s{}", number + 1), &format!("{name}:eth1"));
            self.server(network, number, &[], at.on_lan(number), at.balancer());
        }
    }

    fn direct(&mut self, network: Network) {
        let at = network.at;
        let (edge, back) = (network.name("edge"), network.name("back"));
        self.bridge(&back);
        self.balancers(network, &[("eth1", 251, at.balancer())], &[]);
        self.client(network);
        let labels = [
            "anyvip.role: router".to_owned(),
            format!("anyvip.asn: {ROUTER_ASN}"),
            format!("anyvip.address.client: {}/24", at.gateway()),
            format!("anyvip.address.lan: {}/24", at.lan_router()),
        ];
        self.node(&edge, &labels, &[], "");
        self.link(&format!("{edge}:client"), &format!("{}:eth1", network.name("client")));
        self.link(&format!("{back}:edge"), &format!("{edge}:lan"));
        for name in ["lb1", "lb2"] {
            self.link(&format!("{back}:{name}"), &format!("{}:eth1", network.name(name)));
        }
        // They have the shared address and must not say so.
        let silent = ["net.ipv4.conf.all.arp_ignore: 1", "net.ipv4.conf.all.arp_announce: 2"];
        for number in 0..self.servers() {
            let name = server(network.design, number.into());
            self.link(&format!("{back}:s{}", number + 1), &format!("{name}:eth1"));
            self.server(network, number, &silent, at.on_lan(number), at.lan_router());
        }
    }
}

/// As a label says it: here a time is stated that `hash` calls busy or idle.
fn label(install: Install) -> String {
    match install {
        Install::Resilient { buckets, busy } => {
            format!("resilient:{buckets},{}s", Install::idle(busy).as_secs())
        }
        Install::Slots(slots) => format!("slots:{slots}"),
        Install::Group => "group".to_owned(),
        _ => "plain".to_owned(),
    }
}

fn configuration(at: Addresses, number: u8, guard: &Guard, checks: Checks) -> String {
    let ms = |time: Duration| format!("\"{}ms\"", time.as_millis().max(1));
    let guard = match guard {
        Guard::Bfd(interval) => {
            format!("bfd = {{ interval = {}, multiplier = {BFD_MULTIPLIER} }}\n", ms(*interval))
        }
        Guard::HoldTime(time) => format!("hold_time = \"{}s\"\n", time.as_secs()),
    };
    format!(
        "config_version = 1\nrouter_id = \"{own}\"\n\n[bgp]\nasn = {}\n\n[bgp.peer.edge]\naddress = \"{}\"\nasn = {ROUTER_ASN}\n{guard}\n\
         [service.compared]\nvips = [\"{SERVICE}\"]\n\n[[service.compared.check]]\nhttp = {{ port = {HTTP}, path = \"/\" }}\n\
         interval = {}\ntimeout = {}\nrise = {}\nfall = {}\n",
        ROUTER_ASN + 1 + u32::from(number),
        at.router(number),
        ms(checks.interval),
        ms(checks.timeout),
        checks.rise,
        checks.fall,
        own = at.server(number),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyvip_virtual::lab::{Lab, Role};

    #[test]
    fn every_design_makes_a_lab_that_is_read_without_a_word() {
        let text = std::fs::read_to_string(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topology/designs.compare.yml"),
        )
        .unwrap();
        let (plan, diagnostics) = Plan::read("plan", &text);
        assert_eq!(diagnostics, []);
        let plan = plan.unwrap();
        let all: Vec<usize> = (0..plan.designs.len())
            .filter(|at| crate::compare::kernel::is_kernels(&plan.designs[*at]))
            .collect();
        let files = write(&plan, &all);
        let (lab, diagnostics) = Lab::read("lab", &files.lab);
        assert_eq!(diagnostics, [], "{}", files.lab);
        let lab = lab.unwrap();
        let count = |wanted: fn(&Role) -> bool| lab.names(wanted).len();
        assert_eq!(count(Role::is_agent), all.len() * 4);
        assert_eq!(all.len(), 11);
        // Five of anycast, two of names, two of direct server return.
        assert_eq!(count(Role::is_router), 9);
        assert_eq!(files.configurations.len(), 5 * 4);
    }

    #[test]
    fn what_takes_less_than_a_hold_time_is_found_by_bfd() {
        let ms = Duration::from_millis;
        assert!(matches!(Guard::of(ms(900)), Guard::Bfd(interval) if interval == ms(300)));
        assert!(matches!(Guard::of(ms(9000)), Guard::HoldTime(time) if time == ms(9000)));
    }
}
