//! A scenario played on a bench.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Time;
use anyvip_virtual::lab::{Lab, NodeName, Role};
use anyvip_virtual::observation::{Observation, RouteChange, Verdict};
use anyvip_virtual::prediction::{Change, Prediction, rerouted};
use anyvip_virtual::router::Hop;
use anyvip_virtual::scenario::{
    Action, Condition, Disturbance, Expectation, NextHops, Ports, Scenario, Step, Traffic,
};
use ipnet::IpNet;

use crate::bench::Bench;
use crate::clock;
use crate::control::{AgentOrder, Answer, Message, Order, ServiceOrder};
use crate::journal::{Journal, Kind};
use crate::judge::{self, Truth};
use crate::live::Asking;
use crate::report::Report;
use crate::words::{self, describe, describe_action, describe_disturbance, kind, weights_of};

/// How often an agent's status is asked while something is awaited.
const STATUS_PERIOD: Duration = Duration::from_millis(50);

/// What has just been done is known everywhere after this.
const SETTLE: Duration = Duration::from_secs(15);

/// The state of the play.
pub(crate) struct Play<'a> {
    lab: &'a Lab,
    scenario: &'a Scenario,
    bench: &'a mut Bench,
    report: Report,
    journal: Journal,
    seen: Observation,
    routes: BTreeMap<(NodeName, IpNet), Vec<IpAddr>>,
    installed: BTreeMap<(NodeName, IpNet), Vec<Hop>>,
    prediction: Prediction,
    /// Of held connections: the servers that the twin named when they were opened.
    named: BTreeMap<String, BTreeMap<u16, NodeName>>,
    verdicts: Vec<Verdict>,
    truth: Truth,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) journal: Journal,
    pub(crate) verdicts: Vec<Verdict>,
    /// Why the play stopped early.
    pub(crate) stopped: Option<String>,
}

/// Plays all steps. Stops early when a step cannot be done or a wait is in vain.
pub(crate) async fn play(
    lab: &Lab,
    scenario: &Scenario,
    bench: &mut Bench,
    report: Report,
    journal: Journal,
) -> Outcome {
    let mut play = Play {
        lab,
        scenario,
        bench,
        report,
        journal,
        seen: Observation::default(),
        routes: BTreeMap::new(),
        installed: BTreeMap::new(),
        prediction: Prediction::new(lab),
        named: BTreeMap::new(),
        verdicts: Vec::new(),
        truth: Truth::default(),
    };
    let mut stopped = None;
    for (number, step) in scenario.steps.iter().enumerate() {
        play.report.step(number + 1, scenario.steps.len(), &describe_action(&step.action));
        if let Err(error) = play.step(step).await {
            let text = format!("line {}: {error}", step.place.line);
            play.report.trouble(clock::now(), &text);
            play.verdicts.push(Verdict { met: false, text: text.clone() });
            stopped = Some(text);
            break;
        }
    }
    if stopped.is_none() {
        play.invariants().await;
    }
    play.report.end(clock::now(), &play.verdicts);
    Outcome { journal: play.journal, verdicts: play.verdicts, stopped }
}

