//! The invariants, one function each. A function names what is suspicious and how long it may last; the checker remembers
//! since when it has lasted.

use std::time::Duration;

use super::facts::{Admin, MachineFacts, PathFacts, PeerFacts, RouterFacts, VipFacts};

/// The kernel tells no change of ARP values: the driver reads them this often, and acts in a moment.
pub const GUARD_PERIOD: Duration = Duration::from_secs(5);
/// What acting takes.
const MOMENT: Duration = Duration::from_millis(500);
/// A router notices a dead session, and what was under way arrives.
const SLACK: Duration = Duration::from_secs(5);
/// Without a hold time only speaking finds a dead session; KEEPALIVEs and retransmissions take this long.
const NO_HOLD_TIME: Duration = Duration::from_secs(120);
/// A program that took over is back on its sessions, and has said End-of-RIB for all that it has decided, within this.
const TAKING_OVER: Duration = Duration::from_secs(60);
/// A deadline is kept at once.
const PUNCTUAL: Duration = Duration::from_millis(100);

/// Something that may be so for a while and not longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// How long.
    pub grace: Duration,
    /// What.
    pub what: &'static str,
    /// The facts say that it has lasted no longer than this, however it looked meanwhile.
    pub at_most: Duration,
}

fn suspect(is: bool, grace: Duration, what: &'static str) -> Option<Suspicion> {
    is.then_some(Suspicion { grace, what, at_most: Duration::MAX })
}

/// 1: No prefix is announced unless its VIP is present and ARP is guarded (within one guard period).
pub fn address_behind_announcement(vip: &VipFacts, peer: &PeerFacts) -> Option<Suspicion> {
    let told = vip.able && (peer.decided || peer.established && peer.advertised);
    let missing = suspect(told && !vip.present, GUARD_PERIOD, "is announced and is not on the host");
    let grace = GUARD_PERIOD + MOMENT;
    missing.or_else(|| suspect(told && vip.guarded == Some(false), grace, "is announced and not guarded"))
}

/// 2: Down for longer than detection and a moment: not wanted any more; and not advertised where nothing is in the way.
pub fn down_is_withdrawn(vip: &VipFacts, peer: &PeerFacts) -> Option<Suspicion> {
    let down = vip.able && vip.present && vip.healthy == Some(false);
    suspect(down && peer.preferred, vip.detection + MOMENT, "is announced though its service is down")
}

/// 2, seen from the router: what is down, drained or has no live agent is forgotten within detection and hold time.
pub fn down_is_forgotten(vip: &VipFacts, router: &RouterFacts) -> Option<Suspicion> {
    let known = router.heard || router.retained.is_some();
    if !router.able || !known || router.agent_slow {
        return None;
    }
    let hold = match router.hold_time {
        Some(hold) => hold,
        None if router.clear => NO_HOLD_TIME,
        None => return None,
    };
    if let Some(at_most) = router.agent_silent {
        // The router has promised to wait, and its time is known.
        if router.retained.is_some_and(|left| !left.is_zero()) {
            return None;
        }
        // Whoever is stopped, goes on for a moment and is stopped again has spoken in that moment.
        let what = "is still known to the router though no agent lives";
        return Some(Suspicion { grace: hold + SLACK, what, at_most });
    }
    let down = vip.able && vip.present && vip.healthy == Some(false);
    let over = down && !vip.depreferences || vip.able && (!vip.present || vip.admin == Admin::Drained);
    let grace = vip.detection + 2 * hold + SLACK + taking_over(router);
    suspect(over, grace, "is still known to the router though it is withdrawn")
}

fn taking_over(router: &RouterFacts) -> Duration {
    router.retained.map_or(Duration::ZERO, |_| TAKING_OVER)
}

/// 3: The peer's view equals our Adj-RIB-Out: at once when quiet, and soon when nothing is in the way.
pub fn views_agree(peer: &PeerFacts, router: &RouterFacts, quiet: bool) -> Option<Suspicion> {
    let comparable = router.clear && peer.established && router.established;
    let differs = peer.advertised != router.heard || router.heard && !router.equal;
    let grace =
        if quiet { Duration::ZERO } else { router.hold_time.map_or(NO_HOLD_TIME, |hold| hold + SLACK) };
    suspect(comparable && differs, grace, "is told to the router otherwise than it has it")
}

