//! A plan as written and as meant: who asks, what is done to servers, and the designs that must bear it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyvip_virtual::diagnostic::{Diagnostic, Diagnostics, Place};
use anyvip_virtual::duration;
use anyvip_virtual::yaml::{self, Key, Yaml};
use serde::{Deserialize, Serialize};

use crate::hash::install::Install;

/// One traffic and failure plan. Servers are numbered from 1 in words, `s1`, and from 0 here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) title: String,
    /// Everything that is random comes from it.
    pub(crate) seed: u64,
    pub(crate) servers: u16,
    #[serde(serialize_with = "words")]
    pub(crate) duration: Duration,
    pub(crate) requests: Requests,
    pub(crate) connections: Connections,
    pub(crate) dns: Dns,
    pub(crate) happens: Vec<Happening>,
    pub(crate) designs: Vec<Design>,
}

/// Requests of one packet each way, each from a socket of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) clients: u32,
    /// A second, of all clients together.
    pub(crate) rate: u32,
    /// How long a client waits for an answer.
    #[serde(with = "written")]
    pub(crate) timeout: Duration,
    /// How often it asks in all.
    pub(crate) tries: u32,
    /// Where it asks again, of several addresses.
    pub(crate) retry: Retry,
}

/// Which address a client asks after the first did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Retry {
    Same,
    Next,
}

/// Connections opened at the beginning and kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Connections {
    pub(crate) count: u32,
    /// How often each asks.
    #[serde(with = "written")]
    pub(crate) every: Duration,
    /// How long it bears silence.
    #[serde(with = "written")]
    pub(crate) patience: Duration,
}

/// Names, for the designs that use them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Dns {
    /// Each client asks one of them, always the same.
    pub(crate) resolvers: u32,
    #[serde(with = "written")]
    pub(crate) ttl: Duration,
    /// Resolvers keep an answer at least so long, whatever its TTL.
    #[serde(with = "written")]
    pub(crate) at_least: Duration,
    /// Whether an answer holds all addresses or one.
    pub(crate) answers: Answers,
    /// Whether resolvers turn the order of what they have cached from client to client.
    pub(crate) rotate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answers {
    All,
    One,
}

/// Something that is done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Happening {
    #[serde(serialize_with = "words")]
    pub(crate) at: Duration,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// The service ends; its host refuses.
    Kill(u16),
    /// The service answers no more; its host is well.
    Hang(u16),
    /// The host is gone without a word.
    Crash(u16),
    /// All is well again.
    Return(u16),
    /// Taken out for work while it goes on serving.
    Drain(u16),
    Undrain(u16),
    /// The active balancer, or front, is gone without a word; a standby takes over.
    BalancerDies,
}

/// A design and its health checks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Design {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// `None` where nobody checks.
    pub(crate) checks: Option<Checks>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Each server announces the address; the router's hash decides.
    Anycast {
        #[serde(serialize_with = "shown")]
        install: Install,
        /// From the agent's decision to the router's table.
        #[serde(serialize_with = "words")]
        tell: Duration,
        /// Until the router knows that a host is gone: hold time, or BFD.
        #[serde(serialize_with = "words")]
        lost_host: Duration,
    },
    /// Each server has an address, a name has all of them.
    Dns,
    /// A balancer in the path; `dsr`: answers go around it.
    Balancer {
        dsr: bool,
        /// Whether it remembers the server of each flow, or hashes each packet over those that are well.
        table: bool,
        /// Whether the standby knows that table.
        sync: bool,
        /// Until the standby has taken over.
        #[serde(serialize_with = "words")]
        failover: Duration,
    },
    /// Every packet reaches all servers, and the one whose share it is in answers (NLB).
    Flooding {
        /// Until the others know that a host is gone, or there again.
        #[serde(serialize_with = "words")]
        converge: Duration,
    },
    /// A front sends each client on to the address of a server (HTTP 302, 307).
    Redirect {
        /// Until another front has taken over.
        #[serde(serialize_with = "words")]
        failover: Duration,
    },
}

