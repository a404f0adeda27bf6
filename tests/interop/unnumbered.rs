//! Peers without addresses: no link between router and hosts has a global address of either family.

use anyvip_tests::{Agent, Fabric, LONG, Namespace, Service, VIP4, VIP6, agent_config, binaries, wait_until};
use nix::sys::signal::Signal;

use crate::router::{Bfd, Manner, Router};

/// Sessions by link with the first so many hosts.
fn by_link(links: usize) -> Manner {
    Manner { links, extended_next_hop: true, ..Manner::default() }
}

/// The usual fabric; between router and hosts nothing but link-local addresses.
pub(crate) fn bare_fabric(hosts: usize) -> Fabric {
    let fabric = Fabric::new(binaries!(), hosts);
    for n in 1..=hosts {
        let (router, host) = (&fabric.router, fabric.host(n));
        router.ip(&format!("address del 10.1.{n}.1/24 dev h{n}"));
        router.ip(&format!("address del fd00:1:{n}::1/64 dev h{n}"));
        host.ip(&format!("address del 10.1.{n}.2/24 dev eth0"));
        host.ip(&format!("address del fd00:1:{n}::2/64 dev eth0"));
        point_to(&fabric, n, &link_local(router, &format!("h{n}")));
        // A router that would take anybody as its default router.
        router.sysctls(&[(&format!("net/ipv6/conf/h{n}/accept_ra"), "2")]);
    }
    fabric
}

/// The host's way out.
fn point_to(fabric: &Fabric, n: usize, router: &str) {
    let host = fabric.host(n);
    host.ip(&format!("-4 route replace default via inet6 {router} dev eth0"));
    host.ip(&format!("-6 route replace default via {router} dev eth0"));
}

#[track_caller]
fn link_local(namespace: &Namespace, interface: &str) -> String {
    wait_until(LONG, || {
        let text = namespace.ip(&format!("-6 -o address show dev {interface} scope link"));
        let address = text.split_whitespace().find_map(|word| word.strip_suffix("/64"));
        address.map(str::to_owned).ok_or(text)
    })
}

/// Another link-local address instead of the one that is there.
fn rename(namespace: &Namespace, interface: &str, address: &str) {
    let former = link_local(namespace, interface);
    namespace.ip(&format!("-6 address add {address}/64 dev {interface} nodad"));
    namespace.ip(&format!("-6 address del {former}/64 dev {interface}"));
}

pub(crate) fn config(n: usize, peer: &str) -> String {
    let own = format!("address = \"10.1.{n}.1\"");
    let config = agent_config(n);
    assert!(config.contains(&own));
    config.replace(&own, peer)
}

/// Waits until both service addresses lead to exactly these hosts in the router's kernel.
#[track_caller]
pub(crate) fn wait_table(fabric: &Fabric, hosts: &[usize]) {
    wait_until(LONG, || {
        let all = 1..=fabric.hosts.len();
        for (family, address) in [("-4", VIP4), ("-6", VIP6)] {
            let text = fabric.router.ip(&format!("{family} route show {address}"));
            let there: Vec<usize> = all.clone().filter(|n| text.contains(&format!("dev h{n} "))).collect();
            if there != hosts {
                return Err(format!("{address} leads to {there:?}, not {hosts:?}:\n{text}"));
            }
        }
        Ok(())
    });
}

fn start(fabric: &Fabric, n: usize, peer: &str) -> (Service, Agent) {
    (fabric.service(n), fabric.agent_with(n, &config(n, peer)))
}

/// Two hosts, traffic, a router whose address changes.
pub(crate) fn hosts_without_addresses_are_served<R: Router>() {
    let fabric = &bare_fabric(2);
    let _router = R::start(&fabric.lab, &fabric.router, &by_link(2));
    let accept_ra = fabric.host(1).run("cat", &["/proc/sys/net/ipv6/conf/eth0/accept_ra"]);
    let (_one, first) = start(fabric, 1, "interface = \"eth0\"");
    let (_two, second) = start(fabric, 2, "interface = \"eth0\"");
    wait_table(fabric, &[1, 2]);
    for (n, agent) in [(1, &first), (2, &second)] {
        let router = link_local(&fabric.router, &format!("h{n}"));
        agent.wait_status("the router's address", |status| {
            status["peers"][0]["address"] == format!("{router}%eth0")
                && status["peers"][0]["waiting_for"].is_null()
        });
    }
    for address in [VIP4, VIP6] {
        let mut answered: Vec<String> =
            (0..64).filter_map(|_| fabric.answer(&fabric.client, address)).collect();
        assert_eq!(answered.len(), 64, "every client of {address} is answered");
        answered.sort();
        answered.dedup();
        assert_eq!(answered, ["h1", "h2"], "{address}");
    }
    // The router gets another address there; the session with the former one ends.
    rename(&fabric.router, "h1", "fe80::99");
    point_to(fabric, 1, "fe80::99");
    first.wait_status("the new address", |status| {
        status["peers"][0]["address"] == "fe80::99%eth0" && status["peers"][0]["state"] == "Established"
    });
    wait_table(fabric, &[1, 2]);
    let events = first.run("events", &[]);
    assert!(events.contains("it advertises itself there"), "{events}");
    // Nobody has become anybody's default router, and the host listens to advertisements as before.
    let default = fabric.router.ip("-6 route show default");
    assert!(!default.contains("proto ra"), "{default}");
    assert_eq!(fabric.host(1).run("cat", &["/proc/sys/net/ipv6/conf/eth0/accept_ra"]), accept_ra);
}

