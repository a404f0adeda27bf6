//! What a speaker shows of its peers. Read-only: reading is no event.

use std::collections::BTreeMap;

use anyvip_machine::Time;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::connection::Session;
use crate::wire::ReceivedRoute;
use crate::{PeerConfig, PeerName, PeerState, RouteAttributes, SessionFacts};

/// One peer as it is now.
#[derive(Clone, Copy, Debug)]
pub struct PeerView<'a> {
    /// Its name.
    pub name: &'a PeerName,
    /// Its configuration.
    pub config: &'a PeerConfig,
    /// Its state, the furthest of its connections.
    pub state: PeerState,
    /// Since when it is in that state.
    pub since: Time,
    /// When we connect next, if we wait to.
    pub next_try: Option<Time>,
    /// Why the last session or attempt ended; kept while the next one runs.
    pub last_error: Option<&'a LastError>,
    /// What was negotiated; only while Established.
    pub facts: Option<&'a SessionFacts>,
    /// Since the peer was configured.
    pub counters: Counters,
    pub(crate) session: Option<&'a Session>,
}

impl<'a> PeerView<'a> {
    /// Every prefix that was handed to the connection, with the attributes as wanted; empty unless Established.
    /// What the kernel has not taken yet is included: see [`Action::Advertised`](crate::Action::Advertised).
    pub fn advertised(&self) -> Option<&'a BTreeMap<IpNet, RouteAttributes>> {
        self.session.map(|session| session.adj_rib_out.advertised())
    }

    /// Whether the peer was told that it knows everything (End-of-RIB, RFC 4724 §2).
    pub fn said_end_of_rib(&self) -> bool {
        self.session.is_some_and(|session| session.adj_rib_out.said_end_of_rib())
    }

    /// Prefixes that differ from what was wanted last and wait for the connection to take more.
    pub fn pending(&self) -> usize {
        self.session.map_or(0, |session| session.adj_rib_out.pending())
    }

    /// Ways to this prefix that the peer shows and that do not lead back to us; `None` when it does not show the prefix at all.
    pub fn ways(&self, prefix: IpNet) -> Option<Vec<&'a ReceivedRoute>> {
        let adj_rib_in = &self.session?.adj_rib_in;
        adj_rib_in.shows(prefix).then(|| adj_rib_in.ways(prefix).collect())
    }

    /// Prefixes that the peer announced on this session, and those of them that were not kept; `None` unless Established.
    pub fn heard(&self) -> Option<(u64, u64)> {
        self.session.map(|session| (session.adj_rib_in.tally.heard, session.adj_rib_in.tally.dropped))
    }

    /// Whether it announced more than its limit within some minute of this session.
    pub fn heard_beyond_limit(&self) -> bool {
        self.session.is_some_and(|session| session.adj_rib_in.tally.beyond_limit)
    }

    /// What is kept of what the peer told us, without the families of which it tells all paths; `None` unless Established.
    pub fn received(&self) -> Option<&'a BTreeMap<IpNet, ReceivedRoute>> {
        self.session.map(|session| session.adj_rib_in.routes())
    }
}

/// Why something ended, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: Time,
    /// For people.
    pub text: String,
}

/// Counters of one peer since it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections asked for.
    pub connects: u64,
    /// Sessions that became Established.
    pub established: u64,
    /// UPDATE messages received.
    pub updates_in: u64,
    /// UPDATE messages handed to the connection, End-of-RIB included.
    pub updates_out: u64,
    /// Prefixes announced to us.
    pub prefixes_heard: u64,
    /// Those of them that were not kept.
    pub prefixes_dropped: u64,
    /// Errors that RFC 7606 let us survive.
    pub malformed: u64,
    /// Actions that the driver left unanswered.
    pub unanswered: u64,
    /// Inconsistencies in our own state, each of which cost the session.
    pub bugs: u64,
}

/// What is no text cannot be a key of a JSON object, so such maps are written as pairs.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
