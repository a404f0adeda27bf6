//! What a seed makes of the bounds: topology, configuration, which kinds of faults there are and how often.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Seed;
use serde::{Deserialize, Serialize};

use super::Bounds;
use super::strike::Kind;
use crate::router::Install;

/// Hosts and routers, and how they are cabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// Each host has its own cables to its routers.
    Routed,
    /// All hosts and the routers are on one bridge.
    Lan,
}

/// One service of every host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePlan {
    /// Its addresses.
    pub vips: Vec<IpAddr>,
    /// From check to check; `None`: no check.
    pub interval: Option<Duration>,
    /// Of its checks.
    pub rise: u32,
    /// Of its checks.
    pub fall: u32,
    /// A second check, with an address of its own.
    pub own_check: bool,
    /// `on_error = "fail"`.
    pub on_error_fail: bool,
    /// MED, if one is written.
    pub med: Option<u32>,
    /// Told to the first router only.
    pub first_peer_only: bool,
    /// `on_failure = "depreference"`.
    pub depreferences: bool,
    /// `drain_time`, if one is written.
    pub drain_time: Option<Duration>,
    /// Told to nobody by BGP: routers follow its BFD sessions.
    pub tracked: bool,
}

/// BFD of hosts and routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdPlan {
    /// What is asked of it.
    pub use_: BfdUse,
    /// Between packets.
    pub interval: Duration,
    /// Of both ends.
    pub multiplier: u8,
}

/// What BFD is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BfdUse {
    /// It guards BGP.
    Guards,
    /// It guards BGP, and nothing is announced without it.
    Strict,
    /// Hosts ask for it and routers know nothing of it: it never comes Up.
    Unanswered,
    /// One service of each host is followed by static routes at its routers; BGP goes on beside.
    Tracked,
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swarm {
    /// How they are cabled.
    pub shape: Shape,
    /// How many hosts.
    pub hosts: u32,
    /// How many routers.
    pub routers: u32,
    /// To how many routers each host has a session.
    pub uplinks: u32,
    /// Cables carry IPv6, too.
    pub dual_stack: bool,
    /// Sessions run over IPv6.
    pub sessions_v6: bool,
    /// Agents wait for the routers' connections (and connect themselves, too, on a collision course).
    pub listen: bool,
    /// Both sides connect.
    pub both_connect: bool,
    /// Of agents and routers; `None`: 0, no hold time.
    pub hold_time: Option<Duration>,
    /// The routers' offer, if another.
    pub router_hold_time: Option<Duration>,
    /// One way, every cable.
    pub delay: Duration,
    /// Added, up to this.
    pub jitter: Duration,
    /// BFD, if there is any.
    pub bfd: Option<BfdPlan>,
    /// What agents ask routers for: to keep their routes so long when they restart.
    pub graceful_restart: Option<Duration>,
    /// How routers install next hops.
    pub install: Install,
    /// Every host has these.
    pub services: Vec<ServicePlan>,
    /// Which faults there are: on the whole, one of a kind each so often.
    pub rates: BTreeMap<Kind, Duration>,
}

impl Swarm {
    /// Draws.
    pub fn draw(root: &Seed, bounds: &Bounds) -> Swarm {
        let mut seed = root.child("swarm");
        let hosts = bounds.hosts.unwrap_or_else(|| 1 + pick(&mut seed, 24)).max(1);
        let routers = 1 + pick(&mut seed, 4);
        let uplinks = (1 + pick(&mut seed, 3)).min(routers);
        let shape = if seed.chance(150) && hosts <= 200 { Shape::Lan } else { Shape::Routed };
        let dual_stack = seed.chance(400);
        let hold = |seed: &mut Seed| match seed.below(8) {
            0 => Duration::from_secs(3),
            1 | 2 => Duration::from_secs(4 + seed.below(5)),
            3 => Duration::from_secs(30),
            _ => Duration::from_secs(9),
        };
        let hold_time = Some(hold(&mut seed));
        let router_hold_time = if seed.chance(300) { Some(hold(&mut seed)) } else { hold_time };
        // Without a hold time nobody notices silence: such a seed has no silent faults.
        let none = seed.chance(40);
        let listen = seed.chance(150);
        let mut swarm = Swarm {
            shape,
            hosts,
            routers,
            uplinks,
            dual_stack,
            sessions_v6: dual_stack && seed.chance(400),
            listen,
            both_connect: listen && seed.chance(500),
            hold_time: hold_time.filter(|_| !none),
            router_hold_time: router_hold_time.filter(|_| !none),
            delay: Duration::from_micros(20 + seed.below(3) * 2_000),
            jitter: Duration::from_micros(seed.below(2_000)),
            bfd: None,
            graceful_restart: None,
            install: Install::Group,
            services: Vec::new(),
            rates: BTreeMap::new(),
        };
        let count = 1 + pick(&mut seed, 10).saturating_sub(6);
        swarm.services = (0..count.min(3)).map(|number| service(&mut seed, number, dual_stack)).collect();
        swarm.rates = rates(&mut root.child("rates"), none);
        // Of a child of its own: seeds without BFD mean what they meant before there was any.
        swarm.draw_bfd(&mut root.child("bfd"));
        swarm.draw_graceful_restart(&mut root.child("graceful restart"));
        swarm.install = install(&mut root.child("install"));
        swarm
    }

