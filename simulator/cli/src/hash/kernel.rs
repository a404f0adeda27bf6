//! The running kernel as a witness: a network namespace with as many next hops as wanted, and lookups in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyvip_ecmp::design::Slots;
use anyvip_ecmp::{Design, Flow, Member};
use anyvip_io::Namespace;
use anyvip_io::netlink::{Netlink, Path, ResilientTable, RouteQuery};
use anyvip_machine::{Failure, FailureKind, Time};
use ipnet::IpNet;
use tokio::runtime::Runtime;

use super::install::Install;
use super::{Error, Router};
use crate::node::network::set_sysctl;
use crate::rootless;

/// The group's id; members' begin behind it.
const GROUP: u32 = 1;
const MEMBERS: u32 = 1000;
/// RTPROT_STATIC.
const STATIC: u8 = 4;

/// A router that exists in a namespace of this process, which this process never leaves again.
pub(super) struct Kernel {
    runtime: Runtime,
    netlink: Netlink,
    /// Where next hops are, and where flows come in.
    out: u32,
    input: u32,
}

/// `6.18.44`, as the kernel calls itself.
pub(super) fn release() -> String {
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", version.trim())
}

impl Kernel {
    /// Moves this process into a namespace of its own, and makes a router of it.
    pub(super) fn open(router: &Router) -> Result<Kernel, Error> {
        rootless::enter().map_err(Error::Failed)?;
        Kernel::settle(router).map_err(Error::Failed)
    }

