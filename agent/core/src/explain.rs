//! What `status` and `explain` show: the values that decided, printed, nothing computed again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bgp::wire::{Community, Family, LargeCommunity, NextHop, ReceivedRoute};
use anyvip_bgp::{PeerName, PeerState, RouteAttributes};
use anyvip_machine::Time;
use ipnet::IpNet;

use crate::agent::Agent;
use crate::announce;
use crate::boundary::{Answer, HealthState, Reason, ServiceName, Target, Verdict};
use crate::checks::{CheckRun, VipHealth};
use crate::config::{Check, CheckKind, ReturnPath, Service};
use crate::ends;
use crate::gates::{Gates, PEER_GATES, PeerGates, VIP_GATES};
use crate::guard::ArpState;
use crate::peers::Peer;
use crate::services::VipRecord;
use crate::status::{
    AttributesStatus, CheckStatus, DrainStatus, Explanation, GateStatus, HeardStatus, Histogram, LastResult,
    PeerExplanation, PeerStatus, ResponderStatus, ServiceStatus, Status, VipExplanation, VipPeerStatus,
    VipStatus, Warning,
};

fn ms(now: Time, since: Time) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}

/// A peer that took the connection says OPEN sooner.
const SOON: Duration = Duration::from_secs(2);

impl Agent {
    /// The whole picture; `version` and `decision_to_wire_us` are the driver's to fill in.
    pub fn status(&self, now: Time) -> Status {
        Status {
            version: String::new(),
            router_id: self.config.router_id,
            uptime_ms: now.as_millis(),
            warnings: self.warnings(now),
            services: self.config.services.iter().map(|(name, s)| self.service(now, name, s)).collect(),
            peers: self
                .config
                .bgp
                .peers
                .keys()
                .map(|name| self.peer(now, name))
                .chain(self.config.statics.keys().map(|name| self.static_peer(now, name)))
                .collect(),
            decision_to_wire_us: Histogram::default(),
            upgrade: self.upgrade.status(now),
            turned_away: self.strangers.status(now),
        }
    }

    /// Every gate between a service and the wire; `None` if there is no such service.
    pub fn explain(&self, now: Time, service: &ServiceName) -> Option<Explanation> {
        let config = self.config.services.get(service)?;
        let record = self.services.0.get(service);
        let vips = config.vips.iter().filter_map(|vip| Some((*vip, record?.vips.get(vip)?)));
        Some(Explanation {
            service: service.clone(),
            vips: vips
                .map(|(vip, record)| self.vip_explanation(now, (service, config), vip, record))
                .collect(),
        })
    }

    fn service(&self, now: Time, name: &ServiceName, config: &Service) -> ServiceStatus {
        let record = self.services.0.get(name);
        let waiting_for = self.waiting_for(config);
        let drained = self.admin.drained(name);
        let wall = self.wall_clock_ms.saturating_add(now.as_millis());
        let left = self.admin.draining(name);
        let phase = match (left.is_some(), waiting_for.is_empty()) {
            (true, _) => "telling",
            (false, false) => "withdrawing",
            (false, true) => "withdrawn",
        };
        let admin = match (drained, phase) {
            (None, _) => "enabled",
            (Some(_), "withdrawn") => "drained",
            (Some(_), _) => "draining",
        };
        ServiceStatus {
            name: name.clone(),
            health: record.map_or("unknown", |record| health_word(&record.health)).to_owned(),
            admin: admin.to_owned(),
            for_ms: record.map_or(0, |record| ms(now, record.health_since)),
            drain: drained.map(|drained| DrainStatus {
                reason: drained.reason.clone(),
                for_ms: wall.saturating_sub(drained.since),
                phase: phase.to_owned(),
                left_ms: left.map(|until| ms(until, now)),
                waiting_for,
            }),
            checks: self.checks.of(name).map(|run| check_status(now, run)).collect(),
            responder: self.answer_of(name).map(|answer| ResponderStatus {
                http: self.config.responder.listen,
                port: answer.port,
                answer: if answer.reason.is_none() { 200 } else { 503 },
                reason: answer.reason,
            }),
            vips: config.vips.iter().map(|vip| self.vip(name, config, *vip)).collect(),
        }
    }

