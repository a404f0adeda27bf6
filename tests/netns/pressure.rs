//! Routers that press: floods, and buffers that are full. Checks, `status` and other sessions go on as if nothing were.

use anyvip_tests::{LONG, VIP4, agent_config_with, peer_state, wait_until};
use nix::sys::signal::Signal;

use crate::peers::{assert_bounded, beside, beside_with};
use crate::{Told, possible, told};

/// The agent beside a router that floods it: what must go on, and at what price.
fn goes_on_beside(manner: &str) {
    let (fabric, flood, good, mut service, agent) = beside(manner);
    flood.wait_for("sent");
    agent.wait_advertised(VIP4, "odd");
    let resident = agent.process.resident();
    for round in 1..=2 {
        // A dead service is seen by its check and told to the other router.
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
        agent.status();
    }
    assert_bounded(&agent.process, resident);
    let status = agent.status();
    // Neither session ended for it, and no check was called what it was not.
    for peer in ["tor", "odd"] {
        assert_eq!(peer_state(&status, peer).0, "Established", "{status:#}");
    }
    assert_eq!((good.count("accepted"), flood.count("accepted")), (1, 1));
    assert!(flood.lines("sent ").len() > 1, "it did flood");
}

#[test]
fn a_flood_of_keepalives_starves_nobody() {
    if possible() {
        goes_on_beside("keepalives");
    }
}

#[test]
fn a_flood_of_routes_of_others_starves_nobody() {
    if possible() {
        goes_on_beside("updates");
    }
}

#[test]
fn a_flood_of_single_bytes_starves_nobody() {
    if possible() {
        goes_on_beside("crumbs");
    }
}

/// So many addresses that a few drains fill the smallest of buffers.
const MANY: usize = 250;

fn many_vips() -> String {
    let list: Vec<String> = (1..=MANY).map(|n| format!("\"198.51.100.{n}\"")).collect();
    list.join(", ")
}

#[test]
fn a_drain_that_a_router_does_not_take_times_out_and_can_be_undone() {
    if !possible() {
        return;
    }
    let config = agent_config_with(1, &many_vips(), "[bgp.peer.odd]\naddress = \"10.1.1.3\"\nasn = 65000\n")
        .replace("checks = [\"web\"]", "checks = \"none\"");
    let (_fabric, deaf, good, _service, agent) = beside_with("deaf", &config, |fabric| {
        // Our own send buffer as small as the kernel lets it be.
        fabric.host(1).sysctls(&[("net/ipv4/tcp_wmem", "\"4096 4096 4096\"")]);
    });
    deaf.wait_for("established");
    agent.wait_advertised("198.51.100.250", "odd");
    let withdrawn = |count: usize| {
        wait_until(LONG, || {
            let seen = told(&good).iter().filter(|one| **one == Told::Withdrawn(7)).count();
            if seen == count { Ok(()) } else { Err(format!("{seen} of {count}")) }
        });
    };
    // Until the buffers on the way are full, a drain is done when the kernel took it.
    let mut drains = 0;
    let refused = loop {
        drains += 1;
        let output = agent.command("drain", &["web", "--wait", "--timeout", "2s"]);
        withdrawn(drains);
        if output.status.code() != Some(0) || drains > 100 {
            break output;
        }
        agent.run("undrain", &["web"]);
    };
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{text}");
    assert!(text.contains("odd") && !text.contains("tor"), "it names who is not told: {text}");
    let status = agent.status();
    assert_eq!(status["services"][0]["admin"], "draining", "{status:#}");
    assert_eq!(status["services"][0]["drain"]["waiting_for"], serde_json::json!(["odd"]));
    let output = agent.command("drain", &["web", "--wait", "--timeout", "1s", "--or-abort"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(agent.status()["services"][0]["admin"], "enabled", "put back");
    // The other router hears all of it.
    wait_until(LONG, || {
        let told = told(&good);
        let last = told.iter().rev().find(|one| matches!(one, Told::Announced(7) | Told::Withdrawn(7)));
        if last == Some(&Told::Announced(7)) { Ok(()) } else { Err(format!("{last:?} at the end")) }
    });
    crate::peers::assert_calm(&agent.process, || true);
    assert_eq!(good.count("accepted"), 1);
}

#[test]
fn a_frozen_router_loses_its_session_after_the_hold_time_and_gets_it_back() {
    if !possible() {
        return;
    }
    let more = "[bgp.peer.odd]\naddress = \"10.1.1.3\"\nasn = 65000\nhold_time = \"3s\"\n";
    let config = agent_config_with(1, &format!("\"{VIP4}\""), more);
    let (_fabric, mut frozen, good, _service, agent) = beside_with("plain", &config, |_| {});
    agent.wait_advertised(VIP4, "odd");
    frozen.process.signal(Signal::SIGSTOP);
    agent.wait_status("the session with it ended", |status| peer_state(status, "odd").0 != "Established");
    assert_eq!(peer_state(&agent.status(), "tor").0, "Established");
    frozen.process.signal(Signal::SIGCONT);
    agent.wait_advertised(VIP4, "odd");
    assert_eq!(good.count("accepted"), 1);
    assert_eq!(told(&good), [Told::Announced(1)]);
    assert!(frozen.count("notification 0400") >= 1, "RFC 4271 §6.5: {}", frozen.process.output());
}
