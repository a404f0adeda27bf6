//! What a process does before it becomes another program: a child between fork and exec, or this one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// The child enters this network namespace before it becomes the command.
pub(crate) fn enter_namespace(command: &mut Command, namespace: Arc<OwnedFd>) {
    let enter = move || {
        // SAFETY: setns takes two numbers; the descriptor is kept open by the Arc this closure owns.
        match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this makes one system call, and an
    // `io::Error` made from errno allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// The child is killed when the thread that spawned it ends.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let bind = move || {
        // SAFETY: prctl(PR_SET_PDEATHSIG) takes a number; getppid takes nothing. Neither touches memory.
        let (set, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the signal was asked for; then nobody waits for this command.
        if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    };
    // SAFETY: as above; two system calls, no allocation.
    unsafe { command.pre_exec(bind) };
}

/// Descriptors but 0, 1 and 2 are closed when this process becomes another program.
pub(crate) fn close_all_on_exec() {
    let first: libc::c_uint = 3;
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only marks descriptors, each of which stays open and with its owner. Before Linux
    // 5.11 it is refused, and what was opened close-on-exec, which is all of ours, is closed anyway.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// The command inherits descriptors 0, 1 and 2 and no others, whoever forgot to mark them.
pub(crate) fn inherit_nothing_else(command: &mut Command) {
    let close = || {
        let first: libc::c_uint = 3;
        // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only marks descriptors of this (forked) process. Before
        // Linux 5.11 it is refused, and what was opened close-on-exec, which is all of ours, is closed anyway.
        unsafe {
            libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        }
        Ok(())
    };
    // SAFETY: one system call, no allocation.
    unsafe { command.pre_exec(close) };
}
