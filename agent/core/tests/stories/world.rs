//! A host in virtual time: the agent under test, a kernel that obeys (or refuses), scripted probes, a disk, and routers
//! that are real BGP speakers at the other end of byte pipes.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyvip_bgp::wire::Family;
use anyvip_bgp::{
    Action as BgpAction, ConnectionId, Endpoint, Event as BgpEvent, PeerConfig, PeerName, PeerState, Receive,
    Rejection, SessionOptions, Speaker, SpeakerConfig, Transport,
};
use anyvip_core::boundary::Answers;
use anyvip_core::config::*;
use anyvip_core::kernel::*;
use anyvip_core::state::{StoredState, StoredStateRead};
use anyvip_core::status::{CheckStatus, ServiceStatus, Status, VipStatus};
use anyvip_core::*;
use anyvip_machine::{Failure, FailureKind, Seed, Time};
use ipnet::IpNet;

use crate::wire::Observer;

pub const LO: u32 = 1;
pub const ETH0: u32 = 2;
pub const ETH1: u32 = 3;
pub const DUMMY: u32 = 9;
/// The wall clock when the world begins.
pub const WALL: u64 = 1_800_000_000_000;
const DELAY: Duration = Duration::from_micros(200);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn default(family: Family) -> IpNet {
    net(if family == Family::Ipv4 { "0.0.0.0/0" } else { "::/0" })
}

pub fn host_route(address: &str) -> IpNet {
    IpNet::from(ip(address))
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

// ---------------------------------------------------------------- configuration

pub fn tcp_check(name: &str) -> Check {
    Check {
        name: name.into(),
        kind: CheckKind::Tcp(TcpCheck { address: None, port: 80, send: None, expect: None }),
        on_vip: true,
        interval: secs(1),
        timeout: ms(500),
        rise: 2,
        fall: 2,
    }
}

/// A check with an address of its own: it gates the whole service.
pub fn own_check(name: &str) -> Check {
    let kind = CheckKind::Tcp(TcpCheck { address: Some(ip("127.0.0.1")), port: 9, send: None, expect: None });
    Check { kind, on_vip: false, ..tcp_check(name) }
}

pub fn service(vips: &[&str], checks: Vec<Check>, peers: &[&str]) -> Service {
    Service {
        vips: vips.iter().map(|vip| ip(vip)).collect(),
        checks,
        peers: peers.iter().map(|peer| PeerName::from(*peer)).collect(),
        statics: BTreeSet::new(),
        announce: Announce::default(),
        on_error: OnError::Hold,
        on_failure: OnFailure::Withdraw,
        drain_time: Duration::ZERO,
    }
}

pub fn peer(address: &str, families: &[Family]) -> PeerConfig {
    PeerConfig {
        remote: Endpoint { address: ip(address), interface: None, port: 179 }.into(),
        asn: 65001,
        connect: true,
        hold_time: Some(secs(9)),
        connect_retry: secs(1),
        ttl: Some(1),
        families: families.iter().copied().collect(),
        receive: Receive::Nothing,
        session: SessionOptions::default(),
        transport: Transport::default(),
    }
}

/// One service `web` on 192.0.2.80 with one TCP check, told to `tor1` at 10.0.1.1.
pub fn config() -> Config {
    Config {
        router_id: Ipv4Addr::new(10, 0, 1, 11),
        host: Host {
            vip_interface: "lo".into(),
            uplinks: None,
            return_path: ReturnPath::Require,
            stop_time: secs(2),
            stop_removes_vip: false,
        },
        bgp: Bgp {
            install_default: false,
            asn: 65011,
            listen: None,
            peers: [("tor1".into(), peer("10.0.1.1", &[Family::Ipv4, Family::Ipv6]))].into(),
            bfd: BTreeMap::new(),
        },
        statics: BTreeMap::new(),
        responder: Default::default(),
        services: [("web".into(), service(&["192.0.2.80"], vec![tcp_check("tcp")], &["tor1"]))].into(),
    }
}

// ---------------------------------------------------------------- the kernel

pub fn link(name: &str) -> Link {
    Link {
        name: name.into(),
        up: true,
        carrier: true,
        loopback: name == "lo",
        arp: name.starts_with("eth"),
        settings: Ipv4Settings::default(),
    }
}

pub fn address(interface: u32, text: &str) -> Address {
    let net = net(text);
    Address {
        interface,
        address: net.addr(),
        prefix_len: net.prefix_len(),
        scope_host: false,
        scope_link: false,
        protocol: 0,
        tentative: false,
        deprecated: false,
    }
}

pub fn route(destination: &str, metric: u32, gateway: Option<&str>, interface: u32) -> Route {
    Route {
        destination: net(destination),
        metric,
        hops: vec![Hop { gateway: gateway.map(ip), interface }],
        protocol: 0,
    }
}

/// `lo`, and `eth0` with 10.0.1.11/24 and 2001:db8:1::11/64, default routes through it.
pub fn kernel_view() -> KernelView {
    KernelView {
        links: [(LO, link("lo")), (ETH0, link("eth0"))].into(),
        addresses: vec![
            address(LO, "127.0.0.1/8"),
            address(ETH0, "10.0.1.11/24"),
            address(ETH0, "2001:db8:1::11/64"),
        ],
        routes: vec![
            route("0.0.0.0/0", 0, Some("10.0.1.1"), ETH0),
            route("10.0.1.0/24", 0, None, ETH0),
            route("::/0", 1024, Some("2001:db8:1::1"), ETH0),
        ],
        all: Ipv4Settings::default(),
    }
}

/// What the fake kernel does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Obedience {
    /// Does it; the view shows it at once.
    Yes,
    /// Says no.
    No(Failure),
    /// Never answers.
    Mute,
}

