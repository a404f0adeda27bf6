//! Network namespaces: made, entered and named with plain `unshare`, `setns` and a bind mount.
//!
//! A namespace belongs to a thread, and lives as long as a descriptor, a mount or a process holds it. So nothing here ever
//! moves the calling thread: whatever must happen inside happens on a thread of its own. Sockets, and
//! [`Netlink`](crate::netlink::Netlink) and [`Monitor`](crate::netlink::Monitor) with them, belong to the namespace in
//! which they were opened and can be used from anywhere afterwards.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyvip_machine::Failure;
use nix::sched::{CloneFlags, setns, unshare};

use crate::failure::failed;

/// A network namespace, held open. Copies hold the same one.
#[derive(Clone, Debug)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// A new, empty namespace; its loopback is down. It goes when nothing holds it any more.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN (in the user namespace), or when the limit of namespaces is reached.
    pub fn create() -> Result<Namespace, Failure> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            open(OWN)
        })
        .map_err(|error| failed("cannot make a network namespace", &error))
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When descriptors have run out, or /proc is not mounted.
    pub fn current() -> Result<Namespace, Failure> {
        open(OWN).map_err(|error| failed("cannot open the own network namespace", &error))
    }

    /// One that has a path: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Namespace, Failure> {
        let path = path.as_ref();
        open(path).map_err(|error| failed(format!("cannot open {}", path.display()), &error))
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. What panics inside panics here.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        on_a_thread(|| {
            setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(|error| failed("cannot enter a network namespace", &error))
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The number by which the kernel knows the calling thread's network namespace; the same for all who share it.
///
/// # Errors
/// When /proc is not mounted.
pub fn current_id() -> Result<u64, Failure> {
    std::fs::metadata(OWN)
        .map(|metadata| metadata.ino())
        .map_err(|error| failed("cannot look at the own network namespace", &error))
}

const OWN: &str = "/proc/thread-self/ns/net";

fn open(path: impl AsRef<Path>) -> io::Result<Namespace> {
    Ok(Namespace { fd: Arc::new(File::open(path)?.into()) })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
