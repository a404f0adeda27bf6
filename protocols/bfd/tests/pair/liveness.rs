use std::collections::BTreeSet;

use anyvip_bfd::{Cause, Diagnostic, Event, Fact, Role, State, Wish};
use anyvip_machine::{Failure, FailureKind, Time};

use crate::world::{World, config, ms, name};

/// RFC 5880 §6.2: Down, Init, Up; §6.8.7: at most one packet a second until then, and changes are told at once.
#[test]
fn two_active_ends_are_up_as_soon_as_the_second_one_speaks() {
    let mut world = World::new(1);
    world.want(0, name(), config(1));
    world.run(ms(10_300));
    let sent = world.hosts[0].sent.len();
    assert!((10..=14).contains(&sent), "{sent} packets in 10 s without a peer");
    world.want(1, name(), config(0));
    let took = world.run_until(ms(10), |world| world.states() == [State::Up, State::Up]);
    assert!(took <= ms(2), "{took:?}");
    assert_eq!(world.last_change(0).2, Cause::Handshake);
}

/// RFC 5880 §6.1, §6.8.7
#[test]
fn a_passive_end_is_silent_until_it_is_spoken_to() {
    let mut world = World::new(1);
    let passive = |of: usize| anyvip_bfd::SessionConfig { role: Role::Passive, ..config(of) };
    world.want(0, name(), passive(1));
    world.want(1, name(), passive(0));
    world.run(ms(30_000));
    assert_eq!((world.hosts[0].sent.len(), world.hosts[1].sent.len()), (0, 0));
    world.change(1, |config| config.role = Role::Active);
    world.run_until(ms(10), |world| world.states() == [State::Up, State::Up]);
}

