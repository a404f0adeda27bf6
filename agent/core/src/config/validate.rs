//! What no single key can know: names that must exist, things that may be there once, keys that contradict each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::diagnostic::{At, Diagnostic, Place, Source, did_you_mean, error};
use super::document::join;
use super::keys::{WrittenBgp, WrittenFile, WrittenPeer, WrittenService};
use super::read::{Leaf, Written};
use super::words::{BfdWord, CheckWords};

mod announce;
mod bfd;
mod responder;

/// Everything that is wrong with what is written, whatever the host. What `read` found is not repeated.
#[must_use]
pub fn validate(written: &Written) -> Vec<Diagnostic> {
    let mut validator = Validator { sources: &written.sources, file: &written.file, diagnostics: Vec::new() };
    validator.bgp();
    validator.statics();
    validator.bfd_authentication();
    validator.responder();
    validator.services();
    validator.vips();
    validator.prefixes();
    validator.unused();
    validator.host();
    validator.diagnostics
}

struct Validator<'a> {
    sources: &'a [Source],
    file: &'a WrittenFile,
    diagnostics: Vec<Diagnostic>,
}

/// Names of tables, readable or not.
fn names<T>(leaf: &Leaf<BTreeMap<String, Leaf<T>>>) -> Vec<&str> {
    leaf.value().map(|tables| tables.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// The tables that could be read.
fn tables<T>(leaf: &Leaf<BTreeMap<String, Leaf<T>>>) -> impl Iterator<Item = (&String, &At<T>)> {
    leaf.value().into_iter().flatten().filter_map(|(name, table)| table.given().map(|table| (name, table)))
}

impl<'a> Validator<'a> {
    fn error(&self, place: &Place, key: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        error(self.sources, place, key, message)
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn bgp(&mut self) {
        let file = self.file;
        let Some(bgp) = file.bgp.given() else {
            let has_static = file.r#static.value().is_some_and(|section| !names(&section.peer).is_empty());
            let has_responder = !self.answered_ports().is_empty();
            if file.bgp.is_absent() && !has_static && !has_responder {
                let help = "write [bgp] with asn = …, and [bgp.peer.NAME] with address = \"…\" and asn = …";
                self.push(self.error(&Place::default(), "bgp", "missing").help(help).absent());
            }
            return;
        };
        if bgp.value.asn.is_absent() {
            let help = "write asn = …, the AS number of this host";
            self.push(self.error(&bgp.place, "bgp.asn", "missing").help(help).absent());
        }
        if names(&bgp.value.peer).is_empty() && !matches!(bgp.value.peer, Leaf::Bad) {
            let help = "write [bgp.peer.NAME] with address = \"…\" and asn = …";
            self.push(
                self.error(&bgp.place, "bgp.peer", "there is no peer to tell anything").help(help).absent(),
            );
        }
        let no_defaults = WrittenPeer::default();
        let defaults = bgp.value.defaults.value().unwrap_or(&no_defaults);
        let mut seen: BTreeMap<(IpAddr, u16, Option<&str>), &Place> = BTreeMap::new();
        let mut links: BTreeMap<&str, &Place> = BTreeMap::new();
        for (name, peer) in tables(&bgp.value.peer) {
            self.peer(name, peer, defaults, &bgp.value);
            let interface = peer.value.interface.or(&defaults.interface).given();
            let Some(address) = peer.value.address.or(&defaults.address).given() else {
                let unnumbered = interface.filter(|_| peer.value.address.or(&defaults.address).is_absent());
                let Some(interface) = unnumbered else { continue };
                if let Some(first) = links.insert(&interface.value.0, &interface.place) {
                    let message =
                        format!("another peer without an address is on {} already", interface.value.0);
                    self.push(
                        self.error(&interface.place, format!("{}.interface", join("bgp.peer", name)), message)
                            .related(self.sources, first, "first")
                            .help("a peer without an address is the only other end of its link; write the addresses"),
                    );
                }
                continue;
            };
            // The same link-local address may be on several links.
            let scope = interface.filter(|_| address.value.is_link_local()).map(|name| name.value.0.as_str());
            let port = match peer.value.port.or(&defaults.port) {
                Leaf::Given(port) => port.value.u16(),
                Leaf::Absent => 179,
                Leaf::Bad => continue,
            };
            if let Some(first) = seen.insert((address.value.0, port, scope), &address.place) {
                let message = format!("another peer has {} port {port} already", address.value.0);
                self.push(
                    self.error(&address.place, format!("{}.address", join("bgp.peer", name)), message)
                        .related(self.sources, first, "first")
                        .help("write each peer once; a service names the peers it needs"),
                );
            }
        }
        if let Some(families) = defaults.families.given() {
            self.families("bgp.defaults", families);
        }
    }

    fn peer(&mut self, name: &str, peer: &At<WrittenPeer>, defaults: &WrittenPeer, bgp: &WrittenBgp) {
        let path = join("bgp.peer", name);
        self.whereabouts(&path, peer, defaults, bgp);
        if peer.value.asn.or(&defaults.asn).is_absent() {
            let help = "write asn = …, the AS number of the router, here or in [bgp.defaults]";
            self.push(self.error(&peer.place, format!("{path}.asn"), "missing").help(help).absent());
        }
        if let Leaf::Given(passive) = peer.value.passive.or(&defaults.passive)
            && passive.value
            && !matches!(bgp.listen, Leaf::Bad)
            && bgp.listen.value().is_none_or(|listen| listen.0.is_none())
        {
            let help = "write bgp.listen = \"0.0.0.0:179\" or \"[::]:179\", or remove passive";
            let message = "waits for the peer to connect, but nothing listens";
            self.push(self.error(&passive.place, format!("{path}.passive"), message).help(help).absent());
        }
        if let Some(families) = peer.value.families.given() {
            self.families(&path, families);
        }
        self.role(&path, peer, defaults, bgp);
        self.transport(&path, peer, defaults);
    }

    /// Where the peer is: an address, a link, or both.
    fn whereabouts(&mut self, path: &str, peer: &At<WrittenPeer>, defaults: &WrittenPeer, bgp: &WrittenBgp) {
        let address = peer.value.address.or(&defaults.address);
        let interface = peer.value.interface.or(&defaults.interface);
        if let Some(named) = interface.given().filter(|named| named.value.0 == "lo") {
            let help = "write the interface towards the router";
            self.push(
                self.error(&named.place, format!("{path}.interface"), "no router is at the end of lo")
                    .help(help),
            );
        }
        match (address, interface) {
            (Leaf::Absent, Leaf::Absent) => {
                let help = "write address = \"…\", the address of the router, or interface = \"…\" for the router at the \
                            other end of a link";
                self.push(self.error(&peer.place, format!("{path}.address"), "missing").help(help).absent());
            }
            (Leaf::Given(address), Leaf::Absent) if address.value.is_link_local() => {
                let help = "write interface = \"…\", the interface towards the router";
                let message = "missing for a link-local address";
                self.push(self.error(&peer.place, format!("{path}.interface"), message).help(help).absent());
            }
            (Leaf::Absent, Leaf::Given(interface)) => {
                self.unnumbered(path, peer, defaults, bgp, &interface.place)
            }
            _ => {}
        }
    }

    /// What a peer without an address cannot have.
    fn unnumbered(
        &mut self,
        path: &str,
        peer: &At<WrittenPeer>,
        defaults: &WrittenPeer,
        bgp: &WrittenBgp,
        interface: &Place,
    ) {
        let mut refuse = |place: &Place, key: &str, message: &str, help: &str| {
            let refused = error(self.sources, place, format!("{path}.{key}"), message);
            self.diagnostics.push(refused.related(self.sources, interface, "no address").help(help));
        };
        if let Some(ttl) = peer.value.ttl.or(&defaults.ttl).given().filter(|ttl| ttl.value.u8() > 1) {
            refuse(
                &ttl.place,
                "ttl",
                "a peer at the other end of a link is one hop away",
                "remove it, or write address",
            );
        }
        if let Some(hops) = peer.value.ttl_security.or(&defaults.ttl_security).given()
            && hops.value.u8() > 1
        {
            let message = "a peer at the other end of a link is one hop away";
            refuse(&hops.place, "ttl_security", message, "write 1");
        }
        if let Some(source) = peer.value.source_address.or(&defaults.source_address).given() {
            let message = "a session with the other end of a link comes from the link-local address";
            refuse(&source.place, "source_address", message, "remove it, or write address");
        }
        if let Some(BfdWord::On(bfd)) = peer.value.bfd.or(&defaults.bfd).value()
            && let Some(min_ttl) = bfd.min_ttl.given()
        {
            let message = "a peer at the other end of a link is one hop away";
            refuse(&min_ttl.place, "bfd.min_ttl", message, "remove it, or write address");
        }
        if let Some(passive) =
            peer.value.passive.or(&defaults.passive).given().filter(|passive| passive.value)
        {
            if let Some(listen) = bgp.listen.value().and_then(|listen| listen.0)
                && listen.is_ipv4()
            {
                let message =
                    format!("waits for a link-local address to connect, but {listen} takes IPv4 only");
                refuse(&passive.place, "passive", &message, "write bgp.listen = \"[::]:179\"");
            }
            if let Some(file) = peer.value.password_file.or(&defaults.password_file).given() {
                let message = "the kernel wants to know the address that signs before it connects";
                refuse(&file.place, "password_file", message, "remove passive, or write address");
            }
        }
    }

    /// How TCP is made.
    fn transport(&mut self, path: &str, peer: &At<WrittenPeer>, defaults: &WrittenPeer) {
        let (hops, ttl) =
            (peer.value.ttl_security.or(&defaults.ttl_security), peer.value.ttl.or(&defaults.ttl));
        if let (Some(hops), Some(ttl)) = (hops.given(), ttl.given()) {
            let contradiction = self
                .error(&ttl.place, format!("{path}.ttl"), "with ttl_security we send 255")
                .related(self.sources, &hops.place, "ttl_security")
                .help("remove one of the two");
            self.push(contradiction);
        }
        let (source, address) = (
            peer.value.source_address.or(&defaults.source_address),
            peer.value.address.or(&defaults.address),
        );
        if let (Some(source), Some(address)) = (source.given(), address.given())
            && source.value.0.is_ipv4() != address.value.0.is_ipv4()
        {
            let message = format!("{} cannot reach {}", source.value.0, address.value.0);
            let help = "write an address of this host of the peer's family";
            self.push(self.error(&source.place, format!("{path}.source_address"), message).help(help));
        }
    }

    /// RFC 9234 §4: roles are for external sessions.
    fn role(&mut self, path: &str, peer: &At<WrittenPeer>, defaults: &WrittenPeer, bgp: &WrittenBgp) {
        let role = peer.value.role.or(&defaults.role);
        if let (Leaf::Given(strict), Leaf::Absent) = (&peer.value.role_strict, role)
            && strict.value
        {
            let help = "write role = \"customer\", or remove this key";
            let message = "has no effect without a role of our own";
            self.push(self.error(&strict.place, format!("{path}.role_strict"), message).help(help).warning());
        }
        let ours = peer.value.local_asn.or(&defaults.local_asn).value().or(bgp.asn.value());
        let theirs = peer.value.asn.or(&defaults.asn).value();
        if let Some(role) = peer.value.role.given()
            && ours.is_some()
            && ours == theirs
        {
            let message = "has no effect: the session is internal";
            let help = "remove this key, or write the AS number of another network";
            self.push(self.error(&role.place, format!("{path}.role"), message).help(help).warning());
        }
    }

    fn families<T>(&mut self, path: &str, families: &At<Vec<T>>) {
        if families.value.is_empty() {
            let help = "write \"ipv4\", \"ipv6\" or both, or remove this key";
            self.push(
                self.error(&families.place, format!("{path}.families"), "empty: nothing could be told")
                    .help(help),
            );
        }
    }

    fn static_of(&mut self, path: &str, service: &At<WrittenService>) {
        let Some(named) = service.value.r#static.given() else { return };
        let known = self.file.r#static.value().map(|section| names(&section.peer)).unwrap_or_default();
        let help = match known.is_empty() {
            true => "write [static.peer.NAME]".to_owned(),
            false => format!("known static peers: {}", known.join(", ")),
        };
        self.references(&format!("{path}.static"), &named.value, &known, "static peer", &help);
    }

    fn services(&mut self) {
        let file = self.file;
        if names(&file.service).is_empty() && !matches!(file.service, Leaf::Bad) {
            let help = "write [service.NAME] with vips and checks";
            self.push(
                self.error(&Place::default(), "service", "there is no service").help(help).warning().absent(),
            );
        }
        for (name, service) in tables(&file.service) {
            let path = join("service", name);
            match &service.value.vips {
                Leaf::Absent => {
                    let help = "write vips = [\"192.0.2.53\"]";
                    self.push(
                        self.error(&service.place, format!("{path}.vips"), "missing").help(help).absent(),
                    );
                }
                Leaf::Given(vips) if vips.value.is_empty() => {
                    let help = "write vips = [\"192.0.2.53\"]";
                    self.push(self.error(&vips.place, format!("{path}.vips"), "empty").help(help));
                }
                _ => {}
            }
            self.checks_of(&path, service);
            self.peers_of(&path, service);
            self.static_of(&path, service);
            self.announce_of(&path, service);
        }
    }

    fn checks_of(&mut self, path: &str, service: &At<WrittenService>) {
        let key = format!("{path}.checks");
        // What could not be read is there.
        let has_own = match &service.value.check {
            Leaf::Given(own) => !own.value.is_empty(),
            Leaf::Bad => true,
            Leaf::Absent => false,
        };
        let remedy =
            "write checks = [\"NAME\"] or [[service.NAME.check]]; checks = \"none\" announces without any";
        let known = names(&self.file.check);
        match &service.value.checks {
            Leaf::Absent if !has_own => {
                self.push(
                    self.error(&service.place, key, "missing: nothing tells whether the service works")
                        .help(remedy)
                        .absent(),
                );
            }
            Leaf::Given(At { value: CheckWords::None, place }) if has_own => {
                let help = "remove checks = \"none\" or those checks";
                self.push(
                    self.error(place, key, "says none, but the service has checks of its own").help(help),
                );
            }
            Leaf::Given(At { value: CheckWords::Named(named), place }) => {
                if named.is_empty() && !has_own {
                    self.push(
                        self.error(place, &key, "empty: nothing tells whether the service works")
                            .help(remedy),
                    );
                }
                let known_text = if known.is_empty() { None } else { Some(known.join(", ")) };
                self.references(
                    &key,
                    named,
                    &known,
                    "check",
                    &match known_text {
                        Some(text) => format!("known checks: {text}"),
                        None => "write [check.NAME]".to_owned(),
                    },
                );
            }
            _ => {}
        }
    }

    fn peers_of(&mut self, path: &str, service: &At<WrittenService>) {
        let Some(peers) = service.value.peers.given() else { return };
        let key = format!("{path}.peers");
        // Routers with static routes, or routers that probe, may be all that there are.
        let followed = service.value.r#static.value().is_some_and(|followers| !followers.is_empty())
            || service.value.responder.value().is_some()
            || self.file.responder.value().is_some_and(|section| section.listen.value().is_some());
        if peers.value.is_empty() && !followed {
            let help = "name at least one, or remove this key to tell all peers";
            self.push(self.error(&peers.place, key, "empty: nobody would be told").help(help));
            return;
        }
        let known = self.file.bgp.value().map(|bgp| names(&bgp.peer)).unwrap_or_default();
        let help = format!("known peers: {}", known.join(", "));
        self.references(&key, &peers.value, &known, "peer", &help);
    }

    /// Names must be known, and be there once.
    fn references(&mut self, key: &str, written: &[At<String>], known: &[&str], what: &str, help: &str) {
        let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
        for (index, name) in written.iter().enumerate() {
            let key = format!("{key}[{index}]");
            if let Some(first) = seen.insert(&name.value, &name.place) {
                let twice = self
                    .error(&name.place, key, format!("{what} {:?} is named twice", name.value))
                    .related(self.sources, first, "first")
                    .help("remove one of the two");
                self.push(twice);
            } else if !known.contains(&name.value.as_str()) {
                let help = match did_you_mean(&name.value, known.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => help.to_owned(),
                };
                let message = format!("there is no {what} {:?}", name.value);
                self.push(self.error(&name.place, key, message).help(help).absent());
            }
        }
    }

    /// A VIP belongs to one service and is nobody else's address.
    fn vips(&mut self) {
        let file = self.file;
        let mut written: Vec<(&Place, String, IpAddr)> = Vec::new();
        for (name, service) in tables(&file.service) {
            for vip in service.value.vips.value().into_iter().flatten() {
                // Without an index: entries that could not be read are not in this list.
                written.push((&vip.place, format!("{}.vips", join("service", name)), vip.value.0));
            }
        }
        written.sort_by_key(|(place, ..)| (place.source, place.span.start));
        let mut owners: BTreeMap<IpAddr, &Place> = BTreeMap::new();
        for (place, key, address) in written {
            if let Some(first) = owners.get(&address) {
                let twice = self
                    .error(place, key, format!("{address} is there twice"))
                    .related(self.sources, first, "first")
                    .help("a VIP belongs to one service; services can share a [check.NAME]");
                self.push(twice);
            } else {
                owners.insert(address, place);
            }
        }
        let mut others: Vec<(String, IpAddr, &Place, &str)> = Vec::new();
        if let Some(id) = file.router_id.given() {
            let help = "write an address of this host alone: every host of the service has the VIP";
            others.push(("router_id".to_owned(), IpAddr::V4(id.value.0), &id.place, help));
        }
        let help = "write the router's own address";
        for (name, peer) in file.bgp.value().into_iter().flat_map(|bgp| tables(&bgp.peer)) {
            if let Some(address) = peer.value.address.given() {
                others.push((
                    format!("{}.address", join("bgp.peer", name)),
                    address.value.0,
                    &address.place,
                    help,
                ));
            }
        }
        let help = "write an address of this host alone, or remove this key";
        for (name, peer) in file.bgp.value().into_iter().flat_map(|bgp| tables(&bgp.peer)) {
            if let Some(source) = peer.value.source_address.given() {
                let key = format!("{}.source_address", join("bgp.peer", name));
                others.push((key, source.value.0, &source.place, help));
            }
        }
        for (name, service) in tables(&file.service) {
            let Some(announce) = service.value.announce.value() else { continue };
            for (path, written) in announce::layers(&join("service", name), announce) {
                for hop in written.next_hop.value().map(|hops| hops.0.as_slice()).unwrap_or_default() {
                    others.push((format!("{path}.next_hop"), hop.value.0, &hop.place, help));
                }
            }
        }
        for (key, address, place) in self.answered_ports() {
            others.push((key, address.ip(), place, help));
        }
        for (key, address, place, help) in others {
            if let Some(vip) = owners.get(&address) {
                let taken = self
                    .error(place, key, format!("{address} is a VIP"))
                    .related(self.sources, vip, "VIP")
                    .help(help);
                self.push(taken);
            }
        }
    }

    /// Things that nothing refers to are taken, with a warning.
    fn unused(&mut self) {
        let file = self.file;
        let mut checks: BTreeSet<&str> = BTreeSet::new();
        let mut peers: BTreeSet<&str> = BTreeSet::new();
        let mut all_peers = false;
        for (_, service) in tables(&file.service) {
            if let Some(CheckWords::Named(named)) = service.value.checks.value() {
                checks.extend(named.iter().map(|name| name.value.as_str()));
            }
            match service.value.peers.value() {
                Some(named) => peers.extend(named.iter().map(|name| name.value.as_str())),
                None => all_peers = true,
            }
        }
        // With services that could not be read, or none at all, there is nothing to say.
        let readable = file.service.value().is_some_and(|services| {
            !services.is_empty() && services.values().all(|service| service.given().is_some())
        });
        // A name that does not exist was meant for one of these.
        let known = names(&file.check);
        if !readable || checks.iter().any(|name| !known.contains(name)) {
            return;
        }
        for (name, check) in tables(&file.check).filter(|(name, _)| !checks.contains(name.as_str())) {
            let help = format!("write checks = [{name:?}] in a service, or remove it");
            self.push(
                self.error(&check.place, join("check", name), "no service uses this check")
                    .help(help)
                    .warning()
                    .absent(),
            );
        }
        let Some(bgp) = file.bgp.value().filter(|_| !all_peers) else { return };
        for (name, peer) in tables(&bgp.peer).filter(|(name, _)| !peers.contains(name.as_str())) {
            let help = format!("name {name:?} in the peers of a service, or remove it");
            self.push(
                self.error(&peer.place, join("bgp.peer", name), "no service is told to this peer")
                    .help(help)
                    .warning()
                    .absent(),
            );
        }
    }

    fn host(&mut self) {
        let Some(host) = self.file.host.value() else { return };
        let Some(uplinks) = host.uplinks.given() else { return };
        if uplinks.value.is_empty() {
            let help = "name the interfaces to guard, or remove this key to have them found by their routes";
            self.push(
                self.error(&uplinks.place, "host.uplinks", "empty: no interface would be guarded").help(help),
            );
        }
        let vip_interface = host.vip_interface.value().map_or("lo", |name| name.0.as_str());
        for (index, uplink) in uplinks.value.iter().enumerate() {
            if uplink.value.0 == vip_interface || uplink.value.0 == "lo" {
                let message = format!("{:?} is no uplink", uplink.value.0);
                let help = "name the interfaces towards the routers and the LAN";
                self.push(self.error(&uplink.place, format!("host.uplinks[{index}]"), message).help(help));
            }
        }
    }
}