// ---------------------------------------------------------------- routers

/// A router: a real speaker, and what it was told.
pub struct Router {
    pub speaker: Speaker,
    pub up: bool,
    pub heard: BTreeMap<IpNet, anyvip_bgp::wire::ReceivedRoute>,
    /// Why sessions ended, as this side saw it.
    pub ends: Vec<String>,
    /// Bytes of the agent are not taken while false.
    pub reads: bool,
    pub address: IpAddr,
}

/// The host's address on the link to a router.
fn host_towards(router: IpAddr) -> &'static str {
    match router {
        IpAddr::V4(address) if address.is_loopback() => "127.0.0.1",
        IpAddr::V4(_) => "10.0.1.11",
        IpAddr::V6(address) if address.is_unicast_link_local() => "fe80::11",
        IpAddr::V6(_) => "2001:db8:1::11",
    }
}

/// With the interface where the address needs it.
fn on_link(address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, ETH0).into()
        }
        address => SocketAddr::new(address, port),
    }
}

struct Pipe {
    peer: PeerName,
    theirs: ConnectionId,
}

#[derive(Clone, Debug)]
enum Arrival {
    ToAgent(BgpEvent),
    ToRouter(PeerName, BgpEvent),
    Probe(ProbeId, ProbeOutcome),
    Kernel(KernelRequestId, Result<(), Failure>),
    View,
    Disk(u64, Result<(), Failure>, StoredState),
}

// ---------------------------------------------------------------- the world

pub struct World {
    pub now: Time,
    pub agent: Agent,
    pub view: KernelView,
    pub obedience: Obedience,
    /// What the probe of a check on a target says; absent: pass.
    pub probes: BTreeMap<(String, Option<IpAddr>), ProbeResult>,
    /// Probes are started and never answered.
    pub mute_probes: bool,
    pub disk: Option<StoredState>,
    pub disk_full: bool,
    pub disk_slow: Option<Duration>,
    /// Writes are never answered.
    pub disk_mute: bool,
    /// Sees events and actions alone, and judges.
    pub observer: Observer,
    /// The agent as it was written down and restored at some moment; must do the same from there on.
    twin: Option<Agent>,
    /// The longest that the agent has been when written down.
    pub longest: usize,
    pub routers: BTreeMap<PeerName, Router>,
    pub facts: Vec<(Time, Fact)>,
    /// Every action, in order.
    pub actions: Vec<(Time, Action)>,
    pub replies: BTreeMap<RequestId, Reply>,
    pub exit: Option<u8>,
    /// What the BFD sessions were last asked for, and until when.
    pub bfd: (BTreeMap<anyvip_bfd::SessionName, anyvip_bfd::SessionConfig>, Option<Time>),
    /// What the advertiser asked for.
    pub links: Vec<anyvip_nd::Action>,
    /// Where the agent listens.
    pub listening: Option<SocketAddr>,
    /// What routers that ask were told, in this order.
    pub answers: Vec<Answers>,
    /// Connections that somebody opened to the agent: whether what it writes is taken.
    pub strangers: BTreeMap<ConnectionId, bool>,
    /// Permille of arrivals that come twice.
    pub twice: u64,
    /// The driver reads the kernel side again then, and every 5 s.
    pub looks_at: Option<Time>,
    pipes: BTreeMap<ConnectionId, Pipe>,
    arrivals: BTreeMap<(Time, u64), Arrival>,
    next: u64,
    next_request: u64,
    running: BTreeSet<ProbeId>,
    /// The guard was last complete then, for invariant 1.
    unguarded_since: Option<Time>,
    config: Config,
    seed: u64,
}

