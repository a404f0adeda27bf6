//! What the stories ask of a foreign speaker, in our words. Each daemon's file puts them into its own.

use anyvip_tests::{Fabric, Lab, Namespace, Need};
use nix::sys::signal::Signal;

use crate::features::Feature;

/// The router's AS number in the usual lab; host N is AS 65000 + N.
pub(crate) const ROUTER_AS: u32 = 65000;

/// A foreign speaker at the place of the router.
pub(crate) trait Router: Sized + 'static {
    /// Column of the page.
    const NAME: &'static str;
    /// What has to be installed.
    const NEEDS: &'static [Need];

    /// As the program names it; empty if it cannot be asked.
    fn version() -> String;
    /// Why it cannot have this feature; `None`: it has it, and the story must come to a good end.
    fn lacks(feature: Feature) -> Option<&'static str>;
    /// Starts it behaving so.
    fn start(lab: &Lab, namespace: &Namespace, manner: &Manner) -> Self;
    /// Ends it in good order: sessions closed, routes gone.
    fn stop(&mut self);
    /// What it shows of an address.
    fn shown(&self, address: &str) -> String;
    /// How a fact about a route looks in [`shown`](Self::shown).
    fn words(fact: &Told) -> String;
    /// Next hops of all usable paths, sorted: those of its kernel, or of its own table where it has no kernel's.
    fn next_hops(&self, fabric: &Fabric, address: &str) -> Vec<String>;
    /// What it logged.
    fn log(&self) -> String;

    /// Whether packets follow its routes.
    fn forwards() -> bool {
        true
    }
    /// Messages so far that took the route away, where it keeps them.
    fn withdrawals(&self, _address: &str) -> usize {
        0
    }
    /// Forgets errors for which it would refuse a host for minutes.
    fn forgive(&self) {}
    /// Closes the session with host 1, saying this.
    fn shut_down(&self, text: &str) {
        unreachable!("{} was asked to say {text:?}", Self::NAME)
    }
    /// Asks host 1 for all its routes again.
    fn ask_again(&self) {
        unreachable!("{} was asked to ask again", Self::NAME)
    }
    /// What it shows of its session with host 1.
    fn session(&self) -> String {
        unreachable!("{} was asked about a session", Self::NAME)
    }
    /// How it says that its BFD session is in a state (`up`, `down`, `init`).
    fn bfd_state(&self, session: &str) -> Result<String, String> {
        unreachable!("{} was asked about BFD {session}", Self::NAME)
    }
    /// Stops or continues what speaks BFD.
    fn freeze(&mut self, signal: Signal) {
        unreachable!("{} was sent {signal}", Self::NAME)
    }
}

/// How a router behaves; the default waits for eBGP sessions from any host, takes everything, honours GRACEFUL_SHUTDOWN, tells
/// nothing.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// It calls host 1 each second and takes its calls too.
    pub(crate) calls: bool,
    /// Its sessions are with the other ends of its first so many links `hN`, over link-local addresses.
    pub(crate) links: usize,
    /// It takes IPv4 routes with an IPv6 next hop (RFC 8950).
    pub(crate) extended_next_hop: bool,
    /// Hosts are behind another router.
    pub(crate) multihop: bool,
    /// TCP MD5.
    pub(crate) key: Option<&'static str>,
    /// GTSM.
    pub(crate) ttl_security: bool,
    /// Its role (RFC 9234).
    pub(crate) role: Option<&'static str>,
    /// Its AS number; that of a host makes the session internal.
    pub(crate) asn: u32,
    /// What it knows host 1 by, where that is not 65001 and it has to be told.
    pub(crate) host_asn: Option<u32>,
    /// Most prefixes that it takes of a host.
    pub(crate) limit: Option<u32>,
    /// It keeps the routes of a host that restarts and asks for it (RFC 4724).
    pub(crate) keeps_routes: bool,
    /// Messages may be longer than 4096 octets (RFC 8654).
    pub(crate) extended_messages: bool,
    /// What it tells the hosts.
    pub(crate) tells: Tells,
    /// BFD at 50 ms × 3 (multihop: 100 ms × 3).
    pub(crate) bfd: Bfd,
}

/// What a router tells hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    Nothing,
    /// All ways, where the host takes them (RFC 7911).
    AllPaths,
    /// That it knows a way to everywhere.
    Default,
    /// A thousand host routes with the same attributes, [`host_route`].
    Thousand,
}

/// What a router does with BFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bfd {
    None,
    /// Sessions with host 1 for their own sake: IPv4, IPv6, multihop from 10.1.2.1.
    Alone,
    /// One over IPv4 with host 1, of this kind of authentication and key 7.
    Authenticated(&'static str, &'static str),
    /// One that guards each BGP session.
    Guard,
    /// One that a static route to the service address follows.
    Static,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            calls: false,
            links: 0,
            extended_next_hop: false,
            multihop: false,
            key: None,
            ttl_security: false,
            role: None,
            asn: ROUTER_AS,
            host_asn: None,
            limit: None,
            keeps_routes: false,
            extended_messages: false,
            tells: Tells::Nothing,
            bfd: Bfd::None,
        }
    }
}

/// What a route was told with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// AS numbers of the path.
    Path(&'static [u32]),
    Med(u32),
    LocalPref(u32),
    Community(u16, u16),
    LargeCommunity(u32, u32, u32),
    RouteTarget(u16, u32),
    GracefulShutdown,
    OnlyToCustomer(u32),
}

/// One of the thousand.
pub(crate) fn host_route(n: usize) -> String {
    format!("100.64.{}.{}/32", n / 250, n % 250)
}

/// AS numbers with spaces between.
pub(crate) fn spaced(asns: &[u32]) -> String {
    asns.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}
