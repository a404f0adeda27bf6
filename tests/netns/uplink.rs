//! Interfaces that come, go and change under a running agent: the right reasons, no end, and recovery.

use anyvip_tests::{
    Fabric, LONG, VIP4, VIP6, agent_config, agent_config_with, peer_state, reason, vip, wait_until,
};
use serde_json::Value;

use crate::{Host, possible};

/// Why the peer is not told of an address; empty when it is.
fn peer_reason<'a>(status: &'a Value, address: &str) -> &'a str {
    vip(status, address)["peers"][0]["reason"].as_str().unwrap_or_default()
}

#[track_caller]
fn wait_not_told(host: &Host) -> String {
    let status = host.agent.wait_status("nobody is told", |status| {
        vip(status, VIP4)["peers"][0]["advertised"] == false
            && !(reason(status, VIP4).is_empty() && peer_reason(status, VIP4).is_empty())
    });
    format!("{} {}", reason(&status, VIP4), peer_reason(&status, VIP4))
}

/// The only wire of host 1, once more as [`Fabric`] makes it.
fn rewire(fabric: &Fabric, name: &str) {
    fabric.lab.wire(&fabric.router, "h1", fabric.host(1), name);
    fabric.router.ip("address add 10.1.1.1/24 dev h1");
    fabric.router.ip("address add fd00:1:1::1/64 dev h1 nodad");
    fabric.host(1).ip(&format!("address add 10.1.1.2/24 dev {name}"));
    fabric.host(1).ip(&format!("address add fd00:1:1::2/64 dev {name} nodad"));
    fabric.host(1).ip("route add default via 10.1.1.1");
    fabric.host(1).ip("-6 route add default via fd00:1:1::1");
}

fn short_hold() -> String {
    agent_config(1).replace("asn = 65000\n", "asn = 65000\nhold_time = \"3s\"\n")
}

#[test]
fn an_uplink_that_vanishes_ends_the_session_and_another_of_its_name_is_guarded_anew() {
    if !possible() {
        return;
    }
    let host = Host::with(&short_hold());
    host.agent.wait_advertised(VIP4, "tor");
    host.fabric.host(1).ip("link del eth0");
    let why = wait_not_told(&host);
    assert!(why.contains("SessionDown") || why.contains("ArpNotGuarded"), "{why}");
    rewire(&host.fabric, "eth0");
    assert_eq!(host.fabric.host(1).sysctl("net/ipv4/conf/lo/arp_ignore"), "0");
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
    assert_eq!(host.fabric.host(1).sysctl("net/ipv4/conf/eth0/arp_ignore"), "1");
    assert_eq!(host.fabric.host(1).sysctl("net/ipv4/conf/eth0/arp_announce"), "2");
}

#[test]
fn an_uplink_with_another_name_stays_guarded_and_is_restored_under_it() {
    if !possible() {
        return;
    }
    let mut host = Host::with(&short_hold());
    host.agent.wait_advertised(VIP4, "tor");
    let namespace = host.fabric.host(1).clone();
    // Older kernels rename only what is down; the routes go with that.
    namespace.ip("link set eth0 down");
    namespace.ip("link set eth0 name wan0");
    namespace.ip("link set wan0 up");
    namespace.ip("route replace default via 10.1.1.1");
    namespace.ip("-6 route replace default via fd00:1:1::1");
    host.agent.wait_status("connected again", |status| {
        peer_state(status, "tor").0 == "Established" && anyvip_tests::advertised(status, VIP4, "tor")
    });
    assert_eq!(namespace.sysctl("net/ipv4/conf/wan0/arp_ignore"), "1");
    host.agent.terminate();
    host.agent.run("cleanup", &[]);
    assert_eq!(
        namespace.sysctl("net/ipv4/conf/wan0/arp_ignore"),
        "0",
        "what was before the guard is put back"
    );
    assert_eq!(namespace.sysctl("net/ipv4/conf/wan0/arp_announce"), "0");
}

#[test]
fn another_address_on_the_uplink_makes_another_session_with_another_next_hop() {
    if !possible() {
        return;
    }
    let host = Host::with(&short_hold());
    host.agent.wait_advertised(VIP4, "tor");
    let namespace = host.fabric.host(1);
    namespace.ip("address add 10.1.1.7/24 dev eth0");
    namespace.ip("address del 10.1.1.2/24 dev eth0");
    // The former primary address takes the later ones with it, and the routes through them.
    namespace.ip("address replace 10.1.1.7/24 dev eth0");
    namespace.ip("route replace default via 10.1.1.1");
    let status = host.agent.wait_status("told with the new address as next hop", |status| {
        anyvip_tests::advertised(status, VIP4, "tor")
            && vip(status, VIP4)["peers"][0]["attributes"]["next_hop"] == "10.1.1.7"
    });
    assert_eq!(peer_state(&status, "tor").0, "Established");
}

