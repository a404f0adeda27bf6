use std::collections::VecDeque;
use std::net::SocketAddr;

use anyvip_bgp::{Action as Bgp, ConnectionId, Event as BgpEvent};
use anyvip_machine::{Failure, FailureKind};

use super::*;

const VIP: &str = "192.0.2.53/32";
const VIP6: &str = "2001:db8::53/128";

/// A router and agents around it; bytes arrive at once.
struct World {
    now: Time,
    /// What agents ask for: that their routes are kept so long.
    graceful_restart: Option<Duration>,
    router: Router,
    agents: BTreeMap<u8, Speaker>,
    /// The router's end of each agent's connection.
    wires: BTreeMap<u8, (ConnectionId, ConnectionId)>,
    accepted: u64,
    installed: Vec<(String, Vec<String>)>,
    events: VecDeque<(u8, BgpEvent)>,
    told: Vec<Action>,
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn config(agents: &[u8]) -> RouterConfig {
    let neighbours = agents
        .iter()
        .map(|n| {
            let neighbour = NeighbourConfig {
                address: IpAddr::from([10, 0, *n, 11]),
                asn: 65_000 + u32::from(*n),
                interface: format!("eth{n}"),
                connect: false,
                readvertise: false,
                own: BTreeSet::new(),
            };
            (PeerName(format!("h{n}")), neighbour)
        })
        .collect();
    let hold_time = Some(Duration::from_secs(9));
    RouterConfig { asn: 64_999, router_id: Ipv4Addr::new(10, 0, 0, 1), hold_time, neighbours }
}

impl World {
    fn new(agents: &[u8]) -> World {
        World::with(agents, None)
    }

    fn with(agents: &[u8], graceful_restart: Option<Duration>) -> World {
        let mut world = World {
            now: Time::ZERO,
            graceful_restart,
            router: Router::new(&Seed::new(1)),
            agents: BTreeMap::new(),
            wires: BTreeMap::new(),
            accepted: 0,
            installed: Vec::new(),
            events: VecDeque::new(),
            told: Vec::new(),
        };
        world.router(Event::Configure(config(agents)));
        for n in agents {
            world.start(*n, false);
        }
        world.run_for(Duration::from_secs(3));
        world
    }

    /// An agent begins, or begins again, as the heir of the former one or not.
    fn start(&mut self, n: u8, heir: bool) {
        self.agents.insert(n, Speaker::new(Seed::new(u64::from(n))));
        let graceful_restart = self.graceful_restart;
        let peer = PeerConfig {
            remote: Endpoint { address: IpAddr::from([10, 0, n, 1]), interface: None, port: 179 }.into(),
            asn: 64_999,
            connect: true,
            hold_time: Some(Duration::from_secs(9)),
            connect_retry: Duration::from_secs(1),
            ttl: Some(1),
            families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
            receive: Receive::Nothing,
            session: SessionOptions { graceful_restart, ..SessionOptions::default() },
            transport: Transport::default(),
        };
        if heir {
            self.agent(n, BgpEvent::Restarting { peers: BTreeSet::from(["tor".into()]) });
        }
        let (asn, router_id) = (65_000 + u32::from(n), Ipv4Addr::new(10, 0, n, 11));
        let peers = BTreeMap::from([("tor".into(), peer)]);
        self.agent(n, BgpEvent::Configure(SpeakerConfig { asn, router_id, peers }));
    }

    /// An agent's process ends: its kernel closes the connection.
    fn end(&mut self, n: u8) {
        self.agents.remove(&n);
        let (connection, _) = self.wires[&n];
        self.cut(n, connection);
        self.settle();
    }

    fn sorted(&self) -> [Vec<String>; 2] {
        [self.last(VIP), self.last(VIP6)]
    }

