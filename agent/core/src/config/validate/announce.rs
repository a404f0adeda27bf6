//! `[service.NAME.announce]`: what cannot be told, and what would have no effect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Place, Validator, names, tables};
use crate::config::OnFailure;
use crate::config::diagnostic::{At, did_you_mean};
use crate::config::document::join;
use crate::config::keys::{AttributeLeaves, WrittenAnnounce, WrittenPeer, WrittenService, WrittenState};
use crate::config::read::Leaf;
use crate::config::resolve::family;

/// Every layer of attributes with the path of its table.
pub(super) fn layers<'a>(service: &str, announce: &'a WrittenAnnounce) -> Vec<(String, AttributeLeaves<'a>)> {
    let path = format!("{service}.announce");
    let mut all = vec![(path.clone(), announce.attributes())];
    let mut states = |path: &str, depreferenced: &'a Leaf<WrittenState>, draining: &'a Leaf<WrittenState>| {
        for (name, state) in [("depreferenced", depreferenced), ("draining", draining)] {
            all.extend(state.value().map(|state| (format!("{path}.{name}"), state.attributes())));
        }
    };
    states(&path, &announce.depreferenced, &announce.draining);
    let mut own = Vec::new();
    for (name, peer) in tables(&announce.peer) {
        let path = join(&format!("{path}.peer"), name);
        states(&path, &peer.value.depreferenced, &peer.value.draining);
        own.push((path, peer.value.attributes()));
    }
    all.extend(own);
    all
}

impl<'a> Validator<'a> {
    pub(super) fn announce_of(&mut self, path: &str, service: &'a At<WrittenService>) {
        self.depreference_of(path, service);
        let Some(announce) = service.value.announce.value() else { return };
        for (path, written) in layers(path, announce) {
            self.next_hops_of(&path, written);
            self.local_pref_of(&path, written, service);
        }
        self.peers_of_announce(path, announce, service);
        if let (Some(time), Some(draining)) = (service.value.drain_time.given(), announce.draining.given())
            && time.value.0.is_zero()
        {
            let help = "write a longer drain_time, or remove this table";
            let message = "has no effect: drain_time is 0s";
            self.push(
                self.error(&draining.place, format!("{path}.announce.draining"), message)
                    .help(help)
                    .warning(),
            );
        }
    }

    /// `on_failure = "depreference"` and the attributes for it need each other.
    fn depreference_of(&mut self, path: &str, service: &'a At<WrittenService>) {
        let announce = service.value.announce.value();
        let states = announce.into_iter().flat_map(|announce| {
            let own = tables(&announce.peer).map(|(_, own)| &own.value.depreferenced);
            std::iter::once(&announce.depreferenced).chain(own)
        });
        let says = |state: &&Leaf<WrittenState>| match state {
            Leaf::Given(state) => !state.value.attributes().is_empty(),
            Leaf::Bad => true,
            Leaf::Absent => false,
        };
        let written = states.filter(says).collect::<Vec<_>>();
        let depreferences =
            service.value.on_failure.given().filter(|word| word.value.0 == OnFailure::Depreference);
        match (depreferences, written.first()) {
            (Some(word), None) if !matches!(service.value.announce, Leaf::Bad) => {
                let message = "an unhealthy service would be told as if it were healthy";
                let help = format!("write [{path}.announce.depreferenced] with med, prepend or communities");
                self.push(self.error(&word.place, format!("{path}.on_failure"), message).help(help).absent());
            }
            (None, Some(Leaf::Given(state))) if !matches!(service.value.on_failure, Leaf::Bad) => {
                let message = "has no effect: an unhealthy service is withdrawn";
                let key = format!("{path}.announce.depreferenced");
                let help = "write on_failure = \"depreference\", or remove this table";
                self.push(self.error(&state.place, key, message).help(help).warning());
            }
            _ => {}
        }
    }

    fn next_hops_of(&mut self, path: &str, written: AttributeLeaves<'_>) {
        let mut families = BTreeSet::new();
        for hop in written.next_hop.value().map(|hops| hops.0.as_slice()).unwrap_or_default() {
            let key = format!("{path}.next_hop");
            if !families.insert(family(hop.value.0)) {
                let help = "write one next hop per family";
                self.push(self.error(&hop.place, key, "a second next hop of this family").help(help));
            } else if hop.value.0.is_loopback() {
                let help = "write an address that the peer can reach";
                self.push(
                    self.error(&hop.place, key, format!("{} is a loopback address", hop.value.0)).help(help),
                );
            }
        }
    }

