//! What carries a session: the way that it takes, and how long its messages may be.

use std::path::{Path, PathBuf};

use anyvip_tests::{Fabric, LONG, Process, VIP4, agent_config_with, binaries, peer_state, wait_until};

use crate::router::{Manner, Router, Tells, Told};

/// The host has two links to the router, and its routes prefer the first.
fn two_links() -> Fabric {
    let fabric = Fabric::new(binaries!(), 1);
    let (router, host) = (&fabric.router, fabric.host(1));
    fabric.lab.wire(router, "h9", host, "eth1");
    router.ip("address add 10.1.9.1/24 dev h9");
    host.ip("address add 10.1.9.2/24 dev eth1");
    host.ip("route add default via 10.1.9.1 metric 100");
    fabric
}

pub(crate) fn the_session_leaves_by_the_interface_that_is_named<R: Router>() {
    let fabric = two_links();
    let router = R::start(&fabric.lab, &fabric.router, &Manner::default());
    let _service = fabric.service(1);
    let config = |more: &str| {
        agent_config_with(1, &format!("\"{VIP4}\""), "")
            .replace("address = \"10.1.1.1\"", &format!("address = \"10.9.0.1\"{more}"))
    };
    let agent = fabric.agent_with(1, &config("\ninterface = \"eth1\""));
    let wait_hop = |wanted: &str| {
        wait_until(LONG, || match router.next_hops(&fabric, VIP4).as_slice() {
            [hop] if hop == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    wait_hop("10.1.9.2");
    agent.files.write_config(&config("\ninterface = \"eth1\"\nsource_address = \"10.1.9.2\""));
    agent.run("reload", &[]);
    wait_hop("10.1.9.2");
    agent.files.write_config(&config(""));
    agent.run("reload", &[]);
    wait_hop("10.1.1.2");
}

/// The router calls through the first link; the host expects it on the second.
pub(crate) fn a_router_that_calls_through_another_interface_is_not_heard<R: Router>() {
    let fabric = two_links();
    let router = R::start(&fabric.lab, &fabric.router, &Manner { calls: true, ..Manner::default() });
    let calls = fabric.capture(fabric.host(1), "eth0", "tcp src port 179");
    let _service = fabric.service(1);
    let config = |interface: &str| {
        agent_config_with(1, &format!("\"{VIP4}\""), "")
            .replace("asn = 65000", &format!("asn = 65000\npassive = true\ninterface = \"{interface}\""))
            .replace("[bgp]\n", "[bgp]\nlisten = \"0.0.0.0:179\"\n")
    };
    let agent = fabric.agent_with(1, &config("eth1"));
    // Taken by the kernel, and ended by us.
    wait_until(LONG, || {
        let text = calls.output();
        let ended = ["Flags [F", "Flags [R"].iter().any(|flags| text.contains(flags));
        if ended && text.contains("Flags [S.]") { Ok(()) } else { Err(text) }
    });
    let status = agent.wait_status("the call, and why it was not taken", |status| {
        status["turned_away"]["last"].as_str().is_some_and(|last| last.contains("came through eth0"))
    });
    assert_ne!(peer_state(&status, "tor").0, "Established");
    let text = agent.run("status", &[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("the peer with this address is on eth1"), "{text}");
    agent.files.write_config(&config("eth0"));
    agent.run("reload", &[]);
    router.forgive();
    agent.wait_advertised(VIP4, "tor");
}

/// With the TTL of 1 that external sessions have, packets end at the router between.
pub(crate) fn a_router_behind_another_one_is_reached<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let router = R::start(&fabric.lab, &fabric.client, &Manner { multihop: true, ..Manner::default() });
    let _service = fabric.service(1);
    let config = |line: &str| {
        agent_config_with(1, &format!("\"{VIP4}\""), "")
            .replace("address = \"10.1.1.1\"", "address = \"10.9.0.2\"")
            .replace("asn = 65000\n", &format!("asn = 65000\n{line}\n"))
    };
    let agent = fabric.agent_with(1, &config(""));
    agent.wait_status("nobody within one hop", |status| status["peers"][0]["last_error"].is_string());
    assert_ne!(peer_state(&agent.status(), "tor").0, "Established");
    agent.files.write_config(&config("ttl = 2"));
    agent.run("reload", &[]);
    router.forgive();
    agent.wait_advertised(VIP4, "tor");
    let path = R::words(&Told::Path(&[65001]));
    wait_until(LONG, || {
        let shown = router.shown(VIP4);
        if shown.contains(&path) { Ok(()) } else { Err(shown) }
    });
}

/// What this address sends from its port of BGP or to another's, as it was on the wire.
fn record(fabric: &Fabric, from: &str) -> (Process, PathBuf) {
    let file = fabric.lab.scratch().path().join(format!("{from}.pcap"));
    let mut command = fabric.host(1).command("tcpdump");
    command.args(["-U", "-n", "--immediate-mode", "-Z", "root", "-i", "eth0", "-w"]).arg(&file);
    command.args(["tcp", "port", "179", "and", "src", "host", from]);
    let log = fabric.lab.scratch().path().join(format!("{from}.log"));
    let process = Process::start("tcpdump", &mut command, &log);
    wait_until(
        LONG,
        || {
            if process.output().contains("listening on") { Ok(()) } else { Err(process.output()) }
        },
    );
    (process, file)
}

/// The length of the longest UPDATE that begins in a record.
fn longest_update(record: &Path) -> usize {
    let octets = std::fs::read(record).unwrap();
    let lengths = octets.windows(19).filter_map(|header| match header {
        [marker @ .., high, low, 2] if marker.iter().all(|octet| *octet == 0xff) => {
            Some(usize::from(u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    });
    lengths.max().unwrap_or(0)
}

/// A thousand routes each way: one message where it was agreed on, and none beyond 4096 octets where not.
pub(crate) fn long_messages_go_both_ways<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let vips: Vec<String> = (0..1000).map(|n| format!("\"198.18.{}.{}\"", n / 250, n % 250 + 1)).collect();
    let config = |more: &str| {
        let config =
            agent_config_with(1, &vips.join(", "), "").replace("checks = [\"web\"]", "checks = \"none\"");
        let check = config.find("[check.web]").unwrap()..config.find("[service.web]").unwrap();
        config.replace(&config[check], "").replace("asn = 65000\n", &format!("asn = 65000\n{more}\n"))
    };
    let agent = fabric.agent_with(1, &config("extended_messages = true"));
    agent.wait_status("all but the session", |status| {
        status["services"][0]["vips"].as_array().unwrap().iter().all(|vip| vip["wanted"] == true)
    });
    let both_ways = || ["10.1.1.2", "10.1.1.1"].map(|from| record(&fabric, from));
    // How much a router puts into one message is its own affair; what it sends must be read.
    let told = |records: &[(Process, PathBuf); 2], long: bool| {
        agent.wait_status("a thousand told", |status| {
            let peer = &status["peers"][0];
            let all = peer["advertised"].as_array().is_some_and(|told| told.len() == 1000);
            // FRR 8.4 tells nothing to who comes back before it has taken in that he left.
            let heard = peer["heard"]["prefixes"].as_u64() >= Some(1000);
            all && heard && peer["extended_messages"] == long
        });
        let [(_, ours), (_, theirs)] = records;
        wait_until(LONG, || match longest_update(ours) {
            length @ 4097.. if long => Ok(length),
            length @ 2000..=4096 if !long => Ok(length),
            other => Err(format!("{}: {other} octets", ours.display())),
        });
        assert!(long || longest_update(theirs) <= 4096);
    };
    let records = both_ways();
    let manner = Manner { extended_messages: true, tells: Tells::Thousand, ..Manner::default() };
    let router = R::start(&fabric.lab, &fabric.router, &manner);
    told(&records, true);
    wait_until(LONG, || match router.next_hops(&fabric, "198.18.3.250").as_slice() {
        [hop] if hop == "10.1.1.2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(records);
    let records = both_ways();
    agent.files.write_config(&config(""));
    agent.run("reload", &[]);
    router.forgive();
    told(&records, false);
}
