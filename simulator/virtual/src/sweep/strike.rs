//! Faults and steps of operators, each with its own end.

use std::fmt;
use std::time::Duration;

use anyvip_machine::{FailureKind, Seed, Time};
use serde::{Deserialize, Serialize};

use super::swarm::{Shape, Swarm};
use crate::world::{Condition, Fault, Impairment, LinkId, NodeId, Operation, Planned, PortId, Probing};

macro_rules! kinds {
    ($($kind:ident)+) => {
        /// What strikes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum Kind { $($kind),+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$kind),+];
        }
    };
}

kinds! {
    AgentKilled AgentCrashes HostOff HostReplaced AgentFrozen AgentSlow DiskSlow DiskFull StateTorn ClockStep
    VipDeleted VipContested ArpChanged NetlinkRefuses ViewLag
    ServiceDead ServiceHangs ServiceFails ProbesFlap ProbesFail ProbesHang ProbeErrors
    PortDown PortFlaps Cut CutOneWay Impaired
    RouterKilled RouterOff RouterFrozen RouterSlow SessionsReset RoutesForgotten RouterIgnores RouterStalls
    RouterBfdOff DatagramsLost
    Drain DrainTwice Reload BadReload Stop Restart Upgrade
}

impl Kind {
    /// Nobody is told that the other end is gone: only a hold time finds out.
    pub fn is_silent(self) -> bool {
        matches!(
            self,
            Kind::HostOff
                | Kind::HostReplaced
                | Kind::AgentFrozen
                | Kind::AgentSlow
                | Kind::PortDown
                | Kind::PortFlaps
                | Kind::Cut
                | Kind::CutOneWay
                | Kind::Impaired
                | Kind::RouterOff
                | Kind::RouterFrozen
                | Kind::RouterSlow
                | Kind::RouterIgnores
                | Kind::RouterStalls
        )
    }
}

/// One fault with its end, at one or at several places at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// What.
    pub kind: Kind,
    /// What happens when.
    pub steps: Vec<(Time, Planned)>,
}

impl Strike {
    /// When it begins.
    pub fn begins(&self) -> Time {
        self.steps.iter().map(|(at, _)| *at).min().unwrap_or(Time::ZERO)
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        for (at, planned) in &self.steps {
            match planned {
                Planned::Fault(fault) => write!(f, "\n    {at} {fault:?}")?,
                Planned::Operation { host, operation: Operation::Reload { config } } => {
                    write!(f, "\n    {at} node {}: reload of {} octets", host.0, config.len())?;
                }
                Planned::Operation { host, operation } => {
                    write!(f, "\n    {at} node {}: {operation:?}", host.0)?
                }
                Planned::Heal => write!(f, "\n    {at} heal")?,
            }
        }
        Ok(())
    }
}

/// Before this nothing strikes: a lab begins well.
const CALM: Duration = Duration::from_secs(12);
/// Of 1000 strikes so many hit a whole group at once.
const CORRELATED: u64 = 60;

/// Everything that strikes before `heal_at`, in order of time.
pub fn strikes(root: &Seed, swarm: &Swarm, heal_at: Time) -> Vec<Strike> {
    let mut strikes = Vec::new();
    for (kind, each) in &swarm.rates {
        let mut seed = root.child(&format!("strikes {kind:?}"));
        let mut at = Time::ZERO + CALM;
        loop {
            at += seed.between(*each / 10, *each * 2);
            if at >= heal_at {
                break;
            }
            strikes.push(Draw { seed: &mut seed, swarm, at, kind: *kind }.strike());
        }
    }
    strikes.sort_by_key(Strike::begins);
    strikes
}

struct Draw<'a> {
    seed: &'a mut Seed,
    swarm: &'a Swarm,
    at: Time,
    kind: Kind,
}

