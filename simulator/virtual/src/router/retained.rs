//! Routes of neighbours that restart (RFC 4724 §4.2, the receiving side): in use while the session is away, until the neighbour has
//! told all that it has, or its time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyvip_bgp::PeerName;
use anyvip_bgp::wire::{AfiSafi, Family, GracefulRestart};
use anyvip_machine::Time;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How long a neighbour that is back may take for its End-of-RIB; what FRR waits.
const LONGEST_TELLING: Duration = Duration::from_secs(360);

/// See the module's text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Retained(BTreeMap<PeerName, Stale>);

/// What one neighbour told on its former session and has not told again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stale {
    until: Time,
    prefixes: BTreeSet<IpNet>,
}

impl Retained {
    /// The session ended, and the neighbour had said this of its restarts. Gives what is not kept of all that it told.
    pub(super) fn session_lost(
        &mut self,
        now: Time,
        peer: &PeerName,
        restart: Option<&GracefulRestart>,
        told: BTreeSet<IpNet>,
    ) -> BTreeSet<IpNet> {
        // What was not told again after the last time goes: a neighbour that restarts over and over keeps no old routes alive.
        let former = self.0.remove(peer).map(|stale| stale.prefixes).unwrap_or_default();
        let Some(restart) = restart else { return told };
        let kept = |prefix: &IpNet| {
            let family = AfiSafi::from(Family::of(prefix));
            !former.contains(prefix) && restart.families.iter().any(|(listed, _)| *listed == family)
        };
        let (prefixes, lost): (BTreeSet<IpNet>, BTreeSet<IpNet>) = told.into_iter().partition(kept);
        if !prefixes.is_empty() {
            let until = now + Duration::from_secs(restart.restart_time.into());
            self.0.insert(peer.clone(), Stale { until, prefixes });
        }
        lost
    }

    /// The neighbour is back. Gives what it has not kept forwarding.
    pub(super) fn session_up(
        &mut self,
        now: Time,
        peer: &PeerName,
        restart: Option<&GracefulRestart>,
    ) -> BTreeSet<IpNet> {
        let Some(stale) = self.0.remove(peer) else { return BTreeSet::new() };
        let forwarded = |prefix: &IpNet| {
            let family = AfiSafi::from(Family::of(prefix));
            restart.is_some_and(|restart| restart.families.contains(&(family, true)))
        };
        let (prefixes, lost) = stale.prefixes.into_iter().partition(forwarded);
        self.0.insert(peer.clone(), Stale { until: now + LONGEST_TELLING, prefixes });
        lost
    }

    /// The neighbour has told this anew.
    pub(super) fn told(&mut self, peer: &PeerName, prefix: &IpNet) {
        if let Some(stale) = self.0.get_mut(peer) {
            stale.prefixes.remove(prefix);
        }
    }

    /// The neighbour has told all of this family. Gives what was not among it.
    pub(super) fn all_told(&mut self, peer: &PeerName, family: Family) -> BTreeSet<IpNet> {
        let Some(stale) = self.0.get_mut(peer) else { return BTreeSet::new() };
        let (lost, left) =
            std::mem::take(&mut stale.prefixes).into_iter().partition(|prefix| Family::of(prefix) == family);
        stale.prefixes = left;
        lost
    }

    /// The path to the neighbour is not there any more. Gives what was kept.
    pub(super) fn path_lost(&mut self, peer: &PeerName) -> BTreeSet<IpNet> {
        self.0.remove(peer).map(|stale| stale.prefixes).unwrap_or_default()
    }

    /// What is kept of a neighbour, and how long at most.
    pub(super) fn of(&self, now: Time, peer: &PeerName) -> Option<(Duration, &BTreeSet<IpNet>)> {
        let stale = self.0.get(peer)?;
        Some((stale.until.since(now), &stale.prefixes))
    }

    /// Neighbours of which something is kept.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = &PeerName> {
        self.0.keys()
    }

    /// A neighbour whose time is over.
    pub(super) fn overdue(&self, now: Time) -> Option<PeerName> {
        self.0.iter().find(|(_, stale)| stale.until <= now).map(|(peer, _)| peer.clone())
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.0.values().map(|stale| stale.until).min()
    }
}
