//! RFC 4271 §6.3 as revised by RFC 7606: the fields of an UPDATE, and what its errors cost together.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{PathChange, Reach, Update};
use crate::error::{AttributeError, Severity};
use crate::wire::attribute::multiprotocol::{MpReach, decode_prefixes};
use crate::wire::attribute::received::{Fault, Received};
use crate::wire::octets::Octets;
use crate::wire::{Codec, Family, NextHop, Notification, nlri};

/// Subcodes of the UPDATE Message Error.
const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
const INVALID_NETWORK_FIELD: u8 = 10;

impl Update {
    pub(in crate::wire) fn decode(body: &[u8], codec: &Codec) -> Result<Update, Notification> {
        // RFC 7606 §3 b: lengths that overrun the message leave nothing to rely on.
        let mut octets = Octets::new(body);
        let (Some(withdrawn), Some(list)) = (field(&mut octets), field(&mut octets)) else {
            return Err(Notification::update_error(MALFORMED_ATTRIBUTE_LIST, &[]));
        };
        // RFC 7606 §3 j, §5.3: without knowing all prefixes nothing milder than a reset is safe.
        let classic = |octets| {
            decode_prefixes(Family::Ipv4, octets, codec)
                .map_err(|_| Notification::update_error(INVALID_NETWORK_FIELD, &[]))
        };
        let (withdrawn, gone) = classic(withdrawn)?;
        let (announced, come) = classic(octets.rest())?;
        let has_classic_nlri = !(announced.is_empty() && come.is_empty());

        let mut received = Received::default();
        received.read(list, codec)?;
        if has_classic_nlri || received.mp_reachable {
            received.check_mandatory(has_classic_nlri);
        } else if received.beyond_unreach {
            // RFC 7606 §5.2: attributes without a route. With an error among them nobody knows where the route went.
            let grave = |fault: &&Fault| fault.error.severity > Severity::Discard;
            if let Some(fault) = received.faults.iter().find(grave) {
                return Err(fault.otherwise.clone());
            }
        }
        let mut update = Update { end_of_rib: end_of_rib(body, &received, codec), ..Update::default() };
        update.settle_paths(gone, come, &mut received, codec);
        update.settle(withdrawn, announced, received, codec);
        Ok(update)
    }

    /// The same as [`settle`](Self::settle) for the families with path identifiers (RFC 7911 §5).
    fn settle_paths(
        &mut self,
        gone: Vec<(IpNet, u32)>,
        come: Vec<(IpNet, u32)>,
        received: &mut Received,
        codec: &Codec,
    ) {
        if codec.add_path.is_empty() {
            return;
        }
        let severities: Vec<Severity> = received.faults.iter().map(|fault| fault.error.severity).collect();
        let withdraw_all = severities.contains(&Severity::TreatAsWithdraw);
        let wanted = |family: Family| {
            codec.families.contains(&family) && !severities.contains(&Severity::DisableFamily(family))
        };
        let mut change = |family: Family, paths: Vec<(IpNet, u32)>, next_hop: Option<NextHop>| {
            let next_hop = next_hop.filter(|_| !withdraw_all);
            let paths = paths.into_iter().filter(|(prefix, _)| wanted(family) && nlri::is_unicast(prefix));
            self.paths.extend(paths.map(|(prefix, path_id)| PathChange { prefix, path_id, next_hop }));
        };
        change(Family::Ipv4, gone, None);
        if let Some(unreach) = &mut received.mp_unreach {
            change(unreach.family, std::mem::take(&mut unreach.paths), None);
        }
        change(Family::Ipv4, come, received.next_hop.map(NextHop::V4));
        if let Some(reach) = &mut received.mp_reach {
            change(reach.family, std::mem::take(&mut reach.paths), Some(reach.next_hop));
        }
        if self.paths.iter().any(|path| path.next_hop.is_some()) {
            self.attributes = received.attributes.clone();
        }
    }

    /// Every prefix to where the errors, the session's families and the other fields leave it.
    fn settle(&mut self, withdrawn: Vec<IpNet>, announced: Vec<IpNet>, received: Received, codec: &Codec) {
        self.errors = received.faults.into_iter().map(|fault| fault.error).collect();
        let severities: Vec<Severity> = self.errors.iter().map(|error| error.severity).collect();
        let wanted = |family: Family| {
            codec.families.contains(&family) && !severities.contains(&Severity::DisableFamily(family))
        };
        if wanted(Family::Ipv4) {
            self.withdrawn = withdrawn;
        }
        if let Some(unreach) = received.mp_unreach.filter(|unreach| wanted(unreach.family)) {
            self.withdrawn.extend(unreach.prefixes);
        }
        if !announced.is_empty() && wanted(Family::Ipv4) {
            // A missing NEXT_HOP has become treat-as-withdraw already.
            let next_hop = NextHop::V4(received.next_hop.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED));
            self.add_reach(0, Reach { family: Family::Ipv4, next_hop, prefixes: announced });
        }
        if let Some(mp) = received.mp_reach.filter(|mp| wanted(mp.family)) {
            let MpReach { family, next_hop, prefixes, .. } = mp;
            self.add_reach(14, Reach { family, next_hop, prefixes });
        }
        if severities.contains(&Severity::TreatAsWithdraw) {
            let reach = std::mem::take(&mut self.reach);
            self.withdrawn.extend(reach.into_iter().flat_map(|reach| reach.prefixes));
            return;
        }
        if self.reach.is_empty() {
            return;
        }
        // RFC 4271 §4.3: a prefix in both fields counts as announced.
        if !self.withdrawn.is_empty() {
            let announced: BTreeSet<&IpNet> = self.reach.iter().flat_map(|reach| &reach.prefixes).collect();
            self.withdrawn.retain(|prefix| !announced.contains(prefix));
        }
        self.attributes = received.attributes;
    }

    /// RFC 4271 §6.3: a semantically incorrect prefix is logged and ignored.
    fn add_reach(&mut self, code: u8, mut reach: Reach) {
        let before = reach.prefixes.len();
        reach.prefixes.retain(nlri::is_unicast);
        let dropped = before - reach.prefixes.len();
        if dropped > 0 {
            let text = format!("{dropped} multicast prefixes ignored");
            self.errors.push(AttributeError { code, severity: Severity::Discard, text });
        }
        if !reach.prefixes.is_empty() {
            self.reach.push(reach);
        }
    }
}

/// Two octets of length, and what they promise.
fn field<'a>(octets: &mut Octets<'a>) -> Option<&'a [u8]> {
    let length = octets.u16()?;
    octets.take(usize::from(length))
}

/// RFC 4724 §2: an UPDATE of minimum length, or one with nothing but an MP_UNREACH_NLRI that withdraws nothing.
fn end_of_rib(body: &[u8], received: &Received, codec: &Codec) -> Option<Family> {
    if body == [0; 4] {
        return codec.families.contains(&Family::Ipv4).then_some(Family::Ipv4);
    }
    match (body, &received.mp_unreach) {
        ([0, 0, high, low, list @ ..], Some(unreach))
            if unreach.prefixes.is_empty()
                && unreach.paths.is_empty()
                && !received.beyond_unreach
                && received.faults.is_empty()
                && list.len() == usize::from(u16::from_be_bytes([*high, *low])) =>
        {
            Some(unreach.family)
        }
        _ => None,
    }
}