    /// Peers that may still believe in a VIP of this service, as far as we have written.
    fn waiting_for(&self, service: &Service) -> Vec<String> {
        let routes: BTreeSet<IpNet> =
            service.vips.iter().flat_map(|vip| service.announce.routes(*vip)).collect();
        let knows = |peer: &PeerName| routes.iter().any(|route| self.may_know(peer, route));
        self.peers.iter().filter(|(name, _)| knows(name)).map(|(name, _)| name.to_string()).collect()
    }

    fn vip(&self, service: &ServiceName, config: &Service, address: IpAddr) -> VipStatus {
        let record = self.services.0.get(service).and_then(|record| record.vips.get(&address));
        let state = self.vips.get(&address);
        let reason = record.and_then(|record| record.gates.closed());
        let peers = record.into_iter().flat_map(|record| &record.peers);
        VipStatus {
            address,
            present: state.is_some_and(|state| state.present),
            owned: state.is_some_and(|state| state.owned),
            arp_guarded: match (address, record) {
                (IpAddr::V6(_), _) => None,
                (IpAddr::V4(_), Some(record)) => Some(record.gates.arp == ArpState::Guarded),
                (IpAddr::V4(_), None) => Some(false),
            },
            wanted: record.is_some() && reason.is_none(),
            reason,
            standing: record.filter(|_| reason.is_none()).map(|record| record.gates.standing()),
            peers: peers
                .map(|(name, record)| VipPeerStatus {
                    name: name.to_string(),
                    advertised: self.told(name, config, address),
                    reason: match &record.verdict {
                        Verdict::Announce(_) => None,
                        Verdict::Withhold(reason) => Some(*reason),
                    },
                    attributes: match &record.verdict {
                        Verdict::Announce(attributes) => Some(attributes_status(attributes)),
                        Verdict::Withhold(_) => None,
                    },
                    other_origins: self.other_origins(name, config, address),
                })
                .chain(self.static_tellings(service, reason))
                .chain(self.answer_of(service).map(probes))
                .collect(),
        }
    }

    /// Whether this peer was told a route that leads to the VIP.
    fn told(&self, peer: &PeerName, service: &Service, vip: IpAddr) -> bool {
        let routes = service.announce.routes(vip);
        self.peers.get(peer).is_some_and(|peer| routes.iter().any(|route| peer.told.contains(route)))
    }

    /// How many others the peer shows us that announce the same: distinct origins (the last AS of a path, or where an internal path is
    /// empty its next hop) of the route that it shows most ways to.
    fn other_origins(&self, peer: &PeerName, service: &Service, vip: IpAddr) -> Option<usize> {
        let view = self.speaker.peer(peer)?;
        let origins = |route: IpNet| {
            let ways = view.ways(route)?;
            let origin = |way: &&ReceivedRoute| match way.attributes.as_path.segments.last() {
                Some(segment) => Ok(segment.asns.last().copied()),
                None => Err(way.next_hop),
            };
            Some(ways.iter().map(origin).collect::<BTreeSet<_>>().len())
        };
        service.announce.routes(vip).into_iter().filter_map(origins).max()
    }

    fn heard(&self, peer: &PeerName) -> Option<HeardStatus> {
        let view = self.speaker.peer(peer)?;
        let (prefixes, dropped) = view.heard()?;
        let add_path = view.facts?.add_path.iter().map(ToString::to_string).collect();
        Some(HeardStatus { prefixes, dropped, add_path })
    }

