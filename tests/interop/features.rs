//! Every feature of the matrix: its row of `docs/interop.md`, and the story that shows it with any router.

use crate::router::Router;
use crate::{bfd, heard, policy, protection, sessions, stories, unnumbered, upgrade};

macro_rules! features {
    ( $( $part:literal { $( $name:ident $row:literal => $module:ident :: $story:ident ; )* } )* ) => {
        /// A row of the matrix.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Feature { $( $( $name, )* )* }

        impl Feature {
            /// All rows, in the order of the page.
            pub(crate) const ALL: &'static [Feature] = &[ $( $( Feature::$name, )* )* ];

            /// Under which heading it stands.
            pub(crate) fn part(self) -> &'static str {
                match self { $( $( Feature::$name => $part, )* )* }
            }

            /// What the row says.
            pub(crate) fn row(self) -> &'static str {
                match self { $( $( Feature::$name => $row, )* )* }
            }

            /// Name of the test, without that of the router.
            pub(crate) fn story_name(self) -> &'static str {
                match self { $( $( Feature::$name => stringify!($story), )* )* }
            }

            /// The test with this router.
            pub(crate) fn story<R: Router>(self) -> fn() {
                match self { $( $( Feature::$name => $module::$story::<R>, )* )* }
            }
        }
    };
}

