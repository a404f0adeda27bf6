//! Written → meant: defaults filled in, names looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyvip_bgp::wire::Family;
use anyvip_bgp::{Endpoint, PeerConfig, PeerName, Receive, Remote, SessionOptions, Transport};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::addresses::{AbsolutePath, unusable};
use super::announce::announced;
use super::diagnostic::{At, Diagnostic, Place, Severity, Source, error, sort};
use super::document::join;
use super::keys::{
    WrittenAnnounce, WrittenBfd, WrittenBgp, WrittenHost, WrittenPeer, WrittenService, WrittenStaticPeer,
};
use super::read::{Leaf, Written, read};
use super::validate::validate;
use super::values::Int;
use super::words::{BfdAuthenticationWord, BfdWord, CheckWords};
use super::{
    Bfd, BfdAuthentication, Bgp, Check, Config, Host, OnError, OnFailure, Responder, ReturnPath, Service,
    StaticPeer,
};
use crate::boundary::{CheckName, ServiceName};

/// How long a drained service is told as draining where something is written about that.
const DRAIN_TIME: Duration = Duration::from_secs(60);

/// Prefixes a minute beyond which a peer tells more than a host can have a use for.
const HEARD_LIMIT: u32 = 10_000;

/// BFD where it is on and nothing else is written.
const BFD_INTERVAL: Duration = Duration::from_millis(300);
const BFD_MULTIPLIER: u8 = 3;

/// What the host adds to what is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The router id kept in the state directory.
    pub stored_router_id: Option<Ipv4Addr>,
    /// All addresses of the host.
    pub addresses: Vec<InterfaceAddress>,
    /// Interfaces that hold a default route.
    pub default_uplinks: BTreeSet<String>,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// Name of the interface.
    pub interface: String,
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix_len: u8,
}

/// A configuration that can be used, and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// Severity is [`Severity::Warning`] throughout.
    pub warnings: Vec<Diagnostic>,
}

/// Reads, validates and resolves. `Err` holds every error and warning, by place.
pub fn load(sources: &[Source], facts: &HostFacts) -> Result<Loaded, Vec<Diagnostic>> {
    let (written, found) = read(sources);
    let (config, more) = meant(&written, facts);
    finish(config, found.into_iter().chain(more).collect())
}

/// Checks what is written against itself and the host, and fills in defaults. `Err` holds every error and warning, by
/// place; what [`read`] found is not repeated.
pub fn resolve(written: Written, facts: &HostFacts) -> Result<Config, Vec<Diagnostic>> {
    let (config, found) = meant(&written, facts);
    finish(config, found).map(|loaded| loaded.config)
}

fn finish(config: Option<Config>, mut found: Vec<Diagnostic>) -> Result<Loaded, Vec<Diagnostic>> {
    sort(&mut found);
    match config {
        Some(config) if found.iter().all(|found| found.severity == Severity::Warning) => {
            Ok(Loaded { config, warnings: found })
        }
        _ => Err(found),
    }
}

fn meant(written: &Written, facts: &HostFacts) -> (Option<Config>, Vec<Diagnostic>) {
    let diagnostics = validate(written);
    let mut resolver = Resolver { sources: &written.sources, diagnostics };
    let config = resolver.config(written, facts);
    let mut diagnostics = resolver.diagnostics;
    if written.broken {
        diagnostics.retain(|found| !found.absence);
    }
    (config, diagnostics)
}

