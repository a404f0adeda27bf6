//! Next-hop objects, routes through them, and the question which way a flow goes.

use std::net::IpAddr;

use anyvip_machine::{Failure, FailureKind};
use ipnet::IpNet;

use super::change::{Netlink, VIP_PROTOCOL};
use super::message::{AF_UNSPEC, Message, Mode, attributes, family, ip_of, kind, u32_of};
use super::snapshot::{Hop, via_of};
use super::socket::{Refusal, RequestSocket};

pub(super) const NHA_ID: u16 = 1;
pub(super) const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

pub(super) const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_VIA: u16 = 18;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
const RTA_NH_ID: u16 = 30;

const TABLE_MAIN: u8 = 254;
pub(super) const UNICAST: u8 = 1;
pub(super) const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
pub(super) const SCOPE_NOWHERE: u8 = 255;

/// A flow, as the router that forwards it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Destination address.
    pub destination: IpAddr,
    /// Source address.
    pub source: IpAddr,
    /// The interface through which the flow arrives. Without it the kernel answers for packets of its own, for which
    /// another rule holds than for forwarded ones.
    pub input: Option<u32>,
    /// IP protocol: 6 is TCP, 17 UDP.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Netlink {
    /// Makes or replaces a next-hop object.
    ///
    /// # Errors
    /// When the gateway cannot be reached on that interface, or the interface is down.
    pub async fn replace_nexthop(&self, id: u32, gateway: IpAddr, interface: u32) -> Result<(), Failure> {
        let message =
            Message::new(kind::NEW_NEXTHOP, Mode::Replace, &nexthop_header(family(gateway), VIP_PROTOCOL))
                .put_u32(NHA_ID, id)
                .put_u32(NHA_OIF, interface)
                .put_ip(NHA_GATEWAY, gateway);
        self.change(format!("cannot make next hop {id} via {gateway} on interface {interface}"), message)
            .await
    }

    /// Makes or replaces a hash-threshold group of next-hop objects: (id, weight from 1 to 256, or to 65,535 on Linux 6.12
    /// and later), in this order, which decides which flows go where.
    ///
    /// # Errors
    /// When a member does not exist, or there is none.
    pub async fn replace_nexthop_group(&self, id: u32, members: &[(u32, u16)]) -> Result<(), Failure> {
        let message =
            Message::new(kind::NEW_NEXTHOP, Mode::Replace, &nexthop_header(AF_UNSPEC, VIP_PROTOCOL))
                .put_u32(NHA_ID, id)
                .put(NHA_GROUP, &group_members(members));
        self.change(format!("cannot make next-hop group {id}"), message).await
    }

    /// Deletes a next-hop object or group; the kernel takes it out of groups, and routes through it go with it.
    ///
    /// # Errors
    /// `NotFound` without such an object.
    pub async fn delete_nexthop(&self, id: u32) -> Result<(), Failure> {
        let message = Message::new(kind::DELETE_NEXTHOP, Mode::Existing, &nexthop_header(AF_UNSPEC, 0))
            .put_u32(NHA_ID, id);
        self.change(format!("cannot delete next hop {id}"), message).await
    }

    /// Makes or replaces the route to `destination` through a next-hop object or group, of either family.
    ///
    /// # Errors
    /// When there is no such object, or it does not fit (an IPv6 route over an IPv4 gateway).
    pub async fn replace_route_via_nexthop(
        &self,
        destination: IpNet,
        nexthop: u32,
        protocol: u8,
    ) -> Result<(), Failure> {
        let header = route_header(destination, protocol, SCOPE_UNIVERSE, UNICAST);
        let message = Message::new(kind::NEW_ROUTE, Mode::Replace, &header)
            .put_ip(RTA_DST, destination.network())
            .put_u32(RTA_NH_ID, nexthop);
        self.change(format!("cannot route {destination} through next hop {nexthop}"), message).await
    }

    /// Adds a route of the main table.
    ///
    /// # Errors
    /// `AlreadyExists`, or `Unreachable` if the gateway is not on that interface.
    pub async fn add_route(
        &self,
        destination: IpNet,
        gateway: Option<IpAddr>,
        interface: u32,
        metric: u32,
    ) -> Result<(), Failure> {
        const PROTOCOL_STATIC: u8 = 4;
        let scope =
            if gateway.is_none() && destination.addr().is_ipv4() { SCOPE_LINK } else { SCOPE_UNIVERSE };
        let header = route_header(destination, PROTOCOL_STATIC, scope, UNICAST);
        let mut message = Message::new(kind::NEW_ROUTE, Mode::Create, &header)
            .put_ip(RTA_DST, destination.network())
            .put_u32(RTA_OIF, interface)
            .put_u32(RTA_PRIORITY, metric);
        match gateway {
            Some(gateway) if gateway.is_ipv4() == destination.addr().is_ipv4() => {
                message = message.put_ip(RTA_GATEWAY, gateway);
            }
            Some(gateway) => {
                let mut via = u16::from(family(gateway)).to_ne_bytes().to_vec();
                match gateway {
                    IpAddr::V4(gateway) => via.extend_from_slice(&gateway.octets()),
                    IpAddr::V6(gateway) => via.extend_from_slice(&gateway.octets()),
                }
                message = message.put(RTA_VIA, &via);
            }
            None => {}
        }
        self.change(format!("cannot add a route to {destination} on interface {interface}"), message).await
    }

    /// Deletes a route of the main table, whoever made it; of several to the same destination, the most preferred.
    ///
    /// # Errors
    /// `NotFound` without such a route.
    pub async fn delete_route(&self, destination: IpNet) -> Result<(), Failure> {
        let header = route_header(destination, 0, SCOPE_NOWHERE, 0);
        let message =
            Message::new(kind::DELETE_ROUTE, Mode::Existing, &header).put_ip(RTA_DST, destination.network());
        self.change(format!("cannot delete the route to {destination}"), message).await
    }

    /// Asks the kernel which way it would send this flow: its own ECMP choice.
    ///
    /// # Errors
    /// `Unreachable` without a route.
    pub async fn route_get(&self, query: RouteQuery) -> Result<Hop, Failure> {
        let what = format!("cannot look up the way from {} to {}", query.source, query.destination);
        let none = Failure::new(FailureKind::Other, format!("{what}: the kernel named no interface"));
        self.run(what, move |socket| way(socket, &query)).await?.ok_or(none)
    }

    /// The same for many flows, in their order; `None` where the kernel named no interface.
    ///
    /// # Errors
    /// `Unreachable` when one has no route.
    pub async fn routes_get(&self, queries: Vec<RouteQuery>) -> Result<Vec<Option<Hop>>, Failure> {
        self.run("cannot look up the ways of flows".to_owned(), move |socket| {
            queries.iter().map(|query| way(socket, query)).collect()
        })
        .await
    }
}

