//! The agent's side of BGP: what its speaker is to be, and what becomes of what the speaker says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyvip_bgp::wire::Family;
use anyvip_bgp::{PeerConfig, PeerName, PeerState, Receive, Speaker, SpeakerConfig};
use anyvip_machine::Time;
use ipnet::IpNet;

use crate::agent::Agent;
use crate::boundary::{Action, Fact};
use crate::default_route::everywhere;
use crate::ends;
use crate::peers::Peer;

impl Agent {
    pub(crate) fn speaker_config(&self) -> SpeakerConfig {
        let mut peers: BTreeMap<PeerName, PeerConfig> = (self.config.bgp.peers.iter())
            .map(|(name, peer)| (name.clone(), self.peer_config(name, peer)))
            .collect();
        for (name, peer) in &mut peers {
            peer.receive = Receive::Only(self.listened_for(name));
        }
        SpeakerConfig { asn: self.config.bgp.asn, router_id: self.config.router_id, peers }
    }

    /// What a peer is listened to about: what it is told of our services, and where the rest of the world is, if that is asked for.
    fn listened_for(&self, peer: &PeerName) -> BTreeSet<IpNet> {
        let told = self.config.services.values().filter(|service| service.peers.contains(peer));
        let routes =
            told.flat_map(|service| service.vips.iter().flat_map(|vip| service.announce.routes(*vip)));
        let defaults = [Family::Ipv4, Family::Ipv6].into_iter().filter(|_| self.config.bgp.install_default);
        routes.chain(defaults.map(everywhere)).collect()
    }

    pub(crate) fn peer_addresses(&self) -> BTreeSet<IpAddr> {
        let bgp = self.config.bgp.peers.values().filter_map(|peer| peer.remote.address());
        bgp.chain(self.config.statics.values().map(|peer| peer.address)).collect()
    }

    /// An event of the BGP side.
    pub(crate) fn hear(&mut self, now: Time, event: anyvip_bgp::Event, out: &mut Vec<Action>) {
        use anyvip_bgp::Event as Bgp;
        // Only this machine speaks for the configuration, the wanted set and time.
        if matches!(
            event,
            Bgp::DeadlineReached
                | Bgp::Configure(_)
                | Bgp::Wanted { .. }
                | Bgp::Restarting { .. }
                | Bgp::Stop { .. }
        ) {
            return self.bug("the driver sent a command of the agent to its speaker", out);
        }
        if let Bgp::Accepted { remote, .. } = &event {
            self.greet(now, *remote, out);
        }
        self.tell_speaker(now, event, out);
    }

    /// Gives the speaker an event and takes in its facts, first in first out.
    pub(crate) fn tell_speaker(&mut self, now: Time, event: anyvip_bgp::Event, out: &mut Vec<Action>) {
        use anyvip_bgp::Action as Bgp;
        for action in self.speaker.handle(now, event) {
            match action {
                Bgp::Connect { .. } | Bgp::Send { .. } | Bgp::Close { .. } => {
                    // The last one may be what a stop waits for.
                    self.touched |= self.stop.begun();
                    out.push(Action::Bgp(action));
                }
                Bgp::StateChanged { peer, from, to } => {
                    self.peers.state_changed(now, &peer, to);
                    // The steps of each attempt at a dead peer would bury everything else.
                    if [from, to].contains(&PeerState::Established) {
                        out.push(Action::Record(Fact::PeerChanged { peer, from, to }));
                    }
                }
                Bgp::SessionUp { peer, facts } => {
                    self.peers.session_up(now, &peer, facts);
                    // A new session knows nothing, also one that follows another within this very event.
                    self.announced.remove(&peer);
                    self.touched = true;
                }
                Bgp::SessionDown { peer, was_established, reason } => {
                    self.neighbour_failed(now, &peer);
                    let config = self.config.bgp.peers.get(&peer);
                    let stage = self.peers.stage(now, &peer);
                    let text = ends::words(&reason, config, self.config.bgp.asn, stage);
                    if self.peers.session_down(now, &peer, was_established, &text) {
                        let planned = ends::planned(&reason);
                        out.push(Action::Record(Fact::PeerDown { peer, was_established, planned, text }));
                    }
                    self.touched |= was_established;
                }
                Bgp::Advertised { peer, announced, withdrawn } => {
                    self.peers.advertised(&peer, &announced, &withdrawn);
                    self.touched = true;
                }
                // Nothing heard is told to anybody: this host cannot become transit.
                Bgp::RoutesChanged { changes, .. } => {
                    let default = |(prefix, _): &(IpNet, _)| prefix.prefix_len() == 0;
                    self.touched |= changes.iter().any(default);
                }
                // Nobody asks for everything here.
                Bgp::EndOfRib { .. } => {}
                Bgp::HeardBeyondLimit { peer, heard } => {
                    let limit = self.config.bgp.peers.get(&peer).and_then(|peer| peer.session.heard_limit);
                    let text = format!(
                        "it has told {heard} prefixes within a minute, more than heard_limit = {}: they are counted and dropped; \
                         a filter on the router spares both ends the work",
                        limit.unwrap_or_default()
                    );
                    out.push(Action::Record(Fact::PeerNotice { peer: Some(peer), text }));
                }
                Bgp::Malformed { peer, error } => {
                    if let Some(text) = self.notices.admit(now, Some(&peer), error.to_string()) {
                        out.push(Action::Record(Fact::PeerNotice { peer: Some(peer), text }));
                    }
                }
                Bgp::Rejected { remote, why } => self.turned_away(now, remote, &why, out),
            }
        }
        self.touched |= self.stop.begun();
    }

    /// Whether this peer may still believe in the prefix: written and not withdrawn, or on its way.
    pub(crate) fn may_know(&self, name: &PeerName, prefix: &IpNet) -> bool {
        self.peers.get(name).is_some_and(|peer| known(&self.speaker, name, peer).any(|known| known == prefix))
    }

    /// Whether no peer may still believe in anything of ours.
    pub(crate) fn all_withdrawn(&self) -> bool {
        self.peers.iter().all(|(name, peer)| {
            let handed = self.speaker.peer(name).and_then(|view| view.advertised());
            peer.told.is_empty() && handed.is_none_or(BTreeMap::is_empty)
        })
    }
}

/// What this peer may believe in: written and not withdrawn, or on its way.
pub(crate) fn known<'a>(
    speaker: &'a Speaker,
    name: &PeerName,
    peer: &'a Peer,
) -> impl Iterator<Item = &'a IpNet> {
    let handed = speaker.peer(name).and_then(|view| view.advertised());
    peer.told.iter().chain(handed.into_iter().flat_map(BTreeMap::keys))
}
