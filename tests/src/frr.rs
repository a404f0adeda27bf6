//! FRR (zebra and bgpd) as an upstream router, without watchfrr or systemd.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::lab::{Lab, Namespace, run};
use crate::process::{Process, answer};
use crate::wait::{LONG, wait_until};

/// One running FRR.
#[derive(Debug)]
pub struct Frr {
    bgpd: Process,
    bfdd: Option<Process>,
    zebra: Process,
    folder: PathBuf,
}

impl Frr {
    /// bfdd, where it runs.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn bfdd(&mut self) -> &mut Process {
        self.bfdd.as_mut().expect("bfdd runs")
    }

    /// Starts zebra and bgpd in the namespace (and bfdd, where the configuration speaks of BFD), gives them the one configuration for
    /// all, which has a peer group `HOSTS`, and waits until bgpd has it.
    #[track_caller]
    pub fn with(lab: &Lab, namespace: &Namespace, config: &str) -> Self {
        let bfd = config.contains("\nbfd\n");
        let config = lab.scratch().write("frr/frr.conf", config);
        lab.scratch().write("frr/vtysh.conf", "");
        let folder = config.parent().expect("a file is in a folder").to_owned();
        // FRR refuses to stay root; its user must reach the folder and the fixed one for state.
        run(Command::new("install").args(["-d", "-o", "frr", "-g", "frr", "-m", "755", "/var/run/frr"]));
        run(Command::new("chown").args(["-R", "frr:frr"]).arg(&folder));
        let zebra = daemon(namespace, "zebra", &folder);
        let bfdd = bfd.then(|| daemon(namespace, "bfdd", &folder));
        let bgpd = daemon(namespace, "bgpd", &folder);
        let frr = Frr { bgpd, bfdd, zebra, folder };
        // They start empty; the one file for all is loaded when both answer.
        run(frr.vtysh().arg("-b"));
        wait_until(LONG, || {
            let text = frr.ask("show running-config")?;
            if text.contains("neighbor HOSTS activate") { Ok(()) } else { Err(text) }
        });
        frr
    }

    /// `vtysh -c WORDS`.
    ///
    /// # Errors
    /// What vtysh says when it cannot.
    pub fn ask(&self, words: &str) -> Result<String, String> {
        self.tell(&[words])
    }

    /// `vtysh -c LINE -c LINE …`, for lines that need those before them.
    ///
    /// # Errors
    /// What vtysh says when it cannot.
    pub fn tell(&self, lines: &[&str]) -> Result<String, String> {
        let mut command = self.vtysh();
        for line in lines {
            command.args(["-c", line]);
        }
        answer(&mut command)
    }

    /// What bgpd logged.
    pub fn log(&self) -> String {
        self.bgpd.output()
    }

    /// Ends both in good order, bgpd first: sessions are closed, routes removed.
    #[track_caller]
    pub fn stop(&mut self) {
        for process in [Some(&mut self.bgpd), self.bfdd.as_mut(), Some(&mut self.zebra)].into_iter().flatten()
        {
            process.signal(Signal::SIGTERM);
            process.wait(LONG);
        }
    }

    fn vtysh(&self) -> Command {
        let mut command = Command::new("vtysh");
        command.arg("--vty_socket").arg(&self.folder).arg("--config_dir").arg(&self.folder);
        command
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        if let Some(name) = instance(&self.folder) {
            let _ = std::fs::remove_dir_all(Path::new("/var/run/frr").join(name));
        }
    }
}

/// FRR keeps some files under fixed paths below this name.
fn instance(folder: &Path) -> Option<String> {
    Some(folder.parent()?.file_name()?.to_string_lossy().into_owned())
}

fn daemon(namespace: &Namespace, name: &str, folder: &Path) -> Process {
    let mut command = namespace.command(&format!("/usr/lib/frr/{name}"));
    command
        .args(["-u", "frr", "-g", "frr", "-P", "0", "-f", "/dev/null", "--log", "stdout"])
        .args(["-N", &instance(folder).expect("the lab's folder has a name")])
        .arg("--vty_socket")
        .arg(folder)
        .arg("-z")
        .arg(folder.join("zserv.api"))
        .arg("-i")
        .arg(folder.join(format!("{name}.pid")));
    if name == "bfdd" {
        command.arg("--bfdctl").arg(folder.join("bfdd.sock"));
    }
    let socket = folder.join(format!("{name}.vty"));
    let _ = std::fs::remove_file(&socket);
    let mut process = Process::start(name, &mut command, &folder.join(format!("{name}.log")));
    wait_until(LONG, || {
        assert!(process.ended().is_none(), "{name} ended: {}", process.output());
        if socket.exists() { Ok(()) } else { Err(format!("{name} has no socket yet")) }
    });
    process
}
