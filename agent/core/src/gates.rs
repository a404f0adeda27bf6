//! Gates between a service and the wire: plain values in, the first closed gate out.

use std::net::IpAddr;

use anyvip_bgp::RouteAttributes;
use anyvip_bgp::wire::NextHop;
use serde::{Deserialize, Serialize};

use crate::boundary::{Reason, Verdict};
use crate::checks::VipHealth;
use crate::config::Standing;
use crate::guard::ArpState;

/// Gates of service and VIP, in the order in which they are asked.
pub(crate) const VIP_GATES: [Reason; 12] = [
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
    Reason::PrefixWithheld,
];

/// Gates of one peer, asked after those of the VIP.
pub(crate) const PEER_GATES: [Reason; 5] = [
    Reason::SessionDown,
    Reason::BfdDown,
    Reason::FamilyNotNegotiated,
    Reason::NoNextHop,
    Reason::ReturnPath,
];

/// What the gates of one VIP of one service look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gates {
    pub(crate) stopping: bool,
    /// Why the state cannot be read.
    pub(crate) state_unreadable: Option<String>,
    pub(crate) crash_loop: bool,
    pub(crate) drained: bool,
    /// Drained, and still within the drain time.
    pub(crate) draining: bool,
    /// Why the VIP is not there.
    pub(crate) vip_missing: Option<String>,
    pub(crate) vip_contested: bool,
    pub(crate) arp: ArpState,
    pub(crate) health: VipHealth,
    /// `on_failure`: unhealthy is told with other attributes.
    pub(crate) depreferences: bool,
    /// The worst standing of those that share this VIP's prefixes.
    pub(crate) shared: Standing,
    /// Another VIP that keeps every prefix around this one from being told, and why.
    pub(crate) prefix_withheld: Option<(IpAddr, Reason)>,
}

impl Gates {
    /// Whether this gate is open; gates of peers are.
    pub(crate) fn open(&self, gate: Reason) -> bool {
        match gate {
            Reason::Stopping => !self.stopping,
            Reason::StateUnreadable => self.state_unreadable.is_none(),
            Reason::CrashLoop => !self.crash_loop,
            Reason::Drained => !self.drained || self.draining,
            Reason::VipMissing => self.vip_missing.is_none(),
            Reason::VipContested => !self.vip_contested,
            Reason::ArpNotGuarded => !matches!(self.arp, ArpState::NotGuarded(_)),
            Reason::ArpGuardUnsafe => !matches!(self.arp, ArpState::Unsafe(_)),
            Reason::NotYetChecked => !matches!(self.health, VipHealth::Unknown(_)),
            Reason::Unhealthy => self.keeps_on() || !matches!(self.health, VipHealth::Down(_)),
            Reason::CheckError => self.keeps_on() || !matches!(self.health, VipHealth::Error(_)),
            Reason::PrefixWithheld => self.prefix_withheld.is_none(),
            Reason::SessionDown
            | Reason::BfdDown
            | Reason::FamilyNotNegotiated
            | Reason::NoNextHop
            | Reason::ReturnPath => true,
        }
    }

    /// The first closed gate towards a static peer, which knows up and down and nothing between: no draining, no depreferenced
    /// route, no prefix that is shared.
    pub(crate) fn closed_for_static(&self) -> Option<Reason> {
        VIP_GATES.into_iter().find(|gate| match gate {
            Reason::Drained => self.drained,
            Reason::Unhealthy => matches!(self.health, VipHealth::Down(_)),
            Reason::CheckError => matches!(self.health, VipHealth::Error(_)),
            Reason::PrefixWithheld => false,
            gate => !self.open(*gate),
        })
    }

    /// The first closed gate.
    pub(crate) fn closed(&self) -> Option<Reason> {
        VIP_GATES.into_iter().find(|gate| !self.open(*gate))
    }

    /// The first closed gate of this VIP alone, whatever other VIPs do.
    pub(crate) fn closed_itself(&self) -> Option<Reason> {
        self.closed().filter(|gate| *gate != Reason::PrefixWithheld)
    }

    /// What an open gate lets through only with other attributes.
    pub(crate) fn lowers(&self, gate: Reason) -> Option<Standing> {
        match gate {
            Reason::Drained if self.draining => Some(Standing::Draining),
            Reason::Unhealthy if self.keeps_on() && matches!(self.health, VipHealth::Down(_)) => {
                Some(Standing::Depreferenced)
            }
            Reason::CheckError if self.keeps_on() && matches!(self.health, VipHealth::Error(_)) => {
                Some(Standing::Depreferenced)
            }
            Reason::PrefixWithheld if self.shared > self.standing_itself() => Some(self.shared),
            _ => None,
        }
    }

