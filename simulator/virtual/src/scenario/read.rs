//! From YAML to a [`Scenario`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::expect;
use super::{Action, Disturbance, Ports, Protocol, Scenario, Step, Traffic};
use crate::diagnostic::{Diagnostics, Place};
use crate::duration;
use crate::yaml::{Key, Value, Yaml, decimal};

pub(super) fn scenario(text: &str, diagnostics: &mut Diagnostics) -> Option<Scenario> {
    let yaml = Yaml::read(text, diagnostics)?;
    let (traffic_places, steps) = (BTreeMap::new(), Vec::new());
    let mut scenario = Scenario { title: String::new(), traffic: BTreeMap::new(), traffic_places, steps };
    for (key, value) in yaml.entries("scenario", diagnostics) {
        match key.text.as_str() {
            "title" => scenario.title = value.text("title", diagnostics).unwrap_or_default(),
            "traffic" => {
                for (name, value) in value.entries("traffic", diagnostics) {
                    scenario.traffic_places.insert(name.text.clone(), client_place(name, value));
                    if let Some(traffic) = traffic(name, value, diagnostics) {
                        scenario.traffic.insert(name.text.clone(), traffic);
                    }
                }
            }
            "steps" => {
                let items = value.items("steps", diagnostics);
                scenario.steps = items.iter().filter_map(|item| step(item, diagnostics)).collect();
            }
            other => diagnostics.error(
                key.place,
                format!("`{other}` is not supported (a scenario has title, traffic, steps)"),
            ),
        }
    }
    Some(scenario)
}

/// The keys of one map, taken one by one; what is left over is not known.
pub(super) struct Fields<'a> {
    what: String,
    place: Place,
    left: Vec<&'a (Key, Yaml)>,
    pub(super) diagnostics: &'a mut Diagnostics,
}

impl<'a> Fields<'a> {
    pub(super) fn of(yaml: &'a Yaml, what: &str, diagnostics: &'a mut Diagnostics) -> Fields<'a> {
        let left = yaml.entries(what, diagnostics).iter().collect();
        Fields { what: what.to_owned(), place: yaml.place, left, diagnostics }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<&'a Yaml> {
        let at = self.left.iter().position(|(key, _)| key.text == name)?;
        Some(&self.left.remove(at).1)
    }

    pub(super) fn parse<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let value = self.take(name)?;
        value.parse(&format!("{}: {name}", self.what), self.diagnostics)
    }

    /// Whether this is said, and said to be true.
    pub(super) fn is(&mut self, name: &str) -> bool {
        self.parse::<bool>(name).unwrap_or(false)
    }

    pub(super) fn need<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        if !self.left.iter().any(|(key, _)| key.text == name) {
            self.diagnostics.error(self.place, format!("{}: `{name}` is missing", self.what));
        }
        self.parse(name)
    }

    pub(super) fn duration(&mut self, name: &str) -> Option<Duration> {
        let value = self.take(name)?;
        read_duration(value, &format!("{}: {name}", self.what), self.diagnostics)
    }

    pub(super) fn error(&mut self, text: &str) {
        self.diagnostics.error(self.place, format!("{}: {text}", self.what));
    }

    pub(super) fn refuse_rest(self) {
        for (key, _) in self.left {
            self.diagnostics.error(key.place, format!("{}: `{}` is not supported here", self.what, key.text));
        }
    }
}

fn read_duration(value: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let text = value.text(what, diagnostics)?;
    match duration::parse(&text) {
        Ok(duration) => Some(duration),
        Err(error) => {
            diagnostics.error(value.place, format!("{what}: {error}"));
            None
        }
    }
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Protocol, String> {
        match text {
            "udp" => Ok(Protocol::Udp),
            "tcp" => Ok(Protocol::Tcp),
            "dns" => Ok(Protocol::Dns),
            _ => Err("expected udp, tcp or dns".to_owned()),
        }
    }
}

/// Where the client of a traffic is written, else the traffic.
fn client_place(name: &Key, value: &Yaml) -> Place {
    let Value::Map(entries) = &value.value else { return name.place };
    entries.iter().find(|(key, _)| key.text == "from").map_or(name.place, |(_, value)| value.place)
}

