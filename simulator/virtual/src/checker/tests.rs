use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Time;

use super::facts::{Admin, MachineFacts, PathFacts, PeerFacts, RouterFacts, VipFacts};
use super::*;

fn vip() -> VipFacts {
    VipFacts {
        vip: IpAddr::from([192, 0, 2, 53]),
        present: true,
        guarded: Some(true),
        healthy: Some(true),
        detection: Duration::from_secs(3),
        depreferences: false,
        admin: Admin::Enabled,
        able: true,
        wanted: true,
        untouched: true,
    }
}

fn peer() -> PeerFacts {
    PeerFacts { established: true, admitted: true, decided: true, preferred: true, advertised: true }
}

fn router() -> RouterFacts {
    RouterFacts {
        able: true,
        clear: true,
        established: true,
        heard: true,
        retained: None,
        equal: true,
        chosen: Some(true),
        hold_time: Some(Duration::from_secs(9)),
        agent_silent: None,
        agent_slow: false,
    }
}

fn place() -> Place {
    Place { node: 0, peer: 0, vip: None }
}

/// Looks each second, and says what was found and in which second.
fn found(seconds: u64, mut look: impl FnMut(&mut Checker, Time)) -> Vec<(Invariant, u64)> {
    let mut checker = Checker::default();
    for second in 0..=seconds {
        look(&mut checker, Time::from_secs(second));
    }
    checker.violations().iter().map(|found| (found.invariant, found.at.as_millis() / 1000)).collect()
}

fn name() -> String {
    "h0".to_owned()
}

#[test]
fn a_host_that_is_well_is_no_suspect() {
    let all = found(300, |checker, now| {
        checker.vip(now, place(), &vip(), &name);
        checker.peer(now, place(), &vip(), &peer(), &name);
        let other = Place { peer: 1, ..place() };
        checker.router(now, other, (&vip(), &peer(), &router()), &name);
        checker.quiet(now, other, &peer(), &router(), &name);
    });
    assert_eq!(all, []);
    assert_eq!(rules::not_recovered(&vip(), &peer(), Some(&router())), None);
}

#[test]
fn an_announcement_without_its_address_may_last_a_guard_period() {
    let missing = VipFacts { present: false, ..vip() };
    let all = found(20, |checker, now| checker.peer(now, place(), &missing, &peer(), &name));
    assert_eq!(all, [(Invariant::AddressBehindAnnouncement, 6)]);
    let bare = VipFacts { guarded: Some(false), ..vip() };
    let all = found(20, |checker, now| checker.peer(now, place(), &bare, &peer(), &name));
    assert_eq!(all, [(Invariant::AddressBehindAnnouncement, 6)]);
    let blind = VipFacts { able: false, ..missing };
    assert_eq!(found(90, |checker, now| checker.peer(now, place(), &blind, &peer(), &name)), []);
}

#[test]
fn what_ends_in_between_begins_anew() {
    let all = found(100, |checker, now| {
        let present = now.as_millis() / 1000 % 5 == 0;
        checker.peer(now, place(), &VipFacts { present, ..vip() }, &peer(), &name);
    });
    assert_eq!(all, []);
}

#[test]
fn what_is_down_may_be_announced_for_its_detection_and_no_longer() {
    let down = VipFacts { healthy: Some(false), ..vip() };
    let all = found(20, |checker, now| checker.peer(now, place(), &down, &peer(), &name));
    assert_eq!(all, [(Invariant::DownIsWithdrawn, 4)]);
    let lowered = PeerFacts { preferred: false, ..peer() };
    assert_eq!(found(90, |checker, now| checker.peer(now, place(), &down, &lowered, &name)), []);
    let undecided = VipFacts { healthy: None, ..vip() };
    assert_eq!(found(90, |checker, now| checker.peer(now, place(), &undecided, &peer(), &name)), []);
}

