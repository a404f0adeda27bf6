//! Netlink messages as bytes: a builder, and iteration over attributes.

use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NlasIterator,
};

/// Message types of `linux/rtnetlink.h` that we write or read.
pub(super) mod kind {
    pub(in crate::netlink) const NEW_LINK: u16 = 16;
    pub(in crate::netlink) const DELETE_LINK: u16 = 17;
    pub(in crate::netlink) const GET_LINK: u16 = 18;
    pub(in crate::netlink) const SET_LINK: u16 = 19;
    pub(in crate::netlink) const NEW_ADDRESS: u16 = 20;
    pub(in crate::netlink) const DELETE_ADDRESS: u16 = 21;
    pub(in crate::netlink) const GET_ADDRESS: u16 = 22;
    pub(in crate::netlink) const NEW_ROUTE: u16 = 24;
    pub(in crate::netlink) const DELETE_ROUTE: u16 = 25;
    pub(in crate::netlink) const GET_ROUTE: u16 = 26;
    pub(in crate::netlink) const NEW_QDISC: u16 = 36;
    pub(in crate::netlink) const DELETE_QDISC: u16 = 37;
    pub(in crate::netlink) const NEW_NEXTHOP: u16 = 104;
    pub(in crate::netlink) const DELETE_NEXTHOP: u16 = 105;
    pub(in crate::netlink) const GET_NEXTHOP: u16 = 106;
    pub(in crate::netlink) const GET_NEXTHOP_BUCKET: u16 = 118;
}

pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

const HEADER: usize = 16;
const NESTED: u16 = 1 << 15;

/// What a request wants to happen with what is there already.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// Change or delete what is there.
    Existing,
    /// Make it; it must not be there.
    Create,
    /// Make it or replace what is there.
    Replace,
    /// Give one object back.
    Get,
    /// Give all objects back.
    Dump,
}

/// A request under construction.
#[derive(Clone, Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of this type with its family header.
    pub(super) fn new(kind: u16, mode: Mode, header: &[u8]) -> Message {
        let flags = NLM_F_REQUEST
            | match mode {
                Mode::Existing => NLM_F_ACK,
                Mode::Create => NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                Mode::Replace => NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
                Mode::Get => 0,
                Mode::Dump => NLM_F_DUMP,
            };
        let mut bytes = vec![0; HEADER];
        let mut buffer = NetlinkBuffer::new(&mut bytes);
        buffer.set_message_type(kind);
        buffer.set_flags(flags);
        bytes.extend_from_slice(header);
        Message { bytes }
    }

    /// One attribute.
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Message {
        self.push(kind, value);
        self
    }

    pub(super) fn put_u32(self, kind: u16, value: u32) -> Message {
        self.put(kind, &value.to_ne_bytes())
    }

    /// A string with its terminating zero.
    pub(super) fn put_name(self, kind: u16, name: &str) -> Message {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value)
    }

    pub(super) fn put_ip(self, kind: u16, address: IpAddr) -> Message {
        match address {
            IpAddr::V4(address) => self.put(kind, &address.octets()),
            IpAddr::V6(address) => self.put(kind, &address.octets()),
        }
    }

    /// An attribute made of attributes (or, for a peer link, of a header and attributes).
    pub(super) fn nest(mut self, kind: u16, inside: impl FnOnce(Message) -> Message) -> Message {
        let start = self.bytes.len();
        self.push(kind | NESTED, &[]);
        let mut nested = inside(self);
        let length = u16::try_from(nested.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = nested.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        nested
    }

    /// Bytes that are no attribute, inside a nest.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The finished message.
    pub(super) fn into_bytes(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let mut buffer = NetlinkBuffer::new(&mut self.bytes);
        buffer.set_length(length);
        buffer.set_sequence_number(sequence);
        self.bytes
    }
}

/// `struct ifinfomsg` that names one interface (0: by another attribute, or all).
pub(super) fn link_header(index: u32) -> [u8; 16] {
    link_header_with(index, 0, 0)
}

/// The same, changing these flags (`mask`) to these values.
pub(super) fn link_header_with(index: u32, flags: u32, mask: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&mask.to_ne_bytes());
    header
}

pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// Attributes in order, nested flag removed; stops at the first that does not fit its buffer.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(4..length)?))
    })
}

pub(super) fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

pub(super) fn u16_of(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// An address of 4 or 16 octets.
pub(super) fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_attribute_knows_its_length_and_reads_back() {
        let message = Message::new(kind::SET_LINK, Mode::Existing, &link_header(7))
            .nest(26, |spec| spec.nest(2, |inet| inet.put_u32(19, 1).put_name(3, "eth0")))
            .put_u32(4, 1500);
        let bytes = message.into_bytes(5);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(u32_of(&bytes), Some(u32::try_from(bytes.len()).unwrap()));
        let outer: Vec<_> = attributes(&bytes[HEADER + 16..]).collect();
        assert_eq!(outer.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [26, 4]);
        let inet: Vec<_> = attributes(outer[0].1).collect();
        assert_eq!(inet[0].0, 2);
        let inner: Vec<_> = attributes(inet[0].1).collect();
        assert_eq!(inner, [(19, &1_u32.to_ne_bytes()[..]), (3, &b"eth0\0"[..])]);
    }

    #[test]
    fn attributes_cut_short_end_the_reading_and_nothing_else() {
        let bytes = Message::new(0, Mode::Get, &[]).put_u32(1, 1).put_u32(2, 2).into_bytes(0);
        for cut in HEADER..bytes.len() {
            assert!(attributes(&bytes[HEADER..cut]).count() <= 1);
        }
    }
}
