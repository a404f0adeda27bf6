//! Names: a small server that tells the addresses of those that are in rotation, and resolvers that keep what it said.
//!
//! What goes over the wire is DNS (RFC 1035), of which this needs one question and A records in answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::checks::Watched;
use super::order::Server;
use crate::compare::flows;
use crate::compare::plan::{Answers, Checks, Dns};
use crate::dns;

/// Where the name server listens.
const PORT: u16 = 53;
/// `service.test.`
const NAME: &[u8] = b"\x07service\x04test\x00";
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
/// Header flags: response, authoritative.
const RESPONSE: [u8; 2] = [0x84, 0x00];
const HEADER: usize = 12;

/// A name server as meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) servers: Vec<Server>,
    pub(crate) ttl: Duration,
    pub(crate) answers: Answers,
    pub(crate) checks: Option<Checks>,
}

/// A running name server.
pub(super) struct NameServer {
    config: Config,
    watched: Watched,
    checks: JoinSet<()>,
    task: JoinHandle<()>,
}

impl NameServer {
    pub(super) fn start(config: Config) -> Result<NameServer, String> {
        let text = |error: std::io::Error| format!("name server: {error}");
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(text)?;
        socket.set_nonblocking(true).map_err(text)?;
        let socket = UdpSocket::from_std(socket).map_err(text)?;
        let watched = Watched::new(config.servers.len());
        let task = tokio::task::spawn_local(serve(socket, config.clone(), watched.clone()));
        Ok(NameServer { config, watched, checks: JoinSet::new(), task })
    }

    pub(super) fn begin(&mut self, at: Time) {
        if let Some(checks) = self.config.checks {
            self.checks = self.watched.check(&self.config.servers, checks, at);
        }
    }