fn traffic(name: &Key, value: &Yaml, diagnostics: &mut Diagnostics) -> Option<Traffic> {
    let mut fields = Fields::of(value, &format!("traffic {}", name.text), diagnostics);
    let from = fields.need("from");
    let to = fields.need::<IpAddr>("to");
    let port = fields.need("port");
    let protocol = fields.need("protocol");
    let flows = fields.need::<u16>("flows");
    let first_port = fields.parse("first-port").unwrap_or(10_000_u16);
    let rate = fields.parse("rate").unwrap_or(1000_u32);
    let every = fields.duration("every").unwrap_or(Duration::from_millis(200));
    let timeout = fields.duration("timeout").unwrap_or(Duration::from_secs(1));
    let size = fields.parse::<u16>("size");
    let answer = fields.parse::<u32>("answer");
    if answer.is_some() && protocol.is_some_and(|protocol| protocol != Protocol::Tcp) {
        fields.error("only a tcp answer has a size");
    }
    if answer.is_some_and(|answer| !(64..=1_000_000).contains(&answer)) {
        fields.error("answer must be 64 to 1000000 octets");
    }
    if size.is_some() && protocol.is_some_and(|protocol| protocol != Protocol::Udp) {
        fields.error("only a udp question has a size");
    }
    if size.is_some_and(|size| !(4..=8000).contains(&size)) {
        fields.error("size must be 4 to 8000 octets");
    }
    if flows == Some(0) || flows.is_some_and(|flows| u32::from(first_port) + u32::from(flows) > 65_536) {
        fields.error("flows and first-port must give source ports from 1 to 65535");
    }
    if first_port < 1024 {
        fields.error("first-port must be at least 1024");
    }
    if !(1..=20_000).contains(&rate) {
        fields.error("rate must be 1 to 20000 a second");
    }
    if every < Duration::from_millis(10) || timeout < Duration::from_millis(10) {
        fields.error("every and timeout must be at least 10ms");
    }
    fields.refuse_rest();
    Some(Traffic {
        from: from?,
        to: to?,
        port: port?,
        protocol: protocol?,
        flows: flows?,
        first_port,
        rate,
        every,
        timeout,
        size: size.unwrap_or(4),
        answer,
    })
}

fn step(yaml: &Yaml, diagnostics: &mut Diagnostics) -> Option<Step> {
    let entries = yaml.entries("step", diagnostics);
    let [(key, value)] = entries else {
        diagnostics.error(yaml.place, format!("a step is one key and its value, not {} keys", entries.len()));
        return None;
    };
    let action = action(key, value, diagnostics)?;
    Some(Step { place: key.place, action })
}

