//! TCP connect, and optionally a word each way.

use std::net::SocketAddr;

use anyvip_core::config::{Secret, TcpCheck};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Ending;

/// How much of an answer is looked at.
pub(super) const LOOKED_AT: usize = 64 * 1024;

/// Connects. The caller sees to the time.
pub(super) async fn connect(remote: SocketAddr) -> Result<TcpStream, Ending> {
    let stream = TcpStream::connect(remote).await.map_err(|error| connect_ending(&error))?;
    // A probe is one small request; waiting to fill a segment would only add to its latency.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Tells what the service did (fail) from what this host could not do (error).
pub(super) fn connect_ending(error: &std::io::Error) -> Ending {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Ending::fail("connection refused"),
        Some(libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE) => Ending::fail("connection reset"),
        Some(libc::ETIMEDOUT) => Ending::fail("no answer"),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => {
            Ending::fail("unreachable")
        }
        Some(libc::EADDRNOTAVAIL) => Ending::error("no local port or address left"),
        Some(libc::EMFILE | libc::ENFILE) => Ending::error("out of file descriptors"),
        Some(libc::ENOBUFS | libc::ENOMEM) => Ending::error("out of memory for sockets"),
        Some(libc::EACCES | libc::EPERM) => {
            Ending::error("this host's firewall or policy forbids the connection")
        }
        _ => Ending::error(format!("cannot connect: {error}")),
    }
}

/// What a broken connection after it stood says about the service.
pub(super) fn stream_ending(error: &std::io::Error) -> Ending {
    match error.kind() {
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => {
            Ending::fail("connection reset")
        }
        std::io::ErrorKind::UnexpectedEof => Ending::fail("closed before an answer"),
        _ => Ending::fail(format!("connection lost: {error}")),
    }
}

/// Runs the check on a connection; what is left of the connection is returned to be closed in order.
pub(super) async fn run(check: &TcpCheck, remote: SocketAddr) -> (Ending, Option<TcpStream>) {
    let mut stream = match connect(remote).await {
        Ok(stream) => stream,
        Err(ending) => return (ending, None),
    };
    let ending = match talk(check, &mut stream).await {
        Ok(detail) => Ending::pass(detail),
        Err(ending) => ending,
    };
    (ending, Some(stream))
}

async fn talk(check: &TcpCheck, stream: &mut TcpStream) -> Result<String, Ending> {
    if let Some(text) = check.send.as_ref().and_then(Secret::expose) {
        stream.write_all(text.as_bytes()).await.map_err(|error| stream_ending(&error))?;
    }
    let Some(wanted) = &check.expect else {
        return Ok("connected".to_owned());
    };
    if wanted.is_empty() || read_until(stream, wanted.as_bytes()).await? {
        return Ok("connected, answer as wanted".to_owned());
    }
    Err(Ending::fail(format!("the answer does not contain {:?}", super::shortened(wanted, 40))))
}

/// Reads until `wanted` has been seen, the peer is done, or enough was looked at.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), wanted: &[u8]) -> Result<bool, Ending> {
    let mut seen = Vec::new();
    let mut chunk = [0_u8; 4096];
    while seen.len() < LOOKED_AT {
        let count = stream.read(&mut chunk).await.map_err(|error| stream_ending(&error))?;
        if count == 0 {
            if seen.is_empty() {
                return Err(Ending::fail("closed before an answer"));
            }
            return Ok(false);
        }
        let from = seen.len().saturating_sub(wanted.len());
        seen.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if contains(seen.get(from..).unwrap_or_default(), wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `text` occurs in `within`.
pub(super) fn contains(within: &[u8], text: &[u8]) -> bool {
    text.is_empty() || within.windows(text.len()).any(|window| window == text)
}