#[test]
fn a_router_forgets_a_dead_agent_within_the_hold_time() {
    let dead = RouterFacts { agent_silent: Some(Duration::MAX), ..router() };
    let gone = PeerFacts::default();
    let all = found(60, |checker, now| checker.router(now, place(), (&vip(), &gone, &dead), &name));
    assert!(all.contains(&(Invariant::DownIsWithdrawn, 15)), "{all:?}");
    let busy = RouterFacts { able: false, ..dead };
    assert_eq!(found(60, |checker, now| checker.router(now, place(), (&vip(), &gone, &busy), &name)), []);
    // It spoke in second 10, between two looks.
    let all = found(60, |checker, now| {
        let spoke = Time::from_secs(if now >= Time::from_secs(10) { 10 } else { 0 });
        let silent = RouterFacts { agent_silent: Some(now.since(spoke)), ..router() };
        checker.router(now, place(), (&vip(), &gone, &silent), &name);
    });
    assert_eq!(all.first(), Some(&(Invariant::DownIsWithdrawn, 25)), "{all:?}");
}

/// RFC 4724: the router has been asked to wait.
#[test]
fn a_router_may_keep_the_routes_of_a_restart_for_their_time_and_those_of_a_dead_service_not_so_long() {
    let gone = PeerFacts::default();
    let kept =
        |left: u64| RouterFacts { heard: false, retained: Some(Duration::from_secs(left)), ..router() };
    let waits = |checker: &mut Checker, now: Time| {
        let facts = RouterFacts {
            agent_silent: Some(Duration::MAX),
            ..kept(30u64.saturating_sub(now.as_millis() / 1000))
        };
        checker.router(now, place(), (&vip(), &gone, &facts), &name);
    };
    let all = found(60, waits);
    assert_eq!(all.first(), Some(&(Invariant::DownIsWithdrawn, 45)), "{all:?}");
    let dead = VipFacts { healthy: Some(false), ..vip() };
    let all = found(200, |checker, now| checker.router(now, place(), (&dead, &gone, &kept(300)), &name));
    let first = all.iter().find(|(invariant, _)| *invariant == Invariant::DownIsWithdrawn).map(|(_, at)| *at);
    assert!(first.is_some_and(|first| (60..120).contains(&first)), "{all:?}");
}

#[test]
fn views_that_differ_are_wrong_at_once_when_quiet_and_soon_otherwise() {
    let lost = RouterFacts { heard: false, chosen: Some(false), ..router() };
    let all = found(0, |checker, now| checker.quiet(now, place(), &peer(), &lost, &name));
    assert_eq!(all, [(Invariant::ViewsAgree, 0)]);
    let other = RouterFacts { equal: false, ..router() };
    let all = found(60, |checker, now| checker.router(now, place(), (&vip(), &peer(), &other), &name));
    assert_eq!(all, [(Invariant::ViewsAgree, 15)]);
    let cut = RouterFacts { clear: false, ..other };
    assert_eq!(found(60, |checker, now| checker.router(now, place(), (&vip(), &peer(), &cut), &name)), []);
}

#[test]
fn what_is_missing_after_healing_is_named() {
    let none = PeerFacts { advertised: false, ..peer() };
    assert_eq!(rules::not_recovered(&vip(), &none, Some(&router())), Some("is not announced"));
    let idle = PeerFacts { established: false, ..none };
    assert_eq!(rules::not_recovered(&vip(), &idle, None), Some("has no session to be announced on"));
    let deaf = RouterFacts { heard: false, ..router() };
    let text = rules::not_recovered(&vip(), &peer(), Some(&deaf));
    assert_eq!(text, Some("is announced and not known to the router"));
    let down = VipFacts { healthy: Some(false), ..vip() };
    assert_eq!(rules::not_recovered(&down, &peer(), None), Some("is still announced"));
    assert_eq!(rules::not_recovered(&down, &none, None), None);
    let drained = VipFacts { admin: Admin::Drained, ..vip() };
    assert_eq!(rules::not_recovered(&drained, &peer(), None), Some("is still announced"));
    let foreign = PeerFacts { admitted: false, ..peer() };
    let text = rules::not_recovered(&vip(), &foreign, None);
    assert_eq!(text, Some("is announced to a peer that it is not for"));
}

