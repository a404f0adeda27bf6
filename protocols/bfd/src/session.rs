//! RFC 5880 §6.2: one session. Its state owns what is known of the peer and until when that counts.

use std::time::Duration;

use anyvip_machine::{Complaints, Failure, Seed, Time};
use serde::{Deserialize, Serialize};

use crate::authenticator::Authenticator;
use crate::boundary::{
    Action, Cause, Fact, Former, Negotiated, Role, SessionConfig, SessionName, StateChanged, Wish,
};
use crate::current::{Current, Peer};
use crate::error::Discard;
use crate::status::{Counters, PeerFacts, SessionView};
use crate::timing::{Parameters, Timing};
use crate::wire::{ControlPacket, Diagnostic, Discriminator, State};

/// How long at most a session that is not wanted any more keeps saying so.
const LONGEST_GOODBYE: Duration = Duration::from_secs(10);

/// One session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    name: SessionName,
    discriminator: Discriminator,
    config: SessionConfig,
    current: Current,
    since: Time,
    /// bfd.LocalDiag.
    diagnostic: Diagnostic,
    /// Set while the lease is over.
    leaseless: bool,
    timing: Timing,
    pace: Pace,
    authentication: Option<Authenticator>,
    /// When what the authenticator has heard stops to count.
    forget_sequence: Option<Time>,
    /// It is not wanted any more, and says so until then.
    leaves: Option<Time>,
    /// It was taken over from another program, and the peer has not been heard to be Up since.
    taken_over: bool,
    seed: Seed,
    counters: Counters,
    last_discard: Option<Discard>,
    complaints: Complaints<Discard>,
    cannot_send: Option<Failure>,
    /// Since the last `Send`.
    send_failed: bool,
    negotiated: Option<(Option<Duration>, Duration)>,
}

/// When packets go out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Pace {
    /// The interval that `next` was drawn from.
    interval: Option<Duration>,
    last: Option<Time>,
    next: Option<Time>,
    /// What the last packet said, without P, F and authentication.
    said: Option<ControlPacket>,
}

impl Session {
    pub(crate) fn new(
        now: Time,
        name: SessionName,
        discriminator: Discriminator,
        config: SessionConfig,
        mut seed: Seed,
    ) -> Session {
        let authentication = config.authentication.clone();
        Session {
            name,
            discriminator,
            current: Current::Down { peer: None },
            since: now,
            diagnostic: Diagnostic::NONE,
            leaseless: false,
            timing: Timing::new(parameters(&config)),
            pace: Pace::default(),
            authentication: authentication.map(|with| Authenticator::new(with, &mut seed)),
            forget_sequence: None,
            leaves: None,
            taken_over: false,
            config,
            seed,
            counters: Counters::default(),
            last_discard: None,
            complaints: Complaints::default(),
            cannot_send: None,
            send_failed: false,
            negotiated: None,
        }
    }

    pub(crate) fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// The session's first packet, where it may begin.
    pub(crate) fn start(&mut self, now: Time, leaseless: bool, actions: &mut Vec<Action>) {
        self.leaseless = leaseless;
        self.obey_wish(now, actions);
        self.settle(now, actions);
    }

    /// Goes on where another program was: Up, as the peer believes.
    pub(crate) fn take_over(
        &mut self,
        now: Time,
        former: &Former,
        leaseless: bool,
        actions: &mut Vec<Action>,
    ) {
        self.leaseless = leaseless;
        if let (Some(authentication), Some(sequence)) = (&mut self.authentication, former.sequence) {
            authentication.go_on(sequence);
        }
        let peer = Peer::as_left(former, now);
        self.current = Current::Down { peer: Some(peer) };
        self.taken_over = true;
        self.enter(now, State::Up, Cause::TakenOver, actions);
        self.settle(now, actions);
    }

    /// For a program that takes over from this one; only what is Up at both ends can go on.
    pub(crate) fn former(&self) -> Option<Former> {
        let peer = self.current.peer().filter(|peer| peer.state == State::Up)?;
        let goes_on = self.current.state() == State::Up && self.leaves.is_none();
        (goes_on && !self.config.carries_health).then(|| Former {
            path: self.config.path.clone(),
            discriminator: self.discriminator,
            remote_discriminator: peer.discriminator,
            remote_min_tx: peer.desired_min_tx,
            remote_min_rx: peer.required_min_rx,
            remote_multiplier: peer.multiplier,
            remote_demand: peer.demand,
            sequence: self.authentication.as_ref().map(Authenticator::sequence),
        })
    }

