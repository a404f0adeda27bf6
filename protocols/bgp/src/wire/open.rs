use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::octets::Octets;
use super::{AS_TRANS, AfiSafi, HEADER_LEN, MAX_MESSAGE_LEN, Notification};

/// OPEN (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The two-octet field: AS_TRANS (23456) if the real number does not fit.
    pub asn: u16,
    /// Hold time in seconds, 0 or at least 3.
    pub hold_time: u16,
    /// BGP Identifier, not zero.
    pub router_id: Ipv4Addr,
    /// Capabilities (RFC 5492), in the order of the wire.
    pub capabilities: Vec<Capability>,
}

/// One capability; unknown ones are kept as they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    /// Code 1 (RFC 4760).
    Multiprotocol(AfiSafi),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 5 (RFC 8950): family, and the AFI its next hop may have.
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Code 6 (RFC 8654 §3).
    ExtendedMessage,
    /// Code 9 (RFC 9234 §4.1); the octet as it came, since some values are no role.
    Role(u8),
    /// Code 64 (RFC 4724 §3, RFC 8538 §2).
    GracefulRestart(GracefulRestart),
    /// Code 65 (RFC 6793).
    FourOctetAs(u32),
    /// Code 69 (RFC 7911 §4): family, and 1 (receives), 2 (sends) or 3 (both); the octet as it came.
    AddPath(Vec<(AfiSafi, u8)>),
    /// Code 70 (RFC 7313).
    EnhancedRouteRefresh,
    /// Code 73 (draft-walton-bgp-hostname-capability): host and domain, at most 64 octets each.
    HostName { host: String, domain: String },
    /// Code 75 (draft-abraitis-bgp-version-capability): at most 64 octets.
    SoftwareVersion(String),
    /// Any other code.
    Unknown { code: u8, value: Vec<u8> },
}

/// What a speaker says of its restarts. The families are those whose routes the peer is to keep meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GracefulRestart {
    /// Restart State: the speaker has restarted.
    pub restarted: bool,
    /// RFC 8538: routes are kept also when the session ends with a NOTIFICATION or by the hold timer.
    pub notification: bool,
    /// How long the session may be away, in seconds; 12 bits.
    pub restart_time: u16,
    /// Families, and whether packets were forwarded all the time (Forwarding State).
    pub families: Vec<(AfiSafi, bool)>,
}

impl GracefulRestart {
    /// Of the field for the time.
    pub const LONGEST: u16 = 0x0fff;
    const RESTARTED: u16 = 0x8000;
    const NOTIFICATION: u16 = 0x4000;
    const FORWARDING: u8 = 0x80;
    /// What fits into the one octet for the length.
    const MOST_FAMILIES: usize = 63;

