//! The asking end, for the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyvip_io::process;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api::Refusal;
use crate::journal::Entry;

/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no agent is running here (nothing answers on {})", .0.display())]
    NoDaemon(PathBuf),
    #[error("cannot open {}: {}", .0.display(), .1)]
    Socket(PathBuf, io::Error),
    #[error("the agent did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// The agent said no.
    #[error("{text}")]
    Refused { status: StatusCode, text: String },
    #[error("the agent's answer cannot be understood: {0}")]
    Garbled(String),
    #[error("the agent ended the connection without an answer ({0})")]
    Cut(String),
}

/// A client of the agent behind one socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Asks and reads a JSON answer.
    ///
    /// # Errors
    /// When there is no agent, it does not answer, or it refuses.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_with_text(path).await.map(|(value, _)| value)
    }

    /// The same, and the answer as it came: what a newer agent added is in there.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub(crate) async fn get_with_text<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(T, String), ClientError> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    /// Asks for a change; 409 is an answer (`done: false`), not an error.
    ///
    /// # Errors
    /// When there is no agent, it does not answer, or it refuses to listen.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Garbled(error.to_string()))?;
        self.exchange(Method::POST, path, Bytes::from(body)).await.map(|(value, _)| value)
    }

    /// Follows the events.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub(crate) async fn events(&self, query: &str) -> Result<Events, ClientError> {
        let path = format!("/v1/events{query}");
        let response = timeout(PATIENCE, self.request(Method::GET, &path, Bytes::new()))
            .await
            .map_err(|_| ClientError::TimedOut)??;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        Ok(Events { body: response.into_body(), unread: Vec::new() })
    }

    /// The process that answers, if it can be seen from here.
    pub(crate) async fn process(&self) -> Option<u32> {
        let stream = self.connect().await.ok()?;
        u32::try_from(stream.peer_cred().ok()?.pid()?).ok().filter(|pid| *pid > 0 && process::lives(*pid))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(T, String), ClientError> {
        let exchange = async {
            let response = self.request(method, path, body).await?;
            if !matches!(response.status(), StatusCode::OK | StatusCode::CONFLICT) {
                return Err(refusal(response).await);
            }
            let bytes = response.into_body().collect().await.map_err(garbled)?.to_bytes();
            let value =
                serde_json::from_slice(&bytes).map_err(|error| ClientError::Garbled(error.to_string()))?;
            Ok((value, String::from_utf8_lossy(&bytes).into_owned()))
        };
        timeout(PATIENCE, exchange).await.map_err(|_| ClientError::TimedOut)?
    }

    /// A full queue says "try again" (unix(7)); the caller's patience ends it.
    async fn connect(&self) -> io::Result<UnixStream> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.connect().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon(self.socket.clone())
            }
            _ => ClientError::Socket(self.socket.clone(), error),
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "anyvip")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Garbled(error.to_string()))?;
        sender.send_request(request).await.map_err(garbled)
    }
}

fn garbled(error: hyper::Error) -> ClientError {
    match error.is_parse() {
        true => ClientError::Garbled(error.to_string()),
        false => ClientError::Cut(error.to_string()),
    }
}

async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let bytes = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return garbled(error),
    };
    let text = match serde_json::from_slice::<Refusal>(&bytes) {
        Ok(refusal) => refusal.error,
        Err(_) => format!("the agent answered {status}"),
    };
    ClientError::Refused { status, text }
}

/// Events as they come.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    unread: Vec<u8>,
}

impl Events {
    /// The next entry; `None` when the agent ended. May be dropped while waiting without losing anything.
    ///
    /// # Errors
    /// When this client was dropped for reading too slowly, or the stream breaks.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>, ClientError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                if let Ok(refusal) = serde_json::from_slice::<Refusal>(&line) {
                    return Err(ClientError::Garbled(refusal.error));
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| ClientError::Garbled(error.to_string()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.unread.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data))
                }
                // The agent exits without finishing the stream: that is its end.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
