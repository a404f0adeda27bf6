//! Two speakers in virtual time, joined by a model of TCP: ordered streams with delay that can be cut, refused, reset,
//! stalled, and left half-open.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyvip_bgp::wire::{Codec, Family, Framer, Message, NextHop, Notification, ReceivedRoute};
use anyvip_bgp::{
    Action, ConnectionId, Endpoint, Event, PeerConfig, PeerName, PeerState, Receive, RouteAttributes,
    SessionOptions, Speaker, SpeakerConfig, Transport,
};
use anyvip_machine::{Failure, FailureKind, Seed, Time};
use ipnet::IpNet;

/// A host's position: 0 or 1.
pub(crate) type Who = usize;
pub(crate) type Routes = BTreeMap<IpNet, RouteAttributes>;

/// What a host's TCP does with a connection that comes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Listening {
    Accepts,
    Refuses,
    /// Accepts and resets at once, as BIRD does while it is cross.
    Resets,
    /// Accepts, and no program ever looks at it.
    Ignores,
}

#[derive(Clone, Debug)]
enum Segment {
    Data(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Clone, Debug)]
enum Happening {
    Tell { who: Who, life: u32, event: Event },
    Syn { tcp: usize },
    SynAck { tcp: usize, answer: Listening },
    Arrive { tcp: usize, to: Who, segment: Segment },
}

#[derive(Clone, Debug)]
struct Tcp {
    /// Who connected.
    client: Who,
    /// Each host's name for it, while it has one.
    ids: [Option<ConnectionId>; 2],
    /// No segment to a host overtakes the one before.
    last_arrival: [Time; 2],
    /// Nobody reads there.
    ignored: bool,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) speakers: [Option<Speaker>; 2],
    pub(crate) configs: [SpeakerConfig; 2],
    pub(crate) wanted: [Routes; 2],
    /// What each host was told by RoutesChanged.
    pub(crate) heard: [BTreeMap<IpNet, ReceivedRoute>; 2],
    /// Everything the speakers asked for.
    pub(crate) log: Vec<(Time, Who, Action)>,
    /// Of each segment, one way.
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) listening: [Listening; 2],
    /// No segment arrives.
    pub(crate) cut: bool,
    /// This host's kernel takes nothing from its speaker any more (the peer's window is closed).
    pub(crate) stalled: [bool; 2],
    /// Received data comes in random pieces.
    pub(crate) pieces: bool,
    up: [bool; 2],
    lives: [u32; 2],
    held: Vec<Happening>,
    blocked: Vec<(Who, ConnectionId, Vec<u8>)>,
    queue: BTreeMap<(Time, u64), Happening>,
    sequence: u64,
    tcps: Vec<Tcp>,
    accepted: u64,
    seed: Seed,
}

pub(crate) fn address(who: Who) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + who as u8))
}

pub(crate) fn name(of: Who) -> PeerName {
    PeerName::from(["a", "b"][of])
}

pub(crate) fn peer(remote: Who, asn: u32) -> PeerConfig {
    PeerConfig {
        remote: Endpoint { address: address(remote), interface: None, port: 179 }.into(),
        asn,
        connect: true,
        hold_time: Some(Duration::from_secs(9)),
        connect_retry: Duration::from_secs(1),
        ttl: Some(1),
        families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
        receive: Receive::All,
        session: SessionOptions::default(),
        transport: Transport::default(),
    }
}

pub(crate) fn route(last: u8) -> RouteAttributes {
    RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 0, 0, last)))
}

pub(crate) fn prefix(number: u32) -> IpNet {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 0)) + number);
    IpNet::new(IpAddr::V4(address), 32).unwrap()
}

impl World {
    /// Hosts `a` (AS 65001, the connecting side) and `b` (AS 65002, which only listens).
    pub(crate) fn new(seed: u64) -> World {
        let seed = Seed::new(seed);
        let config = |who: Who| SpeakerConfig {
            asn: 65001 + who as u32,
            router_id: Ipv4Addr::new(10, 0, 0, 1 + who as u8),
            peers: BTreeMap::from([(name(1 - who), peer(1 - who, 65002 - who as u32))]),
        };
        let mut configs = [config(0), config(1)];
        configs[1].peers.get_mut(&name(0)).unwrap().connect = false;
        World {
            now: Time::from_secs(1),
            speakers: [0, 1].map(|who| Some(Speaker::new(seed.child(["a", "b"][who])))),
            configs,
            wanted: Default::default(),
            heard: Default::default(),
            log: Vec::new(),
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            listening: [Listening::Accepts; 2],
            cut: false,
            stalled: [false; 2],
            pieces: false,
            up: [false; 2],
            lives: [0; 2],
            held: Vec::new(),
            blocked: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            tcps: Vec::new(),
            accepted: 0,
            seed: seed.child("world"),
        }
    }