    /// Same path, other wishes. Also brings one back that was leaving.
    pub(crate) fn configure(
        &mut self,
        now: Time,
        config: SessionConfig,
        leaseless: bool,
        actions: &mut Vec<Action>,
    ) {
        let back = self.leaves.take().is_some();
        if !back && self.config == config && self.leaseless == leaseless {
            return;
        }
        if self.config.authentication != config.authentication {
            let with = config.authentication.clone();
            self.authentication = with.map(|with| Authenticator::new(with, &mut self.seed));
            self.forget_sequence = None;
        }
        self.config = config;
        self.leaseless = leaseless;
        self.obey_wish(now, actions);
        let (up, peer_known) = (self.current.state() == State::Up, self.current.peer().is_some());
        self.timing.want(parameters(&self.config), up, peer_known);
        self.retime();
        self.settle(now, actions);
    }

    /// The lease ended or was renewed.
    pub(crate) fn set_leaseless(&mut self, now: Time, leaseless: bool, actions: &mut Vec<Action>) {
        if self.leaseless != leaseless {
            self.leaseless = leaseless;
            self.obey_wish(now, actions);
            self.settle(now, actions);
        }
    }

    /// It is not wanted any more. RFC 5880 §6.8.16: "BFD Control packets SHOULD be transmitted for at least a Detection Time
    /// after transitioning to AdminDown state in order to ensure that the remote system is aware of the state change." One
    /// that carries health says Down instead, which takes the route away.
    pub(crate) fn leave(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.leaves.is_some() {
            return;
        }
        self.config.wish = if self.config.carries_health {
            Wish::HeldDown(Diagnostic::ADMINISTRATIVELY_DOWN)
        } else {
            Wish::AdminDown
        };
        self.obey_wish(now, actions);
        let goodbye = self.interval().map(|interval| interval * u32::from(self.config.multiplier.max(1)));
        let peer_listens = self.current.peer().is_some();
        self.leaves = Some(match goodbye {
            Some(goodbye) if peer_listens => now + goodbye.min(LONGEST_GOODBYE),
            _ => now,
        });
        self.settle(now, actions);
    }

    /// Whether it has said goodbye.
    pub(crate) fn is_gone(&self, now: Time) -> bool {
        self.leaves.is_some_and(|end| end <= now)
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let expires = self.current.peer().map(|peer| peer.expires);
        [self.leaves, expires, self.pace.next, self.forget_sequence].into_iter().flatten().min()
    }

    pub(crate) fn deadline_reached(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.current.peer().is_some_and(|peer| peer.expires <= now) {
            self.lose_peer(now, actions);
        }
        // §6.8.1: bfd.AuthSeqKnown.
        if self.forget_sequence.is_some_and(|end| end <= now) {
            self.forget_sequence = None;
            if let Some(authentication) = &mut self.authentication {
                authentication.forget_heard();
            }
        }
        self.settle(now, actions);
        if self.pace.next.is_some_and(|next| next <= now) {
            self.send(now, false, actions);
        }
    }

    /// RFC 5880 §6.8.4: a detection time without a packet. §6.8.1: bfd.RemoteDiscr becomes 0.
    fn lose_peer(&mut self, now: Time, actions: &mut Vec<Action>) {
        match self.current.state() {
            State::Init | State::Up => {
                self.diagnostic = Diagnostic::CONTROL_DETECTION_TIME_EXPIRED;
                let cause = self.cause_of_loss(Cause::DetectionTimeExpired);
                self.enter(now, State::Down, cause, actions);
                self.current = Current::Down { peer: None };
            }
            State::Down => self.current = Current::Down { peer: None },
            State::AdminDown => self.current = Current::AdminDown { peer: None },
        }
        self.timing.forget_peer();
        self.retime();
    }