    fn local_pref_of(&mut self, path: &str, written: AttributeLeaves<'_>, service: &At<WrittenService>) {
        let Some((preference, bgp)) = written.local_pref.given().zip(self.file.bgp.value()) else { return };
        let no_defaults = WrittenPeer::default();
        let defaults = bgp.defaults.value().unwrap_or(&no_defaults);
        let internal = |peer: &WrittenPeer| {
            let ours = peer.local_asn.or(&defaults.local_asn).value().or(bgp.asn.value());
            peer.asn.or(&defaults.asn).value() == ours
        };
        let told = service.value.peers.value();
        let internal = tables(&bgp.peer)
            .filter(|(name, _)| told.is_none_or(|told| told.iter().any(|peer| peer.value == **name)))
            .any(|(_, peer)| internal(&peer.value));
        if !internal {
            let message = "has no effect: none of the service's peers is internal";
            let help = "for external peers write med, prepend or communities";
            self.push(
                self.error(&preference.place, format!("{path}.local_pref"), message).help(help).warning(),
            );
        }
    }

    /// `announce.peer.NAME` must be a peer that is told.
    fn peers_of_announce(&mut self, path: &str, announce: &'a WrittenAnnounce, service: &At<WrittenService>) {
        let known = self.file.bgp.value().map(|bgp| names(&bgp.peer)).unwrap_or_default();
        for (name, own) in tables(&announce.peer) {
            let key = join(&format!("{path}.announce.peer"), name);
            if !known.contains(&name.as_str()) {
                let help = match did_you_mean(name, known.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known peers: {}", known.join(", ")),
                };
                let message = format!("there is no peer {name:?}");
                self.push(self.error(&own.place, key, message).help(help).absent());
            } else if let Some(told) = service.value.peers.value()
                && !told.iter().any(|peer| peer.value == *name)
            {
                let help = format!("name {name:?} in the service's peers, or remove this table");
                let message = "has no effect: the service is not told to this peer";
                self.push(self.error(&own.place, key, message).help(help).warning());
            }
        }
    }

    /// Each VIP is in a prefix, each prefix has a VIP, and belongs to one service.
    pub(super) fn prefixes(&mut self) {
        let file = self.file;
        let mut written = Vec::new();
        for (name, service) in tables(&file.service) {
            let path = join("service", name);
            let Some(announce) = service.value.announce.value() else { continue };
            let Some(prefixes) = announce.prefixes.given() else { continue };
            let key = format!("{path}.announce.prefixes");
            if prefixes.value.is_empty() {
                let help = "write at least one, or remove this key to tell the VIPs";
                self.push(self.error(&prefixes.place, key, "empty: nothing would be told").help(help));
                continue;
            }
            let vips: Vec<IpAddr> =
                service.value.vips.value().into_iter().flatten().map(|vip| vip.value.0).collect();
            for vip in &vips {
                if !prefixes.value.iter().any(|prefix| prefix.value.0.contains(vip)) {
                    let help = format!("add \"{vip}\" or a prefix around it");
                    let message = format!("{vip} is in none of them, so nobody would be told of it");
                    self.push(self.error(&prefixes.place, &key, message).help(help));
                }
            }
            for prefix in &prefixes.value {
                if !vips.iter().any(|vip| prefix.value.0.contains(vip)) {
                    let help = "remove it, or add a VIP inside it: a prefix is told while its VIPs may be";
                    let message = format!("{} holds no VIP of this service", prefix.value.0);
                    self.push(self.error(&prefix.place, &key, message).help(help).absent());
                }
                written.push((name, key.clone(), prefix));
            }
        }
        let mut owners: BTreeMap<IpNet, &Place> = BTreeMap::new();
        for (name, key, prefix) in written {
            let vips = tables(&file.service).filter(|(other, _)| *other != name);
            let mut vips = vips.flat_map(|(_, other)| other.value.vips.value().into_iter().flatten());
            let elsewhere = vips.find(|vip| IpNet::from(vip.value.0) == prefix.value.0);
            let first = owners.get(&prefix.value.0).copied().or(elsewhere.map(|vip| &vip.place));
            if let Some(first) = first {
                let twice = self
                    .error(&prefix.place, key, format!("{} is there twice", prefix.value.0))
                    .related(self.sources, first, "first")
                    .help("a prefix belongs to one service; leave one of the two out");
                self.push(twice);
            }
            owners.entry(prefix.value.0).or_insert(&prefix.place);
        }
    }
}
