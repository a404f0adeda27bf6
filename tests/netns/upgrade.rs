//! The agent becomes another version of itself, or stays what it is.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use anyvip_tests::{
    AgentFiles, Fabric, LONG, Process, VIP4, advertised, agent_config, binaries, peer_state, wait_until,
};

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
        "peer tor: drops 2 routes until the new session stands: graceful_restart is off for it",
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

#[test]
fn by_force_the_session_ends_without_a_word_and_the_same_process_goes_on_as_another() {
    if !possible() {
        return;
    }
    // A check that runs a command which takes its time.
    let slow = "\n[[service.web.check]]\nexec = { command = [\"/bin/sleep\", \"0.2\"] }\ninterval = \"500ms\"\ntimeout = \"500ms\"\n";
    let mut host = Host::with(&(agent_config(1) + slow));
    host.wait_told(1);
    host.agent.wait_advertised(VIP4, "tor");
    let (pid, namespace) = (host.agent.process.pid(), host.fabric.host(1).clone());
    let monitor = host.fabric.monitor(&namespace);
    let binary: PathBuf = host.fabric.lab.scratch().path().join("anyvip-new");
    std::fs::copy(host.fabric.lab.binaries.agent, &binary).unwrap();
    for round in 0..3 {
        let said = host.agent.run("upgrade", &["--force", "--binary", binary.to_str().unwrap()]);
        assert!(said.contains("although routes are lost") && said.contains("took over from"), "{said}");
        host.agent.wait_advertised(VIP4, "tor");
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), binary, "round {round}");
    }
    assert_eq!(host.agent.process.ended(), None, "whoever watches the process sees it live on");
    let output = host.router.process.output();
    assert!(!output.contains("notification"), "{output}");
    assert!(!told(&host.router).contains(&Told::Withdrawn(1)), "{output}");
    let gone = |text: &str| text.lines().any(|line| line.starts_with("Deleted") && line.contains(VIP4));
    assert!(!gone(&monitor.output()), "the address stays all the time");
    assert_eq!(namespace.sysctl("net/ipv4/conf/eth0/arp_ignore"), "1");
    // Commands of former versions are nobody's: none is left, not even dead.
    wait_until(LONG, || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let dead = |child: &&str| {
            std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| stat.contains(") Z "))
        };
        let dead: Vec<&str> = children.split_whitespace().filter(dead).collect();
        if dead.is_empty() { Ok(()) } else { Err(format!("dead children: {dead:?}")) }
    });
    // An orderly end is one as ever, and the next life inherits nothing.
    assert_eq!(host.agent.terminate(), Some(0));
    host.restart();
    let status = host.agent.wait_advertised(VIP4, "tor");
    assert!(status["upgrade"].is_null());
    assert_eq!(status["warnings"], serde_json::json!([]), "no unclean exit was counted");
}

/// The same program, which calls itself by another version.
fn another_version(host: &Host) -> (PathBuf, String) {
    let ours = env!("CARGO_PKG_VERSION").as_bytes();
    let first = ours[0] + 1;
    let octets = std::fs::read(host.fabric.lab.binaries.agent).unwrap();
    // Optimised code may hold the first four octets as a number of their own. Names of crates have a hyphen before their version.
    let mut changed = octets.clone();
    for at in 1..octets.len() - 8 {
        if octets[at..].starts_with(&ours[..4])
            && octets[at - 1] != b'-'
            && &octets[at + 4..at + 8] != b"llvm"
        {
            changed[at] = first;
        }
    }
    let path = host.fabric.lab.scratch().path().join("anyvip-other");
    std::fs::write(&path, changed).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let version = [&[first], &ours[1..]].concat();
    (path, String::from_utf8(version).unwrap())
}

#[test]
fn status_and_events_name_the_version_that_was_taken_over_from_on_the_way_there_and_back() {
    if !possible() {
        return;
    }
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: where a program of this architecture holds its version is not known");
        return;
    }
    let host = Host::new();
    host.wait_told(1);
    let (ours, (path, other)) = (env!("CARGO_PKG_VERSION"), another_version(&host));
    let says = std::process::Command::new(&path).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&says.stdout).trim(), format!("anyvip {other}"));
    let there = (path.to_str().unwrap(), ours, other.as_str());
    let back = (host.fabric.lab.binaries.agent, other.as_str(), ours);
    for (binary, from, to) in [there, back] {
        let said = host.agent.run("upgrade", &["--force", "--binary", binary]);
        assert!(said.contains(&format!("making room for anyvip {to} ")), "{said}");
        assert!(said.contains(&format!("anyvip {to} took over from {from}")), "{said}");
        let status = host.agent.wait_advertised(VIP4, "tor");
        assert_eq!(status["version"], to);
        assert_eq!(status["upgrade"]["from"], from);
        assert!(status["upgrade"]["text"].as_str().unwrap().contains(&format!("took over from {from}")));
        let events = host.agent.run("events", &[]);
        assert!(events.contains(&format!("took over from {from} after")), "{events}");
        let text = host.agent.run("status", &[]);
        assert!(text.contains(&format!("took over from {from}")), "{text}");
    }
}

#[test]
fn a_version_that_cannot_read_what_is_handed_down_is_refused_before_anything_happens() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.wait_told(1);
    let before = host.agent.wait_advertised(VIP4, "tor");
    // The program itself, as it would be asked by one that hands down another format.
    let agent = host.fabric.lab.binaries.agent;
    let asked =
        "[ \"$1\" = validate ] && set -- validate --config \"$3\" --state-dir \"$5\" --takes-over 4711";
    let later = script(&host, "later", &format!("{asked}\nexec {agent} \"$@\""));
    let why = "cannot take over from the one that runs (what is handed down is of version 4711";
    refused(&host, &["--force", "--binary", &later], why);
    refused(&host, &["--force", "--binary", &later], "stop the agent and start this one");
    assert_undisturbed(&host, &before);
    assert!(host.agent.status()["upgrade"].is_null());
    let events = host.agent.run("events", &[]);
    assert!(events.contains("upgrade refused"), "{events}");
}

#[test]
fn where_the_new_version_listens_is_what_its_configuration_says() {
    if !possible() {
        return;
    }
    let at = |address: &str| {
        agent_config(1).replace("[bgp]\n", &format!("[bgp]\nlisten = \"{address}:179\"\n"))
            + &format!("[responder]\nlisten = \"{address}:8090\"\n")
    };
    let host = Host::with(&at("0.0.0.0"));
    let listening = || {
        let text = host.fabric.host(1).run("ss", &["-Hltn", "( sport = :179 or sport = :8090 )"]);
        let mut all: Vec<String> =
            text.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect();
        all.sort();
        all
    };
    host.wait_told(1);
    assert_eq!(listening(), ["0.0.0.0:179", "0.0.0.0:8090"]);
    for address in ["10.1.1.2", "0.0.0.0", "0.0.0.0"] {
        host.agent.files.write_config(&at(address));
        host.agent.run("upgrade", &["--force"]);
        host.agent.wait_status("no complaint", |status| status["warnings"] == serde_json::json!([]));
        assert_eq!(listening(), [format!("{address}:179"), format!("{address}:8090")]);
    }
    host.agent.files.write_config(&agent_config(1));
    host.agent.run("upgrade", &["--force"]);
    assert!(listening().is_empty(), "{:?}", listening());
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
