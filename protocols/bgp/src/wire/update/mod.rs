//! UPDATE: what it means here, how it is read (`decode`), how it is written (`pack`).

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Family, NextHop, PathAttributes};
use crate::error::AttributeError;

mod decode;
mod pack;

pub use pack::{end_of_rib, pack_announcements, pack_withdrawals};

/// UPDATE (RFC 4271 §4.3) as meant: both ways to carry a family are one here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Withdrawn, of all families; after decoding also what RFC 7606 told to treat as withdrawn.
    pub withdrawn: Vec<IpNet>,
    /// Announced, one entry a family. Only a peer that uses the classic NLRI field and MP_REACH_NLRI for IPv4 in one
    /// message makes it two, each with its next hop.
    pub reach: Vec<Reach>,
    /// Attributes of everything in `reach`, next hops apart. The default when `reach` is empty.
    pub attributes: PathAttributes,
    /// End-of-RIB of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// What decoding survived; empty in what we send.
    pub errors: Vec<AttributeError>,
    /// In place of `withdrawn` and `reach`, where the family's prefixes carry path identifiers (RFC 7911). Never sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathChange>,
}

/// One of several paths to a prefix came, or went (RFC 7911 §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChange {
    /// The prefix.
    pub prefix: IpNet,
    /// The peer's name for the path; means nothing elsewhere.
    pub path_id: u32,
    /// Its next hop, with the attributes of the UPDATE; `None`: the path is withdrawn.
    pub next_hop: Option<NextHop>,
}

/// Prefixes of one family that share a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Family of the prefixes.
    pub family: Family,
    /// Next hop, of either family (RFC 8950).
    pub next_hop: NextHop,
    /// The prefixes.
    pub prefixes: Vec<IpNet>,
}

/// A route as a peer told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedRoute {
    /// Next hop.
    pub next_hop: NextHop,
    /// Everything else.
    pub attributes: PathAttributes,
}

#[cfg(test)]
mod tests;
