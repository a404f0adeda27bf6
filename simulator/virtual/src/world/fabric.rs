//! Fabrics of any size: racks of hosts under top-of-rack routers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyvip_bfd::SessionName;
use anyvip_bgp::PeerName;
use ipnet::{IpNet, Ipv4Net};

use super::bfd::RouterBfd;
use super::host::HostPlan;
use super::kernel::Settings;
use super::network::Impairment;
use super::router_node::RouterPlan;
use super::{NodeId, Options, World};
use crate::router::{NeighbourConfig, RouterConfig};

/// Hosts that all announce the same addresses. Host N is `hN`, router N is `torN`, spine N is `spineN`, from 0.
#[derive(Clone, Debug)]
pub struct Fabric {
    /// How many hosts.
    pub hosts: u32,
    /// How many top-of-rack routers.
    pub routers: u32,
    /// To how many of them each host has a cable and a session.
    pub uplinks: u32,
    /// Hosts in a rack: neighbours in number share their routers.
    pub rack: u32,
    /// Routers above: each has a cable to every top-of-rack router.
    pub spines: u32,
    /// Service addresses.
    pub vips: Vec<IpAddr>,
    /// Hold time of agents and routers.
    pub hold_time: Duration,
    /// From check to check.
    pub interval: Duration,
    /// More lines for every host's configuration.
    pub config: String,
    /// What every cable does.
    pub impairment: Impairment,
    /// BFD guards the sessions of hosts and their routers: from packet to packet, three of them.
    pub bfd: Option<Duration>,
    /// Agents ask their routers to keep routes so long when they restart.
    pub graceful_restart: Option<Duration>,
}

impl Default for Fabric {
    fn default() -> Fabric {
        Fabric {
            hosts: 20,
            routers: 2,
            uplinks: 2,
            rack: 40,
            spines: 0,
            vips: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53))],
            hold_time: Duration::from_secs(9),
            interval: Duration::from_secs(1),
            config: String::new(),
            impairment: Impairment::default(),
            bfd: None,
            graceful_restart: None,
        }
    }
}

const TOR_ASN: u32 = 4_200_000_000;
const HOST_ASN: u32 = 4_210_000_000;
const SPINE_ASN: u32 = 4_220_000_000;

impl Fabric {
    /// Builds and starts it.
    pub fn build(&self, seed: u64, options: Options) -> World {
        let mut world = World::new(seed, options);
        let mut tors: Vec<RouterConfig> = (0..self.routers)
            .map(|tor| self.router(TOR_ASN + tor, Ipv4Addr::from(0x0bf0_0000 + tor)))
            .collect();
        let mut spines: Vec<RouterConfig> = (0..self.spines)
            .map(|spine| self.router(SPINE_ASN + spine, Ipv4Addr::from(0x0bff_0000 + spine)))
            .collect();
        for host in 0..self.hosts {
            for (uplink, tor) in self.tors_of(host) {
                let (_, theirs) = self.host_link(host, uplink);
                if let Some(config) = tors.get_mut(tor as usize) {
                    let neighbour = self.neighbour(theirs, HOST_ASN + host, format!("h{host}"), false);
                    config.neighbours.insert(PeerName(format!("h{host}")), neighbour);
                }
            }
        }
        for spine in 0..self.spines {
            for tor in 0..self.routers {
                let (ours, theirs) = self.spine_link(spine, tor);
                if let Some(config) = tors.get_mut(tor as usize) {
                    let mut up = self.neighbour(theirs, SPINE_ASN + spine, format!("spine{spine}"), true);
                    (up.readvertise, up.own) = (true, BTreeSet::from([ours]));
                    config.neighbours.insert(PeerName(format!("spine{spine}")), up);
                }
                if let Some(config) = spines.get_mut(spine as usize) {
                    let down = self.neighbour(ours, TOR_ASN + tor, format!("tor{tor}"), false);
                    config.neighbours.insert(PeerName(format!("tor{tor}")), down);
                }
            }
        }
        let add = |world: &mut World, kind: &str, configs: Vec<RouterConfig>| -> Vec<NodeId> {
            let plan = |config: RouterConfig, hash_seed| {
                let bfd = self.router_bfd(&config);
                RouterPlan { bfd, ..RouterPlan::new(config, hash_seed) }
            };
            let numbered = configs.into_iter().zip(0..);
            numbered
                .map(|(config, at)| {
                    let seed = config.asn.wrapping_mul(2_654_435_761) | 1;
                    world.add_router(&format!("{kind}{at}"), plan(config, seed))
                })
                .collect()
        };
        let tors = add(&mut world, "tor", tors);
        let spines = add(&mut world, "spine", spines);
        for host in 0..self.hosts {
            self.add_host(&mut world, host, &tors);
        }
        for (spine, at) in spines.iter().zip(0..) {
            for (tor, below) in tors.iter().zip(0..) {
                let (ours, theirs) = self.spine_link(at, below);
                let a = world.add_port(*tor, &format!("spine{at}"), vec![pair(ours)]);
                let b = world.add_port(*spine, &format!("tor{below}"), vec![pair(theirs)]);
                world.add_link([a, b], self.impairment);
            }
        }
        world.start();
        world
    }

