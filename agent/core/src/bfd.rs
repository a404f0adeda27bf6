//! The agent's side of BFD: what it wants of the sessions, which run elsewhere, and what it knows of them.
//!
//! A session that guards a BGP peer is wanted Up; its failure closes the BGP session at once (RFC 5882 §4.2, RFC 9384). A session
//! with a static peer carries the health of a service: wanted Up while every VIP of it may be announced, else held Down, which
//! takes the router's static route away (AdminDown would not, RFC 5882 §3.2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bfd::boundary::Path;
use anyvip_bfd::{
    Authentication, Diagnostic, Fact as BfdFact, Hops, Role, Secret, SessionConfig, SessionName, State,
    StateChanged, Wish,
};
use anyvip_bgp::PeerName;
use anyvip_machine::{Failure, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::boundary::{Action, Fact, Reason, ServiceName};
use crate::config::{Bfd, BfdAuthentication, Config};
use crate::status::{BfdStatus, PeerStatus, VipPeerStatus};

/// How long a wish counts without being renewed. A main loop that stands still for two seconds flaps nothing; one that stands
/// still for five does not look healthy any more.
const LEASE: Duration = Duration::from_secs(4);
/// Between packets while another program takes over: the peer waits for `multiplier` of them.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(1);
/// Refused packets that were told of so long ago do not come any more.
const STALE: Duration = Duration::from_secs(70);

/// What is known of the sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BfdView {
    sessions: BTreeMap<SessionName, Session>,
    wanted: BTreeMap<SessionName, SessionConfig>,
    renewal: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    state: State,
    since: Time,
    /// Between our packets, and until the peer counts as gone; while Up.
    negotiated: Option<(Option<Duration>, Duration)>,
    /// Why it went down last, and when.
    last_down: Option<(String, Time)>,
    trouble: Option<Trouble>,
}

impl Session {
    fn new(now: Time) -> Session {
        Session { state: State::Down, since: now, negotiated: None, last_down: None, trouble: None }
    }
}

/// What is wrong with the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Trouble {
    text: String,
    at: Time,
    /// Its end is told. Of packets that are refused it is not: those that still come are told of each minute.
    ends: bool,
}

impl BfdView {
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.renewal
    }

    fn state(&self, session: &SessionName) -> State {
        self.sessions.get(session).map_or(State::Down, |session| session.state)
    }
}

/// Sessions are told apart by where they go: two peers at one address share one.
fn session_name(address: IpAddr, interface: Option<&str>) -> SessionName {
    SessionName(match interface {
        Some(interface) => format!("{address}%{interface}"),
        None => address.to_string(),
    })
}

fn session(
    address: IpAddr,
    interface: Option<String>,
    bfd: &Bfd,
    wish: Wish,
    carries_health: bool,
) -> SessionConfig {
    let hops = bfd.min_ttl.map_or(Hops::Single, |min_ttl| Hops::Multi { min_ttl });
    SessionConfig {
        path: Path { remote: address, local: None, interface, hops },
        role: Role::Active,
        wish,
        carries_health,
        desired_min_tx: bfd.interval,
        required_min_rx: bfd.interval,
        multiplier: bfd.multiplier,
        authentication: bfd.authentication.as_ref().map(|how| Authentication {
            kind: how.kind,
            key_id: how.key_id,
            // The driver puts it in: a key is in no configuration, recording or state.
            key: Secret::new(""),
        }),
    }
}

/// A session that guards a BGP peer, sending no more often than `pause` for a while.
fn guard(address: IpAddr, interface: Option<String>, bfd: &Bfd, pause: Option<Duration>) -> SessionConfig {
    let plain = session(address, interface, bfd, Wish::Up, false);
    SessionConfig { desired_min_tx: bfd.interval.max(pause.unwrap_or_default()), ..plain }
}

