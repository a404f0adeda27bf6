//! Watching the host: events tell what to dump, dumps tell what is.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyvip_machine::Failure;
use ipnet::IpNet;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use tokio::sync::watch;

use super::message::{AF_INET, AF_INET6, Message, Mode, kind, link_header};
use super::nexthop::hops_of;
use super::snapshot::{Ipv4Settings, Link, RouteMessage, Snapshot, address_of, link_of, route_of};
use super::socket::{Refusal, RequestSocket, borrow, messages, receive};
use crate::failure::failed;

/// Multicast groups of `linux/rtnetlink.h`: links, IPv4 and IPv6 addresses, IPv4 and IPv6 routes, next hops.
const GROUPS: [u32; 6] = [1, 5, 9, 7, 11, 32];
/// Room for events while a dump runs.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Pause after a dump that failed or was interrupted.
const RETRY: Duration = Duration::from_millis(20);
/// After a round of dumps the next waits this many times as long as the round took, so that churn on a host with very
/// large tables costs a fifth of a processor and not a whole one. A small host never notices.
const REST: u32 = 4;
/// Datagrams read before a due dump gets its turn.
const EVENTS_PER_TURN: usize = 1000;

/// Shows the network namespace in which it was opened. It has a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Monitor {
    snapshots: watch::Receiver<Option<Snapshot>>,
    shared: Arc<Shared>,
    /// Writing a byte wakes the thread; closing it ends the thread.
    wake: UnixStream,
}

/// What a monitor went through. All counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorStats {
    /// Rounds of dumps.
    pub rounds: u64,
    /// Events that the kernel could not deliver; each time everything was read again.
    pub overruns: u64,
    /// Dumps during which something changed; each was done again.
    pub interrupted: u64,
    /// Dumps that failed; each is tried again.
    pub failed: u64,
    /// Why the last of these failed.
    pub last_failure: Option<Failure>,
}

#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<Orders>,
    stats: Mutex<MonitorStats>,
}

#[derive(Debug, Default)]
struct Orders {
    refresh: bool,
    interests: Option<Vec<IpAddr>>,
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread; the first [`next`](Self::next) gives what is there.
    ///
    /// # Errors
    /// When descriptors or threads have run out, or netlink is not permitted here.
    pub fn open() -> Result<Monitor, Failure> {
        Monitor::with_receive_buffer(RECEIVE_BUFFER)
    }

    /// The same with room for this many bytes of events.
    pub(super) fn with_receive_buffer(bytes: usize) -> Result<Monitor, Failure> {
        let open = || -> io::Result<Monitor> {
            let (monitor, worker) = Monitor::with_worker(bytes)?;
            std::thread::Builder::new()
                .name("netlink-monitor".into())
                .stack_size(256 * 1024)
                .spawn(move || worker.run())?;
            Ok(monitor)
        };
        open().map_err(|error| failed("cannot watch links, addresses and routes", &error))
    }

