//! What must happen with any upstream router. Three hosts share an IPv4 and an IPv6 service address.

use std::time::{Duration, Instant};

use anyvip_tests::{
    Agent, AgentFiles, Fabric, LONG, Service, VIP4, VIP6, binaries, peer_state, vip, wait_until,
};

use crate::router::{Manner, Router};

/// Three healthy hosts, all in the router's table. Fields drop in this order: the programs before their namespaces.
pub(crate) struct Network<R> {
    agents: Vec<Agent>,
    services: Vec<Service>,
    router: R,
    fabric: Fabric,
}

impl<R: Router> Network<R> {
    fn new() -> Self {
        Network::with(anyvip_tests::agent_config)
    }

    fn with(config: impl Fn(usize) -> String) -> Self {
        let fabric = Fabric::new(binaries!(), 3);
        let router = R::start(&fabric.lab, &fabric.router, &Manner::default());
        let services = (1..=3).map(|n| fabric.service(n)).collect();
        let agents = (1..=3).map(|n| fabric.agent_with(n, &config(n))).collect();
        let network = Network { agents, services, router, fabric };
        network.wait_table(&[1, 2, 3]);
        network
    }

    /// Waits until both service addresses lead to exactly these hosts in the router's table.
    #[track_caller]
    fn wait_table(&self, hosts: &[usize]) {
        let four: Vec<String> = hosts.iter().map(|n| format!("10.1.{n}.2")).collect();
        let six: Vec<String> = hosts.iter().map(|n| format!("fd00:1:{n}::2")).collect();
        wait_until(LONG, || {
            let hops = |address| self.router.next_hops(&self.fabric, address);
            let seen = (hops(VIP4), hops(VIP6));
            if seen == (four.clone(), six.clone()) {
                return Ok(());
            }
            Err(format!("the router has {seen:?}, wanted {four:?} and {six:?}"))
        });
    }

    /// What host N's agent says it has told the router.
    #[track_caller]
    fn wait_withheld(&self, n: usize, reason: &str) {
        for address in [VIP4, VIP6] {
            self.agents[n - 1].wait_reason(address, reason);
        }
    }
}

pub(crate) fn three_hosts_share_both_addresses<R: Router>() {
    let network = Network::<R>::new();
    let fabric = &network.fabric;
    for address in [VIP4, VIP6].into_iter().filter(|_| R::forwards()) {
        let mut answered: Vec<String> =
            (0..64).filter_map(|_| fabric.answer(&fabric.client, address)).collect();
        assert_eq!(answered.len(), 64, "every client of {address} is answered");
        answered.sort();
        answered.dedup();
        assert_eq!(answered, ["h1", "h2", "h3"], "{address} is spread over all three");
    }
}

