//! The attribute loop of a received UPDATE, and RFC 7606 at each of its steps.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::multiprotocol::{self, MpError, MpReach, MpUnreach};
use super::*;
use crate::error::{AttributeError, Severity};
use crate::wire::octets::Octets;
use crate::wire::{AS_TRANS, Notification};

/// An error that is survived unless the UPDATE turns out to have no routes (RFC 7606 §5.2).
pub(in crate::wire) struct Fault {
    pub(in crate::wire) error: AttributeError,
    /// How the session is reset if it must be.
    pub(in crate::wire) otherwise: Notification,
}

/// Everything the attribute list said.
#[derive(Default)]
pub(in crate::wire) struct Received {
    pub(in crate::wire) attributes: PathAttributes,
    pub(in crate::wire) next_hop: Option<Ipv4Addr>,
    pub(in crate::wire) mp_reach: Option<MpReach>,
    pub(in crate::wire) mp_unreach: Option<MpUnreach>,
    /// MP_REACH_NLRI had something to announce, whether or not we could or wanted to read it.
    pub(in crate::wire) mp_reachable: bool,
    /// There was something besides MP_UNREACH_NLRI.
    pub(in crate::wire) beyond_unreach: bool,
    pub(in crate::wire) faults: Vec<Fault>,
    seen: Seen,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<(u32, Ipv4Addr)>,
}

/// Type codes seen, also of attributes that were then dropped: one bit each.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// False if it was there already.
    fn insert(&mut self, code: u8) -> bool {
        let (word, bit) = Seen::place(code);
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    fn contains(&self, code: u8) -> bool {
        let (word, bit) = Seen::place(code);
        self.0[word] & bit != 0
    }

    fn place(code: u8) -> (usize, u64) {
        (usize::from(code / 64), 1 << (code % 64))
    }
}

/// Subcodes of the UPDATE Message Error (RFC 4271 §6.3).
const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
const MISSING_WELL_KNOWN: u8 = 3;
const ATTRIBUTE_FLAGS: u8 = 4;
const ATTRIBUTE_LENGTH: u8 = 5;
const INVALID_ORIGIN: u8 = 6;
const INVALID_NEXT_HOP: u8 = 8;
const OPTIONAL_ATTRIBUTE: u8 = 9;
const MALFORMED_AS_PATH: u8 = 11;

/// What is wrong with one attribute's value.
struct Malformed {
    severity: Severity,
    subcode: u8,
    text: String,
}

impl Malformed {
    fn withdraw(subcode: u8, text: impl Into<String>) -> Malformed {
        Malformed { severity: Severity::TreatAsWithdraw, subcode, text: text.into() }
    }

    fn discard(subcode: u8, text: impl Into<String>) -> Malformed {
        Malformed { severity: Severity::Discard, subcode, text: text.into() }
    }

    fn length(value: &[u8]) -> Malformed {
        Malformed::withdraw(ATTRIBUTE_LENGTH, format!("a length of {}", value.len()))
    }
}

/// One attribute as it stands in the list.
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// Flags, code, length and value: what a NOTIFICATION quotes (RFC 4271 §6.3).
    whole: &'a [u8],
}

impl Received {
    /// # Errors
    /// What RFC 7606 has no milder way for.
    pub(in crate::wire) fn read(&mut self, list: &[u8], codec: &Codec) -> Result<(), Notification> {
        let mut octets = Octets::new(list);
        while !octets.is_empty() {
            let before = octets.rest();
            match next(&mut octets) {
                Some(raw) => self.attribute(&raw, codec)?,
                None => {
                    // RFC 7606 §4: the rest of the list is lost, the NLRI behind it is not.
                    self.beyond_unreach = true;
                    let text = "the attribute list ends inside an attribute".to_owned();
                    let malformed = Malformed::withdraw(MALFORMED_ATTRIBUTE_LIST, text);
                    self.fault(before.get(1).copied().unwrap_or(0), malformed, &[]);
                    break;
                }
            }
        }
        self.merge_four_octet_as();
        Ok(())
    }

    fn attribute(&mut self, raw: &Raw<'_>, codec: &Codec) -> Result<(), Notification> {
        self.beyond_unreach |= raw.code != MP_UNREACH_NLRI;
        // RFC 7606 §3 g: the first of several counts, but two of these would have to be merged.
        if !self.seen.insert(raw.code) {
            if matches!(raw.code, MP_REACH_NLRI | MP_UNREACH_NLRI) {
                return Err(Notification::update_error(MALFORMED_ATTRIBUTE_LIST, &[]));
            }
            self.fault(raw.code, Malformed::discard(MALFORMED_ATTRIBUTE_LIST, "repeated"), raw.whole);
            return Ok(());
        }
        let Some(expected) = expected_flags(raw.code) else {
            return self.unrecognized(raw);
        };
        // Not for this kind of session, whatever it says: RFC 7606 §7.5, §7.9, §7.10, RFC 6793 §4.1.
        if let Some(text) = out_of_place(raw.code, codec) {
            self.fault(raw.code, Malformed::discard(OPTIONAL_ATTRIBUTE, text), raw.whole);
            return Ok(());
        }
        // RFC 7606 §3 c. The routes of a multiprotocol attribute are read all the same, to know what to withdraw.
        let right_flags = raw.flags & (OPTIONAL | TRANSITIVE) == expected;
        if !right_flags {
            let malformed = Malformed::withdraw(ATTRIBUTE_FLAGS, format!("flags of {:#04x}", raw.flags));
            self.fault(raw.code, malformed, raw.whole);
        }
        match raw.code {
            MP_REACH_NLRI => self.mp_reach(raw, codec),
            MP_UNREACH_NLRI => self.mp_unreach(raw, codec),
            _ if !right_flags => Ok(()),
            _ => {
                if let Err(malformed) = self.value(raw.code, raw.value, codec) {
                    self.fault(raw.code, malformed, raw.whole);
                }
                Ok(())
            }
        }
    }

