//! Answers routers that track this host by probe: HTTP with 200 or 503, and ports that are open while their service is offered.
//!
//! It runs on the loop's own runtime on purpose: from an agent that stands still nobody gets an answer by HTTP, which a router takes for
//! down. A bare TCP probe cannot tell, since the kernel takes connections for it.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyvip_core::ServiceName;
use anyvip_core::boundary::{Answer, Answers};
use anyvip_core::status::Warning;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::wording;

/// Clients of one port at the same time. One more takes the place of the oldest: silent ones must not keep a router out.
const CLIENTS: usize = 64;
/// How long a client may take for everything.
const PATIENCE: Duration = Duration::from_secs(2);
/// When a port that cannot be opened is tried again: soon at first, since it may be ours from a moment ago.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(5);

/// Ports that cannot be opened, and why.
type Refused = Arc<Mutex<BTreeMap<SocketAddr, String>>>;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Responder {
    answers: watch::Sender<Answers>,
    /// Whether clients are taken; else they wait in front of the open port.
    takes: watch::Sender<bool>,
    doors: BTreeMap<SocketAddr, Door>,
    refused: Refused,
    /// Listeners of the program before this one.
    left: BTreeMap<SocketAddr, std::net::TcpListener>,
}

/// One port; closed when dropped.
#[derive(Debug)]
struct Door {
    /// `None`: answers for all services, by path.
    only: Option<ServiceName>,
    task: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Responder {
    /// `left` is what the program before this one listened on: who has connected since is answered by this one.
    pub(crate) fn new(left: BTreeMap<SocketAddr, std::net::TcpListener>) -> Responder {
        Responder {
            answers: watch::Sender::new(Answers::default()),
            takes: watch::Sender::new(true),
            doors: BTreeMap::new(),
            refused: Refused::default(),
            left,
        }
    }

    /// Says this from now on.
    pub(crate) fn say(&mut self, answers: Answers) {
        let mut wanted: BTreeMap<SocketAddr, Option<ServiceName>> =
            answers.listen.map(|address| (address, None)).into_iter().collect();
        for (name, answer) in &answers.services {
            if let (Some(port), None) = (answer.port, answer.reason) {
                wanted.insert(port, Some(name.clone()));
            }
        }
        // First, so that nobody who connects from here on hears what was.
        self.answers.send_replace(answers);
        self.doors.retain(|address, door| wanted.get(address) == Some(&door.only));
        lock(&self.refused).retain(|address, _| wanted.contains_key(address));
        for (address, only) in wanted {
            self.doors.entry(address).or_insert_with(|| {
                let heard = (self.answers.subscribe(), self.takes.subscribe());
                let refused = self.refused.clone();
                let left = self.left.remove(&address);
                let task = tokio::spawn(keep_open(address, only.clone(), left, heard, refused));
                Door { only, task }
            });
        }
    }

    /// Takes no more clients, or again: this process is about to become another program, which takes those who wait, and who is being
    /// answered is not to be cut off.
    pub(crate) fn take_clients(&self, takes: bool) {
        self.takes.send_replace(takes);
    }

    /// Closes what was left open and is not used.
    pub(crate) fn forget_left(&mut self) {
        self.left.clear();
    }

    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let text = |(address, why): (&SocketAddr, &String)| {
            format!(
                "routers cannot ask on {address}: {why}; they take this host for down. Tried again every {} s",
                RETRY.as_secs()
            )
        };
        let warning = |refused| Warning { code: "responder-not-listening".to_owned(), text: text(refused) };
        lock(&self.refused).iter().map(warning).collect()
    }
}

