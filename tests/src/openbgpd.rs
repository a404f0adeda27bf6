//! OpenBGPD as an upstream router. On Linux it has no kernel table: what counts is its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{Lab, Namespace, run};
use crate::process::{Process, answer};
use crate::wait::{LONG, wait_until};

/// FRR has a `bgpd` too.
const BGPD: &str = "/usr/sbin/bgpd";

/// One running OpenBGPD.
#[derive(Debug)]
pub struct Openbgpd {
    process: Process,
    folder: PathBuf,
}

impl Openbgpd {
    /// Starts it in the namespace with this configuration (the control socket is added) and waits until it answers.
    #[track_caller]
    pub fn with(lab: &Lab, namespace: &Namespace, config: &str) -> Self {
        let path = lab.scratch().write("openbgpd/bgpd.conf", "");
        let folder = path.parent().expect("a file is in a folder").to_owned();
        let config = format!("socket \"{}\"\n{config}", folder.join("control").display());
        std::fs::write(&path, config).expect("write the configuration");
        // It refuses a file that others may write, and its children want the home of their user to be there.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("close the file");
        let home = run(Command::new("getent").args(["passwd", "_openbgpd"]));
        let home = home.split(':').nth(5).expect("a home").to_owned();
        run(Command::new("install").args(["-d", "-m", "755", &home]));
        let mut command = namespace.command(BGPD);
        command.args(["-d", "-v", "-f"]).arg(&path);
        let process = Process::start("openbgpd", &mut command, &folder.join("log"));
        let mut openbgpd = Openbgpd { process, folder };
        wait_until(LONG, || {
            assert!(openbgpd.process.ended().is_none(), "bgpd ended: {}", openbgpd.process.output());
            openbgpd.ask("show summary")
        });
        openbgpd
    }

    /// `bgpctl WORDS`.
    ///
    /// # Errors
    /// What bgpctl says when it cannot.
    pub fn ask(&self, words: &str) -> Result<String, String> {
        self.tell(&words.split(' ').collect::<Vec<_>>())
    }

    /// `bgpctl WORD WORD …`, where words may hold spaces.
    ///
    /// # Errors
    /// What bgpctl says when it cannot.
    pub fn tell(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("/usr/sbin/bgpctl");
        answer(command.arg("-s").arg(self.folder.join("control")).args(words))
    }

    /// All paths to a prefix, as `bgpctl -j` gives them.
    pub fn paths(&self, prefix: &str) -> Vec<Value> {
        let text = self.ask(&format!("-j show rib {prefix}")).unwrap_or_default();
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut paths = answer["rib"].as_array().cloned().unwrap_or_default();
        // Without such a prefix it shows the best one around it, or within.
        paths.retain(|path| {
            let shown = path["prefix"].as_str().unwrap_or_default();
            shown == prefix
                || shown.strip_suffix("/32").or_else(|| shown.strip_suffix("/128")) == Some(prefix)
        });
        paths
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
