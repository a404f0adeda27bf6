//! `anyvip-sim sweep`: seeds of the virtual lab under random faults, as many at once as there are cores.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyvip_virtual::router::Install;
use anyvip_virtual::sweep::{Bounds, Case, FlowCounts, Minimiser, Outcome, run};
use anyvip_virtual::world::{Sabotage, Tracing};

use crate::cli;

/// Events that are shown of a failure.
const LAST_EVENTS: usize = 12;
/// Plans that minimising tries at most.
const MOST_PLANS: usize = 400;
/// From line to line where nobody watches a bar.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// From one state of the bar to the next.
const BAR_EVERY: Duration = Duration::from_millis(200);
const BAR: usize = 32;
/// An event is cut here on the screen; a trace file has all of it.
const WIDEST: usize = 400;

thread_local! {
    /// The seed that this thread plays.
    static PLAYED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// 0: every invariant held; 1: one did not; 2: not run.
pub(crate) fn main(arguments: &cli::Sweep) -> ExitCode {
    let lot =
        Lot { bounds: Bounds { hosts: arguments.hosts, time: arguments.time }, broken: arguments.broken };
    panics_name_the_seed(lot);
    let done = match arguments.replay {
        Some(seed) => replay(arguments, seed, lot),
        None => sweep(arguments, lot),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("anyvip-sim: {error}");
            ExitCode::from(2)
        }
    }
}

/// What is played, but for the seed.
#[derive(Clone, Copy, Debug)]
struct Lot {
    bounds: Bounds,
    broken: Option<Sabotage>,
}

impl Lot {
    fn draw(self, seed: u64) -> Case {
        Case { broken: self.broken, ..Case::draw(seed, &self.bounds) }
    }

    /// The command that shows all of a seed.
    fn see_again(self, seed: u64) -> String {
        let hosts = self.bounds.hosts.map(|hosts| format!(" --hosts {hosts}")).unwrap_or_default();
        let broken = self.broken.map(|how| format!(" --broken {}", how.name())).unwrap_or_default();
        let time = self.bounds.time.as_secs();
        format!(
            "to see all of it: anyvip-sim sweep --replay {seed}{hosts} --time {time}s{broken} --trace FILE"
        )
    }
}

/// What all threads share.
struct Shared {
    first: u64,
    count: u64,
    next: AtomicU64,
    done: AtomicU64,
    events: AtomicU64,
    virtual_seconds: AtomicU64,
    stop: AtomicBool,
    /// By how routers install next hops.
    flows: Mutex<BTreeMap<&'static str, FlowCounts>>,
    failed: Mutex<Option<u64>>,
}

fn sweep(arguments: &cli::Sweep, lot: Lot) -> Result<bool, String> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let jobs = arguments.jobs.unwrap_or(cores).clamp(1, 1024);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let first = arguments.first.unwrap_or(clock);
    let shared = Shared {
        first,
        count: arguments.seeds,
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        events: AtomicU64::new(0),
        virtual_seconds: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        flows: Mutex::default(),
        failed: Mutex::new(None),
    };
    say(&format!(
        "seeds {first} to {}, {} hosts, {} s of faults each, {jobs} at once",
        first.saturating_add(arguments.seeds.saturating_sub(1)),
        lot.bounds.hosts.map_or("1 to 24".to_owned(), |hosts| hosts.to_string()),
        lot.bounds.time.as_secs()
    ));
    let begin = Instant::now();
    let panicked = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| work(&shared, lot))).collect();
        watch(&shared, begin, || workers.iter().all(|worker| worker.is_finished()));
        // All of them are joined: the scope itself panics for one that was not.
        workers.into_iter().filter_map(|worker| worker.join().err()).count() > 0
    });
    say(&summary(&shared, begin));
    say_flows(&shared.flows.into_inner().unwrap_or_default());
    if panicked {
        // It has told its seed already, and would panic again.
        return Ok(false);
    }
    let failed = shared.failed.into_inner().unwrap_or(None);
    let Some(seed) = failed else { return Ok(true) };
    show(arguments, seed, lot);
    Ok(false)
}

/// One thread: takes seeds until none is left or one has failed.
fn work(shared: &Shared, lot: Lot) {
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.count {
            return;
        }
        let seed = shared.first.wrapping_add(number);
        let case = lot.draw(seed);
        let outcome = play(&case, Tracing::Off);
        if let Ok(mut flows) = shared.flows.lock() {
            let sum = flows.entry(word(case.swarm.install)).or_default();
            *sum = [*sum, outcome.flows].into_iter().sum();
        }
        shared.done.fetch_add(1, Ordering::Relaxed);
        shared.events.fetch_add(outcome.events, Ordering::Relaxed);
        shared.virtual_seconds.fetch_add(outcome.time.as_secs(), Ordering::Relaxed);
        if outcome.violation.is_some() {
            shared.stop.store(true, Ordering::Relaxed);
            if let Ok(mut failed) = shared.failed.lock() {
                *failed = Some(failed.map_or(seed, |other| other.min(seed)));
            }
        }
    }
}

/// A machine or the lab itself may panic, which ends the whole process where panics abort: the seed must not be lost. A hook
/// speaks before that.
fn panics_name_the_seed(lot: Lot) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        if let Some(seed) = PLAYED.get() {
            eprintln!("anyvip-sim: seed {seed} panicked; {}", lot.see_again(seed));
        }
    }));
}

/// Plays a case, known to the hook meanwhile.
fn play(case: &Case, tracing: Tracing) -> Outcome {
    PLAYED.set(Some(case.seed));
    let outcome = run(case, tracing, |_| {});
    PLAYED.set(None);
    outcome
}

