//! A host: kernel, disk, service, and the real agent with a driver around it that keeps every contract of a driver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyvip_bfd::{Former, SessionName};
use anyvip_core::boundary::{Command, Start};
use anyvip_core::config::{self, CheckKind, Config, Source};
use anyvip_core::restored::Restored;
use anyvip_core::state::{StoredState, StoredStateRead};
use anyvip_core::{
    Action, Agent, Event, KernelRequest, KernelRequestId, ProbeId, ProbeOutcome, ProbeResult, Reply,
    RequestId, ServiceName, Target,
};
use anyvip_machine::{Seed, Time};

use super::disk::Disk;
use super::kernel::{Kernel, Settings};
use super::operator::Intention;
use super::process::{Letter, Task};
use super::queue::What;
use super::sabotage::Sabotage;
use super::service::{Answer, Service};
use super::upgrade::Upgrade;
use super::{Breach, BreachKind, Node, NodeId, NoteKind, World};
use crate::replay::words;

/// Wall clock when the world begins, ms since 1970.
const WALL_CLOCK: u64 = 1_800_000_000_000;
/// Probes that a driver runs at once.
const MOST_PROBES: usize = 64;

/// What something is that a process asked of its host.
#[derive(Debug)]
pub(super) enum Work {
    Probe { probe: ProbeId, outcome: ProbeOutcome },
    Kernel { request: KernelRequestId, change: KernelRequest },
    Persist { generation: u64, state: StoredState },
    HandDown { restored: Restored, bfd: BTreeMap<SessionName, Former> },
}

/// A probe as the agent wants it.
struct Asked {
    probe: ProbeId,
    service: ServiceName,
    target: Target,
    /// `None`: a command.
    port: Option<u16>,
    timeout: Duration,
}

/// What a host is made from.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Configuration of the agent, as it lies on the disk.
    pub config: Arc<str>,
    /// Gateways of the default routes.
    pub gateways: Vec<IpAddr>,
    /// Sysctls of its interfaces after boot.
    pub settings: Settings,
    /// Where its service listens; `None`: on every port.
    pub ports: Option<BTreeSet<u16>>,
}

/// A running agent.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) task: Task,
    pub(super) agent: Agent,
    /// Its own time began here.
    pub(super) began: Time,
    probes: Vec<ProbeId>,
    /// Answers of kernel and disk that are still to come.
    pub(super) working: u32,
    pub(super) listens: Option<SocketAddr>,
    pub(super) interests: Vec<IpAddr>,
    /// When the agent is shown the kernel side next.
    pub(super) show_at: Option<Time>,
    requests: BTreeMap<RequestId, Command>,
    /// It has been shown the kernel side.
    shown: bool,
}

impl Process {
    /// What its driver keeps for it.
    pub(super) fn kept(&self) -> usize {
        let Process { task, probes, working, requests, .. } = self;
        task.inbox.len() + task.connections.len() + probes.len() + *working as usize + requests.len()
    }

    fn local(&self, now: Time) -> Time {
        Time::ZERO + now.since(self.began)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.agent.next_deadline().map(|next| self.began + next.since(Time::ZERO))
    }
}

/// How an agent's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It said so itself.
    Exit(u8),
    /// SIGKILL, or its host lost power.
    Killed,
    /// It became another program.
    Replaced,
    /// It did not start: the configuration was refused.
    Refused(String),
}

