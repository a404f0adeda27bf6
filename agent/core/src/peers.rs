//! What the agent knows of each peer: the session, and what has been written to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyvip_bgp::{PeerName, PeerState, SessionFacts};
use anyvip_machine::Time;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ends::Stage;

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) state: PeerState,
    pub(crate) since: Time,
    /// Set while Established.
    pub(crate) session: Option<SessionFacts>,
    /// Since when it is, or was last.
    up: Time,
    /// Written to it in an UPDATE and not withdrawn since.
    pub(crate) told: BTreeSet<IpNet>,
    /// How the last session or attempt ended, and when. It outlives the next session: else a peer that flaps would look
    /// sound whenever somebody looks.
    pub(crate) last_error: Option<(String, Time)>,
    /// Sessions that were Established and ended.
    pub(crate) losses: u64,
    /// Ends of attempts told since the last session: a peer may alternate between two, and is still told once of each.
    told_ends: BTreeSet<String>,
}

/// How late a hold timer may be noticed.
const SLACK: Duration = Duration::from_millis(500);
/// Different ends of attempts that are remembered as told.
const MOST_ENDS: usize = 16;

impl Peer {
    fn new(now: Time) -> Peer {
        Peer {
            state: PeerState::Idle,
            since: now,
            session: None,
            up: now,
            told: BTreeSet::new(),
            last_error: None,
            losses: 0,
            told_ends: BTreeSet::new(),
        }
    }
}

/// All peers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peers(BTreeMap<PeerName, Peer>);

impl Peers {
    /// The configured peers.
    pub(crate) fn configure<'a>(&mut self, now: Time, names: impl Iterator<Item = &'a PeerName>) {
        let names: BTreeSet<&PeerName> = names.collect();
        self.0.retain(|name, _| names.contains(name));
        for name in names {
            self.0.entry(name.clone()).or_insert_with(|| Peer::new(now));
        }
    }

    /// One peer.
    pub(crate) fn get(&self, name: &PeerName) -> Option<&Peer> {
        self.0.get(name)
    }

    /// All peers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerName, &Peer)> {
        self.0.iter()
    }

    /// A peer's state of RFC 4271 §8.2.2 changed.
    pub(crate) fn state_changed(&mut self, now: Time, name: &PeerName, to: PeerState) {
        if let Some(peer) = self.0.get_mut(name) {
            (peer.state, peer.since) = (to, now);
        }
    }

    /// A session is Established.
    pub(crate) fn session_up(&mut self, now: Time, name: &PeerName, facts: SessionFacts) {
        if let Some(peer) = self.0.get_mut(name) {
            peer.session = Some(facts);
            peer.up = now;
            peer.told.clear();
            peer.told_ends.clear();
        }
    }

    /// How far the peer is that comes to an end now.
    pub(crate) fn stage(&self, now: Time, name: &PeerName) -> Stage {
        let peer = self.0.get(name).and_then(|peer| Some((peer.up, peer.session.as_ref()?)));
        match peer {
            None => Stage::Opening,
            // Whatever comes starts the hold timer anew.
            Some((up, facts)) if facts.hold_time.is_some_and(|hold| now.since(up) <= hold + SLACK) => {
                Stage::Silent
            }
            Some(_) => Stage::Established,
        }
    }

    /// A session or an attempt ended. True if that is news: the same text of attempts is told once.
    pub(crate) fn session_down(
        &mut self,
        now: Time,
        name: &PeerName,
        was_established: bool,
        text: &str,
    ) -> bool {
        let Some(peer) = self.0.get_mut(name) else { return was_established };
        if was_established {
            peer.session = None;
            peer.losses += 1;
            // The peer drops our routes with the session (RFC 4271 §6).
            peer.told.clear();
        }
        if peer.told_ends.len() >= MOST_ENDS {
            peer.told_ends.clear();
        }
        let news = peer.told_ends.insert(text.to_owned()) || was_established;
        peer.last_error = Some((text.to_owned(), now));
        news
    }

    /// An UPDATE was written to the peer.
    pub(crate) fn advertised(&mut self, name: &PeerName, announced: &[IpNet], withdrawn: &[IpNet]) {
        if let Some(peer) = self.0.get_mut(name) {
            peer.told.extend(announced);
            for prefix in withdrawn {
                peer.told.remove(prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> (Peers, PeerName) {
        let name = PeerName::from("tor1");
        let mut peers = Peers::default();
        peers.configure(Time::ZERO, [&name].into_iter());
        (peers, name)
    }

    #[test]
    fn the_same_end_of_attempts_is_news_once_and_the_end_of_a_session_always() {
        let (mut peers, name) = one();
        assert!(peers.session_down(Time::ZERO, &name, false, "refused"));
        assert!(!peers.session_down(Time::ZERO, &name, false, "refused"));
        assert!(peers.session_down(Time::ZERO, &name, false, "unreachable"));
        assert!(!peers.session_down(Time::ZERO, &name, false, "refused"), "also when two take turns");
        assert!(peers.session_down(Time::ZERO, &name, true, "reset"));
        assert!(peers.session_down(Time::ZERO, &name, true, "reset"));
    }

    #[test]
    fn a_session_that_ends_takes_what_was_told_with_it() {
        let (mut peers, name) = one();
        let prefix: IpNet = "192.0.2.1/32".parse().unwrap();
        peers.advertised(&name, &[prefix], &[]);
        assert!(peers.get(&name).unwrap().told.contains(&prefix));
        peers.session_down(Time::ZERO, &name, true, "reset");
        assert!(peers.get(&name).unwrap().told.is_empty());
    }

    #[test]
    fn the_last_end_outlives_the_next_session_and_lost_sessions_are_counted() {
        let (mut peers, name) = one();
        peers.session_down(Time::from_secs(1), &name, false, "refused");
        peers.session_down(Time::from_secs(2), &name, true, "reset");
        peers.session_down(Time::from_secs(3), &name, true, "reset");
        let facts = SessionFacts {
            local: "10.0.1.11:40000".parse().unwrap(),
            remote: "10.0.1.1:179".parse().unwrap(),
            router_id: "10.0.1.1".parse().unwrap(),
            hold_time: Some(Duration::from_secs(9)),
            families: BTreeSet::new(),
            extended_next_hop: BTreeSet::new(),
            four_octet_as: true,
            route_refresh: true,
            enhanced_route_refresh: false,
            peer_role: None,
            add_path: BTreeSet::new(),
            graceful_restart: None,
            peer_restart: None,
            extended_messages: false,
        };
        peers.session_up(Time::from_secs(10), &name, facts);
        assert_eq!(peers.stage(Time::from_secs(19), &name), Stage::Silent);
        assert_eq!(peers.stage(Time::from_secs(20), &name), Stage::Established);
        let peer = peers.get(&name).unwrap();
        assert_eq!(peer.last_error, Some(("reset".to_owned(), Time::from_secs(3))));
        assert_eq!(peer.losses, 2);
    }

    #[test]
    fn endless_new_ends_do_not_grow_what_is_kept() {
        let (mut peers, name) = one();
        for number in 0..1000 {
            assert!(peers.session_down(Time::ZERO, &name, false, &format!("end {number}")));
        }
        assert!(peers.get(&name).unwrap().told_ends.len() <= MOST_ENDS);
    }
}
