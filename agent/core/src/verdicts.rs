//! From plain values to verdicts, and from verdicts to what each peer is told.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use anyvip_bgp::PeerName;
use anyvip_machine::Time;

use crate::agent::Agent;
use crate::announce;
use crate::boundary::{Action, Announcements, Fact, ServiceName, Verdict};
use crate::checks::VipHealth;
use crate::config::{OnError, ReturnPath};
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
            for vip in &service.vips {
                let gates = self.gates(name, *vip);
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
                    let gates = self.peer_gates(&record.gates, name, *vip, peer, view);
                    let verdict = match record.peers.get_mut(peer) {
                        Some(known) => {
                            let was = known.take(now, gates);
                            tell_verdict(name, *vip, peer, Some(&was), &known.verdict, out);
                            &known.verdict
                        }
                        None => {
                            let fresh = PeerRecord::new(now, gates);
                            tell_verdict(name, *vip, peer, None, &fresh.verdict, out);
                            &record.peers.entry(peer.clone()).or_insert(fresh).verdict
                        }
                    };
                    if let Verdict::Announce(attributes) = verdict {
                        let routes = wanted.entry(peer.clone()).or_default();
                        routes.insert(announce::prefix_of(*vip), (**attributes).clone());
                    }
                }
            }
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

    /// The gates of one VIP of one service: plain values.
    fn gates(&self, service: &ServiceName, vip: IpAddr) -> Gates {
        let on_error = self.config.services.get(service).map(|s| s.on_error);
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
            drained: self.admin.drained(service).is_some(),
            vip_missing,
            vip_contested: state.is_some_and(|vip| vip.contested()),
            arp,
            health: self.checks.of_vip(service, vip, on_error.unwrap_or(OnError::Hold)),
        }
    }

    /// The gates of one VIP towards one peer: plain values.
    fn peer_gates(
        &self,
        gates: &Gates,
        service: &ServiceName,
        vip: IpAddr,
        peer: &PeerName,
        view: &KernelView,
    ) -> PeerGates {
        let session = self.peers.get(peer).and_then(|peer| peer.session.as_ref());
        let announce = self.config.services.get(service).map(|service| &service.announce);
        let (Some(facts), Some(announce)) = (session, announce) else {
            return PeerGates {
                vip: gates.closed(),
                session: false,
                family: true,
                next_hop: Err("known once the session stands".to_owned()),
                no_return_path: None,
                attributes: None,
            };
        };
        let is_vip = |address: &IpAddr| self.config.services.values().any(|s| s.vips.contains(address));
        let next_hop = announce::next_hop(vip, announce, facts, view, is_vip);
        let require = self.config.host.return_path == ReturnPath::Require;
        PeerGates {
            vip: gates.closed(),
            session: true,
            family: facts.families.contains(&announce::family_of(vip)),
            no_return_path: announce::no_return_path(view, facts).filter(|_| require && vip.is_ipv4()),
            attributes: next_hop.as_ref().ok().map(|hop| announce::attributes(*hop, announce)),
            next_hop,
        }
    }
}

/// Tells a change of what a peer shall know, once.
fn tell_verdict(
    service: &ServiceName,
    vip: IpAddr,
    peer: &PeerName,
    was: Option<&Verdict>,
    is: &Verdict,
    out: &mut Vec<Action>,
) {
    let reason = |verdict: &Verdict| match verdict {
        Verdict::Announce(_) => None,
        Verdict::Withhold(reason) => Some(*reason),
    };
    let now = reason(is);
    let same = match was {
        Some(was) => reason(was) == now,
        // A first verdict is news only if it lets something out.
        None => now.is_some(),
    };
    if !same {
        out.push(Action::Record(Fact::VerdictChanged {
            service: service.clone(),
            vip,
            peer: peer.clone(),
            announced: now.is_none(),
            reason: now,
        }));
    }
}
