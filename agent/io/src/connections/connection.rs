//! One TCP connection: being made, open, or on its way out.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::task::{Context, Poll, ready};

use anyvip_bgp::{ConnectionId, Event};
use anyvip_machine::Failure;
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::options;

/// What a turn believes: tokio's readiness (and leaves its waker), or only the socket itself.
pub(super) enum Turn<'a, 'b> {
    Ready(&'a mut Context<'b>),
    Direct,
}

/// A connection that the speaker knows.
#[derive(Debug)]
pub(super) struct Connection {
    socket: AsyncFd<Socket>,
    /// The remote end, for people.
    remote: String,
    /// Its address, and the interface where one was named or the address needs it.
    peer: (IpAddr, Option<String>),
    connecting: Option<Connecting>,
    unsent: Unsent,
    /// Writing failed with this. What the peer said before it went is still read; then this is how it ended.
    failure: Option<Failure>,
}

/// A connection that does not stand yet.
#[derive(Debug)]
struct Connecting {
    give_up: Instant,
    /// What the peer's silence may mean.
    suspicion: &'static str,
}

/// Bytes that the kernel has not taken yet.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    written: usize,
    /// How many sends these bytes were; each is answered by one `Sent`.
    sends: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn push(&mut self, bytes: Vec<u8>) {
        self.sends += 1;
        if self.is_empty() {
            self.bytes = bytes;
            self.written = 0;
        } else {
            self.bytes.extend_from_slice(&bytes);
        }
    }

    /// Writes until all is written (then returns how many sends that was) or the kernel takes no more.
    fn write(&mut self, socket: &Socket) -> io::Result<usize> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
                Ok(taken) => self.written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes = Vec::new();
        self.written = 0;
        Ok(std::mem::take(&mut self.sends))
    }
}

impl Connection {
    pub(super) fn connecting(
        socket: AsyncFd<Socket>,
        remote: String,
        peer: (IpAddr, Option<String>),
        give_up: Instant,
        suspicion: &'static str,
    ) -> Connection {
        let connecting = Some(Connecting { give_up, suspicion });
        Connection { connecting, ..Connection::open(socket, remote, peer) }
    }

    pub(super) fn open(
        socket: AsyncFd<Socket>,
        remote: String,
        peer: (IpAddr, Option<String>),
    ) -> Connection {
        Connection { socket, remote, peer, connecting: None, unsent: Unsent::default(), failure: None }
    }

    /// The other end.
    pub(super) fn peer(&self) -> &(IpAddr, Option<String>) {
        &self.peer
    }

    /// When to stop waiting for it to stand; `None` if it does.
    pub(super) fn give_up(&self) -> Option<Instant> {
        self.connecting.as_ref().map(|connecting| connecting.give_up)
    }

    /// How it ends when nobody has answered until then.
    pub(super) fn unanswered(&self) -> Failure {
        let error = io::Error::from(io::ErrorKind::TimedOut);
        options::connect_failure(&self.remote, &error, self.suspicion())
    }

    fn suspicion(&self) -> &'static str {
        self.connecting.as_ref().map_or("", |connecting| connecting.suspicion)
    }

    pub(super) fn socket(&self) -> &Socket {
        self.socket.get_ref()
    }

    /// Takes bytes over and writes what can be written; returns how many sends are done by that.
    pub(super) fn send(&mut self, bytes: Vec<u8>) -> usize {
        let waiting = !self.unsent.is_empty() || self.connecting.is_some();
        self.unsent.push(bytes);
        if waiting || self.failure.is_some() {
            return 0;
        }
        let result = self.unsent.write(self.socket.get_ref());
        self.written(result)
    }

    fn written(&mut self, result: io::Result<usize>) -> usize {
        match result {
            Ok(sends) => sends,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                self.failure = Some(options::broken(&self.remote, &error));
                0
            }
        }
    }

    /// Does what can be done without waiting: finish the connect, write the remainder, one `recv`. Returns whether
    /// the connection lives on.
    pub(super) fn turn(
        &mut self,
        id: ConnectionId,
        turn: &mut Turn<'_, '_>,
        scratch: &mut [u8],
        outcomes: &mut Vec<Event>,
    ) -> bool {
        if self.connecting.is_some() {
            match self.poll_connect(turn) {
                Poll::Pending => return true,
                Poll::Ready(Ok((local, remote))) => {
                    self.connecting = None;
                    outcomes.push(Event::Connected { connection: id, local, remote });
                }
                Poll::Ready(Err(error)) => {
                    let failure = options::connect_failure(&self.remote, &error, self.suspicion());
                    outcomes.push(Event::ConnectFailed { connection: id, failure });
                    return false;
                }
            }
        }
        if !self.unsent.is_empty() && self.failure.is_none() {
            let (unsent, socket) = (&mut self.unsent, &self.socket);
            let result = match turn {
                Turn::Ready(context) => poll_write(socket, context, |socket| unsent.write(socket)),
                Turn::Direct => Poll::Ready(unsent.write(socket.get_ref())),
            };
            if let Poll::Ready(result) = result {
                let sent = self.written(result);
                outcomes.extend(std::iter::repeat_n(Event::Sent { connection: id }, sent));
            }
        }
        self.receive(id, turn, scratch, outcomes)
    }

    fn poll_connect(&self, turn: &mut Turn<'_, '_>) -> Poll<io::Result<(SocketAddr, SocketAddr)>> {
        match turn {
            Turn::Ready(context) => poll_write(&self.socket, context, ends),
            Turn::Direct => pending_if_blocked(ends(self.socket.get_ref())),
        }
    }

    fn receive(
        &mut self,
        id: ConnectionId,
        turn: &mut Turn<'_, '_>,
        scratch: &mut [u8],
        outcomes: &mut Vec<Event>,
    ) -> bool {
        // After a failed write nobody will tell that there is something to read: look.
        let received = match turn {
            Turn::Ready(context) if self.failure.is_none() => {
                poll_read(&self.socket, context, |socket| receive(socket, scratch))
            }
            _ if self.failure.is_none() => pending_if_blocked(receive(self.socket.get_ref(), scratch)),
            _ => Poll::Ready(receive(self.socket.get_ref(), scratch)),
        };
        let end = match received {
            Poll::Pending => return true,
            Poll::Ready(Ok(length)) if length > 0 => {
                let bytes = scratch.get(..length).unwrap_or_default().to_vec();
                outcomes.push(Event::Received { connection: id, bytes });
                return true;
            }
            Poll::Ready(Ok(_)) => options::closed(&self.remote),
            Poll::Ready(Err(error)) => options::broken(&self.remote, &error),
        };
        outcomes.push(Event::Closed { connection: id, failure: self.failure.take().unwrap_or(end) });
        false
    }

    /// Hands over what is left to do before the socket may go; `None` if nothing is.
    pub(super) fn close(self, deadline: Instant) -> Option<Closing> {
        if self.connecting.is_some() || self.failure.is_some() {
            return None;
        }
        let mut closing = Closing { socket: self.socket, unsent: self.unsent, shut: false, deadline };
        closing.flush_now().then_some(closing)
    }
}

