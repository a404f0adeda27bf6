//! The clients of a plan: requests from sockets of their own, connections that are kept, and what becomes of either.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::checks::sleep_until;
use super::names::Resolvers;
use crate::clock;
use crate::compare::flows::{self, PORT, SERVICE};
use crate::compare::plan::{Connections, Dns, Requests, Retry};

/// Connections that are being opened at once.
const OPENING: usize = 64;
/// How long one may take for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ports that are tried for a request whose own is in use.
const PORTS: u16 = 4;

/// What clients do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    pub(crate) requests: Requests,
    pub(crate) connections: Connections,
    /// The name server, if a name leads to the servers; else all share one address.
    pub(crate) names: Option<(Ipv4Addr, Dns)>,
}

/// What became of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) requests: Vec<Request>,
    pub(crate) connections: Vec<Connection>,
    /// The latest that a request was asked after its time.
    pub(crate) behind: Duration,
}

/// One request. Short names: there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// When it was to be asked, in microseconds from the beginning.
    #[serde(rename = "a")]
    pub(crate) asked_us: u64,
    /// Who answered.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none", default)]
    pub(crate) server: Option<u16>,
    #[serde(rename = "t")]
    pub(crate) tries: u32,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    pub(crate) server: u16,
    /// The last answer.
    pub(crate) answered: Time,
    /// When it was found cut.
    pub(crate) cut: Option<Time>,
}

/// Clients of one design.
pub(super) struct Client {
    asker: Rc<Asker>,
    held: Vec<(u16, TcpStream)>,
    task: Option<JoinHandle<Told>>,
}

struct Asker {
    traffic: Traffic,
    resolvers: Option<Resolvers>,
}

enum Answer {
    Server(u16),
    Refused,
    Silence,
}

impl Client {
    /// Opens all connections; names are asked one after the other, as they would be at the beginning.
    pub(super) async fn open(traffic: Traffic) -> Result<Client, String> {
        let resolvers = traffic.names.clone().map(|(server, dns)| Resolvers::new(server, dns, traffic.seed));
        let asker = Rc::new(Asker { traffic, resolvers });
        let window = Rc::new(Semaphore::new(OPENING));
        let mut opening = JoinSet::new();
        for number in 0..asker.traffic.connections.count {
            let (client, port) = flows::connection(number, asker.traffic.requests.clients);
            let to = asker.addresses(Time::ZERO, client).await.first().copied();
            let to = to.ok_or_else(|| format!("no address for connection {number}"))?;
            let window = window.clone();
            opening.spawn_local(async move {
                let _permit = window.acquire().await.ok();
                let opened = timeout(PATIENCE, connect(client, port, to)).await;
                let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                (number, opened.map_err(|error| format!("connection {number} did not open: {error}")))
            });
        }
        let mut opened = opening.join_all().await;
        opened.sort_by_key(|(number, _)| *number);
        let held = opened.into_iter().map(|(_, opened)| opened).collect::<Result<Vec<_>, _>>()?;
        Ok(Client { asker, held, task: None })
    }

    pub(super) fn begin(&mut self, at: Time) {
        let held = std::mem::take(&mut self.held);
        self.task = Some(tokio::task::spawn_local(play(self.asker.clone(), held, at)));
    }

    /// Waits for the end.
    pub(super) async fn finish(mut self) -> Result<Told, String> {
        let task = self.task.take().ok_or("nothing was begun")?;
        task.await.map_err(|error| error.to_string())
    }
}

