use anyvip_core::status::{
    AttributesStatus, BfdStatus, DrainStatus, Histogram, LastResult, VipPeerStatus, Warning,
};

use super::*;

fn peer(name: &str, advertised: bool, reason: Option<Reason>) -> VipPeerStatus {
    let attributes = advertised.then(|| AttributesStatus {
        next_hop: "10.0.1.11".to_owned(),
        med: None,
        prepend: 0,
        local_pref: None,
        communities: Vec::new(),
    });
    VipPeerStatus { name: name.to_owned(), advertised, reason, attributes, other_origins: None }
}

fn vip(address: &str, reason: Option<Reason>, peers: Vec<VipPeerStatus>) -> VipStatus {
    let address: std::net::IpAddr = address.parse().unwrap();
    VipStatus {
        address,
        present: true,
        owned: true,
        arp_guarded: address.is_ipv4().then_some(true),
        wanted: reason.is_none(),
        reason,
        standing: reason.is_none().then_some(Standing::Normal),
        peers,
    }
}

fn check(name: &str, target: &str, state: &str, consecutive: u32, last: LastResult) -> CheckStatus {
    CheckStatus {
        name: name.into(),
        kind: "http".to_owned(),
        target: target.to_owned(),
        state: state.to_owned(),
        consecutive,
        last: Some(last),
        inherited_ms: None,
    }
}

fn session(name: &str, address: &str, state: &str, told: &[&str], last_error: Option<&str>) -> PeerStatus {
    PeerStatus {
        waiting_for: None,
        name: name.to_owned(),
        protocol: "bgp".to_owned(),
        address: address.to_owned(),
        state: state.to_owned(),
        for_ms: 61_000,
        families: vec!["ipv4".to_owned()],
        role: None,
        extended_messages: false,
        advertised: told.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        bfd: None,
        last_error: last_error.map(str::to_owned),
        last_error_for_ms: last_error.map(|_| 5_000),
        graceful_restart_s: None,
        heard: None,
        sessions_lost: 0,
    }
}

/// BFD is up with this detection time, or down because of this.
fn watched(peer: PeerStatus, path: Result<u64, &str>) -> PeerStatus {
    let bfd = BfdStatus {
        state: if path.is_ok() { "Up" } else { "Down" }.to_owned(),
        for_ms: 61_000,
        transmit_us: path.ok().map(|detection| detection / 3),
        detection_us: path.ok(),
        last_down: None,
        last_down_for_ms: None,
        trouble: path.err().map(str::to_owned),
        trouble_for_ms: path.err().map(|_| 5_000),
    };
    PeerStatus { bfd: Some(bfd), ..peer }
}

/// One service up at one of two peers, one down, one drained.
fn mixed() -> Status {
    let service = |name: &str, health: &str, admin: &str, for_ms, checks, vips| ServiceStatus {
        name: name.into(),
        health: health.to_owned(),
        admin: admin.to_owned(),
        for_ms,
        drain: (admin == "drained").then(|| DrainStatus {
            reason: Some("kernel update".to_owned()),
            for_ms: 7_260_000,
            phase: "withdrawn".to_owned(),
            left_ms: None,
            waiting_for: Vec::new(),
        }),
        checks,
        responder: None,
        vips,
    };
    let pass = LastResult { result: ProbeResult::Pass, latency_us: 310, detail: "200 OK".to_owned() };
    let fail =
        LastResult { result: ProbeResult::Fail, latency_us: 95, detail: "connection refused".to_owned() };
    let both = |reason: Reason| vec![peer("tor1", false, Some(reason)), peer("tor2", false, Some(reason))];
    let down = Some(Reason::SessionDown);
    Status {
        version: "0.1.0".to_owned(),
        router_id: "10.0.1.11".parse().unwrap(),
        uptime_ms: 192_000,
        warnings: vec![Warning {
            code: "return_path".to_owned(),
            text: "eth1: rp_filter is 1 and no route leads back through it".to_owned(),
        }],
        services: vec![
            service(
                "dns",
                "up",
                "enabled",
                190_000,
                vec![check("resolver", "192.0.2.53", "up", 190, pass.clone())],
                vec![
                    vip("192.0.2.53", None, vec![peer("tor1", true, None), peer("tor2", false, down)]),
                    vip("2001:db8::53", None, vec![peer("tor1", true, None), peer("tor2", false, down)]),
                ],
            ),
            service(
                "ntp",
                "down",
                "enabled",
                4_000,
                vec![check("ntp/1", "192.0.2.123", "down", 2, fail)],
                vec![vip("192.0.2.123", Some(Reason::Unhealthy), both(Reason::Unhealthy))],
            ),
            service(
                "web",
                "up",
                "drained",
                190_000,
                vec![check("web/1", "192.0.2.80", "up", 1, pass)],
                vec![vip("192.0.2.80", Some(Reason::Drained), both(Reason::Drained))],
            ),
        ],
        peers: vec![
            watched(
                session("tor1", "10.0.1.1", "Established", &["192.0.2.53/32", "2001:db8::53/128"], None),
                Ok(150_000),
            ),
            watched(
                session("tor2", "10.0.2.1", "Active", &[], Some("connection refused")),
                Err("a packet was refused: wrong password or key"),
            ),
        ],
        decision_to_wire_us: Histogram::default(),
        upgrade: None,
        turned_away: None,
    }
}