    /// Both hosts get their configuration now.
    pub(crate) fn start(mut self) -> World {
        for who in [1, 0] {
            self.configure(who);
        }
        self
    }

    /// A world in which the session stands and End-of-RIB was said.
    pub(crate) fn established(seed: u64) -> World {
        let mut world = World::new(seed).start();
        world.run_for(Duration::from_millis(500));
        assert_eq!(world.states(), [PeerState::Established; 2]);
        world
    }

    pub(crate) fn peer_config(&mut self, who: Who) -> &mut PeerConfig {
        self.configs[who].peers.get_mut(&name(1 - who)).unwrap()
    }

    pub(crate) fn configure(&mut self, who: Who) {
        let event = Event::Configure(self.configs[who].clone());
        self.tell(who, event);
    }

    pub(crate) fn want(&mut self, who: Who, routes: Routes) {
        self.wanted[who] = routes.clone();
        self.tell(who, Event::Wanted { peer: name(1 - who), routes });
    }

    pub(crate) fn states(&self) -> [PeerState; 2] {
        [0, 1].map(|who| self.state(who))
    }

    pub(crate) fn state(&self, who: Who) -> PeerState {
        let speaker = self.speakers[who].as_ref();
        speaker.and_then(|s| s.peer(&name(1 - who)).map(|view| view.state)).unwrap_or(PeerState::Idle)
    }

    pub(crate) fn last_error(&self, who: Who) -> String {
        let view = self.speakers[who].as_ref().and_then(|s| s.peer(&name(1 - who)));
        view.and_then(|view| view.last_error.map(|error| error.text.clone())).unwrap_or_default()
    }

    /// TCP connections that both hosts know.
    pub(crate) fn connections(&self) -> usize {
        self.tcps.iter().filter(|tcp| tcp.ids.iter().all(Option::is_some)).count()
    }

    /// The host loses power: nobody is told.
    pub(crate) fn crash(&mut self, who: Who) {
        self.speakers[who] = None;
        self.lives[who] += 1;
        self.heard[who].clear();
        self.up[who] = false;
        self.blocked.retain(|(blocked, ..)| *blocked != who);
        for tcp in &mut self.tcps {
            tcp.ids[who] = None;
        }
    }

    pub(crate) fn boot(&mut self, who: Who) {
        self.take_over(who, None);
    }

    /// A process of the host takes over from another; `first` is what it is told before its configuration.
    pub(crate) fn take_over(&mut self, who: Who, first: Option<Event>) {
        let seed = Seed::new(u64::from(self.lives[who])).child(["a", "b"][who]);
        self.speakers[who] = Some(Speaker::new(seed));
        if let Some(first) = first {
            self.tell(who, first);
        }
        self.configure(who);
    }