    fn decode(value: &[u8]) -> Option<GracefulRestart> {
        let mut octets = Octets::new(value);
        let head = octets.u16()?;
        let mut families = Vec::new();
        while !octets.is_empty() {
            let (afi, safi, flags) = (octets.u16()?, octets.u8()?, octets.u8()?);
            families.push((AfiSafi { afi, safi }, flags & Self::FORWARDING != 0));
        }
        Some(GracefulRestart {
            restarted: head & Self::RESTARTED != 0,
            notification: head & Self::NOTIFICATION != 0,
            restart_time: head & Self::LONGEST,
            families,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let head = self.restart_time.min(Self::LONGEST)
            | flag(self.restarted, Self::RESTARTED)
            | flag(self.notification, Self::NOTIFICATION);
        let mut out = head.to_be_bytes().to_vec();
        for (AfiSafi { afi, safi }, preserved) in self.families.iter().take(Self::MOST_FAMILIES) {
            out.extend(afi.to_be_bytes());
            out.extend([*safi, if *preserved { Self::FORWARDING } else { 0 }]);
        }
        out
    }
}

const VERSION: u8 = 4;
/// Optional parameter type of capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// Optional parameter type that announces the extended form (RFC 9072 §2).
const EXTENDED: u8 = 255;
/// What capabilities may take so that the message stays within its bounds in the extended form: 10 octets of OPEN, 3
/// of the extended length, 3 of the parameter's header.
const MAX_CAPABILITIES_LEN: usize = MAX_MESSAGE_LEN - HEADER_LEN - 16;
/// Entries of six octets in one capability.
const EXTENDED_NEXT_HOPS_EACH: usize = 42;

impl Open {
    /// An OPEN of `asn`, with AS_TRANS in the two-octet field if it needs four. The capability that tells the four
    /// octets is the caller's to list.
    pub fn new(asn: u32, hold_time: u16, router_id: Ipv4Addr, capabilities: Vec<Capability>) -> Open {
        Open { asn: u16::try_from(asn).unwrap_or(AS_TRANS), hold_time, router_id, capabilities }
    }

    /// The sender's AS number: the four-octet one where told (RFC 6793 §4.1).
    pub fn real_asn(&self) -> u32 {
        let four = |capability: &Capability| match capability {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        };
        self.capabilities.iter().find_map(four).unwrap_or(u32::from(self.asn))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            let coded = capability.encode();
            if capabilities.len() + coded.len() <= MAX_CAPABILITIES_LEN {
                capabilities.extend(coded);
            }
        }
        let mut out = vec![VERSION];
        out.extend(self.asn.to_be_bytes());
        out.extend(self.hold_time.to_be_bytes());
        out.extend(self.router_id.octets());
        match u8::try_from(capabilities.len()) {
            Ok(0) => out.push(0),
            Ok(length @ ..=253) => out.extend([length + 2, CAPABILITIES, length]),
            // RFC 9072: only when it must be, GoBGP 3 refuses it.
            _ => {
                let length = u16::try_from(capabilities.len()).unwrap_or(u16::MAX);
                out.extend([EXTENDED, EXTENDED]);
                out.extend(length.saturating_add(3).to_be_bytes());
                out.push(CAPABILITIES);
                out.extend(length.to_be_bytes());
            }
        }
        out.extend(capabilities);
        out
    }

    /// RFC 4271 §6.2, in its order. Whether the AS number is the expected one is the FSM's to judge.
    pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
        let malformed = || Notification::open_error(0, &[]);
        let mut octets = Octets::new(body);
        if octets.u8().ok_or_else(malformed)? != VERSION {
            return Err(Notification::unsupported_version_number());
        }
        let asn = octets.u16().ok_or_else(malformed)?;
        let hold_time = octets.u16().ok_or_else(malformed)?;
        let router_id = octets.array::<4>().map(Ipv4Addr::from).ok_or_else(malformed)?;
        let short_length = octets.u8().ok_or_else(malformed)?;

        // RFC 7607 §2.
        if asn == 0 {
            return Err(Notification::bad_peer_as(0));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::unacceptable_hold_time());
        }
        // RFC 6286 §2.1: any number but zero.
        if router_id.is_unspecified() {
            return Err(Notification::bad_bgp_identifier());
        }
        let capabilities = decode_parameters(short_length, octets.rest())?;
        if capabilities.contains(&Capability::FourOctetAs(0)) {
            return Err(Notification::bad_peer_as(0));
        }
        Ok(Open { asn, hold_time, router_id, capabilities })
    }
}

fn decode_parameters(short_length: u8, octets: &[u8]) -> Result<Vec<Capability>, Notification> {
    let malformed = || Notification::open_error(0, &[]);
    let mut octets = Octets::new(octets);
    // RFC 9072 §2: the type alone decides; the short length is only told not to be zero.
    let extended = short_length != 0 && octets.rest().first() == Some(&EXTENDED);
    let length = if extended {
        octets.u8();
        usize::from(octets.u16().ok_or_else(malformed)?)
    } else {
        usize::from(short_length)
    };
    if octets.rest().len() != length {
        return Err(malformed());
    }
    let mut capabilities = Vec::new();
    while let Some(kind) = octets.u8() {
        let length = if extended { octets.u16().map(usize::from) } else { octets.u8().map(usize::from) };
        let value = octets.take(length.ok_or_else(malformed)?).ok_or_else(malformed)?;
        if kind != CAPABILITIES {
            return Err(Notification::unsupported_optional_parameter());
        }
        let mut value = Octets::new(value);
        while let Some(code) = value.u8() {
            let length = value.u8().ok_or_else(malformed)?;
            let value = value.take(usize::from(length)).ok_or_else(malformed)?;
            capabilities.push(Capability::decode(code, value).ok_or_else(malformed)?);
        }
    }
    Ok(capabilities)
}

