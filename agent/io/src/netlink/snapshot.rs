//! The host as one value, and how the kernel's messages become parts of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::message::{AF_INET, AF_INET6, AF_UNSPEC, attributes, ip_of, u16_of, u32_of};

/// Links, addresses and those routes that matter. An address may name an interface that `links` does not show yet (or
/// no longer): the kernel's tables are read one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// `net.ipv4.conf.all`; the effective value of each setting is the larger of this and the interface's.
    pub all: Ipv4Settings,
    /// All addresses, sorted.
    pub addresses: Vec<Address>,
    /// Unicast routes of the main table: default routes, and those that cover an address given to
    /// [`Monitor::watch`](super::Monitor::watch). Sorted.
    pub routes: Vec<Route>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The same as its key.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Up, and the other end is there.
    pub carrier: bool,
    /// A loopback interface.
    pub loopback: bool,
    /// Takes part in ARP: IPv4 is enabled on it, and no IFF_NOARP.
    pub arp: bool,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The interface's own values.
    pub settings: Ipv4Settings,
}

/// `net.ipv4.conf.*` values that anyvip reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv4Settings {
    /// `arp_ignore`.
    pub arp_ignore: u32,
    /// `arp_announce`.
    pub arp_announce: u32,
    /// `rp_filter`.
    pub rp_filter: u32,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
    /// RT_SCOPE_HOST.
    pub scope_host: bool,
    /// RT_SCOPE_LINK.
    pub scope_link: bool,
    /// IFA_PROTO: who put it there; 0 if nobody said (and always before Linux 5.18).
    pub protocol: u8,
    /// Duplicate address detection is running or has found a duplicate.
    pub tentative: bool,
    /// Preferred lifetime 0: never chosen as a source while there is another.
    pub deprecated: bool,
    /// Duplicate address detection found a duplicate.
    pub dad_failed: bool,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// Lower is preferred.
    pub metric: u32,
    /// The ways there; dead ones are left out.
    pub hops: Vec<Hop>,
    /// Who put it there (`rtm_protocol`).
    pub protocol: u8,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The router; `None` if the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub interface: u32,
    /// Its share among the hops of the route, from 1.
    pub weight: u16,
}

/// The link of a NEWLINK or DELLINK message. `None` for what concerns only a bridge port or a radio.
pub(super) fn link_of(payload: &[u8]) -> Option<Link> {
    const IFF_UP: u32 = 1;
    const IFF_LOOPBACK: u32 = 1 << 3;
    const IFF_NOARP: u32 = 1 << 7;
    const IFF_LOWER_UP: u32 = 1 << 16;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_AF_SPEC: u16 = 26;
    if *payload.first()? != AF_UNSPEC {
        return None;
    }
    let index = u32_of(payload.get(4..)?)?;
    let flags = u32_of(payload.get(8..)?)?;
    let (mut name, mut mac, mut settings) = (None, None, None);
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => name = Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()),
            IFLA_ADDRESS => mac = value.try_into().ok(),
            IFLA_AF_SPEC => settings = settings_of(value),
            _ => {}
        }
    }
    Some(Link {
        index,
        name: name?,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        arp: flags & IFF_NOARP == 0 && settings.is_some(),
        mac,
        settings: settings.unwrap_or_default(),
    })
}

/// IFLA_AF_SPEC → AF_INET → IFLA_INET_CONF: an array of u32, in which value n of `linux/ip.h` has place n − 1.
fn settings_of(af_spec: &[u8]) -> Option<Ipv4Settings> {
    const IFLA_INET_CONF: u16 = 1;
    let (_, inet) = attributes(af_spec).find(|(family, _)| *family == u16::from(AF_INET))?;
    let (_, values) = attributes(inet).find(|(kind, _)| *kind == IFLA_INET_CONF)?;
    let value = |number: u16| u32_of(values.get((usize::from(number) - 1) * 4..)?);
    Some(Ipv4Settings {
        arp_ignore: value(super::change::ARP_IGNORE)?,
        arp_announce: value(super::change::ARP_ANNOUNCE)?,
        rp_filter: value(super::change::RP_FILTER)?,
    })
}

