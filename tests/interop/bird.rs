//! With BIRD 2 as the upstream router.

use anyvip_tests::{Bird, Need, met};

use crate::policy::{self, Words};
use crate::protection;
use crate::stories;

const NEEDS: &[Need] = &[Need::Root, Need::Bird];
const CUTTING: &[Need] = &[Need::Root, Need::Bird, Need::Program("nft"), Need::Program("ss")];

#[test]
fn three_hosts_share_both_addresses() {
    if met(NEEDS) {
        stories::three_hosts_share_both_addresses::<Bird>();
    }
}

#[test]
fn a_killed_service_leaves_and_comes_back() {
    if met(NEEDS) {
        stories::a_killed_service_leaves_and_comes_back::<Bird>();
    }
}

#[test]
fn a_drained_host_leaves_while_its_service_answers_on() {
    if met(NEEDS) {
        stories::a_drained_host_leaves_while_its_service_answers_on::<Bird>();
    }
}

#[test]
fn a_killed_agent_leaves_and_its_next_life_comes_back() {
    if met(NEEDS) {
        stories::a_killed_agent_leaves_and_its_next_life_comes_back::<Bird>();
    }
}

#[test]
fn a_restarted_router_learns_everything_again() {
    if met(NEEDS) {
        stories::a_restarted_router_learns_everything_again::<Bird>();
    }
}

#[test]
fn a_session_over_ipv6_carries_both_families() {
    if met(NEEDS) {
        stories::a_session_over_ipv6_carries_both_families::<Bird>();
    }
}

#[test]
fn a_passive_host_is_called_by_its_router() {
    if met(CUTTING) {
        stories::a_passive_host_is_called_by_its_router::<Bird>();
    }
}

#[test]
fn of_two_connections_one_stays_when_our_identifier_is_the_smaller() {
    if met(CUTTING) {
        stories::of_two_connections_one_stays::<Bird>("10.1.1.2");
    }
}

#[test]
fn of_two_connections_one_stays_when_our_identifier_is_the_greater() {
    if met(CUTTING) {
        stories::of_two_connections_one_stays::<Bird>("10.200.0.1");
    }
}

#[test]
fn either_session_carries_traffic_of_both_families() {
    if met(NEEDS) {
        stories::either_session_carries_traffic_of_both_families::<Bird>();
    }
}

#[test]
fn a_link_without_ipv4_carries_ipv4() {
    if met(NEEDS) {
        stories::a_link_without_ipv4_carries_ipv4::<Bird>();
    }
}

#[test]
fn a_router_that_takes_no_ipv6_next_hop_is_named() {
    if met(NEEDS) {
        stories::a_router_that_takes_no_ipv6_next_hop_is_named::<Bird>();
    }
}

/// BIRD honours graceful shutdown only where its filter says so.
const GRACEFUL: (&str, &str) = (
    "ipv4 { import all;",
    "ipv4 { import filter { if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; };",
);

const WORDS: Words = Words {
    normal: &[
        "BGP.as_path: 65001\n",
        "BGP.med: 10\n",
        "BGP.community: (65001,100)\n",
        "BGP.large_community: (65001, 1, 2)",
        "BGP.ext_community: (rt, 65001, 7)",
    ],
    depreferenced: &["BGP.as_path: 65001 65001 65001 65001\n", "BGP.med: 1000\n", "(65001,100)"],
    draining: &["BGP.community: (65001,100) (65535,0)", "BGP.local_pref: 0\n", "BGP.med: 10\n"],
};

#[test]
fn each_state_is_told_and_replaces_the_one_before() {
    if met(NEEDS) {
        policy::each_state_is_told_and_replaces_the_one_before::<Bird>(&[GRACEFUL], &WORDS);
    }
}

#[test]
fn a_covering_prefix_is_told_instead_of_its_vips() {
    if met(NEEDS) {
        policy::a_covering_prefix_is_told_instead_of_its_vips::<Bird>();
    }
}

#[test]
fn words_of_a_shutdown_are_shown_on_both_sides() {
    if met(NEEDS) {
        policy::words_of_a_shutdown_are_shown_on_both_sides::<Bird>(
            |bird, text| {
                bird.ask(&format!("disable host4_1 \"{text}\"")).unwrap();
            },
            Bird::log,
        );
    }
}

#[test]
fn roles_are_agreed_or_refused_and_routes_marked() {
    if met(NEEDS) {
        let role =
            |role: &str| [("  passive on;\n".to_owned(), format!("  passive on;\n  local role {role};\n"))];
        policy::roles_are_agreed_or_refused_and_routes_marked::<Bird>(role, "BGP.otc: 65001");
    }
}

#[test]
fn a_router_without_a_role_is_refused_where_one_is_required() {
    if met(NEEDS) {
        policy::a_router_without_a_role_is_refused_where_one_is_required::<Bird>();
    }
}

#[test]
fn one_router_can_know_us_by_another_as_number() {
    if met(NEEDS) {
        policy::one_router_can_know_us_by_another_as_number::<Bird>("BGP.as_path: 64999\n");
    }
}

#[test]
fn a_key_of_tcp_md5_guards_the_session() {
    if met(NEEDS) {
        let key =
            |key: &str| [("  passive on;\n".to_owned(), format!("  passive on;\n  password \"{key}\";\n"))];
        protection::a_key_of_tcp_md5_guards_the_session::<Bird>(key);
    }
}

#[test]
fn gtsm_is_held_at_both_ends() {
    if met(NEEDS) {
        let line = "  passive on;\n";
        let (secured, afar) = ("  passive on;\n  ttl security on;\n", "  passive on;\n  multihop 5;\n");
        protection::gtsm_is_held_at_both_ends::<Bird>((line, secured), Some((line, afar)));
    }
}

#[test]
fn the_session_comes_from_the_address_that_is_named() {
    if met(NEEDS) {
        protection::the_session_comes_from_the_address_that_is_named::<Bird>();
    }
}

#[test]
fn a_router_that_asks_again_is_answered_and_knows_our_name() {
    if met(NEEDS) {
        policy::a_router_that_asks_again_is_answered_and_knows_our_name::<Bird>(
            |bird| {
                bird.ask("reload in host4_1").unwrap();
            },
            |bird| bird.ask("show protocols all host4_1").unwrap_or_default(),
            &["Enhanced refresh"],
        );
    }
}
