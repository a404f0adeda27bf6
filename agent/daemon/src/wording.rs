//! How facts and reasons are said, in one place: the log, `anyvip events`, `status` and `explain` use the same words.

use std::net::IpAddr;
use std::time::Duration;

use anyvip_bfd::{Fact as BfdFact, State as BfdState};
use anyvip_bgp::{PeerName, PeerState};
use anyvip_core::boundary::{Fact, HealthState, Learned, Reason, Target};
use anyvip_core::config::Standing;
use serde::{Deserialize, Serialize};

/// How much a fact matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// Of interest when looking closer.
    Detail,
    /// A change.
    Change,
    /// Something is not as wanted.
    Trouble,
}

/// A fact in words, with its parts beside for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Worded {
    pub(crate) kind: String,
    pub(crate) weight: Weight,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// How long the former state had lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after_ms: Option<u64>,
}

impl Worded {
    fn new(kind: &str, weight: Weight, text: String) -> Worded {
        Worded {
            kind: kind.to_owned(),
            weight,
            text,
            service: None,
            check: None,
            vip: None,
            peer: None,
            interface: None,
            from: None,
            to: None,
            reason: None,
            after_ms: None,
        }
    }
}

/// The words of a fact.
pub(crate) fn fact(fact: &Fact) -> Worded {
    match fact {
        Fact::CheckChanged { service, check, target, from, to, after, detail } => {
            let weight = if *to == HealthState::Down { Weight::Trouble } else { Weight::Change };
            let text = format!(
                "{service}: check {check}{} went from {} to {} after {}: {detail}",
                on(*target),
                health(*from),
                health(*to),
                duration(*after),
            );
            Worded {
                service: Some(service.0.clone()),
                check: Some(check.0.clone()),
                vip: vip_of(*target),
                from: Some(health(*from).to_owned()),
                to: Some(health(*to).to_owned()),
                reason: Some(detail.clone()),
                after_ms: Some(millis(*after)),
                ..Worded::new("check_changed", weight, text)
            }
        }
        Fact::CheckError { service, check, target, detail } => {
            let (weight, text) = match detail {
                Some(detail) => (
                    Weight::Trouble,
                    format!(
                        "{service}: check {check}{} cannot be made: {detail} (says nothing about the service; its last health stands)",
                        on(*target)
                    ),
                ),
                None => {
                    (Weight::Change, format!("{service}: check {check}{} can be made again", on(*target)))
                }
            };
            Worded {
                service: Some(service.0.clone()),
                check: Some(check.0.clone()),
                vip: vip_of(*target),
                reason: detail.clone(),
                ..Worded::new("check_error", weight, text)
            }
        }
        Fact::VerdictChanged { service, vip, peer, announced, reason: why, standing } => {
            let text = match (announced, why) {
                (true, _) => format!("{service}: {vip} is announced to {peer}{}", as_standing(*standing)),
                (false, Some(why)) => format!("{service}: {vip} is withheld from {peer}: {}", reason(why)),
                (false, None) => {
                    format!("{service}: {vip} is withheld from {peer}: it is not configured any more")
                }
            };
            // What an operator wanted is no trouble; a session, a VIP or a guard that was lost has said so itself, and at
            // the start all three are on their way.
            let quiet = matches!(
                why,
                None | Some(
                    Reason::Drained
                        | Reason::Stopping
                        | Reason::NotYetChecked
                        | Reason::SessionDown
                        | Reason::VipMissing
                        | Reason::ArpNotGuarded
                )
            );
            let trouble = match announced {
                true => *standing == Standing::Depreferenced,
                false => !quiet,
            };
            Worded {
                service: Some(service.0.clone()),
                vip: Some(*vip),
                peer: Some(peer.0.clone()),
                to: Some(if *announced { "announced" } else { "withheld" }.to_owned()),
                reason: why.as_ref().map(reason_code),
                ..Worded::new("verdict_changed", if trouble { Weight::Trouble } else { Weight::Change }, text)
            }
        }
        Fact::PeerChanged { peer, from, to } => {
            let text = match (from, to) {
                (_, PeerState::Established) => format!("{peer}: the BGP session is up (Established)"),
                (PeerState::Established, _) => format!("{peer}: the BGP session is down, now {to}"),
                _ => format!("{peer}: from {from} to {to}"),
            };
            // The loss of a session comes with its cause as a fact of its own.
            let weight = match to {
                PeerState::Established => Weight::Change,
                _ => Weight::Detail,
            };
            Worded {
                peer: Some(peer.0.clone()),
                from: Some(from.to_string()),
                to: Some(to.to_string()),
                ..Worded::new("peer_changed", weight, text)
            }
        }
        Fact::PeerDown { peer, was_established, planned, text: why } => {
            let text = if *was_established {
                format!("{peer}: the BGP session ended: {why}")
            } else {
                format!("{peer}: no BGP session: {why}; trying again")
            };
            Worded {
                peer: Some(peer.0.clone()),
                reason: Some(why.clone()),
                ..Worded::new("peer_down", if *planned { Weight::Change } else { Weight::Trouble }, text)
            }
        }
        Fact::Bfd { peers, fact } => of_bfd(peers, fact),
        Fact::NeighbourLearned { peer, interface, address, how } => {
            let how = match how {
                Learned::Advertised => "it advertises itself there",
                Learned::Connected => "it connected from there",
            };
            Worded {
                peer: Some(peer.0.clone()),
                interface: Some(interface.clone()),
                to: Some(address.to_string()),
                ..Worded::new(
                    "neighbour_learned",
                    Weight::Change,
                    format!("{peer} is {address} on {interface}: {how}"),
                )
            }
        }
        Fact::PeerNotice { peer, text } => {
            let said = match peer {
                Some(peer) => format!("{peer}: {text}"),
                None => format!("BGP: {text}"),
            };
            Worded {
                peer: peer.as_ref().map(|peer| peer.0.clone()),
                ..Worded::new("peer_notice", Weight::Trouble, said)
            }
        }
        Fact::VipChanged { vip, interface, present, owned: _, text: what } => Worded {
            vip: Some(*vip),
            interface: Some(interface.clone()),
            to: Some(if *present { "present" } else { "missing" }.to_owned()),
            reason: Some(what.clone()),
            ..Worded::new(
                "vip_changed",
                if *present { Weight::Change } else { Weight::Trouble },
                format!("{vip} on {interface}: {what}"),
            )
        },
        Fact::ArpChanged { interface, guarded, text: why } => {
            let (weight, to, text) = match guarded {
                true => (
                    Weight::Change,
                    "guarded",
                    format!(
                        "{interface}: the ARP guard is in place: this host is silent about its VIPs there"
                    ),
                ),
                false => (
                    Weight::Trouble,
                    "unguarded",
                    format!(
                        "{interface}: the ARP guard is gone, this host may answer for its VIPs there: {why}"
                    ),
                ),
            };
            Worded {
                interface: Some(interface.clone()),
                to: Some(to.to_owned()),
                reason: (!guarded).then(|| why.clone()),
                ..Worded::new("arp_changed", weight, text)
            }
        }
        Fact::KernelRefused { text, failure } => Worded {
            reason: Some(failure.text.clone()),
            ..Worded::new("kernel_refused", Weight::Trouble, format!("the kernel refused: {text}: {failure}"))
        },
        Fact::PersistFailed { failure } => Worded {
            reason: Some(failure.text.clone()),
            ..Worded::new(
                "persist_failed",
                Weight::Trouble,
                format!("the state could not be written, so a drain would not survive a restart: {failure}"),
            )
        },
        Fact::AdminChanged { service, drained, reason: why } => {
            let text = match (drained, why) {
                (true, Some(why)) => format!("{service}: drained by an operator: {why}"),
                (true, None) => format!("{service}: drained by an operator"),
                (false, _) => format!("{service}: put back by an operator"),
            };
            Worded {
                service: Some(service.0.clone()),
                to: Some(if *drained { "drained" } else { "enabled" }.to_owned()),
                reason: why.clone(),
                ..Worded::new("admin_changed", Weight::Change, text)
            }
        }
        Fact::Reloaded { applied, text } => {
            let (weight, said) = if *applied {
                (Weight::Change, format!("configuration applied: {text}"))
            } else {
                (Weight::Trouble, format!("configuration refused, the running one stays: {text}"))
            };
            Worded::new("reloaded", weight, said)
        }
        Fact::HeldBack { text } => Worded::new("held_back", Weight::Trouble, text.clone()),
        Fact::Lifecycle { text } => Worded::new("lifecycle", Weight::Change, text.clone()),
    }
}

