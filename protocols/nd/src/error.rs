//! Why a packet changes nothing. All of these are counted; the first of a kind is also told.

use serde::{Deserialize, Serialize};

/// The rule that a received packet broke, in the order in which they are asked (RFC 4861 §6.1.1, §6.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
pub enum Discard {
    /// It came over a router, or somebody pretends.
    #[error("{} instead of 255: it did not come from this link", words_of(*hop_limit))]
    NotFromThisLink { hop_limit: Option<u8> },
    /// Neither a solicitation nor an advertisement.
    #[error("ICMPv6 type {kind} is neither a router solicitation nor an advertisement")]
    Kind { kind: u8 },
    /// Shorter than its fixed part.
    #[error("{octets} octets are too few")]
    Length { octets: usize },
    /// RFC 4861 §6.1: the code is zero.
    #[error("ICMPv6 code {code} instead of 0")]
    Code { code: u8 },
    /// An option has no length, or reaches beyond the end.
    #[error("an option has the length {length} where {octets} octets are left")]
    Option { length: usize, octets: usize },
    /// RFC 4861 §6.1.2: routers advertise with their link-local address.
    #[error("an advertisement from an address that is not link-local")]
    Source,
    /// RFC 4861 §6.1.1: who has no address yet cannot say what it is on the link.
    #[error("a solicitation from no address that tells a link-layer address")]
    SourceOption,
}

fn words_of(hop_limit: Option<u8>) -> String {
    hop_limit.map_or_else(|| "an unknown hop limit".to_owned(), |limit| format!("hop limit {limit}"))
}