impl Config {
    /// The files with the keys of BFD sessions, each with the path of the key that names it.
    pub fn bfd_keys(&self) -> BTreeMap<SessionName, (String, &BfdAuthentication)> {
        let guards = self.bgp.bfd.iter().filter_map(|(name, bfd)| {
            let remote = &self.bgp.peers.get(name)?.remote;
            let session = match remote.address() {
                Some(address) => session_name(address, remote.interface()),
                // Whoever is at the end of that link.
                None => SessionName(format!("%{}", remote.interface()?)),
            };
            Some((session, format!("bgp.peer.{name}.bfd.key_file"), bfd))
        });
        let statics = self.statics.iter().map(|(name, peer)| {
            let session = session_name(peer.address, peer.interface.as_deref());
            (session, format!("static.peer.{name}.key_file"), &peer.bfd)
        });
        let mut keys = BTreeMap::new();
        for (session, path, bfd) in guards.chain(statics) {
            if let Some(authentication) = &bfd.authentication {
                keys.entry(session).or_insert((path, authentication));
            }
        }
        keys
    }
}

impl Agent {
    /// All sessions that there shall be.
    fn bfd_sessions(&self) -> BTreeMap<SessionName, SessionConfig> {
        let mut sessions = BTreeMap::new();
        // The program that takes over needs longer than a detection time; the peer is asked for patience first.
        let pause = self.upgrade.is_under_way().then_some(PATIENCE);
        for (name, bfd) in &self.config.bgp.bfd {
            // Until somebody is known at the other end of a link there is nothing to watch.
            let Some(remote) = self.remote_of(name).and_then(|remote| remote.endpoint()) else { continue };
            let key = session_name(remote.address, remote.interface.as_deref());
            sessions.entry(key).or_insert_with(|| guard(remote.address, remote.interface, bfd, pause));
        }
        for (name, peer) in &self.config.statics {
            // One that no service names has no health to carry.
            if !self.config.services.values().any(|service| service.statics.contains(name)) {
                continue;
            }
            let wish = match self.static_reason(name) {
                None => Wish::Up,
                Some(_) => Wish::HeldDown(Diagnostic::CONCATENATED_PATH_DOWN),
            };
            let key = session_name(peer.address, peer.interface.as_deref());
            sessions.insert(key, session(peer.address, peer.interface.clone(), &peer.bfd, wish, true));
        }
        sessions
    }

    /// Why the service of this static peer is not offered.
    fn static_reason(&self, name: &PeerName) -> Option<Reason> {
        let mut services = self.config.services.iter().filter(|(_, service)| service.statics.contains(name));
        // Validation has refused a second one; one that nobody names carries no health that could be good.
        let Some((service, _)) = services.next() else { return Some(Reason::NotYetChecked) };
        self.not_offered(service)
    }

    fn session_of(&self, peer: &PeerName) -> Option<SessionName> {
        if self.config.bgp.bfd.contains_key(peer) {
            let remote = self.remote_of(peer)?.endpoint()?;
            return Some(session_name(remote.address, remote.interface.as_deref()));
        }
        let peer = self.config.statics.get(peer)?;
        Some(session_name(peer.address, peer.interface.as_deref()))
    }

    /// Sends the wishes if they changed.
    pub(crate) fn want_bfd(&mut self, now: Time, out: &mut Vec<Action>) {
        let sessions = self.bfd_sessions();
        if self.bfd.wanted != sessions {
            self.bfd.sessions.retain(|name, _| sessions.contains_key(name));
            for name in sessions.keys() {
                self.bfd.sessions.entry(name.clone()).or_insert_with(|| Session::new(now));
            }
            self.bfd.wanted = sessions;
            self.send_bfd(now, out);
        }
    }

    /// Renews the lease when it is time.
    pub(crate) fn renew_bfd(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.bfd.renewal.is_some_and(|at| at <= now) {
            self.send_bfd(now, out);
        }
    }

    fn send_bfd(&mut self, now: Time, out: &mut Vec<Action>) {
        // Without sessions nobody has to wake up each second.
        let any = !self.bfd.wanted.is_empty();
        self.bfd.renewal = any.then(|| now + RENEWAL);
        out.push(Action::BfdWanted { sessions: self.bfd.wanted.clone(), lease: any.then(|| now + LEASE) });
    }