/// Builds the configuration and collects what is wrong on the way.
pub(super) struct Resolver<'a> {
    pub(super) sources: &'a [Source],
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Resolver<'_> {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub(super) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|found| found.severity == Severity::Error).count()
    }

    fn config(&mut self, written: &Written, facts: &HostFacts) -> Option<Config> {
        let file = &written.file;
        let no_bgp = WrittenBgp::default();
        let bgp = file.bgp.value().unwrap_or(&no_bgp);
        let peer_names: BTreeSet<&String> =
            bgp.peer.value().map(|peers| peers.keys().collect()).unwrap_or_default();

        let mut services = BTreeMap::new();
        let shared = self.shared_checks(written);
        for (name, service) in file.service.value().into_iter().flatten() {
            let Leaf::Given(service) = service else { continue };
            if let Some(service) = self.service(name, service, &shared, &peer_names) {
                services.insert(ServiceName(name.clone()), service);
            }
        }
        let statics = statics(written);
        let responder = responder(written);
        let bgp = match &file.bgp {
            // Static peers and probes need none.
            Leaf::Absent if !statics.is_empty() || !responder.is_none() => Some(Bgp::none()),
            _ => self.bgp(bgp, &services),
        };
        let host = host(file.host.value().unwrap_or(&WrittenHost::default()));
        self.vips_elsewhere(written, &host, facts);
        let nobody = statics.is_empty() && responder.is_none() && file.bgp.is_absent();
        let complete = bgp.is_some() && !nobody && self.errors() == 0;
        let router_id = match &file.router_id {
            Leaf::Given(id) => Some(id.value.0),
            Leaf::Bad => None,
            Leaf::Absent => {
                let mut found = found_router_id(&host, bgp.as_ref(), &services, facts);
                if file.bgp.is_absent() {
                    // Nobody is told one.
                    found = found.or(Some(Ipv4Addr::UNSPECIFIED));
                }
                // Peers that could not be read might have told an uplink.
                let all_peers = bgp.as_ref().is_some_and(|bgp| bgp.peers.len() == peer_names.len());
                if found.is_none() && all_peers {
                    self.push(
                        error(self.sources, &Place::default(), "router_id", "no uplink has a global IPv4 address to take it from")
                            .help("write router_id = \"…\", an IPv4 address that no other router uses as its identifier")
                            .absent(),
                    );
                }
                found
            }
        };
        let config = Config { router_id: router_id?, host, bgp: bgp?, statics, services, responder };
        complete.then_some(config)
    }

    /// `arp_ignore` lets an interface answer for its own addresses: there the guard cannot keep a VIP quiet.
    fn vips_elsewhere(&mut self, written: &Written, host: &Host, facts: &HostFacts) {
        for (name, service) in written.file.service.value().into_iter().flatten() {
            let vips = service.value().and_then(|service| service.vips.value());
            for (index, vip) in vips.into_iter().flatten().enumerate() {
                let elsewhere = |at: &&InterfaceAddress| {
                    at.address == vip.value.0 && at.interface != "lo" && at.interface != host.vip_interface
                };
                let Some(at) = facts.addresses.iter().find(elsewhere).filter(|at| at.address.is_ipv4())
                else {
                    continue;
                };
                let (address, interface, length) = (at.address, &at.interface, at.prefix_len);
                let message =
                    format!("{address} is an address of {interface}, where the LAN asks for it by ARP");
                self.push(
                    error(
                        self.sources,
                        &vip.place,
                        format!("{}.vips[{index}]", join("service", name)),
                        message,
                    )
                    .help(format!(
                        "remove it from {interface}: `ip address del {address}/{length} dev {interface}`"
                    ))
                    .warning(),
                );
            }
        }
    }

    fn shared_checks(&mut self, written: &Written) -> BTreeMap<String, Option<Check>> {
        let mut checks = BTreeMap::new();
        for (name, leaf) in written.file.check.value().into_iter().flatten() {
            let check = leaf.given().and_then(|at| {
                self.check(CheckName(name.clone()), &join("check", name), &at.value, &at.place)
            });
            checks.insert(name.clone(), check);
        }
        checks
    }

    fn service(
        &mut self,
        name: &str,
        written: &At<WrittenService>,
        shared: &BTreeMap<String, Option<Check>>,
        peer_names: &BTreeSet<&String>,
    ) -> Option<Service> {
        let WrittenService {
            vips,
            checks,
            check,
            peers,
            r#static,
            responder: _,
            on_error,
            on_failure,
            drain_time,
            announce,
        } = &written.value;
        let mut meant = Vec::new();
        // Validation has refused unknown names.
        if let Some(CheckWords::Named(names)) = checks.value() {
            meant.extend(names.iter().filter_map(|name| shared.get(&name.value).cloned().flatten()));
        }
        for (index, own) in check.value().into_iter().flatten().enumerate() {
            let (path, own_name) = (
                format!("{}.check[{index}]", join("service", name)),
                CheckName(format!("{name}/{}", index + 1)),
            );
            meant.extend(self.check(own_name, &path, &own.value, &own.place));
        }
        let peers = match peers.value() {
            Some(names) => names.iter().map(|name| PeerName(name.value.clone())).collect(),
            None => peer_names.iter().map(|name| PeerName((*name).clone())).collect(),
        };
        Some(Service {
            vips: vips.value()?.iter().map(|vip| vip.value.0).collect(),
            checks: meant,
            peers,
            statics: r#static
                .value()
                .into_iter()
                .flatten()
                .map(|name| PeerName(name.value.clone()))
                .collect(),
            announce: announced(announce.value().unwrap_or(&WrittenAnnounce::default())),
            on_error: on_error.value().map_or(OnError::Hold, |word| word.0),
            on_failure: on_failure.value().map_or(OnFailure::Withdraw, |word| word.0),
            drain_time: match (drain_time.value(), announce.value().is_some_and(says_draining)) {
                (Some(written), _) => written.0,
                (None, true) => DRAIN_TIME,
                (None, false) => Duration::ZERO,
            },
        })
    }

    fn bgp(&mut self, written: &WrittenBgp, services: &BTreeMap<ServiceName, Service>) -> Option<Bgp> {
        let no_defaults = WrittenPeer::default();
        let defaults = written.defaults.value().unwrap_or(&no_defaults);
        let asn = written.asn.value()?.0;
        let (mut peers, mut bfd) = (BTreeMap::new(), BTreeMap::new());
        for (name, peer) in written.peer.value().into_iter().flatten() {
            let name = PeerName(name.clone());
            let Some(peer) = peer.value() else { continue };
            let vips: Vec<IpAddr> = services
                .values()
                .filter(|service| service.peers.contains(&name))
                .flat_map(|service| service.vips.iter().copied())
                .collect();
            if let Some(families) = peer.families.or(&defaults.families).given() {
                let told = |vip: &&IpAddr| families.value.iter().any(|word| word.value.0 == family(**vip));
                if let Some(vip) = vips.iter().find(|vip| !told(vip)) {
                    let (key, missing) = (format!("{}.families", join("bgp.peer", &name.0)), family(*vip));
                    self.push(
                        error(
                            self.sources,
                            &families.place,
                            key,
                            format!("{vip} cannot be told without {missing}"),
                        )
                        .help(format!("add \"{missing}\", or leave this key out"))
                        .warning(),
                    );
                }
            }
            if let Some(meant) = peer_config(peer, defaults, asn, &vips) {
                if let Some(BfdWord::On(written)) = peer.bfd.or(&defaults.bfd).value() {
                    bfd.insert(name.clone(), peer_bfd(written, meant.ttl));
                }
                peers.insert(name, meant);
            }
        }
        let listen = written.listen.value().and_then(|listen| listen.0);
        let install_default = written.install_default.value().copied().unwrap_or(false);
        Some(Bgp { asn, listen, install_default, peers, bfd })
    }
}

