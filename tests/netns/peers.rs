//! Routers that misbehave: the agent stays calm, and other peers notice nothing.

use std::thread;
use std::time::{Duration, Instant};

use anyvip_tests::{
    Agent, Fabric, LONG, Process, Service, Speaker, VIP4, VIP6, agent_config, agent_config_with, binaries,
    peer_state, vip, wait_until,
};
use nix::sys::signal::Signal;

use crate::{Host, Told, possible, told};

/// Host 1 with a good router `tor` and one of this manner, `odd`. The parts are to be dropped from the last to the first.
pub(crate) fn beside(manner: &str) -> (Fabric, Speaker, Speaker, Service, Agent) {
    let more = "[bgp.peer.odd]\naddress = \"10.1.1.3\"\nasn = 65000\n";
    beside_with(manner, &agent_config_with(1, &format!("\"{VIP4}\""), more), |_| {})
}

/// The same with a configuration of its own, on a host that was changed before the agent starts.
pub(crate) fn beside_with(
    manner: &str,
    config: &str,
    change: impl FnOnce(&Fabric),
) -> (Fabric, Speaker, Speaker, Service, Agent) {
    let fabric = Fabric::new(binaries!(), 1);
    change(&fabric);
    fabric.router.ip("address add 10.1.1.3/24 dev h1");
    let good = fabric.speaker(1, "plain");
    let odd = Speaker::start(&fabric.lab, &fabric.router, "10.1.1.3", manner);
    let service = fabric.service(1);
    let agent = fabric.agent_with(1, config);
    agent.wait_advertised(VIP4, "tor");
    (fabric, odd, good, service, agent)
}

/// Watches a process for some time: it may use a fraction of a core and must not grow.
#[track_caller]
pub(crate) fn assert_calm(process: &Process, enough: impl Fn() -> bool) {
    let (cpu, resident, start) = (process.cpu_time(), process.resident(), Instant::now());
    wait_until(LONG, || {
        let long_enough = start.elapsed() > Duration::from_secs(4) && enough();
        if long_enough { Ok(()) } else { Err("not enough has happened".to_owned()) }
    });
    let used = process.cpu_time() - cpu;
    assert!(used < start.elapsed() / 10, "{used:?} of CPU time in {:?}", start.elapsed());
    assert_bounded(process, resident);
}

/// It has not grown much since it had so many KiB.
#[track_caller]
pub(crate) fn assert_bounded(process: &Process, resident: u64) {
    let grown = process.resident().saturating_sub(resident);
    assert!(grown < 2048, "{grown} KiB more memory");
}

