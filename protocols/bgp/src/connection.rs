//! One TCP connection to a peer, from our OPEN on (RFC 4271 §8.2.2, states OpenSent, OpenConfirm and Established).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyvip_machine::{Seed, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::adj_rib_in::AdjRibIn;
use crate::adj_rib_out::{AdjRibOut, Batch, Origination};
use crate::negotiation::{Continuity, negotiate, offer};
use crate::wire::{AfiSafi, Codec, Family, Framer, Message, Notification, Open, Role, Update};
use crate::{Action, ConnectionId, PeerConfig, PeerState, SessionFacts};

/// RFC 4271 §8.2.2 suggests four minutes for the HoldTimer in OpenSent. A peer on a data-centre link that has not
/// answered an OPEN for half a minute will not, and until then nothing else is tried.
pub(crate) const OPEN_HOLD_TIME: Duration = Duration::from_secs(30);
/// RFC 9687 §3: the SendHoldTimer is the greater of this and twice the hold time.
pub(crate) const LEAST_SEND_HOLD_TIME: Duration = Duration::from_secs(8 * 60);
/// Our own end, the same for all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Local {
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
}

/// A connection that stands. Each state owns its deadlines and what was negotiated so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    framer: Framer,
    writing: Writing,
    /// Small messages that go out with the next `Send`.
    owed: Owed,
}

#[expect(clippy::large_enum_variant, reason = "two for each peer at most, and for a moment")]
#[derive(Clone, Debug, Serialize, Deserialize)]
enum State {
    OpenSent {
        hold_timer: Time,
    },
    /// `give_up` bounds the wait for the KEEPALIVE also where no hold time was negotiated.
    OpenConfirm {
        facts: SessionFacts,
        timers: Option<Timers>,
        give_up: Time,
    },
    Established(Box<Session>),
}

/// What only an Established connection has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) facts: SessionFacts,
    pub(crate) since: Time,
    timers: Option<Timers>,
    /// How to read: without the families that were switched off for this session (RFC 7606 §2).
    reading: Codec,
    pub(crate) adj_rib_out: AdjRibOut,
    pub(crate) adj_rib_in: AdjRibIn,
}

/// HoldTimer and KeepaliveTimer; absent where a hold time of zero was negotiated.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Timers {
    hold_time: Duration,
    hold_timer: Time,
    keepalive_timer: Time,
}

/// At most one `Send` is in flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Writing {
    Nothing,
    InFlight { send_hold_timer: Time, announced: Vec<IpNet>, withdrawn: Vec<IpNet> },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Owed {
    open: Option<Open>,
    keepalive: bool,
    /// ROUTE-REFRESH to ask for.
    refresh: BTreeSet<Family>,
}

/// What a message means to the peer's state machine.
#[expect(clippy::large_enum_variant, reason = "dealt with where it was heard, and never kept")]
#[derive(Debug)]
pub(crate) enum Heard {
    /// This connection has dealt with it: KEEPALIVE, ROUTE-REFRESH.
    Nothing,
    /// The OPEN is acceptable; the connection is in OpenConfirm. Settle a collision, then `keep_alive`.
    Open,
    /// The first KEEPALIVE: the connection is Established.
    Established,
    Update(Update),
    /// Nothing more will be read; end it for this reason.
    End(Ending),
}

/// How a connection ends, apart from the driver saying so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    Say(Notification),
    PeerSaid(Notification),
    SendHoldTimerExpired,
}

impl Connection {
    /// A connection that has just been made, with our OPEN to be sent (RFC 4271 §8.2.2, Event 16 and 17).
    pub(crate) fn new(
        now: Time,
        id: ConnectionId,
        (local, remote): (SocketAddr, SocketAddr),
        ours: Local,
        config: &PeerConfig,
        continuity: Continuity,
    ) -> Connection {
        Connection {
            id,
            local,
            remote,
            state: State::OpenSent { hold_timer: now + OPEN_HOLD_TIME },
            framer: Framer::default(),
            writing: Writing::Nothing,
            owed: Owed { open: Some(offer(ours, config, continuity)), ..Owed::default() },
        }
    }

    pub(crate) fn state(&self) -> PeerState {
        match self.state {
            State::OpenSent { .. } => PeerState::OpenSent,
            State::OpenConfirm { .. } => PeerState::OpenConfirm,
            State::Established(_) => PeerState::Established,
        }
    }

