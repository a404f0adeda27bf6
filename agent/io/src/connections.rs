//! The TCP connections of a BGP speaker.
//!
//! [`Connections`] carries out `Action::{Connect, Send, Close}` and gives back `Event::{Connected, ConnectFailed,
//! Accepted, Received, Sent, Closed}`. It has no tasks and no channels: all state is in one struct, sockets are
//! non-blocking, [`Connections::next`] waits for whichever is ready and may be dropped at any `await` (in `select!`)
//! without losing anything.
//!
//! **Reading is fair and bounded:** one `recv` of at most 64 KiB per connection and turn. **Writing is at once:** `send`
//! calls `write` itself; only a remainder waits for the peer. **Closing is kind:** what was sent before is flushed, then
//! our direction is shut down, and what the peer still sends is read and thrown away until it closes too (at most
//! [`CLOSE_PATIENCE`]). Closing a socket with unread bytes would make the kernel send RST, and a RST may overtake the
//! NOTIFICATION that says why.
//!
//! **Read before you time out:** after the process was stopped for a while, tokio does not yet know what arrived.
//! [`Connections::drain`] asks the sockets themselves.

mod connection;
mod options;
mod protection;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener};
use std::task::{Context, Poll};
use std::time::Duration;

use anyvip_bgp::{ConnectionId, Endpoint, Event, Rejection};
use anyvip_machine::{Failure, FailureKind};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::failure::{failed, kind_of};
use crate::sys::readiness::watch;
pub(crate) use connection::poll_read;
use connection::{Closing, Connection, Turn};
pub use protection::{Md5Key, Protection, Signers, Whose};

/// The most that one `Received` carries.
pub const RECEIVE_LIMIT: usize = 64 * 1024;
/// How long a closed connection may take to flush and to see the peer's end.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection may take to come to stand. The kernel would try for two minutes.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(8);
/// More connections than this are not kept waiting for their peer's end; the oldest is cut.
const CLOSING_LIMIT: usize = 256;
/// How long a listener rests when descriptors have run out.
const ACCEPT_REST: Duration = Duration::from_millis(250);

/// All connections and listeners of one speaker. See the module's text.
#[derive(Debug)]
pub struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    closing: VecDeque<Closing>,
    listeners: BTreeMap<SocketAddr, AsyncFd<Socket>>,
    protections: BTreeMap<Whose, Protection>,
    /// Who was last called at the other end of a link: the listeners need its address to check its signatures.
    called: BTreeMap<String, IpAddr>,
    /// Listeners rest until then, because `accept` had no descriptor to give.
    accept_again: Option<Instant>,
    accepted: u64,
    /// A listener of the program before this one.
    inherited: Option<Inherited>,
    outcomes: Vec<Event>,
    scratch: Box<[u8]>,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections::new()
    }
}

impl Connections {
    /// No connections, no listeners.
    pub fn new() -> Connections {
        Connections {
            open: BTreeMap::new(),
            closing: VecDeque::new(),
            listeners: BTreeMap::new(),
            protections: BTreeMap::new(),
            called: BTreeMap::new(),
            accept_again: None,
            accepted: 0,
            inherited: None,
            outcomes: Vec::new(),
            scratch: vec![0; RECEIVE_LIMIT].into_boxed_slice(),
        }
    }

    /// Begins a connection; `Connected` or `ConnectFailed` comes out of [`next`](Self::next). A link-local address is
    /// scoped by the endpoint's interface, any other is bound to it. `source` is the address of ours to connect from.
    /// `close` cancels. Needs a tokio runtime.
    pub fn connect(&mut self, id: ConnectionId, remote: &Endpoint, ttl: Option<u8>, source: Option<IpAddr>) {
        let name = endpoint_name(remote);
        let interface = remote.interface.as_deref();
        let protection = protection_of(&self.protections, remote.address, interface);
        let protection = protection.map(|(_, protection)| protection.clone()).unwrap_or_default();
        if let (Some(interface), true) = (interface, is_link_local(remote.address)) {
            self.called.insert(interface.to_owned(), remote.address);
            for listener in self.listeners.iter().filter(|(at, _)| at.is_ipv6()).map(|(_, at)| at.get_ref()) {
                // Where the kernel says no, the connection that is being made hears it too.
                let _ = protection.rekey(None, listener, remote.address);
            }
        }
        match begin_connect(remote, ttl, source, &protection) {
            Ok(socket) => {
                let give_up = Instant::now() + CONNECT_PATIENCE;
                let suspicion = protection.suspicion();
                let peer = (remote.address, remote.interface.clone());
                self.open.insert(id, Connection::connecting(socket, name, peer, give_up, suspicion));
            }
            Err(error) => {
                let failure = match (kind_of(&error), source) {
                    (FailureKind::AddressNotAvailable, Some(source)) => Failure::new(
                        FailureKind::AddressNotAvailable,
                        format!("{source} is no address of this host"),
                    ),
                    _ => options::connect_failure(&name, &error, protection.suspicion()),
                };
                self.outcomes.push(Event::ConnectFailed { connection: id, failure });
            }
        }
    }