    /// The routers of a host: number of the uplink, number of the router.
    pub fn tors_of(&self, host: u32) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (uplinks, routers) = (self.uplinks.min(self.routers), self.routers.max(1));
        let first = host / self.rack.max(1) * uplinks;
        (0..uplinks).map(move |uplink| (uplink, (first + uplink) % routers))
    }

    /// Towards hosts; spines have none.
    fn router_bfd(&self, config: &RouterConfig) -> BTreeMap<SessionName, RouterBfd> {
        let Some(interval) = self.bfd else { return BTreeMap::new() };
        let hosts = config.neighbours.iter().filter(|(name, _)| name.0.starts_with('h'));
        let session = |(name, neighbour): (&PeerName, &NeighbourConfig)| {
            let bfd = RouterBfd {
                address: neighbour.address,
                interface: neighbour.interface.clone(),
                interval,
                multiplier: 3,
                guards: Some(name.clone()),
                routes: Vec::new(),
            };
            (SessionName(name.0.clone()), bfd)
        };
        hosts.map(session).collect()
    }

    fn router(&self, asn: u32, router_id: Ipv4Addr) -> RouterConfig {
        RouterConfig { asn, router_id, hold_time: Some(self.hold_time), neighbours: BTreeMap::new() }
    }

    fn neighbour(&self, address: IpAddr, asn: u32, interface: String, connect: bool) -> NeighbourConfig {
        NeighbourConfig { address, asn, interface, connect, readvertise: false, own: BTreeSet::new() }
    }

    /// Both addresses of the cable: the router's (or the lower router's), and the other end's.
    fn host_link(&self, host: u32, uplink: u32) -> (IpAddr, IpAddr) {
        let base = 0x0a00_0000 + (host * self.uplinks + uplink) * 2;
        (Ipv4Addr::from(base).into(), Ipv4Addr::from(base + 1).into())
    }

    fn spine_link(&self, spine: u32, tor: u32) -> (IpAddr, IpAddr) {
        let base = 0x0b00_0000 + (spine * self.routers + tor) * 2;
        (Ipv4Addr::from(base).into(), Ipv4Addr::from(base + 1).into())
    }

    fn add_host(&self, world: &mut World, host: u32, tors: &[NodeId]) {
        let name = format!("h{host}");
        let links = self.links_of(host);
        let plan = HostPlan {
            config: Arc::from(self.host_config(host, &links)),
            gateways: links.iter().map(|(_, _, router, _)| *router).collect(),
            settings: Settings::new(),
            ports: None,
        };
        let id = world.add_host(&name, plan);
        for (uplink, tor, router, own) in links {
            let Some(tor) = tors.get(tor as usize) else { continue };
            let a = world.add_port(*tor, &name, vec![pair(router)]);
            let b = world.add_port(id, &format!("eth{uplink}"), vec![pair(own)]);
            world.add_link([a, b], self.impairment);
        }
    }

    /// The configuration file of a host.
    pub fn config_of(&self, host: u32) -> String {
        self.host_config(host, &self.links_of(host))
    }

    /// Uplink, router, the router's address, the host's.
    fn links_of(&self, host: u32) -> Vec<(u32, u32, IpAddr, IpAddr)> {
        self.tors_of(host)
            .map(|(uplink, tor)| {
                let (router, own) = self.host_link(host, uplink);
                (uplink, tor, router, own)
            })
            .collect()
    }

    /// The configuration file of a host, with its links as (uplink, router, the router's address, its own).
    fn host_config(&self, host: u32, links: &[(u32, u32, IpAddr, IpAddr)]) -> String {
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let mut text = format!(
            "config_version = 1\nrouter_id = \"{}\"\n[bgp]\nasn = {}\n[bgp.defaults]\nhold_time = \"{}\"\n",
            links.first().map_or(IpAddr::from([10, 255, 255, 254]), |(_, _, _, own)| *own),
            HOST_ASN + host,
            millis(self.hold_time),
        );
        if let Some(time) = self.graceful_restart {
            text += &format!("graceful_restart = \"{}\"\n", millis(time));
        }
        if let Some(interval) = self.bfd {
            text += &format!("bfd = {{ interval = \"{}\" }}\n", millis(interval));
        }
        for (_, tor, router, _) in links {
            text += &format!("[bgp.peer.tor{tor}]\naddress = \"{router}\"\nasn = {}\n", TOR_ASN + tor);
        }
        let vips: Vec<String> = self.vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        text += &format!(
            "[service.dns]\nvips = [{}]\n[[service.dns.check]]\ntcp = {{ port = 53 }}\ninterval = \"{}\"\n",
            vips.join(", "),
            millis(self.interval),
        );
        text + &self.config
    }
}

fn pair(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::new(address, 31).map_or(IpNet::from(IpAddr::V4(address)), IpNet::V4),
        IpAddr::V6(_) => IpNet::from(address),
    }
}
