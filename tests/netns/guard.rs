//! The ARP guard: a host must neither answer for a shared address nor ask in its name.

use anyvip_tests::{Fabric, LONG, Namespace, VIP4, VIP6, agent_config, wait_until};

use crate::{Host, possible};

/// `arp_ignore` and `arp_announce` of an interface.
fn arp(namespace: &Namespace, interface: &str) -> (String, String) {
    let read = |key: &str| namespace.sysctl(&format!("net/ipv4/conf/{interface}/{key}"));
    (read("arp_ignore"), read("arp_announce"))
}

fn pair(ignore: &str, announce: &str) -> (String, String) {
    (ignore.to_owned(), announce.to_owned())
}

#[track_caller]
fn wait_arp(namespace: &Namespace, interface: &str, ignore: &str, announce: &str) {
    wait_until(LONG, || {
        let seen = arp(namespace, interface);
        if seen == pair(ignore, announce) { Ok(()) } else { Err(format!("{interface} has {seen:?}")) }
    });
}

/// A second link of host 1 to the router; neither has a route over it beyond the link itself.
fn second_link(fabric: &Fabric) {
    fabric.lab.wire(&fabric.router, "x1", fabric.host(1), "eth1");
    fabric.router.ip("address add 10.3.1.1/24 dev x1");
    fabric.host(1).ip("address add 10.3.1.2/24 dev eth1");
}

#[test]
fn uplinks_are_guarded_and_nothing_else_is() {
    if !possible() {
        return;
    }
    let host = Host::prepared(&agent_config(1), second_link);
    host.agent.wait_advertised(VIP4, "tor");
    let namespace = host.fabric.host(1);
    assert_eq!(arp(namespace, "eth0"), pair("1", "2"));
    for other in ["eth1", "lo", "all", "default"] {
        assert_eq!(arp(namespace, other), pair("0", "0"), "{other}");
    }
}

#[test]
fn an_interface_that_becomes_an_uplink_is_guarded() {
    if !possible() {
        return;
    }
    let host = Host::prepared(&agent_config(1), second_link);
    host.agent.wait_advertised(VIP4, "tor");
    host.fabric.host(1).ip("route add default via 10.3.1.1 metric 500");
    wait_arp(host.fabric.host(1), "eth1", "1", "2");
}

#[test]
fn no_arp_frame_about_a_vip_leaves_a_guarded_uplink() {
    if !possible() || !anyvip_tests::met(&[anyvip_tests::Need::Program("tcpdump")]) {
        return;
    }
    let mut host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    let fabric = &host.fabric;
    let capture = fabric.capture(&fabric.router, "h1", "arp");
    // The router believes the address to be on the link and asks for it, as every station on a shared LAN would.
    let ask = |seen_asking: usize| {
        fabric.router.ip(&format!("route replace {VIP4}/32 dev h1"));
        fabric.router.ip("neigh flush dev h1");
        fabric.host(1).ip("neigh flush dev eth0");
        assert_eq!(fabric.answer(&fabric.router, VIP4).is_some(), seen_asking > 0);
        wait_until(LONG, || {
            let text = capture.output();
            let asked = text.matches(&format!("who-has {VIP4}")).count();
            if asked > seen_asking { Ok(text) } else { Err(text) }
        })
    };
    let seen = ask(0);
    assert!(!seen.contains(&format!("{VIP4} is-at")), "an answer for the address:\n{seen}");
    // The router knows the way by BGP and a client comes: the host must find its gateway without naming the VIP.
    fabric.router.ip(&format!("route replace {VIP4}/32 via 10.1.1.2"));
    fabric.host(1).ip("neigh flush dev eth0");
    assert_eq!(fabric.answer(&fabric.client, VIP4).as_deref(), Some("h1"));
    let seen = wait_until(LONG, || {
        let text = capture.output();
        if text.contains("who-has 10.1.1.1 tell") { Ok(text) } else { Err(text) }
    });
    assert!(!seen.contains(&format!("tell {VIP4}")), "a question in the address's name:\n{seen}");
    // The counter-check: without the guard the same host does answer, so silence meant something.
    host.agent.terminate();
    let namespace = host.fabric.host(1);
    namespace.sysctls(&[("net/ipv4/conf/eth0/arp_ignore", "0")]);
    let asked = capture.output().matches(&format!("who-has {VIP4}")).count();
    ask(asked);
    wait_until(LONG, || {
        let text = capture.output();
        if text.contains(&format!("{VIP4} is-at")) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn guard_and_vips_outlive_a_stop_and_cleanup_puts_back_what_was_before() {
    if !possible() {
        return;
    }
    let mut host = Host::prepared(&agent_config(1), |fabric| {
        fabric.host(1).sysctls(&[("net/ipv4/conf/eth0/arp_announce", "1")]);
    });
    host.agent.wait_advertised(VIP4, "tor");
    let namespace = host.fabric.host(1).clone();
    assert_eq!(arp(&namespace, "eth0"), pair("1", "2"));
    assert_eq!(host.agent.terminate(), Some(0));
    assert_eq!(arp(&namespace, "eth0"), pair("1", "2"), "the guard outlives the agent");
    assert!(host.fabric.lab.address(&namespace, VIP4).is_some(), "and so do the addresses");
    assert!(host.fabric.lab.address(&namespace, VIP6).is_some());
    host.agent.run("cleanup", &[]);
    assert_eq!(host.fabric.lab.address(&namespace, VIP4), None);
    assert_eq!(host.fabric.lab.address(&namespace, VIP6), None);
    assert_eq!(arp(&namespace, "eth0"), pair("0", "1"), "the values from before");
}

#[test]
fn a_guard_that_somebody_takes_away_is_put_back() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    host.fabric
        .host(1)
        .sysctls(&[("net/ipv4/conf/eth0/arp_ignore", "0"), ("net/ipv4/conf/eth0/arp_announce", "0")]);
    wait_arp(host.fabric.host(1), "eth0", "1", "2");
}

#[test]
fn a_named_uplink_that_is_not_there_is_warned_about_and_guarded_when_it_comes() {
    if !possible() {
        return;
    }
    let host = Host::with(&(agent_config(1) + "[host]\nuplinks = [\"eth0\", \"eth1\"]\n"));
    let status = host.agent.wait_advertised(VIP4, "tor");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("eth1"), "{warnings}");
    second_link(&host.fabric);
    wait_arp(host.fabric.host(1), "eth1", "1", "2");
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_status("no warning left", |status| !status["warnings"].to_string().contains("eth1"));
}

#[test]
fn a_host_that_would_be_cut_off_by_the_guard_is_left_alone() {
    if !possible() {
        return;
    }
    // Its own address sits on lo alone; neighbours find it because eth0 answers for whatever the host has.
    let host = Host::prepared(&agent_config(1), |fabric| {
        let namespace = fabric.host(1);
        namespace.ip("address flush dev eth0 scope global");
        namespace.ip("address add 10.1.1.2/32 dev lo");
        namespace.ip("route add default via 10.1.1.1 dev eth0 onlink");
    });
    host.agent.wait_reason(VIP4, "ArpGuardUnsafe");
    host.agent.wait_status("a session", |status| status["peers"][0]["state"] == "Established");
    assert_eq!(arp(host.fabric.host(1), "eth0"), pair("0", "0"));
    // With an address on the link there is nothing to fear.
    host.fabric.host(1).ip("address add 10.1.1.9/24 dev eth0");
    host.agent.wait_advertised(VIP4, "tor");
    assert_eq!(arp(host.fabric.host(1), "eth0"), pair("1", "2"));
}
