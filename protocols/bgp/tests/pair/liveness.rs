//! Timers, silence, and peers that stop reading.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyvip_bgp::wire::{Message, Notification};
use anyvip_bgp::{Action, ConnectionId, DownReason, Event, PeerState};
use anyvip_machine::{Failure, FailureKind};

use crate::world::{World, name, prefix, route};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn downs(world: &World, who: usize) -> Vec<DownReason> {
    let down = |(_, host, action): &(_, usize, Action)| match action {
        Action::SessionDown { reason, .. } if *host == who => Some(reason.clone()),
        _ => None,
    };
    world.log.iter().filter_map(down).collect()
}

/// RFC 4271 §4.4, §10.
#[test]
fn keepalives_come_each_third_of_the_hold_time_less_up_to_a_quarter() {
    let mut world = World::established(1);
    let since = world.now;
    world.run_for(300 * SECOND);
    let sent: Vec<_> = world.times(0, |action| matches!(action, Action::Send { .. }));
    let sent: Vec<_> = sent.into_iter().filter(|at| *at > since).collect();
    assert!((100..=134).contains(&sent.len()), "{}", sent.len());
    for pair in sent.windows(2) {
        let gap = pair[1].since(pair[0]);
        assert!((2250 * MS..=3000 * MS).contains(&gap), "{gap:?}");
    }
    let gaps: std::collections::BTreeSet<_> = sent.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.len() > 50, "jittered");
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

/// RFC 4271 §6.5.
#[test]
fn silence_for_the_hold_time_ends_the_session_on_both_ends_with_a_hold_timer_notification() {
    let mut world = World::established(2);
    let cut = world.now;
    world.cut = true;
    world.run_for(8 * SECOND - 500 * MS);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    world.run_for(2 * SECOND);
    for who in [0, 1] {
        assert_ne!(world.state(who), PeerState::Established);
        assert_eq!(downs(&world, who)[0], DownReason::WeSaid(Notification::hold_timer_expired()));
        let down =
            world.times(who, |action| matches!(action, Action::SessionDown { was_established: true, .. }));
        assert!((6 * SECOND..=9 * SECOND).contains(&down[0].since(cut)), "{down:?}");
    }
    world.heal();
    world.run_for(15 * SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

/// RFC 4271 §4.2.
#[test]
fn a_hold_time_of_zero_from_either_side_means_no_timers_at_all() {
    let mut world = World::new(3);
    world.peer_config(1).hold_time = None;
    let mut world = world.start();
    world.run_for(SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    for who in [0, 1] {
        let speaker = world.speakers[who].as_ref().unwrap();
        assert_eq!(speaker.next_deadline(), None);
        assert_eq!(speaker.peer(&name(1 - who)).unwrap().facts.unwrap().hold_time, None);
    }
    let since = world.now;
    world.cut = true;
    world.run_for(3600 * SECOND);
    world.heal();
    world.want(0, [(prefix(1), route(1))].into());
    world.run_for(SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    assert_eq!(world.heard[1].len(), 1);
    assert!(world.messages(0, since).iter().all(|message| *message != Message::Keepalive));
}

#[test]
fn the_smaller_hold_time_of_both_offers_is_used() {
    let mut world = World::new(4);
    world.peer_config(0).hold_time = Some(90 * SECOND);
    world.peer_config(1).hold_time = Some(3 * SECOND);
    let mut world = world.start();
    world.run_for(SECOND);
    for who in [0, 1] {
        let view = world.speakers[who].as_ref().unwrap().peer(&name(1 - who)).unwrap();
        assert_eq!(view.facts.unwrap().hold_time, Some(3 * SECOND));
    }
}

/// RFC 9687 §3.2.
#[test]
fn a_peer_that_reads_nothing_is_dropped_after_eight_minutes_without_a_notification() {
    let mut world = World::established(5);
    world.stalled[0] = true;
    // The far end keeps sending: only our direction is stuck, and it does not notice either.
    world.peer_config(1).hold_time = Some(9 * SECOND);
    world.want(0, [(prefix(1), route(1))].into());
    let since = world.now;
    let still = world.speakers[0].clone().unwrap();
    let keepalive = Message::Keepalive.encode(&anyvip_bgp::wire::Codec::before_open());
    let mut speaker = still;
    let mut now = since;
    let mut actions = Vec::new();
    while actions.is_empty() && now.since(since) < 600 * SECOND {
        now += SECOND;
        let received = Event::Received { connection: ConnectionId::Initiated(1), bytes: keepalive.clone() };
        actions.extend(speaker.handle(now, received));
        if speaker.next_deadline().is_some_and(|next| next <= now) {
            actions.extend(speaker.handle(now, Event::DeadlineReached));
        }
    }
    assert_eq!(now.since(since), 480 * SECOND);
    assert_eq!(actions[0], Action::Close { connection: ConnectionId::Initiated(1) });
    assert!(actions.iter().all(|action| !matches!(action, Action::Send { .. })));
    let down = |action: &Action| {
        matches!(
            action,
            Action::SessionDown { reason: DownReason::SendHoldTimerExpired, was_established: true, .. }
        )
    };
    assert!(actions.iter().any(down));
}

#[test]
fn keepalives_do_not_pile_up_behind_a_peer_that_reads_nothing() {
    let mut world = World::established(6);
    world.stalled[0] = true;
    world.want(0, [(prefix(1), route(1))].into());
    let since = world.now;
    // The peer's hold timer ends this, but until then one message waits at most.
    world.run_for(8 * SECOND);
    assert_eq!(world.messages(0, since).len(), 1, "the UPDATE in flight");
    world.heal();
    world.run_for(MS);
    let messages = world.messages(0, since);
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1], Message::Keepalive);
}

#[test]
fn a_notification_waits_for_the_send_before_it_and_the_peer_moves_on_meanwhile() {
    let mut world = World::established(7);
    world.stalled[0] = true;
    world.want(0, [(prefix(1), route(1))].into());
    let since = world.now;
    world.tell(0, Event::Stop { text: "upgrade".to_owned() });
    assert_eq!(world.state(0), PeerState::Idle);
    assert_eq!(world.notifications(0, since), []);
    assert!(!world.speakers[0].as_ref().unwrap().is_silent());
    world.heal();
    world.run_for(10 * MS);
    assert_eq!(world.notifications(0, since).len(), 1);
    assert!(world.speakers[0].as_ref().unwrap().is_silent());
    assert_eq!(world.last_error(1), "peer said: Cease/Administrative Shutdown (6/2): upgrade");
}

#[test]
fn a_notification_that_cannot_be_written_is_given_up_after_ten_seconds() {
    let mut world = World::established(8);
    world.stalled[0] = true;
    world.cut = true;
    world.want(0, [(prefix(1), route(1))].into());
    let since = world.now;
    world.tell(0, Event::Stop { text: String::new() });
    world.run_for(11 * SECOND);
    let closed = world.times(0, |action| matches!(action, Action::Close { .. }));
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].since(since), 10 * SECOND);
    assert!(world.speakers[0].as_ref().unwrap().is_silent());
    assert_eq!(world.speakers[0].as_ref().unwrap().next_deadline(), None);
}

