//! One clock for all processes of a lab: `CLOCK_MONOTONIC`, which network namespaces do not change.

use anyvip_machine::Time;
use nix::time::{ClockId, clock_gettime};

/// The present moment, comparable between all processes of this host.
pub(crate) fn now() -> Time {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(time) => {
            let (secs, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
            Time::from_nanos(secs * 1_000_000_000 + nanos)
        }
        Err(_) => Time::ZERO,
    }
}
