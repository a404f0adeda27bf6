//! Several next hops at once: plain multipath routes, and resilient groups with their buckets.

use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Failure;
use ipnet::IpNet;

use super::change::{Netlink, VIP_PROTOCOL};
use super::message::{AF_UNSPEC, Message, Mode, attributes, family, kind, u16_of, u32_of};
use super::nexthop::{
    NHA_GROUP, NHA_ID, RTA_DST, RTA_GATEWAY, RTA_VIA, SCOPE_UNIVERSE, UNICAST, group_members, nexthop_header,
    route_header,
};

pub(super) const RTA_MULTIPATH: u16 = 9;

const NHA_GROUP_TYPE: u16 = 3;
const NHA_RES_GROUP: u16 = 12;
const NHA_RES_BUCKET: u16 = 13;
/// NEXTHOP_GRP_TYPE_RES.
const RESILIENT: u16 = 1;

/// One next hop of a multipath route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The neighbour.
    pub gateway: IpAddr,
    /// The interface it is reached through.
    pub interface: u32,
    /// From 1 to 256.
    pub weight: u16,
}

/// The table of a resilient group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResilientTable {
    /// Number of buckets, which never changes.
    pub buckets: u16,
    /// A bucket unused for so long may move to another member.
    pub idle: Duration,
    /// A table out of balance for so long is balanced by force; zero: never.
    pub unbalanced: Duration,
}

/// A bucket of a resilient group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResilientBucket {
    /// Its number, from 0.
    pub index: u16,
    /// The next-hop object it leads to.
    pub nexthop: u32,
    /// How long it has not been used, in steps of 10 ms.
    pub idle: Duration,
}

impl Netlink {
    /// Makes or replaces a multipath route of the main table without next-hop objects. The order of the next hops decides which flows
    /// go where; the same one may be there many times (up to about a thousand in all).
    ///
    /// # Errors
    /// When a gateway cannot be reached on its interface.
    pub async fn replace_multipath_route(
        &self,
        destination: IpNet,
        paths: &[Path],
        protocol: u8,
    ) -> Result<(), Failure> {
        let header = route_header(destination, protocol, SCOPE_UNIVERSE, UNICAST);
        let hops = paths.iter().fold(Vec::new(), |hops, path| {
            let weight = u8::try_from(path.weight.saturating_sub(1)).unwrap_or(u8::MAX);
            append_hop(hops, path, weight, destination.addr().is_ipv4())
        });
        let message = Message::new(kind::NEW_ROUTE, Mode::Replace, &header)
            .put_ip(RTA_DST, destination.network())
            .put(RTA_MULTIPATH, &hops);
        self.change(format!("cannot route {destination} through {} next hops", paths.len()), message).await
    }

    /// Makes or replaces a resilient group of next-hop objects: (id, weight). Buckets of members that stay are kept. A group that is
    /// there already must be resilient and have as many buckets.
    ///
    /// # Errors
    /// When a member does not exist, or there is none, or this kernel has no resilient groups (before 5.13).
    pub async fn replace_resilient_group(
        &self,
        id: u32,
        members: &[(u32, u16)],
        table: ResilientTable,
    ) -> Result<(), Failure> {
        const BUCKETS: u16 = 1;
        const IDLE_TIMER: u16 = 2;
        const UNBALANCED_TIMER: u16 = 3;
        let message =
            Message::new(kind::NEW_NEXTHOP, Mode::Replace, &nexthop_header(AF_UNSPEC, VIP_PROTOCOL))
                .put_u32(NHA_ID, id)
                .put(NHA_GROUP, &group_members(members))
                .put(NHA_GROUP_TYPE, &RESILIENT.to_ne_bytes())
                .nest(NHA_RES_GROUP, |group| {
                    group
                        .put(BUCKETS, &table.buckets.to_ne_bytes())
                        .put_u32(IDLE_TIMER, clock_ticks(table.idle))
                        .put_u32(UNBALANCED_TIMER, clock_ticks(table.unbalanced))
                });
        self.change(format!("cannot make resilient next-hop group {id}"), message).await
    }

    /// All buckets of a resilient group, in order. Looking does not count as use.
    ///
    /// # Errors
    /// When there is no such group, or it is not resilient.
    pub async fn resilient_buckets(&self, id: u32) -> Result<Vec<ResilientBucket>, Failure> {
        self.run(format!("cannot list the buckets of next-hop group {id}"), move |socket| {
            loop {
                let header = nexthop_header(AF_UNSPEC, 0);
                let message = Message::new(kind::GET_NEXTHOP_BUCKET, Mode::Dump, &header).put_u32(NHA_ID, id);
                let mut buckets = Vec::new();
                let whole = socket.ask(message, |payload| buckets.extend(bucket_of(payload)))?;
                if whole {
                    buckets.sort_by_key(|bucket| bucket.index);
                    return Ok(buckets);
                }
            }
        })
        .await
    }
}

/// `struct rtnexthop` with its gateway.
pub(super) fn append_hop(mut hops: Vec<u8>, path: &Path, weight: u8, ipv4_route: bool) -> Vec<u8> {
    let (attribute, mut value) = match path.gateway.is_ipv4() == ipv4_route {
        true => (RTA_GATEWAY, Vec::new()),
        false => (RTA_VIA, u16::from(family(path.gateway)).to_ne_bytes().to_vec()),
    };
    match path.gateway {
        IpAddr::V4(gateway) => value.extend_from_slice(&gateway.octets()),
        IpAddr::V6(gateway) => value.extend_from_slice(&gateway.octets()),
    }
    let padded = value.len().next_multiple_of(4);
    let (inner, outer) = (4 + value.len() as u16, 12 + padded as u16);
    hops.extend_from_slice(&outer.to_ne_bytes());
    hops.extend_from_slice(&[0, weight]);
    hops.extend_from_slice(&path.interface.to_ne_bytes());
    hops.extend_from_slice(&inner.to_ne_bytes());
    hops.extend_from_slice(&attribute.to_ne_bytes());
    value.resize(padded, 0);
    hops.extend_from_slice(&value);
    hops
}

fn bucket_of(payload: &[u8]) -> Option<ResilientBucket> {
    const INDEX: u16 = 1;
    const IDLE_TIME: u16 = 2;
    const NEXTHOP: u16 = 3;
    let (mut index, mut nexthop, mut idle) = (None, None, 0_u64);
    let (_, nest) = attributes(payload.get(8..)?).find(|(kind, _)| *kind == NHA_RES_BUCKET)?;
    for (kind, value) in attributes(nest) {
        match kind {
            INDEX => index = u16_of(value),
            NEXTHOP => nexthop = u32_of(value),
            IDLE_TIME => {
                idle = value.get(..8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_ne_bytes);
            }
            _ => {}
        }
    }
    Some(ResilientBucket {
        index: index?,
        nexthop: nexthop?,
        idle: Duration::from_millis(idle.saturating_mul(10)),
    })
}

/// USER_HZ is 100 wherever Linux runs today (but for Alpha).
fn clock_ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() / 10).unwrap_or(u32::MAX)
}