    /// RFC 4271 §5, §6.3: well-known means that everybody knows it.
    fn unrecognized(&mut self, raw: &Raw<'_>) -> Result<(), Notification> {
        if raw.flags & OPTIONAL == 0 {
            return Err(Notification::update_error(UNRECOGNIZED_WELL_KNOWN, raw.whole));
        }
        if raw.flags & TRANSITIVE != 0 {
            self.attributes.unknown.push(UnknownAttribute::received(raw.flags, raw.code, raw.value));
        }
        Ok(())
    }

    fn mp_reach(&mut self, raw: &Raw<'_>, codec: &Codec) -> Result<(), Notification> {
        match multiprotocol::decode_reach(raw.value, codec) {
            Ok(Some(reach)) => {
                self.mp_reachable = !(reach.prefixes.is_empty() && reach.paths.is_empty());
                if self.mp_reachable && !reach.next_hop.is_host() {
                    let text = format!("{} is not the address of a host", reach.next_hop);
                    self.fault(raw.code, Malformed::withdraw(OPTIONAL_ATTRIBUTE, text), raw.whole);
                }
                self.mp_reach = Some(reach);
            }
            Ok(None) => self.mp_reachable = true,
            Err(error) => {
                self.mp_reachable = true;
                self.disable(raw, error)?;
            }
        }
        Ok(())
    }

    fn mp_unreach(&mut self, raw: &Raw<'_>, codec: &Codec) -> Result<(), Notification> {
        match multiprotocol::decode_unreach(raw.value, codec) {
            Ok(unreach) => self.mp_unreach = unreach,
            Err(error) => self.disable(raw, error)?,
        }
        Ok(())
    }

    /// RFC 7606 §5.3, §7.11: whose routes cannot be read can only be ignored as a whole.
    fn disable(&mut self, raw: &Raw<'_>, error: MpError) -> Result<(), Notification> {
        match error {
            MpError::NoFamily => Err(Notification::update_error(OPTIONAL_ATTRIBUTE, raw.whole)),
            MpError::Family(family, text) => {
                let severity = Severity::DisableFamily(family);
                self.fault(raw.code, Malformed { severity, subcode: OPTIONAL_ATTRIBUTE, text }, raw.whole);
                Ok(())
            }
        }
    }