fn way(socket: &mut RequestSocket, query: &RouteQuery) -> Result<Option<Hop>, Refusal> {
    let bits = if query.destination.is_ipv4() { 32 } else { 128 };
    let header = [family(query.destination), bits, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut message = Message::new(kind::GET_ROUTE, Mode::Get, &header)
        .put_ip(RTA_DST, query.destination)
        .put_ip(RTA_SRC, query.source)
        .put(RTA_IP_PROTO, &[query.protocol])
        .put(RTA_SPORT, &query.source_port.to_be_bytes())
        .put(RTA_DPORT, &query.destination_port.to_be_bytes());
    if let Some(input) = query.input {
        message = message.put_u32(RTA_IIF, input);
    }
    let mut hop = None;
    socket.ask(message, |payload| {
        let (mut gateway, mut interface) = (None, None);
        for (kind, value) in attributes(payload.get(12..).unwrap_or_default()) {
            match kind {
                RTA_GATEWAY => gateway = ip_of(value),
                RTA_VIA => gateway = via_of(value),
                RTA_OIF => interface = u32_of(value),
                _ => {}
            }
        }
        hop = interface.map(|interface| Hop { gateway, interface, weight: 1 });
    })?;
    Ok(hop)
}

/// An array of `struct nexthop_grp`: id, low and high byte of weight − 1, two reserved bytes.
pub(super) fn group_members(members: &[(u32, u16)]) -> Vec<u8> {
    let mut group = Vec::with_capacity(members.len() * 8);
    for (member, weight) in members {
        let [low, high] = weight.saturating_sub(1).to_le_bytes();
        group.extend_from_slice(&member.to_ne_bytes());
        group.extend_from_slice(&[low, high, 0, 0]);
    }
    group
}

/// The hops of a next-hop object, or of a group's members.
pub(super) fn hops_of(socket: &mut RequestSocket, id: u32) -> Result<Vec<Hop>, Refusal> {
    let (hop, members) = nexthop(socket, id)?;
    let mut hops = Vec::from_iter(hop);
    for (member, weight) in members {
        // Groups of groups do not exist.
        hops.extend(nexthop(socket, member)?.0.map(|hop| Hop { weight, ..hop }));
    }
    Ok(hops)
}

/// An object, or the members of a group and their weights.
fn nexthop(socket: &mut RequestSocket, id: u32) -> Result<(Option<Hop>, Members), Refusal> {
    let message =
        Message::new(kind::GET_NEXTHOP, Mode::Get, &nexthop_header(AF_UNSPEC, 0)).put_u32(NHA_ID, id);
    let (mut gateway, mut interface, mut members) = (None, None, Vec::new());
    socket.ask(message, |payload| {
        for (kind, value) in attributes(payload.get(8..).unwrap_or_default()) {
            match kind {
                NHA_GATEWAY => gateway = ip_of(value),
                NHA_OIF => interface = u32_of(value),
                NHA_GROUP => members = value.chunks_exact(8).filter_map(member_of).collect(),
                _ => {}
            }
        }
    })?;
    Ok((interface.map(|interface| Hop { gateway, interface, weight: 1 }), members))
}

/// Ids and weights.
type Members = Vec<(u32, u16)>;

/// `struct nexthop_grp`: id, and weight − 1 in a low and a high byte.
fn member_of(bytes: &[u8]) -> Option<(u32, u16)> {
    let weight = u16::from_le_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    Some((u32_of(bytes)?, weight.saturating_add(1)))
}

/// `struct nhmsg`.
pub(super) fn nexthop_header(family: u8, protocol: u8) -> [u8; 8] {
    [family, 0, protocol, 0, 0, 0, 0, 0]
}

/// `struct rtmsg` for the main table.
pub(super) fn route_header(destination: IpNet, protocol: u8, scope: u8, kind: u8) -> [u8; 12] {
    let family = family(destination.addr());
    [family, destination.prefix_len(), 0, 0, TABLE_MAIN, protocol, scope, kind, 0, 0, 0, 0]
}
