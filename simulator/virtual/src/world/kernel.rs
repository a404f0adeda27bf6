//! The kernel of a host: what is really there, which the agent knows only by views that may come late.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_core::config::{HostFacts, InterfaceAddress};
use anyvip_core::kernel::{Address, Hop, Ipv4Settings, KernelView, Link, Route, VIP_PROTOCOL};
use anyvip_core::{Event, KernelRequest};
use anyvip_machine::{Failure, FailureKind};
use ipnet::IpNet;

use super::network::{Network, PortId};
use super::process::Letter;
use super::queue::What;
use super::{NodeId, World};

/// The kernel announces no change of `arp_*`: the driver reads them again this often.
const REREAD: Duration = Duration::from_secs(5);
/// Index of `lo`.
const LO: u32 = 1;

/// See the module's text. Interface indices: 1 is `lo`, the ports of the node follow in order.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// By interface index; carrier as the cables give it.
    pub links: BTreeMap<u32, Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// `net.ipv4.conf.all`.
    pub all: Ipv4Settings,
    /// Gateways of the default routes, as a network manager would set them again when a link comes back.
    pub gateways: Vec<IpAddr>,
    /// What the kernel says to every change; `None`: it does as it is told.
    pub refuses: Option<FailureKind>,
    /// How long the agent's view lags behind (overrun sockets, a slow dump), beyond what is usual.
    pub view_lag: Duration,
    ports: Vec<PortId>,
}

impl Kernel {
    /// The kernel of a node with these ports, after boot.
    pub(super) fn boot(
        network: &Network,
        ports: &[PortId],
        gateways: &[IpAddr],
        settings: &Settings,
    ) -> Kernel {
        let mut kernel = Kernel {
            links: BTreeMap::new(),
            addresses: Vec::new(),
            all: settings.get("all").copied().unwrap_or_default(),
            gateways: gateways.to_vec(),
            refuses: None,
            view_lag: Duration::ZERO,
            ports: ports.to_vec(),
        };
        let lo = Link {
            name: "lo".to_owned(),
            up: true,
            carrier: true,
            loopback: true,
            arp: false,
            settings: Ipv4Settings::default(),
        };
        kernel.links.insert(LO, lo);
        kernel.addresses.push(address(LO, IpAddr::from([127, 0, 0, 1]), 8));
        for (id, index) in ports.iter().zip(LO + 1..) {
            let Some(port) = network.port(*id) else { continue };
            let link = Link {
                name: port.interface.clone(),
                up: port.up,
                carrier: network.carrier(*id),
                loopback: false,
                arp: true,
                settings: settings.get(&port.interface).copied().unwrap_or_default(),
            };
            kernel.links.insert(index, link);
            kernel
                .addresses
                .extend(port.addresses.iter().map(|net| address(index, net.addr(), net.prefix_len())));
        }
        kernel
    }

    /// Takes the state of the cables; true if something changed.
    pub(super) fn look_at_cables(&mut self, network: &Network) -> bool {
        let mut changed = false;
        for (id, index) in self.ports.iter().zip(LO + 1..) {
            let (Some(port), Some(link)) = (network.port(*id), self.links.get_mut(&index)) else { continue };
            let (up, carrier) = (port.up, network.carrier(*id));
            changed |= (link.up, link.carrier) != (up, carrier);
            (link.up, link.carrier) = (up, carrier);
        }
        changed
    }

    /// Index of the interface of this name.
    pub fn index_of(&self, interface: &str) -> Option<u32> {
        self.links.iter().find(|(_, link)| link.name == interface).map(|(index, _)| *index)
    }

    /// Whether this address is on an interface that is up.
    pub fn has(&self, wanted: IpAddr) -> bool {
        let up = |index: u32| self.links.get(&index).is_some_and(|link| link.up);
        self.addresses.iter().any(|address| address.address == wanted && up(address.interface))
    }

    /// Whether this interface answers or announces ARP for addresses of others; the larger of `all` and its own counts.
    pub fn arp_guarded(&self, interface: u32) -> bool {
        let Some(link) = self.links.get(&interface) else { return true };
        let ignore = self.all.arp_ignore.max(link.settings.arp_ignore);
        let announce = self.all.arp_announce.max(link.settings.arp_announce);
        matches!(ignore, 1 | 2 | 8) && announce >= 2
    }

    /// Interfaces with a cable, by index.
    pub fn uplinks(&self) -> impl Iterator<Item = (u32, &Link)> {
        self.links.iter().filter(|(_, link)| !link.loopback).map(|(index, link)| (*index, link))
    }

