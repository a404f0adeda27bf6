//! With FRR (bgpd and zebra) as the upstream router.

use anyvip_tests::{Frr, Need, met};

use crate::stories;

const NEEDS: &[Need] = &[Need::Root, Need::Frr];

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
