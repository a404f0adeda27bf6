//! The machine: all peers of this host, and the connections that nobody owns any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyvip_machine::{Agenda, Seed, Time};
use serde::{Deserialize, Serialize};

use crate::connection::Local;
use crate::effects::{Effects, Farewell, PeerNumber};
use crate::peer_fsm::PeerFsm;
use crate::status::PeerView;
use crate::wire::Notification;
use crate::{Action, ConnectionId, Event, PeerConfig, PeerName, Rejection, SpeakerConfig};

/// BGP-4 of one host.
///
/// Nothing happens before the first [`Event::Configure`]; after [`Event::Stop`] nothing starts again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Speaker {
    seed: Seed,
    peers: BTreeMap<PeerNumber, PeerFsm>,
    numbers: BTreeMap<PeerName, PeerNumber>,
    next_number: PeerNumber,
    agenda: Agenda<PeerNumber>,
    #[serde(with = "crate::status::pairs")]
    connections: BTreeMap<ConnectionId, PeerNumber>,
    farewells: Vec<Farewell>,
    next_connection: u64,
    stopped: bool,
    /// Peers that keep what the process before this one told them.
    restarting: BTreeSet<PeerName>,
}

impl Speaker {
    /// A speaker without peers. The seed decides all jitter.
    pub fn new(seed: Seed) -> Speaker {
        Speaker {
            seed,
            peers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            agenda: Agenda::new(),
            connections: BTreeMap::new(),
            farewells: Vec::new(),
            next_connection: 1,
            stopped: false,
            restarting: BTreeSet::new(),
        }
    }

