//! What containerlab has no word for, in the labels of a node.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::merge::{Word, Written};
use super::{AgentRole, Daemon, DaemonRole, Role, RouterRole, ServicePorts};
use crate::diagnostic::{Diagnostics, Place};
use crate::duration;
use crate::router::Install;
use crate::yaml::Key;

/// Where the agent looks for its configuration unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/anyvip/config.toml";

/// What the labels of a node say.
pub(super) struct Meant {
    pub(super) role: Role,
    pub(super) addresses: BTreeMap<String, Vec<IpNet>>,
    pub(super) places: BTreeMap<String, Place>,
    pub(super) gateways: Vec<IpAddr>,
}

/// The labels of one node, taken one by one; what is left over is not known.
struct Labels<'a> {
    node: &'a str,
    place: Place,
    left: BTreeMap<String, (Place, Word)>,
    diagnostics: &'a mut Diagnostics,
}

pub(super) fn read(
    key: &Key,
    bridge: bool,
    written: &Written,
    diagnostics: &mut Diagnostics,
) -> Option<Meant> {
    let left = written
        .labels
        .iter()
        .filter(|(name, _)| name.starts_with("anyvip."))
        .map(|(name, word)| (name.clone(), word.clone()))
        .collect();
    let mut labels = Labels { node: &key.text, place: key.place, left, diagnostics };
    if bridge {
        labels.refuse_rest("a bridge has no labels of its own");
        return Some(Meant {
            role: Role::Bridge,
            addresses: BTreeMap::new(),
            places: BTreeMap::new(),
            gateways: Vec::new(),
        });
    }
    let places = labels.address_places();
    let addresses = labels.addresses();
    let gateways = labels.list("anyvip.gateway");
    let role = match labels.take("anyvip.role") {
        Some((_, word)) => match word.text.as_str() {
            "router" => labels.router(&addresses),
            "agent" => labels.agent(),
            "client" => Some(Role::Client),
            other => {
                let text = format!("node {}: role `{other}` is not known (router, agent, client)", key.text);
                labels.diagnostics.error(word.place, text);
                return None;
            }
        },
        None => {
            let text =
                format!("node {}: the label `anyvip.role` is missing (router, agent, client)", key.text);
            labels.diagnostics.error(key.place, text);
            return None;
        }
    };
    labels.refuse_rest("not a label of this role");
    Some(Meant { role: role?, addresses, places, gateways })
}

/// The seed of a router that has none of its own: a number from its name (FNV-1a), so that routers in a row differ, and that
/// the same lab hashes alike each time.
fn seed_of(node: &str) -> u32 {
    let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    node.bytes().fold(0x811c_9dc5, hash).max(1)
}

