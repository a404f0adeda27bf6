//! Making room for another version of the program without a route being lost (RFC 4724, the restarting side).
//!
//! The old process looks whether every peer keeps its routes meanwhile, slows down the BFD sessions that guard peers (each is handed
//! over and goes on: FRR 8.4 and BIRD 2.0 take AdminDown for a failure and drop the routes), waits until all it was told is on disk,
//! writes down what it knows and becomes the new program. The new one tells the same routes on new sessions at once, and End-of-RIB, with which a router drops what was not told
//! again, only when its own checks have decided every service that it inherited, or when it has waited long enough.

use std::collections::BTreeSet;
use std::time::Duration;

use anyvip_bfd::State;
use anyvip_bgp::PeerName;
use anyvip_machine::{Failure, Time};
use serde::{Deserialize, Serialize};

use crate::agent::{Agent, refuse};
use crate::attempt::GUARD;
use crate::boundary::{Action, Fact, Reason, Reply, RequestId, ServiceName, Verdict};
use crate::config::Service;
use crate::peers::Peer;
use crate::restored::{Inheritance, OLDEST, Restored, RestoredService};
use crate::status::{UpgradeLine, UpgradePlan, UpgradeStatus};

/// How long peers may take to agree to fewer BFD packets (a poll sequence, RFC 5880 §6.5).
const AGREEMENT: Duration = Duration::from_secs(2);
/// How long the new process lets routers wait for End-of-RIB.
const LONGEST_UNDECIDED: Duration = Duration::from_secs(30);

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum Upgrade {
    #[default]
    None,
    /// BFD peers agree to wait, until `slow_until` at most, and what is to be on disk is written.
    Preparing { to: String, slow_until: Option<Time>, give_up: Time },
    /// What this process knows is being written down.
    Writing { to: String, guard: Time },
    /// This process is about to become another.
    Replacing { to: String, guard: Time },
    /// This process goes on.
    Failed { text: String, since: Time },
    /// The other side: this process took over.
    TakingOver(TakingOver),
    /// All is decided and told.
    TookOver { from: String, since: Time, text: String },
}

/// What a process that took over still has to find out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TakingOver {
    from: String,
    since: Time,
    until: Time,
    /// Peers that keep routes of the former process and were not told that they know everything.
    peers: BTreeSet<PeerName>,
    /// Services that were up.
    services: BTreeSet<ServiceName>,
}

impl Upgrade {
    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match self {
            Upgrade::Preparing { slow_until, give_up, .. } => {
                Some(slow_until.map_or(*give_up, |until| until.min(*give_up)))
            }
            Upgrade::Writing { guard, .. } | Upgrade::Replacing { guard, .. } => Some(*guard),
            Upgrade::TakingOver(taking) => Some(taking.until),
            Upgrade::None | Upgrade::Failed { .. } | Upgrade::TookOver { .. } => None,
        }
    }

    /// This process makes room for another.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self, Upgrade::Preparing { .. } | Upgrade::Writing { .. } | Upgrade::Replacing { .. })
    }

    /// For `status`.
    pub(crate) fn status(&self, now: Time) -> Option<UpgradeStatus> {
        let (phase, since, text, waiting) = match self {
            Upgrade::None => return None,
            Upgrade::Preparing { to, .. } | Upgrade::Writing { to, .. } | Upgrade::Replacing { to, .. } => {
                ("preparing", now, format!("making room for {to}"), BTreeSet::new())
            }
            Upgrade::Failed { text, since } => ("failed", *since, text.clone(), BTreeSet::new()),
            Upgrade::TakingOver(taking) => {
                let text = format!("took over from {}: inherited services are being checked", taking.from);
                ("taking_over", taking.since, text, taking.peers.clone())
            }
            Upgrade::TookOver { since, text, .. } => ("done", *since, text.clone(), BTreeSet::new()),
        };
        let from = match self {
            Upgrade::TakingOver(TakingOver { from, .. }) | Upgrade::TookOver { from, .. } => {
                Some(from.clone())
            }
            _ => None,
        };
        Some(UpgradeStatus {
            phase: phase.to_owned(),
            from,
            text,
            for_ms: u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX),
            waiting_for: waiting.into_iter().map(|peer| peer.0).collect(),
        })
    }
}

/// Reasons that pass by themselves after a start.
fn passes_by_itself(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::VipMissing
            | Reason::ArpNotGuarded
            | Reason::BfdDown
            | Reason::NotYetChecked
            | Reason::SessionDown
    )
}

// The old process.

