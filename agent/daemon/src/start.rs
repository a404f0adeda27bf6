//! From the command line to a loop that can run: locks, the kernel side, configuration, the agent.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyvip_core::boundary::Start;
use anyvip_core::config::Loaded;
use anyvip_core::kernel::KernelView;
use anyvip_core::state::{StoredState, StoredStateRead};
use anyvip_core::{Agent, Config};
use anyvip_io::netlink::{Monitor, Netlink};
use anyvip_io::process::{self, Leftovers};
use anyvip_io::state_file::Lock;
use anyvip_io::{Clock, clock};
use tokio::sync::mpsc;

use crate::cli::terminal;
use crate::complaint::{Complaint, Exit};
use crate::control::api::Ask;
use crate::control::server::{ControlSocket, SocketError};
use crate::driver::{Driver, Parts};
use crate::signals::Signals;
use crate::state::{self, StateWriter};
use crate::upgrade::{self, Legacy, Program};
use crate::{configuration, kernel, keys, render};

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) config: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) state_dir: PathBuf,
}

/// A loop, and what must live as long as it runs.
pub(crate) struct Prepared {
    pub(crate) driver: Driver,
    pub(crate) alone: Alone,
}

/// Says that no other agent can be at work here.
#[derive(Debug)]
pub(crate) struct Alone {
    _state: Lock,
    _namespace: OwnedFd,
}

impl Alone {
    /// The state directory, and the network namespace: two agents with folders of their own would fight over the
    /// same addresses.
    ///
    /// # Errors
    /// [`Exit::Conflict`] when there is another agent.
    pub(crate) fn ensure(state_dir: &Path) -> Result<Alone, Complaint> {
        let lock = state::lock(state_dir)?;
        // An abstract socket name belongs to a network namespace and vanishes with its process.
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)
            .and_then(|socket| {
                socket.bind(&socket2::SockAddr::unix("\0anyvip-agent")?)?;
                Ok(socket)
            })
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    Complaint::new(Exit::Conflict, "another anyvip runs in this network namespace")
                        .remedy("stop it first: `systemctl stop anyvip`")
                }
                _ => Complaint::refused(format!("cannot see whether another anyvip runs here: {error}")),
            })?;
        Ok(Alone { _state: lock, _namespace: socket.into() })
    }
}

/// The kernel side as it is, and how to follow and change it.
pub(crate) struct KernelSide {
    pub(crate) monitor: Monitor,
    pub(crate) netlink: Netlink,
    pub(crate) view: KernelView,
}

impl KernelSide {
    /// # Errors
    /// When netlink cannot be used.
    pub(crate) async fn open() -> Result<KernelSide, Complaint> {
        let refused = |failure: anyvip_machine::Failure| Complaint::refused(failure.text);
        let netlink = Netlink::open().map_err(refused)?;
        let mut monitor = Monitor::open().map_err(refused)?;
        let view = kernel::view(monitor.next().await);
        Ok(KernelSide { monitor, netlink, view })
    }
}

/// Reads and checks the configuration against this host; warnings go to the log.
///
/// # Errors
/// What `anyvip validate` prints.
pub(crate) fn configured(
    path: &Path,
    view: &KernelView,
    stored: &StoredStateRead,
) -> Result<Config, Complaint> {
    let router_id = match stored {
        StoredStateRead::Read(StoredState { router_id, .. }) => *router_id,
        StoredStateRead::Absent | StoredStateRead::Unreadable(_) => None,
    };
    let (Loaded { config, warnings }, sources) =
        configuration::load(path, &kernel::facts(view, router_id), terminal::color_on_stderr())?;
    if !warnings.is_empty() {
        tracing::warn!("{}", render::render(&warnings, &sources, false));
    }
    Ok(config)
}

/// Everything up to the first event. `adjust` may change the configuration; `serve` says whether there shall be a
/// control socket.
///
/// # Errors
/// Whatever keeps an agent from running here, with its remedy.
pub(crate) async fn prepare(
    paths: &Paths,
    adjust: impl FnOnce(&mut Config),
    serve: bool,
) -> Result<Prepared, Complaint> {
    let clock = Clock::start();
    let program = Program::ours();
    // Before any child of our own, and any listener.
    let (leftovers, listeners) = (Leftovers::find(), process::listeners_left());
    let wall_clock_ms = clock::wall_clock_millis();
    let signals =
        Signals::catch().map_err(|error| Complaint::refused(format!("cannot catch signals: {error}")))?;
    let kernel_side = KernelSide::open().await?;
    let stored = state::read(&paths.state_dir);
    let mut config = configured(&paths.config, &kernel_side.view, &stored)?;
    adjust(&mut config);
    crate::capabilities::check(&config)?;
    let keys = keys::read(&config)?;
    let alone = Alone::ensure(&paths.state_dir)?;
    // Only now nobody else writes it.
    let stored = state::read(&paths.state_dir);
    // Whatever comes of this start, it is the only one that may inherit.
    let (inheritance, legacy, not_inherited) = match upgrade::inherit(&paths.state_dir) {
        None => (None, Legacy::default(), None),
        Some(Ok((inheritance, legacy))) => (Some(inheritance), legacy, None),
        Some(Err(why)) => (None, Legacy::default(), Some(why)),
    };
    let (asks_sender, asks) = mpsc::channel::<Ask>(64);
    if serve {
        let socket = ControlSocket::bind(&paths.socket).map_err(|error| match error {
            SocketError::InUse(_) => Complaint::new(Exit::Conflict, error.to_string())
                .remedy("stop it first, or give this one a socket of its own with --socket"),
            _ => Complaint::refused(error.to_string()).remedy("name another place with --socket"),
        })?;
        tokio::spawn(socket.serve(asks_sender));
    }
    let agent = Agent::new(Start {
        config: config.clone(),
        state: stored,
        boot_id: state::boot_id(),
        wall_clock_ms,
        seed: seed(),
        inheritance,
    });
    let driver = Driver::new(Parts {
        clock,
        agent,
        monitor: kernel_side.monitor,
        netlink: kernel_side.netlink,
        view: kernel_side.view,
        state: StateWriter::new(&paths.state_dir),
        signals,
        asks,
        paths: paths.clone(),
        program,
        leftovers,
        listeners,
        legacy,
        not_inherited,
        config,
        keys,
    });
    Ok(Prepared { driver, alone })
}

/// Jitter that differs between hosts and starts.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