impl World {
    /// A world with this configuration and kernel, nothing on disk, its routers up; not started.
    pub fn new(config: Config, view: KernelView) -> World {
        World::with_state(config, view, StoredStateRead::Absent, 7)
    }

    pub fn with_state(config: Config, view: KernelView, state: StoredStateRead, seed: u64) -> World {
        World::with(config, view, state, seed, None)
    }

    fn with(
        config: Config,
        view: KernelView,
        state: StoredStateRead,
        seed: u64,
        inheritance: Option<restored::Inheritance>,
    ) -> World {
        let agent = Agent::new(Start {
            config: config.clone(),
            state: state.clone(),
            boot_id: "boot-1".into(),
            wall_clock_ms: WALL,
            seed,
            inheritance: inheritance.clone(),
        });
        let disk = match state {
            StoredStateRead::Read(state) => Some(state),
            _ => None,
        };
        let drained = disk.iter().flat_map(|disk| disk.drained.keys().cloned());
        let mut observer = Observer::new(&config, drained);
        for (name, service) in inheritance.iter().flat_map(|handed| &handed.restored.services) {
            if let Some(left) = service.draining {
                observer.drains_until(name, Time::ZERO + left);
            }
        }
        let mut world = World {
            now: Time::ZERO,
            agent,
            view,
            obedience: Obedience::Yes,
            probes: BTreeMap::new(),
            mute_probes: false,
            disk,
            disk_full: false,
            disk_slow: None,
            disk_mute: false,
            observer,
            twin: None,
            longest: 0,
            routers: BTreeMap::new(),
            facts: Vec::new(),
            actions: Vec::new(),
            replies: BTreeMap::new(),
            exit: None,
            bfd: (BTreeMap::new(), None),
            links: Vec::new(),
            listening: None,
            answers: Vec::new(),
            strangers: BTreeMap::new(),
            twice: 0,
            looks_at: None,
            pipes: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            next: 0,
            next_request: 1,
            running: BTreeSet::new(),
            unguarded_since: None,
            config: config.clone(),
            seed,
        };
        for (name, peer) in &config.bgp.peers {
            // Who is at the end of a link is the test's to say.
            if let Some(address) = peer.remote.address() {
                world.add_router(name.clone(), address, &[Family::Ipv4, Family::Ipv6]);
            }
        }
        world
    }

