//! What is true of a host, a session, a router of the world, as the facts of the checker.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bfd::{SessionName, State, Wish};
use anyvip_bgp::wire::{Family, NextHop, ReceivedRoute};
use anyvip_bgp::{PeerName, PeerState, RouteAttributes};
use anyvip_core::config::{Check, Config, OnFailure, Service, Standing};
use anyvip_machine::Time;
use ipnet::IpNet;

use super::facts::{Admin, PeerFacts, VipFacts};
use super::rules::GUARD_PERIOD;
use crate::world::{Host, LinkId, NodeId, Pace, PortId, RouterNode, World};

/// A change of ARP values or links by somebody else is excused this long.
const EXCUSED: Duration = Duration::from_secs(2 * GUARD_PERIOD.as_secs() + 1);

/// A session as it is cabled.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// The router, by the name that the host's configuration has for it.
    pub(super) peer: PeerName,
    pub(super) router: NodeId,
    /// The host, by the name that the router's configuration has for it.
    pub(super) neighbour: PeerName,
    pub(super) interface: String,
    /// The host's end.
    pub(super) port: PortId,
    pub(super) links: Vec<LinkId>,
    /// The BFD sessions, as the host and as the router name them, where the router has one.
    pub(super) bfd: Option<(SessionName, SessionName)>,
    /// No BGP: the router follows BFD with these static routes.
    pub(super) tracked: Option<Vec<IpNet>>,
}

/// What is remembered of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) pairs: Vec<Pair>,
    /// Uplinks as last seen: index, with a signal, guarded.
    pub(super) uplinks: Vec<(u32, bool, bool)>,
    /// Somebody else changed ARP values or links, or the agent began.
    pub(super) meddled: Time,
    /// Views may be older than that until then; the kernel may not have been asked again.
    pub(super) blind_until: Time,
    /// When it last did not run at its pace.
    pub(super) paused: Time,
}

pub(super) fn peer_at(world: &World, host: &Host, router: NodeId) -> Option<PeerName> {
    let at = |address: IpAddr| {
        let port = world.network().owner(address)?;
        world.network().port(port).map(|port| port.node)
    };
    let config = host.agent()?.config();
    config
        .bgp
        .peers
        .iter()
        .find(|(_, peer)| peer.remote.address().and_then(at) == Some(router))
        .map(|(name, _)| name.clone())
}

/// The BFD session of a host towards this BGP peer, if it is configured.
pub(super) fn session_at(world: &World, host: NodeId, peer: &PeerName) -> Option<SessionName> {
    let config = world.host(host)?.agent()?.config();
    config.bgp.bfd.get(peer)?;
    Some(SessionName(config.bgp.peers.get(peer)?.remote.address()?.to_string()))
}

/// The static peer of a host at this router, and its BFD session.
pub(super) fn static_at(world: &World, host: &Host, router: NodeId) -> Option<(PeerName, SessionName)> {
    let at = |address: IpAddr| {
        let port = world.network().owner(address)?;
        world.network().port(port).map(|port| port.node)
    };
    let mut peers = host.agent()?.config().statics.iter();
    let (name, peer) = peers.find(|(_, peer)| at(peer.address) == Some(router))?;
    Some((name.clone(), SessionName(peer.address.to_string())))
}