/// Shows how far it is until all is done.
fn watch(shared: &Shared, begin: Instant, over: impl Fn() -> bool) {
    let terminal = std::io::stdout().is_terminal();
    let mut last = Instant::now();
    while !over() {
        std::thread::sleep(Duration::from_millis(20));
        let every = if terminal { BAR_EVERY } else { LINE_EVERY };
        if last.elapsed() < every {
            continue;
        }
        last = Instant::now();
        if terminal {
            let (done, all) = (shared.done.load(Ordering::Relaxed), shared.count.max(1));
            let full = (done as usize * BAR / all as usize).min(BAR);
            let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
            let _ = write!(std::io::stdout(), "\r{bar} {}\x1b[K", summary(shared, begin));
            let _ = std::io::stdout().flush();
        } else {
            say(&summary(shared, begin));
        }
    }
    if terminal {
        let _ = write!(std::io::stdout(), "\r\x1b[K");
    }
}

fn summary(shared: &Shared, begin: Instant) -> String {
    let seconds = begin.elapsed().as_secs_f64().max(0.001);
    let done = shared.done.load(Ordering::Relaxed);
    let (events, time) =
        (shared.events.load(Ordering::Relaxed), shared.virtual_seconds.load(Ordering::Relaxed));
    format!(
        "{done} of {} seeds in {seconds:.1} s ({:.0} a minute), {:.1} virtual hours, {:.1} million events",
        shared.count,
        done as f64 * 60.0 / seconds,
        time as f64 / 3600.0,
        events as f64 / 1e6
    )
}

fn word(install: Install) -> &'static str {
    match install {
        Install::Plain => "plain",
        Install::Group => "group",
        Install::Resilient { .. } => "resilient",
        Install::Slots(_) => "slots",
    }
}

/// What all that did to the flows of clients.
fn say_flows(flows: &BTreeMap<&'static str, FlowCounts>) {
    if flows.values().all(|counts| counts.flows == 0) {
        return;
    }
    say("\nflows of clients, one packet a second each, over the routers' tables:");
    say(&format!(
        "  {:<10}{:>9}{:>12}{:>12}{:>9}{:>9}{:>9}{:>11}",
        "install", "flows", "packets", "unanswered", "lost", "reset", "moved", "needlessly"
    ));
    for (install, counts) in flows {
        say(&format!(
            "  {install:<10}{:>9}{:>12}{:>10.2} %{:>9}{:>9}{:>9}{:>11}",
            counts.flows,
            counts.packets,
            counts.unanswered as f64 * 100.0 / counts.packets.max(1) as f64,
            counts.lost,
            counts.reset,
            counts.moved,
            counts.needless
        ));
    }
}

/// A seed that failed: what, the last events, the smallest plan, and how to see it again.
fn show(arguments: &cli::Sweep, seed: u64, lot: Lot) {
    let case = lot.draw(seed);
    let outcome = play(&case, Tracing::Text(LAST_EVENTS));
    let Some(violation) = outcome.violation.as_ref() else { return };
    say(&format!("\nseed {seed} failed: {violation}"));
    say(&format!("  {}", case.swarm.summary()));
    tell_pending(&outcome);
    say("\nthe last events before that:");
    outcome.last_events.iter().for_each(|line| say(&format!("  {}", cut(line))));
    if !arguments.whole {
        let mut minimiser = Minimiser::new(case, violation.invariant);
        while let Some(next) = minimiser.offer().filter(|_| minimiser.runs() <= MOST_PLANS) {
            minimiser.came(play(&next, Tracing::Off).failed());
        }
        let smallest = minimiser.case();
        say(&format!(
            "\nthe smallest plan that still fails ({} strikes; {} plans tried):",
            smallest.strikes.len(),
            minimiser.runs()
        ));
        smallest.strikes.iter().for_each(|strike| say(&format!("  {strike}")));
        if let Some(violation) = play(smallest, Tracing::Off).violation {
            say(&format!("  then {violation}"));
        }
    }
    say(&format!("\n{}", lot.see_again(seed)));
}

fn tell_pending(outcome: &Outcome) {
    if !outcome.pending.is_empty() {
        say("  still pending:");
        outcome.pending.iter().for_each(|text| say(&format!("    {text}")));
    }
}

/// One seed again; with a trace file, every event of it.
fn replay(arguments: &cli::Sweep, seed: u64, lot: Lot) -> Result<bool, String> {
    let case = lot.draw(seed);
    say(&format!("seed {seed}: {}", case.swarm.summary()));
    case.strikes.iter().for_each(|strike| say(&format!("  {strike}")));
    let begin = Instant::now();
    let tracing =
        if arguments.trace.is_some() { Tracing::Text(usize::MAX) } else { Tracing::Text(LAST_EVENTS) };
    let outcome = play(&case, tracing);
    if let Some(path) = &arguments.trace {
        write_trace(path, &outcome).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    say(&format!(
        "{} events in {} virtual seconds, {} rules asked, {:.2} s; trace hash {}",
        outcome.events,
        outcome.time.as_secs(),
        outcome.looks,
        begin.elapsed().as_secs_f64(),
        outcome.hash
    ));
    say_flows(&BTreeMap::from([(word(case.swarm.install), outcome.flows)]));
    match (&outcome.violation, outcome.recovered) {
        (None, recovered) => {
            let after = recovered.unwrap_or_default().as_secs();
            say(&format!("every invariant held; all was well {after} s after healing"));
        }
        (Some(violation), _) => {
            say(&format!("failed: {violation}"));
            tell_pending(&outcome);
            outcome.last_events.iter().rev().take(LAST_EVENTS).rev().for_each(|line| say(&cut(line)));
        }
    }
    Ok(outcome.violation.is_none())
}

fn write_trace(path: &Path, outcome: &Outcome) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for line in &outcome.last_events {
        writeln!(file, "{line}")?;
    }
    file.flush()
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
