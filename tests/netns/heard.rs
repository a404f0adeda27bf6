//! What peers tell us: counted, dropped, shown, and installed only where that is asked for.

use anyvip_tests::{
    Agent, AgentFiles, Fabric, LONG, Namespace, Need, Speaker, VIP4, agent_config_with, binaries, met, vip,
    wait_until,
};

/// A second router on host 1's link, at 10.1.1.3.
fn with_two_routers() -> Fabric {
    let fabric = Fabric::new(binaries!(), 1);
    fabric.router.ip("address add 10.1.1.3/24 dev h1");
    fabric
}

fn config(bgp: &str) -> String {
    agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65001\n", &format!("asn = 65001\n{bgp}\n"))
        .replace("[check.web]\n", "[bgp.peer.tor2]\naddress = \"10.1.1.3\"\nasn = 65000\n[check.web]\n")
}

fn both_up(agent: &Agent) {
    agent.wait_status("both sessions", |status| {
        status["peers"].as_array().unwrap().iter().all(|peer| peer["state"] == "Established")
    });
}

/// Gateways of the default route of ours, sorted; and whether the host's own stands beside it.
fn defaults(host: &Namespace) -> (Vec<String>, bool) {
    let (mut ours, mut own) = (Vec::new(), false);
    for route in host.ip_json("-4 route show default") {
        if route["protocol"] != "201" {
            own = true;
            continue;
        }
        assert_eq!(route["metric"], 50);
        let several = route["nexthops"].as_array().cloned().unwrap_or_default();
        ours.extend(
            several.iter().chain([&route]).filter_map(|hop| hop["gateway"].as_str().map(str::to_owned)),
        );
    }
    ours.sort();
    (ours, own)
}

#[track_caller]
fn wait_defaults(host: &Namespace, gateways: &[&str]) {
    wait_until(LONG, || match defaults(host) {
        (ours, true) if ours == gateways => Ok(()),
        other => Err(format!("{other:?}, not {gateways:?}")),
    });
}

/// The size of a CI machine's patience; a table of a million takes the same memory, and longer.
const TABLE: u64 = 200_000;

#[test]
fn a_full_table_from_one_peer_costs_no_memory_and_nobody_else_anything() {
    if !met(&[Need::Root]) {
        return;
    }
    let fabric = with_two_routers();
    let quiet = Speaker::start(&fabric.lab, &fabric.router, "10.1.1.3", "plain");
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &config(""));
    agent.wait_advertised(VIP4, "tor2");
    let before = agent.process.resident();
    let loud = fabric.speaker(1, &format!("full-{TABLE}"));
    agent.wait_advertised(VIP4, "tor");
    loud.wait_for(&format!("told {TABLE}"));
    let status = agent.wait_status("all is heard", |status| status["peers"][0]["heard"]["prefixes"] == TABLE);
    assert_eq!(status["peers"][0]["heard"]["dropped"], TABLE);
    assert_eq!(vip(&status, VIP4)["peers"][0]["other_origins"], serde_json::Value::Null);
    let warning = &status["warnings"].as_array().unwrap()[0];
    assert_eq!(warning["code"], "heard-limit");
    assert!(warning["text"].as_str().unwrap().contains("tor has told 200000 prefixes"), "{warning}");
    let events = agent.run("events", &[]);
    assert!(events.contains("more than heard_limit = 10000"), "{events}");
    let grown = agent.process.resident().saturating_sub(before);
    println!("{TABLE} prefixes heard: {grown} kB more");
    assert!(grown < 4096, "{grown} kB more than before");
    for peer in status["peers"].as_array().unwrap() {
        assert_eq!((&peer["state"], &peer["sessions_lost"]), (&"Established".into(), &0.into()), "{peer}");
    }
    assert_eq!(quiet.count("notification") + loud.count("notification"), 0);
    assert_eq!(defaults(fabric.host(1)), (Vec::new(), true));
}

#[test]
fn default_routes_are_installed_only_on_request_and_go_with_their_sessions() {
    if !met(&[Need::Root]) {
        return;
    }
    let fabric = with_two_routers();
    let host = fabric.host(1).clone();
    host.ip("route replace default via 10.1.1.1 metric 100");
    host.ip("route del default via 10.1.1.1 metric 0");
    let mut first = fabric.speaker(1, "loud");
    let second = Speaker::start(&fabric.lab, &fabric.router, "10.1.1.3", "loud");
    let _service = fabric.service(1);
    let mut agent = fabric.agent_with(1, &config(""));
    both_up(&agent);
    // Heard is not used; but shown.
    agent.wait_status("the view", |status| {
        vip(status, VIP4)["peers"].as_array().unwrap().iter().all(|peer| peer["other_origins"] == 1)
    });
    assert_eq!(defaults(&host), (Vec::new(), true));

    agent.files.write_config(&config("install_default = true"));
    agent.run("reload", &[]);
    // The speakers do not answer when they are asked again, so it takes new sessions to hear it all.
    drop(first);
    first = fabric.speaker(1, "loud");
    wait_defaults(&host, &["10.1.1.1"]);
    drop(second);
    let second = Speaker::start(&fabric.lab, &fabric.router, "10.1.1.3", "loud");
    wait_defaults(&host, &["10.1.1.1", "10.1.1.3"]);
    drop(first);
    wait_defaults(&host, &["10.1.1.3"]);

    // A crash leaves it; the next life adopts it without a gap.
    agent.kill();
    let monitor = fabric.watch_routes(&host);
    agent = Agent::start(&fabric.lab, &host, agent.files.clone());
    agent.wait_status("the second session", |status| status["peers"][1]["state"] == "Established");
    wait_defaults(&host, &["10.1.1.3"]);
    assert!(!monitor.output().contains("Deleted default"), "{}", monitor.output());

    // What the operator does not want any more goes, and so does what a crash left, by cleanup.
    agent.kill();
    wait_defaults(&host, &["10.1.1.3"]);
    let files: AgentFiles = agent.files.clone();
    drop(agent);
    let output = files.command(&host, "cleanup", &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("removed the ipv4 default route"), "{output:?}");
    assert_eq!(defaults(&host), (Vec::new(), true));

    let mut agent = Agent::start(&fabric.lab, &host, files);
    wait_defaults(&host, &["10.1.1.3"]);
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(defaults(&host), (Vec::new(), true), "gone with the session, before the end");
    drop(second);
}

#[test]
fn a_better_default_route_of_somebody_else_is_named() {
    if !met(&[Need::Root]) {
        return;
    }
    let fabric = with_two_routers();
    let _first = fabric.speaker(1, "loud");
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &config("install_default = true"));
    wait_defaults(fabric.host(1), &["10.1.1.1"]);
    let status = agent.wait_status("a warning", |status| {
        let warnings = status["warnings"].as_array().unwrap();
        warnings.iter().any(|warning| warning["code"] == "default-shadowed")
    });
    assert!(status["warnings"].to_string().contains("with metric 0 is preferred"), "{status:#}");
}
