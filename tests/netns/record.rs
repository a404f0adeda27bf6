//! A run is recorded, and lived through again by the simulator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyvip_tests::{Agent, AgentFiles, Fabric, LONG, VIP4, agent_config, binaries, wait_until};
use serde_json::Value;

use crate::{Host, Told, possible, told};

/// A host whose agent records; files of at most so many bytes of events.
fn recording(segment: usize) -> (Host, PathBuf) {
    let fabric = Fabric::new(binaries!(), 1);
    let router = fabric.speaker(1, "plain");
    let service = fabric.service(1);
    let mut files = AgentFiles::new(&fabric.lab, "h1", &(agent_config(1) + "[host]\nstop_time = \"0s\"\n"));
    let folder = fabric.lab.scratch().path().join("recording");
    let folder_text = folder.to_str().unwrap().to_owned();
    files.run_arguments =
        vec!["--record".to_owned(), folder_text, "--record-segment".to_owned(), segment.to_string()];
    let agent = Agent::start(&fabric.lab, fabric.host(1), files);
    (Host { agent, service, router, fabric }, folder)
}

fn replay(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries!().simulator);
    command.arg("replay").arg(file).args(arguments).output().expect("run anyvip-sim")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[track_caller]
fn report(file: &Path) -> Value {
    let output = replay(file, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_recorded_run_is_replayed_event_by_event_and_a_flipped_byte_is_named() {
    if !possible() {
        return;
    }
    let (mut host, folder) = recording(32 << 20);
    host.wait_told(1);
    host.service.process.kill();
    host.wait_withdrawn(1);
    host.service = host.fabric.service(1);
    wait_until(LONG, || {
        let heard = told(&host.router);
        let back = heard.iter().filter(|one| **one == Told::Announced(1)).count() > 1;
        if back { Ok(()) } else { Err(format!("router heard {heard:?}")) }
    });
    host.agent.run("drain", &["web", "--reason", "disk swap"]);
    host.agent.run("undrain", &["web"]);
    assert_eq!(host.agent.terminate(), Some(0));

    let file = folder.join("anyvip-0.recording");
    let output = replay(&file, &["--print"]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for words in [
        "#1 ",
        "  started\n",
        "went from up to down: ",
        &format!("UPDATE -{VIP4}/32"),
        &format!("UPDATE +{VIP4}/32"),
        "drain web: disk swap",
        "told to end",
        "the agent ended in order",
    ] {
        assert!(printed.contains(words), "{words:?} in:\n{printed}");
    }
    let whole = report(&file);
    assert!(whole["differs"].is_null() && whole["first"] == 1, "{whole}");
    let events = whole["events"].as_u64().unwrap();
    assert!(events > 20, "{whole}");

    // Only the beginning is wanted.
    let output = replay(&file, &["--until", "10ms"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).contains("stopped where --until said"), "{}", text(&output));

    let bytes = fs::read(&file).unwrap();
    let damaged = folder.join("damaged");
    let mut changed = bytes.clone();
    let at = changed.len() - changed.len() / 8;
    changed[at] ^= 1;
    fs::write(&damaged, &changed).unwrap();
    let output = replay(&damaged, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("DAMAGED: event ") && said.contains("checksum"), "{said}");
    let offset: usize = said
        .split("offset ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .trim_end_matches(':')
        .parse()
        .unwrap();
    assert!(offset <= at && at - offset < 4096, "byte {at} is in the record at {offset}");

    let foreign = folder.join("foreign");
    fs::write(&foreign, "#!/bin/sh\necho no recording\n").unwrap();
    for (file, code) in [(&foreign, 2), (&folder.join("nowhere"), 2)] {
        let output = replay(file, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(file.to_str().unwrap()), "the file is named: {}", text(&output));
    }
    // Cut in the checkpoint there is nothing to live through.
    let cut = folder.join("cut");
    fs::write(&cut, &bytes[..600]).unwrap();
    let output = replay(&cut, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("it ends in the middle of the record at offset"), "{}", text(&output));
}

#[test]
fn what_sigkill_leaves_is_replayed_to_its_end_and_segments_take_turns() {
    if !possible() {
        return;
    }
    let (mut host, folder) = recording(4_000);
    host.wait_told(1);
    let files = ["anyvip-0.recording", "anyvip-1.recording"].map(|name| folder.join(name));
    // Each is written over at least once.
    wait_until(LONG, || {
        let firsts: Vec<u64> = files
            .iter()
            .filter_map(|file| serde_json::from_slice::<Value>(&replay(file, &["--json"]).stdout).ok())
            .filter_map(|report| report["first"].as_u64())
            .collect();
        if firsts.len() == 2 && !firsts.contains(&1) { Ok(()) } else { Err(format!("{firsts:?}")) }
    });
    host.agent.process.kill();
    let mut reports = files.map(|file| report(&file));
    reports.sort_by_key(|report| report["first"].as_u64());
    let [older, newer] = reports;
    assert_eq!(
        older["first"].as_u64().unwrap() + older["events"].as_u64().unwrap(),
        newer["first"],
        "no gap"
    );
    assert!(older["ends"].as_str().unwrap().contains("the segment is full"), "{older}");
    assert!(newer["ends"].as_str().unwrap().contains("killed"), "{newer}");
}