/// The address of a NEWADDR or DELADDR message.
pub(super) fn address_of(payload: &[u8]) -> Option<Address> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_FLAGS: u16 = 8;
    const IFA_PROTO: u16 = 11;
    const DAD_FAILED: u32 = 0x08;
    const DEPRECATED: u32 = 0x20;
    const TENTATIVE: u32 = 0x40;
    const SCOPE_LINK: u8 = 253;
    const SCOPE_HOST: u8 = 254;
    let &[_family, prefix_len, flags, scope] = payload.first_chunk::<4>()?;
    let interface = u32_of(payload.get(4..)?)?;
    let mut flags = u32::from(flags);
    let (mut local, mut address, mut protocol) = (None, None, 0);
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            IFA_LOCAL => local = ip_of(value),
            IFA_ADDRESS => address = ip_of(value),
            IFA_FLAGS => flags = u32_of(value)?,
            IFA_PROTO => protocol = *value.first()?,
            _ => {}
        }
    }
    Some(Address {
        interface,
        // On a point-to-point link IFA_ADDRESS is the other end.
        address: local.or(address)?,
        prefix_len,
        scope_host: scope == SCOPE_HOST,
        scope_link: scope == SCOPE_LINK,
        protocol,
        tentative: flags & (TENTATIVE | DAD_FAILED) != 0,
        deprecated: flags & DEPRECATED != 0,
        dad_failed: flags & DAD_FAILED != 0,
    })
}

/// A route as the kernel tells it.
#[derive(Debug)]
pub(super) struct RouteMessage {
    pub(super) route: Route,
    /// The next-hop object it uses. With `nexthop_compat_mode=0` the hops themselves are not told.
    pub(super) nexthop: Option<u32>,
}

/// The route of a NEWROUTE or DELROUTE message, if it is a unicast route of the main table for any source.
pub(super) fn route_of(payload: &[u8]) -> Option<RouteMessage> {
    const MAIN: u32 = 254;
    const UNICAST: u8 = 1;
    const CLONED: u32 = 0x200;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PRIORITY: u16 = 6;
    const RTA_MULTIPATH: u16 = 9;
    const RTA_TABLE: u16 = 15;
    const RTA_VIA: u16 = 18;
    const RTA_NH_ID: u16 = 30;
    let &[family, prefix_len, source_len, tos, table, protocol, _scope, kind] = payload.first_chunk::<8>()?;
    let flags = u32_of(payload.get(8..)?)?;
    if kind != UNICAST || source_len != 0 || tos != 0 || flags & CLONED != 0 {
        return None;
    }
    let mut destination = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut table = u32::from(table);
    let (mut metric, mut nexthop, mut hops) = (0, None, Vec::new());
    let (mut gateway, mut interface) = (None, None);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            RTA_DST => destination = ip_of(value)?,
            RTA_OIF => interface = u32_of(value),
            RTA_GATEWAY => gateway = ip_of(value),
            RTA_VIA => gateway = via_of(value),
            RTA_PRIORITY => metric = u32_of(value)?,
            RTA_TABLE => table = u32_of(value)?,
            RTA_NH_ID => nexthop = u32_of(value),
            RTA_MULTIPATH => hops = multipath_of(value),
            _ => {}
        }
    }
    if table != MAIN {
        return None;
    }
    const RTNH_F_DEAD: u32 = 1;
    if let Some(interface) = interface.filter(|_| flags & RTNH_F_DEAD == 0) {
        hops.push(Hop { gateway, interface, weight: 1 });
    }
    let destination = IpNet::new(destination, prefix_len).ok()?;
    Some(RouteMessage { route: Route { destination, metric, hops, protocol }, nexthop })
}

/// RTA_VIA: a gateway of another family than the route.
pub(super) fn via_of(value: &[u8]) -> Option<IpAddr> {
    ip_of(value.get(2..)?)
}

