//! What a scenario asks of this lab that the lab cannot give.

use std::collections::BTreeMap;

use super::{Action, Condition, Disturbance, Expectation, NextHops, Ports, Scenario};
use crate::diagnostic::{Diagnostics, Place};
use crate::lab::{Lab, Role};

/// What a name stands for while the steps are walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Flows,
    Asking,
    Holding,
    Connections,
    Arp,
}

pub(super) fn scenario(scenario: &Scenario, lab: &Lab, diagnostics: &mut Diagnostics) {
    let mut walk = Walk { scenario, lab, known: BTreeMap::new(), traffic: BTreeMap::new(), diagnostics };
    for (name, traffic) in &scenario.traffic {
        let place = scenario.traffic_places.get(name).copied().unwrap_or_default();
        walk.role(place, &format!("traffic {name}"), &traffic.from, Role::is_client, "client");
    }
    for step in &scenario.steps {
        walk.step(step.place, &step.action);
    }
    let open: Vec<String> = walk
        .known
        .iter()
        .filter(|(_, known)| matches!(known, Known::Asking | Known::Holding))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(last) = scenario.steps.last() {
        for name in open {
            walk.diagnostics.error(last.place, format!("`{name}` is never stopped or released"));
        }
    }
}

struct Walk<'a> {
    scenario: &'a Scenario,
    lab: &'a Lab,
    known: BTreeMap<String, Known>,
    /// The traffic of each measurement.
    traffic: BTreeMap<String, String>,
    diagnostics: &'a mut Diagnostics,
}

