//! What happens to routers.

use std::time::Duration;

use anyvip_virtual::world::Fault;

use crate::lab::{Small, established, next_hops, secs, uses};

#[test]
fn a_router_that_restarts_has_every_route_again() {
    let mut lab = Small::new(1);
    let router = lab.node("tor0");
    lab.fault(Fault::KillRouter { router });
    assert_eq!(next_hops(&lab.world, "tor0"), 0);
    lab.pass(secs(20));
    assert_eq!(next_hops(&lab.world, "tor1"), 3);
    lab.fault(Fault::StartRouter { router });
    lab.until("all sessions stand again", secs(5), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_router_without_power_is_found_out_by_hold_time_and_comes_back() {
    let mut lab = Small::new(2);
    let router = lab.node("tor1");
    lab.fault(Fault::RouterOff { router });
    lab.until("h0 notices", secs(12), |world| !established(world, "h0", "tor1"));
    lab.fault(Fault::RouterOn { router });
    lab.until("all is back", secs(30), |world| next_hops(world, "tor1") == 3);
}

#[test]
fn reset_sessions_come_back_within_seconds() {
    let mut lab = Small::new(3);
    let router = lab.node("tor0");
    lab.fault(Fault::ResetSessions { router });
    assert_eq!(next_hops(&lab.world, "tor0"), 0);
    lab.until("all is back", secs(5), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_router_that_takes_connections_and_answers_nobody_is_left_and_tried_again() {
    let mut lab = Small::new(4);
    let router = lab.node("tor0");
    lab.fault(Fault::Ignore { router, ignores: true });
    lab.fault(Fault::ResetSessions { router });
    lab.pass(secs(100));
    assert!(!established(&lab.world, "h0", "tor0"));
    assert_eq!(next_hops(&lab.world, "tor1"), 3);
    lab.fault(Fault::Ignore { router, ignores: false });
    lab.until("it answers again", secs(70), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_router_that_reads_nothing_loses_its_sessions_by_its_own_hold_time() {
    let mut lab = Small::new(5);
    let router = lab.node("tor0");
    lab.fault(Fault::Stall { router, stalled: true });
    lab.until("its hold time ends", secs(12), |world| next_hops(world, "tor0") == 0);
    lab.fault(Fault::Stall { router, stalled: false });
    lab.until("it is back", secs(60), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_slow_router_gets_everything_in_the_end() {
    let mut lab = Small::new(6);
    let node = lab.node("tor0");
    lab.fault(Fault::Slow { node, each: Duration::from_millis(30) });
    lab.fault(Fault::ResetSessions { router: node });
    lab.until("all is back", secs(20), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_router_that_forgets_routes_is_seen_in_its_tables_and_not_by_the_agent() {
    let mut lab = Small::new(7);
    let router = lab.node("tor0");
    lab.fault(Fault::ForgetRoutes { router, peer: Some("h1".into()) });
    lab.pass(secs(30));
    assert!(!uses(&lab.world, "tor0", "h1") && established(&lab.world, "h1", "tor0"));
}
