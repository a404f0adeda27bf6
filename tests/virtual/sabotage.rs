//! Every invariant can fail: a driver that is broken on purpose breaks it, and the checker says so.

use std::time::Duration;

use anyvip_machine::Time;
use anyvip_virtual::checker::Invariant;
use anyvip_virtual::sweep::{BfdPlan, BfdUse, Bounds, Case, Kind, Outcome, Strike, Swarm, run_world};
use anyvip_virtual::world::{
    Condition, Fault, Impairment, NodeId, Operation, Options, Planned, Sabotage, Tracing,
};

use crate::lab::time;

/// Three hosts and two routers, one service, and only these strikes.
fn case(steps: Vec<(u64, Planned)>) -> Case {
    let bounds = Bounds { hosts: Some(3), time: Duration::from_secs(120) };
    let mut case = Case::draw(1, &bounds);
    let plain = |swarm: &mut Swarm| {
        swarm.shape = anyvip_virtual::sweep::Shape::Routed;
        (swarm.routers, swarm.uplinks) = (2, 2);
        (swarm.dual_stack, swarm.sessions_v6, swarm.listen, swarm.both_connect) =
            (false, false, false, false);
        (swarm.hold_time, swarm.router_hold_time) =
            (Some(Duration::from_secs(9)), Some(Duration::from_secs(9)));
        (swarm.delay, swarm.jitter) = (Impairment::default().delay, Impairment::default().jitter);
        swarm.bfd = None;
        swarm.services.truncate(1);
        for service in &mut swarm.services {
            service.vips = vec![crate::lab::vip()];
            service.interval = Some(Duration::from_secs(1));
            (service.rise, service.fall) = (2, 2);
            (service.own_check, service.on_error_fail, service.first_peer_only) = (false, false, false);
            (service.depreferences, service.drain_time, service.med) = (false, None, None);
        }
        swarm.rates.clear();
    };
    case.swarm.graceful_restart = None;
    plain(&mut case.swarm);
    let steps = steps.into_iter().map(|(at, planned)| (time(at), planned)).collect();
    case.strikes = vec![Strike { kind: Kind::Reload, steps }];
    case
}

/// The host that is broken.
const HOST: NodeId = NodeId(3);

fn outcome(case: Case, sabotage: Option<Sabotage>) -> Outcome {
    let mut world = case.swarm.build(1, Options { tracing: Tracing::Text(20), notes: false });
    assert_eq!(world.name(HOST), "h1");
    // It begins well.
    world.run_until(Time::from_secs(8));
    world.sabotage(HOST, sabotage);
    run_world(&case, &mut world, &mut |_| {})
}

#[track_caller]
fn breaks(steps: &[(u64, Planned)], sabotage: Sabotage, invariant: Invariant) {
    breaks_with(|_| {}, steps, sabotage, invariant);
}

/// The same with another swarm.
#[track_caller]
fn breaks_with(
    change: impl Fn(&mut Swarm),
    steps: &[(u64, Planned)],
    sabotage: Sabotage,
    invariant: Invariant,
) {
    let run = |sabotage| {
        let mut case = case(steps.to_vec());
        change(&mut case.swarm);
        outcome(case, sabotage)
    };
    let well = run(None);
    assert_eq!(well.violation, None, "with a driver that works");
    assert!(well.recovered.is_some());
    let broken = run(Some(sabotage));
    let violation = broken.violation.expect("nothing was found");
    assert_eq!(violation.invariant, invariant, "{violation}");
    assert!(violation.text.contains("h1"), "{violation}");
}

fn bfd(use_: BfdUse) -> impl Fn(&mut Swarm) {
    move |swarm| {
        let (interval, multiplier) = (Duration::from_millis(300), 3);
        swarm.bfd = Some(BfdPlan { use_, interval, multiplier });
        if use_ == BfdUse::Tracked {
            let mut tracked = swarm.services[0].clone();
            (tracked.vips, tracked.tracked) = (vec!["192.0.2.99".parse().unwrap()], true);
            swarm.services.push(tracked);
        }
    }
}

fn fault(at: u64, fault: Fault) -> (u64, Planned) {
    (at, Planned::Fault(fault))
}

#[test]
fn invariant_1_fails_when_the_agent_does_not_see_that_its_vip_is_gone() {
    let steps = [fault(20, Fault::DeleteAddress { host: HOST, address: crate::lab::vip() })];
    breaks(&steps, Sabotage::StaleViews, Invariant::AddressBehindAnnouncement);
}

