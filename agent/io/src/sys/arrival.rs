//! Through which interface a connection came (`IP_PKTOPTIONS`, `IPV6_2292PKTOPTIONS` of Linux, which remember it for TCP).

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket};

/// `IPV6_2292PKTOPTIONS` and `IPV6_2292PKTINFO` of linux/in6.h.
const IPV6_2292PKTOPTIONS: libc::c_int = 6;
const IPV6_2292PKTINFO: libc::c_int = 2;
/// `struct cmsghdr`, whose data follow without a gap.
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
/// Where the number of the interface stands in `struct in_pktinfo` and `struct in6_pktinfo`.
const INDEX_AT: usize = 0;
const INDEX6_AT: usize = 16;

/// The number of the interface through which an accepted connection came; that of the VRF where there is one.
pub(crate) fn came_through(socket: &Socket) -> io::Result<u32> {
    let ipv6 = socket.domain()? == Domain::IPV6;
    let (level, wish, answer, at) = match ipv6 {
        true => (libc::IPPROTO_IPV6, IPV6_2292PKTINFO, IPV6_2292PKTOPTIONS, INDEX6_AT),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_PKTOPTIONS, INDEX_AT),
    };
    let on: libc::c_int = 1;
    let mut octets = [0_u8; 256];
    let mut length = libc::socklen_t::try_from(octets.len()).unwrap_or_default();
    let on_length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open as long as `socket` is borrowed; the kernel reads one `c_int`, and writes at most `length`
    // octets into `octets` and how many into `length`.
    let done = unsafe {
        match libc::setsockopt(socket.as_raw_fd(), level, wish, std::ptr::from_ref(&on).cast(), on_length) {
            0 => libc::getsockopt(
                socket.as_raw_fd(),
                level,
                answer,
                octets.as_mut_ptr().cast(),
                std::ptr::from_mut(&mut length),
            ),
            refused => refused,
        }
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // The only message that was asked for.
    let told = octets.get(..usize::try_from(length).unwrap_or_default());
    let index = told.and_then(|told| told.get(HEADER_LEN + at..)).and_then(<[u8]>::first_chunk);
    index.map(|index| u32::from_ne_bytes(*index)).ok_or_else(|| io::ErrorKind::Unsupported.into())
}
