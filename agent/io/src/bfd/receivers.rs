//! The ports on which packets come in, and what the kernel says of how they came.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyvip_bfd::boundary::Path;
use anyvip_bfd::{Arrival, Hops};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// RFC 5881 §4.
pub(super) const SINGLE_HOP: u16 = 3784;
/// RFC 5883 §5.
pub(super) const MULTIHOP: u16 = 4784;
/// Room for what comes while this thread does not get the processor.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The port of a path's packets.
pub(super) fn port_of(path: &Path) -> u16 {
    match path.hops {
        Hops::Single => SINGLE_HOP,
        Hops::Multi { .. } => MULTIHOP,
    }
}

/// One port of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) ipv6: bool,
    pub(super) port: u16,
}

impl Port {
    pub(super) fn of(path: &Path) -> Port {
        Port { ipv6: path.remote.is_ipv6(), port: port_of(path) }
    }
}

/// An open port.
#[derive(Debug)]
pub(super) struct Receiver {
    socket: Socket,
    multihop: bool,
    control: Vec<u8>,
    buffer: [u8; 512],
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Receiver {
    pub(super) fn open(port: Port) -> io::Result<Receiver> {
        let (domain, any): (_, IpAddr) = if port.ipv6 {
            (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())
        } else {
            (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into())
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Less than asked for where the host allows no more.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        if port.ipv6 {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        socket.bind(&SocketAddr::new(any, port.port).into())?;
        let control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        Ok(Receiver { socket, multihop: port.port == MULTIHOP, control, buffer: [0; 512] })
    }

    /// The next datagram, if there is one.
    pub(super) fn receive(&mut self, interfaces: &mut Interfaces) -> Option<(Arrival, Vec<u8>)> {
        loop {
            let mut space = [IoSliceMut::new(&mut self.buffer)];
            let fd = self.socket.as_raw_fd();
            let control = Some(self.control.as_mut_slice());
            let message = match recvmsg::<SockaddrStorage>(fd, &mut space, control, MsgFlags::MSG_DONTWAIT) {
                Ok(message) => message,
                Err(Errno::EINTR) => continue,
                // Nothing more, or an error of the past that is none of ours.
                Err(_) => return None,
            };
            let (mut local, mut index, mut ttl) = (None, 0, None);
            for note in message.cmsgs().into_iter().flatten() {
                match note {
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                        index = u32::try_from(info.ipi_ifindex).unwrap_or(0);
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                        index = info.ipi6_ifindex;
                    }
                    ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => {
                        ttl = u8::try_from(hops).ok();
                    }
                    _ => {}
                }
            }
            let sender = message.address.and_then(|address| {
                let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
            });
            let length = message.bytes;
            let (Some(remote), Some(local)) = (sender, local) else { continue };
            let arrival =
                Arrival { remote, local, interface: interfaces.name(index), ttl, multihop: self.multihop };
            return Some((arrival, self.buffer.get(..length).unwrap_or_default().to_vec()));
        }
    }
}

/// Names of interfaces, where any session asks for them.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    asked_for: bool,
    known: BTreeMap<u32, String>,
}

impl Interfaces {
    /// Forgets, as interfaces can come and go.
    pub(super) fn renew(&mut self, asked_for: bool) {
        self.asked_for = asked_for;
        self.known.clear();
    }

    fn name(&mut self, index: u32) -> Option<String> {
        if !self.asked_for || index == 0 {
            return None;
        }
        if let Some(name) = self.known.get(&index) {
            return Some(name.clone());
        }
        let name = nix::net::if_::if_indextoname(index).ok()?.into_string().ok()?;
        self.known.insert(index, name.clone());
        Some(name)
    }
}
