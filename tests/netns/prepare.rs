//! `prepare` and `cleanup`: addresses and guard without the daemon.

use anyvip_tests::{AgentFiles, Fabric, Service, VIP4, VIP6, agent_config, binaries, vip};

use crate::possible;

#[test]
fn prepare_sets_guard_and_vips_and_the_daemon_takes_them_over() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let host = fabric.host(1);
    let files = AgentFiles::new(&fabric.lab, "h1", &agent_config(1));
    let output = files.command(host, "prepare", &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fabric.lab.address(host, VIP4).unwrap()["proto"], 201);
    assert_eq!(fabric.lab.address(host, VIP6).unwrap()["proto"], 201);
    assert_eq!(host.sysctl("net/ipv4/conf/eth0/arp_ignore"), "1");
    assert_eq!(host.sysctl("net/ipv4/conf/eth0/arp_announce"), "2");
    // A service that binds the address can start now, before the agent.
    let _service = Service::start(&fabric.lab, host, "h1", 8080);
    let _router = fabric.speaker(1, "plain");
    let agent = fabric.agent(1);
    let status = agent.wait_advertised(VIP4, "tor");
    assert_eq!(vip(&status, VIP4)["owned"], true);
}

#[test]
fn prepare_twice_changes_nothing_and_cleanup_undoes_both() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let host = fabric.host(1);
    let files = AgentFiles::new(&fabric.lab, "h1", &agent_config(1));
    assert_eq!(files.command(host, "prepare", &[]).status.code(), Some(0));
    let monitor = fabric.monitor(host);
    assert_eq!(files.command(host, "prepare", &[]).status.code(), Some(0));
    assert!(!monitor.output().contains(VIP4), "{}", monitor.output());
    let output = files.command(host, "cleanup", &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fabric.lab.address(host, VIP4), None);
    assert_eq!(fabric.lab.address(host, VIP6), None);
    assert_eq!(host.sysctl("net/ipv4/conf/eth0/arp_ignore"), "0", "the first prepare's values are kept");
    assert_eq!(host.sysctl("net/ipv4/conf/eth0/arp_announce"), "0");
}

#[test]
fn cleanup_beside_a_running_agent_is_refused() {
    if !possible() {
        return;
    }
    let host = crate::Host::new();
    host.wait_told(1);
    let output = host.agent.command("cleanup", &[]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(host.fabric.lab.address(host.fabric.host(1), VIP4).is_some());
}
