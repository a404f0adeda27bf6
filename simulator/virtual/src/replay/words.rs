//! Events and actions on one line each, for the person who got the file.

use std::fmt::Write;

use anyvip_bgp::wire::{Codec, Family, Framer, Message};
use anyvip_bgp::{Action as BgpAction, ConnectionId, Event as BgpEvent};
use anyvip_core::boundary::{
    Action, Answer, Command, Event, Fact, KernelRequest, ProbeResult, Reason, ServiceName, Target,
};
use anyvip_core::kernel::KernelView;
use anyvip_machine::Failure;

/// An event in words.
#[must_use]
pub fn event(event: &Event) -> String {
    match event {
        Event::Started => "started".to_owned(),
        Event::DeadlineReached => "a deadline is due".to_owned(),
        Event::ProbeFinished { probe, outcome } => {
            let result = match outcome.result {
                ProbeResult::Pass => "pass",
                ProbeResult::Fail => "FAIL",
                ProbeResult::Error => "ERROR",
            };
            format!("probe {}: {result} after {:?}: {}", probe.0, outcome.latency, outcome.detail)
        }
        Event::KernelView(seen) => view(seen),
        Event::KernelDone { request, result } => format!("kernel request {}: {}", request.0, done(result)),
        Event::Persisted { generation, result } => format!("state {generation} written: {}", done(result)),
        Event::HandedDown { result } => format!("what is known handed down: {}", done(result)),
        Event::NotReplaced { failure } => format!("not replaced by another program: {failure}"),
        Event::Bgp(heard) => bgp_event(heard),
        Event::Bfd(heard) => format!("bfd: {heard:?}"),
        Event::Nd(heard) => match heard {
            anyvip_nd::Event::Received { interface, source, bytes, .. } => {
                format!("{interface}: {} octets of router discovery from {source}", bytes.len())
            }
            anyvip_nd::Event::Done { interface, result } => format!("{interface}: {}", done(result)),
            other => format!("router discovery: {other:?}"),
        },
        Event::Operator { request, command } => {
            format!("operator request {}: {}", request.0, ordered(command))
        }
        Event::Terminate => "told to end".to_owned(),
    }
}

/// An action in words.
#[must_use]
pub fn action(action: &Action) -> String {
    match action {
        Action::StartProbe { probe, service, check, target, .. } => {
            format!("start probe {} ({})", probe.0, aim(service, &check.0, *target))
        }
        Action::CancelProbe { probe } => format!("cancel probe {}", probe.0),
        Action::Kernel { request, change } => {
            let what = match change {
                KernelRequest::AddVip { interface, address } => {
                    format!("add {address} to interface {interface}")
                }
                KernelRequest::RemoveVip { interface, address } => {
                    format!("remove {address} from interface {interface}")
                }
                KernelRequest::SetArp { interface, ignore, announce } => {
                    format!("interface {interface}: arp_ignore={ignore} arp_announce={announce}")
                }
                KernelRequest::SetDefault { family, hops, .. } => {
                    let hops = hops.iter().map(|hop| hop.gateway.to_string());
                    format!("{family} default route through {}", list(hops))
                }
                KernelRequest::RemoveDefault { family } => format!("no {family} default route of ours"),
            };
            format!("kernel request {}: {what}", request.0)
        }
        Action::Persist { generation, .. } => format!("write state {generation}"),
        Action::HandDown { restored } => {
            format!("hand down what is known of {}", list(restored.services.keys().map(ToString::to_string)))
        }
        Action::Replace => "become another program".to_owned(),
        Action::Bgp(said) => bgp_action(said),
        Action::BfdWanted { sessions, lease } => {
            let wanted = list(sessions.iter().map(|(name, config)| format!("{name} {:?}", config.wish)));
            let lease = lease.map_or_else(String::new, |until| format!(", until {until}"));
            format!("bfd sessions wanted: {wanted}{lease}")
        }
        Action::Nd(wanted) => match wanted {
            anyvip_nd::Action::Send { interface, destination, bytes } => {
                format!("{interface}: send {} octets of router discovery to {destination}", bytes.len())
            }
            other => format!("router discovery: {other:?}"),
        },
        Action::WatchRoutes { interests } => {
            format!("watch routes to {}", list(interests.iter().map(ToString::to_string)))
        }
        Action::Listen { address: Some(address) } => format!("listen on {address}"),
        Action::Listen { address: None } => "listen no longer".to_owned(),
        Action::Respond(answers) => {
            let say = |(name, answer): (&ServiceName, &Answer)| {
                format!("{name} {}", if answer.reason.is_none() { "200" } else { "503" })
            };
            format!("answer probes: {}", answers.services.iter().map(say).collect::<Vec<_>>().join(", "))
        }
        Action::Reply { request, reply } => {
            let word = if reply.done { "done" } else { "refused" };
            format!("answer request {}: {word}: {}", request.0, one_line(&reply.text))
        }
        Action::Record(told) => fact(told),
        Action::Exit { code } => format!("exit {code}"),
    }
}

