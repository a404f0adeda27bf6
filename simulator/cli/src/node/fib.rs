//! The router's routes in the kernel of its namespace, in one of four ways.
//!
//! A change is one step for the flows: a route or a group is replaced as a whole, never taken down and put up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyvip_ecmp::design::Slots;
use anyvip_ecmp::{Design, Member};
use anyvip_io::netlink::{Netlink, Path, ResilientTable};
use anyvip_machine::{Failure, FailureKind, Time};
use anyvip_virtual::router::{Hop, Install};
use ipnet::IpNet;

/// RTPROT_BGP.
const BGP: u8 = 186;
/// First ids of next-hop objects and groups.
const NEXTHOP_IDS: u32 = 0x5300_0000;
const GROUP_IDS: u32 = 0x5400_0000;
/// A neighbour has so many ids: in a group of slots it is there many times, and a group takes an object only once.
const IDS_EACH: u32 = 1024;

/// See the module's text.
pub(super) struct Fib {
    netlink: Netlink,
    install: Install,
    numbers: BTreeMap<(IpAddr, String), u32>,
    routes: BTreeMap<IpNet, Route>,
}

/// A route that is, or was, installed.
struct Route {
    group: u32,
    /// The table of slots, while the route is there.
    slots: Option<Slots>,
}

/// A next hop that can be used now.
struct Usable<'a> {
    hop: &'a Hop,
    /// Its neighbour's number.
    number: u32,
    /// Index of its interface.
    interface: u32,
}

impl Fib {
    pub(super) fn new(netlink: Netlink, install: Install) -> Fib {
        Fib { netlink, install, numbers: BTreeMap::new(), routes: BTreeMap::new() }
    }

    /// Destinations of all routes that ever were.
    pub(super) fn destinations(&self) -> BTreeSet<IpAddr> {
        self.routes.keys().map(IpNet::addr).collect()
    }

    /// Makes or replaces a route, and says which next hops it has now. A link that goes down under our hands takes next hops and
    /// groups along, and the router hears of it a moment later: then what is left is tried again.
    pub(super) async fn install(&mut self, prefix: IpNet, next_hops: &[Hop]) -> Result<Vec<Hop>, String> {
        const TRIES: usize = 3;
        let mut last = Ok(Vec::new());
        for _ in 0..TRIES {
            last = self.try_install(prefix, next_hops).await.map_err(|failure| failure.to_string());
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn try_install(&mut self, prefix: IpNet, next_hops: &[Hop]) -> Result<Vec<Hop>, Failure> {
        let mut usable = Vec::with_capacity(next_hops.len());
        for hop in next_hops {
            let next = self.numbers.len() as u32;
            let number = *self.numbers.entry((hop.address, hop.interface.clone())).or_insert(next);
            let link = self.netlink.link(&hop.interface).await?;
            if link.carrier {
                usable.push(Usable { hop, number, interface: link.index });
            }
        }
        if usable.is_empty() {
            self.try_remove(prefix).await?;
            return Ok(Vec::new());
        }
        let group = GROUP_IDS + self.routes.len() as u32;
        let route = self.routes.entry(prefix).or_insert(Route { group, slots: None });
        let group = route.group;
        let path = |one: &Usable, weight| Path { gateway: one.hop.address, interface: one.interface, weight };
        match self.install {
            Install::Plain => {
                let paths: Vec<Path> = usable.iter().map(|one| path(one, one.hop.weight)).collect();
                self.netlink.replace_multipath_route(prefix, &paths, BGP).await?;
            }
            Install::Group => {
                let members = self.objects(usable.iter().map(|one| (one, 0, one.hop.weight))).await?;
                self.netlink.replace_nexthop_group(group, &members).await?;
                self.netlink.replace_route_via_nexthop(prefix, group, BGP).await?;
            }
            Install::Resilient { buckets, idle, unbalanced } => {
                let members = self.objects(usable.iter().map(|one| (one, 0, one.hop.weight))).await?;
                let table = ResilientTable { buckets, idle, unbalanced };
                self.netlink.replace_resilient_group(group, &members, table).await?;
                self.netlink.replace_route_via_nexthop(prefix, group, BGP).await?;
            }
            Install::Slots(size) => {
                let wanted: Vec<Member> =
                    usable.iter().map(|one| Member { id: one.number, weight: one.hop.weight }).collect();
                let mut slots = route.slots.clone().unwrap_or_else(|| Slots::new(size, &wanted));
                slots.set(Time::ZERO, &wanted);
                let of: BTreeMap<u32, &Usable> = usable.iter().map(|one| (one.number, one)).collect();
                let dealt = slots.slots().iter().filter_map(|number| of.get(number).copied());
                if prefix.addr().is_ipv4() {
                    let paths: Vec<Path> = dealt.map(|one| path(one, 1)).collect();
                    self.netlink.replace_multipath_route(prefix, &paths, BGP).await?;
                } else {
                    // A route of IPv6 takes a gateway only once, a group any number of objects with the same gateway.
                    let mut copies: BTreeMap<u32, u32> = BTreeMap::new();
                    let numbered = dealt.map(|one| {
                        let copy = copies.entry(one.number).or_default();
                        *copy += 1;
                        (one, *copy - 1, 1)
                    });
                    let numbered: Vec<_> = numbered.collect();
                    let members = self.objects(numbered.into_iter()).await?;
                    self.netlink.replace_nexthop_group(group, &members).await?;
                    self.netlink.replace_route_via_nexthop(prefix, group, BGP).await?;
                }
                // Only now: what was not installed must not be remembered.
                if let Some(route) = self.routes.get_mut(&prefix) {
                    route.slots = Some(slots);
                }
            }
        }
        Ok(usable.into_iter().map(|one| one.hop.clone()).collect())
    }

    /// Next-hop objects for (neighbour, copy, weight), as members of a group.
    async fn objects<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a Usable<'a>, u32, u16)>,
    ) -> Result<Vec<(u32, u16)>, Failure> {
        let mut members = Vec::new();
        for (one, copy, weight) in wanted {
            let id = NEXTHOP_IDS + one.number * IDS_EACH + copy;
            // Written again each time: the kernel drops such objects when their link goes down.
            self.netlink.replace_nexthop(id, one.hop.address, one.interface).await?;
            members.push((id, weight));
        }
        Ok(members)
    }

    pub(super) async fn remove(&mut self, prefix: IpNet) -> Result<(), String> {
        self.try_remove(prefix).await.map_err(|failure| failure.to_string())
    }

    async fn try_remove(&mut self, prefix: IpNet) -> Result<(), Failure> {
        let Some(route) = self.routes.get_mut(&prefix) else { return Ok(()) };
        route.slots = None;
        let without_objects = match self.install {
            Install::Plain => true,
            Install::Slots(_) => prefix.addr().is_ipv4(),
            Install::Group | Install::Resilient { .. } => false,
        };
        // The route goes with its group. If the last link went down, the kernel was faster.
        let gone = match without_objects {
            true => self.netlink.delete_route(prefix).await,
            false => self.netlink.delete_nexthop(route.group).await,
        };
        match gone {
            Err(failure) if failure.kind != FailureKind::NotFound => Err(failure),
            _ => Ok(()),
        }
    }
}