    /// The routes that there are: connected ones and defaults, over interfaces that are up.
    pub fn routes(&self) -> Vec<Route> {
        let up = |index: u32| self.links.get(&index).is_some_and(|link| link.up && !link.loopback);
        let mut routes = Vec::new();
        for own in self.addresses.iter().filter(|own| up(own.interface) && !own.scope_host) {
            if let Ok(net) = IpNet::new(own.address, own.prefix_len) {
                let hops = vec![Hop { gateway: None, interface: own.interface }];
                routes.push(Route { destination: net.trunc(), metric: 0, hops, protocol: 0 });
            }
        }
        for (default, v4) in
            [(IpNet::from(IpAddr::from([0; 4])), true), (IpNet::from(IpAddr::from([0_u16; 8])), false)]
        {
            let Ok(default) = IpNet::new(default.addr(), 0) else { continue };
            let via = self.gateways.iter().filter(|gateway| gateway.is_ipv4() == v4);
            let hops: Vec<Hop> = via
                .filter_map(|gateway| {
                    let connected = routes.iter().find(|route| route.destination.contains(gateway))?;
                    Some(Hop { gateway: Some(*gateway), interface: connected.hops.first()?.interface })
                })
                .collect();
            if !hops.is_empty() {
                let metric = if v4 { 0 } else { 1024 };
                routes.push(Route { destination: default, metric, hops, protocol: 0 });
            }
        }
        routes
    }

    /// What an agent that watches these addresses is shown.
    pub fn view(&self, interests: &[IpAddr]) -> KernelView {
        let mut routes = self.routes();
        routes.retain(|route| {
            route.destination.prefix_len() == 0
                || interests.iter().any(|address| route.destination.contains(address))
        });
        KernelView { links: self.links.clone(), addresses: self.addresses.clone(), routes, all: self.all }
    }

    /// What a configuration is resolved against.
    pub(super) fn facts(&self, stored_router_id: Option<std::net::Ipv4Addr>) -> HostFacts {
        let name = |index: u32| self.links.get(&index).map(|link| link.name.clone());
        let own = self.addresses.iter().filter(|address| address.protocol != VIP_PROTOCOL);
        let addresses = own.filter_map(|own| {
            Some(InterfaceAddress {
                interface: name(own.interface)?,
                address: own.address,
                prefix_len: own.prefix_len,
            })
        });
        let routes = self.routes();
        let defaults = routes.iter().filter(|route| route.destination.prefix_len() == 0);
        HostFacts {
            stored_router_id,
            addresses: addresses.collect(),
            default_uplinks: defaults
                .flat_map(|route| &route.hops)
                .filter_map(|hop| name(hop.interface))
                .collect(),
        }
    }

    /// Does what an agent asks, or refuses.
    pub(super) fn apply(&mut self, change: &KernelRequest) -> Result<(), Failure> {
        if let Some(kind) = self.refuses {
            return Err(Failure::new(kind, "the kernel refuses (a fault of the lab)"));
        }
        let there = |interface: u32, wanted: IpAddr| {
            move |own: &Address| own.interface == interface && own.address == wanted
        };
        match *change {
            KernelRequest::AddVip { interface, address: vip } => {
                if !self.links.contains_key(&interface) {
                    return Err(Failure::new(FailureKind::NotFound, "no such device"));
                }
                if self.addresses.iter().any(there(interface, vip)) {
                    return Err(Failure::new(FailureKind::AlreadyExists, "address already assigned"));
                }
                let length = if vip.is_ipv4() { 32 } else { 128 };
                self.addresses.push(Address {
                    scope_host: true,
                    protocol: VIP_PROTOCOL,
                    deprecated: true,
                    ..address(interface, vip, length)
                });
                Ok(())
            }
            KernelRequest::RemoveVip { interface, address: vip } => {
                let before = self.addresses.len();
                self.addresses.retain(|own| !there(interface, vip)(own));
                match self.addresses.len() < before {
                    true => Ok(()),
                    false => Err(Failure::new(FailureKind::AddressNotAvailable, "no such address")),
                }
            }
            KernelRequest::SetArp { interface, ignore, announce } => {
                let Some(link) = self.links.get_mut(&interface) else {
                    return Err(Failure::new(FailureKind::NotFound, "no such device"));
                };
                (link.settings.arp_ignore, link.settings.arp_announce) = (ignore, announce);
                Ok(())
            }
            KernelRequest::SetDefault { .. } | KernelRequest::RemoveDefault { .. } => {
                Err(Failure::new(FailureKind::Other, "the lab installs no default routes of agents"))
            }
        }
    }

