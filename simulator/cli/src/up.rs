//! `anyvip-sim up`, `down` and `exec`: a lab held by a process of its own.
//!
//! The holder keeps the nodes, and with them their namespaces, until it gets SIGTERM. Its folder carries the lab's name
//! and holds a file with the process ids.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::bench::Bench;
use crate::control::Message;
use crate::folder::{self, Folder};
use crate::run::{
    Signals, absolute, block_on, check_daemons, check_files, find_agent, interrupted, read_lab,
};
use crate::{cli, process, rootless};

/// What the holder writes down.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    holder: i32,
    /// Empty as long as the lab is being built.
    nodes: BTreeMap<String, u32>,
}

const FILE: &str = "lab.json";
/// What holder and nodes say once nobody listens.
const LOG: &str = "lab.log";
/// The holder's word that the lab is up; any other is the reason why it is not.
const UP: &str = "up";
/// How long a lab may take to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts the holder and waits for its word.
pub(crate) fn up(arguments: &cli::Up) -> ExitCode {
    report(if arguments.hold { hold(arguments) } else { start_holder(arguments) })
}

/// Ends the holder and waits until its folder is gone.
pub(crate) fn down(lab: &Path) -> ExitCode {
    report(end_holder(lab).map(|()| ExitCode::SUCCESS))
}

/// Becomes the command, inside the node.
pub(crate) fn exec(node: &str, lab: Option<&str>, command: &[OsString]) -> ExitCode {
    report(enter_and_exec(node, lab, command).map(|()| ExitCode::SUCCESS))
}

fn report(result: Result<ExitCode, String>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("anyvip-sim: {error}");
        ExitCode::FAILURE
    })
}

fn start_holder(arguments: &cli::Up) -> Result<ExitCode, String> {
    let lab = read_lab(&arguments.lab)?;
    check_files(&lab, &arguments.lab)?;
    check_daemons(&lab, &arguments.lab)?;
    let agent = find_agent(arguments.agent.as_deref())?;
    let mut command = std::process::Command::new(process::own_program()?);
    command.args(["up", "--hold", "--agent"]).arg(agent).arg(&arguments.lab);
    // Nothing of the lab keeps a terminal or a pipe of ours open, and it is not in this terminal's group: Ctrl-C and logout are not for it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    block_on(async {
        let mut signals = Signals::new()?;
        let mut holder = tokio::process::Command::from(command)
            .spawn()
            .map_err(|error| format!("cannot start the holder: {error}"))?;
        let output = holder.stdout.take().ok_or("a holder without output")?;
        let mut words = BufReader::new(output).lines();
        let word = tokio::select! {
            word = words.next_line() => word.map_err(|error| error.to_string())?,
            signal = signals.next() => {
                // It may be gone already, for another reason.
                if let Some(pid) = holder.id().and_then(|pid| i32::try_from(pid).ok()) {
                    let _ = kill(Pid::from_raw(pid), signal.number());
                }
                return match tokio::time::timeout(PATIENCE, holder.wait()).await {
                    Ok(_) => Ok(interrupted(signal)),
                    Err(_) => Err(format!("{} does not end", lab.name)),
                };
            }
        };
        match word.as_deref() {
            Some(UP) => {
                let first = lab.nodes.keys().next().cloned().unwrap_or_default();
                let name = &lab.name;
                let log = folder::base(rootless::user()).join(name).join(LOG);
                println!(
                    "{name} is up. Look inside: anyvip-sim exec {first} -- ip route. End it: anyvip-sim down {name}\n\
                     What ends by itself is told in {}",
                    log.display()
                );
                Ok(ExitCode::SUCCESS)
            }
            Some(reason) => Err(reason.to_owned()),
            // Somebody ended it meanwhile.
            None => match holder.wait().await.ok().and_then(|status| u8::try_from(status.code()?).ok()) {
                Some(code @ (130 | 143)) => {
                    eprintln!("anyvip-sim: stopped; everything is removed");
                    Ok(ExitCode::from(code))
                }
                _ => Err("the lab did not come up".to_owned()),
            },
        }
    })
}

/// What goes wrong is told to who started it.
fn hold(arguments: &cli::Up) -> Result<ExitCode, String> {
    hold_until_told(arguments).or_else(|error| tell(&error.replace('\n', "; ")).map(|()| ExitCode::FAILURE))
}

fn tell(word: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    writeln!(out, "{word}").and_then(|()| out.flush()).map_err(|error| format!("nobody listens: {error}"))
}

