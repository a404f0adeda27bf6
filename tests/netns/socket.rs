//! Clients of the control socket that are many, slow, or never done.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyvip_tests::{Agent, LONG, VIP4, peer_state, wait_until};

use crate::{Host, possible};

const STATUS: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";
const FOLLOW: &[u8] = b"GET /v1/events?follow HTTP/1.1\r\nHost: x\r\n\r\n";

fn connect(agent: &Agent) -> UnixStream {
    let stream = UnixStream::connect(agent.files.socket()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// The first line of the answer; empty when there is none.
fn answer(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

/// It serves, its session lives, and it has not kept what the clients made it hold.
#[track_caller]
fn assert_unharmed(host: &Host, before: u64) {
    assert_eq!(peer_state(&host.agent.status(), "tor").0, "Established");
    assert_eq!(host.router.count("accepted"), 1);
    let now = host.agent.process.resident();
    assert!(now < before + 4096, "{before} KiB before, {now} KiB now");
}

#[test]
fn a_thousand_clients_at_once_are_all_answered() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    let before = host.agent.process.resident();
    let mut clients: Vec<UnixStream> = (0..1000).map(|_| connect(&host.agent)).collect();
    for client in &mut clients {
        client.write_all(STATUS).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(answer(client), "HTTP/1.1 200 OK", "client {number}");
    }
    assert_unharmed(&host, before);
}

#[test]
fn clients_that_never_finish_their_request_are_cut_and_others_are_answered() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    let before = host.agent.process.resident();
    // Half a head, and half a body: more of each than are served at a time.
    let mut slow: Vec<UnixStream> = Vec::new();
    for number in 0..80 {
        let mut client = connect(&host.agent);
        let half: &[u8] = match number % 2 {
            0 => b"GET /v1/status HTT",
            _ => b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"all\"",
        };
        client.write_all(half).unwrap();
        slow.push(client);
    }
    let mut quick = connect(&host.agent);
    quick.write_all(STATUS).unwrap();
    assert_eq!(answer(&mut quick), "HTTP/1.1 200 OK");
    for client in &mut slow {
        assert!(!answer(client).contains("200"), "half a request was answered");
    }
    assert_eq!(host.agent.status()["services"][0]["admin"], "enabled");
    assert_unharmed(&host, before);
}

#[test]
fn a_head_of_a_megabyte_and_a_body_of_a_megabyte_are_refused() {
    if !possible() {
        return;
    }
    let host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    let before = host.agent.process.resident();
    let head = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let body = format!(
        "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
        1 << 20,
        " ".repeat(1 << 20)
    );
    for (request, code) in [(head, "431"), (body, "413")] {
        for _ in 0..20 {
            let mut client = connect(&host.agent);
            // The agent need not read it all before it says no.
            let _ = client.write_all(request.as_bytes());
            let said = answer(&mut client);
            assert!(said.is_empty() || said.contains(code), "{said}");
        }
    }
    assert_unharmed(&host, before);
}

#[test]
fn followers_that_never_read_cost_little_and_hold_up_nobody() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.agent.wait_advertised(VIP4, "tor");
    let before = host.agent.process.resident();
    let followers: Vec<UnixStream> = (0..200)
        .map(|_| {
            let mut client = connect(&host.agent);
            client.write_all(FOLLOW).unwrap();
            client
        })
        .collect();
    for round in 1..=3 {
        host.service.process.kill();
        host.agent.wait_reason(VIP4, "Unhealthy");
        host.service = host.fabric.service(1);
        host.agent.wait_advertised(VIP4, "tor");
        assert_eq!(host.router.count("accepted"), 1, "round {round}");
    }
    // Far more events than a follower may leave unread: those that the kernel's buffer does not take are dropped.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        host.agent.run("drain", &["web"]);
        host.agent.run("undrain", &["web"]);
    }
    // An operator who follows is refused kindly or served; a drain that waits needs no place at all.
    host.agent.run("drain", &["web", "--wait"]);
    host.agent.run("undrain", &["web"]);
    host.agent.wait_advertised(VIP4, "tor");
    assert_unharmed(&host, before);
    drop(followers);
    wait_until(LONG, || {
        let mut client = connect(&host.agent);
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        client.write_all(FOLLOW).unwrap();
        let mut head = [0; 15];
        client.read_exact(&mut head).map_err(|error| error.to_string())?;
        if &head == b"HTTP/1.1 200 OK" { Ok(()) } else { Err(String::from_utf8_lossy(&head).into_owned()) }
    });
}
