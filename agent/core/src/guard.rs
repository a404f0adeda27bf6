//! The ARP guard: no uplink may answer or announce ARP for a VIP.
//!
//! The receiving interface decides whether the kernel answers for an address that sits elsewhere (`arp_ignore`), the
//! sending one which source its own questions carry (`arp_announce`). So both are set on each uplink, after their old
//! values are on disk, before the first IPv4 VIP, and put back after the last one is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::{Failure, Time};
use serde::{Deserialize, Serialize};

use crate::asks::Asks;
use crate::attempt::Attempt;
use crate::boundary::{Fact, KernelRequest, KernelRequestId};
use crate::kernel::{Hop, Ipv4Settings, KernelView, Link};
use crate::state::FormerArp;

/// A new uplink may take this long to be guarded before it closes the gate.
pub(crate) const GUARD_PERIOD: Duration = Duration::from_secs(5);
/// The driver reads the values again at least each 5 s.
const CONFIRM: Duration = Duration::from_secs(6);

/// The guard of all uplinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ArpGuard {
    boot_id: String,
    /// Names from the configuration; `None`: found by their routes.
    configured: Option<BTreeSet<String>>,
    peers: BTreeSet<IpAddr>,
    /// Whose other end is a peer.
    interfaces: BTreeSet<String>,
    uplinks: BTreeMap<u32, Uplink>,
    former: BTreeMap<String, Former>,
    restoring: BTreeMap<u32, Attempt>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Uplink {
    name: String,
    guarded: bool,
    /// Guarding it would stop the host from answering for its own address.
    unsafe_because: Option<String>,
    /// New, and not counted until then or until guarded.
    grace_until: Option<Time>,
    attempt: Attempt,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Former {
    was: FormerArp,
    /// The state that carries it.
    generation: u64,
}

/// What the gate of an IPv4 VIP asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ArpState {
    /// Every uplink is silent about VIPs.
    Guarded,
    /// This one would still answer.
    NotGuarded(String),
    /// Guarding would cut the host off.
    Unsafe(String),
}

impl ArpGuard {
    /// A guard that knows the former values which the state carried (those of this boot only).
    pub(crate) fn new(boot_id: &str, former: &BTreeMap<String, FormerArp>) -> ArpGuard {
        let ours = former.iter().filter(|(_, was)| was.boot_id == boot_id);
        let former =
            ours.map(|(name, was)| (name.clone(), Former { was: was.clone(), generation: 0 })).collect();
        ArpGuard {
            boot_id: boot_id.to_owned(),
            configured: None,
            peers: BTreeSet::new(),
            interfaces: BTreeSet::new(),
            uplinks: BTreeMap::new(),
            former,
            restoring: BTreeMap::new(),
        }
    }

    /// Where uplinks come from.
    pub(crate) fn configure(
        &mut self,
        uplinks: Option<BTreeSet<String>>,
        peers: BTreeSet<IpAddr>,
        interfaces: BTreeSet<String>,
    ) {
        (self.configured, self.peers, self.interfaces) = (uplinks, peers, interfaces);
    }

    /// For the state on disk.
    pub(crate) fn former(&self) -> BTreeMap<String, FormerArp> {
        self.former.iter().map(|(name, former)| (name.clone(), former.was.clone())).collect()
    }

    /// Names of the uplinks.
    pub(crate) fn uplinks(&self) -> impl Iterator<Item = &str> {
        self.uplinks.values().map(|uplink| uplink.name.as_str())
    }

    /// Whether this interface is an uplink.
    pub(crate) fn is_uplink(&self, interface: u32) -> bool {
        self.uplinks.contains_key(&interface)
    }

    /// Configured uplinks that do not exist.
    pub(crate) fn missing(&self) -> Vec<&str> {
        let named = self.configured.iter().flatten();
        named.filter(|name| !self.uplinks.values().any(|u| u.name == **name)).map(String::as_str).collect()
    }

