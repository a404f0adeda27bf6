//! Links, addresses, routes and next hops of a network namespace.
//!
//! - [`Monitor`] shows the host as one [`Snapshot`]: it subscribes first, then dumps, and dumps again what an event says has
//!   changed. Events are hints, never a log to be replayed; an overrun or an interrupted dump only means another dump, and
//!   meanwhile the last snapshot stands.
//! - [`Netlink`] changes things. A success is the kernel's ACK; what really is there, the monitor shows.
//!
//! Both belong to the namespace in which they were opened and can be used from anywhere afterwards. The kernel serves
//! most requests under one lock for the whole machine (RTNL), which others may hold for long; so nothing here waits for
//! it on the caller's thread: the monitor has a thread of its own, changes run on tokio's blocking threads.
//!
//! The messages are written and read here, attribute by attribute, on `netlink-sys` sockets: they are few, next-hop objects
//! and zero-valued interface settings are in no library, and a dump of a full routing table must leave nothing behind.

mod change;
mod default_route;
mod lab;
mod message;
mod monitor;
mod multipath;
mod nexthop;
mod snapshot;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

pub use change::{Netlink, VIP_PROTOCOL};
pub use lab::Cable;
pub use monitor::{Monitor, MonitorStats};
pub use multipath::{Path, ResilientBucket, ResilientTable};
pub use nexthop::RouteQuery;
pub use snapshot::{Address, Hop, Ipv4Settings, Link, Route, Snapshot};