pub(super) fn vip_facts(
    now: Time,
    known: &Known,
    host: &Host,
    config: &Config,
    name: &anyvip_core::ServiceName,
    vip: IpAddr,
) -> VipFacts {
    let service = config.services.get(name);
    let checks = service.map(|service| service.checks.as_slice()).unwrap_or_default();
    let detection = checks.iter().map(detection).max().unwrap_or_default();
    let configured = config.host.uplinks.as_ref();
    let exposed = || {
        let mut uplinks = host.kernel.uplinks();
        uplinks.any(|(index, link)| {
            let counts = configured.is_none_or(|names| names.contains(&link.name));
            counts && link.up && link.carrier && !host.kernel.arp_guarded(index)
        })
    };
    let intention = host.intentions.get(name);
    let fresh = now.since(host.config_since) <= detection;
    let truth = host.service(name);
    let drain_time = service.map(|service| service.drain_time).unwrap_or_default();
    let drains = |since: Time| {
        !drain_time.is_zero() && now.since(since.max(known.paused)) <= drain_time + Duration::from_secs(2)
    };
    VipFacts {
        vip,
        present: host.kernel.has(vip),
        guarded: vip.is_ipv4().then(|| !exposed()),
        healthy: match checks.is_empty() {
            true => Some(true),
            false => truth.appears().filter(|appears| *appears || !fresh),
        },
        detection,
        depreferences: service.is_some_and(|service| service.on_failure == OnFailure::Depreference),
        admin: match intention {
            None => Admin::Enabled,
            Some(intention) if !intention.acknowledged => Admin::Undecided,
            Some(intention) if intention.drained && drains(intention.since) => Admin::Undecided,
            Some(intention) if intention.drained => Admin::Drained,
            Some(_) => Admin::Enabled,
        },
        able: host.powered
            && host.pace() == Some(Pace::Running)
            && host.kernel.view_lag.is_zero()
            && host.kernel.refuses.is_none()
            // An agent that cannot read its state leaves addresses and guard as they are.
            && host.disk.unreadable.is_none()
            && now >= known.blind_until,
        wanted: host.wanted,
        untouched: now.since(known.meddled.max(known.paused).max(known.blind_until)) > EXCUSED,
    }
}

/// From the first probe that could have failed to the decision.
fn detection(check: &Check) -> Duration {
    let round = check.interval.max(check.timeout);
    round * (check.fall + 1) + check.timeout
}

pub(super) fn peer_facts(
    host: &Host,
    config: &Config,
    name: &anyvip_core::ServiceName,
    vip: IpAddr,
    pair: &Pair,
    world: &World,
) -> PeerFacts {
    let Some(agent) = host.agent() else { return PeerFacts::default() };
    let Some(view) = agent.speaker().peer(&pair.peer) else { return PeerFacts::default() };
    let prefix = IpNet::from(vip);
    let family = if vip.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let carried = view.facts.is_some_and(|facts| facts.families.contains(&family));
    let service = config.services.get(name);
    let port = world.network().port(pair.port);
    let reachable = || {
        let own =
            port.is_some_and(|port| port.addresses.iter().any(|net| net.addr().is_ipv4() == vip.is_ipv4()));
        let written = |service: &Service| {
            let written = service.announce.attributes(&pair.peer, Standing::Normal);
            written.next_hop.iter().flatten().any(|hop| hop.is_ipv4() == vip.is_ipv4())
        };
        own || service.is_some_and(written)
    };
    let decided = agent.announcements().get(&pair.peer).and_then(|routes| routes.get(&prefix));
    let lowered = |route: &RouteAttributes| {
        service.filter(|service| service.on_failure == OnFailure::Depreference).is_some_and(|service| {
            let written = service.announce.attributes(&pair.peer, Standing::Depreferenced);
            (written.prepend.unwrap_or(0), written.med) == (route.prepend, route.med)
        })
    };
    PeerFacts {
        established: view.state == PeerState::Established,
        admitted: carried && service.is_some_and(|service| service.peers.contains(&pair.peer)) && reachable(),
        decided: decided.is_some(),
        preferred: decided.is_some_and(|route| !lowered(route)),
        advertised: view.advertised().is_some_and(|routes| routes.contains_key(&prefix)),
    }
}

/// The same for a static peer: what is told is the state of a BFD session.
pub(super) fn tracked_facts(pair: &Pair, node: NodeId, world: &World) -> PeerFacts {
    let session = pair.bfd.as_ref().and_then(|(session, _)| world.bfd(node, session));
    let decided = session.as_ref().is_some_and(|session| session.wish == Wish::Up);
    let up = session.is_some_and(|session| session.view.state == State::Up);
    PeerFacts { established: true, admitted: true, decided, preferred: decided, advertised: up }
}

