//! IPv6 router discovery for anyvip: how the two ends of a link without configured addresses find each other.
//!
//! A router that peers by interface ("unnumbered") learns its neighbour's link-local address from the neighbour's router
//! advertisements, and a host learns the router's in the same way. So an agent that peers by interface advertises itself, with a
//! router lifetime of zero: nobody takes it as a default router (RFC 4861 §4.2).
//!
//! # Parts, and who owns what
//!
//! - [`boundary`]: every [`Event`] that enters and every [`Action`] that leaves, on one page.
//! - [`Advertiser`]: the machine. It owns the interfaces.
//! - `Interface`: one interface that is ready or not. While it is ready its state owns when to advertise and to solicit next, and the
//!   routers heard since.
//! - [`status`]: read-only views of all that.
//! - [`wire`]: the two messages and the options that follow them.
//! - [`error`]: why a packet is not heard.
//!
//! # Life of a message
//!
//! In: `Event::Received` → hop limit 255 and the other rules of RFC 4861 §6.1 → an advertisement is a router that lives, a
//! solicitation is answered soon by an advertisement to all.
//!
//! Out: an interface is due → `Action::Send`, to all nodes or all routers. The checksum is the kernel's to fill in and to check
//! (RFC 3542 §3.1).
//!
//! What an advertisement says about prefixes, MTU or default routes is the kernel's business and read over here.
//!
//! # RFCs
//!
//! 4861 (§4.1, §4.2, §6.1, §6.2, §6.3.7, §10), 7559 (solicitations go on, ever more rarely).
#![forbid(unsafe_code)]

mod advertiser;
pub mod boundary;
pub mod error;
mod interface;
pub mod status;
pub mod wire;

pub use advertiser::Advertiser;
pub use boundary::{Action, Event, Fact, InterfaceName, Link};
pub use error::Discard;
pub use status::{InterfaceView, RouterView};
