//! What can be asked, and how an HTTP request becomes such a question.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use anyvip_core::status::{Explanation, Status, UpgradePlan};
use anyvip_core::{Reply, ServiceName};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::journal::{Entry, Following};

/// A request's body, at most.
const LARGEST_BODY: usize = 16 * 1024;
/// How long a client may take to send it.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// What the server asks of the loop. A dropped answer means that the agent is going.
#[derive(Debug)]
pub(crate) enum Ask {
    Status(oneshot::Sender<Status>),
    Explain(ServiceName, oneshot::Sender<Option<Explanation>>),
    Events(oneshot::Sender<Vec<Arc<Entry>>>),
    Follow(oneshot::Sender<Option<(Vec<Arc<Entry>>, Following)>>),
    UpgradePlan(oneshot::Sender<UpgradePlan>),
    Operate(Operation, oneshot::Sender<Reply>),
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Drain { service: Option<ServiceName>, reason: Option<String> },
    Undrain { service: Option<ServiceName> },
    Reload,
    Upgrade(Replacement),
}

/// The body of `upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replacement {
    /// The new program; without it, the file that the agent was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) binary: Option<PathBuf>,
    /// Also if routes are lost for a while.
    #[serde(default)]
    pub(crate) force: bool,
}

/// The body of `drain` and `undrain`: one service, or all by saying so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selection {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(default)]
    pub(crate) all: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Any answer but 200 and 409.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) error: String,
}

/// Says to the server when a connection follows events, and whether it was dropped for being slow.
pub(super) type FollowMark = Arc<OnceLock<Arc<std::sync::atomic::AtomicBool>>>;

/// Answers one request.
pub(super) async fn respond<B>(
    request: Request<B>,
    may_write: bool,
    asks: mpsc::Sender<Ask>,
    mark: FollowMark,
) -> Response<Answer>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match answer(request, may_write, asks, mark).await {
        Ok(response) => response,
        Err((status, error)) => {
            let mut response = json(status, &Refusal { error });
            if status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, POST"));
            }
            response
        }
    }
}

type Refused = (StatusCode, String);

