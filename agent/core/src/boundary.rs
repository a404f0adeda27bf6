//! What enters the [`Agent`](crate) and what leaves it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyvip_bgp::wire::Family;
use anyvip_bgp::{PeerName, PeerState, RouteAttributes};
use anyvip_machine::{Failure, Time};
use serde::{Deserialize, Serialize};

use crate::config::{CheckKind, Config, Standing};
use crate::kernel::KernelView;
pub use crate::neighbours::Learned;
use crate::restored::{Inheritance, Restored};
use crate::state::{StoredState, StoredStateRead};

/// What the agent is made from. The driver reads the world once; the first event is [`Event::Started`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The configuration as meant.
    pub config: Config,
    /// What the state directory held.
    pub state: StoredStateRead,
    /// Identifies this boot of the kernel (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Wall clock at [`Time::ZERO`](anyvip_machine::Time), ms since 1970; only for what people read and the crash loop.
    pub wall_clock_ms: u64,
    /// Seed of all jitter.
    pub seed: u64,
    /// What the process that this one took the place of handed down.
    #[serde(default)]
    pub inheritance: Option<Inheritance>,
}

/// Everything that can happen to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The driver is ready: act.
    Started,
    /// `next_deadline()` has come. The only event that lets time act.
    DeadlineReached,
    /// Answer to [`Action::StartProbe`].
    ProbeFinished { probe: ProbeId, outcome: ProbeOutcome },
    /// The kernel side as it is now, whole. An overrun withdraws nothing: the last view stands until the next comes.
    KernelView(KernelView),
    /// Answer to [`Action::Kernel`]. Success is believed only when the view shows it.
    KernelDone { request: KernelRequestId, result: Result<(), Failure> },
    /// Answer to [`Action::Persist`].
    Persisted { generation: u64, result: Result<(), Failure> },
    /// Answer to [`Action::HandDown`].
    HandedDown { result: Result<(), Failure> },
    /// Answer to [`Action::Replace`]: this process goes on. Otherwise there is nobody left to be told.
    NotReplaced { failure: Failure },
    /// From the BGP connections.
    Bgp(anyvip_bgp::Event),
    /// From the BFD sessions, which run beside (on a thread of their own).
    Bfd(anyvip_bfd::Fact),
    /// From the links of peers without an address.
    Nd(anyvip_nd::Event),
    /// Somebody with the right to do so asks for something. Answered by one [`Action::Reply`].
    Operator { request: RequestId, command: Command },
    /// SIGTERM: withdraw, wait, Cease, exit. A second one skips the wait.
    Terminate,
}

/// Everything an agent asks for or reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Run a probe; the driver enforces `timeout` and at most 64 at once. Answered by `ProbeFinished`.
    /// `service` and `check` are for the command's environment and for logs.
    StartProbe {
        probe: ProbeId,
        service: ServiceName,
        check: CheckName,
        target: Target,
        kind: CheckKind,
        timeout: Duration,
    },
    /// The probe's answer is not wanted any more (its check is gone). Not answered.
    CancelProbe { probe: ProbeId },
    /// Change the kernel. Answered by `KernelDone`.
    Kernel { request: KernelRequestId, change: KernelRequest },
    /// Write the whole state, newest wins. Answered by `Persisted`.
    Persist { generation: u64, state: StoredState },
    /// Write this down for the process that takes over. Answered by `HandedDown`.
    HandDown { restored: Restored },
    /// Become the new program; what was handed down is for it alone. Answered by `NotReplaced`, if at all.
    Replace,
    /// `Connect`, `Send` and `Close` of the speaker; its facts stay inside.
    Bgp(anyvip_bgp::Action),
    /// All BFD sessions that there shall be, until the lease ends; latest wins. Not answered: facts come as [`Event::Bfd`].
    BfdWanted { sessions: BTreeMap<anyvip_bfd::SessionName, anyvip_bfd::SessionConfig>, lease: Option<Time> },
    /// `Open`, `Close` and `Send` of the advertiser; its facts stay inside.
    Nd(anyvip_nd::Action),
    /// Which addresses' routes the kernel view must show (peers).
    WatchRoutes { interests: Vec<IpAddr> },
    /// Listen for passive peers here, or no longer.
    Listen { address: Option<SocketAddr> },
    /// What routers that track this host by probe are told; latest wins.
    Respond(Answers),
    /// Answer an operator.
    Reply { request: RequestId, reply: Reply },
    /// Something that belongs into the log and into `anyvip events`.
    Record(Fact),
    /// Everything is done: end the process with this exit code.
    Exit { code: u8 },
}