impl Agent {
    /// What an upgrade would do to each peer, path and service now.
    pub fn upgrade_plan(&self, now: Time) -> UpgradePlan {
        let mut lines = Vec::new();
        let mut line =
            |subject: String, kept: bool, text: String| lines.push(UpgradeLine { subject, kept, text });
        for (name, config) in &self.config.bgp.peers {
            let peer = self.peers.get(name);
            let told = peer.map_or(0, |peer| peer.told.len());
            let session = peer.and_then(|peer| peer.session.as_ref());
            let agreed = session.and_then(|facts| facts.graceful_restart);
            let passive = match config.connect {
                true => "",
                false => " if it calls us again within that time",
            };
            let (kept, text) = match (session, agreed) {
                (None, _) => (true, "has no session: nothing is lost, nothing is kept".to_owned()),
                (Some(_), Some(time)) => {
                    (true, format!("keeps {} for up to {} s{passive}", routes(told), time.as_secs()))
                }
                (Some(_), None) if told == 0 => (true, "is told nothing".to_owned()),
                (Some(_), None) => {
                    let why = match config.session.graceful_restart {
                        None => "graceful_restart is off for it",
                        Some(_) => "it has not agreed to graceful restart",
                    };
                    (false, format!("drops {} until the new session stands: {why}", routes(told)))
                }
            };
            line(format!("peer {name}"), kept, text);
            if session.is_some() && self.bfd_guards_up(name) {
                let known =
                    self.config.bgp.peers.get(name).is_some_and(|peer| peer.remote.address().is_some());
                let text = match known {
                    true => "is slowed down, handed over, and goes on",
                    false => "begins anew when the router has been heard on the link again",
                };
                line(format!("BFD with {name}"), true, text.to_owned());
            }
        }
        for name in self.config.statics.keys() {
            let up = self.path_is_up(name);
            let text = match up {
                true => {
                    "its static route goes and comes back: a BFD session that carries health does not outlive the process"
                }
                false => "its BFD session is not Up: nothing is lost",
            };
            line(format!("static peer {name}"), !up, text.to_owned());
        }
        if let Some(text) = self.probed() {
            line("probes".to_owned(), true, text);
        }
        for (name, service) in &self.config.services {
            if let Some((kept, text)) = self.heritage(now, name, service) {
                line(format!("service {name}"), kept, text);
            }
        }
        UpgradePlan { lines }
    }

    /// What becomes of probes that are answered now.
    fn probed(&self) -> Option<String> {
        let asked = &self.config.responder;
        let offered = |name: &ServiceName| self.answer_of(name).is_some_and(|answer| answer.reason.is_none());
        let ports = asked.ports.iter().filter(|(name, _)| offered(name)).map(|(_, port)| port);
        let doors: Vec<String> = asked.listen.iter().chain(ports).map(ToString::to_string).collect();
        (!doors.is_empty()).then(|| {
            format!(
                "on {} wait for the new version, some tens of milliseconds: nobody is refused, but a shorter patience counts a miss",
                doors.join(", ")
            )
        })
    }

    /// Whether a service that is announced will be inherited.
    fn heritage(&self, now: Time, name: &ServiceName, service: &Service) -> Option<(bool, String)> {
        let told = service.vips.iter().any(|vip| {
            service
                .announce
                .routes(*vip)
                .iter()
                .any(|route| service.peers.iter().any(|peer| self.may_know(peer, route)))
        }) || self.answer_of(name).is_some_and(|answer| answer.reason.is_none());
        if !told {
            return None;
        }
        let ages = self.checks.of(name).map(|run| (run.check.name.clone(), run.health.heard(now)));
        let oldest = ages.max_by_key(|(_, age)| age.unwrap_or(Duration::MAX));
        Some(match oldest {
            None => (true, "has no checks".to_owned()),
            Some((_, Some(age))) if age < OLDEST => {
                (true, format!("is inherited as it is, last heard of {:.1} s ago", age.as_secs_f32()))
            }
            Some((check, _)) => {
                let text = format!(
                    "is withdrawn until it is checked: {check} was not answered in the last {} s",
                    OLDEST.as_secs()
                );
                (false, text)
            }
        })
    }

    /// An operator wants this process to become another.
    pub(crate) fn prepare_upgrade(
        &mut self,
        now: Time,
        request: RequestId,
        (to, force): (String, bool),
        out: &mut Vec<Action>,
    ) {
        if self.upgrade.is_under_way() {
            return refuse(request, "an upgrade is under way already".to_owned(), out);
        }
        if let Upgrade::TakingOver(_) = self.upgrade {
            return refuse(request, "this process is still taking over from the former one".to_owned(), out);
        }
        let plan = self.upgrade_plan(now);
        let lost: Vec<String> = plan.lost().map(|line| format!("{}: {}", line.subject, line.text)).collect();
        if !lost.is_empty() && !force {
            let text = format!(
                "routes would be lost for a while, so nothing was done: {}; `anyvip upgrade --force` accepts that",
                lost.join("; ")
            );
            return refuse(request, text, out);
        }
        let slowed = self.config.bgp.peers.keys().any(|peer| self.bfd_guards_up(peer));
        let slow_until = slowed.then(|| now + AGREEMENT);
        let text = match lost.is_empty() {
            true => format!("making room for {to}"),
            false => format!("making room for {to} although routes are lost: {}", lost.join("; ")),
        };
        out.push(Action::Record(Fact::Lifecycle { text: text.clone() }));
        out.push(Action::Reply { request, reply: Reply { done: true, text } });
        self.upgrade = Upgrade::Preparing { to, slow_until, give_up: now + AGREEMENT + GUARD };
        self.touched = true;
    }