    /// The rules of RFC 5880 §6.8.6 from the selection of this session on, in their order.
    ///
    /// # Errors
    /// The rule that says that the packet counts for nothing.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        packet: &ControlPacket,
        bytes: &[u8],
        actions: &mut Vec<Action>,
    ) -> Result<(), Discard> {
        // "If the A bit is set and no authentication is in use (bfd.AuthType is zero), the packet MUST be discarded."
        // "If the A bit is clear and authentication is in use (bfd.AuthType is nonzero), the packet MUST be discarded."
        // "If the A bit is set, the packet MUST be authenticated under the rules of section 6.7."
        match (&mut self.authentication, &packet.authentication) {
            (None, None) => {}
            (None, Some(_)) => return Err(Discard::AuthenticationUnexpected),
            (Some(_), None) => return Err(Discard::AuthenticationMissing),
            (Some(ours), Some(section)) => ours.check(bytes, section, packet.detect_multiplier)?,
        }
        // "Set bfd.RemoteDiscr to the value of My Discriminator." bfd.RemoteSessionState, bfd.RemoteDemandMode,
        // bfd.RemoteMinRxInterval. (The echo function is never in use here.)
        self.current.hear(Peer::heard(packet, now));
        // "If a Poll Sequence is being transmitted by the local system and the Final (F) bit in the received packet is set, the
        // Poll Sequence MUST be terminated."
        let up = self.current.state() == State::Up;
        self.timing.heard(packet.final_, up);
        // "Update the transmit interval as described in section 6.8.2." "Update the Detection Time as described in
        // section 6.8.4."
        self.retime();
        // "If bfd.SessionState is AdminDown: Discard the packet"
        if matches!(self.current, Current::AdminDown { .. }) {
            self.settle(now, actions);
            return Err(Discard::AdminDown);
        }
        self.follow(now, packet, actions);
        self.retime();
        // "If the Poll (P) bit is set, send a BFD Control packet to the remote system with the Poll (P) bit clear, and the
        // Final (F) bit set."
        if packet.poll {
            self.send(now, true, actions);
        }
        // "If the packet was not discarded, it has been received for purposes of the Detection Time expiration rules": `hear`.
        self.counters.received += 1;
        self.settle(now, actions);
        Ok(())
    }

    /// §6.8.6, the state machine.
    fn follow(&mut self, now: Time, packet: &ControlPacket, actions: &mut Vec<Action>) {
        match (self.current.state(), packet.state) {
            // "If received State is AdminDown: If bfd.SessionState is not Down: Set bfd.LocalDiag to 3 (Neighbor signaled
            // session down), set bfd.SessionState to Down."
            (State::Init | State::Up, State::AdminDown) => {
                self.diagnostic = Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN;
                self.enter(now, State::Down, Cause::NeighborAdminDown, actions);
            }
            // "If bfd.SessionState is Down: If received State is Down, set bfd.SessionState to Init. Else if received State
            // is Init, set bfd.SessionState to Up." Not while held down.
            (State::Down, State::Down) if self.held().is_none() => {
                self.enter(now, State::Init, Cause::Handshake, actions);
            }
            (State::Down, State::Init) if self.held().is_none() => {
                self.enter(now, State::Up, Cause::Handshake, actions);
            }
            // "Else if bfd.SessionState is Init: If received State is Init or Up, set bfd.SessionState to Up."
            (State::Init, State::Init | State::Up) => self.enter(now, State::Up, Cause::Handshake, actions),
            // "Else (bfd.SessionState is Up): If received State is Down: Set bfd.LocalDiag to 3 (Neighbor signaled session
            // down), set bfd.SessionState to Down."
            (State::Up, State::Down) => {
                self.diagnostic = Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN;
                let cause = Cause::NeighborSignaledDown { diagnostic: packet.diagnostic };
                self.enter(now, State::Down, self.cause_of_loss(cause), actions);
            }
            (State::Up, State::Up) => self.taken_over = false,
            _ => {}
        }
    }

    /// A peer that was never heard to be Up may have given up the session long before this program began.
    fn cause_of_loss(&self, cause: Cause) -> Cause {
        if self.taken_over { Cause::NotTakenOver } else { cause }
    }

    /// Goes to another state, taking along what is known of the peer.
    fn enter(&mut self, now: Time, to: State, cause: Cause, actions: &mut Vec<Action>) {
        let from = self.current.state();
        let peer_known = self.current.peer().is_some();
        self.current.go_to(to);
        let to = self.current.state();
        if to == State::Up {
            self.diagnostic = Diagnostic::NONE;
        }
        if from == State::Up {
            self.taken_over = false;
            self.counters.lost += 1;
            self.negotiated = None;
        }
        self.since = now;
        self.timing.want(parameters(&self.config), to == State::Up, peer_known);
        self.retime();
        let (session, diagnostic) = (self.name.clone(), self.diagnostic);
        actions.push(Action::Fact(Fact::StateChanged(StateChanged { session, from, to, diagnostic, cause })));
    }

    /// What keeps it down whatever the peer does.
    fn held(&self) -> Option<(Diagnostic, Cause)> {
        match self.config.wish {
            Wish::HeldDown(diagnostic) => Some((diagnostic, Cause::HeldDown)),
            Wish::Up if self.leaseless && self.config.carries_health => {
                Some((Diagnostic::CONCATENATED_PATH_DOWN, Cause::LeaseEnded))
            }
            Wish::Up | Wish::AdminDown => None,
        }
    }

    fn obey_wish(&mut self, now: Time, actions: &mut Vec<Action>) {
        let state = self.current.state();
        if self.config.wish == Wish::AdminDown {
            // §6.8.16
            self.diagnostic = Diagnostic::ADMINISTRATIVELY_DOWN;
            if state != State::AdminDown {
                self.enter(now, State::AdminDown, Cause::AdminDown, actions);
            }
        } else if let Some((diagnostic, cause)) = self.held() {
            self.diagnostic = diagnostic;
            if state != State::Down {
                self.enter(now, State::Down, cause, actions);
            }
        } else if state == State::AdminDown {
            self.diagnostic = Diagnostic::NONE;
            self.enter(now, State::Down, Cause::Enabled, actions);
        }
    }

    /// Where the driver could not send.
    pub(crate) fn send_failed(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        self.send_failed = true;
        if self.cannot_send.as_ref() != Some(&failure) {
            self.cannot_send = Some(failure.clone());
            actions
                .push(Action::Fact(Fact::CannotSend { session: self.name.clone(), failure: Some(failure) }));
        }
    }

    /// Counts a packet that changed nothing; true if that is news.
    pub(crate) fn discarded(&mut self, now: Time, reason: Discard) -> bool {
        self.counters.discarded += 1;
        if reason.is_ordinary() {
            return false;
        }
        self.last_discard = Some(reason);
        self.complaints.is_news(now, reason)
    }

    /// RFC 5880 §6.8.7: what lies between two packets sent by the clock, before jitter.
    fn interval(&self) -> Option<Duration> {
        let Some(peer) = self.current.peer() else {
            // "A system MUST NOT transmit any BFD Control packets if bfd.RemoteDiscr is zero and the system is taking the
            // Passive role." bfd.RemoteMinRxInterval is 1 until known.
            let own = Duration::from_micros(self.timing.in_force().desired_min_tx.into());
            return (self.config.role == Role::Active).then_some(own);
        };
        // "… if Demand mode is active on the remote system (bfd.RemoteDemandMode is 1, bfd.SessionState is Up, and
        // bfd.RemoteSessionState is Up) and a Poll Sequence is not being transmitted."
        let both_up = self.current.state() == State::Up && peer.state == State::Up;
        if peer.demand && both_up && !self.timing.is_polling() {
            return None;
        }
        // "… if bfd.RemoteMinRxInterval is zero."
        let least = self.timing.in_force().desired_min_tx.max(peer.required_min_rx);
        (peer.required_min_rx > 0).then(|| Duration::from_micros(least.into()))
    }

    /// RFC 5880 §6.8.4, asynchronous mode.
    fn detection(&self) -> Option<Duration> {
        let peer = self.current.peer()?;
        let interval = self.timing.in_force().required_min_rx.max(peer.desired_min_tx);
        Some(Duration::from_micros(interval.into()) * u32::from(peer.multiplier))
    }

    /// Brings the deadlines in line with the intervals in force.
    fn retime(&mut self) {
        if let Some(detection) = self.detection()
            && let Some(peer) = self.current.peer_mut()
        {
            peer.expires = peer.heard + detection;
            if self.authentication.as_ref().is_some_and(Authenticator::has_heard) {
                self.forget_sequence = Some(peer.heard + detection * 2);
            }
        }
        // §6.8.3: "the local system MUST honor the new interval immediately. In other words, the local system cannot wait
        // longer than the new interval between the previous packet transmission and the next one."
        let interval = self.interval();
        if self.pace.interval != interval {
            self.pace.interval = interval;
            let last = self.pace.last;
            self.pace.next = interval.and_then(|interval| last.map(|last| last + self.jittered(interval)));
        }
    }

    /// RFC 5880 §6.8.7: "reduced by a random value of 0 to 25%"; with a multiplier of 1 "no more than 90%" and "no less than
    /// 75%".
    fn jittered(&mut self, interval: Duration) -> Duration {
        let most = if self.config.multiplier <= 1 { interval * 9 / 10 } else { interval };
        self.seed.between(interval * 3 / 4, most)
    }

    /// Says at once what is new, and tells what is negotiated.
    fn settle(&mut self, now: Time, actions: &mut Vec<Action>) {
        // §6.8.7: "A BFD Control packet SHOULD be transmitted during the interval between periodic Control packet transmissions
        // when the contents of that packet would differ from that in the previously transmitted packet (other than the Poll
        // and Final bits)".
        let silent = self.config.role == Role::Passive && self.current.peer().is_none();
        if !silent && self.pace.said.as_ref() != Some(&self.packet()) {
            self.send(now, false, actions);
        }
        if self.current.state() == State::Up
            && !self.timing.is_polling()
            && let Some(detection) = self.detection()
        {
            let negotiated = (self.interval(), detection);
            if self.negotiated != Some(negotiated) {
                self.negotiated = Some(negotiated);
                let (session, transmit) = (self.name.clone(), negotiated.0);
                actions.push(Action::Fact(Fact::Negotiated(Negotiated { session, transmit, detection })));
            }
        }
    }

    /// What there is to say, without P and F.
    fn packet(&self) -> ControlPacket {
        let announced = self.timing.announced();
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.current.state(),
            poll: false,
            final_: false,
            // We share the fate of the process that runs the control plane.
            control_plane_independent: false,
            // §6.6: never asked for.
            demand: false,
            detect_multiplier: self.config.multiplier.max(1),
            my_discriminator: self.discriminator,
            your_discriminator: self.current.peer().map(|peer| peer.discriminator),
            desired_min_tx: announced.desired_min_tx,
            required_min_rx: announced.required_min_rx,
            // §6.4: the echo function is not offered.
            required_min_echo_rx: 0,
            authentication: None,
        }
    }

    fn send(&mut self, now: Time, final_: bool, actions: &mut Vec<Action>) {
        if self.cannot_send.is_some() && !self.send_failed {
            self.cannot_send = None;
            actions.push(Action::Fact(Fact::CannotSend { session: self.name.clone(), failure: None }));
        }
        self.send_failed = false;
        let said = self.packet();
        // §6.5: a packet has never both P and F.
        let poll = self.timing.is_polling() && !final_;
        let mut packet = ControlPacket { poll, final_, ..said.clone() };
        let bytes = match &mut self.authentication {
            Some(authentication) => authentication.seal(&mut packet),
            None => packet.encode(),
        };
        self.counters.sent += 1;
        // An answer that says nothing new is "without respect to the transmission timer" and leaves it alone.
        if !final_ || self.pace.said.as_ref() != Some(&said) {
            self.pace.last = Some(now);
            self.pace.interval = self.interval();
            self.pace.next = self.pace.interval.map(|interval| now + self.jittered(interval));
            self.pace.said = Some(said);
        }
        actions.push(Action::Send { session: self.discriminator, bytes });
    }

    pub(crate) fn view(&self) -> SessionView<'_> {
        let micros = |micros: u32| Duration::from_micros(micros.into());
        SessionView {
            name: &self.name,
            path: &self.config.path,
            state: self.current.state(),
            since: self.since,
            diagnostic: self.diagnostic,
            discriminator: self.discriminator,
            peer: self.current.peer().map(|peer| PeerFacts {
                discriminator: peer.discriminator,
                state: peer.state,
                diagnostic: peer.diagnostic,
                desired_min_tx: micros(peer.desired_min_tx),
                required_min_rx: micros(peer.required_min_rx),
                multiplier: peer.multiplier,
                demand: peer.demand,
            }),
            transmit: self.interval(),
            detection: self.detection(),
            polling: self.timing.is_polling(),
            counters: &self.counters,
            last_discard: self.last_discard.as_ref(),
            cannot_send: self.cannot_send.as_ref(),
        }
    }
}

fn parameters(config: &SessionConfig) -> Parameters {
    Parameters::new(config.desired_min_tx, config.required_min_rx)
}
