//! A client, a router with eight links to servers, and the servers, all in one namespace that only listens.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyvip_ecmp::{Addresses, Flow, Hasher, Member, Packet, Policy};
use anyvip_io::Namespace;
use anyvip_io::netlink::{Link, Netlink, Path, ResilientTable, RouteQuery};
use anyvip_tests::{Need, met};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recvfrom,
    sendto, setsockopt, socket, sockopt,
};
use tokio::runtime::Runtime;

use crate::packets;

pub(crate) const SERVERS: u32 = 8;
pub(crate) const GROUP: u32 = 10;
/// Ids of next-hop objects: this, plus 1,000 for IPv6, plus the member's number.
const OBJECTS: u32 = 1000;
const STATIC: u8 = 4;
const PATIENCE: Duration = Duration::from_secs(30);
/// So many packets are on their way at once: less than any queue holds.
const BURST: usize = 200;

/// How next hops are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Install {
    Plain,
    Group,
    Resilient(ResilientTable),
}

pub(crate) struct World {
    pub(crate) router: Namespace,
    pub(crate) runtime: Runtime,
    pub(crate) netlink: Netlink,
    /// The router's links: towards the client, towards each server.
    pub(crate) input: Link,
    pub(crate) links: Vec<Link>,
    /// The servers' own ends.
    pub(crate) ends: Vec<Link>,
    pub(crate) servers: Namespace,
    send4: OwnedFd,
    send6: OwnedFd,
    listen: OwnedFd,
}

/// True where the kernel can be compared. Else says why not.
pub(crate) fn possible() -> bool {
    if !met(&[Need::Root, Need::Program("ip")]) {
        return false;
    }
    let seeded = Namespace::create().unwrap().set_sysctl("net.ipv4.fib_multipath_hash_seed", "1");
    if let Err(failure) = seeded {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(
            std::io::stderr(),
            "skipped {test}: Linux {} keeps the seed of its hash to itself (6.11 and later take one): {failure}",
            release.trim()
        );
        return false;
    }
    true
}

pub(crate) fn gateway(ipv4: bool, server: u32) -> IpAddr {
    let octet = server as u8;
    match ipv4 {
        true => Ipv4Addr::new(10, 1, octet, 2).into(),
        false => Ipv6Addr::new(0xfd01, server as u16, 0, 0, 0, 0, 0, 2).into(),
    }
}

/// Where services are.
pub(crate) fn services(ipv4: bool) -> IpNet {
    if ipv4 { "192.0.2.0/24" } else { "2001:db8:53::/64" }.parse().unwrap()
}

impl World {
    pub(crate) fn new() -> World {
        let [client, router, servers] = [(); 3].map(|()| Namespace::create().unwrap());
        for namespace in [&client, &router, &servers] {
            for (key, value) in [
                ("net.ipv6.conf.all.disable_ipv6", "0"),
                ("net.ipv6.conf.default.disable_ipv6", "0"),
                ("net.ipv6.conf.all.accept_dad", "0"),
                ("net.ipv6.conf.default.accept_dad", "0"),
                ("net.ipv4.conf.all.rp_filter", "0"),
                ("net.ipv4.conf.default.rp_filter", "0"),
            ] {
                namespace.set_sysctl(key, value).unwrap();
            }
        }
        router.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        router.set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [netlink, at_client, at_servers] =
            [&router, &client, &servers].map(|namespace| namespace.run(Netlink::open).unwrap().unwrap());
        let (input, links, ends) = runtime.block_on(async {
            netlink.create_veth(("clients", &router), ("eth0", &client)).await.unwrap();
            up(&at_client, "eth0").await;
            let input = up(&netlink, "clients").await;
            let (mut links, mut ends) = (Vec::new(), Vec::new());
            for server in 0..SERVERS {
                let name = format!("s{server}");
                netlink.create_veth((&name, &router), (&name, &servers)).await.unwrap();
                ends.push(up(&at_servers, &name).await);
                links.push(up(&netlink, &name).await);
            }
            (input, links, ends)
        });
        addresses(&client, &router, &servers, &input, (&links, &ends));
        let raw = |family| {
            client
                .run(|| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap())
                .unwrap()
        };
        let listen = servers
            .run(|| {
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll).unwrap()
            })
            .unwrap();
        setsockopt(&listen, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        let (send4, send6) = (raw(AddressFamily::Inet), raw(AddressFamily::Inet6));
        World { router, runtime, netlink, input, links, ends, servers, send4, send6, listen }
    }

