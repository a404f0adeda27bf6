//! What the checker is told: small plain facts, which a world of virtual time and a lab of real kernels both can know.

use std::net::IpAddr;
use std::time::Duration;

/// What an operator wants of a service, as far as it has been promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// It shall be announced when it is healthy.
    Enabled,
    /// It is drained, the agent has said that it knows, and the drain time is over.
    Drained,
    /// Asked for and not confirmed, or still draining: either is right.
    Undecided,
}

/// One service address on one host at one moment.
#[derive(Clone, Copy, Debug)]
pub struct VipFacts {
    /// The address.
    pub vip: IpAddr,
    /// Kernel truth: it is on an interface that is up.
    pub present: bool,
    /// Kernel truth: no uplink with a signal would answer or ask ARP for it; `None`: it needs no guard (IPv6).
    pub guarded: Option<bool>,
    /// What every check will say of the service in the long run; `None`: undecided.
    pub healthy: Option<bool>,
    /// How long the agent may take to see that it is down.
    pub detection: Duration,
    /// A failing service is told with other attributes and not withdrawn.
    pub depreferences: bool,
    /// What an operator wants.
    pub admin: Admin,
    /// The agent runs, its kernel obeys and what it sees is not old.
    pub able: bool,
    /// An agent shall run here.
    pub wanted: bool,
    /// Nobody but the agent has changed ARP values or links for a guard period.
    pub untouched: bool,
}

/// The same address towards one peer, as the agent sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerFacts {
    /// The session is Established.
    pub established: bool,
    /// The session carries the family, there is a next hop and a way back, and the service is told to this peer.
    pub admitted: bool,
    /// The agent wants the peer to know the route.
    pub decided: bool,
    /// It wants that with the attributes of a service that is well.
    pub preferred: bool,
    /// It is in the Adj-RIB-Out: handed to the connection and not withdrawn since.
    pub advertised: bool,
}

/// The same address at the router at the other end.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouterFacts {
    /// The router runs and works through what comes.
    pub able: bool,
    /// Nothing disturbs cable, router or host.
    pub clear: bool,
    /// The router, too, has the session Established.
    pub established: bool,
    /// Its Adj-RIB-In holds the route.
    pub heard: bool,
    /// It goes on using the route of a former session, for so long at most (RFC 4724).
    pub retained: Option<Duration>,
    /// With the attributes that the Adj-RIB-Out has.
    pub equal: bool,
    /// It sends packets there; `None`: it may leave it out (too many next hops).
    pub chosen: Option<bool>,
    /// Hold time of the session; `None`: it has none.
    pub hold_time: Option<Duration>,
    /// The agent is dead or stopped, and last took an event so long ago; `None`: it lives.
    pub agent_silent: Option<Duration>,
    /// The agent is slow: it keeps sessions and lags behind.
    pub agent_slow: bool,
}

/// A BFD session of a host, and the BGP session that it guards.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathFacts {
    /// The agent takes its events.
    pub able: bool,
    /// The BFD session is Up.
    pub up: bool,
    /// Without a packet for that long it is not.
    pub detection: Duration,
    /// How long ago the last packet of the other end was taken.
    pub silent: Duration,
    /// How long ago the BFD thread began, or went on after it was stopped.
    pub running: Duration,
    /// The guarded BGP session is Established, and was so before BFD failed last.
    pub outlived: bool,
}

/// One machine and its driver at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineFacts {
    /// By how much its deadline has passed although it could have acted.
    pub overdue: Duration,
    /// Events that all machines took since the last look, and what is much.
    pub events: u64,
    /// More events than this is turning on the spot.
    pub most_events: u64,
    /// States that should not be, as it counted them itself.
    pub bugs: u64,
    /// Octets of its whole state.
    pub size: usize,
    /// More than this is a leak.
    pub most_size: usize,
    /// What its driver keeps for it: events that wait, probes, connections.
    pub backlog: usize,
    /// More than this is a leak.
    pub most_backlog: usize,
}