impl Kind {
    /// How long a host that is gone gets flows, where that is known without health checks.
    pub(crate) fn lost_host(&self) -> Option<Duration> {
        match self {
            Kind::Anycast { lost_host, .. } => Some(*lost_host),
            Kind::Flooding { converge } => Some(*converge),
            Kind::Dns | Kind::Balancer { .. } | Kind::Redirect { .. } => None,
        }
    }

    /// How long nobody stands in for what dies with `balancer: dies`.
    pub(crate) fn failover(&self) -> Option<Duration> {
        match self {
            Kind::Balancer { failover, .. } | Kind::Redirect { failover } => Some(*failover),
            Kind::Anycast { .. } | Kind::Dns | Kind::Flooding { .. } => None,
        }
    }
}

/// Health checks: of the agent on the server, of the name server, or of the balancer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Checks {
    #[serde(with = "written")]
    pub(crate) interval: Duration,
    #[serde(with = "written")]
    pub(crate) timeout: Duration,
    pub(crate) fall: u32,
    pub(crate) rise: u32,
}

/// Times as they are written in a plan.
mod written {
    use super::{Duration, duration, short};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&short(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        duration::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

fn words<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&short(*time))
}

fn shown<S: serde::Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// As it can be written in a plan.
pub(crate) fn short(time: Duration) -> String {
    match time.as_micros() {
        0 => "0s".to_owned(),
        micros if micros % 1_000_000 == 0 => format!("{}s", micros / 1_000_000),
        micros if micros % 1000 == 0 => format!("{}ms", micros / 1000),
        micros => format!("{micros}us"),
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Kill(server) => write!(f, "the service of s{} is killed", server + 1),
            What::Hang(server) => write!(f, "the service of s{} hangs", server + 1),
            What::Crash(server) => write!(f, "the host s{} is gone", server + 1),
            What::Return(server) => write!(f, "s{} is back", server + 1),
            What::Drain(server) => write!(f, "s{} is drained", server + 1),
            What::Undrain(server) => write!(f, "s{} is undrained", server + 1),
            What::BalancerDies => write!(f, "the balancer dies"),
        }
    }
}

/// A design in one line, with all that it was given.
impl fmt::Display for Design {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Anycast { install, tell, lost_host } => {
                write!(
                    f,
                    "anycast, routes as {install}, told in {}, a lost host known in {}",
                    short(*tell),
                    short(*lost_host)
                )?;
            }
            Kind::Dns => write!(f, "one name, an address for each server")?,
            Kind::Balancer { dsr, table, sync, failover } => {
                let way = if *dsr { "direct server return" } else { "NAT both ways" };
                let table = match (table, sync) {
                    (false, _) => "no table of flows",
                    (true, false) => "a table of flows that the standby does not know",
                    (true, true) => "a table of flows that the standby knows",
                };
                write!(f, "{way}, {table}, standby takes over in {}", short(*failover))?;
            }
            Kind::Flooding { converge } => write!(
                f,
                "every packet to all servers, each answers its share, and keeps the connections it has; a lost host known in {}",
                short(*converge)
            )?,
            Kind::Redirect { failover } => write!(
                f,
                "a front sends each request on to a server's own address, standby takes over in {}",
                short(*failover)
            )?,
        }
        match &self.checks {
            None => write!(f, "; no checks"),
            Some(Checks { interval, timeout, fall, rise }) => {
                write!(
                    f,
                    "; checks each {}, timeout {}, fall {fall}, rise {rise}",
                    short(*interval),
                    short(*timeout)
                )
            }
        }
    }
}

impl Plan {
    /// Reads a plan; with an error in the list there is none.
    pub(crate) fn read(file: &str, text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
        let mut diagnostics = Diagnostics::new(file);
        let plan = Yaml::read(text, &mut diagnostics).map(|yaml| plan(&yaml, &mut diagnostics));
        let plan = plan.filter(|_| !diagnostics.has_errors());
        (plan, diagnostics.into_sorted())
    }
}

