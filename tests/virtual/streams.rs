//! What cables do to sessions.

use std::time::Duration;

use anyvip_virtual::world::{Condition, Fabric, Fault, Impairment};

use crate::lab::{Small, established, next_hops, secs, uses};

#[test]
fn a_cut_shorter_than_the_hold_time_costs_nothing() {
    let mut lab = Small::new(1);
    let (link, _) = lab.cable("h0", 0);
    for _ in 0..10 {
        lab.fault(Fault::Cut { link, cut: true });
        lab.pass(secs(4));
        lab.fault(Fault::Cut { link, cut: false });
        lab.pass(secs(8));
        assert!(uses(&lab.world, "tor0", "h0"), "{}", lab.tale());
    }
}

#[test]
fn a_cut_longer_than_the_hold_time_ends_the_session_on_both_sides() {
    let mut lab = Small::new(2);
    let (link, _) = lab.cable("h0", 0);
    lab.fault(Fault::Cut { link, cut: true });
    lab.until("the router gives up", secs(12), |world| !uses(world, "tor0", "h0"));
    lab.until("the host gives up", secs(12), |world| !established(world, "h0", "tor0"));
    assert!(uses(&lab.world, "tor1", "h0"));
    lab.pass(secs(60));
    lab.fault(Fault::Cut { link, cut: false });
    lab.until("it is back", secs(20), |world| uses(world, "tor0", "h0"));
}

#[test]
fn a_cable_that_carries_one_way_only_ends_the_session_whichever_way_it_is() {
    for way in 0..2 {
        let mut lab = Small::new(3);
        let (link, _) = lab.cable("h0", 0);
        lab.fault(Fault::CutOneWay { link, end: way, cut: true });
        lab.until("both give up", secs(20), |world| {
            !uses(world, "tor0", "h0") && !established(world, "h0", "tor0")
        });
        lab.fault(Fault::CutOneWay { link, end: way, cut: false });
        lab.until("it is back", secs(40), |world| uses(world, "tor0", "h0"));
    }
}

#[test]
fn half_open_connections_are_found_when_a_rebooted_host_knows_nothing_of_them() {
    let mut lab = Small::new(4);
    let (host, router) = (lab.node("h0"), lab.node("tor0"));
    // Behind cables that are cut nobody sees the links go down, and the reboot is faster than the hold time.
    let cables = [lab.cable("h0", 0).0, lab.cable("h0", 1).0];
    let _ = router;
    for link in cables {
        lab.fault(Fault::Cut { link, cut: true });
    }
    lab.fault(Fault::KillAgent { host });
    lab.pass(Duration::from_millis(500));
    assert!(uses(&lab.world, "tor0", "h0"), "the FIN was lost");
    for link in cables {
        lab.fault(Fault::Cut { link, cut: false });
    }
    lab.fault(Fault::StartAgent { host });
    lab.until("it is announced anew", secs(15), |world| {
        established(world, "h0", "tor0") && uses(world, "tor0", "h0") && uses(world, "tor1", "h0")
    });
}

#[test]
fn loss_and_jitter_delay_sessions_and_do_not_break_them() {
    let bad = Impairment {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(15),
        loss_ppm: 20_000,
        ..Impairment::default()
    };
    let mut lab = Small::of(Fabric { hosts: 5, impairment: bad, ..Fabric::default() }, 5);
    lab.pass(secs(600));
    assert_eq!(next_hops(&lab.world, "tor0"), 5);
    lab.service("h3", Condition::Hanging);
    lab.until("it is withdrawn", secs(8), |world| !uses(world, "tor0", "h3") && !uses(world, "tor1", "h3"));
}

#[test]
fn a_slow_cable_carries_everything_in_order() {
    let thin = Impairment { rate: Some(2_000), ..Impairment::default() };
    let mut lab = Small::of(Fabric { hosts: 2, impairment: thin, ..Fabric::default() }, 6);
    lab.pass(secs(60));
    assert_eq!(next_hops(&lab.world, "tor0"), 2);
}
