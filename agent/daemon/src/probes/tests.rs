use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyvip_core::boundary::{ProbeId, ProbeOutcome, ProbeResult, Target};
use anyvip_core::config::{CheckKind, ExecCheck, HttpCheck, HttpMethod, TcpCheck, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::{AT_ONCE, Finished, Names, Probes, Request};

/// Far longer than anything here takes: a wait that fails the test instead of hanging it.
const LONG: Duration = Duration::from_secs(30);

fn request(number: u64, kind: CheckKind) -> Request {
    Request {
        probe: ProbeId(number),
        target: Target::Vip(IpAddr::from([127, 0, 0, 1])),
        kind,
        timeout: Duration::from_secs(10),
        names: Names { service: "web".to_owned(), check: "web/1".to_owned() },
    }
}

async fn outcome(request: Request) -> ProbeOutcome {
    let (sender, mut finished) = mpsc::unbounded_channel();
    let mut probes = Probes::new(sender);
    probes.start(request);
    timeout(LONG, finished.recv()).await.expect("an end in time").expect("an end").outcome
}

async fn ask(kind: CheckKind) -> (ProbeResult, String) {
    let outcome = outcome(request(1, kind)).await;
    (outcome.result, outcome.detail)
}

fn http(port: u16) -> HttpCheck {
    HttpCheck {
        address: None,
        port,
        method: HttpMethod::Get,
        path: "/healthz".to_owned(),
        host: None,
        headers: Vec::new(),
        expect_status: vec![(200, 299)],
        expect_body: None,
        tls: None,
    }
}

fn tcp(port: u16, send: Option<&str>, expect: Option<&str>) -> CheckKind {
    let (send, expect) = (send.map(Into::into), expect.map(str::to_owned));
    CheckKind::Tcp(TcpCheck { address: None, port, send, expect })
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Reads a request up to its empty line.
async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Answers each connection with these bytes after the request's head, and tells the heads.
async fn answering(answer: Vec<u8>) -> (u16, mpsc::UnboundedReceiver<String>) {
    let (listener, port) = listener().await;
    let (heads, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = read_head(&mut stream).await;
            let _ = heads.send(head);
            let _ = stream.write_all(&answer).await;
        }
    });
    (port, seen)
}

fn response(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A port that nobody listens on: bound, so that nobody else takes it, but never listening.
fn closed_port() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn http_passes_on_a_wanted_status_and_says_which() {
    let (port, mut heads) = answering(response("200 OK", "fine")).await;
    let check = HttpCheck {
        host: Some("web.example".to_owned()),
        headers: vec![("X-Probe".to_owned(), "anyvip".into())],
        ..http(port)
    };
    assert_eq!(ask(CheckKind::Http(check)).await, (ProbeResult::Pass, "200 OK".to_owned()));
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("get /healthz http/1.1\r\n"), "{head}");
    for line in ["host: web.example", "x-probe: anyvip", "connection: close"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
}

#[tokio::test]
async fn without_a_host_the_address_is_the_host() {
    let (port, mut heads) = answering(response("204 No Content", "")).await;
    let check = HttpCheck { method: HttpMethod::Head, ..http(port) };
    assert_eq!(ask(CheckKind::Http(check)).await, (ProbeResult::Pass, "204 No Content".to_owned()));
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("HEAD ") && head.contains(&format!("127.0.0.1:{port}")), "{head}");
}

#[tokio::test]
async fn http_fails_on_an_unwanted_status_and_says_what_was_wanted() {
    let (port, _) = answering(response("503 Service Unavailable", "")).await;
    let expected = (ProbeResult::Fail, "status 503, wanted 200-299".to_owned());
    assert_eq!(ask(CheckKind::Http(http(port))).await, expected);
    let check = HttpCheck { expect_status: vec![(200, 204), (301, 301)], ..http(port) };
    assert_eq!(ask(CheckKind::Http(check)).await.1, "status 503, wanted 200-204, 301");
    let check = HttpCheck { expect_status: vec![(503, 503)], ..http(port) };
    assert_eq!(ask(CheckKind::Http(check)).await.0, ProbeResult::Pass);
}

