//! What a process hands to the one that takes its place: health with its age, and how far drains have come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyvip_bgp::PeerName;
use serde::{Deserialize, Serialize};

use crate::boundary::{CheckName, HealthState, ServiceName, Target};

/// Health that was heard of longer ago is not inherited.
pub const OLDEST: Duration = Duration::from_secs(30);

/// What an agent knows that no other start would know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Format, now [`Restored::VERSION`]. No other is read.
    pub version: u32,
    /// Services by name.
    pub services: BTreeMap<ServiceName, RestoredService>,
    /// Peers that have agreed to keep what they were told.
    pub keepers: BTreeSet<PeerName>,
}

impl Restored {
    /// The format of this version.
    pub const VERSION: u32 = 1;
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredService {
    /// Its checks that are decided.
    pub checks: Vec<RestoredCheck>,
    /// How much longer it is told as draining. Whether it is drained at all is in `state.json`.
    pub draining: Option<Duration>,
}

/// Where a check stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredCheck {
    pub name: CheckName,
    pub target: Target,
    /// Up or down.
    pub state: HealthState,
    /// Since it passed or failed last.
    pub age: Duration,
}

/// Something handed over, as the new process finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inheritance {
    /// Version of the program that handed it over.
    pub from: String,
    /// How long ago that was.
    pub age: Duration,
    pub restored: Restored,
}

impl Inheritance {
    /// Where a check stood, and how long ago that was known, if that may still be believed.
    pub(crate) fn of(
        &self,
        service: &ServiceName,
        check: &CheckName,
        target: Target,
    ) -> Option<(HealthState, Duration)> {
        let checks = &self.restored.services.get(service)?.checks;
        let found = checks.iter().find(|known| known.name == *check && known.target == target)?;
        let age = found.age.saturating_add(self.age);
        (age <= OLDEST).then_some((found.state, age))
    }
}
