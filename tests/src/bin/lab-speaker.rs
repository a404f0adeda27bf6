//! `lab-speaker ADDRESS MANNER`: a BGP speaker of AS 65000 that accepts sessions on port 179 and behaves so:
//!
//! - `reset`: resets each connection as soon as it is accepted;
//! - `mute`: accepts, reads, never says a word;
//! - `deaf`: comes to Established, then keeps sending KEEPALIVE but never reads again;
//! - `steady`: a session with a hold time of 3 s; sends a KEEPALIVE each half second and never loses patience itself;
//! - `plain`: a session with a hold time of 90 s;
//! - `four`: the same, but only for IPv4;
//! - `loud`: the same as `plain`, and announces a default route and the address that the host itself announces, both through itself;
//! - `full-N`: the same as `plain`, and announces N prefixes as fast as they are taken; prints `told N` when they are;
//! - `keepalives`, `updates`, `crumbs`: the same as `plain`, and without end sends KEEPALIVE, or UPDATEs that announce and
//!   withdraw hundreds of routes of others, or KEEPALIVE one byte at a time, as fast as they are taken; prints how many bytes
//!   went out each second.
//!
//! Prints a line for each thing it sees. Written without the project's codec: it is an independent witness.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::socket::{setsockopt, sockopt};

const KEEPALIVE: &[u8] = &message(4);

/// RFC 4271 §4.1: marker, length, type; no body.
const fn message(kind: u8) -> [u8; 19] {
    let mut bytes = [0xff; 19];
    bytes[16] = 0;
    bytes[17] = 19;
    bytes[18] = kind;
    bytes
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let done = match args.as_slice() {
        [address, manner] => address.parse().map_err(io::Error::other).and_then(|at| listen(at, manner)),
        _ => Err(io::Error::other("usage: lab-speaker ADDRESS MANNER")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-speaker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(address: IpAddr, manner: &str) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::new(address, 179))?;
    if manner == "deaf" {
        // Accepted connections inherit it; the smallest the kernel allows.
        setsockopt(&listener, sockopt::RcvBuf, &1)?;
    }
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream?;
        println!("accepted {}", stream.peer_addr()?);
        let manner = manner.to_owned();
        thread::spawn(move || match speak(stream, &manner) {
            Ok(()) => println!("closed"),
            Err(error) => println!("closed {error}"),
        });
    }
    Ok(())
}

fn speak(mut stream: TcpStream, manner: &str) -> io::Result<()> {
    let (manner, count) = manner.split_once('-').unwrap_or((manner, "0"));
    let count: u32 = count.parse().map_err(io::Error::other)?;
    match manner {
        "reset" => {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &linger)?;
            Ok(())
        }
        "mute" => {
            while read_message(&mut stream)?.is_some() {}
            Ok(())
        }
        "deaf" => {
            establish(&mut stream, 90, true)?;
            loop {
                stream.write_all(KEEPALIVE)?;
                thread::sleep(Duration::from_secs(1));
            }
        }
        "steady" | "plain" | "four" | "loud" | "full" => {
            let hold_time = if manner == "steady" { 3 } else { 90 };
            establish(&mut stream, hold_time, manner != "four")?;
            if manner == "loud"
                && let IpAddr::V4(own) = stream.local_addr()?.ip()
            {
                stream.write_all(&routes(own))?;
            }
            if manner == "full" {
                // All before the thread that sends KEEPALIVE begins: two that write would mix their messages.
                for part in 0..count.div_ceil(1000) {
                    stream.write_all(&part_of_table(part, count))?;
                }
                println!("told {count}");
            }
            let mut sender = stream.try_clone()?;
            thread::spawn(move || {
                while sender.write_all(KEEPALIVE).is_ok() {
                    thread::sleep(Duration::from_millis(500));
                }
            });
            while let Some((kind, body)) = read_message(&mut stream)? {
                report(kind, &body);
            }
            Ok(())
        }
        "keepalives" => flood(stream, &KEEPALIVE.repeat(512), usize::MAX),
        "updates" => flood(stream, &foreign_routes(), usize::MAX),
        "crumbs" => flood(stream, KEEPALIVE, 1),
        other => Err(io::Error::other(format!("no manner {other}"))),
    }
}