#[tokio::test]
async fn the_body_is_looked_at_up_to_64_kib() {
    let within = format!("{}ready{}", "x".repeat(60_000), "y".repeat(500_000));
    let (port, _) = answering(response("200 OK", &within)).await;
    let check = HttpCheck { expect_body: Some("ready".to_owned()), ..http(port) };
    let passed = (ProbeResult::Pass, "200 OK, body as wanted".to_owned());
    assert_eq!(ask(CheckKind::Http(check.clone())).await, passed);
    let beyond = format!("{}ready", "x".repeat(70_000));
    let (port, _) = answering(response("200 OK", &beyond)).await;
    let failed = (ProbeResult::Fail, "200, but the body does not contain \"ready\"".to_owned());
    assert_eq!(ask(CheckKind::Http(HttpCheck { port, ..check })).await, failed);
}

#[tokio::test]
async fn a_refused_connection_fails() {
    let (_held, port) = closed_port();
    let refused = (ProbeResult::Fail, "connection refused".to_owned());
    assert_eq!(ask(CheckKind::Http(http(port))).await, refused);
    assert_eq!(ask(tcp(port, None, None)).await, refused);
}

#[tokio::test]
async fn a_server_that_answers_too_late_fails_with_the_timeout_in_words() {
    let (listener, port) = listener().await;
    let kind = CheckKind::Http(http(port));
    let request = Request { timeout: Duration::from_millis(150), ..request(1, kind) };
    let outcome = outcome(request).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (ProbeResult::Fail, "no answer within 150ms"));
    drop(listener);
}

/// A server of its own thread, so that it lives while the thread of the probe stands still.
fn serve(answer: impl Fn(std::net::TcpStream, usize) + Send + 'static) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            answer(stream, number);
        }
    });
    port
}

/// This thread, and with it the probe, stands still for a while, a moment after it has begun.
fn stand_still_soon(after: Duration, how_long: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        std::thread::sleep(how_long);
    });
}

#[tokio::test]
async fn a_probe_in_which_the_agent_stood_still_is_judged_by_the_time_it_ran() {
    // The answer comes late within the timeout, or just after the end of it was slept through.
    for (delay, timeout) in [(200, 400), (600, 400)] {
        let port = serve(move |mut stream, _| {
            use std::io::{Read, Write};
            let _ = stream.read(&mut [0; 1024]);
            std::thread::sleep(Duration::from_millis(delay));
            let _ = stream.write_all(&response("200 OK", "well"));
        });
        stand_still_soon(Duration::from_millis(20), Duration::from_millis(900));
        let request =
            Request { timeout: Duration::from_millis(timeout), ..request(1, CheckKind::Http(http(port))) };
        let outcome = outcome(request).await;
        assert_eq!((outcome.result, outcome.detail.as_str()), (ProbeResult::Pass, "200 OK"));
        assert!(outcome.latency < Duration::from_millis(800), "the stall is not counted: {outcome:?}");
    }
}

#[tokio::test]
async fn a_server_that_lost_patience_with_a_standing_agent_is_asked_again() {
    let port = serve(|mut stream, number| {
        use std::io::{Read, Write};
        if number == 0 {
            // Closed while nobody looks.
            return std::thread::sleep(Duration::from_millis(300));
        }
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&response("200 OK", "well"));
    });
    stand_still_soon(Duration::from_millis(20), Duration::from_millis(900));
    let outcome = outcome(request(1, CheckKind::Http(http(port)))).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (ProbeResult::Pass, "200 OK"));
}

#[tokio::test]
async fn a_server_that_is_dead_fails_also_when_the_agent_stood_still() {
    let (listener, port) = listener().await;
    stand_still_soon(Duration::from_millis(20), Duration::from_millis(700));
    let request =
        Request { timeout: Duration::from_millis(200), ..request(1, tcp(port, None, Some("never"))) };
    let outcome = outcome(request).await;
    assert_eq!(outcome.result, ProbeResult::Fail, "{}", outcome.detail);
    drop(listener);
}