    /// What the gate asks: uplinks in their grace do not count yet.
    pub(crate) fn state(&self) -> ArpState {
        let counted = self.uplinks.values().filter(|uplink| uplink.grace_until.is_none());
        let open: Vec<&Uplink> = counted.filter(|uplink| !uplink.guarded).collect();
        if let Some(text) = open.iter().find_map(|uplink| uplink.unsafe_because.clone()) {
            return ArpState::Unsafe(text);
        }
        match open.first() {
            None => ArpState::Guarded,
            Some(uplink) => {
                let why = uplink.attempt.refusal().map(|failure| format!(": {failure}")).unwrap_or_default();
                ArpState::NotGuarded(format!("{} would answer ARP for a VIP{why}", uplink.name))
            }
        }
    }

    /// Whether an IPv4 VIP may be added: every uplink is silent, the new ones too.
    pub(crate) fn complete(&self) -> bool {
        self.uplinks.values().all(|uplink| uplink.guarded)
    }

    /// Whether nothing is left to put back.
    pub(crate) fn restored(&self) -> bool {
        self.former.is_empty()
    }

    /// Takes a new view: which interfaces are uplinks, and which are silent.
    pub(crate) fn observe(&mut self, view: &KernelView, vips: &BTreeSet<IpAddr>, asks: &mut Asks<'_>) {
        let held = !self.uplinks.is_empty() && self.complete();
        let mut former = std::mem::take(&mut self.uplinks);
        for index in self.find(view) {
            let Some(link) = view.links.get(&index) else { continue };
            let known = former.remove(&index).filter(|uplink| uplink.name == link.name);
            let fresh = known.is_none();
            let mut uplink = known.unwrap_or_else(|| Uplink {
                name: link.name.clone(),
                guarded: false,
                unsafe_because: None,
                grace_until: None,
                attempt: Attempt::default(),
            });
            let guarded = is_silent(view, link, vips);
            uplink.unsafe_because = if guarded { None } else { would_cut_off(view, index, &link.name, vips) };
            if guarded && !uplink.guarded {
                uplink.attempt.seen();
                uplink.grace_until = None;
            } else if fresh && !guarded && held && uplink.unsafe_because.is_none() {
                uplink.grace_until = Some(asks.now + GUARD_PERIOD);
            }
            if uplink.guarded && !guarded && self.restoring.contains_key(&index) {
                let text = format!("{}: the ARP guard was taken off, as the last thing", link.name);
                asks.record(Fact::Lifecycle { text });
            } else if guarded != uplink.guarded {
                let text = if guarded { "guarded" } else { "somebody reset arp_ignore or arp_announce" };
                asks.record(Fact::ArpChanged {
                    interface: link.name.clone(),
                    guarded,
                    text: text.to_owned(),
                });
            }
            uplink.guarded = guarded;
            self.uplinks.insert(index, uplink);
        }
    }

    /// Guards what needs it. `needed`: an IPv4 VIP is wanted or still there; `vips`: those of the agent.
    pub(crate) fn pursue(
        &mut self,
        view: &KernelView,
        needed: bool,
        vips: &BTreeSet<IpAddr>,
        asks: &mut Asks<'_>,
    ) {
        if !needed {
            return self.restore(view, asks);
        }
        // A VIP that is there already is answered for now: where the disk takes nothing, silence comes first.
        let there = view.addresses.iter().any(|a| a.address.is_ipv4() && vips.contains(&a.address));
        let cannot_write = there && asks.store.fails();
        self.restoring.clear();
        for (index, uplink) in &mut self.uplinks {
            let Some(link) = view.links.get(index) else { continue };
            if uplink.guarded || uplink.unsafe_because.is_some() {
                continue;
            }
            // Old values first, and on disk: without them nobody could put them back.
            let known = self.former.values().find(|former| former.was.interface == *index);
            let generation = match known {
                Some(former) => former.generation,
                None => {
                    let was = FormerArp {
                        interface: *index,
                        boot_id: self.boot_id.clone(),
                        ignore: link.settings.arp_ignore,
                        announce: link.settings.arp_announce,
                    };
                    let generation = asks.store.change();
                    self.former.insert(link.name.clone(), Former { was, generation });
                    generation
                }
            };
            if (asks.store.holds(generation) || cannot_write) && uplink.attempt.ready() {
                let change = KernelRequest::SetArp { interface: *index, ignore: 1, announce: 2 };
                asks.kernel(&mut uplink.attempt, change);
            }
        }
    }