/// A connection that the speaker has forgotten and whose last bytes are still under way.
#[derive(Debug)]
pub(super) struct Closing {
    socket: AsyncFd<Socket>,
    unsent: Unsent,
    /// Our direction is shut down.
    shut: bool,
    deadline: Instant,
}

impl Closing {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    fn flush_now(&mut self) -> bool {
        match self.unsent.write(self.socket.get_ref()) {
            Ok(_) => self.shut_down(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn shut_down(&mut self) -> bool {
        self.shut = true;
        self.socket.get_ref().shutdown(Shutdown::Write).is_ok()
    }

    /// Flushes, shuts down, reads and throws away. Returns whether there is more to wait for.
    pub(super) fn poll_turn(&mut self, context: &mut Context<'_>, scratch: &mut [u8]) -> bool {
        if !self.shut {
            let (unsent, socket) = (&mut self.unsent, &self.socket);
            match poll_write(socket, context, |socket| unsent.write(socket)) {
                Poll::Pending => {}
                Poll::Ready(Ok(_)) => {
                    if !self.shut_down() {
                        return false;
                    }
                }
                Poll::Ready(Err(_)) => return false,
            }
        }
        match poll_read(&self.socket, context, |socket| receive(socket, scratch)) {
            Poll::Pending => true,
            // Once per turn, so that a peer that never stops sending does not hold up the others.
            Poll::Ready(Ok(length)) if length > 0 => {
                context.waker().wake_by_ref();
                true
            }
            Poll::Ready(_) => false,
        }
    }
}

/// Both ends of a connection that stands; `WouldBlock` while it is being made.
fn ends(socket: &Socket) -> io::Result<(SocketAddr, SocketAddr)> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    let remote = socket.peer_addr().map_err(|error| match error.kind() {
        io::ErrorKind::NotConnected => io::ErrorKind::WouldBlock.into(),
        _ => error,
    })?;
    let not_ip = || io::Error::from(io::ErrorKind::Unsupported);
    Ok((socket.local_addr()?.as_socket().ok_or_else(not_ip)?, remote.as_socket().ok_or_else(not_ip)?))
}

fn receive(mut socket: &Socket, scratch: &mut [u8]) -> io::Result<usize> {
    loop {
        match io::Read::read(&mut socket, scratch) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn pending_if_blocked<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// Attempts a read whenever tokio thinks it may work; pending (and woken later) while it would block.
pub(crate) fn poll_read<T>(
    socket: &AsyncFd<Socket>,
    context: &mut Context<'_>,
    mut attempt: impl FnMut(&Socket) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        let mut guard = ready!(socket.poll_read_ready(context))?;
        match attempt(guard.get_inner()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            result => return Poll::Ready(result),
        }
    }
}

fn poll_write<T>(
    socket: &AsyncFd<Socket>,
    context: &mut Context<'_>,
    mut attempt: impl FnMut(&Socket) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        let mut guard = ready!(socket.poll_write_ready(context))?;
        match attempt(guard.get_inner()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            result => return Poll::Ready(result),
        }
    }
}