    fn peer(&self, now: Time, name: &PeerName) -> PeerStatus {
        let config = self.config.bgp.peers.get(name);
        let peer = self.peers.get(name);
        let session = peer.and_then(|peer| peer.session.as_ref());
        let families = session.map(|facts| &facts.families).or(config.map(|config| &config.families));
        let word = |family: &Family| match family {
            Family::Ipv4 => "ipv4".to_owned(),
            Family::Ipv6 => "ipv6".to_owned(),
        };
        PeerStatus {
            name: name.to_string(),
            protocol: "bgp".to_owned(),
            address: self.words_of_remote(name),
            waiting_for: self.waits_for(now, name),
            state: peer.map_or_else(|| "Idle".to_owned(), |peer| peer.state.to_string()),
            for_ms: peer.map_or(0, |peer| ms(now, peer.since)),
            families: families.into_iter().flatten().map(word).collect(),
            role: session.and_then(|facts| facts.peer_role).map(|role| role.to_string()),
            extended_messages: session.is_some_and(|facts| facts.extended_messages),
            advertised: peer.map(|peer| peer.told.iter().copied().collect()).unwrap_or_default(),
            bfd: self.config.bgp.bfd.get(name).and_then(|_| self.bfd_status(now, name)),
            last_error: peer.and_then(|peer| Some(peer.last_error.as_ref()?.0.clone())),
            last_error_for_ms: peer.and_then(|peer| Some(ms(now, peer.last_error.as_ref()?.1))),
            heard: self.heard(name),
            graceful_restart_s: session.and_then(|facts| Some(facts.graceful_restart?.as_secs())),
            sessions_lost: peer.map_or(0, |peer| peer.losses),
        }
    }

    /// What a peer without a session is waited for.
    fn waits_for(&self, now: Time, name: &PeerName) -> Option<String> {
        let owes = |peer: &Peer| ends::owed(peer.state, self.config.bgp.peers.get(name));
        match self.peers.get(name).and_then(|peer| Some((peer, owes(peer)?))) {
            Some((peer, text)) => (now.since(peer.since) > SOON).then_some(text),
            None => self.waits_on_link(name).map(|(text, _)| text).or_else(|| self.waits_for_call(name)),
        }
    }

    /// Of a peer that is not called.
    fn waits_for_call(&self, name: &PeerName) -> Option<String> {
        let passive = self.config.bgp.peers.get(name).is_some_and(|config| !config.connect);
        let waits = self.peers.get(name).is_some_and(|peer| peer.state <= PeerState::Active);
        let listen = self.config.bgp.listen.filter(|_| passive && waits)?;
        Some(format!("passive: the peer has to connect to {listen}"))
    }

    fn warnings(&self, now: Time) -> Vec<Warning> {
        let mut all = Vec::new();
        let mut warn = |code: &str, text: String| all.push(Warning { code: code.to_owned(), text });
        if let Some(text) = &self.unreadable {
            warn("state-unreadable", format!("{text}; {}", remedy_of_state()));
        }
        if let Some(until) = self.crash_loop.deadline() {
            let exits = self.crash_loop.exits;
            let left = until.since(now).as_secs();
            warn(
                "crash-loop",
                format!("{exits} unclean exits in 10 minutes: announcing waits {left} s more"),
            );
        }
        if let Some(failure) = self.store.failure() {
            warn("state-not-written", format!("what changed would be lost at a restart: {failure}"));
        }
        for name in self.guard.missing() {
            warn("uplink-missing", format!("there is no interface {name}, named in host.uplinks"));
        }
        if self.vips.need_guard() && self.unreadable.is_none() {
            match self.guard.state() {
                ArpState::Guarded => {}
                ArpState::NotGuarded(text) => warn("not-guarded", text),
                ArpState::Unsafe(text) => warn("arp-guard-unsafe", text),
            }
        }
        for (address, vip) in self.vips.iter() {
            if vip.present && !vip.owned {
                warn("foreign-vip", format!("{address} was put there by somebody else: used, never changed"));
            }
            if vip.contested() {
                warn("vip-contested", format!("somebody keeps deleting {address}"));
            }
        }
        for (code, text) in self.defaults.warnings() {
            warn(code, text);
        }
        for peer in self.speaker.peers().filter(|peer| peer.heard_beyond_limit()) {
            let (heard, _) = peer.heard().unwrap_or_default();
            let limit = peer.config.session.heard_limit.unwrap_or_default();
            warn(
                "heard-limit",
                format!(
                    "{} has told {heard} prefixes on this session, at some time more than {limit} within a minute: they are dropped, and a \
                     filter on the router spares both ends the work",
                    peer.name
                ),
            );
        }
        if self.config.host.return_path == ReturnPath::Warn
            && let Some(view) = &self.view
        {
            let sessions = self.peers.iter().filter_map(|(name, peer)| Some((name, peer.session.as_ref()?)));
            for (name, facts) in sessions {
                if let Some((text, cure)) = announce::no_return_path(view, facts) {
                    warn("return-path", format!("{name}: {text}; {cure}"));
                }
            }
        }
        if let Some(text) = self.strangers.warning(now) {
            warn("turned-away", text);
        }
        for text in self.crowded_links() {
            warn("several-routers", text);
        }
        if self.checks.unanswered + self.bugs > 0 {
            let text = format!(
                "{} probes never answered, {} internal errors: please report this",
                self.checks.unanswered, self.bugs
            );
            warn("internal", text);
        }
        all
    }

