//! A scripted BGP speaker as the agent's peer; see `bin/lab-speaker.rs` for what it can do.

use crate::lab::{Lab, Namespace};
use crate::process::Process;
use crate::wait::{LONG, wait_until};

/// One running speaker.
#[derive(Debug)]
pub struct Speaker {
    /// Its process.
    pub process: Process,
}

impl Speaker {
    /// Starts it on port 179 of this address and waits until it listens.
    #[track_caller]
    pub fn start(lab: &Lab, namespace: &Namespace, address: &str, manner: &str) -> Self {
        let name = format!("speaker-{manner}-{}-{address}", namespace.name()).replace(':', "_");
        let log = lab.scratch().path().join(&name);
        let mut command = namespace.command(lab.binaries.speaker);
        command.args([address, manner]);
        let mut process = Process::start(&name, &mut command, &log);
        wait_until(LONG, || {
            assert!(process.ended().is_none(), "the speaker ended: {}", process.output());
            if process.output().contains("listening") { Ok(()) } else { Err("not listening".to_owned()) }
        });
        Speaker { process }
    }

    /// How many of its lines so far begin with this word.
    pub fn count(&self, word: &str) -> usize {
        self.process.output().lines().filter(|line| line.starts_with(word)).count()
    }

    /// Its lines so far that begin with this word.
    pub fn lines(&self, word: &str) -> Vec<String> {
        self.process.output().lines().filter(|line| line.starts_with(word)).map(str::to_owned).collect()
    }

    /// Waits for the first line that begins with this word.
    #[track_caller]
    pub fn wait_for(&self, word: &str) -> String {
        wait_until(LONG, || {
            self.lines(word).pop().ok_or_else(|| format!("no {word:?} in: {}", self.process.output()))
        })
    }
}