    /// Puts the former values back, unless somebody has set others since.
    fn restore(&mut self, view: &KernelView, asks: &mut Asks<'_>) {
        let mut done = Vec::new();
        for (name, former) in &self.former {
            let was = &former.was;
            let link = view.links.get(&was.interface);
            let ours = |now: &Ipv4Settings| now.arp_ignore == 1 && now.arp_announce == 2;
            let same = |now: &Ipv4Settings| (now.arp_ignore, now.arp_announce) == (was.ignore, was.announce);
            match link.map(|link| link.settings) {
                Some(now) if ours(&now) && !same(&now) => {
                    let attempt = self.restoring.entry(was.interface).or_default();
                    if attempt.ready() {
                        let change = KernelRequest::SetArp {
                            interface: was.interface,
                            ignore: was.ignore,
                            announce: was.announce,
                        };
                        asks.kernel(attempt, change);
                    }
                }
                _ => done.push((name.clone(), was.interface)),
            }
        }
        for (name, interface) in done {
            self.former.remove(&name);
            self.restoring.remove(&interface);
            asks.store.change();
        }
    }

    /// Takes an answer of the kernel; false if it was not for the guard.
    pub(crate) fn answered(
        &mut self,
        request: KernelRequestId,
        result: &Result<(), Failure>,
        asks: &mut Asks<'_>,
    ) -> bool {
        for uplink in self.uplinks.values_mut() {
            let name = &uplink.name;
            let what = || format!("set arp_ignore and arp_announce of {name}");
            if asks.answer(&mut uplink.attempt, request, result, CONFIRM, what) {
                if result.is_err() {
                    uplink.grace_until = None;
                }
                return true;
            }
        }
        for (index, attempt) in &mut self.restoring {
            let what = || format!("put back arp_ignore and arp_announce of interface {index}");
            if asks.answer(attempt, request, result, CONFIRM, what) {
                return true;
            }
        }
        false
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let uplinks = self.uplinks.values();
        let of_uplinks = uplinks.flat_map(|u| [u.attempt.deadline(), u.grace_until]).flatten();
        of_uplinks.chain(self.restoring.values().filter_map(Attempt::deadline)).min()
    }

    /// Lets time act.
    pub(crate) fn expire(&mut self, asks: &mut Asks<'_>) {
        for uplink in self.uplinks.values_mut() {
            if uplink.grace_until.is_some_and(|until| until <= asks.now) {
                uplink.grace_until = None;
            }
            let name = &uplink.name;
            asks.expire(&mut uplink.attempt, || format!("set arp_ignore and arp_announce of {name}"));
        }
        for (index, attempt) in &mut self.restoring {
            asks.expire(attempt, || format!("put back arp_ignore and arp_announce of interface {index}"));
        }
    }

    fn find(&self, view: &KernelView) -> BTreeSet<u32> {
        if let Some(names) = &self.configured {
            let named = view.links.iter().filter(|(_, link)| names.contains(&link.name));
            return named.map(|(index, _)| *index).collect();
        }
        let leads_out = |route: &&crate::kernel::Route| {
            route.destination.prefix_len() == 0
                || self.peers.iter().any(|peer| route.destination.contains(peer))
        };
        let hops = view.routes.iter().filter(leads_out).flat_map(|route| &route.hops);
        let able = |index: &u32| view.links.get(index).is_some_and(|link| link.arp && !link.loopback);
        let named = view.links.iter().filter(|(_, link)| self.interfaces.contains(&link.name));
        hops.map(|hop| hop.interface).chain(named.map(|(index, _)| *index)).filter(able).collect()
    }
}

/// Effective values are the larger of `all` and the interface's own.
fn is_silent(view: &KernelView, link: &Link, vips: &BTreeSet<IpAddr>) -> bool {
    let ignore = view.all.arp_ignore.max(link.settings.arp_ignore);
    let announce = view.all.arp_announce.max(link.settings.arp_announce);
    let ignores = match ignore {
        1 | 2 | 8 => true,
        // Silent about addresses of scope host only.
        3 => view.addresses.iter().filter(|a| vips.contains(&a.address)).all(|a| a.scope_host),
        _ => false,
    };
    // 1 still lets a VIP through that lies in a subnet of the interface.
    ignores && announce >= 2
}

