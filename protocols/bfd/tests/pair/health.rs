//! Sessions that carry health: held down, and the lease.

use anyvip_bfd::{Cause, Diagnostic, State, Wish};

use crate::world::{World, ms};

fn carrying(seed: u64) -> World {
    World::up(seed, |host, config| config.carries_health = host == 0)
}

/// RFC 5882 §3.2: Down takes a static route away, AdminDown does not.
#[test]
fn a_session_held_down_signals_why_and_follows_nobody_up() {
    let mut world = carrying(1);
    world.change(0, |config| config.wish = Wish::HeldDown(Diagnostic::CONCATENATED_PATH_DOWN));
    world.run_until(ms(2), |world| world.state(1) == State::Down);
    let cause = Cause::NeighborSignaledDown { diagnostic: Diagnostic::CONCATENATED_PATH_DOWN };
    assert_eq!(world.last_change(1), (State::Up, State::Down, cause));
    assert!(world.hosts[1].changes.last().unwrap().1.is_failure());
    assert_eq!(world.last_change(0).2, Cause::HeldDown);
    world.hosts[0].sent.clear();
    world.run(ms(30_000));
    // The peer stays in Init, and is told Down with the reason, never AdminDown, once a second.
    assert_eq!(world.states(), [State::Down, State::Init]);
    let said: Vec<_> =
        world.hosts[0].sent.iter().map(|(_, packet, _)| (packet.state, packet.diagnostic)).collect();
    assert!(said.iter().all(|said| *said == (State::Down, Diagnostic::CONCATENATED_PATH_DOWN)));
    assert!((30..=45).contains(&said.len()), "{}", said.len());
    world.change(0, |config| config.wish = Wish::Up);
    let took = world.run_until(ms(2100), |world| world.states() == [State::Up, State::Up]);
    assert!(took <= ms(1100), "{took:?}");
}

#[test]
fn a_session_that_begins_held_down_was_never_up() {
    let mut world = World::pair(2, |host, config| {
        if host == 0 {
            config.wish = Wish::HeldDown(Diagnostic::CONCATENATED_PATH_DOWN);
        }
    });
    world.run(ms(10_000));
    assert_eq!(world.states(), [State::Down, State::Init]);
    assert!(world.hosts[0].changes.is_empty());
    assert!(world.hosts[0].sent.iter().all(|(_, packet, _)| packet.state == State::Down));
}

#[test]
fn the_end_of_the_lease_takes_down_what_carries_health_and_nothing_else() {
    for carries in [true, false] {
        let mut world = World::up(3, |host, config| config.carries_health = carries && host == 0);
        let lease = world.now + ms(4000);
        world.renew(0, Some(lease));
        world.run(ms(3990));
        assert_eq!(world.states(), [State::Up, State::Up]);
        world.run(ms(20));
        if !carries {
            world.run(ms(60_000));
            assert_eq!(world.states(), [State::Up, State::Up]);
            continue;
        }
        assert_eq!(world.state(0), State::Down);
        assert_eq!(world.last_change(0).2, Cause::LeaseEnded);
        let told = Cause::NeighborSignaledDown { diagnostic: Diagnostic::CONCATENATED_PATH_DOWN };
        assert_eq!(world.last_change(1).2, told);
        world.run(ms(10_000));
        assert_ne!(world.state(0), State::Up);
        // A renewal that was written before its own end and comes after it brings nothing back.
        world.renew(0, Some(world.now - ms(1)));
        world.run(ms(3000));
        assert_ne!(world.state(0), State::Up);
        world.renew(0, Some(world.now + ms(4000)));
        world.run_until(ms(3000), |world| world.states() == [State::Up, State::Up]);
    }
}

#[test]
fn a_lease_renewed_each_second_never_ends() {
    let mut world = carrying(4);
    for _ in 0..60 {
        world.renew(0, Some(world.now + ms(4000)));
        world.run(ms(1000));
    }
    assert!(world.hosts.iter().all(|host| host.changes.is_empty()));
}

#[test]
fn a_session_that_carries_health_says_down_when_it_is_not_wanted_any_more() {
    let mut world = carrying(5);
    world.hosts[0].wanted.clear();
    world.renew(0, None);
    world.run_until(ms(2), |world| world.state(1) == State::Down);
    let cause = Cause::NeighborSignaledDown { diagnostic: Diagnostic::ADMINISTRATIVELY_DOWN };
    assert_eq!(world.last_change(1).2, cause);
    world.run_until(ms(10_001), |world| world.hosts[0].table.is_silent());
    assert!(world.hosts[1].changes.iter().all(|(_, change)| change.to != State::Up));
}

/// Also a flapping health costs no more than one packet a change.
#[test]
fn the_last_of_many_wishes_counts() {
    let mut world = carrying(6);
    for turn in 0..101 {
        let down = Wish::HeldDown(Diagnostic::CONCATENATED_PATH_DOWN);
        world.change(0, |config| config.wish = if turn % 2 == 0 { down } else { Wish::Up });
    }
    world.run(ms(10_000));
    assert_eq!(world.states(), [State::Down, State::Init]);
    world.change(0, |config| config.wish = Wish::Up);
    world.run_until(ms(3000), |world| world.states() == [State::Up, State::Up]);
}
