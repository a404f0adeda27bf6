//! The client: thousands of flows, each from a source port of its own.
//!
//! A flow is asked from a fresh socket bound to its port, so that the same flow can be asked again. At most
//! [`WINDOW`] young questions are on the way at once (a burst would overflow the server's receive buffer and look like
//! loss); a question that stays unanswered gives its place in the window back early and goes on waiting.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyvip_machine::Time;
use anyvip_virtual::observation::{Ask, Flows, Held, Outcome};
use anyvip_virtual::scenario::{Protocol, Traffic};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock;
use crate::control::Message;
use crate::dns;
use crate::node::Outbox;

mod held;

/// Young questions on the way at once.
const WINDOW: usize = 128;
/// A question older than this is no longer young: it is in no queue any more.
const YOUNG: Duration = Duration::from_millis(50);
/// Longest answer.
const ANSWER_LIMIT: usize = 256;

/// What a client node has going on.
#[derive(Default)]
pub(crate) struct Client {
    asking: BTreeMap<String, Asking>,
    holding: BTreeMap<String, held::Holding>,
}

struct Asking {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Flows>,
}

impl Client {
    /// Begins to ask round and round, and tells what comes of it if somebody wants to see it.
    pub(crate) fn start(&mut self, name: String, traffic: Traffic, outbox: Option<Outbox>) {
        let (stop, stopped) = watch::channel(false);
        let teller = outbox.map(|outbox| Teller { name: name.clone(), outbox, told: 0, last: clock::now() });
        let task = tokio::task::spawn_local(ask_on_and_on(traffic, stopped, teller));
        self.asking.insert(name, Asking { stop, task });
    }

    /// Stops that, waits for the last answers, and reports.
    pub(crate) async fn stop(&mut self, name: &str) -> Result<Flows, String> {
        let asking = self.asking.remove(name).ok_or_else(|| format!("`{name}` was not started"))?;
        let _ = asking.stop.send(true);
        asking.task.await.map_err(|error| error.to_string())
    }

    /// Opens connections and waits until each is accepted or refused.
    pub(crate) async fn hold(&mut self, name: String, traffic: Traffic) {
        self.holding.insert(name, held::Holding::begin(traffic).await);
    }

    /// Closes them and reports.
    pub(crate) async fn release(&mut self, name: &str) -> Result<Vec<Held>, String> {
        let holding = self.holding.remove(name).ok_or_else(|| format!("`{name}` was not held"))?;
        Ok(holding.end().await)
    }
}

/// Tells from time to time what came of questions.
struct Teller {
    name: String,
    outbox: Outbox,
    /// How many were told already.
    told: usize,
    last: Time,
}

impl Teller {
    fn tell(&mut self, asks: &[Ask]) {
        const PERIOD: Duration = Duration::from_millis(250);
        let over = clock::now().since(self.last);
        if over < PERIOD {
            return;
        }
        let new = Flows { asks: asks.get(self.told..).unwrap_or_default().to_vec() };
        let recent = new.per_server().into_iter().map(|(server, count)| (server.to_owned(), count)).collect();
        let lost = asks.iter().filter(|ask| !matches!(ask.outcome, Outcome::Server(_))).count();
        let (name, answered) = (self.name.clone(), asks.len() - lost);
        self.outbox.say(Message::Asking { name, answered, lost, recent, over });
        (self.told, self.last) = (asks.len(), clock::now());
    }
}

/// Asks every flow once.
pub(crate) async fn ask_all(traffic: Traffic) -> Flows {
    let window = Rc::new(Semaphore::new(WINDOW));
    let mut tasks = JoinSet::new();
    for number in 0..traffic.flows {
        let (traffic, window) = (traffic.clone(), window.clone());
        tasks.spawn_local(async move {
            let permit = window.acquire().await.ok();
            ask(&traffic, traffic.first_port + number, permit).await
        });
    }
    let mut asks: Vec<Ask> = tasks.join_all().await.into_iter().flatten().collect();
    asks.sort_by_key(|ask| (ask.at, ask.port));
    Flows { asks }
}