    fn vip_explanation(
        &self,
        now: Time,
        (service, config): (&ServiceName, &Service),
        vip: IpAddr,
        record: &VipRecord,
    ) -> VipExplanation {
        let gate = |gate: Reason| {
            let (text, remedy) = self.words_of_vip(service, vip, &record.gates, gate);
            let open = record.gates.open(gate);
            GateStatus {
                gate,
                open,
                lowers: record.gates.lowers(gate),
                text,
                remedy: remedy.filter(|_| !open),
                for_ms: ms(now, record.since(gate)),
            }
        };
        let peers = record.peers.iter().map(|(name, peer)| PeerExplanation {
            name: name.to_string(),
            gates: PEER_GATES
                .into_iter()
                .map(|gate| {
                    let (text, remedy) = self.words_of_peer(name, &peer.gates, gate);
                    let open = peer.gates.open(gate);
                    GateStatus {
                        gate,
                        open,
                        lowers: None,
                        text,
                        remedy: remedy.filter(|_| !open),
                        for_ms: ms(now, peer.since(gate)),
                    }
                })
                .collect(),
            advertised: self.told(name, config, vip),
        });
        VipExplanation {
            address: vip,
            gates: VIP_GATES.into_iter().map(gate).collect(),
            peers: peers.collect(),
        }
    }

