//! `anyvip-sim up`, `down` and `exec`: a lab held by a process of its own.
//!
//! The holder keeps the nodes, and with them their namespaces, until it gets SIGTERM. Its folder carries the lab's name
//! and holds a file with the process ids.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::folder::{self, Folder};
use crate::run::{Signals, absolute, block_on, check_daemons, find_agent, read_lab};
use crate::{cli, process, rootless};

/// What the holder writes down.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    holder: i32,
    nodes: BTreeMap<String, u32>,
}

const FILE: &str = "lab.json";

/// Starts the holder and waits for its word.
pub(crate) fn up(arguments: &cli::Up) -> ExitCode {
    report(if arguments.hold { hold(arguments) } else { start_holder(arguments) })
}

/// Ends the holder and waits until its folder is gone.
pub(crate) fn down(lab: &Path) -> ExitCode {
    report(end_holder(lab))
}

/// Becomes the command, inside the node.
pub(crate) fn exec(node: &str, lab: Option<&str>, command: &[OsString]) -> ExitCode {
    report(enter_and_exec(node, lab, command))
}

fn report(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyvip-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_holder(arguments: &cli::Up) -> Result<(), String> {
    let lab = read_lab(&arguments.lab)?;
    check_daemons(&lab)?;
    let agent = find_agent(arguments.agent.as_deref())?;
    let mut command = std::process::Command::new(process::own_program()?);
    command.args(["up", "--hold", "--agent"]).arg(agent).arg(&arguments.lab);
    // Not in this terminal's group: Ctrl-C and logout are not for it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot start the holder: {error}"))?;
    let mut word = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut word).map_err(|error| error.to_string())?;
    }
    if word.is_empty() {
        let _ = child.wait();
        return Err("the lab did not come up".to_owned());
    }
    let first = lab.nodes.keys().next().cloned().unwrap_or_default();
    println!(
        "{} is up. Look inside: anyvip-sim exec {first} -- ip route. End it: anyvip-sim down {}",
        lab.name, lab.name
    );
    Ok(())
}

fn hold(arguments: &cli::Up) -> Result<(), String> {
    let (lab, file) = (read_lab(&arguments.lab)?, absolute(&arguments.lab)?);
    let agent = find_agent(arguments.agent.as_deref())?;
    let base = folder::base(rootless::user());
    rootless::enter()?;
    crate::raise_descriptor_limit();
    block_on(async {
        let mut signals = Signals::new()?;
        let folder = Folder::make(&base, &lab.name)?;
        let mut bench = Bench::new(folder);
        let none = BTreeSet::new();
        let built = tokio::select! {
            built = bench.build(&lab, &file, &agent, &none) => built,
            _ = signals.next() => Err("stopped".to_owned()),
        };
        let held = Held { holder: Pid::this().as_raw(), nodes: bench.pids() };
        let written = built.and_then(|()| {
            let text = serde_json::to_vec(&held).map_err(|error| error.to_string())?;
            std::fs::write(bench.folder().join(FILE), text).map_err(|error| format!("{FILE}: {error}"))
        });
        if let Err(error) = written {
            bench.end().await;
            return Err(error);
        }
        println!("up");
        loop {
            tokio::select! {
                _ = signals.next() => break,
                (node, message) = bench.next_message() => {
                    // Nobody may listen any more; the agents' logs are in the folder.
                    let _ = (node, message);
                }
            }
        }
        bench.end().await;
        Ok(())
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
    let end = Instant::now() + Duration::from_secs(15);
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
    let text = std::fs::read(path.join(FILE)).map_err(|_| format!("`{name}` is not up yet"))?;
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