/// With which attributes, in words that follow.
fn as_standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Normal => "",
        Standing::Depreferenced => ", depreferenced: it is unhealthy",
        Standing::Draining => " as draining",
    }
}

fn on(target: Target) -> String {
    match target {
        Target::Vip(address) => format!(" on {address}"),
        Target::Own => String::new(),
    }
}

fn vip_of(target: Target) -> Option<IpAddr> {
    match target {
        Target::Vip(address) => Some(address),
        Target::Own => None,
    }
}

fn health(state: HealthState) -> &'static str {
    match state {
        HealthState::Unknown => "unknown",
        HealthState::Up => "up",
        HealthState::Down => "down",
    }
}

/// The name of a reason as `status --json` has it.
pub(crate) fn reason_code(reason: &Reason) -> String {
    serde_json::to_value(reason)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("{reason:?}"))
}

/// Why, in words that follow a colon.
pub(crate) fn reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::Stopping => "the agent is stopping",
        Reason::StateUnreadable => {
            "the state directory cannot be read, so nobody knows whether it is drained"
        }
        Reason::CrashLoop => "the agent ended uncleanly too often and waits before it announces",
        Reason::Drained => "drained by an operator",
        Reason::VipMissing => "the VIP is not on this host",
        Reason::VipContested => "somebody keeps deleting the VIP from this host",
        Reason::ArpNotGuarded => "an uplink would still answer ARP for the VIP",
        Reason::ArpGuardUnsafe => {
            "the ARP guard would cut this host off: its own address sits only on the loopback"
        }
        Reason::NotYetChecked => "no check has made up its mind yet",
        Reason::Unhealthy => "a check says the service is down",
        Reason::CheckError => "a check cannot be made, and on_error = \"fail\"",
        Reason::PrefixWithheld => "another VIP in the same prefix is withheld",
        Reason::SessionDown => "the BGP session is not up",
        Reason::BfdDown => "BFD does not find the path to the peer up",
        Reason::FamilyNotNegotiated => "the peer did not agree to this address family",
        Reason::NoNextHop => "this host has no address the peer could use as next hop",
        Reason::ReturnPath => "rp_filter would drop what comes in from this peer",
    }
}

