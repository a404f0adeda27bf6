//! The flows of clients in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_machine::Time;
use anyvip_virtual::observation::{Ask, End, Flows, Held, Outcome};
use anyvip_virtual::scenario::{Protocol, Traffic};
use anyvip_virtual::world::{Condition, Fate, Flow, NodeId, World};

/// Between two questions of one round.
const PACE: Duration = Duration::from_micros(20);
/// TCP asks again after this long, and twice as long each time (RFC 6298 §2).
const FIRST_RETRANSMISSION: Duration = Duration::from_secs(1);

/// Everything that clients have going on.
#[derive(Default)]
pub(super) struct Clients {
    asking: BTreeMap<String, Asking>,
    holding: BTreeMap<String, Holding>,
}

struct Asking {
    traffic: Traffic,
    next: Time,
    sent: u64,
    flows: Flows,
}

struct Holding {
    traffic: Traffic,
    connections: Vec<Connection>,
}

struct Connection {
    held: Held,
    server: Option<(NodeId, u32)>,
    next: Time,
    silent_since: Option<Time>,
}

impl Clients {
    /// Begins to ask round and round.
    pub(super) fn start(&mut self, name: &str, traffic: &Traffic, now: Time) {
        let asking = Asking { traffic: traffic.clone(), next: now, sent: 0, flows: Flows::default() };
        self.asking.insert(name.to_owned(), asking);
    }

    pub(super) fn stop(&mut self, name: &str) -> Option<Flows> {
        self.asking.remove(name).map(|asking| asking.flows)
    }

    /// Opens connections and keeps them.
    pub(super) fn hold(&mut self, name: &str, traffic: &Traffic, world: &mut World) {
        let now = world.now();
        let open = |number: u16| {
            let port = traffic.first_port + number;
            let server = match ask(world, traffic, port).1 {
                Fate::Arrived(server) => world
                    .host(server)
                    .filter(|host| host.server().serves())
                    .map(|host| (server, host.server().starts)),
                Fate::Lost(..) => None,
            };
            let name = server.map(|(server, _)| world.name(server).to_owned());
            let next = now + traffic.every * u32::from(number) / u32::from(traffic.flows.max(1));
            Connection { held: Held { port, server: name, end: None }, server, next, silent_since: None }
        };
        let connections = (0..traffic.flows).map(open).collect();
        self.holding.insert(name.to_owned(), Holding { traffic: traffic.clone(), connections });
    }

    pub(super) fn release(&mut self, name: &str) -> Option<Vec<Held>> {
        let holding = self.holding.remove(name)?;
        Some(holding.connections.into_iter().map(|connection| connection.held).collect())
    }

    /// When a client does something next.
    pub(super) fn next(&self) -> Option<Time> {
        let asking = self.asking.values().map(|asking| asking.next);
        let live = |connection: &&Connection| connection.held.end.is_none() && connection.server.is_some();
        let connections = self.holding.values().flat_map(|holding| &holding.connections);
        asking.chain(connections.filter(live).map(|connection| connection.next)).min()
    }

    /// What is due now is asked.
    pub(super) fn act(&mut self, world: &mut World) {
        let now = world.now();
        for asking in self.asking.values_mut() {
            let Asking { traffic, next, sent, flows } = asking;
            while *next <= now {
                let port = traffic.first_port + (*sent % u64::from(traffic.flows.max(1))) as u16;
                let outcome = ask(world, traffic, port).0;
                flows.asks.push(Ask { port, at: now, outcome, latency_us: None });
                *sent += 1;
                *next += Duration::from_secs(1) / traffic.rate.max(1);
            }
        }
        for holding in self.holding.values_mut() {
            let Holding { traffic, connections } = holding;
            for connection in connections {
                if connection.held.end.is_none() && connection.next <= now {
                    connection.next += traffic.every;
                    connection.keep_asking(world, traffic);
                }
            }
        }
    }
}

impl Connection {
    fn keep_asking(&mut self, world: &mut World, traffic: &Traffic) {
        let now = world.now();
        let Some((server, starts)) = self.server else { return };
        let end = match ask(world, traffic, self.held.port).1 {
            // Another server does not know this connection.
            Fate::Arrived(other) if other != server => Some(End::Reset),
            Fate::Arrived(_) => {
                let service = world.host(server).map(anyvip_virtual::world::Host::server);
                match service.map(|service| (service.condition().0, service.starts)) {
                    // Its process is gone, and its kernel said so.
                    Some((Condition::Dead, _)) | None => Some(End::Closed),
                    Some((_, now)) if now != starts => Some(End::Closed),
                    Some((Condition::Hanging, _)) => self.stalls(now, traffic.timeout),
                    Some(_) => {
                        self.silent_since = None;
                        None
                    }
                }
            }
            Fate::Lost(..) => self.stalls(now, traffic.timeout),
        };
        self.held.end = end.map(|end| (now, end));
    }

    fn stalls(&mut self, now: Time, timeout: Duration) -> Option<End> {
        let since = *self.silent_since.get_or_insert(now);
        (now.since(since) >= timeout).then_some(End::Stalled)
    }
}

/// Asks every flow once, and gives the time it takes.
pub(super) fn ask_all(world: &mut World, traffic: &Traffic, mut pass: impl FnMut(&mut World, Time)) -> Flows {
    let begin = world.now();
    let mut asks = Vec::new();
    for number in 0..traffic.flows {
        pass(world, begin + PACE * u32::from(number));
        let port = traffic.first_port + number;
        let outcome = ask(world, traffic, port).0;
        asks.push(Ask { port, at: world.now(), outcome, latency_us: None });
    }
    Flows { asks }
}

/// One question now: what the client sees, and where the packet went.
fn ask(world: &mut World, traffic: &Traffic, port: u16) -> (Outcome, Fate) {
    let Some(from) = world.find(&traffic.from) else { return (Outcome::Silent, lost(NodeId(0))) };
    let source = world.network().ports_of(from).iter().find_map(|id| {
        let port = world.network().port(*id)?;
        let mut addresses = port.addresses.iter().map(ipnet::IpNet::addr);
        addresses.find(|address| address.is_ipv4() == traffic.to.is_ipv4())
    });
    let Some(source) = source else { return (Outcome::Silent, lost(from)) };
    let tcp = traffic.protocol == Protocol::Tcp;
    let flow = Flow {
        protocol: if tcp { 6 } else { 17 },
        source,
        source_port: port,
        destination: traffic.to,
        destination_port: traffic.port,
    };
    let mut fate = world.ask(from, &flow);
    // A lost segment is sent again as long as somebody waits for the answer.
    let (mut waited, mut pause) = (FIRST_RETRANSMISSION, FIRST_RETRANSMISSION);
    while tcp && matches!(fate, Fate::Lost(..)) && waited < traffic.timeout {
        fate = world.ask(from, &flow);
        pause *= 2;
        waited += pause;
    }
    let outcome = match fate {
        Fate::Arrived(server) => match world.host(server) {
            Some(host) if host.listens(traffic.port) => match host.server().condition().0 {
                Condition::Serving | Condition::Failing => Outcome::Server(host.name.clone()),
                Condition::Dead => Outcome::Refused,
                Condition::Hanging => Outcome::Silent,
            },
            _ => Outcome::Refused,
        },
        Fate::Lost(_, "no route") => Outcome::Refused,
        Fate::Lost(..) => Outcome::Silent,
    };
    (outcome, fate)
}

fn lost(at: NodeId) -> Fate {
    Fate::Lost(at, "no address of this family")
}