/// With `arp_ignore=1` an interface answers only for its own addresses: if the host's address sits on a loopback and the
/// uplink has none, neighbours would find nobody.
fn would_cut_off(view: &KernelView, index: u32, name: &str, vips: &BTreeSet<IpAddr>) -> Option<String> {
    let own = |a: &&crate::kernel::Address| {
        a.address.is_ipv4() && !vips.contains(&a.address) && !a.address.is_loopback()
    };
    let mut of_host = view.addresses.iter().filter(own);
    // Where the gateway is an IPv6 address (RFC 8950), nobody asks by ARP, on either side.
    let by_arp = |hop: &Hop| hop.interface == index && !hop.gateway.is_some_and(|gateway| gateway.is_ipv6());
    let carries_ipv4 =
        view.routes.iter().any(|route| route.destination.addr().is_ipv4() && route.hops.iter().any(by_arp));
    if !carries_ipv4 || of_host.clone().any(|a| a.interface == index) {
        return None;
    }
    let elsewhere = of_host.find(|a| {
        !a.scope_host && view.links.get(&a.interface).is_some_and(|link| link.loopback || !link.arp)
    })?;
    Some(format!(
        "{name} has no IPv4 address of its own: with arp_ignore=1 nobody would answer for {}",
        elsewhere.address
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Address, Route};

    fn link(name: &str, settings: Ipv4Settings) -> Link {
        Link {
            name: name.into(),
            up: true,
            carrier: true,
            loopback: name == "lo",
            arp: name.starts_with("eth"),
            settings,
        }
    }

    fn address(interface: u32, text: &str, scope_host: bool) -> Address {
        Address {
            interface,
            address: text.parse().unwrap(),
            prefix_len: 32,
            scope_host,
            scope_link: false,
            protocol: 0,
            tentative: false,
            deprecated: false,
        }
    }

    fn view(all: (u32, u32), own: (u32, u32)) -> KernelView {
        let settings = |(arp_ignore, arp_announce)| Ipv4Settings { arp_ignore, arp_announce, rp_filter: 0 };
        let hop = Hop { gateway: None, interface: 2 };
        KernelView {
            links: [(1, link("lo", settings((0, 0)))), (2, link("eth0", settings(own)))].into(),
            addresses: vec![address(2, "10.0.0.2", false), address(1, "192.0.2.1", true)],
            routes: vec![Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                metric: 0,
                hops: vec![hop],
                protocol: 0,
            }],
            all: settings(all),
        }
    }

    fn silent(view: &KernelView) -> bool {
        is_silent(view, &view.links[&2], &["192.0.2.1".parse().unwrap()].into())
    }

    #[test]
    fn the_larger_of_all_and_own_counts_and_only_values_that_silence_are_a_guard() {
        for (all, own, guarded) in [
            ((0, 0), (0, 0), false),
            ((0, 0), (1, 2), true),
            ((1, 0), (0, 2), true),
            ((0, 2), (2, 0), true),
            ((0, 0), (1, 1), false),
            ((0, 0), (0, 2), false),
            ((0, 0), (4, 2), false),
            ((0, 0), (8, 2), true),
        ] {
            assert_eq!(silent(&view(all, own)), guarded, "all {all:?}, own {own:?}");
        }
    }

    #[test]
    fn arp_ignore_3_silences_only_addresses_of_scope_host() {
        let mut view = view((0, 0), (3, 2));
        assert!(silent(&view));
        view.addresses[1].scope_host = false;
        assert!(!silent(&view));
    }

    #[test]
    fn an_uplink_without_an_address_is_unsafe_only_if_it_carries_ipv4_and_the_address_is_on_a_loopback() {
        let vips = ["192.0.2.1".parse().unwrap()].into();
        let mut view = view((0, 0), (0, 0));
        assert_eq!(would_cut_off(&view, 2, "eth0", &vips), None);
        view.addresses[0].interface = 1;
        assert!(would_cut_off(&view, 2, "eth0", &vips).unwrap().contains("10.0.0.2"));
        view.routes[0].hops[0].gateway = Some("fe80::1".parse().unwrap());
        assert_eq!(would_cut_off(&view, 2, "eth0", &vips), None, "its gateway is no IPv4 address");
        view.routes.clear();
        assert_eq!(would_cut_off(&view, 2, "eth0", &vips), None);
    }
}
