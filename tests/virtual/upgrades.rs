//! `anyvip upgrade`: one program takes over from the other, and routers that were asked to keep the routes meanwhile.

use std::time::Duration;

use anyvip_virtual::world::{Condition, Ended, Fabric, Fault, Operation, World};

use crate::lab::{Small, established, next_hops, secs, uses};

const PAUSE: Duration = Duration::from_millis(300);

fn graceful(seed: u64, bfd: bool) -> Small {
    let (graceful_restart, bfd) = (Some(secs(60)), bfd.then(|| Duration::from_millis(100)));
    let fabric = Fabric { hosts: 3, routers: 2, graceful_restart, bfd, ..Fabric::default() };
    let mut lab = Small::of(fabric, seed);
    lab.pass(secs(10));
    lab
}

fn upgrade() -> Operation {
    Operation::Upgrade { pause: Some(PAUSE), force: false }
}

fn starts(world: &World, host: &str) -> u32 {
    world.host(world.find(host).unwrap()).unwrap().starts
}

fn phase(world: &World, host: &str) -> Option<String> {
    let host = world.host(world.find(host).unwrap()).unwrap();
    let status = host.agent()?.status(host.agent_time(world.now())?);
    Some(status.upgrade?.phase)
}

fn both_use(world: &World, host: &str) -> bool {
    uses(world, "tor0", host) && uses(world, "tor1", host)
}

/// Lets the upgrade end, and holds both routers to their routes all the time.
fn passes_without_a_loss(lab: &mut Small) {
    lab.until("the new program has decided everything", secs(40), |world| {
        assert!(both_use(world, "h0"), "lost at {}", world.now());
        starts(world, "h0") == 2 && phase(world, "h0").as_deref() == Some("done")
    });
    lab.until("nothing is left of the former sessions", secs(5), |world| {
        assert!(both_use(world, "h0"), "lost at {}", world.now());
        ["tor0", "tor1"].iter().all(|router| !retains(world, router))
    });
}

fn retains(world: &World, router: &str) -> bool {
    let machine = world.router(world.find(router).unwrap()).unwrap().machine().unwrap();
    machine.retained(world.now(), &"h0".into()).is_some_and(|(_, prefixes)| !prefixes.is_empty())
}

#[test]
fn an_upgrade_loses_no_route_although_both_sessions_end() {
    let mut lab = graceful(1, false);
    lab.operate("h0", upgrade());
    lab.until("the former program is gone", secs(3), |world| {
        assert!(both_use(world, "h0"));
        !established(world, "h0", "tor0") && retains(world, "tor0")
    });
    let host = lab.node("h0");
    assert_eq!(lab.world.host(host).unwrap().ended.as_ref().unwrap().1, Ended::Replaced);
    assert!(!lab.world.quiet(), "somebody is on the way");
    passes_without_a_loss(&mut lab);
}

#[test]
fn bfd_that_guards_the_sessions_does_not_end_them_in_an_upgrade() {
    let mut lab = graceful(2, true);
    lab.operate("h0", upgrade());
    passes_without_a_loss(&mut lab);
}

#[test]
fn without_graceful_restart_an_upgrade_is_refused_and_by_force_the_routes_go_and_come_back() {
    let mut lab = Small::new(3);
    lab.operate("h0", upgrade());
    lab.pass(secs(5));
    let host = lab.node("h0");
    let (_, _, reply) = lab.world.host(host).unwrap().replies.last().unwrap().clone();
    assert!(!reply.done && reply.text.contains("graceful_restart is off"), "{reply:?}");
    assert_eq!((starts(&lab.world, "h0"), both_use(&lab.world, "h0")), (1, true));
    lab.operate("h0", Operation::Upgrade { pause: Some(PAUSE), force: true });
    lab.until("they go", secs(5), |world| !uses(world, "tor0", "h0"));
    lab.until("they come back", secs(5), |world| both_use(world, "h0"));
}

#[test]
fn a_full_disk_or_a_program_that_cannot_be_run_leaves_the_former_one_at_work() {
    for full in [true, false] {
        let mut lab = graceful(4, false);
        let host = lab.node("h0");
        lab.fault(Fault::DiskFull { host, full });
        lab.operate("h0", Operation::Upgrade { pause: full.then_some(PAUSE), force: false });
        lab.until("it gives up", secs(10), |world| {
            assert!(both_use(world, "h0") && established(world, "h0", "tor0"));
            phase(world, "h0").as_deref() == Some("failed")
        });
        assert_eq!(starts(&lab.world, "h0"), 1);
        lab.fault(Fault::DiskFull { host, full: false });
        lab.operate("h0", upgrade());
        passes_without_a_loss(&mut lab);
    }
}

#[test]
fn a_service_that_dies_between_the_programs_is_withdrawn_by_the_new_one() {
    let mut lab = graceful(5, false);
    let host = lab.node("h0");
    lab.operate("h0", upgrade());
    lab.until("it is between", secs(3), |world| world.host(host).unwrap().is_between());
    lab.service("h0", Condition::Dead);
    let took =
        lab.until("withdrawn", secs(10), |world| !uses(world, "tor0", "h0") && !uses(world, "tor1", "h0"));
    assert!(took < secs(6), "{took:?}: as soon as its checks have failed, not when the routers have waited");
    lab.service("h0", Condition::Serving);
    lab.until("back", secs(10), |world| both_use(world, "h0"));
}

#[test]
fn a_process_killed_between_the_programs_leaves_its_routes_for_the_restart_time_and_not_longer() {
    let mut lab = graceful(6, false);
    let host = lab.node("h0");
    lab.operate("h0", upgrade());
    lab.until("it is between", secs(3), |world| world.host(host).unwrap().is_between());
    lab.operate("h0", Operation::Terminate);
    let took = lab.until("the router gives it up", secs(70), |world| !uses(world, "tor0", "h0"));
    assert!(took > secs(55) && took < secs(61), "{took:?}");
    lab.operate("h0", Operation::Start);
    lab.until("a new one begins like any other", secs(10), |world| next_hops(world, "tor0") == 3);
    assert_eq!(phase(&lab.world, "h0"), None);
}

#[test]
fn a_host_that_goes_between_the_programs_is_given_up_with_its_cable() {
    let mut lab = graceful(7, false);
    let host = lab.node("h0");
    lab.operate("h0", upgrade());
    lab.until("it is between", secs(3), |world| world.host(host).unwrap().is_between());
    lab.fault(Fault::PowerOff { host });
    lab.until("its cable tells", secs(1), |world| !uses(world, "tor0", "h0") && !uses(world, "tor1", "h0"));
    lab.fault(Fault::PowerOn { host, state: true });
    lab.until("it is back", secs(20), |world| both_use(world, "h0"));
    assert_eq!(phase(&lab.world, "h0"), None, "another boot believes nothing");
}

#[test]
fn an_agent_that_is_killed_takes_nobody_over_and_its_routers_wait() {
    let mut lab = graceful(8, false);
    let host = lab.node("h0");
    lab.fault(Fault::KillAgent { host });
    lab.pass(secs(20));
    assert!(both_use(&lab.world, "h0"), "that is what graceful restart costs");
    lab.fault(Fault::StartAgent { host });
    // It does not know what it was: it says with its OPEN that it has kept nothing (RFC 4724 §4.2).
    lab.until("given up", secs(2), |world| !uses(world, "tor0", "h0"));
    lab.until("and told anew", secs(10), |world| both_use(world, "h0"));
}
