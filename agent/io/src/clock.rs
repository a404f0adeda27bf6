//! The one place where [`Time`], tokio's instants and the wall clock meet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyvip_machine::Time;
use tokio::time::Instant;

/// Counts from the moment it was started, by `CLOCK_MONOTONIC` (it stands still while the host is suspended, as
/// timers do). One per process; copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The present moment. Never goes back.
    pub fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// The tokio instant of a moment, to sleep until. Moments beyond any timer (`Time::MAX`) become one a year away.
    pub fn instant(&self, time: Time) -> Instant {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        let after_start = Duration::from_nanos(time.as_nanos());
        self.start.checked_add(after_start.min(self.start.elapsed() + YEAR)).unwrap_or_else(Instant::now)
    }
}

/// Milliseconds since 1970 by the wall clock: for people and files, never for deadlines.
pub fn wall_clock_millis() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_and_its_instant_are_the_same_point() {
        let clock = Clock::start();
        assert_eq!(clock.now(), Time::ZERO);
        tokio::time::sleep_until(clock.instant(Time::from_millis(1500))).await;
        assert!(clock.now() >= Time::from_millis(1500) && clock.now() < Time::from_millis(1510));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_time_is_an_instant_too() {
        let clock = Clock::start();
        assert!(clock.instant(Time::MAX) > Instant::now() + Duration::from_secs(86_400));
    }

    #[test]
    fn the_wall_clock_is_past_2020() {
        assert!(wall_clock_millis() > 1_577_836_800_000);
    }
}