    pub(crate) fn hash(&self, seed: u32, policy: Policy) -> Hasher {
        self.router.set_sysctl("net.ipv4.fib_multipath_hash_seed", &seed.to_string()).unwrap();
        for family in ["ipv4", "ipv6"] {
            let set = |name: &str, value: String| {
                self.router.set_sysctl(&format!("net.{family}.fib_multipath_hash_{name}"), &value).unwrap();
            };
            set("policy", policy.number().to_string());
            if let Policy::Custom(fields) = policy {
                set("fields", fields.mask().to_string());
            }
        }
        Hasher::new(seed, policy)
    }

    /// Begins anew: no group of before is left.
    pub(crate) fn install(&self, install: Install, ipv4: bool, members: &[Member]) {
        // Its routes go with it. There may be none.
        let _ = self.runtime.block_on(self.netlink.delete_nexthop(GROUP));
        self.replace(install, ipv4, members);
    }

    /// Changes the members of what is there.
    pub(crate) fn replace(&self, install: Install, ipv4: bool, members: &[Member]) {
        self.runtime.block_on(async {
            let destination = services(ipv4);
            let interface = |id: u32| self.links[id as usize % self.links.len()].index;
            let mut group = Vec::new();
            if install != Install::Plain {
                for member in members {
                    let id = object(ipv4, member.id);
                    let gateway = gateway(ipv4, member.id);
                    self.netlink.replace_nexthop(id, gateway, interface(member.id)).await.unwrap();
                    group.push((id, member.weight));
                }
            }
            match install {
                Install::Plain => {
                    let path = |member: &Member| Path {
                        gateway: gateway(ipv4, member.id),
                        interface: interface(member.id),
                        weight: member.weight,
                    };
                    let paths: Vec<Path> = members.iter().map(path).collect();
                    self.netlink.replace_multipath_route(destination, &paths, STATIC).await.unwrap();
                    return;
                }
                Install::Group => self.netlink.replace_nexthop_group(GROUP, &group).await.unwrap(),
                Install::Resilient(table) => {
                    self.netlink.replace_resilient_group(GROUP, &group, table).await.unwrap();
                }
            }
            self.netlink.replace_route_via_nexthop(destination, GROUP, STATIC).await.unwrap();
        });
    }

    /// Deletes a member's object; the kernel takes it out of the group.
    pub(crate) fn delete_member(&self, ipv4: bool, member: u32) {
        self.runtime.block_on(self.netlink.delete_nexthop(object(ipv4, member))).unwrap();
    }

    /// Whose each bucket is, and for how long it was not used.
    pub(crate) fn buckets(&self) -> Vec<(u32, Duration)> {
        let buckets = self.runtime.block_on(self.netlink.resilient_buckets(GROUP)).unwrap();
        buckets.iter().map(|bucket| (bucket.nexthop % OBJECTS, bucket.idle)).collect()
    }

    /// The server of each flow, by lookup.
    pub(crate) fn ask(&self, flows: &[Flow]) -> Vec<u32> {
        let query = |flow: &Flow| RouteQuery {
            destination: flow.addresses.destination(),
            source: flow.addresses.source(),
            input: Some(self.input.index),
            protocol: flow.protocol,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
        };
        let hops = self.runtime.block_on(self.netlink.routes_get(flows.iter().map(query).collect())).unwrap();
        hops.into_iter().map(|hop| server(hop.unwrap().gateway.unwrap())).collect()
    }

