//! Which next hop a packet takes.
//!
//! A twin of Linux (6.11 and later, little-endian): for the same seed, policy, fields, members and packet it gives the
//! member that the kernel takes, for every packet, not on average. Beside it, models of what other routers and balancers
//! do, behind the same small trait, so that a change can be played through all of them.
//!
//! # Parts
//!
//! - [`Packet`], [`Flow`], [`Addresses`]: what a router sees of a packet.
//! - [`Hasher`]: packet → 31 bits (`net.ipv4.fib_multipath_hash_{policy,fields,seed}`).
//! - [`Threshold`]: 31 bits → position in a multipath route or next-hop group, with weights, dead and failed members.
//! - [`Resilient`]: 31 bits → member, by a table of buckets that is kept up as members come and go.
//! - [`Design`]: the trait; [`design`]: its implementations ([`Threshold`]'s and [`Resilient`]'s, modulo, rendezvous, Maglev,
//!   slot table, spray).
//! - [`change`]: what a change of members does to flows: counted over given flows, and as the exact expectation.
//!
//! # Life of a decision
//!
//! `Hasher::forwarded(&packet)` picks fields by policy, sorts addresses and ports (so that both directions of a flow give
//! the same number), hashes with SipHash-2-4 and keeps 31 bits. `Threshold::pick(hash)` or `Resilient::pick(now, hash)`
//! turns them into a member. Nothing here knows sockets, and time enters as a number.
//!
//! # What the kernel asks
//!
//! A *forwarded packet* and a *lookup* (`ip route get … iif …`, RTM_GETROUTE) are hashed alike, but for IPv6 under policy 3;
//! the router's *own* packets take a third way. [`Hasher`] has a function for each. A packet that carries a hash of its
//! sender's socket (veth between namespaces, policy 1) is no subject of any function of its addresses and ports, and so not
//! of this crate.
#![forbid(unsafe_code)]

pub mod change;
pub mod design;
mod fields;
mod hash;
mod packet;
mod resilient;
mod sip;
mod threshold;

pub use design::{Design, Member};
pub use fields::{Fields, FieldsError, Policy};
pub use hash::Hasher;
pub use packet::{Addresses, Flow, Packet, Quoted};
pub use resilient::{Bucket, Resilient, Timers};
pub use threshold::{MemberState, Threshold, WeightError};
