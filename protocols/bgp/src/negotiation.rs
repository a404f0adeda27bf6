//! The OPEN that we send, and what it means together with the peer's (RFC 4271 §4.2, §6.2, RFC 5492).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::connection::Local;
use crate::wire::{AfiSafi, Capability, Family, GracefulRestart, Notification, Open, Role};
use crate::{PeerConfig, SessionFacts};

/// RFC 4271 §4.2: a hold time is zero or at least three seconds.
const LEAST_HOLD_TIME: u16 = 3;
/// AFI of an IPv6 next hop (RFC 8950 §4).
const AFI_IPV6: u16 = 2;

/// RFC 7911 §4.
const ADD_PATH_RECEIVE: u8 = 1;
const ADD_PATH_SEND: u8 = 2;
const ADD_PATH_BOTH: u8 = 3;

/// What a new session has to do with what the peer was told before it (RFC 4724 §3, §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Continuity {
    /// This process took over from another, and the peer has not heard the end of it yet.
    pub(crate) restarted: bool,
    /// What we told before is known to us, and packets were served all the time. Never of a process that knows nothing of the past:
    /// a peer that kept our routes has to drop them then, at once.
    pub(crate) preserved: bool,
}

/// Our OPEN. Graceful restart only where it is configured: a peer must drop our routes the moment the session ends. Never with the
/// notification bit of RFC 8538: what ends with a NOTIFICATION, or because we are silent, is meant to end.
pub(crate) fn offer(ours: Local, config: &PeerConfig, continuity: Continuity) -> Open {
    let mut capabilities: Vec<Capability> =
        config.families.iter().map(|family| Capability::Multiprotocol(AfiSafi::from(*family))).collect();
    capabilities.push(Capability::RouteRefresh);
    if config.families.contains(&Family::Ipv4) {
        let ipv4 = AfiSafi::from(Family::Ipv4);
        capabilities.push(Capability::ExtendedNextHop(vec![(ipv4, AFI_IPV6)]));
    }
    if let Some(role) = our_role(ours, config) {
        capabilities.push(Capability::Role(role.octet()));
    }
    if let Some(time) = config.session.graceful_restart {
        let family = |family: &Family| (AfiSafi::from(*family), continuity.preserved);
        let asked = config.families.iter().filter(|_| !time.is_zero());
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarted: continuity.restarted,
            notification: false,
            restart_time: u16::try_from(time.as_secs()).unwrap_or(GracefulRestart::LONGEST),
            families: asked.map(family).collect(),
        }));
    }
    capabilities.push(Capability::FourOctetAs(ours.asn));
    capabilities.push(Capability::EnhancedRouteRefresh);
    if config.session.add_path {
        let receive = |family: &Family| (AfiSafi::from(*family), ADD_PATH_RECEIVE);
        capabilities.push(Capability::AddPath(config.families.iter().map(receive).collect()));
    }
    if config.session.extended_messages {
        capabilities.push(Capability::ExtendedMessage);
    }
    if let Some(name) = &config.session.host_name {
        let (host, domain) = name.split_once('.').unwrap_or((name, ""));
        capabilities.push(Capability::HostName { host: host.to_owned(), domain: domain.to_owned() });
    }
    capabilities.extend(config.session.software_version.clone().map(Capability::SoftwareVersion));
    Open::new(ours.asn, offered_hold_time(config), ours.router_id, capabilities)
}

/// RFC 9234 §4.1: only external sessions have roles.
fn our_role(ours: Local, config: &PeerConfig) -> Option<Role> {
    config.session.role.filter(|_| config.asn != ours.asn)
}

/// RFC 9234 §4.2: what the peer told, if it fits.
fn peer_role(open: &Open, ours: Local, config: &PeerConfig) -> Result<Option<Role>, Notification> {
    let told: BTreeSet<u8> = open
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Role(role) => Some(*role),
            _ => None,
        })
        .collect();
    let role = told.first().copied().and_then(Role::from_octet);
    let Some(ours) = our_role(ours, config) else { return Ok(role.filter(|_| told.len() == 1)) };
    let fits = match told.len() {
        0 => !config.session.role_strict,
        1 => role == Some(ours.counterpart()),
        _ => false,
    };
    if fits { Ok(role) } else { Err(Notification::role_mismatch()) }
}

/// RFC 4271 §4.2: whole seconds, zero or at least three.
fn offered_hold_time(config: &PeerConfig) -> u16 {
    config.hold_time.map_or(0, |time| u16::try_from(time.as_secs()).unwrap_or(u16::MAX).max(LEAST_HOLD_TIME))
}