#[test]
fn a_router_that_accepts_and_resets_is_tried_each_second_and_no_more() {
    if !possible() {
        return;
    }
    let (_fabric, odd, good, mut service, agent) = beside("reset");
    let (accepted, start) = (odd.count("accepted"), Instant::now());
    assert_calm(&agent.process, || odd.count("accepted") >= accepted + 3);
    // Each second ± 25 %.
    let most = start.elapsed().as_millis() / 750 + 2;
    let tried = odd.count("accepted") - accepted;
    assert!((tried as u128) <= most, "{tried} attempts in {:?}", start.elapsed());
    let status = agent.status();
    let entry = status["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == "odd").unwrap();
    assert!(entry["last_error"].is_string(), "the reason is shown: {entry}");
    service.process.kill();
    wait_until(LONG, || {
        if told(&good) == [Told::Announced(1), Told::Withdrawn(1)] {
            Ok(())
        } else {
            Err(format!("{:?}", told(&good)))
        }
    });
    assert_eq!(good.count("accepted"), 1);
}

#[test]
fn a_router_that_never_answers_open_disturbs_nobody() {
    if !possible() {
        return;
    }
    let (_fabric, odd, good, mut service, agent) = beside("mute");
    assert_calm(&agent.process, || odd.count("accepted") >= 1);
    agent.wait_status("silence is shown", |status| {
        let peers = status["peers"].as_array().expect("peers");
        let odd = peers.iter().find(|peer| peer["name"] == "odd").expect("this peer");
        odd["state"] == "OpenSent" && odd["waiting_for"] == "connected, but the peer has not sent its OPEN"
    });
    service.process.kill();
    wait_until(LONG, || {
        if told(&good) == [Told::Announced(1), Told::Withdrawn(1)] {
            Ok(())
        } else {
            Err(format!("{:?}", told(&good)))
        }
    });
    assert_eq!(good.count("accepted"), 1);
}

#[test]
fn a_router_that_stops_reading_delays_nobody_else() {
    if !possible() {
        return;
    }
    let (fabric, odd, good, mut service, agent) = beside("deaf");
    odd.wait_for("established");
    agent.wait_advertised(VIP4, "odd");
    for round in 1..=3 {
        service.process.kill();
        wait_until(LONG, || {
            let withdrawn = told(&good).iter().filter(|one| **one == Told::Withdrawn(1)).count();
            if withdrawn == round { Ok(()) } else { Err(format!("{:?}", told(&good))) }
        });
        service = fabric.service(1);
        wait_until(LONG, || {
            let announced = told(&good).iter().filter(|one| **one == Told::Announced(1)).count();
            if announced == round + 1 { Ok(()) } else { Err(format!("{:?}", told(&good))) }
        });
    }
    assert_calm(&agent.process, || true);
    assert_eq!(good.count("accepted"), 1);
}

#[test]
fn no_router_at_all_is_no_reason_to_be_busy() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let _service = fabric.service(1);
    let agent = fabric.agent(1);
    agent.wait_status("healthy", |status| status["services"][0]["health"] == "up");
    agent.wait_status("refused", |status| status["peers"][0]["last_error"].is_string());
    assert_calm(&agent.process, || true);
    let status = agent.status();
    assert_eq!(vip(&status, VIP4)["peers"][0]["reason"], "SessionDown");
    // And when one comes, it is found.
    let router = fabric.speaker(1, "plain");
    agent.wait_advertised(VIP4, "tor");
    assert_eq!(told(&router), [Told::Announced(1)]);
}

#[test]
fn a_session_lives_when_the_agent_was_stopped_past_its_hold_time_and_the_peer_kept_sending() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let router = fabric.speaker(1, "steady");
    let _service = fabric.service(1);
    let agent = fabric.agent(1);
    agent.wait_advertised(VIP4, "tor");
    agent.process_signal(Signal::SIGSTOP);
    // Time itself is what is tested here: the hold time is 3 s.
    thread::sleep(Duration::from_secs(5));
    let before = router.count("keepalive");
    agent.process_signal(Signal::SIGCONT);
    wait_until(LONG, || {
        if router.count("keepalive") > before + 2 { Ok(()) } else { Err(router.process.output()) }
    });
    assert_eq!(router.count("notification"), 0, "{}", router.process.output());
    assert_eq!(router.count("accepted"), 1);
    let (state, lasted) = peer_state(&agent.status(), "tor");
    assert_eq!(state, "Established");
    assert!(lasted > Duration::from_secs(5));
}

#[test]
fn a_family_that_the_router_did_not_agree_to_is_named() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let _router = fabric.speaker(1, "four");
    let _service = fabric.service(1);
    let agent = fabric.agent(1);
    agent.wait_advertised(VIP4, "tor");
    agent.wait_status("the reason", |status| {
        vip(status, VIP6)["wanted"] == true
            && vip(status, VIP6)["peers"][0]["reason"] == "FamilyNotNegotiated"
    });
}

#[test]
fn without_an_address_of_the_family_there_is_no_next_hop_until_there_is_one() {
    if !possible() {
        return;
    }
    let host = Host::prepared(&agent_config(1), |fabric| {
        fabric.host(1).ip("address del fd00:1:1::2/64 dev eth0");
    });
    host.agent.wait_advertised(VIP4, "tor");
    let named = |status: &serde_json::Value| vip(status, VIP6)["peers"][0]["reason"] == "NoNextHop";
    host.agent.wait_status("NoNextHop", named);
    host.fabric.host(1).ip("address add fd00:1:1::2/64 dev eth0 nodad");
    let status = host.agent.wait_advertised(VIP6, "tor");
    assert_eq!(vip(&status, VIP6)["peers"][0]["attributes"]["next_hop"], "fd00:1:1::2");
}

