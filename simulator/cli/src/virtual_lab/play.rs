//! A scenario played in virtual time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Time;
use anyvip_virtual::lab::{Lab, NodeName};
use anyvip_virtual::observation::{Flows, Observation, RouteChange, Verdict};
use anyvip_virtual::prediction::{Change, Prediction, rerouted};
use anyvip_virtual::scenario::{
    Action, Condition, Disturbance, Expectation, NextHops, Ports, Scenario, Step, Traffic,
};
use anyvip_virtual::world::{self, Fault, Note, NoteKind, Operation, Planned, PortId, World};
use ipnet::IpNet;

use super::clients::{Clients, ask_all};
use crate::journal::{Journal, Kind};
use crate::report::Report;
use crate::words::{self, describe, describe_action, describe_disturbance, end_of_session, kind, weights_of};

/// An agent that is told to stop or to drain answers within this, and one that takes over has decided everything.
const PATIENCE: Duration = Duration::from_secs(45);
/// What a program takes from exec to its first event; as long as that of a real one on a small machine.
const PROGRAM_START: Duration = Duration::from_millis(70);

/// What came of it.
pub(super) struct Outcome {
    pub(super) journal: Journal,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) ended: Time,
    /// Why the play stopped early.
    pub(super) stopped: Option<String>,
}

struct Play<'a> {
    lab: &'a Lab,
    scenario: &'a Scenario,
    world: World,
    clients: Clients,
    report: Report,
    journal: Journal,
    seen: Observation,
    verdicts: Vec<Verdict>,
    /// Configurations that agents are given on the way, by file.
    files: &'a BTreeMap<String, String>,
    prediction: Prediction,
    /// Of held connections: the servers that the twin named when they were opened.
    named: BTreeMap<String, BTreeMap<u16, NodeName>>,
}

