//! The invariants of the design as code, checked while something runs.
//!
//! - [`facts`]: what the checker is told. Nothing in it is peculiar to virtual time; the namespace backend feeds the same
//!   facts from `status --json` and its journal.
//! - [`rules`]: the invariants, one function each.
//! - [`Checker`]: remembers since when something suspicious lasts, and calls it a [`Violation`] when it lasts too long.
//! - [`Watch`]: looks at a [`World`](crate::world::World) and tells the checker.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

pub mod facts;
mod gather;
mod promise;
pub mod rules;
mod watch;
mod weighing;

pub use watch::Watch;

use facts::{MachineFacts, PathFacts, PeerFacts, RouterFacts, VipFacts};
use rules::Suspicion;

/// Which invariant of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Invariant {
    /// 1: No prefix is announced unless its VIP is present and ARP is guarded.
    AddressBehindAnnouncement,
    /// 2: What is down is not announced.
    DownIsWithdrawn,
    /// 3: The peer's view equals our Adj-RIB-Out.
    ViewsAgree,
    /// 4: After the last fault everything healthy is announced.
    Recovery,
    /// 5: No ARP leaves a guarded interface for a VIP.
    VipIsSilent,
    /// 6: A drained host gets no new flow.
    DrainedGetsNothing,
    /// 7: Every machine makes progress.
    Progress,
    /// 8: Memory and queues are bounded.
    BoundedMemory,
    /// 9: A path that BFD finds down carries no session, and BFD closes nothing else.
    PathGuard,
    /// 10: An upgrade that was promised to lose no route loses none.
    UpgradeKeepsRoutes,
}

impl Invariant {
    /// All of them, by number.
    pub const ALL: [Invariant; 10] = [
        Invariant::AddressBehindAnnouncement,
        Invariant::DownIsWithdrawn,
        Invariant::ViewsAgree,
        Invariant::Recovery,
        Invariant::VipIsSilent,
        Invariant::DrainedGetsNothing,
        Invariant::Progress,
        Invariant::BoundedMemory,
        Invariant::PathGuard,
        Invariant::UpgradeKeepsRoutes,
    ];

    /// Its number in the design, from 1.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// In one sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Invariant::AddressBehindAnnouncement => {
                "no prefix is announced unless its VIP is present and ARP is guarded"
            }
            Invariant::DownIsWithdrawn => "what is down is not announced",
            Invariant::ViewsAgree => "the peer's view equals the Adj-RIB-Out",
            Invariant::Recovery => "after the last fault everything healthy and undrained is announced",
            Invariant::VipIsSilent => "no ARP for a VIP leaves a guarded interface",
            Invariant::DrainedGetsNothing => "a drained host gets no new flow",
            Invariant::Progress => "every machine makes progress",
            Invariant::BoundedMemory => "memory and queues are bounded",
            Invariant::PathGuard => {
                "a path that BFD finds down carries no session, and BFD closes nothing else"
            }
            Invariant::UpgradeKeepsRoutes => "an upgrade loses no route where none was said to be lost",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} ({})", self.number(), self.sentence())
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When it was found.
    pub at: Time,
    /// Since when it was so.
    pub since: Time,
    /// What, where.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at {}", self.invariant, self.text, self.at)?;
        if self.since < self.at {
            write!(f, ", since {}", self.since)?;
        }
        Ok(())
    }
}