    /// What is seen at a gate of the VIP, and what would open it.
    fn words_of_vip(
        &self,
        service: &ServiceName,
        vip: IpAddr,
        gates: &Gates,
        gate: Reason,
    ) -> (String, Option<String>) {
        let open = gates.open(gate);
        let plain = |yes: &str, no: &str| if open { yes.to_owned() } else { no.to_owned() };
        match gate {
            Reason::Stopping => (plain("running", "the agent is stopping"), None),
            Reason::StateUnreadable => {
                let text = gates.state_unreadable.clone().unwrap_or_else(|| "readable".to_owned());
                (text, Some(remedy_of_state()))
            }
            Reason::CrashLoop => {
                let left = self.crash_loop.deadline().map_or(0, |until| until.since(self.now).as_secs());
                let text = plain("no", &format!("{} unclean exits in 10 minutes", self.crash_loop.exits));
                (text, Some(format!("nothing to do: announcing begins in {left} s")))
            }
            Reason::Drained => {
                if let Some(until) = self.admin.draining(service) {
                    let left = until.since(self.now).as_secs();
                    let text = format!("draining: told with the attributes for that, withdrawn in {left} s");
                    return (text, None);
                }
                let why = self.admin.drained(service).and_then(|drained| drained.reason.clone());
                let text =
                    why.map_or_else(|| "drained by an operator".to_owned(), |w| format!("drained: {w}"));
                (
                    if open { "not drained".to_owned() } else { text },
                    Some(format!("anyvip undrain {service}")),
                )
            }
            Reason::VipMissing => {
                let name = &self.config.host.vip_interface;
                let remedy = match self.view.as_ref().and_then(|v| v.links.values().find(|l| l.name == *name))
                {
                    Some(link) if link.up => "the agent adds it by itself once it may".to_owned(),
                    Some(_) => format!("ip link set {name} up"),
                    None => format!("create {name}, or set host.vip_interface to one that exists"),
                };
                (gates.vip_missing.clone().unwrap_or_else(|| "on this host".to_owned()), Some(remedy))
            }
            Reason::VipContested => {
                let remedy = format!(
                    "find what deletes {vip} (`ip monitor address` shows when); a minute of quiet opens this"
                );
                (plain("nobody fights for it", "deleted more than 5 times in a minute"), Some(remedy))
            }
            Reason::ArpNotGuarded | Reason::ArpGuardUnsafe => match &gates.arp {
                _ if open && vip.is_ipv6() => ("not needed for IPv6".to_owned(), None),
                ArpState::NotGuarded(text) if !open => {
                    let remedy = "arp_ignore=1 and arp_announce=2 on each uplink; the agent sets them by itself \
                                  where it may (CAP_NET_ADMIN)";
                    (text.clone(), Some(remedy.to_owned()))
                }
                ArpState::Unsafe(text) if !open => {
                    let remedy = "give the uplink an IPv4 address of its own, or guard with nftables: \
                                  `nft add rule arp filter input arp daddr ip VIP drop`, and set arp_announce=2 \
                                  and arp_ignore=1 on it yourself if nobody asks for the other address";
                    (text.clone(), Some(remedy.replace("VIP", &vip.to_string())))
                }
                _ => {
                    let names: Vec<&str> = self.guard.uplinks().collect();
                    let text = match names.is_empty() {
                        true => "there is no uplink".to_owned(),
                        false => format!("silent: {}", names.join(", ")),
                    };
                    (text, None)
                }
            },
            Reason::NotYetChecked => match &gates.health {
                VipHealth::Unknown(names) => (
                    format!("not decided yet: {names}"),
                    Some("passes until `rise` is reached; a VIP is probed only once it is there".to_owned()),
                ),
                _ => ("decided".to_owned(), None),
            },
            Reason::Unhealthy => match &gates.health {
                VipHealth::Down(text) if open => (format!("{text}; on_failure = \"depreference\""), None),
                VipHealth::Down(text) => (text.clone(), Some("the service must pass this check".to_owned())),
                _ => ("no check is down".to_owned(), None),
            },
            Reason::CheckError => match &gates.health {
                VipHealth::Error(text) if open => (format!("{text}; on_failure = \"depreference\""), None),
                VipHealth::Error(text) => {
                    (text.clone(), Some("make this check possible, or set on_error = \"hold\"".to_owned()))
                }
                _ => ("no check fails to be made".to_owned(), None),
            },
            Reason::PrefixWithheld => match &gates.prefix_withheld {
                Some((other, why)) => (
                    format!("{other} in the same prefix is withheld ({why:?})"),
                    Some(format!("whatever cures {other}, or a prefix of its own for each VIP")),
                ),
                None => ("no other VIP is in the way".to_owned(), None),
            },
            _ => (String::new(), None),
        }
    }

    /// What is seen at a gate of a peer, and what would open it.
    fn words_of_peer(&self, name: &PeerName, gates: &PeerGates, gate: Reason) -> (String, Option<String>) {
        let later = || ("known once the session stands".to_owned(), None);
        match gate {
            Reason::SessionDown => {
                let peer = self.peers.get(name);
                let state = peer.map_or_else(|| "Idle".to_owned(), |peer| peer.state.to_string());
                let call = self.waits_for_call(name);
                let owed = peer.and_then(|peer| ends::owed(peer.state, self.config.bgp.peers.get(name)));
                let state = match call.clone().or(owed) {
                    Some(text) => format!("{state}: {text}"),
                    None => state,
                };
                let error = peer.filter(|_| !gates.session).and_then(|peer| peer.last_error.as_ref());
                if let Some((waiting, remedy)) = self.waits_on_link(name) {
                    return (format!("{state}: {waiting}"), Some(remedy));
                }
                let text =
                    error.map_or_else(|| state.clone(), |(error, _)| format!("{state}; last: {error}"));
                let remedy = match call {
                    Some(_) => "let the router connect to this host, or remove passive",
                    None => "the agent keeps trying; see whether the peer is up and knows this host",
                };
                (text, Some(remedy.to_owned()))
            }
            _ if !gates.session => later(),
            Reason::BfdDown => {
                let (text, remedy) = self.words_of_bfd(name);
                (text, Some(remedy))
            }
            Reason::FamilyNotNegotiated => {
                let text = if gates.family { "negotiated" } else { "the peer did not agree to this family" };
                let remedy = format!("activate the VIP's address family for this host on {name}");
                (text.to_owned(), Some(remedy))
            }
            Reason::NoNextHop => match &gates.next_hop {
                Ok(hop) => (next_hop_text(hop), None),
                Err(text) => {
                    let remedy = "give that interface such an address, or set announce.next_hop";
                    (text.clone(), Some(remedy.to_owned()))
                }
            },
            Reason::ReturnPath => match &gates.no_return_path {
                Some((text, cure)) => (text.clone(), Some(cure.clone())),
                None => ("rp_filter lets traffic from this peer in".to_owned(), None),
            },
            _ => (String::new(), None),
        }
    }
}