/// Plays all steps. Stops early when a step cannot be done or a wait is in vain.
pub(super) fn play(
    lab: &Lab,
    scenario: &Scenario,
    files: &BTreeMap<String, String>,
    world: World,
    report: Report,
    journal: Journal,
) -> Outcome {
    let mut play = Play {
        lab,
        scenario,
        world,
        clients: Clients::default(),
        report,
        journal,
        seen: Observation::default(),
        verdicts: Vec::new(),
        files,
        prediction: Prediction::new(lab),
        named: BTreeMap::new(),
    };
    let mut stopped = None;
    for (number, step) in scenario.steps.iter().enumerate() {
        play.report.step(number + 1, scenario.steps.len(), &describe_action(&step.action));
        if let Err(error) = play.step(step) {
            let text = format!("line {}: {error}", step.place.line);
            play.report.trouble(play.world.now(), &text);
            play.verdicts.push(Verdict { met: false, text: text.clone() });
            stopped = Some(text);
            break;
        }
    }
    for breach in play.world.breaches() {
        let text = format!("{}: {} (a bug)", play.world.name(breach.node), breach.text);
        play.verdicts.push(Verdict { met: false, text });
    }
    let ended = play.world.now();
    play.report.note(ended, &format!("trace {}", play.world.hash()));
    play.report.end(ended, &play.verdicts);
    Outcome { journal: play.journal, verdicts: play.verdicts, ended, stopped }
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Say(text) => self.report.say(text),
            Action::Sleep(duration) => {
                self.pass(self.world.now() + *duration);
            }
            Action::WaitFor(condition, within) => self.wait_for(condition, *within)?,
            Action::Expect(expectations) => expectations.iter().for_each(|one| self.judge(one)),
            Action::Flows { traffic, name } => {
                let traffic = self.traffic(traffic)?;
                let clients = &mut self.clients;
                let flows = ask_all(&mut self.world, &traffic, |world, until| {
                    advance(world, clients, until, |_| false);
                });
                self.measured(name, &traffic, flows);
            }
            Action::Start { traffic, name } => {
                let traffic = self.traffic(traffic)?;
                let now = self.world.now();
                self.clients.start(name, &traffic, now);
                self.report
                    .note(now, &format!("{name}: asking {} {} a second", traffic.rate, kind(&traffic)));
            }
            Action::Stop { name } => {
                let traffic = self.traffic_of(name)?;
                let flows = self.clients.stop(name).ok_or_else(|| format!("`{name}` was not started"))?;
                self.measured(name, &traffic, flows);
            }
            Action::Hold { traffic, name } => {
                let traffic = self.traffic(traffic)?;
                self.clients.hold(name, &traffic, &mut self.world);
                self.note_all();
                let named = self.prediction.servers(&traffic, self.world.now());
                self.named.insert(name.clone(), named);
                self.report.note(self.world.now(), &format!("{name}: opened {} connections", traffic.flows));
            }
            Action::Release { name } => {
                let traffic = self.traffic_of(name)?;
                let held = self.clients.release(name).ok_or_else(|| format!("`{name}` was not held"))?;
                self.note_all();
                let now = self.prediction.servers(&traffic, self.world.now());
                let before = self.named.remove(name).unwrap_or_default();
                self.seen.rerouted.insert(name.clone(), rerouted(&before, now));
                self.report.held(name, self.world.now(), &held);
                self.journal.connections(name, &held);
                self.seen.held.insert(name.clone(), held);
            }
            Action::AskArp { from, address, name } => {
                let from_id = self.world.find(from).ok_or_else(|| format!("there is no node {from}"))?;
                let stations = self.world.ask_arp(from_id, IpAddr::V4(*address));
                let who = match stations.as_slice() {
                    [] => "nobody".to_owned(),
                    some => format!("{} ({})", some.len(), some.join(", ")),
                };
                let (at, text) =
                    (self.world.now(), format!("{from} asks by ARP who has {address}: {who} answered"));
                self.report.note(at, &text);
                self.journal.add(at, Kind::Effect, text);
                self.seen.answers.insert(name.clone(), stations);
            }
            Action::Disturb(disturbance) => self.disturb(disturbance)?,
        }
        self.note_all();
        Ok(())
    }

    fn traffic(&self, name: &str) -> Result<Traffic, String> {
        self.scenario.traffic.get(name).cloned().ok_or_else(|| format!("there is no traffic `{name}`"))
    }

    /// The traffic that was started or held under this name.
    fn traffic_of(&self, name: &str) -> Result<Traffic, String> {
        let started = self.scenario.steps.iter().find_map(|step| match &step.action {
            Action::Start { traffic, name: other } | Action::Hold { traffic, name: other }
                if other == name =>
            {
                Some(traffic)
            }
            _ => None,
        });
        self.traffic(started.ok_or_else(|| format!("`{name}` was not started"))?)
    }

    fn measured(&mut self, name: &str, traffic: &Traffic, flows: Flows) {
        self.note_all();
        let to = std::net::SocketAddr::new(traffic.to, traffic.port);
        self.report.flows(name, &format!("{} to {to}", kind(traffic)), &flows);
        let agreement = self.prediction.compare(traffic, &flows);
        self.journal.measure(name, traffic, &flows, &agreement);
        self.seen.agreements.insert(name.to_owned(), agreement);
        self.seen.flows.insert(name.to_owned(), (traffic.to, flows));
    }

    /// Lets time pass; the clients go on.
    fn pass(&mut self, until: Time) {
        advance(&mut self.world, &mut self.clients, until, |_| false);
        self.note_all();
    }

    fn note_all(&mut self) {
        for note in self.world.notes() {
            self.note(note);
        }
    }

    fn note(&mut self, note: Note) {
        let Note { at, node, kind, text } = note;
        let node = self.world.name(node).to_owned();
        match kind {
            NoteKind::Route { prefix, next_hops } if prefix.prefix_len() == prefix.max_prefix_len() => {
                let addresses: Vec<IpAddr> = next_hops.iter().map(|hop| hop.address).collect();
                let text = weights_of(self.lab, &node, prefix, &next_hops)
                    .unwrap_or_else(|| format!("{node}: {prefix} → {}", self.names(&addresses)));
                let router = node.clone();
                self.prediction.change(at, Change::Installed { router, prefix, next_hops });
                self.report.effect(at, &text);
                self.journal.route(at, &node, prefix, self.names_of(&addresses), text);
                self.seen.routes.push(RouteChange { router: node, prefix, next_hops: addresses, at });
            }
            NoteKind::Session { peer, lost: None } => {
                self.journal.add(at, Kind::Effect, format!("{node}: session with {peer} up"));
            }
            NoteKind::Session { peer, lost: Some(reason) } => {
                let text = format!("{node}: session with {peer} lost: {}", end_of_session(&reason));
                self.report.effect(at, &text);
                self.journal.add(at, Kind::Effect, text);
            }
            NoteKind::Trouble => {
                let text = format!("{node}: {text}");
                self.report.trouble(at, &text);
                self.journal.add(at, Kind::Trouble, text);
            }
            NoteKind::Route { .. } | NoteKind::Fact | NoteKind::Reply => {}
        }
    }

    fn names_of(&self, next_hops: &[IpAddr]) -> Vec<NodeName> {
        names_of(self.lab, next_hops)
    }

    fn names(&self, next_hops: &[IpAddr]) -> String {
        if next_hops.is_empty() { "no route".to_owned() } else { self.names_of(next_hops).join(", ") }
    }

    fn wait_for(&mut self, condition: &Condition, within: Duration) -> Result<(), String> {
        let end = self.world.now() + within;
        let lab = self.lab;
        let so = |world: &World| holds(world, lab, condition).0;
        let met = advance(&mut self.world, &mut self.clients, end, so);
        self.note_all();
        if met {
            return Ok(());
        }
        let (_, seen) = holds(&self.world, self.lab, condition);
        Err(format!("in vain for {within:?}: {} (seen: {seen})", describe(condition)))
    }

    fn judge(&mut self, expectation: &Expectation) {
        self.note_all();
        let verdict = match (self.seen.judge(expectation), expectation) {
            (Some(verdict), _) => verdict,
            (None, Expectation::Holds(condition)) => {
                let (met, seen) = holds(&self.world, self.lab, condition);
                Verdict { met, text: format!("{} (seen: {seen})", describe(condition)) }
            }
            (None, other) => Verdict { met: false, text: format!("cannot judge {other:?}") },
        };
        self.report.verdict(&verdict);
        self.journal.judged(expectation);
        self.verdicts.push(verdict);
    }

    fn disturb(&mut self, disturbance: &Disturbance) -> Result<(), String> {
        self.note_all();
        let (at, text) = (self.world.now(), describe_disturbance(disturbance));
        if let Disturbance::Sysctl { node, key, value } = disturbance {
            let (node, key, value) = (node.clone(), key.clone(), value.clone());
            self.prediction.change(at, Change::Sysctl { node, key, value });
        }
        self.report.cause(at, &text);
        self.journal.add(at, Kind::Cause, text);
        for planned in self.planned(disturbance)? {
            self.world.act(planned);
        }
        self.note_all();
        match disturbance {
            Disturbance::StopAgent(node) => {
                let host = self.find(node)?;
                self.patiently("the agent does not end", |world| {
                    world.host(host).is_some_and(|host| host.agent().is_none())
                })
            }
            Disturbance::Drain { node, .. } | Disturbance::Undrain { node, .. } => {
                let host = self.find(node)?;
                let answers = |world: &World| world.host(host).map_or(0, |host| host.replies.len());
                let running = self.world.host(host).is_some_and(|host| host.agent().is_some());
                let before = answers(&self.world);
                self.patiently("the agent does not answer", |world| !running || answers(world) > before)
            }
            Disturbance::Upgrade(node) => {
                let host = self.find(node)?;
                let phase = |world: &World| {
                    let host = world.host(host)?;
                    Some(host.agent()?.status(host.agent_time(world.now())?).upgrade?.phase)
                };
                self.patiently("the new program does not take over", |world| {
                    world.host(host).is_some_and(|host| host.agent().is_some())
                        && phase(world).is_none_or(|phase| phase == "done" || phase == "failed")
                })?;
                match phase(&self.world).as_deref() {
                    Some("done") => Ok(()),
                    _ => Err(self.last_reply(host)),
                }
            }
            _ => Ok(()),
        }
    }

    /// What the agent said to its operator last.
    fn last_reply(&self, host: world::NodeId) -> String {
        let said = self.world.host(host).and_then(|host| host.replies.last());
        said.map_or("the agent said nothing".to_owned(), |(_, _, reply)| reply.text.clone())
    }

    fn patiently(&mut self, what: &str, so: impl FnMut(&World) -> bool) -> Result<(), String> {
        let end = self.world.now() + PATIENCE;
        match advance(&mut self.world, &mut self.clients, end, so) {
            true => Ok(()),
            false => Err(format!("{what} within {PATIENCE:?}")),
        }
    }

    fn find(&self, node: &str) -> Result<world::NodeId, String> {
        self.world.find(node).ok_or_else(|| format!("there is no node {node}"))
    }

    fn planned(&self, disturbance: &Disturbance) -> Result<Vec<Planned>, String> {
        let service = |node: &str, condition| {
            Ok::<_, String>(vec![Fault::Service { host: self.find(node)?, service: None, condition }])
        };
        let operation = |node: &str, operation| {
            Ok::<_, String>(vec![Planned::Operation { host: self.find(node)?, operation }])
        };
        let faults = match disturbance {
            Disturbance::Kill(node) => service(node, world::Condition::Dead)?,
            Disturbance::Hang(node) => service(node, world::Condition::Hanging)?,
            Disturbance::Resume(node) | Disturbance::StartService(node) => {
                service(node, world::Condition::Serving)?
            }
            Disturbance::KillAgent(node) => vec![Fault::KillAgent { host: self.find(node)? }],
            Disturbance::StopAgent(node) => return operation(node, Operation::Terminate),
            Disturbance::StartAgent(node) => return operation(node, Operation::Start),
            Disturbance::Upgrade(node) => {
                return operation(node, Operation::Upgrade { pause: Some(PROGRAM_START), force: false });
            }
            Disturbance::Drain { node, service } => {
                return operation(node, Operation::Drain { service: service.clone(), reason: None });
            }
            Disturbance::Undrain { node, service } => {
                return operation(node, Operation::Undrain { service: service.clone() });
            }
            Disturbance::CarrierDown(ports) | Disturbance::CarrierUp(ports) => {
                let up = matches!(disturbance, Disturbance::CarrierUp(_));
                self.ends(ports)?.into_iter().map(|port| Fault::Port { port, up }).collect()
            }
            Disturbance::Silence(ports) | Disturbance::Unsilence(ports) => {
                let cut = matches!(disturbance, Disturbance::Silence(_));
                let links = self.ends(ports)?.into_iter();
                let links = links.filter_map(|port| self.world.network().port(port)?.link);
                links.map(|(link, end)| Fault::CutOneWay { link, end, cut }).collect()
            }
            Disturbance::Loss { router, permille } => {
                vec![Fault::Loss { router: self.find(router)?, ppm: u32::from(*permille) * 1000 }]
            }
            Disturbance::DeleteVip { node, vip } => {
                vec![Fault::DeleteAddress { host: self.find(node)?, address: *vip }]
            }
            Disturbance::Sysctl { node, key, value } => {
                vec![Fault::Sysctl { host: self.find(node)?, key: key.clone(), value: value.clone() }]
            }
            Disturbance::Reload { node, config } => {
                let text = self.files.get(config).ok_or_else(|| format!("{config} was not read"))?;
                return operation(node, Operation::Reload { config: text.clone() });
            }
        };
        Ok(faults.into_iter().map(Planned::Fault).collect())
    }

    fn ends(&self, ports: &[Ports]) -> Result<Vec<PortId>, String> {
        let mut found = Vec::new();
        for ports in ports {
            let node = self.find(&ports.node)?;
            match &ports.interface {
                Some(interface) => found.extend(self.world.network().find_port(node, interface)),
                None => found.extend(self.world.network().ports_of(node)),
            }
        }
        Ok(found)
    }
}

