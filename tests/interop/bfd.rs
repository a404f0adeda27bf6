//! BFD with BIRD and FRR: sessions come up, each end finds the other frozen, and words mean the same on both.

use std::time::Instant;

use anyvip_tests::{
    Bird, Fabric, Frr, LONG, Need, SERVICE_PORT, Sessions, VIP4, agent_config_with, binaries, met, wait_until,
};
use nix::sys::signal::Signal;

const BIRD: &[Need] = &[Need::Root, Need::Bird];
const FRR: &[Need] = &[Need::Root, Need::Frr, Need::Program("/usr/lib/frr/bfdd")];

const V4: &str = "name=v4,remote=10.1.1.1";
const V6: &str = "name=v6,remote=fd00:1:1::1";
const MULTIHOP: &str = "name=far,remote=10.1.2.1,local=10.1.1.2,multihop=250,interval=100";

fn bird_config(more: &str) -> String {
    format!(
        "router id 10.9.0.1;\nlog stderr all;\ndebug protocols {{ states, events }};\nprotocol device {{ scan time 60; }}\n\
         protocol kernel {{ scan time 60; ipv4 {{ import none; export where source = RTS_STATIC; }}; }}\n{more}\n"
    )
}

const BIRD_NEIGHBORS: &str = r#"protocol bfd {
  interface "h*" { interval 50 ms; idle tx interval 200 ms; multiplier 3; };
  multihop { interval 100 ms; multiplier 3; };
  neighbor 10.1.1.2 dev "h1" local 10.1.1.1;
  neighbor fd00:1:1::2 dev "h1" local fd00:1:1::1;
  neighbor 10.1.1.2 local 10.1.2.1 multihop on;
}"#;

const FRR_PEERS: &str = "bfd
 profile fast
  transmit-interval 50
  receive-interval 50
  detect-multiplier 3
 exit
 peer 10.1.1.2 local-address 10.1.1.1 interface h1
  profile fast
 exit
 peer fd00:1:1::2 local-address fd00:1:1::1 interface h1
  profile fast
 exit
 peer 10.1.1.2 multihop local-address 10.1.2.1
  transmit-interval 100
  receive-interval 100
  minimum-ttl 250
 exit
exit";

/// How one router says that its session with the host is in a state.
trait Router {
    fn state(&self, session: &str) -> Result<String, String>;
    fn freeze(&mut self, signal: Signal);
}

impl Router for Bird {
    fn state(&self, session: &str) -> Result<String, String> {
        let text = self.ask("show bfd sessions")?;
        let line = text.lines().find(|line| match session {
            "v4" => line.starts_with("10.1.1.2") && line.contains(" h1 "),
            "v6" => line.starts_with("fd00:1:1::2"),
            _ => line.starts_with("10.1.1.2") && line.contains(" --- "),
        });
        line.and_then(|line| line.split_whitespace().nth(2)).map(str::to_lowercase).ok_or(text)
    }

    fn freeze(&mut self, signal: Signal) {
        self.process().signal(signal);
    }
}

impl Router for Frr {
    fn state(&self, session: &str) -> Result<String, String> {
        let text = self.ask("show bfd peers json")?;
        let list: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let found = list.iter().find(|peer| match session {
            "v4" => peer["peer"] == "10.1.1.2" && peer["multihop"] == false,
            "v6" => peer["peer"] == "fd00:1:1::2",
            _ => peer["multihop"] == true,
        });
        found.and_then(|peer| peer["status"].as_str()).map(str::to_owned).ok_or(text)
    }

    fn freeze(&mut self, signal: Signal) {
        self.bfdd().signal(signal);
    }
}

#[track_caller]
fn router_says(router: &impl Router, session: &str, state: &str) {
    wait_until(LONG, || match router.state(session)? {
        is if is == state => Ok(()),
        is => Err(format!("{session} is {is}, not {state}")),
    });
}

/// Two hosts' links, so that the router has an address that is not on the host's link.
fn fabric() -> Fabric {
    Fabric::new(binaries!(), 2)
}

/// Up over IPv4, IPv6 and several hops; each end finds the other frozen; held down and AdminDown are told apart.
fn a_life(mut router: impl Router, sessions: &mut Sessions) {
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
        let state = router.state("v4")?;
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
        let state = router.state("v4")?;
        if state == "up" { Err(state) } else { Ok(()) }
    });
}

