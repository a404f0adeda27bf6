//! Reload: only what changed is sent, sessions stay, and a bad file changes nothing.

use std::time::Duration;

use anyvip_tests::{LONG, VIP4, agent_config_with, peer_state, wait_until};
use nix::sys::signal::Signal;

use crate::{Host, Told, possible, told};

const OTHER: &str = "198.51.100.2";

fn config(vips: &[&str]) -> String {
    let list: Vec<String> = vips.iter().map(|vip| format!("\"{vip}\"")).collect();
    agent_config_with(1, &list.join(", "), "")
}

/// How long the session with the router has lasted.
fn lasted(host: &Host) -> Duration {
    let (state, lasted) = peer_state(&host.agent.status(), "tor");
    assert_eq!(state, "Established");
    lasted
}

#[test]
fn a_reload_sends_only_what_changed_and_keeps_the_session() {
    if !possible() {
        return;
    }
    let host = Host::with(&config(&[VIP4]));
    host.wait_told(1);
    let before = lasted(&host);
    host.agent.files.write_config(&config(&[VIP4, OTHER]));
    host.agent.run("reload", &[]);
    host.wait_told(2);
    assert!(lasted(&host) > before);
    host.agent.files.write_config(&config(&[VIP4]));
    host.agent.run("reload", &[]);
    host.wait_withdrawn(2);
    assert_eq!(told(&host.router), [Told::Announced(1), Told::Announced(2), Told::Withdrawn(2)]);
    assert_eq!(host.router.count("accepted"), 1, "one session all the time");
    wait_until(LONG, || match host.fabric.lab.address(host.fabric.host(1), OTHER) {
        None => Ok(()),
        Some(_) => Err("an address of no service is still there".to_owned()),
    });
}

#[test]
fn a_new_vip_is_there_before_the_old_one_goes() {
    if !possible() {
        return;
    }
    let host = Host::with(&config(&[VIP4]));
    host.wait_told(1);
    let monitor = host.fabric.monitor(host.fabric.host(1));
    host.agent.files.write_config(&config(&[OTHER]));
    host.agent.process_signal(Signal::SIGHUP);
    host.wait_withdrawn(1);
    host.wait_told(2);
    let text = wait_until(LONG, || {
        let text = monitor.output();
        let gone = text.lines().any(|line| line.starts_with("Deleted") && line.contains(VIP4));
        if gone { Ok(text) } else { Err(text) }
    });
    let added = text.find(OTHER).expect("the new address was added");
    let gone = text.find(VIP4).expect("the old one was deleted");
    assert!(added < gone, "{text}");
    assert_eq!(host.router.count("accepted"), 1);
}

#[test]
fn a_file_with_errors_is_refused_whole_and_the_running_configuration_stays() {
    if !possible() {
        return;
    }
    let host = Host::with(&config(&[VIP4]));
    host.wait_told(1);
    host.agent.files.write_config(&config(&[OTHER]).replace("asn = 65000", "asn = \"many\"\ncolour = 3"));
    let output = host.agent.command("reload", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("bgp.peer.tor.asn") && text.contains("colour"), "all errors at once:\n{text}");
    assert!(text.contains("config.toml:"), "with their places:\n{text}");
    // The same by signal: nobody to answer, so it is in the log.
    host.agent.process_signal(Signal::SIGHUP);
    wait_until(LONG, || {
        let log = host.agent.log();
        if log.contains("colour") { Ok(()) } else { Err(log) }
    });
    let status = host.agent.status();
    assert!(anyvip_tests::advertised(&status, VIP4, "tor"), "{status:#}");
    assert_eq!(told(&host.router), [Told::Announced(1)]);
    assert_eq!(host.router.count("accepted"), 1);
}

#[test]
fn an_edited_check_never_makes_a_live_service_unknown() {
    if !possible() {
        return;
    }
    let host = Host::with(&config(&[VIP4]));
    host.wait_told(1);
    // Slow enough that the edited check has not decided anything when we look.
    let edited = config(&[VIP4])
        .replace("path = \"/\"", "path = \"/other\"")
        .replace("interval = \"300ms\"", "interval = \"60s\"\nrise = 50");
    host.agent.files.write_config(&edited);
    host.agent.run("reload", &[]);
    let status = host.agent.status();
    assert_eq!(status["services"][0]["health"], "up", "{status:#}");
    assert!(anyvip_tests::advertised(&status, VIP4, "tor"));
    // An added one inherits too.
    let added = edited.clone() + "[[service.web.check]]\ntcp = { port = 8080 }\nrise = 50\n";
    host.agent.files.write_config(&added);
    host.agent.run("reload", &[]);
    let status = host.agent.status();
    assert_eq!(status["services"][0]["health"], "up", "{status:#}");
    assert_eq!(told(&host.router), [Told::Announced(1)]);
}

#[test]
fn an_added_check_that_fails_takes_the_service_down() {
    if !possible() {
        return;
    }
    let host = Host::with(&config(&[VIP4]));
    host.wait_told(1);
    let added = config(&[VIP4]) + "[[service.web.check]]\ntcp = { port = 9 }\ninterval = \"200ms\"\n";
    host.agent.files.write_config(&added);
    host.agent.run("reload", &[]);
    host.wait_withdrawn(1);
    host.agent.wait_reason(VIP4, "Unhealthy");
}

#[test]
fn a_changed_attribute_is_one_update_without_a_withdrawal() {
    if !possible() {
        return;
    }
    let host = Host::with(&config(&[VIP4]));
    host.wait_told(1);
    host.agent.files.write_config(&(config(&[VIP4]) + "[service.web.announce]\nmed = 50\n"));
    host.agent.run("reload", &[]);
    wait_until(LONG, || {
        let told = told(&host.router);
        if told.len() > 1 { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(told(&host.router), [Told::Announced(1), Told::Announced(1)]);
    assert_eq!(host.router.count("accepted"), 1);
}

#[test]
fn only_the_changed_peer_loses_its_session() {
    if !possible() {
        return;
    }
    let two = |hold: &str| {
        config(&[VIP4]).replace(
            "[check.web]",
            &format!(
                "[bgp.peer.other]\naddress = \"10.1.1.3\"\nasn = 65000\nhold_time = \"{hold}\"\n[check.web]"
            ),
        )
    };
    let fabric = anyvip_tests::Fabric::new(anyvip_tests::binaries!(), 1);
    fabric.router.ip("address add 10.1.1.3/24 dev h1");
    let tor = fabric.speaker(1, "plain");
    let other = anyvip_tests::Speaker::start(&fabric.lab, &fabric.router, "10.1.1.3", "plain");
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &two("30s"));
    agent.wait_advertised(VIP4, "tor");
    agent.wait_advertised(VIP4, "other");
    agent.files.write_config(&two("60s"));
    agent.run("reload", &[]);
    wait_until(LONG, || if other.count("accepted") == 2 { Ok(()) } else { Err("no new session".to_owned()) });
    agent.wait_advertised(VIP4, "other");
    // A planned end is a Cease, never an error.
    let ends = other.lines("notification ");
    assert!(ends.iter().all(|line| line.starts_with("notification 06")), "{ends:?}");
    assert_eq!(tor.count("accepted"), 1);
    assert_eq!(told(&tor), [Told::Announced(1)]);
}
