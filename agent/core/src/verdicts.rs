//! From plain values to verdicts, and from verdicts to what each peer is told.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use anyvip_bgp::PeerName;
use anyvip_machine::Time;
use ipnet::IpNet;

use crate::agent::Agent;
use crate::announce;
use crate::boundary::{Action, Announcements, Fact, Reason, ServiceName, Verdict};
use crate::checks::VipHealth;
use crate::config::{OnFailure, ReturnPath, Service, Standing};
use crate::gates::{Gates, PeerGates};
use crate::guard::ArpState;
use crate::kernel::KernelView;
use crate::services::{PeerRecord, ServiceRecord, VipRecord, together};

impl Agent {
    /// Gates → verdicts → wanted sets → speaker.
    pub(crate) fn decide(&mut self, now: Time, out: &mut Vec<Action>) {
        let mut wanted = Announcements::new();
        let no_view = KernelView::default();
        let view = self.view.as_ref().unwrap_or(&no_view);
        let mut former = std::mem::take(&mut self.services.0);
        for (name, service) in &self.config.services {
            let mut record = former.remove(name).unwrap_or_else(|| ServiceRecord {
                vips: BTreeMap::new(),
                health: VipHealth::Unknown(String::new()),
                health_since: now,
            });
            record.vips.retain(|vip, _| service.vips.contains(vip));
            for (vip, gates) in &self.gates_of(name, service) {
                let gates = gates.clone();
                let record = match record.vips.entry(*vip) {
                    Entry::Occupied(entry) => {
                        let record = entry.into_mut();
                        record.take(now, gates);
                        record
                    }
                    Entry::Vacant(entry) => entry.insert(VipRecord::new(now, gates)),
                };
                record.peers.retain(|peer, _| service.peers.contains(peer));
                for peer in &service.peers {
                    let gates = self.peer_gates(&record.gates, service, *vip, peer, view);
                    match record.peers.get_mut(peer) {
                        Some(known) => {
                            let was = known.take(now, gates);
                            tell_verdict(name, *vip, peer, Some(&was), known, out);
                        }
                        None => {
                            let fresh = PeerRecord::new(now, gates);
                            tell_verdict(name, *vip, peer, None, &fresh, out);
                            record.peers.insert(peer.clone(), fresh);
                        }
                    }
                }
            }
            want(service, &record, &mut wanted);
            let health = together(record.vips.values().map(|vip| &vip.gates.health));
            if std::mem::discriminant(&health) != std::mem::discriminant(&record.health) {
                record.health_since = now;
            }
            record.health = health;
            self.services.0.insert(name.clone(), record);
        }
        let sessions: Vec<PeerName> = self
            .peers
            .iter()
            .filter(|(name, peer)| peer.session.is_some() && self.config.bgp.peers.contains_key(name))
            .map(|(name, _)| name.clone())
            .collect();
        self.announced.retain(|peer, _| sessions.contains(peer));
        for peer in sessions {
            let routes = wanted.remove(&peer).unwrap_or_default();
            if self.announced.get(&peer) != Some(&routes) {
                self.announced.insert(peer.clone(), routes.clone());
                self.tell_speaker(now, anyvip_bgp::Event::Wanted { peer, routes }, out);
            }
        }
    }

    /// The gates of every VIP of a service. VIPs in one prefix share their fate.
    fn gates_of(&self, name: &ServiceName, service: &Service) -> BTreeMap<IpAddr, Gates> {
        let mut all: BTreeMap<IpAddr, Gates> =
            service.vips.iter().map(|vip| (*vip, self.gates(name, service, *vip))).collect();
        if service.announce.prefixes.is_empty() {
            return all;
        }
        let alone: Vec<(IpAddr, Option<Reason>, Standing)> =
            all.iter().map(|(vip, gates)| (*vip, gates.closed_itself(), gates.standing_itself())).collect();
        for (vip, gates) in &mut all {
            let routes = service.announce.routes(*vip);
            let others = |route: &IpNet| {
                let route = *route;
                alone.iter().filter(move |(other, ..)| other != vip && route.contains(other))
            };
            let withheld = |route: &IpNet| {
                others(route).find_map(|(other, closed, _)| closed.map(|reason| (*other, reason)))
            };
            // One prefix that may be told is enough for the VIP to be reached.
            gates.prefix_withheld = match routes.iter().find(|route| withheld(route).is_none()) {
                Some(_) => None,
                None => routes.iter().find_map(withheld),
            };
            gates.shared =
                routes.iter().flat_map(others).map(|(.., standing)| *standing).max().unwrap_or_default();
        }
        all
    }