/// RFC 4271 §6.2, in its order, and what both OPENs together mean.
pub(crate) fn negotiate(
    open: &Open,
    ours: Local,
    config: &PeerConfig,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<SessionFacts, Notification> {
    if open.real_asn() != config.asn {
        return Err(Notification::bad_peer_as(open.real_asn()));
    }
    if (1..LEAST_HOLD_TIME).contains(&open.hold_time) {
        return Err(Notification::unacceptable_hold_time());
    }
    // RFC 6286 §2.2: not zero, and within one AS not our own.
    let same = open.router_id == ours.router_id && config.asn == ours.asn;
    if open.router_id.is_unspecified() || same {
        return Err(Notification::bad_bgp_identifier());
    }
    let peer_role = peer_role(open, ours, config)?;
    // RFC 4271 §4.2: the smaller of both; zero is the smallest and means none.
    let hold_time = open.hold_time.min(offered_hold_time(config));
    let told = |wanted: &Capability| open.capabilities.contains(wanted);
    let speaks_multiprotocol = open.capabilities.iter().any(|c| matches!(c, Capability::Multiprotocol(_)));
    // RFC 4760 §8: without the capability a peer speaks IPv4 unicast.
    let offered = |family: &Family| match speaks_multiprotocol {
        true => told(&Capability::Multiprotocol(AfiSafi::from(*family))),
        false => *family == Family::Ipv4,
    };
    let families: BTreeSet<Family> = config.families.iter().copied().filter(offered).collect();
    let ipv4_over_ipv6 = open.capabilities.iter().any(|capability| match capability {
        Capability::ExtendedNextHop(list) => list.contains(&(AfiSafi::from(Family::Ipv4), AFI_IPV6)),
        _ => false,
    });
    // RFC 7911 §4: of several for one family only the first counts, and values that nobody knows are none.
    let sends_paths = |family: &Family| {
        let mut told = open.capabilities.iter().filter_map(|capability| match capability {
            Capability::AddPath(list) => {
                list.iter().find(|(told, _)| *told == AfiSafi::from(*family)).map(|(_, direction)| *direction)
            }
            _ => None,
        });
        config.session.add_path && matches!(told.next(), Some(ADD_PATH_SEND | ADD_PATH_BOTH))
    };
    let peer_restart = open.capabilities.iter().find_map(|capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart.clone()),
        _ => None,
    });
    let peer_restart = peer_restart.filter(|_| config.session.graceful_restart.is_some());
    Ok(SessionFacts {
        local,
        remote,
        router_id: open.router_id,
        hold_time: (hold_time > 0).then(|| Duration::from_secs(u64::from(hold_time))),
        extended_next_hop: families
            .iter()
            .copied()
            .filter(|family| *family == Family::Ipv4 && ipv4_over_ipv6)
            .collect(),
        add_path: families.iter().copied().filter(sends_paths).collect(),
        // RFC 4724 §3: a peer that lists no family cannot restart itself, but keeps our routes.
        graceful_restart: config
            .session
            .graceful_restart
            .filter(|time| !time.is_zero() && peer_restart.is_some()),
        peer_restart,
        families,
        four_octet_as: open.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_))),
        route_refresh: told(&Capability::RouteRefresh),
        enhanced_route_refresh: told(&Capability::EnhancedRouteRefresh),
        peer_role,
        // RFC 8654 §4 would let each direction be agreed on by itself; the field's daemons take it for both or none.
        extended_messages: config.session.extended_messages && told(&Capability::ExtendedMessage),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{Endpoint, Receive, SessionOptions, Transport};

    const OURS: Local = Local { asn: 65001, router_id: Ipv4Addr::new(10, 0, 0, 1) };
    const IPV4: AfiSafi = AfiSafi { afi: 1, safi: 1 };
    const IPV6: AfiSafi = AfiSafi { afi: 2, safi: 1 };

    fn config(asn: u32) -> PeerConfig {
        PeerConfig {
            remote: Endpoint { address: Ipv4Addr::new(10, 0, 0, 2).into(), interface: None, port: 179 }
                .into(),
            asn,
            connect: true,
            hold_time: Some(Duration::from_secs(9)),
            connect_retry: Duration::from_secs(1),
            ttl: None,
            families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
            receive: Receive::Nothing,
            session: SessionOptions::default(),
            transport: Transport::default(),
        }
    }

    fn theirs(asn: u32, capabilities: Vec<Capability>) -> Open {
        Open::new(asn, 90, Ipv4Addr::new(10, 0, 0, 2), capabilities)
    }

    fn agree(open: &Open, config: &PeerConfig) -> Result<SessionFacts, Notification> {
        let (local, remote) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:179".parse().unwrap());
        negotiate(open, OURS, config, local, remote)
    }

    /// RFC 4760 §8, RFC 6793 §3: a peer without capabilities.
    #[test]
    fn a_peer_without_capabilities_speaks_ipv4_and_two_octet_as_numbers() {
        let facts = agree(&theirs(65002, Vec::new()), &config(65002)).unwrap();
        assert_eq!(facts.families, BTreeSet::from([Family::Ipv4]));
        assert_eq!((facts.four_octet_as, facts.route_refresh), (false, false));
        assert_eq!(facts.hold_time, Some(Duration::from_secs(9)));
    }

    #[test]
    fn only_what_both_offer_is_agreed() {
        let capabilities = vec![
            Capability::Multiprotocol(IPV6),
            Capability::Multiprotocol(AfiSafi { afi: 1, safi: 128 }),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(IPV4, 2)]),
            Capability::FourOctetAs(65002),
        ];
        let facts = agree(&theirs(65002, capabilities.clone()), &config(65002)).unwrap();
        assert_eq!(facts.families, BTreeSet::from([Family::Ipv6]));
        assert_eq!(facts.extended_next_hop, BTreeSet::new(), "IPv4 itself was not offered");
        assert!(facts.four_octet_as && facts.route_refresh);
        let both = [&capabilities[..], &[Capability::Multiprotocol(IPV4)]].concat();
        let facts = agree(&theirs(65002, both), &config(65002)).unwrap();
        assert_eq!(facts.extended_next_hop, BTreeSet::from([Family::Ipv4]));
    }

    /// RFC 4271 §6.2, RFC 6286 §2.2, RFC 6793 §4.1.
    #[test]
    fn an_open_that_does_not_stand_is_answered_with_its_subcode() {
        let refused = |open: Open, config: &PeerConfig| agree(&open, config).unwrap_err();
        let peer = config(65002);
        assert_eq!(refused(theirs(65003, Vec::new()), &peer), Notification::bad_peer_as(65003));
        let hidden = theirs(65002, vec![Capability::FourOctetAs(4_200_000_000)]);
        assert_eq!(refused(hidden, &peer), Notification::bad_peer_as(4_200_000_000));
        for hold_time in [1, 2] {
            let open = Open { hold_time, ..theirs(65002, Vec::new()) };
            assert_eq!(refused(open, &peer), Notification::unacceptable_hold_time());
        }
        let zero = Open { router_id: Ipv4Addr::UNSPECIFIED, ..theirs(65002, Vec::new()) };
        assert_eq!(refused(zero, &peer), Notification::bad_bgp_identifier());
        let twin = Open { router_id: OURS.router_id, ..theirs(65001, Vec::new()) };
        assert_eq!(refused(twin, &config(65001)), Notification::bad_bgp_identifier());
        let namesake = Open { router_id: OURS.router_id, ..theirs(65002, Vec::new()) };
        assert!(agree(&namesake, &peer).is_ok(), "the identifier is unique within one AS only");
    }

    /// RFC 4271 §4.2.
    #[test]
    fn the_smaller_hold_time_counts_and_zero_from_either_side_is_none() {
        let hold_time = |ours: Option<u64>, theirs_secs| {
            let peer = PeerConfig { hold_time: ours.map(Duration::from_secs), ..config(65002) };
            let open = Open { hold_time: theirs_secs, ..theirs(65002, Vec::new()) };
            agree(&open, &peer).unwrap().hold_time.map(|time| time.as_secs())
        };
        assert_eq!(hold_time(Some(9), 90), Some(9));
        assert_eq!(hold_time(Some(90), 3), Some(3));
        assert_eq!(hold_time(Some(9), 0), None);
        assert_eq!(hold_time(None, 9), None);
        assert_eq!(hold_time(Some(100_000), u16::MAX), Some(65535));
    }

    /// RFC 9234 §4.2.
    #[test]
    fn roles_must_be_counterparts_on_external_sessions() {
        let with = |role, role_strict| PeerConfig {
            session: SessionOptions { role: Some(role), role_strict, ..SessionOptions::default() },
            ..config(65002)
        };
        let says = |roles: &[u8]| theirs(65002, roles.iter().map(|role| Capability::Role(*role)).collect());
        for ours in Role::ALL {
            assert!(
                offer(OURS, &with(ours, false), Continuity::default())
                    .capabilities
                    .contains(&Capability::Role(ours.octet()))
            );
            for theirs in 0..=5 {
                let fits = theirs == ours.counterpart().octet();
                let agreed = agree(&says(&[theirs]), &with(ours, false)).map(|facts| facts.peer_role);
                let expected = fits.then_some(Some(ours.counterpart())).ok_or(Notification::role_mismatch());
                assert_eq!(agreed, expected, "{ours} with {theirs}");
            }
        }
        let customer = with(Role::Customer, false);
        assert!(agree(&says(&[]), &customer).is_ok());
        assert_eq!(agree(&says(&[]), &with(Role::Customer, true)), Err(Notification::role_mismatch()));
        assert!(agree(&says(&[0, 0]), &customer).is_ok(), "the same twice");
        assert_eq!(agree(&says(&[0, 4]), &customer), Err(Notification::role_mismatch()));
        assert_eq!(
            agree(&says(&[4]), &config(65002)).unwrap().peer_role,
            Some(Role::Peer),
            "none of our own"
        );
        let internal = PeerConfig { asn: OURS.asn, ..customer };
        assert!(
            !offer(OURS, &internal, Continuity::default())
                .capabilities
                .iter()
                .any(|c| matches!(c, Capability::Role(_)))
        );
        assert!(agree(&theirs(OURS.asn, vec![Capability::Role(4)]), &internal).is_ok());
    }

    /// RFC 7911 §4: we receive, so the peer has to send.
    #[test]
    fn all_paths_come_only_where_we_asked_and_the_peer_sends_them() {
        let config = |add_path| PeerConfig {
            session: SessionOptions { add_path, ..SessionOptions::default() },
            ..config(65002)
        };
        let both = [Capability::Multiprotocol(IPV4), Capability::Multiprotocol(IPV6)];
        let agreed = |directions: &[(AfiSafi, u8)], add_path| {
            let told = Capability::AddPath(directions.to_vec());
            let open = theirs(65002, [&both[..], &[told]].concat());
            agree(&open, &config(add_path)).unwrap().add_path
        };
        assert_eq!(agreed(&[(IPV4, 3), (IPV6, 2)], true), BTreeSet::from([Family::Ipv4, Family::Ipv6]));
        assert_eq!(agreed(&[(IPV4, 1), (IPV6, 2)], true), BTreeSet::from([Family::Ipv6]));
        assert_eq!(agreed(&[(IPV4, 4), (IPV4, 2)], true), BTreeSet::new(), "the first counts");
        assert_eq!(agreed(&[(IPV4, 3)], false), BTreeSet::new());
        let offered = offer(OURS, &config(true), Continuity::default()).capabilities;
        assert!(offered.contains(&Capability::AddPath(vec![(IPV4, 1), (IPV6, 1)])));
        assert!(
            !offer(OURS, &config(false), Continuity::default())
                .capabilities
                .iter()
                .any(|c| matches!(c, Capability::AddPath(_)))
        );
    }

    /// RFC 8654 §3.
    #[test]
    fn long_messages_are_agreed_on_only_where_both_offer_them() {
        for (ours, peers) in [(false, false), (false, true), (true, false), (true, true)] {
            let session = SessionOptions { extended_messages: ours, ..SessionOptions::default() };
            let config = PeerConfig { session, ..config(65002) };
            let offered = offer(OURS, &config, Continuity::default())
                .capabilities
                .contains(&Capability::ExtendedMessage);
            assert_eq!(offered, ours);
            let open = theirs(65002, peers.then_some(Capability::ExtendedMessage).into_iter().collect());
            assert_eq!(agree(&open, &config).unwrap().extended_messages, ours && peers);
        }
    }

    /// RFC 4724: the capability's absence is what makes peers drop our routes with the session.
    #[test]
    fn we_offer_what_is_configured_and_nothing_else() {
        let open = offer(OURS, &config(65002), Continuity::default());
        let expected = [
            Capability::Multiprotocol(IPV4),
            Capability::Multiprotocol(IPV6),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(IPV4, 2)]),
            Capability::FourOctetAs(65001),
            Capability::EnhancedRouteRefresh,
        ];
        assert_eq!(open.capabilities, expected);
        let session = SessionOptions {
            host_name: Some("h1.example.net".to_owned()),
            software_version: Some("anyvip 1".to_owned()),
            ..SessionOptions::default()
        };
        let named = offer(OURS, &PeerConfig { session, ..config(65002) }, Continuity::default());
        let more = [
            Capability::HostName { host: "h1".to_owned(), domain: "example.net".to_owned() },
            Capability::SoftwareVersion("anyvip 1".to_owned()),
        ];
        assert_eq!(named.capabilities[expected.len()..], more);
        assert_eq!((open.asn, open.hold_time), (65001, 9));
        let only_ipv6 = PeerConfig { families: BTreeSet::from([Family::Ipv6]), ..config(65002) };
        let capabilities = offer(OURS, &only_ipv6, Continuity::default()).capabilities;
        assert!(!capabilities.iter().any(|c| matches!(c, Capability::ExtendedNextHop(_))));
    }

    /// RFC 8950 §4: an IPv6 next hop for IPv4 only where the peer says so, and for nothing else.
    #[test]
    fn ipv4_over_ipv6_is_agreed_only_where_the_peer_takes_it() {
        let agreed = |hops: Option<Vec<(AfiSafi, u16)>>| {
            let families = [IPV4, IPV6].map(Capability::Multiprotocol);
            let told = families.into_iter().chain(hops.map(Capability::ExtendedNextHop)).collect();
            agree(&theirs(65002, told), &config(65002)).unwrap().extended_next_hop
        };
        assert_eq!(agreed(Some(vec![(IPV4, AFI_IPV6)])), BTreeSet::from([Family::Ipv4]));
        assert_eq!(agreed(None), BTreeSet::new());
        assert_eq!(agreed(Some(Vec::new())), BTreeSet::new());
        assert_eq!(agreed(Some(vec![(IPV6, AFI_IPV6), (IPV4, 1)])), BTreeSet::new());
    }

    /// RFC 4724 §3, §4.1; never the notification bit of RFC 8538.
    #[test]
    fn graceful_restart_is_agreed_only_where_asked_and_told_by_both() {
        let config = |graceful_restart| PeerConfig {
            session: SessionOptions { graceful_restart, ..SessionOptions::default() },
            ..config(65002)
        };
        let ten = config(Some(Duration::from_secs(10)));
        let offered = |continuity| {
            let capabilities = offer(OURS, &ten, continuity).capabilities;
            capabilities.into_iter().find_map(|capability| match capability {
                Capability::GracefulRestart(restart) => Some(restart),
                _ => None,
            })
        };
        for (restarted, preserved) in [(false, false), (false, true), (true, true)] {
            let expected = GracefulRestart {
                restarted,
                notification: false,
                restart_time: 10,
                families: vec![(IPV4, preserved), (IPV6, preserved)],
            };
            assert_eq!(offered(Continuity { restarted, preserved }), Some(expected));
        }
        let long = config(Some(Duration::from_secs(100_000)));
        let restart = offer(OURS, &long, Continuity::default()).capabilities;
        assert!(restart.iter().any(
            |c| matches!(c, Capability::GracefulRestart(r) if r.restart_time == GracefulRestart::LONGEST)
        ));
        let keeps = GracefulRestart { families: Vec::new(), ..offered(Continuity::default()).unwrap() };
        let theirs = |told: bool| {
            let restart = told.then(|| Capability::GracefulRestart(keeps.clone()));
            theirs(65002, [Capability::Multiprotocol(IPV4)].into_iter().chain(restart).collect())
        };
        let agreed = |open: &Open, config: &PeerConfig| {
            let facts = agree(open, config).unwrap();
            (facts.graceful_restart, facts.peer_restart)
        };
        assert_eq!(agreed(&theirs(true), &ten), (Some(Duration::from_secs(10)), Some(keeps.clone())));
        assert_eq!(agreed(&theirs(false), &ten), (None, None));
        assert_eq!(agreed(&theirs(true), &config(None)), (None, None));
        // Who only keeps others' routes lists no family, and is kept nothing of.
        let helper = config(Some(Duration::ZERO));
        let told = offer(OURS, &helper, Continuity::default()).capabilities;
        let nothing = GracefulRestart { restart_time: 0, ..keeps.clone() };
        assert!(told.contains(&Capability::GracefulRestart(nothing)), "{told:?}");
        assert_eq!(agreed(&theirs(true), &helper), (None, Some(keeps)));
    }
}
