use proptest::prelude::*;

use super::*;
use crate::change::{Outcome, expected};
use crate::resilient::Timers;

/// An even sample of hashes, as good as many random flows.
fn hashes() -> Vec<u32> {
    (0..40_000_u32).map(|number| (crate::sip::mix(u64::from(number)) >> 33) as u32).collect()
}

fn without(members: &[Member], id: u32) -> Vec<Member> {
    members.iter().copied().filter(|member| member.id != id).collect()
}

fn all(members: &[Member]) -> Vec<(&'static str, Box<dyn Design>)> {
    let idle_at_once = Timers { idle: std::time::Duration::ZERO, ..Timers::default() };
    vec![
        ("routes", Box::new(Routes::new(members))),
        ("resilient", Box::new(Resilient::new(Time::ZERO, 1024, members, idle_at_once).unwrap())),
        ("slots", Box::new(Slots::new(1024, members))),
        ("maglev", Box::new(Maglev::new(65_537, members))),
        ("rendezvous", Box::new(Rendezvous::new(members))),
        ("modulo", Box::new(Modulo::new(members))),
        ("spray", Box::new(Spray::new(members))),
    ]
}

/// What each design does to 8 members: (leaving of number 3, joining of a ninth), in percent of the flows of those that stay.
#[test]
fn a_change_moves_as_many_flows_as_the_design_promises() {
    let members = Member::equal(8);
    let hashes = hashes();
    for (name, mut design) in all(&members) {
        let count = |design: &mut Box<dyn Design>, to: &[Member], at: u64| {
            let before = design.pick_all(Time::from_secs(at), &hashes);
            design.set(Time::from_secs(at + 10), to);
            let after = design.pick_all(Time::from_secs(at + 10), &hashes);
            Outcome::count(&before, &after, |id| to.iter().any(|member| member.id == id)).moved.percent()
        };
        let leaving = count(&mut design, &without(&members, 3), 1);
        design.set(Time::from_secs(20), &members);
        let joining = count(&mut design, &Member::equal(9), 30);
        let (least, most) = match name {
            "routes" => ((17.4, 19.4), (48.5, 51.5)),
            "resilient" | "slots" => ((0.0, 0.0), (10.0, 12.2)),
            "rendezvous" => ((0.0, 0.0), (10.0, 12.2)),
            // Maglev moves a little more than it must.
            "maglev" => ((0.0, 5.0), (10.0, 16.0)),
            "modulo" | "spray" => ((80.0, 90.0), (80.0, 92.0)),
            _ => unreachable!(),
        };
        assert!((least.0..=least.1).contains(&leaving), "{name}: {leaving} % by leaving");
        assert!((most.0..=most.1).contains(&joining), "{name}: {joining} % by joining");
    }
}

#[test]
fn loads_follow_weights_in_every_design() {
    let members = Member::weighted(&[1, 2, 5]);
    let hashes = hashes();
    for (name, mut design) in all(&members) {
        let picks = design.pick_all(Time::ZERO, &hashes);
        for (member, share) in [(0, 0.125), (1, 0.25), (2, 0.625)] {
            let count = picks.iter().filter(|pick| **pick == Some(member)).count();
            let measured = count as f64 / hashes.len() as f64;
            assert!((measured - share).abs() < 0.01, "{name}: member {member} has {measured}");
        }
    }
}

#[test]
fn a_design_without_members_says_so_and_takes_new_ones() {
    for (name, mut design) in all(&Member::equal(2)) {
        if name == "resilient" {
            continue;
        }
        design.set(Time::ZERO, &[]);
        assert_eq!(design.pick(Time::ZERO, 5), None, "{name}");
        assert_eq!(design.table(), None, "{name}");
        design.set(Time::ZERO, &[Member { id: 4, weight: 1 }, Member { id: 5, weight: 0 }]);
        assert_eq!(design.pick(Time::ZERO, 5), Some(4), "{name}");
    }
}

#[test]
fn maglev_takes_a_prime_and_depends_on_the_members_alone() {
    let members = Member::equal(5);
    assert_eq!(Maglev::new(1000, &members).size(), 1009);
    let mut reversed = members.clone();
    reversed.reverse();
    let mut with_history = Maglev::new(1000, &Member::equal(9));
    with_history.set(Time::ZERO, &reversed);
    assert_eq!(with_history, Maglev::new(1000, &members));
    let table = match with_history.table() {
        Some(Table::Places(places)) => places,
        other => panic!("{other:?}"),
    };
    for id in 0..5 {
        let count = table.iter().filter(|place| **place == id).count();
        assert!((201..=202).contains(&count), "{id} has {count}");
    }
}

#[test]
fn spray_takes_turns() {
    let mut spray = Spray::new(&Member::weighted(&[1, 2]));
    let turns: Vec<_> = (0..6).map(|_| spray.pick(Time::ZERO, 7)).collect();
    assert_eq!(turns, [0, 1, 1, 0, 1, 1].map(Some));
}

proptest! {
    #[test]
    fn slots_of_equal_members_lose_nothing_by_leaving_and_no_more_than_the_newcomers_by_joining(
        size in 1_u16..300,
        count in 2_u32..40,
        leaver in any::<prop::sample::Index>(),
    ) {
        let members = Member::equal(count);
        let mut slots = Slots::new(size, &members);
        let before = slots.clone();
        let leaver = leaver.index(count as usize) as u32;
        slots.set(Time::ZERO, &without(&members, leaver));
        prop_assert_eq!(slots.slots().len(), usize::from(size));
        for (old, new) in before.slots().iter().zip(slots.slots()) {
            prop_assert!(*old == leaver || old == new);
        }
        let apart = slots.clone();
        slots.set(Time::ZERO, &members);
        let moved = apart.slots().iter().zip(slots.slots()).filter(|(old, new)| old != new).count();
        let its_own = slots.slots().iter().filter(|slot| **slot == leaver).count();
        prop_assert_eq!(moved, its_own);
        let share = usize::from(size) / count as usize;
        for member in &members {
            let has = slots.slots().iter().filter(|slot| **slot == member.id).count();
            prop_assert!(has == share || has == share + 1, "{} has {has} of {size}", member.id);
        }
    }

    #[test]
    fn rendezvous_moves_only_what_it_must(count in 2_u32..20, leaver in any::<prop::sample::Index>(), hash in 0_u32..1 << 31) {
        let members = Member::equal(count);
        let leaver = leaver.index(count as usize) as u32;
        let before = Rendezvous::new(&members).pick(Time::ZERO, hash);
        let after = Rendezvous::new(&without(&members, leaver)).pick(Time::ZERO, hash);
        prop_assert!(before == after || before == Some(leaver));
    }

    #[test]
    fn tables_cover_all_hashes_and_agree_with_picks(
        weights in prop::collection::vec(1_u16..20, 1..12),
        hash in 0_u32..1 << 31,
    ) {
        let members = Member::weighted(&weights);
        for (name, mut design) in all(&members) {
            let picked = design.pick(Time::ZERO, hash);
            let owner = match design.table() {
                Some(Table::Regions(regions)) => {
                    prop_assert_eq!(regions.last().map(|region| region.0), Some((1_u32 << 31) - 1));
                    regions.iter().find(|(bound, _)| hash <= *bound).map(|region| region.1)
                }
                Some(Table::Places(places)) => places.get(hash as usize % places.len()).copied(),
                None => continue,
            };
            prop_assert_eq!(picked, owner, "{}", name);
            let table = design.table().unwrap();
            prop_assert_eq!(expected(&table, &table, |_| true).map(|share| share.part), Some(0));
        }
    }
}
