//! When a thread gets the processor.

use std::io;

/// Lets the calling thread run before all ordinary ones whenever it has something to do (SCHED_FIFO at the lowest of the
/// real-time priorities). Its children are ordinary.
pub(crate) fn run_first() -> io::Result<()> {
    let this_thread = 0;
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one `sched_param`, which lives until the call has returned. Called directly, because the
    // function of this name in musl does nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, this_thread, policy, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
