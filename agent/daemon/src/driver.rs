//! The loop: waits for the next event or the deadline, lets the agent decide, carries out what it says.
//!
//! Everything that takes time (probes, netlink requests, the disk) runs beside the loop and comes back as an event; the
//! loop itself never waits for anything but its next turn, and `handle` is never called from within `handle`.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyvip_bgp::{ConnectionId, Remote};
use anyvip_core::boundary::{Action, Command, Event, Fact, ProbeOutcome, ProbeResult, Reply, RequestId};
use anyvip_core::kernel::KernelView;
use anyvip_core::restored::Restored;
use anyvip_core::{Agent, Config};
use anyvip_io::bfd::Heard;
use anyvip_io::nd::Links;
use anyvip_io::netlink::{Monitor, Netlink};
use anyvip_io::process::Leftovers;
use anyvip_io::{Clock, Connections};
use anyvip_machine::{Failure, FailureKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::bfd::Bfd;
use crate::control::api::{Ask, Operation, Replacement};
use crate::journal::Journal;
use crate::keys::Keys;
use crate::latency::{Latency, holds_update};
use crate::listening::{self, Listening};
use crate::probes::{Finished, Names, Probes, Request};
use crate::recorder::Recorder;
use crate::reload::{self, Reloads};
use crate::responder::Responder;
use crate::signals::{Signal, Signals};
use crate::start::Paths;
use crate::state::StateWriter;
use crate::upgrade::{self, Examination, Legacy, Program};
use crate::{kernel, systemd};

/// The kernel announces no change of `arp_*`.
pub(crate) const ARP_EVERY: Duration = Duration::from_secs(5);
/// How long the BFD thread may take to say how its sessions stand.
const BFD_PATIENCE: Duration = Duration::from_secs(1);
/// What is under way beside the loop gets this long before the process becomes another.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// A deadline this late means that the process stood still.
const STALL: Duration = Duration::from_millis(100);

/// What the loop is made from.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) agent: Agent,
    pub(crate) monitor: Monitor,
    pub(crate) netlink: Netlink,
    pub(crate) view: KernelView,
    pub(crate) state: StateWriter,
    pub(crate) signals: Signals,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) paths: Paths,
    /// What this process was started as.
    pub(crate) program: Program,
    /// Children of the program that this process was before.
    pub(crate) leftovers: Leftovers,
    /// What that program listened on.
    pub(crate) listeners: BTreeMap<SocketAddr, TcpListener>,
    /// What its loop and its threads knew.
    pub(crate) legacy: Legacy,
    /// Why nothing is inherited although there was something.
    pub(crate) not_inherited: Option<String>,
    /// For the router id that a reload keeps, and the TTL of accepted connections.
    pub(crate) config: Config,
    pub(crate) keys: Keys,
}

