//! Peers that are known by their link: who is at the other end, and how the other end learns who we are.
//!
//! A peer without an address is whoever advertises itself as a router on the interface, or whoever connects to us there. What is
//! known of it goes into the speaker's configuration, so a session with another neighbour is another session. A neighbour with
//! whom a session stands is never replaced: anybody on the link can advertise. Of several that advertise, each is tried in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyvip_bgp::{Endpoint, Event as BgpEvent, Neighbour, PeerConfig, PeerName, PeerState, Remote};
use anyvip_machine::{Seed, Time};
use anyvip_nd::{Action as NdAction, Advertiser, Event as NdEvent, Fact as NdFact, InterfaceName, Link};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::boundary::{Action, Fact};
use crate::kernel::KernelView;

/// How long one of several neighbours is tried after it failed.
const TURN: Duration = Duration::from_secs(5);

/// See the module's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Neighbours {
    advertiser: Advertiser,
    /// Of each peer without an address, who is at the other end.
    known: BTreeMap<PeerName, Ipv6Addr>,
    /// When somebody else who advertises there is tried.
    turns: BTreeMap<PeerName, Time>,
    /// What the advertiser was told last.
    links: BTreeMap<InterfaceName, Link>,
    /// Where the speaker was told that these peers are.
    remotes: BTreeMap<PeerName, Remote>,
    /// Something may have changed.
    pub(crate) stirred: bool,
    /// A turn was set by what otherwise sets no rare deadline.
    moved: bool,
}

/// How a neighbour became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learned {
    /// It advertises itself as a router.
    Advertised,
    /// It connected to us.
    Connected,
}

impl Neighbours {
    pub(crate) fn new(seed: Seed) -> Neighbours {
        Neighbours {
            advertiser: Advertiser::new(seed),
            known: BTreeMap::new(),
            turns: BTreeMap::new(),
            links: BTreeMap::new(),
            remotes: BTreeMap::new(),
            stirred: false,
            moved: false,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.turns.values().copied().chain(self.advertiser.next_deadline()).min()
    }

    /// Whether the deadline may have moved since this was asked last.
    pub(crate) fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Who advertises on an interface, in the order of their addresses, and when each was heard last.
    fn heard(&self, interface: &str) -> Vec<(Ipv6Addr, Time)> {
        let view = self.advertiser.interface(&InterfaceName::from(interface));
        let routers = view.map(|view| view.routers).unwrap_or_default();
        routers.into_iter().map(|router| (router.address, router.heard)).collect()
    }

    /// Where the peer is, as far as that is known.
    fn resolve(&self, name: &PeerName, peer: &PeerConfig, view: Option<&KernelView>) -> Remote {
        let Some((interface, own)) = link_of(peer) else { return peer.remote.clone() };
        let neighbour = own.or_else(|| self.known.get(name).copied()).and_then(|address| {
            let (scope, _) = view?.links.iter().find(|(_, link)| link.name == interface)?;
            Some(Neighbour { address, scope: *scope })
        });
        Remote::OnLink { interface: interface.to_owned(), port: peer.remote.port(), neighbour }
    }
}

/// The interface of a peer that is known by its link, and the link-local address where one is configured.
fn link_of(peer: &PeerConfig) -> Option<(&str, Option<Ipv6Addr>)> {
    match &peer.remote {
        Remote::OnLink { interface, .. } => Some((interface, None)),
        Remote::At(Endpoint { address: IpAddr::V6(address), interface: Some(interface), .. })
            if address.is_unicast_link_local() =>
        {
            Some((interface, Some(*address)))
        }
        Remote::At(_) => None,
    }
}

/// A peer without any address.
fn unnumbered(peer: &PeerConfig) -> Option<&str> {
    link_of(peer).filter(|(_, own)| own.is_none()).map(|(interface, _)| interface)
}

/// How the interface is, or why nothing can be heard there, and the cure.
fn link(view: Option<&KernelView>, name: &str) -> Result<Link, (String, String)> {
    let Some(view) = view else {
        return Err(("the kernel's interfaces have not been read yet".to_owned(), "wait".to_owned()));
    };
    let Some((index, link)) = view.links.iter().find(|(_, link)| link.name == name) else {
        return Err((
            format!("there is no interface {name}"),
            "write the name as `ip link` shows it".to_owned(),
        ));
    };
    if !link.up {
        return Err((format!("{name} is down"), format!("ip link set {name} up")));
    }
    if !link.carrier {
        let cure = "look at the cable and at the router's end".to_owned();
        return Err((format!("{name} has no carrier"), cure));
    }
    let on_it = view.addresses.iter().filter(|address| address.interface == *index);
    let mut own = on_it.filter_map(|address| match address.address {
        IpAddr::V6(found) if found.is_unicast_link_local() => Some((found, address.tentative)),
        _ => None,
    });
    let usable = own.clone().filter(|(_, tentative)| !tentative).map(|(found, _)| found).min();
    match (usable, own.next()) {
        (Some(address), _) => Ok(Link { index: *index, link_local: Some(address) }),
        (None, Some((address, _))) => Err((
            format!("{address} on {name} is still being tested, or somebody else has it"),
            format!("`ip -6 address show dev {name}` says tentative or dadfailed"),
        )),
        (None, None) => Err((
            format!("{name} has no link-local address"),
            format!("sysctl -w net.ipv6.conf.{name}.disable_ipv6=0 net.ipv6.conf.{name}.addr_gen_mode=0"),
        )),
    }
}

impl Agent {
    /// The peer as the speaker shall see it.
    pub(crate) fn peer_config(&self, name: &PeerName, peer: &PeerConfig) -> PeerConfig {
        PeerConfig { remote: self.neighbours.resolve(name, peer, self.view.as_ref()), ..peer.clone() }
    }