/// What the responder says from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Where HTTP is answered for all services.
    pub listen: Option<SocketAddr>,
    pub services: BTreeMap<ServiceName, Answer>,
}

/// What the responder says of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// A port that is open only while the service is offered.
    pub port: Option<SocketAddr>,
    /// Why it is not offered.
    pub reason: Option<Reason>,
}

/// A service's name in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceName(pub String);

/// A check's name: its key under `[check]`, or `SERVICE/N` for one written inside a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckName(pub String);

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ServiceName {
    fn from(name: &str) -> Self {
        ServiceName(name.to_owned())
    }
}

impl From<&str> for CheckName {
    fn from(name: &str) -> Self {
        CheckName(name.to_owned())
    }
}

/// One run of a probe; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProbeId(pub u64);

/// One change asked of the kernel; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KernelRequestId(pub u64);

/// One operator request; numbered by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What a check is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This VIP of the service; gates this VIP alone.
    Vip(IpAddr),
    /// An address or command of the check's own; gates the whole service.
    Own,
}

/// How a probe ended, and how long it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeOutcome {
    pub result: ProbeResult,
    pub latency: Duration,
    /// What the service answered, or what went wrong, in a few words ("200 OK", "connection refused").
    pub detail: String,
}

/// Pass, fail and error kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeResult {
    /// The service answered as wanted.
    Pass,
    /// It did not.
    Fail,
    /// The probe could not be made (no descriptor, missing file, fork failed). Never counts toward fall.
    Error,
}

/// Changes asked of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelRequest {
    /// Put the VIP on the interface: /32 or /128, scope host, noprefixroute, our IFA_PROTO, preferred lifetime 0.
    AddVip { interface: u32, address: IpAddr },
    /// Remove an address of ours.
    RemoveVip { interface: u32, address: IpAddr },
    /// Set `arp_ignore` and `arp_announce` of one interface.
    SetArp { interface: u32, ignore: u32, announce: u32 },
    /// Make the default route of ours lead there, all ways alike; `replaces` one that is ours and there already, else there is none.
    SetDefault { family: Family, hops: Vec<DefaultHop>, replaces: bool },
    /// Remove the default route of ours.
    RemoveDefault { family: Family },
}

/// One way of a default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DefaultHop {
    /// The router.
    pub gateway: IpAddr,
    /// Where the address does not say it (link-local).
    pub interface: Option<u32>,
}

/// What an operator can ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Drain one service, or all (`None`).
    Drain { service: Option<ServiceName>, reason: Option<String> },
    /// Put one service, or all, back.
    Undrain { service: Option<ServiceName> },
    /// Make room for this version of the program, which the driver has found to be good; `force`: although routes are lost.
    Upgrade { to: String, force: bool },
    /// Apply this configuration; `Err` carries what `validate` prints: the running one stays. `keys` names the keys whose files say
    /// something else than before, which is no part of a configuration.
    Reload {
        config: Result<Box<Config>, String>,
        #[serde(default)]
        keys: Vec<String>,
    },
}

/// Answer to a command, sent after the state is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// False: refused and nothing changed, or in effect but not on disk; the text says which.
    pub done: bool,
    /// For people: what was done or why not.
    pub text: String,
}

/// May this VIP be told to this peer?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Yes, so.
    Announce(Box<RouteAttributes>),
    /// No: the first closed gate.
    Withhold(Reason),
}

