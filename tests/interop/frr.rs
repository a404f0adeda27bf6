//! With FRR (bgpd and zebra) as the upstream router.

use anyvip_tests::{Frr, Need, met};

use crate::policy::{self, Words};
use crate::protection;
use crate::stories;

const NEEDS: &[Need] = &[Need::Root, Need::Frr];
const CUTTING: &[Need] = &[Need::Root, Need::Frr, Need::Program("nft"), Need::Program("ss")];

#[test]
fn three_hosts_share_both_addresses() {
    if met(NEEDS) {
        stories::three_hosts_share_both_addresses::<Frr>();
    }
}

#[test]
fn a_killed_service_leaves_and_comes_back() {
    if met(NEEDS) {
        stories::a_killed_service_leaves_and_comes_back::<Frr>();
    }
}

#[test]
fn a_drained_host_leaves_while_its_service_answers_on() {
    if met(NEEDS) {
        stories::a_drained_host_leaves_while_its_service_answers_on::<Frr>();
    }
}

#[test]
fn a_killed_agent_leaves_and_its_next_life_comes_back() {
    if met(NEEDS) {
        stories::a_killed_agent_leaves_and_its_next_life_comes_back::<Frr>();
    }
}

#[test]
fn a_restarted_router_learns_everything_again() {
    if met(NEEDS) {
        stories::a_restarted_router_learns_everything_again::<Frr>();
    }
}

#[test]
fn a_session_over_ipv6_carries_both_families() {
    if met(NEEDS) {
        stories::a_session_over_ipv6_carries_both_families::<Frr>();
    }
}

#[test]
fn a_passive_host_is_called_by_its_router() {
    if met(CUTTING) {
        stories::a_passive_host_is_called_by_its_router::<Frr>();
    }
}

#[test]
fn of_two_connections_one_stays_when_our_identifier_is_the_smaller() {
    if met(CUTTING) {
        stories::of_two_connections_one_stays::<Frr>("10.1.1.2");
    }
}

#[test]
fn of_two_connections_one_stays_when_our_identifier_is_the_greater() {
    if met(CUTTING) {
        stories::of_two_connections_one_stays::<Frr>("10.200.0.1");
    }
}

#[test]
fn either_session_carries_traffic_of_both_families() {
    if met(NEEDS) {
        stories::either_session_carries_traffic_of_both_families::<Frr>();
    }
}

#[test]
fn a_link_without_ipv4_carries_ipv4() {
    if met(NEEDS) {
        stories::a_link_without_ipv4_carries_ipv4::<Frr>();
    }
}

#[test]
fn a_router_that_takes_no_ipv6_next_hop_is_named() {
    if met(NEEDS) {
        stories::a_router_that_takes_no_ipv6_next_hop_is_named::<Frr>();
    }
}

const WORDS: Words = Words {
    normal: &[
        "\n  65001\n",
        "metric 10,",
        "Community: 65001:100\n",
        "Large Community: 65001:1:2",
        "Extended Community: RT:65001:7",
    ],
    depreferenced: &["\n  65001 65001 65001 65001\n", "metric 1000,"],
    draining: &["Community: 65001:100 graceful-shutdown", "localpref 0,", "metric 10,"],
};

#[test]
fn each_state_is_told_and_replaces_the_one_before() {
    if met(NEEDS) {
        policy::each_state_is_told_and_replaces_the_one_before::<Frr>(&[], &WORDS);
    }
}

#[test]
fn a_covering_prefix_is_told_instead_of_its_vips() {
    if met(NEEDS) {
        policy::a_covering_prefix_is_told_instead_of_its_vips::<Frr>();
    }
}

#[test]
fn weights_become_those_of_the_kernel() {
    if met(NEEDS) {
        policy::weights_become_those_of_the_kernel::<Frr>(&[]);
    }
}

#[test]
fn words_of_a_shutdown_are_shown_on_both_sides() {
    if met(NEEDS) {
        policy::words_of_a_shutdown_are_shown_on_both_sides::<Frr>(
            |frr, text| {
                let lines = [
                    "configure terminal",
                    "router bgp 65000",
                    &format!("neighbor HOSTS shutdown message {text}"),
                ];
                frr.tell(&lines).unwrap();
            },
            Frr::log,
        );
    }
}

#[test]
fn roles_are_agreed_or_refused_and_routes_marked() {
    if met(NEEDS) {
        let role = |role: &str| {
            let timers = " neighbor HOSTS timers 3 9\n";
            [(timers.to_owned(), format!("{timers} neighbor HOSTS local-role {role}\n"))]
        };
        policy::roles_are_agreed_or_refused_and_routes_marked::<Frr>(role, "otc 65001");
    }
}

#[test]
fn a_router_without_a_role_is_refused_where_one_is_required() {
    if met(NEEDS) {
        policy::a_router_without_a_role_is_refused_where_one_is_required::<Frr>();
    }
}

#[test]
fn one_router_can_know_us_by_another_as_number() {
    if met(NEEDS) {
        policy::one_router_can_know_us_by_another_as_number::<Frr>("\n  64999\n");
    }
}

#[test]
fn a_key_of_tcp_md5_guards_the_session() {
    if met(NEEDS) {
        let timers = " neighbor HOSTS timers 3 9\n";
        let key = |key: &str| [(timers.to_owned(), format!("{timers} neighbor HOSTS password {key}\n"))];
        protection::a_key_of_tcp_md5_guards_the_session::<Frr>(key);
    }
}

#[test]
fn gtsm_is_held_at_both_ends() {
    // FRR sends 255 to hosts of a listen range, whatever it is told.
    if met(CUTTING) {
        let timers = " neighbor HOSTS timers 3 9\n";
        let secured = format!("{timers} neighbor HOSTS ttl-security hops 1\n");
        protection::gtsm_is_held_at_both_ends::<Frr>((timers, &secured), None);
    }
}

#[test]
fn the_session_comes_from_the_address_that_is_named() {
    if met(NEEDS) {
        protection::the_session_comes_from_the_address_that_is_named::<Frr>();
    }
}

#[test]
fn a_router_that_asks_again_is_answered_and_knows_our_name() {
    if met(NEEDS) {
        policy::a_router_that_asks_again_is_answered_and_knows_our_name::<Frr>(
            |frr| {
                frr.ask("clear bgp ipv4 unicast * soft in").unwrap();
            },
            |frr| frr.ask("show bgp neighbors 10.1.1.2").unwrap_or_default(),
            &["h1", "example.net", "Enhanced Route Refresh: advertised and received"],
        );
    }
}
