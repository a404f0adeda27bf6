//! A plan played through one design, in virtual time: one heap of what is due, no clock, no chance but the seed's.
//!
//! What is a model here: networks lose and delay nothing; a service answers at once, refuses at once, or is silent; a request is one
//! packet each way. What is not: the choice of the router, which is the twin of the kernel's ([`anyvip_ecmp`]).

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_ecmp::{Addresses, Flow, Hasher, Member, Policy};
use anyvip_machine::{Seed, Time};

use super::flows::{self, PORT, SERVICE};
use super::outcome::{Outcome, Source};
use super::plan::{Answers, Checks, Design, Kind, Plan, Retry, What};

/// The seed of the router's hash.
pub(crate) const HASH_SEED: u32 = 0x1092;

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
    number: u32,
    asked: Time,
    client: u32,
    tries: u32,
    /// Where its name leads, in order; asked once.
    addresses: Vec<usize>,
}

struct Connection {
    client: u32,
    port: u16,
    /// Who holds the other end.
    server: Option<usize>,
    /// Where a balancer's table sends it; a standby without the table chooses anew.
    entry: Option<usize>,
    silent_since: Option<Time>,
    open: bool,
}

enum Answer {
    Answered(usize),
    Refused,
    Silence,
}

/// Plays the plan.
pub(crate) fn play(plan: &Plan, design: &Design) -> Result<Outcome, String> {
    let mut world = World::new(plan, design)?;
    while let Some(((now, _), item)) = world.queue.pop_first() {
        world.handle(now, item);
    }
    Ok(world.result.finish())
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
    result: Outcome,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, design: &'a Design) -> Result<World<'a>, String> {
        let count = usize::from(plan.servers);
        let how = match &design.kind {
            Kind::Anycast { install, .. } if install.is_kernels() => {
                "a model, in virtual time; the router's choice by the twin of the kernel's"
            }
            _ => "a model, in virtual time",
        };
        let mut world = World {
            plan,
            design,
            queue: BTreeMap::new(),
            number: 0,
            chance: flows::of(plan.seed).child("balancer"),
            truth: vec![State::Serving; count],
            rotation: vec![true; count],
            balancer: true,
            hasher: Hasher::new(HASH_SEED, Policy::FIVE_TUPLE),
            router: None,
            caches: vec![None; plan.dns.resolvers as usize],
            answers_given: 0,
            connections: Vec::new(),
            result: Outcome::new(plan, design, Source::Model, how.to_owned()),
        };
        if let Kind::Anycast { install, .. } = &design.kind {
            world.router = Some(
                install.design(&Member::equal(u32::from(plan.servers))).map_err(crate::hash::Error::text)?,
            );
        }
        world.happen();
        world.open();
        world.requests();
        Ok(world)
    }

    fn later(&mut self, at: Time, item: Item) {
        self.number += 1;
        self.queue.insert((at, self.number), item);
    }

    /// Puts down what is done, and when those who decide about new flows learn of it.
    fn happen(&mut self) {
        let plan = self.plan;
        for happening in &plan.happens {
            let at = Time::ZERO + happening.at;
            match (happening.what, &self.design.kind) {
                (What::Kill(server), _) => self.later(at, Item::Truth(server.into(), State::Dead)),
                (What::Hang(server), _) => {
                    self.later(at, Item::Truth(server.into(), State::Silent { host: true }))
                }
                (What::Crash(server), _) => {
                    self.later(at, Item::Truth(server.into(), State::Silent { host: false }))
                }
                (What::Return(server), _) => self.later(at, Item::Truth(server.into(), State::Serving)),
                (What::BalancerDies, kind) => {
                    if let Some(failover) = kind.failover() {
                        self.later(at, Item::Balancer(false));
                        self.later(at + failover, Item::Balancer(true));
                    }
                }
                (What::Drain(_) | What::Undrain(_), _) => {}
            }
        }
        let interval = self.design.checks.map_or(Duration::ZERO, |checks| checks.interval);
        let phases = flows::phases_of_checks(plan.seed, plan.servers, interval);
        for (server, phase) in (0..plan.servers).zip(phases) {
            for (at, wanted) in rotation(plan, self.design, server, phase) {
                self.later(at, Item::Rotation(server.into(), wanted));
            }
        }
    }

    fn open(&mut self) {
        let plan = self.plan;
        for number in 0..plan.connections.count {
            let (client, port) = flows::connection(number, plan.requests.clients);
            let server = match &self.design.kind {
                Kind::Dns => self.addresses(Time::ZERO, client).first().copied(),
                _ => self.pick(Time::ZERO, client, port, 6),
            };
            let phase = flows::phase_of_connection(number, plan.connections.count, plan.connections.every);
            self.connections.push(Connection {
                client,
                port,
                server,
                entry: server,
                silent_since: None,
                open: server.is_some(),
            });
            self.later(Time::ZERO + phase, Item::Keep(number as usize));
        }
    }

    fn requests(&mut self) {
        let plan = self.plan;
        let asked = &plan.requests;
        let all = flows::requests(plan.seed, asked.clients, asked.rate, plan.duration);
        for (number, (at, client)) in (0..).zip(all) {
            let asked = Time::ZERO + at;
            self.later(asked, Item::Ask(Request { number, asked, client, tries: 0, addresses: Vec::new() }));
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
                    // The standby knows none of them, and chooses for each anew: some servers it hits.
                    for number in 0..self.connections.len() {
                        let chosen = self.pick(now, 0, 0, 6);
                        if let Some(connection) = self.connections.get_mut(number) {
                            connection.entry = chosen;
                        }
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
        let flow = Flow {
            addresses: Addresses::V4 { source: flows::client(client), destination: SERVICE },
            protocol,
            source_port: port,
            destination_port: PORT,
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
            Kind::Balancer { table: true, .. } | Kind::Redirect { .. } => {
                let at = self.chance.below(ready.len() as u64);
                ready.get(usize::try_from(at).ok()?).copied()
            }
            // As nftables scales a hash to a number of servers; a remainder would move far more flows when one leaves.
            _ => {
                let place = (u64::from(hash) * ready.len() as u64) >> 31;
                ready.get(usize::try_from(place).ok()?).copied()
            }
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
            let number = client % dns.resolvers;
            let until = now + if first { flows::first_expiry(self.plan.seed, number, keep) } else { keep };
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
                let port = flows::port_of_try(self.plan.seed, request.number, request.tries);
                self.pick(now, request.client, port, 17)
            }
        };
        let answer = match self.design.kind {
            Kind::Balancer { .. } | Kind::Redirect { .. } if !self.balancer => Answer::Silence,
            Kind::Balancer { dsr, .. } => {
                let answer = self.answer_of(server);
                // A refusal is an answer too.
                let both = !dsr && !matches!(answer, Answer::Silence);
                self.result.balancer_packets += if both { 2 } else { 1 };
                answer
            }
            Kind::Redirect { .. } => {
                // The front answers itself; the server is asked without it.
                self.result.balancer_packets += 2;
                self.answer_of(server)
            }
            Kind::Flooding { .. } => {
                self.flood();
                self.answer_of(server)
            }
            Kind::Anycast { .. } | Kind::Dns => self.answer_of(server),
        };
        request.tries += 1;
        match answer {
            Answer::Answered(server) => {
                self.result.answered(request.asked.since(Time::ZERO), server, request.tries);
            }
            Answer::Refused | Answer::Silence if request.tries >= tries => {
                self.result.lost(request.asked.since(Time::ZERO));
            }
            Answer::Refused => self.later(now, Item::Ask(request)),
            Answer::Silence => self.later(now + timeout, Item::Ask(request)),
        }
    }

    /// A packet comes to all hosts that are there; all but one drop it.
    fn flood(&mut self) {
        let there = self.truth.iter().filter(|state| !matches!(state, State::Silent { host: false })).count();
        self.result.flooded_packets += there.saturating_sub(1) as u64;
    }

    fn keep(&mut self, now: Time, number: usize) {
        let Some(connection) = self.connections.get(number).filter(|connection| connection.open) else {
            return;
        };
        let (client, port, own, entry, silent) = (
            connection.client,
            connection.port,
            connection.server,
            connection.entry,
            connection.silent_since,
        );
        let (there, balanced) = match self.design.kind {
            // The router remembers nothing.
            Kind::Anycast { .. } => (self.pick(now, client, port, 6), false),
            // The client has the server's own address.
            Kind::Dns | Kind::Redirect { .. } => (own, false),
            Kind::Flooding { .. } => {
                self.flood();
                // Whoever has a connection answers for it, whosever share it is in; when he is gone, the one whose share it is.
                let holds = |server: &usize| {
                    self.truth.get(*server) == Some(&State::Serving)
                        || self.rotation.get(*server) == Some(&true)
                };
                let held = own.filter(holds);
                (held.or_else(|| self.pick(now, client, port, 6)), false)
            }
            Kind::Balancer { table: true, .. } => (entry, true),
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
        self.result.cut(now.since(Time::ZERO), well);
    }
}

/// When this server begins and ceases to get new flows, as those who decide learn it.
fn rotation(plan: &Plan, design: &Design, server: u16, phase: Duration) -> Vec<(Time, bool)> {
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
    let lost_host = design.kind.lost_host();
    let mut seen: Vec<(Time, bool)> = Vec::new();
    if let Some(Checks { interval, timeout, fall, rise }) = design.checks {
        let state = |at: Time| {
            truths.iter().rev().find(|(from, _)| *from <= at).map_or(State::Serving, |(_, state)| *state)
        };
        let (mut up, mut against) = (true, 0);
        let mut at = Time::ZERO + phase;
        let on_host = lost_host.is_some();
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
    }
    if let Some(lost_host) = lost_host {
        for (at, _) in truths.iter().filter(|(_, state)| matches!(state, State::Silent { host: false })) {
            // Unless it came back so soon that nobody noticed.
            let back = truths.iter().find(|(later, state)| later > at && *state == State::Serving);
            if back.is_none_or(|(back, _)| *back > *at + lost_host) {
                seen.push((*at + lost_host, false));
                // Where nobody checks, it is there again when the others have seen it.
                seen.extend(
                    back.filter(|_| design.checks.is_none()).map(|(back, _)| (*back + lost_host, true)),
                );
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
