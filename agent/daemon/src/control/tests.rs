use std::path::PathBuf;
use std::time::Duration;

use anyvip_core::boundary::{Fact, Reply};
use anyvip_core::status::{Histogram, Status, UpgradePlan};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::api::{Ask, Operation};
use super::client::{Client, ClientError};
use super::server::{ControlSocket, SocketError, may_write};
use crate::journal::Journal;

const LONG: Duration = Duration::from_secs(20);

/// A socket path of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("anyvip-control-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("a.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn status() -> Status {
    Status {
        version: "1".to_owned(),
        router_id: "10.0.1.11".parse().unwrap(),
        uptime_ms: 1,
        warnings: Vec::new(),
        services: Vec::new(),
        peers: Vec::new(),
        decision_to_wire_us: Histogram::default(),
        upgrade: None,
        turned_away: None,
    }
}

/// An agent that knows no service and drains everything but "locked"; operations are passed on.
async fn serve(folder: &Folder) -> (Client, mpsc::Receiver<Operation>, mpsc::Sender<Fact>) {
    let (asks, mut asked) = mpsc::channel(8);
    let (operations, seen) = mpsc::channel(8);
    let (facts, mut told) = mpsc::channel::<Fact>(1024);
    tokio::spawn(ControlSocket::bind(&folder.socket()).unwrap().serve(asks));
    tokio::spawn(async move {
        let mut journal = Journal::default();
        loop {
            let ask = tokio::select! {
                biased;
                Some(fact) = told.recv() => { journal.record(7, &fact); continue; }
                Some(ask) = asked.recv() => ask,
                else => return,
            };
            match ask {
                Ask::Status(answer) => drop(answer.send(status())),
                Ask::Explain(_, answer) => drop(answer.send(None)),
                Ask::UpgradePlan(answer) => drop(answer.send(UpgradePlan::default())),
                Ask::Events(answer) => drop(answer.send(journal.entries())),
                Ask::Follow(answer) => drop(answer.send(journal.follow())),
                Ask::Operate(operation, answer) => {
                    let locked = matches!(&operation, Operation::Drain { service: Some(name), .. } if name.0 == "locked");
                    let _ = answer.send(Reply { done: !locked, text: "said".to_owned() });
                    let _ = operations.send(operation).await;
                }
            }
        }
    });
    (Client::new(&folder.socket()), seen, facts)
}

/// Sends bytes as they are; returns all that comes back.
async fn raw(folder: &Folder, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(folder.socket()).await.unwrap();
    // The server may answer and close before it took everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn status_comes_as_the_json_of_the_contract() {
    let folder = Folder::new("status");
    let (client, _, _) = serve(&folder).await;
    let value: Value = client.get("/v1/status").await.unwrap();
    assert_eq!(value["router_id"], "10.0.1.11");
    assert_eq!(value["decision_to_wire_us"], json!({"count": 0, "p50": 0, "p99": 0, "max": 0}));
}

