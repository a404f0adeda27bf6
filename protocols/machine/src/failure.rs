use std::fmt;

use serde::{Deserialize, Serialize};

/// How the outside world said no. `std::io::Error` can be neither cloned nor written down, so drivers translate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What a machine may decide on.
    pub kind: FailureKind,
    /// What a person reads.
    pub text: String,
}

/// The kinds of failure that a machine tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The other end has no listener, or refuses.
    Refused,
    /// The other end reset the connection.
    Reset,
    /// The other end closed the connection in order (FIN).
    Closed,
    /// No answer in time.
    TimedOut,
    /// No route, network or host unreachable.
    Unreachable,
    /// A capability or permission is missing.
    PermissionDenied,
    /// The address is in use by someone else.
    AddressInUse,
    /// The address is not (or no longer) on this host.
    AddressNotAvailable,
    /// What was to be made is there already.
    AlreadyExists,
    /// What was to be changed or removed is not there.
    NotFound,
    /// Memory, descriptors or buffers ran out.
    Exhausted,
    /// The kernel or this build cannot do it.
    Unsupported,
    /// The machine's own guard ran out: the driver never answered, which is a bug.
    Unanswered,
    /// Anything else; the text says what.
    Other,
}

impl Failure {
    /// A failure of this kind, with a text for people.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::ErrorKind> for FailureKind {
    fn from(kind: std::io::ErrorKind) -> FailureKind {
        use std::io::ErrorKind as Io;
        match kind {
            Io::ConnectionRefused => FailureKind::Refused,
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe => FailureKind::Reset,
            Io::UnexpectedEof => FailureKind::Closed,
            Io::TimedOut => FailureKind::TimedOut,
            Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown => FailureKind::Unreachable,
            Io::PermissionDenied => FailureKind::PermissionDenied,
            Io::AddrInUse => FailureKind::AddressInUse,
            Io::AddrNotAvailable => FailureKind::AddressNotAvailable,
            Io::AlreadyExists => FailureKind::AlreadyExists,
            Io::NotFound => FailureKind::NotFound,
            Io::OutOfMemory | Io::QuotaExceeded | Io::StorageFull => FailureKind::Exhausted,
            Io::Unsupported => FailureKind::Unsupported,
            _ => FailureKind::Other,
        }
    }
}
