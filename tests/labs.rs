//! Every lab under `topology/` runs as it is, meets its own expectations, and leaves nothing behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use anyvip_tests::{LONG, Need, Scratch, met, wait_until};
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

/// The verdicts of this measurement, all met, and the number of them.
fn predicted(journal: &Value, least: usize) {
    let measured = journal["measurements"].as_object().unwrap();
    let counts =
        measured.values().map(|one| (one["twin"]["compared"].as_u64(), one["twin"]["equal"].as_u64()));
    let exact = counts.filter(|(compared, equal)| *compared >= Some(1000) && compared == equal).count();
    assert!(exact >= least, "the twin was right in {exact} of {} measurements", measured.len());
}

#[test]
fn membership_moves_what_the_formula_says_and_every_flow_goes_where_the_twin_says() {
    if met(&[Need::Root]) {
        predicted(&play("membership.clab.yml", &[]), 20);
    }
}

#[test]
fn two_tiers_that_hash_alike_leave_servers_idle_until_one_gets_another_seed() {
    if met(&[Need::Root]) {
        predicted(&play("two-tier.clab.yml", &[]), 4);
    }
}

#[test]
fn dns_queries_are_lost_only_until_the_route_of_their_server_is_gone() {
    if met(&[Need::Root]) {
        let scenario = topology("udp-dns.scenario.yml");
        predicted(&play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]), 2);
    }
}

#[test]
fn connections_survive_the_loss_of_a_router_if_its_neighbour_hashes_alike() {
    if met(&[Need::Root]) {
        predicted(&play("router-loss.clab.yml", &[]), 4);
    }
}

#[test]
fn weights_move_flows_of_a_group_at_once_and_none_of_buckets_in_use() {
    if met(&[Need::Root]) {
        predicted(&play("ramp.clab.yml", &[]), 10);
    }
}

#[test]
fn the_fields_of_the_hash_decide_about_one_client_fragments_and_path_mtu_discovery() {
    if met(&[Need::Root]) {
        predicted(&play("hash-fields.clab.yml", &[]), 4);
    }
}

#[test]
fn a_site_is_emptied_without_a_lost_question_and_lost_with_few() {
    if met(&[Need::Root]) {
        predicted(&play("two-sites.clab.yml", &[]), 4);
    }
}

#[test]
fn frr_and_bird_do_in_a_lab_what_the_embedded_router_does() {
    if met(&[Need::Root, Need::Frr, Need::Bird]) {
        predicted(&play("frr-bird.clab.yml", &[]), 9);
    }
}

#[test]
fn what_has_no_need_of_a_kernel_is_the_same_in_virtual_time() {
    for lab in ["two-tier", "router-loss", "ramp", "two-sites"] {
        predicted(&play(&format!("{lab}.clab.yml"), &["--backend", "virtual"]), 4);
    }
}

#[test]
fn membership_is_the_same_in_virtual_time() {
    predicted(&play("membership.clab.yml", &["--backend", "virtual"]), 20);
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

/// A copy of the quickstart lab under a name of its own.
fn renamed(scratch: &Scratch, name: &str) -> PathBuf {
    let folder = scratch.path().join("topology");
    assert!(Command::new("cp").arg("-r").arg(topology("")).arg(&folder).status().unwrap().success());
    let text = std::fs::read_to_string(folder.join("quickstart.clab.yml")).unwrap();
    let text = text.replace("name: quickstart\n", &format!("name: {name}\n"));
    let lab = folder.join(format!("{name}.clab.yml"));
    std::fs::write(&lab, text).unwrap();
    let scenario =
        "title: waits\nsteps:\n  - wait-for: { router: router, prefix: 192.0.2.53/32, next-hops: 4 }\n";
    std::fs::write(folder.join(format!("{name}.scenario.yml")), scenario).unwrap();
    lab
}

fn gone(folder: &str) {
    wait_until(LONG, || match of_lab(folder) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("processes are left: {left:?}")),
    });
}

