//! Two ends of a link in virtual time, and one end that hears what it should not.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use anyvip_machine::{Failure, FailureKind, Seed, Time};
use anyvip_nd::wire::{ALL_NODES, ALL_ROUTERS, Message, RouterAdvertisement, RouterSolicitation};
use anyvip_nd::{Action, Advertiser, Discard, Event, Fact, InterfaceName, Link};

fn eth0() -> InterfaceName {
    InterfaceName::from("eth0")
}

fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)
}

fn wanted(index: u32, link_local: Option<Ipv6Addr>) -> Event {
    Event::Wanted { interfaces: [(eth0(), Link { index, link_local })].into() }
}

fn heard(source: Ipv6Addr, message: Message) -> Event {
    Event::Received { interface: eth0(), source, hop_limit: Some(255), bytes: message.encode() }
}

fn advertisement() -> Message {
    Message::Advertisement(RouterAdvertisement::of_a_host())
}

fn solicitation() -> Message {
    Message::Solicitation(RouterSolicitation::default())
}

/// One end with its clock.
struct End {
    now: Time,
    machine: Advertiser,
    /// When what was sent, and to whom.
    sent: Vec<(Time, Ipv6Addr, Message)>,
    facts: Vec<Fact>,
}

impl End {
    fn new(seed: u64) -> End {
        let machine = Advertiser::new(Seed::new(seed));
        End { now: Time::from_secs(1), machine, sent: Vec::new(), facts: Vec::new() }
    }

    fn ready(seed: u64) -> End {
        let mut end = End::new(seed);
        end.take(wanted(2, Some(address(1))));
        end
    }

    fn take(&mut self, event: Event) -> Vec<Action> {
        let actions = self.machine.handle(self.now, event);
        for action in &actions {
            match action {
                Action::Send { destination, bytes, .. } => {
                    self.sent.push((self.now, *destination, Message::decode(bytes).unwrap()));
                }
                Action::Fact(fact) => self.facts.push(fact.clone()),
                Action::Open { .. } | Action::Close { .. } => {}
            }
        }
        actions
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.machine.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.take(Event::DeadlineReached);
            assert!(self.machine.next_deadline().is_none_or(|next| next > self.now), "no progress");
        }
        self.now = end;
    }

    fn times(&self, message: &Message) -> Vec<Time> {
        self.sent.iter().filter(|(.., sent)| sent == message).map(|(at, ..)| *at).collect()
    }
}

/// RFC 4861 §6.2.4: between MinRtrAdvInterval and MaxRtrAdvInterval, not always the same.
#[test]
fn advertisements_begin_at_once_and_come_every_three_to_four_seconds() {
    let mut end = End::ready(1);
    let start = end.now;
    end.run(Duration::from_secs(600));
    let times = end.times(&advertisement());
    assert_eq!(times[0], start);
    assert!(end.sent.iter().all(|(_, to, message)| match message {
        Message::Advertisement(_) => *to == ALL_NODES,
        Message::Solicitation(_) => *to == ALL_ROUTERS,
    }));
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| (Duration::from_secs(3)..=Duration::from_secs(4)).contains(gap)));
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*most - *least > Duration::from_millis(700), "{least:?} {most:?}");
}

/// RFC 4861 §6.3.7, RFC 7559.
#[test]
fn solicitations_grow_rarer_and_end_with_the_first_router() {
    let mut end = End::ready(2);
    let start = end.now;
    end.run(Duration::from_secs(600));
    let times = end.times(&solicitation());
    assert!(times[0].since(start) <= Duration::from_secs(1));
    let gaps: Vec<u128> = times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs().into()).collect();
    assert!((3..=4).contains(&gaps[0]) && (7..=8).contains(&gaps[1]), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 66), "{gaps:?}");
    assert!((54..=66).contains(gaps.last().unwrap()), "{gaps:?}");
    end.take(heard(address(9), advertisement()));
    assert_eq!(end.facts, [Fact::RouterHeard { interface: eth0(), router: address(9) }]);
    end.run(Duration::from_secs(600));
    assert_eq!(end.times(&solicitation()).len(), times.len());
    end.take(heard(address(9), advertisement()));
    assert_eq!(end.facts.len(), 1, "it was known");
    assert_eq!(end.machine.interface(&eth0()).unwrap().routers[0].heard, end.now);
}