fn lock(refused: &Refused) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, String>> {
    refused.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_open(
    address: SocketAddr,
    only: Option<ServiceName>,
    mut left: Option<std::net::TcpListener>,
    (answers, mut takes): (watch::Receiver<Answers>, watch::Receiver<bool>),
    refused: Refused,
) {
    let mut pause = FIRST_RETRY;
    loop {
        match open(address, left.take()) {
            Ok(listener) => {
                lock(&refused).remove(&address);
                serve(&listener, only.as_ref(), &answers, &mut takes).await;
            }
            Err(error) => {
                // Told once, not at each try; the first try may meet a port of ours that is about to close.
                if pause == RETRY && lock(&refused).insert(address, error.to_string()).is_none() {
                    tracing::warn!("the responder cannot listen on {address}: {error}");
                }
                tokio::time::sleep(pause).await;
                pause = RETRY;
            }
        }
    }
}

fn open(address: SocketAddr, left: Option<std::net::TcpListener>) -> io::Result<TcpListener> {
    let listener = left.map_or_else(|| std::net::TcpListener::bind(address), Ok)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Returns when the listener is of no use any more.
async fn serve(
    listener: &TcpListener,
    only: Option<&ServiceName>,
    answers: &watch::Receiver<Answers>,
    takes: &mut watch::Receiver<bool>,
) {
    let mut clients: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        if takes.wait_for(|takes| *takes).await.is_err() {
            return;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = takes.changed() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("the responder cannot accept: {error}");
                tokio::time::sleep(FIRST_RETRY).await;
                continue;
            }
        };
        if clients.len() == CLIENTS {
            clients.retain(|client| !client.is_finished());
        }
        if clients.len() == CLIENTS
            && let Some(oldest) = clients.pop_front()
        {
            oldest.abort();
        }
        let (only, answers) = (only.cloned(), answers.clone());
        clients.push_back(tokio::spawn(client(stream, only, answers)).abort_handle());
    }
}

async fn client(stream: TcpStream, only: Option<ServiceName>, answers: watch::Receiver<Answers>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), only.as_ref(), &answers.borrow());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(8 * 1024)
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

fn respond(
    method: &Method,
    path: &str,
    only: Option<&ServiceName>,
    answers: &Answers,
) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let name = match only {
        Some(only) => only.0.as_str(),
        None => path.trim_start_matches('/'),
    };
    if name.is_empty() {
        let status = status(answers.services.values());
        return plain(status, answers.services.iter().map(|(name, answer)| line(name, answer)).collect());
    }
    match answers.services.get(&ServiceName::from(name)) {
        Some(answer) => plain(status(std::iter::once(answer)), line(&ServiceName::from(name), answer)),
        None => plain(StatusCode::NOT_FOUND, format!("there is no service {name:?}\n")),
    }
}

