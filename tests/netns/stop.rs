//! Ends, orderly and other, and what the next start makes of them.

use anyvip_tests::{Agent, AgentFiles, LONG, VIP4, agent_config, peer_state, reason, wait_until};
use nix::sys::signal::Signal;

use crate::{Host, Told, possible, told};

#[test]
fn sigterm_withdraws_then_ceases_and_exits_0() {
    if !possible() {
        return;
    }
    let mut host = Host::with(&(agent_config(1) + "[host]\nstop_time = \"1s\"\n"));
    host.wait_told(1);
    assert_eq!(host.agent.terminate(), Some(0));
    host.router.wait_for("closed");
    // RFC 4486: Cease (6), Administrative Shutdown (2).
    let output = host.router.process.output();
    let withdrawn = output.find("update 0005" /* one /32 */).expect("a withdrawal");
    let cease = output.find("notification 0602").unwrap_or_else(|| panic!("no Cease:\n{output}"));
    assert!(withdrawn < cease, "withdrawn first:\n{output}");
    assert_eq!(told(&host.router).last(), Some(&Told::Withdrawn(1)));
}

#[test]
fn a_second_sigterm_skips_the_wait() {
    if !possible() {
        return;
    }
    let mut host = Host::with(&(agent_config(1) + "[host]\nstop_time = \"290s\"\n"));
    host.wait_told(1);
    host.agent.process.signal(Signal::SIGTERM);
    host.wait_withdrawn(1);
    assert_eq!(host.agent.process.ended(), None, "it waits for its stop time");
    // Far sooner than the stop time.
    assert_eq!(host.agent.terminate(), Some(0));
    host.router.wait_for("notification 0602");
}

#[test]
fn a_stop_that_removes_vips_withdraws_first_and_takes_the_guard_off_last() {
    if !possible() {
        return;
    }
    let mut host = Host::with(&(agent_config(1) + "[host]\nstop_time = \"1s\"\nstop_removes_vip = true\n"));
    host.wait_told(1);
    let namespace = host.fabric.host(1).clone();
    let monitor = host.fabric.monitor(&namespace);
    host.agent.process.signal(Signal::SIGTERM);
    host.wait_withdrawn(1);
    let gone = |text: &str| text.lines().any(|line| line.starts_with("Deleted") && line.contains(VIP4));
    assert!(!gone(&monitor.output()), "the address stays while routers still act on the withdrawal");
    assert_eq!(host.agent.process.wait(LONG).code(), Some(0));
    wait_until(LONG, || if gone(&monitor.output()) { Ok(()) } else { Err(monitor.output()) });
    assert_eq!(namespace.sysctl("net/ipv4/conf/eth0/arp_ignore"), "0");
    assert_eq!(namespace.sysctl("net/ipv4/conf/eth0/arp_announce"), "0");
}

#[test]
fn a_second_agent_in_the_same_namespace_is_refused_and_harms_nothing() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.wait_told(1);
    // Files of its own: it is the namespace that they would share.
    let files = AgentFiles::new(&host.fabric.lab, "second", &agent_config(1));
    let mut second = Agent::launch(&host.fabric.lab, host.fabric.host(1), files);
    assert_eq!(second.process.wait(LONG).code(), Some(4), "{}", second.log());
    let status = host.agent.status();
    assert_eq!(peer_state(&status, "tor").0, "Established");
    assert_eq!(host.router.count("accepted"), 1);
}

#[test]
fn a_second_agent_with_the_same_files_is_refused_too() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.wait_told(1);
    let mut second = Agent::launch(&host.fabric.lab, host.fabric.host(1), host.agent.files.clone());
    assert_eq!(second.process.wait(LONG).code(), Some(4), "{}", second.log());
    // The first one still owns the socket.
    assert_eq!(peer_state(&host.agent.status(), "tor").0, "Established");
}

#[test]
fn after_three_unclean_ends_announcing_waits() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.wait_told(1);
    let state = host.agent.files.state().join("state.json");
    for _ in 0..3 {
        host.agent.kill();
        let before = std::fs::read(&state).unwrap();
        host.restart();
        // A life counts once it is on disk, which may take longer than it takes to be killed.
        wait_until(LONG, || {
            let written = std::fs::read(&state).is_ok_and(|now| now != before);
            if written { Ok(()) } else { Err("this life is not in state.json".to_owned()) }
        });
    }
    let status = host.agent.status();
    assert_eq!(reason(&status, VIP4), "CrashLoop", "{status:#}");
    // And then it does announce.
    host.agent.wait_advertised(VIP4, "tor");
}

#[test]
fn an_orderly_stop_is_not_counted_as_a_crash() {
    if !possible() {
        return;
    }
    let mut host = Host::with(&(agent_config(1) + "[host]\nstop_time = \"0s\"\n"));
    for _ in 0..4 {
        host.agent.wait_advertised(VIP4, "tor");
        assert_eq!(host.agent.terminate(), Some(0));
        host.restart();
        assert_ne!(reason(&host.agent.status(), VIP4), "CrashLoop");
    }
}

#[test]
fn a_state_that_cannot_be_read_withholds_everything() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.wait_told(1);
    host.agent.terminate();
    let before = told(&host.router).len();
    std::fs::write(host.agent.files.state().join("state.json"), "{ \"version\": 1, \"drai").unwrap();
    host.restart();
    host.agent.wait_reason(VIP4, "StateUnreadable");
    host.agent.wait_status("a session", |status| status["peers"][0]["state"] == "Established");
    assert_eq!(told(&host.router).len(), before, "nothing was announced");
}