impl Play<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Say(text) => self.report.say(text),
            Action::Sleep(duration) => {
                let end = tokio::time::Instant::now() + *duration;
                while let Ok((node, message)) = tokio::time::timeout_at(end, self.bench.next_message()).await
                {
                    self.note(&node, message);
                }
            }
            Action::WaitFor(condition, within) => self.wait_for(condition, *within).await?,
            Action::Expect(expectations) => {
                for expectation in expectations {
                    self.judge(expectation).await;
                }
            }
            Action::Flows { traffic, name } => {
                let traffic = self.traffic(traffic)?;
                let (_, answer) =
                    self.order(&traffic.from, Order::Flows { traffic: traffic.clone() }).await?;
                self.measured_flows(name, &traffic, answer);
            }
            Action::Start { traffic, name } => {
                let traffic = self.traffic(traffic)?;
                let tell = self.report.live().is_terminal();
                let order = Order::Start { name: name.clone(), traffic: traffic.clone(), tell };
                let (at, _) = self.order(&traffic.from, order).await?;
                let what = kind(&traffic);
                self.report.note(at, &format!("{name}: asking {} {what} a second", traffic.rate));
            }
            Action::Stop { name } => {
                let traffic = self.traffic_of(name)?;
                let (_, answer) = self.order(&traffic.from, Order::Stop { name: name.clone() }).await?;
                self.report.asking(name, None);
                self.measured_flows(name, &traffic, answer);
            }
            Action::Hold { traffic, name } => {
                let traffic = self.traffic(traffic)?;
                let order = Order::Hold { name: name.clone(), traffic: traffic.clone() };
                let (at, _) = self.order(&traffic.from, order).await?;
                self.note_all();
                let named = self.prediction.servers(&traffic, clock::now());
                self.named.insert(name.clone(), named);
                self.report.note(at, &format!("{name}: opened {} connections", traffic.flows));
            }
            Action::Release { name } => {
                let traffic = self.traffic_of(name)?;
                let (at, answer) = self.order(&traffic.from, Order::Release { name: name.clone() }).await?;
                if let Answer::Held(held) = answer {
                    self.note_all();
                    let now = self.prediction.servers(&traffic, at);
                    let before = self.named.remove(name).unwrap_or_default();
                    self.seen.rerouted.insert(name.clone(), rerouted(&before, now));
                    self.report.held(name, at, &held);
                    self.journal.connections(name, &held);
                    self.seen.held.insert(name.clone(), held);
                }
            }
            Action::AskArp { from, address, name } => {
                let (at, answer) = self.order(from, Order::AskArp { address: *address }).await?;
                if let Answer::Stations(stations) = answer {
                    let who = match stations.as_slice() {
                        [] => "nobody".to_owned(),
                        some => format!("{} ({})", some.len(), some.join(", ")),
                    };
                    let text = format!("{from} asks by ARP who has {address}: {who} answered");
                    self.report.note(at, &text);
                    self.journal.add(at, Kind::Effect, text);
                    self.seen.answers.insert(name.clone(), stations);
                }
            }
            Action::Disturb(disturbance) => self.disturb(disturbance).await?,
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

    fn measured_flows(&mut self, name: &str, traffic: &Traffic, answer: Answer) {
        let Answer::Flows(flows) = answer else { return };
        self.note_all();
        let to = match traffic.to {
            IpAddr::V4(to) => format!("{to}:{}", traffic.port),
            IpAddr::V6(to) => format!("[{to}]:{}", traffic.port),
        };
        self.report.flows(name, &format!("{} to {to}", kind(traffic)), &flows);
        let agreement = self.prediction.compare(traffic, &flows);
        self.journal.measure(name, traffic, &flows, &agreement);
        self.seen.agreements.insert(name.to_owned(), agreement);
        self.seen.flows.insert(name.to_owned(), (traffic.to, flows));
    }

    /// Gives an order and goes on listening to everybody else.
    async fn order(&mut self, node: &str, order: Order) -> Result<(Time, Answer), String> {
        let mut reply = std::pin::pin!(self.bench.order(node, order));
        loop {
            tokio::select! {
                reply = &mut reply => return reply,
                (node, message) = self.bench.next_message() => self.note(&node, message),
            }
        }
    }

    fn note_all(&mut self) {
        while let Some((node, message)) = self.bench.try_message() {
            self.note(&node, message);
        }
    }

    fn note(&mut self, node: &str, message: Message) {
        match message {
            Message::Hello { .. } | Message::Reply { .. } => {}
            Message::Route { prefix, next_hops, at } => {
                let text = format!("{node}: {prefix} → {}", self.names(&next_hops));
                self.report.effect(at, &text);
                self.journal.route(at, node, prefix, self.names_of(&next_hops), text);
                self.routes.insert((node.to_owned(), prefix), next_hops.clone());
                self.seen.routes.push(RouteChange { router: node.to_owned(), prefix, next_hops, at });
            }
            Message::Installed { prefix, next_hops, at } => {
                if let Some(text) = weights_of(self.lab, node, prefix, &next_hops) {
                    self.report.effect(at, &text);
                    self.journal.add(at, Kind::Effect, text);
                }
                self.installed.insert((node.to_owned(), prefix), next_hops.clone());
                let router = node.to_owned();
                self.prediction.change(at, Change::Installed { router, prefix, next_hops });
            }
            Message::Session { peer, up: true, at, .. } => {
                self.journal.add(at, Kind::Effect, format!("{node}: session with {peer} up"));
            }
            Message::Session { peer, up: false, text, at } => {
                let text = format!("{node}: session with {peer} lost: {text}");
                self.report.effect(at, &text);
                self.journal.add(at, Kind::Effect, text);
            }
            Message::Asking { name, answered, lost, recent, over } => {
                let rate = |count: usize| (count as f64 / over.as_secs_f64().max(0.001)).round() as usize;
                let rates = recent.into_iter().map(|(server, count)| (server, rate(count))).collect();
                self.report.asking(&name, Some(Asking { answered, lost, rates }));
            }
            Message::Trouble { text } => {
                let (at, text) = (clock::now(), format!("{node}: {text}"));
                self.report.trouble(at, &text);
                self.journal.add(at, Kind::Trouble, text);
            }
        }
    }

    fn names_of(&self, next_hops: &[IpAddr]) -> Vec<NodeName> {
        let name =
            |address: &IpAddr| self.lab.owner_of(*address).cloned().unwrap_or_else(|| address.to_string());
        next_hops.iter().map(name).collect()
    }

    fn names(&self, next_hops: &[IpAddr]) -> String {
        if next_hops.is_empty() { "no route".to_owned() } else { self.names_of(next_hops).join(", ") }
    }

    async fn wait_for(&mut self, condition: &Condition, within: Duration) -> Result<(), String> {
        let end = tokio::time::Instant::now() + within;
        loop {
            self.note_all();
            let (met, seen) = self.holds(condition).await;
            if met {
                return Ok(());
            }
            if tokio::time::Instant::now() >= end {
                return Err(format!("in vain for {within:?}: {} (seen: {seen})", describe(condition)));
            }
            // Routes are told; an agent has to be asked.
            let pause = tokio::time::Instant::now() + STATUS_PERIOD;
            if let Ok((node, message)) =
                tokio::time::timeout_at(pause.min(end), self.bench.next_message()).await
            {
                self.note(&node, message);
            }
        }
    }

    async fn judge(&mut self, expectation: &Expectation) {
        self.note_all();
        let verdict = match (self.seen.judge(expectation), expectation) {
            (Some(verdict), _) => verdict,
            (None, Expectation::Holds(condition)) => {
                let (met, seen) = self.holds(condition).await;
                Verdict { met, text: format!("{} (seen: {seen})", describe(condition)) }
            }
            (None, other) => Verdict { met: false, text: format!("cannot judge {other:?}") },
        };
        self.report.verdict(&verdict);
        self.journal.judged(expectation);
        self.verdicts.push(verdict);
    }

    /// Whether a condition holds now, and what is seen instead.
    async fn holds(&mut self, condition: &Condition) -> (bool, String) {
        match condition {
            Condition::NextHops { router, prefix, next_hops } => {
                let none = Vec::new();
                let hops = self.routes.get(&(router.clone(), *prefix)).unwrap_or(&none);
                let names = self.names_of(hops);
                let met = match next_hops {
                    NextHops::Count(count) => hops.len() == *count,
                    NextHops::Nodes(nodes) => {
                        names.len() == nodes.len() && names.iter().all(|name| nodes.contains(name))
                    }
                };
                (met, self.names(hops))
            }
            Condition::Weights { router, prefix, weights } => {
                let none = Vec::new();
                let hops = self.installed.get(&(router.clone(), *prefix)).unwrap_or(&none);
                words::weigh(self.lab, hops, weights)
            }
            Condition::Health { agent, .. }
            | Condition::Announced { agent, .. }
            | Condition::Withheld { agent, .. } => {
                let order = Order::AgentSays(vec!["status".into(), "--json".into()]);
                match self.order(&agent.clone(), order).await {
                    Ok((_, Answer::Text(text))) => match serde_json::from_str(&text) {
                        Ok(status) => crate::status::holds(&status, condition),
                        Err(error) => (false, format!("status is no JSON: {error}")),
                    },
                    Ok(_) => (false, "no status".to_owned()),
                    Err(error) => (false, error),
                }
            }
        }
    }

    /// What must be so at the end, whatever the scenario expects.
    async fn invariants(&mut self) {
        let agents: Vec<NodeName> = self.lab.names(Role::is_agent).into_iter().collect();
        let end = tokio::time::Instant::now() + SETTLE;
        let (statuses, mut wrong) = loop {
            let (mut statuses, mut wrong) = (Vec::new(), Vec::new());
            for agent in &agents {
                // One that was ended has no status, and nothing to recover.
                let order = Order::AgentSays(vec!["status".into(), "--json".into()]);
                let Ok((_, Answer::Text(text))) = self.order(agent, order).await else { continue };
                let Ok(status) = serde_json::from_str(&text) else { continue };
                self.note_all();
                wrong.extend(judge::wrong(self.lab, &self.truth, &self.routes, agent, &status));
                statuses.push(status);
            }
            if wrong.is_empty() || tokio::time::Instant::now() >= end {
                break (statuses, wrong);
            }
            let pause = tokio::time::Instant::now() + STATUS_PERIOD;
            if let Ok((node, message)) = tokio::time::timeout_at(pause, self.bench.next_message()).await {
                self.note(&node, message);
            }
        };
        let on_a_lan = self.lab.nodes.values().any(|node| node.role == Role::Bridge);
        let clients: Vec<NodeName> = self.lab.names(Role::is_client).into_iter().collect();
        for (client, vip) in clients.iter().flat_map(|client| {
            judge::silent(&statuses).into_iter().filter(|_| on_a_lan).map(move |vip| (client, vip))
        }) {
            if let Ok((_, Answer::Stations(stations))) =
                self.order(client, Order::AskArp { address: vip }).await
                && !stations.is_empty()
            {
                wrong.push(format!("{client}: {} answered ARP for {vip}", stations.join(", ")));
            }
        }
        if wrong.is_empty() {
            let text = format!("the invariants hold at the end ({} agents asked)", statuses.len());
            return self.journal.add(clock::now(), Kind::Finding, text);
        }
        for text in wrong {
            let verdict = Verdict { met: false, text: format!("invariant: {text}") };
            self.report.verdict(&verdict);
            self.verdicts.push(verdict);
        }
    }

    async fn disturb(&mut self, disturbance: &Disturbance) -> Result<(), String> {
        self.truth.note(disturbance);
        let text = describe_disturbance(disturbance);
        let mut orders = Vec::new();
        let mut at_node = |node: &str, order: Order| orders.push((node.to_owned(), order));
        let service = |order| Order::Service(order);
        match disturbance {
            Disturbance::Kill(node) => at_node(node, service(ServiceOrder::Kill)),
            Disturbance::Hang(node) => at_node(node, service(ServiceOrder::Hang)),
            Disturbance::Resume(node) => at_node(node, service(ServiceOrder::Resume)),
            Disturbance::StartService(node) => at_node(node, service(ServiceOrder::Start)),
            Disturbance::KillAgent(node) => at_node(node, Order::Agent(AgentOrder::Kill)),
            Disturbance::StopAgent(node) => at_node(node, Order::Agent(AgentOrder::Stop)),
            Disturbance::StartAgent(node) => at_node(node, Order::Agent(AgentOrder::Start)),
            Disturbance::Upgrade(node) => at_node(node, Order::AgentSays(vec!["upgrade".to_owned()])),
            Disturbance::Drain { node, service } => at_node(node, says("drain", service)),
            Disturbance::Undrain { node, service } => at_node(node, says("undrain", service)),
            Disturbance::CarrierDown(ports) | Disturbance::CarrierUp(ports) => {
                let up = matches!(disturbance, Disturbance::CarrierUp(_));
                let mut opposite = BTreeSet::new();
                for (node, interface) in self.ends(ports) {
                    opposite.extend(self.lab.opposite(&node, &interface).map(|port| port.node.clone()));
                    at_node(&node, Order::Link { interface, up });
                }
                let is_bridge =
                    |node: &NodeName| self.lab.nodes.get(node).is_none_or(|node| node.role == Role::Bridge);
                for node in opposite.iter().filter(|node| up && !is_bridge(node)) {
                    at_node(node, Order::Gateways);
                }
            }
            Disturbance::Silence(ports) | Disturbance::Unsilence(ports) => {
                let silent = matches!(disturbance, Disturbance::Silence(_));
                for (node, interface) in self.ends(ports) {
                    at_node(&node, Order::Silence { interface, silent });
                }
            }
            Disturbance::Loss { router, permille } => at_node(router, Order::Loss { permille: *permille }),
            Disturbance::DeleteVip { node, vip } => at_node(node, Order::DeleteAddress { address: *vip }),
            Disturbance::Sysctl { node, key, value } => {
                at_node(node, Order::Sysctl { key: key.clone(), value: value.clone() });
            }
            Disturbance::Reload { node, config } => {
                at_node(node, Order::Reload { config: config.clone() });
            }
        }
        self.note_all();
        // What comes of it must not be told before it: the cause is written down when its first order is answered.
        let mut cause = None;
        for (node, order) in orders {
            let mut reply = std::pin::pin!(self.bench.order(&node, order));
            let mut early = Vec::new();
            let (at, _) = loop {
                tokio::select! {
                    biased;
                    reply = &mut reply => break reply?,
                    message = self.bench.next_message() => early.push(message),
                }
            };
            if cause.is_none() {
                cause = Some(at);
                if let Disturbance::Sysctl { node, key, value } = disturbance {
                    let (node, key, value) = (node.clone(), key.clone(), value.clone());
                    self.prediction.change(at, Change::Sysctl { node, key, value });
                }
                self.report.cause(at, &text);
                self.journal.add(at, Kind::Cause, text.clone());
            }
            for (node, message) in early {
                self.note(&node, message);
            }
        }
        Ok(())
    }

    fn ends(&self, ports: &[Ports]) -> Vec<(NodeName, String)> {
        let of = |ports: &Ports| match &ports.interface {
            Some(interface) => vec![(ports.node.clone(), interface.clone())],
            None => {
                let all = self.lab.interfaces(&ports.node).into_iter();
                all.map(|interface| (ports.node.clone(), interface)).collect()
            }
        };
        ports.iter().flat_map(of).collect()
    }
}

fn says(command: &str, service: &Option<String>) -> Order {
    let what = service.clone().unwrap_or_else(|| "--all".to_owned());
    Order::AgentSays(vec![command.to_owned(), what])
}