pub(crate) fn a_killed_service_leaves_and_comes_back<R: Router>() {
    let mut network = Network::<R>::new();
    network.services[1].process.kill();
    network.wait_table(&[1, 3]);
    network.wait_withheld(2, "Unhealthy");
    network.services[1] = network.fabric.service(2);
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_drained_host_leaves_while_its_service_answers_on<R: Router>() {
    let network = Network::<R>::new();
    network.agents[0].run("drain", &["web", "--reason", "kernel upgrade"]);
    network.wait_table(&[2, 3]);
    network.wait_withheld(1, "Drained");
    let fabric = &network.fabric;
    for address in [VIP4, VIP6] {
        // Old flows still reach it: the address stays.
        assert_eq!(fabric.answer(fabric.host(1), address).as_deref(), Some("h1"), "{address}");
    }
    let status = network.agents[0].status();
    assert_eq!(status["services"][0]["health"], "up", "a drained service is still checked");
    network.agents[0].run("undrain", &["web"]);
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_killed_agent_leaves_and_its_next_life_comes_back<R: Router>() {
    let mut network = Network::<R>::new();
    network.agents[2].kill();
    network.wait_table(&[1, 2]);
    let fabric = &network.fabric;
    let files = network.agents[2].files.clone();
    network.agents[2] = Agent::start(&fabric.lab, fabric.host(3), files);
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_restarted_router_learns_everything_again<R: Router>() {
    let mut network = Network::<R>::new();
    network.router.stop();
    network.wait_table(&[]);
    for agent in &network.agents {
        agent.wait_status("no session left", |status| status["peers"][0]["state"] != "Established");
    }
    network.router = R::start(&network.fabric.lab, &network.fabric.router, &Manner::default());
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_session_over_ipv6_carries_both_families<R: Router>() {
    let network = Network::<R>::with(|n| {
        let own = format!("address = \"10.1.{n}.1\"");
        anyvip_tests::agent_config(n).replace(&own, &format!("address = \"fd00:1:{n}::1\""))
    });
    let status = network.agents[0].status();
    assert_eq!(status["peers"][0]["families"], serde_json::json!(["ipv4", "ipv6"]));
}

/// Our own end of the sessions of host 1: TCP connections that stand.
fn connections(fabric: &Fabric) -> usize {
    let text =
        fabric.host(1).run("ss", &["-Htn", "state", "established", "( sport = :179 or dport = :179 )"]);
    text.lines().count()
}

/// One session, and it stays: for some seconds nothing changes but its age.
#[track_caller]
fn assert_one_session_stays(agent: &Agent, fabric: &Fabric) {
    let status = agent.wait_status("a session", |status| status["peers"][0]["state"] == "Established");
    let (_, before) = peer_state(&status, "tor");
    let flaps = agent.log().matches("session is up").count();
    let watched = Instant::now();
    // Time itself is what is tested: the two connections of a collision, and a router's next call, come within 2 s.
    while watched.elapsed() < Duration::from_secs(3) {
        let (state, now) = peer_state(&agent.status(), "tor");
        assert_eq!(state, "Established", "{}", agent.log());
        assert!(now >= before, "it is another session:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(agent.log().matches("session is up").count(), flaps, "{}", agent.log());
    wait_until(LONG, || match connections(fabric) {
        1 => Ok(()),
        several => Err(format!("{several} connections")),
    });
}

fn listening(n: usize, router_id: &str, passive: bool) -> String {
    let own = format!("router_id = \"10.1.{n}.2\"");
    let peer = format!("address = \"10.1.{n}.1\"");
    anyvip_tests::agent_config(n)
        .replace(&own, &format!("router_id = \"{router_id}\""))
        .replace("[bgp]\n", &format!("[bgp]\nlisten = \"10.1.{n}.2:179\"\n"))
        .replace(&peer, &format!("{peer}\npassive = {passive}"))
}

pub(crate) fn a_passive_host_is_called_by_its_router<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let mut router = R::start(&fabric.lab, &fabric.router, &calling());
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &listening(1, "10.1.1.2", true));
    agent.wait_advertised(VIP4, "tor");
    let in_table = |router: &R, hosts: &[&str]| {
        wait_until(LONG, || {
            let seen = router.next_hops(&fabric, VIP4);
            if seen == hosts { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    in_table(&router, &["10.1.1.2"]);
    assert_one_session_stays(&agent, &fabric);
    // The router's next life calls again.
    router.stop();
    in_table(&router, &[]);
    drop(router);
    let router = R::start(&fabric.lab, &fabric.router, &calling());
    in_table(&router, &["10.1.1.2"]);
    assert_eq!(agent.status()["peers"][0]["state"], "Established");
}

/// Both ends connect, and neither hears the other's OPEN until both connections stand: a collision (RFC 4271 §6.8).
pub(crate) fn of_two_connections_one_stays_when_our_identifier_is_the_smaller<R: Router>() {
    of_two_connections_one_stays::<R>("10.1.1.2");
}

pub(crate) fn of_two_connections_one_stays_when_our_identifier_is_the_greater<R: Router>() {
    of_two_connections_one_stays::<R>("10.200.0.1");
}

fn of_two_connections_one_stays<R: Router>(router_id: &str) {
    let fabric = Fabric::new(binaries!(), 1);
    let host = fabric.host(1).clone();
    // Handshakes pass, messages longer than a KEEPALIVE do not.
    let deafen = || {
        host.run("nft", &["add", "table", "inet", "deaf"]);
        for (chain, hook) in [("i", "input"), ("o", "output")] {
            host.run(
                "nft",
                &[&format!("add chain inet deaf {chain} {{ type filter hook {hook} priority 0; }}")],
            );
            for port in ["sport", "dport"] {
                host.run("nft", &[&format!("add rule inet deaf {chain} tcp {port} 179 ip length > 72 drop")]);
            }
        }
    };
    deafen();
    let _service = fabric.service(1);
    let files = AgentFiles::new(&fabric.lab, "h1", &listening(1, router_id, false));
    let agent = Agent::start(&fabric.lab, &host, files);
    let router = R::start(&fabric.lab, &fabric.router, &calling());
    for round in 0..2 {
        if round > 0 {
            deafen();
            for namespace in [&host, &fabric.router] {
                namespace.run("ss", &["-K", "( sport = :179 or dport = :179 )"]);
            }
        }
        wait_until(LONG, || match connections(&fabric) {
            2 => Ok(()),
            other => Err(format!("{other} connections instead of two:\n{}", agent.log())),
        });
        host.run("nft", &["delete", "table", "inet", "deaf"]);
        assert_one_session_stays(&agent, &fabric);
        wait_until(LONG, || {
            let seen = router.next_hops(&fabric, VIP4);
            if seen == ["10.1.1.2"] { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }
}

fn calling() -> Manner {
    Manner { calls: true, ..Manner::default() }
}

fn over_ipv6(n: usize) -> String {
    let own = format!("address = \"10.1.{n}.1\"");
    anyvip_tests::agent_config(n).replace(&own, &format!("address = \"fd00:1:{n}::1\""))
}

/// Waits for this next hop in the router's table, and then for an answer through it.
#[track_caller]
fn wait_forwarded<R: Router>(fabric: &Fabric, router: &R, address: &str, next_hop: &str) {
    wait_until(LONG, || {
        let seen = router.next_hops(fabric, address);
        if seen == [next_hop] { Ok(()) } else { Err(format!("{seen:?}; {}", router.shown(address))) }
    });
    if !R::forwards() {
        return;
    }
    wait_until(LONG, || match fabric.answer(&fabric.client, address).as_deref() {
        Some("h1") => Ok(()),
        other => Err(format!("{other:?} answers at {address}; {}", router.shown(address))),
    });
}

pub(crate) fn either_session_carries_traffic_of_both_families<R: Router>() {
    let fabric = Fabric::new(binaries!(), 2);
    let router = R::start(&fabric.lab, &fabric.router, &Manner::default());
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &over_ipv6(1));
    wait_forwarded(&fabric, &router, VIP4, "10.1.1.2");
    wait_forwarded(&fabric, &router, VIP6, "fd00:1:1::2");
    drop(agent);
    wait_until(LONG, || {
        match router.next_hops(&fabric, VIP4).len() + router.next_hops(&fabric, VIP6).len() {
            0 => Ok(()),
            left => Err(format!("{left} routes left")),
        }
    });
    let files = AgentFiles::new(&fabric.lab, "over-ipv4", &anyvip_tests::agent_config(1));
    let _agent = Agent::start(&fabric.lab, fabric.host(1), files);
    wait_forwarded(&fabric, &router, VIP4, "10.1.1.2");
    wait_forwarded(&fabric, &router, VIP6, "fd00:1:1::2");
}

/// Takes all IPv4 from the link between the router and host 1, but for a route back to the clients.
fn only_ipv6(fabric: &Fabric) {
    fabric.host(1).ip("address del 10.1.1.2/24 dev eth0");
    fabric.router.ip("address del 10.1.1.1/24 dev h1");
    fabric.host(1).ip("route replace 0.0.0.0/0 via inet6 fd00:1:1::1 dev eth0");
}

pub(crate) fn a_link_without_ipv4_carries_ipv4<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    only_ipv6(&fabric);
    let router =
        R::start(&fabric.lab, &fabric.router, &Manner { extended_next_hop: true, ..Manner::default() });
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &over_ipv6(1));
    wait_forwarded(&fabric, &router, VIP4, "fd00:1:1::2");
    wait_forwarded(&fabric, &router, VIP6, "fd00:1:1::2");
    let status = agent.status();
    assert_eq!(vip(&status, VIP4)["peers"][0]["attributes"]["next_hop"], "fd00:1:1::2");
    assert_eq!(fabric.host(1).sysctl("net/ipv4/conf/eth0/arp_ignore"), "1", "guarded all the same");
    agent.run("drain", &["web"]);
    wait_until(LONG, || match router.next_hops(&fabric, VIP4).as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

pub(crate) fn a_router_that_takes_no_ipv6_next_hop_is_named<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    only_ipv6(&fabric);
    let router = R::start(&fabric.lab, &fabric.router, &Manner::default());
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &over_ipv6(1));
    wait_forwarded(&fabric, &router, VIP6, "fd00:1:1::2");
    agent.wait_status("NoNextHop", |status| vip(status, VIP4)["peers"][0]["reason"] == "NoNextHop");
    assert!(router.next_hops(&fabric, VIP4).is_empty());
    let text = agent.run("explain", &["web"]);
    assert!(text.contains("eth0") && text.contains("no IPv4 address"), "{text}");
}