    /// Where a peer is, as far as that is known.
    pub(crate) fn remote_of(&self, name: &PeerName) -> Option<Remote> {
        let peer = self.config.bgp.peers.get(name)?;
        Some(self.neighbours.resolve(name, peer, self.view.as_ref()))
    }

    /// Interfaces whose other end is a peer.
    pub(crate) fn peer_interfaces(&self) -> BTreeSet<String> {
        let peers = self.config.bgp.peers.values();
        peers.filter_map(|peer| Some(link_of(peer)?.0.to_owned())).collect()
    }

    /// A change of view or configuration: the advertiser is told how its links are, the speaker where its peers are.
    pub(crate) fn pursue_neighbours(&mut self, now: Time, out: &mut Vec<Action>) {
        if !self.started || !std::mem::take(&mut self.neighbours.stirred) {
            return;
        }
        let peers = &self.config.bgp.peers;
        let wanted: BTreeMap<InterfaceName, Link> = peers
            .values()
            // FRR knows a host by its advertisements alone, also one that knows FRR's address.
            .filter_map(|peer| Some(link_of(peer)?.0))
            .filter_map(|interface| {
                let (index, _) = self.view.as_ref()?.links.iter().find(|(_, link)| link.name == interface)?;
                let unready = Link { index: *index, link_local: None };
                let link = link(self.view.as_ref(), interface).unwrap_or(unready);
                Some((InterfaceName::from(interface), link))
            })
            .collect();
        if self.neighbours.links != wanted {
            self.neighbours.links = wanted.clone();
            self.tell_advertiser(now, NdEvent::Wanted { interfaces: wanted }, out);
        }
        let names: BTreeSet<PeerName> = self
            .config
            .bgp
            .peers
            .iter()
            .filter(|(_, peer)| unnumbered(peer).is_some())
            .map(|(n, _)| n.clone())
            .collect();
        self.neighbours.known.retain(|name, _| names.contains(name));
        self.neighbours.turns.retain(|name, _| names.contains(name));
        for name in names {
            self.choose(now, &name, out);
        }
        let given: BTreeMap<PeerName, Remote> = (self.config.bgp.peers.iter())
            .filter(|(_, peer)| link_of(peer).is_some())
            .map(|(name, peer)| (name.clone(), self.neighbours.resolve(name, peer, self.view.as_ref())))
            .collect();
        if given != self.neighbours.remotes {
            self.neighbours.remotes = given;
            self.tell_speaker(now, BgpEvent::Configure(self.speaker_config()), out);
            // BFD follows the address.
            self.touched = true;
        }
    }