/// Why something is not announced; in the order in which the gates are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// The agent is stopping.
    Stopping,
    /// The state directory cannot be read: whether this host is drained is unknown.
    StateUnreadable,
    /// Too many unclean exits: announcing waits.
    CrashLoop,
    /// An operator drained the service.
    Drained,
    /// Somebody keeps deleting the VIP.
    VipContested,
    /// An uplink would still answer ARP for the VIP.
    ArpNotGuarded,
    /// `arp_ignore` would cut the host off: its own address sits only on `lo`.
    ArpGuardUnsafe,
    /// The interface for VIPs, or the VIP on it, is missing.
    VipMissing,
    /// No check has reached rise or fall yet.
    NotYetChecked,
    /// A check failed `fall` times.
    Unhealthy,
    /// A check cannot be made and `on_error = "fail"`.
    CheckError,
    /// Another VIP in the same prefix is withheld.
    PrefixWithheld,
    /// The session with this peer is not Established.
    SessionDown,
    /// BFD does not find the path to this peer up, and `bfd.strict` asks for it; of a static peer, always.
    BfdDown,
    /// The peer did not agree to this VIP's family.
    FamilyNotNegotiated,
    /// No usable next hop of the VIP's family towards this peer.
    NoNextHop,
    /// rp_filter would drop what comes in from this peer.
    ReturnPath,
}

/// Facts for log and journal; worded in one place, the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// A check and target changed its mind.
    CheckChanged {
        service: ServiceName,
        check: CheckName,
        target: Target,
        from: HealthState,
        to: HealthState,
        after: Duration,
        detail: String,
    },
    /// A check could not be made (reported at the first of a run of errors, and when it can again: `None`).
    CheckError { service: ServiceName, check: CheckName, target: Target, detail: Option<String> },
    /// What the peer shall know of this VIP changed.
    VerdictChanged {
        service: ServiceName,
        vip: IpAddr,
        peer: PeerName,
        announced: bool,
        reason: Option<Reason>,
        /// With which attributes, where it is announced.
        standing: Standing,
    },
    /// RFC 4271 state of a peer changed; only Established and its loss are of interest to most.
    PeerChanged { peer: PeerName, from: PeerState, to: PeerState },
    /// A session or an attempt ended (repeated equal reasons of attempts are reported once). `planned`: somebody on
    /// either side wanted it.
    PeerDown { peer: PeerName, was_established: bool, planned: bool, text: String },
    /// Of a BFD session, with the names of those whose session it is.
    Bfd { peers: Vec<PeerName>, fact: anyvip_bfd::Fact },
    /// Who is at the other end of the link of a peer without an address.
    NeighbourLearned { peer: PeerName, interface: String, address: Ipv6Addr, how: Learned },
    /// What BGP survived or refused, in words.
    PeerNotice { peer: Option<PeerName>, text: String },
    /// A VIP appeared or vanished.
    VipChanged { vip: IpAddr, interface: String, present: bool, owned: bool, text: String },
    /// The guard of an interface was set, lost, or put back.
    ArpChanged { interface: String, guarded: bool, text: String },
    /// The kernel refused, or never answered.
    KernelRefused { text: String, failure: Failure },
    /// The state could not be written.
    PersistFailed { failure: Failure },
    /// A service was drained or put back.
    AdminChanged { service: ServiceName, drained: bool, reason: Option<String> },
    /// A configuration was applied or refused.
    Reloaded { applied: bool, text: String },
    /// Why nothing at all is announced for now: the state cannot be read, too many unclean exits.
    HeldBack { text: String },
    /// Anything an operator should know at start or stop (adopted VIPs, stopping, stopped).
    Lifecycle { text: String },
}

/// Where a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Not decided yet.
    Unknown,
    /// `rise` passes in a row.
    Up,
    /// `fall` fails in a row.
    Down,
}

/// Peer → prefix → attributes: what everybody shall know.
pub type Announcements = BTreeMap<PeerName, BTreeMap<ipnet::IpNet, RouteAttributes>>;