    /// Takes an event and gives back what to do, in this order.
    #[must_use]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::DeadlineReached => self.deadline_reached(now, &mut actions),
            Event::Configure(config) => self.configure(now, config, &mut actions),
            Event::Wanted { peer, routes } => {
                if let Some(peer) = self.numbers.get(&peer).copied() {
                    self.with(now, peer, &mut actions, |fsm, fx| fsm.want(routes, fx));
                }
            }
            Event::Restarting { peers } => self.restart(now, peers, &mut actions),
            Event::PathDown { peer } => {
                if let Some(peer) = self.numbers.get(&peer).copied() {
                    self.with(now, peer, &mut actions, PeerFsm::path_down);
                }
            }
            Event::Stop { text } => self.stop(now, &text, &mut actions),
            Event::Connected { connection, local, remote } => {
                let mut known = false;
                if let Some(peer) = self.connections.get(&connection).copied() {
                    self.with(now, peer, &mut actions, |fsm, fx| {
                        known = fsm.connected(connection, (local, remote), fx);
                    });
                }
                if !known && !self.connections.contains_key(&connection) {
                    // Its guard ran out or its peer is gone.
                    actions.push(Action::Close { connection });
                }
            }
            Event::ConnectFailed { connection, failure } => {
                self.with_owner(now, connection, &mut actions, |fsm, fx| {
                    fsm.connect_failed(connection, failure, fx);
                });
            }
            Event::Accepted { connection, local, remote } => {
                self.accepted(now, connection, (local, remote), &mut actions);
            }
            Event::TurnedAway { remote, why } => actions.push(Action::Rejected { remote, why }),
            Event::Received { connection, bytes } => {
                self.with_owner(now, connection, &mut actions, |fsm, fx| {
                    fsm.received(connection, &bytes, fx)
                });
            }
            Event::Sent { connection } => {
                self.say_farewell(connection, &mut actions);
                self.with_owner(now, connection, &mut actions, |fsm, fx| fsm.sent(connection, fx));
            }
            Event::Closed { connection, failure } => {
                self.farewells.retain(|farewell| farewell.connection != connection);
                self.with_owner(now, connection, &mut actions, |fsm, fx| fsm.closed(connection, failure, fx));
            }
        }
        actions
    }

    /// When to call `handle` with [`Event::DeadlineReached`].
    pub fn next_deadline(&self) -> Option<Time> {
        let farewell = self.farewells.iter().map(|farewell| farewell.give_up).min();
        [self.agenda.first(), farewell].into_iter().flatten().min()
    }

    /// All peers, in the order of their names.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.numbers.values().filter_map(|number| self.peers.get(number)).map(PeerFsm::view)
    }

    /// The peer of this name.
    pub fn peer(&self, name: &PeerName) -> Option<PeerView<'_>> {
        self.peers.get(self.numbers.get(name)?).map(PeerFsm::view)
    }

    /// Whether no connection is left that this speaker still has business with, not even a NOTIFICATION that waits to
    /// be written. After [`Event::Stop`] this says that all is said.
    pub fn is_silent(&self) -> bool {
        self.connections.is_empty() && self.farewells.is_empty()
    }

    fn deadline_reached(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut due = Vec::new();
        while let Some(peer) = self.agenda.due(now) {
            due.push(peer);
        }
        for peer in due {
            self.with(now, peer, actions, PeerFsm::deadline_reached);
            if self.agenda.deadline(&peer).is_some_and(|next| next <= now) {
                debug_assert!(false, "peer {peer} makes no progress");
                self.with(now, peer, actions, PeerFsm::reset);
            }
        }
        self.farewells.retain(|farewell| {
            let stays = farewell.give_up > now;
            if !stays {
                actions.push(Action::Close { connection: farewell.connection });
            }
            stays
        });
        debug_assert!(self.next_deadline().is_none_or(|next| next > now), "a deadline was left overdue");
    }

    fn configure(&mut self, now: Time, config: SpeakerConfig, actions: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        let ours_towards =
            |peer: &PeerConfig| Local { asn: peer.local_asn(config.asn), router_id: config.router_id };
        let gone: Vec<PeerName> =
            self.numbers.keys().filter(|name| !config.peers.contains_key(*name)).cloned().collect();
        let last = Notification::cease(Notification::PEER_DECONFIGURED, None);
        // A peer that gets another name goes and comes.
        let mut left = BTreeSet::new();
        for name in gone {
            let Some(number) = self.numbers.remove(&name) else { continue };
            left.extend(self.peers.get(&number).and_then(PeerFsm::connected_to).cloned());
            self.with(now, number, actions, |fsm, fx| fsm.stop(&last, fx));
            self.peers.remove(&number);
            self.agenda.set(number, None);
        }
        for (name, peer) in config.peers.clone() {
            let ours = ours_towards(&peer);
            if let Some(number) = self.numbers.get(&name).copied() {
                self.with(now, number, actions, |fsm, fx| fsm.configure(ours, peer, fx));
            } else {
                let seed = self.seed.child(&name.0);
                let number = self.next_number;
                self.next_number += 1;
                self.numbers.insert(name.clone(), number);
                let restarting = self.restarting.contains(&name);
                let just_left = left.contains(&peer.remote);
                self.peers.insert(number, PeerFsm::new(now, (name, number), ours, peer, seed));
                self.with(now, number, actions, |fsm, fx| {
                    fsm.begin_restarting(restarting);
                    if just_left { fsm.start_after_farewell(fx) } else { fsm.start(fx) }
                });
            }
        }
    }

    fn restart(&mut self, now: Time, peers: BTreeSet<PeerName>, actions: &mut Vec<Action>) {
        self.restarting = peers;
        let all: Vec<(PeerName, PeerNumber)> =
            self.numbers.iter().map(|(name, number)| (name.clone(), *number)).collect();
        for (name, number) in all {
            let restarting = self.restarting.contains(&name);
            self.with(now, number, actions, |fsm, fx| fsm.restart(restarting, fx));
        }
    }

    fn stop(&mut self, now: Time, text: &str, actions: &mut Vec<Action>) {
        self.stopped = true;
        let last = Notification::cease(Notification::ADMINISTRATIVE_SHUTDOWN, Some(text));
        let all: Vec<PeerNumber> = self.numbers.values().copied().collect();
        for peer in all {
            self.with(now, peer, actions, |fsm, fx| fsm.stop(&last, fx));
        }
    }

    fn accepted(
        &mut self,
        now: Time,
        connection: ConnectionId,
        ends: (SocketAddr, SocketAddr),
        actions: &mut Vec<Action>,
    ) {
        let refused = Notification::cease(Notification::CONNECTION_REJECTED, None);
        let numbered = self.numbers.values().filter_map(|number| Some((*number, self.peers.get(number)?)));
        let at = numbered.filter(|(_, fsm)| fsm.is_at(ends.1));
        let owner = at.min_by_key(|(_, fsm)| fsm.expects_connection()).map(|(number, _)| number);
        let mut verdict = Ok(());
        match owner {
            _ if self.stopped => verdict = Err((refused, Rejection::Stopped)),
            None => verdict = Err((refused, Rejection::NoSuchPeer)),
            Some(peer) => {
                self.with(now, peer, actions, |fsm, fx| verdict = fsm.accepted(connection, ends, fx));
            }
        }
        if let Err((last, why)) = verdict {
            actions.push(Action::Rejected { remote: ends.1, why });
            self.effects(now, actions).1.say_and_close(connection, &last, false);
        }
    }

    /// What waited for the former `Send`.
    fn say_farewell(&mut self, connection: ConnectionId, actions: &mut Vec<Action>) {
        if let Some(at) = self.farewells.iter().position(|farewell| farewell.connection == connection) {
            let Farewell { bytes, .. } = self.farewells.remove(at);
            actions.push(Action::Send { connection, bytes });
            actions.push(Action::Close { connection });
        }
    }

    fn with_owner(
        &mut self,
        now: Time,
        connection: ConnectionId,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut PeerFsm, &mut Effects),
    ) {
        if let Some(peer) = self.connections.get(&connection).copied() {
            self.with(now, peer, actions, act);
        }
    }

    /// Lets one peer act and writes down when it is due next.
    fn with(
        &mut self,
        now: Time,
        peer: PeerNumber,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut PeerFsm, &mut Effects),
    ) {
        let (peers, mut effects) = self.effects(now, actions);
        if let Some(fsm) = peers.get_mut(&peer) {
            let before = fsm.next_deadline();
            act(fsm, &mut effects);
            let next = fsm.next_deadline();
            // Most messages of a peer that is well move nothing: its next KEEPALIVE comes before its hold time ends. What
            // was due is off the agenda.
            if next != before || before.is_none_or(|before| before <= now) {
                self.agenda.set(peer, next);
            }
        }
    }

    fn effects<'a>(
        &'a mut self,
        now: Time,
        actions: &'a mut Vec<Action>,
    ) -> (&'a mut BTreeMap<PeerNumber, PeerFsm>, Effects<'a>) {
        let effects = Effects {
            now,
            actions,
            next_connection: &mut self.next_connection,
            connections: &mut self.connections,
            farewells: &mut self.farewells,
        };
        (&mut self.peers, effects)
    }
}
