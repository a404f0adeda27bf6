//! The agent becomes another version of itself, or stays what it is.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;

use anyvip_tests::{AgentFiles, Fabric, LONG, Process, VIP4, advertised, agent_config, binaries, peer_state};

use crate::{Host, Told, possible, told};

/// A program of a few lines.
fn script(host: &Host, name: &str, lines: &str) -> String {
    let path = host.fabric.lab.scratch().write(name, &format!("#!/bin/sh\n{lines}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn refused(host: &Host, args: &[&str], word: &str) {
    let output = host.agent.command("upgrade", args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    assert!(text.contains(word), "{args:?}: no {word:?} in: {text}");
}

/// The session that stands has stood since then.
#[track_caller]
fn assert_undisturbed(host: &Host, before: &serde_json::Value) {
    let now = host.agent.status();
    let (state, lasted) = peer_state(&now, "tor");
    assert_eq!(state, "Established");
    assert!(lasted >= peer_state(before, "tor").1, "it is another session:\n{}", host.agent.log());
    assert!(advertised(&now, VIP4, "tor"));
    assert_eq!(told(&host.router), [Told::Announced(1)], "the router heard nothing of it");
}

#[test]
fn a_new_version_that_does_not_run_here_is_refused_and_the_old_one_notices_nothing() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.wait_told(1);
    let before = host.agent.wait_advertised(VIP4, "tor");
    refused(&host, &["--force", "--binary", "/nonexistent/anyvip"], "No such file or directory");
    refused(&host, &["--force", "--binary", "/bin/false"], "ended with 1");
    refused(&host, &["--force", "--binary", "/bin/true"], "is not anyvip");
    let older = script(
        &host,
        "older",
        "[ $1 = --version ] && echo anyvip 0.0.1 && exit 0\necho no such option\nexit 2",
    );
    refused(&host, &["--force", "--binary", &older], "cannot take over from this version");
    let hangs = script(&host, "hangs", "exec sleep 1000");
    refused(&host, &["--force", "--binary", &hangs], "did not end within");
    host.agent.files.write_config("config_version = 1\nnonsense = 1\n");
    refused(&host, &["--force"], "nonsense");
    host.agent.files.write_config(&agent_config(1));
    // This router knows nothing of graceful restart.
    refused(
        &host,
        &[],
        "peer tor drops 2 routes until the new session stands: graceful_restart is off for it",
    );
    let plan = host.agent.command("upgrade", &["--plan"]);
    assert_eq!(plan.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&plan.stdout).contains("lost for a while"));
    assert_undisturbed(&host, &before);
    assert!(host.agent.status()["upgrade"].is_null());
}

/// It is good when it is looked at, and gone when it is to be run.
#[test]
fn a_new_version_that_vanishes_leaves_the_old_one_at_work() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.wait_told(1);
    let before = host.agent.wait_advertised(VIP4, "tor");
    let vanishes = "[ $1 = --version ] && echo anyvip 9.9.9 && exit 0\nrm \"$0\"";
    let vanishes = script(&host, "vanishes", vanishes);
    refused(
        &host,
        &["--force", "--binary", &vanishes],
        "the upgrade failed, this version goes on: cannot become",
    );
    assert_undisturbed(&host, &before);
    assert!(!host.agent.files.state().join("restored.json").exists());
    // Checks go on, and count.
    let status = host.agent.status();
    assert_eq!(status["upgrade"]["phase"], "failed");
    let mut host = host;
    host.service.process.kill();
    host.wait_withdrawn(1);
}

/// sd_notify(3): the main process stays the same, and says that it reloads.
#[test]
fn a_service_manager_sees_a_reload_of_the_same_process() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let path = fabric.lab.scratch().path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    let files = AgentFiles::new(&fabric.lab, "h1", &agent_config(1));
    let mut command = fabric.host(1).command(fabric.lab.binaries.agent);
    files.arguments(&mut command, "run");
    command.env("NOTIFY_SOCKET", &path);
    let process = Process::start("anyvip", &mut command, &files.log());
    let said = |word: &str| {
        let mut all = String::new();
        let mut buffer = [0; 4096];
        while !all.lines().any(|line| line == word) {
            let length =
                manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {word}: {error}\n{all}"));
            all.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            all.push('\n');
        }
        all
    };
    said("READY=1");
    let output = files.command(fabric.host(1), "upgrade", &["--force"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reloading = said("RELOADING=1") + &said("READY=1");
    assert!(reloading.contains("MONOTONIC_USEC=") && !reloading.contains("STOPPING=1"), "{reloading}");
    let exe = std::fs::read_link(format!("/proc/{}/exe", process.pid())).unwrap();
    assert_eq!(exe.to_str(), Some(fabric.lab.binaries.agent));
}