/// Lets time pass until it is so, at most until `limit`; clients ask when they are due.
fn advance(
    world: &mut World,
    clients: &mut Clients,
    limit: Time,
    mut so: impl FnMut(&World) -> bool,
) -> bool {
    loop {
        let next = clients.next().filter(|next| *next <= limit);
        if world.run_until_so(next.unwrap_or(limit), &mut so) {
            return true;
        }
        if next.is_none() {
            return false;
        }
        clients.act(world);
    }
}

fn names_of(lab: &Lab, next_hops: &[IpAddr]) -> Vec<NodeName> {
    let name = |address: &IpAddr| lab.owner_of(*address).cloned().unwrap_or_else(|| address.to_string());
    next_hops.iter().map(name).collect()
}

/// Whether a condition holds now, and what is seen instead.
fn holds(world: &World, lab: &Lab, condition: &Condition) -> (bool, String) {
    match condition {
        Condition::NextHops { router, prefix, next_hops } => {
            let hops = hops_of(world, router, prefix);
            let names = names_of(lab, &hops);
            let met = match next_hops {
                NextHops::Count(count) => hops.len() == *count,
                NextHops::Nodes(nodes) => {
                    names.len() == nodes.len() && names.iter().all(|name| nodes.contains(name))
                }
            };
            (met, if hops.is_empty() { "no route".to_owned() } else { names.join(", ") })
        }
        Condition::Weights { router, prefix, weights } => {
            let found = world.find(router).and_then(|id| world.router(id));
            let hops = found.and_then(|found| found.fib.get(prefix)).map_or(&[][..], Vec::as_slice);
            words::weigh(lab, hops, weights)
        }
        Condition::Health { agent, .. }
        | Condition::Announced { agent, .. }
        | Condition::Withheld { agent, .. } => {
            let host = world.find(agent).and_then(|id| world.host(id));
            let status = host.and_then(|host| Some(host.agent()?.status(host.agent_time(world.now())?)));
            match status.map(serde_json::to_value) {
                Some(Ok(status)) => crate::status::holds(&status, condition),
                _ => (false, "no agent runs".to_owned()),
            }
        }
    }
}

fn hops_of(world: &World, router: &str, prefix: &IpNet) -> Vec<IpAddr> {
    let router = world.find(router).and_then(|id| world.router(id));
    let hops = router.and_then(|router| router.fib.get(prefix));
    hops.into_iter().flatten().map(|hop| hop.address).collect()
}
