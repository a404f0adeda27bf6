//! Long-lived connections through the routers' tables: what a sweep costs those who use the services.
//!
//! At every router some clients have one TCP connection each to every address, and send a packet each second. Where a packet goes is the
//! router's forwarding table and the hash of the Linux kernel (`anyvip-ecmp`); ways back are not walked.

use std::iter::Sum;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_core::ServiceName;
use anyvip_machine::Time;
use ipnet::IpNet;

use super::Swarm;
use crate::world::{Condition, Fate, Flow, NodeId, World};

/// From packet to packet of one flow.
const EVERY: Duration = Duration::from_secs(1);
/// For each router and address.
const FLOWS: u16 = 16;
/// A client without an answer for so long gives its connection up.
const PATIENCE: Duration = Duration::from_secs(10);
/// TCP.
const PROTOCOL: u8 = 6;
/// Where services of a swarm listen.
const PORT: u16 = 53;
/// The first port of the clients.
const FIRST_PORT: u16 = 20_000;

/// What became of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Flows that were answered at least once.
    pub flows: u64,
    /// Packets of theirs from the first answer on.
    pub packets: u64,
    /// Of these packets, the ones that nobody answered: lost on the way, refused, or left without an answer by a service that hangs.
    pub unanswered: u64,
    /// Connections given up after ten seconds without an answer.
    pub lost: u64,
    /// Connections ended by a reset: a packet came to another server than the one before, or to a new process of its own server.
    pub reset: u64,
    /// Of the resets, those by another server.
    pub moved: u64,
    /// Of these, those whose former server was still among the router's next hops: what the choice of the member costs.
    pub needless: u64,
}

impl Sum for FlowCounts {
    fn sum<I: Iterator<Item = FlowCounts>>(all: I) -> FlowCounts {
        all.fold(FlowCounts::default(), |sum, one| FlowCounts {
            flows: sum.flows + one.flows,
            packets: sum.packets + one.packets,
            unanswered: sum.unanswered + one.unanswered,
            lost: sum.lost + one.lost,
            reset: sum.reset + one.reset,
            moved: sum.moved + one.moved,
            needless: sum.needless + one.needless,
        })
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Followed {
    flows: Vec<One>,
    next: Time,
    counts: FlowCounts,
}

/// One client and its flow.
#[derive(Debug)]
struct One {
    router: NodeId,
    flow: Flow,
    service: ServiceName,
    begun: bool,
    connection: Option<Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    server: Server,
    answered: Time,
}

/// A process that can know a connection: boots of its host and its own starts are part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    node: NodeId,
    boots: u32,
    starts: u32,
}

/// What a client sees of one packet.
enum Answer {
    /// The kernel of this server took it; whether its service answers.
    Taken(Server, bool),
    Refused,
    Silent,
}

impl Followed {
    pub(super) fn new(swarm: &Swarm) -> Followed {
        let mut flows = Vec::new();
        for router in 0..swarm.routers {
            for (service, number) in swarm.services.iter().zip(0..) {
                for vip in &service.vips {
                    flows.extend((0..FLOWS).map(|at| One {
                        router: NodeId(router),
                        flow: flow(*vip, at),
                        service: ServiceName(format!("s{number}")),
                        begun: false,
                        connection: None,
                    }));
                }
            }
        }
        Followed { flows, next: Time::ZERO + EVERY, counts: FlowCounts::default() }
    }

    /// When they send next.
    pub(super) fn next(&self) -> Time {
        self.next
    }

    /// Every flow sends a packet, if it is time.
    pub(super) fn send(&mut self, world: &mut World) {
        if world.now() < self.next {
            return;
        }
        self.next = world.now() + EVERY;
        for one in &mut self.flows {
            one.send(world, &mut self.counts);
        }
    }