async fn answer<B>(
    request: Request<B>,
    may_write: bool,
    asks: mpsc::Sender<Ask>,
    mark: FollowMark,
) -> Result<Response<Answer>, Refused>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path().to_owned();
    let Some(what) = path.strip_prefix("/v1/") else {
        return Err((StatusCode::NOT_FOUND, format!("no such path: {path} (paths begin with /v1/)")));
    };
    let (wanted, is_read) = match what {
        "status" | "events" => (Method::GET, true),
        "drain" | "undrain" | "reload" => (Method::POST, false),
        // What would happen, and to let it happen.
        "upgrade" if request.method() == Method::GET => (Method::GET, true),
        "upgrade" => (Method::POST, false),
        _ if what.starts_with("explain/") => (Method::GET, true),
        _ => return Err((StatusCode::NOT_FOUND, format!("no such path: {path}"))),
    };
    if request.method() != wanted {
        return Err((StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {wanted}")));
    }
    if !is_read && !may_write {
        let text = "only root and the agent's own user may change something";
        return Err((StatusCode::FORBIDDEN, text.to_owned()));
    }
    match what {
        "status" => Ok(json(StatusCode::OK, &ask(&asks, Ask::Status).await?)),
        "events" => events(request.uri().query().unwrap_or_default(), &asks, &mark).await,
        "drain" | "undrain" => {
            let selection: Selection = read_json(request).await?;
            operate(operation(what, selection)?, &asks).await
        }
        "reload" => operate(Operation::Reload, &asks).await,
        "upgrade" if is_read => Ok(json(StatusCode::OK, &ask(&asks, Ask::UpgradePlan).await?)),
        "upgrade" => operate(Operation::Upgrade(read_json(request).await?), &asks).await,
        _ => {
            let name = what.trim_start_matches("explain/").to_owned();
            let found = ask(&asks, |answer| Ask::Explain(ServiceName(name.clone()), answer)).await?;
            match found {
                Some(explanation) => Ok(json(StatusCode::OK, &explanation)),
                None => Err((StatusCode::NOT_FOUND, format!("there is no service {name:?}"))),
            }
        }
    }
}

fn operation(what: &str, selection: Selection) -> Result<Operation, Refused> {
    let bad = |text: &str| (StatusCode::BAD_REQUEST, text.to_owned());
    let service = match (selection.service, selection.all) {
        (Some(name), false) => Some(ServiceName(name)),
        (None, true) => None,
        (Some(_), true) => return Err(bad("name a service or say \"all\", not both")),
        (None, false) => return Err(bad("name a service, or say \"all\": true")),
    };
    Ok(match what {
        "drain" => Operation::Drain { service, reason: selection.reason },
        _ if selection.reason.is_some() => return Err(bad("undrain takes no reason")),
        _ => Operation::Undrain { service },
    })
}

async fn operate(operation: Operation, asks: &mpsc::Sender<Ask>) -> Result<Response<Answer>, Refused> {
    let reply = ask(asks, |answer| Ask::Operate(operation, answer)).await?;
    let status = if reply.done { StatusCode::OK } else { StatusCode::CONFLICT };
    Ok(json(status, &reply))
}

async fn events(
    query: &str,
    asks: &mpsc::Sender<Ask>,
    mark: &FollowMark,
) -> Result<Response<Answer>, Refused> {
    let mut follow = false;
    let mut kept = usize::MAX;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=').unwrap_or((part, "")) {
            ("follow", "" | "1" | "true") => follow = true,
            ("kept", number) => {
                kept = number
                    .parse()
                    .map_err(|_| (StatusCode::BAD_REQUEST, format!("kept={number} is not a number")))?;
            }
            _ => return Err((StatusCode::BAD_REQUEST, format!("unknown parameter {part:?}"))),
        }
    }
    let (entries, following) = if follow {
        let Some((entries, following)) = ask(asks, Ask::Follow).await? else {
            let text = "too many followers already";
            return Err((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
        };
        let _ = mark.set(following.dropped.clone());
        (entries, Some(following))
    } else {
        (ask(asks, Ask::Events).await?, None)
    };
    let first: Vec<u8> = entries
        .iter()
        .skip(entries.len().saturating_sub(kept))
        .flat_map(|entry| line(entry.as_ref()))
        .collect();
    let mut response = Response::new(Answer { first: Some(Bytes::from(first)), following });
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

async fn ask<T>(
    asks: &mpsc::Sender<Ask>,
    make: impl FnOnce(oneshot::Sender<T>) -> Ask,
) -> Result<T, Refused> {
    let going = || (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping".to_owned());
    let (sender, receiver) = oneshot::channel();
    asks.send(make(sender)).await.map_err(|_| going())?;
    receiver.await.map_err(|_| going())
}

async fn read_json<T, B>(request: Request<B>) -> Result<T, Refused>
where
    T: for<'de> Deserialize<'de>,
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = std::pin::pin!(Limited::new(request.into_body(), LARGEST_BODY).collect());
    let collected = tokio::time::timeout(BODY_PATIENCE, body)
        .await
        .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()))?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {LARGEST_BODY} bytes"))
            }
            None => (StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")),
        })?;
    serde_json::from_slice(&collected.to_bytes())
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is not as wanted: {error}")))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Answer> {
    // Indented and in the order of the types: people read it with curl, too.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Answer { first: Some(Bytes::from(bytes)), following: None });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// A body: something known, then perhaps the events that come.
#[derive(Debug)]
pub(super) struct Answer {
    first: Option<Bytes>,
    following: Option<Following>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take().filter(|bytes| !bytes.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(following) = &mut self.following else { return Poll::Ready(None) };
        let bytes = match std::task::ready!(following.queue.poll_recv(context)) {
            Some(entry) => line(entry.as_ref()),
            None => {
                let dropped = following.dropped.load(Ordering::Relaxed);
                self.following = None;
                if !dropped {
                    return Poll::Ready(None);
                }
                line(&Refusal { error: "dropped: events came faster than they were read".to_owned() })
            }
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.following.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match (&self.first, &self.following) {
            (Some(bytes), None) => hyper::body::SizeHint::with_exact(bytes.len() as u64),
            (None, None) => hyper::body::SizeHint::with_exact(0),
            _ => hyper::body::SizeHint::default(),
        }
    }
}
