//! Runs the probes that the core schedules: at most [`AT_ONCE`] at a time, each on a connection or in a child of its own.
//!
//! A probe *passes*, *fails* (the service did not do as wanted) or ends in *error* (this host could not ask: no
//! descriptor, no CA file, no such program). Waiting for a free place is none of these; the timeout of a probe that
//! waited starts when it starts.

mod exec;
mod http;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyvip_core::boundary::{ProbeId, ProbeOutcome, ProbeResult, Target};
use anyvip_core::config::CheckKind;
use anyvip_io::clock::Patience;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

pub(crate) use exec::Names;

/// Probes that run at the same time.
pub(crate) const AT_ONCE: usize = 64;
/// Connections that are being closed in order at the same time; more are closed at once.
const CLOSING: usize = 256;
/// How long a server may take to close its side.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// A process that stood still for so long may have lost what it had begun.
const STALL: Duration = Duration::from_millis(250);

/// A probe's end, stamped when the probe was done.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) at: Instant,
    pub(crate) probe: ProbeId,
    pub(crate) outcome: ProbeOutcome,
}

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) probe: ProbeId,
    pub(crate) target: Target,
    pub(crate) kind: CheckKind,
    pub(crate) timeout: Duration,
    pub(crate) names: Names,
}

/// What is left to do for a connection after its probe has ended: see to it that it closes without RST.
type Leftover = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The probes under way and those that wait for a place.
#[derive(Debug)]
pub(crate) struct Probes {
    places: Arc<Semaphore>,
    closing: Arc<Semaphore>,
    tasks: BTreeMap<ProbeId, AbortHandle>,
    finished: mpsc::UnboundedSender<Finished>,
}

impl Probes {
    /// Ends are sent to `finished`: one per request, so the queue is as long as the requests under way.
    pub(crate) fn new(finished: mpsc::UnboundedSender<Finished>) -> Probes {
        Probes {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            closing: Arc::new(Semaphore::new(CLOSING)),
            tasks: BTreeMap::new(),
            finished,
        }
    }

    /// Starts a probe, or lets it wait its turn.
    pub(crate) fn start(&mut self, request: Request) {
        let (places, closing, finished) = (self.places.clone(), self.closing.clone(), self.finished.clone());
        let probe = request.probe;
        let task = tokio::spawn(async move {
            let Ok(place) = places.acquire_owned().await else { return };
            let (outcome, leftover) = run(&request).await;
            let _ = finished.send(Finished { at: Instant::now(), probe: request.probe, outcome });
            drop(place);
            if let (Some(leftover), Ok(_room)) = (leftover, closing.try_acquire_owned()) {
                let _ = timeout(CLOSE_PATIENCE, leftover).await;
            }
        });
        self.tasks.insert(probe, task.abort_handle());
    }

    /// Its answer is not wanted any more. The connection or the child goes with it.
    pub(crate) fn cancel(&mut self, probe: ProbeId) {
        if let Some(task) = self.tasks.remove(&probe) {
            task.abort();
        }
    }

    /// Gives all up, and names them: no answer comes any more. Their connections and children go with them.
    pub(crate) fn give_up(&mut self) -> Vec<ProbeId> {
        let all = std::mem::take(&mut self.tasks);
        all.values().for_each(AbortHandle::abort);
        all.into_keys().collect()
    }

    /// Its end was received.
    pub(crate) fn forget(&mut self, probe: ProbeId) {
        self.tasks.remove(&probe);
    }
}

/// Result and words of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ending {
    result: ProbeResult,
    detail: String,
}

impl Ending {
    fn pass(detail: impl Into<String>) -> Ending {
        Ending { result: ProbeResult::Pass, detail: detail.into() }
    }

    fn fail(detail: impl Into<String>) -> Ending {
        Ending { result: ProbeResult::Fail, detail: detail.into() }
    }

    fn error(detail: impl Into<String>) -> Ending {
        Ending { result: ProbeResult::Error, detail: detail.into() }
    }
}

/// A stall of this process is never held against the service: the time of it does not count, and a failure after it is
/// tried once more, because a server may have lost patience with *us*.
async fn run(request: &Request) -> (ProbeOutcome, Option<Leftover>) {
    let mut last_attempt = false;
    loop {
        let (started, mut patience) = (Instant::now(), Patience::new(request.timeout));
        let (ending, leftover) = ask_within(request, &mut patience).await;
        let stood_still = patience.stood_still();
        let doubtful = ending.result == ProbeResult::Fail && stood_still > STALL;
        if doubtful && !std::mem::replace(&mut last_attempt, true) {
            continue;
        }
        let ending = match doubtful {
            true => Ending::error(format!(
                "no verdict, because the agent itself stood still for {stood_still:.1?} ({})",
                ending.detail
            )),
            false => ending,
        };
        let latency = started.elapsed().saturating_sub(stood_still);
        return (ProbeOutcome { result: ending.result, latency, detail: ending.detail }, leftover);
    }
}

async fn ask_within(request: &Request, patience: &mut Patience) -> (Ending, Option<Leftover>) {
    if let CheckKind::Exec(check) = &request.kind {
        return (exec::run(check, request, patience).await, None);
    }
    tokio::select! {
        // The answer first: after a stall it may be there together with the end of the patience.
        biased;
        both = ask(request) => both,
        () = patience.over() => (Ending::fail(format!("no answer within {:?}", request.timeout)), None),
    }
}

async fn ask(request: &Request) -> (Ending, Option<Leftover>) {
    let remote = |own: Option<IpAddr>, port: u16| match (own, request.target) {
        (Some(address), _) | (None, Target::Vip(address)) => Ok(SocketAddr::new(address, port)),
        (None, Target::Own) => Err(Ending::error("the check has no address")),
    };
    match &request.kind {
        CheckKind::Http(check) => match remote(check.address, check.port) {
            Ok(remote) => http::run(check, remote).await,
            Err(ending) => (ending, None),
        },
        CheckKind::Tcp(check) => match remote(check.address, check.port) {
            Ok(remote) => {
                let (ending, stream) = tcp::run(check, remote).await;
                (ending, stream.map(|stream| Box::pin(close_in_order(stream)) as Leftover))
            }
            Err(ending) => (ending, None),
        },
        CheckKind::Exec(_) => (Ending::error("a command is not asked over the network"), None),
    }
}

/// Closes our side and reads what the server still says: closing with unread bytes would send RST, which servers log.
async fn close_in_order(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    const MOST: usize = 1024 * 1024;
    let mut chunk = [0_u8; 4096];
    let mut thrown_away = 0;
    if stream.shutdown().await.is_err() {
        return;
    }
    while thrown_away < MOST {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => thrown_away += count,
        }
    }
}

/// The first line, without control characters, of at most `most` characters.
fn shortened(text: &str, most: usize) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let clean: String = line.chars().filter(|c| !c.is_control()).collect();
    if clean.chars().count() <= most {
        return clean;
    }
    clean.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The system's words without Rust's "(os error 2)".
fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