    fn wanted(&mut self, n: u8, prefixes: &[&str]) {
        let routes = prefixes
            .iter()
            .map(|prefix| {
                let next_hop = match net(prefix) {
                    IpNet::V4(_) => NextHop::V4(Ipv4Addr::new(10, 0, n, 11)),
                    IpNet::V6(_) => {
                        NextHop::V6 { global: format!("fd00:{n}::11").parse().unwrap(), link_local: None }
                    }
                };
                (net(prefix), RouteAttributes::originated(next_hop))
            })
            .collect();
        self.agent(n, BgpEvent::Wanted { peer: "tor".into(), routes });
        self.settle();
    }

    fn router(&mut self, event: Event) {
        for action in self.router.handle(self.now, event) {
            self.told.push(action.clone());
            let wire = |id: &ConnectionId| {
                self.wires.iter().find(|(_, (_, other))| other == id).map(|(n, w)| (*n, w.0))
            };
            match &action {
                Action::Install { prefix, next_hops } => {
                    let hops =
                        next_hops.iter().map(|hop| format!("{} {}", hop.address, hop.interface)).collect();
                    self.installed.push((prefix.to_string(), hops));
                }
                Action::Remove { prefix } => self.installed.push((prefix.to_string(), Vec::new())),
                Action::Bgp(Bgp::Send { connection, bytes }) => {
                    if let Some((n, id)) = wire(connection) {
                        self.events
                            .push_back((n, BgpEvent::Received { connection: id, bytes: bytes.clone() }));
                    }
                    self.events.push_back((0, BgpEvent::Sent { connection: *connection }));
                }
                Action::Bgp(Bgp::Close { connection }) => {
                    if let Some((n, id)) = wire(connection) {
                        let failure = Failure::new(FailureKind::Closed, "closed");
                        self.events.push_back((n, BgpEvent::Closed { connection: id, failure }));
                        self.wires.remove(&n);
                    }
                }
                _ => {}
            }
        }
    }

    fn agent(&mut self, n: u8, event: BgpEvent) {
        let Some(agent) = self.agents.get_mut(&n) else { return };
        for action in agent.handle(self.now, event) {
            let ours = |id: ConnectionId| self.wires.get(&n).filter(|wire| wire.0 == id).map(|wire| wire.1);
            match action {
                Bgp::Connect { connection, .. } => {
                    self.accepted += 1;
                    let other = ConnectionId::Accepted(self.accepted);
                    self.wires.insert(n, (connection, other));
                    let (local, remote): (SocketAddr, SocketAddr) =
                        ((([10, 0, n, 11]), 40_000).into(), (([10, 0, n, 1]), 179).into());
                    self.events.push_back((n, BgpEvent::Connected { connection, local, remote }));
                    self.events.push_back((
                        0,
                        BgpEvent::Accepted { connection: other, local: remote, remote: local },
                    ));
                }
                Bgp::Send { connection, bytes } => {
                    if let Some(id) = ours(connection) {
                        self.events.push_back((0, BgpEvent::Received { connection: id, bytes }));
                    }
                    self.events.push_back((n, BgpEvent::Sent { connection }));
                }
                Bgp::Close { connection } => self.cut(n, connection),
                _ => {}
            }
        }
    }

    fn cut(&mut self, n: u8, connection: ConnectionId) {
        if let Some((_, id)) = self.wires.get(&n).copied().filter(|wire| wire.0 == connection) {
            self.wires.remove(&n);
            let failure = Failure::new(FailureKind::Reset, "reset");
            self.events.push_back((0, BgpEvent::Closed { connection: id, failure }));
        }
    }