/// RTA_MULTIPATH: `struct rtnexthop`, each followed by its attributes.
fn multipath_of(mut bytes: &[u8]) -> Vec<Hop> {
    const RTA_GATEWAY: u16 = 5;
    const RTA_VIA: u16 = 18;
    const DEAD: u8 = 1;
    let mut hops = Vec::new();
    while let (Some(length), Some(flags), Some(hops_less_one), Some(interface)) =
        (u16_of(bytes).map(usize::from), bytes.get(2), bytes.get(3), bytes.get(4..).and_then(u32_of))
    {
        let Some(inside) = bytes.get(8..length) else { break };
        let mut gateway = None;
        for (kind, value) in attributes(inside) {
            match kind {
                RTA_GATEWAY => gateway = ip_of(value),
                RTA_VIA => gateway = via_of(value),
                _ => {}
            }
        }
        if flags & DEAD == 0 {
            hops.push(Hop { gateway, interface, weight: u16::from(*hops_less_one) + 1 });
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::super::message::{Message, Mode, kind, link_header_with};
    use super::*;

    fn link() -> Vec<u8> {
        let values: Vec<u8> = (1..=33_u32).flat_map(u32::to_ne_bytes).collect();
        Message::new(kind::NEW_LINK, Mode::Existing, &link_header_with(7, 1 | 1 << 16, 0))
            .put_name(3, "eth0")
            .put(1, &[2, 0, 0, 0, 0, 1])
            .nest(26, |spec| spec.nest(10, |inet6| inet6.put_u32(1, 5)).nest(2, |inet| inet.put(1, &values)))
            .into_bytes(0)
    }

    fn route() -> Vec<u8> {
        let header = [AF_INET, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        // struct rtnexthop: length, flags, weight, interface; then RTA_GATEWAY, or RTA_VIA with a family of its own.
        let mut hops = vec![16, 0, 0, 0, 7, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1];
        hops.extend([32, 0, 0, 3, 8, 0, 0, 0, 22, 0, 18, 0, 10, 0]);
        hops.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        hops.extend([0, 0]);
        Message::new(kind::NEW_ROUTE, Mode::Existing, &header)
            .put_ip(1, IpAddr::from([192, 0, 2, 0]))
            .put_u32(6, 20)
            .put(9, &hops)
            .into_bytes(0)
    }

    #[test]
    fn the_values_of_an_interface_are_found_by_their_number() {
        let link = link_of(&link()[16..]).unwrap();
        assert_eq!(link.settings, Ipv4Settings { arp_ignore: 19, arp_announce: 18, rp_filter: 8 });
        assert_eq!((link.index, link.name.as_str(), link.mac), (7, "eth0", Some([2, 0, 0, 0, 0, 1])));
        assert!(link.up && link.carrier && link.arp && !link.loopback);
    }

    #[test]
    fn a_bridge_port_event_is_no_link() {
        let mut port = link();
        port[16] = 7; // AF_BRIDGE
        assert_eq!(link_of(&port[16..]), None);
    }

    #[test]
    fn a_dead_hop_does_not_count() {
        let mut bytes = route();
        let alive = route_of(&bytes[16..]).unwrap().route;
        let first = Hop { gateway: Some([10, 0, 0, 1].into()), interface: 7, weight: 1 };
        let second = Hop { gateway: Some("fe80::1".parse().unwrap()), interface: 8, weight: 4 };
        assert_eq!((alive.metric, alive.hops), (20, vec![first, second.clone()]));
        let first_hop = bytes.windows(8).position(|hop| hop == [16, 0, 0, 0, 7, 0, 0, 0]).unwrap();
        bytes[first_hop + 2] = 1;
        assert_eq!(route_of(&bytes[16..]).unwrap().route.hops, [second]);
    }

    #[test]
    fn no_message_cut_short_or_with_a_wrong_byte_does_harm() {
        for message in [link(), route()] {
            for cut in 16..message.len() {
                let (link, route) = (link_of(&message[16..cut]), route_of(&message[16..cut]));
                drop((link, route, address_of(&message[16..cut])));
            }
            for at in 16..message.len() {
                for value in [0, 1, 3, 4, 8, 127, 255] {
                    let mut wrong = message.clone();
                    wrong[at] = value;
                    drop((link_of(&wrong[16..]), route_of(&wrong[16..]), address_of(&wrong[16..])));
                }
            }
        }
    }
}
