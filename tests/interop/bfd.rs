//! BFD: sessions come up, each end finds the other frozen, and words mean the same on both.

use std::time::{Duration, Instant};

use anyvip_tests::{
    Agent, Fabric, LONG, SERVICE_PORT, Sessions, VIP4, agent_config_with, binaries, wait_until,
};
use nix::sys::signal::Signal;

use crate::router::{Bfd, Manner, Router};

const V4: &str = "name=v4,remote=10.1.1.1";
const V6: &str = "name=v6,remote=fd00:1:1::1";
const MULTIHOP: &str = "name=far,remote=10.1.2.1,local=10.1.1.2,multihop=250,interval=100";

fn start<R: Router>(fabric: &Fabric, bfd: Bfd) -> R {
    R::start(&fabric.lab, &fabric.router, &Manner { bfd, ..Manner::default() })
}

#[track_caller]
fn router_says<R: Router>(router: &R, session: &str, state: &str) {
    wait_until(LONG, || match router.bfd_state(session)? {
        is if is == state => Ok(()),
        is => Err(format!("{session} is {is}, not {state}")),
    });
}

/// Up over IPv4, IPv6 and several hops; each end finds the other frozen; held down and AdminDown are told apart.
pub(crate) fn each_end_finds_the_other_frozen<R: Router>() {
    // Two hosts' links, so that the router has an address that is not on the host's link.
    let fabric = Fabric::new(binaries!(), 2);
    let mut router: R = start(&fabric, Bfd::Alone);
    // BIRD sends multihop packets with the system's TTL, not with 255. Without the right to run before other programs with one, with
    // it with the other.
    let sessions = match R::NAME {
        "BIRD" => {
            let multihop = MULTIHOP.replace("multihop=250", "multihop=64");
            Sessions::start(&fabric.lab, fabric.host(1), &[V4, V6, &multihop])
        }
        _ => Sessions::start_ordinary(&fabric.lab, fabric.host(1), &[V4, V6, MULTIHOP]),
    };
    let mut sessions = sessions;
    for session in ["v4", "v6", "far"] {
        sessions.wait_for(session, "Up");
        router_says(&router, session, "up");
    }
    sessions.wait_for_detection("v4", 150);
    sessions.wait_for_detection("far", 300);
    let frozen = anyvip_io::clock::wall_clock_millis();
    router.freeze(Signal::SIGSTOP);
    for session in ["v4", "v6", "far"] {
        let (at, cause) = sessions.wait_for(session, "Down");
        assert_eq!(cause, "DetectionTimeExpired", "{session}");
        println!("router frozen: {session} found after {} ms", at.saturating_sub(frozen));
    }
    router.freeze(Signal::SIGCONT);
    for session in ["v4", "v6", "far"] {
        sessions.wait_for(session, "Up");
        router_says(&router, session, "up");
    }
    sessions.wait_for_detection("v4", 150);
    let start = Instant::now();
    sessions.process.signal(Signal::SIGSTOP);
    router_says(&router, "v4", "down");
    println!(
        "host frozen: the router says down within {} ms (asked by its command line)",
        start.elapsed().as_millis()
    );
    sessions.process.signal(Signal::SIGCONT);
    router_says(&router, "v4", "up");
    sessions.wait_for("v4", "Up");
    // Held down: the router never gets further than Init, and says Down or Init.
    sessions.say("held v4");
    wait_until(LONG, || {
        let state = router.bfd_state("v4")?;
        if ["down", "init"].contains(&state.as_str()) { Ok(()) } else { Err(state) }
    });
    sessions.say("up v4");
    router_says(&router, "v4", "up");
    // Other parameters by a poll sequence, without a flap.
    sessions.wait_for("v4", "Up");
    sessions.wait_for_detection("v4", 150);
    let before = sessions.changes("v4").len();
    sessions.say("interval v4 100");
    sessions.wait_for_detection("v4", 300);
    sessions.say("interval v4 50");
    sessions.wait_for_detection("v4", 150);
    assert_eq!(sessions.changes("v4").len(), before, "{:?}", sessions.changes("v4"));
    // The main thread does nothing for two seconds: thirteen detection times.
    sessions.say("busy 2000");
    wait_until(LONG, || {
        if sessions.process.output().contains("was_busy") { Ok(()) } else { Err("busy".to_owned()) }
    });
    assert_eq!(sessions.changes("v4").len(), before, "{:?}", sessions.changes("v4"));
    sessions.say("admin v4");
    wait_until(LONG, || {
        let state = router.bfd_state("v4")?;
        if state == "up" { Err(state) } else { Ok(()) }
    });
}

