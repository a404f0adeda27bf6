//! Whole tables of resilient groups, through members that leave, return, join and change their weights.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyvip_ecmp::{Flow, Hasher, Member, Policy, Resilient, Timers};
use anyvip_io::netlink::ResilientTable;
use anyvip_machine::Time;
use anyvip_tests::{LONG, wait_until};

use crate::packets::Dice;
use crate::world::{Install, World, possible};

/// A group in the kernel and its twin, which are told the same things at the same time.
struct Pair {
    world: World,
    twin: Resilient,
    table: ResilientTable,
    begin: Instant,
    hasher: Hasher,
    /// A flow for every bucket.
    flows: BTreeMap<u32, Flow>,
    compared: usize,
}

impl Pair {
    fn new(table: ResilientTable, members: &[Member]) -> Pair {
        let world = World::new();
        let hasher = world.hash(4242, Policy::FIVE_TUPLE);
        world.install(Install::Resilient(table), true, members);
        let timers = Timers { idle: table.idle, unbalanced: table.unbalanced, ..Timers::default() };
        let twin = Resilient::new(Time::ZERO, table.buckets, members, timers).unwrap();
        let mut dice = Dice(11);
        let mut flows = BTreeMap::new();
        while flows.len() < table.buckets.into() {
            let flow = dice.flow(true);
            flows.insert(hasher.lookup(&flow) % u32::from(table.buckets), flow);
        }
        Pair { world, twin, table, begin: Instant::now(), hasher, flows, compared: 0 }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.begin.elapsed()
    }

    /// Waits until use is later than every move by more than a tick, so that it counts as use.
    fn let_ticks_pass(&self) {
        wait_until(LONG, || {
            let fresh =
                self.world.buckets().iter().filter(|(_, idle)| *idle < Duration::from_millis(30)).count();
            if fresh == 0 { Ok(()) } else { Err(format!("{fresh} buckets moved or were used just now")) }
        });
    }

    /// Uses the buckets for which `busy` holds.
    fn use_buckets(&mut self, busy: impl Fn(u32) -> bool) {
        self.let_ticks_pass();
        let now = self.now();
        let flows: Vec<Flow> =
            self.flows.iter().filter(|(bucket, _)| busy(**bucket)).map(|one| *one.1).collect();
        for (flow, server) in flows.iter().zip(self.world.ask(&flows)) {
            assert_eq!(self.twin.pick(now, self.hasher.lookup(flow)), server);
        }
    }

    fn replace(&mut self, members: &[Member]) {
        self.world.replace(Install::Resilient(self.table), true, members);
        let now = self.now();
        self.twin.replace(now, members, None).unwrap();
    }

    fn delete(&mut self, member: u32) {
        self.world.delete_member(true, member);
        let now = self.now();
        assert!(self.twin.remove(now, member));
    }

    fn tables(&self) -> (Vec<u32>, Vec<u32>) {
        let twin = self.twin.buckets().iter().map(|bucket| bucket.member).collect();
        (self.world.buckets().iter().map(|(member, _)| *member).collect(), twin)
    }

    #[track_caller]
    fn equal(&mut self, what: &str) {
        let (kernel, twin) = self.tables();
        assert_eq!(kernel, twin, "{what}");
        self.compared += kernel.len();
    }
}

fn table(buckets: u16, idle: u64, unbalanced: u64) -> ResilientTable {
    ResilientTable { buckets, idle: Duration::from_secs(idle), unbalanced: Duration::from_secs(unbalanced) }
}

fn without(members: &[Member], gone: u32) -> Vec<Member> {
    members.iter().copied().filter(|member| member.id != gone).collect()
}

#[test]
fn the_whole_table_is_the_twins_through_leaving_and_returning() {
    if !possible() {
        return;
    }
    let mut compared = 0;
    for (buckets, idle) in [(128, 0), (128, 120), (1000, 0), (1000, 120)] {
        let all = Member::equal(8);
        let mut pair = Pair::new(table(buckets, idle, 0), &all);
        pair.equal("new");
        for gone in [0, 3, 7] {
            pair.use_buckets(|_| true);
            pair.replace(&without(&all, gone));
            pair.equal("one left by a replace");
            pair.use_buckets(|_| true);
            pair.replace(&all);
            pair.equal("it is back");
        }
        // By now, with busy buckets, the last one back has nothing. Leaving through its object is the same.
        pair.delete(5);
        pair.equal("one left by its object");
        pair.delete(1);
        pair.equal("and another");
        pair.replace(&Member::weighted(&[1, 1, 1, 1, 1, 1, 1, 9]));
        pair.equal("all back, with weights");
        pair.let_ticks_pass();
        pair.replace(&Member::weighted(&[8, 1, 1, 1, 1, 1, 1, 1]));
        pair.equal("other weights");
        compared += pair.compared;
    }
    println!("{compared} buckets, all equal");
}

#[test]
fn a_newcomer_gets_the_buckets_that_nobody_uses() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(table(200, 3600, 0), &Member::equal(5));
    pair.use_buckets(|bucket| bucket % 7 != 0);
    pair.replace(&Member::equal(8));
    pair.equal("some had moved, and the others are busy");
    assert!(!pair.twin.balanced());
    // Those that moved are idle again, until they are used.
    pair.use_buckets(|bucket| bucket % 2 == 0);
    pair.replace(&Member::weighted(&[1, 1, 1, 1, 1, 5, 1, 1]));
    pair.equal("weights");
}

#[test]
fn a_table_out_of_balance_for_too_long_is_balanced_by_force_to_the_twins_last_bucket() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(table(128, 3600, 1), &Member::equal(7));
    pair.use_buckets(|_| true);
    pair.replace(&Member::equal(8));
    // A second is long enough to look once; where the machine was too slow, the twin knows it.
    pair.equal("all are busy");
    let end = pair.now() + Duration::from_secs(3);
    pair.twin.advance(end);
    assert!(pair.twin.balanced());
    wait_until(LONG, || {
        let (kernel, twin) = pair.tables();
        if kernel == twin { Ok(()) } else { Err("the kernel has not moved all yet".to_owned()) }
    });
}

#[test]
fn buckets_that_fall_idle_go_to_the_newcomer_as_in_the_twin() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(table(128, 2, 0), &Member::equal(7));
    pair.use_buckets(|_| true);
    pair.replace(&Member::equal(8));
    pair.equal("all are busy");
    let end = pair.now() + Duration::from_secs(10);
    pair.twin.advance(end);
    assert!(pair.twin.balanced());
    wait_until(LONG, || {
        let (kernel, twin) = pair.tables();
        if kernel == twin { Ok(()) } else { Err("the kernel has not moved all yet".to_owned()) }
    });
}

/// The twin of a router (`router::Fib`) knows it; a table by itself cannot.
#[test]
fn ipv4_does_not_look_into_a_group_of_one_and_no_bucket_counts_as_used() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(table(128, 3600, 0), &Member::equal(2));
    pair.use_buckets(|_| true);
    pair.replace(&[Member { id: 0, weight: 1 }]);
    pair.equal("the other one left");
    pair.let_ticks_pass();
    let flows: Vec<Flow> = pair.flows.values().copied().collect();
    assert!(pair.world.ask(&flows).iter().all(|server| *server == 0));
    pair.replace(&Member::equal(2));
    pair.equal("what came from the other was not used since, and goes back");
    assert_eq!(pair.tables().0.iter().filter(|member| **member == 1).count(), 64);
}