    /// With which attributes the VIP is told if it is.
    pub(crate) fn standing(&self) -> Standing {
        self.standing_itself().max(self.shared)
    }

    /// The same for this VIP alone.
    pub(crate) fn standing_itself(&self) -> Standing {
        let lowers = [Reason::Drained, Reason::Unhealthy, Reason::CheckError].into_iter();
        lowers.filter_map(|gate| self.lowers(gate)).max().unwrap_or_default()
    }

    /// Whether failing health lowers the attributes instead of withholding. A service that fails while it is drained
    /// has no use for the rest of its drain time.
    fn keeps_on(&self) -> bool {
        self.depreferences && !self.drained
    }
}

/// What the gates of one VIP towards one peer look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerGates {
    /// The first closed gate of the VIP.
    pub(crate) vip: Option<Reason>,
    /// The session is Established.
    pub(crate) session: bool,
    /// BFD finds the path up, or is not asked.
    pub(crate) bfd: bool,
    /// It carries the VIP's family.
    pub(crate) family: bool,
    /// What this host tells the peer to send to, or why there is nothing.
    pub(crate) next_hop: Result<NextHop, String>,
    /// What would drop traffic that comes from this peer: text and cure.
    pub(crate) no_return_path: Option<(String, String)>,
    /// What would be told.
    pub(crate) attributes: Option<RouteAttributes>,
    /// In which state of the service.
    pub(crate) standing: Standing,
}

impl PeerGates {
    /// Whether this gate of the peer is open; gates of the VIP are.
    pub(crate) fn open(&self, gate: Reason) -> bool {
        match gate {
            Reason::SessionDown => self.session,
            Reason::BfdDown => self.bfd,
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
            draining: false,
            depreferences: false,
            shared: Standing::Normal,
            prefix_withheld: None,
        }
    }

    fn peer(vip: Option<Reason>) -> PeerGates {
        let hop = NextHop::V4([10, 0, 0, 1].into());
        PeerGates {
            vip,
            session: true,
            bfd: true,
            family: true,
            next_hop: Ok(hop),
            no_return_path: None,
            attributes: Some(RouteAttributes::originated(hop)),
            standing: Standing::Normal,
        }
    }

    #[test]
    fn the_first_closed_gate_is_the_reason_in_the_declared_order() {
        let mut gates = all_open();
        assert_eq!(gates.closed(), None);
        type Close = fn(&mut Gates);
        let steps: [(Close, Reason); 9] = [
            (
                |g| g.prefix_withheld = Some(([192, 0, 2, 1].into(), Reason::Unhealthy)),
                Reason::PrefixWithheld,
            ),
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
    fn failing_health_lowers_instead_of_closing_where_configured_but_not_while_drained() {
        for (health, reason) in [
            (VipHealth::Down(String::new()), Reason::Unhealthy),
            (VipHealth::Error(String::new()), Reason::CheckError),
        ] {
            let gates = Gates { health, depreferences: true, ..all_open() };
            assert_eq!((gates.closed(), gates.standing()), (None, Standing::Depreferenced));
            assert_eq!(gates.lowers(reason), Some(Standing::Depreferenced));
            let drained = Gates { drained: true, draining: true, ..gates };
            assert_eq!(drained.closed(), Some(reason));
        }
        let unknown = VipHealth::Unknown(String::new());
        let gates = Gates { health: unknown, depreferences: true, ..all_open() };
        assert_eq!(gates.closed(), Some(Reason::NotYetChecked), "nothing is told before it is known");
    }

    #[test]
    fn within_the_drain_time_a_drained_vip_is_told_as_draining() {
        let gates = Gates { drained: true, draining: true, ..all_open() };
        assert_eq!((gates.closed(), gates.standing()), (None, Standing::Draining));
        let over = Gates { draining: false, ..gates };
        assert_eq!(over.closed(), Some(Reason::Drained));
    }

    #[test]
    fn a_closed_gate_of_the_vip_comes_before_those_of_the_peer() {
        let closed = PeerGates { session: false, ..peer(Some(Reason::Drained)) };
        assert_eq!(closed.verdict(), Verdict::Withhold(Reason::Drained));
        let down = PeerGates { session: false, family: false, ..peer(None) };
        assert_eq!(down.verdict(), Verdict::Withhold(Reason::SessionDown));
        let unseen = PeerGates { bfd: false, family: false, ..peer(None) };
        assert_eq!(unseen.verdict(), Verdict::Withhold(Reason::BfdDown));
        let lost = PeerGates { no_return_path: Some(Default::default()), ..peer(None) };
        assert_eq!(lost.verdict(), Verdict::Withhold(Reason::ReturnPath));
        assert!(matches!(peer(None).verdict(), Verdict::Announce(_)));
    }
}