fn action(key: &Key, value: &Yaml, diagnostics: &mut Diagnostics) -> Option<Action> {
    let what = key.text.as_str();
    let node = |diagnostics: &mut Diagnostics| value.text(what, diagnostics);
    let disturb = |disturbance| Some(Action::Disturb(disturbance));
    match what {
        "say" => Some(Action::Say(node(diagnostics)?)),
        "sleep" => Some(Action::Sleep(read_duration(value, what, diagnostics)?)),
        "wait-for" => {
            let mut fields = Fields::of(value, what, diagnostics);
            let within = fields.duration("within").unwrap_or(Duration::from_secs(10));
            let condition = expect::condition(&mut fields);
            fields.refuse_rest();
            Some(Action::WaitFor(condition?, within))
        }
        "expect" => Some(Action::Expect(expect::expectations(value, diagnostics))),
        "flows" => named(value, what, diagnostics).map(|(traffic, name)| Action::Flows { traffic, name }),
        "start" => named(value, what, diagnostics).map(|(traffic, name)| Action::Start { traffic, name }),
        "hold" => named(value, what, diagnostics).map(|(traffic, name)| Action::Hold { traffic, name }),
        "stop" => Some(Action::Stop { name: node(diagnostics)? }),
        "release" => Some(Action::Release { name: node(diagnostics)? }),
        "ask-arp" => {
            let mut fields = Fields::of(value, what, diagnostics);
            let from = fields.need("from");
            let address = fields.need("address");
            let name = fields.need("as");
            fields.refuse_rest();
            Some(Action::AskArp { from: from?, address: address?, name: name? })
        }
        "kill" => disturb(Disturbance::Kill(node(diagnostics)?)),
        "hang" => disturb(Disturbance::Hang(node(diagnostics)?)),
        "resume" => disturb(Disturbance::Resume(node(diagnostics)?)),
        "start-service" => disturb(Disturbance::StartService(node(diagnostics)?)),
        "kill-agent" => disturb(Disturbance::KillAgent(node(diagnostics)?)),
        "stop-agent" => disturb(Disturbance::StopAgent(node(diagnostics)?)),
        "start-agent" => disturb(Disturbance::StartAgent(node(diagnostics)?)),
        "upgrade" => disturb(Disturbance::Upgrade(node(diagnostics)?)),
        "drain" => {
            let (node, service) = agent_and_service(value, what, diagnostics)?;
            disturb(Disturbance::Drain { node, service })
        }
        "undrain" => {
            let (node, service) = agent_and_service(value, what, diagnostics)?;
            disturb(Disturbance::Undrain { node, service })
        }
        "carrier-down" => disturb(Disturbance::CarrierDown(ports(value, what, diagnostics)?)),
        "carrier-up" => disturb(Disturbance::CarrierUp(ports(value, what, diagnostics)?)),
        "silence" => disturb(Disturbance::Silence(ports(value, what, diagnostics)?)),
        "unsilence" => disturb(Disturbance::Unsilence(ports(value, what, diagnostics)?)),
        "loss" => {
            let mut fields = Fields::of(value, what, diagnostics);
            let router = fields.need("router");
            let percent = fields.need::<u16>("percent");
            if percent.is_some_and(|percent| percent > 100) {
                fields.error("percent is 0 to 100");
            }
            fields.refuse_rest();
            disturb(Disturbance::Loss { router: router?, permille: percent?.min(100) * 10 })
        }
        "delete-vip" => {
            let mut fields = Fields::of(value, what, diagnostics);
            let node = fields.need("agent");
            let vip = fields.need("vip");
            fields.refuse_rest();
            disturb(Disturbance::DeleteVip { node: node?, vip: vip? })
        }
        "sysctl" => {
            let mut fields = Fields::of(value, what, diagnostics);
            let node = fields.need("node");
            let key = fields.need::<String>("key");
            let value = fields.need::<String>("value").map(|value| decimal(&value));
            if key.as_ref().is_some_and(|key| !key.starts_with("net.") || key.contains("..")) {
                fields.error("only `net.*` belongs to a network namespace");
            }
            fields.refuse_rest();
            disturb(Disturbance::Sysctl { node: node?, key: key?, value: value? })
        }
        "reload" => {
            let mut fields = Fields::of(value, what, diagnostics);
            let node = fields.need("agent");
            let config = fields.need("config");
            fields.refuse_rest();
            disturb(Disturbance::Reload { node: node?, config: config? })
        }
        "delay" | "jitter" | "reorder" | "duplicate" => {
            diagnostics.error(
                key.place,
                format!("step `{what}` needs netem, which the namespace backend does not use"),
            );
            None
        }
        other => {
            diagnostics.error(key.place, format!("step `{other}` is not known"));
            None
        }
    }
}

/// `TRAFFIC`, or `{ traffic: TRAFFIC, as: NAME }`.
fn named(value: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> Option<(String, String)> {
    if let Value::Scalar(text) = &value.value {
        return Some((text.clone(), text.clone()));
    }
    let mut fields = Fields::of(value, what, diagnostics);
    let traffic = fields.need::<String>("traffic");
    let name = fields.parse("as");
    fields.refuse_rest();
    let traffic = traffic?;
    Some((traffic.clone(), name.unwrap_or(traffic)))
}

/// `NODE`, or `{ agent: NODE, service: NAME }`.
fn agent_and_service(
    value: &Yaml,
    what: &str,
    diagnostics: &mut Diagnostics,
) -> Option<(String, Option<String>)> {
    if let Value::Scalar(text) = &value.value {
        return Some((text.clone(), None));
    }
    let mut fields = Fields::of(value, what, diagnostics);
    let node = fields.need("agent");
    let service = fields.parse("service");
    fields.refuse_rest();
    Some((node?, service))
}

/// `NODE` or `NODE:INTERFACE`, or a list of them.
fn ports(value: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> Option<Vec<Ports>> {
    let one = |text: String| match text.split_once(':') {
        Some((node, interface)) => Ports { node: node.to_owned(), interface: Some(interface.to_owned()) },
        None => Ports { node: text, interface: None },
    };
    match &value.value {
        Value::List(items) => items.iter().map(|item| item.text(what, diagnostics).map(one)).collect(),
        _ => value.text(what, diagnostics).map(one).map(|ports| vec![ports]),
    }
}