fn remedy_of_state() -> String {
    "look at state.json in the state directory; to start without it, move it away, restart, and drain again what \
     shall be drained"
        .to_owned()
}

fn health_word(health: &VipHealth) -> &'static str {
    match health {
        VipHealth::Up => "up",
        VipHealth::Unknown(_) => "unknown",
        VipHealth::Down(_) => "down",
        VipHealth::Error(_) => "error",
    }
}

/// Whoever asks the responder, as one more peer.
fn probes(answer: &Answer) -> VipPeerStatus {
    VipPeerStatus {
        name: "probes".to_owned(),
        advertised: answer.reason.is_none(),
        reason: answer.reason,
        attributes: None,
        other_origins: None,
    }
}

fn check_status(now: Time, run: &CheckRun) -> CheckStatus {
    let state = match run.health.state() {
        _ if run.health.erring() => "error",
        HealthState::Up => "up",
        HealthState::Down => "down",
        HealthState::Unknown => "unknown",
    };
    CheckStatus {
        name: run.check.name.clone(),
        kind: match run.check.kind {
            CheckKind::Http(_) => "http",
            CheckKind::Tcp(_) => "tcp",
            CheckKind::Exec(_) => "exec",
        }
        .to_owned(),
        target: target_text(run.target, &run.check),
        state: state.to_owned(),
        consecutive: run.health.consecutive(),
        last: run.health.last().map(|last| LastResult {
            result: last.result,
            latency_us: u64::try_from(last.latency.as_micros()).unwrap_or(u64::MAX),
            detail: last.detail.clone(),
        }),
        inherited_ms: run.health.inherited(now).map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn target_text(target: Target, check: &Check) -> String {
    let (address, port) = match (&check.kind, target) {
        (CheckKind::Exec(exec), Target::Own) => return exec.command.join(" "),
        (CheckKind::Exec(_), Target::Vip(vip)) => return vip.to_string(),
        (_, Target::Vip(vip)) => return vip.to_string(),
        (CheckKind::Http(http), Target::Own) => (http.address, http.port),
        (CheckKind::Tcp(tcp), Target::Own) => (tcp.address, tcp.port),
    };
    match address {
        Some(address) => std::net::SocketAddr::new(address, port).to_string(),
        None => format!("port {port}"),
    }
}

fn next_hop_text(hop: &NextHop) -> String {
    match hop {
        NextHop::V4(address) => address.to_string(),
        NextHop::V6 { global, .. } => global.to_string(),
    }
}

fn attributes_status(attributes: &RouteAttributes) -> AttributesStatus {
    let plain = |Community(value): &Community| format!("{}:{}", value >> 16, value & 0xffff);
    let large = |c: &LargeCommunity| format!("{}:{}:{}", c.global, c.local1, c.local2);
    AttributesStatus {
        next_hop: next_hop_text(&attributes.next_hop),
        med: attributes.med,
        prepend: attributes.prepend,
        local_pref: attributes.local_pref,
        communities: attributes
            .communities
            .iter()
            .map(plain)
            .chain(attributes.extended_communities.iter().map(ToString::to_string))
            .chain(attributes.large_communities.iter().map(large))
            .collect(),
    }
}