/// RFC 4861 §6.2.6.
#[test]
fn a_solicitation_is_answered_soon_and_a_storm_of_them_no_more_than_every_three_seconds() {
    let mut end = End::ready(3);
    end.run(Duration::from_secs(3));
    let before = end.times(&advertisement());
    end.now = before.last().copied().unwrap() + Duration::from_secs(3);
    let asked = end.now;
    end.take(heard(Ipv6Addr::UNSPECIFIED, solicitation()));
    end.run(Duration::from_millis(500));
    let answer = end.times(&advertisement())[before.len()];
    assert!(answer.since(asked) <= Duration::from_millis(500));
    let count = end.times(&advertisement()).len();
    for _ in 0..1000 {
        end.take(heard(address(7), solicitation()));
        end.run(Duration::from_millis(30));
    }
    let times = end.times(&advertisement());
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= Duration::from_secs(3)));
    assert!((8..=11).contains(&(times.len() - count)), "{}", times.len() - count);
}

#[test]
fn a_router_that_is_new_is_told_of_us_at_once() {
    let mut end = End::ready(4);
    end.run(Duration::from_secs(60));
    let last = end.times(&advertisement()).last().copied().unwrap();
    end.now = last + Duration::from_millis(2_900);
    end.take(heard(address(9), advertisement()));
    end.run(Duration::from_secs(1));
    let next = end.times(&advertisement()).into_iter().find(|at| *at > last).unwrap();
    assert!(next.since(last) <= Duration::from_millis(3_400), "{next}");
}

#[test]
fn nothing_leaves_an_interface_that_is_not_ready_and_what_was_heard_before_is_forgotten() {
    let mut end = End::ready(5);
    end.run(Duration::from_secs(10));
    end.take(heard(address(9), advertisement()));
    let sent = end.sent.len();
    end.take(wanted(2, None));
    assert_eq!(end.machine.next_deadline(), None);
    assert_eq!(end.machine.interface(&eth0()).unwrap().routers, []);
    end.take(heard(address(9), advertisement()));
    end.take(heard(address(9), solicitation()));
    end.run(Duration::from_secs(100));
    assert_eq!(end.sent.len(), sent);
    let again = end.now;
    end.take(wanted(2, Some(address(1))));
    end.run(Duration::from_secs(2));
    assert_eq!(end.times(&advertisement()).last(), Some(&again));
    assert!(end.times(&solicitation()).iter().any(|at| *at >= again), "it asks anew");
}

#[test]
fn an_interface_made_anew_is_opened_anew() {
    let mut end = End::new(6);
    let open = |index| Action::Open { interface: eth0(), index };
    assert_eq!(end.take(wanted(2, Some(address(1)))), [open(2)]);
    assert_eq!(end.take(wanted(2, Some(address(3)))), []);
    assert_eq!(end.take(wanted(5, Some(address(1)))), [Action::Close { interface: eth0() }, open(5)]);
    let none = Event::Wanted { interfaces: BTreeMap::new() };
    assert_eq!(end.take(none), [Action::Close { interface: eth0() }]);
    assert_eq!(end.machine.next_deadline(), None);
}

