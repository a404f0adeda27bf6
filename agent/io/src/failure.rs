//! How an `io::Error` becomes a [`Failure`] that a machine can keep and a person can read.

use std::fmt::Display;
use std::io;

use anyvip_machine::{Failure, FailureKind};

/// The kind of this error; finer than `io::ErrorKind` where the kernel's number says more.
pub fn kind_of(error: &io::Error) -> FailureKind {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC) => {
            FailureKind::Exhausted
        }
        Some(libc::ENODEV | libc::ESRCH | libc::ENXIO) => FailureKind::NotFound,
        Some(
            libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT | libc::ENOSYS,
        ) => FailureKind::Unsupported,
        _ => FailureKind::from(error.kind()),
    }
}

/// `what` as a plain sentence ("cannot read /etc/x"), followed by what the system said.
pub fn failed(what: impl Display, error: &io::Error) -> Failure {
    Failure::new(kind_of(error), format!("{what}: {}", said(error)))
}

/// The system's words for an error, without Rust's "(os error 111)".
pub(crate) fn said(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_tried_and_what_the_system_said() {
        let failure = failed("cannot open /x", &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(failure, Failure::new(FailureKind::NotFound, "cannot open /x: No such file or directory"));
    }

    #[test]
    fn running_out_of_descriptors_is_exhaustion_and_a_missing_device_is_not_found() {
        assert_eq!(kind_of(&io::Error::from_raw_os_error(libc::EMFILE)), FailureKind::Exhausted);
        assert_eq!(kind_of(&io::Error::from_raw_os_error(libc::ENODEV)), FailureKind::NotFound);
        assert_eq!(kind_of(&io::Error::from_raw_os_error(libc::ENOPROTOOPT)), FailureKind::Unsupported);
    }
}
