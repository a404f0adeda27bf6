//! The machine: takes one event, lets its parts act, decides, and hands back what is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bgp::Speaker;
use anyvip_machine::{Seed, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::asks::Asks;
use crate::bfd::BfdView;
use crate::bgp::known;
use crate::boundary::{
    Action, Announcements, CheckName, Command, Event, Fact, HealthState, Reply, RequestId, ServiceName,
    Start, Target,
};
use crate::checks::{Checks, Heritage};
use crate::config::Config;
use crate::crash_loop::CrashLoop;
use crate::default_route::DefaultRoutes;
use crate::drain::{AdminState, Ordered};
use crate::guard::ArpGuard;
use crate::kernel::KernelView;
use crate::neighbours::Neighbours;
use crate::notices::Notices;
use crate::peers::Peers;
use crate::responder::Responder;
use crate::restored::Inheritance;
use crate::services::Services;
use crate::state::{Drained, StoredState, StoredStateRead};
use crate::stop::Stop;
use crate::store::{Outcome, Store};
use crate::strangers::Strangers;
use crate::upgrade::Upgrade;
use crate::vip::Vips;

/// Format of the state on disk.
const STATE_VERSION: u32 = 1;
/// Whoever comes so late with a deadline was stopped, or had no processor.
const STALL: Duration = Duration::from_millis(100);
/// Passes of `settle` before a circle is called a bug.
const MOST_PASSES: u32 = 64;

/// Everything that decides on one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) wall_clock_ms: u64,
    pub(crate) started: bool,
    pub(crate) now: Time,
    /// Why the state on disk cannot be used.
    pub(crate) unreadable: Option<String>,
    /// Exits and start as they go to disk.
    exits: StoredState,
    pub(crate) store: Store,
    pub(crate) crash_loop: CrashLoop,
    pub(crate) admin: AdminState,
    pub(crate) checks: Checks,
    pub(crate) guard: ArpGuard,
    pub(crate) vips: Vips,
    /// Heard from routers, where that is asked for.
    pub(crate) defaults: DefaultRoutes,
    pub(crate) peers: Peers,
    pub(crate) notices: Notices,
    /// Connections that were turned away.
    pub(crate) strangers: Strangers,
    /// Peers that are known by their link.
    pub(crate) neighbours: Neighbours,
    pub(crate) services: Services,
    pub(crate) speaker: Speaker,
    /// What is known of the BFD sessions, which run elsewhere.
    pub(crate) bfd: BfdView,
    pub(crate) responder: Responder,
    pub(crate) view: Option<KernelView>,
    pub(crate) stop: Stop,
    pub(crate) upgrade: Upgrade,
    /// What a former process handed down, until the start.
    inheritance: Option<Inheritance>,
    /// What each peer's speaker was given last.
    pub(crate) announced: Announcements,
    replies: Vec<WaitingReply>,
    next_request: u64,
    /// Something that a gate, a VIP or the stop looks at may have changed.
    pub(crate) touched: bool,
    /// The first deadline of guard, VIPs, store, crash loop, drain and stop: each event asks for it.
    rare_deadline: Option<Time>,
    /// Times this machine found itself in a state that should not be.
    pub(crate) bugs: u64,
}

/// An answer that waits for the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct WaitingReply {
    request: RequestId,
    generation: u64,
    text: String,
}

impl Agent {
    /// An agent that acts from [`Event::Started`] on.
    pub fn new(start: Start) -> Agent {
        let Start { config, state, boot_id, wall_clock_ms, seed, inheritance } = start;
        let (mut stored, unreadable) = match state {
            StoredStateRead::Absent => (StoredState::default(), None),
            StoredStateRead::Read(stored) if stored.version <= STATE_VERSION => (stored, None),
            StoredStateRead::Read(stored) => {
                let text = format!("it is of version {}, newer than this agent", stored.version);
                (StoredState::default(), Some(text))
            }
            StoredStateRead::Unreadable(text) => (StoredState::default(), Some(text)),
        };
        if inheritance.is_some() {
            // The former process has not ended, it became this one.
            stored.running_since = None;
            stored.unclean_exits.clear();
        }
        let crash_loop = CrashLoop::begin(&mut stored, wall_clock_ms);
        let seed = Seed::new(seed);
        let mut agent = Agent {
            wall_clock_ms,
            started: false,
            now: Time::ZERO,
            store: Store::new(stored.generation, unreadable.is_some()),
            unreadable,
            crash_loop,
            admin: AdminState::new(std::mem::take(&mut stored.drained)),
            checks: Checks::new(seed.child("checks")),
            guard: ArpGuard::new(&boot_id, &stored.arp),
            vips: Vips::new(&boot_id, &stored.owned),
            defaults: DefaultRoutes::default(),
            peers: Peers::default(),
            notices: Notices::default(),
            strangers: Strangers::default(),
            neighbours: Neighbours::new(seed.child("neighbours")),
            services: Services::default(),
            speaker: Speaker::new(seed.child("speaker")),
            bfd: BfdView::default(),
            responder: Responder::default(),
            view: None,
            stop: Stop::default(),
            upgrade: Upgrade::default(),
            inheritance,
            announced: Announcements::new(),
            replies: Vec::new(),
            next_request: 0,
            touched: false,
            rare_deadline: None,
            bugs: 0,
            exits: stored,
            config,
        };
        agent.store.change();
        agent.rare_deadline = agent.first_rare_deadline();
        agent
    }

