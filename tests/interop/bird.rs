//! With BIRD 2 as the upstream router.

use anyvip_tests::{Bird, Need, met};

use crate::stories;

const NEEDS: &[Need] = &[Need::Root, Need::Bird];

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