    /// Each attribute's own rules: RFC 7606 §7.
    fn value(&mut self, code: u8, value: &[u8], codec: &Codec) -> Result<(), Malformed> {
        let attributes = &mut self.attributes;
        match code {
            ORIGIN => {
                let [octet] = exactly(value)?;
                attributes.origin = Origin::from_octet(octet)
                    .ok_or_else(|| Malformed::withdraw(INVALID_ORIGIN, format!("a value of {octet}")))?;
            }
            AS_PATH => {
                attributes.as_path = AsPath::decode(value, codec.four_octet_as)
                    .map_err(|text| Malformed::withdraw(MALFORMED_AS_PATH, text))?;
            }
            NEXT_HOP => self.next_hop = Some(Ipv4Addr::from(exactly(value)?)),
            MULTI_EXIT_DISC => attributes.med = Some(u32::from_be_bytes(exactly(value)?)),
            LOCAL_PREF => attributes.local_pref = Some(u32::from_be_bytes(exactly(value)?)),
            ATOMIC_AGGREGATE => {
                let [] = exactly(value).map_err(Malformed::mild)?;
                attributes.atomic_aggregate = true;
            }
            AGGREGATOR => {
                attributes.aggregator =
                    Some(decode_aggregator(value, codec.four_octet_as).map_err(Malformed::mild)?);
            }
            COMMUNITIES => {
                attributes.communities =
                    communities::decode(value, |octets| Community(u32::from_be_bytes(octets)))
                        .ok_or_else(|| Malformed::length(value))?;
            }
            // Of use to route reflectors only: judged, then dropped.
            ORIGINATOR_ID => exactly::<4>(value).map(drop)?,
            CLUSTER_LIST => {
                communities::decode::<4, (), ()>(value, drop).ok_or_else(|| Malformed::length(value))?
            }
            EXTENDED_COMMUNITIES => {
                attributes.extended_communities =
                    communities::decode(value, ExtendedCommunity).ok_or_else(|| Malformed::length(value))?;
            }
            LARGE_COMMUNITY => {
                let mut seen = BTreeSet::new();
                attributes.large_communities = communities::decode(value, LargeCommunity::from_octets)
                    .ok_or_else(|| Malformed::length(value))?;
                // RFC 8092 §3: redundant ones are silently removed.
                attributes.large_communities.retain(|community| seen.insert(*community));
            }
            // RFC 9234 §5: malformed unless four octets, and then treated as withdrawn.
            ONLY_TO_CUSTOMER => attributes.only_to_customer = Some(u32::from_be_bytes(exactly(value)?)),
            // RFC 6793 §6: these are discarded, never worse.
            AS4_PATH => {
                let path = AsPath::decode_as4(value);
                self.as4_path = Some(path.map_err(|text| Malformed::discard(MALFORMED_AS_PATH, text))?);
            }
            AS4_AGGREGATOR => {
                self.as4_aggregator = Some(decode_aggregator(value, true).map_err(Malformed::mild)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 6793 §4.2.3. On a four-octet session neither of the two was let in.
    fn merge_four_octet_as(&mut self) {
        let as4_path = self.as4_path.take();
        if let (Some((asn, _)), Some(as4_aggregator)) =
            (self.attributes.aggregator, self.as4_aggregator.take())
        {
            // Somebody who knows two octets only has aggregated since: what four octets say is out of date.
            if asn != u32::from(AS_TRANS) {
                return;
            }
            self.attributes.aggregator = Some(as4_aggregator);
        }
        if let Some(as4_path) = as4_path {
            self.attributes.as_path = self.attributes.as_path.merge_as4(as4_path);
        }
    }

    /// RFC 7606 §3 d, for an UPDATE that announces something; NEXT_HOP only goes with the classic NLRI field
    /// (RFC 4760 §3).
    pub(in crate::wire) fn check_mandatory(&mut self, has_classic_nlri: bool) {
        for (code, needed) in [(ORIGIN, true), (AS_PATH, true), (NEXT_HOP, has_classic_nlri)] {
            if needed && !self.seen.contains(code) {
                self.fault(code, Malformed::withdraw(MISSING_WELL_KNOWN, "missing"), &[code]);
            }
        }
        let Some(next_hop) = self.next_hop.filter(|_| has_classic_nlri) else {
            return;
        };
        if !NextHop::V4(next_hop).is_host() {
            let text = format!("{next_hop} is not the address of a host");
            self.fault(NEXT_HOP, Malformed::withdraw(INVALID_NEXT_HOP, text), &[]);
        }
    }

    fn fault(&mut self, code: u8, malformed: Malformed, data: &[u8]) {
        let Malformed { severity, subcode, text } = malformed;
        self.faults.push(Fault {
            error: AttributeError { code, severity, text },
            otherwise: Notification::update_error(subcode, data),
        });
    }
}

impl Malformed {
    fn mild(self) -> Malformed {
        Malformed { severity: Severity::Discard, ..self }
    }
}

fn next<'a>(octets: &mut Octets<'a>) -> Option<Raw<'a>> {
    let start = octets.rest();
    let (flags, code) = (octets.u8()?, octets.u8()?);
    let length =
        if flags & EXTENDED_LENGTH != 0 { usize::from(octets.u16()?) } else { usize::from(octets.u8()?) };
    let value = octets.take(length)?;
    let whole = start.get(..start.len() - octets.rest().len())?;
    Some(Raw { flags, code, value, whole })
}

/// The Optional and Transitive bits of what we know; `None` for what we do not.
fn expected_flags(code: u8) -> Option<u8> {
    match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => Some(TRANSITIVE),
        MULTI_EXIT_DISC | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH_NLRI | MP_UNREACH_NLRI => Some(OPTIONAL),
        AGGREGATOR | COMMUNITIES | EXTENDED_COMMUNITIES | AS4_PATH | AS4_AGGREGATOR | LARGE_COMMUNITY
        | ONLY_TO_CUSTOMER => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

fn out_of_place(code: u8, codec: &Codec) -> Option<&'static str> {
    match code {
        LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST if codec.external => Some("from an external peer"),
        AS4_PATH | AS4_AGGREGATOR if codec.four_octet_as => Some("on a session with four-octet AS numbers"),
        _ => None,
    }
}

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed::length(value))
}

/// RFC 7606 §7.7; RFC 7607 §2 for AS 0.
fn decode_aggregator(value: &[u8], four_octet_as: bool) -> Result<(u32, Ipv4Addr), Malformed> {
    let (asn, address) = if four_octet_as {
        let [a, b, c, d, address @ ..] = exactly::<8>(value)?;
        (u32::from_be_bytes([a, b, c, d]), address)
    } else {
        let [a, b, address @ ..] = exactly::<6>(value)?;
        (u32::from(u16::from_be_bytes([a, b])), address)
    };
    if asn == 0 {
        return Err(Malformed::discard(OPTIONAL_ATTRIBUTE, "AS 0"));
    }
    Ok((asn, Ipv4Addr::from(address)))
}
