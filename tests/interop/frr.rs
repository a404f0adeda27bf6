//! With FRR (bgpd and zebra) as the upstream router.

use anyvip_tests::{Frr, Need, met};

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