    /// Both halves, the worker not yet at work.
    fn with_worker(receive_buffer: usize) -> io::Result<(Monitor, Worker)> {
        let shared = Arc::new(Shared::default());
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, snapshots) = watch::channel(None);
        let worker = Worker {
            events: subscribe(receive_buffer)?,
            requests: RequestSocket::open()?,
            woken,
            shared: Arc::clone(&shared),
            sender,
            interests: Vec::new(),
            unread: Tables::ALL,
            current: Snapshot::default(),
            nexthops_used: false,
            not_before: None,
        };
        Ok((Monitor { snapshots, shared, wake }, worker))
    }

    /// Waits for a snapshot that differs from the last one; several changes may come as one. Cancel-safe.
    pub async fn next(&mut self) -> Snapshot {
        loop {
            if self.snapshots.changed().await.is_err() {
                // The thread only ends with us. If it did not, the last view stands.
                std::future::pending::<()>().await;
            }
            if let Some(snapshot) = self.snapshots.borrow_and_update().as_ref() {
                return snapshot.clone();
            }
        }
    }

    /// From now on `routes` also shows the routes that cover these addresses (and no longer those given before).
    pub fn watch(&self, interests: Vec<IpAddr>) {
        lock(&self.shared.orders).interests = Some(interests);
        self.wake();
    }

    /// Reads again what the kernel does not announce: `arp_*` and `rp_filter` of all interfaces.
    pub fn refresh(&self) {
        lock(&self.shared.orders).refresh = true;
        self.wake();
    }

    /// What it went through so far.
    pub fn stats(&self) -> MonitorStats {
        lock(&self.shared.stats).clone()
    }

    fn wake(&self) {
        // A full buffer means that a wake-up is under way.
        let _ = (&self.wake).write(&[1]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn subscribe(buffer: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // Bound first: a socket without a port id gets nothing.
    socket.bind_auto()?;
    // Beyond the system's limit only with CAP_NET_ADMIN over the machine; else as much as is allowed.
    if setsockopt(&borrow(&socket), sockopt::RcvBufForce, &buffer).is_err() {
        setsockopt(&borrow(&socket), sockopt::RcvBuf, &buffer)?;
    }
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// Kinds of tables that wait to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tables {
    links: bool,
    addresses: bool,
    routes: bool,
}

impl Tables {
    const NONE: Tables = Tables { links: false, addresses: false, routes: false };
    const ALL: Tables = Tables { links: true, addresses: true, routes: true };

    fn and(self, other: Tables) -> Tables {
        Tables {
            links: self.links || other.links,
            addresses: self.addresses || other.addresses,
            routes: self.routes || other.routes,
        }
    }
}

/// The monitor's thread.
struct Worker {
    events: Socket,
    requests: RequestSocket,
    woken: UnixStream,
    shared: Arc<Shared>,
    sender: watch::Sender<Option<Snapshot>>,
    interests: Vec<IpAddr>,
    unread: Tables,
    /// What the dumps said last, table by table.
    current: Snapshot,
    /// Routes through next-hop objects are there, so changes of those matter.
    nexthops_used: bool,
    not_before: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            self.read_events(&mut buffer);
            let now = Instant::now();
            let pause = self.not_before.map(|moment| moment.saturating_duration_since(now));
            let due = self.unread != Tables::NONE;
            if due && pause.is_none_or(|pause| pause.is_zero()) {
                self.round();
                continue;
            }
            let timeout = match pause.filter(|_| due) {
                // Rounded up: waking a little early would spin until the moment comes.
                Some(pause) => {
                    PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            if !self.wait(timeout) {
                return;
            }
        }
    }

    /// Waits for events, orders or the timeout. False if the monitor is gone.
    fn wait(&mut self, timeout: PollTimeout) -> bool {
        let mut waiting = [
            PollFd::new(borrow(&self.events), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut waiting, timeout).is_err() {
            return true;
        }
        let mut bytes = [0; 64];
        loop {
            match self.woken.read(&mut bytes) {
                Ok(0) => return false,
                Ok(_) => self.take_orders(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    fn take_orders(&mut self) {
        let orders = std::mem::take(&mut *lock(&self.shared.orders));
        if let Some(interests) = orders.interests {
            self.interests = interests;
            self.unread.routes = true;
        }
        if orders.refresh {
            self.unread.links = true;
        }
    }

    fn read_events(&mut self, buffer: &mut [u8]) {
        for _ in 0..EVENTS_PER_TURN {
            match receive(&self.events, buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    for (header, payload) in messages(buffer.get(..length).unwrap_or_default()) {
                        self.unread = self.unread.and(self.touched(header.message_type(), payload));
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    lock(&self.shared.stats).overruns += 1;
                    self.unread = Tables::ALL;
                }
                Err(_) => return,
            }
        }
    }

    /// Which tables an event makes worth reading. What says only what we know already (a renewed lifetime, a counter)
    /// touches nothing. A link that goes down and an address that goes away take routes along without a word.
    fn touched(&self, message: u16, payload: &[u8]) -> Tables {
        match message {
            kind::NEW_LINK => match link_of(payload) {
                Some(link) if self.current.links.get(&link.index) != Some(&link) => Tables::ALL,
                _ => Tables::NONE,
            },
            kind::DELETE_LINK => match link_of(payload) {
                Some(link) if self.current.links.contains_key(&link.index) => Tables::ALL,
                _ => Tables::NONE,
            },
            kind::NEW_ADDRESS | kind::DELETE_ADDRESS => match address_of(payload) {
                Some(address)
                    if self.current.addresses.binary_search(&address).is_ok()
                        != (message == kind::NEW_ADDRESS) =>
                {
                    Tables { addresses: true, routes: true, links: false }
                }
                _ => Tables::NONE,
            },
            kind::NEW_ROUTE | kind::DELETE_ROUTE => match route_of(payload) {
                Some(message) if matters(&self.interests, message.route.destination) => {
                    Tables { routes: true, ..Tables::NONE }
                }
                _ => Tables::NONE,
            },
            kind::NEW_NEXTHOP | kind::DELETE_NEXTHOP if self.nexthops_used => {
                Tables { routes: true, ..Tables::NONE }
            }
            _ => Tables::NONE,
        }
    }

    /// Reads all unread tables and publishes what differs. A table whose dump failed or was interrupted stays unread.
    fn round(&mut self) {
        let begun = Instant::now();
        let unread = std::mem::replace(&mut self.unread, Tables::NONE);
        if unread.links {
            self.unread.links = !self.read(|worker| {
                let (links, whole) = worker.dump_links()?;
                if whole {
                    worker.current.links = links;
                    worker.current.all = settings_of_all()?;
                }
                Ok(whole)
            });
        }
        if unread.addresses {
            self.unread.addresses = !self.read(|worker| {
                let mut addresses = Vec::new();
                let message = Message::new(kind::GET_ADDRESS, Mode::Dump, &[0; 8]);
                let whole = worker.requests.ask(message, |payload| addresses.extend(address_of(payload)))?;
                if whole {
                    addresses.sort_unstable();
                    worker.current.addresses = addresses;
                }
                Ok(whole)
            });
        }
        if unread.routes {
            self.unread.routes = !self.read(Worker::read_routes);
        }
        let took = begun.elapsed();
        let rest = if self.unread == Tables::NONE { took * REST } else { RETRY.max(took * REST) };
        self.not_before = Some(Instant::now() + rest);
        lock(&self.shared.stats).rounds += 1;
        self.publish();
    }

    /// One table: true if it was read whole.
    fn read(&mut self, read: impl FnOnce(&mut Worker) -> Result<bool, Refusal>) -> bool {
        let result = read(self);
        let mut stats = lock(&self.shared.stats);
        match result {
            Ok(true) => return true,
            Ok(false) => stats.interrupted += 1,
            Err(refusal) => {
                stats.failed += 1;
                stats.last_failure = Some(refusal.failure("cannot read the kernel's tables"));
            }
        }
        false
    }

    fn dump_links(&mut self) -> Result<(BTreeMap<u32, Link>, bool), Refusal> {
        const IFLA_EXT_MASK: u16 = 29;
        const SKIP_STATS: u32 = 1 << 3;
        let mut links = BTreeMap::new();
        let message =
            Message::new(kind::GET_LINK, Mode::Dump, &link_header(0)).put_u32(IFLA_EXT_MASK, SKIP_STATS);
        let whole = self.requests.ask(message, |payload| {
            links.extend(link_of(payload).map(|link| (link.index, link)));
        })?;
        Ok((links, whole))
    }

    fn read_routes(&mut self) -> Result<bool, Refusal> {
        const TABLE_MAIN: u8 = 254;
        const UNICAST: u8 = 1;
        let mut kept: Vec<RouteMessage> = Vec::new();
        let mut whole = true;
        for family in [AF_INET, AF_INET6] {
            // The kernel filters by table and type; by destination only we can.
            let header = [family, 0, 0, 0, TABLE_MAIN, 0, 0, UNICAST, 0, 0, 0, 0];
            let message = Message::new(kind::GET_ROUTE, Mode::Dump, &header);
            let Worker { requests, interests, .. } = self;
            let asked = requests.ask(message, |payload| {
                // Without IPv6 the kernel answers for all families.
                if payload.first() == Some(&family) {
                    kept.extend(route_of(payload).filter(|kept| matters(interests, kept.route.destination)));
                }
            });
            match asked {
                Ok(this) => whole &= this,
                // A family without a main table has no routes in it.
                Err(refusal) if refusal.kind() == anyvip_machine::FailureKind::NotFound => {}
                Err(refusal) => return Err(refusal),
            }
        }
        if !whole {
            return Ok(false);
        }
        self.nexthops_used = kept.iter().any(|message| message.nexthop.is_some());
        let mut routes = Vec::with_capacity(kept.len());
        for RouteMessage { mut route, nexthop } in kept {
            if let Some(nexthop) = nexthop.filter(|_| route.hops.is_empty()) {
                // It may be gone since the dump; then its event is on the way.
                route.hops = hops_of(&mut self.requests, nexthop).unwrap_or_default();
            }
            routes.push(route);
        }
        routes.sort_unstable();
        self.current.routes = routes;
        Ok(true)
    }

    fn publish(&self) {
        let complete_once = self.sender.borrow().is_some() || self.unread == Tables::NONE;
        if complete_once {
            self.sender.send_if_modified(|published| {
                let differs = published.as_ref() != Some(&self.current);
                if differs {
                    *published = Some(self.current.clone());
                }
                differs
            });
        }
    }
}

fn matters(interests: &[IpAddr], destination: IpNet) -> bool {
    destination.prefix_len() == 0 || interests.iter().any(|address| destination.contains(address))
}

/// `conf/all` has no interface and no netlink message. The path shows the namespace of the thread that reads.
fn settings_of_all() -> io::Result<Ipv4Settings> {
    let read = |name: &str| -> io::Result<u32> {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{name}"))?;
        text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    Ok(Ipv4Settings {
        arp_ignore: read("arp_ignore")?,
        arp_announce: read("arp_announce")?,
        rp_filter: read("rp_filter")?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::tests::inside;
    use super::*;

    fn ip(line: &str) {
        assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
    }

    #[test]
    fn an_event_that_was_lost_in_an_overrun_is_made_up_for_by_reading_everything() {
        inside(|| async {
            ip("addr add 192.0.2.53/32 dev lo");
            let (monitor, mut worker) = Monitor::with_worker(1).unwrap();
            let mut buffer = vec![0; 64 * 1024];
            worker.round();
            assert_eq!(worker.current.addresses.len(), 3, "127.0.0.1, ::1 and the VIP");
            worker.read_events(&mut buffer);
            assert_eq!(worker.unread, Tables::NONE);

            // Nobody reads: what does not matter fills the buffer, what does is lost.
            for route in 0..50 {
                ip(&format!("route add 10.{route}.0.0/16 dev lo"));
            }
            ip("addr del 192.0.2.53/32 dev lo");
            worker.read_events(&mut buffer);
            assert_eq!(monitor.stats().overruns, 1);
            assert_eq!(worker.unread, Tables::ALL);
            assert_eq!(worker.current.addresses.len(), 3, "meanwhile the last view stands");
            worker.round();
            assert_eq!(worker.current.addresses.len(), 2);
        });
    }

    #[test]
    fn the_thread_ends_with_the_monitor() {
        inside(|| async {
            let (monitor, worker) = Monitor::with_worker(RECEIVE_BUFFER).unwrap();
            let thread = std::thread::spawn(move || worker.run());
            drop(monitor);
            thread.join().unwrap();
        });
    }
}
