//! Gates between a service and the wire: plain values in, the first closed gate out.

use anyvip_bgp::RouteAttributes;
use anyvip_bgp::wire::NextHop;
use serde::{Deserialize, Serialize};

use crate::boundary::{Reason, Verdict};
use crate::checks::VipHealth;
use crate::guard::ArpState;

/// Gates of service and VIP, in the order in which they are asked.
pub(crate) const VIP_GATES: [Reason; 11] = [
    Reason::Stopping,
    Reason::StateUnreadable,
    Reason::CrashLoop,
    Reason::Drained,
    Reason::VipContested,
    Reason::ArpNotGuarded,
    Reason::ArpGuardUnsafe,
    Reason::VipMissing,
    Reason::NotYetChecked,
    Reason::Unhealthy,
    Reason::CheckError,
];

/// Gates of one peer, asked after those of the VIP.
pub(crate) const PEER_GATES: [Reason; 4] =
    [Reason::SessionDown, Reason::FamilyNotNegotiated, Reason::NoNextHop, Reason::ReturnPath];

/// What the gates of one VIP of one service look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gates {
    pub(crate) stopping: bool,
    /// Why the state cannot be read.
    pub(crate) state_unreadable: Option<String>,
    pub(crate) crash_loop: bool,
    pub(crate) drained: bool,
    /// Why the VIP is not there.
    pub(crate) vip_missing: Option<String>,
    pub(crate) vip_contested: bool,
    pub(crate) arp: ArpState,
    pub(crate) health: VipHealth,
}

impl Gates {
    /// Whether this gate is open; gates of peers are.
    pub(crate) fn open(&self, gate: Reason) -> bool {
        match gate {
            Reason::Stopping => !self.stopping,
            Reason::StateUnreadable => self.state_unreadable.is_none(),
            Reason::CrashLoop => !self.crash_loop,
            Reason::Drained => !self.drained,
            Reason::VipMissing => self.vip_missing.is_none(),
            Reason::VipContested => !self.vip_contested,
            Reason::ArpNotGuarded => !matches!(self.arp, ArpState::NotGuarded(_)),
            Reason::ArpGuardUnsafe => !matches!(self.arp, ArpState::Unsafe(_)),
            Reason::NotYetChecked => !matches!(self.health, VipHealth::Unknown(_)),
            Reason::Unhealthy => !matches!(self.health, VipHealth::Down(_)),
            Reason::CheckError => !matches!(self.health, VipHealth::Error(_)),
            Reason::SessionDown | Reason::FamilyNotNegotiated | Reason::NoNextHop | Reason::ReturnPath => {
                true
            }
        }
    }

    /// The first closed gate.
    pub(crate) fn closed(&self) -> Option<Reason> {
        VIP_GATES.into_iter().find(|gate| !self.open(*gate))
    }
}

/// What the gates of one VIP towards one peer look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerGates {
    /// The first closed gate of the VIP.
    pub(crate) vip: Option<Reason>,
    /// The session is Established.
    pub(crate) session: bool,
    /// It carries the VIP's family.
    pub(crate) family: bool,
    /// What this host tells the peer to send to, or why there is nothing.
    pub(crate) next_hop: Result<NextHop, String>,
    /// What would drop traffic that comes from this peer: text and cure.
    pub(crate) no_return_path: Option<(String, String)>,
    /// What would be told.
    pub(crate) attributes: Option<RouteAttributes>,
}

impl PeerGates {
    /// Whether this gate of the peer is open; gates of the VIP are.
    pub(crate) fn open(&self, gate: Reason) -> bool {
        match gate {
            Reason::SessionDown => self.session,
            Reason::FamilyNotNegotiated => self.family,
            Reason::NoNextHop => self.next_hop.is_ok(),
            Reason::ReturnPath => self.no_return_path.is_none(),
            _ => true,
        }
    }

    /// What the peer shall know.
    pub(crate) fn verdict(&self) -> Verdict {
        let closed = self.vip.or_else(|| PEER_GATES.into_iter().find(|gate| !self.open(*gate)));
        match (closed, &self.attributes) {
            (Some(reason), _) => Verdict::Withhold(reason),
            (None, Some(attributes)) => Verdict::Announce(Box::new(attributes.clone())),
            (None, None) => Verdict::Withhold(Reason::NoNextHop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_open() -> Gates {
        Gates {
            stopping: false,
            state_unreadable: None,
            crash_loop: false,
            drained: false,
            vip_missing: None,
            vip_contested: false,
            arp: ArpState::Guarded,
            health: VipHealth::Up,
        }
    }

    fn peer(vip: Option<Reason>) -> PeerGates {
        let hop = NextHop::V4([10, 0, 0, 1].into());
        PeerGates {
            vip,
            session: true,
            family: true,
            next_hop: Ok(hop),
            no_return_path: None,
            attributes: Some(RouteAttributes::originated(hop)),
        }
    }

    #[test]
    fn the_first_closed_gate_is_the_reason_in_the_declared_order() {
        let mut gates = all_open();
        assert_eq!(gates.closed(), None);
        type Close = fn(&mut Gates);
        let steps: [(Close, Reason); 8] = [
            (|g| g.health = VipHealth::Down(String::new()), Reason::Unhealthy),
            (|g| g.vip_missing = Some(String::new()), Reason::VipMissing),
            (|g| g.arp = ArpState::Unsafe(String::new()), Reason::ArpGuardUnsafe),
            (|g| g.vip_contested = true, Reason::VipContested),
            (|g| g.drained = true, Reason::Drained),
            (|g| g.crash_loop = true, Reason::CrashLoop),
            (|g| g.state_unreadable = Some(String::new()), Reason::StateUnreadable),
            (|g| g.stopping = true, Reason::Stopping),
        ];
        for (close, reason) in steps {
            close(&mut gates);
            assert_eq!(gates.closed(), Some(reason));
        }
    }

    #[test]
    fn the_lists_of_gates_are_in_the_order_of_the_reasons_and_complete() {
        let all: Vec<Reason> = VIP_GATES.into_iter().chain(PEER_GATES).collect();
        assert!(all.is_sorted());
        assert_eq!((all.first(), all.last()), (Some(&Reason::Stopping), Some(&Reason::ReturnPath)));
        assert_eq!(all.len(), Reason::ReturnPath as usize + 1);
    }

    #[test]
    fn each_state_of_health_closes_exactly_its_own_gate() {
        for (health, reason) in [
            (VipHealth::Unknown(String::new()), Reason::NotYetChecked),
            (VipHealth::Down(String::new()), Reason::Unhealthy),
            (VipHealth::Error(String::new()), Reason::CheckError),
        ] {
            let gates = Gates { health, ..all_open() };
            let closed: Vec<Reason> = VIP_GATES.into_iter().filter(|gate| !gates.open(*gate)).collect();
            assert_eq!(closed, [reason]);
        }
    }

    #[test]
    fn a_closed_gate_of_the_vip_comes_before_those_of_the_peer() {
        let closed = PeerGates { session: false, ..peer(Some(Reason::Drained)) };
        assert_eq!(closed.verdict(), Verdict::Withhold(Reason::Drained));
        let down = PeerGates { session: false, family: false, ..peer(None) };
        assert_eq!(down.verdict(), Verdict::Withhold(Reason::SessionDown));
        let lost = PeerGates { no_return_path: Some(Default::default()), ..peer(None) };
        assert_eq!(lost.verdict(), Verdict::Withhold(Reason::ReturnPath));
        assert!(matches!(peer(None).verdict(), Verdict::Announce(_)));
    }
}
