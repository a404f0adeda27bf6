//! One program takes the place of another, and the peer notices nothing; or it has noticed, and that is no failure of the path.

use anyvip_bfd::wire::{AuthenticationKind, State};
use anyvip_bfd::{Authentication, Cause, Fact, Secret, SessionConfig};

use crate::world::{World, ms, name};

/// Up, and the peer has agreed to wait for three seconds.
fn patient(seed: u64, of: impl Fn(usize, &mut SessionConfig)) -> World {
    let mut world = World::up(seed, of);
    world.change(0, |config| config.desired_min_tx = ms(1000));
    world.run(ms(1500));
    assert_eq!(world.hosts[1].changes, []);
    world
}

fn detection(world: &World, host: usize) -> Option<std::time::Duration> {
    world.hosts[host].table.session(&name()).unwrap().detection
}

#[test]
fn the_peer_of_a_session_that_is_taken_over_notices_nothing_and_the_old_pace_comes_back() {
    let mut world = patient(1, |_, _| {});
    assert_eq!(detection(&world, 1), Some(ms(3000)));
    world.replace(0, ms(2000), |config| config.desired_min_tx = ms(50));
    assert_eq!(world.state(0), State::Up, "at once");
    assert_eq!(world.last_change(0), (State::Down, State::Up, Cause::TakenOver));
    world.run(ms(5000));
    assert_eq!(world.hosts[1].changes, []);
    assert_eq!(world.hosts[0].changes.len(), 1);
    assert_eq!([0, 1].map(|host| detection(&world, host)), [Some(ms(150)); 2]);
    // From here on it is a session as any other.
    world.cut[0] = true;
    world.run_until(ms(200), |world| world.state(0) == State::Down);
    assert_eq!(world.last_change(0).2, Cause::DetectionTimeExpired);
    assert!(world.hosts[0].changes.last().unwrap().1.is_failure());
}

#[test]
fn it_goes_on_with_every_kind_of_authentication() {
    let kinds = [
        AuthenticationKind::SimplePassword,
        AuthenticationKind::KeyedMd5,
        AuthenticationKind::MeticulousKeyedMd5,
        AuthenticationKind::KeyedSha1,
        AuthenticationKind::MeticulousKeyedSha1,
    ];
    for (seed, kind) in kinds.into_iter().enumerate() {
        let key = || Secret::new("s3cret");
        let mut world = patient(seed as u64, |_, config| {
            config.authentication = Some(Authentication { kind, key_id: 7, key: key() });
        });
        let handed = serde_json::to_string(&world.hosts[0].table.hand_over()).unwrap();
        assert!(!handed.contains("s3cret"), "{handed}");
        // A packet more than what was handed over.
        world.replace_late(0, ms(1000), ms(800), |config| config.desired_min_tx = ms(50));
        world.run(ms(5000));
        assert_eq!(world.hosts[1].changes, [], "{kind:?}");
        assert_eq!(world.states(), [State::Up; 2], "{kind:?}");
        assert_eq!(detection(&world, 1), Some(ms(150)), "{kind:?}");
    }
}

/// A router may end its BFD session with the BGP session, or lose patience.
#[test]
fn a_peer_that_has_given_up_meanwhile_is_no_failure_of_the_path() {
    let mut world = World::up(9, |_, _| {});
    world.replace(0, ms(2000), |_| {});
    world.run(ms(5000));
    assert_eq!(world.hosts[1].changes.first().unwrap().1.cause, Cause::DetectionTimeExpired);
    let changes: Vec<_> = world.hosts[0].changes.iter().map(|(_, change)| change.clone()).collect();
    assert_eq!((changes[0].cause, changes[1].cause), (Cause::TakenOver, Cause::NotTakenOver));
    assert!(changes.iter().all(|change| !change.is_failure()), "{changes:?}");
    assert_eq!(world.states(), [State::Up; 2]);
    // One that has gone for good is none either.
    let mut world = patient(10, |_, _| {});
    world.replace(0, ms(100), |_| {});
    world.cut[0] = true;
    world.run(ms(4000));
    assert_eq!(world.last_change(0), (State::Up, State::Down, Cause::NotTakenOver));
}

#[test]
fn only_a_session_of_the_same_path_that_carries_no_health_goes_on() {
    let world = World::up(11, |host, config| config.carries_health = host == 0);
    assert!(world.hosts[0].table.hand_over().is_empty());
    assert_eq!(world.hosts[1].table.hand_over().len(), 1);
    let mut world = patient(12, |_, _| {});
    world.replace(0, ms(100), |config| config.path.local = Some("10.0.0.1".parse().unwrap()));
    assert_eq!(world.state(0), State::Down);
    let mut world = World::pair(13, |_, _| {});
    assert!(world.hosts[0].table.hand_over().is_empty(), "what is not Up has nothing to go on with");
    world.run(ms(5000));
    assert_eq!(world.hosts[0].table.hand_over().len(), 1);
    let told = |fact: &&Fact| matches!(fact, Fact::Discarded { .. });
    assert_eq!(world.hosts[0].others.iter().filter(told).count(), 0);
}