    /// Who of those that advertise is the peer.
    fn choose(&mut self, now: Time, name: &PeerName, out: &mut Vec<Action>) {
        let Some(interface) = self.config.bgp.peers.get(name).and_then(unnumbered).map(str::to_owned) else {
            return;
        };
        let state = self.peers.get(name).map_or(PeerState::Idle, |peer| peer.state);
        let turn = self.neighbours.turns.get(name).is_some_and(|at| *at <= now);
        if turn {
            self.neighbours.turns.remove(name);
            self.neighbours.moved = true;
        }
        // Who answers stays, whoever else is heard.
        if state >= PeerState::OpenSent {
            return;
        }
        let current = self.neighbours.known.get(name).copied();
        let heard = self.neighbours.heard(&interface);
        let is_heard = current.is_some_and(|current| heard.iter().any(|(router, _)| *router == current));
        let next = match current {
            Some(current) if is_heard && !turn => Some(current),
            // The next one in the order of addresses, and after the last the first.
            Some(current) if is_heard => {
                let after = heard.iter().find(|(router, _)| *router > current).or(heard.first());
                after.map(|(router, _)| *router)
            }
            _ => heard.iter().max_by_key(|(_, heard)| *heard).map(|(router, _)| *router),
        };
        if let Some(next) = next.filter(|next| current != Some(*next)) {
            self.learn(name, next, Learned::Advertised, out);
        }
    }

    fn learn(&mut self, name: &PeerName, address: Ipv6Addr, how: Learned, out: &mut Vec<Action>) {
        self.neighbours.known.insert(name.clone(), address);
        self.neighbours.moved = true;
        self.neighbours.turns.remove(name);
        let interface = self.config.bgp.peers.get(name).and_then(unnumbered).unwrap_or_default().to_owned();
        out.push(Action::Record(Fact::NeighbourLearned { peer: name.clone(), interface, address, how }));
        self.neighbours.stirred = true;
    }

    /// Somebody connects from a link-local address: the peer of that link, if no other one answers there.
    pub(crate) fn greet(&mut self, now: Time, remote: SocketAddr, out: &mut Vec<Action>) {
        let SocketAddr::V6(remote) = remote else { return };
        if !remote.ip().is_unicast_link_local() {
            return;
        }
        let link = self.view.as_ref().and_then(|view| view.links.get(&remote.scope_id()));
        let Some(interface) = link.map(|link| link.name.clone()) else { return };
        let mut peers = self.config.bgp.peers.iter();
        let Some((name, _)) = peers.find(|(_, peer)| unnumbered(peer) == Some(&interface)) else { return };
        let name = name.clone();
        let free = self.peers.get(&name).is_some_and(|peer| peer.state < PeerState::OpenSent);
        if free && self.neighbours.known.get(&name) != Some(remote.ip()) {
            self.learn(&name, *remote.ip(), Learned::Connected, out);
            self.pursue_neighbours(now, out);
        }
    }

    /// A session or an attempt ended: after a while it is somebody else's turn, where there is anybody else.
    pub(crate) fn neighbour_failed(&mut self, now: Time, name: &PeerName) {
        let Some(interface) = self.config.bgp.peers.get(name).and_then(unnumbered) else { return };
        let current = self.neighbours.known.get(name);
        let others = self.neighbours.heard(interface).iter().any(|(router, _)| Some(router) != current);
        if others {
            self.neighbours.turns.entry(name.clone()).or_insert(now + TURN);
            self.neighbours.moved = true;
        }
    }

    /// An event of the links.
    pub(crate) fn hear_link(&mut self, now: Time, event: NdEvent, out: &mut Vec<Action>) {
        // Only this machine speaks for the links and for time.
        if matches!(event, NdEvent::DeadlineReached | NdEvent::Wanted { .. }) {
            return self.bug("the driver sent a command of the agent to its advertiser", out);
        }
        self.tell_advertiser(now, event, out);
    }

