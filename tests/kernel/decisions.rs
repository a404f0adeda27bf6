//! Every policy, every install, weights, both families: lookups and forwarded packets.

use std::time::Duration;

use anyvip_ecmp::design::Routes;
use anyvip_ecmp::{Design, Fields, Flow, Member, Packet, Policy, Resilient, Timers};
use anyvip_io::netlink::ResilientTable;
use anyvip_machine::Time;

use crate::packets::Dice;
use crate::world::{Install, SERVERS, World, possible};

/// Of each kind, in each case.
const EACH: usize = 650;

fn policies() -> Vec<Policy> {
    let masks = [0x37, 0x07, 0x11, 0x30, 0x3f, 0x08, 0xfc0, 0x6f7];
    let custom = masks.map(|mask| Policy::Custom(Fields::new(mask).unwrap()));
    [Policy::Layer3, Policy::Layer4, Policy::InnerLayer3].into_iter().chain(custom).collect()
}

fn resilient(buckets: u16) -> Install {
    Install::Resilient(ResilientTable { buckets, idle: Duration::from_secs(120), unbalanced: Duration::ZERO })
}

fn twin(install: Install, members: &[Member]) -> Box<dyn Design> {
    match install {
        Install::Plain | Install::Group => Box::new(Routes::new(members)),
        Install::Resilient(table) => {
            Box::new(Resilient::new(Time::ZERO, table.buckets, members, Timers::default()).unwrap())
        }
    }
}

fn weights() -> Vec<Vec<Member>> {
    let of = |weights: [u16; SERVERS as usize]| Member::weighted(&weights);
    vec![of([1; 8]), of([3, 1, 1, 1, 1, 1, 1, 1]), of([1, 2, 3, 4, 5, 6, 7, 250])]
}

/// Compares one family; gives the number of decisions.
fn compare(ipv4: bool) -> usize {
    let world = World::new();
    let mut dice = Dice(if ipv4 { 4 } else { 6 });
    let mut decisions = 0;
    for policy in policies() {
        for (number, members) in weights().iter().enumerate() {
            for install in [Install::Plain, Install::Group, resilient(128), resilient(1000)] {
                let seed = [1, 12_345, 0xdead_beef][(number + decisions) % 3];
                let hasher = world.hash(seed, policy);
                world.install(install, ipv4, members);
                let mut twin = twin(install, members);
                let flows: Vec<Flow> = (0..EACH).map(|_| dice.flow(ipv4)).collect();
                let packets: Vec<Packet> = (0..EACH).map(|_| dice.packet(ipv4)).collect();
                for (flow, server) in flows.iter().zip(world.ask(&flows)) {
                    let expected = twin.pick(Time::ZERO, hasher.lookup(flow));
                    assert_eq!(
                        Some(server),
                        expected,
                        "a lookup: {policy:?} {install:?} {members:?} {flow:?}"
                    );
                }
                for (packet, server) in packets.iter().zip(world.send(&packets)) {
                    let expected = twin.pick(Time::ZERO, hasher.forwarded(packet));
                    assert_eq!(
                        Some(server),
                        expected,
                        "a packet: {policy:?} {install:?} {members:?} {packet:?}"
                    );
                }
                decisions += flows.len() + packets.len();
            }
        }
    }
    decisions
}

#[test]
fn every_ipv4_packet_and_lookup_goes_where_the_twin_says() {
    if possible() {
        let decisions = compare(true);
        println!("{decisions} decisions of IPv4, all equal");
        assert!(decisions > 100_000);
    }
}

#[test]
fn every_ipv6_packet_and_lookup_goes_where_the_twin_says() {
    if possible() {
        let decisions = compare(false);
        println!("{decisions} decisions of IPv6, all equal");
        assert!(decisions > 100_000);
    }
}