    pub(super) fn want(&self, server: usize, wanted: bool) {
        self.watched.want(server, wanted);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, config: Config, watched: Watched) {
    let ttl = u32::try_from(config.ttl.as_secs()).unwrap_or(u32::MAX);
    let (mut given, mut buffer) = (0_usize, [0; 512]);
    loop {
        // What was sent to somebody who is gone by now comes back as an error.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let mut list: Vec<Ipv4Addr> = watched
            .ready()
            .into_iter()
            .filter_map(|server| Some(config.servers.get(server)?.address))
            .collect();
        // Round robin: the list turns with each answer.
        if !list.is_empty() {
            let turn = given % list.len();
            list.rotate_left(turn);
        }
        if config.answers == Answers::One {
            list.truncate(1);
        }
        let question = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = answer(question, &list, ttl) {
            given += 1;
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// What a resolver asks.
fn question(id: u16) -> Vec<u8> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    question.extend(NAME);
    question.extend(TYPE_A.to_be_bytes());
    question.extend(CLASS_IN.to_be_bytes());
    question
}

/// These addresses; `None` for what does not ask for them.
fn answer(question: &[u8], addresses: &[Ipv4Addr], ttl: u32) -> Option<Vec<u8>> {
    let header = question.get(..HEADER)?;
    let asked = question.get(HEADER..)?;
    let end = dns::question_length(asked)?;
    let is_ours = header[2] & 0x80 == 0
        && header[4..6] == [0, 1]
        && asked.get(..end)? == &self::question(0)[HEADER..]
        && addresses.len() <= 255;
    is_ours.then_some(())?;
    let mut answer = header[..2].to_vec();
    answer.extend(RESPONSE);
    answer.extend([0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0, 0, 0, 0]);
    answer.extend(asked.get(..end)?);
    for address in addresses {
        // The name of the question (RFC 1035 §4.1.4).
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(TYPE_A.to_be_bytes());
        answer.extend(CLASS_IN.to_be_bytes());
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// Addresses and TTL of an answer to the question with this id.
fn addresses_in(answer: &[u8], id: u16) -> Option<(Vec<Ipv4Addr>, Duration)> {
    let header = answer.get(..HEADER)?;
    if header[..2] != id.to_be_bytes() || header[2] & 0x80 == 0 {
        return None;
    }
    let count = usize::from(u16::from_be_bytes([header[6], header[7]]));
    let begin = HEADER + dns::question_length(answer.get(HEADER..)?)?;
    let (mut addresses, mut ttl) = (Vec::new(), 0);
    for record in answer.get(begin..)?.chunks(16).take(count) {
        // Name, type, class, TTL, length, address.
        let (fixed, address) = (record.get(2..6)?, <[u8; 4]>::try_from(record.get(12..16)?).ok()?);
        if fixed != [0, 1, 0, 1] {
            return None;
        }
        ttl = u32::from_be_bytes(record.get(6..10)?.try_into().ok()?);
        addresses.push(Ipv4Addr::from(address));
    }
    (addresses.len() == count).then_some((addresses, Duration::from_secs(ttl.into())))
}

/// The resolvers of all clients.
pub(super) struct Resolvers {
    server: SocketAddr,
    dns: Dns,
    seed: u64,
    /// One after the other: who comes while a resolver asks waits for its answer.
    caches: Vec<Rc<Mutex<Option<Cached>>>>,
}

struct Cached {
    until: Time,
    list: Vec<Ipv4Addr>,
    turn: usize,
}

impl Resolvers {
    pub(super) fn new(server: Ipv4Addr, dns: Dns, seed: u64) -> Resolvers {
        let caches = (0..dns.resolvers).map(|_| Rc::new(Mutex::new(None))).collect();
        Resolvers { server: (server, PORT).into(), dns, seed, caches }
    }

    /// What a client's resolver answers at this moment. `begin` counts as the moment when all begins, for what is asked before.
    pub(super) async fn addresses(&self, now: Time, client: u32) -> Vec<Ipv4Addr> {
        let number = client % self.dns.resolvers;
        let Some(cache) = self.caches.get(number as usize) else { return Vec::new() };
        let mut cache = cache.lock().await;
        if cache.as_ref().is_none_or(|cached| now >= cached.until) {
            let first = cache.is_none();
            let Some((list, ttl)) = self.ask().await else {
                // The name server is gone: what was known is known no more, and the next who comes asks again.
                return Vec::new();
            };
            let keep = ttl.max(self.dns.at_least);
            let until = now + if first { flows::first_expiry(self.seed, number, keep) } else { keep };
            *cache = Some(Cached { until, list, turn: 0 });
        }
        let Some(cached) = cache.as_mut() else { return Vec::new() };
        let mut answer = cached.list.clone();
        if self.dns.rotate && !answer.is_empty() {
            let by = cached.turn % answer.len();
            answer.rotate_left(by);
            cached.turn += 1;
        }
        answer
    }

    async fn ask(&self) -> Option<(Vec<Ipv4Addr>, Duration)> {
        const PATIENCE: Duration = Duration::from_secs(1);
        const TRIES: u16 = 3;
        for id in 1..=TRIES {
            let ask = async {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
                socket.connect(self.server).await.ok()?;
                socket.send(&question(id)).await.ok()?;
                let mut buffer = [0; 4096];
                let length = socket.recv(&mut buffer).await.ok()?;
                addresses_in(buffer.get(..length)?, id)
            };
            if let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, ask).await {
                return Some(answer);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_reads_what_the_name_server_writes() {
        let list = [Ipv4Addr::new(10, 0, 1, 11), Ipv4Addr::new(10, 0, 2, 11)];
        let said = answer(&question(7), &list, 30).unwrap();
        assert_eq!(addresses_in(&said, 7), Some((list.to_vec(), Duration::from_secs(30))));
        assert_eq!(addresses_in(&said, 8), None, "an answer to somebody else");
        assert_eq!(addresses_in(&question(7), 7), None, "a question is no answer");
        let none = answer(&question(7), &[], 30).unwrap();
        assert_eq!(addresses_in(&none, 7), Some((Vec::new(), Duration::ZERO)), "nobody is well");
    }

    #[test]
    fn rubbish_is_neither_answered_nor_believed() {
        let said = answer(&question(7), &[Ipv4Addr::LOCALHOST], 1).unwrap();
        for length in 0..said.len() {
            assert_eq!(addresses_in(&said[..length], 7), None, "{length} octets");
        }
        let whole = question(7);
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], &[], 1), None, "{length} octets");
        }
        assert_eq!(answer(&dns::query(7), &[], 1), None, "another name");
    }
}
