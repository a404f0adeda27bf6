//! Network namespaces: made, entered and named with plain `unshare`, `setns` and a bind mount.
//!
//! A namespace belongs to a thread, and lives as long as a descriptor, a mount or a process holds it. So nothing here ever
//! moves the calling thread: whatever must happen inside happens on a thread of its own. Sockets, and
//! [`Netlink`](crate::netlink::Netlink) and [`Monitor`](crate::netlink::Monitor) with them, belong to the namespace in
//! which they were opened and can be used from anywhere afterwards.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyvip_machine::Failure;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::failure::failed;
use crate::sys::exec;

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

    /// Lets this command run inside; spawn it from anywhere. Whatever mounts it has (`/sys`) stay those of the caller.
    pub fn confine(&self, command: &mut Command) {
        exec::enter_namespace(command, Arc::clone(&self.fd));
    }

    /// Sets a sysctl inside: `net.ipv4.ip_forward`, or `net/ipv4/conf/eth0.5/rp_filter` where a name has a dot.
    ///
    /// # Errors
    /// `NotFound` without such a key in this kernel, or what the kernel says to the value.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), Failure> {
        let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
        self.run(|| std::fs::write(Path::new("/proc/sys").join(path), value))?
            .map_err(|error| failed(format!("cannot set {key} to {value}"), &error))
    }

    /// Gives it a name for `ip netns exec NAME`, until the returned value is dropped.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; when mounting is not permitted.
    pub fn name(&self, name: &str) -> Result<NamespaceName, Failure> {
        let path = Path::new(NAMES).join(name);
        let bind = || -> io::Result<NamespaceName> {
            prepare_names()?;
            OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
            let named = NamespaceName { path: path.clone() };
            let source = format!("/proc/self/fd/{}", self.raw_fd());
            mount(Some(source.as_str()), &path, NONE, MsFlags::MS_BIND, NONE)?;
            Ok(named)
        };
        bind().map_err(|error| failed(format!("cannot name a network namespace {name}"), &error))
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A name in `/run/netns`; goes when dropped.
#[derive(Debug)]
pub struct NamespaceName {
    path: PathBuf,
}

impl NamespaceName {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the name (and with it the namespace) beyond this process; [`remove_name`] ends it.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for NamespaceName {
    fn drop(&mut self) {
        // Nobody is left to tell. What stays is seen by `ip netns`.
        let _ = unbind(&self.path);
    }
}

/// Removes a name from `/run/netns`; the namespace goes when nothing else holds it.
///
/// # Errors
/// `NotFound` without such a name.
pub fn remove_name(name: &str) -> Result<(), Failure> {
    unbind(&Path::new(NAMES).join(name))
        .map_err(|error| failed(format!("cannot remove the network namespace name {name}"), &error))
}

fn unbind(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not a mount: a name whose making was interrupted.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    std::fs::remove_file(path)
}

/// Makes `/run/netns` a shared mount point, as `ip netns add` does, so that both see each other's names.
fn prepare_names() -> io::Result<()> {
    std::fs::create_dir_all(NAMES)?;
    let share = || mount(NONE, NAMES, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    match share() {
        Err(nix::errno::Errno::EINVAL) => {
            mount(Some(NAMES), NAMES, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
            Ok(share()?)
        }
        result => Ok(result?),
    }
}

/// Makes the whole process root of a user namespace of its own, with a network and a mount namespace of its own and an empty
/// `/run`, so that everything here works without privileges. Must come first in `main`, before any thread.
///
/// # Errors
/// Where the system forbids unprivileged user namespaces, or when the process has threads already.
pub fn enter_user_namespace() -> Result<(), Failure> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(
        |errno| {
            let hint = match errno {
                nix::errno::Errno::EINVAL => "the process has threads already",
                _ => "does user.max_user_namespaces, kernel.unprivileged_userns_clone or AppArmor forbid it?",
            };
            let failure = failed("cannot make a user namespace", &errno.into());
            Failure { text: format!("{} ({hint})", failure.text), ..failure }
        },
    )?;
    let settle = || -> io::Result<()> {
        // Without this denial an unprivileged process may not map its group.
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        Ok(mount(Some("tmpfs"), "/run", Some("tmpfs"), safe, Some("mode=755"))?)
    };
    settle().map_err(|error| failed("cannot settle in a user namespace", &error))
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
const NAMES: &str = "/run/netns";
const NONE: Option<&str> = None;

fn open(path: impl AsRef<Path>) -> io::Result<Namespace> {
    Ok(Namespace { fd: Arc::new(File::open(path)?.into()) })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not root: says so, and fails where CI counts on it.
    fn root() -> bool {
        let root = geteuid().is_root();
        if !root {
            assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
            println!("skipped: needs root for a network namespace");
        }
        root
    }

    fn links(namespace: &Namespace) -> String {
        let mut command = Command::new("ip");
        command.args(["-o", "link"]);
        namespace.confine(&mut command);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn the_calling_thread_stays_where_it_is() {
        if !root() {
            return;
        }
        let before = current_id().unwrap();
        let namespace = Namespace::create().unwrap();
        let inside = namespace.run(current_id).unwrap().unwrap();
        assert_ne!(inside, before);
        assert_eq!(current_id().unwrap(), before);
        assert_eq!(namespace.clone().run(current_id).unwrap().unwrap(), inside);
    }

    #[test]
    fn a_child_runs_inside_and_sysctls_are_set_there_only() {
        if !root() {
            return;
        }
        let namespace = Namespace::create().unwrap();
        assert_eq!(links(&namespace).lines().count(), 1, "only lo");
        let key = "/proc/sys/net/ipv4/fib_multipath_hash_policy";
        let outside = std::fs::read_to_string(key).unwrap();
        namespace.set_sysctl("net.ipv4.fib_multipath_hash_policy", "3").unwrap();
        namespace.set_sysctl("net/ipv4/conf/lo/arp_ignore", "1").unwrap();
        assert_eq!(namespace.run(|| std::fs::read_to_string(key).unwrap()).unwrap(), "3\n");
        assert_eq!(std::fs::read_to_string(key).unwrap(), outside);
        let failure = namespace.set_sysctl("net.ipv4.nosuch", "1").unwrap_err();
        assert_eq!(failure.kind, anyvip_machine::FailureKind::NotFound);
    }

    #[test]
    fn a_name_is_known_to_ip_netns_until_it_is_dropped() {
        if !root() {
            return;
        }
        let name = format!("anyvip-io-{}", std::process::id());
        let namespace = Namespace::create().unwrap();
        let named = namespace.name(&name).unwrap();
        let output = Command::new("ip").args(["netns", "exec", &name, "ip", "-o", "link"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
        let twice = namespace.name(&name).unwrap_err();
        assert_eq!(twice.kind, anyvip_machine::FailureKind::AlreadyExists);
        let inside = namespace.run(current_id).unwrap().unwrap();
        drop(namespace);
        assert_eq!(Namespace::open(named.path()).unwrap().run(current_id).unwrap().unwrap(), inside);
        let path = named.path().to_owned();
        drop(named);
        assert!(!path.exists());
        assert_eq!(remove_name(&name).unwrap_err().kind, anyvip_machine::FailureKind::NotFound);
    }

    #[test]
    fn what_panics_inside_panics_outside() {
        if !root() {
            return;
        }
        let namespace = Namespace::create().unwrap();
        let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("inside")));
        assert!(caught.is_err());
    }

    #[test]
    fn a_process_with_threads_cannot_enter_a_user_namespace_and_is_told_so() {
        // The test's own thread and the main thread are two.
        let failure = enter_user_namespace().unwrap_err();
        assert!(failure.text.contains("threads"), "{failure}");
    }
}
