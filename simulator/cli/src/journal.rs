//! The time line and the figures of a run, for `--json` and `--report`.

use std::collections::BTreeMap;

use anyvip_machine::Time;
use anyvip_virtual::lab::{Lab, Role};
use anyvip_virtual::observation::{Flows, Held, Verdict};
use anyvip_virtual::prediction::Agreement;
use anyvip_virtual::router::Install;
use anyvip_virtual::scenario::{Expectation, Traffic};
use ipnet::IpNet;
use serde::Serialize;

use crate::figures::{self, Kept, Measurement, Moves, millis};

/// Everything that `--json` writes.
#[derive(Serialize)]
pub(crate) struct Journal {
    pub(crate) lab: String,
    pub(crate) title: String,
    pub(crate) run: Run,
    #[serde(skip)]
    begin: Time,
    #[serde(skip)]
    cause: Option<Time>,
    pub(crate) passed: bool,
    pub(crate) took_ms: f64,
    pub(crate) topology: Topology,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) timeline: Vec<Entry>,
    pub(crate) measurements: BTreeMap<String, Measurement>,
    /// In the order of the scenario: each measurement against the one before it of the same service, and what expectations compare.
    pub(crate) moves: Vec<Moves>,
    pub(crate) connections: BTreeMap<String, BTreeMap<String, Kept>>,
    #[serde(skip)]
    flows: BTreeMap<String, Flows>,
}

/// How a run came about, so that it can be had again.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Run {
    /// `netns` or `virtual`.
    pub(crate) backend: &'static str,
    pub(crate) command: Vec<String>,
    pub(crate) scenario: String,
    /// Of programs and kernel, by name.
    pub(crate) versions: BTreeMap<&'static str, String>,
    /// Of the world in virtual time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Of the routers' multipath hash.
    pub(crate) hash_seeds: BTreeMap<String, u32>,
    /// Whoever reads a report must know when it was; virtual runs have no date, they are the same every day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) began: Option<String>,
}

/// Who was there and how they were cabled.
#[derive(Serialize)]
pub(crate) struct Topology {
    pub(crate) nodes: BTreeMap<String, Shown>,
    /// Both ends as `NODE:INTERFACE`.
    pub(crate) links: Vec<[String; 2]>,
}

/// A node of the topology.
#[derive(Serialize)]
pub(crate) struct Shown {
    pub(crate) role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asn: Option<u32>,
    /// How a router installs next hops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) install: Option<Install>,
    pub(crate) addresses: Vec<IpNet>,
}

/// What an entry of the time line is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Something that was done.
    Cause,
    /// Something that came of it.
    Effect,
    /// Something nobody ordered.
    Trouble,
    /// What was found when all was over.
    Finding,
}

#[derive(Serialize)]
pub(crate) struct Entry {
    pub(crate) at_ms: f64,
    /// Since the last cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after_ms: Option<f64>,
    pub(crate) kind: Kind,
    pub(crate) text: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<Route>,
}

#[derive(Serialize)]
pub(crate) struct Route {
    pub(crate) router: String,
    pub(crate) prefix: IpNet,
    pub(crate) next_hops: Vec<String>,
}

impl Topology {
    fn of(lab: &Lab) -> Topology {
        let shown = |node: &anyvip_virtual::lab::Node| {
            let (role, asn, install) = match &node.role {
                Role::Bridge => ("bridge", None, None),
                Role::Router(router) => ("router", Some(router.asn), Some(router.install)),
                Role::Agent(agent) => ("server", Some(agent.asn), None),
                Role::Client => ("client", None, None),
            };
            Shown { role, asn, install, addresses: node.addresses.values().flatten().copied().collect() }
        };
        let end = |port: &anyvip_virtual::lab::Port| format!("{}:{}", port.node, port.interface);
        Topology {
            nodes: lab.nodes.iter().map(|(name, node)| (name.clone(), shown(node))).collect(),
            links: lab.links.iter().map(|link| [end(&link.ends[0]), end(&link.ends[1])]).collect(),
        }
    }
}

impl Journal {
    pub(crate) fn new(lab: &Lab, title: &str, run: Run, begin: Time) -> Journal {
        let seed = |(name, node): (&String, &anyvip_virtual::lab::Node)| match &node.role {
            Role::Router(router) => Some((name.clone(), router.hash_seed)),
            _ => None,
        };
        Journal {
            lab: lab.name.clone(),
            title: title.to_owned(),
            run: Run { hash_seeds: lab.nodes.iter().filter_map(seed).collect(), ..run },
            begin,
            cause: None,
            passed: false,
            took_ms: 0.0,
            topology: Topology::of(lab),
            verdicts: Vec::new(),
            timeline: Vec::new(),
            measurements: BTreeMap::new(),
            moves: Vec::new(),
            connections: BTreeMap::new(),
            flows: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, at: Time, kind: Kind, text: String) {
        if kind == Kind::Cause {
            self.cause = Some(at);
        }
        self.push(at, kind, text, None);
    }

    pub(crate) fn route(
        &mut self,
        at: Time,
        router: &str,
        prefix: IpNet,
        next_hops: Vec<String>,
        text: String,
    ) {
        self.push(at, Kind::Effect, text, Some(Route { router: router.to_owned(), prefix, next_hops }));
    }

    fn push(&mut self, at: Time, kind: Kind, text: String, route: Option<Route>) {
        let cause = self.cause.filter(|cause| at >= *cause && kind != Kind::Finding);
        let after_ms = cause.map(|cause| millis(at, cause));
        self.timeline.push(Entry { at_ms: millis(at, self.begin), after_ms, kind, text, route });
    }

    pub(crate) fn measure(&mut self, name: &str, traffic: &Traffic, flows: &Flows, twin: &Agreement) {
        let number = self.measurements.len();
        let mut measurement = Measurement::of(number, traffic, flows, self.begin, self.cause);
        measurement.twin = twin.clone();
        let earlier = self.measurements.iter().filter(|(_, earlier)| earlier.comparable(&measurement));
        let before = earlier.max_by_key(|(_, earlier)| earlier.number).map(|(name, _)| name.clone());
        self.measurements.insert(name.to_owned(), measurement);
        self.flows.insert(name.to_owned(), flows.clone());
        if let Some(before) = before {
            self.compare(&before, name);
        }
    }

    /// What an expectation compares is shown.
    pub(crate) fn judged(&mut self, expectation: &Expectation) {
        if let Expectation::LostOnlyOf { of, before, .. }
        | Expectation::SameServer { of, before, .. }
        | Expectation::MovedShare { of, before, .. }
        | Expectation::Moved { of, before, .. } = expectation
        {
            self.compare(before, of);
        }
    }

    fn compare(&mut self, before: &str, after: &str) {
        if self.moves.iter().any(|moves| moves.before == before && moves.after == after) {
            return;
        }
        if let (Some(then), Some(now)) = (self.flows.get(before), self.flows.get(after)) {
            let moves = Moves::of((before, then), (after, now));
            // Other flows than before did not move.
            if moves.flows + moves.unanswered > 0 {
                self.moves.push(moves);
            }
        }
    }

    pub(crate) fn connections(&mut self, name: &str, held: &[Held]) {
        self.connections.insert(name.to_owned(), figures::kept(held));
    }

    /// The whole, judged.
    pub(crate) fn finish(mut self, at: Time, verdicts: Vec<Verdict>) -> Journal {
        self.took_ms = millis(at, self.begin);
        self.passed = verdicts.iter().all(|verdict| verdict.met);
        self.verdicts = verdicts;
        self
    }

    /// As JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