/// See the module's text.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    pub(super) seed: Seed,
    pub(super) plan: HostPlan,
    /// What is really there.
    pub kernel: Kernel,
    /// The state directory.
    pub disk: Disk,
    pub(super) services: BTreeMap<ServiceName, Service>,
    pub(super) service: Service,
    pub(super) process: Option<Box<Process>>,
    /// Whether the machine runs.
    pub powered: bool,
    /// Times it was booted.
    pub boots: u32,
    /// Times an agent was started.
    pub starts: u32,
    /// What the wall clock is off, ms.
    pub clock_off_ms: i64,
    /// When an agent last took an event here.
    acted: Option<Time>,
    /// When and how the last agent ended.
    pub ended: Option<(Time, Ended)>,
    /// What operators want of each service; a service that is not named was never touched.
    pub intentions: BTreeMap<ServiceName, Intention>,
    /// Whether an agent shall run.
    pub wanted: bool,
    /// How its driver is broken on purpose.
    pub(super) sabotage: Option<Sabotage>,
    /// Answers that a broken driver keeps.
    pub(super) leaked: usize,
    pub(super) start_after: Option<Duration>,
    pub(super) upgrade: Upgrade,
    pub(super) next_request: u64,
    /// Answers to operators, oldest first, the last 64.
    pub replies: Vec<(Time, RequestId, Reply)>,
    /// Since when the agent in charge runs with its present configuration text.
    pub config_since: Time,
}

impl Host {
    pub(super) fn new(name: &str, seed: Seed, plan: HostPlan, kernel: Kernel) -> Host {
        Host {
            name: name.to_owned(),
            service: Service::new(seed.child("service")),
            seed,
            plan,
            kernel,
            disk: Disk::default(),
            services: BTreeMap::new(),
            process: None,
            powered: true,
            boots: 1,
            starts: 0,
            clock_off_ms: 0,
            acted: None,
            ended: None,
            intentions: BTreeMap::new(),
            wanted: true,
            sabotage: None,
            leaked: 0,
            start_after: None,
            upgrade: Upgrade::default(),
            next_request: 0,
            replies: Vec::new(),
            config_since: Time::ZERO,
        }
    }

    /// The agent that runs, if one does.
    pub fn agent(&self) -> Option<&Agent> {
        self.process.as_ref().map(|process| &process.agent)
    }

    /// Now, as the agent counts: since its start.
    pub fn agent_time(&self, now: Time) -> Option<Time> {
        self.process.as_ref().map(|process| process.local(now))
    }

    /// When the agent that runs was started.
    pub fn began(&self) -> Option<Time> {
        self.process.as_ref().map(|process| process.began)
    }

    /// When the agent last went on after it was stopped.
    pub fn resumed(&self) -> Time {
        self.process.as_ref().map_or(Time::ZERO, |process| process.task.resumed)
    }

    /// How long ago an agent last took an event here; `None`: there never was one.
    pub fn silent(&self, now: Time) -> Option<Duration> {
        self.acted.map(|at| now.since(at))
    }

    /// The text of the agent's configuration as it lies on the disk.
    pub fn config_text(&self) -> &str {
        &self.plan.config
    }

    /// How the agent gets on; `None` without one.
    pub fn pace(&self) -> Option<super::Pace> {
        self.process.as_ref().map(|process| process.task.pace)
    }

    /// Whether its service listens there while it runs.
    pub fn listens(&self, port: u16) -> bool {
        self.plan.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// The truth about a service of this name.
    pub fn service(&self, name: &ServiceName) -> &Service {
        self.services.get(name).unwrap_or(&self.service)
    }

    /// The truth about the service that answers clients.
    pub fn server(&self) -> &Service {
        &self.service
    }

    pub(super) fn service_mut(&mut self, name: Option<&ServiceName>) -> &mut Service {
        match name {
            None => &mut self.service,
            Some(name) => self.services.entry(name.clone()).or_insert_with(|| {
                let mut own = self.service.clone();
                own.reseed(self.seed.child(&format!("service {name}")));
                own
            }),
        }
    }

    pub(super) fn wall_clock_ms(&self, now: Time) -> u64 {
        WALL_CLOCK.saturating_add(now.as_millis()).saturating_add_signed(self.clock_off_ms)
    }

    fn boot_id(&self) -> String {
        format!("{} boot {}", self.name, self.boots)
    }

    /// Reads the configuration as the daemon does.
    pub(super) fn load(&self, stored: &StoredStateRead) -> Result<Config, String> {
        let router_id = match stored {
            StoredStateRead::Read(state) => state.router_id,
            _ => None,
        };
        let source = Source { name: "config.toml".to_owned(), text: self.plan.config.to_string() };
        match config::load(&[source], &self.kernel.facts(router_id)) {
            Ok(loaded) => Ok(loaded.config),
            Err(found) => {
                let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
                Err(lines.join("\n"))
            }
        }
    }
}

impl World {
    pub(super) fn host_mut(&mut self, node: NodeId) -> Option<&mut Host> {
        match self.nodes.get_mut(node.0 as usize)? {
            Node::Host(host) => Some(host),
            _ => None,
        }
    }

