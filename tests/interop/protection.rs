//! How TCP is made and guarded: TCP MD5, GTSM, source address.

use anyvip_tests::{
    Agent, AgentFiles, Fabric, LONG, VIP4, agent_config_with, binaries, peer_state, wait_until,
};

use crate::router::{Manner, Router};

const KEY: &str = "fish-and-chips";

fn last_error(status: &serde_json::Value, peer: &str) -> String {
    let peers = status["peers"].as_array().expect("peers");
    let peer = peers.iter().find(|entry| entry["name"] == peer).expect("this peer");
    peer["last_error"].as_str().unwrap_or_default().to_owned()
}

/// Sessions over IPv4 (`tor`) and IPv6 (`tor6`) with further lines for each.
fn two_sessions(four: &str, six: &str) -> String {
    let config = agent_config_with(1, &format!("\"{VIP4}\""), "");
    let six = format!("[bgp.peer.tor6]\naddress = \"fd00:1:1::1\"\nasn = 65000\n{six}\n[check.web]\n");
    config.replace("asn = 65000\n", &format!("asn = 65000\n{four}\n")).replace("[check.web]\n", &six)
}

fn both_up(agent: &Agent) {
    agent.wait_status("both sessions", |status| {
        ["tor", "tor6"].iter().all(|peer| peer_state(status, peer).0 == "Established")
    });
}

pub(crate) fn a_key_of_tcp_md5_guards_the_session<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let router = R::start(&fabric.lab, &fabric.router, &Manner { key: Some(KEY), ..Manner::default() });
    let _service = fabric.service(1);
    let scratch = fabric.lab.scratch();
    let (four, six) =
        (scratch.write("h1/four.key", "wrong\n"), scratch.write("h1/six.key", &format!("{KEY}\n")));
    let line = |file: &std::path::Path| format!("password_file = \"{}\"", file.display());
    let files = AgentFiles::new(&fabric.lab, "h1", &two_sessions(&line(&four), &line(&six)));
    let agent = Agent::start(&fabric.lab, fabric.host(1), files);

    agent.wait_status("the wrong key is suspected", |status| {
        last_error(status, "tor").contains("TCP MD5 is on, and a wrong or missing key")
            && peer_state(status, "tor6").0 == "Established"
    });
    std::fs::write(&four, format!("{KEY}\n")).unwrap();
    agent.run("reload", &[]);
    both_up(&agent);

    // A key that changes on one side ends that session only, and no other notices.
    std::fs::write(&four, "other\n").unwrap();
    agent.run("reload", &[]);
    agent.wait_status("one session lost", |status| peer_state(status, "tor").0 != "Established");
    router.forgive();
    std::fs::write(&four, KEY).unwrap();
    agent.run("reload", &[]);
    both_up(&agent);
    let events = agent.run("events", &[]);
    let of_six = events.lines().filter(|line| line.contains("tor6: the BGP session ended")).count();
    assert_eq!(of_six, 0, "{events}");

    for (what, text) in [
        ("the log", agent.log()),
        ("status", agent.run("status", &["--json"])),
        ("events", agent.run("events", &["--json"])),
        ("--show", agent.run("validate", &["--show"])),
    ] {
        assert!(!text.contains(KEY) && !text.contains("wrong\n"), "the key is in {what}: {text}");
    }
}

/// GTSM at the router; then the router's packets come with a low TTL.
pub(crate) fn gtsm_is_held_at_both_ends<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let config = |line: &str| {
        let config = agent_config_with(1, &format!("\"{VIP4}\""), "");
        config.replace("asn = 65000\n", &format!("asn = 65000\n{line}\n"))
    };
    let _service = fabric.service(1);
    let mut router =
        R::start(&fabric.lab, &fabric.router, &Manner { ttl_security: true, ..Manner::default() });
    let agent = fabric.agent_with(1, &config("ttl_security = 1"));
    agent.wait_advertised(VIP4, "tor");
    wait_until(LONG, || match router.next_hops(&fabric, VIP4).as_slice() {
        [hop] if hop == "10.1.1.2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    router.stop();
    drop(router);
    let far = "add table ip far; add chain ip far out { type filter hook output priority 0; }; \
               add rule ip far out tcp sport 179 ip ttl set 5";
    fabric.router.run("nft", &[far]);
    let router = R::start(&fabric.lab, &fabric.router, &Manner::default());
    agent.wait_status("a low TTL is suspected", |status| {
        last_error(status, "tor").contains("ttl_security is on, and a peer whose packets come with a low TTL")
    });
    agent.files.write_config(&config(""));
    agent.run("reload", &[]);
    router.forgive();
    agent.wait_advertised(VIP4, "tor");
}

pub(crate) fn the_session_comes_from_the_address_that_is_named<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let router = R::start(&fabric.lab, &fabric.router, &Manner::default());
    let _service = fabric.service(1);
    let config = agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65000\n", "asn = 65000\nsource_address = \"10.1.1.9\"\n");
    let agent = fabric.agent_with(1, &config);
    agent.wait_status("an address that is missing", |status| {
        last_error(status, "tor").contains("10.1.1.9 is no address of this host")
    });
    fabric.host(1).ip("address add 10.1.1.9/24 dev eth0");
    wait_until(LONG, || match router.next_hops(&fabric, VIP4).as_slice() {
        [hop] if hop == "10.1.1.9" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