    pub(super) fn counts(&self) -> FlowCounts {
        self.counts
    }
}

impl One {
    fn send(&mut self, world: &mut World, counts: &mut FlowCounts) {
        let answer = self.answer(world);
        if !self.begun {
            if !matches!(answer, Answer::Taken(_, true)) {
                return;
            }
            self.begun = true;
            counts.flows += 1;
        }
        counts.packets += 1;
        let now = world.now();
        let former = self.connection.map(|connection| connection.server);
        match answer {
            Answer::Taken(server, answers) => {
                if let Some(former) = former.filter(|former| *former != server) {
                    counts.reset += 1;
                    if former.node != server.node {
                        counts.moved += 1;
                        counts.needless += u64::from(self.leads_to(former.node, world));
                    }
                    // The next packet is the first of a new connection, which begins here.
                    self.connection = None;
                }
                if answers {
                    self.connection = Some(Connection { server, answered: now });
                    return;
                }
            }
            Answer::Refused if former.is_some() => {
                counts.reset += 1;
                self.connection = None;
            }
            Answer::Refused | Answer::Silent => {}
        }
        counts.unanswered += 1;
        if self.connection.is_some_and(|connection| now.since(connection.answered) >= PATIENCE) {
            counts.lost += 1;
            self.connection = None;
        }
    }

    fn answer(&self, world: &mut World) -> Answer {
        let Fate::Arrived(node) = world.follow(self.router, &self.flow).fate else { return Answer::Silent };
        let Some(host) = world.host(node) else { return Answer::Silent };
        let service = host.service(&self.service);
        let server = Server { node, boots: host.boots, starts: service.starts };
        match service.condition().0 {
            Condition::Serving | Condition::Failing => Answer::Taken(server, true),
            Condition::Hanging => Answer::Taken(server, false),
            Condition::Dead => Answer::Refused,
        }
    }

    /// Whether the router still sends packets for the address to this host.
    fn leads_to(&self, host: NodeId, world: &World) -> bool {
        let hops =
            world.router(self.router).and_then(|router| router.fib.get(&IpNet::from(self.flow.destination)));
        hops.is_some_and(|hops| {
            let ports = hops.iter().filter_map(|hop| world.network().owner(hop.address));
            ports.filter_map(|port| world.network().port(port)).any(|port| port.node == host)
        })
    }
}

/// The n-th client of an address.
fn flow(vip: IpAddr, number: u16) -> Flow {
    let low = u8::try_from(number).unwrap_or(u8::MAX);
    let source = match vip {
        IpAddr::V4(_) => IpAddr::from([198, 51, 100, low]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0xc11e, 0, 0, 0, 0, u16::from(low)]),
    };
    Flow {
        protocol: PROTOCOL,
        source,
        source_port: FIRST_PORT + number,
        destination: vip,
        destination_port: PORT,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Case, Outcome, ServicePlan, Shape, run};
    use super::*;
    use crate::router::Install;
    use crate::world::{Fault, Planned, Tracing};

    const HOSTS: u32 = 8;
    const SERVER: u32 = 2;
    const VIPS: u8 = 4;

    /// One router, eight servers, four addresses; what is done to one of them at 60 s is undone at 120 s.
    fn outcome(install: Install, interval: Option<Duration>, done: Option<[Fault; 2]>) -> Outcome {
        let bounds = super::super::Bounds { hosts: Some(HOSTS), time: Duration::from_secs(180) };
        let mut case = Case::draw(1, &bounds);
        let service = ServicePlan {
            vips: (0..VIPS).map(|at| IpAddr::from([192, 0, 2, 53 + at])).collect(),
            interval,
            rise: 2,
            fall: 2,
            own_check: false,
            on_error_fail: false,
            med: None,
            first_peer_only: false,
            depreferences: false,
            drain_time: None,
            tracked: false,
        };
        case.swarm = Swarm {
            shape: Shape::Routed,
            hosts: HOSTS,
            routers: 1,
            uplinks: 1,
            dual_stack: false,
            sessions_v6: false,
            listen: false,
            both_connect: false,
            hold_time: Some(Duration::from_secs(9)),
            router_hold_time: Some(Duration::from_secs(9)),
            bfd: None,
            graceful_restart: None,
            install,
            services: vec![service],
            rates: std::collections::BTreeMap::new(),
            ..case.swarm
        };
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let steps =
            done.map(|[from, to]| vec![(at(60), Planned::Fault(from)), (at(120), Planned::Fault(to))]);
        case.strikes = steps
            .map(|steps| super::super::Strike { kind: super::super::Kind::HostOff, steps })
            .into_iter()
            .collect();
        let outcome = run(&case, Tracing::Off, |_| {});
        assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
        outcome
    }