    /// Lets time act.
    pub(crate) fn expire_neighbours(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.neighbours.advertiser.next_deadline().is_some_and(|at| at <= now) {
            self.tell_advertiser(now, NdEvent::DeadlineReached, out);
        }
        self.neighbours.stirred |= self.neighbours.turns.values().any(|at| *at <= now);
    }

    fn tell_advertiser(&mut self, now: Time, event: NdEvent, out: &mut Vec<Action>) {
        for action in self.neighbours.advertiser.handle(now, event) {
            let (interface, text) = match action {
                NdAction::Fact(NdFact::RouterHeard { .. }) => {
                    self.neighbours.stirred = true;
                    continue;
                }
                NdAction::Fact(NdFact::Discarded { interface, source, reason }) => {
                    let text = format!("a packet of {source} on {interface} was refused: {reason}");
                    (interface, text)
                }
                NdAction::Fact(NdFact::CannotSend { interface, failure: Some(failure) }) => {
                    let text = format!("router advertisements do not leave {interface}: {failure}");
                    (interface, text)
                }
                NdAction::Fact(NdFact::CannotSend { interface, failure: None }) => {
                    let text = format!("router advertisements leave {interface} again");
                    (interface, text)
                }
                action => {
                    out.push(Action::Nd(action));
                    continue;
                }
            };
            let mut peers = self.config.bgp.peers.iter();
            let peer =
                peers.find(|(_, peer)| unnumbered(peer) == Some(&interface.0)).map(|(name, _)| name.clone());
            if let Some(text) = self.notices.admit(now, peer.as_ref(), text) {
                out.push(Action::Record(Fact::PeerNotice { peer, text }));
            }
        }
    }

    /// Where a peer is, for people: an address, with its interface where that is needed, or the interface alone.
    pub(crate) fn words_of_remote(&self, name: &PeerName) -> String {
        match self.remote_of(name) {
            Some(Remote::OnLink { interface, neighbour: Some(neighbour), .. }) => {
                format!("{}%{interface}", neighbour.address)
            }
            Some(Remote::OnLink { interface, neighbour: None, .. }) => interface,
            Some(Remote::At(endpoint)) => endpoint.address.to_string(),
            None => String::new(),
        }
    }

    /// What a peer without a session is waited for on its link, and what would help.
    pub(crate) fn waits_on_link(&self, name: &PeerName) -> Option<(String, String)> {
        let peer = self.config.bgp.peers.get(name)?;
        let (interface, own) = link_of(peer)?;
        let state = self.peers.get(name).map(|peer| peer.state)?;
        if state >= PeerState::OpenSent {
            return None;
        }
        if let Err(trouble) = link(self.view.as_ref(), interface) {
            return Some(trouble);
        }
        if own.is_some() {
            return None;
        }
        let trouble = self.neighbours.advertiser.interface(&InterfaceName::from(interface));
        if let Some(failure) = trouble.and_then(|view| view.trouble) {
            let text = format!("router advertisements do not leave {interface}: {failure}");
            return Some((text, "the router learns this host from them; see `anyvip events`".to_owned()));
        }
        if self.neighbours.known.contains_key(name) {
            return None;
        }
        Some((
            format!("no router has been heard on {interface}"),
            "let the router advertise itself there (FRR does so for `neighbor IF interface`, BIRD with `protocol radv`), \
             let it connect to bgp.listen, or write its link-local address as `address`"
                .to_owned(),
        ))
    }

    /// Links on which more than one router is heard, in words.
    pub(crate) fn crowded_links(&self) -> Vec<String> {
        let peers = self.config.bgp.peers.iter();
        let several = peers.filter_map(|(name, peer)| {
            let interface = unnumbered(peer)?;
            let heard = self.neighbours.heard(interface);
            let list: Vec<String> = heard.iter().map(|(router, _)| router.to_string()).collect();
            (list.len() > 1).then(|| {
                format!(
                    "{name}: several routers are heard on {interface}: {}. A peer without an address is the only other \
                     end of its link; write its address",
                    list.join(", ")
                )
            })
        });
        several.collect()
    }
}