    /// Starts an agent on a host that has power and none.
    pub(super) fn start_agent(&mut self, node: NodeId) {
        // One that becomes another is a process all the time.
        if !self.host_mut(node).is_some_and(|host| host.upgrade.between) {
            self.begin_agent(node);
        }
    }

    /// The first moment of a program, be it of a new process or of one that was another before.
    pub(super) fn begin_agent(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.host_mut(node).filter(|host| host.powered && host.process.is_none()) else {
            return;
        };
        host.starts += 1;
        let inheritance = host.upgrade.inherit(now, host.sabotage);
        let stored = host.disk.read();
        let config = match host.load(&stored) {
            Ok(config) => config,
            Err(text) => {
                host.ended = Some((now, Ended::Refused(text.clone())));
                return self.note(node, NoteKind::Trouble, || format!("the agent does not start: {text}"));
            }
        };
        let agent = Agent::new(Start {
            config,
            state: stored,
            boot_id: host.boot_id(),
            wall_clock_ms: host.wall_clock_ms(now),
            seed: host.seed.child(&format!("agent {}", host.starts)).number(),
            inheritance,
        });
        let number = host.starts;
        host.process = Some(Box::new(Process {
            task: Task::new(number),
            agent,
            began: now,
            probes: Vec::new(),
            working: 0,
            listens: None,
            interests: Vec::new(),
            show_at: None,
            requests: BTreeMap::new(),
            shown: false,
        }));
        host.config_since = now;
        let view = host.kernel.view(&[]);
        self.deliver(node, number, Letter::Core(Box::new(Event::Started)));
        self.deliver(node, number, Letter::Core(Box::new(Event::KernelView(view))));
    }

    /// SIGKILL, or its own end. Whoever waited for that to start a new one does so.
    pub(super) fn kill_agent(&mut self, node: NodeId, how: Ended) {
        let now = self.now;
        let Some(number) = self.task(node).map(|task| task.number) else { return };
        self.close_all(node, number);
        let Some(host) = self.host_mut(node) else { return };
        host.process = None;
        host.ended = Some((now, how));
        let start = host.starts;
        if let Some(pause) = host.start_after.take() {
            self.queue.push(now + pause, What::Start { node, start });
        }
    }

    /// The agent takes an event, and what it says is carried out.
    pub(super) fn agent_takes(&mut self, node: NodeId, letter: Letter) {
        let event = match letter {
            Letter::Bgp(event) => Event::Bgp(event),
            Letter::Core(event) => *event,
            Letter::Readable { .. } | Letter::Link { .. } => return,
        };
        let Some(Node::Host(host)) = self.nodes.get_mut(node.0 as usize) else { return };
        let Some(process) = host.process.as_mut() else { return };
        let number = process.task.number;
        let local = process.local(self.now);
        host.acted = Some(self.now);
        // RFC 5882 §3.2, §4.2: only a path that was there and is not any more closes what it carries.
        let harmless = matches!(&event,
            Event::Bfd(anyvip_bfd::Fact::StateChanged(change)) if !change.is_failure());
        let event = match host.sabotage {
            None => event,
            Some(how) => {
                host.leaked +=
                    usize::from(how == Sabotage::Leaks && matches!(event, Event::ProbeFinished { .. }));
                let Some(event) = how.bend(event, process.shown) else { return };
                event
            }
        };
        process.shown |= matches!(event, Event::KernelView(_));
        let stand = |agent: &Agent| {
            agent.speaker().peers().filter(|peer| peer.state == anyvip_bgp::PeerState::Established).count()
        };
        let before = harmless.then(|| stand(&process.agent));
        self.trace.begin(self.now, node, &event, words::event);
        let actions = process.agent.handle(local, event);
        self.trace.end(&actions, words::action);
        if before.is_some_and(|before| stand(&process.agent) < before) {
            self.breaches.push(Breach {
                at: self.now,
                node,
                kind: BreachKind::PathGuard,
                text: "a BGP session was closed for a BFD session that did not fail".to_owned(),
            });
        }
        self.events += 1;
        self.turn.touch(node);
        for action in actions {
            self.carry_out(node, number, action);
        }
    }