#[test]
fn a_lab_that_was_killed_is_cleaned_by_the_next_down_and_by_the_next_run() {
    if !met(&[Need::Root]) {
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new();
    let name = format!("killed{}", std::process::id());
    let lab = renamed(&scratch, &name);
    let agent = ["--agent", env!("CARGO_BIN_EXE_anyvip-under-test")];
    let said = |arguments: &[&str]| {
        let output = simulator().args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (base, lab) = (Path::new("/run/anyvip-sim"), lab.to_str().unwrap());
    let kill = |pid: i64| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    };

    // Left running, its holder killed, ended by name.
    // The holder keeps this process's outputs: nobody may wait for their end.
    let up = simulator()
        .args(["up", lab, agent[0], agent[1]])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(up.unwrap().success());
    let held: Value =
        serde_json::from_slice(&std::fs::read(base.join(&name).join("lab.json")).unwrap()).unwrap();
    kill(held["holder"].as_i64().unwrap());
    gone(&format!("/{name}/"));
    assert!(base.join(&name).is_dir());
    let (down, text) = said(&["down", &name]);
    assert!(down && text.contains("was killed"), "{text}");
    assert!(!base.join(&name).exists());
    let (again, text) = said(&["down", &name]);
    assert!(!again && text.contains("no lab"), "{text}");

    // Played and killed in the middle, then played again.
    let mut child = simulator().args(["run", lab, agent[0], agent[1]]).stdout(Stdio::null()).spawn().unwrap();
    let left = base.join(format!("{name}-{}", child.id()));
    wait_until(LONG, || {
        if left.join("h1/state").is_dir() { Ok(()) } else { Err("no agent has begun".to_owned()) }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    gone(&format!("/{name}-{}/", child.id()));
    assert!(left.is_dir());
    let (run, text) = said(&["run", lab, agent[0], agent[1]]);
    assert!(run, "{text}");
    assert!(!left.exists());
}

#[test]
fn everything_wrong_with_a_lab_and_its_scenario_is_said_at_once_and_nothing_is_made() {
    let scratch = Scratch::new();
    let lab = scratch.write(
        "bad.clab.yml",
        r#"name: bad
topology:
  defaults:
    kind: linux
    binds: [".:/etc/anyvip"]
    exec: [anyvip-sim node --lab /x --name __clabNodeName__]
  nodes:
    tor:
      labels: { anyvip.role: router, anyvip.asn: 1, anyvip.address.eth1: 10.0.1.1/24, anyvip.address.eth2: 10.0.2.1/24 }
    h1:
      labels: { anyvip.role: agent, anyvip.asn: 2, anyvip.address.eth1: 10.0.1.11/24 }
    h2:
      labels: { anyvip.role: agent, anyvip.asn: 3, anyvip.address.eth1: 10.0.1.11/24 }
    h3:
      kind: srl
  links:
    - endpoints: ["tor:eth1", "h1:eth1"]
    - endpoints: ["tor:eth1", "h2:eth1"]
    - endpoints: ["tor:eth2", "h4:eth1"]
"#,
    );
    let scenario = scratch.write(
        "bad.scenario.yml",
        "title: bad\nsteps:\n  - kill: h5\n  - kill: h3\n  - wait-for: { router: tor, prefix: 192.0.2.1/32, next-hops: 9 }\n  \
         - expect: { of: nothing, server-count: 7 }\n",
    );
    let output = run(simulator()
        .args(["run", lab.to_str().unwrap(), "--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
        .args(["--scenario", scenario.to_str().unwrap()]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        "bad.clab.yml:15:13: error: node h3: kind `srl` is not supported",
        "bad.clab.yml:13:73: error: node h2: 10.0.1.11 is already the address of h1:eth1",
        "bad.clab.yml:18:7: error: link: tor:eth1 is an end of another link too",
        "bad.clab.yml:19:7: error: link: there is no node `h4`",
        "bad.scenario.yml:3:5: error: step: there is no node `h5`",
        "bad.scenario.yml:5:5: error: 9 next hops: tor has only 2 neighbours",
        "bad.scenario.yml:6:5: error: `nothing`: no earlier step measures",
        "bad.scenario.yml:6:5: error: 7 servers can never answer: the lab has 3",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("`h3`"), "one error a mistake: {said}");
    assert!(said.contains("nothing was started"), "{said}");
}