    /// Takes one event.
    #[must_use]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.now = self.now.max(now);
        let now = self.now;
        if self.stop.over() {
            return out;
        }
        let time_acts = event == Event::DeadlineReached;
        // Thousands of these come for each one that moves anything but checks and sessions.
        let common = time_acts || matches!(event, Event::ProbeFinished { .. } | Event::Bgp(_));
        let rare_is_due = time_acts && self.rare_deadline.is_some_and(|at| at <= now);
        match event {
            Event::Started => self.start(now, &mut out),
            Event::DeadlineReached => self.expire(now, &mut out),
            Event::ProbeFinished { probe, outcome } => {
                self.touched |= self.checks.finished(now, probe, outcome, &mut out);
            }
            Event::KernelView(view) => {
                let first = self.view.is_none();
                let news = self.view.as_ref() != Some(&view);
                self.view = Some(view);
                if self.started && (news || first) {
                    self.look(now, first, &mut out);
                }
            }
            Event::KernelDone { request, result } => {
                let (guard, vips, defaults, mut asks) = self.kernel_side(now, &mut out);
                let known = guard.answered(request, &result, &mut asks)
                    || vips.answered(request, &result, &mut asks)
                    || defaults.answered(request, &result, &mut asks);
                self.touched |= known;
            }
            Event::Persisted { generation, result } => {
                let outcome = self.store.finished(now, generation, result);
                self.persisted(outcome, &mut out);
            }
            Event::HandedDown { result } => self.handed_down(now, result, &mut out),
            Event::NotReplaced { failure } => self.not_replaced(now, &failure, &mut out),
            Event::Bgp(event) => self.hear(now, event, &mut out),
            Event::Bfd(fact) => self.hear_bfd(now, fact, &mut out),
            Event::Nd(event) => self.hear_link(now, event, &mut out),
            Event::Operator { request, command } => self.obey(now, request, command, &mut out),
            Event::Terminate => self.terminate(now, &mut out),
        }
        self.pursue_neighbours(now, &mut out);
        let settles = self.touched;
        self.settle(now, &mut out);
        self.flush(now, &mut out);
        if !common || settles || rare_is_due || self.neighbours.moved() {
            self.rare_deadline = self.first_rare_deadline();
        }
        debug_assert_eq!(self.rare_deadline, self.first_rare_deadline(), "a rare deadline moved unseen");
        if time_acts {
            debug_assert!(
                self.next_deadline().is_none_or(|next| next > now),
                "all that was due at {now} has fired"
            );
        }
        out
    }

    /// When [`Event::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        if !self.started || self.stop.over() {
            return None;
        }
        let often =
            [self.checks.deadline(), self.speaker.next_deadline(), self.bfd.deadline(), self.rare_deadline];
        often.into_iter().flatten().min()
    }

    /// The deadlines of everything that is at rest on a host that is well.
    fn first_rare_deadline(&self) -> Option<Time> {
        let rare = [
            self.guard.deadline(),
            self.vips.deadline(),
            self.defaults.deadline(),
            self.store.deadline(),
            self.crash_loop.deadline(),
            self.admin.deadline(),
            self.stop.deadline(),
            self.upgrade.deadline(),
            self.neighbours.deadline(),
        ];
        rare.into_iter().flatten().min()
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sessions, and what each peer was told (its Adj-RIB-Out).
    pub fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// What each peer shall know, as decided last; only peers with a session.
    pub fn announcements(&self) -> &Announcements {
        &self.announced
    }

    fn start(&mut self, now: Time, out: &mut Vec<Action>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        if let Some(text) = &self.unreadable {
            let text = format!("the state cannot be read, so nothing is announced: {text}");
            out.push(Action::Record(Fact::HeldBack { text }));
        }
        if let Some(until) = self.crash_loop.deadline() {
            let text = format!(
                "{} unclean exits in 10 minutes: announcing waits {} s",
                self.crash_loop.exits,
                until.since(Time::ZERO).as_secs()
            );
            out.push(Action::Record(Fact::HeldBack { text }));
        }
        self.configure_kernel_side();
        out.push(Action::WatchRoutes { interests: self.peer_addresses().into_iter().collect() });
        if self.config.bgp.listen.is_some() {
            out.push(Action::Listen { address: self.config.bgp.listen });
        }
        self.peers.configure(now, self.config.bgp.peers.keys());
        let services = std::mem::take(&mut self.config.services);
        let inheritance = self.inheritance.take();
        let inherited = |service: &ServiceName, check: &CheckName, target: Target| match inheritance
            .as_ref()
            .and_then(|handed| handed.of(service, check, target))
        {
            Some((state, age)) => Heritage::Handed(state, age),
            None => Heritage::Stands(HealthState::Unknown),
        };
        self.checks.configure(now, &services, inherited, out);
        self.config.services = services;
        if let Some(inheritance) = inheritance {
            self.take_over(now, &inheritance, out);
        }
        self.tell_speaker(now, anyvip_bgp::Event::Configure(self.speaker_config()), out);
        if self.view.is_some() {
            self.look(now, true, out);
        }
        self.touched = true;
    }

    /// Hands guard and VIPs what the configuration wants of them.
    pub(crate) fn configure_kernel_side(&mut self) {
        let wanted: BTreeSet<IpAddr> = match self.stop.removes_vips() {
            true => BTreeSet::new(),
            false => self.config.services.values().flat_map(|s| &s.vips).copied().collect(),
        };
        let (addresses, interfaces) = (self.peer_addresses(), self.peer_interfaces());
        self.guard.configure(self.config.host.uplinks.clone(), addresses, interfaces);
        self.vips.configure(&self.config.host.vip_interface, &wanted);
        self.defaults.configure(self.config.bgp.install_default);
    }

    fn kernel_side<'a>(
        &'a mut self,
        now: Time,
        out: &'a mut Vec<Action>,
    ) -> (&'a mut ArpGuard, &'a mut Vips, &'a mut DefaultRoutes, Asks<'a>) {
        let asks = Asks { now, store: &mut self.store, next_request: &mut self.next_request, out };
        (&mut self.guard, &mut self.vips, &mut self.defaults, asks)
    }

    /// Takes in the current view.
    pub(crate) fn look(&mut self, now: Time, first: bool, out: &mut Vec<Action>) {
        let Some(view) = self.view.take() else { return };
        let before: BTreeMap<IpAddr, bool> = self.vips.iter().map(|(a, vip)| (*a, vip.present)).collect();
        let (guard, vips, defaults, mut asks) = self.kernel_side(now, out);
        defaults.observe(&view, &mut asks);
        guard.observe(&view, &vips.addresses(), &mut asks);
        let guard = &*guard;
        vips.observe(&view, |index| guard.is_uplink(index), first, &mut asks);
        let after: Vec<(IpAddr, bool)> = self.vips.iter().map(|(a, vip)| (*a, vip.present)).collect();
        for (address, present) in after {
            if before.get(&address) != Some(&present) {
                self.checks.vip_is(now, address, present, out);
            }
        }
        self.view = Some(view);
        self.touched = true;
        self.neighbours.stirred = true;
    }

    /// Lets time act on every part.
    fn expire(&mut self, now: Time, out: &mut Vec<Action>) {
        if !self.started {
            return;
        }
        if self.next_deadline().is_some_and(|due| now.since(due) > STALL) {
            self.checks.forgive(now);
        }
        // Read before deciding: the speaker's sessions first, then what may change their routes.
        if self.speaker.next_deadline().is_some_and(|at| at <= now) {
            self.tell_speaker(now, anyvip_bgp::Event::DeadlineReached, out);
        }
        self.touched |= self.checks.expire(now, out);
        if self.rare_deadline.is_some_and(|at| at <= now) {
            self.expire_rare(now, out);
        }
        // Last: the lease is renewed by who has done what was due.
        if !self.stop.over() {
            self.renew_bfd(now, out);
        }
    }

    /// Lets time act on what is at rest on a host that is well.
    fn expire_rare(&mut self, now: Time, out: &mut Vec<Action>) {
        let (guard, vips, defaults, mut asks) = self.kernel_side(now, out);
        let deadlines = [guard.deadline(), vips.deadline(), defaults.deadline()];
        if deadlines.into_iter().flatten().any(|at| at <= now) {
            guard.expire(&mut asks);
            vips.expire(&mut asks);
            defaults.expire(&mut asks);
            self.touched = true;
        }
        if self.store.deadline().is_some_and(|at| at <= now) {
            let outcome = self.store.expire(now);
            self.persisted(outcome, out);
            self.touched = true;
        }
        if self.crash_loop.expire(now) {
            out.push(Action::Record(Fact::Lifecycle { text: "announcing may begin".to_owned() }));
            self.touched = true;
        }
        self.touched |= self.admin.expire(now);
        self.expire_neighbours(now, out);
        if self.upgrade.deadline().is_some_and(|at| at <= now) {
            self.upgrade_expired(now, out);
        }
        if self.stop.deadline().is_some_and(|at| at <= now) {
            self.stop_expired(now, out);
        }
    }

    fn persisted(&mut self, outcome: Option<Outcome>, out: &mut Vec<Action>) {
        match outcome {
            None => return,
            Some(Outcome::Written) => {
                let store = &self.store;
                self.replies.retain(|waiting| {
                    let written = store.holds(waiting.generation);
                    if written {
                        let reply = Reply { done: true, text: waiting.text.clone() };
                        out.push(Action::Reply { request: waiting.request, reply });
                    }
                    !written
                });
            }
            Some(Outcome::Failed { failure, first }) => {
                if first {
                    out.push(Action::Record(Fact::PersistFailed { failure: failure.clone() }));
                }
                // Those that wait are told the truth now, not after the tenth try.
                for waiting in self.replies.drain(..) {
                    let text = format!(
                        "{}, but it could not be written and would be lost at a restart: {failure}; \
                         it is tried again",
                        waiting.text
                    );
                    out.push(Action::Reply { request: waiting.request, reply: Reply { done: false, text } });
                }
            }
        }
        self.touched = true;
    }

    /// An operator's command.
    fn obey(&mut self, now: Time, request: RequestId, command: Command, out: &mut Vec<Action>) {
        if self.stop.begun() {
            return refuse(request, "the agent is stopping".to_owned(), out);
        }
        let known: BTreeSet<ServiceName> = self.config.services.keys().cloned().collect();
        let (ordered, drained, reason) = match command {
            Command::Reload { config, keys } => return self.reload(now, request, (config, &keys), out),
            _ if self.unreadable.is_some() => {
                let text =
                    "the state on disk cannot be read and is left as it is: move it away and start anew";
                return refuse(request, text.to_owned(), out);
            }
            Command::Upgrade { to, force } => return self.prepare_upgrade(now, request, (to, force), out),
            Command::Drain { service, reason } => {
                let since = self.wall_clock_ms.saturating_add(now.as_millis());
                let drained = Drained { since, reason: reason.clone() };
                (self.admin.drain(service, &drained, &known), true, reason)
            }
            Command::Undrain { service } => (self.admin.undrain(service, &known), false, None),
        };
        match ordered {
            Ordered::Unknown(text) => refuse(request, text, out),
            Ordered::Changed(names) => {
                let word = if drained { "drained" } else { "put back" };
                let list: Vec<&str> = names.iter().map(|name| name.0.as_str()).collect();
                let mut text = match list.is_empty() {
                    true => format!("nothing to do: {word} already"),
                    false => format!("{word}: {}", list.join(", ")),
                };
                let mut longest = Duration::ZERO;
                for service in names {
                    let reason = reason.clone();
                    let drain_time =
                        self.config.services.get(&service).map_or(Duration::ZERO, |s| s.drain_time);
                    if drained && !drain_time.is_zero() {
                        self.admin.tell_until(service.clone(), now + drain_time);
                        longest = longest.max(drain_time);
                    }
                    out.push(Action::Record(Fact::AdminChanged { service, drained, reason }));
                    self.store.change();
                }
                if !longest.is_zero() {
                    text.push_str(&format!("; told as draining for {longest:?}, then withdrawn"));
                }
                self.touched = true;
                self.reply_when_written(request, text, out);
            }
        }
    }

    /// Answers once all that has changed so far is on disk.
    pub(crate) fn reply_when_written(&mut self, request: RequestId, text: String, out: &mut Vec<Action>) {
        let generation = self.store.newest();
        if self.store.holds(generation) || self.unreadable.is_some() {
            out.push(Action::Reply { request, reply: Reply { done: true, text } });
        } else {
            self.store.hurry();
            self.replies.push(WaitingReply { request, generation, text });
        }
    }

    /// Brings everything that follows from the inputs up to date.
    fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        for _ in 0..MOST_PASSES {
            // Whoever has said that it ends has nothing to add.
            if !self.started || self.stop.over() || !std::mem::take(&mut self.touched) {
                return;
            }
            self.decide(now, out);
            self.want_bfd(now, out);
            self.answer_probes(out);
            self.pursue(now, out);
            self.stop_goes_on(now, out);
            self.upgrade_goes_on(now, out);
        }
        self.bug("deciding went round in a circle", out);
    }

    /// Guard and VIPs follow what is wanted.
    fn pursue(&mut self, now: Time, out: &mut Vec<Action>) {
        // An unreadable state may name addresses and values that are not ours to judge: leave all as it is.
        if self.unreadable.is_some() {
            return;
        }
        let Some(view) = self.view.take() else { return };
        let mut asks = Asks { now, store: &mut self.store, next_request: &mut self.next_request, out };
        self.guard.pursue(&view, self.vips.need_guard(), &self.vips.addresses(), &mut asks);
        let (peers, speaker, announced) = (&self.peers, &self.speaker, &self.announced);
        // A prefix that is still wanted is another service's.
        let withdrawn = |vip: &IpAddr| {
            !peers.iter().any(|(name, peer)| {
                let wanted = announced.get(name);
                let ends = |prefix: &IpNet| {
                    prefix.contains(vip) && !wanted.is_some_and(|wanted| wanted.contains_key(prefix))
                };
                known(speaker, name, peer).any(ends)
            })
        };
        self.vips.pursue(&view, self.guard.complete(), withdrawn, &mut asks);
        let heard = self.heard_defaults(&view);
        let (_, _, defaults, mut asks) = self.kernel_side(now, out);
        defaults.pursue(&heard, &mut asks);
        self.view = Some(view);
    }

    /// Writes the state if something in it changed.
    fn flush(&mut self, now: Time, out: &mut Vec<Action>) {
        if !self.started || self.stop.over() {
            return;
        }
        if let Some(generation) = self.store.flush(now) {
            let state = StoredState {
                version: STATE_VERSION,
                generation,
                router_id: Some(self.config.router_id),
                drained: self.admin.stored().clone(),
                owned: self.vips.recorded(),
                arp: self.guard.former(),
                unclean_exits: self.exits.unclean_exits.clone(),
                running_since: self.exits.running_since,
            };
            out.push(Action::Persist { generation, state });
        }
    }

    /// From here on this run counts as ended in order.
    pub(crate) fn mark_clean_exit(&mut self) {
        self.exits.running_since = None;
        // Somebody looked after it: the next start shall not wait for what was before.
        self.exits.unclean_exits.clear();
        self.store.change();
    }

    /// What the checks say of an address, wherever it is served; for what a reload inherits.
    pub(crate) fn health_of(&self, vip: &IpAddr) -> Option<HealthState> {
        let mut services = self.config.services.iter().filter(|(_, service)| service.vips.contains(vip));
        let (name, service) = services.next()?;
        Some(self.checks.of_vip(name, *vip, service.on_error).state())
    }

    /// Something that should not be: told, counted, survived.
    pub(crate) fn bug(&mut self, text: &str, out: &mut Vec<Action>) {
        self.bugs += 1;
        out.push(Action::Record(Fact::Lifecycle { text: format!("internal error: {text}") }));
        debug_assert!(false, "{text}");
    }

    /// The targets that a service's own checks look at together.
    pub(crate) fn target_vips(target: Target, vips: &[IpAddr]) -> Vec<IpAddr> {
        match target {
            Target::Vip(vip) => vec![vip],
            Target::Own => vips.to_vec(),
        }
    }
}

pub(crate) fn refuse(request: RequestId, text: String, out: &mut Vec<Action>) {
    out.push(Action::Reply { request, reply: Reply { done: false, text } });
}
