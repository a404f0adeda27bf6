//! The labs under `topology/`, played in virtual time by the program itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyvip_tests::Scratch;
use serde_json::Value;

fn topology(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("topology").join(name)
}

fn run(lab: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"))
        .args(["run", topology(lab).to_str().unwrap(), "--backend", "virtual"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap()
}

/// Plays a lab and gives back what it wrote for programs, and what it said.
fn play(lab: &str, more: &[&str]) -> (Value, String) {
    let scratch = Scratch::new();
    let json = scratch.path().join("out.json");
    let arguments = [&["--json", json.to_str().unwrap()], more].concat();
    let output = run(lab, &arguments);
    let said = said(&output);
    assert!(output.status.success(), "{lab}: {}\n{said}", output.status);
    (serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap(), said)
}

#[test]
fn quickstart_and_two_tor_meet_their_expectations_under_several_seeds() {
    for (lab, least) in [("quickstart.clab.yml", 20), ("two-tor.clab.yml", 12)] {
        for seed in ["1", "2", "3"] {
            let (journal, said) = play(lab, &["--seed", seed]);
            let verdicts = journal["verdicts"].as_array().expect("verdicts in the JSON");
            assert!(verdicts.len() >= least, "{said}");
            assert!(verdicts.iter().all(|verdict| verdict["met"] == true), "{said}");
        }
    }
}

#[test]
fn a_flow_keeps_its_server_also_when_packets_are_lost() {
    let scenario = topology("quickstart-loss.scenario.yml");
    play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]);
}

#[test]
fn an_upgrade_loses_no_flow_and_cuts_no_connection() {
    let scenario = topology("upgrade.scenario.yml");
    play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]);
}

#[test]
fn the_same_seed_prints_the_same_to_the_letter_and_another_does_not() {
    let (_, first) = play("quickstart.clab.yml", &["--seed", "7"]);
    let (_, again) = play("quickstart.clab.yml", &["--seed", "7"]);
    let (_, other) = play("quickstart.clab.yml", &["--seed", "8"]);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn what_only_real_kernels_can_do_is_refused_by_name_before_anything_runs() {
    let output = run("lan-arp.clab.yml", &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lan-arp.scenario.yml:48:5: error: sysctl:"), "{said}");
    assert!(said.contains("net.ipv4.conf.all.send_redirects"), "{said}");
    assert!(said.contains("nothing was started"), "{said}");
}

#[test]
fn a_seed_for_real_kernels_and_an_unknown_backend_are_refused() {
    let lab = topology("quickstart.clab.yml");
    for (arguments, word) in [(["--backend", "netns"], "--seed"), (["--backend", "ns3"], "ns3")] {
        let output = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"))
            .args(["run", lab.to_str().unwrap(), "--seed", "1"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(word), "{}", said(&output));
    }
}