/// The host's link goes, and comes back.
fn bounce(fabric: &Fabric, agent: &Agent) {
    fabric.host(1).ip("link set eth0 down");
    wait_table(fabric, &[]);
    agent.wait_status("down", |status| status["peers"][0]["waiting_for"] == "eth0 is down");
    fabric.host(1).ip("link set eth0 up");
    point_to(fabric, 1, &link_local(&fabric.router, "h1"));
    wait_table(fabric, &[1]);
}

/// The router starts after the agent, and again: it learns the host from the next advertisement.
pub(crate) fn a_router_that_starts_later_or_again_finds_the_host<R: Router>() {
    let fabric = bare_fabric(1);
    let (_service, agent) = start(&fabric, 1, "interface = \"eth0\"");
    agent.wait_status("nobody there", |status| {
        status["peers"][0]["waiting_for"] == "no router has been heard on eth0"
    });
    let text = agent.run("status", &[]);
    assert!(text.contains("no router has been heard on eth0"), "{text}");
    let text = agent.run("explain", &["web"]);
    assert!(text.contains("let the router advertise itself there"), "{text}");
    for _ in 0..2 {
        let mut router = R::start(&fabric.lab, &fabric.router, &by_link(1));
        wait_table(&fabric, &[1]);
        bounce(&fabric, &agent);
        router.stop();
        wait_table(&fabric, &[]);
    }
}

/// RFC 5881 over link-local addresses.
pub(crate) fn bfd_follows_the_link_local_address<R: Router>() {
    let fabric = bare_fabric(1);
    let mut router = R::start(&fabric.lab, &fabric.router, &Manner { bfd: Bfd::Guard, ..by_link(1) });
    let (_service, agent) =
        start(&fabric, 1, "interface = \"eth0\"\nbfd = { interval = \"50ms\", strict = true }");
    wait_table(&fabric, &[1]);
    let fast = |status: &serde_json::Value| {
        let bfd = &status["peers"][0]["bfd"];
        bfd["state"] == "Up" && bfd["detection_us"] == 150_000
    };
    agent.wait_status("fast BFD", fast);
    router.freeze(Signal::SIGSTOP);
    wait_until(LONG, || {
        let events = agent.run("events", &[]);
        let told = events.contains("BFD with tor is Down") && events.contains("BFD Down");
        if told { Ok(()) } else { Err(events) }
    });
    router.freeze(Signal::SIGCONT);
    agent.wait_status("fast BFD again", fast);
    wait_table(&fabric, &[1]);
}

pub(crate) fn a_router_that_calls_a_link_local_address_is_known_by_its_call<R: Router>() {
    let fabric = bare_fabric(2);
    for n in 1..=2 {
        rename(fabric.host(n), "eth0", &format!("fe80::{n}:2"));
    }
    let _router = R::start(&fabric.lab, &fabric.router, &Manner { calls: true, ..by_link(2) });
    let agents: Vec<(Service, Agent)> = (1..=2)
        .map(|n| {
            let config =
                config(n, "interface = \"eth0\"").replace("[bgp]\n", "[bgp]\nlisten = \"[::]:179\"\n");
            (fabric.service(n), fabric.agent_with(n, &config))
        })
        .collect();
    wait_table(&fabric, &[1, 2]);
    let events = agents[0].1.run("events", &[]);
    assert!(events.contains("it connected from there"), "{events}");
}

/// One peer is found by its advertisement, the other one's address is written; both have the same.
pub(crate) fn two_links_to_the_same_link_local_address_are_told_apart<R: Router>() {
    let fabric = bare_fabric(1);
    let (router, host) = (&fabric.router, fabric.host(1));
    fabric.lab.wire(router, "h2", host, "eth1");
    for link in ["h1", "h2"] {
        rename(router, link, "fe80::1");
    }
    let manner = Manner { key: Some("s3cret"), ttl_security: true, ..by_link(2) };
    let _router = R::start(&fabric.lab, router, &manner);
    let key = fabric.lab.scratch().write("key", "s3cret\n");
    let guarded = format!("password_file = \"{}\"\nttl_security = 1", key.display());
    let peers = format!(
        "interface = \"eth0\"\n{guarded}\nasn = 65000\n[bgp.peer.tor2]\naddress = \"fe80::1\"\n\
         interface = \"{second}\"\n{guarded}",
        second = "eth1"
    );
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &config(1, &peers));
    let status = agent.wait_status("both sessions", |status| {
        let up = |n: usize| status["peers"][n]["state"] == "Established";
        up(0) && up(1)
    });
    assert_eq!(status["peers"][0]["address"], "fe80::1%eth0");
    assert_eq!(status["peers"][1]["address"], "fe80::1%eth1");
    wait_until(LONG, || {
        let text = router.ip(&format!("route show {VIP4}"));
        if text.contains("dev h1 ") && text.contains("dev h2 ") { Ok(()) } else { Err(text) }
    });
}