    /// Writes these bytes at once as far as the kernel takes them; the rest follows when it can. `Sent` comes out of
    /// [`next`](Self::next) when the kernel has all. Returns whether it had all at once. An unknown id is ignored.
    pub fn send(&mut self, id: ConnectionId, bytes: Vec<u8>) -> bool {
        let Some(connection) = self.open.get_mut(&id) else { return false };
        let sent = connection.send(bytes);
        for _ in 0..sent {
            self.outcomes.push(Event::Sent { connection: id });
        }
        sent > 0
    }

    /// Ends a connection: flushes what was sent before, shuts down our direction, waits a little for the peer's end.
    /// No event follows. An unknown id is ignored.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.open.remove(&id) else { return };
        self.outcomes.retain(|event| connection_of(event) != Some(id));
        let Some(closing) = connection.close(Instant::now() + CLOSE_PATIENCE) else { return };
        if self.closing.len() >= CLOSING_LIMIT {
            self.closing.pop_front();
        }
        self.closing.push_back(closing);
    }

    /// How each peer's packets are told from those of others, by its address; the whole set. Connections to come obey it,
    /// listeners and open connections take changed keys at once: if the peer changes its key too, a session lives on.
    ///
    /// # Errors
    /// What the kernel refused, each with its peer; everything else is in effect.
    pub fn protect(&mut self, wanted: BTreeMap<Whose, Protection>) -> Result<(), Vec<Failure>> {
        let former = std::mem::replace(&mut self.protections, wanted);
        let none = Protection::default();
        let peers: BTreeSet<&Whose> = former.keys().chain(self.protections.keys()).collect();
        let mut refused = Vec::new();
        for whose in peers {
            let (was, is) = (former.get(whose), self.protections.get(whose).unwrap_or(&none));
            let listeners = whose.address(&self.called).into_iter().flat_map(|address| {
                let of_family =
                    self.listeners.iter().filter(move |(at, _)| at.is_ipv4() == address.is_ipv4());
                of_family.map(move |(_, listener)| (address, listener.get_ref()))
            });
            let open = self.open.values().filter(|connection| whose.is(connection.peer()));
            let open = open.map(|connection| (connection.peer().0, connection.socket()));
            for (peer, socket) in listeners.chain(open) {
                if let Err(error) = is.rekey(was, socket, peer) {
                    refused.push(failed(format!("cannot set the TCP MD5 key for {peer}"), &error));
                }
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// The TTL (hop limit) of an open connection: for accepted ones, once it is known who it is.
    ///
    /// # Errors
    /// When the kernel refuses, or the id is unknown.
    pub fn set_ttl(&mut self, id: ConnectionId, ttl: u8) -> Result<(), Failure> {
        let connection = self
            .open
            .get(&id)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format!("no connection {id:?}")))?;
        options::set_ttl(connection.socket(), ttl).map_err(|error| failed("cannot set the TTL", &error))
    }

    /// Whose calls listeners want signed (TCP MD5), as a program that takes them over is to know it.
    pub fn signers(&self) -> Signers {
        let signs = self.protections.iter().filter(|(_, protection)| protection.md5_key.is_some());
        let addresses = signs.filter_map(|(whose, _)| whose.address(&self.called)).collect();
        Signers { addresses, called: self.called.clone() }
    }

    /// Takes the listener of the program before this one, with those who connected to it since: [`listen`](Self::listen) on the same
    /// address goes on with it. The keys of its signers that have none any more are forgotten then.
    pub fn inherit(&mut self, listener: TcpListener, signers: Signers) {
        let Ok(address) = listener.local_addr() else { return };
        self.called = signers.called;
        let socket = Socket::from(listener);
        self.inherited = Some(Inherited { address, socket, signers: signers.addresses });
    }

    /// Listens on this address and returns the bound one (port 0 asks for any). Each connection comes as `Accepted`
    /// with an id of our own numbering.
    ///
    /// # Errors
    /// When the address is in use, not on this host, or its port needs a privilege.
    pub fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, Failure> {
        let inherited = self.inherited.take();
        let open = || -> io::Result<(SocketAddr, AsyncFd<Socket>)> {
            let (socket, mut unsigned) = match inherited {
                Some(inherited) if inherited.address == address => (inherited.socket, inherited.signers),
                _ => (bind(address)?, BTreeSet::new()),
            };
            socket.set_nonblocking(true)?;
            for (whose, protection) in &self.protections {
                let peer = whose.address(&self.called).filter(|peer| peer.is_ipv4() == address.is_ipv4());
                if let Some(peer) = peer.filter(|_| protection.md5_key.is_some()) {
                    protection.rekey(None, &socket, peer)?;
                    unsigned.remove(&peer);
                }
            }
            for peer in unsigned.into_iter().filter(|peer| peer.is_ipv4() == address.is_ipv4()) {
                // Where there was no key the kernel says so.
                let _ = protection::forget_key(&socket, peer);
            }
            socket.listen(128)?;
            let bound = socket.local_addr()?.as_socket().unwrap_or(address);
            Ok((bound, watch(socket)?))
        };
        let (bound, socket) =
            open().map_err(|error| failed(format!("cannot listen on {address}"), &error))?;
        self.listeners.insert(bound, socket);
        Ok(bound)
    }

    /// Stops listening on this (bound) address; connections already accepted stay.
    pub fn stop_listening(&mut self, address: SocketAddr) {
        self.listeners.remove(&address);
    }

    /// Waits until something happened and returns it: never empty, at most one `Received` per connection. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Event> {
        loop {
            self.forget_expired(Instant::now());
            if self.outcomes.is_empty() {
                let wake = self.next_wake();
                tokio::select! {
                    biased;
                    () = poll_fn(|context| self.poll_turn(context)) => {}
                    () = sleep_until(wake) => {}
                }
            }
            if !self.outcomes.is_empty() {
                return std::mem::take(&mut self.outcomes);
            }
        }
    }

    /// What the sockets hold this moment, without waiting and without believing anybody's readiness: finished
    /// connects and writes, and one `recv` per open connection. To be handled before a deadline is delivered.
    pub fn drain(&mut self) -> Vec<Event> {
        let Connections { open, outcomes, scratch, .. } = self;
        open.retain(|id, connection| connection.turn(*id, &mut Turn::Direct, scratch, outcomes));
        std::mem::take(&mut self.outcomes)
    }

    /// Waits until every closed connection has been flushed and ended, at most [`CLOSE_PATIENCE`]: the last thing
    /// before the process exits. Events of connections still open stay for [`next`](Self::next).
    pub async fn finish_closing(&mut self) {
        while !self.closing.is_empty() {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = poll_fn(|context| self.poll_closing(context)) => {}
                () = sleep_until(wake) => {}
            }
            self.forget_expired(Instant::now());
        }
    }

    /// How many connections are open or being made (closing ones not counted).
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One turn: ready when it produced an outcome.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Connections { open, closing, outcomes, scratch, .. } = self;
        open.retain(|id, connection| connection.turn(*id, &mut Turn::Ready(context), scratch, outcomes));
        closing.retain_mut(|closing| closing.poll_turn(context, scratch));
        if self.accept_again.is_none() {
            self.poll_accept(context);
        }
        if self.outcomes.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Ready when no connection is closing any more.
    fn poll_closing(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Connections { closing, scratch, .. } = self;
        closing.retain_mut(|closing| closing.poll_turn(context, scratch));
        if closing.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// At most one new connection per listener.
    fn poll_accept(&mut self, context: &mut Context<'_>) {
        for listener in self.listeners.values() {
            let accepted = poll_read(listener, context, |listener| listener.accept());
            let Poll::Ready(result) = accepted else { continue };
            let begun = result.map_err(Unheard::Failed);
            match begun
                .and_then(|(socket, remote)| begin_accepted(socket, &remote, &self.protections, &self.called))
            {
                Ok((socket, local, remote)) => {
                    self.accepted += 1;
                    let id = ConnectionId::Accepted(self.accepted);
                    let peer = (remote.ip(), interface_of(remote));
                    self.open.insert(id, Connection::open(socket, remote.to_string(), peer));
                    self.outcomes.push(Event::Accepted { connection: id, local, remote });
                }
                Err(Unheard::TurnedAway(remote, why)) => {
                    self.outcomes.push(Event::TurnedAway { remote, why });
                }
                Err(Unheard::Failed(error)) => {
                    // The peer may have gone again before we looked: nothing to report, look for the next one. Without
                    // descriptors the queue stays full, so looking again at once would only burn the processor.
                    if kind_of(&error) == FailureKind::Exhausted {
                        self.accept_again = Some(Instant::now() + ACCEPT_REST);
                    } else {
                        context.waker().wake_by_ref();
                    }
                }
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let connecting = self.open.values().filter_map(Connection::give_up);
        self.closing.iter().map(Closing::deadline).chain(self.accept_again).chain(connecting).min()
    }

    fn forget_expired(&mut self, now: Instant) {
        self.closing.retain(|closing| closing.deadline() > now);
        let Connections { open, outcomes, .. } = self;
        open.retain(|id, connection| match connection.give_up().filter(|give_up| *give_up <= now) {
            Some(_) => {
                outcomes.push(Event::ConnectFailed { connection: *id, failure: connection.unanswered() });
                false
            }
            None => true,
        });
        if self.accept_again.is_some_and(|rest| rest <= now) {
            self.accept_again = None;
        }
    }
}

fn connection_of(event: &Event) -> Option<ConnectionId> {
    match event {
        Event::Connected { connection, .. }
        | Event::ConnectFailed { connection, .. }
        | Event::Accepted { connection, .. }
        | Event::Received { connection, .. }
        | Event::Sent { connection }
        | Event::Closed { connection, .. } => Some(*connection),
        _ => None,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The interface that an address belongs to, where it says so.
fn interface_of(address: SocketAddr) -> Option<String> {
    let SocketAddr::V6(address) = address else { return None };
    let name = nix::net::if_::if_indextoname(address.scope_id()).ok()?;
    name.into_string().ok()
}

fn protection_of<'a>(
    protections: &'a BTreeMap<Whose, Protection>,
    address: IpAddr,
    interface: Option<&str>,
) -> Option<(&'a Whose, &'a Protection)> {
    let peer = (address, interface.map(str::to_owned));
    // One that names the address says more than one that names the link.
    protections.iter().filter(|(whose, _)| whose.is(&peer)).max_by_key(|(whose, _)| whose.names_address())
}

/// The listener of the program before this one.
#[derive(Debug)]
struct Inherited {
    address: SocketAddr,
    socket: Socket,
    /// It has had keys for them.
    signers: BTreeSet<IpAddr>,
}

/// Why an accepted connection is none.
enum Unheard {
    Failed(io::Error),
    TurnedAway(SocketAddr, Rejection),
}

impl From<io::Error> for Unheard {
    fn from(error: io::Error) -> Unheard {
        Unheard::Failed(error)
    }
}

/// `10.0.0.1:179`, or `[fe80::1%eth0]:179`.
fn endpoint_name(remote: &Endpoint) -> String {
    match (remote.address, &remote.interface) {
        (IpAddr::V6(address), Some(interface)) => format!("[{address}%{interface}]:{}", remote.port),
        (address, _) => SocketAddr::new(address, remote.port).to_string(),
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn begin_connect(
    remote: &Endpoint,
    ttl: Option<u8>,
    source: Option<IpAddr>,
    protection: &Protection,
) -> io::Result<AsyncFd<Socket>> {
    let mut address = SocketAddr::new(remote.address, remote.port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    options::set_common(&socket, address.is_ipv6())?;
    if let Some(ttl) = ttl {
        options::set_ttl(&socket, ttl)?;
    }
    protection.guard(&socket, remote.address)?;
    if let Some(source) = source {
        socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    }
    match (remote.address, &remote.interface) {
        (IpAddr::V6(ip), Some(interface)) if ip.is_unicast_link_local() => {
            let scope = nix::net::if_::if_nametoindex(interface.as_str())?;
            address = SocketAddrV6::new(ip, remote.port, 0, scope).into();
        }
        (_, Some(interface)) => socket.bind_device(Some(interface.as_bytes()))?,
        (_, None) => {}
    }
    // Registered only after connect: epoll reports a socket that was never connected as hung up.
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    watch(socket)
}

fn begin_accepted(
    socket: Socket,
    remote: &SockAddr,
    protections: &BTreeMap<Whose, Protection>,
    called: &BTreeMap<String, IpAddr>,
) -> Result<(AsyncFd<Socket>, SocketAddr, SocketAddr), Unheard> {
    let not_ip = || io::Error::from(io::ErrorKind::Unsupported);
    let remote = remote.as_socket().ok_or_else(not_ip)?;
    let local = socket.local_addr()?.as_socket().ok_or_else(not_ip)?;
    socket.set_nonblocking(true)?;
    options::set_common(&socket, remote.is_ipv6())?;
    let interface = interface_of(remote);
    let address = remote.ip().to_canonical();
    if let Some((whose, protection)) = protection_of(protections, address, interface.as_deref()) {
        protection.hold_to_interface(&socket).map_err(|why| Unheard::TurnedAway(remote, why))?;
        if protection.md5_key.is_some() && whose.address(called) != Some(address) {
            // The listener had no key to check its signatures with.
            return Err(Unheard::TurnedAway(remote, Rejection::Unsigned));
        }
        // It has the key from the listener, unless it stood before the listener had one: then nothing more is heard of it.
        protection.guard(&socket, address)?;
    }
    Ok((watch(socket)?, local, remote))
}
