//! Waiting, the one way tests do it: ask again until it is so, or the deadline has passed.

use std::thread;
use std::time::{Duration, Instant};

/// The usual deadline: far beyond what anything takes on an idle machine, because tests share two busy cores.
pub const LONG: Duration = Duration::from_secs(60);

/// Asks until the answer is `Ok`, and fails with the last `Err` when the deadline has passed.
///
/// # Panics
/// When the deadline passes.
#[track_caller]
pub fn wait_until<T>(deadline: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(text) if Instant::now() >= end => panic!("not within {deadline:?}: {text}"),
            Err(_) => thread::sleep(Duration::from_millis(30)),
        }
    }
}
