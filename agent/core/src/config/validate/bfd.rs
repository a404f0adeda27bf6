//! `bfd` of a BGP peer, and `[static.peer.NAME]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Validator, names, tables};
use crate::config::addresses::AbsolutePath;
use crate::config::diagnostic::Place;
use crate::config::document::join;
use crate::config::keys::WrittenPeer;
use crate::config::read::Leaf;
use crate::config::values::Int;
use crate::config::words::{BfdAuthenticationWord, BfdWord};

impl Validator<'_> {
    /// One BFD session carries one health.
    pub(super) fn statics(&mut self) {
        let file = self.file;
        let Some(section) = file.r#static.given() else { return };
        let known = names(&section.value.peer);
        if known.is_empty() && !matches!(section.value.peer, Leaf::Bad) {
            let help = "write [static.peer.NAME] with address = \"…\"";
            self.push(
                self.error(&section.place, "static.peer", "there is no static peer").help(help).absent(),
            );
        }
        let no_defaults = WrittenPeer::default();
        let mut guarded: BTreeMap<(IpAddr, Option<&str>), &Place> = BTreeMap::new();
        if let Some(bgp) = file.bgp.value() {
            let defaults = bgp.defaults.value().unwrap_or(&no_defaults);
            for (_, peer) in tables(&bgp.peer) {
                let address = peer.value.address.or(&defaults.address).given();
                if let Some((address, BfdWord::On(_))) = address.zip(peer.value.bfd.or(&defaults.bfd).value())
                {
                    let interface = peer.value.interface.or(&defaults.interface).value();
                    let scope =
                        interface.filter(|_| address.value.is_link_local()).map(|name| name.0.as_str());
                    guarded.insert((address.value.0, scope), &address.place);
                }
            }
        }
        let mut seen: BTreeMap<(IpAddr, Option<&str>), &Place> = BTreeMap::new();
        for (name, peer) in tables(&section.value.peer) {
            let path = join("static.peer", name);
            let Some(address) = peer.value.address.given() else {
                if peer.value.address.is_absent() {
                    let help = "write address = \"…\", the address of the router";
                    self.push(
                        self.error(&peer.place, format!("{path}.address"), "missing").help(help).absent(),
                    );
                }
                continue;
            };
            let interface = peer.value.interface.value().map(|name| name.0.as_str());
            let key = format!("{path}.address");
            if let Some(first) = seen.insert((address.value.0, interface), &address.place) {
                let message = format!("another static peer has {} already", address.value.0);
                self.push(self.error(&address.place, key, message).related(self.sources, first, "first").help(
                    "one BFD session carries one health: services behind the same router address must be one service",
                ));
            } else if let Some(first) =
                guarded.get(&(address.value.0, interface.filter(|_| address.value.is_link_local())))
            {
                let message = format!("{} is a BGP peer with bfd already", address.value.0);
                self.push(
                    self.error(&address.place, key, message)
                        .related(self.sources, first, "BGP peer")
                        .help("one BFD session carries one health: remove bfd there, or this static peer"),
                );
            }
            if address.value.is_link_local() && peer.value.interface.is_absent() {
                let help = "write interface = \"…\", the interface towards the router";
                let message = "missing for a link-local address";
                self.push(self.error(&peer.place, format!("{path}.interface"), message).help(help).absent());
            }
        }
        let mut followed: BTreeMap<&str, &Place> = BTreeMap::new();
        for (name, service) in tables(&file.service) {
            let key = format!("{}.static", join("service", name));
            for named in service.value.r#static.value().into_iter().flatten() {
                if let Some(first) = followed.insert(&named.value, &named.place) {
                    let message = format!("static peer {:?} follows another service already", named.value);
                    self.push(self.error(&named.place, key.clone(), message).related(self.sources, first, "first").help(
                        "one BFD session carries one health: make them one service with all their VIPs",
                    ));
                }
            }
        }
        let unread = matches!(file.service, Leaf::Bad)
            || file
                .service
                .value()
                .is_some_and(|services| services.values().any(|one| one.given().is_none()));
        for (name, peer) in
            tables(&section.value.peer).filter(|(name, _)| !followed.contains_key(name.as_str()))
        {
            if !unread {
                let help = format!("write static = [{name:?}] in a service, or remove it");
                self.push(
                    self.error(
                        &peer.place,
                        join("static.peer", name),
                        "no service is followed by this router",
                    )
                    .help(help)
                    .warning()
                    .absent(),
                );
            }
        }
    }

    /// A kind without a key proves nothing, a key without a kind is not used.
    pub(super) fn bfd_authentication(&mut self) {
        let file = self.file;
        if let Some(bgp) = file.bgp.value() {
            let defaults =
                bgp.defaults.given().map(|defaults| ("bgp.defaults".to_owned(), &defaults.value.bfd));
            let peers = tables(&bgp.peer).map(|(name, peer)| (join("bgp.peer", name), &peer.value.bfd));
            for (path, bfd) in defaults.into_iter().chain(peers) {
                if let Some(bfd) = bfd.given()
                    && let BfdWord::On(written) = &bfd.value
                {
                    let path = format!("{path}.bfd");
                    let leaves = (&written.authentication, &written.key_id, &written.key_file);
                    self.key_and_kind(&path, &bfd.place, leaves);
                }
            }
        }
        if let Some(section) = file.r#static.value() {
            for (name, peer) in tables(&section.peer) {
                let leaves = (&peer.value.authentication, &peer.value.key_id, &peer.value.key_file);
                self.key_and_kind(&join("static.peer", name), &peer.place, leaves);
            }
        }
    }

    fn key_and_kind(
        &mut self,
        path: &str,
        place: &Place,
        (kind, key_id, key_file): (&Leaf<BfdAuthenticationWord>, &Leaf<Int<0, 255>>, &Leaf<AbsolutePath>),
    ) {
        if kind.given().is_some() && key_file.is_absent() {
            let help = "write key_file = \"/etc/anyvip/bfd.key\", a file whose first line is the key";
            self.push(self.error(place, format!("{path}.key_file"), "missing").help(help).absent());
        }
        if kind.is_absent() {
            let help = "write authentication = \"meticulous-keyed-sha1\", or what the router has; or remove this key";
            let message = "has no effect without authentication";
            let key_id = key_id.given().map(|leaf| ("key_id", &leaf.place));
            let key_file = key_file.given().map(|leaf| ("key_file", &leaf.place));
            for (key, place) in key_id.into_iter().chain(key_file) {
                self.push(self.error(place, format!("{path}.{key}"), message).help(help));
            }
        }
    }
}