#[tokio::test]
async fn a_drain_reaches_the_loop_with_its_reason_and_a_refused_one_says_so() {
    let folder = Folder::new("drain");
    let (client, mut seen, _) = serve(&folder).await;
    let reply: Reply =
        client.post("/v1/drain", &json!({"service": "dns", "reason": "update"})).await.unwrap();
    assert!(reply.done);
    let expected = Operation::Drain { service: Some("dns".into()), reason: Some("update".to_owned()) };
    assert_eq!(seen.recv().await, Some(expected));
    let reply: Reply = client.post("/v1/undrain", &json!({"all": true})).await.unwrap();
    assert!(reply.done);
    assert_eq!(seen.recv().await, Some(Operation::Undrain { service: None }));
    let reply: Reply = client.post("/v1/drain", &json!({"service": "locked"})).await.unwrap();
    assert!(!reply.done);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_words() {
    let folder = Folder::new("refused");
    let (client, mut seen, _) = serve(&folder).await;
    let cases = [
        ("/v1/drain", json!({"servce": "dns"}), StatusCode::BAD_REQUEST, "unknown field"),
        ("/v1/drain", json!({}), StatusCode::BAD_REQUEST, "name a service"),
        ("/v1/drain", json!({"service": "a", "all": true}), StatusCode::BAD_REQUEST, "not both"),
        ("/v1/undrain", json!({"all": true, "reason": "x"}), StatusCode::BAD_REQUEST, "no reason"),
        ("/v1/drain", json!({"service": "x".repeat(20_000)}), StatusCode::PAYLOAD_TOO_LARGE, "larger"),
        ("/v1/stop", json!({}), StatusCode::NOT_FOUND, "no such path"),
        ("/metrics", json!({}), StatusCode::NOT_FOUND, "/v1/"),
        ("/v1/status", json!({}), StatusCode::METHOD_NOT_ALLOWED, "GET"),
    ];
    for (path, body, status, words) in cases {
        match client.post::<Value>(path, &body).await {
            Err(ClientError::Refused { status: got, text }) => {
                assert_eq!(got, status, "{path} {text}");
                assert!(text.contains(words), "{path}: {text}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    for path in ["/v1/explain/none", "/v1/events?kept=x", "/v1/events?since=1", "/v1/drain"] {
        assert!(matches!(client.get::<Value>(path).await, Err(ClientError::Refused { .. })), "{path}");
    }
    assert!(seen.try_recv().is_err(), "nothing of this reached the loop");
}

#[tokio::test]
async fn bytes_that_are_not_http_or_json_do_no_harm() {
    let folder = Folder::new("garbage");
    let (client, mut seen, _) = serve(&folder).await;
    assert!(raw(&folder, b"\x16\x03\x01\x00\x05hello\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let torn = b"POST /v1/drain HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{\"all\":tr";
    assert!(raw(&folder, torn).await.starts_with("HTTP/1.1 400"));
    let long = [b"GET /v1/status HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 40_000], b"\r\n\r\n"].concat();
    assert!(!raw(&folder, &long).await.starts_with("HTTP/1.1 200"));
    assert!(seen.try_recv().is_err());
    assert!(client.get::<Value>("/v1/status").await.is_ok());
}

#[tokio::test]
async fn more_clients_than_places_are_all_answered() {
    let folder = Folder::new("many");
    let (client, _operations, _facts) = serve(&folder).await;
    // Half a request each, in every place there is.
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(folder.socket()).await.unwrap();
        stream.write_all(b"GET /v1/sta").await.unwrap();
        held.push(stream);
    }
    let asking: Vec<_> = (0..200)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get::<Status>("/v1/status").await.map(|_| ()) })
        })
        .collect();
    for one in asking {
        timeout(LONG, one).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_from_being_answered() {
    let folder = Folder::new("silent");
    let (client, _, _) = serve(&folder).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(UnixStream::connect(folder.socket()).await.unwrap());
    }
    assert!(timeout(LONG, client.get::<Value>("/v1/status")).await.unwrap().is_ok());
}

#[tokio::test]
async fn somebody_without_the_right_reads_but_does_not_change() {
    assert!(may_write(0, 990) && may_write(990, 990) && !may_write(1000, 990) && !may_write(1000, 0));
    let (asks, mut asked) = mpsc::channel(8);
    let request = |method: &str, path: &str| {
        hyper::Request::builder()
            .method(method)
            .uri(path)
            .body(http_body_util::Full::new(hyper::body::Bytes::from_static(b"{\"all\":true}")))
            .unwrap()
    };
    for path in ["/v1/drain", "/v1/undrain", "/v1/reload"] {
        let response =
            super::api::respond(request("POST", path), false, asks.clone(), Default::default()).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert!(asked.try_recv().is_err());
    let answer = tokio::spawn(async move {
        if let Some(Ask::Status(answer)) = asked.recv().await {
            let _ = answer.send(status());
        }
    });
    let response = super::api::respond(request("GET", "/v1/status"), false, asks, Default::default()).await;
    assert_eq!(response.status(), StatusCode::OK);
    answer.await.unwrap();
}

#[tokio::test]
async fn events_are_kept_and_followed() {
    let folder = Folder::new("events");
    let (client, _, facts) = serve(&folder).await;
    facts.send(Fact::Lifecycle { text: "one".to_owned() }).await.unwrap();
    let mut kept = client.events("").await.unwrap();
    let entry = kept.next().await.unwrap().unwrap();
    assert_eq!((entry.at_ms, entry.worded.text.as_str()), (7, "one"));
    assert!(kept.next().await.unwrap().is_none());
    let mut following = client.events("?follow&kept=0").await.unwrap();
    facts.send(Fact::Lifecycle { text: "two".to_owned() }).await.unwrap();
    let entry = timeout(LONG, following.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(entry.worded.text, "two");
}

#[tokio::test]
async fn a_follower_that_does_not_read_is_dropped_with_a_note() {
    let folder = Folder::new("slow");
    let (client, _, facts) = serve(&folder).await;
    let mut following = client.events("?follow").await.unwrap();
    const EVENTS: usize = 3_000;
    // Far more than the socket, both buffers and the queue hold together.
    let text = "x".repeat(2_000);
    for _ in 0..EVENTS {
        facts.send(Fact::Lifecycle { text: text.clone() }).await.unwrap();
    }
    let mut read = 0;
    let end = loop {
        match timeout(LONG, following.next()).await.expect("an end in time") {
            Ok(Some(_)) => read += 1,
            other => break other,
        }
    };
    assert!(read < EVENTS, "the follower was expected to be too slow");
    assert!(matches!(end, Err(ClientError::Garbled(text)) if text.contains("dropped")));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("stale");
    drop(std::os::unix::net::UnixListener::bind(folder.socket()).unwrap());
    let socket = ControlSocket::bind(&folder.socket()).unwrap();
    assert_eq!(std::fs::metadata(folder.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(ControlSocket::bind(&folder.socket()), Err(SocketError::InUse(_))));
    drop(socket);
    assert!(!folder.socket().exists());
    std::fs::write(folder.socket(), "mine").unwrap();
    assert!(matches!(ControlSocket::bind(&folder.socket()), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(folder.socket()).unwrap(), "mine");
}

#[tokio::test]
async fn no_agent_is_told_from_a_refusing_one() {
    let folder = Folder::new("none");
    let client = Client::new(&folder.socket());
    assert!(matches!(client.get::<Value>("/v1/status").await, Err(ClientError::NoDaemon(_))));
}