    /// The server at which each packet arrives. Every one must.
    pub(crate) fn send(&self, packets: &[Packet]) -> Vec<u32> {
        let ends: BTreeMap<usize, u32> =
            (0..).zip(&self.ends).map(|(server, end)| (end.index as usize, server)).collect();
        let mut arrived = vec![None; packets.len()];
        let mut buffer = [0; 2048];
        for (begin, burst) in (0..).step_by(BURST).zip(packets.chunks(BURST)) {
            for (number, packet) in (begin..).zip(burst) {
                let bytes = packets::bytes(packet, number as u32);
                match packet.addresses() {
                    Addresses::V4 { destination, .. } => {
                        let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                        sendto(self.send4.as_raw_fd(), &bytes, &to, MsgFlags::empty()).unwrap();
                    }
                    Addresses::V6 { destination, .. } => {
                        let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, 0));
                        sendto(self.send6.as_raw_fd(), &bytes, &to, MsgFlags::empty()).unwrap();
                    }
                }
            }
            let mut missing = burst.len();
            let end = Instant::now() + PATIENCE;
            while missing > 0 {
                match recvfrom::<LinkAddr>(self.listen.as_raw_fd(), &mut buffer) {
                    Ok((length, from)) => {
                        let Some(number) = packets::number(&buffer[..length]) else { continue };
                        let server = ends[&from.unwrap().ifindex()];
                        assert_eq!(
                            arrived[number as usize].replace(server),
                            None,
                            "packet {number} came twice"
                        );
                        missing -= 1;
                    }
                    Err(Errno::EAGAIN) => {
                        assert!(Instant::now() < end, "{missing} of {} packets never came", burst.len());
                        let mut fds =
                            [PollFd::new(std::os::fd::AsFd::as_fd(&self.listen), PollFlags::POLLIN)];
                        poll(&mut fds, PollTimeout::from(100_u16)).unwrap();
                    }
                    Err(error) => panic!("cannot listen: {error}"),
                }
            }
        }
        arrived.into_iter().map(Option::unwrap).collect()
    }

    /// `ip LINE` on the router.
    #[track_caller]
    pub(crate) fn ip(&self, lines: &str) {
        ip(&self.router, lines);
    }
}

pub(crate) fn object(ipv4: bool, member: u32) -> u32 {
    OBJECTS + if ipv4 { 0 } else { OBJECTS } + member
}

fn server(gateway: IpAddr) -> u32 {
    match gateway {
        IpAddr::V4(address) => address.octets()[2].into(),
        IpAddr::V6(address) => address.segments()[1].into(),
    }
}

async fn up(netlink: &Netlink, name: &str) -> Link {
    let link = netlink.link(name).await.unwrap();
    netlink.set_link_up(link.index).await.unwrap();
    link
}

/// Addresses, default routes of the client, and neighbours that are known from the start.
fn addresses(
    client: &Namespace,
    router: &Namespace,
    servers: &Namespace,
    input: &Link,
    (links, ends): (&[Link], &[Link]),
) {
    let mac = |link: &Link| {
        link.mac.unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
    };
    ip(
        client,
        &format!(
            "address add 10.0.0.2/24 dev eth0
             address add fd00::2/64 dev eth0 nodad
             neighbour replace 10.0.0.1 lladdr {mac} dev eth0 nud permanent
             neighbour replace fd00::1 lladdr {mac} dev eth0 nud permanent
             route add default via 10.0.0.1
             route add default via fd00::1",
            mac = mac(input)
        ),
    );
    let mut at_router =
        "address add 10.0.0.1/24 dev clients\naddress add fd00::1/64 dev clients nodad\n".to_owned();
    let mut at_servers = String::new();
    for (server, (link, end)) in links.iter().zip(ends).enumerate() {
        let (name, mac) = (&link.name, mac(end));
        at_router.push_str(&format!(
            "address add 10.1.{server}.1/24 dev {name}
             address add fd01:{server}::1/64 dev {name} nodad
             neighbour replace 10.1.{server}.2 lladdr {mac} dev {name} nud permanent
             neighbour replace fd01:{server}::2 lladdr {mac} dev {name} nud permanent\n"
        ));
        at_servers.push_str(&format!("address add 10.1.{server}.2/24 dev {name}\n"));
    }
    ip(router, &at_router);
    ip(servers, &at_servers);
}

#[track_caller]
fn ip(namespace: &Namespace, lines: &str) {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    namespace.confine(&mut command);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{lines}");
}
