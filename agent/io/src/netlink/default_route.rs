//! The default route of ours: one multipath route, known by protocol number and metric; routes of others are never touched.

use std::net::IpAddr;

use anyvip_machine::Failure;
use ipnet::IpNet;

use super::change::{Netlink, VIP_PROTOCOL};
use super::message::{Message, Mode, kind};
use super::multipath::{Path, RTA_MULTIPATH, append_hop};
use super::nexthop::{RTA_PRIORITY, SCOPE_NOWHERE, SCOPE_UNIVERSE, UNICAST, route_header};

impl Netlink {
    /// Makes the route to `default` (of either family) with this metric lead through all of `hops` alike: gateway, and interface where the
    /// address does not say it. `replaces`: ours is there already; else nothing with this metric may be there.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one where none was expected; when a gateway is not on the link.
    pub async fn set_default_route(
        &self,
        default: IpNet,
        hops: &[(IpAddr, Option<u32>)],
        metric: u32,
        replaces: bool,
    ) -> Result<(), Failure> {
        let header = route_header(default, VIP_PROTOCOL, SCOPE_UNIVERSE, UNICAST);
        let list = hops.iter().fold(Vec::new(), |list, (gateway, interface)| {
            let path = Path { gateway: *gateway, interface: interface.unwrap_or(0), weight: 1 };
            append_hop(list, &path, 0, default.addr().is_ipv4())
        });
        let mode = if replaces { Mode::Replace } else { Mode::Create };
        let message = Message::new(kind::NEW_ROUTE, mode, &header)
            .put_u32(RTA_PRIORITY, metric)
            .put(RTA_MULTIPATH, &list);
        let gateways: Vec<String> = hops.iter().map(|(gateway, _)| gateway.to_string()).collect();
        self.change(format!("cannot route {default} through {}", gateways.join(", ")), message).await
    }

    /// Removes the route to `default` with this metric if its protocol number is ours.
    ///
    /// # Errors
    /// `NotFound` without such a route.
    pub async fn remove_default_route(&self, default: IpNet, metric: u32) -> Result<(), Failure> {
        let header = route_header(default, VIP_PROTOCOL, SCOPE_NOWHERE, 0);
        let message = Message::new(kind::DELETE_ROUTE, Mode::Existing, &header).put_u32(RTA_PRIORITY, metric);
        self.change(format!("cannot delete the route to {default}"), message).await
    }
}
