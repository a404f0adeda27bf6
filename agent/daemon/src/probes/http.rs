//! One HTTP/1.1 request over a connection of its own.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use anyvip_core::config::{HttpCheck, HttpMethod};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Ending, Leftover, close_in_order, tcp, tls};

/// Runs the check; what is left of the connection is returned to be closed in order.
pub(super) async fn run(check: &HttpCheck, remote: SocketAddr) -> (Ending, Option<Leftover>) {
    match attempt(check, remote).await {
        Ok(both) => both,
        Err(ending) => (ending, None),
    }
}

async fn attempt(check: &HttpCheck, remote: SocketAddr) -> Result<(Ending, Option<Leftover>), Ending> {
    let request = request(check, remote)?;
    let prepared = match &check.tls {
        Some(settings) => Some(tls::prepare(settings, check.host.as_deref(), remote.ip()).await?),
        None => None,
    };
    let stream = tcp::connect(remote).await?;
    match prepared {
        Some(prepared) => exchange(check, request, tls::handshake(prepared, stream).await?).await,
        None => exchange(check, request, stream).await,
    }
}

fn request(check: &HttpCheck, remote: SocketAddr) -> Result<Request<Empty<Bytes>>, Ending> {
    let standard_port = if check.tls.is_some() { 443 } else { 80 };
    let host = match (&check.host, remote.ip(), remote.port() == standard_port) {
        (Some(host), _, _) => host.clone(),
        (None, IpAddr::V4(address), true) => address.to_string(),
        (None, IpAddr::V6(address), true) => format!("[{address}]"),
        (None, _, false) => remote.to_string(),
    };
    let method = match check.method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
    };
    let mut request = Request::builder()
        .method(method)
        .uri(check.path.as_str())
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Ending::error(format!("the request cannot be made: {error}")))?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("anyvip/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in &check.headers {
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| Ending::error(format!("{name:?} is no header name")))?;
        let mut value = HeaderValue::try_from(value.expose().unwrap_or_default())
            .map_err(|_| Ending::error(format!("the value of header {name} cannot be sent")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(request)
}

/// The request, the answer, and what then closes the connection.
async fn exchange<S>(
    check: &HttpCheck,
    request: Request<Empty<Bytes>>,
    stream: S,
) -> Result<(Ending, Option<Leftover>), Ending>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_ending(&error))?;
    let mut connection = Box::pin(connection.without_shutdown());
    let mut ended = None;
    let ending = {
        let mut answer = pin!(async {
            let response = sender.send_request(request).await.map_err(|error| http_ending(&error))?;
            judge(check, response).await
        });
        loop {
            tokio::select! {
                // The answer first: a connection that ended may have brought it.
                biased;
                ending = &mut answer => break ending,
                parts = &mut connection, if ended.is_none() => ended = Some(parts),
            }
        }
    };
    let leftover = async move {
        drop(sender);
        let parts = match ended {
            Some(parts) => parts,
            None => connection.await,
        };
        if let Ok(parts) = parts {
            close_in_order(parts.io.into_inner()).await;
        }
    };
    Ok((ending.unwrap_or_else(|ending| ending), Some(Box::pin(leftover))))
}

async fn judge(check: &HttpCheck, mut response: Response<Incoming>) -> Result<Ending, Ending> {
    let status = response.status();
    if !check.expect_status.iter().any(|(low, high)| (*low..=*high).contains(&status.as_u16())) {
        return Err(Ending::fail(format!(
            "status {}, wanted {}",
            status.as_u16(),
            wanted_status(&check.expect_status)
        )));
    }
    let passed = || match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    };
    let Some(wanted) = &check.expect_body else {
        return Ok(Ending::pass(passed()));
    };
    let mut body = Vec::new();
    while body.len() < tcp::LOOKED_AT {
        let Some(frame) = response.frame().await else { break };
        let frame = frame.map_err(|error| http_ending(&error))?;
        if let Some(data) = frame.data_ref() {
            let room = tcp::LOOKED_AT - body.len();
            let from = body.len().saturating_sub(wanted.len());
            body.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            if tcp::contains(body.get(from..).unwrap_or_default(), wanted.as_bytes()) {
                return Ok(Ending::pass(format!("{}, body as wanted", passed())));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(Ending::pass(passed()));
    }
    Err(Ending::fail(format!(
        "{}, but the body does not contain {:?}",
        status.as_u16(),
        super::shortened(wanted, 40)
    )))
}

fn wanted_status(ranges: &[(u16, u16)]) -> String {
    let ranges: Vec<String> = ranges
        .iter()
        .map(|(low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") })
        .collect();
    ranges.join(", ")
}

fn http_ending(error: &hyper::Error) -> Ending {
    if error.is_parse_too_large() {
        return Ending::fail("the header of the answer is too large");
    }
    if error.is_parse() {
        return Ending::fail("the answer is not HTTP/1.1");
    }
    if error.is_incomplete_message() {
        return Ending::fail("closed before an answer");
    }
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return tcp::stream_ending(io);
        }
        source = inner.source();
    }
    Ending::fail(format!("no HTTP answer: {error}"))
}