/// See the module's text.
pub(crate) struct Driver {
    clock: Clock,
    agent: Agent,
    connections: Connections,
    bfd: Bfd,
    links: Links,
    monitor: Monitor,
    netlink: Arc<Netlink>,
    probes: Probes,
    finished: mpsc::UnboundedReceiver<Finished>,
    /// Answers of netlink and disk; one for each request under way.
    outcomes: mpsc::UnboundedReceiver<Event>,
    outcomes_sender: mpsc::UnboundedSender<Event>,
    asks: mpsc::Receiver<Ask>,
    /// Until the server's end of `asks` closes.
    answering: bool,
    signals: Signals,
    replies: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    next_request: u64,
    reloads: Reloads,
    state: StateWriter,
    journal: Journal,
    latency: Latency,
    listening: Listening,
    responder: Responder,
    view: KernelView,
    config: Config,
    keys: Keys,
    systemd: systemd::Notifier,
    recorder: Option<Recorder>,
    exit: Option<u8>,
    paths: Paths,
    program: Program,
    leftovers: Leftovers,
    not_inherited: Option<String>,
    /// A new program is being looked at; who asked, and whether by force.
    examination: Option<Examination>,
    /// What to become.
    replacement: Option<Program>,
    /// The agent says that it is time.
    replaces: bool,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Driver {
        let (finished_sender, finished) = mpsc::unbounded_channel();
        let (outcomes_sender, outcomes) = mpsc::unbounded_channel();
        let mut connections = Connections::new();
        let Legacy { bfd, signers } = parts.legacy;
        let probed = listening::inherit(parts.listeners, signers, &parts.config, &mut connections);
        let mut driver = Driver {
            clock: parts.clock,
            agent: parts.agent,
            connections,
            bfd: Bfd::new(parts.clock, bfd),
            links: Links::new(),
            monitor: parts.monitor,
            netlink: Arc::new(parts.netlink),
            probes: Probes::new(finished_sender),
            finished,
            outcomes,
            outcomes_sender,
            asks: parts.asks,
            answering: true,
            signals: parts.signals,
            replies: BTreeMap::new(),
            next_request: 0,
            reloads: Reloads::new(parts.paths.config.clone()),
            state: parts.state,
            journal: Journal::default(),
            latency: Latency::new(),
            listening: Listening::default(),
            responder: Responder::new(probed),
            view: parts.view,
            config: parts.config,
            keys: Keys::default(),
            systemd: systemd::Notifier::from_environment(),
            recorder: None,
            exit: None,
            paths: parts.paths,
            program: parts.program,
            leftovers: parts.leftovers,
            not_inherited: parts.not_inherited,
            examination: None,
            replacement: None,
            replaces: false,
        };
        driver.unlock(parts.keys);
        driver
    }

    /// The agent, to be looked at.
    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Records what the agent is given from now on.
    pub(crate) fn record_with(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Now, as the agent counts.
    pub(crate) fn now(&self) -> anyvip_machine::Time {
        self.clock.now()
    }

    /// The first events: begin, and what the kernel side looks like.
    pub(crate) fn start(&mut self) {
        if let Some(text) = self.not_inherited.take() {
            self.record(&Fact::Lifecycle { text });
        }
        self.take(Instant::now(), Event::Started);
        self.take(Instant::now(), Event::KernelView(self.view.clone()));
        self.responder.forget_left();
    }

    /// Runs until the agent says that it is done, and returns its exit code.
    pub(crate) async fn run(mut self) -> u8 {
        self.start();
        self.systemd.ready();
        let mut arp = every(ARP_EVERY);
        let mut watchdog = every(self.systemd.watchdog_period().unwrap_or(Duration::from_secs(86_400)));
        loop {
            self.systemd.status(|| systemd::summary(&self.agent.status(self.clock.now())));
            if let Some(code) = self.exit {
                self.connections.finish_closing().await;
                return code;
            }
            if std::mem::take(&mut self.replaces) {
                self.replace().await;
            }
            // A peer that never stops sending keeps this task ready for ever: probes, requests of the control socket and the
            // kernel's news are tasks too, and have their turn after each of ours.
            tokio::task::yield_now().await;
            tokio::select! {
                () = self.turn() => {}
                _ = arp.tick() => {
                    self.monitor.refresh();
                    self.listening.again(&mut self.connections).iter().for_each(|fact| self.record(fact));
                    self.leftovers.reap();
                }
                _ = watchdog.tick() => {
                    // Only a loop that has done what was due may say that it lives.
                    self.read_then_let_time_act().await;
                    let now = self.clock.now();
                    if self.agent.next_deadline().is_none_or(|deadline| deadline > now) {
                        self.systemd.alive();
                    }
                }
            }
        }
    }

    /// Asks the agent to end, and runs until it has.
    pub(crate) async fn end(mut self) {
        self.take(Instant::now(), Event::Terminate);
        while self.exit.is_none() {
            self.turn().await;
        }
        self.connections.finish_closing().await;
    }

    /// Waits for one thing and handles it.
    pub(crate) async fn turn(&mut self) {
        let deadline = self.agent.next_deadline().map(|deadline| self.clock.instant(deadline));
        tokio::select! {
            signal = self.signals.next() => self.signal(signal),
            Some(finished) = self.finished.recv() => self.finish(finished),
            Some(event) = self.outcomes.recv() => self.take(Instant::now(), event),
            events = self.connections.next() => self.hear(events),
            heard = self.bfd.next() => self.hear_bfd(heard),
            events = self.links.next() => {
                for event in events {
                    self.take(Instant::now(), Event::Nd(event));
                }
            }
            snapshot = self.monitor.next() => self.see(kernel::view(snapshot)),
            (request, loaded) = self.reloads.next() => self.reload(request, loaded),
            found = upgrade::found(&mut self.examination) => self.examined(found),
            ask = self.asks.recv(), if self.answering => match ask {
                Some(ask) => self.answer(ask),
                None => self.answering = false,
            },
            () = sleep_until(deadline) => self.read_then_let_time_act().await,
        }
    }

    /// After a stall neither the tasks nor the runtime know yet what has arrived. So before time acts, everything that
    /// could speak against it is heard: the sockets themselves are asked, tasks get their turn, queues are emptied.
    async fn read_then_let_time_act(&mut self) {
        let now = self.clock.now();
        let late = self.agent.next_deadline().is_some_and(|deadline| now.since(deadline) > STALL);
        for _ in 0..if late { 8 } else { 1 } {
            tokio::task::yield_now().await;
        }
        let events = self.connections.drain();
        self.hear(events);
        for heard in self.bfd.drain() {
            self.hear_bfd(heard);
        }
        while let Ok(finished) = self.finished.try_recv() {
            self.finish(finished);
        }
        while let Ok(event) = self.outcomes.try_recv() {
            self.take(Instant::now(), event);
        }
        let now = self.clock.now();
        if self.agent.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.take(Instant::now(), Event::DeadlineReached);
        }
    }