#[test]
fn a_vip_before_its_guard_is_wrong_at_once_and_a_guard_that_somebody_took_away_after_a_while() {
    let bare = VipFacts { guarded: Some(false), ..vip() };
    let all = found(0, |checker, now| checker.vip(now, place(), &bare, &name));
    assert_eq!(all, [(Invariant::VipIsSilent, 0)]);
    let taken = VipFacts { untouched: false, ..bare };
    let all = found(30, |checker, now| checker.vip(now, place(), &taken, &name));
    assert_eq!(all, [(Invariant::VipIsSilent, 11)]);
}

#[test]
fn a_drained_host_is_wrong_as_soon_as_it_is_wanted_and_when_a_router_goes_on_sending() {
    let drained = VipFacts { admin: Admin::Drained, ..vip() };
    let all = found(0, |checker, now| checker.peer(now, place(), &drained, &peer(), &name));
    assert_eq!(all, [(Invariant::DrainedGetsNothing, 0)]);
    let all = found(60, |checker, now| {
        let withdrawn = PeerFacts { decided: false, preferred: false, advertised: false, ..peer() };
        let stray = RouterFacts { heard: false, ..router() };
        checker.router(now, place(), (&drained, &withdrawn, &stray), &name);
    });
    assert_eq!(all, [(Invariant::DrainedGetsNothing, 24)]);
    let asked = VipFacts { admin: Admin::Undecided, ..vip() };
    assert_eq!(found(90, |checker, now| checker.peer(now, place(), &asked, &peer(), &name)), []);
}

#[test]
fn late_deadlines_turning_machines_and_bugs_are_no_progress() {
    let calm = MachineFacts { most_events: 100, most_size: 10, most_backlog: 10, ..MachineFacts::default() };
    for (facts, wrong) in [
        (calm, false),
        (MachineFacts { overdue: Duration::from_secs(1), ..calm }, true),
        (MachineFacts { events: 101, ..calm }, true),
        (MachineFacts { bugs: 1, ..calm }, true),
    ] {
        let all = found(0, |checker, now| checker.machine(now, place(), &facts, &name));
        assert_eq!(all.contains(&(Invariant::Progress, 0)), wrong, "{facts:?}");
    }
}

#[test]
fn state_and_queues_that_grow_beyond_their_bound_are_found() {
    let calm = MachineFacts { most_events: 100, most_size: 10, most_backlog: 10, ..MachineFacts::default() };
    for facts in [MachineFacts { size: 11, ..calm }, MachineFacts { backlog: 11, ..calm }] {
        let all = found(0, |checker, now| checker.machine(now, place(), &facts, &name));
        assert_eq!(all, [(Invariant::BoundedMemory, 0)], "{facts:?}");
    }
}

#[test]
fn the_same_thing_is_told_once_and_numbered_as_in_the_design() {
    let bare = VipFacts { guarded: Some(false), ..vip() };
    assert_eq!(found(30, |checker, now| checker.vip(now, place(), &bare, &name)).len(), 1);
    let numbers: Vec<usize> = Invariant::ALL.iter().map(|invariant| invariant.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn bfd_must_see_a_dead_path_within_its_detection_time_and_end_what_it_guards() {
    let well = PathFacts {
        able: true,
        up: true,
        detection: Duration::from_secs(1),
        running: Duration::MAX,
        ..PathFacts::default()
    };
    assert_eq!(found(60, |checker, now| checker.path(now, place(), &well, &name)), []);
    let silent = |now: Time| PathFacts { silent: now.since(Time::ZERO), ..well };
    let all = found(60, |checker, now| checker.path(now, place(), &silent(now), &name));
    assert_eq!(all, [(Invariant::PathGuard, 2)]);
    let stopped = |now: Time| PathFacts { running: Duration::from_secs(1), ..silent(now) };
    assert_eq!(found(60, |checker, now| checker.path(now, place(), &stopped(now), &name)), []);
    let outlived = PathFacts { up: false, outlived: true, ..well };
    let all = found(60, |checker, now| checker.path(now, place(), &outlived, &name));
    assert_eq!(all, [(Invariant::PathGuard, 1)]);
    let slow = PathFacts { able: false, ..outlived };
    assert_eq!(found(60, |checker, now| checker.path(now, place(), &slow, &name)), []);
}
