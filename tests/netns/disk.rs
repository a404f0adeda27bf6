//! The state directory: full, read-only, and free again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyvip_tests::{
    Agent, AgentFiles, Fabric, LONG, Scratch, Service, Speaker, VIP4, agent_config, binaries, wait_until,
};

use crate::{Told, possible, told};

/// A file system of a few pages, mounted where the test says; unmounted when dropped.
struct TinyDisk {
    path: PathBuf,
    _scratch: Scratch,
}

impl TinyDisk {
    fn new() -> Self {
        let scratch = Scratch::new();
        let path = scratch.path().join("state");
        std::fs::create_dir(&path).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=32k,mode=755", "none"], &path);
        TinyDisk { path, _scratch: scratch }
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path.join("other")).unwrap();
        let page = [0_u8; 4096];
        while std::io::Write::write_all(&mut file, &page).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path.join("other")).unwrap();
    }

    fn make_read_only(&self) {
        mount(&["-o", "remount,ro"], &self.path);
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Whoever still has a file open in it does not matter any more.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[track_caller]
fn mount(options: &[&str], path: &Path) {
    let output = Command::new("mount").args(options).arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Host 1 with a state directory of its own. Dropped from the last to the first, so the programs before their ground.
fn host() -> (TinyDisk, Fabric, Speaker, Service, AgentFiles) {
    let disk = TinyDisk::new();
    let fabric = Fabric::new(binaries!(), 1);
    let router = fabric.speaker(1, "plain");
    let service = fabric.service(1);
    let files = AgentFiles::new(&fabric.lab, "h1", &agent_config(1)).with_state(&disk.path);
    (disk, fabric, router, service, files)
}

fn warns(status: &serde_json::Value, code: &str) -> bool {
    status["warnings"].as_array().unwrap().iter().any(|warning| warning["code"] == code)
}

#[track_caller]
fn wait_last(router: &Speaker, wanted: Told) {
    wait_until(LONG, || {
        let told = told(router);
        if told.last() == Some(&wanted) { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

#[test]
fn a_drain_on_a_full_disk_is_in_effect_and_says_that_it_is_not_written() {
    if !possible() {
        return;
    }
    let (disk, fabric, router, _service, files) = host();
    let mut agent = Agent::start(&fabric.lab, fabric.host(1), files.clone());
    agent.wait_advertised(VIP4, "tor");
    agent.wait_status("the state is written", |status| !warns(status, "state-not-written"));
    disk.fill();
    let output = agent.command("drain", &["web"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("drained: web") && text.contains("No space left"), "{text}");
    agent.wait_reason(VIP4, "Drained");
    wait_last(&router, Told::Withdrawn(1));
    assert!(warns(&agent.status(), "state-not-written"));
    // It is written as soon as there is room, without being asked again.
    disk.free();
    agent.wait_status("written", |status| !warns(status, "state-not-written"));
    agent.kill();
    let heard = told(&router).len();
    let agent = Agent::start(&fabric.lab, fabric.host(1), files);
    agent.wait_status("up, connected, and still drained", |status| {
        status["services"][0]["health"] == "up"
            && status["peers"][0]["state"] == "Established"
            && status["services"][0]["admin"] == "drained"
    });
    assert_eq!(told(&router).len(), heard, "nothing was announced");
}

#[test]
fn a_drain_on_a_read_only_disk_is_in_effect_and_says_that_it_is_not_written() {
    if !possible() {
        return;
    }
    let (disk, fabric, router, _service, files) = host();
    let agent = Agent::start(&fabric.lab, fabric.host(1), files);
    agent.wait_advertised(VIP4, "tor");
    agent.wait_status("the state is written", |status| !warns(status, "state-not-written"));
    // A file system that turns read-only under a program that holds a file open for writing is one that had errors; a
    // read-only one on top looks the same to whoever opens a file now.
    let of_agent = |program: &str, args: &[&str]| {
        let target = agent.process.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &target, "-m", program]).args(args).arg(&disk.path);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    of_agent("mount", &["-t", "tmpfs", "-o", "ro", "none"]);
    let output = agent.command("drain", &["web"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("drained: web") && text.contains("Read-only"), "{text}");
    wait_last(&router, Told::Withdrawn(1));
    let status = agent.wait_reason(VIP4, "Drained");
    assert!(warns(&status, "state-not-written"), "{status:#}");
    of_agent("umount", &[]);
    agent.wait_status("written", |status| !warns(status, "state-not-written"));
    agent.run("undrain", &["web"]);
    wait_last(&router, Told::Announced(1));
}

#[test]
fn an_agent_that_cannot_write_what_was_drained_loses_no_drain_that_was_written() {
    if !possible() {
        return;
    }
    let (disk, fabric, router, _service, files) = host();
    let mut agent = Agent::start(&fabric.lab, fabric.host(1), files.clone());
    agent.wait_advertised(VIP4, "tor");
    agent.run("drain", &["web"]);
    wait_last(&router, Told::Withdrawn(1));
    disk.fill();
    agent.kill();
    // It starts although it cannot say so on the disk, and reads what is there.
    let agent = Agent::start(&fabric.lab, fabric.host(1), files);
    let status = agent.wait_status("up, connected, and still drained", |status| {
        status["services"][0]["health"] == "up"
            && status["peers"][0]["state"] == "Established"
            && status["services"][0]["admin"] == "drained"
    });
    assert!(warns(&status, "state-not-written"), "{status:#}");
    assert_eq!(told(&router).last(), Some(&Told::Withdrawn(1)));
}

#[test]
fn a_start_on_a_read_only_disk_is_refused_with_its_cure() {
    if !possible() {
        return;
    }
    let (disk, fabric, router, _service, files) = host();
    disk.make_read_only();
    let mut agent = Agent::launch(&fabric.lab, fabric.host(1), files);
    let status = agent.process.wait(LONG);
    assert_eq!(status.code(), Some(1), "{}", agent.log());
    assert!(agent.log().contains("must be writable"), "{}", agent.log());
    assert_eq!(told(&router), []);
    assert_eq!(fabric.lab.address(fabric.host(1), VIP4), None, "nothing was touched");
}
