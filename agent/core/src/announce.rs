//! What each peer is told about a VIP: next hop, attributes, and whether traffic could come back from there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyvip_bgp::wire::{ExtendedCommunity, Family, NextHop};
use anyvip_bgp::{RouteAttributes, SessionFacts};
use ipnet::IpNet;

use crate::config::Attributes;
use crate::kernel::{Address, KernelView, Route};

/// The family of a VIP's route.
pub(crate) fn family_of(vip: IpAddr) -> Family {
    match vip {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

/// The interface that holds the session's local address.
pub(crate) fn egress(view: &KernelView, facts: &SessionFacts) -> Option<u32> {
    // The same link-local address may be on several interfaces.
    if let SocketAddr::V6(local) = facts.local
        && local.scope_id() != 0
    {
        return view.links.contains_key(&local.scope_id()).then_some(local.scope_id());
    }
    let local = facts.local.ip();
    view.addresses.iter().find(|a| a.address == local).map(|a| a.interface)
}

/// Where the peer shall send traffic for `vip`: never to a VIP, a deprecated or a tentative address.
///
/// # Errors
/// Says why there is no such address.
pub(crate) fn next_hop(
    vip: IpAddr,
    written: &Attributes,
    facts: &SessionFacts,
    view: &KernelView,
    is_vip: impl Fn(&IpAddr) -> bool,
) -> Result<NextHop, String> {
    let family = family_of(vip);
    let own = written.next_hop.iter().flatten();
    if let Some(address) = own.into_iter().find(|a| family_of(**a) == family) {
        return Ok(as_next_hop(*address));
    }
    let local = facts.local.ip();
    if local.is_loopback() {
        return beyond(family, view, is_vip).map(as_next_hop).ok_or_else(|| {
            format!(
                "no uplink has an {} address, and a daemon on this host can tell nobody of {local}",
                spoken(family)
            )
        });
    }
    if family_of(local) == family && !is_vip(&local) && !is_link_local(&local) {
        return Ok(as_next_hop(local));
    }
    let Some(interface) = egress(view, facts) else {
        return Err(format!("no interface holds {local}, this end of the session"));
    };
    let usable = |wanted: Family| {
        let on_it = view.addresses.iter().filter(|a| a.interface == interface);
        let fit = |a: &&Address| family_of(a.address) == wanted && is_usable(a) && !is_vip(&a.address);
        on_it.filter(fit).map(|a| a.address).min()
    };
    let extended = family == Family::Ipv4 && facts.extended_next_hop.contains(&Family::Ipv4);
    // Over a link-local session the peer can reach this address on that link, whatever else the link has (RFC 2545 §3).
    if let IpAddr::V6(link_local) = local
        && link_local.is_unicast_link_local()
        && (family == Family::Ipv6 || extended)
    {
        // Where there is no global address, routers tell the link-local one twice.
        let global = match usable(Family::Ipv6) {
            Some(IpAddr::V6(global)) => global,
            _ => link_local,
        };
        return Ok(NextHop::V6 { global, link_local: Some(link_local) });
    }
    if let Some(address) = usable(family) {
        return Ok(as_next_hop(address));
    }
    // RFC 8950 §4: IPv4 routes may name an IPv6 next hop where both ends agreed.
    if extended {
        let local = Some(local).filter(|a| a.is_ipv6() && !is_vip(a) && !is_link_local(a));
        if let Some(address) = local.or_else(|| usable(Family::Ipv6)) {
            return Ok(as_next_hop(address));
        }
    }
    let name = view.links.get(&interface).map_or("the interface", |link| link.name.as_str());
    Err(format!("{name}, towards this peer, has no {} address that could be the next hop", spoken(family)))
}

/// Where others reach this host: an address on the interface with the best default route, else on any but the loopback. For a daemon on
/// this host, which tells others.
fn beyond(family: Family, view: &KernelView, is_vip: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let ours =
        |route: &&Route| route.destination.prefix_len() == 0 && family_of(route.destination.addr()) == family;
    let best = view.routes.iter().filter(ours).min_by_key(|route| route.metric);
    let uplink = best.and_then(|route| route.hops.first()).map(|hop| hop.interface);
    let outside = |address: &&Address| view.links.get(&address.interface).is_some_and(|link| !link.loopback);
    let fit =
        |address: &&Address| family_of(address.address) == family && is_usable(address) && outside(address);
    let all = view.addresses.iter().filter(fit).filter(|address| !is_vip(&address.address));
    all.min_by_key(|address| (Some(address.interface) != uplink, address.address))
        .map(|address| address.address)
}

fn spoken(family: Family) -> &'static str {
    if family == Family::Ipv4 { "IPv4" } else { "global IPv6" }
}

/// What is told by `asn`, once there is a next hop.
pub(crate) fn attributes(next_hop: NextHop, written: &Attributes, asn: u32) -> RouteAttributes {
    let communities = written.communities.clone().unwrap_or_default();
    let mut extended_communities = communities.extended;
    extended_communities.extend(written.weight.map(|mbit| ExtendedCommunity::link_bandwidth(asn, mbit)));
    RouteAttributes {
        prepend: written.prepend.unwrap_or(0),
        med: written.med,
        local_pref: written.local_pref,
        communities: communities.standard,
        extended_communities,
        large_communities: communities.large,
        ..RouteAttributes::originated(next_hop)
    }
}

/// Whether rp_filter would drop what comes in from this peer: what is seen, and the cure.
///
/// Strict filtering (effective value 1) takes a packet only from the interface that its source is routed to; clients are
/// anywhere, so the best default route must lead back through the interface towards the peer.
pub(crate) fn no_return_path(view: &KernelView, facts: &SessionFacts) -> Option<(String, String)> {
    let interface = egress(view, facts)?;
    let link = view.links.get(&interface)?;
    // The larger value counts, and 2 (loose) is larger than 1 (strict).
    if link.loopback || view.all.rp_filter.max(link.settings.rp_filter) != 1 {
        return None;
    }
    let defaults = || view.routes.iter().filter(|r| r.destination.prefix_len() == 0 && is_v4(&r.destination));
    let through = |route: &Route| route.hops.iter().any(|hop| hop.interface == interface);
    let leads_back =
        match defaults().map(|route| route.metric).min() {
            Some(best) => defaults().filter(|route| route.metric == best).any(through),
            // Without a default route, a gateway towards the peer's side is the way back.
            None => view.routes.iter().filter(|route| is_v4(&route.destination)).any(|route| {
                route.hops.iter().any(|hop| hop.interface == interface && hop.gateway.is_some())
            }),
        };
    if leads_back {
        return None;
    }
    let name = &link.name;
    let text = format!("rp_filter is 1 on {name} and the default route does not lead back through it");
    Some((text, format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2")))
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn as_next_hop(address: IpAddr) -> NextHop {
    match address {
        IpAddr::V4(address) => NextHop::V4(address),
        IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => Ipv4Addr::is_link_local(address),
        IpAddr::V6(address) => Ipv6Addr::is_unicast_link_local(address),
    }
}

fn is_usable(address: &Address) -> bool {
    !address.tentative
        && !address.deprecated
        && !address.scope_host
        && !address.scope_link
        && !is_link_local(&address.address)
        && !address.address.is_loopback()
}
