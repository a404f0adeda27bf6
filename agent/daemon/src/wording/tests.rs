use anyvip_core::utc;
use anyvip_machine::{Failure, FailureKind};

use super::*;

fn words(said: Fact) -> String {
    fact(&said).text
}

#[test]
fn each_fact_reads_as_one_plain_sentence() {
    let refused = Failure::new(FailureKind::PermissionDenied, "Operation not permitted");
    let vip: IpAddr = "192.0.2.53".parse().unwrap();
    let facts = [
        (
            Fact::CheckChanged {
                service: "dns".into(),
                check: "resolver".into(),
                target: Target::Vip(vip),
                from: HealthState::Up,
                to: HealthState::Down,
                after: Duration::from_secs(192),
                detail: "connection refused".to_owned(),
            },
            "dns: check resolver on 192.0.2.53 went from up to down after 3m12s: connection refused",
        ),
        (
            Fact::CheckError {
                service: "dns".into(),
                check: "resolver".into(),
                target: Target::Own,
                detail: Some("out of file descriptors".to_owned()),
            },
            "dns: check resolver cannot be made: out of file descriptors \
             (says nothing about the service; its last health stands)",
        ),
        (
            Fact::CheckError {
                service: "dns".into(),
                check: "resolver".into(),
                target: Target::Own,
                detail: None,
            },
            "dns: check resolver can be made again",
        ),
        (
            Fact::VerdictChanged {
                service: "dns".into(),
                vip,
                peer: "tor1".into(),
                announced: true,
                reason: None,
                standing: Standing::Normal,
            },
            "dns: 192.0.2.53 is announced to tor1",
        ),
        (
            Fact::VerdictChanged {
                service: "dns".into(),
                vip,
                peer: "tor1".into(),
                announced: true,
                reason: None,
                standing: Standing::Depreferenced,
            },
            "dns: 192.0.2.53 is announced to tor1, depreferenced: it is unhealthy",
        ),
        (
            Fact::VerdictChanged {
                service: "dns".into(),
                vip,
                peer: "tor1".into(),
                announced: false,
                reason: Some(Reason::Unhealthy),
                standing: Standing::Normal,
            },
            "dns: 192.0.2.53 is withheld from tor1: a check says the service is down",
        ),
        (
            Fact::PeerChanged {
                peer: "tor1".into(),
                from: PeerState::OpenConfirm,
                to: PeerState::Established,
            },
            "tor1: the BGP session is up (Established)",
        ),
        (
            Fact::PeerChanged { peer: "tor1".into(), from: PeerState::Established, to: PeerState::Idle },
            "tor1: the BGP session is down, now Idle",
        ),
        (
            Fact::PeerDown {
                peer: "tor1".into(),
                was_established: false,
                planned: false,
                text: "connection refused".to_owned(),
            },
            "tor1: no BGP session: connection refused; trying again",
        ),
        (
            Fact::PeerDown {
                peer: "tor1".into(),
                was_established: true,
                planned: false,
                text: "hold timer".to_owned(),
            },
            "tor1: the BGP session ended: hold timer",
        ),
        (
            Fact::PeerNotice { peer: None, text: "refused a connection from 10.0.0.9".to_owned() },
            "BGP: refused a connection from 10.0.0.9",
        ),
        (
            Fact::VipChanged {
                vip,
                interface: "lo".to_owned(),
                present: true,
                owned: true,
                text: "found in place, adopted".to_owned(),
            },
            "192.0.2.53 on lo: found in place, adopted",
        ),
        (
            Fact::ArpChanged { interface: "eth0".to_owned(), guarded: true, text: "guarded".to_owned() },
            "eth0: the ARP guard is in place: this host is silent about its VIPs there",
        ),
        (
            Fact::ArpChanged {
                interface: "eth0".to_owned(),
                guarded: false,
                text: "somebody reset arp_ignore".to_owned(),
            },
            "eth0: the ARP guard is gone, this host may answer for its VIPs there: somebody reset arp_ignore",
        ),
        (
            Fact::KernelRefused { text: "add 192.0.2.53 to lo".to_owned(), failure: refused.clone() },
            "the kernel refused: add 192.0.2.53 to lo: Operation not permitted",
        ),
        (
            Fact::PersistFailed { failure: refused },
            "the state could not be written, so a drain would not survive a restart: Operation not permitted",
        ),
        (
            Fact::AdminChanged {
                service: "dns".into(),
                drained: true,
                reason: Some("kernel update".to_owned()),
            },
            "dns: drained by an operator: kernel update",
        ),
        (
            Fact::AdminChanged { service: "dns".into(), drained: false, reason: None },
            "dns: put back by an operator",
        ),
        (
            Fact::Reloaded { applied: false, text: "config.toml:3:1: unknown key".to_owned() },
            "configuration refused, the running one stays: config.toml:3:1: unknown key",
        ),
        (Fact::HeldBack { text: "3 unclean exits".to_owned() }, "3 unclean exits"),
        (Fact::Lifecycle { text: "started".to_owned() }, "started"),
    ];
    for (said, expected) in facts {
        assert_eq!(words(said), expected);
    }
}