features! {
    "Service addresses" {
        Announced "IPv4 and IPv6 VIPs of three hosts, side by side (ECMP)" => stories::three_hosts_share_both_addresses;
        ServiceDies "service dead → withdrawn; healed → back" => stories::a_killed_service_leaves_and_comes_back;
        Drained "drained → withdrawn while the service answers on; undrained → back" => stories::a_drained_host_leaves_while_its_service_answers_on;
        AgentKilled "agent killed → gone; its next life → back" => stories::a_killed_agent_leaves_and_its_next_life_comes_back;
        RouterRestarted "router restarted → learns everything again" => stories::a_restarted_router_learns_everything_again;
        CoveringPrefix "a covering prefix instead of its VIPs" => policy::a_covering_prefix_is_told_instead_of_its_vips;
    }
    "Sessions" {
        SessionOverIpv6 "session over IPv6, both families in it" => stories::a_session_over_ipv6_carries_both_families;
        BothFamiliesForwarded "traffic of both families over either session" => stories::either_session_carries_traffic_of_both_families;
        Ipv4OverIpv6Link "IPv4 VIP with an IPv6 next hop over a link without IPv4 (RFC 8950)" => stories::a_link_without_ipv4_carries_ipv4;
        RouterWithoutExtendedNextHop "a router that takes no IPv6 next hop for IPv4 is named, not sent one" => stories::a_router_that_takes_no_ipv6_next_hop_is_named;
        Passive "passive: the router calls the host (`passive`, `listen`)" => stories::a_passive_host_is_called_by_its_router;
        CollisionSmaller "both connect at once, our identifier is the smaller (RFC 4271 §6.8)" => stories::of_two_connections_one_stays_when_our_identifier_is_the_smaller;
        CollisionGreater "both connect at once, our identifier is the greater" => stories::of_two_connections_one_stays_when_our_identifier_is_the_greater;
        Source "a source address of choice (`source_address`)" => protection::the_session_comes_from_the_address_that_is_named;
        Interface "an interface of choice (`interface`), whatever the routes say" => sessions::the_session_leaves_by_the_interface_that_is_named;
        InterfaceCalled "a router that calls through another interface than that is not heard" => sessions::a_router_that_calls_through_another_interface_is_not_heard;
        Families "families of choice (`families`)" => policy::only_the_families_that_are_named_are_offered;
        Multihop "a router behind another router (`ttl`)" => sessions::a_router_behind_another_one_is_reached;
        LongMessages "messages longer than 4096 octets, both ways (RFC 8654, `extended_messages`)" => sessions::long_messages_go_both_ways;
        LocalAsn "another AS number towards one router (`local_asn`)" => policy::one_router_can_know_us_by_another_as_number;
        WrongAsn "a wrong AS number is named" => policy::a_wrong_as_number_is_named;
        RouteRefresh "ROUTE-REFRESH answered (RFC 2918)" => policy::a_router_that_asks_again_is_answered;
        EnhancedRefresh "answers marked at begin and end (RFC 7313)" => policy::a_router_that_asks_again_gets_a_marked_answer;
        HostName "name of the host shown by the router (`host_name`)" => policy::the_name_of_the_host_is_shown;
        ShutdownSaid "words of a shutdown, said by us (RFC 9003)" => policy::words_of_a_shutdown_are_shown_by_the_router;
        ShutdownHeard "words of a shutdown, said by the router" => policy::words_of_a_routers_shutdown_are_shown;
        PrefixLimit "the router's prefix limit is named (RFC 4486)" => policy::a_prefix_limit_of_the_router_is_named;
    }
    "Upgrades" {
        Upgraded "planned upgrade (`anyvip upgrade`, `graceful_restart`): no route lost; what died meanwhile is gone (RFC 4724)" => upgrade::a_planned_upgrade_loses_no_route;
        UpgradedUnderBfd "planned upgrade while BFD guards the session (RFC 5882)" => upgrade::a_planned_upgrade_under_bfd_loses_no_route;
        UpgradedByLink "planned upgrade of a peer by interface, with BFD" => upgrade::a_planned_upgrade_over_a_bare_link_loses_no_route;
        UpgradedPassive "planned upgrade of a passive peer: the router calls again" => upgrade::a_planned_upgrade_of_a_passive_peer_loses_no_route;
        UpgradeEndsAtOnce "a new version that ends at once: routes are kept no longer than asked" => upgrade::a_new_version_that_ends_at_once_is_kept_no_longer_than_asked;
        DeadIsNotKept "with `graceful_restart`: an agent that died is kept no longer than asked, a silent one not at all" => upgrade::what_died_is_not_kept_for_longer_than_asked;
    }
    "Peers without addresses" {
        Unnumbered "peer by interface (`interface`): both families over a link-local session, found by router advertisements" => unnumbered::hosts_without_addresses_are_served;
        UnnumberedAgain "the router starts later, and again; the link goes and comes back" => unnumbered::a_router_that_starts_later_or_again_finds_the_host;
        UnnumberedCall "the router calls a link-local address (`listen`)" => unnumbered::a_router_that_calls_a_link_local_address_is_known_by_its_call;
        UnnumberedGuarded "two links, one link-local address on both; TCP MD5 and GTSM" => unnumbered::two_links_to_the_same_link_local_address_are_told_apart;
        UnnumberedBfd "BFD over link-local addresses (RFC 5881)" => unnumbered::bfd_follows_the_link_local_address;
    }
    "Protection" {
        Md5 "TCP MD5; a key changes, other sessions stay (RFC 2385)" => protection::a_key_of_tcp_md5_guards_the_session;
        Gtsm "GTSM, held at both ends (RFC 5082)" => protection::gtsm_is_held_at_both_ends;
        Roles "roles agreed or refused, routes marked with OTC (RFC 9234)" => policy::roles_are_agreed_or_refused_and_routes_marked;
        RoleRequired "a router without a role is refused where one is required" => policy::a_router_without_a_role_is_refused_where_one_is_required;
    }
    "Attributes" {
        Communities "communities: standard, extended, large" => policy::communities_of_every_kind_arrive;
        Med "MED per state; a change replaces the route" => policy::med_is_that_of_the_state;
        Prepend "prepending per state; a change replaces the route" => policy::prepending_is_that_of_the_state;
        LocalPref "LOCAL_PREF, internal session" => policy::local_pref_is_told_to_an_internal_router;
        NextHop "next hop of choice (`next_hop`)" => policy::the_next_hop_is_the_one_that_is_named;
        GracefulShutdown "GRACEFUL_SHUTDOWN while draining, honoured (RFC 8326)" => policy::graceful_shutdown_is_honoured_while_draining;
        Weights "link bandwidth becomes kernel weights, 25 to 75" => policy::weights_become_those_of_the_kernel;
    }
    "What the router tells us" {
        OtherOrigins "others at the same VIP are counted, by add-path (RFC 7911): `other_origins`" => heard::others_at_the_same_address_are_counted;
        InstallDefault "default route heard, installed, gone with the session (`install_default`)" => heard::a_default_route_is_taken_where_wanted_and_goes_with_the_session;
    }
    "BFD" {
        BfdSessions "single hop IPv4 and IPv6, multihop: each end finds the other frozen (RFC 5880, 5881, 5883)" => bfd::each_end_finds_the_other_frozen;
        BfdAuthentication "authentication: simple, MD5, SHA1, meticulous" => bfd::both_ends_authenticate_each_other;
        BfdGuard "BFD guards the BGP session (RFC 5882, 9384)" => bfd::a_guarded_session_falls_with_its_path;
        StaticRoute "a static route of the router follows health, drain and death, without BGP" => bfd::a_static_route_follows_health_drain_and_death;
    }
}
