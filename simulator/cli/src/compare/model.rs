//! A plan played through one design, in virtual time: one heap of what is due, no clock, no chance but the seed's.
//!
//! What is a model here: networks lose and delay nothing; a service answers at once, refuses at once, or is silent; a request is one
//! packet each way. What is not: the choice of the router, which is the twin of the kernel's ([`anyvip_ecmp`]).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyvip_ecmp::{Addresses, Flow, Hasher, Member, Policy};
use anyvip_machine::{Seed, Time};
use serde::Serialize;

use super::plan::{Answers, Checks, Design, Kind, Plan, Retry, What};

/// The seed of the router's hash.
pub(crate) const HASH_SEED: u32 = 0x1092;
const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// What came of a design.
#[derive(Debug, Serialize)]
pub(crate) struct Result {
    pub(crate) design: String,
    pub(crate) about: String,
    /// Where each cell comes from.
    pub(crate) by: &'static str,
    pub(crate) asked: u64,
    /// No try was answered.
    pub(crate) lost: u64,
    /// Answered, but not at the first try.
    pub(crate) late: u64,
    /// From a happening to the last request that was lost or late because of it (before the next one): the longest of all.
    pub(crate) recover_ms: Option<u64>,
    pub(crate) connections: u64,
    /// Cut although their server was well.
    pub(crate) cut_needlessly: u64,
    /// Cut because their server was not.
    pub(crate) cut_with_server: u64,
    /// Requests and answers that went through a balancer.
    pub(crate) balancer_packets: u64,
    /// The fullest server's share of what was answered before anything happened, against the mean, in permille.
    pub(crate) fullest_permille: u64,
    pub(crate) per_server: Vec<u64>,
    /// Lost or late by the second they were asked in.
    pub(crate) hurt_each_second: Vec<u64>,
    pub(crate) happenings: Vec<Hurt>,
}

/// What one happening cost.
#[derive(Debug, Serialize)]
pub(crate) struct Hurt {
    pub(crate) at_ms: u64,
    pub(crate) what: String,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) cut: u64,
    /// Until the last request that was lost or late.
    pub(crate) recover_ms: Option<u64>,
}

/// How a server is in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// Refuses at once.
    Dead,
    /// Answers nothing. Its agent is well, or gone with the host.
    Silent {
        host: bool,
    },
}

enum Item {
    Truth(usize, State),
    /// Gets new flows from now on, or not.
    Rotation(usize, bool),
    Balancer(bool),
    Ask(Request),
    Keep(usize),
}

struct Request {
    asked: Time,
    client: u32,
    tries: u32,
    /// Where its name leads, in order; asked once.
    addresses: Vec<usize>,
}

struct Connection {
    client: u32,
    port: u16,
    server: Option<usize>,
    silent_since: Option<Time>,
    open: bool,
}

enum Answer {
    Answered(usize),
    Refused,
    Silence,
}

/// Plays the plan.
pub(crate) fn play(plan: &Plan, design: &Design) -> std::result::Result<Result, String> {
    let mut world = World::new(plan, design)?;
    while let Some(((now, _), item)) = world.queue.pop_first() {
        world.handle(now, item);
    }
    Ok(world.finish())
}