#[test]
fn trouble_is_told_from_what_an_operator_wanted() {
    let withheld = |reason| {
        let vip = "192.0.2.53".parse().unwrap();
        fact(&Fact::VerdictChanged {
            service: "dns".into(),
            vip,
            peer: "tor1".into(),
            announced: false,
            reason: Some(reason),
            standing: Standing::Normal,
        })
        .weight
    };
    assert_eq!(withheld(Reason::Drained), Weight::Change);
    assert_eq!(withheld(Reason::Stopping), Weight::Change);
    assert_eq!(withheld(Reason::SessionDown), Weight::Change, "the end of the session is the trouble");
    assert_eq!(withheld(Reason::ReturnPath), Weight::Trouble);
    let ended = |planned| {
        let text = "Cease/Administrative Shutdown".to_owned();
        fact(&Fact::PeerDown { peer: "tor1".into(), was_established: true, planned, text }).weight
    };
    assert_eq!((ended(true), ended(false)), (Weight::Change, Weight::Trouble));
    assert_eq!(fact(&Fact::HeldBack { text: String::new() }).weight, Weight::Trouble);
}

#[test]
fn a_fact_carries_its_parts_for_machines() {
    let worded = fact(&Fact::CheckChanged {
        service: "dns".into(),
        check: "resolver".into(),
        target: Target::Own,
        from: HealthState::Unknown,
        to: HealthState::Up,
        after: Duration::from_millis(1200),
        detail: "200 OK".to_owned(),
    });
    let json = serde_json::to_value(&worded).unwrap();
    assert_eq!(json["kind"], "check_changed");
    assert_eq!((json["from"].as_str(), json["to"].as_str()), (Some("unknown"), Some("up")));
    assert_eq!(json["after_ms"], 1200);
    assert!(json.get("vip").is_none());
}

#[test]
fn durations_have_two_units_at_most() {
    let cases = [
        (0, "0ms"),
        (850, "850ms"),
        (12_000, "12s"),
        (192_000, "3m12s"),
        (5 * 3_600_000 + 180_000, "5h03m"),
        (12 * 86_400_000 + 4 * 3_600_000, "12d4h"),
    ];
    for (ms, expected) in cases {
        assert_eq!(for_ms(ms), expected);
    }
    assert_eq!(
        (micros(310), micros(3_140), micros(1_204_000)),
        ("310µs".into(), "3.1ms".into(), "1.20s".into())
    );
}

#[test]
fn the_calendar_knows_leap_years() {
    assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
    assert_eq!(utc(1_795_228_746_123), "2026-11-21T02:39:06.123Z");
}
