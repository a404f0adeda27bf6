//! A log that nobody takes: checks, keepalives and `status` do not wait for it.

use std::io::{PipeReader, PipeWriter, Write as _};
use std::thread;
use std::time::Duration;

use anyvip_tests::{Agent, AgentFiles, Fabric, VIP4, agent_config, binaries, peer_state, wait_until};

use crate::{Told, possible, told};

/// A pipe that takes not one byte more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&writer, flags).unwrap();
    while writer.write(b"x").is_ok() {}
    let blocking = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
    nix::fcntl::fcntl(&writer, blocking).unwrap();
    (reader, writer)
}

/// The agent with this log beside a router that gives up after 3 s without a KEEPALIVE.
fn goes_on_logging_to(log: PipeWriter) {
    let fabric = Fabric::new(binaries!(), 1);
    let router = fabric.speaker(1, "steady");
    let mut service = fabric.service(1);
    let files = AgentFiles::new(&fabric.lab, "h1", &agent_config(1));
    let mut agent = Agent::start_logging_to(&fabric.lab, fabric.host(1), files, log.into());
    agent.wait_advertised(VIP4, "tor");
    for round in 1..=2 {
        service.process.kill();
        agent.wait_reason(VIP4, "Unhealthy");
        service = fabric.service(1);
        agent.wait_advertised(VIP4, "tor");
        let withdrawn = told(&router).iter().filter(|one| **one == Told::Withdrawn(1)).count();
        assert_eq!(withdrawn, round);
    }
    // Keepalives are what is tested here: they come each second.
    let before = router.count("keepalive");
    wait_until(Duration::from_secs(30), || {
        thread::sleep(Duration::from_millis(100));
        if router.count("keepalive") > before + 3 { Ok(()) } else { Err(router.process.output()) }
    });
    assert_eq!(peer_state(&agent.status(), "tor").0, "Established");
    assert_eq!(router.count("accepted"), 1);
    assert_eq!(agent.terminate(), Some(0), "and it ends in order");
    router.wait_for("notification 0602");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    if !possible() {
        return;
    }
    let (reader, writer) = full_pipe();
    goes_on_logging_to(writer);
    drop(reader);
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    if !possible() {
        return;
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    goes_on_logging_to(writer);
}