/// What a gate asks, as a title; the reverse of its reason.
pub(crate) fn gate(reason: &Reason) -> &'static str {
    match reason {
        Reason::Stopping => "agent runs",
        Reason::StateUnreadable => "state readable",
        Reason::CrashLoop => "no crash loop",
        Reason::Drained => "not drained",
        Reason::VipMissing => "VIP in place",
        Reason::VipContested => "VIP uncontested",
        Reason::ArpNotGuarded => "ARP guarded",
        Reason::ArpGuardUnsafe => "guard is safe",
        Reason::NotYetChecked => "checks decided",
        Reason::Unhealthy => "checks pass",
        Reason::CheckError => "checks can run",
        Reason::PrefixWithheld => "prefix complete",
        Reason::SessionDown => "session up",
        Reason::BfdDown => "BFD up",
        Reason::FamilyNotNegotiated => "family agreed",
        Reason::NoNextHop => "next hop",
        Reason::ReturnPath => "return path",
    }
}

/// What opens the gate again.
pub(crate) fn cure(reason: &Reason) -> &'static str {
    match reason {
        Reason::Stopping => "start the agent again",
        Reason::StateUnreadable => {
            "repair or remove state.json in the state directory, then restart the agent"
        }
        Reason::CrashLoop => "it passes by itself; the log before the last start says why the agent ended",
        Reason::Drained => "anyvip undrain SERVICE",
        Reason::VipMissing => "the agent adds it by itself; see `anyvip events` for what the kernel refused",
        Reason::VipContested => {
            "find what deletes it (`ip monitor address`); it is announced again when that stops"
        }
        Reason::ArpNotGuarded => {
            "the agent sets it by itself; see `anyvip events` for what the kernel refused"
        }
        Reason::ArpGuardUnsafe => "put the host's own address on the uplink itself, not on the loopback",
        Reason::NotYetChecked => "wait for `rise` passes in a row",
        Reason::Unhealthy => "repair the service; the last result of its checks says what is wrong",
        Reason::CheckError => "repair what the check needs; its last result says what is missing",
        Reason::PrefixWithheld => "repair the other VIP in it, or give each VIP a prefix of its own",
        Reason::SessionDown => {
            "see the peer's last error; is it reachable, and does it expect this host and AS?"
        }
        Reason::BfdDown => {
            "switch BFD on for this host on the router; see the peer's bfd in `anyvip status --json`"
        }
        Reason::FamilyNotNegotiated => "activate this address family for this host on the peer",
        Reason::NoNextHop => {
            "give the interface towards the peer a global address of this family, or set announce.next_hop"
        }
        Reason::ReturnPath => {
            "sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2, or a route back through that interface"
        }
    }
}