#[test]
fn nothing_that_is_heard_is_installed_or_told_on() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    fabric.router.ip("address add 10.1.1.3/24 dev h1");
    let quiet = Speaker::start(&fabric.lab, &fabric.router, "10.1.1.3", "plain");
    let loud = fabric.speaker(1, "loud");
    let _service = fabric.service(1);
    let routes = fabric.host(1).ip("route show");
    let more = "[bgp.peer.quiet]\naddress = \"10.1.1.3\"\nasn = 65000\n";
    let agent = fabric.agent_with(1, &agent_config_with(1, &format!("\"{VIP4}\""), more));
    agent.wait_advertised(VIP4, "tor");
    agent.wait_advertised(VIP4, "quiet");
    // Its routes were sent before our first UPDATE was read; a keepalive shows that the session went on.
    let before = loud.count("keepalive");
    wait_until(Duration::from_secs(120), || {
        if loud.count("keepalive") > before { Ok(()) } else { Err(loud.process.output()) }
    });
    assert_eq!(loud.count("notification"), 0);
    assert_eq!(fabric.host(1).ip("route show"), routes);
    assert_eq!(told(&quiet), [Told::Announced(1)]);
    assert_eq!(told(&loud), [Told::Announced(1)]);
}

#[test]
fn a_peer_that_flaps_shows_its_last_end_and_how_often_while_its_session_stands() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    assert_eq!(host.agent.status()["peers"][0]["sessions_lost"], 0);
    for lost in 1..=2 {
        host.router.process.kill();
        host.agent.wait_status("the session ended", |status| peer_state(status, "tor").0 != "Established");
        host.router = host.fabric.speaker(1, "plain");
        let status = host.agent.wait_advertised(VIP4, "tor");
        let peer = &status["peers"][0];
        assert_eq!((peer["state"].as_str(), &peer["sessions_lost"]), (Some("Established"), &lost.into()));
        assert!(peer["last_error"].is_string() && peer["last_error_for_ms"].is_u64(), "{peer}");
    }
    // The table may break the line anywhere between two words.
    let text = host.agent.run("status", &[]);
    assert!(text.contains("closed") && text.contains("lost"), "{text}");
}

/// TCP MD5 is by address, and who is at the other end of a link is known by name of the link alone: until it has been called, the
/// kernel cannot check its signatures, so nobody is believed.
#[test]
fn who_calls_unsigned_on_a_link_with_a_key_is_turned_away_and_named() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let key = fabric.lab.scratch().write("key", "s3cret\n");
    let peer = format!("interface = \"eth0\"\npassword_file = \"{}\"", key.display());
    let config = agent_config(1)
        .replace("address = \"10.1.1.1\"", &peer)
        .replace("[bgp]\n", "[bgp]\nlisten = \"[::]:179\"\n");
    let agent = fabric.agent_with(1, &config);
    let addresses = fabric.host(1).ip("-6 -o address show dev eth0 scope link");
    let own =
        addresses.split_whitespace().find_map(|word| word.strip_suffix("/64")).expect("a link-local address");
    // All that comes back is an end.
    let call = format!("exec 3<>/dev/tcp/{own}%h1/179 && cat <&3");
    assert_eq!(fabric.router.run("timeout", &["20", "bash", "-c", &call]), "");
    let status = agent.wait_status("the call, and why it was not taken", |status| {
        status["turned_away"]["last"].as_str().is_some_and(|last| last.contains("not known to be signed"))
    });
    assert_eq!(status["turned_away"]["connections"], 1, "{status}");
    assert!(status["peers"][0]["address"] == "eth0", "nobody has become the neighbour: {status}");
    let text = agent.run("status", &[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("TCP MD5 is on for who is at the other end of this link"), "{text}");
    let events = agent.run("events", &[]);
    assert!(events.contains("%eth0 refused: not known to be signed"), "{events}");
}
