//! Default routes heard from routers, installed where `bgp.install_default` asks for it: the one thing that is ever taken from a
//! peer into the kernel.
//!
//! A default route of ours carries our protocol number and a metric of its own; of others none is touched. It has one hop for each
//! router that tells a default route, and goes with the last session that did. What an earlier life left is adopted: it stays until
//! a router tells one again, or for a while, so that a restart does not cut the host off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bgp::wire::{Family, NextHop};
use anyvip_bgp::{PeerName, SessionFacts};
use anyvip_machine::{Failure, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::asks::Asks;
use crate::attempt::Attempt;
use crate::boundary::{DefaultHop, Fact, KernelRequest, KernelRequestId};
use crate::kernel::{DEFAULT_METRIC, KernelView, ROUTE_PROTOCOL, Route};

const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// How long what an earlier life left may wait for a router to tell a default route again.
const GRACE: Duration = Duration::from_secs(30);
const CONFIRM: Duration = Duration::from_secs(2);

/// The default route of each family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DefaultRoutes {
    wanted: bool,
    families: BTreeMap<Family, DefaultRoute>,
    /// Until then a route that an earlier life left may stay without a router that tells it.
    grace_until: Option<Time>,
    looked: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct DefaultRoute {
    /// Gateways of what is in the kernel and ours; empty: nothing.
    installed: BTreeSet<IpAddr>,
    /// A route of somebody else that the kernel prefers.
    shadowed_by: Option<u32>,
    attempt: Attempt,
}

/// The prefix of everything.
pub(crate) fn everywhere(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::Ipv6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Where a route leads that a peer tells on this session; `None` where this host cannot send to.
pub(crate) fn hop(next_hop: &NextHop, facts: &SessionFacts, view: &KernelView) -> Option<DefaultHop> {
    let local = facts.local.ip().to_canonical();
    let interface = view.addresses.iter().find(|own| own.address == local).map(|own| own.interface);
    let (address, interface) = match *next_hop {
        NextHop::V4(address) => (IpAddr::V4(address), None),
        NextHop::V6 { global, link_local } => {
            match link_local.filter(|_| global.is_unspecified() || global.is_unicast_link_local()) {
                Some(link_local) => (IpAddr::V6(link_local), interface),
                None if global.is_unicast_link_local() => (IpAddr::V6(global), interface),
                None => (IpAddr::V6(global), None),
            }
        }
    };
    let ours = view.addresses.iter().any(|own| own.address == address);
    let nowhere =
        matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) && interface.is_none();
    (next_hop.is_host() && !ours && !nowhere).then_some(DefaultHop { gateway: address, interface })
}

impl DefaultRoutes {
    pub(crate) fn configure(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Takes a new view: what is in the kernel.
    pub(crate) fn observe(&mut self, view: &KernelView, asks: &mut Asks<'_>) {
        for family in BOTH {
            let default = everywhere(family);
            let of_family = || view.routes.iter().filter(move |route| route.destination == default);
            let ours = |route: &&Route| route.protocol == ROUTE_PROTOCOL && route.metric == DEFAULT_METRIC;
            let gateways = of_family().filter(ours).flat_map(|route| &route.hops);
            let installed: BTreeSet<IpAddr> = gateways.filter_map(|hop| hop.gateway).collect();
            let entry = self.families.entry(family).or_default();
            if entry.installed != installed {
                let text = match installed.is_empty() {
                    true => format!("the {family} default route heard from routers is gone"),
                    false => {
                        format!("{family} default route as heard from routers: through {}", list(&installed))
                    }
                };
                asks.record(Fact::Lifecycle { text });
            }
            let others =
                of_family().filter(|route| route.protocol != ROUTE_PROTOCOL).map(|route| route.metric);
            entry.shadowed_by = others.min().filter(|metric| *metric <= DEFAULT_METRIC);
            entry.installed = installed;
        }
        let left = self.families.values().any(|route| !route.installed.is_empty());
        if !std::mem::replace(&mut self.looked, true) && self.wanted && left {
            self.grace_until = Some(asks.now + GRACE);
        }
    }

    /// Asks for what is missing. `heard`: the hops of each family that routers tell now.
    pub(crate) fn pursue(&mut self, heard: &BTreeMap<Family, BTreeSet<DefaultHop>>, asks: &mut Asks<'_>) {
        if !self.looked {
            return;
        }
        let none = BTreeSet::new();
        let graceful = self.grace_until.is_some_and(|until| until > asks.now);
        for (family, route) in &mut self.families {
            let hops = heard.get(family).filter(|_| self.wanted).unwrap_or(&none);
            let gateways: BTreeSet<IpAddr> = hops.iter().map(|hop| hop.gateway).collect();
            if gateways == route.installed {
                route.attempt.seen();
                continue;
            }
            if (gateways.is_empty() && graceful) || !route.attempt.ready() {
                continue;
            }
            let change = match gateways.is_empty() {
                true => KernelRequest::RemoveDefault { family: *family },
                false => KernelRequest::SetDefault {
                    family: *family,
                    hops: hops.iter().copied().collect(),
                    replaces: !route.installed.is_empty(),
                },
            };
            asks.kernel(&mut route.attempt, change);
        }
    }

    /// Whether nothing of ours is left in the kernel.
    pub(crate) fn gone(&self) -> bool {
        self.families.values().all(|route| route.installed.is_empty())
    }

    /// What an operator has to know: a stable code and a text.
    pub(crate) fn warnings(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        for (family, route) in &self.families {
            if let Some(metric) = route.shadowed_by.filter(|_| !route.installed.is_empty()) {
                let text = format!(
                    "the {family} default route of somebody else with metric {metric} is preferred to the one heard from routers \
                     (metric {DEFAULT_METRIC}): give it a greater metric, or it is used also when its router is dead"
                );
                all.push(("default-shadowed", text));
            }
            if let Some(failure) = route.attempt.refusal() {
                all.push(("default-refused", format!("the {family} default route cannot be set: {failure}")));
            }
        }
        all
    }

    /// Takes an answer of the kernel; false if it was not about a default route.
    pub(crate) fn answered(
        &mut self,
        request: KernelRequestId,
        result: &Result<(), Failure>,
        asks: &mut Asks<'_>,
    ) -> bool {
        self.families.iter_mut().any(|(family, route)| {
            let what = || format!("set the {family} default route");
            asks.answer(&mut route.attempt, request, result, CONFIRM, what)
        })
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.families.values().filter_map(|route| route.attempt.deadline()).chain(self.grace_until).min()
    }

    /// Lets time act.
    pub(crate) fn expire(&mut self, asks: &mut Asks<'_>) {
        self.grace_until = self.grace_until.filter(|until| *until > asks.now);
        for (family, route) in &mut self.families {
            asks.expire(&mut route.attempt, || format!("set the {family} default route"));
        }
    }
}

/// What routers tell of the way to everywhere, by family: through whom.
pub(crate) type Heard = BTreeMap<Family, BTreeSet<DefaultHop>>;

/// Names of those who tell a default route, for people.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

impl crate::agent::Agent {
    /// The hops of all default routes that stand in what our peers tell.
    pub(crate) fn heard_defaults(&self, view: &KernelView) -> Heard {
        let mut heard = Heard::new();
        let sessions = self.peers.iter().filter_map(|(name, peer)| Some((name, peer.session.as_ref()?)));
        for (name, facts) in sessions.filter(|_| self.config.bgp.install_default) {
            for family in BOTH {
                let ways = self.ways(name, everywhere(family)).into_iter().flatten();
                heard.entry(family).or_default().extend(ways.filter_map(|hop_of| hop(hop_of, facts, view)));
            }
        }
        heard
    }

    fn ways(&self, peer: &PeerName, prefix: IpNet) -> Option<Vec<&NextHop>> {
        let ways = self.speaker.peer(peer)?.ways(prefix)?;
        Some(ways.into_iter().map(|route| &route.next_hop).collect())
    }
}
