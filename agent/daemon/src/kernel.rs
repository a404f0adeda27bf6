//! The kernel side: a snapshot as the agent's view, the agent's requests as netlink calls.

use std::sync::Arc;

use anyvip_bgp::wire::Family;
use anyvip_core::boundary::{Event, KernelRequest, KernelRequestId};
use anyvip_core::config::{HostFacts, InterfaceAddress};
use anyvip_core::kernel::{Address, DEFAULT_METRIC, Hop, Ipv4Settings, KernelView, Link, Route};
use anyvip_io::netlink::{self, Netlink, Snapshot};
use ipnet::IpNet;
use tokio::sync::mpsc;

/// The snapshot in the agent's words.
pub(crate) fn view(snapshot: Snapshot) -> KernelView {
    let settings = |from: netlink::Ipv4Settings| Ipv4Settings {
        arp_ignore: from.arp_ignore,
        arp_announce: from.arp_announce,
        rp_filter: from.rp_filter,
    };
    KernelView {
        links: snapshot
            .links
            .into_iter()
            .map(|(index, link)| {
                let link = Link {
                    name: link.name,
                    up: link.up,
                    carrier: link.carrier,
                    loopback: link.loopback,
                    arp: link.arp,
                    settings: settings(link.settings),
                };
                (index, link)
            })
            .collect(),
        addresses: snapshot
            .addresses
            .into_iter()
            .map(|address| Address {
                interface: address.interface,
                address: address.address,
                prefix_len: address.prefix_len,
                scope_host: address.scope_host,
                scope_link: address.scope_link,
                protocol: address.protocol,
                // An address that failed duplicate detection can be used no more than one still under test.
                tentative: address.tentative || address.dad_failed,
                deprecated: address.deprecated,
            })
            .collect(),
        routes: snapshot
            .routes
            .into_iter()
            .map(|route| Route {
                destination: route.destination,
                metric: route.metric,
                hops: route
                    .hops
                    .into_iter()
                    .map(|hop| Hop { gateway: hop.gateway, interface: hop.interface })
                    .collect(),
                protocol: route.protocol,
            })
            .collect(),
        all: settings(snapshot.all),
    }
}

/// What a configuration needs to know of the host.
pub(crate) fn facts(view: &KernelView, stored_router_id: Option<std::net::Ipv4Addr>) -> HostFacts {
    let name = |index: &u32| view.links.get(index).map(|link| link.name.clone());
    HostFacts {
        stored_router_id,
        addresses: view
            .addresses
            .iter()
            // What an earlier agent put there is a VIP, even if the configuration no longer knows it.
            .filter(|address| address.protocol != anyvip_core::kernel::VIP_PROTOCOL)
            .filter_map(|address| {
                Some(InterfaceAddress {
                    interface: name(&address.interface)?,
                    address: address.address,
                    prefix_len: address.prefix_len,
                })
            })
            .collect(),
        default_uplinks: view
            .routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0)
            .flat_map(|route| &route.hops)
            .filter_map(|hop| name(&hop.interface))
            .collect(),
    }
}

/// The prefix of everything.
pub(crate) fn everywhere(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::Ipv6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Carries out one request on the side; the answer is sent as an event.
pub(crate) fn request(
    netlink: &Arc<Netlink>,
    request: KernelRequestId,
    change: KernelRequest,
    answers: &mpsc::UnboundedSender<Event>,
) {
    let (netlink, answers) = (netlink.clone(), answers.clone());
    tokio::spawn(async move {
        let result = match change {
            KernelRequest::AddVip { interface, address } => netlink.add_vip(interface, address).await,
            KernelRequest::RemoveVip { interface, address } => {
                netlink.remove_address(interface, address).await
            }
            KernelRequest::SetArp { interface, ignore, announce } => {
                netlink.set_arp(interface, ignore, announce).await
            }
            KernelRequest::SetDefault { family, hops, replaces } => {
                let hops: Vec<_> = hops.iter().map(|hop| (hop.gateway, hop.interface)).collect();
                netlink.set_default_route(everywhere(family), &hops, DEFAULT_METRIC, replaces).await
            }
            KernelRequest::RemoveDefault { family } => {
                netlink.remove_default_route(everywhere(family), DEFAULT_METRIC).await
            }
        };
        let _ = answers.send(Event::KernelDone { request, result });
    });
}