    /// The gates of one VIP of one service: plain values.
    fn gates(&self, name: &ServiceName, service: &Service, vip: IpAddr) -> Gates {
        let state = self.vips.get(&vip);
        let exposed = state.and_then(|vip| vip.exposed.as_ref());
        let arp = match (vip, exposed) {
            (_, Some(uplink)) => ArpState::NotGuarded(format!(
                "it sits on {uplink} itself, which answers its neighbours for it"
            )),
            (IpAddr::V4(_), None) => self.guard.state(),
            (IpAddr::V6(_), None) => ArpState::Guarded,
        };
        let vip_missing = match state {
            _ if self.view.is_none() => Some("the kernel's addresses have not been read yet".to_owned()),
            Some(state) if state.present => None,
            Some(state) => {
                let why = state.refusal().map(|failure| format!("the kernel refused it: {failure}"));
                why.or_else(|| state.missing_because.clone())
                    .or_else(|| Some("it is not on this host".to_owned()))
            }
            None => Some("it is being removed".to_owned()),
        };
        Gates {
            stopping: self.stop.begun(),
            state_unreadable: self.unreadable.clone(),
            crash_loop: self.crash_loop.waits(),
            drained: self.admin.drained(name).is_some(),
            draining: self.admin.draining(name).is_some(),
            vip_missing,
            vip_contested: state.is_some_and(|vip| vip.contested()),
            arp,
            health: self.checks.of_vip(name, vip, service.on_error),
            depreferences: service.on_failure == OnFailure::Depreference,
            shared: Standing::Normal,
            prefix_withheld: None,
        }
    }

    /// The gates of one VIP towards one peer: plain values.
    fn peer_gates(
        &self,
        gates: &Gates,
        service: &Service,
        vip: IpAddr,
        peer: &PeerName,
        view: &KernelView,
    ) -> PeerGates {
        let standing = gates.standing();
        let Some(facts) = self.peers.get(peer).and_then(|peer| peer.session.as_ref()) else {
            return PeerGates {
                vip: gates.closed(),
                session: false,
                bfd: true,
                family: true,
                next_hop: Err("known once the session stands".to_owned()),
                no_return_path: None,
                attributes: None,
                standing,
            };
        };
        let is_vip = |address: &IpAddr| self.config.services.values().any(|s| s.vips.contains(address));
        let written = service.announce.attributes(peer, standing);
        let next_hop = announce::next_hop(vip, &written, facts, view, is_vip);
        let ours = self.config.bgp.asn;
        let asn = self.config.bgp.peers.get(peer).map_or(ours, |peer| peer.local_asn(ours));
        let require = self.config.host.return_path == ReturnPath::Require;
        PeerGates {
            vip: gates.closed(),
            session: true,
            bfd: self.bfd_lets(peer),
            family: facts.families.contains(&announce::family_of(vip)),
            no_return_path: announce::no_return_path(view, facts).filter(|_| require && vip.is_ipv4()),
            attributes: next_hop.as_ref().ok().map(|hop| announce::attributes(*hop, &written, asn)),
            next_hop,
            standing,
        }
    }
}

/// What the verdicts of a service come to for each peer: a VIP's own route, or the prefixes all of whose VIPs may be told.
fn want(service: &Service, record: &ServiceRecord, wanted: &mut Announcements) {
    for peer in &service.peers {
        let told = |vip: &IpAddr| {
            let record = record.vips.get(vip)?;
            match &record.peers.get(peer)?.verdict {
                Verdict::Announce(attributes) => Some((record.gates.standing(), attributes)),
                Verdict::Withhold(_) => None,
            }
        };
        let routes = wanted.entry(peer.clone()).or_default();
        if service.announce.prefixes.is_empty() {
            let own =
                service.vips.iter().filter_map(|vip| Some((IpNet::from(*vip), (**told(vip)?.1).clone())));
            routes.extend(own);
            continue;
        }
        for prefix in &service.announce.prefixes {
            let inside = service.vips.iter().filter(|vip| prefix.contains(*vip));
            let verdicts: Option<Vec<_>> = inside.map(told).collect();
            if let Some((_, attributes)) =
                verdicts.into_iter().flatten().max_by_key(|(standing, _)| *standing)
            {
                routes.insert(*prefix, (**attributes).clone());
            }
        }
    }
}

/// Tells a change of what a peer shall know, once.
fn tell_verdict(
    service: &ServiceName,
    vip: IpAddr,
    peer: &PeerName,
    was: Option<&(Verdict, Standing)>,
    is: &PeerRecord,
    out: &mut Vec<Action>,
) {
    // Why not, or with which attributes.
    let said = |verdict: &Verdict, standing: Standing| match verdict {
        Verdict::Announce(_) => Ok(standing),
        Verdict::Withhold(reason) => Err(*reason),
    };
    let now = said(&is.verdict, is.gates.standing);
    let same = match was {
        Some((verdict, standing)) => said(verdict, *standing) == now,
        // A first verdict is news only if it lets something out.
        None => now.is_err(),
    };
    if !same {
        out.push(Action::Record(Fact::VerdictChanged {
            service: service.clone(),
            vip,
            peer: peer.clone(),
            announced: now.is_ok(),
            reason: now.err(),
            standing: is.gates.standing,
        }));
    }
}