    /// Looks whether the present stage is done.
    pub(crate) fn upgrade_goes_on(&mut self, now: Time, out: &mut Vec<Action>) {
        match &self.upgrade {
            Upgrade::Preparing { to, slow_until, .. }
                if self.store.clean() && (slow_until.is_none() || self.guards_are_patient()) =>
            {
                self.upgrade = Upgrade::Writing { to: to.clone(), guard: now + GUARD };
                out.push(Action::HandDown { restored: self.restored(now) });
            }
            Upgrade::TakingOver(_) => self.let_peers_go(now, out),
            _ => {}
        }
    }

    /// What this process knows is written down, or cannot be.
    pub(crate) fn handed_down(&mut self, now: Time, result: Result<(), Failure>, out: &mut Vec<Action>) {
        let Upgrade::Writing { to, .. } = &self.upgrade else { return };
        match result {
            Ok(()) => {
                self.upgrade = Upgrade::Replacing { to: to.clone(), guard: now + GUARD };
                out.push(Action::Replace);
            }
            Err(failure) => self.stay(now, format!("what is known cannot be handed down: {failure}"), out),
        }
    }

    /// This process could not become the other.
    pub(crate) fn not_replaced(&mut self, now: Time, failure: &Failure, out: &mut Vec<Action>) {
        if let Upgrade::Replacing { .. } = self.upgrade {
            self.stay(now, failure.to_string(), out);
        }
    }

    fn stay(&mut self, now: Time, why: String, out: &mut Vec<Action>) {
        let text = format!("the upgrade failed, this version goes on: {why}");
        out.push(Action::Record(Fact::Lifecycle { text: text.clone() }));
        self.upgrade = Upgrade::Failed { text, since: now };
        self.touched = true;
    }

    /// The agent stops: nobody takes over.
    pub(crate) fn forget_upgrade(&mut self) {
        if self.upgrade.is_under_way() {
            self.upgrade = Upgrade::None;
            self.touched = true;
        }
    }

    /// Time ended a stage.
    pub(crate) fn upgrade_expired(&mut self, now: Time, out: &mut Vec<Action>) {
        match &mut self.upgrade {
            Upgrade::Preparing { give_up, .. } if *give_up <= now => {
                let why = match self.store.failure() {
                    Some(failure) => format!("the state cannot be written: {failure}"),
                    None => "the state was not written in time".to_owned(),
                };
                self.stay(now, why, out);
            }
            Upgrade::Preparing { slow_until, .. } => {
                *slow_until = None;
                self.touched = true;
            }
            Upgrade::Writing { .. } | Upgrade::Replacing { .. } => {
                self.stay(now, "it was not carried out in time".to_owned(), out);
            }
            Upgrade::TakingOver(taking) => {
                let peers = std::mem::take(&mut taking.peers);
                self.took_over(now, &peers, out);
            }
            Upgrade::None | Upgrade::Failed { .. } | Upgrade::TookOver { .. } => {}
        }
    }

    fn restored(&self, now: Time) -> Restored {
        let service = |name: &ServiceName| RestoredService {
            checks: self.checks.handed_down(now, name),
            draining: self.admin.draining(name).map(|until| until.since(now)),
        };
        let keeps = |peer: &Peer| peer.session.as_ref().is_some_and(|facts| facts.graceful_restart.is_some());
        Restored {
            version: Restored::VERSION,
            keepers: self
                .peers
                .iter()
                .filter(|(_, peer)| keeps(peer))
                .map(|(name, _)| name.clone())
                .collect(),
            services: self.config.services.keys().map(|name| (name.clone(), service(name))).collect(),
        }
    }

    // The new process.