/// RFC 5880 §6.8.4
#[test]
fn a_dead_peer_is_found_within_the_detection_time_and_not_before_two_thirds_of_it() {
    for interval in [10, 50, 300] {
        for seed in 0..20 {
            let mut world = World::up(seed, |_, config| {
                config.desired_min_tx = ms(interval);
                config.required_min_rx = ms(interval);
            });
            world.hosts[1].stopped = true;
            let took = world.run_until(ms(4 * interval), |world| world.state(0) == State::Down);
            assert!(took <= ms(3 * interval) + ms(1) && took >= ms(2 * interval), "{interval}: {took:?}");
            let (from, to, cause) = world.last_change(0);
            assert_eq!((from, to, cause), (State::Up, State::Down, Cause::DetectionTimeExpired));
            let (_, change) = world.hosts[0].changes.last().unwrap();
            assert!(change.is_failure());
            assert_eq!(change.diagnostic, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
        }
    }
}

/// RFC 5880 §6.8.6: the end that still hears is told Down and follows.
#[test]
fn a_cut_in_one_direction_takes_both_ends_down_and_a_mended_one_brings_them_back() {
    let mut world = World::up(3, |_, _| {});
    world.cut[0] = true;
    world.run_until(ms(151), |world| world.state(0) == State::Down);
    world.run_until(ms(2), |world| world.state(1) == State::Down);
    let told = Cause::NeighborSignaledDown { diagnostic: Diagnostic::CONTROL_DETECTION_TIME_EXPIRED };
    assert_eq!(world.last_change(1), (State::Up, State::Down, told));
    assert!(world.hosts[1].changes.last().unwrap().1.is_failure());
    // The other end goes on to Init, and no further.
    world.run(ms(20_000));
    assert_eq!(world.state(0), State::Down);
    assert!(world.hosts[1].changes.iter().all(|(_, change)| change.to != State::Up));
    world.cut[0] = false;
    world.run_until(ms(3000), |world| world.states() == [State::Up, State::Up]);
}

#[test]
fn one_packet_in_twenty_lost_brings_no_session_down_for_a_minute() {
    let mut world = World::up(4, |_, config| config.multiplier = 6);
    world.loss = 50;
    world.run(ms(60_000));
    assert_eq!(world.states(), [State::Up, State::Up]);
    assert!(world.hosts.iter().all(|host| host.changes.is_empty()));
}

#[test]
fn half_of_all_packets_lost_flaps_the_session_and_it_comes_back_when_the_link_is_mended() {
    let mut world = World::up(5, |_, _| {});
    world.loss = 500;
    world.run(ms(60_000));
    assert!(!world.hosts[0].changes.is_empty());
    world.loss = 0;
    world.run_until(ms(5000), |world| world.states() == [State::Up, State::Up]);
    world.run(ms(60_000));
    assert_eq!(world.states(), [State::Up, State::Up]);
}

/// What was received while an end stood still counts before its time acts.
#[test]
fn an_end_that_stood_still_reads_before_it_times_out() {
    let mut world = World::up(6, |host, config| config.multiplier = if host == 0 { 50 } else { 3 });
    world.hosts[0].stopped = true;
    world.run(ms(1800));
    // Its own detection time of 150 ms is long over, the peer's of 2.5 s is not.
    assert!(world.hosts[0].table.next_deadline().unwrap() < world.now - ms(1600));
    world.resume(0);
    world.run(ms(1000));
    assert!(world.hosts[0].changes.is_empty(), "{:?}", world.hosts[0].changes);
    assert_eq!(world.states(), [State::Up, State::Up]);
}

/// RFC 5880 §6.8.7
#[test]
fn packets_are_jittered_by_up_to_a_quarter_and_with_multiplier_one_by_a_tenth_at_least() {
    for (multiplier, most) in [(3, 50_000), (1, 45_000)] {
        let mut world = World::up(7, |host, config| {
            config.multiplier = if host == 0 { multiplier } else { 3 };
        });
        world.delay = ms(0);
        world.hosts[0].sent.clear();
        world.run(ms(60_000));
        let times: Vec<Time> = world.hosts[0].sent.iter().map(|(time, ..)| *time).collect();
        let gaps: Vec<u128> = times.windows(2).map(|pair| pair[1].since(pair[0]).as_micros()).collect();
        assert!(gaps.iter().all(|gap| (37_500..=most).contains(gap)), "{multiplier}");
        assert!(gaps.iter().any(|gap| *gap < 38_500) && gaps.iter().any(|gap| *gap > most - 1000));
    }
}

/// RFC 5880 §6.8.16, RFC 5882 §3.2
#[test]
fn admin_down_takes_the_peer_down_but_is_no_failure() {
    let mut world = World::up(8, |_, _| {});
    world.change(0, |config| config.wish = Wish::AdminDown);
    world.run_until(ms(2), |world| world.state(1) == State::Down);
    assert_eq!(world.last_change(1), (State::Up, State::Down, Cause::NeighborAdminDown));
    assert!(!world.hosts[1].changes.last().unwrap().1.is_failure());
    assert_eq!(world.last_change(0), (State::Up, State::AdminDown, Cause::AdminDown));
    world.run(ms(30_000));
    assert_eq!(world.states(), [State::AdminDown, State::Down]);
    world.change(0, |config| config.wish = Wish::Up);
    world.run_until(ms(3000), |world| world.states() == [State::Up, State::Up]);
}

/// RFC 5880 §6.8.16: for a detection time.
#[test]
fn a_session_that_is_not_wanted_any_more_says_so_and_is_gone() {
    let mut world = World::up(9, |_, _| {});
    world.hosts[0].wanted.clear();
    world.renew(0, None);
    world.run_until(ms(2), |world| world.state(1) == State::Down);
    assert_eq!(world.last_change(1).2, Cause::NeighborAdminDown);
    world.run_until(ms(3100), |world| world.hosts[0].table.is_silent());
    let said: Vec<State> = world.hosts[0].sent.iter().map(|(_, packet, _)| packet.state).collect();
    assert!(said.iter().filter(|state| **state == State::AdminDown).count() >= 3, "{said:?}");
    assert_eq!(world.hosts[0].table.next_deadline(), None);
}

#[test]
fn a_session_wanted_again_while_it_says_goodbye_goes_on() {
    let mut world = World::up(10, |_, _| {});
    let wanted = std::mem::take(&mut world.hosts[0].wanted);
    world.renew(0, None);
    world.run(ms(500));
    world.hosts[0].wanted = wanted;
    world.renew(0, None);
    world.run_until(ms(3000), |world| world.states() == [State::Up, State::Up]);
    world.run(ms(30_000));
    assert_eq!(world.states(), [State::Up, State::Up]);
}

#[test]
fn another_path_is_another_session_with_a_number_of_its_own() {
    let mut world = World::up(11, |_, _| {});
    let before = world.hosts[0].table.session(&name()).unwrap().discriminator;
    world.change(0, |config| config.path.local = Some(crate::world::address(0)));
    assert_ne!(world.hosts[0].table.session(&name()).unwrap().discriminator, before);
    // The peer notices by Your Discriminator 0 and state Down, as after a restart.
    world.run_until(ms(3000), |world| world.states() == [State::Up, State::Up]);
}

#[test]
fn a_socket_that_refuses_is_told_once_and_when_it_is_over() {
    let mut world = World::up(12, |_, _| {});
    let session = world.hosts[0].table.session(&name()).unwrap().discriminator;
    for _ in 0..3 {
        let failure = Failure::new(FailureKind::Unreachable, "no route");
        world.handle(0, Event::SendFailed { session, failure });
    }
    assert!(world.hosts[0].table.session(&name()).unwrap().cannot_send.is_some());
    world.run(ms(200));
    let told: Vec<bool> = world.hosts[0]
        .others
        .iter()
        .filter_map(|action| match action {
            Fact::CannotSend { failure, .. } => Some(failure.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(told, [true, false]);
}

#[test]
fn a_thousand_sessions_come_up_stay_up_and_are_found_dead_together() {
    let mut world = World::new(13);
    for host in 0..2 {
        for number in 0..1000_u32 {
            let end =
                |host: usize| format!("10.{}.{}.{}", host + 1, number / 250, number % 250).parse().unwrap();
            let mut wanted = config(1 - host);
            wanted.path.local = Some(end(host));
            wanted.path.remote = end(1 - host);
            wanted.desired_min_tx = ms(300);
            wanted.required_min_rx = ms(300);
            world.hosts[host].wanted.insert(number.to_string().as_str().into(), wanted);
        }
        world.renew(host, None);
    }
    world.run(ms(3000));
    let up = |world: &World, host: usize| {
        world.hosts[host].table.sessions().filter(|session| session.state == State::Up).count()
    };
    assert_eq!([up(&world, 0), up(&world, 1)], [1000, 1000]);
    let numbers: BTreeSet<_> = world.hosts[0].table.sessions().map(|session| session.discriminator).collect();
    assert_eq!(numbers.len(), 1000);
    world.run(ms(3000));
    assert_eq!([up(&world, 0), up(&world, 1)], [1000, 1000]);
    assert!(world.hosts.iter().all(|host| host.discards.is_empty()));
    world.hosts[1].stopped = true;
    world.run(ms(901));
    assert_eq!(up(&world, 0), 0);
}