#[test]
fn a_half_open_connection_is_found_by_the_hold_timer_and_replaced() {
    let mut world = World::established(9);
    world.crash(1);
    world.run_for(5 * SECOND);
    world.boot(1);
    // Our next KEEPALIVE is answered by a reset.
    world.run_for(6 * SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    assert!(matches!(downs(&world, 0)[0], DownReason::Connection(Failure { kind: FailureKind::Reset, .. })));
}

#[test]
fn overdue_deadlines_stay_overdue_until_the_driver_delivers_them() {
    let mut world = World::established(10);
    let speaker = world.speakers[0].as_mut().unwrap();
    let late = world.now + 60 * SECOND;
    let keepalive = Message::Keepalive.encode(&anyvip_bgp::wire::Codec::before_open());
    // Stopped for a minute, then continued: what the socket holds is read first, and the session lives.
    let actions =
        speaker.handle(late, Event::Received { connection: ConnectionId::Initiated(1), bytes: keepalive });
    assert_eq!(actions, []);
    assert!(speaker.next_deadline().unwrap() <= late);
    let actions = speaker.handle(late, Event::DeadlineReached);
    assert!(matches!(actions[..], [Action::Send { .. }]), "a KEEPALIVE, no NOTIFICATION: {actions:?}");
    assert!(speaker.next_deadline().unwrap() > late);
    assert_eq!(speaker.peer(&name(1)).unwrap().state, PeerState::Established);
}