async fn play(asker: Rc<Asker>, held: Vec<(u16, TcpStream)>, begin: Time) -> Told {
    let traffic = &asker.traffic;
    let mut connections = JoinSet::new();
    for (number, (server, stream)) in (0..).zip(held) {
        let kept = traffic.connections.clone();
        let end = begin + traffic.duration;
        connections.spawn_local(async move {
            let first = begin + flows::phase_of_connection(number, kept.count, kept.every);
            (number, keep(server, stream, &kept, first, end).await)
        });
    }
    let (told, mut tasks) = (Rc::new(RefCell::new(Told::default())), JoinSet::new());
    let asked = &traffic.requests;
    for (number, (at, client)) in
        (0_u32..).zip(flows::requests(traffic.seed, asked.clients, asked.rate, traffic.duration))
    {
        sleep_until(begin + at).await;
        let late = clock::now().since(begin + at);
        let behind = told.borrow().behind.max(late);
        told.borrow_mut().behind = behind;
        let (asker, told) = (asker.clone(), told.clone());
        tasks.spawn_local(async move {
            let (server, tries) = asker.request(number, client, begin).await;
            let asked_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
            told.borrow_mut().requests.push(Request { asked_us, server, tries });
        });
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
    let mut kept = connections.join_all().await;
    kept.sort_by_key(|(number, _): &(u32, Connection)| *number);
    let mut told = told.take();
    told.connections = kept.into_iter().map(|(_, connection)| connection).collect();
    told.requests.sort_by_key(|request| request.asked_us);
    told
}

impl Asker {
    /// Where the client's name leads.
    async fn addresses(&self, since: Time, client: u32) -> Vec<Ipv4Addr> {
        match &self.resolvers {
            Some(resolvers) => resolvers.addresses(since, client).await,
            None => vec![SERVICE],
        }
    }

    /// Who answered, and at which try.
    async fn request(&self, number: u32, client: u32, begin: Time) -> (Option<u16>, u32) {
        let asked = &self.traffic.requests;
        let now = Time::ZERO + clock::now().since(begin);
        let addresses = self.addresses(now, client).await;
        for tries in 0..asked.tries {
            let step = if asked.retry == Retry::Next { tries as usize } else { 0 };
            let Some(to) = addresses.get(step % addresses.len().max(1)) else { continue };
            let port = flows::port_of_try(self.traffic.seed, number, tries);
            if let Answer::Server(server) = ask(client, port, *to, asked.timeout).await {
                return (Some(server), tries + 1);
            }
        }
        (None, asked.tries)
    }
}

async fn ask(client: u32, port: u16, to: Ipv4Addr, patience: Duration) -> Answer {
    let ask = async {
        let mut socket = bind(Type::DGRAM, client, port);
        for other in 1..PORTS {
            if !matches!(&socket, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
            socket = bind(Type::DGRAM, client, port.checked_add(other).unwrap_or(1024));
        }
        let socket = socket?;
        socket.connect(&SockAddr::from(SocketAddr::from((to, PORT))))?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.send(b"who?").await?;
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).await?;
        server_in(buffer.get(..length).unwrap_or_default())
    };
    match timeout(patience, ask).await {
        Ok(Ok(server)) => Answer::Server(server),
        Ok(Err(_)) => Answer::Refused,
        Err(_) => Answer::Silence,
    }
}

fn bind(kind: Type, client: u32, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(IpAddr::V4(flows::client(client)), port)))?;
    Ok(socket)
}

async fn connect(client: u32, port: u16, to: Ipv4Addr) -> io::Result<(u16, TcpStream)> {
    let socket = bind(Type::STREAM, client, port)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    let mut stream = TcpSocket::from_std_stream(socket.into()).connect((to, PORT).into()).await?;
    let server = question(&mut stream).await?;
    Ok((server, stream))
}

/// Asks at the times that are its, until the end or until it is found cut.
async fn keep(server: u16, mut stream: TcpStream, kept: &Connections, first: Time, end: Time) -> Connection {
    let mut connection = Connection { server, answered: first, cut: None };
    let mut next = first;
    while next < end {
        sleep_until(next).await;
        match timeout(kept.patience, question(&mut stream)).await {
            Ok(Ok(_)) => connection.answered = clock::now(),
            Ok(Err(_)) | Err(_) => {
                connection.cut = Some(clock::now());
                return connection;
            }
        }
        while next <= clock::now() {
            next += kept.every;
        }
    }
    connection
}

async fn question(stream: &mut TcpStream) -> io::Result<u16> {
    stream.write_all(b"who?\n").await?;
    let mut said = Vec::new();
    let mut buffer = [0; 256];
    while !said.ends_with(b"\n") {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => said.extend(buffer.get(..length).unwrap_or_default()),
        }
    }
    server_in(&said)
}

/// Servers say their node's name first: `3-s2` is the second server of a design.
fn server_in(said: &[u8]) -> io::Result<u16> {
    let text = std::str::from_utf8(said).map_err(|_| io::ErrorKind::InvalidData)?;
    let number =
        text.split_whitespace().next().and_then(|name| name.rsplit_once("-s")?.1.parse::<u16>().ok());
    number.and_then(|number| number.checked_sub(1)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_the_name_of_its_node() {
        assert_eq!(server_in(b"3-s2 who?").unwrap(), 1);
        assert_eq!(server_in(b"12-s64\n").unwrap(), 63);
        for bad in [&b""[..], b"h1 who?", b"3-s0 who?", b"3-sx", b"\xff-s1"] {
            assert!(server_in(bad).is_err(), "{bad:?}");
        }
    }
}