    fn settle(&mut self) {
        while let Some((n, event)) = self.events.pop_front() {
            match n {
                0 => self.router(Event::Bgp(event)),
                n => self.agent(n, event),
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        loop {
            let agents = self.agents.values().filter_map(Speaker::next_deadline).min();
            let next = self.router.next_deadline().into_iter().chain(agents).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if self.router.next_deadline().is_some_and(|due| due <= self.now) {
                self.router(Event::DeadlineReached);
                assert!(self.router.next_deadline().is_none_or(|due| due > self.now), "no progress");
            }
            let due: Vec<u8> = self
                .agents
                .iter()
                .filter(|(_, agent)| agent.next_deadline().is_some_and(|due| due <= self.now))
                .map(|(n, _)| *n)
                .collect();
            for n in due {
                self.agent(n, BgpEvent::DeadlineReached);
            }
            self.settle();
        }
        self.now = end;
    }

    fn last(&self, prefix: &str) -> Vec<String> {
        let found = self.installed.iter().rev().find(|(of, _)| of == prefix);
        found.map(|(_, hops)| hops.clone()).unwrap_or_default()
    }
}

#[test]
fn next_hops_come_and_go_with_what_agents_announce_and_stay_sorted_by_address() {
    let mut world = World::new(&[1, 2, 3]);
    for n in [3, 1, 2] {
        world.wanted(n, &[VIP, VIP6]);
    }
    assert_eq!(world.last(VIP), ["10.0.1.11 eth1", "10.0.2.11 eth2", "10.0.3.11 eth3"]);
    assert_eq!(world.last(VIP6), ["fd00:1::11 eth1", "fd00:2::11 eth2", "fd00:3::11 eth3"]);
    world.wanted(2, &[]);
    assert_eq!(world.last(VIP), ["10.0.1.11 eth1", "10.0.3.11 eth3"]);
    world.wanted(2, &[VIP]);
    assert_eq!(world.last(VIP), ["10.0.1.11 eth1", "10.0.2.11 eth2", "10.0.3.11 eth3"]);
    for n in [1, 2, 3] {
        world.wanted(n, &[]);
    }
    assert_eq!(world.last(VIP), Vec::<String>::new());
    assert!(world.router.routes().is_empty());
}

#[test]
fn an_agent_whose_connection_breaks_loses_its_next_hops_at_once() {
    let mut world = World::new(&[1, 2]);
    world.wanted(1, &[VIP]);
    world.wanted(2, &[VIP]);
    world.end(2);
    assert_eq!(world.last(VIP), ["10.0.1.11 eth1"]);
}

const RESTART: Duration = Duration::from_secs(30);

/// Two agents that have asked the router to keep their routes, both announced.
fn graceful() -> World {
    let mut world = World::with(&[1, 2], Some(RESTART));
    for n in [1, 2] {
        world.wanted(n, &[VIP, VIP6]);
    }
    world
}

const FIRST: [&str; 2] = ["10.0.1.11 eth1", "fd00:1::11 eth1"];
const BOTH: [[&str; 2]; 2] = [["10.0.1.11 eth1", "10.0.2.11 eth2"], ["fd00:1::11 eth1", "fd00:2::11 eth2"]];

/// RFC 4724 §4.2.
#[test]
fn routes_of_a_neighbour_that_restarts_stay_until_it_has_told_all_and_what_it_does_not_tell_again_goes() {
    let mut world = graceful();
    let before = world.installed.len();
    world.end(2);
    world.run_for(Duration::from_secs(2));
    world.start(2, true);
    world.run_for(Duration::from_secs(3));
    world.wanted(2, &[VIP]);
    assert_eq!(world.installed.len(), before, "nothing has changed: {:?}", world.installed);
    world.agent(2, BgpEvent::Restarting { peers: BTreeSet::new() });
    world.settle();
    assert_eq!(world.last(VIP), BOTH[0]);
    assert_eq!(world.last(VIP6), [FIRST[1]], "all is told, and this was not among it");
    assert_eq!(world.router.retained(world.now, &"h2".into()).unwrap().1.len(), 0);
}

/// RFC 4724 §4.2: the Restart Time, and the Forwarding State bit.
#[test]
fn a_neighbour_that_does_not_return_in_time_or_has_kept_nothing_is_given_up() {
    let mut world = graceful();
    world.end(2);
    world.run_for(RESTART - Duration::from_secs(1));
    assert_eq!(world.sorted(), BOTH);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.sorted(), FIRST.map(|hop| vec![hop.to_owned()]));
    let mut world = graceful();
    world.end(2);
    world.start(2, false);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.sorted(), FIRST.map(|hop| vec![hop.to_owned()]));
}

/// RFC 4724 §4.2: what was stale before is not kept a second time; nor is what lost its path.
#[test]
fn old_routes_do_not_outlive_a_second_restart_a_link_or_a_path() {
    let mut world = graceful();
    world.end(2);
    world.start(2, true);
    world.run_for(Duration::from_secs(3));
    world.wanted(2, &[VIP]);
    world.end(2);
    assert_eq!(
        (world.last(VIP), world.last(VIP6)),
        (BOTH[0].map(String::from).to_vec(), vec![FIRST[1].to_owned()])
    );
    world.router(Event::Link { interface: "eth2".to_owned(), up: false });
    assert_eq!(world.last(VIP), [FIRST[0]]);
    let mut world = graceful();
    world.end(1);
    world.router(Event::Bgp(BgpEvent::PathDown { peer: "h1".into() }));
    assert_eq!(world.last(VIP), ["10.0.2.11 eth2"]);
}

#[test]
fn a_neighbour_that_takes_its_leave_is_not_waited_for() {
    let mut world = graceful();
    world.agent(
        2,
        BgpEvent::Configure(SpeakerConfig {
            asn: 65_002,
            router_id: Ipv4Addr::new(10, 0, 2, 11),
            peers: BTreeMap::new(),
        }),
    );
    world.settle();
    assert_eq!(world.sorted(), FIRST.map(|hop| vec![hop.to_owned()]));
}

#[test]
fn an_agent_that_falls_silent_loses_its_next_hops_when_the_hold_time_ends() {
    let mut world = World::new(&[1, 2]);
    world.wanted(1, &[VIP]);
    world.wanted(2, &[VIP]);
    world.agents.remove(&2);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.last(VIP).len(), 2);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.last(VIP), ["10.0.1.11 eth1"]);
}

