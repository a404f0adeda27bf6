//! This process as a whole: who it is, and how it becomes another program without ending.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyvip_machine::{Failure, FailureKind};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::failure::{failed, kind_of};
use crate::sys::{exec, listeners};

/// Becomes `program`: same process, same standard streams, listening TCP sockets for [`listeners_left`], every other descriptor closed.
/// Returns only when that cannot be; then nothing has changed.
pub fn replace(program: &Path, arguments: &[OsString]) -> Failure {
    let text = |text: &OsStr| CString::new(text.as_bytes()).ok();
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_encoded_bytes(), value.into_encoded_bytes());
        CString::new([name, value].join(&b'=')).ok()
    });
    let environment: Vec<CString> = environment.collect();
    let arguments: Option<Vec<CString>> = arguments.iter().map(|argument| text(argument)).collect();
    let (Some(path), Some(arguments)) = (text(program.as_os_str()), arguments) else {
        return Failure::new(FailureKind::Other, "a path or argument contains a zero byte");
    };
    // Whoever forgot to mark a descriptor: a session must end with this program.
    exec::close_all_on_exec();
    listeners::keep_on_exec(true);
    match nix::unistd::execve(&path, &arguments, &environment) {
        Ok(never) => match never {},
        Err(errno) => {
            // One by one: before Linux 5.11 nothing marks all of them.
            listeners::keep_on_exec(false);
            let error = io::Error::from_raw_os_error(errno as i32);
            failed(format!("cannot become {}", program.display()), &error)
        }
    }
}

/// Listening TCP sockets of the program that this process was before, by address: whoever connected meanwhile waits in them. Before this
/// program opens any of its own.
pub fn listeners_left() -> BTreeMap<SocketAddr, TcpListener> {
    let left = listeners::left_open().into_iter();
    left.filter_map(|socket| Some((socket.local_addr().ok()?.as_socket()?, TcpListener::from(socket))))
        .collect()
}

/// Whether there is such a process, and it has not ended.
pub fn lives(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state stands behind the name in parentheses, which may hold anything. A zombie has ended.
        Ok(stat) => !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Number and start time: no other process of this boot has both, whatever program it runs.
///
/// # Errors
/// When `/proc` does not say.
pub fn identity() -> Result<(u32, u64), Failure> {
    let path = "/proc/self/stat";
    let stat =
        std::fs::read_to_string(path).map_err(|error| failed(format!("cannot read {path}"), &error))?;
    // The name in parentheses may hold anything; the start time is field 22, fields are counted from behind it.
    let behind = stat.rfind(')').and_then(|at| stat.get(at + 1..));
    let started = behind.and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok());
    match started {
        Some(started) => Ok((std::process::id(), started)),
        None => Err(Failure::new(FailureKind::Other, format!("{path} cannot be understood"))),
    }
}

/// Time since this boot, also that in which the host was suspended. The same for all processes.
///
/// # Errors
/// When the kernel has no such clock.
pub fn since_boot() -> Result<Duration, Failure> {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => Ok(Duration::from(time)),
        Err(errno) => {
            let error = io::Error::from_raw_os_error(errno as i32);
            Err(Failure::new(kind_of(&error), format!("cannot read the clock since boot: {error}")))
        }
    }
}

/// Children of the program that this process was before: nobody else waits for their end.
#[derive(Debug, Default)]
pub struct Leftovers(Vec<Pid>);

impl Leftovers {
    /// Those that there are now, before this program has started any of its own.
    pub fn find() -> Leftovers {
        let path = format!("/proc/self/task/{}/children", std::process::id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
        Leftovers(pids.map(Pid::from_raw).collect())
    }

    /// How many there are still.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits for none, and takes the end of those that have ended.
    pub fn reap(&mut self) {
        self.0.retain(|pid| {
            let ended = waitid(Id::Pid(*pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
            ended == Ok(WaitStatus::StillAlive)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Between the attempt to become another program and its failure listeners look left open.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let (pid, started) = identity().unwrap();
        assert_eq!(pid, std::process::id());
        assert!(started > 0);
        assert_eq!(identity().unwrap(), (pid, started), "as long as it lives");
    }

    #[test]
    fn what_cannot_be_run_leaves_this_process_as_it_was() {
        let _alone = ONE_AT_A_TIME.lock().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let failure = replace(Path::new("/nonexistent/anyvip"), &["anyvip".into()]);
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert!(failure.text.starts_with("cannot become /nonexistent/anyvip: "), "{failure}");
        let file = std::env::temp_dir().join(format!("anyvip-no-program-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        assert_eq!(replace(&file, &["anyvip".into()]).kind, FailureKind::PermissionDenied);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(replace(Path::new("/bin/a\0b"), &[]).kind, FailureKind::Other);
        assert!(!listeners_left().contains_key(&listener.local_addr().unwrap()), "no child inherits it");
    }

    #[test]
    fn a_listener_that_was_left_open_is_found_once_with_who_waits_in_it() {
        let _alone = ONE_AT_A_TIME.lock().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert!(!listeners_left().contains_key(&at), "one of our own is nobody's heirloom");
        let _waiting = std::net::TcpStream::connect(at).unwrap();
        socket2::SockRef::from(&listener).set_cloexec(false).unwrap();
        // Its owner is gone as the former program is.
        std::mem::forget(listener);
        let mut left = listeners_left();
        let found = left.remove(&at).unwrap();
        assert!(listeners_left().is_empty());
        found.set_nonblocking(true).unwrap();
        assert!(found.accept().is_ok());
    }

    #[test]
    fn a_process_that_has_ended_does_not_live_whether_or_not_somebody_took_note() {
        assert!(lives(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let start = std::time::Instant::now();
        while lives(child.id()) {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!lives(child.id()));
    }

    #[test]
    fn the_clock_since_boot_goes_on() {
        let first = since_boot().unwrap();
        assert!(first > Duration::ZERO && since_boot().unwrap() >= first);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "that is what is tested")]
    fn children_that_nobody_waits_for_are_found_and_taken() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let mut leftovers = Leftovers(vec![pid]);
        let start = std::time::Instant::now();
        while leftovers.count() > 0 {
            assert!(start.elapsed() < Duration::from_secs(30));
            leftovers.reap();
            std::thread::yield_now();
        }
        let again = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        assert_eq!(again, Err(nix::errno::Errno::ECHILD));
    }
}