    /// A router at this address; families are what it offers.
    pub fn add_router(&mut self, name: PeerName, address: IpAddr, families: &[Family]) {
        let host = host_towards(address);
        let mut speaker = Speaker::new(Seed::new(self.seed).child(&name.0));
        let towards_host = PeerConfig {
            asn: 65011,
            connect: false,
            receive: Receive::All,
            // It keeps routes of whoever asks for it.
            session: SessionOptions { graceful_restart: Some(secs(120)), ..SessionOptions::default() },
            ..peer(host, families)
        };
        let peers = [("host".into(), towards_host)].into();
        let router_id = match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::new(10, 0, 9, 9),
        };
        let _ = speaker.handle(self.now, BgpEvent::Configure(SpeakerConfig { asn: 65001, router_id, peers }));
        let router =
            Router { speaker, up: true, heard: BTreeMap::new(), ends: Vec::new(), reads: true, address };
        self.routers.insert(name, router);
    }

    /// Starts the agent: driver ready, then the first view.
    pub fn start(&mut self) {
        self.give(Event::Started);
        self.show();
    }

    /// The same host after the agent process ended: what is on disk and in the kernel stays.
    pub fn restart(self, config: Config) -> World {
        let state = self.disk.clone().map_or(StoredStateRead::Absent, StoredStateRead::Read);
        World::with_state(config, self.view, state, self.seed + 1)
    }

    /// The same process, as another program: what is on disk, in the kernel and in its services stays.
    pub fn replaced(self, config: Config, inheritance: restored::Inheritance) -> World {
        let state = self.disk.clone().map_or(StoredStateRead::Absent, StoredStateRead::Read);
        let mut world = World::with(config, self.view, state, self.seed + 1, Some(inheritance));
        world.probes = self.probes;
        world
    }

    /// The agent process dies and starts anew; kernel and disk stay as they are.
    pub fn crash(&mut self, config: Config) {
        let state = self.disk.clone().map_or(StoredStateRead::Absent, StoredStateRead::Read);
        let (view, seed) = (self.view.clone(), self.seed + 1000);
        *self = World::with_state(config, view, state, seed);
        self.start();
    }

    /// Hands the agent the kernel's view as it is now.
    pub fn show(&mut self) {
        self.give(Event::KernelView(self.view.clone()));
    }

    pub fn give(&mut self, event: Event) {
        self.observer.given(self.now, &event);
        let twin = self.twin.as_mut().map(|twin| twin.handle(self.now, event.clone()));
        let actions = self.agent.handle(self.now, event);
        if let (Some(did), Some(twin)) = (twin, &self.twin) {
            assert_eq!(did, actions, "the restored agent does something else at {}", self.now);
            assert_eq!(twin.next_deadline(), self.agent.next_deadline());
        }
        self.observer.did(self.now, &actions);
        for action in actions {
            self.actions.push((self.now, action.clone()));
            self.carry_out(action);
        }
        self.check_invariants();
    }

    /// The agent as bytes, as a recording holds it.
    pub fn written_down(&self) -> Vec<u8> {
        recording::open(&recording::Header::of(&self.agent, "test", 1), &self.agent).unwrap()
    }

    /// From here on a second agent, restored from what the first one is now, must do the same.
    pub fn fork(&mut self) {
        let bytes = self.written_down();
        self.longest = self.longest.max(bytes.len());
        self.twin = Some(recording::Segment::read(&bytes).unwrap().checkpoint().unwrap());
    }

    pub fn has_twin(&self) -> bool {
        self.twin.is_some()
    }

    /// Both are the same to the last byte.
    pub fn assert_twins_are_equal(&self) {
        let twin = self.twin.as_ref().expect("forked");
        let header = recording::Header::of(twin, "test", 1);
        assert!(
            recording::open(&header, twin).unwrap() == self.written_down(),
            "{twin:#?}\n{:#?}",
            self.agent
        );
    }

    pub fn command(&mut self, command: Command) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.give(Event::Operator { request, command });
        request
    }

    pub fn drain(&mut self, service: &str) -> RequestId {
        self.command(Command::Drain { service: Some(service.into()), reason: Some("disk swap".into()) })
    }

    pub fn undrain(&mut self, service: &str) -> RequestId {
        self.command(Command::Undrain { service: Some(service.into()) })
    }

    pub fn reload(&mut self, config: Config) -> RequestId {
        self.config = config.clone();
        self.command(Command::Reload { config: Ok(Box::new(config)), keys: Vec::new() })
    }

    /// What probes of this check say from now on, on every target.
    pub fn say(&mut self, check: &str, result: ProbeResult) {
        self.probes.insert((check.to_owned(), None), result);
    }

    fn at(&mut self, delay: Duration, arrival: Arrival) {
        self.next += 1;
        // Only what answers an id may come twice: streams do not.
        let answers = matches!(arrival, Arrival::Probe(..) | Arrival::Kernel(..) | Arrival::Disk(..));
        if answers && self.twice > 0 && Seed::new(self.seed ^ self.next).chance(self.twice) {
            self.arrivals.insert((self.now + delay * 2, self.next), arrival.clone());
            self.next += 1;
        }
        self.arrivals.insert((self.now + delay, self.next), arrival);
    }

    /// Somebody connects to where the agent listens.
    pub fn somebody_connects(&mut self, from: IpAddr) -> Option<ConnectionId> {
        let local = self.listening?;
        self.next += 1;
        let connection = ConnectionId::Accepted(1_000_000 + self.next);
        self.strangers.insert(connection, true);
        let remote = on_link(from, 50_000);
        self.give(Event::Bgp(BgpEvent::Accepted { connection, local, remote }));
        Some(connection)
    }

    /// The driver hung up on somebody who connected.
    pub fn somebody_is_turned_away(&mut self, from: IpAddr, why: Rejection) {
        self.give(Event::Bgp(BgpEvent::TurnedAway { remote: on_link(from, 50_000), why }));
    }

    /// Bytes that nobody at the other end wrote in good faith, on a connection of the agent's own.
    pub fn garble(&mut self, pick: u64, bytes: Vec<u8>) {
        let open: Vec<ConnectionId> = self.pipes.keys().copied().collect();
        if let Some(connection) = open.get((pick as usize).checked_rem(open.len()).unwrap_or(0)) {
            self.give(Event::Bgp(BgpEvent::Received { connection: *connection, bytes }));
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::StartProbe { probe, check, target, timeout, .. } => {
                assert!(self.running.insert(probe), "a probe id was used twice");
                if self.mute_probes {
                    return;
                }
                let vip = match target {
                    Target::Vip(vip) => Some(vip),
                    Target::Own => None,
                };
                let said = self.probes.get(&(check.0.clone(), vip)).or(self.probes.get(&(check.0, None)));
                let result = said.copied().unwrap_or(ProbeResult::Pass);
                let latency = ms(2).min(timeout);
                let detail = format!("{result:?}").to_lowercase();
                self.at(latency, Arrival::Probe(probe, ProbeOutcome { result, latency, detail }));
            }
            Action::CancelProbe { probe } => {
                self.arrivals.retain(|_, a| !matches!(a, Arrival::Probe(id, _) if *id == probe));
            }
            Action::Kernel { request, change } => match self.obedience.clone() {
                Obedience::Yes => {
                    self.apply(&change);
                    self.at(ms(1), Arrival::Kernel(request, Ok(())));
                    self.at(ms(1), Arrival::View);
                }
                Obedience::No(failure) => self.at(ms(1), Arrival::Kernel(request, Err(failure))),
                Obedience::Mute => {}
            },
            Action::Persist { generation, state } => {
                let result = match self.disk_full {
                    true => Err(Failure::new(FailureKind::Exhausted, "no space left on device")),
                    false => Ok(()),
                };
                let delay = self.disk_slow.unwrap_or(ms(3));
                if !self.disk_mute {
                    self.at(delay, Arrival::Disk(generation, result, state));
                }
            }
            Action::Bgp(action) => self.carry_bytes_of_agent(action),
            Action::BfdWanted { sessions, lease } => self.bfd = (sessions, lease),
            Action::WatchRoutes { .. } => {}
            Action::Nd(action) => self.links.push(action),
            Action::Listen { address } => self.listening = address,
            Action::Respond(answers) => self.answers.push(answers),
            Action::Reply { request, reply } => {
                assert!(self.replies.insert(request, reply).is_none(), "two replies to one request");
            }
            Action::Record(fact) => self.facts.push((self.now, fact)),
            // The test answers.
            Action::HandDown { .. } | Action::Replace => {}
            Action::Exit { code } => self.exit = Some(code),
        }
    }

    fn apply(&mut self, change: &KernelRequest) {
        match *change {
            KernelRequest::AddVip { interface, address } => {
                let here = |a: &Address| a.interface == interface && a.address == address;
                if !self.view.addresses.iter().any(here) {
                    self.view.addresses.push(Address {
                        interface,
                        address,
                        prefix_len: if address.is_ipv4() { 32 } else { 128 },
                        scope_host: true,
                        scope_link: false,
                        protocol: VIP_PROTOCOL,
                        tentative: false,
                        deprecated: true,
                    });
                }
            }
            KernelRequest::RemoveVip { interface, address } => {
                self.view.addresses.retain(|a| !(a.interface == interface && a.address == address));
            }
            KernelRequest::SetArp { interface, ignore, announce } => {
                if let Some(link) = self.view.links.get_mut(&interface) {
                    (link.settings.arp_ignore, link.settings.arp_announce) = (ignore, announce);
                }
            }
            KernelRequest::SetDefault { family, ref hops, .. } => {
                self.remove_default(family);
                let hops = hops.iter().map(|hop| Hop { gateway: Some(hop.gateway), interface: ETH0 });
                let destination = default(family);
                let hops = hops.collect();
                self.view.routes.push(Route {
                    destination,
                    metric: DEFAULT_METRIC,
                    hops,
                    protocol: ROUTE_PROTOCOL,
                });
            }
            KernelRequest::RemoveDefault { family } => self.remove_default(family),
        }
    }

    fn remove_default(&mut self, family: Family) {
        self.view
            .routes
            .retain(|route| route.protocol != ROUTE_PROTOCOL || route.destination != default(family));
    }

    fn carry_bytes_of_agent(&mut self, action: BgpAction) {
        match action {
            BgpAction::Connect { connection, peer, remote, .. } => {
                let Some(router) = self.routers.get(&peer).filter(|r| r.up && r.address == remote.address)
                else {
                    let failure = Failure::new(FailureKind::Refused, "connection refused");
                    return self.at(DELAY, Arrival::ToAgent(BgpEvent::ConnectFailed { connection, failure }));
                };
                let host = ip(host_towards(router.address));
                let ConnectionId::Initiated(number) = connection else { panic!("agents initiate") };
                let theirs = ConnectionId::Accepted(number);
                let local = on_link(host, 40000 + u16::try_from(number % 20000).unwrap());
                let remote = on_link(remote.address, remote.port);
                self.pipes.insert(connection, Pipe { peer: peer.clone(), theirs });
                self.at(DELAY, Arrival::ToAgent(BgpEvent::Connected { connection, local, remote }));
                let accepted = BgpEvent::Accepted { connection: theirs, local: remote, remote: local };
                self.at(DELAY, Arrival::ToRouter(peer, accepted));
            }
            BgpAction::Send { connection, .. } if self.strangers.contains_key(&connection) => {
                if self.strangers[&connection] {
                    self.at(DELAY, Arrival::ToAgent(BgpEvent::Sent { connection }));
                }
            }
            BgpAction::Send { connection, bytes } => {
                let Some(pipe) = self.pipes.get(&connection) else { return };
                let (peer, theirs) = (pipe.peer.clone(), pipe.theirs);
                if self.routers.get(&peer).is_some_and(|router| !router.reads) {
                    return;
                }
                self.at(DELAY, Arrival::ToAgent(BgpEvent::Sent { connection }));
                self.at(DELAY, Arrival::ToRouter(peer, BgpEvent::Received { connection: theirs, bytes }));
            }
            BgpAction::Close { connection } => {
                self.strangers.remove(&connection);
                if let Some(pipe) = self.pipes.remove(&connection) {
                    let failure = Failure::new(FailureKind::Closed, "connection closed");
                    let closed = BgpEvent::Closed { connection: pipe.theirs, failure };
                    self.at(DELAY * 2, Arrival::ToRouter(pipe.peer, closed));
                }
            }
            fact => panic!("a fact left the agent: {fact:?}"),
        }
    }

    fn tell_router(&mut self, name: PeerName, event: BgpEvent) {
        let now = self.now;
        let Some(router) = self.routers.get_mut(&name) else { return };
        if !router.up {
            return;
        }
        for action in router.speaker.handle(now, event) {
            let ours = |theirs: ConnectionId, pipes: &BTreeMap<ConnectionId, Pipe>| {
                let mine = pipes.iter().find(|(_, pipe)| pipe.peer == name && pipe.theirs == theirs);
                mine.map(|(id, _)| *id)
            };
            match action {
                BgpAction::Send { connection, bytes } => {
                    let sent = Arrival::ToRouter(name.clone(), BgpEvent::Sent { connection });
                    self.next += 2;
                    self.arrivals.insert((now + DELAY, self.next), sent);
                    if let Some(ours) = ours(connection, &self.pipes) {
                        let received = BgpEvent::Received { connection: ours, bytes };
                        self.arrivals.insert((now + DELAY, self.next + 1), Arrival::ToAgent(received));
                        self.next += 1;
                    }
                }
                BgpAction::Close { connection } => {
                    if let Some(ours) = ours(connection, &self.pipes) {
                        self.pipes.remove(&ours);
                        let failure = Failure::new(FailureKind::Closed, "connection closed");
                        let closed = Arrival::ToAgent(BgpEvent::Closed { connection: ours, failure });
                        self.next += 1;
                        self.arrivals.insert((now + DELAY * 2, self.next), closed);
                    }
                }
                BgpAction::RoutesChanged { changes, .. } => {
                    let router = self.routers.get_mut(&name).unwrap();
                    for (prefix, route) in changes {
                        match route {
                            Some(route) => router.heard.insert(prefix, route),
                            None => router.heard.remove(&prefix),
                        };
                    }
                }
                BgpAction::SessionDown { reason, .. } => {
                    let router = self.routers.get_mut(&name).unwrap();
                    router.ends.push(format!("{reason:?}"));
                    router.heard.clear();
                }
                _ => {}
            }
        }
    }

    /// The router dies: its connections are reset, and nobody listens.
    pub fn kill_router(&mut self, name: &str) {
        let name = PeerName::from(name);
        let dead: Vec<ConnectionId> =
            self.pipes.iter().filter(|(_, pipe)| pipe.peer == name).map(|(id, _)| *id).collect();
        for connection in dead {
            self.pipes.remove(&connection);
            let failure = Failure::new(FailureKind::Reset, "connection reset by peer");
            self.at(DELAY, Arrival::ToAgent(BgpEvent::Closed { connection, failure }));
        }
        let router = self.routers.remove(&name).unwrap();
        self.add_router(name.clone(), router.address, &[Family::Ipv4, Family::Ipv6]);
        self.routers.get_mut(&name).unwrap().up = false;
    }

    pub fn revive_router(&mut self, name: &str) {
        self.routers.get_mut(&PeerName::from(name)).unwrap().up = true;
    }

    /// The next moment at which something happens.
    fn next_moment(&self) -> Option<Time> {
        let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
        let routers = self.routers.values().filter(|r| r.up).filter_map(|r| r.speaker.next_deadline());
        let agent = self.agent.next_deadline().filter(|_| self.exit.is_none());
        routers.chain(arrival).chain(agent).chain(self.looks_at).min()
    }

    /// One thing happens, if any does before `limit`.
    fn step(&mut self, limit: Time) -> bool {
        let Some(at) = self.next_moment().filter(|at| *at <= limit) else { return false };
        self.now = self.now.max(at);
        // Read before time acts.
        if let Some((&key, _)) = self.arrivals.iter().next().filter(|((at, _), _)| *at <= self.now) {
            let arrival = self.arrivals.remove(&key).unwrap();
            self.arrive(arrival);
            return true;
        }
        if self.looks_at.is_some_and(|at| at <= self.now) {
            self.looks_at = Some(self.now + secs(5));
            if self.exit.is_none() {
                self.show();
            }
            return true;
        }
        let now = self.now;
        let due = |r: &Router| r.up && r.speaker.next_deadline().is_some_and(|d| d <= now);
        if let Some(name) = self.routers.iter().find(|(_, r)| due(r)).map(|(name, _)| name.clone()) {
            self.tell_router(name, BgpEvent::DeadlineReached);
            return true;
        }
        self.give(Event::DeadlineReached);
        let next = self.agent.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "no progress at {}: {next:?}", self.now);
        true
    }

    fn arrive(&mut self, arrival: Arrival) {
        if self.exit.is_some() && !matches!(arrival, Arrival::ToRouter(..)) {
            return;
        }
        match arrival {
            Arrival::ToAgent(event) => self.give(Event::Bgp(event)),
            Arrival::ToRouter(name, event) => self.tell_router(name, event),
            Arrival::Probe(probe, outcome) => {
                self.running.remove(&probe);
                self.give(Event::ProbeFinished { probe, outcome });
            }
            Arrival::Kernel(request, result) => self.give(Event::KernelDone { request, result }),
            Arrival::View => self.show(),
            Arrival::Disk(generation, result, state) => {
                if result.is_ok() {
                    assert_eq!(state.generation, generation);
                    self.disk = Some(state);
                }
                self.give(Event::Persisted { generation, result });
            }
        }
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let limit = self.now + duration;
        let mut steps = 0;
        while self.step(limit) {
            steps += 1;
            assert!(steps < 200_000, "the world does not become quiet");
        }
        self.now = limit;
    }

    /// Lets time pass until it is so, at most `limit`.
    #[track_caller]
    pub fn until(&mut self, what: &str, limit: Duration, so: impl Fn(&World) -> bool) {
        let end = self.now + limit;
        while !so(self) {
            assert!(self.step(end), "not within {limit:?}: {what}\n{}", self.tale());
        }
    }

    /// Everything recorded, for a failing test.
    pub fn tale(&self) -> String {
        let lines = self.facts.iter().map(|(at, fact)| format!("{at} {fact:?}\n"));
        let mut text: String = lines.collect();
        text.push_str(&serde_json::to_string_pretty(&self.status()).unwrap());
        text
    }

    // ------------------------------------------------------------ looking

    pub fn status(&self) -> Status {
        self.agent.status(self.now)
    }

    pub fn service(&self, name: &str) -> ServiceStatus {
        self.status().services.into_iter().find(|s| s.name == name.into()).expect("no such service")
    }

    pub fn vip(&self, address: &str) -> VipStatus {
        let services = self.status().services;
        services.into_iter().flat_map(|s| s.vips).find(|v| v.address == ip(address)).expect("no such VIP")
    }

    pub fn reason(&self, address: &str) -> Option<Reason> {
        self.vip(address).reason
    }

    pub fn peer_reason(&self, address: &str, peer: &str) -> Option<Reason> {
        self.vip(address).peers.into_iter().find(|p| p.name == peer).expect("no such peer").reason
    }

    /// Whether the router has a route to the VIP.
    pub fn hears(&self, router: &str, vip: &str) -> bool {
        self.routers[&PeerName::from(router)].heard.contains_key(&host_route(vip))
    }

    /// What the router heard of a prefix.
    pub fn heard(&self, router: &str, prefix: &str) -> Option<anyvip_bgp::wire::PathAttributes> {
        self.routers[&PeerName::from(router)].heard.get(&net(prefix)).map(|route| route.attributes.clone())
    }

    pub fn established(&self, router: &str) -> bool {
        self.routers[&PeerName::from(router)].speaker.peers().all(|p| p.state == PeerState::Established)
    }

    /// Positions of actions, for "this came before that".
    #[track_caller]
    pub fn position(&self, what: &str, is: impl Fn(&Action) -> bool) -> usize {
        let at = self.actions.iter().position(|(_, action)| is(action));
        at.unwrap_or_else(|| panic!("never done: {what}\n{}", self.tale()))
    }

    pub fn count(&self, is: impl Fn(&Action) -> bool) -> usize {
        self.actions.iter().filter(|(_, action)| is(action)).count()
    }

    /// How often something that was announced was withheld again.
    pub fn withdrawals(&self) -> usize {
        let mut out = BTreeSet::new();
        let mut count = 0;
        for (_, fact) in &self.facts {
            if let Fact::VerdictChanged { service, vip, peer, announced, .. } = fact {
                let key = (service.clone(), *vip, peer.clone());
                if *announced {
                    out.insert(key);
                } else if out.remove(&key) {
                    count += 1;
                }
            }
        }
        count
    }

    pub fn warned(&self, code: &str) -> bool {
        self.status().warnings.iter().any(|warning| warning.code == code)
    }

    // ------------------------------------------------------------ invariants

    fn check_invariants(&mut self) {
        let status = self.agent.status(self.now);
        // What the agent has been shown, not what has happened since behind its back.
        for vip in status.services.iter().flat_map(|service| &service.vips) {
            for peer in &vip.peers {
                let announced = peer.reason.is_none();
                // 1: announced only if present and guarded.
                if announced {
                    assert!(vip.present, "{} announced but not present\n{}", vip.address, self.tale());
                    assert_ne!(vip.arp_guarded, Some(false), "{} announced unguarded", vip.address);
                    assert!(vip.wanted && vip.reason.is_none());
                }
            }
        }
        // 2: what checks say is down is withheld or depreferenced in the same moment.
        for service in &status.services {
            for vip in &service.vips {
                let mine = |check: &&CheckStatus| {
                    check.target == vip.address.to_string() || check.target == "127.0.0.1:9"
                };
                let depreferenced = vip.standing == Some(Standing::Depreferenced);
                if service.checks.iter().filter(mine).any(|check| check.state == "down") && !depreferenced {
                    assert!(!vip.wanted, "{} is down and wanted\n{}", vip.address, self.tale());
                }
            }
        }
        // 1, seen from the kernel: an announced IPv4 VIP and an open uplink at most one guard period.
        let announced = status.services.iter().flat_map(|s| &s.vips).any(|v| v.wanted && v.address.is_ipv4());
        let all = self.view.all;
        let open = self.view.routes.iter().flat_map(|r| &r.hops).any(|hop| {
            self.view.links.get(&hop.interface).is_some_and(|l| {
                l.arp
                    && !l.loopback
                    && (l.settings.arp_ignore.max(all.arp_ignore) == 0
                        || l.settings.arp_announce.max(all.arp_announce) < 2)
            })
        });
        let bad = announced && open && self.config.host.uplinks.is_none();
        self.unguarded_since = bad.then(|| self.unguarded_since.unwrap_or(self.now));
        if let Some(since) = self.unguarded_since {
            assert!(self.now.since(since) <= secs(6), "announced unguarded since {since}\n{}", self.tale());
        }
    }

    /// 3: when quiet, each router knows exactly what the agent says it told it.
    #[track_caller]
    pub fn assert_in_agreement(&self) {
        for peer in self.status().peers {
            let router = &self.routers[&PeerName::from(peer.name.as_str())];
            if peer.state == "Established" {
                let heard: Vec<IpNet> = router.heard.keys().copied().collect();
                assert_eq!(heard, peer.advertised, "{} knows something else", peer.name);
            }
        }
    }
}
