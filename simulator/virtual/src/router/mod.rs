//! The embedded router as a machine: BGP sessions in, routes for a kernel (or a simulated one) out.
//!
//! It owns the [`Speaker`] and the [`LocRib`]. What the speaker reports is handled within the same `handle`; only
//! effects leave: bytes and connections, routes to install, and what a person may want to know. Like most routers it
//! drops the sessions of an interface that goes down at once ("fast external failover") and does not wait for a timer, and
//! keeps the routes of neighbours that restart and have asked for it (RFC 4724).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyvip_bgp::wire::{Community, ExtendedCommunity, Family, LargeCommunity, NextHop, ReceivedRoute};
use anyvip_bgp::{
    DownReason, Endpoint, PeerConfig, PeerName, Receive, RouteAttributes, SessionFacts, SessionOptions,
    Speaker, SpeakerConfig, Transport,
};
use anyvip_machine::{Seed, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::lab::{Lab, RouterRole};
use retained::Retained;

mod fib;
mod hashing;
mod install;
mod loc_rib;
mod ranking;
mod retained;

pub use fib::Fib;
pub use hashing::Hashing;
pub use install::Install;
pub use loc_rib::{Learned, LocRib, MULTIPATH_LIMIT};

/// BGP's port.
const PORT: u16 = 179;

/// What enters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// `next_deadline()` has come. The only event that lets time act.
    DeadlineReached,
    /// The whole configuration, once or again.
    Configure(RouterConfig),
    /// An interface of this name lost or regained its link.
    Link { interface: String, up: bool },
    /// From the connections.
    Bgp(anyvip_bgp::Event),
}

/// What leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// `Connect`, `Send` or `Close`, for the connections.
    Bgp(anyvip_bgp::Action),
    /// From now on this prefix goes to these next hops, in this order (sorted by address, so that a hop keeps its
    /// place in the hash table whatever the others do).
    Install { prefix: IpNet, next_hops: Vec<Hop> },
    /// There is no way to this prefix any more.
    Remove { prefix: IpNet },
    /// A session stands.
    SessionUp { peer: PeerName },
    /// A session, or an attempt at one, ended.
    SessionDown { peer: PeerName, was_established: bool, reason: DownReason },
    /// Something odd that was survived.
    Notice { text: String },
}

/// A next hop on a connected network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hop {
    /// Its address; may be IPv6 for an IPv4 prefix.
    pub address: IpAddr,
    /// The interface it is on.
    pub interface: String,
    /// Its share: 1 to 256, from the link bandwidth that was told with its route, if all next hops have one.
    pub weight: u16,
}

/// A router as meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterConfig {
    /// Its AS number.
    pub asn: u32,
    /// BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Offered hold time.
    pub hold_time: Option<Duration>,
    /// Its neighbours, by name.
    pub neighbours: BTreeMap<PeerName, NeighbourConfig>,
}

impl RouterConfig {
    /// The router of a lab file, as a machine wants it.
    pub fn of(lab: &Lab, name: &str, role: &RouterRole) -> RouterConfig {
        let addresses = lab.nodes.get(name).map(|node| node.addresses.clone()).unwrap_or_default();
        let neighbours = lab.neighbours(name).into_iter().map(|neighbour| {
            let own = addresses.get(&neighbour.interface).into_iter().flatten().map(IpNet::addr).collect();
            let is_router = lab.nodes.get(&neighbour.name).is_some_and(|node| node.role.is_router());
            let config = NeighbourConfig {
                address: neighbour.address,
                asn: neighbour.asn,
                interface: neighbour.interface,
                connect: neighbour.connect,
                readvertise: role.readvertise && is_router,
                own,
            };
            (PeerName(neighbour.name), config)
        });
        let (asn, router_id, hold_time) = (role.asn, role.router_id, role.hold_time);
        RouterConfig { asn, router_id, hold_time, neighbours: neighbours.collect() }
    }
}

/// A neighbour as meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighbourConfig {
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// The interface it is on.
    pub interface: String,
    /// Whether we open the connection.
    pub connect: bool,
    /// Whether it is told our best routes, with ourselves as next hop.
    pub readvertise: bool,
    /// Our addresses on that interface, to be told as next hop.
    pub own: BTreeSet<IpAddr>,
}

