//! BFD sessions of the program under test, without the rest of it; see `bin/lab-bfd.rs` for the words.

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::lab::{Lab, Namespace, run};
use crate::process::Process;
use crate::wait::{LONG, wait_until};

/// One running process with its sessions.
#[derive(Debug)]
pub struct Sessions {
    /// Its process.
    pub process: Process,
    commands: PathBuf,
}

impl Sessions {
    /// Starts it in the namespace with these sessions.
    #[track_caller]
    pub fn start(lab: &Lab, namespace: &Namespace, sessions: &[&str]) -> Self {
        Sessions::with(lab, namespace, sessions, namespace.command(lab.binaries.bfd))
    }

    /// The same without the right to run before other programs.
    #[track_caller]
    pub fn start_ordinary(lab: &Lab, namespace: &Namespace, sessions: &[&str]) -> Self {
        let mut command = namespace.command("setpriv");
        command.args(["--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", lab.binaries.bfd]);
        Sessions::with(lab, namespace, sessions, command)
    }

    fn with(lab: &Lab, namespace: &Namespace, sessions: &[&str], mut command: std::process::Command) -> Self {
        let name = format!("bfd-{}", namespace.name());
        let commands = lab.scratch().path().join(format!("{name}.commands"));
        run(std::process::Command::new("mkfifo").arg(&commands));
        command.arg(&commands).args(sessions);
        let log = lab.scratch().path().join(&name);
        Sessions { process: Process::start(&name, &mut command, &log), commands }
    }

    /// Gives it a command.
    #[track_caller]
    pub fn say(&self, words: &str) {
        let pipe = std::fs::File::options().write(true).open(&self.commands);
        pipe.and_then(|mut pipe| writeln!(pipe, "{words}")).expect("write a command");
    }

    /// All that it has said so far.
    pub fn lines(&self) -> Vec<Value> {
        self.process.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The changes of state of one session, as (milliseconds since 1970, to, cause).
    pub fn changes(&self, session: &str) -> Vec<(u64, String, String)> {
        let of = |line: Value| {
            let change = &line["fact"]["StateChanged"];
            let cause = match &change["cause"] {
                Value::String(word) => word.clone(),
                Value::Object(words) => words.keys().next().cloned().unwrap_or_default(),
                _ => String::new(),
            };
            (change["session"] == session)
                .then(|| (line["at"].as_u64().unwrap(), change["to"].as_str().unwrap().to_owned(), cause))
        };
        self.lines().into_iter().filter_map(of).collect()
    }

    /// Waits until the session is in this state, and says since when and why.
    #[track_caller]
    pub fn wait_for(&self, session: &str, state: &str) -> (u64, String) {
        wait_until(LONG, || match self.changes(session).pop() {
            Some((at, to, cause)) if to == state => Ok((at, cause)),
            other => Err(format!("{session}: {other:?}")),
        })
    }

    /// Waits until the session has this detection time, in milliseconds.
    #[track_caller]
    pub fn wait_for_detection(&self, session: &str, millis: u64) {
        wait_until(LONG, || {
            let found = self.lines().into_iter().rev().find_map(|line| {
                let negotiated = &line["fact"]["Negotiated"];
                (negotiated["session"] == session).then(|| negotiated["detection"]["nanos"].as_u64())
            });
            if found == Some(Some(millis * 1_000_000)) {
                Ok(())
            } else {
                Err(format!("{session}: {found:?}"))
            }
        });
    }
}