/// RFC 5880 §6.7, every kind; and the wrong key is named, also by the agent until a reload brings the right one.
pub(crate) fn both_ends_authenticate_each_other<R: Router>() {
    let kinds = ["simple", "keyed md5", "meticulous keyed md5", "keyed sha1", "meticulous keyed sha1"];
    for kind in kinds {
        let fabric = Fabric::new(binaries!(), 1);
        let router: R = start(&fabric, Bfd::Authenticated(kind, "s3cret"));
        let word = if kind == "simple" { "simple-password".to_owned() } else { kind.replace(' ', "-") };
        {
            let wrong = format!("{V4},auth={word}:7:S3cret");
            let sessions = Sessions::start(&fabric.lab, fabric.host(1), &[&wrong]);
            wait_until(LONG, || {
                let told = sessions.lines().iter().any(|line| line["fact"]["Discarded"]["reason"] == "Key");
                if told { Ok(()) } else { Err(sessions.process.output()) }
            });
            assert_eq!(sessions.changes("v4"), []);
        }
        std::fs::remove_file(
            fabric.lab.scratch().path().join(format!("bfd-{}.commands", fabric.host(1).name())),
        )
        .unwrap();
        let right = format!("{V4},auth={word}:7:s3cret");
        let sessions = Sessions::start(&fabric.lab, fabric.host(1), &[&right]);
        sessions.wait_for("v4", "Up");
        router_says(&router, "v4", "up");
        sessions.wait_for_detection("v4", 150);
    }
    let fabric = Fabric::new(binaries!(), 1);
    let _router: R = start(&fabric, Bfd::Authenticated("meticulous keyed sha1", "s3cret"));
    let _service = fabric.service(1);
    let key = fabric.lab.scratch().path().join("bfd.key");
    std::fs::write(&key, "S3cret\n").unwrap();
    let authentication =
        format!("authentication = \"meticulous-keyed-sha1\"\nkey_id = 7\nkey_file = {key:?}\n");
    let agent = fabric.agent_with(1, &static_config(&authentication));
    let status =
        agent.wait_status("the wrong key", |status| status["peers"][0]["bfd"]["trouble"].is_string());
    let trouble = &status["peers"][0]["bfd"]["trouble"];
    assert_eq!(trouble, "a packet was refused: wrong password or key", "{status}");
    std::fs::write(&key, "").unwrap();
    let refused = agent.command("reload", &[]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("its first line is empty"), "{words}");
    std::fs::write(&key, "s3cret\n").unwrap();
    agent.run("reload", &[]);
    let status = agent.wait_status("BFD", |status| status["peers"][0]["bfd"]["state"] == "Up");
    assert!(status["peers"][0]["bfd"]["trouble"].is_null(), "{status}");
}

/// A host without BGP, whose service a router follows.
fn static_config(more: &str) -> String {
    format!(
        "config_version = 1\n[static.peer.rtr]\naddress = \"10.1.1.1\"\ninterval = \"50ms\"\n{more}\
         [check.web]\nhttp = {{ port = {SERVICE_PORT}, path = \"/\" }}\ninterval = \"300ms\"\ntimeout = \"300ms\"\n\
         [service.web]\nvips = [\"{VIP4}\"]\nchecks = [\"web\"]\nstatic = [\"rtr\"]\n"
    )
}

fn bgp_config(bfd: &str) -> String {
    agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65000", &format!("asn = 65000\nbfd = {bfd}"))
}