/// The keys of a map, taken one by one; what is left over is not known.
struct Fields<'a, 'd> {
    what: String,
    place: Place,
    left: Vec<&'a (Key, Yaml)>,
    diagnostics: &'d mut Diagnostics,
}

impl<'a, 'd> Fields<'a, 'd> {
    fn of(yaml: &'a Yaml, what: &str, diagnostics: &'d mut Diagnostics) -> Fields<'a, 'd> {
        let left = yaml.entries(what, diagnostics).iter().collect();
        Fields { what: what.to_owned(), place: yaml.place, left, diagnostics }
    }

    fn take(&mut self, name: &str) -> Option<&'a Yaml> {
        let at = self.left.iter().position(|(key, _)| key.text == name)?;
        Some(&self.left.remove(at).1)
    }

    fn error(&mut self, text: &str) {
        self.diagnostics.error(self.place, format!("{}: {text}", self.what));
    }

    /// A value within bounds, or this one where nothing is written; without a default it must be written.
    fn number<T>(&mut self, name: &str, default: Option<T>, bounds: std::ops::RangeInclusive<T>) -> T
    where
        T: FromStr<Err: fmt::Display> + PartialOrd + fmt::Display + Copy,
    {
        let least = *bounds.start();
        let Some(value) = self.take(name) else {
            if default.is_none() {
                self.error(&format!("`{name}` is missing"));
            }
            return default.unwrap_or(least);
        };
        let number = value.parse::<T>(&format!("{}: {name}", self.what), self.diagnostics).unwrap_or(least);
        if !bounds.contains(&number) {
            let text = format!("{}: {name} must be {least} to {}", self.what, bounds.end());
            self.diagnostics.error(value.place, text);
        }
        number
    }

    fn time(&mut self, name: &str, default: Duration, least: Duration) -> Duration {
        let Some(value) = self.take(name) else { return default };
        let what = format!("{}: {name}", self.what);
        let Some(text) = value.text(&what, self.diagnostics) else { return default };
        match duration::parse(&text) {
            Ok(time) if time >= least && time <= Duration::from_secs(86_400) => time,
            Ok(_) => {
                self.diagnostics.error(value.place, format!("{what}: must be {} to 86400s", short(least)));
                default
            }
            Err(error) => {
                self.diagnostics.error(value.place, format!("{what}: {error}"));
                default
            }
        }
    }

    /// One of these words.
    fn one_of<T: Copy>(&mut self, name: &str, choices: &[(&str, T)], default: T) -> T {
        let Some(value) = self.take(name) else { return default };
        let what = format!("{}: {name}", self.what);
        let Some(text) = value.text(&what, self.diagnostics) else { return default };
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => *choice,
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.diagnostics
                    .error(value.place, format!("{what}: `{text}`: there are {}", words.join(", ")));
                default
            }
        }
    }

    fn truth(&mut self, name: &str, default: bool) -> bool {
        let Some(value) = self.take(name) else { return default };
        let what = format!("{}: {name}", self.what);
        let Some(text) = value.text(&what, self.diagnostics) else { return default };
        yaml::parse(&text).unwrap_or_else(|_| {
            self.diagnostics.error(value.place, format!("{what}: `{text}`: there are true, false"));
            default
        })
    }

    fn refuse_rest(self) {
        for (key, _) in self.left {
            self.diagnostics.error(key.place, format!("{}: `{}` is not known here", self.what, key.text));
        }
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn plan(yaml: &Yaml, diagnostics: &mut Diagnostics) -> Plan {
    let (none, least) = (Yaml { place: yaml.place, value: yaml::Value::Null }, Duration::from_millis(1));
    let mut fields = Fields::of(yaml, "plan", diagnostics);
    let title =
        fields.take("title").and_then(|value| value.text("title", fields.diagnostics)).unwrap_or_default();
    let seed = fields.number("seed", Some(1), 0..=u64::MAX);
    let servers = fields.number("servers", None, 2..=256_u16);
    let duration = fields.time("duration", seconds(60), seconds(1));
    let parts = ["requests", "connections", "dns", "happens", "designs"].map(|name| fields.take(name));
    let [requests, connections, dns, happens, designs] = parts;
    if happens.is_none() || designs.is_none() {
        fields.error("`happens` and `designs` are needed");
    }
    fields.refuse_rest();
    let mut fields = Fields::of(requests.unwrap_or(&none), "requests", diagnostics);
    let requests = Requests {
        clients: fields.number("clients", Some(200), 1..=100_000),
        rate: fields.number("rate", Some(1000), 1..=100_000),
        timeout: fields.time("timeout", seconds(1), least),
        tries: fields.number("tries", Some(1), 1..=10),
        retry: fields.one_of("retry", &[("same", Retry::Same), ("next", Retry::Next)], Retry::Next),
    };
    fields.refuse_rest();
    let mut fields = Fields::of(connections.unwrap_or(&none), "connections", diagnostics);
    let connections = Connections {
        count: fields.number("count", Some(400), 0..=100_000),
        every: fields.time("every", seconds(1), least),
        patience: fields.time("patience", seconds(10), least),
    };
    fields.refuse_rest();
    let mut fields = Fields::of(dns.unwrap_or(&none), "dns", diagnostics);
    let dns = Dns {
        resolvers: fields.number("resolvers", Some(20), 1..=100_000),
        ttl: fields.time("ttl", seconds(30), Duration::ZERO),
        at_least: fields.time("at-least", Duration::ZERO, Duration::ZERO),
        answers: fields.one_of("answers", &[("all", Answers::All), ("one", Answers::One)], Answers::All),
        rotate: fields.truth("rotate", false),
    };
    fields.refuse_rest();
    let happens = happens.map(|value| value.items("happens", diagnostics)).unwrap_or_default();
    let mut happens: Vec<Happening> =
        happens.iter().filter_map(|item| happening(item, servers, duration, diagnostics)).collect();
    happens.sort_by_key(|happening| happening.at);
    let designs = designs.map(|value| value.items("designs", diagnostics)).unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut read = Vec::new();
    for item in designs {
        let Some(design) = design(item, diagnostics) else { continue };
        if !names.insert(design.name.clone()) {
            diagnostics
                .error(item.place, format!("a design `{}` is there already; say `name: OTHER`", design.name));
        }
        read.push(design);
    }
    Plan { title, seed, servers, duration, requests, connections, dns, happens, designs: read }
}

/// What is done to the server of this number.
type OfServer = fn(u16) -> What;

/// `{ at: 20s, kill: s2 }`, or `{ at: 20s, balancer: dies }`.
fn happening(
    item: &Yaml,
    servers: u16,
    duration: Duration,
    diagnostics: &mut Diagnostics,
) -> Option<Happening> {
    let mut fields = Fields::of(item, "happens", diagnostics);
    let at = fields.time("at", Duration::ZERO, Duration::ZERO);
    if at.is_zero() || at >= duration {
        fields.error("`at` must be after the beginning and before the end");
    }
    let makers: [(&str, OfServer); 6] = [
        ("kill", What::Kill),
        ("hang", What::Hang),
        ("crash", What::Crash),
        ("return", What::Return),
        ("drain", What::Drain),
        ("undrain", What::Undrain),
    ];
    let (mut found, mut written) = (Vec::new(), 0);
    for (name, make) in makers {
        let Some(value) = fields.take(name) else { continue };
        written += 1;
        let text = value.text(name, fields.diagnostics).unwrap_or_default();
        let number = text.strip_prefix('s').and_then(|number| number.parse::<u16>().ok());
        match number {
            Some(number) if (1..=servers).contains(&number) => found.push(make(number - 1)),
            _ => fields
                .diagnostics
                .error(value.place, format!("{name}: `{text}`: servers are s1 to s{servers}")),
        }
    }
    if let Some(value) = fields.take("balancer") {
        written += 1;
        match value.text("balancer", fields.diagnostics).as_deref() {
            Some("dies") => found.push(What::BalancerDies),
            Some(text) => fields.diagnostics.error(value.place, format!("balancer: `{text}`: it only dies")),
            None => {}
        }
    }
    if written != 1 {
        fields.error("one of kill, hang, crash, return, drain, undrain (a server), or `balancer: dies`");
    }
    fields.refuse_rest();
    found.pop().map(|what| Happening { at, what })
}

/// `{ anycast: INSTALL, … }`, `{ dns: plain|health, … }`, `{ balancer: nat|dsr, … }`, `{ flooding: plain|health, … }`, `{ redirect: http, … }`.
fn design(item: &Yaml, diagnostics: &mut Diagnostics) -> Option<Design> {
    let least = Duration::from_millis(1);
    let mut fields = Fields::of(item, "design", diagnostics);
    let name = fields.take("name").and_then(|value| value.text("name", fields.diagnostics));
    let kinds = ["anycast", "dns", "balancer", "flooding", "redirect"].map(|kind| (kind, fields.take(kind)));
    let [(kind, Some(value))] =
        kinds.into_iter().filter(|(_, value)| value.is_some()).collect::<Vec<_>>()[..]
    else {
        fields.error(
            "one of `anycast: INSTALL`, `dns: plain` or `health`, `balancer: nat` or `dsr`, `flooding: plain` or `health`, `redirect: http`",
        );
        return None;
    };
    let text = value.text(kind, fields.diagnostics)?;
    let (read, checked) = match (kind, text.as_str()) {
        ("anycast", text) => match text.parse::<Install>() {
            Ok(install) => {
                let tell = fields.time("tell", Duration::from_millis(20), Duration::ZERO);
                let lost_host = fields.time("lost-host", seconds(9), least);
                (Kind::Anycast { install, tell, lost_host }, true)
            }
            Err(error) => {
                fields.diagnostics.error(value.place, error);
                return None;
            }
        },
        ("dns", "plain") => (Kind::Dns, false),
        ("dns", "health") => (Kind::Dns, true),
        ("balancer", "nat" | "dsr") => {
            let table = text == "nat" || fields.truth("table", true);
            let sync = fields.truth("sync", false);
            if sync && !table {
                fields.error("without a table there is nothing to sync");
            }
            let failover = fields.time("failover", seconds(1), least);
            (Kind::Balancer { dsr: text == "dsr", table, sync, failover }, true)
        }
        ("flooding", "plain" | "health") => {
            (Kind::Flooding { converge: fields.time("converge", seconds(5), least) }, text == "health")
        }
        ("redirect", "http") => {
            (Kind::Redirect { failover: fields.time("failover", seconds(1), least) }, true)
        }
        _ => {
            fields.diagnostics.error(
                value.place,
                format!(
                    "{kind}: `{text}` is not known (dns: plain, health; balancer: nat, dsr; flooding: plain, health; redirect: http)"
                ),
            );
            return None;
        }
    };
    let checks = checked.then(|| {
        let interval = fields.time("interval", seconds(1), least);
        let timeout = fields.time("check-timeout", Duration::from_millis(500).min(interval), least);
        let (fall, rise) = (fields.number("fall", Some(2), 1..=100), fields.number("rise", Some(2), 1..=100));
        if timeout > interval {
            fields.error("check-timeout is at most the interval");
        }
        Checks { interval, timeout, fall, rise }
    });
    fields.refuse_rest();
    let name = name.unwrap_or_else(|| format!("{kind} {text}"));
    Some(Design { name, kind: read, checks })
}
