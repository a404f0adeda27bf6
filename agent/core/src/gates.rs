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
    Reason::VipMissing,
    Reason::VipContested,
    Reason::ArpNotGuarded,
    Reason::ArpGuardUnsafe,
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