    /// Somebody sets a sysctl.
    ///
    /// # Errors
    /// When this kernel does not have it, or no such interface.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let (interface, setting) = sysctl(key, value)?;
        let settings = match interface.as_str() {
            "all" => Some(&mut self.all),
            name => self.links.values_mut().find(|link| link.name == name).map(|link| &mut link.settings),
        };
        let settings = settings.ok_or_else(|| format!("there is no interface {interface}"))?;
        setting.apply(settings);
        Ok(())
    }

    /// Somebody else deletes an address; true if it was there.
    pub(super) fn delete(&mut self, wanted: IpAddr) -> bool {
        let before = self.addresses.len();
        self.addresses.retain(|own| own.address != wanted);
        self.addresses.len() < before
    }
}

/// `net.ipv4.conf.*` by interface name, and `all`.
pub type Settings = BTreeMap<String, Ipv4Settings>;

/// One value of [`Ipv4Settings`].
pub(super) enum Setting {
    Ignore(u32),
    Announce(u32),
    RpFilter(u32),
}

impl Setting {
    pub(super) fn apply(&self, to: &mut Ipv4Settings) {
        match *self {
            Setting::Ignore(value) => to.arp_ignore = value,
            Setting::Announce(value) => to.arp_announce = value,
            Setting::RpFilter(value) => to.rp_filter = value,
        }
    }
}

/// Reads `net.ipv4.conf.INTERFACE.{arp_ignore,arp_announce,rp_filter}`: the interface (or `all`) and the value.
///
/// # Errors
/// Any other sysctl is one that the virtual backend does not have.
pub(super) fn sysctl(key: &str, value: &str) -> Result<(String, Setting), String> {
    let other = || {
        format!(
            "the virtual backend has no sysctl `{key}` (it has arp_ignore, arp_announce and rp_filter of net.ipv4.conf)"
        )
    };
    let whole = key.strip_prefix("net.ipv4.conf.").and_then(|rest| rest.rsplit_once('.'));
    let (interface, name) = whole.ok_or_else(other)?;
    let value: u32 = value.parse().map_err(|_| format!("sysctl `{key}`: `{value}` is no number"))?;
    let setting = match name {
        "arp_ignore" => Setting::Ignore(value),
        "arp_announce" => Setting::Announce(value),
        "rp_filter" => Setting::RpFilter(value),
        _ => return Err(other()),
    };
    Ok((interface.to_owned(), setting))
}

fn address(interface: u32, address: IpAddr, prefix_len: u8) -> Address {
    Address {
        interface,
        address,
        prefix_len,
        scope_host: address.is_loopback(),
        scope_link: false,
        protocol: 0,
        tentative: false,
        deprecated: false,
    }
}

impl World {
    /// The kernel side of a host changed. The agent hears of it a moment later, or, where the kernel announces
    /// nothing (`silent`), when its driver reads again.
    pub(super) fn kernel_changed(&mut self, node: NodeId, silent: bool) {
        let now = self.now;
        self.turn.touch(node);
        let Some(host) = self.host_mut(node) else { return };
        let lag =
            host.kernel.view_lag + host.seed.between(Duration::from_micros(30), Duration::from_millis(2));
        let Some(process) = host.process.as_mut() else { return };
        let at = if silent {
            let age = now.since(process.began).as_nanos();
            let next = (age / REREAD.as_nanos() + 1) * REREAD.as_nanos();
            process.began + Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX)) + lag
        } else {
            now + lag
        };
        if process.show_at.is_some_and(|earlier| earlier <= at && earlier > now) && silent {
            return;
        }
        let number = process.task.number;
        process.show_at = Some(process.show_at.map_or(at, |other| other.max(at)));
        self.queue.push(at, What::Show { node, process: number });
    }

    /// The driver has read the kernel side.
    pub(super) fn show(&mut self, node: NodeId, number: u32) {
        let now = self.now;
        let Some(host) = self.host_mut(node) else { return };
        let Some(process) = host.process.as_mut().filter(|process| process.task.number == number) else {
            return;
        };
        if process.show_at.is_some_and(|at| at <= now) {
            process.show_at = None;
        }
        let view = host.kernel.view(&process.interests);
        self.deliver(node, number, Letter::Core(Box::new(Event::KernelView(view))));
    }
}