    /// The kernels of both ends find all connections broken.
    pub(crate) fn reset_all(&mut self) {
        for tcp in 0..self.tcps.len() {
            for who in [0, 1] {
                self.arrive(tcp, who, Segment::Reset);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        (self.cut, self.stalled, self.listening) = (false, [false; 2], [Listening::Accepts; 2]);
        for happening in std::mem::take(&mut self.held) {
            // Before all that is still under way, so that no segment overtakes another.
            self.push(self.now, happening);
        }
        for (who, id, bytes) in std::mem::take(&mut self.blocked) {
            self.send(who, id, bytes);
        }
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    pub(crate) fn run_until(&mut self, end: Time) {
        let mut turns = 0;
        while self.turn(end) {
            turns += 1;
            assert!(turns < 200_000, "the world spins at {}", self.now);
        }
        self.now = end;
    }

    /// What a host handed to its kernel since `since`, as messages.
    pub(crate) fn messages(&self, who: Who, since: Time) -> Vec<Message> {
        let mut framers: BTreeMap<ConnectionId, Framer> = BTreeMap::new();
        let codec = Codec {
            external: self.configs[0].asn != self.configs[1].asn,
            four_octet_as: true,
            families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
            extended_next_hop: BTreeSet::from([Family::Ipv4]),
            extended_messages: true,
            ..Codec::before_open()
        };
        let mut messages = Vec::new();
        for (_, _, action) in self.log.iter().filter(|(at, host, _)| *at >= since && *host == who) {
            if let Action::Send { connection, bytes } = action {
                assert!(bytes.len() <= 65536);
                let framer = framers.entry(*connection).or_default();
                framer.allow_extended();
                framer.push(bytes);
                while let Some(frame) = framer.next_frame() {
                    messages.push(Message::decode(&frame.unwrap(), &codec).unwrap());
                }
                assert_eq!(framer.pending(), 0, "a Send holds whole messages");
            }
        }
        messages
    }

    pub(crate) fn notifications(&self, who: Who, since: Time) -> Vec<Notification> {
        let said = |message| match message {
            Message::Notification(notification) => Some(notification),
            _ => None,
        };
        self.messages(who, since).into_iter().filter_map(said).collect()
    }

    /// When a host did something that `pick` names.
    pub(crate) fn times(&self, who: Who, pick: impl Fn(&Action) -> bool) -> Vec<Time> {
        let picked = self.log.iter().filter(|(_, host, action)| *host == who && pick(action));
        picked.map(|(at, ..)| *at).collect()
    }

    // Below: the model.

    fn turn(&mut self, end: Time) -> bool {
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        let deadline = |who: Who| self.speakers[who].as_ref().and_then(Speaker::next_deadline);
        let due = [0, 1].into_iter().filter_map(|who| deadline(who).map(|at| (at, who))).min();
        match (event, due) {
            // Read before you time out.
            (Some(at), due) if at <= end && due.is_none_or(|(deadline, _)| at <= deadline) => {
                self.now = at;
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening);
                }
                true
            }
            (_, Some((at, who))) if at <= end => {
                self.now = self.now.max(at);
                self.tell(who, Event::DeadlineReached);
                let next = self.speakers[who].as_ref().and_then(Speaker::next_deadline);
                assert!(next.is_none_or(|next| next > self.now), "no progress at {}", self.now);
                true
            }
            _ => false,
        }
    }

    fn push(&mut self, at: Time, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    fn later(&mut self, who: Who, event: Event) {
        let life = self.lives[who];
        self.push(self.now, Happening::Tell { who, life, event });
    }

    fn arrive(&mut self, tcp: usize, to: Who, segment: Segment) {
        let late = self.seed.between(Duration::ZERO, self.jitter);
        let at = (self.now + self.delay + late).max(self.tcps[tcp].last_arrival[to]);
        self.tcps[tcp].last_arrival[to] = at;
        self.push(at, Happening::Arrive { tcp, to, segment });
    }

    fn happen(&mut self, happening: Happening) {
        let travels = !matches!(happening, Happening::Tell { .. });
        if self.cut && travels {
            self.held.push(happening);
            return;
        }
        match happening {
            Happening::Tell { who, life, event } if life == self.lives[who] => self.tell(who, event),
            Happening::Tell { .. } => {}
            Happening::Syn { tcp } => {
                let server = 1 - self.tcps[tcp].client;
                let answer =
                    if self.speakers[server].is_some() { self.listening[server] } else { Listening::Refuses };
                self.tcps[tcp].ignored = answer == Listening::Ignores;
                let late = self.seed.between(Duration::ZERO, self.jitter);
                let at = self.now + self.delay + late;
                // What the server says first cannot arrive before its SYN-ACK.
                let client = self.tcps[tcp].client;
                self.tcps[tcp].last_arrival[client] = self.tcps[tcp].last_arrival[client].max(at);
                self.push(at, Happening::SynAck { tcp, answer });
                if answer == Listening::Accepts {
                    self.accepted += 1;
                    let connection = ConnectionId::Accepted(self.accepted);
                    self.tcps[tcp].ids[server] = Some(connection);
                    let (local, remote) = self.ends(tcp, server);
                    self.tell(server, Event::Accepted { connection, local, remote });
                }
            }
            Happening::SynAck { tcp, answer } => {
                let client = self.tcps[tcp].client;
                let Some(connection) = self.tcps[tcp].ids[client] else { return };
                if answer == Listening::Refuses {
                    self.tcps[tcp].ids[client] = None;
                    let failure = Failure::new(FailureKind::Refused, "connection refused");
                    self.tell(client, Event::ConnectFailed { connection, failure });
                    return;
                }
                let (local, remote) = self.ends(tcp, client);
                self.tell(client, Event::Connected { connection, local, remote });
                if answer == Listening::Resets {
                    self.arrive(tcp, client, Segment::Reset);
                }
            }
            Happening::Arrive { tcp, to, segment } => self.arrived(tcp, to, segment),
        }
    }

    fn ends(&self, tcp: usize, of: Who) -> (SocketAddr, SocketAddr) {
        let client = self.tcps[tcp].client;
        let port = |who: Who| if who == client { 40000 + (tcp % 20000) as u16 } else { 179 };
        (SocketAddr::new(address(of), port(of)), SocketAddr::new(address(1 - of), port(1 - of)))
    }

    fn arrived(&mut self, tcp: usize, to: Who, segment: Segment) {
        if self.tcps[tcp].ignored && to != self.tcps[tcp].client {
            return;
        }
        let Some(connection) = self.tcps[tcp].ids[to] else {
            // Nobody there: the kernel answers data with a reset.
            if !matches!(segment, Segment::Reset) {
                self.arrive(tcp, 1 - to, Segment::Reset);
            }
            return;
        };
        match segment {
            Segment::Data(bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let most = if self.pieces { 1 + self.seed.below(60) as usize } else { rest.len() };
                    let (piece, after) = rest.split_at(most.min(rest.len()));
                    rest = after;
                    if self.tcps[tcp].ids[to].is_some() {
                        self.tell(to, Event::Received { connection, bytes: piece.to_vec() });
                    }
                }
            }
            Segment::Fin | Segment::Reset => {
                self.tcps[tcp].ids[to] = None;
                let kind =
                    if matches!(segment, Segment::Fin) { FailureKind::Closed } else { FailureKind::Reset };
                self.blocked.retain(|(who, id, _)| (*who, *id) != (to, connection));
                self.tell(to, Event::Closed { connection, failure: Failure::new(kind, format!("{kind:?}")) });
            }
        }
    }

    pub(crate) fn tell(&mut self, who: Who, event: Event) {
        let Some(speaker) = &mut self.speakers[who] else { return };
        for action in speaker.handle(self.now, event) {
            self.log.push((self.now, who, action.clone()));
            self.act(who, action);
        }
        assert_eq!(self.up[who], self.state(who) == PeerState::Established, "reports and state agree");
    }

    fn act(&mut self, who: Who, action: Action) {
        match action {
            Action::Connect { connection, .. } => {
                let mut ids = [None; 2];
                ids[who] = Some(connection);
                self.tcps.push(Tcp { client: who, ids, last_arrival: [Time::ZERO; 2], ignored: false });
                let late = self.seed.between(Duration::ZERO, self.jitter);
                let tcp = self.tcps.len() - 1;
                self.push(self.now + self.delay + late, Happening::Syn { tcp });
            }
            Action::Send { connection, bytes } => {
                assert!(
                    !self.blocked.iter().any(|(by, id, _)| (*by, *id) == (who, connection)),
                    "two in flight"
                );
                if self.stalled[who] {
                    self.blocked.push((who, connection, bytes));
                } else {
                    self.send(who, connection, bytes);
                }
            }
            Action::Close { connection } => {
                let unwritten = self.blocked.len();
                self.blocked.retain(|(by, id, _)| (*by, *id) != (who, connection));
                if let Some(tcp) = self.tcp_of(who, connection) {
                    self.tcps[tcp].ids[who] = None;
                    let broken = self.blocked.len() < unwritten;
                    self.arrive(tcp, 1 - who, if broken { Segment::Reset } else { Segment::Fin });
                }
            }
            Action::SessionUp { .. } => {
                assert!(!std::mem::replace(&mut self.up[who], true), "up twice");
                let routes = self.wanted[who].clone();
                self.later(who, Event::Wanted { peer: name(1 - who), routes });
            }
            Action::RoutesChanged { changes, .. } => {
                for (prefix, route) in changes {
                    match route {
                        Some(route) => drop(self.heard[who].insert(prefix, route)),
                        None => assert!(self.heard[who].remove(&prefix).is_some(), "withdrawn, never told"),
                    }
                }
            }
            Action::SessionDown { was_established, .. } => {
                assert_eq!(
                    std::mem::replace(&mut self.up[who], false),
                    was_established,
                    "ups and downs alternate"
                );
                assert!(self.heard[who].is_empty(), "routes outlive their session");
            }
            Action::StateChanged { .. }
            | Action::Advertised { .. }
            | Action::HeardBeyondLimit { .. }
            | Action::EndOfRib { .. }
            | Action::Malformed { .. }
            | Action::Rejected { .. } => {}
        }
    }

    fn send(&mut self, who: Who, connection: ConnectionId, bytes: Vec<u8>) {
        if let Some(tcp) = self.tcp_of(who, connection) {
            self.arrive(tcp, 1 - who, Segment::Data(bytes));
            self.later(who, Event::Sent { connection });
        }
    }

    fn tcp_of(&self, who: Who, connection: ConnectionId) -> Option<usize> {
        self.tcps.iter().position(|tcp| tcp.ids[who] == Some(connection))
    }
}
