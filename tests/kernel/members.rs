//! Members that are not well, and the share of flows that a change moves.

use anyvip_ecmp::change::{Outcome, moved_by_joining, moved_by_leaving};
use anyvip_ecmp::design::Routes;
use anyvip_ecmp::{Design, Flow, Hasher, Member, MemberState, Policy, Threshold};
use anyvip_machine::Time;
use anyvip_tests::{LONG, wait_until};

use crate::packets::Dice;
use crate::world::{Install, SERVERS, World, gateway, possible, services};

fn flows(ipv4: bool, count: usize) -> Vec<Flow> {
    let mut dice = Dice(9);
    (0..count).map(|_| dice.flow(ipv4)).collect()
}

#[track_caller]
fn equal(world: &World, hasher: &Hasher, ipv4: bool, states: [MemberState; SERVERS as usize], what: &str) {
    let weights = [1, 2, 3, 1, 2, 3, 1, 2];
    let table = Threshold::with_states(weights.into_iter().zip(states)).unwrap();
    let flows = flows(ipv4, 2000);
    for (flow, server) in flows.iter().zip(world.ask(&flows)) {
        assert_eq!(table.pick(hasher.lookup(flow)), server as usize, "{what}: {flow:?}");
    }
}

fn members() -> Vec<Member> {
    Member::weighted(&[1, 2, 3, 1, 2, 3, 1, 2])
}

#[test]
fn flows_of_a_neighbour_that_does_not_answer_go_to_the_next_in_a_group_and_stay_in_a_plain_route() {
    if !possible() {
        return;
    }
    let world = World::new();
    let hasher = world.hash(77, Policy::FIVE_TUPLE);
    for ipv4 in [true, false] {
        for failed in [vec![3], vec![7], vec![0, 1, 7], (0..8).collect()] {
            let mut states = [MemberState::Alive; 8];
            for server in failed {
                let device = &world.links[server].name;
                world.ip(&format!(
                    "neighbour replace {} dev {device} nud failed",
                    gateway(ipv4, server as u32)
                ));
                states[server] = MemberState::Failed;
            }
            world.install(Install::Group, ipv4, &members());
            equal(&world, &hasher, ipv4, states, "a group");
            world.install(Install::Plain, ipv4, &members());
            equal(&world, &hasher, ipv4, [MemberState::Alive; 8], "a route");
            if ipv4 {
                world.router.set_sysctl("net.ipv4.fib_multipath_use_neigh", "1").unwrap();
                equal(&world, &hasher, ipv4, states, "a route that looks at neighbours");
                world.router.set_sysctl("net.ipv4.fib_multipath_use_neigh", "0").unwrap();
            }
            for server in 0..SERVERS {
                let (device, gateway) = (&world.links[server as usize].name, gateway(ipv4, server));
                world.ip(&format!(
                    "neighbour replace {gateway} lladdr 02:00:00:00:00:01 dev {device} nud permanent"
                ));
            }
        }
    }
}

#[test]
fn a_link_without_carrier_leaves_a_route_where_the_router_looks_at_links() {
    if !possible() {
        return;
    }
    let world = World::new();
    let hasher = world.hash(77, Policy::FIVE_TUPLE);
    for ipv4 in [true, false] {
        let family = if ipv4 { "ipv4" } else { "ipv6" };
        world.install(Install::Plain, ipv4, &members());
        for server in [2, 7] {
            let ends = [&world.ends[server], &world.links[server]];
            let at_servers = world.servers.run(anyvip_io::netlink::Netlink::open).unwrap().unwrap();
            world.runtime.block_on(at_servers.set_link_down(ends[0].index)).unwrap();
            wait_until(LONG, || {
                let link = world.runtime.block_on(world.netlink.link(&ends[1].name)).unwrap();
                if link.carrier { Err("carrier".to_owned()) } else { Ok(()) }
            });
            equal(&world, &hasher, ipv4, [MemberState::Alive; 8], "links are not looked at");
            let key = |name: &str| format!("net/{family}/conf/{name}/ignore_routes_with_linkdown");
            for name in ["all", &ends[1].name] {
                world.router.set_sysctl(&key(name), "1").unwrap();
            }
            // Regions are cut when a link or a route changes; an equal route that is there already is no change.
            world.runtime.block_on(world.netlink.delete_route(services(ipv4))).unwrap();
            world.install(Install::Plain, ipv4, &members());
            let mut states = [MemberState::Alive; 8];
            states[server] = MemberState::Dead;
            equal(&world, &hasher, ipv4, states, "a dead link");
            for name in ["all", &ends[1].name] {
                world.router.set_sysctl(&key(name), "0").unwrap();
            }
            world.runtime.block_on(at_servers.set_link_up(ends[0].index)).unwrap();
            wait_until(LONG, || {
                let link = world.runtime.block_on(world.netlink.link(&ends[1].name)).unwrap();
                if link.carrier { Ok(()) } else { Err("no carrier".to_owned()) }
            });
            world.runtime.block_on(world.netlink.delete_route(services(ipv4))).unwrap();
            world.install(Install::Plain, ipv4, &members());
            equal(&world, &hasher, ipv4, [MemberState::Alive; 8], "all links are back");
        }
    }
}

#[test]
fn the_kernel_moves_as_many_flows_as_the_closed_formula_says() {
    if !possible() {
        return;
    }
    const FLOWS: usize = 20_000;
    let world = World::new();
    let hasher = world.hash(4242, Policy::FIVE_TUPLE);
    let flows = flows(true, FLOWS);
    let hashes: Vec<u32> = flows.iter().map(|flow| hasher.lookup(flow)).collect();
    let all = Member::equal(SERVERS);
    let decide = |install, members: &[Member]| {
        world.install(install, true, members);
        let seen: Vec<Option<u32>> = world.ask(&flows).into_iter().map(Some).collect();
        assert_eq!(seen, Routes::new(members).pick_all(Time::ZERO, &hashes), "{members:?}");
        seen
    };
    for install in [Install::Plain, Install::Group] {
        let before = decide(install, &all);
        for position in [0, 3, 6] {
            let mut rest = all.clone();
            rest.remove(position as usize);
            let after = decide(install, &rest);
            let leaving = Outcome::count(&before, &after, |id| id != position).moved.percent();
            let formula = moved_by_leaving(SERVERS, position).percent();
            assert!(
                (leaving - formula).abs() < 1.5,
                "{install:?}: {position} leaves: {leaving} % for {formula} %"
            );
            let joining = Outcome::count(&after, &before, |_| true).moved.percent();
            let formula = moved_by_joining(SERVERS - 1, position).percent();
            assert!(
                (joining - formula).abs() < 1.5,
                "{install:?}: {position} joins: {joining} % for {formula} %"
            );
        }
    }
}