    fn draw_bfd(&mut self, seed: &mut Seed) {
        if !seed.chance(250) {
            self.rates.remove(&Kind::RouterBfdOff);
            self.rates.remove(&Kind::DatagramsLost);
            return;
        }
        let intervals = [100, 300, 300, 300, 500, 1000];
        let interval = intervals.get(seed.below(6) as usize).copied().unwrap_or(300);
        let use_ = match seed.below(10) {
            0 => BfdUse::Unanswered,
            1 | 2 => BfdUse::Strict,
            3..=5 => BfdUse::Tracked,
            _ => BfdUse::Guards,
        };
        let multiplier = u8::try_from(2 + seed.below(4)).unwrap_or(3);
        self.bfd = Some(BfdPlan { use_, interval: Duration::from_millis(interval), multiplier });
        if use_ == BfdUse::Tracked {
            let mut tracked = service(seed, 9, false);
            (tracked.tracked, tracked.depreferences, tracked.first_peer_only) = (true, false, false);
            tracked.med = None;
            tracked.drain_time = None;
            self.services.push(tracked);
        }
    }

    fn draw_graceful_restart(&mut self, seed: &mut Seed) {
        if !seed.chance(250) {
            self.rates.remove(&Kind::Upgrade);
            return;
        }
        let time = [30, 60, 120, 120].get(seed.below(4) as usize).copied().unwrap_or(120);
        self.graceful_restart = Some(Duration::from_secs(time));
        // What it is drawn for.
        self.rates.entry(Kind::Upgrade).or_insert(Duration::from_secs(5 + seed.below(60)));
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let kinds: Vec<String> =
            self.rates.iter().map(|(kind, each)| format!("{kind:?} each {} s", each.as_secs())).collect();
        let hold = |hold: Option<Duration>| hold.map_or(0, |hold| hold.as_secs());
        format!(
            "{} hosts, {} routers, {} uplinks, {:?}{}{}{}{}{}, installs {}, hold time {} s and {} s, {} services with {} addresses; {}",
            self.hosts,
            self.routers,
            self.uplinks,
            self.shape,
            if self.dual_stack { ", IPv4 and IPv6" } else { "" },
            if self.sessions_v6 { ", sessions over IPv6" } else { "" },
            match (self.listen, self.both_connect) {
                (true, true) => ", both sides connect",
                (true, false) => ", routers connect",
                _ => "",
            },
            self.bfd.map_or(String::new(), |bfd| {
                format!(", BFD {:?} each {} ms × {}", bfd.use_, bfd.interval.as_millis(), bfd.multiplier)
            }),
            self.graceful_restart
                .map_or(String::new(), |time| { format!(", graceful restart {} s", time.as_secs()) }),
            self.install,
            hold(self.hold_time),
            hold(self.router_hold_time),
            self.services.len(),
            self.services.iter().map(|service| service.vips.len()).sum::<usize>(),
            if kinds.is_empty() { "no faults".to_owned() } else { kinds.join(", ") }
        )
    }
}

/// All four designs, as often.
fn install(seed: &mut Seed) -> Install {
    match seed.below(4) {
        0 => Install::Plain,
        1 => Install::Group,
        2 => Install::Slots(256),
        _ => Install::Resilient { buckets: 128, idle: Duration::from_secs(120), unbalanced: Duration::ZERO },
    }
}

fn pick(seed: &mut Seed, bound: u64) -> u32 {
    u32::try_from(seed.below(bound)).unwrap_or(0)
}

fn service(seed: &mut Seed, number: u32, dual_stack: bool) -> ServicePlan {
    let octet = u8::try_from(number).unwrap_or(0);
    let mut vips = vec![IpAddr::from([192, 0, 2, 50 + octet * 4])];
    if seed.chance(200) {
        vips.push(IpAddr::from([192, 0, 2, 51 + octet * 4]));
    }
    if dual_stack && seed.chance(600) {
        let v6 = IpAddr::from([0x2001, 0xdb8, 0x53, 0, 0, 0, 0, u16::from(octet) + 1]);
        if seed.chance(800) { vips.push(v6) } else { vips = vec![v6] }
    }
    let intervals = [200, 500, 1000, 1000, 2000, 5000];
    let interval = intervals.get(seed.below(6) as usize).copied().unwrap_or(1000);
    ServicePlan {
        vips,
        interval: (!seed.chance(60)).then(|| Duration::from_millis(interval)),
        rise: 1 + pick(seed, 3),
        fall: 1 + pick(seed, 3),
        own_check: seed.chance(150),
        on_error_fail: seed.chance(150),
        med: seed.chance(300).then(|| pick(seed, 100)),
        first_peer_only: seed.chance(100),
        depreferences: seed.chance(150),
        drain_time: seed.chance(200).then(|| Duration::from_millis(100 << seed.below(9))),
        tracked: false,
    }
}

/// About half of the kinds, each with a rate of its own; now and then none, or a storm.
fn rates(seed: &mut Seed, no_hold_time: bool) -> BTreeMap<Kind, Duration> {
    let share = match seed.below(10) {
        0 => 0,
        1..=3 => 100,
        4..=7 => 250,
        _ => 500,
    };
    let storm = seed.chance(100);
    let mut rates = BTreeMap::new();
    for kind in Kind::ALL {
        let mut own = seed.child(&format!("{kind:?}"));
        if !own.chance(share) || no_hold_time && kind.is_silent() {
            continue;
        }
        let most = if storm { 10 } else { 120 };
        let each = Duration::from_secs(3 + own.below(most));
        rates.insert(*kind, each);
    }
    rates
}
