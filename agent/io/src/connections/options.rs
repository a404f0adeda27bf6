//! Socket options of a BGP connection, and the words for its failures.

use std::io;

use anyvip_machine::{Failure, FailureKind};
use socket2::Socket;

use crate::failure::{failed, kind_of};

/// Class selector 6, network control (RFC 4594 §3.1), as the traffic class byte.
const CS6: u32 = 0xc0;

pub(super) fn set_common(socket: &Socket, ipv6: bool) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if ipv6 { socket.set_tclass_v6(CS6) } else { socket.set_tos_v4(CS6) }
}

pub(super) fn set_ttl(socket: &Socket, ttl: u8) -> io::Result<()> {
    if socket.domain()? == socket2::Domain::IPV6 {
        socket.set_unicast_hops_v6(ttl.into())
    } else {
        socket.set_ttl_v4(ttl.into())
    }
}

/// `suspicion` says what the peer's silence may mean.
pub(super) fn connect_failure(remote: &str, error: &io::Error, suspicion: &str) -> Failure {
    let kind = kind_of(error);
    let text = match kind {
        FailureKind::Refused => format!("connection refused by {remote}"),
        FailureKind::Reset => format!("{remote} reset the connection while it was being made"),
        FailureKind::TimedOut => format!("{remote} did not answer{suspicion}"),
        FailureKind::Unreachable => format!("{remote} cannot be reached: {}", crate::failure::said(error)),
        FailureKind::AddressNotAvailable => format!("no local address to reach {remote} from"),
        FailureKind::PermissionDenied => format!("not permitted to connect to {remote}"),
        _ => return failed(format!("cannot connect to {remote}"), error),
    };
    Failure::new(kind, text)
}

pub(super) fn broken(remote: &str, error: &io::Error) -> Failure {
    let kind = kind_of(error);
    let text = match kind {
        FailureKind::Reset => format!("{remote} reset the connection"),
        FailureKind::TimedOut => format!("{remote} stopped answering; TCP gave up"),
        _ => return failed(format!("the connection to {remote} broke"), error),
    };
    Failure::new(kind, text)
}

pub(super) fn closed(remote: &str) -> Failure {
    Failure::new(FailureKind::Closed, format!("{remote} closed the connection"))
}
