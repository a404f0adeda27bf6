//! BFD between agents and routers, beside BGP and instead of it.

use std::time::Duration;

use anyvip_bfd::{SessionName, State};
use anyvip_bgp::DownReason;
use anyvip_virtual::sweep::{BfdPlan, BfdUse, Bounds, Case};
use anyvip_virtual::world::{
    Condition, Fabric, Fault, NodeId, NoteKind, Operation, Options, Planned, Tracing, World,
};
use ipnet::IpNet;

use crate::lab::{Small, established, next_hops, secs, time};

const INTERVAL: Duration = Duration::from_millis(300);

fn guarded(seed: u64) -> Small {
    let fabric = Fabric { hosts: 3, routers: 2, bfd: Some(INTERVAL), ..Fabric::default() };
    let mut lab = Small::of(fabric, seed);
    lab.until("BFD is up", secs(5), |world| {
        world.hosts().all(|(_, host)| up(world, &host.name, "tor0") && up(world, &host.name, "tor1"))
    });
    lab
}

/// Whether both ends of the BFD session of a host with a router are Up.
fn up(world: &World, host: &str, router: &str) -> bool {
    let (host_id, router_id) = (world.find(host).unwrap(), world.find(router).unwrap());
    let config = world.host(host_id).and_then(|host| host.agent()).map(|agent| agent.config());
    let Some(peer) = config.and_then(|config| config.bgp.peers.get(&router.into())) else { return false };
    let Some(address) = peer.remote.address() else { return false };
    let own = SessionName(address.to_string());
    let is_up = |node, name| world.bfd(node, name).is_some_and(|session| session.view.state == State::Up);
    is_up(host_id, &own) && is_up(router_id, &SessionName(host.to_owned()))
}

#[test]
fn a_silent_cut_ends_the_session_at_both_ends_within_the_detection_time_instead_of_the_hold_time() {
    let mut lab = guarded(1);
    let (link, _) = lab.cable("h1", 0);
    lab.fault(Fault::Cut { link, cut: true });
    let took = lab.until("both ends know", secs(3), |world| {
        next_hops(world, "tor0") == 2 && !established(world, "h1", "tor0")
    });
    assert!(took >= INTERVAL && took <= Duration::from_millis(1200), "{took:?}");
    assert!(established(&lab.world, "h1", "tor1") && next_hops(&lab.world, "tor1") == 3);
    lab.fault(Fault::Cut { link, cut: false });
    lab.until("all is back", secs(15), |world| next_hops(world, "tor0") == 3 && up(world, "h1", "tor0"));
}

#[test]
fn where_only_bfd_is_lost_the_session_ends_with_cease_10_and_comes_back_without_bfd() {
    let fabric = Fabric { hosts: 3, routers: 2, bfd: Some(INTERVAL), ..Fabric::default() };
    let mut world = fabric.build(2, Options { tracing: Tracing::Off, notes: true });
    world.run_until(time(15));
    assert!(up(&world, "h1", "tor0") && established(&world, "h1", "tor0"));
    let port = world.network().find_port(world.find("h1").unwrap(), "eth0").unwrap();
    let link = world.network().port(port).unwrap().link.unwrap().0;
    world.notes();
    world.act(Planned::Fault(Fault::LoseDatagrams { link, lost: true }));
    world.run_until(time(20));
    let lost: Vec<DownReason> = world
        .notes()
        .into_iter()
        .filter_map(|note| match note.kind {
            NoteKind::Session { peer, lost } if peer.0 == "h1" => lost,
            _ => None,
        })
        .collect();
    // RFC 9384: Cease, subcode 10.
    let [DownReason::PeerSaid(told) | DownReason::WeSaid(told)] = lost.as_slice() else { panic!("{lost:?}") };
    assert!(told.to_string().contains("BFD Down"), "{told}");
    // BFD stays down, and what was never up closes nothing.
    for second in 21..80 {
        world.run_until(time(second));
        assert!(established(&world, "h1", "tor0") && !up(&world, "h1", "tor0"), "second {second}");
    }
    assert_eq!(next_hops(&world, "tor0"), 3);
    assert!(world.breaches().is_empty());
}

#[test]
fn a_router_that_switches_bfd_off_keeps_its_sessions() {
    let mut lab = guarded(3);
    let router = lab.node("tor0");
    lab.fault(Fault::RouterBfd { router, on: false });
    lab.until("BFD is down", secs(3), |world| !up(world, "h0", "tor0"));
    for _ in 0..30 {
        lab.pass(secs(1));
        assert_eq!(next_hops(&lab.world, "tor0"), 3);
    }
    lab.fault(Fault::RouterBfd { router, on: true });
    lab.until("BFD is up again", secs(5), |world| up(world, "h0", "tor0"));
    assert_eq!(next_hops(&lab.world, "tor0"), 3);
}

#[test]
fn a_stopped_agent_is_gone_within_the_detection_time_and_a_moment_of_standing_still_harms_nothing() {
    let mut lab = guarded(4);
    let node = lab.node("h2");
    lab.fault(Fault::Freeze { node });
    lab.pass(Duration::from_millis(400));
    lab.fault(Fault::Continue { node });
    lab.pass(secs(5));
    assert!(up(&lab.world, "h2", "tor0") && next_hops(&lab.world, "tor0") == 3);
    lab.fault(Fault::Freeze { node });
    let took = lab.until("routers drop it", secs(3), |world| next_hops(world, "tor0") == 2);
    assert!(took <= Duration::from_millis(1200), "{took:?}");
    lab.fault(Fault::Continue { node });
    lab.until("it is back", secs(15), |world| next_hops(world, "tor0") == 3 && up(world, "h2", "tor0"));
}

