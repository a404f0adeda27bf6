//! A router that is a foreign daemon: FRR or BIRD, with its own configuration, in the node's namespace.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyvip_virtual::lab::Daemon;
use nix::unistd::{Group, User};

use crate::process::{self, Process};

/// Where Debian, and FRR's own packages, have the daemons.
const FRR: &str = "/usr/lib/frr";
/// FRR keeps some files below this, in a folder of the instance's name.
const FRR_STATE: &str = "/var/run/frr";
/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running daemons of a node. FRR gives up its rights as root, and with them the wish to die with its parent: so each has a
/// keeper that sees to it.
pub(super) struct Daemons {
    _processes: Vec<Process>,
    state: Option<PathBuf>,
}

/// Why this kind of router cannot run here, if so.
pub(crate) fn missing(daemon: Daemon) -> Option<String> {
    let no = |what: &str, package: &str| Some(format!("{what} (package {package}), which is not here"));
    match daemon {
        Daemon::Bird if find("bird").is_none() => no("BIRD", "bird2"),
        Daemon::Frr if !Path::new(FRR).join("bgpd").is_file() || find("vtysh").is_none() => no("FRR", "frr"),
        _ => None,
    }
}

fn find(name: &str) -> Option<PathBuf> {
    process::find_program(name).or_else(|| {
        let folders = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
        folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
    })
}

/// Starts the daemons and waits until they have their configuration. `folder` is theirs alone.
pub(super) async fn start(
    daemon: Daemon,
    name: &str,
    config: &Path,
    folder: &Path,
    trouble: impl Fn(String) + Clone + 'static,
) -> Result<Daemons, String> {
    let text = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(text)?;
    match daemon {
        Daemon::Bird => {
            let program = find("bird").ok_or("BIRD is not here")?;
            let socket = folder.join("control");
            let mut command = keeper(&program, folder, "bird")?;
            command.arg("-f").arg("-c").arg(config).arg("-s").arg(&socket).arg("-P").arg(folder.join("pid"));
            let process = Process::start(command, "bird", trouble)?;
            wait_for(&socket, &process, folder, "bird").await?;
            Ok(Daemons { _processes: vec![process], state: None })
        }
        Daemon::Frr => {
            own(folder)?;
            let copy = folder.join("frr.conf");
            std::fs::copy(config, &copy).map_err(text)?;
            std::fs::write(folder.join("vtysh.conf"), "").map_err(text)?;
            for file in [copy, folder.join("vtysh.conf")] {
                own(&file)?;
            }
            std::fs::create_dir_all(FRR_STATE).map_err(text)?;
            own(Path::new(FRR_STATE))?;
            let state = Path::new(FRR_STATE).join(name);
            let mut processes = Vec::new();
            for daemon in ["zebra", "bgpd"] {
                let mut command = keeper(&Path::new(FRR).join(daemon), folder, daemon)?;
                // Begun empty: the one file for all is given to them when both answer.
                command
                    .args([
                        "-u",
                        "frr",
                        "-g",
                        "frr",
                        "-P",
                        "0",
                        "-f",
                        "/dev/null",
                        "--log",
                        "stdout",
                        "-N",
                        name,
                    ])
                    .arg("--vty_socket")
                    .arg(folder)
                    .arg("-z")
                    .arg(folder.join("zserv.api"))
                    .arg("-i")
                    .arg(folder.join(format!("{daemon}.pid")));
                let process = Process::start(command, daemon, trouble.clone())?;
                wait_for(&folder.join(format!("{daemon}.vty")), &process, folder, daemon).await?;
                processes.push(process);
            }
            let mut vtysh = tokio::process::Command::new(find("vtysh").ok_or("vtysh is not here")?);
            vtysh
                .arg("--vty_socket")
                .arg(folder)
                .arg("--config_dir")
                .arg(folder)
                .arg("-b")
                .stdin(Stdio::null());
            let output = vtysh.output().await.map_err(|error| format!("vtysh: {error}"))?;
            if !output.status.success() {
                let said = [output.stdout, output.stderr].concat();
                return Err(format!("vtysh: {}: {}", output.status, String::from_utf8_lossy(&said).trim()));
            }
            Ok(Daemons { _processes: processes, state: Some(state) })
        }
    }
}

fn keeper(program: &Path, folder: &Path, name: &str) -> Result<tokio::process::Command, String> {
    let log = folder.join(format!("{name}.log"));
    let open = || {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        Ok((log.try_clone()?, log))
    };
    let (out, err) = open().map_err(|error: std::io::Error| format!("{}: {error}", log.display()))?;
    let mut command = Command::new(process::own_program()?);
    command.arg(process::KEEPER).arg(program).stdin(Stdio::piped()).stdout(out).stderr(err);
    let mut command = tokio::process::Command::from(command);
    // Killed, it could not end what it keeps.
    command.process_group(0).kill_on_drop(false);
    Ok(command)
}

/// FRR's own user must have it.
fn own(path: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let user = User::from_name("frr").ok().flatten().ok_or("there is no user frr")?;
    let group = Group::from_name("frr").ok().flatten().ok_or("there is no group frr")?;
    nix::unistd::chown(path, Some(user.uid), Some(group.gid)).map_err(|error| text(error.into()))?;
    if path.is_dir() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(text)?;
    }
    Ok(())
}

async fn wait_for(socket: &Path, process: &Process, folder: &Path, name: &str) -> Result<(), String> {
    let wait = async {
        while !socket.exists() {
            if process.has_ended() {
                let log = folder.join(format!("{name}.log"));
                return Err(format!("{name} ended at once{}", super::last_lines(&log)));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .map_err(|_| format!("{name} did not start within {PATIENCE:?}"))?
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            let _ = std::fs::remove_dir_all(state);
        }
    }
}