impl Labels<'_> {
    fn take(&mut self, name: &str) -> Option<(Place, Word)> {
        self.left.remove(name)
    }

    fn parse<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let (_, word) = self.take(name)?;
        match crate::yaml::parse(word.text.trim()) {
            Ok(value) => Some(value),
            Err(error) => {
                let text = format!("node {}: {name} `{}`: {error}", self.node, word.text);
                self.diagnostics.error(word.place, text);
                None
            }
        }
    }

    fn need<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, role: &str) -> Option<T> {
        if !self.left.contains_key(name) {
            let text = format!("node {}: role {role} needs the label `{name}`", self.node);
            self.diagnostics.error(self.place, text);
        }
        self.parse(name)
    }

    fn list<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Vec<T> {
        let Some((_, word)) = self.take(name) else { return Vec::new() };
        let mut values = Vec::new();
        for part in word.text.split(',').map(str::trim) {
            match part.parse() {
                Ok(value) => values.push(value),
                Err(error) => {
                    let text = format!("node {}: {name} `{part}`: {error}", self.node);
                    self.diagnostics.error(word.place, text);
                }
            }
        }
        values
    }

    /// Where the addresses of each interface are written.
    fn address_places(&self) -> BTreeMap<String, Place> {
        let interface = |(name, (_, word)): (&String, &(Place, Word))| {
            Some((name.strip_prefix("anyvip.address.")?.to_owned(), word.place))
        };
        self.left.iter().filter_map(interface).collect()
    }

    /// `anyvip.address.INTERFACE: NET, NET`.
    fn addresses(&mut self) -> BTreeMap<String, Vec<IpNet>> {
        let names: Vec<String> =
            self.left.keys().filter(|name| name.starts_with("anyvip.address.")).cloned().collect();
        let mut addresses = BTreeMap::new();
        for name in names {
            let interface = name.trim_start_matches("anyvip.address.").to_owned();
            addresses.insert(interface, self.list::<IpNet>(&name));
        }
        addresses
    }

    fn asn(&mut self, role: &str) -> Option<u32> {
        let place = self.left.get("anyvip.asn").map(|(_, word)| word.place);
        let asn = self.need::<u32>("anyvip.asn", role)?;
        // 23456 is AS_TRANS (RFC 6793 §9).
        if asn == 0 || asn == 23456 {
            self.diagnostics
                .error(place.unwrap_or_default(), format!("node {}: AS number {asn} is reserved", self.node));
            return None;
        }
        Some(asn)
    }

    fn router(&mut self, addresses: &BTreeMap<String, Vec<IpNet>>) -> Option<Role> {
        let asn = self.asn("router");
        let seed_place = self.left.get("anyvip.hash-seed").map(|(_, word)| word.place);
        let hash_seed = match seed_place {
            Some(_) => self.parse::<u32>("anyvip.hash-seed"),
            None => Some(seed_of(self.node)),
        };
        let daemon = self.parse::<Daemon>("anyvip.daemon");
        let install = match daemon {
            // They make their routes themselves.
            Some(_) => Install::Plain,
            None => self.parse("anyvip.install").unwrap_or_default(),
        };
        let daemon = daemon.map(|kind| {
            let default = match kind {
                Daemon::Frr => "/etc/frr/frr.conf",
                Daemon::Bird => "/etc/bird/bird.conf",
            };
            let config = self.take("anyvip.config").map_or(default.to_owned(), |(_, word)| word.text);
            DaemonRole { kind, config, watch: self.list("anyvip.watch") }
        });
        if daemon.as_ref().is_some_and(|daemon| daemon.watch.is_empty()) {
            let text = format!(
                "node {}: a daemon needs `anyvip.watch`: destinations whose routes the lab tells",
                self.node
            );
            self.diagnostics.error(self.place, text);
        }
        if hash_seed == Some(0) {
            // Zero means one random value of the kernel's own, shared by all namespaces.
            self.diagnostics.error(
                seed_place.unwrap_or_default(),
                format!("node {}: the hash seed must not be 0, or all routers hash alike", self.node),
            );
        }
        let hold_time = match self.take("anyvip.hold-time") {
            None => Some(Duration::from_secs(9)),
            Some((_, word)) => match duration::parse(&word.text) {
                Ok(Duration::ZERO) => None,
                Ok(time) if time >= Duration::from_secs(3) && time <= Duration::from_secs(65_535) => {
                    Some(time)
                }
                Ok(_) => {
                    let text =
                        format!("node {}: a hold time is 0s or 3s to 65535s (RFC 4271 §4.2)", self.node);
                    self.diagnostics.error(word.place, text);
                    None
                }
                Err(error) => {
                    self.diagnostics.error(word.place, format!("node {}: hold time: {error}", self.node));
                    None
                }
            },
        };
        let lowest = addresses
            .values()
            .flatten()
            .filter_map(|net| match net.addr() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .min();
        let router_id = self.parse::<Ipv4Addr>("anyvip.router-id").or(lowest);
        if router_id.is_none() {
            let text =
                format!("node {}: a router without an IPv4 address needs `anyvip.router-id`", self.node);
            self.diagnostics.error(self.place, text);
        }
        let readvertise = self.parse("anyvip.readvertise").unwrap_or(false);
        Some(Role::Router(RouterRole {
            asn: asn?,
            router_id: router_id?,
            hash_seed: hash_seed?,
            install,
            hold_time,
            readvertise,
            daemon,
        }))
    }

    fn agent(&mut self) -> Option<Role> {
        let asn = self.asn("agent");
        let service = ServicePorts {
            http: self.parse("anyvip.service.http"),
            tcp: self.parse("anyvip.service.tcp"),
            udp: self.parse("anyvip.service.udp"),
            dns: self.parse("anyvip.service.dns"),
        };
        let config = self.take("anyvip.config").map_or(DEFAULT_CONFIG.to_owned(), |(_, word)| word.text);
        Some(Role::Agent(AgentRole { asn: asn?, config, service }))
    }

    fn refuse_rest(&mut self, why: &str) {
        for (name, (place, _)) in std::mem::take(&mut self.left) {
            self.diagnostics.error(place, format!("node {}: label `{name}`: {why}", self.node));
        }
    }
}