fn host(written: &WrittenHost) -> Host {
    Host {
        vip_interface: written.vip_interface.value().map_or("lo", |name| &name.0).to_owned(),
        uplinks: written.uplinks.value().map(|names| names.iter().map(|name| name.value.0.clone()).collect()),
        return_path: written.return_path.value().map_or(ReturnPath::Require, |word| word.0),
        stop_time: written.stop_time.value().map_or(Duration::from_secs(2), |wait| wait.0),
        stop_removes_vip: written.stop_removes_vip.value().copied().unwrap_or(false),
    }
}

/// Whether anything is written about draining.
fn says_draining(announce: &WrittenAnnounce) -> bool {
    let peers = announce.peer.value().into_iter().flatten();
    !announce.draining.is_absent()
        || peers.filter_map(|(_, own)| own.value()).any(|own| !own.draining.is_absent())
}

/// The peer, unless address or AS number are not known (validation has said so).
fn peer_config(
    written: &WrittenPeer,
    defaults: &WrittenPeer,
    own_asn: u32,
    vips: &[IpAddr],
) -> Option<PeerConfig> {
    let address = written.address.or(&defaults.address).value().map(|address| address.0);
    let interface = written.interface.or(&defaults.interface).value().map(|name| name.0.clone());
    let port = written.port.or(&defaults.port).value().map_or(179, |port| port.u16());
    let remote = match (address, interface) {
        (Some(address), interface) => Remote::At(Endpoint { address, interface, port }),
        (None, Some(interface)) => Remote::OnLink { interface, port, neighbour: None },
        (None, None) => return None,
    };
    let asn = written.asn.or(&defaults.asn).value()?.0;
    // RFC 4271 §3: an external peer is normally on the link; 1 keeps the session there.
    let session = SessionOptions {
        local_asn: written.local_asn.or(&defaults.local_asn).value().map(|asn| asn.0),
        role: written.role.or(&defaults.role).value().map(|role| role.0),
        role_strict: written.role_strict.or(&defaults.role_strict).value().copied().unwrap_or(false),
        host_name: written.host_name.or(&defaults.host_name).value().map(|name| name.0.clone()),
        software_version: match written.software_version.or(&defaults.software_version).value() {
            Some(true) => Some(concat!("anyvip ", env!("CARGO_PKG_VERSION")).to_owned()),
            _ => None,
        },
        add_path: written.add_path.or(&defaults.add_path).value().copied().unwrap_or(false),
        extended_messages: (written.extended_messages.or(&defaults.extended_messages).value().copied())
            .unwrap_or(false),
        heard_limit: Some(
            written.heard_limit.or(&defaults.heard_limit).value().map_or(HEARD_LIMIT, |limit| limit.u32()),
        ),
        graceful_restart: written
            .graceful_restart
            .or(&defaults.graceful_restart)
            .value()
            .and_then(|word| word.0),
    };
    let external = asn != session.local_asn.unwrap_or(own_asn);
    let transport = Transport {
        source: written.source_address.or(&defaults.source_address).value().map(|address| address.0),
        ttl_security: written.ttl_security.or(&defaults.ttl_security).value().map(|hops| hops.u8()),
        password_file: written.password_file.or(&defaults.password_file).value().map(|file| file.0.clone()),
    };
    // RFC 5082 §3: what comes from afar cannot have the highest TTL.
    let default_ttl = match transport.ttl_security {
        Some(_) => Some(u8::MAX),
        None => (external && !address.is_some_and(|address| address.is_loopback())).then_some(1),
    };
    let families: BTreeSet<Family> = match written.families.or(&defaults.families).value() {
        Some(words) => words.iter().map(|word| word.value.0).collect(),
        None if vips.is_empty() => BTreeSet::from([address.map_or(Family::Ipv6, family)]),
        None => vips.iter().copied().map(family).collect(),
    };
    Some(PeerConfig {
        remote,
        asn,
        connect: !written.passive.or(&defaults.passive).value().copied().unwrap_or(false),
        hold_time: written
            .hold_time
            .or(&defaults.hold_time)
            .value()
            .map_or(Some(Duration::from_secs(9)), |hold_time| hold_time.0),
        connect_retry: written
            .connect_retry
            .or(&defaults.connect_retry)
            .value()
            .map_or(Duration::from_secs(1), |wait| wait.0),
        ttl: written.ttl.or(&defaults.ttl).value().map(|ttl| ttl.u8()).or(default_ttl),
        families,
        receive: Receive::Nothing,
        session,
        transport,
    })
}

