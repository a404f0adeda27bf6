//! What one peer shall know against what it was told (RFC 4271 §3.2, §9.2).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::RouteAttributes;
use crate::error::EncodeError;
use crate::wire::{
    AfiSafi, Codec, Family, Message, NextHop, PathAttributes, end_of_rib, pack_announcements,
    pack_withdrawals,
};

/// One `Send`: whole messages of at most this many octets.
pub(crate) const MAX_BATCH_LEN: usize = 64 * 1024;
/// Subtypes of ROUTE-REFRESH (RFC 7313 §3.2).
const BEGIN_OF_REFRESH: u8 = 1;
const END_OF_REFRESH: u8 = 2;
/// Without a configured LOCAL_PREF; the value every implementation takes.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// The routes of one Established session in the direction of the peer.
///
/// Nothing is queued: what is pending is always the difference between the two tables. So a route that changed twice
/// while the connection was busy is sent once, one that came and went is not sent at all, and memory is bounded by
/// the tables whatever the peer does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AdjRibOut {
    speaker: Origination,
    codec: Codec,
    wanted: BTreeMap<IpNet, RouteAttributes>,
    advertised: BTreeMap<IpNet, RouteAttributes>,
    /// Prefixes whose two entries differ.
    pending: BTreeSet<IpNet>,
    /// Prefixes that the peer asked to hear again although nothing changed.
    again: BTreeSet<IpNet>,
    /// Families whose refresh has to be marked at its begin (RFC 7313 §4).
    begins: BTreeSet<Family>,
    /// Families whose refresh has to be marked at its end, once nothing of it is left in `again`.
    ends: BTreeSet<Family>,
    /// What the codec refused: its attributes do not fit into a message. Not pending until wanted differently.
    unsendable: BTreeSet<IpNet>,
    /// Families whose End-of-RIB is due once nothing is pending (RFC 4724 §2). `None` until the first wanted set.
    end_of_rib: Option<BTreeSet<Family>>,
    /// It waits until all that was inherited is decided (RFC 4724 §4.1).
    end_of_rib_waits: bool,
}

/// How this session's side of the AS boundary changes the attributes (RFC 4271 §5.1.2, §5.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origination {
    pub(crate) asn: u32,
    pub(crate) external: bool,
    /// RFC 9234 §5: to customers, peers and clients of a route server goes the attribute Only to Customer.
    pub(crate) only_to_customer: bool,
}

/// Messages for one `Send`, and what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// UPDATE messages in `bytes`, End-of-RIB included.
    pub(crate) updates: u64,
    pub(crate) announced: Vec<IpNet>,
    pub(crate) withdrawn: Vec<IpNet>,
}

impl AdjRibOut {
    pub(crate) fn new(speaker: Origination, codec: Codec) -> AdjRibOut {
        AdjRibOut {
            speaker,
            codec,
            wanted: BTreeMap::new(),
            advertised: BTreeMap::new(),
            pending: BTreeSet::new(),
            again: BTreeSet::new(),
            begins: BTreeSet::new(),
            ends: BTreeSet::new(),
            unsendable: BTreeSet::new(),
            end_of_rib: None,
            end_of_rib_waits: false,
        }
    }

    /// Says End-of-RIB not before it is let go.
    pub(crate) fn hold_end_of_rib(&mut self, waits: bool) {
        self.end_of_rib_waits = waits;
    }

