//! Children: in a process group of their own, dead when their parent dies, watched until they end.

use std::cell::Cell;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::watch;

/// The hidden subcommand that becomes another program.
pub(crate) const HATCH: &str = "hatch";

/// `anyvip-sim hatch PARENT PROGRAM ARGS…`: asks the kernel to be killed when the parent dies, then becomes the program. (The
/// wish survives `execve`; setting it between fork and exec instead would need unsafe code.)
pub(crate) fn hatch(argv: &[OsString]) -> ExitCode {
    if let Err(error) = die_with_parent() {
        eprintln!("anyvip-sim: {error}");
    }
    let Some((parent, argv)) = argv.split_first() else { return ExitCode::from(2) };
    // A parent that was gone before the wish was made would never be missed.
    if parent.to_str().and_then(|parent| parent.parse().ok()) != Some(nix::unistd::getppid().as_raw()) {
        return ExitCode::FAILURE;
    }
    let Some((program, arguments)) = argv.split_first() else { return ExitCode::from(2) };
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!("anyvip-sim: cannot run {}: {error}", Path::new(program).display());
    ExitCode::from(127)
}

/// The hidden subcommand that starts another program and ends it when its own standard input ends.
pub(crate) const KEEPER: &str = "keeper";

/// `anyvip-sim keeper PROGRAM ARGS…`: for programs that give up their rights, and with them the wish to die with their parent. The
/// end of standard input, which comes however the parent ends, is the end of the program.
pub(crate) fn keep(argv: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = argv.split_first() else { return ExitCode::from(2) };
    let started = std::process::Command::new(program).args(arguments).stdin(Stdio::null()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!("anyvip-sim: cannot run {}: {error}", Path::new(program).display());
            return ExitCode::from(127);
        }
    };
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        if let Ok(pid) = pid {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    match child.wait() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The kernel kills this process when the thread that started it ends.
pub(crate) fn die_with_parent() -> Result<(), String> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("parent-death signal: {error}"))
}

/// Orphans of our children come to us, so that [`reap`] can see the last of them off.
pub(crate) fn adopt_orphans() {
    // Without it they go to init, which may take its time; nothing else changes.
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Waits until every child and adopted orphan is gone, at most so long.
pub(crate) fn reap(most: Duration) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < most {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// This program, to be started again with another subcommand.
pub(crate) fn own_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program itself: {error}"))
}

/// A child that hatches into `program`; the caller adds the rest.
pub(crate) fn command(program: &Path) -> Result<tokio::process::Command, String> {
    let mut command = std::process::Command::new(own_program()?);
    command.arg(HATCH).arg(std::process::id().to_string()).arg(program).stdin(Stdio::null()).process_group(0);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    Ok(command)
}

/// A running child and its end.
pub(crate) struct Process {
    pid: Pid,
    expected: Rc<Cell<bool>>,
    /// A keeper ends when this does.
    input: Option<tokio::process::ChildStdin>,
    ended: watch::Receiver<bool>,
    watcher: tokio::task::JoinHandle<()>,
}

impl Process {
    /// Starts it. `report` hears of an end that nobody ordered.
    pub(crate) fn start(
        mut command: tokio::process::Command,
        what: &str,
        report: impl FnOnce(String) + 'static,
    ) -> Result<Process, String> {
        let mut child = command.spawn().map_err(|error| format!("cannot start {what}: {error}"))?;
        let pid =
            child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(|| format!("{what} has no pid"))?;
        let input = child.stdin.take();
        let expected = Rc::new(Cell::new(false));
        let (end, ended) = watch::channel(false);
        let (what, wanted) = (what.to_owned(), expected.clone());
        let watcher = tokio::task::spawn_local(async move {
            let status = child.wait().await;
            let _ = end.send(true);
            if !wanted.get() {
                report(match status {
                    Ok(status) => format!("{what} ended by itself: {status}"),
                    Err(error) => format!("{what}: {error}"),
                });
            }
        });
        Ok(Process { pid: Pid::from_raw(pid), expected, input, ended, watcher })
    }

    /// Sends a signal, unless it has ended already.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        if *self.ended.borrow() {
            return Err("it is not running".to_owned());
        }
        if matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
            self.expected.set(true);
        }
        kill(self.pid, signal).map_err(|error| error.to_string())
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits for its end, at most so long.
    pub(crate) async fn wait(&mut self, most: Duration) -> bool {
        tokio::time::timeout(most, self.ended.wait_for(|ended| *ended)).await.is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.expected.set(true);
        if self.input.take().is_some() {
            // A keeper that is killed could not end what it keeps. It ends by itself now.
            return;
        }
        let _ = self.signal(Signal::SIGKILL);
        // Dropping the child kills it too and leaves the reaping to the runtime.
        self.watcher.abort();
    }
}

/// Finds a program by name: beside this one, else in PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let beside = own_program().ok().and_then(|own| Some(own.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    beside.into_iter().chain(in_path).find(|candidate| candidate.is_file())
}
