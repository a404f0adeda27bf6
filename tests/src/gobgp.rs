//! GoBGP as an upstream router. It has no kernel table here: what counts is its own.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{Lab, Namespace};
use crate::process::{Process, answer};
use crate::wait::{LONG, wait_until};

/// One running gobgpd.
#[derive(Debug)]
pub struct Gobgp {
    process: Process,
    folder: PathBuf,
}

impl Gobgp {
    /// Starts it in the namespace with this configuration (TOML) and waits until it answers.
    #[track_caller]
    pub fn with(lab: &Lab, namespace: &Namespace, config: &str) -> Self {
        let config = lab.scratch().write("gobgp/gobgpd.toml", config);
        let folder = config.parent().expect("a file is in a folder").to_owned();
        let socket = folder.join("control");
        let _ = std::fs::remove_file(&socket);
        let mut command = namespace.command("gobgpd");
        command.arg("-f").arg(&config).arg("--api-hosts").arg(format!("unix://{}", socket.display()));
        command.args(["--pprof-disable", "-p", "-l", "debug"]);
        let process = Process::start("gobgpd", &mut command, &folder.join("log"));
        let mut gobgp = Gobgp { process, folder };
        wait_until(LONG, || {
            assert!(gobgp.process.ended().is_none(), "gobgpd ended: {}", gobgp.process.output());
            gobgp.ask("neighbor")
        });
        gobgp
    }

    /// `gobgp WORDS`.
    ///
    /// # Errors
    /// What it says when it cannot.
    pub fn ask(&self, words: &str) -> Result<String, String> {
        self.tell(&words.split(' ').collect::<Vec<_>>())
    }

    /// `gobgp WORD WORD …`, where words may hold spaces.
    ///
    /// # Errors
    /// What it says when it cannot.
    pub fn tell(&self, words: &[&str]) -> Result<String, String> {
        let socket = format!("unix:{}", self.folder.join("control").display());
        answer(std::process::Command::new("gobgp").args(["--target", &socket]).args(words))
    }

    /// All paths to a prefix, as `gobgp --json` gives them.
    pub fn paths(&self, prefix: &str) -> Vec<Value> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = self.ask(&format!("global rib {prefix} -a {family} -j")).unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(Value::Object(table)) => {
                table.values().flat_map(|paths| paths.as_array().cloned().unwrap_or_default()).collect()
            }
            Ok(Value::Array(paths)) => paths,
            _ => Vec::new(),
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(LONG);
    }
}