/// The agent's BGP session falls with the path, and the router's with the host.
pub(crate) fn a_guarded_session_falls_with_its_path<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let mut router: R = start(&fabric, Bfd::Guard);
    let _service = fabric.service(1);
    let mut agent = fabric.agent_with(1, &bgp_config("{ interval = \"50ms\", strict = true }"));
    agent.wait_advertised(VIP4, "tor");
    let status = agent.wait_status("fast BFD", |status| status["peers"][0]["bfd"]["detection_us"] == 150_000);
    assert_eq!(status["peers"][0]["bfd"]["state"], "Up");
    wait_until(LONG, || {
        let text = fabric.router.ip(&format!("route show {VIP4}"));
        if text.contains("10.1.1.2") { Ok(()) } else { Err(text) }
    });
    router.freeze(Signal::SIGSTOP);
    wait_until(LONG, || {
        let events = agent.run("events", &[]);
        let told = events.contains("BFD with tor is Down") && events.contains("BFD Down");
        if told { Ok(()) } else { Err(events) }
    });
    router.freeze(Signal::SIGCONT);
    agent.wait_advertised(VIP4, "tor");
    wait_until(LONG, || {
        let text = fabric.router.ip(&format!("route show {VIP4}"));
        if text.contains("10.1.1.2") { Ok(()) } else { Err(text) }
    });
    agent.wait_status("fast BFD", |status| status["peers"][0]["bfd"]["detection_us"] == 150_000);
    let start = Instant::now();
    agent.process.signal(Signal::SIGSTOP);
    wait_until(LONG, || {
        let text = fabric.router.ip(&format!("route show {VIP4}"));
        if text.trim().is_empty() { Ok(()) } else { Err(text) }
    });
    println!("agent frozen: the router's route is gone within {} ms", start.elapsed().as_millis());
    agent.process.signal(Signal::SIGCONT);
    agent.wait_advertised(VIP4, "tor");
}

/// No BGP at all: a static route of the router follows the health of the service.
pub(crate) fn a_static_route_follows_health_drain_and_death<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let _router: R = start(&fabric, Bfd::Static);
    let service = fabric.service(1);
    let mut agent = fabric.agent_with(1, &static_config(""));
    let route = |there: bool| {
        wait_until(LONG, || {
            let text = fabric.router.ip(&format!("route show {VIP4}"));
            if text.contains("10.1.1.2") == there { Ok(()) } else { Err(format!("{text:?}")) }
        });
    };
    route(true);
    hangs(&agent, route);
    agent.wait_status("told", |status| status["services"][0]["vips"][0]["peers"][0]["advertised"] == true);
    drop(service);
    route(false);
    agent.wait_status("unhealthy", |status| {
        status["services"][0]["vips"][0]["peers"][0]["reason"] == "Unhealthy"
            && status["peers"][0]["bfd"]["state"] == "Down"
    });
    let _service = fabric.service(1);
    route(true);
    agent.run("drain", &["web"]);
    route(false);
    agent.run("undrain", &["web"]);
    route(true);
    agent.process.kill();
    route(false);
}

/// The lease: a main loop that hangs for two seconds flaps nothing, one that hangs for good is not healthy. `ANYVIP_STALLS` says
/// how often to hang (once; a long run 100 times).
fn hangs(agent: &Agent, route: impl Fn(bool)) {
    let flaps = || agent.run("events", &[]).matches("BFD with rtr is Down").count();
    let stalls = std::env::var("ANYVIP_STALLS").map_or(1, |count| count.parse().expect("a number"));
    let before = flaps();
    for _ in 0..stalls {
        // Two seconds is what is tested here, not a time to wait for something.
        agent.process.with_its_main_thread_stopped(|| std::thread::sleep(Duration::from_secs(2)));
        // An answer shows that the loop runs again.
        agent.status();
    }
    println!("{} flaps in {stalls} stalls of 2 s", flaps() - before);
    assert_eq!(flaps(), before, "{}", agent.run("events", &[]));
    agent.process.with_its_main_thread_stopped(|| route(false));
    route(true);
    assert_eq!(flaps(), before + 1, "{}", agent.run("events", &[]));
}
