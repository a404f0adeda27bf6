//! What operators ask for, and what they are told.

use anyvip_tests::{AgentFiles, Fabric, Service, Speaker, VIP4, agent_config, binaries};

use crate::{Host, Told, possible, told};

#[test]
fn a_drained_service_stays_drained_over_restart_and_crash() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.wait_told(1);
    host.agent.run("drain", &["web", "--reason", "new disks"]);
    host.wait_withdrawn(1);
    let heard = told(&host.router);
    for crash in [false, true] {
        if crash {
            host.agent.kill();
        } else {
            host.agent.terminate();
        }
        host.restart();
        let status = host.agent.wait_reason(VIP4, "Drained");
        assert_eq!(status["services"][0]["admin"], "drained");
        assert_eq!(status["services"][0]["drain"]["reason"], "new disks");
        host.agent.wait_status("up and connected", |status| {
            status["services"][0]["health"] == "up" && status["peers"][0]["state"] == "Established"
        });
    }
    assert_eq!(told(&host.router), heard, "it was never announced again");
    host.agent.run("undrain", &["web"]);
    host.agent.wait_advertised(VIP4, "tor");
    assert_eq!(told(&host.router).last(), Some(&Told::Announced(1)));
}

#[test]
fn drain_without_a_daemon_is_written_down_for_the_next_start() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let files = AgentFiles::new(&fabric.lab, "h1", &agent_config(1));
    let output = files.command(fabric.host(1), "drain", &["web"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert!(!said.is_empty(), "it says that there is no daemon");
    let router = fabric.speaker(1, "plain");
    let _service = fabric.service(1);
    let agent = fabric.agent(1);
    agent.wait_reason(VIP4, "Drained");
    agent.wait_status("a session", |status| status["peers"][0]["state"] == "Established");
    assert_eq!(told(&router), []);
}

#[test]
fn a_drain_of_everything_and_of_nothing() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.wait_told(1);
    let output = host.agent.command("drain", &["wep"]);
    assert_eq!(output.status.code(), Some(1), "no such service: {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("wep"));
    host.agent.run("drain", &["--all"]);
    host.agent.wait_reason(VIP4, "Drained");
    host.agent.run("undrain", &["--all"]);
    host.agent.wait_advertised(VIP4, "tor");
}

#[test]
fn explain_names_the_closed_gate_and_what_would_open_it() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.wait_told(1);
    host.service.process.kill();
    host.agent.wait_reason(VIP4, "Unhealthy");
    let text = host.agent.run("explain", &["web", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vips = answer["vips"].as_array().unwrap();
    let vip = vips.iter().find(|vip| vip["address"] == VIP4).unwrap();
    let closed: Vec<_> =
        vip["gates"].as_array().unwrap().iter().filter(|gate| gate["open"] == false).collect();
    assert_eq!(closed.len(), 1, "{text}");
    assert_eq!(closed[0]["gate"], "Unhealthy");
    assert!(closed[0]["remedy"].is_string(), "{text}");
    let people = host.agent.run("explain", &["web"]);
    assert!(people.contains("Unhealthy") || people.to_lowercase().contains("refused"), "{people}");
    assert_eq!(host.agent.command("explain", &["nothing"]).status.code(), Some(1));
}

#[test]
fn events_tell_the_story_in_order() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.wait_told(1);
    host.service.process.kill();
    host.wait_withdrawn(1);
    host.agent.run("drain", &["web"]);
    let text = host.agent.run("events", &["--json"]);
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |what: &str, is: &dyn Fn(&serde_json::Value) -> bool| {
        events.iter().position(is).unwrap_or_else(|| panic!("{what} is not in:\n{text}"))
    };
    let of_vip = |event: &serde_json::Value| event["vip"] == VIP4;
    let story = [
        at("guarded", &|event| event["kind"] == "arp_changed" && event["to"] == "guarded"),
        at("in place", &|event| event["kind"] == "vip_changed" && of_vip(event)),
        at("up", &|event| event["kind"] == "check_changed" && of_vip(event) && event["to"] == "up"),
        at("announced", &|event| {
            event["kind"] == "verdict_changed" && of_vip(event) && event["to"] == "announced"
        }),
        at("down", &|event| event["kind"] == "check_changed" && of_vip(event) && event["to"] == "down"),
        at("unhealthy", &|event| of_vip(event) && event["reason"] == "Unhealthy"),
        at("drained", &|event| event["kind"] == "admin_changed" && event["to"] == "drained"),
    ];
    assert!(story.is_sorted(), "{story:?} in:\n{text}");
    let people = host.agent.run("events", &[]);
    assert!(
        people.contains("the BGP session is up") && people.contains("drained by an operator"),
        "{people}"
    );
}

#[test]
fn status_check_tells_a_script_how_it_stands() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    host.agent.wait_advertised(anyvip_tests::VIP6, "tor");
    assert_eq!(host.agent.command("status", &["--check"]).status.code(), Some(0));
    host.service.process.kill();
    host.wait_withdrawn(1);
    host.agent.wait_reason(anyvip_tests::VIP6, "Unhealthy");
    assert_eq!(host.agent.command("status", &["--check"]).status.code(), Some(2), "nothing is announced");
    host.agent.kill();
    assert_eq!(host.agent.command("status", &["--check"]).status.code(), Some(3), "there is no daemon");
}

#[test]
fn a_vip_that_is_healthy_is_announced_while_another_of_the_same_service_is_not() {
    if !possible() {
        return;
    }
    let config = format!(
        r#"config_version = 1
router_id = "10.1.1.2"
[bgp]
asn = 65001
peer.tor = {{ address = "10.1.1.1", asn = 65000 }}
[service.web]
vips = ["{VIP4}", "198.51.100.2"]
[[service.web.check]]
tcp = {{ port = 8080 }}
interval = "300ms"
timeout = "300ms"
"#
    );
    let fabric = Fabric::new(binaries!(), 1);
    let router: Speaker = fabric.speaker(1, "plain");
    let service: Service = fabric.service(1);
    let agent = fabric.agent_with(1, &config);
    agent.wait_advertised(VIP4, "tor");
    agent.wait_advertised("198.51.100.2", "tor");
    // A packet filter in front of one of the addresses.
    fabric.host(1).run("nft", &["add", "table", "inet", "t"]);
    fabric.host(1).run("nft", &["add chain inet t in { type filter hook input priority 0; }"]);
    fabric.host(1).run("nft", &["add rule inet t in ip daddr 198.51.100.2 tcp dport 8080 drop"]);
    agent.wait_reason("198.51.100.2", "Unhealthy");
    anyvip_tests::wait_until(anyvip_tests::LONG, || {
        if told(&router).contains(&Told::Withdrawn(2)) { Ok(()) } else { Err(format!("{:?}", told(&router))) }
    });
    assert!(!told(&router).contains(&Told::Withdrawn(1)));
    drop(service);
}
