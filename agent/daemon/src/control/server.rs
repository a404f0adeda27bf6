//! The listening end: one request per connection, everything bounded, no client can hold up the loop.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::api::{self, Ask, FollowMark};

/// Clients served at the same time; more wait in the queue of the socket.
const CLIENTS: usize = 32;
/// How long a client may take to say what it wants.
const HEADER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a whole exchange may take, unless it follows events.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to rest when no descriptor is left to accept with.
const ACCEPT_REST: Duration = Duration::from_millis(250);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("another agent answers on {}", .0.display())]
    InUse(PathBuf),
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot make the control socket {}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// The control socket; its file is removed with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ControlSocket {
    /// Makes the socket (0660), after removing one that an earlier agent left behind.
    ///
    /// # Errors
    /// When somebody answers there, something else lies there, or the system refuses.
    pub(crate) fn bind(path: &Path) -> Result<ControlSocket, SocketError> {
        let failed = |error| SocketError::Io(path.to_owned(), error);
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(failed)?;
                }
            }
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
            },
        }
        // The mode is set before anybody can connect: until `listen`, everyone is refused.
        let open = || -> io::Result<UnixListener> {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
            socket.bind(&socket2::SockAddr::unix(path)?)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            socket.listen(1024)?;
            socket.set_nonblocking(true)?;
            UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())
        };
        Ok(ControlSocket { listener: open().map_err(failed)?, path: path.to_owned() })
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self, asks: mpsc::Sender<Ask>) {
        let clients = Arc::new(Semaphore::new(CLIENTS));
        loop {
            // Followers alone never take all places, and others must ask and be gone soon: waiting has an end.
            let Ok(place) = clients.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!("the control socket cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let asks = asks.clone();
            tokio::spawn(async move {
                client(stream, asks).await;
                drop(place);
            });
        }
    }
}

/// Root and the agent's own user may change something.
pub(super) fn may_write(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

async fn client(stream: UnixStream, asks: mpsc::Sender<Ask>) {
    let own = nix::unistd::geteuid().as_raw();
    let allowed = stream.peer_cred().is_ok_and(|peer| may_write(peer.uid(), own));
    let mark = FollowMark::default();
    let of_service = mark.clone();
    let service = service_fn(move |request| {
        let (asks, mark) = (asks.clone(), of_service.clone());
        async move { Ok::<_, Infallible>(api::respond(request, allowed, asks, mark).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(PATIENCE) => {
                // A follower may stay as long as it reads.
                if mark.get().is_none_or(|dropped| dropped.load(Ordering::Relaxed)) {
                    return;
                }
            }
        }
    }
}
