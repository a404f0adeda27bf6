//! Router advertisements and solicitations on links: one raw ICMPv6 socket an interface.
//!
//! [`Links`] carries out `Action::{Open, Close, Send}` and gives back `Event::{Received, Done}`. Like [`Connections`](crate::Connections)
//! it has no tasks: [`Links::next`] waits for whichever socket is ready and may be dropped at any `await`.
//!
//! The kernel fills in and checks the checksum (RFC 3542 §3.1), takes part in neighbour discovery as it would without us, and does
//! with what it hears whatever `accept_ra` says.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use anyvip_machine::{Failure, FailureKind};
use anyvip_nd::wire::{ADVERTISEMENT, ALL_ROUTERS, HOP_LIMIT, SOLICITATION};
use anyvip_nd::{Event, InterfaceName};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::connections::poll_read;
use crate::failure::{failed, kind_of};
use crate::sys::icmpv6_filter;
use crate::sys::readiness::watch_reads;

/// No router advertises more than a packet of the usual size.
const LONGEST: usize = 2048;

/// The links of an advertiser. See the module's text.
#[derive(Debug, Default)]
pub struct Links {
    links: BTreeMap<InterfaceName, Link>,
    outcomes: Vec<Event>,
}

#[derive(Debug)]
struct Link {
    index: u32,
    /// `None` after something failed; made anew for the next packet.
    socket: Option<AsyncFd<Socket>>,
}

impl Links {
    /// No links.
    pub fn new() -> Links {
        Links::default()
    }

    /// Listens on an interface; `Done` comes out of [`next`](Self::next). Needs a tokio runtime.
    pub fn open(&mut self, interface: InterfaceName, index: u32) {
        let mut link = Link { index, socket: None };
        let result = link.socket(&interface).map(drop);
        self.done(interface.clone(), result, "cannot listen for routers");
        self.links.insert(interface, link);
    }

    /// Listens no longer.
    pub fn close(&mut self, interface: &InterfaceName) {
        self.links.remove(interface);
        self.outcomes.retain(|event| match event {
            Event::Received { interface: of, .. } | Event::Done { interface: of, .. } => of != interface,
            Event::DeadlineReached | Event::Wanted { .. } => true,
        });
    }

    /// Sends at once; `Done` comes out of [`next`](Self::next). An interface that is not open is ignored.
    pub fn send(&mut self, interface: InterfaceName, destination: Ipv6Addr, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&interface) else { return };
        let to = SockAddr::from(SocketAddrV6::new(destination, 0, 0, link.index));
        let sent = link.socket(&interface).and_then(|socket| socket.get_ref().send_to(bytes, &to));
        if sent.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            link.socket = None;
        }
        self.done(interface, sent.map(drop), "cannot send");
    }

    /// Waits until something happened and returns it: never empty, at most one `Received` a link. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Event> {
        if self.outcomes.is_empty() {
            poll_fn(|context| self.poll_turn(context)).await;
        }
        std::mem::take(&mut self.outcomes)
    }

    fn done(&mut self, interface: InterfaceName, result: io::Result<()>, what: &str) {
        let result = result.map_err(|error| match kind_of(&error) {
            FailureKind::PermissionDenied => {
                Failure::new(FailureKind::PermissionDenied, format!("{what}: it takes CAP_NET_RAW"))
            }
            _ => failed(what, &error),
        });
        self.outcomes.push(Event::Done { interface, result });
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for (name, link) in &mut self.links {
            let Some(socket) = &link.socket else { continue };
            match poll_read(socket, context, receive) {
                Poll::Pending => {}
                Poll::Ready(Ok(Some(Heard { source, hop_limit, bytes }))) => {
                    self.outcomes.push(Event::Received { interface: name.clone(), source, hop_limit, bytes });
                }
                // Nothing that could be told from whom it is.
                Poll::Ready(Ok(None)) => context.waker().wake_by_ref(),
                // The interface went down or away.
                Poll::Ready(Err(error)) => {
                    link.socket = None;
                    let result = Err(failed("cannot listen for routers", &error));
                    self.outcomes.push(Event::Done { interface: name.clone(), result });
                }
            }
        }
        if self.outcomes.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Link {
    fn socket(&mut self, name: &InterfaceName) -> io::Result<&AsyncFd<Socket>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => watch_reads(raw_socket(name, self.index)?)?,
        };
        Ok(self.socket.insert(socket))
    }
}

fn raw_socket(name: &InterfaceName, index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    // Before anything can come in that is not asked for.
    icmpv6_filter::pass_only(&socket, &[SOLICITATION, ADVERTISEMENT])?;
    socket.bind_device(Some(name.0.as_bytes()))?;
    // RFC 4861 §6.1: everything is sent with it.
    socket.set_multicast_hops_v6(u32::from(HOP_LIMIT))?;
    socket.set_unicast_hops_v6(u32::from(HOP_LIMIT))?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_if_v6(index)?;
    setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
    // Solicitations go to all routers, which a host does not listen to by itself.
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    Ok(socket)
}

/// One message.
struct Heard {
    source: Ipv6Addr,
    hop_limit: Option<u8>,
    bytes: Vec<u8>,
}

fn receive(socket: &Socket) -> io::Result<Option<Heard>> {
    let mut buffer = vec![0; LONGEST];
    let mut control = nix::cmsg_space!(libc::c_int);
    let mut space = [IoSliceMut::new(&mut buffer)];
    let message = loop {
        match recvmsg::<SockaddrIn6>(
            socket.as_raw_fd(),
            &mut space,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        ) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let hop_limit = message.cmsgs().into_iter().flatten().find_map(|note| match note {
        ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
        _ => None,
    });
    let (source, length) = (message.address.map(|address| address.ip()), message.bytes);
    buffer.truncate(length);
    Ok(source.map(|source| Heard { source, hop_limit, bytes: buffer }))
}