/// RFC 4861 §6.1.1, §6.1.2; each rule is told once a minute and counted always.
#[test]
fn what_did_not_come_from_this_link_or_breaks_a_rule_is_not_heard() {
    let mut end = End::ready(7);
    let with = |source, hop_limit, bytes: &[u8]| Event::Received {
        interface: eth0(),
        source,
        hop_limit,
        bytes: bytes.to_vec(),
    };
    let good = advertisement().encode();
    let asking = solicitation().encode();
    let mut link_layer = asking.clone();
    link_layer.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    let global = "2001:db8::1".parse().unwrap();
    let (mut code, mut option) = (good.clone(), good.clone());
    code[1] = 1;
    option.extend([5, 0, 0, 0, 0, 0, 5, 220]);
    let cases = [
        (with(address(9), Some(254), &good), Discard::NotFromThisLink { hop_limit: Some(254) }),
        (with(address(9), None, &good), Discard::NotFromThisLink { hop_limit: None }),
        (with(address(9), Some(255), &good[..15]), Discard::Length { octets: 15 }),
        (with(address(9), Some(255), &asking[..7]), Discard::Length { octets: 7 }),
        (with(address(9), Some(255), &[]), Discard::Length { octets: 0 }),
        (with(address(9), Some(255), &[135, 0, 0, 0]), Discard::Kind { kind: 135 }),
        (with(address(9), Some(255), &code), Discard::Code { code: 1 }),
        (with(address(9), Some(255), &option), Discard::Option { length: 0, octets: 8 }),
        (with(global, Some(255), &good), Discard::Source),
        (with(Ipv6Addr::UNSPECIFIED, Some(255), &link_layer), Discard::SourceOption),
    ];
    for (number, (event, reason)) in cases.into_iter().enumerate() {
        end.facts.clear();
        // The same rule is news again after a minute.
        end.run(Duration::from_secs(60));
        let Event::Received { source, .. } = &event else { panic!("{event:?}") };
        let fact = Fact::Discarded { interface: eth0(), source: *source, reason };
        end.take(event.clone());
        assert_eq!(end.facts, [fact]);
        end.take(event);
        assert_eq!(end.facts.len(), 1, "{reason}");
        let view = end.machine.interface(&eth0()).unwrap();
        assert_eq!((view.discarded, view.routers.len()), (2 * (number as u64 + 1), 0));
    }
}

#[test]
fn our_own_voice_is_no_router_and_inventors_of_routers_fill_no_memory() {
    let mut end = End::ready(8);
    end.take(heard(address(1), advertisement()));
    assert_eq!(end.facts, []);
    for number in 10..1000 {
        end.run(Duration::from_millis(1));
        end.take(heard(address(number), advertisement()));
    }
    let view = end.machine.interface(&eth0()).unwrap();
    assert_eq!(view.routers.len(), 8);
    assert!(view.routers.iter().any(|router| router.address == address(999)), "the newest is there");
}

#[test]
fn what_cannot_be_sent_is_told_when_it_begins_and_when_it_ends() {
    let mut end = End::ready(9);
    let failure = Failure::new(FailureKind::PermissionDenied, "no raw sockets");
    let done = |result| Event::Done { interface: eth0(), result };
    end.take(done(Ok(())));
    end.take(done(Err(failure.clone())));
    end.take(done(Err(failure.clone())));
    assert_eq!(end.machine.interface(&eth0()).unwrap().trouble, Some(failure.clone()));
    end.take(done(Ok(())));
    let fact = |failure| Fact::CannotSend { interface: eth0(), failure };
    assert_eq!(end.facts, [fact(Some(failure)), fact(None)]);
}

/// Two hosts on one link find each other within a second, whoever comes first.
#[test]
fn two_ends_find_each_other() {
    for seed in 0..50 {
        let mut ends = [End::new(seed), End::new(seed + 1000)];
        ends[0].take(wanted(2, Some(address(1))));
        let mut now = ends[0].now;
        let mut late = true;
        let begun = now + Duration::from_millis(seed * 70);
        while ends.iter().any(|end| end.facts.is_empty()) {
            now += Duration::from_millis(10);
            assert!(now.since(begun) <= Duration::from_secs(5), "seed {seed}");
            for end in &mut ends {
                end.run(now.since(end.now));
            }
            if now >= begun && std::mem::take(&mut late) {
                ends[1].take(wanted(3, Some(address(2))));
            }
            for (from, to) in [(0, 1), (1, 0)] {
                for (_, _, message) in std::mem::take(&mut ends[from].sent) {
                    ends[to].take(heard(address(u16::try_from(from).unwrap() + 1), message));
                }
            }
        }
    }
}

#[test]
fn a_machine_written_down_and_read_again_goes_on_the_same() {
    let mut end = End::ready(10);
    end.run(Duration::from_secs(5));
    end.take(heard(address(9), advertisement()));
    let mut copy: Advertiser = serde_json::from_str(&serde_json::to_string(&end.machine).unwrap()).unwrap();
    for _ in 0..20 {
        let next = end.machine.next_deadline().unwrap();
        assert_eq!(copy.next_deadline(), Some(next));
        assert_eq!(
            copy.handle(next, Event::DeadlineReached),
            end.machine.handle(next, Event::DeadlineReached)
        );
    }
}
