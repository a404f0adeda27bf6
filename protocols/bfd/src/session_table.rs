//! The machine: all sessions, which one a packet is for, and the lease.

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_machine::{Agenda, Complaints, Seed, Time};
use serde::{Deserialize, Serialize};

use crate::boundary::{Action, Arrival, Event, Fact, Former, Hops, SessionConfig, SessionName, Wish};
use crate::error::Discard;
use crate::session::Session;
use crate::status::SessionView;
use crate::wire::{ControlPacket, Discriminator, State};

/// A session of the program before this one that is wanted later than that has ended at the peer, too.
const FORMER_LIFE: Duration = Duration::from_secs(3);

/// All BFD sessions of one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionTable {
    seed: Seed,
    sessions: BTreeMap<Discriminator, Session>,
    names: BTreeMap<SessionName, Discriminator>,
    agenda: Agenda<Discriminator>,
    lease: Lease,
    /// Sessions of the program before this one, and until when their peers may still wait.
    former: BTreeMap<SessionName, Former>,
    former_until: Option<Time>,
    /// Packets for no session.
    strays: u64,
    complaints: Complaints<Discard>,
}

/// Until when [`Event::Wanted`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Lease {
    Endless,
    Until(Time),
    Ended,
}

impl SessionTable {
    /// A table without sessions. The seed decides discriminators, sequence numbers and jitter.
    pub fn new(seed: Seed) -> SessionTable {
        SessionTable::taking_over(seed, BTreeMap::new())
    }

    /// A table without sessions that goes on with these as soon as they are wanted, by the same name and over the same path.
    pub fn taking_over(seed: Seed, former: BTreeMap<SessionName, Former>) -> SessionTable {
        SessionTable {
            former,
            former_until: None,
            seed,
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            agenda: Agenda::new(),
            lease: Lease::Endless,
            strays: 0,
            complaints: Complaints::default(),
        }
    }