    /// What was negotiated, from OpenConfirm on.
    pub(crate) fn facts(&self) -> Option<&SessionFacts> {
        match &self.state {
            State::OpenSent { .. } => None,
            State::OpenConfirm { facts, .. } => Some(facts),
            State::Established(session) => Some(&session.facts),
        }
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Established(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Established(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let send_hold_timer = match &self.writing {
            Writing::Nothing => None,
            Writing::InFlight { send_hold_timer, .. } => Some(*send_hold_timer),
        };
        let state = match &self.state {
            State::OpenSent { hold_timer } => Some(*hold_timer),
            State::OpenConfirm { timers, give_up, .. } => {
                Some(timers.as_ref().map_or(*give_up, |timers| timers.first().min(*give_up)))
            }
            State::Established(session) => session.timers.as_ref().map(Timers::first),
        };
        [send_hold_timer, state].into_iter().flatten().min()
    }

    /// Lets time act.
    pub(crate) fn deadline_reached(&mut self, now: Time, seed: &mut Seed) -> Option<Ending> {
        if let Writing::InFlight { send_hold_timer, .. } = self.writing
            && send_hold_timer <= now
        {
            return Some(Ending::SendHoldTimerExpired);
        }
        let expired = Some(Ending::Say(Notification::hold_timer_expired()));
        match self.state {
            State::OpenSent { hold_timer: last } | State::OpenConfirm { give_up: last, .. }
                if last <= now =>
            {
                return expired;
            }
            _ => {}
        }
        let timers = self.timers()?;
        if timers.hold_timer <= now {
            return expired;
        }
        if timers.keepalive_timer <= now {
            timers.restart_keepalive(now, seed);
            self.owed.keepalive = true;
        }
        None
    }

    /// Takes bytes; then call `next` until `None`.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// The next message, already applied to this connection's own state.
    pub(crate) fn next(
        &mut self,
        now: Time,
        ours: Local,
        config: &PeerConfig,
        seed: &mut Seed,
    ) -> Option<Heard> {
        let extended_messages = self.facts().is_some_and(|facts| facts.extended_messages);
        let decoded = self.framer.next_frame()?.and_then(|frame| match &self.state {
            State::Established(session) => Message::decode(&frame, &session.reading),
            _ => Message::decode(&frame, &Codec { extended_messages, ..Codec::before_open() }),
        });
        let message = match decoded {
            Ok(message) => message,
            Err(notification) => return Some(Heard::End(Ending::Say(notification))),
        };
        Some(self.hear(now, message, ours, config, seed).unwrap_or_else(Heard::End))
    }

    fn hear(
        &mut self,
        now: Time,
        message: Message,
        ours: Local,
        config: &PeerConfig,
        seed: &mut Seed,
    ) -> Result<Heard, Ending> {
        match (&mut self.state, message) {
            (_, Message::Notification(notification)) => Err(Ending::PeerSaid(notification)),
            (State::OpenSent { .. }, Message::Open(open)) => {
                let facts = negotiate(&open, ours, config, self.local, self.remote).map_err(Ending::Say)?;
                let timers = facts.hold_time.map(|hold_time| Timers::start(now, hold_time, seed));
                let give_up = now + facts.hold_time.unwrap_or(OPEN_HOLD_TIME);
                if facts.extended_messages {
                    self.framer.allow_extended();
                }
                self.state = State::OpenConfirm { facts, timers, give_up };
                Ok(Heard::Open)
            }
            (State::OpenConfirm { facts, timers, .. }, Message::Keepalive) => {
                let mut timers = timers.take();
                if let Some(timers) = &mut timers {
                    timers.restart_hold(now);
                }
                let external = config.asn != ours.asn;
                let codec = Codec {
                    external,
                    four_octet_as: facts.four_octet_as,
                    families: facts.families.clone(),
                    extended_next_hop: facts.extended_next_hop.clone(),
                    add_path: facts.add_path.clone(),
                    extended_messages: facts.extended_messages,
                };
                let role = config.session.role.filter(|_| external);
                let only_to_customer = role.is_some_and(Role::tells_only_to_customer);
                let origination = Origination { asn: ours.asn, external, only_to_customer };
                self.state = State::Established(Box::new(Session {
                    facts: facts.clone(),
                    since: now,
                    timers,
                    reading: codec.clone(),
                    adj_rib_out: AdjRibOut::new(origination, codec),
                    adj_rib_in: AdjRibIn::new(config.receive.clone(), ours.asn),
                }));
                Ok(Heard::Established)
            }
            (State::Established(session), Message::Keepalive) => {
                session.restart_hold(now);
                Ok(Heard::Nothing)
            }
            (State::Established(session), Message::Update(update)) => {
                session.restart_hold(now);
                Ok(Heard::Update(update))
            }
            (State::Established(session), Message::RouteRefresh { family, subtype: 0 }) => {
                // RFC 2918 §4: what was not negotiated is ignored.
                if let Some(family) = family.family().filter(|family| session.facts.families.contains(family))
                {
                    let marked = session.facts.enhanced_route_refresh;
                    session.adj_rib_out.refresh(family, marked);
                }
                Ok(Heard::Nothing)
            }
            // RFC 7313 §4: the marks of an answer to us. Each route in it replaces the former one; what is gone was withdrawn.
            (State::Established(_), Message::RouteRefresh { .. }) => Ok(Heard::Nothing),
            // RFC 4271 §6.6 with the subcodes of RFC 6608.
            (state, _) => Err(Ending::Say(Notification::fsm_error(match state {
                State::OpenSent { .. } => Notification::UNEXPECTED_IN_OPEN_SENT,
                State::OpenConfirm { .. } => Notification::UNEXPECTED_IN_OPEN_CONFIRM,
                State::Established(_) => Notification::UNEXPECTED_IN_ESTABLISHED,
            }))),
        }
    }

    /// Sends a KEEPALIVE with the next write: the answer to an OPEN that stands, or a question to a silent peer.
    pub(crate) fn keep_alive(&mut self) {
        self.owed.keepalive = true;
    }

    /// Asks the peer for its routes again, if it can answer.
    pub(crate) fn ask_again(&mut self) {
        if let State::Established(session) = &self.state
            && session.facts.route_refresh
        {
            self.owed.refresh.extend(session.reading.families.iter().copied());
        }
    }

    /// The kernel took the last `Send`: what it told the peer.
    pub(crate) fn sent(&mut self) -> (Vec<IpNet>, Vec<IpNet>) {
        match std::mem::replace(&mut self.writing, Writing::Nothing) {
            Writing::InFlight { announced, withdrawn, .. } => (announced, withdrawn),
            Writing::Nothing => (Vec::new(), Vec::new()),
        }
    }

    /// Writes what there is to write, unless a `Send` is in flight. Returns how many UPDATEs that were.
    pub(crate) fn write(&mut self, now: Time, seed: &mut Seed, actions: &mut Vec<Action>) -> u64 {
        if matches!(self.writing, Writing::InFlight { .. }) {
            return 0;
        }
        let mut batch = Batch::default();
        let codec = Codec::before_open();
        let owed = std::mem::take(&mut self.owed);
        if let Some(open) = owed.open {
            batch.bytes.extend(Message::Open(open).encode(&codec));
        }
        if owed.keepalive {
            batch.bytes.extend(Message::Keepalive.encode(&codec));
        }
        for family in owed.refresh {
            let refresh = Message::RouteRefresh { family: AfiSafi::from(family), subtype: 0 };
            batch.bytes.extend(refresh.encode(&codec));
        }
        if let State::Established(session) = &mut self.state {
            session.adj_rib_out.fill(&mut batch);
        }
        if batch.bytes.is_empty() {
            return 0;
        }
        // RFC 4271 §8.2.2: an UPDATE counts as a KEEPALIVE.
        if (batch.updates > 0 || owed.keepalive)
            && let Some(timers) = self.timers()
        {
            timers.restart_keepalive(now, seed);
        }
        let send_hold_timer = now + self.send_hold_time();
        let Batch { bytes, updates, announced, withdrawn } = batch;
        self.writing = Writing::InFlight { send_hold_timer, announced, withdrawn };
        actions.push(Action::Send { connection: self.id, bytes });
        updates
    }

    /// Whether a last message has to wait for `Sent`.
    pub(crate) fn is_writing(&self) -> bool {
        matches!(self.writing, Writing::InFlight { .. })
    }

    /// RFC 9687 §3.
    fn send_hold_time(&self) -> Duration {
        let hold_time = self.facts().and_then(|facts| facts.hold_time).unwrap_or_default();
        LEAST_SEND_HOLD_TIME.max(2 * hold_time)
    }

    fn timers(&mut self) -> Option<&mut Timers> {
        match &mut self.state {
            State::OpenSent { .. } => None,
            State::OpenConfirm { timers, .. } => timers.as_mut(),
            State::Established(session) => session.timers.as_mut(),
        }
    }
}

impl Session {
    fn restart_hold(&mut self, now: Time) {
        if let Some(timers) = &mut self.timers {
            timers.restart_hold(now);
        }
    }

    /// RFC 4724 §4.1: a peer that keeps nothing of ours has nothing to wait for.
    pub(crate) fn hold_end_of_rib(&mut self, waits: bool) {
        self.adj_rib_out.hold_end_of_rib(waits && self.facts.graceful_restart.is_some());
    }

    /// RFC 7606 §2, "AFI/SAFI disable": for the rest of this session nothing of the family is read.
    pub(crate) fn disable(&mut self, family: Family) {
        self.reading.families.remove(&family);
    }
}

impl Timers {
    fn start(now: Time, hold_time: Duration, seed: &mut Seed) -> Timers {
        let mut timers = Timers { hold_time, hold_timer: now + hold_time, keepalive_timer: now };
        timers.restart_keepalive(now, seed);
        timers
    }

    fn first(&self) -> Time {
        self.hold_timer.min(self.keepalive_timer)
    }

    fn restart_hold(&mut self, now: Time) {
        self.hold_timer = now + self.hold_time;
    }

    /// RFC 4271 §4.4 and §10: a third of the hold time, less a jitter of up to a quarter.
    fn restart_keepalive(&mut self, now: Time, seed: &mut Seed) {
        let third = self.hold_time / 3;
        self.keepalive_timer = now + seed.between(third * 3 / 4, third);
    }
}
