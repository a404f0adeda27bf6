//! Every packet we know, damaged in seeded ways: no panic, what is read is read wholly, and a session that is Up survives all
//! that is not a packet of its peer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "fixtures are files")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_bfd::boundary::Path;
use anyvip_bfd::wire::ControlPacket;
use anyvip_bfd::{
    Action, Arrival, Authentication, AuthenticationKind, Event, Hops, Role, Secret, SessionConfig,
    SessionTable, State, Wish,
};
use anyvip_machine::{Seed, Time};

mod fixtures;

const CASES: u64 = 200_000;

#[test]
fn a_damaged_packet_is_refused_or_read_wholly() {
    let whole: Vec<Vec<u8>> = fixtures::all().into_iter().flat_map(|fixture| fixture.packets).collect();
    let (mut read, mut refused) = (0, 0);
    for case in 0..CASES {
        let mut seed = Seed::new(case);
        let bytes = damaged(&whole, &mut seed);
        match ControlPacket::decode(&bytes) {
            Ok(packet) => {
                read += 1;
                let again = packet.encode();
                assert_eq!(ControlPacket::decode(&again).as_ref(), Ok(&packet), "case {case}");
                assert!(again.len() <= bytes.len(), "case {case}");
            }
            Err(_) => refused += 1,
        }
    }
    // The damage must be neither so mild nor so harsh that one of the two ways is never gone.
    assert!(read > 20_000 && refused > 20_000, "{read} {refused}");
}

/// With authentication, nothing but the peer's own packets has any effect, whatever is done to them.
#[test]
fn an_authenticated_session_is_moved_by_no_damaged_packet() {
    let (mut ours, mut theirs) = (Seed::new(1), Seed::new(2));
    let mut now = Time::from_secs(1);
    let mut tables = [SessionTable::new(ours.child("x")), SessionTable::new(theirs.child("y"))];
    ours.bits();
    theirs.bits();
    let mut recorded: Vec<Vec<u8>> = Vec::new();
    let mut inbox: Vec<(usize, Vec<u8>)> = Vec::new();
    for (host, table) in tables.iter_mut().enumerate() {
        inbox.extend(sends(table.handle(now, wanted(1 - host))).map(|bytes| (1 - host, bytes)));
    }
    for _ in 0..200 {
        for (to, bytes) in std::mem::take(&mut inbox) {
            if to == 0 {
                recorded.push(bytes.clone());
            }
            let actions = tables[to].handle(now, received(to, bytes));
            inbox.extend(sends(actions).map(|bytes| (1 - to, bytes)));
        }
        now += Duration::from_millis(10);
        for (host, table) in tables.iter_mut().enumerate() {
            if table.next_deadline().is_some_and(|due| due <= now) {
                let actions = table.handle(now, Event::DeadlineReached);
                inbox.extend(sends(actions).map(|bytes| (1 - host, bytes)));
            }
        }
    }
    let state = |table: &SessionTable| table.session(&"peer".into()).unwrap().state;
    assert_eq!(state(&tables[0]), State::Up);
    let due = tables[0].next_deadline();
    for case in 0..CASES / 4 {
        let mut seed = Seed::new(case);
        let mut bytes = damaged(&recorded, &mut seed);
        // One octet behind the end changes nothing, so let there be a change within.
        bytes.truncate(52);
        if recorded.contains(&bytes) {
            continue;
        }
        let actions = tables[0].handle(now, received(0, bytes));
        assert!(sends(actions).next().is_none(), "case {case}");
        assert_eq!((state(&tables[0]), tables[0].next_deadline()), (State::Up, due), "case {case}");
    }
}

fn sends(actions: Vec<Action>) -> impl Iterator<Item = Vec<u8>> {
    actions.into_iter().filter_map(|action| match action {
        Action::Send { bytes, .. } => Some(bytes),
        _ => None,
    })
}

fn received(to: usize, bytes: Vec<u8>) -> Event {
    let address = |host: usize| format!("10.0.0.{host}").parse().unwrap();
    let arrival = Arrival {
        remote: address(1 - to),
        local: address(to),
        interface: None,
        ttl: Some(255),
        multihop: false,
    };
    Event::Received { arrival, bytes }
}

fn wanted(remote: usize) -> Event {
    let path = Path {
        remote: format!("10.0.0.{remote}").parse().unwrap(),
        local: None,
        interface: None,
        hops: Hops::Single,
    };
    let config = SessionConfig {
        path,
        role: Role::Active,
        wish: Wish::Up,
        carries_health: false,
        desired_min_tx: Duration::from_millis(50),
        required_min_rx: Duration::from_millis(50),
        multiplier: 3,
        authentication: Some(Authentication {
            kind: AuthenticationKind::MeticulousKeyedSha1,
            key_id: 1,
            key: Secret::new("k"),
        }),
    };
    Event::Wanted { sessions: BTreeMap::from([("peer".into(), config)]), lease: None }
}

fn damaged(whole: &[Vec<u8>], seed: &mut Seed) -> Vec<u8> {
    let mut bytes = pick(whole, seed).clone();
    for _ in 0..=seed.below(3) {
        let at = index(bytes.len(), seed);
        match seed.below(7) {
            0 | 1 => bytes[at] ^= 1 << seed.below(8),
            2 => {
                bytes[at] =
                    *pick(&[0, 1, 2, 3, 5, 16, 20, 24, 26, 28, 48, 52, 0x20, 0x40, 0x80, 0xc0, 255], seed)
            }
            3 => bytes[at] = bytes[at].wrapping_add(*pick(&[1, 2, 4, 255, 254], seed)),
            4 => bytes.truncate(at.max(1)),
            5 => bytes.insert(at, u8::try_from(seed.below(256)).unwrap()),
            _ => {
                let other = pick(whole, seed);
                bytes.extend_from_slice(&other[index(other.len(), seed)..]);
            }
        }
    }
    // Often the length field is put right again, so that the damage is met further in.
    if bytes.len() > 3 && seed.chance(500) {
        bytes[3] = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    }
    bytes
}

fn index(length: usize, seed: &mut Seed) -> usize {
    usize::try_from(seed.below(u64::try_from(length).unwrap())).unwrap()
}

fn pick<'a, T>(from: &'a [T], seed: &mut Seed) -> &'a T {
    &from[index(from.len(), seed)]
}