fn peer_bfd(written: &WrittenBfd, ttl: Option<u8>) -> Bfd {
    // What was sent with 255 and passed `ttl` - 1 routers arrives with 256 - `ttl`.
    let far = ttl.filter(|ttl| *ttl > 1).map(|ttl| (255 - ttl).saturating_add(1));
    Bfd {
        interval: written.interval.value().map_or(BFD_INTERVAL, |wait| wait.0),
        multiplier: written.multiplier.value().map_or(BFD_MULTIPLIER, |count| count.u8()),
        strict: written.strict.value().copied().unwrap_or(false),
        min_ttl: written.min_ttl.value().map(|ttl| ttl.u8()).or(far),
        authentication: authentication(&written.authentication, &written.key_id, &written.key_file),
    }
}

fn authentication(
    kind: &Leaf<BfdAuthenticationWord>,
    key_id: &Leaf<Int<0, 255>>,
    key_file: &Leaf<AbsolutePath>,
) -> Option<BfdAuthentication> {
    let key_id = key_id.value().map_or(1, |id| id.u8());
    // Validation has named one without the other.
    Some(BfdAuthentication { kind: kind.value()?.0, key_id, key_file: key_file.value()?.0.clone() })
}

fn responder(written: &Written) -> Responder {
    let section = written.file.responder.value();
    let services = written.file.service.value().into_iter().flatten();
    let port = |(name, leaf): (&String, &Leaf<WrittenService>)| {
        Some((ServiceName(name.clone()), leaf.value()?.responder.value()?.0))
    };
    Responder {
        listen: section.and_then(|section| section.listen.value()).map(|address| address.0),
        ports: services.filter_map(port).collect(),
    }
}