impl Capability {
    /// `None` if a code that we know has a value it cannot have.
    fn decode(code: u8, value: &[u8]) -> Option<Capability> {
        let mut octets = Octets::new(value);
        let unknown = || Capability::Unknown { code, value: value.to_vec() };
        let capability = match code {
            1 => {
                let afi = octets.u16()?;
                octets.u8()?;
                Capability::Multiprotocol(AfiSafi { afi, safi: octets.u8()? })
            }
            2 => Capability::RouteRefresh,
            5 => {
                let mut pairs = Vec::new();
                while !octets.is_empty() {
                    let (afi, safi, next_hop) = (octets.u16()?, octets.u16()?, octets.u16()?);
                    // The SAFI has two octets here; one that needs both is none that exists.
                    if let Ok(safi) = u8::try_from(safi) {
                        pairs.push((AfiSafi { afi, safi }, next_hop));
                    }
                }
                Capability::ExtendedNextHop(pairs)
            }
            6 => Capability::ExtendedMessage,
            9 => Capability::Role(octets.u8()?),
            // Without it nothing is kept for us, which is no reason to refuse the session.
            64 => {
                return Some(
                    GracefulRestart::decode(value).map_or_else(unknown, Capability::GracefulRestart),
                );
            }
            65 => Capability::FourOctetAs(octets.u32()?),
            69 => return Some(add_path(value).unwrap_or_else(unknown)),
            70 => Capability::EnhancedRouteRefresh,
            // Of no consequence, so what is malformed is kept as it came.
            73 => return Some(host_name(value).unwrap_or_else(unknown)),
            75 => {
                return Some(
                    text(&mut octets)
                        .filter(|_| octets.is_empty())
                        .map_or_else(unknown, Capability::SoftwareVersion),
                );
            }
            _ => return Some(unknown()),
        };
        octets.is_empty().then_some(capability)
    }

    /// Code, length, value; more than one of them if the value is a list too long for one.
    fn encode(&self) -> Vec<u8> {
        match self {
            Capability::Multiprotocol(AfiSafi { afi, safi }) => {
                let [high, low] = afi.to_be_bytes();
                vec![1, 4, high, low, 0, *safi]
            }
            Capability::RouteRefresh => vec![2, 0],
            Capability::ExtendedNextHop(pairs) if pairs.is_empty() => vec![5, 0],
            Capability::ExtendedNextHop(pairs) => {
                let mut out = Vec::new();
                for pairs in pairs.chunks(EXTENDED_NEXT_HOPS_EACH) {
                    out.extend([5, u8::try_from(6 * pairs.len()).unwrap_or_default()]);
                    for (AfiSafi { afi, safi }, next_hop) in pairs {
                        out.extend(afi.to_be_bytes());
                        out.extend([0, *safi]);
                        out.extend(next_hop.to_be_bytes());
                    }
                }
                out
            }
            Capability::ExtendedMessage => vec![6, 0],
            Capability::Role(role) => vec![9, 1, *role],
            Capability::AddPath(families) => {
                let four = |(AfiSafi { afi, safi }, direction): &(AfiSafi, u8)| {
                    let [high, low] = afi.to_be_bytes();
                    [high, low, *safi, *direction]
                };
                with_length(69, families.iter().take(63).flat_map(four).collect())
            }
            Capability::GracefulRestart(restart) => with_length(64, restart.encode()),
            Capability::EnhancedRouteRefresh => vec![70, 0],
            Capability::HostName { host, domain } => {
                with_length(73, [counted(host), counted(domain)].concat())
            }
            Capability::SoftwareVersion(version) => with_length(75, counted(version)),
            Capability::FourOctetAs(asn) => {
                let mut out = vec![65, 4];
                out.extend(asn.to_be_bytes());
                out
            }
            Capability::Unknown { code, value } => match u8::try_from(value.len()) {
                Ok(length) => [&[*code, length], value.as_slice()].concat(),
                Err(_) => {
                    debug_assert!(false, "capability {code} of {} octets", value.len());
                    Vec::new()
                }
            },
        }
    }
}

/// What names and versions may take.
const MOST_TEXT: usize = 64;

/// A text behind its length, cut between two characters.
fn counted(text: &str) -> Vec<u8> {
    let text = text.get(..text.floor_char_boundary(MOST_TEXT)).unwrap_or_default();
    let mut out = vec![u8::try_from(text.len()).unwrap_or_default()];
    out.extend_from_slice(text.as_bytes());
    out
}

fn with_length(code: u8, value: Vec<u8>) -> Vec<u8> {
    [vec![code, u8::try_from(value.len()).unwrap_or_default()], value].concat()
}

fn host_name(value: &[u8]) -> Option<Capability> {
    let mut octets = Octets::new(value);
    let (host, domain) = (text(&mut octets)?, text(&mut octets)?);
    octets.is_empty().then_some(Capability::HostName { host, domain })
}