    /// Begins as the heir of another. Before the speaker knows its peers.
    pub(crate) fn take_over(&mut self, now: Time, inheritance: &Inheritance, out: &mut Vec<Action>) {
        // One that is not asked any more is told by its first OPEN to keep nothing.
        let asked = |name: &&PeerName| {
            self.config.bgp.peers.get(name).is_some_and(|peer| peer.session.graceful_restart.is_some())
        };
        let peers: BTreeSet<PeerName> = inheritance.restored.keepers.iter().filter(asked).cloned().collect();
        let names = self.config.services.keys();
        let services: BTreeSet<ServiceName> =
            names.filter(|name| self.checks.inherited_up(name)).cloned().collect();
        for (name, service) in &inheritance.restored.services {
            if let Some(left) = service.draining.filter(|_| self.admin.drained(name).is_some()) {
                self.admin.tell_until(name.clone(), now + left.saturating_sub(inheritance.age));
            }
        }
        let (count, from) = (services.len(), &inheritance.from);
        let text = format!(
            "took over from {from} after {} ms: {count} service{} inherited as up",
            inheritance.age.as_millis(),
            if count == 1 { "" } else { "s" }
        );
        out.push(Action::Record(Fact::Lifecycle { text }));
        self.tell_speaker(now, anyvip_bgp::Event::Restarting { peers: peers.clone() }, out);
        self.upgrade = Upgrade::TakingOver(TakingOver {
            from: from.clone(),
            since: now,
            until: now + LONGEST_UNDECIDED,
            peers,
            services,
        });
    }

    /// Says End-of-RIB to the peers for which all is decided.
    fn let_peers_go(&mut self, now: Time, out: &mut Vec<Action>) {
        let Upgrade::TakingOver(taking) = &self.upgrade else { return };
        let done: BTreeSet<PeerName> =
            taking.peers.iter().filter(|peer| self.is_decided(taking, peer)).cloned().collect();
        let left: BTreeSet<PeerName> = taking.peers.difference(&done).cloned().collect();
        if left.is_empty() && !taking.services.iter().any(|name| self.checks.undecided(name)) {
            return self.took_over(now, &BTreeSet::new(), out);
        }
        if done.is_empty() {
            return;
        }
        if let Upgrade::TakingOver(taking) = &mut self.upgrade {
            taking.peers = left.clone();
        }
        self.tell_speaker(now, anyvip_bgp::Event::Restarting { peers: left }, out);
    }

    /// Whether this peer may be told that it knows everything.
    fn is_decided(&self, taking: &TakingOver, peer: &PeerName) -> bool {
        if !self.config.bgp.peers.contains_key(peer) {
            return true;
        }
        if self.peers.get(peer).is_none_or(|peer| peer.session.is_none()) {
            return false;
        }
        let told = self.config.services.iter().filter(|(_, service)| service.peers.contains(peer));
        told.filter(|(name, _)| taking.services.contains(name)).all(|(name, _)| {
            let record = self.services.0.get(name);
            let verdicts = record.into_iter().flat_map(|record| record.vips.values());
            let waits = |verdict: &Verdict| match verdict {
                Verdict::Announce(_) => false,
                Verdict::Withhold(reason) => passes_by_itself(*reason),
            };
            !self.checks.undecided(name)
                && !verdicts.filter_map(|vip| vip.peers.get(peer)).any(|record| waits(&record.verdict))
        })
    }

    fn took_over(&mut self, now: Time, late: &BTreeSet<PeerName>, out: &mut Vec<Action>) {
        let Upgrade::TakingOver(taking) = &self.upgrade else { return };
        let (from, since) = (taking.from.clone(), taking.since);
        let undecided: Vec<&str> = taking
            .services
            .iter()
            .filter(|name| self.checks.undecided(name))
            .map(|name| name.0.as_str())
            .collect();
        let mut text = format!("took over from {from}");
        if late.is_empty() {
            text.push_str(&format!(
                ": all that was inherited was decided after {} ms",
                now.since(since).as_millis()
            ));
        } else {
            let names: Vec<&str> = late.iter().map(|peer| peer.0.as_str()).collect();
            let longest = LONGEST_UNDECIDED.as_secs();
            text.push_str(&format!("; not all was decided within {longest} s towards {}", names.join(", ")));
        }
        if !undecided.is_empty() {
            text.push_str(&format!("; not checked yet: {}", undecided.join(", ")));
        }
        out.push(Action::Record(Fact::Lifecycle { text: text.clone() }));
        self.upgrade = Upgrade::TookOver { from, since: now, text };
        self.tell_speaker(now, anyvip_bgp::Event::Restarting { peers: BTreeSet::new() }, out);
    }
}

impl Agent {
    /// Whether BFD guards this BGP peer and is Up.
    fn bfd_guards_up(&self, peer: &PeerName) -> bool {
        self.config.bgp.bfd.contains_key(peer) && self.path_is_up(peer)
    }

    fn path_is_up(&self, peer: &PeerName) -> bool {
        self.bfd_state(peer) == State::Up
    }
}

fn routes(count: usize) -> String {
    match count {
        0 => "nothing, it is told nothing".to_owned(),
        1 => "1 route".to_owned(),
        many => format!("{many} routes"),
    }
}
