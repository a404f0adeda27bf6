use anyvip_bfd::{Authentication, AuthenticationKind, Discard, Secret, SessionConfig, State};

use crate::world::{World, ms};

fn key(kind: AuthenticationKind, key: &str) -> Option<Authentication> {
    Some(Authentication { kind, key_id: 3, key: Secret::new(key) })
}

fn both(kind: AuthenticationKind) -> impl Fn(usize, &mut SessionConfig) {
    move |_, config| config.authentication = key(kind, "s3cret")
}

/// RFC 5880 §6.7
#[test]
fn authenticated_sessions_come_up_survive_loss_and_come_back() {
    for kind in AuthenticationKind::ALL {
        let mut world = World::up(1, |host, config| {
            both(kind)(host, config);
            config.multiplier = 6;
        });
        world.loss = 50;
        world.run(ms(30_000));
        assert!(world.hosts.iter().all(|host| host.changes.is_empty() && host.discards.is_empty()), "{kind}");
        world.loss = 0;
        // Long enough for both ends to forget sequence numbers: one goes on counting, the other waits.
        world.cut = [true, true];
        world.run(ms(60_000));
        assert_eq!(world.states(), [State::Down, State::Down], "{kind}");
        world.cut = [false, false];
        world.run_until(ms(5000), |world| world.states() == [State::Up, State::Up]);
    }
}

#[test]
fn another_key_or_none_never_comes_up_and_is_told() {
    for kind in AuthenticationKind::ALL {
        for theirs in [key(kind, "S3cret"), None] {
            let mut world = World::pair(2, |host, config| {
                config.authentication = if host == 0 { key(kind, "s3cret") } else { theirs.clone() };
            });
            world.run(ms(10_000));
            assert_eq!(world.states(), [State::Down, State::Down], "{kind}");
            let expected = match theirs {
                Some(_) => (Discard::Key, Discard::Key),
                None => (Discard::AuthenticationMissing, Discard::AuthenticationUnexpected),
            };
            let told =
                |host: usize| world.hosts[host].discards.iter().map(|(_, why)| *why).collect::<Vec<_>>();
            assert_eq!((told(0), told(1)), (vec![expected.0], vec![expected.1]), "{kind}");
        }
    }
}

/// RFC 5880 §6.7.3
#[test]
fn a_replayed_meticulous_packet_is_not_heard_and_a_keyed_one_only_as_long_as_nothing_newer_came() {
    for kind in [AuthenticationKind::MeticulousKeyedMd5, AuthenticationKind::MeticulousKeyedSha1] {
        let mut world = World::up(3, both(kind));
        world.run(ms(1000));
        let recorded = world.hosts[1].sent.last().unwrap().2.clone();
        world.hosts[1].stopped = true;
        // The peer is dead; playing its last packet again does not make it live.
        let mut alive = 0;
        while world.state(0) == State::Up && alive < 100 {
            world.run(ms(10));
            world.forge(0, recorded.clone());
            alive += 1;
        }
        assert!(alive <= 16, "{kind}: {alive}");
        assert!(matches!(world.hosts[0].discards[0].1, Discard::Sequence { .. }));
    }
    // Two moments of an authenticated session, the older one played after the newer one.
    let mut world = World::pair(4, both(AuthenticationKind::KeyedSha1));
    world.run(ms(3000));
    let oldest = world.hosts[1].sent[0].2.clone();
    world.forge(0, oldest);
    assert!(matches!(world.hosts[0].discards[0].1, Discard::Sequence { .. }));
    assert_eq!(world.states(), [State::Up, State::Up]);
}

#[test]
fn a_new_key_on_both_ends_within_the_detection_time_keeps_the_session() {
    let kind = AuthenticationKind::MeticulousKeyedSha1;
    let mut world = World::up(5, both(kind));
    world.change(0, |config| config.authentication = key(kind, "new"));
    world.run(ms(60));
    world.change(1, |config| config.authentication = key(kind, "new"));
    world.run(ms(10_000));
    assert_eq!(world.states(), [State::Up, State::Up]);
    assert!(world.hosts.iter().all(|host| host.changes.is_empty()));
}
