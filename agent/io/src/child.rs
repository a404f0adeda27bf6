//! Children: commands that run for a while and say something (checks, hooks).
//!
//! Each leads a process group of its own, which is killed as a whole at the timeout and also when the command has ended, so
//! that nothing it started in the background stays. The command itself is killed when we die. Its output is read to the
//! end and kept up to a limit. It is always reaped.
//!
//! A command dies with the *thread* that spawned it (`PR_SET_PDEATHSIG` works so): spawn from the runtime's own thread,
//! never from a short-lived one.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyvip_machine::{Failure, FailureKind};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use crate::clock::Patience;
use crate::failure::failed;
use crate::sys::{exec, pidfd, readiness};

/// How much output is kept. The rest is read and thrown away.
pub const OUTPUT_LIMIT: usize = 64 * 1024;
/// How long a killed command may take to be gone before somebody else waits for it.
const REAP_PATIENCE: Duration = Duration::from_secs(1);
/// What a supervisor told us is not for our children.
const NOT_FOR_CHILDREN: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What to run. No shell is involved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to be found in PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Set in addition to our own environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Working directory, if not ours.
    pub directory: Option<PathBuf>,
}

/// Lets the command die (SIGKILL) with the thread that spawns it. For children that [`run`] does not run.
pub fn die_with_parent(command: &mut std::process::Command) {
    exec::die_with_parent(command);
}

/// How a command ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Standard output and standard error as they came, at most [`OUTPUT_LIMIT`] bytes.
    pub output: Vec<u8>,
    /// There was more.
    pub truncated: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal, not from us.
    Signalled(i32),
    /// It took too long and was killed.
    TimedOut,
}

/// Runs a command to its end, at most for `timeout`. Dropping the future kills it.
///
/// # Errors
/// When it could not be *started* (no such file, not executable, no process or descriptor left). A command that starts and
/// fails is an [`Outcome`].
pub async fn run(command: &Command, timeout: Duration) -> Result<Outcome, Failure> {
    run_within(command, &mut Patience::new(timeout)).await
}

/// The same with a patience that was begun before, and can be asked afterwards.
///
/// # Errors
/// As for [`run`].
pub async fn run_within(command: &Command, patience: &mut Patience) -> Result<Outcome, Failure> {
    let (mut leader, mut output) = start(command)?;
    let end = loop {
        tokio::select! {
            biased;
            () = leader.has_ended() => {
                let status = leader.reap();
                output.read_what_is_there();
                break status.map_or(End::TimedOut, end_of);
            }
            () = output.read(), if !output.at_end => {}
            () = patience.over() => {
                leader.kill_group();
                // Uninterruptible sleep outlasts SIGKILL; then a thread waits for the end.
                let _ = tokio::time::timeout(REAP_PATIENCE, leader.has_ended()).await;
                leader.reap();
                output.read_what_is_there();
                break End::TimedOut;
            }
        }
    };
    Ok(Outcome { end, output: output.kept, truncated: output.truncated })
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or_default()),
    }
}

fn start(command: &Command) -> Result<(Leader, Output), Failure> {
    let start = || -> io::Result<(Leader, Output)> {
        let (reader, writer) = io::pipe()?;
        let mut prepared = std::process::Command::new(&command.program);
        prepared.args(&command.arguments);
        for (name, value) in &command.environment {
            prepared.env(name, value);
        }
        for name in NOT_FOR_CHILDREN {
            prepared.env_remove(name);
        }
        if let Some(directory) = &command.directory {
            prepared.current_dir(directory);
        }
        prepared.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        exec::die_with_parent(&mut prepared);
        exec::inherit_nothing_else(&mut prepared);
        let output = Output::of(reader.into())?;
        let child = prepared.spawn()?;
        match pidfd::open(child.id()).and_then(readiness::watch_reads) {
            Ok(ended) => Ok((Leader { child: Some(child), ended }, output)),
            Err(error) => {
                bury(child);
                Err(error)
            }
        }
    };
    start().map_err(|error| {
        let failure = failed(format!("cannot start {}", command.program.display()), &error);
        // fork says EAGAIN when the limit of processes is reached.
        let exhausted = error.raw_os_error() == Some(libc::EAGAIN);
        Failure { kind: if exhausted { FailureKind::Exhausted } else { failure.kind }, ..failure }
    })
}

