//! What may be said of an agent by somebody who sees only its events and actions: an observer beside every world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyvip_bgp::wire::{Codec, Family, Framer, Message};
use anyvip_bgp::{Action as BgpAction, ConnectionId, Event as BgpEvent};
use anyvip_core::config::{OnFailure, Service};
use anyvip_core::kernel::KernelView;
use anyvip_core::*;
use anyvip_machine::Time;
use ipnet::IpNet;

use crate::world::secs;

/// The longest that an operator waits: a write under way and the one that carries the command, each with its guard.
const PATIENCE: u64 = 21;
/// No check of these stories needs more failures in a row to be down.
const LARGEST_FALL: u32 = 4;

/// One connection of the agent.
#[derive(Default)]
struct Side {
    /// A `Send` waits for its `Sent`.
    in_flight: bool,
    closed: bool,
    /// What an UPDATE announced and none withdrew.
    told: BTreeSet<IpNet>,
    framer: Framer,
}

type Aim = (ServiceName, CheckName, Target);

/// See the module's text.
#[derive(Default)]
pub(crate) struct Observer {
    sides: BTreeMap<ConnectionId, Side>,
    shown: Option<KernelView>,
    /// As the last accepted configuration says.
    services: BTreeMap<ServiceName, Service>,
    /// Until when they may still be told.
    drained: BTreeMap<ServiceName, Time>,
    asked: BTreeMap<RequestId, Time>,
    probes: BTreeSet<ProbeId>,
    /// Those that run, and what they look at.
    running: BTreeMap<ProbeId, Aim>,
    /// Failures in a row.
    fails: BTreeMap<Aim, u32>,
    requests: BTreeSet<KernelRequestId>,
    persisting: Option<u64>,
    exited: bool,
}

impl Observer {
    pub(crate) fn new(config: &Config, drained: impl IntoIterator<Item = ServiceName>) -> Observer {
        let mut observer = Observer {
            drained: drained.into_iter().map(|name| (name, Time::ZERO)).collect(),
            ..Observer::default()
        };
        observer.configure(config);
        observer
    }

    fn configure(&mut self, config: &Config) {
        self.services = config.services.clone();
    }

    /// A former process has begun to drain it.
    pub(crate) fn drains_until(&mut self, service: &ServiceName, until: Time) {
        self.drained.insert(service.clone(), until);
    }

    /// What is about to be given to the agent.
    pub(crate) fn given(&mut self, now: Time, event: &Event) {
        match event {
            Event::KernelView(view) => self.shown = Some(view.clone()),
            Event::Bgp(BgpEvent::Sent { connection }) => {
                if let Some(side) = self.sides.get_mut(connection) {
                    side.in_flight = false;
                }
            }
            Event::Bgp(BgpEvent::Closed { connection, .. } | BgpEvent::ConnectFailed { connection, .. }) => {
                drop(self.sides.remove(connection));
            }
            Event::Bgp(BgpEvent::Accepted { connection, .. }) => {
                self.sides.insert(*connection, Side::default());
            }
            Event::Persisted { generation, .. } if self.persisting == Some(*generation) => {
                self.persisting = None
            }
            Event::ProbeFinished { probe, outcome } => {
                if let Some(aim) = self.running.remove(probe) {
                    let fails = self.fails.entry(aim).or_default();
                    *fails = if outcome.result == ProbeResult::Fail { *fails + 1 } else { 0 };
                }
            }
            Event::Operator { request, command } => {
                assert!(self.asked.insert(*request, now).is_none(), "the world numbers its requests");
                if let Command::Reload { config: Ok(config), .. } = command {
                    self.configure(config);
                    // Checks may be others now.
                    self.fails.clear();
                    self.running.clear();
                }
            }
            _ => {}
        }
    }

    /// What the agent did in answer to it.
    pub(crate) fn did(&mut self, now: Time, actions: &[Action]) {
        for action in actions {
            assert!(!self.exited, "something is done after the exit: {action:?}");
            match action {
                Action::StartProbe { probe, service, check, target, .. } => {
                    self.running.insert(*probe, (service.clone(), check.clone(), *target));
                    assert!(self.probes.insert(*probe), "{probe:?} was used twice");
                }
                Action::CancelProbe { probe } => {
                    // It may look at something else from now on.
                    if let Some(aim) = self.running.remove(probe) {
                        self.fails.remove(&aim);
                    }
                }
                Action::Kernel { request, .. } => {
                    assert!(self.requests.insert(*request), "{request:?} was used twice");
                }
                Action::Persist { generation, .. } => {
                    assert!(self.persisting.is_none_or(|old| old < *generation), "generations only grow");
                    self.persisting = Some(*generation);
                }
                Action::Reply { request, .. } => {
                    assert!(
                        self.asked.remove(request).is_some(),
                        "{request:?} was answered before, or never asked"
                    );
                }
                Action::Record(Fact::AdminChanged { service, drained, .. }) => {
                    if *drained {
                        let time = self.services.get(service).map_or(Duration::ZERO, |one| one.drain_time);
                        self.drained.insert(service.clone(), now + time);
                    } else {
                        self.drained.remove(service);
                    }
                }
                Action::Bgp(action) => self.spoke(action),
                Action::Exit { .. } => {
                    self.exited = true;
                    assert_eq!(actions.last(), Some(action), "the exit is the last word");
                }
                _ => {}
            }
        }
        self.judge(now);
    }