struct World<'a> {
    plan: &'a Plan,
    design: &'a Design,
    queue: BTreeMap<(Time, u64), Item>,
    number: u64,
    chance: Seed,
    truth: Vec<State>,
    rotation: Vec<bool>,
    balancer: bool,
    hasher: Hasher,
    router: Option<Box<dyn anyvip_ecmp::Design>>,
    caches: Vec<Option<(Time, Vec<usize>, usize)>>,
    answers_given: usize,
    connections: Vec<Connection>,
    result: Result,
    before: Vec<u64>,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, design: &'a Design) -> std::result::Result<World<'a>, String> {
        let count = usize::from(plan.servers);
        let seed = Seed::new(plan.seed).child("compare");
        let by = match &design.kind {
            Kind::Anycast { install, .. } if install.is_kernels() => {
                "model; the router's choice by the twin of the kernel's"
            }
            _ => "model",
        };
        let mut world = World {
            plan,
            design,
            queue: BTreeMap::new(),
            number: 0,
            chance: seed.child("clients"),
            truth: vec![State::Serving; count],
            rotation: vec![true; count],
            balancer: true,
            hasher: Hasher::new(HASH_SEED, Policy::FIVE_TUPLE),
            router: None,
            caches: vec![None; plan.dns.resolvers as usize],
            answers_given: 0,
            connections: Vec::new(),
            result: Result {
                design: design.name.clone(),
                about: design.to_string(),
                by,
                asked: 0,
                lost: 0,
                late: 0,
                recover_ms: None,
                connections: u64::from(plan.connections.count),
                cut_needlessly: 0,
                cut_with_server: 0,
                balancer_packets: 0,
                fullest_permille: 0,
                per_server: vec![0; count],
                hurt_each_second: vec![0; usize::try_from(plan.duration.as_secs()).unwrap_or(0) + 1],
                happenings: Vec::new(),
            },
            before: vec![0; count],
        };
        if let Kind::Anycast { install, .. } = &design.kind {
            world.router = Some(
                install.design(&Member::equal(u32::from(plan.servers))).map_err(crate::hash::Error::text)?,
            );
        }
        world.happen(&mut seed.child("checks"));
        world.open();
        world.requests();
        Ok(world)
    }

    fn later(&mut self, at: Time, item: Item) {
        self.number += 1;
        self.queue.insert((at, self.number), item);
    }

    /// Puts down what is done, and when those who decide about new flows learn of it.
    fn happen(&mut self, phases: &mut Seed) {
        let plan = self.plan;
        for happening in &plan.happens {
            let at = Time::ZERO + happening.at;
            self.result.happenings.push(Hurt {
                at_ms: at.as_millis(),
                what: happening.what.to_string(),
                lost: 0,
                late: 0,
                cut: 0,
                recover_ms: None,
            });
            match (happening.what, &self.design.kind) {
                (What::Kill(server), _) => self.later(at, Item::Truth(server.into(), State::Dead)),
                (What::Hang(server), _) => {
                    self.later(at, Item::Truth(server.into(), State::Silent { host: true }))
                }
                (What::Crash(server), _) => {
                    self.later(at, Item::Truth(server.into(), State::Silent { host: false }))
                }
                (What::Return(server), _) => self.later(at, Item::Truth(server.into(), State::Serving)),
                (What::BalancerDies, Kind::Balancer { failover, .. }) => {
                    self.later(at, Item::Balancer(false));
                    self.later(at + *failover, Item::Balancer(true));
                }
                (What::BalancerDies | What::Drain(_) | What::Undrain(_), _) => {}
            }
        }
        for server in 0..plan.servers {
            for (at, wanted) in rotation(plan, self.design, server, phases) {
                self.later(at, Item::Rotation(server.into(), wanted));
            }
        }
    }

    fn open(&mut self) {
        let plan = self.plan;
        for number in 0..plan.connections.count {
            let client = number % plan.requests.clients;
            let port = 32_768 + u16::try_from(number / plan.requests.clients % 16_384).unwrap_or(0);
            let server = match &self.design.kind {
                Kind::Dns => self.addresses(Time::ZERO, client).first().copied(),
                _ => self.pick(Time::ZERO, client, port, 6),
            };
            let phase = plan.connections.every * number / plan.connections.count.max(1);
            self.connections.push(Connection {
                client,
                port,
                server,
                silent_since: None,
                open: server.is_some(),
            });
            self.later(Time::ZERO + phase, Item::Keep(number as usize));
        }
    }

    fn requests(&mut self) {
        let plan = self.plan;
        let gap = Duration::from_secs(1) / plan.requests.rate.max(1);
        let mut at = Time::ZERO;
        while at < Time::ZERO + plan.duration {
            let client = u32::try_from(self.chance.below(plan.requests.clients.into())).unwrap_or(0);
            self.later(at, Item::Ask(Request { asked: at, client, tries: 0, addresses: Vec::new() }));
            at += gap;
        }
    }

    fn handle(&mut self, now: Time, item: Item) {
        match item {
            Item::Truth(server, state) => {
                if let Some(truth) = self.truth.get_mut(server) {
                    *truth = state;
                }
            }
            Item::Rotation(server, wanted) => {
                if let Some(known) = self.rotation.get_mut(server) {
                    *known = wanted;
                }
                let members: Vec<Member> =
                    self.ready().iter().map(|server| Member { id: *server as u32, weight: 1 }).collect();
                if let Some(router) = &mut self.router {
                    router.advance(now);
                    router.set(now, &members);
                }
            }
            Item::Balancer(up) => {
                self.balancer = up;
                if up && let Kind::Balancer { table: true, sync: false, .. } = self.design.kind {
                    // The standby knows none of them.
                    for number in 0..self.connections.len() {
                        self.cut(now, number);
                    }
                }
            }
            Item::Ask(request) => self.ask(now, request),
            Item::Keep(number) => self.keep(now, number),
        }
    }

    /// Servers that get new flows.
    fn ready(&self) -> Vec<usize> {
        (0..self.rotation.len()).filter(|server| self.rotation.get(*server) == Some(&true)).collect()
    }

    fn hash(&self, client: u32, port: u16, protocol: u8) -> u32 {
        let source = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + client);
        let flow = Flow {
            addresses: Addresses::V4 { source, destination: SERVICE },
            protocol,
            source_port: port,
            destination_port: 53,
        };
        self.hasher.forwarded(&flow.into())
    }

    /// Where a packet of this flow goes if nothing remembers the flow.
    fn pick(&mut self, now: Time, client: u32, port: u16, protocol: u8) -> Option<usize> {
        let hash = self.hash(client, port, protocol);
        let ready = self.ready();
        match &self.design.kind {
            _ if ready.is_empty() => None,
            Kind::Anycast { .. } => {
                let router = self.router.as_mut()?;
                router.advance(now);
                router.pick(now, hash).map(|member| member as usize)
            }
            Kind::Balancer { table: true, .. } => {
                let at = self.chance.below(ready.len() as u64);
                ready.get(usize::try_from(at).ok()?).copied()
            }
            _ => ready.get(hash as usize % ready.len()).copied(),
        }
    }

    /// What a client's resolver answers: from its cache, or from the name server, which turns its list with each answer.
    fn addresses(&mut self, now: Time, client: u32) -> Vec<usize> {
        let dns = &self.plan.dns;
        let resolver = (client % dns.resolvers) as usize;
        let fresh = matches!(self.caches.get(resolver), Some(Some((until, ..))) if now < *until);
        if !fresh {
            let mut list = self.ready();
            if !list.is_empty() {
                let turn = self.answers_given % list.len();
                list.rotate_left(turn);
            }
            self.answers_given += 1;
            if dns.answers == Answers::One {
                list.truncate(1);
            }
            let keep = dns.ttl.max(dns.at_least);
            // Resolvers did not all begin to ask when this begins.
            let first = matches!(self.caches.get(resolver), Some(None));
            let until = now + if first { self.chance.between(Duration::ZERO, keep) } else { keep };
            if let Some(cache) = self.caches.get_mut(resolver) {
                *cache = Some((until, list, 0));
            }
        }
        let Some(Some((_, list, turn))) = self.caches.get_mut(resolver) else { return Vec::new() };
        let mut answer = list.clone();
        if dns.rotate && !answer.is_empty() {
            let by = *turn % answer.len();
            answer.rotate_left(by);
            *turn += 1;
        }
        answer
    }

    fn answer_of(&self, server: Option<usize>) -> Answer {
        match server.and_then(|server| Some((server, self.truth.get(server)?))) {
            None => Answer::Refused,
            Some((server, State::Serving)) => Answer::Answered(server),
            Some((_, State::Dead)) => Answer::Refused,
            Some((_, State::Silent { .. })) => Answer::Silence,
        }
    }

    fn ask(&mut self, now: Time, mut request: Request) {
        let (tries, timeout) = (self.plan.requests.tries, self.plan.requests.timeout);
        if request.tries == 0 {
            self.result.asked += 1;
        }
        let server = match &self.design.kind {
            Kind::Dns => {
                if request.tries == 0 {
                    request.addresses = self.addresses(now, request.client);
                }
                let step = if self.plan.requests.retry == Retry::Next { request.tries as usize } else { 0 };
                let count = request.addresses.len().max(1);
                request.addresses.get(step % count).copied()
            }
            _ => {
                // Each try has a socket of its own, and so another port.
                let port = 1024 + u16::try_from(self.chance.below(64_512)).unwrap_or(0);
                self.pick(now, request.client, port, 17)
            }
        };
        let answer = if let Kind::Balancer { dsr, .. } = &self.design.kind {
            let dsr = *dsr;
            if self.balancer {
                let answer = self.answer_of(server);
                // A refusal is an answer too.
                let both = !dsr && !matches!(answer, Answer::Silence);
                self.result.balancer_packets += if both { 2 } else { 1 };
                answer
            } else {
                Answer::Silence
            }
        } else {
            self.answer_of(server)
        };
        request.tries += 1;
        match answer {
            Answer::Answered(server) => {
                if let Some(count) = self.result.per_server.get_mut(server) {
                    *count += 1;
                }
                let quiet =
                    self.plan.happens.first().is_none_or(|first| request.asked < Time::ZERO + first.at);
                if let Some(count) = self.before.get_mut(server).filter(|_| quiet) {
                    *count += 1;
                }
                if request.tries > 1 {
                    self.result.late += 1;
                    self.hurt(request.asked, |hurt| hurt.late += 1);
                }
            }
            Answer::Refused | Answer::Silence if request.tries >= tries => {
                self.result.lost += 1;
                self.hurt(request.asked, |hurt| hurt.lost += 1);
            }
            Answer::Refused => self.later(now, Item::Ask(request)),
            Answer::Silence => self.later(now + timeout, Item::Ask(request)),
        }
    }

    /// Written down for the last thing that happened before this.
    fn hurt(&mut self, asked: Time, write: impl FnOnce(&mut Hurt)) {
        if let Some(count) = self.result.hurt_each_second.get_mut((asked.as_millis() / 1000) as usize) {
            *count += 1;
        }
        if let Some(hurt) =
            self.result.happenings.iter_mut().rev().find(|hurt| hurt.at_ms <= asked.as_millis())
        {
            write(hurt);
            let after = asked.as_millis() - hurt.at_ms;
            hurt.recover_ms = hurt.recover_ms.max(Some(after));
        }
    }

    fn keep(&mut self, now: Time, number: usize) {
        let Some(connection) = self.connections.get(number).filter(|connection| connection.open) else {
            return;
        };
        let (client, port, own, silent) =
            (connection.client, connection.port, connection.server, connection.silent_since);
        let (there, balanced) = match self.design.kind {
            // The router remembers nothing.
            Kind::Anycast { .. } => (self.pick(now, client, port, 6), false),
            Kind::Dns => (own, false),
            Kind::Balancer { table: true, .. } => (own, true),
            Kind::Balancer { table: false, .. } => (self.pick(now, client, port, 6), true),
        };
        let passed = self.balancer || !balanced;
        let answer = if passed { self.answer_of(there) } else { Answer::Silence };
        if let Kind::Balancer { dsr, .. } = self.design.kind
            && passed
        {
            self.result.balancer_packets += if dsr || matches!(answer, Answer::Silence) { 1 } else { 2 };
        }
        let silent = match answer {
            Answer::Answered(server) if Some(server) == own => None,
            // A server that does not know the connection resets it, and so does a host without the service.
            Answer::Answered(_) | Answer::Refused => return self.cut(now, number),
            Answer::Silence => Some(silent.unwrap_or(now)),
        };
        if silent.is_some_and(|since| now.since(since) >= self.plan.connections.patience) {
            return self.cut(now, number);
        }
        if let Some(connection) = self.connections.get_mut(number) {
            connection.silent_since = silent;
        }
        let next = now + self.plan.connections.every;
        if next < Time::ZERO + self.plan.duration {
            self.later(next, Item::Keep(number));
        }
    }

    fn cut(&mut self, now: Time, number: usize) {
        let Some(connection) = self.connections.get_mut(number).filter(|connection| connection.open) else {
            return;
        };
        connection.open = false;
        let well = connection.server.and_then(|server| self.truth.get(server)) == Some(&State::Serving);
        *(if well { &mut self.result.cut_needlessly } else { &mut self.result.cut_with_server }) += 1;
        if let Some(hurt) = self.result.happenings.iter_mut().rev().find(|hurt| hurt.at_ms <= now.as_millis())
        {
            hurt.cut += 1;
        }
    }

    fn finish(mut self) -> Result {
        self.result.recover_ms = self.result.happenings.iter().filter_map(|hurt| hurt.recover_ms).max();
        let sum: u64 = self.before.iter().sum();
        let most = self.before.iter().max().copied().unwrap_or(0);
        self.result.fullest_permille = (most * self.before.len() as u64 * 1000).checked_div(sum).unwrap_or(0);
        self.result
    }
}