    fn server() -> NodeId {
        NodeId(1 + SERVER)
    }

    fn power() -> Option<[Fault; 2]> {
        Some([Fault::PowerOff { host: server() }, Fault::PowerOn { host: server(), state: true }])
    }

    fn service(condition: Condition) -> Option<[Fault; 2]> {
        let set = |condition| Fault::Service { host: server(), service: None, condition };
        Some([set(condition), set(Condition::Serving)])
    }

    const RESILIENT: Install =
        Install::Resilient { buckets: 128, idle: Duration::from_secs(120), unbalanced: Duration::ZERO };

    #[test]
    fn where_nothing_happens_no_flow_loses_a_packet_or_its_server() {
        for install in [Install::Plain, Install::Group, Install::Slots(256), RESILIENT] {
            let counts = outcome(install, Some(Duration::from_secs(1)), None).flows;
            let FlowCounts { flows, packets, .. } = counts;
            assert_eq!(counts, FlowCounts { flows, packets, ..FlowCounts::default() }, "{install}");
            assert_eq!(flows, u64::from(FLOWS) * u64::from(VIPS));
            assert!(packets > flows * 150, "{packets}");
        }
    }

    #[test]
    fn a_server_without_power_moves_its_own_flows_and_with_plain_hashing_those_of_others() {
        let of = |install| outcome(install, Some(Duration::from_secs(1)), power()).flows;
        let (group, slots, resilient) = (of(Install::Group), of(Install::Slots(256)), of(RESILIENT));
        // Its own flows move once, when it is gone: busy buckets do not come back to it.
        assert!(resilient.moved > 0);
        assert_eq!((resilient.reset, resilient.needless), (resilient.moved, 0));
        // Its share comes back when it does, from servers that are well.
        assert!(slots.needless > 0 && slots.needless < slots.moved, "{slots:?}");
        assert!(group.needless > slots.needless, "{group:?} {slots:?}");
        assert_eq!(of(Install::Plain), group);
    }

    #[test]
    fn a_service_that_hangs_unseen_loses_its_connections_and_none_is_reset() {
        let counts = outcome(Install::Group, None, service(Condition::Hanging)).flows;
        assert!(counts.lost > 0);
        assert_eq!((counts.reset, counts.moved), (0, 0));
        // A minute of packets each.
        assert_eq!(counts.unanswered, counts.lost * 60);
    }

    #[test]
    fn a_service_that_dies_unseen_resets_its_connections_once_and_refuses_the_rest() {
        let hung = outcome(Install::Group, None, service(Condition::Hanging)).flows;
        let died = outcome(Install::Group, None, service(Condition::Dead)).flows;
        assert_eq!(died, FlowCounts { lost: 0, reset: hung.lost, ..hung });
    }

    #[test]
    fn a_service_that_dies_seen_costs_the_time_that_its_checks_take() {
        let counts = outcome(RESILIENT, Some(Duration::from_secs(1)), service(Condition::Dead)).flows;
        assert!(counts.reset > 0, "{counts:?}");
        assert_eq!((counts.moved, counts.lost), (0, 0));
        assert!(counts.unanswered >= counts.reset && counts.unanswered <= counts.reset * 3, "{counts:?}");
    }
}
