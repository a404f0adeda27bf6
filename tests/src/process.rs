//! A child process that cannot outlive its test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::wait::{LONG, wait_until};

/// A running program with its output in a file. Killed by its pid when dropped; the end of its output is printed when
/// the test is failing.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Starts it; stdout and stderr are appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("open a log file");
        let err = out.try_clone().expect("share a log file");
        Process::start_with(name, command, log, out.into(), err.into())
    }

    /// Starts it with these as stdout and stderr; `log` is what [`output`](Self::output) reads.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_with(name: &str, command: &mut Command, log: &Path, out: Stdio, err: Stdio) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { name: name.to_owned(), child, status: None, log: log.to_owned() }
    }

    /// Its process id. The programs that enter a namespace exec, so this is the program itself.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill(Pid::from_raw(self.pid()), signal).expect("send a signal to a child");
        }
    }

    /// Stops its main thread alone, as a loop that hangs would be, while `meanwhile` runs; its other threads go on.
    ///
    /// # Panics
    /// When it cannot be traced.
    pub fn with_its_main_thread_stopped<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let thread = Pid::from_raw(self.pid());
        ptrace::seize(thread, ptrace::Options::empty()).expect("trace a child");
        ptrace::interrupt(thread).expect("interrupt a thread");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("wait for a thread");
        // When this panics the tracing thread ends, and with it the tracing.
        let result = meanwhile();
        ptrace::detach(thread, None).expect("let a thread go");
        result
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for a child");
        }
        self.status
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        wait_until(deadline, || self.ended().ok_or_else(|| format!("{} still runs", self.name)))
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(LONG);
    }

    /// All that it wrote so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// User and system time that it has used so far.
    ///
    /// # Panics
    /// When it has ended.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process runs");
        // The name in parentheses may hold spaces; fields 14 and 15 are counted from behind it.
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let second =
            nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().expect("clock ticks")
                as u64;
        Duration::from_millis(ticks * 1000 / second)
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When it has ended.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGKILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("---- end of the output of {} ----\n{tail}", self.name);
        }
    }
}

/// What a program says that is asked something.
///
/// # Errors
/// All that it said when it could not answer.
pub(crate) fn answer(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(text + &error) }
}