/// When this server begins and ceases to get new flows, as those who decide learn it.
fn rotation(plan: &Plan, design: &Design, server: u16, phases: &mut Seed) -> Vec<(Time, bool)> {
    let end = Time::ZERO + plan.duration;
    let tell = match &design.kind {
        Kind::Anycast { tell, .. } => *tell,
        _ => Duration::ZERO,
    };
    // How the server is in truth, and how the operator wants it, from when on.
    let (mut truths, mut orders) = (vec![(Time::ZERO, State::Serving)], Vec::new());
    for happening in &plan.happens {
        let at = Time::ZERO + happening.at;
        match happening.what {
            What::Kill(one) if one == server => truths.push((at, State::Dead)),
            What::Hang(one) if one == server => truths.push((at, State::Silent { host: true })),
            What::Crash(one) if one == server => truths.push((at, State::Silent { host: false })),
            What::Return(one) if one == server => truths.push((at, State::Serving)),
            What::Drain(one) if one == server => orders.push((at + tell, false)),
            What::Undrain(one) if one == server => orders.push((at + tell, true)),
            _ => {}
        }
    }
    let mut seen: Vec<(Time, bool)> = Vec::new();
    if let Some(Checks { interval, timeout, fall, rise }) = design.checks {
        let state = |at: Time| {
            truths.iter().rev().find(|(from, _)| *from <= at).map_or(State::Serving, |(_, state)| *state)
        };
        let (mut up, mut against) = (true, 0);
        let mut at =
            Time::ZERO + phases.between(Duration::ZERO, interval.saturating_sub(Duration::from_nanos(1)));
        let on_host = matches!(design.kind, Kind::Anycast { .. });
        while at < end {
            let state = state(at);
            if on_host && matches!(state, State::Silent { host: false }) {
                // No agent checks. Its session ends; when the host is back it begins anew.
                (up, against) = (false, 0);
            } else if (state == State::Serving) == up {
                against = 0;
            } else {
                against += 1;
                if against >= if up { fall } else { rise } {
                    (up, against) = (!up, 0);
                    let waited = if matches!(state, State::Silent { .. }) { timeout } else { Duration::ZERO };
                    seen.push((at + waited + tell, up));
                }
            }
            at += interval;
        }
        if let (Kind::Anycast { lost_host, .. }, true) = (&design.kind, on_host) {
            for (at, _) in truths.iter().filter(|(_, state)| matches!(state, State::Silent { host: false })) {
                // Unless it came back so soon that the session lives.
                let back = truths.iter().find(|(later, state)| later > at && *state == State::Serving);
                if back.is_none_or(|(back, _)| *back > *at + *lost_host) {
                    seen.push((*at + *lost_host, false));
                }
            }
        }
    }
    seen.sort();
    let mut moments: Vec<Time> = seen.iter().chain(&orders).map(|(at, _)| *at).collect();
    moments.sort();
    moments.dedup();
    let last = |list: &[(Time, bool)], at: Time| {
        list.iter().rev().find(|(from, _)| *from <= at).is_none_or(|(_, is)| *is)
    };
    let mut changes: Vec<(Time, bool)> = Vec::new();
    for at in moments {
        let wanted = last(&seen, at) && last(&orders, at);
        if changes.last().is_none_or(|(_, before)| *before) != wanted {
            changes.push((at, wanted));
        }
    }
    changes
}

#[cfg(test)]
mod tests;