/// Sends this without end, in pieces of at most so many bytes.
fn flood(mut stream: TcpStream, bytes: &[u8], piece: usize) -> io::Result<()> {
    establish(&mut stream, 90, true)?;
    stream.set_nodelay(true)?;
    let mut reader = stream.try_clone()?;
    thread::spawn(move || {
        while let Ok(Some((kind, body))) = read_message(&mut reader) {
            report(kind, &body);
        }
    });
    let (mut sent, mut second) = (0, Instant::now());
    loop {
        for part in bytes.chunks(piece.min(bytes.len())) {
            stream.write_all(part)?;
            sent += part.len();
        }
        if second.elapsed() >= Duration::from_secs(1) {
            println!("sent {sent}");
            (sent, second) = (0, Instant::now());
        }
    }
}

/// Two UPDATEs: 700 routes below 100.64.0.0/10 of AS 65000, and their withdrawal.
fn foreign_routes() -> Vec<u8> {
    let attributes =
        [&[0x40, 1, 1, 0][..], &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8], &[0x40, 3, 4, 10, 1, 1, 3]].concat();
    let prefixes: Vec<u8> = (0..700_u16)
        .flat_map(|number| {
            let [high, low] = number.to_be_bytes();
            [32, 100, 64, high, low]
        })
        .collect();
    let mut announce = vec![0, 0];
    announce.extend(u16::try_from(attributes.len()).unwrap_or_default().to_be_bytes());
    announce.extend(&attributes);
    announce.extend(&prefixes);
    let mut withdraw = u16::try_from(prefixes.len()).unwrap_or_default().to_be_bytes().to_vec();
    withdraw.extend(&prefixes);
    withdraw.extend([0, 0]);
    [complete(2, &announce), complete(2, &withdraw)].concat()
}

fn establish(stream: &mut TcpStream, hold_time: u16, both_families: bool) -> io::Result<()> {
    stream.write_all(&open(hold_time, both_families))?;
    stream.write_all(KEEPALIVE)?;
    while let Some((kind, body)) = read_message(stream)? {
        report(kind, &body);
        if kind == 4 {
            println!("established");
            return Ok(());
        }
    }
    Err(io::Error::other("before Established"))
}

/// RFC 4271 §4.2: version 4, AS 65000, an identifier, one capabilities parameter (RFC 5492): IPv4 and IPv6 unicast
/// (RFC 4760), 4-octet AS numbers (RFC 6793).
fn open(hold_time: u16, both_families: bool) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe8];
    if both_families {
        capabilities.extend([1, 4, 0, 2, 0, 1]);
    }
    let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
    let mut body = vec![4, 0xfd, 0xe8];
    body.extend(hold_time.to_be_bytes());
    body.extend([10, 9, 0, 1]);
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    complete(1, &body)
}

/// One UPDATE of a full table: the part with this number, up to 1,000 of the /24 from 16.0.0.0 on, by another AS each.
fn part_of_table(part: u32, count: u32) -> Vec<u8> {
    let [a, b, c, d] = (100_000 + part).to_be_bytes();
    let path = [0x40, 2, 10, 2, 2, 0, 0, 0xfd, 0xe8, a, b, c, d];
    let attributes = [&[0x40, 1, 1, 0][..], &path, &[0x40, 3, 4, 10, 1, 1, 1]].concat();
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap_or_default().to_be_bytes());
    body.extend(attributes);
    for number in part * 1000..count.min((part + 1) * 1000) {
        let [a, b, c, _] = (0x1000_0000 + (number << 8)).to_be_bytes();
        body.extend([24, a, b, c]);
    }
    complete(2, &body)
}

/// RFC 4271 §4.3: 0.0.0.0/0 and 198.51.100.1/32 by AS 65000 through itself.
fn routes(own: std::net::Ipv4Addr) -> Vec<u8> {
    let next_hop = [&[0x40, 3, 4][..], &own.octets()].concat();
    let attributes = [&[0x40, 1, 1, 0][..], &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8], &next_hop].concat();
    let length = u8::try_from(attributes.len()).unwrap_or(u8::MAX);
    let mut body = vec![0, 0, 0, length];
    body.extend(attributes);
    body.extend([0, 32, 198, 51, 100, 1]);
    complete(2, &body)
}

fn complete(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = message(kind).to_vec();
    bytes.extend(body);
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn report(kind: u8, body: &[u8]) {
    let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
    match kind {
        1 => println!("open {hex}"),
        2 => println!("update {hex}"),
        3 => println!("notification {hex}"),
        4 => println!("keepalive"),
        other => println!("message {other} {hex}"),
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 19];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::from(u16::from_be_bytes([head[16], head[17]]));
    let mut body = vec![0; length.saturating_sub(19)];
    stream.read_exact(&mut body)?;
    Ok(Some((head[18], body)))
}
