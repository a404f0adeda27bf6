//! What people do.

use std::time::Duration;

use anyvip_core::ServiceName;
use anyvip_virtual::world::{Ended, Fault, Operation, Planned};

use crate::lab::{Small, next_hops, secs, uses, vip};

fn drain() -> Operation {
    Operation::Drain { service: None, reason: Some("disk swap".into()) }
}

#[test]
fn a_drained_host_is_withdrawn_and_stays_so_over_crash_and_power_loss() {
    let mut lab = Small::new(1);
    lab.operate("h1", drain());
    lab.until("h1 is withdrawn", secs(1), |world| !uses(world, "tor0", "h1") && !uses(world, "tor1", "h1"));
    let host = lab.node("h1");
    lab.pass(secs(1));
    let intention = &lab.world.host(host).unwrap().intentions[&ServiceName::from("dns")];
    assert!(intention.drained && intention.acknowledged);
    lab.fault(Fault::KillAgent { host });
    lab.fault(Fault::StartAgent { host });
    lab.pass(secs(10));
    assert!(!uses(&lab.world, "tor0", "h1"));
    lab.fault(Fault::PowerOff { host });
    lab.pass(secs(3));
    lab.fault(Fault::PowerOn { host, state: true });
    lab.pass(secs(15));
    assert!(!uses(&lab.world, "tor0", "h1"));
    lab.operate("h1", Operation::Undrain { service: None });
    lab.until("h1 is back", secs(2), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_drain_without_an_agent_is_found_by_the_next_one() {
    let mut lab = Small::new(2);
    let host = lab.node("h0");
    lab.fault(Fault::KillAgent { host });
    lab.operate("h0", drain());
    lab.fault(Fault::StartAgent { host });
    lab.pass(secs(10));
    assert!(!uses(&lab.world, "tor0", "h0"));
}

#[test]
fn a_restart_withdraws_first_keeps_vip_and_guard_and_is_announced_again_by_the_new_one() {
    let mut lab = Small::new(3);
    let host = lab.node("h0");
    let index = lab.world.host(host).unwrap().kernel.index_of("eth0").unwrap();
    lab.operate("h0", Operation::Restart { pause: Duration::from_millis(300) });
    lab.until("it is withdrawn before it ends", secs(1), |world| {
        !uses(world, "tor0", "h0") && world.host(host).unwrap().agent().is_some()
    });
    lab.until("the new one runs", secs(10), |world| {
        let host = world.host(host).unwrap();
        assert!(host.kernel.has(vip()) && host.kernel.arp_guarded(index), "VIP and guard stay");
        host.starts == 2 && host.agent().is_some()
    });
    assert!(matches!(lab.world.host(host).unwrap().ended, Some((_, Ended::Exit(0)))));
    lab.until("it announces", secs(10), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_terminated_agent_ends_with_0_and_nobody_starts_it() {
    let mut lab = Small::new(4);
    let host = lab.node("h2");
    lab.operate("h2", Operation::Terminate);
    lab.until("it ends", secs(10), |world| world.host(host).unwrap().agent().is_none());
    assert_eq!(lab.world.host(host).unwrap().ended.as_ref().unwrap().1, Ended::Exit(0));
    lab.pass(secs(10));
    assert_eq!(next_hops(&lab.world, "tor0"), 2);
    lab.operate("h2", Operation::Start);
    lab.until("it is back", secs(10), |world| next_hops(world, "tor0") == 3);
}

#[test]
fn a_bad_configuration_is_refused_and_changes_nothing_and_a_good_one_is_applied_without_a_flap() {
    let mut lab = Small::new(5);
    let host = lab.node("h0");
    let good = lab.world.host(host).unwrap().config_text().to_owned();
    lab.operate("h0", Operation::Reload { config: good.replace("port = 53", "port = \"x\"") });
    lab.pass(secs(1));
    let (_, _, reply) = lab.world.host(host).unwrap().replies.last().unwrap().clone();
    assert!(!reply.done, "{reply:?}");
    assert!(uses(&lab.world, "tor0", "h0"));
    lab.operate("h0", Operation::Reload { config: good.replace("1000ms", "500ms") });
    lab.pass(secs(1));
    assert!(lab.world.host(host).unwrap().replies.last().unwrap().2.done);
    assert!(uses(&lab.world, "tor0", "h0"));
}

#[test]
fn the_state_is_told_as_written_only_when_the_disk_has_it() {
    let mut lab = Small::new(6);
    let host = lab.node("h0");
    lab.fault(Fault::DiskLatency { host, latency: secs(3) });
    lab.operate("h0", drain());
    lab.until("it is withdrawn at once", secs(1), |world| !uses(world, "tor0", "h0"));
    assert!(lab.world.host(host).unwrap().replies.is_empty() && !lab.world.quiet());
    lab.until("and acknowledged later", secs(5), |world| !world.host(host).unwrap().replies.is_empty());
    lab.fault(Fault::DiskFull { host, full: true });
    lab.operate("h0", Operation::Undrain { service: None });
    lab.pass(secs(5));
    assert!(!lab.world.host(host).unwrap().replies.last().unwrap().2.done, "not on disk, and says so");
}

#[test]
fn healing_repairs_everything_that_was_broken() {
    let mut lab = Small::new(7);
    let (h0, h1, tor0) = (lab.node("h0"), lab.node("h1"), lab.node("tor0"));
    let (link, _) = lab.cable("h2", 1);
    lab.fault(Fault::PowerOff { host: h0 });
    lab.fault(Fault::Freeze { node: h1 });
    lab.fault(Fault::DiskFull { host: h1, full: true });
    lab.fault(Fault::Ignore { router: tor0, ignores: true });
    lab.fault(Fault::Cut { link, cut: true });
    lab.pass(secs(30));
    assert_eq!(lab.world.faults().len(), 7, "{:#?}", lab.world.faults());
    lab.world.act(Planned::Heal);
    assert_eq!(lab.world.faults(), []);
    lab.until("all is well", secs(60), |world| {
        next_hops(world, "tor0") == 3 && next_hops(world, "tor1") == 3
    });
    lab.until("quiet", secs(5), anyvip_virtual::world::World::quiet);
}
