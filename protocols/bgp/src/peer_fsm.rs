//! One peer (RFC 4271 §8): when to connect, which of two connections to keep, and what its messages cause.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyvip_machine::{Failure, FailureKind, Seed, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::adj_rib_in::Changes;
use crate::connect_retry::{RetryPolicy, is_error};
use crate::connection::{Connection, Ending, Heard, Local};
use crate::connections::{Connections, Initiated, Side};
use crate::effects::{Effects, GUARD_TIME, PeerNumber};
use crate::error::Severity;
use crate::negotiation::Continuity;
use crate::status::{Counters, LastError, PeerView};
use crate::wire::{Notification, Update};
use crate::{
    Action, ConnectionId, DownReason, PeerConfig, PeerName, PeerState, Receive, Rejection, Remote,
    RouteAttributes, SessionOptions,
};

/// One peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerFsm {
    name: PeerName,
    number: PeerNumber,
    ours: Local,
    config: PeerConfig,
    seed: Seed,
    connections: Connections,
    stopped: bool,
    /// The peer keeps routes of the process before this one, and waits for our End-of-RIB (RFC 4724 §4.1).
    restarting: bool,
    retry: RetryPolicy,
    state: PeerState,
    since: Time,
    last_error: Option<LastError>,
    counters: Counters,
}

impl PeerFsm {
    pub(crate) fn new(
        now: Time,
        (name, number): (PeerName, PeerNumber),
        ours: Local,
        config: PeerConfig,
        seed: Seed,
    ) -> PeerFsm {
        PeerFsm {
            name,
            number,
            ours,
            config,
            seed,
            connections: Connections::default(),
            stopped: false,
            restarting: false,
            retry: RetryPolicy::default(),
            state: PeerState::Idle,
            since: now,
            last_error: None,
            counters: Counters::default(),
        }
    }

    /// RFC 4271 §8.2.2, Events 1 and 3 to 5: connects at once, or waits for the peer to do so.
    pub(crate) fn start(&mut self, fx: &mut Effects) {
        if self.config.connect {
            self.connect(fx);
        }
        self.note_state(fx);
    }

    /// The same where we have just said goodbye.
    pub(crate) fn start_after_farewell(&mut self, fx: &mut Effects) {
        let wait = self.retry.after_farewell(&mut self.seed);
        self.schedule(wait, false, fx);
        self.note_state(fx);
    }

    /// Where it will hear a goodbye if this peer goes now.
    pub(crate) fn connected_to(&self) -> Option<&Remote> {
        let open = Side::BOTH.into_iter().any(|side| self.connections.get(side).is_some());
        open.then_some(&self.config.remote)
    }

    /// Takes another configuration of the same peer.
    pub(crate) fn configure(&mut self, ours: Local, config: PeerConfig, fx: &mut Effects) {
        let resets = ours != self.ours || resets_session(&self.config, &config);
        let former = std::mem::replace(&mut self.config, config);
        self.ours = ours;
        if resets {
            let reason = Notification::cease(Notification::OTHER_CONFIGURATION_CHANGE, None);
            let left = self.connected_to().is_some();
            self.close_all(&reason, fx);
            self.connections.initiated = Initiated::Resting;
            self.retry = RetryPolicy::default();
            return if left { self.start_after_farewell(fx) } else { self.start(fx) };
        }
        if former.receive != self.config.receive {
            self.receive_differently(&former, fx);
        }
        if !self.config.connect && matches!(self.connections.initiated, Initiated::Waiting { .. }) {
            self.connections.initiated = Initiated::Resting;
        }
        if self.config.connect && !former.connect && self.live_state() <= PeerState::Active {
            self.connect(fx);
        }
        self.settle(fx);
    }

    /// Closes everything for good (RFC 4271 §8.2.2, Event 2).
    pub(crate) fn stop(&mut self, last: &Notification, fx: &mut Effects) {
        self.stopped = true;
        self.close_all(last, fx);
        self.connections.initiated = Initiated::Resting;
        self.note_state(fx);
    }

    /// RFC 5882 §4.2, RFC 9384: the path is down. Attempts that are under way go on: they need no path that was ever up.
    pub(crate) fn path_down(&mut self, fx: &mut Effects) {
        for side in Side::BOTH {
            if self.connections.get(side).is_some_and(|connection| connection.session().is_some()) {
                self.end(side, Ending::Say(Notification::cease(Notification::BFD_DOWN, None)), fx);
            }
        }
        self.settle(fx);
    }