#[tokio::test]
async fn a_command_that_ends_while_the_agent_stands_still_passes() {
    stand_still_soon(Duration::from_millis(20), Duration::from_millis(900));
    let request = Request { timeout: Duration::from_millis(300), ..request(1, exec("sleep 0.1; echo done")) };
    let outcome = outcome(request).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (ProbeResult::Pass, "done"));
}

#[tokio::test]
async fn a_server_that_sends_garbage_or_nothing_fails() {
    let cases = [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "the answer is not HTTP/1.1"),
        (b"\x00\x01\x02\xff\xfe\r\n\r\n".to_vec(), "the answer is not HTTP/1.1"),
        (Vec::new(), "closed before an answer"),
        (b"HTTP/1.1 200 OK\r\nx: ".to_vec(), "closed before an answer"),
        (
            [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &b"a".repeat(100_000)].concat(),
            "the header of the answer is too large",
        ),
    ];
    for (answer, expected) in cases {
        let (port, _) = answering(answer).await;
        assert_eq!(ask(CheckKind::Http(http(port))).await, (ProbeResult::Fail, expected.to_owned()));
    }
}

#[tokio::test]
async fn a_body_that_is_cut_short_fails_when_it_matters() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let (port, _) = answering(cut).await;
    let check = HttpCheck { expect_body: Some("ready".to_owned()), ..http(port) };
    assert_eq!(ask(CheckKind::Http(check)).await.0, ProbeResult::Fail);
    assert_eq!(ask(CheckKind::Http(http(port))).await.0, ProbeResult::Pass);
}

#[tokio::test]
async fn tcp_sends_and_expects() {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = [0; 6];
                if stream.read_exact(&mut heard).await.is_ok() && &heard == b"PING\r\n" {
                    // In two pieces: the wanted text may be cut anywhere.
                    let _ = stream.write_all(b"+PO").await;
                    let _ = stream.flush().await;
                    tokio::task::yield_now().await;
                    let _ = stream.write_all(b"NG\r\n").await;
                }
            });
        }
    });
    assert_eq!(ask(tcp(port, None, None)).await, (ProbeResult::Pass, "connected".to_owned()));
    let passed = (ProbeResult::Pass, "connected, answer as wanted".to_owned());
    assert_eq!(ask(tcp(port, Some("PING\r\n"), Some("PONG"))).await, passed);
    let failed = (ProbeResult::Fail, "the answer does not contain \"HELLO\"".to_owned());
    assert_eq!(ask(tcp(port, Some("PING\r\n"), Some("HELLO"))).await, failed);
    let closed = (ProbeResult::Fail, "closed before an answer".to_owned());
    assert_eq!(ask(tcp(port, Some("QUIT\r\n"), Some("PONG"))).await, closed);
}

#[tokio::test]
async fn the_server_sees_an_orderly_end_even_if_it_had_more_to_say() {
    let (listener, port) = listener().await;
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        let mut rest = Vec::new();
        // A reset would be an error here.
        timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap().map(|_| rest)
    });
    assert_eq!(ask(tcp(port, None, None)).await.0, ProbeResult::Pass);
    assert_eq!(seen.await.unwrap().unwrap(), Vec::<u8>::new());

    let (listener, port) = self::listener().await;
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(&response("200 OK", &"x".repeat(300_000))).await.unwrap();
        let mut rest = Vec::new();
        timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap().map(|_| rest)
    });
    assert_eq!(ask(CheckKind::Http(http(port))).await.0, ProbeResult::Pass);
    assert_eq!(seen.await.unwrap().unwrap(), Vec::<u8>::new());
}