    fn carry_out(&mut self, node: NodeId, number: u32, action: Action) {
        use anyvip_bgp::Action as Bgp;
        match action {
            Action::StartProbe { probe, service, target, kind, timeout, .. } => {
                let port = match kind {
                    CheckKind::Http(http) => Some(http.port),
                    CheckKind::Tcp(tcp) => Some(tcp.port),
                    CheckKind::Exec(_) => None,
                };
                self.start_probe(node, number, Asked { probe, service, target, port, timeout });
            }
            Action::CancelProbe { probe } => {
                if let Some(process) = self.process_mut(node, number) {
                    process.probes.retain(|running| *running != probe);
                }
            }
            Action::Kernel { request, change } => {
                let Some(host) = self.host_mut(node) else { return };
                let latency = host.seed.between(Duration::from_micros(50), Duration::from_micros(600));
                self.work(node, number, latency, Work::Kernel { request, change });
            }
            Action::Persist { generation, state } => {
                let Some(host) = self.host_mut(node) else { return };
                let latency = host.disk.latency;
                let latency = latency + host.seed.between(Duration::ZERO, latency / 4);
                self.work(node, number, latency, Work::Persist { generation, state });
            }
            Action::Bgp(Bgp::Connect { connection, remote, .. }) => {
                self.connect(node, number, connection, &remote);
            }
            Action::Bgp(Bgp::Send { connection, bytes }) => {
                let drops =
                    self.host_mut(node).and_then(|host| host.sabotage).is_some_and(|how| how.drops(&bytes));
                if drops {
                    return self.deliver(node, number, Letter::Bgp(anyvip_bgp::Event::Sent { connection }));
                }
                self.write(node, connection, bytes);
            }
            Action::Bgp(Bgp::Close { connection }) => self.close(node, connection),
            Action::Bgp(fact) => self.breach(node, format!("a fact left the agent: {fact:?}")),
            Action::BfdWanted { sessions, lease } => self.want_bfd(node, sessions, lease),
            // No cable of this world carries router advertisements: every link of a lab has addresses.
            Action::Nd(_) => {}
            Action::WatchRoutes { interests } => {
                if let Some(process) = self.process_mut(node, number) {
                    process.interests = interests;
                }
                self.kernel_changed(node, false);
            }
            Action::Listen { address } => {
                if let Some(process) = self.process_mut(node, number) {
                    process.listens = address;
                }
            }
            // No router of this world tracks by probe.
            Action::Respond(_) => {}
            Action::Reply { request, reply } => self.answered(node, number, request, reply),
            Action::Record(fact) => self.note(node, NoteKind::Fact, || format!("{fact:?}")),
            Action::HandDown { restored } => self.hand_down(node, number, restored),
            Action::Replace => self.replace(node, number),
            Action::Exit { code } => {
                self.bfd_says_goodbye(node);
                self.kill_agent(node, Ended::Exit(code));
            }
        }
    }

    fn process_mut(&mut self, node: NodeId, number: u32) -> Option<&mut Process> {
        let process = self.host_mut(node)?.process.as_mut()?;
        Some(process.as_mut()).filter(|process| process.task.number == number)
    }

    pub(super) fn work(&mut self, node: NodeId, process: u32, latency: Duration, work: Work) {
        if let Some(process) = self.process_mut(node, process) {
            process.working += u32::from(!matches!(work, Work::Probe { .. }));
        }
        self.queue.push(self.now + latency, What::Work { node, process, work: Box::new(work) });
    }

