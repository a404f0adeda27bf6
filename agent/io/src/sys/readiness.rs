//! Watching a descriptor with tokio.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Owners of one open descriptor that stays the same until they are dropped.
pub(crate) trait OwnsDescriptor: AsRawFd {}
impl OwnsDescriptor for Socket {}
impl OwnsDescriptor for OwnedFd {}

/// Registers the descriptor with the runtime that is current here, for reading and writing.
pub(crate) fn watch<T: OwnsDescriptor>(owner: T) -> io::Result<AsyncFd<T>> {
    watch_for(owner, Interest::READABLE | Interest::WRITABLE)
}

/// The same, for reading only.
pub(crate) fn watch_reads<T: OwnsDescriptor>(owner: T) -> io::Result<AsyncFd<T>> {
    watch_for(owner, Interest::READABLE)
}

fn watch_for<T: OwnsDescriptor>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `OwnsDescriptor` is implemented above only for owners whose descriptor is open and the same until they
    // are dropped, and the `AsyncFd` owns the owner. Nothing in this crate replaces the owner through `get_mut`.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(io::Error::from)
}
