//! Listening sockets that outlive the program which opened them.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{SockRef, Socket, Type};

/// Whether listening TCP sockets stay open when this process becomes another program, whatever was said of them before.
pub(crate) fn keep_on_exec(keep: bool) {
    for number in descriptors() {
        with_listener(number, |socket| {
            let _ = socket.set_cloexec(!keep);
        });
    }
}

/// Listening TCP sockets that the program before this one left open.
pub(crate) fn left_open() -> Vec<Socket> {
    let inherited = |number: &RawFd| with_listener(*number, is_left_open) == Some(true);
    let numbers: Vec<RawFd> = descriptors().into_iter().filter(inherited).collect();
    let own = |number: RawFd| {
        // SAFETY: the descriptor is open, and not close-on-exec as every one is that this program opened, the standard library and its
        // crates included. So nothing in this program owns it, and once it is marked below it is not found a second time.
        let socket = unsafe { Socket::from_raw_fd(number) };
        let _ = socket.set_cloexec(true);
        socket
    };
    numbers.into_iter().map(own).collect()
}

fn is_left_open(socket: &SockRef<'_>) -> bool {
    // SAFETY: the number is that of a socket which the caller holds borrowed; only a flag is read.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    fcntl(descriptor, FcntlArg::F_GETFD).is_ok_and(|flags| flags & FdFlag::FD_CLOEXEC.bits() == 0)
}

/// Behind the standard streams.
fn descriptors() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| *number > 2).collect()
}

/// What `ask` says of it, if it is a TCP socket that listens.
fn with_listener<T>(number: RawFd, ask: impl FnOnce(&SockRef<'_>) -> T) -> Option<T> {
    // SAFETY: only asked and marked, never read, written or closed. Should its owner close it meanwhile, the kernel says so, or speaks
    // of another one that has the number by then.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = SockRef::from(&descriptor);
    let is_tcp = socket.r#type().ok() == Some(Type::STREAM)
        && socket.local_addr().is_ok_and(|address| address.as_socket().is_some());
    (is_tcp && socket.is_listener().unwrap_or(false)).then(|| ask(&socket))
}