#[tokio::test]
async fn a_probe_that_cannot_be_made_is_an_error() {
    let bare = Request { target: Target::Own, ..request(1, tcp(1, None, None)) };
    assert_eq!(outcome(bare).await.result, ProbeResult::Error);
    for number in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::EPERM] {
        let ending = super::tcp::connect_ending(&std::io::Error::from_raw_os_error(number));
        assert_eq!(ending.result, ProbeResult::Error, "{number}");
    }
    for number in [libc::ECONNREFUSED, libc::ECONNRESET, libc::EHOSTUNREACH, libc::ENETUNREACH] {
        let ending = super::tcp::connect_ending(&std::io::Error::from_raw_os_error(number));
        assert_eq!(ending.result, ProbeResult::Fail, "{number}");
    }
}

/// Runs in a process of its own, whose few descriptors are all taken; see the next test.
#[tokio::test]
async fn child_without_descriptors() {
    if std::env::var_os("ANYVIP_TEST_DESCRIPTORS").is_none() {
        return;
    }
    let (_listener, port) = listener().await;
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
        assert!(taken.len() < 1_000, "the limit was not lowered");
    }
    let expected = (ProbeResult::Error, "out of file descriptors".to_owned());
    assert_eq!(ask(tcp(port, None, None)).await, expected);
    assert_eq!(ask(CheckKind::Http(http(port))).await, expected);
    taken.truncate(taken.len() - 4);
    assert_eq!(ask(tcp(port, None, None)).await.0, ProbeResult::Pass);
}

