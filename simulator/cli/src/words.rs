//! What both backends say, worded once.

use std::collections::BTreeMap;

use anyvip_bgp::DownReason;
use anyvip_bgp::wire::Notification;
use anyvip_virtual::lab::{Lab, NodeName};
use anyvip_virtual::router::Hop;
use anyvip_virtual::scenario::{Action, Condition, Disturbance, NextHops, Ports, Protocol, Traffic};
use ipnet::IpNet;

/// RFC 4271 §6.5.
const HOLD_TIMER_EXPIRED: u8 = 4;

/// What is asked.
pub(crate) fn kind(traffic: &Traffic) -> &'static str {
    match traffic.protocol {
        Protocol::Udp => "UDP flows",
        Protocol::Tcp => "TCP flows",
        Protocol::Dns => "DNS queries",
    }
}

/// A condition.
pub(crate) fn describe(condition: &Condition) -> String {
    let whom = |peer: &Option<String>| peer.as_ref().map(|peer| format!(" to {peer}")).unwrap_or_default();
    match condition {
        Condition::NextHops { router, prefix, next_hops } => match next_hops {
            NextHops::Count(0) => format!("{router} has no route to {prefix}"),
            NextHops::Count(count) => format!("{router} sends {prefix} to {count} next hops"),
            NextHops::Nodes(nodes) => {
                format!("{router} sends {prefix} to {}", nodes.iter().cloned().collect::<Vec<_>>().join(", "))
            }
        },
        Condition::Weights { router, prefix, weights } => {
            let weights: Vec<String> =
                weights.iter().map(|(node, weight)| format!("{node} with weight {weight}")).collect();
            format!("{router} sends {prefix} to {}", weights.join(", "))
        }
        Condition::Health { agent, service, health } => match service {
            Some(service) => format!("{agent}: {service} is {health}"),
            None => format!("{agent}: all services are {health}"),
        },
        Condition::Announced { agent, vip, peer, announced } => {
            let verb = if *announced { "announces" } else { "does not announce" };
            format!("{agent} {verb} {vip}{}", whom(peer))
        }
        Condition::Withheld { agent, vip, peer, reason } => {
            format!("{agent} withholds {vip}{}: {reason}", whom(peer))
        }
    }
}

/// What a step does.
pub(crate) fn describe_action(action: &Action) -> String {
    match action {
        Action::Say(text) => text.clone(),
        Action::Sleep(duration) => format!("sleep {duration:?}"),
        Action::WaitFor(condition, _) => format!("wait: {}", describe(condition)),
        Action::Expect(_) => "judge".to_owned(),
        Action::Flows { name, .. } => format!("ask every flow once: {name}"),
        Action::Start { name, .. } => format!("begin to ask: {name}"),
        Action::Stop { name } => format!("stop asking: {name}"),
        Action::Hold { name, .. } => format!("open connections: {name}"),
        Action::Release { name } => format!("close connections: {name}"),
        Action::AskArp { from, address, .. } => format!("{from} asks by ARP who has {address}"),
        Action::Disturb(disturbance) => describe_disturbance(disturbance),
    }
}

/// Whether a router has installed just these weights, and what it has.
pub(crate) fn weigh(lab: &Lab, hops: &[Hop], wanted: &BTreeMap<NodeName, u16>) -> (bool, String) {
    let seen: BTreeMap<NodeName, u16> = weighted(lab, hops).into_iter().collect();
    let text = seen.iter().map(|(node, weight)| format!("{node} {weight}")).collect::<Vec<_>>().join(", ");
    (seen == *wanted, if text.is_empty() { "no route".to_owned() } else { text })
}

fn weighted(lab: &Lab, hops: &[Hop]) -> Vec<(NodeName, u16)> {
    let name = |hop: &Hop| lab.owner_of(hop.address).cloned().unwrap_or_else(|| hop.address.to_string());
    hops.iter().map(|hop| (name(hop), hop.weight)).collect()
}

/// What a router has installed, if its next hops are not all of the same weight.
pub(crate) fn weights_of(lab: &Lab, router: &str, prefix: IpNet, hops: &[Hop]) -> Option<String> {
    let first = hops.first()?;
    if hops.iter().all(|hop| hop.weight == first.weight) {
        return None;
    }
    let seen = weighted(lab, hops).into_iter().map(|(node, weight)| format!("{node} with weight {weight}"));
    Some(format!("{router}: {prefix} installed: {}", seen.collect::<Vec<_>>().join(", ")))
}

/// Something that happens.
pub(crate) fn describe_disturbance(disturbance: &Disturbance) -> String {
    let ports = |ports: &[Ports]| {
        let one = |ports: &Ports| match &ports.interface {
            Some(interface) => format!("{}:{interface}", ports.node),
            None => ports.node.clone(),
        };
        ports.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let named =
        |service: &Option<String>| service.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    match disturbance {
        Disturbance::Kill(node) => format!("kill the service of {node} (SIGKILL)"),
        Disturbance::Hang(node) => format!("hang the service of {node} (SIGSTOP)"),
        Disturbance::Resume(node) => format!("resume the service of {node} (SIGCONT)"),
        Disturbance::StartService(node) => format!("start the service of {node}"),
        Disturbance::KillAgent(node) => format!("kill the agent of {node} (SIGKILL)"),
        Disturbance::StopAgent(node) => format!("stop the agent of {node} (SIGTERM)"),
        Disturbance::StartAgent(node) => format!("start the agent of {node}"),
        Disturbance::Upgrade(node) => format!("upgrade the agent of {node}"),
        Disturbance::Drain { node, service } => format!("drain {node}{}", named(service)),
        Disturbance::Undrain { node, service } => format!("undrain {node}{}", named(service)),
        Disturbance::CarrierDown(at) => format!("{} goes down: the other end loses carrier", ports(at)),
        Disturbance::CarrierUp(at) => format!("{} comes up", ports(at)),
        Disturbance::Silence(at) => {
            format!("silence {}: what it sends is lost, its links stay up", ports(at))
        }
        Disturbance::Unsilence(at) => format!("end the silence of {}", ports(at)),
        Disturbance::Loss { router, permille: 0 } => format!("{router} loses nothing more"),
        Disturbance::Loss { router, permille } => {
            format!("{router} loses {} % of what it forwards", permille / 10)
        }
        Disturbance::DeleteVip { node, vip } => format!("somebody deletes {vip} on {node}"),
        Disturbance::Sysctl { node, key, value } => format!("{node}: sysctl {key}={value}"),
        Disturbance::Reload { node, config } => format!("{node}: reload with {config}"),
    }
}

/// Why a session ended, as a router sees it.
pub(crate) fn end_of_session(reason: &DownReason) -> String {
    let said =
        |notification: &Notification| format!("NOTIFICATION {}/{}", notification.code, notification.subcode);
    match reason {
        DownReason::Connection(failure) => failure.text.clone(),
        DownReason::PeerSaid(notification) => format!("it sent {}", said(notification)),
        DownReason::WeSaid(notification) if notification.code == HOLD_TIMER_EXPIRED => {
            "the hold time ended".to_owned()
        }
        DownReason::WeSaid(notification) => format!("we sent {}", said(notification)),
        DownReason::SendHoldTimerExpired => "it took nothing for too long".to_owned(),
    }
}
