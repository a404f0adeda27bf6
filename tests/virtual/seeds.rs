//! Swarms of faults: every seed that ever failed, and the first ones.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyvip_virtual::sweep::{Bounds, Case, run};
use anyvip_virtual::world::Tracing;

/// `SEED [hosts=N] [time=SECONDS]  # why it is here`
fn regressions() -> Vec<(u64, Bounds)> {
    let lines = include_str!("regression-seeds.txt").lines();
    let stated = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    stated
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            let seed = words.next().and_then(|word| word.parse().ok()).expect("a seed comes first");
            let mut bounds = Bounds::default();
            for word in words {
                match word.split_once('=').expect("hosts=N or time=SECONDS") {
                    ("hosts", hosts) => bounds.hosts = Some(hosts.parse().expect("a number of hosts")),
                    ("time", time) => bounds.time = Duration::from_secs(time.parse().expect("seconds")),
                    (other, _) => panic!("no such option: {other}"),
                }
            }
            (seed, bounds)
        })
        .collect()
}

/// What failed, in words for a person who wants to see it again.
fn failure(seed: u64, bounds: &Bounds) -> Option<String> {
    let outcome = std::panic::catch_unwind(|| run(&Case::draw(seed, bounds), Tracing::Off, |_| {}));
    let what = match outcome {
        Ok(outcome) => outcome.violation?.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("a machine panicked: {}", text.unwrap_or_default())
        }
    };
    let hosts = bounds.hosts.map(|hosts| format!(" --hosts {hosts}")).unwrap_or_default();
    let time = bounds.time.as_secs();
    Some(format!(
        "seed {seed}: {what}\n    see it with: anyvip-sim sweep --replay {seed}{hosts} --time {time}s --trace FILE\n    \
         and write it into tests/virtual/regression-seeds.txt"
    ))
}

/// Runs what `next` gives on two threads until it gives no more; returns failures.
fn on_two_threads(next: impl Fn() -> Option<(u64, Bounds)> + Sync) -> (u64, Vec<String>) {
    let (runs, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((seed, bounds)) = next() {
                    runs.fetch_add(1, Ordering::Relaxed);
                    if let Some(text) = failure(seed, &bounds) {
                        failures.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    (runs.into_inner(), failures.into_inner().unwrap())
}

#[test]
fn every_seed_that_ever_failed_holds_all_invariants() {
    let seeds = regressions();
    assert!(!seeds.is_empty());
    let next = AtomicU64::new(0);
    let (runs, failures) =
        on_two_threads(|| seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied());
    assert_eq!(runs as usize, seeds.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The same seeds each time, so that a failure is the change's.
#[test]
fn the_first_seeds_hold_all_invariants() {
    const LAST: u64 = 40;
    let number = AtomicU64::new(1);
    let (runs, failures) = on_two_threads(|| {
        let seed = number.fetch_add(1, Ordering::Relaxed);
        (seed <= LAST).then(|| (seed, Bounds::default()))
    });
    assert_eq!(runs, LAST);
    assert!(failures.is_empty(), "of {runs} seeds:\n{}", failures.join("\n"));
}

/// Seeds that nobody has seen, two minutes long in CI. What fails may be older than the change that meets it: its seed says
/// everything, on every machine.
#[test]
fn fresh_seeds_hold_all_invariants() {
    let long = std::env::var_os("CI").is_some();
    let end = Instant::now() + Duration::from_secs(if long { 120 } else { 5 });
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = clock.as_secs() * 1000;
    let number = AtomicU64::new(first);
    let (runs, failures) = on_two_threads(|| {
        let seed = number.fetch_add(1, Ordering::Relaxed);
        (Instant::now() < end).then(|| (seed, Bounds::default()))
    });
    assert!(runs >= 2);
    println!("{runs} fresh seeds from {first} on");
    assert!(failures.is_empty(), "of {runs} fresh seeds:\n{}", failures.join("\n"));
}

#[test]
fn a_seed_with_faults_gives_the_same_hash_a_hundred_times_out_of_a_hundred() {
    let bounds = Bounds { hosts: Some(3), time: Duration::from_secs(60) };
    let busy = (1..).map(|seed| Case::draw(seed, &bounds)).find(|case| case.strikes.len() > 30);
    let case = busy.expect("one of them is busy");
    let first = run(&case, Tracing::Hash, |_| {});
    for again in 1..100 {
        let other = run(&Case::draw(case.seed, &bounds), Tracing::Hash, |_| {});
        assert_eq!((other.hash, other.events), (first.hash, first.events), "run {again}");
    }
}