/// The first process of a command. Dropped unreaped, it is killed and somebody else waits for it.
struct Leader {
    /// `None` once reaped.
    child: Option<Child>,
    /// Readable when it has ended.
    ended: AsyncFd<OwnedFd>,
}

impl Leader {
    fn kill_group(&self) {
        if let Some(child) = &self.child {
            kill_group(child.id());
        }
    }

    /// Waits until it has ended; it stays unreaped. Cancel-safe.
    async fn has_ended(&self) {
        while let Ok(mut ready) = self.ended.readable().await {
            if self.is_over() {
                return;
            }
            ready.clear_ready();
        }
    }

    fn is_over(&self) -> bool {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        pid.is_none_or(|pid| !matches!(waitid(Id::Pid(Pid::from_raw(pid)), look), Ok(WaitStatus::StillAlive)))
    }

    /// If it has ended: kills what is left of its group, and only then reaps it. Until then nobody else can get
    /// its number, so the right group is killed.
    fn reap(&mut self) -> Option<ExitStatus> {
        if !self.is_over() {
            return None;
        }
        self.kill_group();
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            bury(child);
        }
    }
}

fn kill_group(leader: u32) {
    // Zero and one would be our own group and everybody.
    if let Some(group) = i32::try_from(leader).ok().filter(|group| *group > 1) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Kills a child with its group and waits for it without holding up anybody.
fn bury(mut child: Child) {
    kill_group(child.id());
    if matches!(child.try_wait(), Ok(None)) {
        let _ = std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(64 * 1024)
            .spawn(move || child.wait());
    }
}

/// The reading end of what a command says.
struct Output {
    pipe: AsyncFd<OwnedFd>,
    kept: Vec<u8>,
    truncated: bool,
    at_end: bool,
}

impl Output {
    fn of(pipe: OwnedFd) -> io::Result<Output> {
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let pipe = readiness::watch_reads(pipe)?;
        Ok(Output { pipe, kept: Vec::new(), truncated: false, at_end: false })
    }

    /// Waits for output and takes one piece of it. Cancel-safe: nothing is awaited after a read.
    async fn read(&mut self) {
        let Ok(mut ready) = self.pipe.readable().await else {
            self.at_end = true;
            return;
        };
        let mut piece = [0; 4096];
        match nix::unistd::read(ready.get_inner(), &mut piece) {
            Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
            Err(nix::errno::Errno::EINTR) => {}
            Ok(length) if length > 0 => self.keep(piece.get(..length).unwrap_or_default()),
            Ok(_) | Err(_) => self.at_end = true,
        }
    }

    /// The command has ended and so has what it said; somebody who left its group may go on talking, so this is bounded.
    fn read_what_is_there(&mut self) {
        let mut piece = [0; 4096];
        for _ in 0..OUTPUT_LIMIT / piece.len() {
            match nix::unistd::read(self.pipe.get_ref(), &mut piece) {
                Ok(length) if length > 0 => self.keep(piece.get(..length).unwrap_or_default()),
                _ => return,
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = OUTPUT_LIMIT - self.kept.len();
        self.truncated |= piece.len() > room;
        self.kept.extend(piece.iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        Command { program: "sh".into(), arguments: vec!["-c".into(), script.into()], ..Command::default() }
    }

    async fn run_shell(script: &str) -> Outcome {
        run(&shell(script), PATIENCE).await.unwrap()
    }

    /// Gone, or a zombie whose parent has not looked yet.
    fn is_dead(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    }

    fn soon(what: impl Fn() -> bool) -> bool {
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            if what() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[tokio::test]
    async fn a_command_gives_its_status_and_both_outputs_in_order() {
        let outcome = run_shell("echo one; echo two >&2; echo three; exit 3").await;
        let expected =
            Outcome { end: End::Exited(3), output: b"one\ntwo\nthree\n".to_vec(), truncated: false };
        assert_eq!(outcome, expected);
        assert_eq!(run_shell("kill -TERM $$").await.end, End::Signalled(15));
    }

    #[tokio::test]
    async fn a_command_that_cannot_start_is_a_failure_and_no_outcome() {
        let missing = Command { program: "/nonexistent/check".into(), ..Command::default() };
        let failure = run(&missing, PATIENCE).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert_eq!(failure.text, "cannot start /nonexistent/check: No such file or directory");
        let no_program = Command { program: "/etc/passwd".into(), ..Command::default() };
        assert_eq!(run(&no_program, PATIENCE).await.unwrap_err().kind, FailureKind::PermissionDenied);
        let failing =
            Command { program: "sh".into(), arguments: vec!["/nonexistent".into()], ..Command::default() };
        assert!(matches!(run(&failing, PATIENCE).await.unwrap().end, End::Exited(_)));
    }

    #[tokio::test]
    async fn the_timeout_kills_the_whole_group_even_one_that_ignores_signals() {
        let script = "trap '' TERM HUP INT; sleep 1000 & echo $$ $!; wait; sleep 1000";
        let outcome = run(&shell(script), Duration::from_millis(300)).await.unwrap();
        assert_eq!(outcome.end, End::TimedOut);
        let text = String::from_utf8(outcome.output).unwrap();
        let pids: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(pids.len(), 2, "{text:?}");
        assert!(!std::path::Path::new(&format!("/proc/{}", pids[0])).exists(), "the leader was reaped");
        assert!(soon(|| is_dead(pids[1])), "its child was killed too");
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_the_background_neither_delays_it_nor_stays() {
        let outcome = run_shell("sleep 1000 & echo $!").await;
        assert_eq!(outcome.end, End::Exited(0));
        let pid = String::from_utf8(outcome.output).unwrap();
        assert!(soon(|| is_dead(pid.trim())), "{pid}");
    }

    #[tokio::test]
    async fn endless_output_is_drained_and_kept_only_up_to_the_limit() {
        let outcome = run_shell("head -c 3000000 /dev/zero; echo done >/dev/null").await;
        assert_eq!(
            (outcome.end, outcome.output.len(), outcome.truncated),
            (End::Exited(0), OUTPUT_LIMIT, true)
        );
        let exact = run_shell("head -c 65536 /dev/zero").await;
        assert_eq!((exact.output.len(), exact.truncated), (OUTPUT_LIMIT, false));
        let endless = run(&shell("exec cat /dev/zero"), Duration::from_millis(300)).await.unwrap();
        assert_eq!((endless.end, endless.output.len()), (End::TimedOut, OUTPUT_LIMIT));
    }

    #[tokio::test]
    async fn a_command_that_closed_its_output_is_still_waited_for() {
        assert_eq!(run_shell("exec >&- 2>&-; sleep 0.1; exit 4").await.end, End::Exited(4));
    }

    #[tokio::test]
    async fn a_dropped_run_kills_its_command() {
        let marker = std::env::temp_dir().join(format!("anyvip-io-child-{}", std::process::id()));
        let command = shell(&format!("echo $$ > {}.new; mv {0}.new {0}; sleep 1000", marker.display()));
        let pid = {
            let run = run(&command, PATIENCE);
            tokio::pin!(run);
            loop {
                assert!(futures_poll_once(run.as_mut()).await, "it must not end by itself");
                if let Ok(pid) = std::fs::read_to_string(&marker) {
                    break pid;
                }
            }
        };
        std::fs::remove_file(&marker).unwrap();
        assert!(soon(|| is_dead(pid.trim())));
    }

    /// Polls once; true if pending.
    async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        tokio::task::yield_now().await;
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }

    #[tokio::test]
    async fn a_command_sees_its_environment_but_neither_our_descriptors_nor_our_supervisor() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        // As if somebody had handed it to us without close-on-exec.
        fcntl(file.as_fd(), FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let mut command = shell("echo $CHECK_NAME ${NOTIFY_SOCKET-none}; ls /proc/self/fd | tr '\\n' ' '");
        command.environment =
            vec![("CHECK_NAME".into(), "dns".into()), ("NOTIFY_SOCKET".into(), "/run/x".into())];
        command.directory = Some("/".into());
        let outcome = run(&command, PATIENCE).await.unwrap();
        // 3 is the directory that `ls` itself reads.
        assert_eq!(String::from_utf8(outcome.output).unwrap(), "dns none\n0 1 2 3 ");
    }

    #[tokio::test]
    async fn hundreds_of_runs_leave_neither_descriptors_nor_zombies() {
        for _ in 0..300 {
            assert_eq!(run_shell("exit 0").await.end, End::Exited(0));
        }
        // Other tests run beside this one; one of anything left per run would be far more than theirs.
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(descriptors < 200, "{descriptors} descriptors");
        let ours = format!(" Z {} ", std::process::id());
        let zombies = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("stat")).ok())
            .filter(|stat| stat.contains(&ours))
            .count();
        assert!(zombies < 50, "{zombies} zombies");
    }
}
