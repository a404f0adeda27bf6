//! The address itself: how it is put on `lo`, whose it is, and what happens when others touch it.

use anyvip_tests::{LONG, VIP4, VIP6, advertised, agent_config, agent_config_with, reason, vip, wait_until};

use crate::{Host, Told, possible, told};

/// RT_SCOPE_HOST
const SCOPE_HOST: u64 = 254;
/// The mark of anyvip's addresses, IFA_PROTO.
const PROTO: u64 = 201;

#[test]
fn a_vip_is_put_on_lo_so_that_nothing_but_its_service_uses_it() {
    if !possible() {
        return;
    }
    let host = Host::new();
    for (address, length) in [(VIP4, 32), (VIP6, 128)] {
        host.agent.wait_advertised(address, "tor");
        let seen = host.fabric.lab.address(host.fabric.host(1), address).unwrap();
        assert_eq!(seen["interface"], 1, "{address} is on lo: {seen}");
        assert_eq!(seen["prefix_len"], length, "{seen}");
        assert_eq!(seen["proto"], PROTO, "{seen}");
        assert_eq!(seen["deprecated"], true, "{seen}");
        assert_eq!(seen["noprefixroute"], true, "{seen}");
    }
    let seen = host.fabric.lab.address(host.fabric.host(1), VIP4).unwrap();
    assert_eq!(seen["scope"], SCOPE_HOST, "{seen}");
    let status = host.agent.status();
    assert_eq!(vip(&status, VIP4)["owned"], true);
    assert_eq!(vip(&status, VIP4)["arp_guarded"], true);
    assert!(vip(&status, VIP6)["arp_guarded"].is_null(), "IPv6 needs no guard");
}

#[test]
fn a_vip_never_becomes_a_source_address_even_on_a_host_that_has_no_other() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
    let namespace = host.fabric.host(1).clone();
    assert_eq!(namespace.ip_json("route get 10.9.0.2")[0]["prefsrc"], "10.1.1.2");
    assert_eq!(namespace.ip_json("-6 route get fd00:9::2")[0]["prefsrc"], "fd00:1:1::2");
    // A killed agent leaves the addresses. Without the host's own the kernel has only these to choose from.
    host.agent.kill();
    namespace.ip("address flush dev eth0 scope global");
    namespace.ip("route add default via 10.1.1.1 dev eth0 onlink");
    let chosen = namespace.ip_json("route get 10.9.0.2");
    assert!(host.fabric.lab.address(&namespace, VIP4).is_some(), "the address is still there");
    assert_ne!(chosen[0]["prefsrc"], VIP4, "{chosen:?}");
}

#[test]
fn an_address_of_somebody_else_is_announced_but_never_changed() {
    if !possible() {
        return;
    }
    let config = agent_config(1) + "[host]\nstop_removes_vip = true\nstop_time = \"0s\"\n";
    let mut host = Host::prepared(&config, |fabric| {
        fabric.host(1).ip(&format!("address add {VIP4}/32 dev lo"));
    });
    let lab = &host.fabric.lab;
    let before = lab.address(host.fabric.host(1), VIP4).unwrap();
    let status = host.agent.wait_advertised(VIP4, "tor");
    assert_eq!(vip(&status, VIP4)["present"], true);
    assert_eq!(vip(&status, VIP4)["owned"], false);
    host.agent.wait_advertised(VIP6, "tor");
    // Even a stop that removes addresses, and a cleanup, leave it.
    assert_eq!(host.agent.terminate(), Some(0));
    host.agent.run("cleanup", &[]);
    assert_eq!(lab.address(host.fabric.host(1), VIP4), Some(before));
    assert_eq!(lab.address(host.fabric.host(1), VIP6), None, "our own is gone");
}

#[test]
fn a_deleted_vip_is_put_back_at_once() {
    if !possible() {
        return;
    }
    let host = Host::new();
    for (address, length) in [(VIP4, 32), (VIP6, 128)] {
        host.agent.wait_advertised(address, "tor");
        host.fabric.host(1).ip(&format!("address del {address}/{length} dev lo"));
        let seen = wait_until(LONG, || {
            host.fabric.lab.address(host.fabric.host(1), address).ok_or("it is not back".to_owned())
        });
        assert_eq!(seen["proto"], PROTO);
        host.agent.wait_advertised(address, "tor");
    }
}

#[test]
fn a_vip_that_somebody_keeps_deleting_is_withheld_and_others_stay() {
    if !possible() {
        return;
    }
    let host = Host::with(&agent_config_with(1, &format!("\"{VIP4}\", \"198.51.100.2\""), ""));
    host.wait_told(1);
    host.wait_told(2);
    // Deletes whenever it is there, as another program that wants it away would; more than 5 a minute are too many.
    wait_until(LONG, || {
        if host.fabric.lab.address(host.fabric.host(1), VIP4).is_some() {
            host.fabric.host(1).ip(&format!("address del {VIP4}/32 dev lo"));
        }
        let status = host.agent.status();
        if reason(&status, VIP4) == "VipContested" { Ok(()) } else { Err(reason(&status, VIP4).to_owned()) }
    });
    assert_eq!(told(&host.router).last(), Some(&Told::Withdrawn(1)));
    assert!(!told(&host.router).contains(&Told::Withdrawn(2)), "the other address was not touched");
    assert!(advertised(&host.agent.status(), "198.51.100.2", "tor"));
}

#[test]
fn the_next_life_adopts_what_a_killed_one_left() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(VIP6, "tor");
    host.agent.kill();
    let monitor = host.fabric.monitor(host.fabric.host(1));
    host.restart();
    let status = host.agent.wait_advertised(VIP4, "tor");
    assert_eq!(vip(&status, VIP4)["owned"], true);
    assert_eq!(vip(&host.agent.wait_advertised(VIP6, "tor"), VIP6)["owned"], true);
    let seen = monitor.output();
    assert!(!seen.contains(VIP4) && !seen.contains(VIP6), "nothing was taken away or added:\n{seen}");
}