#[test]
fn an_uplink_that_goes_down_and_up_costs_a_session_and_nothing_else() {
    if !possible() {
        return;
    }
    let host = Host::with(&short_hold());
    host.agent.wait_advertised(VIP4, "tor");
    host.fabric.host(1).ip("link set eth0 down");
    let why = wait_not_told(&host);
    assert!(why.contains("SessionDown") || why.contains("NoNextHop"), "{why}");
    assert!(host.fabric.lab.address(host.fabric.host(1), VIP4).is_some(), "the address stays");
    host.fabric.host(1).ip("link set eth0 up");
    host.fabric.host(1).ip("route replace default via 10.1.1.1");
    host.fabric.host(1).ip("-6 route replace default via fd00:1:1::1");
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
}

#[test]
fn a_default_route_that_goes_is_no_reason_to_withdraw() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    host.fabric.host(1).ip("route del default");
    host.fabric.host(1).ip("-6 route del default");
    // The monitor has seen it when it has seen what came after it.
    host.fabric.host(1).ip(&format!("address del {VIP6}/128 dev lo"));
    wait_until(LONG, || host.fabric.lab.address(host.fabric.host(1), VIP6).ok_or("not back".to_owned()));
    assert!(anyvip_tests::advertised(&host.agent.status(), VIP4, "tor"));
    assert_eq!(host.router.count("accepted"), 1);
    assert_eq!(host.fabric.host(1).sysctl("net/ipv4/conf/eth0/arp_ignore"), "1", "still the way to a peer");
}

#[test]
fn a_route_to_a_far_peer_that_disappears_and_returns() {
    if !possible() {
        return;
    }
    let config = short_hold().replace("address = \"10.1.1.1\"", "address = \"10.9.0.1\"\nttl = 2");
    let fabric = Fabric::new(anyvip_tests::binaries!(), 1);
    let router = anyvip_tests::Speaker::start(&fabric.lab, &fabric.router, "10.9.0.1", "plain");
    let service = fabric.service(1);
    let agent = fabric.agent_with(1, &config);
    let host = Host { agent, service, router, fabric };
    host.agent.wait_advertised(VIP4, "tor");
    host.fabric.host(1).ip("route del default");
    let why = wait_not_told(&host);
    assert!(!why.trim().is_empty(), "{why}");
    host.agent.wait_status("unreachable is said", |status| {
        status["peers"][0]["last_error"].as_str().is_some_and(|text| text.contains("reach"))
    });
    host.fabric.host(1).ip("route add default via 10.1.1.1");
    host.agent.wait_advertised(VIP4, "tor");
}

#[test]
fn the_loopback_that_is_set_down_closes_the_gate_and_opens_it_when_it_is_up() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
    // The kernel removes IPv6 addresses then, and cuts everything that the host says to itself.
    host.fabric.host(1).ip("link set lo down");
    host.agent.wait_status("withheld", |status| {
        ["VipMissing", "Unhealthy"].contains(&reason(status, VIP4))
            && ["VipMissing", "Unhealthy"].contains(&reason(status, VIP6))
    });
    assert_eq!(peer_state(&host.agent.status(), "tor").0, "Established", "the session does not run over lo");
    host.fabric.host(1).ip("link set lo up");
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
    assert_eq!(host.router.count("accepted"), 1);
}

#[test]
fn an_interface_of_the_vips_that_is_deleted_and_made_again_gets_them_back() {
    if !possible() {
        return;
    }
    // A bridge without ports does what a dummy does, on kernels too that have no dummy.
    let config =
        agent_config_with(1, &format!("\"{VIP4}\", \"{VIP6}\""), "[host]\nvip_interface = \"svc0\"\n");
    let make = |fabric: &Fabric| {
        fabric.host(1).ip("link add svc0 type bridge");
        fabric.host(1).ip("link set svc0 up");
    };
    let host = Host::prepared(&config, make);
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
    host.fabric.host(1).ip("link del svc0");
    host.agent.wait_reason(VIP4, "VipMissing");
    host.agent.wait_reason(VIP6, "VipMissing");
    let text = host.agent.run("explain", &["web"]);
    assert!(text.contains("svc0"), "the interface is named:\n{text}");
    make(&host.fabric);
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
    assert_eq!(host.router.count("accepted"), 1);
}