/// See the module's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Router {
    speaker: Speaker,
    config: Option<RouterConfig>,
    down: BTreeSet<String>,
    sessions: BTreeMap<PeerName, SessionFacts>,
    /// Neighbours that are told our best routes; few of many.
    readvertised: Vec<PeerName>,
    rib: LocRib,
    retained: Retained,
}

impl Router {
    /// A router without configuration. The seed decides the jitter of its timers.
    pub fn new(seed: &Seed) -> Router {
        Router {
            speaker: Speaker::new(seed.child("speaker")),
            config: None,
            down: BTreeSet::new(),
            sessions: BTreeMap::new(),
            readvertised: Vec::new(),
            rib: LocRib::default(),
            retained: Retained::default(),
        }
    }

    /// Takes an event and gives back what to do, in this order.
    #[must_use]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut turn = Turn::default();
        match event {
            Event::DeadlineReached => {
                while let Some(peer) = self.retained.overdue(now) {
                    self.give_up(&peer, &mut turn);
                }
                turn.ask(anyvip_bgp::Event::DeadlineReached);
            }
            Event::Bgp(event) => {
                if let anyvip_bgp::Event::PathDown { peer } = &event {
                    self.give_up(peer, &mut turn);
                }
                turn.ask(event);
            }
            Event::Configure(config) => {
                let readvertised = config.neighbours.iter().filter(|(_, neighbour)| neighbour.readvertise);
                self.readvertised = readvertised.map(|(peer, _)| peer.clone()).collect();
                self.config = Some(config);
                turn.told.extend(self.sessions.keys().cloned());
                self.configure(&mut turn);
            }
            Event::Link { interface, up } => {
                let changed = if up { self.down.remove(&interface) } else { self.down.insert(interface) };
                if changed {
                    self.configure(&mut turn);
                }
            }
        }
        self.work_off(now, &mut turn);
        turn.actions
    }

    /// What the speaker is asked, and what follows from it.
    fn work_off(&mut self, now: Time, turn: &mut Turn) {
        while let Some(event) = turn.asked.pop_front() {
            let actions = self.speaker.handle(now, event);
            let mut ending: Vec<PeerName> = actions.iter().filter_map(ended).cloned().collect();
            for action in actions {
                // At the end of a session the speaker takes everything back. What becomes of it is decided where the reason is known.
                if matches!(&action, anyvip_bgp::Action::RoutesChanged { peer, .. } if ending.contains(peer))
                {
                    continue;
                }
                ending.retain(|peer| ended(&action) != Some(peer));
                self.learn(now, action, turn);
            }
            if turn.asked.is_empty() {
                self.settle(turn);
            }
        }
    }

    /// When to call `handle` with [`Event::DeadlineReached`].
    pub fn next_deadline(&self) -> Option<Time> {
        self.speaker.next_deadline().into_iter().chain(self.retained.next_deadline()).min()
    }

    /// Sessions, Adj-RIB-In and Adj-RIB-Out of each neighbour.
    pub fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// All routes that were learned, and what was chosen.
    pub fn rib(&self) -> &LocRib {
        &self.rib
    }

    /// What a neighbour told on a former session, if it is in use until it tells everything anew: how long at most, and which.
    pub fn retained(&self, now: Time, peer: &PeerName) -> Option<(Duration, &BTreeSet<IpNet>)> {
        self.retained.of(now, peer)
    }

    /// Loses all routes of a neighbour (or of all) while the sessions stand: a bug that routers have had. The neighbour
    /// does not know, and what it does not change it does not say again.
    #[must_use]
    pub fn forget(&mut self, now: Time, peer: Option<&PeerName>) -> Vec<Action> {
        let mut turn = Turn::default();
        let peers: Vec<PeerName> = match peer {
            Some(peer) => vec![peer.clone()],
            None => self.sessions.keys().cloned().collect(),
        };
        for peer in peers {
            turn.touched.extend(self.rib.forget(&peer));
        }
        self.settle(&mut turn);
        self.work_off(now, &mut turn);
        turn.actions
    }

    /// What is in use, by prefix.
    pub fn routes(&self) -> &BTreeMap<IpNet, Vec<Hop>> {
        self.rib.installed()
    }

    /// What is kept of a neighbour that restarts is of no use any more.
    fn give_up(&mut self, peer: &PeerName, turn: &mut Turn) {
        let lost = self.retained.path_lost(peer);
        self.lose(peer, lost, turn);
    }

    fn lose(&mut self, peer: &PeerName, prefixes: BTreeSet<IpNet>, turn: &mut Turn) {
        for prefix in prefixes {
            self.rib.learn(prefix, peer, None);
            turn.touched.insert(prefix);
        }
    }

    /// The speaker's peers are the neighbours on interfaces that have a link.
    fn configure(&mut self, turn: &mut Turn) {
        let Some(config) = &self.config else { return };
        let reached = |peer: &PeerName| {
            config.neighbours.get(peer).is_some_and(|neighbour| !self.down.contains(&neighbour.interface))
        };
        let gone: Vec<PeerName> = self.retained.neighbours().filter(|peer| !reached(peer)).cloned().collect();
        let peers = config
            .neighbours
            .iter()
            .filter(|(_, neighbour)| !self.down.contains(&neighbour.interface))
            .map(|(name, neighbour)| {
                let peer = PeerConfig {
                    remote: Endpoint { address: neighbour.address, interface: None, port: PORT }.into(),
                    asn: neighbour.asn,
                    connect: neighbour.connect,
                    hold_time: config.hold_time,
                    connect_retry: Duration::from_secs(1),
                    ttl: Some(1),
                    families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
                    receive: Receive::All,
                    // Like most routers it keeps what a neighbour that restarts has told, and asks for nothing like that itself.
                    session: SessionOptions {
                        graceful_restart: Some(Duration::ZERO),
                        ..SessionOptions::default()
                    },
                    transport: Transport::default(),
                };
                (name.clone(), peer)
            })
            .collect();
        let (asn, router_id) = (config.asn, config.router_id);
        turn.ask(anyvip_bgp::Event::Configure(SpeakerConfig { asn, router_id, peers }));
        for peer in gone {
            self.give_up(&peer, turn);
        }
    }

    fn learn(&mut self, now: Time, action: anyvip_bgp::Action, turn: &mut Turn) {
        use anyvip_bgp::Action as Bgp;
        match action {
            Bgp::Connect { .. } | Bgp::Send { .. } | Bgp::Close { .. } => {
                turn.actions.push(Action::Bgp(action))
            }
            Bgp::StateChanged { .. } | Bgp::Advertised { .. } => {}
            Bgp::SessionUp { peer, facts } => {
                let lost = self.retained.session_up(now, &peer, facts.peer_restart.as_ref());
                self.lose(&peer, lost, turn);
                self.sessions.insert(peer.clone(), facts);
                turn.told.insert(peer.clone());
                turn.actions.push(Action::SessionUp { peer });
            }
            Bgp::SessionDown { peer, was_established, reason } => {
                if let Some(facts) = self.sessions.remove(&peer) {
                    // RFC 4724 §4.2: what ends with a NOTIFICATION is meant to end.
                    let restart = facts.peer_restart.filter(|_| matches!(reason, DownReason::Connection(_)));
                    let told = self.rib.prefixes_of(&peer);
                    let lost = self.retained.session_lost(now, &peer, restart.as_ref(), told);
                    self.lose(&peer, lost, turn);
                }
                turn.actions.push(Action::SessionDown { peer, was_established, reason });
            }
            Bgp::RoutesChanged { peer, changes } => {
                for (prefix, route) in changes {
                    self.retained.told(&peer, &prefix);
                    let learned = route.and_then(|route| self.learned(&peer, route));
                    self.rib.learn(prefix, &peer, learned);
                    turn.touched.insert(prefix);
                }
            }
            Bgp::EndOfRib { peer, family } => {
                let lost = self.retained.all_told(&peer, family);
                self.lose(&peer, lost, turn);
            }
            Bgp::HeardBeyondLimit { .. } => {}
            Bgp::Malformed { peer, error } => {
                turn.actions.push(Action::Notice { text: format!("{peer}: {error}") });
            }
            Bgp::Rejected { remote, why } => {
                turn.actions.push(Action::Notice { text: format!("{remote}: {why}") });
            }
        }
    }

    fn learned(&self, peer: &PeerName, route: ReceivedRoute) -> Option<Learned> {
        let config = self.config.as_ref()?;
        let (neighbour, facts) = (config.neighbours.get(peer)?, self.sessions.get(peer)?);
        Some(Learned {
            route,
            address: facts.remote.ip(),
            router_id: facts.router_id,
            external: neighbour.asn != config.asn,
            interface: neighbour.interface.clone(),
        })
    }

    /// Chooses anew what was touched, and tells neighbouring routers.
    fn settle(&mut self, turn: &mut Turn) {
        let mut changed = false;
        for prefix in std::mem::take(&mut turn.touched) {
            let Some(next_hops) = self.rib.choose(prefix) else { continue };
            changed = true;
            turn.actions.push(match next_hops {
                hops if hops.is_empty() => Action::Remove { prefix },
                next_hops => Action::Install { prefix, next_hops },
            });
        }
        let mut told = std::mem::take(&mut turn.told);
        if changed {
            told.extend(self.readvertised.iter().cloned());
        }
        let Some(config) = &self.config else { return };
        for peer in told {
            let (Some(neighbour), Some(facts)) = (config.neighbours.get(&peer), self.sessions.get(&peer))
            else {
                continue;
            };
            let routes =
                if neighbour.readvertise { self.wanted(&peer, neighbour, facts) } else { BTreeMap::new() };
            turn.ask(anyvip_bgp::Event::Wanted { peer, routes });
        }
    }

    /// Our best routes as this neighbour shall know them: next hop self, and none that we have from it.
    fn wanted(
        &self,
        peer: &PeerName,
        neighbour: &NeighbourConfig,
        facts: &SessionFacts,
    ) -> BTreeMap<IpNet, RouteAttributes> {
        let own = |v4: bool| {
            let natural = Some(facts.local.ip()).filter(|address| address.is_ipv4() == v4);
            natural.or_else(|| neighbour.own.iter().copied().find(|address| address.is_ipv4() == v4))
        };
        // RFC 4360 §6: what is not transitive ends at the border of an AS.
        let internal = self.config.as_ref().is_some_and(|config| config.asn == neighbour.asn);
        let passes = |community: &&ExtendedCommunity| internal || community.is_transitive();
        let mut routes = BTreeMap::new();
        for (prefix, from, learned) in self.rib.best() {
            if from == peer {
                continue;
            }
            let Some(next_hop) = own(prefix.addr().is_ipv4()) else { continue };
            let next_hop = match next_hop {
                IpAddr::V4(address) => NextHop::V4(address),
                IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
            };
            let attributes = &learned.route.attributes;
            routes.insert(
                *prefix,
                RouteAttributes {
                    origin: attributes.origin,
                    as_path: attributes.as_path.clone(),
                    communities: attributes.communities.iter().copied().collect::<BTreeSet<Community>>(),
                    extended_communities: attributes
                        .extended_communities
                        .iter()
                        .filter(passes)
                        .copied()
                        .collect::<BTreeSet<ExtendedCommunity>>(),
                    large_communities: attributes
                        .large_communities
                        .iter()
                        .copied()
                        .collect::<BTreeSet<LargeCommunity>>(),
                    ..RouteAttributes::originated(next_hop)
                },
            );
        }
        routes
    }
}

/// Whose session this ends.
fn ended(action: &anyvip_bgp::Action) -> Option<&PeerName> {
    match action {
        anyvip_bgp::Action::SessionDown { peer, was_established: true, .. } => Some(peer),
        _ => None,
    }
}

/// What piles up while one event is handled.
#[derive(Default)]
struct Turn {
    asked: VecDeque<anyvip_bgp::Event>,
    touched: BTreeSet<IpNet>,
    told: BTreeSet<PeerName>,
    actions: Vec<Action>,
}

impl Turn {
    fn ask(&mut self, event: anyvip_bgp::Event) {
        self.asked.push_back(event);
    }
}

#[cfg(test)]
mod tests;