    /// All routes that the peer shall know. Without an Established session there is nobody to tell.
    pub(crate) fn want(&mut self, routes: BTreeMap<IpNet, RouteAttributes>, fx: &mut Effects) {
        if let Some(session) = self.connections.session_mut() {
            session.adj_rib_out.want(routes);
        }
        self.settle(fx);
    }

    /// The same of a peer that has not been started: there is nothing to write yet.
    pub(crate) fn begin_restarting(&mut self, restarting: bool) {
        self.restarting = restarting;
    }

    /// Whether the peer keeps what the process before this one told it.
    pub(crate) fn restart(&mut self, restarting: bool, fx: &mut Effects) {
        if std::mem::replace(&mut self.restarting, restarting) == restarting {
            return;
        }
        if let Some(session) = self.connections.session_mut() {
            session.hold_end_of_rib(restarting);
        }
        self.settle(fx);
    }

    fn continuity(&self) -> Continuity {
        // After a session of its own this process knows all that the peer may have kept of it.
        let preserved = self.restarting || self.counters.established > 0;
        Continuity { restarted: self.restarting, preserved }
    }

    pub(crate) fn connected(
        &mut self,
        connection: ConnectionId,
        ends: (SocketAddr, SocketAddr),
        fx: &mut Effects,
    ) -> bool {
        match &self.connections.initiated {
            Initiated::Connecting { connection: asked, .. } if *asked == connection => {}
            _ => return false,
        }
        if self.connections.accepted_serves() {
            // The peer's own connection is about to win or has won. Ours has said nothing yet: it goes quietly, so
            // that the two ends cannot each close the connection that the other one keeps.
            fx.connections.remove(&connection);
            fx.actions.push(Action::Close { connection });
            self.connections.initiated = Initiated::Resting;
        } else {
            let continuity = self.continuity();
            let connection = Connection::new(fx.now, connection, ends, self.ours, &self.config, continuity);
            self.connections.initiated = Initiated::Open(Box::new(connection));
        }
        self.settle(fx);
        true
    }

    pub(crate) fn connect_failed(&mut self, connection: ConnectionId, failure: Failure, fx: &mut Effects) {
        match &self.connections.initiated {
            Initiated::Connecting { connection: asked, .. } if *asked == connection => {}
            _ => return,
        }
        fx.connections.remove(&connection);
        self.attempt_failed(failure, fx);
        self.settle(fx);
    }

    /// Takes a connection that the peer made, unless there is no use for it; then the reason is given back.
    pub(crate) fn accepted(
        &mut self,
        connection: ConnectionId,
        ends: (SocketAddr, SocketAddr),
        fx: &mut Effects,
    ) -> Result<(), (Notification, Rejection)> {
        if self.live_state() == PeerState::Established {
            // RFC 4271 §6.8: a collision with an Established connection closes the newly created one. A peer that
            // connects may have lost the old one without a word: a KEEPALIVE makes its kernel say so at once.
            for side in Side::BOTH {
                if let Some(connection) = self.connections.get_mut(side) {
                    connection.keep_alive();
                }
            }
            self.settle(fx);
            let last = Notification::cease(Notification::CONNECTION_COLLISION_RESOLUTION, None);
            return Err((last, Rejection::Established));
        }
        // A peer that connects again has given up its former connection, whatever TCP still believes.
        self.close_loser(Side::Accepted, fx);
        fx.connections.insert(connection, self.number);
        let continuity = self.continuity();
        let connection = Connection::new(fx.now, connection, ends, self.ours, &self.config, continuity);
        self.connections.accepted = Some(connection);
        self.settle(fx);
        Ok(())
    }

    pub(crate) fn received(&mut self, connection: ConnectionId, bytes: &[u8], fx: &mut Effects) {
        let Some(side) = self.connections.side_of(connection) else { return };
        if let Some(connection) = self.connections.get_mut(side) {
            connection.push(bytes);
        }
        while let Some(heard) = self.next_message(side, connection, fx.now) {
            match heard {
                Heard::Nothing => {}
                Heard::Open => self.opened(side, fx),
                Heard::Established => self.established(side, fx),
                Heard::Update(update) => self.updated(side, update, fx),
                Heard::End(ending) => self.end(side, ending, fx),
            }
        }
        self.settle(fx);
    }