    /// One event, received at this moment.
    pub(crate) fn take(&mut self, received: Instant, event: Event) {
        let now = self.clock.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.event(now, &event);
        }
        let actions = self.agent.handle(now, event);
        if let Some(recorder) = &mut self.recorder {
            recorder.actions(now, &actions, &self.agent);
        }
        for action in actions {
            self.execute(received, action);
        }
    }

    fn hear(&mut self, events: Vec<anyvip_bgp::Event>) {
        let received = Instant::now();
        for event in events {
            match &event {
                anyvip_bgp::Event::Accepted { connection, remote, .. } => self.set_ttl(*connection, *remote),
                // Only now does a peer know what was said: no fact of its own, but another status line.
                anyvip_bgp::Event::Sent { .. } => self.systemd.touch(),
                _ => {}
            }
            self.take(received, Event::Bgp(event));
        }
    }

    fn hear_bfd(&mut self, heard: Heard) {
        if let Some(text) = self.bfd.note(&heard) {
            self.record(&Fact::PeerNotice { peer: None, text });
        }
        if let Heard::Fact(fact) = heard {
            self.take(Instant::now(), Event::Bfd(fact));
        }
    }

    /// Before anything connects or listens, and again with each reload.
    fn unlock(&mut self, mut keys: Keys) {
        let protections = std::mem::take(&mut keys.protections);
        for failure in self.connections.protect(protections).err().into_iter().flatten() {
            self.record(&Fact::PeerNotice { peer: None, text: failure.to_string() });
        }
        self.keys = keys;
    }

    /// Who connects to us is known by address only once the connection stands.
    fn set_ttl(&mut self, connection: ConnectionId, remote: SocketAddr) {
        let link = match remote {
            SocketAddr::V6(remote) if remote.ip().is_unicast_link_local() => {
                self.view.links.get(&remote.scope_id()).map(|link| link.name.as_str())
            }
            _ => None,
        };
        let is_at = |peer: &Remote| match peer.address() {
            None => link.is_some() && peer.interface() == link,
            Some(_) => peer.is_at(remote) && (link.is_none() || peer.interface() == link),
        };
        let ttl = self.config.bgp.peers.values().find(|peer| is_at(&peer.remote)).and_then(|peer| peer.ttl);
        if let Some(ttl) = ttl
            && let Err(failure) = self.connections.set_ttl(connection, ttl)
        {
            tracing::warn!("the TTL of the connection from {remote} cannot be set: {failure}");
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { at, probe, outcome } = finished;
        self.probes.forget(probe);
        self.take(at, Event::ProbeFinished { probe, outcome });
    }

    fn see(&mut self, view: KernelView) {
        self.view = view.clone();
        self.take(Instant::now(), Event::KernelView(view));
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Terminate => {
                self.systemd.stopping();
                self.take(Instant::now(), Event::Terminate);
            }
            Signal::Reload => {
                let request = self.number();
                self.begin_reload(request);
            }
        }
    }

    fn number(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    fn begin_reload(&mut self, request: RequestId) {
        self.reloads.begin(request, kernel::facts(&self.view, Some(self.config.router_id)));
    }

    fn reload(&mut self, request: RequestId, loaded: reload::Loaded) {
        let mut changed = Vec::new();
        let config = loaded.map(|(config, keys)| {
            self.config = (*config).clone();
            changed = keys.changed_since(&self.keys);
            self.unlock(keys);
            config
        });
        let command = Command::Reload { config, keys: changed };
        self.take(Instant::now(), Event::Operator { request, command });
    }

    fn answer(&mut self, ask: Ask) {
        let now = self.clock.now();
        // A client that has gone does not want its answer any more.
        match ask {
            Ask::Status(answer) => {
                let mut status = self.agent.status(now);
                status.version = env!("CARGO_PKG_VERSION").to_owned();
                status.decision_to_wire_us = self.latency.histogram();
                status.warnings.extend(self.listening.warning());
                status.warnings.extend(self.responder.warnings());
                status.warnings.extend(self.bfd.warnings());
                status.warnings.extend(self.recorder.as_ref().and_then(Recorder::warning));
                let _ = answer.send(status);
            }
            Ask::Explain(service, answer) => drop(answer.send(self.agent.explain(now, &service))),
            Ask::Events(answer) => drop(answer.send(self.journal.entries())),
            Ask::Follow(answer) => drop(answer.send(self.journal.follow())),
            Ask::UpgradePlan(answer) => drop(answer.send(self.agent.upgrade_plan(now))),
            Ask::Operate(operation, answer) => {
                let request = self.number();
                self.replies.insert(request, answer);
                let command = match operation {
                    Operation::Drain { service, reason } => Command::Drain { service, reason },
                    Operation::Undrain { service } => Command::Undrain { service },
                    Operation::Reload => return self.begin_reload(request),
                    Operation::Upgrade(replacement) => return self.begin_upgrade(request, replacement),
                };
                self.take(Instant::now(), Event::Operator { request, command });
            }
        }
    }

    /// Looks at the new program before anything is given up for it.
    fn begin_upgrade(&mut self, request: RequestId, wanted: Replacement) {
        if self.examination.is_some() {
            let text = "another new program is being looked at".to_owned();
            return self.reply(request, Reply { done: false, text });
        }
        let program = self.program.at(wanted.binary);
        let (path, paths) = (program.path.clone(), self.paths.clone());
        let found = Box::pin(tokio::spawn(async move { upgrade::examine(&path, &paths).await }));
        self.examination = Some(Examination { request, program, force: wanted.force, found });
    }

    fn examined(&mut self, found: Result<String, String>) {
        let Some(Examination { request, program, force, .. }) = self.examination.take() else { return };
        match found {
            Ok(to) => {
                self.replacement = Some(program);
                let command = Command::Upgrade { to, force };
                self.take(Instant::now(), Event::Operator { request, command });
            }
            Err(why) => {
                let text = format!("the running version stays: {why}");
                self.record(&Fact::Lifecycle { text: format!("upgrade refused: {why}") });
                self.reply(request, Reply { done: false, text });
            }
        }
    }

    fn hand_down(&mut self, restored: Restored) {
        let (folder, answers) = (self.paths.state_dir.clone(), self.outcomes_sender.clone());
        let (former, signers) = (self.bfd.hand_over(), self.connections.signers());
        tokio::spawn(async move {
            let bfd = match former {
                // A thread that stands still keeps no session Up.
                Some(former) => tokio::time::timeout(BFD_PATIENCE, former).await.ok().and_then(Result::ok),
                None => None,
            };
            let legacy = Legacy { bfd: bfd.unwrap_or_default(), signers };
            let write = move || upgrade::hand_down(&folder, restored, legacy);
            let result = tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| {
                Err(Failure::new(FailureKind::Other, format!("writing it came to nothing: {error}")))
            });
            let _ = answers.send(Event::HandedDown { result });
        });
    }

    /// Becomes the new program. What comes after that happens only if it could not be.
    async fn replace(&mut self) {
        let Some(program) = self.replacement.take() else { return };
        self.systemd.reloading();
        let probes = self.probes.give_up();
        self.responder.take_clients(false);
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
        // Probes end and their children with them, the log is written, and whoever asked, a router by probe too, is answered.
        tokio::time::sleep(LAST_WORDS).await;
        let failure = anyvip_io::process::replace(&program.path, &program.arguments);
        upgrade::forget(&self.paths.state_dir);
        self.responder.take_clients(true);
        self.systemd.ready();
        self.take(Instant::now(), Event::NotReplaced { failure });
        for probe in probes {
            let outcome = ProbeOutcome {
                result: ProbeResult::Error,
                latency: Duration::ZERO,
                detail: "given up for an upgrade that failed".to_owned(),
            };
            self.take(Instant::now(), Event::ProbeFinished { probe, outcome });
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        if let Some(answer) = self.replies.remove(&request) {
            let _ = answer.send(reply);
        }
    }

    fn execute(&mut self, received: Instant, action: Action) {
        match action {
            Action::StartProbe { probe, service, check, target, kind, timeout } => {
                let names = Names { service: service.0, check: check.0 };
                self.probes.start(Request { probe, target, kind, timeout, names });
            }
            Action::CancelProbe { probe } => self.probes.cancel(probe),
            Action::Kernel { request, change } => {
                kernel::request(&self.netlink, request, change, &self.outcomes_sender);
            }
            Action::Persist { generation, state } => {
                self.state.write(generation, state, &self.outcomes_sender);
            }
            Action::Bgp(action) => self.speak(received, action),
            Action::BfdWanted { mut sessions, lease } => {
                self.keys.unlock(&mut sessions);
                if let Some(text) = self.bfd.want(sessions, lease) {
                    self.record(&Fact::PeerNotice { peer: None, text });
                }
            }
            Action::Nd(action) => match action {
                anyvip_nd::Action::Open { interface, index } => self.links.open(interface, index),
                anyvip_nd::Action::Close { interface } => self.links.close(&interface),
                anyvip_nd::Action::Send { interface, destination, bytes } => {
                    self.links.send(interface, destination, &bytes);
                }
                // The agent keeps the advertiser's facts to itself.
                anyvip_nd::Action::Fact(fact) => debug_assert!(false, "the agent asked for {fact:?}"),
            },
            Action::WatchRoutes { interests } => self.monitor.watch(interests),
            Action::Listen { address } => {
                self.listening.at(address, &mut self.connections).iter().for_each(|fact| self.record(fact));
            }
            Action::Respond(answers) => self.responder.say(answers),
            Action::Reply { request, reply } => self.reply(request, reply),
            Action::Record(fact) => self.record(&fact),
            Action::HandDown { restored } => self.hand_down(restored),
            Action::Replace => self.replaces = true,
            Action::Exit { code } => {
                upgrade::forget(&self.paths.state_dir);
                self.exit = Some(code);
            }
        }
    }

    fn speak(&mut self, received: Instant, action: anyvip_bgp::Action) {
        match action {
            anyvip_bgp::Action::Connect { connection, remote, ttl, transport, .. } => {
                self.connections.connect(connection, &remote, ttl, transport.source);
            }
            anyvip_bgp::Action::Send { connection, bytes } => {
                let measured = holds_update(&bytes);
                let written = self.connections.send(connection, bytes);
                if measured && written {
                    self.latency.record(received.elapsed());
                }
            }
            anyvip_bgp::Action::Close { connection } => self.connections.close(connection),
            // The agent keeps the speaker's facts to itself.
            other => debug_assert!(false, "the agent asked for {other:?}"),
        }
    }

    fn record(&mut self, fact: &Fact) {
        self.systemd.touch();
        self.journal.record(anyvip_io::clock::wall_clock_millis(), fact);
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