fn done(result: &Result<(), Failure>) -> String {
    result.as_ref().map_or_else(|failure| format!("FAILED, {failure}"), |()| "done".to_owned())
}

fn one_line(text: &str) -> String {
    text.trim_end().replace(char::is_control, " ")
}

fn list(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn aim(service: &ServiceName, check: &str, target: Target) -> String {
    match target {
        Target::Vip(vip) => format!("{service}: {check} on {vip}"),
        Target::Own => format!("{service}: {check}"),
    }
}

/// Addresses that hosts always have say nothing.
fn view(view: &KernelView) -> String {
    let mut text = "kernel view:".to_owned();
    for (index, link) in &view.links {
        let _ = write!(text, " {}({index}", link.name);
        for (word, so) in [("down", !link.up), ("no carrier", link.up && !link.carrier)] {
            if so {
                let _ = write!(text, " {word}");
            }
        }
        if link.arp && !link.loopback {
            let settings = link.settings;
            let _ = write!(
                text,
                " arp {}/{} rp_filter {}",
                settings.arp_ignore, settings.arp_announce, settings.rp_filter
            );
        }
        for address in
            view.addresses.iter().filter(|one| one.interface == *index && !one.address.is_loopback())
        {
            let _ = write!(text, " {}", address.address);
            for (mark, so) in [("!tentative", address.tentative), ("*", address.protocol != 0)] {
                if so {
                    text.push_str(mark);
                }
            }
        }
        text.push(')');
    }
    let _ = write!(text, ", {} routes", view.routes.len());
    text
}

fn ordered(command: &Command) -> String {
    let whom = |service: &Option<ServiceName>| service.as_ref().map_or("all".to_owned(), ToString::to_string);
    match command {
        Command::Drain { service, reason: Some(reason) } => {
            format!("drain {}: {}", whom(service), one_line(reason))
        }
        Command::Drain { service, reason: None } => format!("drain {}", whom(service)),
        Command::Undrain { service } => format!("undrain {}", whom(service)),
        Command::Upgrade { to, force } => format!("upgrade to {to}{}", if *force { " by force" } else { "" }),
        Command::Reload { config: Ok(config), .. } => {
            let services = list(config.services.keys().map(ToString::to_string));
            format!(
                "reload, services {services}, peers {}",
                list(config.bgp.peers.keys().map(ToString::to_string))
            )
        }
        Command::Reload { config: Err(text), .. } => {
            format!("reload of a file that was refused: {}", one_line(text))
        }
    }
}

fn connection(connection: &ConnectionId) -> String {
    match connection {
        ConnectionId::Initiated(number) => format!("connection {number}"),
        ConnectionId::Accepted(number) => format!("accepted connection {number}"),
    }
}

pub(crate) fn bgp_event(event: &BgpEvent) -> String {
    match event {
        BgpEvent::Connected { connection: id, local, remote } => {
            format!("{} stands: {local} to {remote}", connection(id))
        }
        BgpEvent::ConnectFailed { connection: id, failure } => {
            format!("{} FAILED: {failure}", connection(id))
        }
        BgpEvent::Accepted { connection: id, local, remote } => {
            format!("{} from {remote} to {local}", connection(id))
        }
        BgpEvent::TurnedAway { remote, why } => format!("a connection from {remote} was turned away: {why}"),
        BgpEvent::Received { connection: id, bytes } => {
            format!("{} heard {}", connection(id), messages(bytes))
        }
        BgpEvent::Sent { connection: id } => format!("{} took what was sent", connection(id)),
        BgpEvent::Closed { connection: id, failure } => format!("{} ended: {failure}", connection(id)),
        command => format!("{command:?}"),
    }
}

pub(crate) fn bgp_action(action: &BgpAction) -> String {
    match action {
        BgpAction::Connect { connection: id, peer, remote, .. } => {
            format!("connect to {peer} at {} port {} as {}", remote.address, remote.port, connection(id))
        }
        BgpAction::Send { connection: id, bytes } => {
            format!("say on {}: {}", connection(id), messages(bytes))
        }
        BgpAction::Close { connection: id } => format!("close {}", connection(id)),
        fact => format!("{fact:?}"),
    }
}

/// The messages that are whole within these bytes. What was negotiated is not known here; four-octet AS numbers are.
fn messages(bytes: &[u8]) -> String {
    let both = [Family::Ipv4, Family::Ipv6];
    let codec = Codec {
        external: true,
        four_octet_as: true,
        families: both.into(),
        extended_next_hop: both.into(),
        extended_messages: true,
        ..Codec::before_open()
    };
    let mut framer = Framer::default();
    framer.allow_extended();
    framer.push(bytes);
    let mut words = Vec::new();
    while let Some(frame) = framer.next_frame() {
        words.push(match frame.and_then(|frame| Message::decode(&frame, &codec)) {
            Ok(Message::Open(open)) => {
                format!("OPEN (AS {}, {}, hold time {} s)", open.real_asn(), open.router_id, open.hold_time)
            }
            Ok(Message::Update(update)) => {
                let reach = update.reach.iter().flat_map(|reach| &reach.prefixes);
                let mut parts: Vec<String> = Vec::new();
                parts.extend(reach.map(|prefix| format!("+{prefix}")));
                parts.extend(update.withdrawn.iter().map(|prefix| format!("-{prefix}")));
                parts.extend(update.end_of_rib.map(|family| format!("End-of-RIB {family}")));
                shortened("UPDATE", &parts)
            }
            Ok(Message::Notification(notification)) => {
                format!("NOTIFICATION {}", one_line(&notification.to_string()))
            }
            Ok(Message::Keepalive) => "KEEPALIVE".to_owned(),
            Ok(Message::RouteRefresh { .. }) => "ROUTE-REFRESH".to_owned(),
            Err(error) => format!("something unreadable ({error})"),
        });
    }
    if framer.pending() > 0 {
        words.push(format!("{} octets of a message", framer.pending()));
    }
    shortened("", &words).trim_start().to_owned()
}

/// A table of the Internet is no line.
fn shortened(what: &str, parts: &[String]) -> String {
    const MOST: usize = 8;
    let shown = parts.get(..MOST.min(parts.len())).unwrap_or_default().join(" ");
    match parts.len().checked_sub(MOST) {
        Some(more @ 1..) => format!("{what} {shown} and {more} more"),
        _ => format!("{what} {shown}"),
    }
}

fn fact(fact: &Fact) -> String {
    let text = match fact {
        Fact::CheckChanged { service, check, target, from, to, detail, .. } => {
            let words = format!("{from:?} to {to:?}").to_lowercase();
            format!("{} went from {words}: {detail}", aim(service, &check.0, *target))
        }
        Fact::CheckError { service, check, target, detail: Some(detail) } => {
            format!("{} cannot be made: {detail}", aim(service, &check.0, *target))
        }
        Fact::CheckError { service, check, target, detail: None } => {
            format!("{} can be made again", aim(service, &check.0, *target))
        }
        Fact::VerdictChanged { service, vip, peer, announced: true, .. } => {
            format!("{service}: {vip} is announced to {peer}")
        }
        Fact::VerdictChanged { service, vip, peer, reason, .. } => {
            let why = reason.map_or("not configured".to_owned(), |reason: Reason| format!("{reason:?}"));
            format!("{service}: {vip} is withheld from {peer}: {why}")
        }
        Fact::PeerChanged { peer, from, to } => format!("{peer} went from {from:?} to {to:?}"),
        Fact::PeerDown { peer, text, .. } => format!("{peer} is down: {text}"),
        Fact::PeerNotice { peer: Some(peer), text } => format!("{peer}: {text}"),
        Fact::PeerNotice { peer: None, text } | Fact::HeldBack { text } | Fact::Lifecycle { text } => {
            text.clone()
        }
        Fact::VipChanged { vip, interface, text, .. } => format!("{vip} on {interface}: {text}"),
        Fact::ArpChanged { interface, text, .. } => format!("ARP on {interface}: {text}"),
        Fact::KernelRefused { text, failure } => format!("{text}: {failure}"),
        Fact::PersistFailed { failure } => format!("the state cannot be written: {failure}"),
        Fact::AdminChanged { service, drained: true, .. } => format!("{service} is drained"),
        Fact::AdminChanged { service, .. } => format!("{service} is put back"),
        Fact::Reloaded { applied: true, text } => format!("reloaded: {text}"),
        Fact::Reloaded { applied: false, text } => format!("reload refused: {text}"),
        // A kind that came later still shows what it holds.
        #[allow(unreachable_patterns, reason = "a new fact shall be shown before somebody words it")]
        other => format!("{other:?}"),
    };
    format!("log \"{}\"", one_line(&text))
}
