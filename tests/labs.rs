//! Every lab under `topology/` runs as it is, meets its own expectations, and leaves nothing behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use anyvip_tests::{Need, Scratch, met};
use serde_json::Value;

/// Two labs at once would make each other's flows late.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn topology(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("topology").join(name)
}

fn simulator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"));
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Nodes, agents and services of a lab name its folder in their command lines.
    let folder = format!("-{}/", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(of_lab(&folder), Vec::<String>::new(), "processes are left");
    output
}

/// Command lines of processes of the lab in this folder.
fn of_lab(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains("anyvip-sim/") && line.contains(folder)).collect()
}

/// Plays a lab and gives back what it wrote for programs.
fn play(lab: &str, more: &[&str]) -> Value {
    let scratch = Scratch::new();
    let json = scratch.path().join("out.json");
    let output = run(simulator()
        .args(["run", topology(lab).to_str().unwrap(), "--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
        .args(["--json", json.to_str().unwrap()])
        .args(more));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{lab}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

#[test]
fn quickstart_meets_its_expectations() {
    if met(&[Need::Root]) {
        let journal = play("quickstart.clab.yml", &[]);
        let verdicts = journal["verdicts"].as_array().expect("verdicts in the JSON");
        assert!(verdicts.len() >= 20, "{verdicts:?}");
        assert!(verdicts.iter().all(|verdict| verdict["met"] == true), "{verdicts:?}");
    }
}

#[test]
fn a_flow_keeps_its_server_also_when_packets_are_lost() {
    if met(&[Need::Root, Need::Program("nft")]) {
        let scenario = topology("quickstart-loss.scenario.yml");
        play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]);
    }
}

#[test]
fn a_vip_that_somebody_deletes_is_back_at_once_until_it_is_contested() {
    if met(&[Need::Root]) {
        let scenario = topology("quickstart-vip.scenario.yml");
        play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]);
    }
}

#[test]
fn lan_arp_meets_its_expectations() {
    if met(&[Need::Root]) {
        play("lan-arp.clab.yml", &[]);
    }
}

#[test]
fn two_tor_meets_its_expectations() {
    if met(&[Need::Root]) {
        play("two-tor.clab.yml", &[]);
    }
}

#[test]
fn a_lab_runs_without_root_too() {
    if met(&[Need::Root, Need::Program("setpriv")]) {
        let scratch = Scratch::new();
        // Somewhere nobody may read and run: the build folder may be closed to others.
        let copy = |from: &str, name: &str| {
            let to = scratch.path().join(name);
            std::fs::copy(from, &to).unwrap();
            to
        };
        let simulator = copy(env!("CARGO_BIN_EXE_anyvip-sim-under-test"), "anyvip-sim");
        copy(env!("CARGO_BIN_EXE_anyvip-under-test"), "anyvip");
        let folder = scratch.path().join("topology");
        let status = Command::new("cp").arg("-r").arg(topology("")).arg(&folder).status().unwrap();
        assert!(status.success());
        let status = Command::new("chmod").args(["-R", "a+rX"]).arg(scratch.path()).status().unwrap();
        assert!(status.success());
        let output = run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
            .arg(&simulator)
            .args(["run", folder.join("quickstart.clab.yml").to_str().unwrap()])
            .stdin(Stdio::null()));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}\n{said}", output.status);
        assert!(said.contains("rootless"), "{said}");
    }
}

#[test]
fn what_a_lab_cannot_do_is_refused_by_name_before_anything_starts() {
    let scratch = Scratch::new();
    let lab = topology("quickstart.clab.yml");
    for (steps, word) in [
        ("  - delay: { link: router, by: 5ms }\n", "delay"),
        ("  - kill: h9\n", "h9"),
        ("  - teleport: h1\n", "teleport"),
    ] {
        let scenario = scratch.write("bad.scenario.yml", &format!("title: bad\nsteps:\n{steps}"));
        let output = run(simulator()
            .args(["run", lab.to_str().unwrap(), "--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
            .args(["--scenario", scenario.to_str().unwrap()]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("bad.scenario.yml:3:") && said.contains(word), "{said}");
    }
}
