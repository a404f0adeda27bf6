//! One socket a session: its source port is its own (RFC 5881 §4).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use anyvip_bfd::Discriminator;
use anyvip_bfd::boundary::Path;
use anyvip_machine::{Failure, FailureKind};
use socket2::{Domain, Protocol, Socket, Type};

use super::receivers::port_of;
use crate::failure::{failed, kind_of};

/// RFC 5881 §4: "The source port MUST be in the range 49152 through 65535."
const FIRST_PORT: u32 = 49_152;
const PORTS: u32 = 65_536 - FIRST_PORT;
/// RFC 5881 §5.
const TTL: u32 = 255;
/// Class selector 6, network control (RFC 4594 §3.1), as the traffic class byte.
const CS6: u32 = 0xc0;
/// Nothing is ever read here.
const RECEIVE_BUFFER: usize = 1;

/// The sockets of all sessions.
#[derive(Debug, Default)]
pub(super) struct Senders {
    sessions: BTreeMap<Discriminator, Sender>,
}

#[derive(Debug)]
struct Sender {
    path: Path,
    socket: Option<Socket>,
}

impl Senders {
    pub(super) fn open(&mut self, session: Discriminator, path: Path) {
        self.sessions.insert(session, Sender { path, socket: None });
    }

    pub(super) fn close(&mut self, session: Discriminator) {
        self.sessions.remove(&session);
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.sessions.values().map(|sender| &sender.path)
    }

    /// Sends at once. A socket that failed is made anew for the next packet: addresses and interfaces come and go.
    pub(super) fn send(&mut self, session: Discriminator, bytes: &[u8]) -> Result<(), Failure> {
        let Some(Sender { path, socket }) = self.sessions.get_mut(&session) else { return Ok(()) };
        let mut attempt = || -> io::Result<()> {
            let open = match socket.take() {
                Some(open) => open,
                None => connect(session, path)?,
            };
            match open.send(bytes) {
                // The peer's answer to an earlier packet: nobody listens there. This one was not sent yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let sent = open.send(bytes);
                    *socket = Some(open);
                    return sent.map(drop).and(Err(error));
                }
                // No room on the way out: the next one may have.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            *socket = Some(open);
            Ok(())
        };
        attempt().map_err(|error| said(path, &error))
    }
}

fn said(path: &Path, error: &io::Error) -> Failure {
    let to = path.remote;
    match kind_of(error) {
        FailureKind::Refused => {
            Failure::new(FailureKind::Refused, format!("nobody at {to} listens on port {}", port_of(path)))
        }
        FailureKind::AddressNotAvailable => {
            Failure::new(FailureKind::AddressNotAvailable, format!("no local address to send to {to} from"))
        }
        _ => failed(format!("cannot send to {to}"), error),
    }
}

fn connect(session: Discriminator, path: &Path) -> io::Result<Socket> {
    let (domain, any): (_, IpAddr) = if path.remote.is_ipv6() {
        (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())
    } else {
        (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into())
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    if path.remote.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(TTL)?;
        socket.set_tclass_v6(CS6)?;
    } else {
        socket.set_ttl_v4(TTL)?;
        socket.set_tos_v4(CS6)?;
    }
    let mut scope = 0;
    if let Some(interface) = &path.interface {
        scope = nix::net::if_::if_nametoindex(interface.as_str())?;
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    let address = |address: IpAddr, port: u16| match address {
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope).into(),
        IpAddr::V4(_) => SocketAddr::new(address, port),
    };
    // The number of the session decides where the search begins, so that it is short.
    let local = path.local.unwrap_or(any);
    let mut bound = Ok(());
    for step in 0..PORTS {
        let port = FIRST_PORT + session.get().wrapping_add(step) % PORTS;
        bound = socket.bind(&address(local, u16::try_from(port).unwrap_or(u16::MAX)).into());
        if !matches!(&bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    bound?;
    socket.connect(&address(path.remote, port_of(path)).into())?;
    Ok(socket)
}
