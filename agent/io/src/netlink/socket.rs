//! Blocking requests and dumps on one netlink socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyvip_machine::{Failure, FailureKind};
use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::message::{Message, attributes};
use crate::failure::{kind_of, said};

/// Larger than any dump chunk (32 KiB) and than one link with many virtual functions.
const BUFFER: usize = 64 * 1024;
/// Answers are there when `send` returns; this only bounds a kernel that does not behave so.
const PATIENCE_SECS: i64 = 5;

/// A socket for requests, used by one thread at a time.
#[derive(Debug)]
pub(super) struct RequestSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The kernel's no.
#[derive(Debug)]
pub(super) struct Refusal {
    error: io::Error,
    /// The kernel's own explanation, where it gives one.
    explanation: Option<String>,
}

impl Refusal {
    pub(super) fn kind(&self) -> FailureKind {
        kind_of(&self.error)
    }

    /// As a failure of `what` ("cannot add 192.0.2.1/32 to interface 1").
    pub(super) fn failure(&self, what: &str) -> Failure {
        let mut text = format!("{what}: {}", said(&self.error));
        if let Some(explanation) = &self.explanation {
            text = format!("{text} ({explanation})");
        } else if self.kind() == FailureKind::PermissionDenied {
            text.push_str(" (CAP_NET_ADMIN is needed)");
        }
        Failure::new(self.kind(), text)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { error, explanation: None }
    }
}

impl RequestSocket {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<RequestSocket> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        setsockopt(&borrow(&socket), sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_SECS, 0))?;
        Ok(RequestSocket { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Asks for a change and waits for the ACK.
    pub(super) fn change(&mut self, message: Message) -> Result<(), Refusal> {
        self.exchange(message, |_| {}).map(|_| ())
    }

    /// Asks for one object or a dump, hands each answer's payload over, and returns whether the answer is whole: a dump during
    /// which things changed (NLM_F_DUMP_INTR) is not.
    pub(super) fn ask(&mut self, message: Message, each: impl FnMut(&[u8])) -> Result<bool, Refusal> {
        self.exchange(message, each)
    }

    fn exchange(&mut self, message: Message, mut each: impl FnMut(&[u8])) -> Result<bool, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.into_bytes(self.sequence);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), libc::MSG_NOSIGNAL)?;
        let mut whole = true;
        loop {
            let length = receive(&self.socket, &mut self.buffer, MsgFlags::empty())?;
            for (header, payload) in messages(self.buffer.get(..length).unwrap_or_default()) {
                if header.sequence_number() != self.sequence {
                    continue;
                }
                whole &= header.flags() & NLM_F_DUMP_INTR == 0;
                match header.message_type() {
                    NLMSG_DONE => return verdict(payload, 4, header.flags()).map(|()| whole),
                    NLMSG_ERROR => return verdict(payload, 20, header.flags()).map(|()| whole),
                    _ => {
                        each(payload);
                        // Neither ACK nor DONE follows the answer to a plain get.
                        if header.flags() & netlink_packet_core::NLM_F_MULTIPART == 0 {
                            return Ok(whole);
                        }
                    }
                }
            }
        }
    }
}

/// The error number that starts an ERROR or DONE message, with the explanation behind its fixed part.
fn verdict(payload: &[u8], fixed: usize, flags: u16) -> Result<(), Refusal> {
    const EXPLANATION: u16 = 1; // NLMSGERR_ATTR_MSG
    let number = payload.get(..4).and_then(|field| field.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if number == 0 {
        return Ok(());
    }
    let explanation = payload
        .get(fixed..)
        .filter(|_| flags & NLM_F_ACK_TLVS != 0)
        .and_then(|tlvs| attributes(tlvs).find(|(kind, _)| *kind == EXPLANATION))
        .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Err(Refusal { error: io::Error::from_raw_os_error(number.saturating_neg()), explanation })
}

/// One datagram. ENOBUFS means that messages were lost.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, flags | MsgFlags::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => {
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            }
            Ok(length) => return Ok(length),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The messages of a datagram: header and payload.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (NetlinkBuffer<&[u8]>, &[u8])> {
    std::iter::from_fn(move || {
        let header = NetlinkBuffer::new_checked(datagram).ok()?;
        let length = usize::try_from(header.length()).ok()?;
        let payload = datagram.get(16..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, payload))
    })
}

pub(super) fn borrow(socket: &Socket) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(socket)
}
