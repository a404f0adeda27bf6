//! Descriptors of processes: readable once the process has ended, whether or not it was reaped.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Opens the process with this id. The caller must not have reaped it, or the id may be somebody else's.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    let none = 0;
    // SAFETY: pidfd_open takes two plain numbers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, none) };
    match RawFd::try_from(result) {
        // SAFETY: the kernel just gave us this descriptor (close-on-exec) and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
