//! Upgrades that were promised to lose no route: what routers had of a host at that moment they keep having, for as long as nobody
//! does anything else to the host, the router, or what is between them.

use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Time;
use ipnet::IpNet;

use super::facts::Admin;
use super::gather::{Known, Pair, clear, concerns, vip_facts};
use crate::world::{Host, NodeId, World};

/// By then a program that took over has told everything, and what is lost later is not lost for the upgrade.
const HELD: Duration = Duration::from_secs(60);
/// Whoever was left alone for so long has no fault behind it whose effects are still to come.
const CALM: Duration = Duration::from_secs(60);

/// One of these.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    since: Time,
    /// Addresses, and the pair by its number among those of the host.
    routes: Vec<(u32, IpAddr)>,
}

impl Promise {
    /// What the routers of a host have of it, if it has promised something and did not before.
    pub(super) fn made(
        world: &World,
        node: NodeId,
        known: &Known,
        former: Option<&Promise>,
    ) -> Option<Promise> {
        let host = world.host(node)?;
        let since = host.promised().filter(|since| former.is_none_or(|former| former.since < *since))?;
        let mut routes = Vec::new();
        let broken = world.faults();
        let left_alone = |at: NodeId| {
            world.disturbed(at).is_none_or(|last| since.since(last) > CALM)
                && !broken.iter().any(|(other, _)| *other == at)
        };
        let config = host.agent()?.config();
        for (pair, number) in known.pairs.iter().zip(0..) {
            if pair.tracked.is_some()
                || !clear(world, host, pair)
                || !places(world, node, pair).all(left_alone)
            {
                continue;
            }
            for (name, service) in config.services.iter().filter(|(_, service)| concerns(pair, service)) {
                let well = |vip: &IpAddr| {
                    let facts = vip_facts(since, known, host, config, name, *vip);
                    facts.healthy == Some(true)
                        && facts.admin == Admin::Enabled
                        && facts.able
                        && facts.present
                        && facts.guarded != Some(false)
                        && knows(world, pair, *vip)
                };
                routes.extend(service.vips.iter().copied().filter(well).map(|vip| (number, vip)));
            }
        }
        Some(Promise { since, routes })
    }

    /// There is something that may still be lost.
    pub(super) fn is_open(&self) -> bool {
        !self.routes.is_empty()
    }

    /// What is not kept any more although nobody did anything.
    pub(super) fn broken(&mut self, world: &World, node: NodeId, known: &Known) -> Option<(u32, IpAddr)> {
        if world.now().since(self.since) > HELD {
            self.routes.clear();
        }
        let left_alone = |at: NodeId| world.disturbed(at).is_none_or(|last| last < self.since);
        let holds = |number: &u32| {
            let pair = known.pairs.get(*number as usize);
            pair.is_some_and(|pair| places(world, node, pair).all(left_alone))
        };
        let mut routes = std::mem::take(&mut self.routes);
        routes.retain(|(number, _)| holds(number));
        let lost = routes.iter().position(|(number, vip)| {
            known.pairs.get(*number as usize).is_some_and(|pair| !knows(world, pair, *vip))
        });
        let lost = lost.map(|at| routes.swap_remove(at));
        self.routes = routes;
        lost
    }
}

/// The host, the router, and what stands at the ends of the cables between them.
fn places<'a>(world: &'a World, node: NodeId, pair: &'a Pair) -> impl Iterator<Item = NodeId> + 'a {
    let network = world.network();
    let ends = pair.links.iter().filter_map(|link| network.link(*link)).flat_map(|link| link.ends);
    let between = ends.filter_map(|port| network.port(port)).map(|port| port.node);
    [node, pair.router].into_iter().chain(between)
}

fn knows(world: &World, pair: &Pair, vip: IpAddr) -> bool {
    let machine = world.router(pair.router).and_then(|router| router.machine());
    machine.is_some_and(|machine| {
        machine.rib().learned(&IpNet::from(vip)).any(|(peer, _)| *peer == pair.neighbour)
    })
}

/// For how long the router goes on using what the host told on a former session.
pub(super) fn retained(world: &World, pair: &Pair, vip: Option<IpAddr>) -> Option<Duration> {
    let machine = world.router(pair.router)?.machine()?;
    let (left, prefixes) = machine.retained(world.now(), &pair.neighbour)?;
    match vip {
        Some(vip) => prefixes.contains(&IpNet::from(vip)).then_some(left),
        None => (!prefixes.is_empty()).then_some(left),
    }
}

/// For whoever reads what was found.
pub(super) fn sentence(host: &Host, pair: &Pair, vip: IpAddr) -> String {
    format!("{}: {} has lost {vip} in an upgrade for which no loss was said", host.name, pair.peer)
}