/// Facts of BFD sessions.
fn of_bfd(peers: &[PeerName], fact: &BfdFact) -> Worded {
    let names: Vec<&str> = peers.iter().map(|peer| peer.0.as_str()).collect();
    let who = match names.as_slice() {
        [] => "BFD".to_owned(),
        names => format!("BFD with {}", names.join(", ")),
    };
    let peer = match names.as_slice() {
        [only] => Some((*only).to_owned()),
        _ => None,
    };
    let (kind, weight, text) = match fact {
        BfdFact::StateChanged(change) => {
            // The way up is told by its end; the way down by its beginning.
            let weight = match (change.from, change.to) {
                _ if change.is_failure() => Weight::Trouble,
                (BfdState::Up, _) | (_, BfdState::Up) => Weight::Change,
                _ => Weight::Detail,
            };
            let worded = Worded::new("bfd", weight, format!("{who} is {}: {}", change.to, change.cause));
            let (from, to) = (Some(change.from.to_string()), Some(change.to.to_string()));
            return Worded { peer, from, to, ..worded };
        }
        BfdFact::Negotiated(agreed) => {
            let text = format!("{who}: gone after {} ms without a packet", millis(agreed.detection));
            ("bfd", Weight::Detail, text)
        }
        BfdFact::Discarded { session: None, remote, reason } => {
            ("bfd_notice", Weight::Trouble, format!("{who}: a packet from {remote} was refused: {reason}"))
        }
        BfdFact::Discarded { reason, .. } => {
            ("bfd_notice", Weight::Trouble, format!("{who}: a packet was refused: {reason}"))
        }
        BfdFact::CannotSend { failure: Some(failure), .. } => {
            ("bfd_notice", Weight::Trouble, format!("{who}: {failure}"))
        }
        BfdFact::CannotSend { failure: None, .. } => {
            ("bfd_notice", Weight::Detail, format!("{who}: packets can be sent again"))
        }
    };
    Worded { peer, ..Worded::new(kind, weight, text) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `850ms`, `12s`, `3m12s`, `5h03m`, `12d4h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// [`duration`] of milliseconds.
pub(crate) fn for_ms(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

/// Microseconds as `310µs`, `3.1ms`, `1.20s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}µs"),
        1_000..1_000_000 => format!("{}.{}ms", us / 1_000, us / 100 % 10),
        _ => format!("{}.{:02}s", us / 1_000_000, us / 10_000 % 100),
    }
}

#[cfg(test)]
mod tests;