#[test]
fn bird_and_we_find_each_other_and_each_others_end() {
    if met(BIRD) {
        let fabric = fabric();
        let bird = Bird::with(&fabric.lab, &fabric.router, &bird_config(BIRD_NEIGHBORS));
        // BIRD sends multihop packets with the system's TTL, not with 255.
        let multihop = MULTIHOP.replace("multihop=250", "multihop=64");
        let mut sessions = Sessions::start(&fabric.lab, fabric.host(1), &[V4, V6, &multihop]);
        a_life(bird, &mut sessions);
    }
}

#[test]
fn frr_and_we_find_each_other_and_each_others_end() {
    if met(FRR) {
        let fabric = fabric();
        let frr = Frr::start_bfd(&fabric.lab, &fabric.router, FRR_PEERS, "");
        let mut sessions = Sessions::start_ordinary(&fabric.lab, fabric.host(1), &[V4, V6, MULTIHOP]);
        a_life(frr, &mut sessions);
    }
}

/// RFC 5880 §6.7, every kind; and the wrong key is named.
#[test]
fn bird_and_we_authenticate_each_other() {
    if !met(BIRD) {
        return;
    }
    let kinds = ["simple", "keyed md5", "meticulous keyed md5", "keyed sha1", "meticulous keyed sha1"];
    for kind in kinds {
        let fabric = Fabric::new(binaries!(), 1);
        let config = format!(
            "protocol bfd {{ interface \"h*\" {{ interval 50 ms; multiplier 3; authentication {kind}; \
             password \"s3cret\" {{ id 7; }}; }};\n neighbor 10.1.1.2 dev \"h1\" local 10.1.1.1; }}"
        );
        let bird = Bird::with(&fabric.lab, &fabric.router, &bird_config(&config));
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
        router_says(&bird, "v4", "up");
        sessions.wait_for_detection("v4", 150);
    }
}

fn bgp_config(bfd: &str) -> String {
    agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65000", &format!("asn = 65000\nbfd = {bfd}"))
}

/// The agent's BGP session falls with the path, and the router's with the host.
fn a_guarded_session(fabric: &Fabric, mut router: impl Router) {
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

#[test]
fn bird_and_the_agent_lose_their_session_with_the_path() {
    if met(BIRD) {
        let fabric = Fabric::new(binaries!(), 1);
        let config = "protocol bfd { interface \"h*\" { interval 50 ms; multiplier 3; }; }\n\
            protocol kernel k { scan time 60; ipv4 { import none; export where source = RTS_BGP; }; }\n\
            protocol bgp h1 { local as 65000; neighbor 10.1.1.2 as 65001; passive on; bfd on; \
            error wait time 1, 2; error forget time 5; ipv4 { import all; export none; }; }";
        let config = bird_config(config).replace(
            "protocol kernel { scan time 60; ipv4 { import none; export where source = RTS_STATIC; }; }\n",
            "",
        );
        let bird = Bird::with(&fabric.lab, &fabric.router, &config);
        a_guarded_session(&fabric, bird);
    }
}

#[test]
fn frr_and_the_agent_lose_their_session_with_the_path() {
    if met(FRR) {
        let fabric = Fabric::new(binaries!(), 1);
        let profile = "bfd\n profile fast\n  transmit-interval 50\n  receive-interval 50\n exit\nexit";
        let frr = Frr::start_bfd(&fabric.lab, &fabric.router, profile, " neighbor HOSTS bfd profile fast");
        a_guarded_session(&fabric, frr);
    }
}

/// No BGP at all: a static route of the router follows the health of the service.
#[test]
fn birds_static_route_follows_health_drain_and_death_of_a_host() {
    if !met(BIRD) {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let config = format!(
        "protocol bfd {{ interface \"h*\" {{ interval 50 ms; multiplier 3; }}; }}\n\
         protocol static {{ ipv4; route {VIP4}/32 via 10.1.1.2 bfd on; }}"
    );
    let _bird = Bird::with(&fabric.lab, &fabric.router, &bird_config(&config));
    let service = fabric.service(1);
    let config = format!(
        "config_version = 1\n[static.peer.rtr]\naddress = \"10.1.1.1\"\ninterval = \"50ms\"\n\
         [check.web]\nhttp = {{ port = {SERVICE_PORT}, path = \"/\" }}\ninterval = \"300ms\"\ntimeout = \"300ms\"\n\
         [service.web]\nvips = [\"{VIP4}\"]\nchecks = [\"web\"]\nstatic = [\"rtr\"]\n"
    );
    let mut agent = fabric.agent_with(1, &config);
    let route = |there: bool| {
        wait_until(LONG, || {
            let text = fabric.router.ip(&format!("route show {VIP4}"));
            if text.contains("10.1.1.2") == there { Ok(()) } else { Err(format!("{text:?}")) }
        });
    };
    route(true);
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
