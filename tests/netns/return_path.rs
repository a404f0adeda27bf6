//! The return-path gate: a host whose reverse path filter would drop what a router sends must not attract it.

use anyvip_tests::{Agent, Fabric, Service, Speaker, VIP4, agent_config_with, binaries, vip};

use crate::possible;

/// Host 1 with two routers: `tor` over eth0, where the default route is, and `side` over eth1.
struct TwoUplinks {
    agent: Agent,
    _side: Speaker,
    _tor: Speaker,
    _service: Service,
    fabric: Fabric,
}

fn start(rp_filter: &str, more: &str) -> TwoUplinks {
    let fabric = Fabric::new(binaries!(), 1);
    fabric.lab.wire(&fabric.router, "x1", fabric.host(1), "eth1");
    fabric.router.ip("address add 10.3.1.1/24 dev x1");
    fabric.host(1).ip("address add 10.3.1.2/24 dev eth1");
    fabric.host(1).sysctls(&[("net/ipv4/conf/eth1/rp_filter", rp_filter)]);
    let tor = fabric.speaker(1, "plain");
    let side = Speaker::start(&fabric.lab, &fabric.router, "10.3.1.1", "plain");
    let service = fabric.service(1);
    let more = format!("[bgp.peer.side]\naddress = \"10.3.1.1\"\nasn = 65000\n{more}");
    let agent = fabric.agent_with(1, &agent_config_with(1, &format!("\"{VIP4}\""), &more));
    TwoUplinks { agent, _side: side, _tor: tor, _service: service, fabric }
}

fn reason_towards_side(status: &serde_json::Value) -> String {
    let peers = vip(status, VIP4)["peers"].as_array().unwrap();
    let side = peers.iter().find(|peer| peer["name"] == "side").unwrap();
    side["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_router_whose_traffic_would_be_dropped_is_not_told_until_that_is_cured() {
    if !possible() {
        return;
    }
    let host = start("1", "");
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_status("ReturnPath", |status| reason_towards_side(status) == "ReturnPath");
    let text = host.agent.run("explain", &["web"]);
    assert!(text.contains("rp_filter"), "the cure is named:\n{text}");
    host.fabric.host(1).sysctls(&[("net/ipv4/conf/eth1/rp_filter", "2")]);
    host.agent.wait_advertised(VIP4, "side");
}

#[test]
fn a_route_back_opens_the_gate_too() {
    if !possible() {
        return;
    }
    let host = start("1", "");
    host.agent.wait_status("ReturnPath", |status| reason_towards_side(status) == "ReturnPath");
    host.fabric.host(1).ip("route replace default nexthop via 10.1.1.1 nexthop via 10.3.1.1");
    host.agent.wait_advertised(VIP4, "side");
}

#[test]
fn a_loose_filter_closes_nothing() {
    if !possible() {
        return;
    }
    let host = start("2", "");
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP4, "side");
}

#[test]
fn warn_only_warns() {
    if !possible() {
        return;
    }
    let host = start("1", "[host]\nreturn_path = \"warn\"\n");
    let status = host.agent.wait_advertised(VIP4, "side");
    let warnings = status["warnings"].as_array().unwrap();
    assert!(
        warnings.iter().any(|warning| warning["text"].as_str().unwrap_or_default().contains("rp_filter")),
        "{warnings:?}"
    );
}