impl Draw<'_> {
    fn strike(mut self) -> Strike {
        let all = self.seed.chance(CORRELATED);
        let some = 1 + self.seed.below(u64::from(self.swarm.hosts));
        let count = if all { some } else { 1 };
        let first = self.seed.below(u64::from(self.swarm.hosts));
        let length = self.length();
        let mut steps = Vec::new();
        for at in 0..count {
            let host = ((first + at) % u64::from(self.swarm.hosts)) as u32;
            steps.extend(self.steps(host, length));
            if !self.is_of_hosts() {
                break;
            }
        }
        Strike { kind: self.kind, steps }
    }

    fn is_of_hosts(&self) -> bool {
        self.kind < Kind::PortDown || self.kind >= Kind::Drain
    }

    /// From a moment to a minute; half of them around the times that matter to timers.
    fn length(&mut self) -> Duration {
        let millis = [10, 60, 400, 1_000, 2_500, 5_000, 9_000, 13_000, 30_000, 60_000];
        let base = Duration::from_millis(millis.get(self.seed.below(10) as usize).copied().unwrap_or(1_000));
        self.seed.between(base / 2, base * 3 / 2)
    }

    fn router(&mut self) -> NodeId {
        NodeId(self.seed.below(u64::from(self.swarm.routers)) as u32)
    }

    fn link(&mut self) -> LinkId {
        let links = match self.swarm.shape {
            Shape::Routed => self.swarm.hosts * self.swarm.uplinks,
            Shape::Lan => self.swarm.hosts + self.swarm.routers,
        };
        LinkId(self.seed.below(u64::from(links)) as u32)
    }

    fn service(&mut self) -> Option<String> {
        let count = self.swarm.services.len() as u64;
        (!self.seed.chance(500)).then(|| format!("s{}", self.seed.below(count)))
    }

    fn steps(&mut self, number: u32, length: Duration) -> Vec<(Time, Planned)> {
        let (at, host) = (self.at, self.swarm.host(number));
        let end = at + length;
        let fault = |at: Time, fault: Fault| (at, Planned::Fault(fault));
        let both = |begin: Fault, over: Fault| vec![fault(at, begin), fault(end, over)];
        match self.kind {
            Kind::AgentKilled => both(Fault::KillAgent { host }, Fault::StartAgent { host }),
            Kind::AgentCrashes => (0..2 + self.seed.below(5) as u32)
                .flat_map(|time| {
                    let at = at + length / 8 * time;
                    let again = at + length / 16;
                    [fault(at, Fault::KillAgent { host }), fault(again, Fault::StartAgent { host })]
                })
                .collect(),
            Kind::HostOff => both(Fault::PowerOff { host }, Fault::PowerOn { host, state: true }),
            Kind::HostReplaced => both(Fault::PowerOff { host }, Fault::PowerOn { host, state: false }),
            Kind::AgentFrozen => both(Fault::Freeze { node: host }, Fault::Continue { node: host }),
            Kind::AgentSlow => {
                let each = self.seed.between(Duration::from_micros(100), Duration::from_millis(200));
                both(Fault::Slow { node: host, each }, Fault::Slow { node: host, each: Duration::ZERO })
            }
            Kind::DiskSlow => {
                let latency = self.seed.between(Duration::from_millis(10), Duration::from_secs(8));
                let good = Duration::from_millis(3);
                both(Fault::DiskLatency { host, latency }, Fault::DiskLatency { host, latency: good })
            }
            Kind::DiskFull => {
                both(Fault::DiskFull { host, full: true }, Fault::DiskFull { host, full: false })
            }
            Kind::StateTorn => vec![
                fault(at, Fault::StateUnreadable { host, unreadable: true }),
                fault(at, Fault::KillAgent { host }),
                fault(at, Fault::StartAgent { host }),
                fault(end, Fault::StateUnreadable { host, unreadable: false }),
                fault(end, Fault::KillAgent { host }),
                fault(end, Fault::StartAgent { host }),
            ],
            Kind::ClockStep => {
                let by = self.seed.below(7_200_000) as i64 - 3_600_000;
                vec![fault(at, Fault::ClockStep { host, by_ms: by })]
            }
            Kind::VipDeleted | Kind::VipContested => {
                let services = &self.swarm.services;
                let service = services.get(self.seed.below(services.len() as u64) as usize);
                let Some(vip) = service.and_then(|service| service.vips.first()) else { return Vec::new() };
                let times = if self.kind == Kind::VipDeleted { 1 } else { 4 + self.seed.below(12) as u32 };
                let pause = self.seed.between(Duration::from_millis(1), Duration::from_secs(8));
                (0..times)
                    .map(|time| fault(at + pause * time, Fault::DeleteAddress { host, address: *vip }))
                    .collect()
            }
            Kind::ArpChanged => {
                let interface = format!("eth{}", self.seed.below(u64::from(self.uplinks())));
                let (ignore, announce) = (self.seed.below(2) as u32, self.seed.below(3) as u32);
                vec![fault(at, Fault::SetArp { host, interface, ignore, announce })]
            }
            Kind::NetlinkRefuses => {
                let kind = Some(FailureKind::PermissionDenied);
                both(Fault::NetlinkRefuses { host, kind }, Fault::NetlinkRefuses { host, kind: None })
            }
            Kind::ViewLag => {
                let lag = self.seed.between(Duration::from_millis(5), Duration::from_secs(8));
                both(Fault::ViewLag { host, lag }, Fault::ViewLag { host, lag: Duration::ZERO })
            }
            Kind::ServiceDead | Kind::ServiceHangs | Kind::ServiceFails => {
                let condition = match self.kind {
                    Kind::ServiceDead => Condition::Dead,
                    Kind::ServiceHangs => Condition::Hanging,
                    _ => Condition::Failing,
                };
                let service = self.service();
                let over = Fault::Service { host, service: service.clone(), condition: Condition::Serving };
                both(Fault::Service { host, service, condition }, over)
            }
            Kind::ProbesFlap | Kind::ProbesFail | Kind::ProbesHang | Kind::ProbeErrors => {
                let probing = match self.kind {
                    Kind::ProbesFlap => Probing::Flapping { period: 1 + self.seed.below(5) as u32 },
                    Kind::ProbesFail => Probing::AlwaysFails,
                    Kind::ProbesHang => Probing::Hangs,
                    _ => Probing::Error,
                };
                let service = self.service();
                let over = Fault::Probes { host, service: service.clone(), probing: Probing::Honest };
                both(Fault::Probes { host, service, probing }, over)
            }
            Kind::PortDown | Kind::PortFlaps => {
                let port = PortId(self.link().0 * 2 + self.seed.below(2) as u32);
                let times = if self.kind == Kind::PortDown { 1 } else { 2 + self.seed.below(6) as u32 };
                (0..times)
                    .flat_map(|time| {
                        let (down, up) = (at + length * (2 * time), at + length * (2 * time + 1));
                        [
                            fault(down, Fault::Port { port, up: false }),
                            fault(up, Fault::Port { port, up: true }),
                        ]
                    })
                    .collect()
            }
            Kind::Cut => {
                let link = self.link();
                both(Fault::Cut { link, cut: true }, Fault::Cut { link, cut: false })
            }
            Kind::DatagramsLost => {
                let link = self.link();
                both(Fault::LoseDatagrams { link, lost: true }, Fault::LoseDatagrams { link, lost: false })
            }
            Kind::CutOneWay => {
                let (link, side) = (self.link(), self.seed.below(2) as u8);
                both(
                    Fault::CutOneWay { link, end: side, cut: true },
                    Fault::CutOneWay { link, end: side, cut: false },
                )
            }
            Kind::Impaired => {
                let link = self.link();
                let good = Impairment {
                    delay: self.swarm.delay,
                    jitter: self.swarm.jitter,
                    ..Impairment::default()
                };
                let bad = Impairment {
                    delay: self.seed.between(Duration::from_millis(1), Duration::from_millis(800)),
                    jitter: self.seed.between(Duration::ZERO, Duration::from_millis(400)),
                    loss_ppm: self.seed.below(400_000) as u32,
                    ..good
                };
                both(Fault::Impair { link, impairment: bad }, Fault::Impair { link, impairment: good })
            }
            _ if self.is_of_hosts() => self.operators(number, length),
            _ => self.routers(length),
        }
    }

    fn uplinks(&self) -> u32 {
        if self.swarm.shape == Shape::Lan { 1 } else { self.swarm.uplinks }
    }

    fn routers(&mut self, length: Duration) -> Vec<(Time, Planned)> {
        let (at, end, router) = (self.at, self.at + length, self.router());
        let fault = |at: Time, fault: Fault| (at, Planned::Fault(fault));
        let both = |begin: Fault, over: Fault| vec![fault(at, begin), fault(end, over)];
        match self.kind {
            Kind::RouterKilled => both(Fault::KillRouter { router }, Fault::StartRouter { router }),
            Kind::RouterOff => both(Fault::RouterOff { router }, Fault::RouterOn { router }),
            Kind::RouterFrozen => both(Fault::Freeze { node: router }, Fault::Continue { node: router }),
            Kind::RouterSlow => {
                let each = self.seed.between(Duration::from_micros(100), Duration::from_millis(50));
                both(Fault::Slow { node: router, each }, Fault::Slow { node: router, each: Duration::ZERO })
            }
            // What a router has forgotten it hears again only on a new session: its operator resets them.
            Kind::RoutesForgotten => {
                both(Fault::ForgetRoutes { router, peer: None }, Fault::ResetSessions { router })
            }
            Kind::RouterIgnores => {
                // Connections that it took meanwhile are of no use: its operator restarts it.
                vec![
                    fault(at, Fault::Ignore { router, ignores: true }),
                    fault(end, Fault::Ignore { router, ignores: false }),
                    fault(end, Fault::KillRouter { router }),
                    fault(end, Fault::StartRouter { router }),
                ]
            }
            Kind::RouterBfdOff => {
                both(Fault::RouterBfd { router, on: false }, Fault::RouterBfd { router, on: true })
            }
            Kind::RouterStalls => {
                both(Fault::Stall { router, stalled: true }, Fault::Stall { router, stalled: false })
            }
            _ => vec![fault(at, Fault::ResetSessions { router })],
        }
    }

    fn operators(&mut self, number: u32, length: Duration) -> Vec<(Time, Planned)> {
        let (at, end, host) = (self.at, self.at + length, self.swarm.host(number));
        let operate = |at: Time, operation: Operation| (at, Planned::Operation { host, operation });
        let good = || Operation::Reload { config: self.swarm.config(number) };
        match self.kind {
            Kind::Drain | Kind::DrainTwice => {
                let service = self.service();
                let drain = Operation::Drain { service: service.clone(), reason: Some("a sweep".to_owned()) };
                let undrain = Operation::Undrain { service };
                if self.kind == Kind::Drain {
                    return vec![operate(at, drain), operate(end, undrain)];
                }
                vec![
                    operate(at, drain.clone()),
                    operate(at + length / 3, undrain.clone()),
                    operate(at + length / 3, drain),
                    operate(end, undrain),
                ]
            }
            Kind::Reload => {
                let mut other = self.swarm.clone();
                let at_service = self.seed.below(other.services.len() as u64) as usize;
                let choice = self.seed.below(5);
                let med = self.seed.below(100) as u32;
                if let Some(service) = other.services.get_mut(at_service) {
                    match choice {
                        0 => service.med = Some(med),
                        1 => service.fall = 1 + med % 4,
                        2 => service.interval = Some(Duration::from_millis(100 + u64::from(med) * 20)),
                        3 if service.vips.len() > 1 => {
                            service.vips.pop();
                        }
                        3 => service.on_error_fail = !service.on_error_fail,
                        _ => other.hold_time = other.hold_time.map(|hold| hold + Duration::from_secs(1)),
                    }
                }
                vec![operate(at, Operation::Reload { config: other.config(number) }), operate(end, good())]
            }
            Kind::BadReload => vec![
                operate(at, Operation::Reload { config: "config_version = 1\nno_such_key = 3\n".to_owned() }),
                operate(end, good()),
                operate(end, Operation::Start),
            ],
            Kind::Stop => vec![operate(at, Operation::Terminate), operate(end, Operation::Start)],
            Kind::Restart => {
                vec![operate(at, Operation::Restart { pause: length.min(Duration::from_secs(10)) })]
            }
            _ => {
                // A router that guards its sessions by BFD waits for two of its slow packets at least.
                let longest = Duration::from_millis(if self.swarm.bfd.is_some() { 900 } else { 5_000 });
                let runs = !self.seed.chance(100);
                let pause = runs.then(|| self.seed.between(Duration::from_millis(20), longest));
                vec![operate(at, Operation::Upgrade { pause, force: self.seed.chance(200) })]
            }
        }
    }
}