impl Walk<'_> {
    fn step(&mut self, place: Place, action: &Action) {
        match action {
            Action::Say(_) | Action::Sleep(_) => {}
            Action::WaitFor(condition, _) => self.condition(place, condition),
            Action::Expect(list) => list.iter().for_each(|one| self.expectation(place, one)),
            Action::Flows { traffic, name } => self.begin(place, traffic, name, Known::Flows),
            Action::Start { traffic, name } => self.begin(place, traffic, name, Known::Asking),
            Action::Hold { traffic, name } => {
                self.begin(place, traffic, name, Known::Holding);
                if self
                    .scenario
                    .traffic
                    .get(traffic)
                    .is_some_and(|traffic| traffic.protocol != super::Protocol::Tcp)
                {
                    self.diagnostics.error(place, format!("hold: traffic `{traffic}` has no connections"));
                }
            }
            Action::Stop { name } => self.end(place, name, Known::Asking, Known::Flows),
            Action::Release { name } => self.end(place, name, Known::Holding, Known::Connections),
            Action::AskArp { from, name, .. } => {
                self.node(place, "ask-arp", from);
                self.know(place, name, Known::Arp);
            }
            Action::Disturb(disturbance) => self.disturbance(place, disturbance),
        }
    }

    fn begin(&mut self, place: Place, traffic: &str, name: &str, known: Known) {
        if !self.scenario.traffic_places.contains_key(traffic) {
            self.diagnostics.error(place, format!("there is no traffic `{traffic}`"));
        }
        self.traffic.insert(name.to_owned(), traffic.to_owned());
        self.know(place, name, known);
    }

    fn know(&mut self, place: Place, name: &str, known: Known) {
        if self.known.insert(name.to_owned(), known).is_some() {
            self.diagnostics.error(place, format!("`{name}` names an earlier measurement; say `as: OTHER`"));
        }
    }

    fn end(&mut self, place: Place, name: &str, from: Known, to: Known) {
        if self.known.get(name) == Some(&from) {
            self.known.insert(name.to_owned(), to);
        } else {
            let how = if from == Known::Asking { "started" } else { "held" };
            self.diagnostics.error(place, format!("`{name}` was not {how} before"));
        }
    }

    fn expectation(&mut self, place: Place, expectation: &Expectation) {
        let mut measured = |name: &str, kind: Known| {
            if self.known.get(name) != Some(&kind) {
                let what = match kind {
                    Known::Flows | Known::Asking => "flows (`flows`, or `start` and `stop`)",
                    Known::Connections | Known::Holding => "connections (`hold` and `release`)",
                    Known::Arp => "ARP answers (`ask-arp`)",
                };
                self.diagnostics.error(place, format!("`{name}`: no earlier step measures such {what}"));
            }
        };
        match expectation {
            Expectation::Holds(_) => {}
            Expectation::Spread { of, .. }
            | Expectation::Lost { of, .. }
            | Expectation::LostAfterRouteChange { of, .. }
            | Expectation::ServerCount { of, .. }
            | Expectation::Predicted { of }
            | Expectation::Shares { of, .. }
            | Expectation::LostFor { of, .. }
            | Expectation::Servers { of, .. } => measured(of, Known::Flows),
            Expectation::LostOnlyOf { of, before, .. }
            | Expectation::SameServer { of, before, .. }
            | Expectation::MovedShare { of, before, .. }
            | Expectation::Moved { of, before, .. } => {
                measured(of, Known::Flows);
                measured(before, Known::Flows);
            }
            Expectation::Cut { of, .. }
            | Expectation::CutAtLeast { of, .. }
            | Expectation::Stalled { of, .. }
            | Expectation::CutAsPredicted { of }
            | Expectation::CutOfOthers { of, .. } => {
                measured(of, Known::Connections);
            }
            Expectation::Answers { of, .. } => measured(of, Known::Arp),
        }
        self.possible(place, expectation);
        match expectation {
            Expectation::Holds(condition) => self.condition(place, condition),
            Expectation::LostOnlyOf { server, .. } | Expectation::CutOfOthers { server, .. } => {
                self.agent(place, "expect", server);
            }
            Expectation::Servers { servers, .. } => {
                servers.iter().for_each(|server| self.agent(place, "expect", server));
            }
            Expectation::Shares { shares, .. } => {
                shares.keys().for_each(|server| self.agent(place, "expect", server));
            }
            _ => {}
        }
    }

    /// What no run could ever meet.
    fn possible(&mut self, place: Place, expectation: &Expectation) {
        let servers = self.lab.names(Role::is_agent).len() + self.lab.refused.len();
        let connections = |of: &str| {
            let traffic = self.traffic.get(of).and_then(|traffic| self.scenario.traffic.get(traffic));
            traffic.map_or(u64::MAX, |traffic| u64::from(traffic.flows))
        };
        let text = match expectation {
            Expectation::ServerCount { count, .. } if *count > servers => {
                format!("{count} servers can never answer: the lab has {servers}")
            }
            Expectation::Servers { servers, .. } if servers.is_empty() => {
                "servers: at least one must be named".to_owned()
            }
            Expectation::SameServer { percent, .. } if *percent > 100 => {
                format!("percent: {percent} is more than all")
            }
            Expectation::Moved { at_most, .. } if *at_most > 100 => {
                format!("at-most: {at_most} percent is more than all")
            }
            Expectation::MovedShare { permille, .. } if *permille > 1000 => {
                format!("percent: {} is more than all", permille / 10)
            }
            Expectation::Shares { shares, slack, .. } => {
                let sum: u32 = shares.values().sum();
                if shares.is_empty() || sum.abs_diff(1000) > slack.saturating_mul(shares.len() as u32) {
                    format!("shares: they make {} percent together, not 100", sum / 10)
                } else {
                    return;
                }
            }
            Expectation::CutAtLeast { of, at_least } if *at_least > connections(of) => {
                format!("cut-at-least: {at_least} of {} connections", connections(of))
            }
            Expectation::Answers { answers, .. }
                if *answers > self.lab.nodes.len() + self.lab.refused.len() =>
            {
                format!("{answers} stations can never answer: the lab has {} nodes", self.lab.nodes.len())
            }
            _ => return,
        };
        self.diagnostics.error(place, text);
    }

    fn condition(&mut self, place: Place, condition: &Condition) {
        match condition {
            Condition::NextHops { router, next_hops, .. } => {
                self.role(place, "next-hops", router, Role::is_router, "router");
                let possible = self.lab.neighbours(router);
                match next_hops {
                    NextHops::Count(count) if *count > possible.len() + self.lab.refused.len() => {
                        self.diagnostics.error(
                            place,
                            format!("{count} next hops: {router} has only {} neighbours", possible.len()),
                        )
                    }
                    NextHops::Count(_) => {}
                    NextHops::Nodes(nodes) => {
                        for node in nodes {
                            if !possible.iter().any(|neighbour| neighbour.name == *node)
                                && !self.lab.refused.contains(node)
                            {
                                self.diagnostics.error(place, format!("{node} is no neighbour of {router}"));
                            }
                        }
                    }
                }
            }
            Condition::Weights { router, weights, .. } => {
                self.role(place, "weights", router, Role::is_router, "router");
                let possible = self.lab.neighbours(router);
                for (node, weight) in weights {
                    if !(1..=256).contains(weight) {
                        self.diagnostics.error(place, format!("weight {weight}: a router installs 1 to 256"));
                    }
                    if !possible.iter().any(|neighbour| neighbour.name == *node)
                        && !self.lab.refused.contains(node)
                    {
                        self.diagnostics.error(place, format!("{node} is no neighbour of {router}"));
                    }
                }
            }
            Condition::Health { agent, .. }
            | Condition::Announced { agent, .. }
            | Condition::Withheld { agent, .. } => self.agent(place, "condition", agent),
        }
    }

    fn disturbance(&mut self, place: Place, disturbance: &Disturbance) {
        match disturbance {
            Disturbance::Kill(node)
            | Disturbance::Hang(node)
            | Disturbance::Resume(node)
            | Disturbance::StartService(node)
            | Disturbance::KillAgent(node)
            | Disturbance::StopAgent(node)
            | Disturbance::StartAgent(node)
            | Disturbance::Upgrade(node)
            | Disturbance::Drain { node, .. }
            | Disturbance::Undrain { node, .. }
            | Disturbance::Reload { node, .. }
            | Disturbance::DeleteVip { node, .. } => self.agent(place, "step", node),
            Disturbance::Sysctl { node, .. } => self.node(place, "sysctl", node),
            Disturbance::Loss { router, .. } => {
                self.role(place, "loss", router, Role::is_router, "router");
            }
            Disturbance::CarrierDown(ports)
            | Disturbance::CarrierUp(ports)
            | Disturbance::Silence(ports)
            | Disturbance::Unsilence(ports) => ports.iter().for_each(|ports| self.ports(place, ports)),
        }
    }

    fn ports(&mut self, place: Place, ports: &Ports) {
        self.node(place, "step", &ports.node);
        if let Some(interface) = &ports.interface
            && self.lab.nodes.contains_key(&ports.node)
            && !self.lab.interfaces(&ports.node).contains(interface)
        {
            self.diagnostics.error(place, format!("{} has no interface {interface}", ports.node));
        }
    }

    fn agent(&mut self, place: Place, what: &str, node: &str) {
        self.role(place, what, node, Role::is_agent, "agent");
    }

    fn node(&mut self, place: Place, what: &str, node: &str) {
        self.role(place, what, node, |role| *role != Role::Bridge, "machine");
    }

    fn role(&mut self, place: Place, what: &str, node: &str, is: fn(&Role) -> bool, word: &str) {
        match self.lab.nodes.get(node) {
            None if self.lab.refused.contains(node) => {}
            None => self.diagnostics.error(place, format!("{what}: there is no node `{node}`")),
            Some(found) if !is(&found.role) => {
                self.diagnostics.error(place, format!("{what}: node `{node}` is no {word}"));
            }
            Some(_) => {}
        }
    }
}