    /// Takes an event and gives back what to do, in this order.
    #[must_use]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::DeadlineReached => self.deadline_reached(now, &mut actions),
            Event::Wanted { sessions, lease } => self.want(now, sessions, lease, &mut actions),
            Event::Received { arrival, bytes } => self.receive(now, &arrival, &bytes, &mut actions),
            Event::SendFailed { session, failure } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.send_failed(failure, &mut actions);
                }
            }
        }
        actions
    }

    /// When to call `handle` with [`Event::DeadlineReached`].
    pub fn next_deadline(&self) -> Option<Time> {
        let lease = match self.lease {
            Lease::Until(end) => Some(end),
            Lease::Endless | Lease::Ended => None,
        };
        [self.agenda.first(), lease].into_iter().flatten().min()
    }

    /// All sessions by name, also those that say goodbye.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.names.values().filter_map(|session| self.sessions.get(session)).map(Session::view)
    }

    /// The session of this name.
    pub fn session(&self, name: &SessionName) -> Option<SessionView<'_>> {
        self.names.get(name).and_then(|session| self.sessions.get(session)).map(Session::view)
    }

    /// Packets that were for no session.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Whether there is nothing to do: no session, also none that says goodbye.
    pub fn is_silent(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What a program that takes over from this one needs. Sessions that carry health are not among them: while nobody decides on
    /// health, they must not look well.
    pub fn hand_over(&self) -> BTreeMap<SessionName, Former> {
        let former = |(name, session): (&SessionName, &Discriminator)| {
            Some((name.clone(), self.sessions.get(session)?.former()?))
        };
        self.names.iter().filter_map(former).collect()
    }

    fn deadline_reached(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Lease::Until(end) = self.lease
            && end <= now
        {
            self.lease = Lease::Ended;
            self.for_each(now, actions, |session, actions| session.set_leaseless(now, true, actions));
        }
        let mut due = Vec::new();
        while let Some(session) = self.agenda.due(now) {
            due.push(session);
        }
        for session in due {
            self.with(now, session, actions, |session, actions| session.deadline_reached(now, actions));
            let overdue = self.agenda.deadline(&session).is_some_and(|next| next <= now);
            debug_assert!(!overdue, "{session:?} makes no progress");
        }
        debug_assert!(self.next_deadline().is_none_or(|next| next > now), "a deadline was left overdue");
    }

    fn want(
        &mut self,
        now: Time,
        wanted: BTreeMap<SessionName, SessionConfig>,
        lease: Option<Time>,
        actions: &mut Vec<Action>,
    ) {
        self.lease = match (self.lease, lease) {
            (_, None) => Lease::Endless,
            // A message that was long under way brings no lease back.
            (Lease::Ended, Some(end)) if end <= now => Lease::Ended,
            (_, Some(end)) => Lease::Until(end),
        };
        let leaseless = self.lease == Lease::Ended;
        let former_until = *self.former_until.get_or_insert(now + FORMER_LIFE);
        if former_until < now {
            self.former.clear();
        }
        let known: Vec<_> = self.names.iter().map(|(name, session)| (name.clone(), *session)).collect();
        for (name, session) in known {
            let former = self.sessions.get(&session).map(Session::config);
            match wanted.get(&name) {
                None => self.with(now, session, actions, |session, actions| session.leave(now, actions)),
                // Another path is another session; the old path is left without a word, as its peer may not be there any
                // more and the new session may have the same.
                Some(config) if former.is_none_or(|former| former.path != config.path) => {
                    self.remove(session, actions);
                }
                Some(_) => {}
            }
        }
        for (name, config) in wanted {
            match self.names.get(&name) {
                Some(session) => {
                    self.with(now, *session, actions, |session, actions| {
                        session.configure(now, config, leaseless, actions);
                    });
                }
                None => self.open(now, name, config, leaseless, actions),
            }
        }
    }

    fn open(
        &mut self,
        now: Time,
        name: SessionName,
        config: SessionConfig,
        leaseless: bool,
        actions: &mut Vec<Action>,
    ) {
        let continues = |former: &Former| {
            former.path == config.path
                && config.wish == Wish::Up
                && !config.carries_health
                && !self.sessions.contains_key(&former.discriminator)
        };
        let former = self.former.get(&name).filter(|former| continues(former)).cloned();
        let discriminator = match &former {
            Some(former) => former.discriminator,
            None => self.unused_discriminator(),
        };
        // By name and discriminator, so that a session that comes again does not repeat itself.
        let seed = self.seed.child(&format!("{name} {}", discriminator.get()));
        actions.push(Action::Open { session: discriminator, path: config.path.clone() });
        self.names.insert(name.clone(), discriminator);
        self.sessions.insert(discriminator, Session::new(now, name, discriminator, config, seed));
        self.with(now, discriminator, actions, |session, actions| match &former {
            Some(former) => session.take_over(now, former, leaseless, actions),
            None => session.start(now, leaseless, actions),
        });
    }

    /// RFC 5880 §6.8.1: "It MUST be unique across all BFD sessions on this system, and nonzero. It SHOULD be set to a random
    /// (but still unique) value to improve security."
    fn unused_discriminator(&mut self) -> Discriminator {
        loop {
            let number = u32::try_from(self.seed.below(1 << 32)).unwrap_or(0);
            if let Some(discriminator) = Discriminator::new(number)
                && !self.sessions.contains_key(&discriminator)
            {
                return discriminator;
            }
        }
    }

    /// RFC 5880 §6.8.6 up to the selection of the session; the session goes on from there.
    fn receive(&mut self, now: Time, arrival: &Arrival, bytes: &[u8], actions: &mut Vec<Action>) {
        let (session, packet) = match self.select(arrival, bytes) {
            Ok(selected) => selected,
            Err((session, reason)) => return self.discard(now, session, arrival, reason, actions),
        };
        let mut result = Ok(());
        self.with(now, session, actions, |session, actions| {
            result = session.receive(now, &packet, bytes, actions);
        });
        if let Err(reason) = result {
            self.discard(now, Some(session), arrival, reason, actions);
        }
    }

    fn select(
        &self,
        arrival: &Arrival,
        bytes: &[u8],
    ) -> Result<(Discriminator, ControlPacket), (Option<Discriminator>, Discard)> {
        // RFC 5881 §5: "If BFD authentication is not in use on a session, all BFD Control packets for the session … MUST be
        // discarded" without 255. With authentication they may be too, and are.
        if !arrival.multihop && arrival.ttl != Some(255) {
            return Err((self.at(arrival), Discard::NotFromThisLink { ttl: arrival.ttl }));
        }
        let packet = ControlPacket::decode(bytes).map_err(|reason| (self.at(arrival), reason))?;
        let session = match packet.your_discriminator {
            // "If the Your Discriminator field is nonzero, it MUST be used to select the session with which this BFD packet
            // is associated. If no session is found, the packet MUST be discarded."
            Some(yours) if self.sessions.contains_key(&yours) => yours,
            Some(yours) => {
                let reason = Discard::UnknownDiscriminator { discriminator: yours.get() };
                return Err((self.at(arrival), reason));
            }
            // "If the Your Discriminator field is zero and the State field is not Down or AdminDown, the packet MUST be
            // discarded." "If the Your Discriminator field is zero, the session MUST be selected based on some combination
            // of other fields … If a matching session is not found, a new session MAY be created, or the packet MAY be
            // discarded."
            None if matches!(packet.state, State::Init | State::Up) => {
                return Err((self.at(arrival), Discard::DiscriminatorMissing { state: packet.state }));
            }
            None => self.at(arrival).ok_or((None, Discard::NoSession))?,
        };
        let hops = self.sessions.get(&session).map(|session| session.config().path.hops);
        match hops {
            Some(Hops::Single) if !arrival.multihop => {}
            Some(Hops::Multi { min_ttl }) if arrival.multihop => {
                if arrival.ttl.is_none_or(|ttl| ttl < min_ttl) {
                    let reason = Discard::TooFar { ttl: arrival.ttl, minimum: min_ttl };
                    return Err((Some(session), reason));
                }
            }
            _ => return Err((Some(session), Discard::OtherKind)),
        }
        Ok((session, packet))
    }

    /// The session with this neighbour: RFC 5881 §3 by interface and address, RFC 5883 §3 by both addresses.
    fn at(&self, arrival: &Arrival) -> Option<Discriminator> {
        let fits = |(_, session): &(&Discriminator, &Session)| {
            let path = &session.config().path;
            path.remote == arrival.remote
                && matches!(path.hops, Hops::Multi { .. }) == arrival.multihop
                && path.local.is_none_or(|local| local == arrival.local)
                && (path.interface.is_none() || path.interface == arrival.interface)
        };
        self.sessions.iter().find(fits).map(|(discriminator, _)| *discriminator)
    }

    fn discard(
        &mut self,
        now: Time,
        session: Option<Discriminator>,
        arrival: &Arrival,
        reason: Discard,
        actions: &mut Vec<Action>,
    ) {
        let owner = session.and_then(|session| self.sessions.get_mut(&session));
        let (name, news) = match owner {
            Some(session) => (Some(session.view().name.clone()), session.discarded(now, reason)),
            None => {
                self.strays += 1;
                (None, self.complaints.is_news(now, reason))
            }
        };
        if news {
            actions.push(Action::Fact(Fact::Discarded { session: name, remote: arrival.remote, reason }));
        }
    }

    fn for_each(
        &mut self,
        now: Time,
        actions: &mut Vec<Action>,
        mut act: impl FnMut(&mut Session, &mut Vec<Action>),
    ) {
        let all: Vec<Discriminator> = self.sessions.keys().copied().collect();
        for session in all {
            self.with(now, session, actions, &mut act);
        }
    }

    /// Lets one session act, and writes down when it is due next.
    fn with(
        &mut self,
        now: Time,
        discriminator: Discriminator,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut Session, &mut Vec<Action>),
    ) {
        let Some(session) = self.sessions.get_mut(&discriminator) else { return };
        act(session, actions);
        if session.is_gone(now) {
            self.remove(discriminator, actions);
        } else {
            let next = session.next_deadline();
            self.agenda.set(discriminator, next);
        }
    }

    fn remove(&mut self, discriminator: Discriminator, actions: &mut Vec<Action>) {
        self.sessions.remove(&discriminator);
        self.names.retain(|_, session| *session != discriminator);
        self.agenda.set(discriminator, None);
        actions.push(Action::Close { session: discriminator });
    }
}