/// 4: What is still missing after everything was healed; `None`: nothing.
pub fn not_recovered(vip: &VipFacts, peer: &PeerFacts, router: Option<&RouterFacts>) -> Option<&'static str> {
    if vip.admin == Admin::Undecided || vip.healthy.is_none() {
        return None;
    }
    let good = vip.wanted && vip.healthy == Some(true) && vip.admin == Admin::Enabled;
    if !vip.wanted {
        let heard = router.is_some_and(|router| router.heard);
        return heard.then_some("is still known to the router though no agent shall run");
    }
    if !good {
        return peer.advertised.then_some("is still announced");
    }
    if !peer.established || router.is_some_and(|router| !router.established) {
        return Some("has no session to be announced on");
    }
    if !peer.admitted {
        return peer.advertised.then_some("is announced to a peer that it is not for");
    }
    match router {
        _ if !vip.present => Some("is not on the host"),
        _ if vip.guarded == Some(false) => Some("is not guarded"),
        _ if !peer.advertised => Some("is not announced"),
        Some(router) if !router.heard => Some("is announced and not known to the router"),
        Some(router) if router.chosen == Some(false) => Some("is known to the router and not used"),
        _ => None,
    }
}

/// 5: No ARP reply for a VIP, and no request with one as sender, leaves a guarded interface: where a VIP is, the guard is.
/// Set by the agent itself in the wrong order, it is wrong at once; after a change by somebody else, after a guard period.
pub fn vip_is_silent(vip: &VipFacts) -> Option<Suspicion> {
    let exposed = vip.able && vip.present && vip.guarded == Some(false);
    let grace = if vip.untouched { Duration::ZERO } else { 2 * GUARD_PERIOD + MOMENT };
    suspect(exposed, grace, "is on the host and an uplink would answer ARP for it")
}

/// 6: A drained host gets no new flow: from the moment in which the operator is told so, it is not wanted.
pub fn drained_is_withheld(vip: &VipFacts, peer: &PeerFacts) -> Option<Suspicion> {
    suspect(vip.admin == Admin::Drained && peer.decided, Duration::ZERO, "is announced though it is drained")
}

/// 6, seen from the router: it sends nothing there once the withdrawal has arrived.
pub fn drained_gets_nothing(vip: &VipFacts, router: &RouterFacts) -> Option<Suspicion> {
    let sends = vip.admin == Admin::Drained && router.able && router.chosen == Some(true);
    let grace = router.hold_time.map_or(NO_HOLD_TIME, |hold| 2 * hold + SLACK) + taking_over(router);
    suspect(sends && !router.agent_slow, grace, "is drained and the router sends new flows to it")
}

/// 7: Every machine makes progress.
pub fn machine_moves(machine: &MachineFacts) -> Option<Suspicion> {
    let late =
        suspect(machine.overdue > PUNCTUAL, Duration::ZERO, "its deadline has passed and nothing acts");
    let turning = machine.events > machine.most_events;
    late.or_else(|| suspect(turning, Duration::ZERO, "machines turn on the spot")).or_else(|| {
        suspect(machine.bugs > 0, Duration::ZERO, "it found itself in a state that should not be")
    })
}

/// 9: BFD sees within its detection time that nothing comes, and its failure ends the BGP session that it guards (RFC 5882 §4.2).
pub fn path_guards(path: &PathFacts) -> Option<Suspicion> {
    let what = "BFD failed and the BGP session that it guards goes on";
    let silent = path.silent.min(path.running) > path.detection + PUNCTUAL;
    let deaf = path.up && silent;
    suspect(path.able && path.outlived, MOMENT, what).or_else(|| {
        suspect(deaf, Duration::ZERO, "BFD is Up and has heard nothing for longer than its detection time")
    })
}

/// 8: Memory and queues are bounded.
pub fn memory_is_bounded(machine: &MachineFacts) -> Option<Suspicion> {
    let large = machine.size > machine.most_size;
    suspect(large, Duration::ZERO, "its state grows").or_else(|| {
        suspect(machine.backlog > machine.most_backlog, Duration::ZERO, "what waits for it grows")
    })
}