#[test]
fn routers_that_know_nothing_of_bfd_keep_their_sessions() {
    let mut case = plain(BfdUse::Unanswered);
    case.swarm.services.truncate(1);
    let mut world = case.swarm.build(1, Options::default());
    world.run_until(time(60));
    let session = SessionName("10.0.0.0".to_owned());
    let bfd = world.bfd(NodeId(2), &session).expect("h0 asks for BFD");
    assert_eq!((bfd.view.state, bfd.view.counters.received), (State::Down, 0));
    assert!(bfd.view.counters.sent > 30);
    assert!(established(&world, "h0", "r0") && established(&world, "h0", "r1"));
    assert!(world.breaches().is_empty());
}

/// Two hosts with two routers and little else.
fn plain(use_: BfdUse) -> Case {
    let bounds = Bounds { hosts: Some(2), time: secs(600) };
    let mut case = Case::draw(1, &bounds);
    let swarm = &mut case.swarm;
    swarm.shape = anyvip_virtual::sweep::Shape::Routed;
    (swarm.routers, swarm.uplinks) = (2, 2);
    (swarm.dual_stack, swarm.sessions_v6, swarm.listen, swarm.both_connect) = (false, false, false, false);
    (swarm.hold_time, swarm.router_hold_time) = (Some(secs(9)), Some(secs(9)));
    swarm.bfd = Some(BfdPlan { use_, interval: INTERVAL, multiplier: 3 });
    swarm.services.truncate(1);
    let service = &mut swarm.services[0];
    service.vips = vec![crate::lab::vip()];
    service.interval = Some(secs(1));
    (service.rise, service.fall, service.own_check, service.depreferences) = (2, 2, false, false);
    (service.first_peer_only, service.drain_time) = (false, None);
    let mut tracked = service.clone();
    (tracked.vips, tracked.tracked) = (vec!["192.0.2.99".parse().unwrap()], use_ == BfdUse::Tracked);
    swarm.services.push(tracked);
    swarm.rates.clear();
    case.strikes.clear();
    case
}

/// How many hosts the static routes of a router lead to.
fn tracked(world: &World, router: &str) -> usize {
    let prefix = IpNet::from("192.0.2.99".parse::<std::net::IpAddr>().unwrap());
    world.router(world.find(router).unwrap()).unwrap().fib.get(&prefix).map_or(0, Vec::len)
}

struct Tracked {
    world: World,
    host: NodeId,
}

impl Tracked {
    fn new() -> Tracked {
        let mut world = plain(BfdUse::Tracked).swarm.build(1, Options::default());
        let host = world.find("h1").unwrap();
        assert!(world.run_until_so(time(20), |world| ["r0", "r1"].map(|r| tracked(world, r)) == [2, 2]));
        world.run_until(time(20));
        Tracked { world, host }
    }

    /// Lets it happen, and until when the routers may have noticed; gives back what that took.
    #[track_caller]
    fn becomes(&mut self, what: Planned, hops: usize, limit: Duration) -> Duration {
        let begin = self.world.now();
        self.world.act(what);
        let so = |world: &World| ["r0", "r1"].map(|router| tracked(world, router)) == [hops; 2];
        assert!(self.world.run_until_so(begin + limit, so), "not within {limit:?}");
        assert!(self.world.breaches().is_empty());
        self.world.now().since(begin)
    }

    #[track_caller]
    fn fault(&mut self, fault: Fault, hops: usize, limit: Duration) -> Duration {
        self.becomes(Planned::Fault(fault), hops, limit)
    }
}

#[test]
fn a_static_route_follows_the_health_of_the_service() {
    let mut lab = Tracked::new();
    let dies = |condition| Fault::Service { host: lab.host, service: None, condition };
    let (dead, well) = (dies(Condition::Dead), dies(Condition::Serving));
    lab.fault(dead, 1, secs(4));
    // Down is said for as long as the service is, and the session does not come back meanwhile.
    for second in 25..60 {
        lab.world.run_until(time(second));
        assert_eq!(tracked(&lab.world, "r0"), 1);
    }
    lab.fault(well, 2, secs(6));
}

#[test]
fn a_static_route_goes_at_once_when_the_host_is_drained() {
    let mut lab = Tracked::new();
    let operate = |operation| Planned::Operation { host: lab.host, operation };
    let drain = operate(Operation::Drain { service: None, reason: None });
    let undrain = operate(Operation::Undrain { service: None });
    let took = lab.becomes(drain, 1, secs(1));
    assert!(took < Duration::from_millis(50), "it is signalled, not found out: {took:?}");
    lab.becomes(undrain, 2, secs(5));
}

#[test]
fn a_main_loop_that_lags_far_behind_loses_its_lease_and_the_routes_with_it() {
    let mut lab = Tracked::new();
    let (node, fast) = (lab.host, Duration::ZERO);
    // The BFD thread itself goes on: without the lease nobody would notice.
    let took = lab.fault(Fault::Slow { node, each: secs(30) }, 1, secs(6));
    assert!(took >= secs(2), "{took:?}");
    lab.fault(Fault::Slow { node, each: fast }, 2, secs(10));
}

#[test]
fn a_killed_agent_is_found_out_by_the_detection_time_and_a_stopped_one_says_goodbye() {
    let mut lab = Tracked::new();
    let host = lab.host;
    let took = lab.fault(Fault::KillAgent { host }, 1, secs(3));
    assert!(took >= INTERVAL && took <= Duration::from_millis(1000), "{took:?}");
    lab.fault(Fault::StartAgent { host }, 2, secs(10));
    let took = lab.becomes(Planned::Operation { host, operation: Operation::Terminate }, 1, secs(1));
    assert!(took < Duration::from_millis(50), "{took:?}");
}