    /// A fact of the sessions.
    pub(crate) fn hear_bfd(&mut self, now: Time, fact: BfdFact, out: &mut Vec<Action>) {
        let session = match &fact {
            BfdFact::StateChanged(StateChanged { session, .. }) | BfdFact::CannotSend { session, .. } => {
                Some(session)
            }
            BfdFact::Negotiated(negotiated) => Some(&negotiated.session),
            BfdFact::Discarded { session, .. } => session.as_ref(),
        };
        let owners: Vec<PeerName> = match session {
            // The last words of a session that is not wanted any more are nobody's.
            Some(session) if !self.bfd.wanted.contains_key(session) => return,
            Some(session) => self
                .config
                .bgp
                .bfd
                .keys()
                .chain(self.config.statics.keys())
                .filter(|peer| self.session_of(peer).as_ref() == Some(session))
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        if let Some(session) = session {
            let known = self.bfd.sessions.entry(session.clone()).or_insert_with(|| Session::new(now));
            match &fact {
                BfdFact::StateChanged(change) => {
                    (known.state, known.since) = (change.to, now);
                    if change.from == State::Up {
                        known.negotiated = None;
                        known.last_down = Some((change.cause.to_string(), now));
                    }
                    if change.to == State::Up {
                        known.trouble = None;
                    }
                }
                BfdFact::Negotiated(negotiated) => {
                    known.negotiated = Some((negotiated.transmit, negotiated.detection));
                }
                BfdFact::Discarded { reason, .. } => {
                    let text = format!("a packet was refused: {reason}");
                    known.trouble = Some(Trouble { text, at: now, ends: false });
                }
                BfdFact::CannotSend { failure, .. } => {
                    let told =
                        |failure: &Failure| Trouble { text: failure.text.clone(), at: now, ends: true };
                    known.trouble = failure.as_ref().map(told);
                }
            }
        }
        let failed = matches!(&fact, BfdFact::StateChanged(change) if change.is_failure());
        self.touched |= matches!(fact, BfdFact::StateChanged(_)) || self.upgrade.is_under_way();
        if !matches!(fact, BfdFact::Negotiated(_)) {
            out.push(Action::Record(Fact::Bfd { peers: owners.clone(), fact }));
        }
        if failed {
            for peer in owners {
                // A static peer has no BGP session that could be closed.
                if self.config.bgp.bfd.contains_key(&peer) {
                    self.tell_speaker(now, anyvip_bgp::Event::PathDown { peer }, out);
                }
            }
        }
    }

    /// Whether BFD lets this BGP peer be told anything.
    pub(crate) fn bfd_lets(&self, peer: &PeerName) -> bool {
        let strict = self.config.bgp.bfd.get(peer).is_some_and(|bfd| bfd.strict);
        !strict || self.bfd_state(peer) == State::Up
    }

    /// Whether every peer that BFD guards has agreed to wait for another program.
    pub(crate) fn guards_are_patient(&self) -> bool {
        self.config.bgp.bfd.keys().filter_map(|peer| self.session_of(peer)).all(|session| {
            let known = self.bfd.sessions.get(&session).filter(|session| session.state == State::Up);
            let transmit = |known: &Session| known.negotiated.and_then(|(transmit, _)| transmit);
            // One that wants no packets at all waits for none.
            known.is_none_or(|known| transmit(known).is_none_or(|transmit| transmit >= PATIENCE))
        })
    }

    /// Of the session with this peer, if there is one.
    pub(crate) fn bfd_state(&self, peer: &PeerName) -> State {
        self.session_of(peer).map_or(State::Down, |session| self.bfd.state(&session))
    }

    pub(crate) fn bfd_status(&self, now: Time, peer: &PeerName) -> Option<BfdStatus> {
        let session = self.session_of(peer)?;
        let known = self.bfd.sessions.get(&session);
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let negotiated = known.and_then(|known| known.negotiated);
        let since = known.map_or(Time::ZERO, |known| known.since);
        let ago = |at: Time| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let last_down = known.and_then(|known| known.last_down.as_ref());
        let trouble = known.and_then(|known| known.trouble.as_ref());
        // A session that is Up does without the packets that were refused.
        let up = known.is_some_and(|known| known.state == State::Up);
        let trouble = trouble.filter(|trouble| trouble.ends || !up || now.since(trouble.at) < STALE);
        Some(BfdStatus {
            state: self.bfd.state(&session).to_string(),
            for_ms: ago(since),
            transmit_us: negotiated.and_then(|(transmit, _)| transmit).map(micros),
            detection_us: negotiated.map(|(_, detection)| micros(detection)),
            last_down: last_down.map(|(text, _)| text.clone()),
            last_down_for_ms: last_down.map(|(_, at)| ago(*at)),
            trouble: trouble.map(|trouble| trouble.text.clone()),
            trouble_for_ms: trouble.map(|trouble| ago(trouble.at)),
        })
    }

    /// What `explain` says at the gate, and what would open it.
    pub(crate) fn words_of_bfd(&self, peer: &PeerName) -> (String, String) {
        let known = self.session_of(peer).and_then(|session| self.bfd.sessions.get(&session));
        let asked = self.config.bgp.bfd.get(peer);
        let state = known.map_or(State::Down, |known| known.state);
        let text = match asked {
            None => "not asked".to_owned(),
            Some(bfd) if !bfd.strict => format!("{state}; not asked without bfd.strict"),
            Some(_) => match known.and_then(|known| known.trouble.as_ref()) {
                Some(trouble) if state != State::Up => format!("{state}; {}", trouble.text),
                _ => state.to_string(),
            },
        };
        (text, format!("switch BFD on for this host on {peer}, or remove bfd.strict"))
    }

    /// A static peer, as a line of `status`.
    pub(crate) fn static_peer(&self, now: Time, name: &PeerName) -> PeerStatus {
        let bfd = self.bfd_status(now, name);
        let offered = bfd.as_ref().is_some_and(|bfd| bfd.state == State::Up.to_string());
        let vips: BTreeSet<IpAddr> = self
            .config
            .services
            .values()
            .filter(|service| service.statics.contains(name))
            .flat_map(|service| service.vips.iter().copied())
            .collect();
        let peer = self.config.statics.get(name);
        PeerStatus {
            name: name.to_string(),
            protocol: "static".to_owned(),
            address: peer
                .map(|peer| session_name(peer.address, peer.interface.as_deref()).to_string())
                .unwrap_or_default(),
            waiting_for: None,
            state: bfd.as_ref().map_or_else(|| State::Down.to_string(), |bfd| bfd.state.clone()),
            for_ms: bfd.as_ref().map_or(0, |bfd| bfd.for_ms),
            role: None,
            extended_messages: false,
            families: Vec::new(),
            advertised: vips.iter().filter(|_| offered).map(|vip| IpNet::from(*vip)).collect(),
            last_error: bfd.as_ref().and_then(|bfd| bfd.trouble.clone()),
            last_error_for_ms: bfd.as_ref().and_then(|bfd| bfd.trouble_for_ms),
            heard: None,
            graceful_restart_s: None,
            sessions_lost: 0,
            bfd,
        }
    }

    /// The static peers of a service, as lines of one of its VIPs; `reason` is the closed gate of the VIP.
    pub(crate) fn static_tellings(
        &self,
        service: &ServiceName,
        reason: Option<Reason>,
    ) -> Vec<VipPeerStatus> {
        let names = self.config.services.get(service).map(|service| &service.statics);
        let line = |name: &PeerName| {
            let up = self.session_of(name).is_some_and(|session| self.bfd.state(&session) == State::Up);
            let closed = reason.or_else(|| self.static_reason(name));
            VipPeerStatus {
                name: name.to_string(),
                advertised: up,
                reason: closed.or((!up).then_some(Reason::BfdDown)),
                attributes: None,
                other_origins: None,
            }
        };
        names.into_iter().flatten().map(line).collect()
    }
}