/// The static peers whose address is known (validation has named the others).
fn statics(written: &Written) -> BTreeMap<PeerName, StaticPeer> {
    let peers = written.file.r#static.value().and_then(|section| section.peer.value());
    let meant = |(name, leaf): (&String, &Leaf<WrittenStaticPeer>)| {
        let peer = leaf.value()?;
        let bfd = Bfd {
            interval: peer.interval.value().map_or(BFD_INTERVAL, |wait| wait.0),
            multiplier: peer.multiplier.value().map_or(BFD_MULTIPLIER, |count| count.u8()),
            strict: false,
            min_ttl: peer.min_ttl.value().map(|ttl| ttl.u8()),
            authentication: authentication(&peer.authentication, &peer.key_id, &peer.key_file),
        };
        let interface = peer.interface.value().map(|name| name.0.clone());
        Some((PeerName(name.clone()), StaticPeer { address: peer.address.value()?.0, interface, bfd }))
    };
    peers.into_iter().flatten().filter_map(meant).collect()
}

/// The family of an address.
pub(super) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

/// Stored, else the lowest global IPv4 address of an uplink that is no VIP.
fn found_router_id(
    host: &Host,
    bgp: Option<&Bgp>,
    services: &BTreeMap<ServiceName, Service>,
    facts: &HostFacts,
) -> Option<Ipv4Addr> {
    let vips: BTreeSet<IpAddr> = services.values().flat_map(|service| service.vips.iter().copied()).collect();
    if let Some(stored) =
        facts.stored_router_id.filter(|id| !id.is_unspecified() && !vips.contains(&IpAddr::V4(*id)))
    {
        return Some(stored);
    }
    let leads_to_peer = |at: &InterfaceAddress| {
        let network = IpNet::new(at.address, at.prefix_len).ok();
        let leads_to = |remote: &Remote| match remote.address() {
            Some(address) => network.is_some_and(|network| network.contains(&address)),
            None => remote.interface() == Some(&at.interface),
        };
        bgp.is_some_and(|bgp| bgp.peers.values().any(|peer| leads_to(&peer.remote)))
    };
    let uplinks: BTreeSet<&String> = match &host.uplinks {
        Some(written) => written.iter().collect(),
        None => {
            let connected = facts.addresses.iter().filter(|at| leads_to_peer(at)).map(|at| &at.interface);
            facts.default_uplinks.iter().chain(connected).collect()
        }
    };
    facts
        .addresses
        .iter()
        .filter(|at| {
            uplinks.contains(&at.interface) && at.interface != "lo" && at.interface != host.vip_interface
        })
        .filter(|at| !vips.contains(&at.address) && unusable(at.address).is_none())
        .filter_map(|at| match at.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .min()
}