    fn start_probe(&mut self, node: NodeId, number: u32, asked: Asked) {
        let Asked { probe, service, target, port, timeout } = asked;
        let Some(process) = self.process_mut(node, number) else { return };
        process.probes.push(probe);
        if process.probes.len() > MOST_PROBES {
            self.breach(node, "more than 64 probes at once".to_owned());
        }
        let Some(host) = self.host_mut(node) else { return };
        let here = match target {
            Target::Vip(vip) => host.kernel.has(vip),
            Target::Own => true,
        };
        let listens = port.is_none_or(|port| host.listens(port));
        let name = host.services.contains_key(&service).then_some(&service);
        let (answer, latency) = host.service_mut(name).probed();
        let answer = match answer {
            // A VIP that is not here is somebody else's: the probe leaves the host and another server answers.
            _ if !here => Answer::Pass,
            Answer::Pass | Answer::Silent if !listens => Answer::Refused,
            answer => answer,
        };
        let (result, latency, detail) = match answer {
            Answer::Pass if latency < timeout => (ProbeResult::Pass, latency, "answered"),
            Answer::Refused => (ProbeResult::Fail, Duration::from_micros(60), "connection refused"),
            Answer::Error => (ProbeResult::Error, Duration::from_micros(20), "too many open files"),
            Answer::Wrong => (ProbeResult::Fail, latency.min(timeout), "a wrong answer"),
            Answer::Pass | Answer::Silent => (ProbeResult::Fail, timeout, "timed out"),
        };
        let outcome = ProbeOutcome { result, latency, detail: detail.to_owned() };
        self.work(node, number, latency, Work::Probe { probe, outcome });
    }

    /// Something that a process asked for is done.
    pub(super) fn work_done(&mut self, node: NodeId, number: u32, work: Work) {
        let Some(host) = self.host_mut(node).filter(|host| host.powered) else { return };
        let alive = host.process.as_ref().is_some_and(|process| process.task.number == number);
        // Who was killed while the kernel or the disk was at it does not know how far they came.
        let lands = alive || host.seed.chance(500);
        let event = match work {
            Work::Probe { probe, outcome } => {
                let Some(process) = host.process.as_mut().filter(|_| alive) else { return };
                let Some(at) = process.probes.iter().position(|running| *running == probe) else { return };
                process.probes.swap_remove(at);
                Event::ProbeFinished { probe, outcome }
            }
            Work::Kernel { request, change } => {
                if !lands {
                    return;
                }
                let skips = host.sabotage.is_some_and(|how| how.skips(&change));
                let result = if skips { Ok(()) } else { host.kernel.apply(&change) };
                if result.is_ok() {
                    self.kernel_changed(node, false);
                }
                self.finished(node, number);
                Event::KernelDone { request, result }
            }
            Work::Persist { generation, state } => {
                if !lands {
                    return;
                }
                let result = host.disk.write();
                // A writer that is late never replaces a newer state of its own run.
                let newer = host.disk.stored.as_ref().is_some_and(|stored| stored.generation > generation);
                if result.is_ok() && (!newer || !alive) {
                    host.disk.stored = Some(state);
                }
                self.finished(node, number);
                Event::Persisted { generation, result }
            }
            Work::HandDown { restored, bfd } => {
                self.finished(node, number);
                let Some(event) = self.handed_down(node, restored, bfd).filter(|_| alive) else { return };
                event
            }
        };
        self.deliver(node, number, Letter::Core(Box::new(event)));
    }

    fn finished(&mut self, node: NodeId, number: u32) {
        if let Some(process) = self.process_mut(node, number) {
            process.working = process.working.saturating_sub(1);
        }
    }

    pub(super) fn remember_request(&mut self, node: NodeId, request: RequestId, command: Command) {
        if let Some(process) = self.host_mut(node).and_then(|host| host.process.as_mut()) {
            process.requests.insert(request, command);
        }
    }

    pub(super) fn forget_request(
        &mut self,
        node: NodeId,
        number: u32,
        request: RequestId,
    ) -> Option<Command> {
        self.process_mut(node, number)?.requests.remove(&request)
    }
}