#[test]
fn invariant_2_fails_when_every_probe_is_said_to_pass() {
    let dead = |condition| Fault::Service { host: HOST, service: None, condition };
    let steps = [fault(20, dead(Condition::Dead)), fault(60, dead(Condition::Serving))];
    breaks(&steps, Sabotage::PassesAll, Invariant::DownIsWithdrawn);
}

#[test]
fn invariant_3_fails_when_withdrawals_are_lost_and_said_to_be_sent() {
    let dead = |condition| Fault::Service { host: HOST, service: None, condition };
    let steps = [fault(20, dead(Condition::Dead)), fault(80, dead(Condition::Serving))];
    breaks(&steps, Sabotage::DropsWithdrawals, Invariant::ViewsAgree);
}

#[test]
fn invariant_4_fails_when_a_service_that_serves_is_said_to_fail() {
    breaks(&[], Sabotage::FailsAll, Invariant::Recovery);
}

#[test]
fn invariant_5_fails_when_the_guard_is_said_to_be_set_and_is_not() {
    let interface = || "eth0".to_owned();
    let steps = [fault(20, Fault::SetArp { host: HOST, interface: interface(), ignore: 0, announce: 0 })];
    // What is announced is unguarded, too: that is found first unless nothing is announced.
    let drain = Operation::Drain { service: None, reason: None };
    let undrain = Operation::Undrain { service: None };
    let operate = |at, operation| (at, Planned::Operation { host: HOST, operation });
    let steps = [operate(15, drain), steps[0].clone(), operate(100, undrain)];
    breaks(&steps, Sabotage::NoGuard, Invariant::VipIsSilent);
}

#[test]
fn invariant_6_fails_when_a_drain_is_promised_and_forgotten() {
    let operate = |at, operation| (at, Planned::Operation { host: HOST, operation });
    let drain = Operation::Drain { service: None, reason: None };
    let steps = [operate(20, drain), operate(60, Operation::Undrain { service: None })];
    breaks(&steps, Sabotage::ForgetsDrains, Invariant::DrainedGetsNothing);
}

#[test]
fn invariant_7_fails_when_deadlines_are_kept_from_the_agent() {
    breaks(&[], Sabotage::FrozenDeadlines, Invariant::Progress);
}

#[test]
fn invariant_8_fails_when_the_driver_keeps_every_answer() {
    let case = case(Vec::new());
    let mut world = case.swarm.build(1, Options::default());
    world.sabotage(HOST, Some(Sabotage::Leaks));
    let long = Case { heal_at: Time::from_secs(600), ..case };
    let violation = run_world(&long, &mut world, &mut |_| {}).violation.expect("nothing was found");
    assert_eq!(violation.invariant, Invariant::BoundedMemory, "{violation}");
}

#[test]
fn invariant_2_fails_when_a_static_route_is_kept_for_a_service_that_is_down() {
    let dead = |condition| Fault::Service { host: HOST, service: None, condition };
    let steps = [fault(20, dead(Condition::Dead)), fault(60, dead(Condition::Serving))];
    breaks_with(bfd(BfdUse::Tracked), &steps, Sabotage::WantsBfdUp, Invariant::DownIsWithdrawn);
}

#[test]
fn invariant_9_fails_when_a_session_outlives_the_failure_of_its_path() {
    // The router says nothing itself while it stands still.
    let node = NodeId(1);
    let steps = [fault(20, Fault::Freeze { node }), fault(26, Fault::Continue { node })];
    breaks_with(bfd(BfdUse::Guards), &steps, Sabotage::HidesBfdFailures, Invariant::PathGuard);
}

#[test]
fn invariant_9_fails_when_a_session_is_closed_because_bfd_was_switched_off() {
    let switch = |on| Fault::RouterBfd { router: NodeId(1), on };
    let steps = [fault(20, switch(false)), fault(60, switch(true))];
    breaks_with(bfd(BfdUse::Guards), &steps, Sabotage::MistakesAdminDown, Invariant::PathGuard);
}

#[test]
fn invariant_10_fails_when_the_next_program_is_handed_nothing() {
    let graceful = |swarm: &mut Swarm| swarm.graceful_restart = Some(Duration::from_secs(60));
    let operation = Operation::Upgrade { pause: Some(Duration::from_millis(70)), force: false };
    let steps = [(90, Planned::Operation { host: HOST, operation })];
    breaks_with(graceful, &steps, Sabotage::LosesInheritance, Invariant::UpgradeKeepsRoutes);
}