fn hold_until_told(arguments: &cli::Up) -> Result<ExitCode, String> {
    let (lab, file) = (read_lab(&arguments.lab)?, absolute(&arguments.lab)?);
    let agent = find_agent(arguments.agent.as_deref())?;
    let base = folder::base(rootless::user());
    rootless::enter()?;
    crate::raise_descriptor_limit();
    block_on(async {
        let mut signals = Signals::new()?;
        let mut bench = Bench::new(Folder::make(&base, &lab.name)?);
        let (note, log) = (bench.folder().join(FILE), bench.folder().join(LOG));
        let write_down = |nodes| {
            let held = Held { holder: Pid::this().as_raw(), nodes };
            let text = serde_json::to_vec(&held).map_err(|error| error.to_string())?;
            std::fs::write(&note, text).map_err(|error| format!("{FILE}: {error}"))
        };
        let none = BTreeSet::new();
        let build = async {
            let log = std::fs::File::create(&log).map_err(|error| format!("{LOG}: {error}"))?;
            dup2_stderr(log).map_err(|error| format!("{LOG}: {error}"))?;
            // So that `down` finds it while it is being built.
            write_down(BTreeMap::new())?;
            bench.build(&lab, &file, &agent, &none).await
        };
        let built = tokio::select! {
            built = build => Ok(built),
            signal = signals.next() => Err(signal),
        };
        let up = match built {
            Ok(built) => built.and_then(|()| write_down(bench.pids())).and_then(|()| tell(UP)),
            Err(signal) => {
                bench.end().await;
                return Ok(interrupted(signal));
            }
        };
        if let Err(error) = up {
            bench.end().await;
            return Err(error);
        }
        loop {
            tokio::select! {
                _ = signals.next() => break,
                (node, message) = bench.next_message() => {
                    if let Message::Trouble { text } = message {
                        // Into the log; that the disk is full must not end the lab.
                        let _ = writeln!(std::io::stderr(), "{node}: {text}");
                    }
                }
            }
        }
        bench.end().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The lab's folder: by the name in the file, or by the name itself.
fn end_holder(lab: &Path) -> Result<(), String> {
    let name = if lab.is_file() { read_lab(lab)?.name } else { lab.to_string_lossy().into_owned() };
    let base = folder::base(rootless::user());
    let path = base.join(&name);
    let cleaned = folder::clean(&base, &name)?;
    if cleaned {
        println!("{name} was killed; what it left is removed");
        if !folder::is_held(&path) {
            return Ok(());
        }
    }
    let held = read_held(&path)?;
    kill(Pid::from_raw(held.holder), Signal::SIGTERM).map_err(|error| format!("{name}: {error}"))?;
    let end = Instant::now() + PATIENCE;
    while folder::is_held(&path) {
        if Instant::now() >= end {
            return Err(format!("{name} does not end"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{name} is down");
    Ok(())
}

/// Only what is held is running, so its process ids are those of its own processes.
fn read_held(path: &Path) -> Result<Held, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !folder::is_held(path) {
        return Err(format!("no lab `{name}` is up"));
    }
    let text = std::fs::read(path.join(FILE)).map_err(|_| format!("`{name}` is being built"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{name}: {error}"))
}

fn enter_and_exec(node: &str, lab: Option<&str>, command: &[OsString]) -> Result<(), String> {
    let base = folder::base(rootless::user());
    let labs: Vec<PathBuf> = match lab {
        Some(name) => vec![base.join(name)],
        None => {
            let entries = std::fs::read_dir(&base).map_err(|_| "no lab is up".to_owned())?;
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.join(FILE).is_file())
                .collect()
        }
    };
    let with_node: Vec<(PathBuf, u32)> = labs
        .iter()
        .filter_map(|path| Some((path.clone(), *read_held(path).ok()?.nodes.get(node)?)))
        .collect();
    let (path, pid) = match with_node.as_slice() {
        [] => return Err(format!("no lab that is up has a node `{node}`")),
        [one] => one,
        _ => return Err(format!("several labs have a node `{node}`; say --lab NAME")),
    };
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))
    };
    // Whoever is not root must first become what the lab made of them.
    let network = open("net")?;
    if !rootless::user().is_root() {
        setns(open("user")?, CloneFlags::CLONE_NEWUSER)
            .map_err(|error| format!("user namespace: {error}"))?;
    }
    setns(network, CloneFlags::CLONE_NEWNET).map_err(|error| format!("network namespace: {error}"))?;
    let [program, arguments @ ..] = command else { return Err("no command".to_owned()) };
    let inside = path.join(node);
    let error = std::process::Command::new(program)
        .args(arguments)
        // So that `anyvip status` speaks to the agent of this node.
        .env("ANYVIP_SOCKET", inside.join("anyvip.sock"))
        .env("ANYVIP_STATE_DIR", inside.join("state"))
        .exec();
    Err(format!("cannot run {}: {error}", Path::new(program).display()))
}