    fn spoke(&mut self, action: &BgpAction) {
        match action {
            BgpAction::Connect { connection, .. } => {
                assert!(
                    self.sides.insert(*connection, Side::default()).is_none(),
                    "{connection:?} was used twice"
                );
            }
            BgpAction::Send { connection, bytes } => {
                let side = self.sides.get_mut(connection);
                let side = side.unwrap_or_else(|| panic!("{connection:?} is dead and written to"));
                assert!(!side.closed, "{connection:?} is closed and written to");
                assert!(!side.in_flight, "two writes at once on {connection:?}");
                assert!(!bytes.is_empty() && bytes.len() <= 64 * 1024);
                side.in_flight = true;
                side.framer.push(bytes);
                while let Some(frame) = side.framer.next_frame() {
                    let frame = frame.unwrap_or_else(|error| panic!("the agent writes nonsense: {error}"));
                    match read(&frame) {
                        Message::Update(update) => {
                            for prefix in &update.withdrawn {
                                side.told.remove(prefix);
                            }
                            side.told.extend(update.reach.iter().flat_map(|reach| &reach.prefixes));
                        }
                        Message::Notification(_) => side.told.clear(),
                        _ => {}
                    }
                }
                assert_eq!(side.framer.pending(), 0, "whole messages only");
            }
            BgpAction::Close { connection } => {
                let side = self.sides.get_mut(connection);
                let side = side.unwrap_or_else(|| panic!("{connection:?} is dead and closed"));
                assert!(!std::mem::replace(&mut side.closed, true), "{connection:?} is closed twice");
                side.told.clear();
            }
            fact => panic!("a fact left the agent: {fact:?}"),
        }
    }

    /// Present, served, healthy, not drained, or not told; and nobody waits for ever. Where a write is under way the rest
    /// waits for it.
    fn judge(&self, now: Time) {
        for (connection, side) in self.sides.iter().filter(|(_, side)| !side.in_flight) {
            for prefix in &side.told {
                let routed = self
                    .services
                    .iter()
                    .flat_map(|(name, service)| service.vips.iter().map(move |vip| (name, service, *vip)));
                let behind: Vec<_> = routed
                    .filter(|(_, service, vip)| service.announce.routes(*vip).contains(prefix))
                    .collect();
                assert!(!behind.is_empty(), "{connection:?} knows {prefix}, which nobody serves");
                for (name, service, vip) in behind {
                    let over = self.drained.get(name).filter(|until| **until < now);
                    assert_eq!(over, None, "{prefix} is told, and {name} is drained");
                    let keeps_on =
                        service.on_failure == OnFailure::Depreference && !self.drained.contains_key(name);
                    let dead = self.fails.iter().find(|((of, _, target), fails)| {
                        **fails >= LARGEST_FALL
                            && of == name
                            && (*target == Target::Own || *target == Target::Vip(vip))
                    });
                    assert!(keeps_on || dead.is_none(), "{prefix} is told, and {dead:?}");
                    let addresses = self.shown.iter().flat_map(|view| &view.addresses);
                    let here = addresses.into_iter().any(|a| a.address == vip && !a.tentative);
                    assert!(here, "{connection:?} knows {prefix}, and the last view does not show {vip}");
                }
            }
        }
        let late = self.asked.iter().find(|(_, since)| now.since(**since) > secs(PATIENCE));
        assert!(self.exited || late.is_none(), "no answer: {late:?}");
    }
}

/// As the peer would: what was negotiated is not known here, but one of the four ways must read it without complaint.
fn read(frame: &[u8]) -> Message {
    let both = BTreeSet::from([Family::Ipv4, Family::Ipv6]);
    let ways = [(true, true), (false, true), (true, false), (false, false)];
    let readings = ways.map(|(external, four_octet_as)| {
        let codec = Codec {
            external,
            four_octet_as,
            families: both.clone(),
            extended_next_hop: both.clone(),
            ..Codec::before_open()
        };
        match Message::decode(frame, &codec) {
            Ok(Message::Update(update)) if !update.errors.is_empty() => Err(format!("{:?}", update.errors)),
            other => other.map_err(|error| error.to_string()),
        }
    });
    let good = readings.iter().find_map(|reading| reading.clone().ok());
    good.unwrap_or_else(|| panic!("the agent writes nonsense: {readings:?}"))
}