/// Set ANYVIP_UPDATE=1 to write what is printed now.
#[test]
fn status_reads_well_to_someone_who_never_saw_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/status/expected.txt");
    let text = render(&mixed(), false);
    if std::env::var_os("ANYVIP_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
    assert!(text.lines().all(|line| line.chars().count() <= terminal::WIDTH));
}

#[test]
fn a_depreferenced_service_is_degraded_and_one_that_drains_is_as_wanted() {
    let mut status = mixed();
    status.services.drain(1..);
    for vip in &mut status.services[0].vips {
        vip.peers = vec![peer("tor1", true, None)];
        vip.standing = Some(Standing::Depreferenced);
    }
    assert_eq!(verdict(&status).0, 1);
    assert!(render(&status, false).contains("tor1 (depreferenced)"));
    let service = &mut status.services[0];
    service.admin = "draining".to_owned();
    service.drain = Some(DrainStatus {
        reason: None,
        for_ms: 17_000,
        phase: "telling".to_owned(),
        left_ms: Some(43_000),
        waiting_for: vec!["tor1".to_owned()],
    });
    service.vips.iter_mut().for_each(|vip| vip.standing = Some(Standing::Draining));
    assert_eq!(verdict(&status).0, 0);
    let text = render(&status, false);
    assert!(text.contains("draining, 43s left") && text.contains("tor1 (draining)"), "{text}");
}

#[test]
fn a_peer_that_flaps_does_not_look_sound_while_its_session_stands() {
    let mut peer = session("tor1", "10.0.1.1", "Established", &[], Some("10.0.1.1:179 reset the connection"));
    assert_eq!(last_word(&peer), "-", "what was before the first session is history");
    peer.sessions_lost = 1;
    assert_eq!(last_word(&peer), "5s ago: 10.0.1.1:179 reset the connection; 1 session lost");
    peer.sessions_lost = 12;
    peer.state = "Connect".to_owned();
    assert_eq!(last_word(&peer), "5s ago: 10.0.1.1:179 reset the connection; 12 sessions lost");
}

#[test]
fn long_names_and_errors_stay_within_100_columns() {
    let mut status = mixed();
    let address = "2001:db8:1111:2222:3333:4444:5555:6666";
    for service in &mut status.services {
        service.name = "a-service-with-a-rather-long-name".into();
        for vip in &mut service.vips {
            vip.address = address.parse().unwrap();
        }
    }
    status.peers[1].last_error =
        Some("the peer said Cease, Administrative Shutdown: ".to_owned() + &"x ".repeat(60));
    status.peers[0].address = address.to_owned();
    let text = render(&status, false);
    for line in text.lines() {
        assert!(line.chars().count() <= terminal::WIDTH, "{line}");
    }
}

#[test]
fn check_tells_all_as_wanted_from_degraded_and_from_nothing() {
    let mut status = mixed();
    let (code, line) = verdict(&status);
    assert_eq!(code, 1);
    assert!(line.contains("dns 192.0.2.53 to tor2") && line.contains("ntp 192.0.2.123 to tor1"), "{line}");
    assert!(!line.contains("web"), "drained is as wanted: {line}");

    status.services.truncate(1);
    for vip in &mut status.services[0].vips {
        vip.peers[1] = peer("tor2", true, None);
    }
    assert_eq!(verdict(&status), (0, "all as wanted: 4 announced".to_owned()));

    // Withdrawn, but not written yet.
    status.services[0].vips[0].reason = Some(Reason::Unhealthy);
    assert_eq!(verdict(&status).0, 1);

    for vip in &mut status.services[0].vips {
        vip.peers.iter_mut().for_each(|peer| peer.advertised = false);
    }
    assert_eq!(verdict(&status).0, 2);
}
