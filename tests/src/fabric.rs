//! The usual lab: a router, a client, and hosts on links of their own.

use crate::agent::{Agent, AgentFiles};
use crate::lab::{Lab, Namespace};
use crate::service::Service;
use crate::speaker::Speaker;
use crate::{Binaries, Process};

/// The service address of the usual lab, IPv4.
pub const VIP4: &str = "198.51.100.1";
/// The service address of the usual lab, IPv6.
pub const VIP6: &str = "2001:db8:100::1";
/// Where the service listens.
pub const SERVICE_PORT: u16 = 8080;

/// Router (AS 65000) with `hN` 10.1.N.1/24 fd00:1:N::1/64 to host N (AS 65000+N) `eth0` 10.1.N.2/24 fd00:1:N::2/64, and `c0`
/// 10.9.0.1/24 fd00:9::1/64 to the client `eth0` 10.9.0.2/24 fd00:9::2/64. Everybody's default route is the router, which
/// hashes the true 5-tuple (with hash policy 1, sockets behind veth are hashed by a random number of their own).
/// Namespaces go when this goes, so what runs in it must go before.
#[derive(Debug)]
pub struct Fabric {
    pub router: Namespace,
    pub client: Namespace,
    pub hosts: Vec<Namespace>,
    pub lab: Lab,
}

impl Fabric {
    /// Builds it with this many hosts.
    pub fn new(binaries: Binaries, hosts: usize) -> Self {
        let lab = Lab::new(binaries);
        let router = lab.namespace("r");
        router.sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/fib_multipath_hash_policy", "3"),
            ("net/ipv4/fib_multipath_hash_fields", "55"),
            ("net/ipv6/fib_multipath_hash_policy", "3"),
            ("net/ipv6/fib_multipath_hash_fields", "55"),
        ]);
        let client = lab.namespace("c");
        link(&lab, &router, "c0", &client, "10.9.0", "fd00:9:");
        let hosts = (1..=hosts)
            .map(|n| {
                let host = lab.namespace(&format!("h{n}"));
                link(&lab, &router, &format!("h{n}"), &host, &format!("10.1.{n}"), &format!("fd00:1:{n}:"));
                host
            })
            .collect();
        Fabric { router, client, hosts, lab }
    }

    /// Host N, counted from 1 as in its addresses.
    pub fn host(&self, n: usize) -> &Namespace {
        &self.hosts[n - 1]
    }

    /// Starts the service of host N.
    pub fn service(&self, n: usize) -> Service {
        Service::start(&self.lab, self.host(n), &format!("h{n}"), SERVICE_PORT)
    }

    /// Starts the agent of host N with [`agent_config`], its files in `hN` of the lab's folder.
    pub fn agent(&self, n: usize) -> Agent {
        self.agent_with(n, &agent_config(n))
    }

    /// Starts the agent of host N with this configuration.
    pub fn agent_with(&self, n: usize, config: &str) -> Agent {
        let files = AgentFiles::new(&self.lab, &format!("h{n}"), config);
        Agent::start(&self.lab, self.host(n), files)
    }

    /// A scripted router for host N, at the usual address.
    pub fn speaker(&self, n: usize, manner: &str) -> Speaker {
        Speaker::start(&self.lab, &self.router, &format!("10.1.{n}.1"), manner)
    }

    /// Starts `ip monitor address` in a namespace.
    pub fn monitor(&self, namespace: &Namespace) -> Process {
        let name = format!("monitor-{}", namespace.name());
        let log = self.lab.scratch().path().join(&name);
        let monitor = Process::start(&name, namespace.command("ip").args(["monitor", "address"]), &log);
        // It says nothing when it is ready; an address that comes and goes does.
        crate::wait_until(crate::LONG, || {
            namespace.ip("address add 127.9.9.9/32 dev lo");
            namespace.ip("address del 127.9.9.9/32 dev lo");
            if monitor.output().contains("127.9.9.9") { Ok(()) } else { Err("no monitor".to_owned()) }
        });
        monitor
    }

    /// Starts `ip monitor route` in a namespace.
    pub fn watch_routes(&self, namespace: &Namespace) -> Process {
        let name = format!("routes-{}", namespace.name());
        let log = self.lab.scratch().path().join(&name);
        let monitor = Process::start(&name, namespace.command("ip").args(["monitor", "route"]), &log);
        // It says nothing when it is ready; a route that comes and goes does.
        crate::wait_until(crate::LONG, || {
            namespace.ip("route add 127.9.9.8/32 dev lo");
            namespace.ip("route del 127.9.9.8/32 dev lo");
            if monitor.output().contains("127.9.9.8") { Ok(()) } else { Err("no monitor".to_owned()) }
        });
        monitor
    }

    /// Which host answers at the address, seen from the client; `None` when nobody does.
    pub fn answer(&self, from: &Namespace, address: &str) -> Option<String> {
        Service::ask(&self.lab, from, address, SERVICE_PORT)
    }

    /// Starts a capture of all frames on an interface.
    pub fn capture(&self, namespace: &Namespace, interface: &str, filter: &str) -> Process {
        let name = format!("tcpdump-{}-{interface}", namespace.name());
        let log = self.lab.scratch().path().join(&name);
        let mut command = namespace.command("tcpdump");
        command.args(["-l", "-n", "-e", "--immediate-mode", "-i", interface]).args(filter.split(' '));
        let capture = Process::start(&name, &mut command, &log);
        crate::wait_until(crate::LONG, || {
            if capture.output().contains("listening on") { Ok(()) } else { Err(capture.output()) }
        });
        capture
    }
}

fn link(lab: &Lab, router: &Namespace, router_link: &str, end: &Namespace, net4: &str, net6: &str) {
    lab.wire(router, router_link, end, "eth0");
    router.ip(&format!("address add {net4}.1/24 dev {router_link}"));
    router.ip(&format!("address add {net6}:1/64 dev {router_link} nodad"));
    end.ip(&format!("address add {net4}.2/24 dev eth0"));
    end.ip(&format!("address add {net6}:2/64 dev eth0 nodad"));
    end.ip(&format!("route add default via {net4}.1"));
    end.ip(&format!("-6 route add default via {net6}:1"));
}

/// Both service addresses of host N, one HTTP check each 300 ms (three failures are needed, because tests share busy cores), one session over IPv4 with the router.
pub fn agent_config(n: usize) -> String {
    agent_config_with(n, &format!("\"{VIP4}\", \"{VIP6}\""), "")
}

/// The same with other service addresses (as TOML list items), and more lines at the end.
pub fn agent_config_with(n: usize, vips: &str, more: &str) -> String {
    format!(
        r#"config_version = 1
router_id = "10.1.{n}.2"
[bgp]
asn = {asn}
[bgp.peer.tor]
address = "10.1.{n}.1"
asn = 65000
[check.web]
http = {{ port = {SERVICE_PORT}, path = "/" }}
interval = "300ms"
timeout = "300ms"
fall = 3
[service.web]
vips = [{vips}]
checks = ["web"]
{more}"#,
        asn = 65000 + n
    )
}