/// Good only if all are; nothing at all is not.
fn status<'a>(answers: impl Iterator<Item = &'a Answer>) -> StatusCode {
    let mut reasons = answers.map(|answer| answer.reason).peekable();
    match reasons.peek().is_some() && reasons.all(|reason| reason.is_none()) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn line(name: &ServiceName, answer: &Answer) -> String {
    match &answer.reason {
        None => format!("{name}: up\n"),
        Some(reason) => format!("{name}: {}\n", wording::reason(reason)),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyvip_core::Reason;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, timeout};

    const LONG: Duration = Duration::from_secs(20);

    /// A port that was free a moment ago.
    fn free() -> SocketAddr {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap()
    }

    fn answers(
        listen: Option<SocketAddr>,
        services: &[(&str, Option<SocketAddr>, Option<Reason>)],
    ) -> Answers {
        let answer = |(name, port, reason): &(&str, _, _)| {
            (ServiceName::from(*name), Answer { port: *port, reason: *reason })
        };
        Answers { listen, services: services.iter().map(answer).collect() }
    }

    /// Asks until somebody answers, and returns the status and the body.
    async fn ask(address: SocketAddr, line: &str) -> (u16, String) {
        let until = Instant::now() + LONG;
        loop {
            match asked(address, line).await {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < until, "nobody answers on {address}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn asked(address: SocketAddr, line: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("{line} HTTP/1.1\r\nHost: router\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or_else(|| io::Error::other(format!("no answer but {text:?}")))
    }

    async fn closed(address: SocketAddr) {
        let until = Instant::now() + LONG;
        while TcpStream::connect(address).await.is_ok() {
            assert!(Instant::now() < until, "{address} stays open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn each_service_is_answered_by_its_name_and_all_of_them_by_none() {
        let at = free();
        let mut responder = Responder::new(BTreeMap::new());
        responder.say(answers(Some(at), &[("dns", None, None), ("web", None, Some(Reason::Drained))]));
        assert_eq!(ask(at, "GET /dns").await, (200, "dns: up\n".to_owned()));
        assert_eq!(ask(at, "HEAD /dns").await, (200, String::new()));
        let (status, text) = ask(at, "GET /web").await;
        assert_eq!(status, 503);
        assert!(text.starts_with("web: ") && text.contains("drain"), "{text}");
        let (status, text) = ask(at, "GET /").await;
        assert_eq!((status, text.lines().count()), (503, 2));
        assert_eq!(ask(at, "GET /none").await.0, 404);
        assert_eq!(ask(at, "POST /dns").await.0, 405);

        responder.say(answers(Some(at), &[("dns", None, None), ("web", None, None)]));
        assert_eq!(ask(at, "GET /").await.0, 200);
        assert_eq!(ask(at, "GET /web").await, (200, "web: up\n".to_owned()));
        responder.say(Answers::default());
        closed(at).await;
        assert!(responder.warnings().is_empty());
    }

    #[tokio::test]
    async fn the_port_of_a_service_is_open_while_it_is_offered_however_fast_that_changes() {
        let at = free();
        let say = |reason| answers(None, &[("dns", Some(at), reason)]);
        let mut responder = Responder::new(BTreeMap::new());
        responder.say(say(None));
        assert_eq!(ask(at, "GET /whatever").await.0, 200);
        responder.say(say(Some(Reason::Unhealthy)));
        closed(at).await;
        for _ in 0..20 {
            responder.say(say(None));
            responder.say(say(Some(Reason::Unhealthy)));
        }
        closed(at).await;
        responder.say(say(None));
        assert_eq!(ask(at, "GET /").await, (200, "dns: up\n".to_owned()));
        assert!(responder.warnings().is_empty());
    }

    #[tokio::test]
    async fn who_connected_before_this_program_began_is_answered_by_it() {
        let left = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let unused = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (at, closes) = (left.local_addr().unwrap(), unused.local_addr().unwrap());
        let waiting = tokio::spawn(async move { asked(at, "GET /").await });
        let mut responder = Responder::new([(at, left), (closes, unused)].into());
        responder.say(answers(None, &[("dns", Some(at), None)]));
        responder.forget_left();
        assert_eq!(waiting.await.unwrap().unwrap(), (200, "dns: up\n".to_owned()));
        closed(closes).await;
    }

    #[tokio::test]
    async fn who_comes_while_nobody_is_taken_waits_in_front_of_an_open_port() {
        let at = free();
        let mut responder = Responder::new(BTreeMap::new());
        responder.say(answers(None, &[("dns", Some(at), None)]));
        assert_eq!(ask(at, "GET /").await.0, 200);
        responder.take_clients(false);
        let mut waits = tokio::spawn(async move { asked(at, "GET /").await });
        assert!(timeout(Duration::from_millis(200), &mut waits).await.is_err(), "nobody answers");
        responder.take_clients(true);
        assert_eq!(timeout(LONG, waits).await.unwrap().unwrap().unwrap().0, 200);
    }

    #[tokio::test]
    async fn clients_that_say_nothing_keep_no_router_out() {
        let at = free();
        let mut responder = Responder::new(BTreeMap::new());
        responder.say(answers(Some(at), &[("dns", None, None)]));
        assert_eq!(ask(at, "GET /dns").await.0, 200);
        let mut silent = Vec::new();
        for _ in 0..3 * CLIENTS {
            silent.push(timeout(LONG, TcpStream::connect(at)).await.unwrap().unwrap());
        }
        assert_eq!(timeout(PATIENCE / 2, ask(at, "GET /dns")).await.unwrap().0, 200);
    }

    #[tokio::test]
    async fn a_port_that_somebody_holds_is_named_until_it_is_free() {
        let holder = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = holder.local_addr().unwrap();
        let mut responder = Responder::new(BTreeMap::new());
        responder.say(answers(Some(at), &[("dns", None, None)]));
        let until = Instant::now() + LONG;
        while responder.warnings().is_empty() {
            assert!(Instant::now() < until, "no warning");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let warnings = responder.warnings();
        assert!(warnings[0].text.contains(&at.to_string()), "{warnings:?}");
        drop(holder);
        assert_eq!(ask(at, "GET /dns").await.0, 200);
        assert!(responder.warnings().is_empty());
    }
}