#[test]
fn an_interface_that_goes_down_takes_its_sessions_along_and_brings_them_back() {
    let mut world = World::new(&[1, 2]);
    world.wanted(1, &[VIP]);
    world.wanted(2, &[VIP]);
    world.router(Event::Link { interface: "eth2".into(), up: false });
    assert_eq!(world.last(VIP), ["10.0.1.11 eth1"]);
    world.settle();
    world.router(Event::Link { interface: "eth2".into(), up: true });
    world.run_for(Duration::from_secs(60));
    world.wanted(2, &[VIP]);
    assert_eq!(world.last(VIP), ["10.0.1.11 eth1", "10.0.2.11 eth2"]);
}

#[test]
fn routes_are_told_to_neighbouring_routers_only_where_asked_and_with_ourselves_as_next_hop() {
    let mut world = World::new(&[1, 2]);
    world.wanted(1, &[VIP]);
    let sent = |world: &World| {
        let carries = |bytes: &[u8]| bytes.windows(5).any(|part| part == [32, 192, 0, 2, 53]);
        let is = |action: &&Action| matches!(action, Action::Bgp(Bgp::Send { bytes, .. }) if carries(bytes));
        world.told.iter().filter(is).count()
    };
    assert_eq!(sent(&world), 0, "nothing is told unasked");
    let mut readvertising = config(&[1, 2]);
    let second = readvertising.neighbours.get_mut(&PeerName::from("h2")).unwrap();
    second.readvertise = true;
    world.router(Event::Configure(readvertising));
    world.settle();
    let wanted = {
        let (name, facts) = world.router.sessions.iter().nth(1).unwrap();
        let neighbour = &world.router.config.as_ref().unwrap().neighbours[name];
        world.router.wanted(name, neighbour, facts)
    };
    let route = &wanted[&net(VIP)];
    assert_eq!(route.next_hop, NextHop::V4(Ipv4Addr::new(10, 0, 2, 1)));
    assert_eq!(route.as_path.length(), 1);
    assert_eq!(sent(&world), 1);
    world.wanted(2, &[VIP]);
    world.wanted(1, &[]);
    assert_eq!(world.last(VIP), ["10.0.2.11 eth2"], "what it was told before does not come back to it");
}