#[test]
fn running_out_of_descriptors_is_an_error_and_not_a_failure_of_the_service() {
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -n 40; exec \"$0\" --exact probes::tests::child_without_descriptors --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("ANYVIP_TEST_DESCRIPTORS", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn no_more_than_64_run_at_once_and_waiting_costs_nobody_a_failure() {
    let (listener, port) = listener().await;
    let (sender, mut finished) = mpsc::unbounded_channel::<Finished>();
    let mut probes = Probes::new(sender);
    for number in 0..AT_ONCE as u64 + 10 {
        let expecting = tcp(port, None, Some("ok"));
        probes.start(Request { timeout: Duration::from_secs(25), ..request(number, expecting) });
    }
    let mut held: Vec<TcpStream> = Vec::new();
    while held.len() < AT_ONCE {
        held.push(timeout(LONG, listener.accept()).await.unwrap().unwrap().0);
    }
    let more = timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(more.is_err(), "a 65th probe was started");
    // The last one is no longer wanted: it never comes.
    probes.cancel(ProbeId(AT_ONCE as u64 + 9));
    for stream in &mut held {
        stream.write_all(b"ok").await.unwrap();
    }
    for _ in 0..9 {
        let (mut stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
        stream.write_all(b"ok").await.unwrap();
        held.push(stream);
    }
    for _ in 0..AT_ONCE + 9 {
        let end = timeout(LONG, finished.recv()).await.unwrap().unwrap();
        assert_eq!(end.outcome.result, ProbeResult::Pass, "{end:?}");
        assert_ne!(end.probe, ProbeId(AT_ONCE as u64 + 9));
    }
    assert!(finished.try_recv().is_err());
}

fn exec(script: &str) -> CheckKind {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    CheckKind::Exec(ExecCheck { command })
}

#[tokio::test]
async fn a_command_passes_by_exit_0_and_its_first_line_is_the_detail() {
    let all = "echo $ANYVIP_SERVICE $ANYVIP_CHECK $ANYVIP_VIP; echo more";
    assert_eq!(ask(exec(all)).await, (ProbeResult::Pass, "web web/1 127.0.0.1".to_owned()));
    assert_eq!(ask(exec("exit 0")).await, (ProbeResult::Pass, "exit 0".to_owned()));
    assert_eq!(ask(exec("echo no >&2; exit 3")).await, (ProbeResult::Fail, "exit 3: no".to_owned()));
    assert_eq!(ask(exec("kill -9 $$")).await, (ProbeResult::Fail, "ended by signal 9".to_owned()));
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_an_error() {
    let kind = CheckKind::Exec(ExecCheck { command: vec!["/nonexistent/check".to_owned()] });
    let (result, detail) = ask(kind).await;
    assert_eq!(result, ProbeResult::Error);
    assert!(detail.contains("/nonexistent/check"), "{detail}");
}

/// Whether this process is gone, or a zombie that its parent has not looked at yet.
fn is_gone(pid: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let file = std::env::temp_dir().join(format!("anyvip-exec-{}", std::process::id()));
    let script = format!("sleep 1000 & echo $! > {0}; echo $$ >> {0}; wait", file.display());
    let slow = Request { timeout: Duration::from_secs(1), ..request(1, exec(&script)) };
    let outcome = outcome(slow).await;
    assert_eq!(outcome.result, ProbeResult::Fail, "{outcome:?}");
    let pids = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(pids.lines().count(), 2, "{pids}");
    let begun = std::time::Instant::now();
    while !pids.lines().all(is_gone) {
        assert!(begun.elapsed() < LONG, "{pids} still run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A CA and a server certificate for this name, the CA as a file.
struct Authority {
    file: PathBuf,
    acceptor: TlsAcceptor,
}

impl Authority {
    fn new(label: &str, name: &str) -> Authority {
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {label}"));
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca = authority.self_signed(&ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(authority, ca_key);
        let leaf =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let file = std::env::temp_dir().join(format!("anyvip-ca-{}-{label}.pem", std::process::id()));
        std::fs::write(&file, ca.pem()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        Authority { file, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    async fn serve(&self) -> u16 {
        let (listener, port) = listener().await;
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    read_head(&mut stream).await;
                    let _ = stream.write_all(&response("200 OK", "secret")).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        port
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

fn https(port: u16, tls: Tls) -> CheckKind {
    CheckKind::Http(HttpCheck { tls: Some(tls), expect_body: Some("secret".to_owned()), ..http(port) })
}

#[tokio::test]
async fn https_passes_with_the_right_authority_and_name_only() {
    let ours = Authority::new("ours", "web.example");
    let other = Authority::new("other", "web.example");
    let port = ours.serve().await;
    let tls = |file: &Authority, name: &str| Tls {
        server_name: Some(name.to_owned()),
        ca_file: Some(file.file.clone()),
        insecure: false,
    };
    let passed = (ProbeResult::Pass, "200 OK, body as wanted".to_owned());
    assert_eq!(ask(https(port, tls(&ours, "web.example"))).await, passed);
    let wrong_ca = "TLS: the certificate is not signed by the CA of this check".to_owned();
    assert_eq!(ask(https(port, tls(&other, "web.example"))).await, (ProbeResult::Fail, wrong_ca));
    let wrong_name = "TLS: the certificate carries another name".to_owned();
    assert_eq!(ask(https(port, tls(&ours, "mail.example"))).await, (ProbeResult::Fail, wrong_name.clone()));
    // Without a name of its own the check asks for the address, which this certificate does not carry.
    let by_address = Tls { server_name: None, ..tls(&ours, "") };
    assert_eq!(ask(https(port, by_address)).await, (ProbeResult::Fail, wrong_name));
    let insecure = Tls { server_name: None, ca_file: None, insecure: true };
    assert_eq!(ask(https(port, insecure)).await, passed);
}

#[tokio::test]
async fn a_missing_or_empty_ca_file_is_an_error_and_the_server_is_not_bothered() {
    let (listener, port) = listener().await;
    let missing = PathBuf::from("/nonexistent/ca.pem");
    let tls = Tls { server_name: None, ca_file: Some(missing), insecure: false };
    let expected = (ProbeResult::Error, "CA file /nonexistent/ca.pem: No such file or directory".to_owned());
    assert_eq!(ask(https(port, tls)).await, expected);
    let empty = Tls { server_name: None, ca_file: Some(PathBuf::from("/dev/null")), insecure: false };
    assert_eq!(ask(https(port, empty)).await.0, ProbeResult::Error);
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_fails() {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
    let tls = Tls { server_name: None, ca_file: None, insecure: true };
    let expected = (ProbeResult::Fail, "TLS: what came back is not TLS".to_owned());
    assert_eq!(ask(https(port, tls)).await, expected);
}