fn add_path(value: &[u8]) -> Option<Capability> {
    let mut octets = Octets::new(value);
    let mut families = Vec::new();
    while !octets.is_empty() {
        let (afi, safi, direction) = (octets.u16()?, octets.u8()?, octets.u8()?);
        families.push((AfiSafi { afi, safi }, direction));
    }
    Some(Capability::AddPath(families))
}

fn text(octets: &mut Octets<'_>) -> Option<String> {
    let length = octets.u8()?;
    let text = octets.take(usize::from(length))?;
    (text.len() <= MOST_TEXT).then(|| std::str::from_utf8(text).ok().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Codec, Family, Message};

    #[test]
    fn names_and_versions_are_read_as_they_are_written_and_never_refused() {
        let host = Capability::HostName { host: "h1".to_owned(), domain: "example.net".to_owned() };
        let version = Capability::SoftwareVersion("anyvip 1".to_owned());
        let paths = Capability::AddPath(vec![(Family::Ipv4.into(), 1), (Family::Ipv6.into(), 3)]);
        for capability in [host, version, paths, Capability::EnhancedRouteRefresh, Capability::Role(3)] {
            let coded = capability.encode();
            assert_eq!(usize::from(coded[1]), coded.len() - 2);
            assert_eq!(Capability::decode(coded[0], &coded[2..]), Some(capability));
        }
        for (code, value) in
            [(69, &[0, 1, 1][..]), (73, &[5, b'a']), (73, &[1, 0xff, 0]), (75, &[]), (75, &[1, b'a', b'b'])]
        {
            let kept = Capability::Unknown { code, value: value.to_vec() };
            assert_eq!(Capability::decode(code, value), Some(kept));
        }
        let long = Capability::SoftwareVersion("ü".repeat(100)).encode();
        assert_eq!((long.len(), long[1], long[2]), (67, 65, 64));
    }

    /// RFC 4724 §3: four bits of flags, twelve of time; then family and flags. The octets are those of FRR 8.4.
    #[test]
    fn restart_time_and_flags_are_read_as_they_are_written() {
        let frr = [0xc0, 0x78, 0, 1, 1, 0x80, 0, 2, 1, 0];
        let restart = GracefulRestart {
            restarted: true,
            notification: true,
            restart_time: 120,
            families: vec![(Family::Ipv4.into(), true), (Family::Ipv6.into(), false)],
        };
        assert_eq!(Capability::decode(64, &frr), Some(Capability::GracefulRestart(restart.clone())));
        assert_eq!(Capability::GracefulRestart(restart.clone()).encode(), [&[64, 10][..], &frr].concat());
        let longest = GracefulRestart { restart_time: u16::MAX, notification: false, ..restart };
        assert_eq!(Capability::GracefulRestart(longest).encode()[2..4], [0x8f, 0xff]);
        for damaged in [&[][..], &[0], &[0, 120, 0], &[0, 120, 0, 1, 1]] {
            let kept = Capability::Unknown { code: 64, value: damaged.to_vec() };
            assert_eq!(Capability::decode(64, damaged), Some(kept), "the session stands without it");
        }
    }

    /// Version 4, AS 65001, hold time 9, identifier 10.0.0.1, and then this.
    fn body(parameters: &[u8]) -> Vec<u8> {
        [&[4, 0xfd, 0xe9, 0, 9, 10, 0, 0, 1], parameters].concat()
    }

    fn capabilities(parameters: &[u8]) -> Result<Vec<Capability>, Notification> {
        Open::decode(&body(parameters)).map(|open| open.capabilities)
    }

    fn error(subcode: u8) -> Notification {
        Notification { code: 2, subcode, data: vec![] }
    }

    #[test]
    fn capabilities_are_read_in_one_parameter_or_in_many() {
        let expected = Ok(vec![Capability::Multiprotocol(Family::Ipv6.into()), Capability::RouteRefresh]);
        assert_eq!(capabilities(&[10, 2, 8, 1, 4, 0, 2, 0, 1, 2, 0]), expected);
        assert_eq!(capabilities(&[12, 2, 6, 1, 4, 0, 2, 0, 1, 2, 2, 2, 0]), expected);
        assert_eq!(capabilities(&[0]), Ok(vec![]));
    }

    /// RFC 9072 §2: the type decides, whatever the short length is, except zero.
    #[test]
    fn the_extended_form_is_read_however_short_it_is() {
        let expected = Ok(vec![Capability::RouteRefresh]);
        assert_eq!(capabilities(&[255, 255, 0, 5, 2, 0, 2, 2, 0]), expected);
        assert_eq!(capabilities(&[7, 255, 0, 5, 2, 0, 2, 2, 0]), expected);
        assert_eq!(capabilities(&[0, 255, 0, 5, 2, 0, 2, 2, 0]), Err(error(0)));
        assert_eq!(capabilities(&[255, 255, 0]), Err(error(0)));
        // In any other place, 255 is one more parameter that nobody knows.
        assert_eq!(capabilities(&[7, 2, 2, 2, 0, 255, 1, 0]), Err(error(4)));
    }

    /// RFC 9072 §2, and GoBGP 3 refuses it.
    #[test]
    fn the_extended_form_is_written_only_where_the_short_one_ends() {
        for (size, extended) in [(250, false), (251, false), (252, true), (255, true)] {
            let value = vec![7; size];
            let open = Open::new(
                65001,
                9,
                Ipv4Addr::new(10, 0, 0, 1),
                vec![Capability::Unknown { code: 200, value }],
            );
            let bytes = open.encode();
            assert_eq!(bytes[10] == 255, extended, "{size}");
            assert_eq!(Open::decode(&bytes), Ok(open), "{size}");
        }
    }

    #[test]
    fn the_longest_open_fits_a_message() {
        let many = vec![Capability::Unknown { code: 200, value: vec![7; 255] }; 100];
        let open = Open::new(65001, 9, Ipv4Addr::new(10, 0, 0, 1), many);
        let bytes = Message::Open(open).encode(&Codec::before_open());
        assert!(bytes.len() <= MAX_MESSAGE_LEN);
        let Ok(Message::Open(read)) = Message::decode(&bytes, &Codec::before_open()) else { panic!() };
        assert_eq!(read.capabilities.len(), 4061 / 257);
    }

    /// RFC 4271 §6.2, RFC 6286 §2.1, RFC 7607 §2.
    #[test]
    fn each_bad_field_has_its_subcode() {
        let change = |at: usize, to: &[u8]| {
            let mut bytes = body(&[0]);
            bytes[at..at + to.len()].copy_from_slice(to);
            Open::decode(&bytes).unwrap_err()
        };
        assert_eq!(change(0, &[3]), Notification { code: 2, subcode: 1, data: vec![0, 4] });
        assert_eq!(change(1, &[0, 0]), Notification::bad_peer_as(0));
        assert_eq!(change(3, &[0, 1]), error(6));
        assert_eq!(change(3, &[0, 2]), error(6));
        assert_eq!(change(5, &[0, 0, 0, 0]), error(3));
        assert_eq!(change(9, &[1]), error(0));
        assert_eq!(capabilities(&[2, 1, 0]), Err(error(4)));
        assert_eq!(capabilities(&[8, 2, 6, 65, 4, 0, 0, 0, 0]), Err(Notification::bad_peer_as(0)));
        for cut in 0..10 {
            assert_eq!(Open::decode(&body(&[0])[..cut]), Err(error(0)));
        }
        for hold_time in [0, 3] {
            let mut bytes = body(&[0]);
            bytes[4] = hold_time;
            assert_eq!(Open::decode(&bytes).map(|open| open.hold_time), Ok(u16::from(hold_time)));
        }
    }

    /// RFC 4271 §6.2: a parameter that we know and that is malformed.
    #[test]
    fn a_capability_of_the_wrong_length_is_refused_and_an_unknown_one_is_kept() {
        let malformed: [&[u8]; 7] = [
            &[5, 2, 3, 1, 1, 0],
            &[5, 2, 3, 2, 1, 0],
            &[7, 2, 5, 5, 3, 0, 1, 0],
            &[7, 2, 5, 65, 3, 0, 0, 1],
            &[4, 2, 2, 1, 4],
            &[3, 2, 1, 2],
            &[4, 2, 9, 2, 0],
        ];
        for parameters in malformed {
            assert_eq!(capabilities(parameters), Err(error(0)), "{parameters:?}");
        }
        let unknown = Capability::Unknown { code: 73, value: vec![1] };
        assert_eq!(capabilities(&[5, 2, 3, 73, 1, 1]), Ok(vec![unknown]));
    }

    /// RFC 6793 §4.1.
    #[test]
    fn the_real_as_number_is_the_one_of_four_octets() {
        let four = vec![Capability::FourOctetAs(4_200_000_001)];
        let open = Open::new(4_200_000_001, 9, Ipv4Addr::new(10, 0, 0, 1), four);
        assert_eq!((open.asn, open.real_asn()), (AS_TRANS, 4_200_000_001));
        assert_eq!(Open { capabilities: vec![], ..open }.real_asn(), 23456);
    }
}
