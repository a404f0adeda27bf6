//! What is remembered of each service's verdicts: since when each gate stands, and what was decided last.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyvip_bgp::PeerName;
use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::boundary::{Reason, ServiceName, Verdict};
use crate::checks::VipHealth;
use crate::config::Standing;
use crate::gates::{Gates, PEER_GATES, PeerGates, VIP_GATES};

/// All services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Services(pub(crate) BTreeMap<ServiceName, ServiceRecord>);

/// One service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceRecord {
    pub(crate) vips: BTreeMap<IpAddr, VipRecord>,
    pub(crate) health: VipHealth,
    pub(crate) health_since: Time,
}

/// One VIP of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VipRecord {
    pub(crate) gates: Gates,
    since: Vec<Time>,
    pub(crate) peers: BTreeMap<PeerName, PeerRecord>,
}

/// One VIP towards one peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerRecord {
    pub(crate) gates: PeerGates,
    since: Vec<Time>,
    pub(crate) verdict: Verdict,
}

impl VipRecord {
    pub(crate) fn new(now: Time, gates: Gates) -> VipRecord {
        VipRecord { gates, since: vec![now; VIP_GATES.len()], peers: BTreeMap::new() }
    }

    pub(crate) fn take(&mut self, now: Time, gates: Gates) {
        for (gate, since) in VIP_GATES.into_iter().zip(&mut self.since) {
            let looks = |gates: &Gates| (gates.open(gate), gates.lowers(gate));
            if looks(&self.gates) != looks(&gates) {
                *since = now;
            }
        }
        self.gates = gates;
    }

    pub(crate) fn since(&self, gate: Reason) -> Time {
        let at = VIP_GATES.iter().position(|g| *g == gate);
        at.and_then(|at| self.since.get(at)).copied().unwrap_or_default()
    }
}

impl PeerRecord {
    pub(crate) fn new(now: Time, gates: PeerGates) -> PeerRecord {
        let verdict = gates.verdict();
        PeerRecord { gates, since: vec![now; PEER_GATES.len()], verdict }
    }

    /// Returns the former verdict, and with which attributes.
    pub(crate) fn take(&mut self, now: Time, gates: PeerGates) -> (Verdict, Standing) {
        for (gate, since) in PEER_GATES.into_iter().zip(&mut self.since) {
            if self.gates.open(gate) != gates.open(gate) {
                *since = now;
            }
        }
        let verdict = gates.verdict();
        let standing = std::mem::replace(&mut self.gates, gates).standing;
        (std::mem::replace(&mut self.verdict, verdict), standing)
    }

    pub(crate) fn since(&self, gate: Reason) -> Time {
        let at = PEER_GATES.iter().position(|g| *g == gate);
        at.and_then(|at| self.since.get(at)).copied().unwrap_or_default()
    }
}

/// Of several VIPs: down if one is, unknown until each is decided.
pub(crate) fn together<'a>(vips: impl Iterator<Item = &'a VipHealth>) -> VipHealth {
    let rank = |health: &VipHealth| match health {
        VipHealth::Up => 0,
        VipHealth::Unknown(_) => 1,
        VipHealth::Error(_) => 2,
        VipHealth::Down(_) => 3,
    };
    vips.max_by_key(|health| rank(health)).cloned().unwrap_or(VipHealth::Up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::ArpState;

    #[test]
    fn a_gate_remembers_since_when_it_stands_and_not_when_it_was_looked_at() {
        let gates = |drained| Gates {
            stopping: false,
            state_unreadable: None,
            crash_loop: false,
            drained,
            vip_missing: None,
            vip_contested: false,
            arp: ArpState::Guarded,
            health: VipHealth::Up,
            draining: false,
            depreferences: false,
            shared: Standing::Normal,
            prefix_withheld: None,
        };
        let mut record = VipRecord::new(Time::from_secs(1), gates(false));
        record.take(Time::from_secs(2), gates(false));
        assert_eq!(record.since(Reason::Drained), Time::from_secs(1));
        record.take(Time::from_secs(3), gates(true));
        record.take(Time::from_secs(4), gates(true));
        assert_eq!(record.since(Reason::Drained), Time::from_secs(3));
        assert_eq!(record.since(Reason::Unhealthy), Time::from_secs(1));
    }

    #[test]
    fn one_vip_that_is_down_makes_the_service_down() {
        let (down, unknown) = (VipHealth::Down("x".into()), VipHealth::Unknown("y".into()));
        assert_eq!(together([&VipHealth::Up, &down, &unknown].into_iter()), down);
        assert_eq!(together([&VipHealth::Up, &unknown].into_iter()), unknown);
        assert_eq!(together([&VipHealth::Up].into_iter()), VipHealth::Up);
    }
}