    pub(crate) fn sent(&mut self, connection: ConnectionId, fx: &mut Effects) {
        let Some(side) = self.connections.side_of(connection) else { return };
        let Some(connection) = self.connections.get_mut(side) else { return };
        let (announced, withdrawn) = connection.sent();
        if !announced.is_empty() || !withdrawn.is_empty() {
            fx.actions.push(Action::Advertised { peer: self.name.clone(), announced, withdrawn });
        }
        self.settle(fx);
    }

    /// The connection ended from outside.
    pub(crate) fn closed(&mut self, connection: ConnectionId, failure: Failure, fx: &mut Effects) {
        let Some(side) = self.connections.side_of(connection) else { return };
        fx.connections.remove(&connection);
        if let Some(connection) = self.connections.take(side) {
            self.ended(side, connection, DownReason::Connection(failure), fx);
        }
        self.settle(fx);
    }

    pub(crate) fn deadline_reached(&mut self, fx: &mut Effects) {
        match self.connections.initiated {
            Initiated::Waiting { connect_retry_timer, .. } if connect_retry_timer <= fx.now => {
                if self.connections.accepted_serves() {
                    self.connections.initiated = Initiated::Resting;
                } else {
                    self.connect(fx);
                }
            }
            Initiated::Connecting { connection, guard } if guard <= fx.now => {
                fx.connections.remove(&connection);
                self.counters.unanswered += 1;
                let text = format!("the driver did not answer Connect within {} s", GUARD_TIME.as_secs());
                self.attempt_failed(Failure::new(FailureKind::Unanswered, text), fx);
            }
            _ => {}
        }
        for side in Side::BOTH {
            let slot = self.connections.get_mut(side);
            if let Some(ending) = slot.and_then(|c| c.deadline_reached(fx.now, &mut self.seed)) {
                self.end(side, ending, fx);
            }
        }
        self.settle(fx);
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.connections.next_deadline()
    }

    /// A bug was found in this peer's state: its session is the price (never the process).
    pub(crate) fn reset(&mut self, fx: &mut Effects) {
        self.counters.bugs += 1;
        self.close_all(&Notification::cease(Notification::ADMINISTRATIVE_RESET, None), fx);
        self.connections.initiated = Initiated::Resting;
        self.schedule_retry(fx);
        self.settle(fx);
    }

    /// Whether this peer would be looked for at that address.
    pub(crate) fn is_at(&self, remote: SocketAddr) -> bool {
        self.config.remote.is_at(remote)
    }

    /// For choosing among several peers with one address: who waits for a connection comes first.
    pub(crate) fn expects_connection(&self) -> (PeerState, bool) {
        (self.live_state(), self.config.connect)
    }