    /// Whether the peer was told that it knows everything.
    pub(crate) fn said_end_of_rib(&self) -> bool {
        self.end_of_rib.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Takes the whole wanted set. Routes that this session cannot carry are left out: the caller's gates name why.
    pub(crate) fn want(&mut self, routes: BTreeMap<IpNet, RouteAttributes>) {
        let mut routes = routes;
        routes.retain(|prefix, route| self.carries(prefix, route));
        let refused = std::mem::take(&mut self.unsendable);
        self.unsendable = refused.into_iter().filter(|p| routes.get(p) == self.wanted.get(p)).collect();
        self.wanted = routes;
        let both = self.wanted.keys().chain(self.advertised.keys());
        let differs = |prefix: &&IpNet| self.wanted.get(prefix) != self.advertised.get(prefix);
        self.pending = both.filter(differs).filter(|p| !self.unsendable.contains(p)).copied().collect();
        self.again.retain(|prefix| self.wanted.contains_key(prefix));
        if self.end_of_rib.is_none() {
            self.end_of_rib = Some(self.codec.families.clone());
        }
    }

    /// RFC 2918 §4: the peer asked for everything of this family again. `marked`: RFC 7313 was agreed on.
    pub(crate) fn refresh(&mut self, family: Family, marked: bool) {
        if marked {
            self.begins.insert(family);
        }
        let again = self.wanted.keys().filter(|prefix| Family::of(prefix) == family);
        self.again.extend(again.filter(|p| !self.unsendable.contains(p)).copied());
    }

    /// What was handed to the connection, prefix by prefix.
    pub(crate) fn advertised(&self) -> &BTreeMap<IpNet, RouteAttributes> {
        &self.advertised
    }

    /// How many prefixes wait to be announced or withdrawn.
    pub(crate) fn pending(&self) -> usize {
        self.pending.union(&self.again).count()
    }

    /// Fills up one `Send` that holds `bytes` already: withdrawals, then announcements, then End-of-RIB.
    ///
    /// RFC 4271 §9.2 leaves the order open; withdrawals go first because a wrong route hurts more than a missing one.
    pub(crate) fn fill(&mut self, batch: &mut Batch) {
        if self.is_idle() {
            return;
        }
        while let Some(family) = self.begins.first().copied() {
            if !batch.mark(family, BEGIN_OF_REFRESH) {
                return;
            }
            self.begins.remove(&family);
            self.ends.insert(family);
        }
        if !self.withdraw(batch) {
            return;
        }
        for (attributes, family, prefixes) in self.groups() {
            if !self.announce(&attributes, family, prefixes, batch) {
                return;
            }
        }
        // What is left in `again` here is of a family that was asked for anew.
        while let Some(family) = self.ends.first().copied() {
            if !batch.mark(family, END_OF_REFRESH) {
                return;
            }
            self.ends.remove(&family);
        }
        self.say_end_of_rib(batch);
    }

    /// Whether the peer knows all there is to know.
    fn is_idle(&self) -> bool {
        let said = self.end_of_rib_waits || self.end_of_rib.as_ref().is_none_or(BTreeSet::is_empty);
        let marked = self.begins.is_empty() && self.ends.is_empty();
        self.pending.is_empty() && self.again.is_empty() && marked && said
    }

    /// Whether this session may carry the route at all.
    fn carries(&self, prefix: &IpNet, route: &RouteAttributes) -> bool {
        let family = Family::of(prefix);
        let next_hop = match (family, route.next_hop) {
            (Family::Ipv4, NextHop::V4(_)) | (Family::Ipv6, NextHop::V6 { .. }) => true,
            // RFC 8950 §4.
            (Family::Ipv4, NextHop::V6 { .. }) => self.codec.extended_next_hop.contains(&family),
            (Family::Ipv6, NextHop::V4(_)) => false,
        };
        self.codec.families.contains(&family) && next_hop
    }

    /// False when the batch is full.
    fn withdraw(&mut self, batch: &mut Batch) -> bool {
        let gone = |prefix: &&IpNet| !self.wanted.contains_key(*prefix);
        let mut prefixes: Vec<IpNet> = self.pending.iter().filter(gone).copied().collect();
        let codec = &self.codec;
        let added = batch.add(&prefixes, |some, out| Ok(pack_withdrawals(codec, some, out))).unwrap_or(0);
        let all = added == prefixes.len();
        for prefix in prefixes.drain(..added) {
            self.pending.remove(&prefix);
            self.advertised.remove(&prefix);
            batch.withdrawn.push(prefix);
        }
        all
    }

    /// Pending announcements by equal attributes and family, so that one UPDATE carries many prefixes.
    fn groups(&self) -> Vec<(RouteAttributes, Family, Vec<IpNet>)> {
        let mut groups: BTreeMap<(&RouteAttributes, Family), Vec<IpNet>> = BTreeMap::new();
        for prefix in self.pending.union(&self.again) {
            if let Some(route) = self.wanted.get(prefix) {
                groups.entry((route, Family::of(prefix))).or_default().push(*prefix);
            }
        }
        let owned = |((route, family), prefixes): ((&RouteAttributes, Family), Vec<IpNet>)| {
            (route.clone(), family, prefixes)
        };
        groups.into_iter().map(owned).collect()
    }

    /// False when the batch is full.
    fn announce(
        &mut self,
        route: &RouteAttributes,
        family: Family,
        mut prefixes: Vec<IpNet>,
        batch: &mut Batch,
    ) -> bool {
        let attributes = self.speaker.attributes(route);
        let pack = |some: &[IpNet], out: &mut Vec<u8>| {
            pack_announcements(&self.codec, &attributes, &route.next_hop, family, some, out)
        };
        let Ok(added) = batch.add(&prefixes, pack) else {
            return prefixes.into_iter().all(|prefix| self.refuse(prefix, batch));
        };
        let all = added == prefixes.len();
        for prefix in prefixes.drain(..added) {
            self.pending.remove(&prefix);
            self.again.remove(&prefix);
            // RFC 4271 §3.1: announcing it again replaces it, no withdrawal in between.
            self.advertised.insert(prefix, route.clone());
            batch.announced.push(prefix);
        }
        all
    }

    /// A route that does not fit into a message must not stand at the peer with its former attributes. False when the
    /// batch is full; the route is then tried and refused again with the next one.
    fn refuse(&mut self, prefix: IpNet, batch: &mut Batch) -> bool {
        if self.advertised.contains_key(&prefix) {
            let codec = &self.codec;
            if batch.add(&[prefix], |some, out| Ok(pack_withdrawals(codec, some, out))) != Ok(1) {
                return false;
            }
            self.advertised.remove(&prefix);
            batch.withdrawn.push(prefix);
        }
        self.pending.remove(&prefix);
        self.again.remove(&prefix);
        self.unsendable.insert(prefix);
        true
    }

    fn say_end_of_rib(&mut self, batch: &mut Batch) {
        if self.end_of_rib_waits {
            return;
        }
        let Some(families) = &mut self.end_of_rib else { return };
        while let Some(family) = families.first().copied() {
            let message = end_of_rib(family);
            if batch.bytes.len() + message.len() > MAX_BATCH_LEN {
                return;
            }
            families.remove(&family);
            batch.bytes.extend(message);
            batch.updates += 1;
        }
    }
}

impl Batch {
    /// Adds a ROUTE-REFRESH with this subtype; false if there is no room.
    fn mark(&mut self, family: Family, subtype: u8) -> bool {
        let message = Message::RouteRefresh { family: AfiSafi::from(family), subtype };
        let bytes = message.encode(&Codec::before_open());
        let fits = self.bytes.len() + bytes.len() <= MAX_BATCH_LEN;
        if fits {
            self.bytes.extend(bytes);
        }
        fits
    }