async fn ask_on_and_on(
    traffic: Traffic,
    mut stopped: watch::Receiver<bool>,
    mut teller: Option<Teller>,
) -> Flows {
    const TICK: Duration = Duration::from_millis(5);
    let asks = Rc::new(RefCell::new(Vec::new()));
    let mut tasks = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    let (begin, mut sent) = (clock::now(), 0_u64);
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            _ = tick.tick() => {}
        }
        let elapsed = clock::now().since(begin).as_micros();
        let due = u64::try_from(elapsed * u128::from(traffic.rate) / 1_000_000).unwrap_or(sent);
        // After a pause of the whole machine the rate is kept, not the sum: no burst makes up for it.
        let most = u64::from(traffic.rate) * 20 / 1000 + 1;
        for number in sent..due.min(sent + most) {
            let port = traffic.first_port + (number % u64::from(traffic.flows)) as u16;
            let (traffic, asks) = (traffic.clone(), asks.clone());
            tasks.spawn_local(async move {
                if let Some(asked) = ask(&traffic, port, None).await {
                    asks.borrow_mut().push(asked);
                }
            });
        }
        sent = due;
        while tasks.try_join_next().is_some() {}
        if let Some(teller) = &mut teller {
            teller.tell(&asks.borrow());
        }
    }
    tasks.join_all().await;
    let mut asks = asks.take();
    asks.sort_by_key(|ask: &Ask| (ask.at, ask.port));
    Flows { asks }
}

/// One question. `None` if the port is still busy with the last one: then nothing was asked.
async fn ask(traffic: &Traffic, port: u16, permit: Option<tokio::sync::SemaphorePermit<'_>>) -> Option<Ask> {
    let begin = clock::now();
    let question = async {
        match traffic.protocol {
            Protocol::Udp | Protocol::Dns => ask_udp(traffic, port).await,
            Protocol::Tcp => ask_tcp(traffic, port).await,
        }
    };
    tokio::pin!(question);
    let outcome = match timeout(YOUNG.min(traffic.timeout), &mut question).await {
        Ok(outcome) => outcome,
        Err(_) => {
            drop(permit);
            let rest = traffic.timeout.saturating_sub(YOUNG);
            timeout(rest, question).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    };
    let (at, outcome, latency_us) = match outcome {
        Ok((at, server)) => {
            let latency = clock::now().since(at).as_micros();
            (at, Outcome::Server(server), u32::try_from(latency).ok())
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return None,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => (begin, Outcome::Silent, None),
        Err(_) => (begin, Outcome::Refused, None),
    };
    Some(Ask { port, at, outcome, latency_us })
}

async fn ask_udp(traffic: &Traffic, port: u16) -> io::Result<(Time, String)> {
    let socket = Socket::new(domain(traffic), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(local(traffic, port)))?;
    socket.connect(&SockAddr::from(SocketAddr::new(traffic.to, traffic.port)))?;
    let socket = UdpSocket::from_std(socket.into())?;
    let at = clock::now();
    socket.send(&question(traffic, port)).await?;
    let mut buffer = [0; ANSWER_LIMIT];
    let read = socket.recv(&mut buffer).await?;
    match traffic.protocol {
        Protocol::Dns => dns::name_in(&buffer[..read], port)
            .map(|name| (at, name))
            .ok_or_else(|| io::ErrorKind::InvalidData.into()),
        _ => Ok((at, first_word(&buffer[..read])?)),
    }
}

/// So many octets, of which the first say something.
fn question(traffic: &Traffic, port: u16) -> Vec<u8> {
    if traffic.protocol == Protocol::Dns {
        return dns::query(port);
    }
    let mut question = b"who?".to_vec();
    question.resize(usize::from(traffic.size).max(question.len()), b'.');
    question
}

async fn ask_tcp(traffic: &Traffic, port: u16) -> io::Result<(Time, String)> {
    let at = clock::now();
    let mut stream = connect(traffic, port).await?;
    let question = traffic.answer.map_or_else(|| "who?\n".to_owned(), |octets| format!("give {octets}\n"));
    stream.write_all(question.as_bytes()).await?;
    let mut buffer = [0; ANSWER_LIMIT];
    let mut read = stream.read(&mut buffer).await?;
    if traffic.answer.is_some() {
        // All of it must come; the name is in front.
        let mut more = vec![0; 16 * 1024];
        let mut last = read.checked_sub(1).and_then(|at| buffer.get(at)).copied();
        while last != Some(b'\n') {
            let came = stream.read(&mut more).await?;
            if came == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            last = more.get(came - 1).copied();
        }
        read = read.min(ANSWER_LIMIT);
    }
    Ok((at, first_word(&buffer[..read])?))
}

/// A connection from this port. It is ended by a reset (linger 0), so that the port is free again at once.
async fn connect(traffic: &Traffic, port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(domain(traffic), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SockAddr::from(local(traffic, port)))?;
    TcpSocket::from_std_stream(socket.into()).connect(SocketAddr::new(traffic.to, traffic.port)).await
}

fn domain(traffic: &Traffic) -> Domain {
    if traffic.to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

fn local(traffic: &Traffic, port: u16) -> SocketAddr {
    match traffic.to {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

fn first_word(bytes: &[u8]) -> io::Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    text.split_whitespace().next().map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