    fn settle(router: &Router) -> Result<Kernel, String> {
        let seed = ("net.ipv4.fib_multipath_hash_seed", router.seed.to_string());
        set_sysctl(seed.0, &seed.1).map_err(|error| {
            format!(
                "{error}. {} takes no seed for its hash (Linux 6.11 and later do), so that nothing can be predicted for it: \
                 leave out --verify, or run it where the router's kernel runs",
                release()
            )
        })?;
        for family in ["ipv4", "ipv6"] {
            let key = |name: &str| format!("net.{family}.fib_multipath_hash_{name}");
            set_sysctl(&key("policy"), &router.policy.to_string())?;
            set_sysctl(&key("fields"), &router.fields.mask().to_string())?;
        }
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.disable_ipv6", "0"),
            ("net.ipv6.conf.default.disable_ipv6", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
        ] {
            set_sysctl(key, value)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start: {error}"))?;
        let made = runtime.block_on(async {
            let netlink = Netlink::open()?;
            let here = Namespace::current()?;
            netlink.create_veth(("servers", &here), ("clients", &here)).await?;
            let (out, input) = (netlink.link("servers").await?.index, netlink.link("clients").await?.index);
            for link in [out, input] {
                netlink.set_link_up(link).await?;
            }
            netlink.add_address(out, Ipv4Addr::new(169, 254, 0, 1).into(), 16).await?;
            netlink.add_address(out, Ipv6Addr::new(0xfd15, 0, 0, 0, 0, 0, 0, 1).into(), 64).await?;
            Ok((netlink, out, input))
        });
        let (netlink, out, input) = made.map_err(|failure: Failure| failure.to_string())?;
        Ok(Kernel { runtime, netlink, out, input })
    }

    /// Makes new routes to the service; a group of before goes.
    pub(super) fn begin(&self, install: Install, service: IpAddr, members: &[Member]) -> Result<(), Error> {
        // A group that is there keeps its kind and, if resilient, its table. The route goes with it.
        let gone = self.runtime.block_on(self.netlink.delete_nexthop(GROUP));
        match gone {
            Err(failure) if failure.kind != FailureKind::NotFound => {
                return Err(Error::Failed(failure.to_string()));
            }
            _ => {}
        }
        self.install(install, service, members, &Slots::new(install.slots(), members))?;
        match install {
            Install::Resilient { .. } => self.let_a_tick_pass(),
            _ => Ok(()),
        }
    }

    /// Changes the members of what [`Kernel::begin`] has made.
    pub(super) fn change(
        &self,
        install: Install,
        service: IpAddr,
        before: &[Member],
        after: &[Member],
    ) -> Result<(), Error> {
        let mut slots = Slots::new(install.slots(), before);
        slots.set(Time::ZERO, after);
        self.install(install, service, after, &slots)
    }

    fn install(
        &self,
        install: Install,
        service: IpAddr,
        members: &[Member],
        slots: &Slots,
    ) -> Result<(), Error> {
        let done = self.runtime.block_on(self.put(install, service, members, slots));
        done.map_err(|failure| Error::Failed(format!("{install} with {} servers: {failure}", members.len())))
    }

    async fn put(
        &self,
        install: Install,
        service: IpAddr,
        members: &[Member],
        slots: &Slots,
    ) -> Result<(), Failure> {
        let ipv4 = service.is_ipv4();
        let destination = IpNet::from(service);
        let path = |id: u32, weight: u16| Path { gateway: gateway(ipv4, id), interface: self.out, weight };
        let paths: Vec<Path> = match install {
            Install::Slots(_) => slots.slots().iter().map(|id| path(*id, 1)).collect(),
            _ => members.iter().map(|member| path(member.id, member.weight)).collect(),
        };
        // An IPv6 route takes a gateway only once, but a group takes any number of objects with the same gateway.
        let objects: Vec<(u32, u32, u16)> = match install {
            Install::Group | Install::Resilient { .. } => {
                members.iter().map(|member| (member.id, member.id, member.weight)).collect()
            }
            Install::Slots(_) if !ipv4 => (0..).zip(slots.slots()).map(|(slot, id)| (slot, *id, 1)).collect(),
            _ => Vec::new(),
        };
        let mut group = Vec::with_capacity(objects.len());
        for (number, id, weight) in objects {
            self.netlink.replace_nexthop(MEMBERS + number, gateway(ipv4, id), self.out).await?;
            group.push((MEMBERS + number, weight));
        }
        match install {
            Install::Resilient { buckets, busy } => {
                let idle = Install::idle(busy);
                let table = ResilientTable { buckets, idle, unbalanced: Duration::ZERO };
                self.netlink.replace_resilient_group(GROUP, &group, table).await?;
            }
            _ if !group.is_empty() => self.netlink.replace_nexthop_group(GROUP, &group).await?,
            _ => return self.netlink.replace_multipath_route(destination, &paths, STATIC).await,
        }
        self.netlink.replace_route_via_nexthop(destination, GROUP, STATIC).await
    }

    /// The number of the member that each flow goes to.
    pub(super) fn ask(&self, flows: Vec<Flow>) -> Result<Vec<u32>, Error> {
        let queries = flows.into_iter().map(|flow| RouteQuery {
            destination: flow.addresses.destination(),
            source: flow.addresses.source(),
            input: Some(self.input),
            protocol: flow.protocol,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
        });
        let hops = self
            .runtime
            .block_on(self.netlink.routes_get(queries.collect()))
            .map_err(|failure| Error::Failed(failure.to_string()))?;
        let numbers = hops.into_iter().map(|hop| number(hop?.gateway?)).collect::<Option<Vec<u32>>>();
        numbers.ok_or_else(|| Error::Failed("the kernel named no next hop".to_owned()))
    }

    /// Waits until buckets that moved just now would count as used when they are used: a few ticks.
    fn let_a_tick_pass(&self) -> Result<(), Error> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let buckets = self.runtime.block_on(self.netlink.resilient_buckets(GROUP));
            let buckets = buckets.map_err(|failure| Error::Failed(failure.to_string()))?;
            if buckets.iter().all(|bucket| bucket.idle >= Duration::from_millis(20)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Error::Failed(format!("the kernel's clock has not moved for {PATIENCE:?}")))
    }

    /// Whose each bucket is.
    pub(super) fn buckets(&self) -> Result<Vec<u32>, Error> {
        let buckets = self.runtime.block_on(self.netlink.resilient_buckets(GROUP));
        let buckets = buckets.map_err(|failure| Error::Failed(failure.to_string()))?;
        Ok(buckets.iter().map(|bucket| bucket.nexthop.saturating_sub(MEMBERS)).collect())
    }
}

/// Server 0 is the tenth address, and so on.
fn gateway(ipv4: bool, id: u32) -> IpAddr {
    match ipv4 {
        true => Ipv4Addr::from_bits(Ipv4Addr::new(169, 254, 0, 10).to_bits() + id).into(),
        false => Ipv6Addr::new(0xfd15, 0, 0, 0, 0, 1, (id >> 16) as u16, id as u16).into(),
    }
}

fn number(gateway: IpAddr) -> Option<u32> {
    match gateway {
        IpAddr::V4(address) => address.to_bits().checked_sub(Ipv4Addr::new(169, 254, 0, 10).to_bits()),
        IpAddr::V6(address) => Some(address.to_bits() as u32),
    }
}
