//! BIRD 2 as an upstream router.

use std::path::PathBuf;

use crate::lab::{Lab, Namespace};
use crate::process::{Process, answer};
use crate::wait::{LONG, wait_until};

/// One running BIRD. Dropping it kills the process, not what it left in the kernel.
#[derive(Debug)]
pub struct Bird {
    process: Process,
    folder: PathBuf,
}

impl Bird {
    /// Starts it in the namespace with this configuration and waits until it answers.
    #[track_caller]
    pub fn with(lab: &Lab, namespace: &Namespace, config: &str) -> Self {
        let config = lab.scratch().write("bird/bird.conf", config);
        let folder = config.parent().expect("a file is in a folder").to_owned();
        let mut command = namespace.command("bird");
        command.arg("-f").arg("-c").arg(&config).arg("-s").arg(folder.join("control"));
        let process = Process::start("bird", &mut command, &folder.join("log"));
        let mut bird = Bird { process, folder };
        wait_until(LONG, || {
            assert!(bird.process.ended().is_none(), "bird ended: {}", bird.process.output());
            bird.ask("show status")
        });
        bird
    }

    /// `birdc WORDS`.
    ///
    /// # Errors
    /// What birdc says when it cannot.
    pub fn ask(&self, words: &str) -> Result<String, String> {
        let mut command = std::process::Command::new("birdc");
        answer(command.arg("-s").arg(self.folder.join("control")).args(words.split(' ')))
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Ends it in good order: sessions are closed, routes removed.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.process.wait(LONG);
    }
}
