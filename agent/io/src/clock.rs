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

/// How long a piece of work may take, counted in time that this process ran.
///
/// A process that was stopped, or got no processor, has not looked for an answer: that time is nobody's fault but its own.
/// So the limit is counted in pieces, and a piece whose end is noticed late does not count. On a host that is too slow all
/// the time, only so many pieces are forgiven: else a dead service would never be found dead there.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    piece: Duration,
    due: Instant,
    forgiven: u32,
    stood_still: Duration,
}

impl Patience {
    /// A timer this late was not noticed for want of running; a busy host is late by a few milliseconds all the time.
    const LATE: Duration = Duration::from_millis(25);
    /// Late pieces that do not count.
    const FORGIVEN: u32 = 8;

    /// Begins now.
    pub fn new(limit: Duration) -> Patience {
        let piece = (limit / 8).clamp(Duration::from_millis(5), Duration::from_millis(100));
        let due = Instant::now() + limit.min(piece);
        Patience { left: limit, piece, due, forgiven: 0, stood_still: Duration::ZERO }
    }

    /// Waits until it is over. May be dropped while waiting, and asked again.
    pub async fn over(&mut self) {
        while !self.left.is_zero() {
            tokio::time::sleep_until(self.due).await;
            let late = self.late();
            self.stood_still += late;
            if late > Duration::ZERO && self.forgiven < Patience::FORGIVEN {
                self.forgiven += 1;
            } else {
                self.left = self.left.saturating_sub(self.piece);
            }
            self.due = Instant::now() + self.left.min(self.piece);
        }
    }

    /// For how long this process did not run since it began, as far as it was noticed.
    pub fn stood_still(&self) -> Duration {
        self.stood_still + if self.left.is_zero() { Duration::ZERO } else { self.late() }
    }

    fn late(&self) -> Duration {
        Some(self.due.elapsed()).filter(|late| *late > Patience::LATE).unwrap_or_default()
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

    #[tokio::test(start_paused = true)]
    async fn patience_ends_after_its_limit_when_the_process_runs() {
        for limit in [1_u64, 7, 500, 10_000].map(Duration::from_millis) {
            let (begun, mut patience) = (Instant::now(), Patience::new(limit));
            patience.over().await;
            let took = begun.elapsed();
            assert!(took >= limit && took < limit + Duration::from_millis(20), "{limit:?} took {took:?}");
            assert_eq!(patience.stood_still(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_process_stood_still_does_not_count_but_not_for_ever() {
        let (limit, stall) = (Duration::from_millis(400), Duration::from_secs(3));
        let (begun, mut patience) = (Instant::now(), Patience::new(limit));
        assert!(tokio::time::timeout(Duration::from_millis(120), patience.over()).await.is_err());
        tokio::time::advance(stall).await;
        assert!(patience.stood_still() > stall - limit);
        patience.over().await;
        assert!(begun.elapsed() >= stall + Duration::from_millis(350), "{:?}", begun.elapsed());

        // Late at every single piece.
        let mut patience = Patience::new(limit);
        let mut pieces = 0;
        while tokio::time::timeout(Duration::ZERO, patience.over()).await.is_err() {
            tokio::time::advance(Duration::from_millis(80)).await;
            pieces += 1;
            assert!(pieces < 100, "it never ends");
        }
        assert!(pieces >= 8 + 8, "{pieces}");
    }
}