/// Whether the router has a static route to the host for this prefix.
pub(super) fn follows(world: &World, pair: &Pair, prefix: &IpNet) -> bool {
    let own = world.network().port(pair.port).map(|port| port.addresses.as_slice()).unwrap_or_default();
    let hops = world.router(pair.router).and_then(|router| router.fib.get(prefix));
    hops.is_some_and(|hops| {
        hops.iter()
            .any(|hop| hop.interface == pair.interface && own.iter().any(|net| net.addr() == hop.address))
    })
}

/// Whether what this router is told depends on this service.
pub(super) fn concerns(pair: &Pair, service: &Service) -> bool {
    match pair.tracked {
        None => service.peers.contains(&pair.peer),
        Some(_) => service.statics.contains(&pair.peer),
    }
}

pub(super) fn told(
    node: NodeId,
    host: &Host,
    config: &Config,
    name: &anyvip_core::ServiceName,
    vip: IpAddr,
    pair: &Pair,
    world: &World,
) -> PeerFacts {
    match pair.tracked {
        None => peer_facts(host, config, name, vip, pair, world),
        Some(_) => tracked_facts(pair, node, world),
    }
}

/// Both ends of the BFD session are Up, where there shall be one.
pub(super) fn guarded(world: &World, node: NodeId, pair: &Pair) -> bool {
    let up = |node: NodeId, session: &SessionName| {
        world.bfd(node, session).is_some_and(|session| session.view.state == State::Up)
    };
    let Some((own, theirs)) = pair.bfd.as_ref().filter(|_| pair.tracked.is_none()) else { return true };
    up(node, own) && up(pair.router, theirs)
}

/// How long ago an agent that is stopped or dead took its last event.
pub(super) fn silent(world: &World, host: &Host) -> Option<Duration> {
    match host.pace() {
        Some(Pace::Running | Pace::Slow(_)) => None,
        Some(Pace::Frozen) | None => host.silent(world.now()),
    }
}

pub(super) fn received<'a>(
    router: &'a RouterNode,
    pair: &Pair,
) -> Option<&'a BTreeMap<IpNet, ReceivedRoute>> {
    router.machine()?.speaker().peer(&pair.neighbour)?.received()
}

pub(super) fn able_router(router: &RouterNode) -> bool {
    router.powered && router.pace() == Some(Pace::Running) && !router.ignores && !router.stalled()
}

/// Nothing disturbs cable, router or host.
pub(super) fn clear(world: &World, host: &Host, pair: &Pair) -> bool {
    let network = world.network();
    let good = |link: &LinkId| {
        network.link(*link).is_some_and(|link| {
            link.silent == [false; 2]
                && (pair.tracked.is_none() || !link.no_datagrams)
                && link.impairment == link.good
                && link.ends.iter().all(|end| network.port(*end).is_some_and(|port| port.up))
        })
    };
    host.powered
        && host.pace() == Some(Pace::Running)
        && world.router(pair.router).is_some_and(able_router)
        && pair.links.iter().all(good)
}

pub(super) fn address_of(hop: NextHop) -> IpAddr {
    match hop {
        NextHop::V4(address) => IpAddr::V4(address),
        NextHop::V6 { global, .. } => IpAddr::V6(global),
    }
}

/// Whether the router has what it was told.
pub(super) fn same(heard: &ReceivedRoute, told: &RouteAttributes) -> bool {
    let hops: usize = heard.attributes.as_path.segments.iter().map(|segment| segment.asns.len()).sum();
    heard.next_hop == told.next_hop
        && heard.attributes.med == told.med
        && heard.attributes.origin == told.origin
        && hops == usize::from(told.prepend) + 1
        && heard.attributes.communities.iter().eq(told.communities.iter())
        && heard.attributes.large_communities.iter().eq(told.large_communities.iter())
}
