//! The time line and the figures of a run, for `--json`.

use std::collections::BTreeMap;

use anyvip_machine::Time;
use anyvip_virtual::observation::{Flows, Verdict};
use ipnet::IpNet;
use serde::Serialize;

/// Everything that `--json` writes.
#[derive(Serialize)]
pub(crate) struct Journal {
    lab: String,
    title: String,
    #[serde(skip)]
    begin: Time,
    #[serde(skip)]
    cause: Option<Time>,
    passed: bool,
    took_ms: f64,
    verdicts: Vec<Verdict>,
    timeline: Vec<Entry>,
    measurements: BTreeMap<String, Measurement>,
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
}

#[derive(Serialize)]
struct Entry {
    at_ms: f64,
    /// Since the last cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<f64>,
    kind: Kind,
    text: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    route: Option<Route>,
}

#[derive(Serialize)]
struct Route {
    router: String,
    prefix: IpNet,
    next_hops: Vec<String>,
}

#[derive(Serialize)]
struct Measurement {
    asked: usize,
    lost: usize,
    per_server: BTreeMap<String, usize>,
    took_ms: f64,
    /// When the first and the last lost one were asked, since the last cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_after_ms: Option<(f64, f64)>,
}

fn millis(later: Time, earlier: Time) -> f64 {
    later.since(earlier).as_micros() as f64 / 1000.0
}

impl Journal {
    pub(crate) fn new(lab: &str, title: &str, begin: Time) -> Journal {
        Journal {
            lab: lab.to_owned(),
            title: title.to_owned(),
            begin,
            cause: None,
            passed: false,
            took_ms: 0.0,
            verdicts: Vec::new(),
            timeline: Vec::new(),
            measurements: BTreeMap::new(),
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
        let after_ms = self.cause.filter(|cause| at >= *cause).map(|cause| millis(at, cause));
        self.timeline.push(Entry { at_ms: millis(at, self.begin), after_ms, kind, text, route });
    }

    pub(crate) fn measure(&mut self, name: &str, flows: &Flows) {
        let lost: Vec<Time> = flows.lost().map(|ask| ask.at).collect();
        let span = |times: Option<(&Time, &Time)>, since: Time| {
            times.map(|(a, b)| (millis(*a, since), millis(*b, since)))
        };
        let took = flows.asks.first().zip(flows.asks.last()).map_or(0.0, |(a, b)| millis(b.at, a.at));
        let measurement = Measurement {
            asked: flows.asks.len(),
            lost: lost.len(),
            per_server: flows
                .per_server()
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            took_ms: took,
            lost_after_ms: self.cause.and_then(|cause| span(lost.first().zip(lost.last()), cause)),
        };
        self.measurements.insert(name.to_owned(), measurement);
    }

    /// The whole as JSON.
    pub(crate) fn finish(mut self, at: Time, verdicts: Vec<Verdict>) -> String {
        self.took_ms = millis(at, self.begin);
        self.passed = verdicts.iter().all(|verdict| verdict.met);
        self.verdicts = verdicts;
        serde_json::to_string_pretty(&self).unwrap_or_default()
    }
}