    pub(crate) fn view(&self) -> PeerView<'_> {
        let established =
            Side::BOTH.into_iter().find_map(|side| self.connections.get(side).and_then(Connection::session));
        PeerView {
            name: &self.name,
            config: &self.config,
            state: self.state,
            since: self.since,
            next_try: match self.connections.initiated {
                Initiated::Waiting { connect_retry_timer, .. } => Some(connect_retry_timer),
                _ => None,
            },
            last_error: self.last_error.as_ref(),
            facts: established.map(|session| &session.facts),
            counters: self.counters,
            session: established,
        }
    }

    fn next_message(&mut self, side: Side, id: ConnectionId, now: Time) -> Option<Heard> {
        let connection = self.connections.get_mut(side);
        // A message may have ended the connection that the next ones came on.
        let connection = connection.filter(|connection| connection.id == id)?;
        connection.next(now, self.ours, &self.config, &mut self.seed)
    }

    // What messages cause.

    /// An acceptable OPEN: RFC 4271 §6.8. The other connection counts from OpenSent on, since the peer's identifier
    /// is known by now; both ends come to the same answer before either says KEEPALIVE.
    fn opened(&mut self, side: Side, fx: &mut Effects) {
        let keep = self.connections.to_keep(side, self.ours, self.config.asn);
        self.close_loser(keep.other(), fx);
        if keep == side
            && let Some(connection) = self.connections.get_mut(side)
        {
            connection.keep_alive();
        }
    }

    fn established(&mut self, side: Side, fx: &mut Effects) {
        self.close_loser(side.other(), fx);
        if side == Side::Accepted && matches!(self.connections.initiated, Initiated::Waiting { .. }) {
            self.connections.initiated = Initiated::Resting;
        }
        self.counters.established += 1;
        if self.restarting
            && let Some(session) = self.connections.get_mut(side).and_then(Connection::session_mut)
        {
            session.hold_end_of_rib(true);
        }
        self.note_state(fx);
        if let Some(facts) = self.connections.get(side).and_then(Connection::facts).cloned() {
            fx.actions.push(Action::SessionUp { peer: self.name.clone(), facts });
        }
    }

    fn updated(&mut self, side: Side, mut update: Update, fx: &mut Effects) {
        self.counters.updates_in += 1;
        self.counters.malformed += update.errors.len() as u64;
        let errors = std::mem::take(&mut update.errors);
        let end_of_rib = update.end_of_rib.filter(|_| self.config.receive == Receive::All);
        let Some(session) = self.connections.get_mut(side).and_then(Connection::session_mut) else { return };
        let learned = session.adj_rib_in.hear(fx.now, update, self.config.session.heard_limit);
        let mut changes = learned.changes;
        for error in &errors {
            if let Severity::DisableFamily(family) = error.severity {
                session.disable(family);
                changes.extend(session.adj_rib_in.forget_family(family));
            }
        }
        self.counters.prefixes_heard += learned.heard;
        self.counters.prefixes_dropped += learned.dropped;
        let malformed = |error| Action::Malformed { peer: self.name.clone(), error };
        fx.actions.extend(errors.into_iter().map(malformed));
        if let Some(heard) = learned.beyond_limit {
            fx.actions.push(Action::HeardBeyondLimit { peer: self.name.clone(), heard });
        }
        self.report(changes, fx);
        let told = |family| Action::EndOfRib { peer: self.name.clone(), family };
        fx.actions.extend(end_of_rib.map(told));
    }

    fn receive_differently(&mut self, former: &PeerConfig, fx: &mut Effects) {
        let receive = self.config.receive.clone();
        let more = receive.asks_more_than(&former.receive);
        for side in Side::BOTH {
            let Some(connection) = self.connections.get_mut(side) else { continue };
            let Some(session) = connection.session_mut() else { continue };
            let changes = session.adj_rib_in.ask_for(receive.clone());
            let answers = session.facts.route_refresh;
            if more && answers {
                connection.ask_again();
            }
            self.report(changes, fx);
            if self.config.receive == Receive::All && more && !answers {
                // Without ROUTE-REFRESH only a new session tells everything again. For a view of some prefixes that is too dear: it is
                // whole with the next session.
                let last = Notification::cease(Notification::OTHER_CONFIGURATION_CHANGE, None);
                self.end(side, Ending::Say(last), fx);
            }
        }
    }

    fn report(&self, changes: Changes, fx: &mut Effects) {
        if !changes.is_empty() {
            fx.actions.push(Action::RoutesChanged { peer: self.name.clone(), changes });
        }
    }

    // How connections end.

    fn end(&mut self, side: Side, ending: Ending, fx: &mut Effects) {
        let Some(connection) = self.connections.take(side) else { return };
        let reason = fx.close(&connection, ending);
        self.ended(side, connection, reason, fx);
    }

    /// Closes the connection that lost a collision; the other one goes on, so nothing is reported.
    fn close_loser(&mut self, side: Side, fx: &mut Effects) {
        if let Some(connection) = self.connections.take(side) {
            let last = Notification::cease(Notification::CONNECTION_COLLISION_RESOLUTION, None);
            fx.close(&connection, Ending::Say(last));
        }
    }

    /// Closes all there is, and reports it as one end. Does not schedule another try.
    fn close_all(&mut self, last: &Notification, fx: &mut Effects) {
        let was = self.connections.state();
        if let Initiated::Connecting { connection, .. } = self.connections.initiated {
            // Should it still come to stand, it is unknown and closed.
            fx.connections.remove(&connection);
        }
        for side in Side::BOTH {
            if let Some(mut connection) = self.connections.take(side) {
                fx.close(&connection, Ending::Say(last.clone()));
                self.forget_routes(&mut connection, fx);
            }
        }
        if was >= PeerState::OpenSent {
            self.note_down(was == PeerState::Established, DownReason::WeSaid(last.clone()), fx);
        }
    }

    fn ended(&mut self, side: Side, mut connection: Connection, reason: DownReason, fx: &mut Effects) {
        let lasted = connection.session().map(|session| fx.now.since(session.since));
        self.forget_routes(&mut connection, fx);
        self.retry.session_lasted(lasted);
        let other = self.connections.get(side.other()).is_some();
        if other {
            // It lost a collision, whatever words were used: nothing is wrong with the peer.
            self.schedule_retry(fx);
        } else {
            self.schedule_after(&reason, fx);
        }
        if lasted.is_some() || !other {
            self.note_down(lasted.is_some(), reason, fx);
        }
    }

    fn forget_routes(&mut self, connection: &mut Connection, fx: &mut Effects) {
        if let Some(session) = connection.session_mut() {
            let changes = session.adj_rib_in.forget_all();
            self.report(changes, fx);
        }
    }

    fn attempt_failed(&mut self, failure: Failure, fx: &mut Effects) {
        self.connections.initiated = Initiated::Resting;
        if self.connections.accepted.is_none() {
            self.note_down(false, DownReason::Connection(failure), fx);
        }
    }

    fn note_down(&mut self, was_established: bool, reason: DownReason, fx: &mut Effects) {
        self.last_error = Some(LastError { at: fx.now, text: reason.to_string() });
        self.note_state(fx);
        fx.actions.push(Action::SessionDown { peer: self.name.clone(), was_established, reason });
    }

    // The ConnectRetryTimer.

    fn schedule_after(&mut self, reason: &DownReason, fx: &mut Effects) {
        let damped = is_error(reason);
        let wait = match damped {
            true => self.retry.after_error(&mut self.seed),
            false => self.retry.after_nothing_wrong(self.config.connect_retry, &mut self.seed),
        };
        self.schedule(wait, damped, fx);
    }

    fn schedule_retry(&mut self, fx: &mut Effects) {
        let wait = self.retry.after_nothing_wrong(self.config.connect_retry, &mut self.seed);
        self.schedule(wait, false, fx);
    }

    fn schedule(&mut self, wait: Duration, damped: bool, fx: &mut Effects) {
        if self.stopped || !self.config.connect || self.config.remote.address().is_none() {
            return;
        }
        // A retry time of zero would be a busy loop.
        let next = fx.now + wait.max(Duration::from_millis(1));
        match &mut self.connections.initiated {
            Initiated::Resting => {
                self.connections.initiated = Initiated::Waiting { connect_retry_timer: next, damped }
            }
            Initiated::Waiting { connect_retry_timer, damped: was } => {
                *connect_retry_timer = next.max(*connect_retry_timer);
                *was |= damped;
            }
            Initiated::Connecting { .. } | Initiated::Open(_) => {}
        }
    }

    fn connect(&mut self, fx: &mut Effects) {
        // Nobody has been heard on that link: whoever finds the neighbour configures it.
        let Some(remote) = self.config.remote.endpoint() else {
            self.connections.initiated = Initiated::Resting;
            return;
        };
        let connection = ConnectionId::Initiated(*fx.next_connection);
        *fx.next_connection += 1;
        fx.connections.insert(connection, self.number);
        self.counters.connects += 1;
        self.connections.initiated = Initiated::Connecting { connection, guard: fx.now + GUARD_TIME };
        fx.actions.push(Action::Connect {
            connection,
            peer: self.name.clone(),
            remote,
            ttl: self.config.ttl,
            transport: self.config.transport.clone(),
        });
    }

    // The end of every turn.

    /// Writes what became due and tells the state.
    fn settle(&mut self, fx: &mut Effects) {
        let resting = matches!(self.connections.initiated, Initiated::Resting);
        if self.config.connect && resting && !self.connections.accepted_serves() {
            // Our attempt failed, or the connection that we rested for is gone without an end to report.
            self.schedule_retry(fx);
        }
        for side in Side::BOTH {
            if let Some(connection) = self.connections.get_mut(side) {
                self.counters.updates_out += connection.write(fx.now, &mut self.seed, fx.actions);
            }
        }
        self.note_state(fx);
    }

    fn live_state(&self) -> PeerState {
        if self.stopped { PeerState::Idle } else { self.connections.state() }
    }

    fn note_state(&mut self, fx: &mut Effects) {
        let (from, to) = (self.state, self.live_state());
        if from != to {
            (self.state, self.since) = (to, fx.now);
            fx.actions.push(Action::StateChanged { peer: self.name.clone(), from, to });
        }
    }
}

/// The fields that a session was negotiated from or made with.
fn resets_session(former: &PeerConfig, now: &PeerConfig) -> bool {
    let PeerConfig {
        remote,
        asn,
        connect: _,
        hold_time,
        connect_retry: _,
        ttl,
        families,
        receive: _,
        session,
        transport,
    } = former;
    (remote, asn, hold_time, ttl, families)
        != (&now.remote, &now.asn, &now.hold_time, &now.ttl, &now.families)
        || transport != &now.transport
        || SessionOptions { heard_limit: None, ..session.clone() }
            != SessionOptions { heard_limit: None, ..now.session.clone() }
}