/// Where a rule looks: machine (or host), address and peer by number, and the rule itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the host or router.
    pub node: u32,
    /// Number of its peer; 0 where there is none.
    pub peer: u32,
    /// The address, where it is about one.
    pub vip: Option<IpAddr>,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    since: BTreeMap<(Place, Invariant), (&'static str, Time)>,
    told: BTreeSet<(Place, Invariant, &'static str)>,
    violations: Vec<Violation>,
    looks: u64,
}

impl Checker {
    /// Rules about an address on its host.
    pub fn vip(&mut self, now: Time, place: Place, vip: &VipFacts, name: &dyn Fn() -> String) {
        self.weigh(now, place, Invariant::VipIsSilent, rules::vip_is_silent(vip), name);
    }

    /// Rules about an address towards one peer.
    pub fn peer(
        &mut self,
        now: Time,
        place: Place,
        vip: &VipFacts,
        peer: &PeerFacts,
        name: &dyn Fn() -> String,
    ) {
        let announced = rules::address_behind_announcement(vip, peer);
        self.weigh(now, place, Invariant::AddressBehindAnnouncement, announced, name);
        self.weigh(now, place, Invariant::DownIsWithdrawn, rules::down_is_withdrawn(vip, peer), name);
        self.weigh(now, place, Invariant::DrainedGetsNothing, rules::drained_is_withheld(vip, peer), name);
    }

    /// Rules about a BFD session and what it guards.
    pub fn path(&mut self, now: Time, place: Place, path: &PathFacts, name: &dyn Fn() -> String) {
        self.weigh(now, place, Invariant::PathGuard, rules::path_guards(path), name);
    }

    /// Rules about an address at the router at the other end. The place must not be one of [`peer`](Checker::peer).
    pub fn router(
        &mut self,
        now: Time,
        place: Place,
        facts: (&VipFacts, &PeerFacts, &RouterFacts),
        name: &dyn Fn() -> String,
    ) {
        let (vip, peer, router) = facts;
        self.weigh(now, place, Invariant::DownIsWithdrawn, rules::down_is_forgotten(vip, router), name);
        self.weigh(now, place, Invariant::ViewsAgree, rules::views_agree(peer, router, false), name);
        self.weigh(now, place, Invariant::DrainedGetsNothing, rules::drained_gets_nothing(vip, router), name);
    }

    /// The same at a quiet point: nothing is under way, so both views are equal at once.
    pub fn quiet(
        &mut self,
        now: Time,
        place: Place,
        peer: &PeerFacts,
        router: &RouterFacts,
        name: &dyn Fn() -> String,
    ) {
        if let Some(suspicion) = rules::views_agree(peer, router, true) {
            self.report(now, now, (place, Invariant::ViewsAgree, suspicion.what), name);
        }
    }

    /// Rules about a machine.
    pub fn machine(&mut self, now: Time, place: Place, machine: &MachineFacts, name: &dyn Fn() -> String) {
        self.weigh(now, place, Invariant::Progress, rules::machine_moves(machine), name);
        self.weigh(now, place, Invariant::BoundedMemory, rules::memory_is_bounded(machine), name);
    }

    /// Something that is wrong whatever the facts: a contract that was broken, a bound that has passed.
    pub fn wrong(&mut self, now: Time, place: Place, invariant: Invariant, text: String) {
        self.report(now, now, (place, invariant, ""), &|| text.clone());
    }

    /// There is nothing to look at in this place any more: suspicions about it end.
    pub fn gone(&mut self, place: Place) {
        if !self.since.is_empty() {
            self.since.retain(|(other, _), _| *other != place);
        }
    }

    /// The same for every place about an address on this host.
    pub fn nothing_runs(&mut self, node: u32) {
        if !self.since.is_empty() {
            self.since.retain(|(other, _), _| other.node != node || other.vip.is_none());
        }
    }

    /// What was found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Rules that have been asked.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    fn weigh(
        &mut self,
        now: Time,
        place: Place,
        invariant: Invariant,
        suspicion: Option<Suspicion>,
        name: &dyn Fn() -> String,
    ) {
        self.looks += 1;
        let Some(Suspicion { grace, what, at_most }) = suspicion else {
            if !self.since.is_empty() {
                self.since.remove(&(place, invariant));
            }
            return;
        };
        let last = self.since.entry((place, invariant)).or_insert((what, now));
        if last.0 != what {
            *last = (what, now);
        }
        last.1 = last.1.max(now - at_most);
        let since = last.1;
        if grace == Duration::ZERO || now.since(since) > grace {
            self.report(now, since, (place, invariant, what), name);
        }
    }

    fn report(
        &mut self,
        at: Time,
        since: Time,
        key: (Place, Invariant, &'static str),
        name: &dyn Fn() -> String,
    ) {
        if !self.told.insert(key) {
            return;
        }
        let (_, invariant, what) = key;
        let name = name();
        let text = if what.is_empty() { name } else { format!("{name} {what}") };
        self.violations.push(Violation { invariant, at, since, text });
    }
}

#[cfg(test)]
mod tests;