    /// Adds as many prefixes from the front as there is room for, and says how many; fewer than all means that the
    /// batch is full. A try that is too long tells how many would fit, so packing takes a few tries and not one per
    /// prefix.
    fn add(
        &mut self,
        prefixes: &[IpNet],
        pack: impl Fn(&[IpNet], &mut Vec<u8>) -> Result<usize, EncodeError>,
    ) -> Result<usize, EncodeError> {
        let before = self.bytes.len();
        let room = MAX_BATCH_LEN.saturating_sub(before);
        // A prefix takes at least two octets.
        let mut count = prefixes.len().min(room / 2);
        while let Some(some) = prefixes.get(..count).filter(|some| !some.is_empty()) {
            let messages = pack(some, &mut self.bytes)?;
            let length = self.bytes.len() - before;
            if length <= room {
                self.updates += messages as u64;
                return Ok(count);
            }
            self.bytes.truncate(before);
            count = (count * room / length).min(count - 1);
        }
        Ok(0)
    }
}

impl Origination {
    /// RFC 4271 §5.1: our AS in front of external paths, LOCAL_PREF to internal peers only, MED as given.
    pub(crate) fn attributes(self, route: &RouteAttributes) -> PathAttributes {
        let times = usize::from(route.prepend) + usize::from(self.external);
        let mut as_path = route.as_path.clone();
        as_path.prepend(self.asn, times);
        PathAttributes {
            origin: route.origin,
            as_path,
            med: route.med,
            local_pref: (!self.external).then(|| route.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)),
            communities: route.communities.iter().copied().collect(),
            extended_communities: route.extended_communities.iter().copied().collect(),
            large_communities: route.large_communities.iter().copied().collect(),
            only_to_customer: self.only_to_customer.then_some(self.asn),
            ..PathAttributes::default()
        }
    }
}

#[cfg(test)]
mod tests;
